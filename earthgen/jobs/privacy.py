"""What a world says of its inputs: nothing that opens them, and nothing about who made it.

Worlds are passed on. So addresses lose their credentials, and absolute paths become relative to the
folder of the world, from which `recalled_settings` finds them again; a path through the home of a
user becomes the name of the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from earthgen.jobs.job import PATH_FIELDS, Job
from geo_io.redaction import redacted

HOMES = ("home", "Users")
"""Folders that hold a folder of each user."""


def public_settings(settings: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """Return the settings that a world stores, as `stored_settings` gave them."""
    return dict(public(settings, job))


def public(value: Any, job: Job) -> Any:
    """Return JSON values without credentials, absolute paths of inputs, and homes.

    Parameters
    ----------
    value : JSON values
    job : Job
        Names the inputs, and the place of the world.
    """
    names = _names(job)
    home = str(Path.home())
    # In one pass: what stands for a path may have the path of its folder in it.
    paths = re.compile("|".join(map(re.escape, names))) if names else None

    def clean(item: Any) -> Any:
        if isinstance(item, Mapping):
            return {key: clean(inner) for key, inner in item.items()}
        if isinstance(item, list | tuple):
            return [clean(inner) for inner in item]
        if not isinstance(item, str):
            return item
        text = redacted(item)
        if paths is not None:
            text = paths.sub(lambda found: names[found[0]], text)
        return text if len(home) < 2 else text.replace(f"{home}{os.sep}", f"~{os.sep}")

    return clean(value)


def _names(job: Job) -> dict[str, str]:
    """Return absolute paths of a job and what stands for them, the longest first."""
    base = None if "://" in str(job.out) else Path(job.out).resolve().parent
    values: list[Any] = [getattr(job, name) for name in PATH_FIELDS if name != "out"]
    values += [job.conditions, job.geometry_options, job.texture_options]
    found: dict[str, str] = {}
    for text in _texts(values):
        path = Path(text)
        if "://" in text or text.startswith("/vsi") or not path.is_absolute():
            continue
        found[text] = _public_path(path, base)
        # Side files are named in warnings.
        found.setdefault(f"{path.parent}{os.sep}", _folder(path.parent, base))
    return dict(sorted(found.items(), key=lambda pair: -len(pair[0])))


def _texts(value: Any) -> list[str]:
    if isinstance(value, str | Path):
        return [str(value)]
    if isinstance(value, Mapping):
        return _texts(list(value.values()))
    if isinstance(value, list | tuple):
        return [text for item in value for text in _texts(item)]
    return []


def _folder(path: Path, base: Path | None) -> str:
    name = _public_path(path / "x", base)[:-1]
    return "" if name in ("", ".") else name


def _public_path(path: Path, base: Path | None) -> str:
    """Return a path relative to the folder of the world, or the name of the file."""
    if base is None:
        return path.name
    try:
        relative = Path(os.path.relpath(path, base))
    except ValueError:  # on another drive
        return path.name
    down = [part for part in relative.parts if part != ".."]
    common = path.parts[: len(path.parts) - len(down)]
    whose = _home_of(path)
    if whose is not None and len(common) < len(whose.parts):
        return path.name
    return relative.as_posix()


def _home_of(path: Path) -> Path | None:
    """Return the home that a path lies in."""
    home = Path.home()
    if path.is_relative_to(home) and len(home.parts) > 1:
        return home
    if len(path.parts) > 3 and path.parts[1] in HOMES:
        return Path(*path.parts[:3])
    return None
