"""An evaluation on disk: report.json for programs, and report.html for people, one file that
refers to nothing else."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
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
    "crops": "crops",
}
"""Heading by the name of a figure of diversity."""

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
            [name, *(row.get(key) for key in columns)]
            for name, row in named
            if name.removeprefix("paper: ").startswith(kind)
        ]
        if any(name.startswith(kind) for name in report["reconstruction"]):
            tables.append(([kind, *columns.values()], cells(rows)))
    return tables


def _worlds(report: Mapping[str, Any]) -> Table:
    rows = [[name, *(row.get(key) for key in AGREEMENT)] for name, row in report["worlds"].items()]
    best = {number_text + 1: way for number_text, (_, _, way) in enumerate(AGREEMENT.values())}
    return ["", *(name for name, _, _ in AGREEMENT.values())], cells(rows, best)


def _realism(report: Mapping[str, Any]) -> Table:
    rows = []
    for name, row in [
        *report["worlds"].items(),
        ("two halves of the truth", report["truth_halves"]),
    ]:
        line: list[Any] = [name]
        for kind in REALISM:
            line += [row.get(f"{kind}_frechet"), _interval(row.get(f"{kind}_kernel"))]
        rows.append(line)
    heads = [head for name, _ in REALISM.values() for head in (f"{name}: Fréchet", "kernel (95 %)")]
    return ["", *heads], cells(rows)


def _classes(report: Mapping[str, Any]) -> Table:
    classes = report["classes"]
    names = dict.fromkeys(name for row in classes.values() for name in row)
    rows = [
        [name.replace("_", " "), *(row.get(name) for row in classes.values())] for name in names
    ]
    return ["", *classes], cells(rows)


def _diversity(report: Mapping[str, Any]) -> Table | None:
    rows = [
        [name, *(row.get(key) for key in DIVERSITY)]
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


def _interval(estimate: Mapping[str, float] | None) -> Cell:
    """A number with its confidence interval in small print."""
    if estimate is None:
        return Cell("")
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
