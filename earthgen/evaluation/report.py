"""An evaluation on disk: report.json for programs, and report.html for people, one file that
refers to nothing else."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from earthgen.dataset.html import Cell, render_page
from earthgen.evaluation.run import Evaluation
from earthgen.files import disk_error, failures, replace_file

JSON, PAGE = "report.json", "report.html"

QUALITY = 85
"""JPEG quality of the pictures."""

AGREEMENT = {
    "class_iou": ("class IoU", "IoU of the class seen from above, mean over classes", "up"),
    "building_iou": ("building IoU", "IoU of the building mask", "up"),
    "height_w1": ("height W1, m", "Wasserstein-1 distance of the distributions of heights", "down"),
    "building_w1": ("building W1, m", "the same of heights on buildings", "down"),
    "tree_w1": ("tree W1, m", "the same of heights of trees and woods", "down"),
    "height_error": (
        "height error, m",
        "mean difference from the true height of the same column",
        "down",
    ),
    "voxel_iou": ("voxel IoU", "with what stands there in truth", "up"),
    "cell_iou": ("cell IoU", "the same of cells of 8 voxels", "up"),
    "holes": ("holes", "share of columns without a surface voxel", "down"),
}
"""Heading, explanation and which way is better, by the name of a figure of a world."""

OBJECTS = {
    "roof_residual": ("roof residual, m", "mean distance of roofs from local planes"),
    "roof_residual_ratio": ("/ truth", "the figure before, relative to the truth"),
    "roof_spread": ("roof spread, m", "deviation of heights within a building"),
    "roof_spread_ratio": ("/ truth", ""),
    "roof_colour": ("roof colour", "deviation of colours within a roof, of 1"),
    "roof_colour_ratio": ("/ truth", ""),
    "needles": ("needles", "share of columns of buildings that stand 3 m above their building"),
    "above_25": (
        "above 25 m",
        "share of columns of buildings above 25 m, where the truth has none of them",
    ),
    "crown_gaps": ("open crowns", "share of columns of trees with air below the crown"),
    "crown_w1": ("crown W1, m", "Wasserstein-1 distance of the diameters of crowns"),
}
"""Heading and explanation by the name of a figure of objects. Better is what is nearer to the row
"truth"."""

REALISM = {
    "geometry": ("geometry", "statistics of the geometry"),
    "clay_above": ("clay, above", "pictures of geometry and classes from above"),
    "clay_oblique": ("clay, oblique", "the same seen obliquely"),
    "colour_above": (
        "colour, above",
        "pictures in colour from above, where the true colours are known",
    ),
}
"""Heading and explanation by the name of a set of features."""

PARTS = {
    "struct-vae": {
        "accuracy": "accuracy",
        "iou": "IoU, L",
        "f1": "F1, L",
        "iou_cells": "IoU, L/8",
        "f1_cells": "F1, L/8",
        "class_right": "right classes",
        "holes": "holes",
    },
    "tex-vae": {"psnr": "PSNR, dB", "l1": "L1", "ssim": "SSIM", "views": "views"},
    "struct-flow": {
        "iou_cells": "mIoU, L/8",
        "iou_refined": "mIoU, L/8 refined",
        "iou": "mIoU, L",
        "right_cells": "mIoU, L, true cells given",
        "crops": "crops",
    },
}
"""Heading by the name of a figure, by the first part of the names of the rows that have it."""

DIVERSITY = {
    "voxels": "1 − voxel IoU",
    "height": "heights, m",
    "building_height": "on buildings, m",
    "colour": "colours, of 255",
    "voxels_share": "1 − voxel IoU, of that to the truth",
    "height_share": "heights, of those to the truth",
    "building_height_share": "on buildings, of those to the truth",
    "crops": "crops",
}
"""Heading by the name of a figure of diversity."""

HALVES = "two halves of the truth"
"""The row that no candidate can be expected to beat."""

Table = tuple[Sequence[str], list[list[Cell]]]
"""Headings and rows."""


def write_report(evaluation: Evaluation, out: str | Path) -> list[Path]:
    """Write an evaluation as report.json and report.html; older files are replaced.

    Parameters
    ----------
    evaluation : Evaluation
        What `earthgen.evaluation.evaluate` returned.
    out : str | Path
        Folder for the two files. It is created if needed.

    Returns
    -------
    list[Path]
        The paths of report.json and report.html.

    Raises
    ------
    StoreError
        if they cannot be written
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        values = json_values(evaluation.report)
        text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        replace_file(folder, JSON, text.encode())
        replace_file(folder, PAGE, page(evaluation).encode())
    except failures() as error:
        raise disk_error(error, folder) from error
    return [folder / JSON, folder / PAGE]


