"""An evaluation on disk: report.json for programs, report.html for people, one file without
links to anything else."""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from earthgen.evaluation.evaluate import Evaluation
from earthgen.files import disk_error, failures, replace_file

JSON, PAGE = "report.json", "report.html"

QUALITY = 85
"""Of the pictures' JPEG."""

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
"""Column, explanation, and which way is better, of what is in a row of a world."""

REALISM = {
    "geometry": ("geometry", "statistics of the geometry"),
    "clay_above": ("clay, above", "pictures of geometry and classes from above"),
    "clay_oblique": ("clay, oblique", "the same seen obliquely"),
    "colour_above": (
        "colour, above",
        "pictures in colour from above, where the true colours are known",
    ),
}

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


def write_report(found: Evaluation, out: str | Path) -> list[Path]:
    """Write the two files into the folder `out`, each in one step; older ones are replaced.

    Raises StoreError where they cannot be written.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(plain(found.report), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        replace_file(folder, JSON, text.encode())
        replace_file(folder, PAGE, page(found).encode())
    except failures() as error:
        raise disk_error(error, folder) from error
    return [folder / JSON, folder / PAGE]


def plain(value: Any) -> Any:
    """JSON values: NaN and infinite numbers, which are none, become null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


STYLE = """
:root { color-scheme: light dark;
  --text: #1c2126; --soft: #5d6770; --ground: #ffffff; --line: #d5dade; --mark: #0b6b57; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e7ea; --soft: #9aa4ad; --ground: #15191d; --line: #353c43; --mark: #5fd0b4; }
}
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; background: var(--ground); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; } h3 { font-size: 1rem; margin-bottom: .3rem; }
p, li { max-width: 50rem; } .soft { color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .6rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .7rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; vertical-align: bottom; }
td.best { color: var(--mark); font-weight: 600; } td small { color: var(--soft); }
.row { display: flex; flex-wrap: wrap; gap: .6rem; }
figure { margin: 0; width: 224px; } figure img { width: 100%; display: block; border-radius: 3px; }
figcaption { font-size: .8rem; color: var(--soft); }
"""


def page(found: Evaluation) -> str:
    """The page, whole."""
    report = found.report
    data = report["dataset"]
    parts = [
        "<h1>Evaluation</h1>",
        f"<p>{data['crops']} held-out crops of {data['columns']} × {data['columns']} columns, voxels of "
        f"{data['voxel_size']:g} m, seed {report['settings']['seed']}, earthgen {html.escape(report['earthgen'])}.</p>",
        _weights(report["weights"]),
        _places(data["places"]),
        *(f'<p class="soft">{html.escape(note)}.</p>' for note in report["notes"]),
        _reconstruction(report, found.rebuilt),
        _worlds(report),
        _realism(report),
        _classes(report["classes"]),
        _variety(report),
        _pictures(found.shown),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Evaluation</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )


def _weights(weights: Mapping[str, Any] | None) -> str:
    if weights is None:
        return "<p>No weights: rules and baselines alone.</p>"
    digests = ", ".join(f"{name} {value[:12]}" for name, value in weights["digests"].items())
    title, size, licence = (
        html.escape(weights[key] or "not given") for key in ("title", "preset", "licence")
    )
    return f'<p>Weights: {title}, preset {size}, licence {licence}. <span class="soft">{html.escape(digests)}</span></p>'


def _places(places: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [p["place"], p["crops"], p["kind"], f"{p['licence']} ({p['grade']})", p["source"]]
        for p in places
    ]
    return table(["place", "crops", "kind", "licence", "source"], rows)


def _reconstruction(report: Mapping[str, Any], rebuilt: Sequence[Mapping[str, Any]]) -> str:
    figures = report["reconstruction"]
    if not figures:
        return ""
    out = [
        "<h2>What models give back</h2>",
        '<p class="soft">The rows “paper” are of EarthCrafter (arXiv 2507.16535): another dataset, other sizes, and '
        "for accuracy and mIoU its training data. They say what to aim at, not what is comparable.</p>",
    ]
    for kind, columns in PARTS.items():
        rows = [
            [name, *(row.get(key) for key in columns)]
            for name, row in figures.items()
            if name.startswith(kind)
        ]
        if rows:
            rows += [
                [f"paper: {name}", *(row.get(key) for key in columns)]
                for name, row in report["paper"].items()
                if name.startswith(kind)
            ]
            out.append(table([kind, *columns.values()], rows))
    out += [_gallery(list(row.items())) for row in rebuilt]
    return "\n".join(out)


def _worlds(report: Mapping[str, Any]) -> str:
    rows = [[name, *(row.get(key) for key in AGREEMENT)] for name, row in report["worlds"].items()]
    best = {number + 1: way for number, (_, _, way) in enumerate(AGREEMENT.values())}
    return "\n".join(
        [
            "<h2>Worlds against their condition</h2>",
            "<p>All are made of the same land cover and ground.</p>",
            table(["", *(name for name, _, _ in AGREEMENT.values())], rows, best),
            _legend((name, text) for name, text, _ in AGREEMENT.values()),
        ]
    )


