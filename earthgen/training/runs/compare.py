"""Runs side by side: the settings that differ, lengths, figures of held-out crops, and curves."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earthgen.errors import TrainingError
from earthgen.files import replace_file
from earthgen.models.presets import PARTS
from earthgen.models.weights.format import part_path, read_header
from earthgen.training.checkpoint import checkpoints, read_state
from earthgen.training.log import CSV, read_log, series
from earthgen.training.plot import comparison_picture
from earthgen.training.runs.initial import WEIGHTS
from geo_io.safety.damage import damaged_file

HELD_OUT = "held_out."

LENGTHS = ("steps", "seconds", "torch")
"""Recorded with the settings of a part, and shown apart or not at all."""


@dataclass(frozen=True)
class PartRecord:
    """What a run has recorded of a part.

    Attributes
    ----------
    settings : mapping
        Settings, digests of the dataset and of the weights that the part started from.
    steps, minutes : int, float
        Length of the training so far.
    figures : mapping of str to float
        The newest figures of held-out crops.
    rows : list of dict
        Rows of metrics.csv.
    """

    settings: Mapping[str, Any]
    steps: int
    minutes: float
    figures: Mapping[str, float]
    rows: list[dict[str, str]]


def read_run(folder: Path) -> dict[str, PartRecord]:
    """Return what a run has recorded, by part, finished or not.

    Raises
    ------
    TrainingError
        If the folder has no part of a training.
    """
    result = {}
    for part in PARTS:
        rows = read_log(folder / part / CSV)
        if not rows:
            continue
        problem = f"what {folder} records of {part} is damaged"
        with damaged_file(problem, "remove the folder of that part", TrainingError):
            result[part] = _read_part(folder, part, rows)
    if not result:
        raise TrainingError(
            f"{folder} is not the folder of a run: no part has a {CSV}",
            "give folders that `earthgen train --out` wrote",
        )
    return result


def _read_part(folder: Path, part: str, rows: list[dict[str, str]]) -> PartRecord:
    newest = checkpoints(folder / part)[-1:]
    weights = part_path(folder / WEIGHTS, part)
    settings: dict[str, Any] = {}
    steps, seconds = int(float(rows[-1]["step"])), (series(rows, "seconds")[1] or [0.0])[-1]
    if newest:
        about = read_state(newest[0])
        settings, steps, seconds = about["identity"], about["step"], about["seconds"]
    elif weights.is_file():
        settings = dict(read_header(weights).settings)
    figures = {
        name.removeprefix(HELD_OUT): series(rows, name)[1][-1]
        for name in dict.fromkeys(name for row in rows for name in row)
        if name.startswith(HELD_OUT) and series(rows, name)[1]
    }
    minutes = float(seconds) / 60
    if not math.isfinite(minutes):
        raise ValueError(f"{seconds} seconds")
    return PartRecord(
        {name: value for name, value in settings.items() if name not in LENGTHS},
        int(steps),
        minutes,
        figures,
        rows,
    )


def compare_runs(folders: Sequence[Path]) -> dict[str, Any]:
    """Compare runs.

    Parameters
    ----------
    folders : sequence of Path
        Folders of two runs or more.

    Returns
    -------
    dict
        JSON values: "runs", the names; "parts", by part "steps", "minutes", "settings" (those that
        differ) and "figures", each with a value per run, None where a run has none.

    Raises
    ------
    TrainingError
        If there are fewer than two, or one is no run.
    """
    if len(folders) < 2:
        raise TrainingError("one run cannot be compared", "give two runs or more")
    runs = [read_run(folder) for folder in folders]
    parts = {}
    for part in PARTS:
        records = [run.get(part) for run in runs]
        if not any(records):
            continue
        names = _names([record.settings for record in records if record is not None])
        settings = {name: [r.settings.get(name) if r else None for r in records] for name in names}
        there = [number for number, record in enumerate(records) if record is not None]
        parts[part] = {
            "steps": [record.steps if record else None for record in records],
            "minutes": [round(record.minutes, 2) if record else None for record in records],
            "settings": {
                name: values
                for name, values in settings.items()
                if any(values[number] != values[there[0]] for number in there)
            },
            "figures": {
                name: [record.figures.get(name) if record else None for record in records]
                for name in _names([record.figures for record in records if record is not None])
            },
        }
    return {"runs": run_names(folders), "parts": parts}


def run_names(folders: Sequence[Path]) -> list[str]:
    """Return short names of folders: the last words of their paths that tell them apart."""
    whole = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(len(parts) for parts in whole) + 1):
        names = ["/".join(parts[-depth:]) for parts in whole]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def write_page(folders: Sequence[Path], path: Path) -> None:
    """Write a comparison as one HTML file, with the curves of all runs in one picture per part."""
    found = compare_runs(folders)
    names, runs = found["runs"], [read_run(folder) for folder in folders]
    lines = [
        "<!doctype html><meta charset=utf-8><title>Comparison of runs</title>",
        "<style>body{font:15px sans-serif;margin:2em;max-width:80em}table{border-collapse:collapse}"
        "td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}"
        "td:first-child,th:first-child{text-align:left}img{max-width:100%}</style>",
        f"<h1>{html.escape(' and '.join(names))}</h1>",
    ]
    for part, values in found["parts"].items():
        lines += [f"<h2>{part}</h2>", "<table>", _row("th", ["", *names])]
        for name, row in table_rows(values):
            lines.append(_row("td", [name, *row]))
        rows = {n: run[part].rows for n, run in zip(names, runs, strict=True) if part in run}
        picture = base64.b64encode(comparison_picture(rows, part)).decode()
        lines += ["</table>", f'<img alt="curves of {part}" src="data:image/png;base64,{picture}">']
    replace_file(path.parent, path.name, "\n".join(lines).encode())


def table_rows(values: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return the rows of a part's table: lengths, settings that differ, figures."""
    rows = [("steps", values["steps"]), ("minutes", values["minutes"])]
    rows += list(values["settings"].items()) + list(values["figures"].items())
    return [(name, [value_text(value) for value in row]) for name, row in rows]


def value_text(value: Any) -> str:
    """Write a value of a comparison; digests are shortened."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) < 40 else f"{text[:12]}..."


def _row(kind: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in cells) + "</tr>"


def _names(mappings: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))