def json_values(value: Any) -> Any:
    """Values as JSON allows them: NaN and infinite numbers become null."""
    if isinstance(value, Mapping):
        return {str(key): json_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def page(evaluation: Evaluation) -> str:
    """Render an evaluation as an HTML page with its style and pictures inside."""
    report = evaluation.report
    return render_page(
        "earthgen.evaluation",
        "evaluation.html",
        title="Evaluation",
        report=report,
        tables={
            "places": _places(report),
            "reconstruction": _reconstruction(report),
            "worlds": _worlds(report),
            "objects": _objects(report),
            "sampling": _sampling(report),
            "realism": _realism(report),
            "classes": _classes(report),
            "diversity": _diversity(report),
            "seams": _seams(report),
            "time": (
                ["", "s / km²"],
                cells([[name, value] for name, value in report["seconds_per_km2"].items()]),
            ),
        },
        agreement=[(name, text) for name, text, _ in AGREEMENT.values()],
        objects=[(name, text) for name, text in OBJECTS.values() if text],
        realism=list(REALISM.values()),
        reconstructions=[_embedded(row.items()) for row in evaluation.reconstructions],
        pictures=[
            {"title": row["title"], "pictures": _embedded(row["pictures"])}
            for row in evaluation.pictures
        ],
    )


def _places(report: Mapping[str, Any]) -> Table:
    rows = [
        [p["place"], p["crops"], p["kind"], f"{p['licence']} ({p['grade']})", p["source"]]
        for p in report["dataset"]["places"]
    ]
    return ["place", "crops", "kind", "licence", "source"], cells(rows)


def _reconstruction(report: Mapping[str, Any]) -> list[Table]:
    tables: list[Table] = []
    for kind, columns in PARTS.items():
        named = [*report["reconstruction"].items()]
        named += [(f"paper: {name}", row) for name, row in report["paper"].items()]
        rows = [
            [name, *(_figure(report, f"reconstruction: {name}", row, key) for key in columns)]
            for name, row in named
            if name.removeprefix("paper: ").startswith(kind)
        ]
        if any(name.startswith(kind) for name in report["reconstruction"]):
            tables.append(([kind, *columns.values()], cells(rows)))
    return tables


def _worlds(report: Mapping[str, Any]) -> Table:
    rows = [[name, *(row.get(key) for key in AGREEMENT)] for name, row in report["worlds"].items()]
    best = {number + 1: way for number, (_, _, way) in enumerate(AGREEMENT.values())}
    table = cells(rows, best)
    for line, name in zip(table, report["worlds"], strict=True):
        for number, key in enumerate(AGREEMENT):
            line[number + 1] = replace(line[number + 1], small=_ends(report, name, key))
    halves = report["truth_halves"]
    table.append(
        [Cell(HALVES), *(_figure(report, "truth_halves", halves, key) for key in AGREEMENT)]
    )
    return ["", *(name for name, _, _ in AGREEMENT.values())], table


def _objects(report: Mapping[str, Any]) -> Table:
    named = [
        ("truth", "truth", report["truth"]),
        (HALVES, "truth_halves", report["truth_halves"]),
        *((name, name, row) for name, row in report["worlds"].items()),
    ]
    rows = [
        [title, *(_figure(report, name, row, key) for key in OBJECTS)] for title, name, row in named
    ]
    return ["", *(name for name, _ in OBJECTS.values())], cells(rows)


def _sampling(report: Mapping[str, Any]) -> Table | None:
    rows = [
        [f"{name}, {kind}", row["steps"], row["method"], row["guidance"], ", ".join(row["use"])]
        for name, kinds in report["sampling"].items()
        for kind, row in kinds.items()
    ]
    heads = ["", "steps", "method", "guidance", "conditions it takes"]
    return (heads, cells(rows)) if rows else None


def _figure(report: Mapping[str, Any], name: str, row: Mapping[str, Any], key: str) -> Cell:
    """A figure with its interval over places in small print."""
    return Cell(_text(row.get(key)), small=_ends(report, name, key))


def _ends(report: Mapping[str, Any], name: str, key: str) -> str:
    ends = report["intervals"].get(name, {}).get(key)
    return "" if ends is None else f"{number_text(ends[0])} to {number_text(ends[1])}"


def _realism(report: Mapping[str, Any]) -> Table:
    named = [*report["worlds"].items(), (HALVES, report["truth_halves"])]
    # Fréchet distances only where there are crops enough for one.
    columns = [
        (kind, measure)
        for kind in REALISM
        for measure in ("kernel", "frechet")
        if measure == "kernel" or any(f"{kind}_frechet" in row for _, row in named)
    ]
    rows = []
    for name, row in named:
        line: list[Any] = [name]
        for kind, measure in columns:
            value = row.get(f"{kind}_{measure}")
            line.append(_interval(value) if measure == "kernel" else value)
        rows.append(line)
    heads = {"kernel": "kernel", "frechet": "Fréchet"}
    return ["", *(f"{REALISM[kind][0]}: {heads[measure]}" for kind, measure in columns)], cells(
        rows
    )


def _classes(report: Mapping[str, Any]) -> Table:
    classes = report["classes"]
    names = dict.fromkeys(name for row in classes.values() for name in row)
    rows = [
        [name.replace("_", " "), *(row.get(name) for row in classes.values())] for name in names
    ]
    return ["", *classes], cells(rows)


def _diversity(report: Mapping[str, Any]) -> Table | None:
    rows = [
        [name, *(_figure(report, f"diversity: {name}", row, key) for key in DIVERSITY)]
        for name, row in report["diversity"].items()
        if row
    ]
    return (["", *DIVERSITY.values()], cells(rows)) if rows else None


def _seams(report: Mapping[str, Any]) -> Table | None:
    rows = [
        [
            f"{name}, windows of {metres} m",
            _interval(row["height"]),
            _interval(row["colour"]),
            row["places"],
        ]
        for name, by_pitch in report["seams"].items()
        for metres, row in by_pitch.items()
    ]
    heads = ["", "height (lines beside)", "colour (lines beside)", "places"]
    return (heads, cells(rows)) if rows else None


def _interval(estimate: Mapping[str, float | None] | None) -> Cell:
    """A number with its confidence interval in small print."""
    if estimate is None:
        return Cell("")
    if estimate["low"] is None:
        return Cell(number_text(estimate["value"]))
    ends = f"{number_text(estimate['low'])} to {number_text(estimate['high'])}"
    return Cell(number_text(estimate["value"]), small=ends)


def cells(rows: Sequence[Sequence[Any]], best: Mapping[int, str] | None = None) -> list[list[Cell]]:
    """Make the cells of a table, the best number of some columns marked.

    Parameters
    ----------
    rows : Sequence[Sequence[Any]]
        Text, numbers, None for an empty cell, or cells as they shall be.
    best : Mapping[int, str] | None
        "up" or "down" by column: whether its largest or its smallest number is the best.
    """
    marked = {}
    for column, way in (best or {}).items():
        numbers = [
            row[column]
            for row in rows
            if isinstance(row[column], float) and math.isfinite(row[column])
        ]
        if len(numbers) > 1:
            marked[column] = max(numbers) if way == "up" else min(numbers)
    return [
        [
            value
            if isinstance(value, Cell)
            else Cell(_text(value), best=column in marked and value == marked[column])
            for column, value in enumerate(row)
        ]
        for row in rows
    ]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else number_text(value)


def number_text(value: float | None) -> str:
    """A number with three significant digits; a dash for None, NaN and infinity."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return "–"
    if 1 <= abs(value) < 1000:
        return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
    if value == 0 or 0.001 <= abs(value) < 1:
        return f"{value:.3f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1e}"


def _embedded(pictures: Any) -> list[tuple[str, str]]:
    """Pairs (caption, data URL) of pairs (caption, picture)."""
    return [(caption, data_url(image)) for caption, image in pictures]


def data_url(image: NDArray) -> str:
    """Encode a picture as a data URL: as JPEG, or as PNG where that is smaller.

    Parameters
    ----------
    image : NDArray (h, w, 3) uint8
        sRGB.
    """
    encoded = []
    for kind, options in (("jpeg", {"quality": QUALITY}), ("png", {"optimize": True})):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, kind, **options)
        encoded.append((len(buffer.getvalue()), kind, buffer.getvalue()))
    _, kind, data = min(encoded)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