def _realism(report: Mapping[str, Any]) -> str:
    rows, floor = [], report["floor"]
    for name, row in [*report["worlds"].items(), ("two halves of the truth", floor)]:
        cells: list[Any] = [name]
        for kind in REALISM:
            cells += [row.get(f"{kind}_frechet"), _interval(row.get(f"{kind}_kernel"))]
        rows.append(cells)
    heads = [head for name, _ in REALISM.values() for head in (f"{name}: Fréchet", "kernel (95 %)")]
    return "\n".join(
        [
            "<h2>Realism</h2>",
            "<p>Distances of the distributions of features over crops from those of the truth; smaller is better. The "
            "kernel distance is unbiased: about 0 where nothing can be told apart, its interval is the jackknife's. The "
            "Fréchet distance is too large by what few crops leave unknown; compare it within this table alone. The halves "
            "of the truth have half as many crops, so their Fréchet distance is larger still.</p>",
            table(["", *heads], rows),
            _legend(REALISM.values()),
        ]
    )


def _interval(found: Mapping[str, float] | None) -> str:
    if found is None:
        return ""
    ends = f"{number(found['low'])} to {number(found['high'])}"
    return Markup(f"{number(found['value'])} <small>{ends}</small>")


def _classes(classes: Mapping[str, Mapping[str, float]]) -> str:
    names = list(dict.fromkeys(name for row in classes.values() for name in row))
    rows = [
        [name.replace("_", " "), *(row.get(name) for row in classes.values())] for name in names
    ]
    return "<h2>Classes seen from above, IoU</h2>\n" + table(["", *classes], rows)


def _variety(report: Mapping[str, Any]) -> str:
    out = []
    if any(report["diversity"].values()):
        heads = {
            "voxels": "1 − voxel IoU",
            "height": "heights, m",
            "building_height": "on buildings, m",
            "colour": "colours, of 255",
            "crops": "crops",
        }
        rows = [
            [name, *(row.get(key) for key in heads)]
            for name, row in report["diversity"].items()
            if row
        ]
        out += [
            "<h2>Diversity</h2>",
            f"<p>Mean difference of the worlds of two of {report['settings']['seeds']} seeds on the same map.</p>",
            table(["", *heads.values()], rows),
        ]
    rows = [
        [
            f"{name}, windows of {metres} m",
            _interval(row["height"]),
            _interval(row["colour"]),
            row["places"],
        ]
        for name, found in report["seams"].items()
        for metres, row in found.items()
    ]
    if rows:
        out += [
            "<h2>Seams</h2>",
            "<p>Mean jump between neighbouring columns across borders of windows, by that elsewhere in the same "
            "places, and the range in which 95 % of the lines beside the borders lie: above it is a seam. The truth "
            "has no windows.</p>",
            table(["", "height (lines beside)", "colour (lines beside)", "places"], rows),
        ]
    seconds = [[name, value] for name, value in report["seconds_per_km2"].items()]
    out += [
        "<h2>Time</h2>",
        "<p>Of making the crops, on the machine of this report; backends make whole windows around each crop, so this "
        "is no throughput.</p>",
        table(["", "s / km²"], seconds),
    ]
    return "\n".join(out)


def _pictures(shown: Iterable[Mapping[str, Any]]) -> str:
    out = ["<h2>Pictures</h2>"]
    for row in shown:
        out += [f"<h3>{html.escape(row['title'])}</h3>", _gallery(row["pictures"])]
    return "\n".join(out)


def _gallery(pictures: Sequence[tuple[str, NDArray]]) -> str:
    figures = [
        f'<figure><img alt="{html.escape(caption)}" src="{embedded(image)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for caption, image in pictures
    ]
    return f'<div class="row">{"".join(figures)}</div>'


def _legend(items: Iterable[tuple[str, str]]) -> str:
    return (
        '<p class="soft">'
        + "; ".join(f"{html.escape(a)}: {html.escape(b)}" for a, b in items)
        + ".</p>"
    )


def table(
    heads: Sequence[str], rows: Sequence[Sequence[Any]], best: Mapping[int, str] | None = None
) -> str:
    """An HTML table.

    rows : of text, numbers and None; best : "up" or "down" by column: whose largest or smallest
        number is marked
    """
    marked = {}
    for column, way in (best or {}).items():
        known = [
            row[column]
            for row in rows
            if isinstance(row[column], float) and math.isfinite(row[column])
        ]
        if len(known) > 1:
            marked[column] = max(known) if way == "up" else min(known)
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    lines = []
    for row in rows:
        cells = []
        for column, value in enumerate(row):
            kind = ' class="best"' if column in marked and value == marked[column] else ""
            cells.append(f"<td{kind}>{_cell(value)}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def _cell(value: Any) -> str:
    if isinstance(value, Markup):
        return value
    return html.escape(value) if isinstance(value, str) else "" if value is None else number(value)


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def number(value: float | None) -> str:
    """Three digits that count, never more than a person reads; a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return "–"
    if value == 0 or 0.001 <= abs(value) < 1000:
        return (
            f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
            if abs(value) >= 1
            else f"{value:.3f}"
        )
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1e}"


def embedded(image: NDArray) -> str:
    """(h, w, 3) uint8 as a data URL: JPEG, or PNG where that is smaller, as for flat maps."""
    from PIL import Image

    sizes = []
    for kind, options in (("jpeg", {"quality": QUALITY}), ("png", {"optimize": True})):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, kind, **options)
        sizes.append((len(buffer.getvalue()), kind, buffer.getvalue()))
    _, kind, data = min(sizes)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
