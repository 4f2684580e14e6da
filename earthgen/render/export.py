"""A world in another format: an exporter with its options, files that appear when they are
complete, and a STAC item beside them."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earthgen.errors import JobError
from earthgen.files import replace_file
from earthgen.plugins import Plugins, load
from earthgen.progress import Progress
from earthgen.staging import publish, require_file_place, require_folder_place, staging_folder
from geo_io.frame import Bounds

if TYPE_CHECKING:
    from earthgen.hookspecs import Offer
    from earthgen.world.world import World

STEM = "world"
"""Beginning of the names of an exporter's files that `--out town.glb` replaces by "town"."""

ITEM = ".stac.json"
"""Ending of the name of the STAC item beside an export."""


@dataclass(frozen=True)
class Target:
    """Where an export goes.

    Attributes
    ----------
    path : Path
        A folder, or the name of a file.
    suffix : str
        The ending of the file's name, such as ".glb"; "" of a folder.
    format_name : str
    """

    path: Path
    suffix: str
    format_name: str

    @property
    def folder(self) -> Path:
        """The folder that the files are in."""
        return self.path.parent if self.suffix else self.path

    @property
    def item(self) -> Path:
        """The STAC item: formats in one folder have one each."""
        name = self.path.name if self.suffix else self.format_name
        return self.folder / f"{name}{ITEM}"

    def rename(self, name: str) -> str:
        """Return the final name of one of the exporter's files."""
        if not self.suffix or not name.startswith(STEM):
            return name
        return self.path.name[: -len(self.suffix)] + name.removeprefix(STEM)


def export_world(
    world: World,
    format_name: str,
    out: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    bounds: Bounds | None = None,
    level: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
    plugins: Plugins | None = None,
) -> list[Path]:
    """Write a world, or a part of it, in another format.

    Nothing appears under its final name before all of it is complete.

    Parameters
    ----------
    world : World
    format_name : str
        Of `earthgen doctor`'s list of exporters, such as "cog".
    out : path
        A folder. Of a format that can be one file, also the name of that file, such as "town.glb".
    options : mapping, optional
        Of the exporter: `earthgen export --format NAME --help-options` lists them.
    bounds : tuple of float, optional
        Left, bottom, right, top in metres of the CRS; by default the whole world.
    level : int
        1, 2, 4 or 8 times the voxel size.
    overwrite : bool
        Replace what an earlier export of the format wrote at `out`, and files of the same names.
    progress : Progress, optional
        Told of each step.
    plugins : Plugins, optional
        Those of this process by default.

    Returns
    -------
    list of Path
        The files and folders, and last the STAC item.

    Raises
    ------
    UnknownNameError
        If no plugin offers the format.
    JobError
        If an option is wrong, or `out` is the name of another kind of file.
    StoreExistsError
        If there is something at `out`, and `overwrite` is not given.
    StoreError, RegionError
        If the world has no such level, no finished tile, or nothing within the bounds; if the files
        cannot be written.
    """
    from earthgen.render.stac import stac_item
    from earthgen.world.selection import select

    plugins = plugins or load()
    target = target_of(out, format_name, plugins)
    if options and plugins.options_of("exporter", format_name) is None:
        raise JobError(f"the format {format_name} takes no options", "leave them out")
    exporter = plugins.create("exporter", format_name, **(options or {}))
    require_target_free(target, overwrite)
    frame = select(world, bounds, level).frame  # what is wrong with the part is said first
    resume = None
    if getattr(exporter, "resumes", False):
        resume = {
            "format": format_name,
            "options": {name: str(value) for name, value in (options or {}).items()},
            "bounds": bounds,
            "level": level,
            "world": world.digest(),
        }
    with staging_folder(target.path, resume) as folder:
        written = exporter.export(
            world, folder, bounds=bounds, level=level, progress=progress or Progress()
        )
        relative = [Path(path).relative_to(folder) for path in written]
        names = {path.name: target.rename(path.name) for path in folder.iterdir()}
        files = [Path(names[part.parts[0]], *part.parts[1:]) for part in relative]
        item = stac_item(
            world,
            frame,
            level,
            target.item.name.removesuffix(ITEM),
            format_name,
            {final.as_posix(): folder / part for final, part in zip(files, relative, strict=True)},
        )
        entries = list(dict.fromkeys([*(path.parts[0] for path in files), target.item.name]))
        item["properties"]["earthgen:files"] = entries
        text = json.dumps(item, indent=1, ensure_ascii=False)
        replace_file(folder, target.item.name, text.encode())
        publish(
            folder,
            target.folder,
            overwrite=overwrite,
            names=names,
            earlier=earlier_files(target) if overwrite else (),
        )
    return [*(target.folder / path for path in files), target.item]


def target_of(out: str | Path, format_name: str, plugins: Plugins) -> Target:
    """Say what `out` means for a format: a folder, or the name of a file.

    Raises
    ------
    UnknownNameError
        If no plugin offers the format.
    JobError
        If `out` is the name of another kind of file.
    """
    path = Path(out)
    offer = plugins.offer("exporter", format_name)
    suffix = suffix_of(path, offer)
    if suffix or path.is_dir():
        return Target(path, suffix, format_name)
    if path.suffix and is_file_name(path, plugins):
        own = " or ".join(offer.suffixes)
        raise JobError(
            f"{path} is the name of a file, but the format {format_name} writes "
            + (f"{own} files" if own else "a folder of files"),
            f"give a name that ends with {own}, or a folder"
            if own
            else "give the name of a folder",
        )
    return Target(path, "", format_name)


def format_of(out: str | Path, plugins: Plugins) -> str:
    """Return the only format whose files have the ending of `out`.

    Raises
    ------
    JobError
        If none or several have it.
    """
    path = Path(out)
    offers = plugins.offers("exporter")
    fitting = {name: suffix_of(path, offer) for name, offer in offers.items()}
    longest = max(map(len, fitting.values()), default=0)
    names = sorted(name for name, suffix in fitting.items() if suffix and len(suffix) == longest)
    if len(names) == 1:
        return names[0]
    known = ", ".join(sorted(offers))
    if names:
        problem = f"the name {path} does not say which of {', '.join(names)} to write"
    else:
        problem = f"the name {path} does not say which format to write"
    raise JobError(problem, f"give `format_name`: {known}")


def suffix_of(path: Path, offer: Offer) -> str:
    """Return the longest of an offer's endings that a name has; "" if it has none, or no stem."""
    name = path.name.lower()
    fitting = [one for one in offer.suffixes if name.endswith(one) and len(name) > len(one)]
    longest = max(fitting, key=len, default="")
    return path.name[-len(longest) :] if longest else ""


def is_file_name(path: Path, plugins: Plugins) -> bool:
    """Return whether a name has the ending of a kind of file, such as .tif."""
    if any(suffix_of(path, offer) for offer in plugins.offers("exporter").values()):
        return True
    return mimetypes.guess_type(path.name)[0] is not None


def require_target_free(target: Target, overwrite: bool) -> None:
    """Raise StoreExistsError if an export would replace something that it must not."""
    if target.suffix:
        require_file_place(target.path, overwrite)
    else:
        require_folder_place(target.path, overwrite)


def earlier_files(target: Target) -> list[str]:
    """Return the names that the item of an earlier export of the same format lists."""
    try:
        item = json.loads(target.item.read_text("utf-8"))
        names = item["properties"]["earthgen:files"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
