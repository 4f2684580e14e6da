"""A page about a dataset: pictures and figures of each scene, and what a person should look at."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from earthgen.dataset.pictures import save_panels
from earthgen.dataset.scene import Scene

FOLDER = "report"

_STYLE = """\
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1180px; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; } td, th { padding: 2px 10px; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr:nth-child(even) { background: #f4f4f2; }
img { max-width: 100%; } .remark { color: #a33; } .small { color: #666; font-size: 13px; }
"""


def figures(scene: Scene) -> dict[str, Any]:
    """What the report says of a scene, as plain values."""
    info = scene.info
    return {
        "name": info.name, "place": info.place, "source": info.source, "licence": info.licence, "grade": info.grade,
        "kind": info.kind, "crs": info.frame.crs, "vertical_crs": info.frame.vertical_crs,
        "voxel_size": info.frame.voxel_size, "bounds": list(info.frame.bounds),
        "held_out": [list(bounds) for bounds in info.held_out], **info.quality,
    }  # fmt: skip


COLUMNS = ("scene", "grade", "km2", "voxels", "coverage", "holes", "veg. noise", "buildings IoU", "colour", "seconds")


def row(scene: Scene) -> tuple[str, ...]:
    """A scene in a table with `COLUMNS`."""
    q = scene.info.quality
    iou = f"{q['building_iou']:.2f}" if "building_iou" in q else "-"
    return (
        scene.info.name, scene.info.grade, f"{q['area_km2']:.3f}", f"{q['voxels']:,}", f"{q['coverage']:.0%}",
        f"{q['holes']:.1%}", f"{q['vegetation_noise']:.1%}", iou, f"{q['coloured']:.0%}", f"{q.get('seconds', 0):.1f}",
    )  # fmt: skip


def write_report(folder: str | Path, scenes: Sequence[Scene]) -> Path:
    """Write `folder`/report: index.html, report.json and a picture a scene. Gives the path of the page."""
    out = Path(folder) / FOLDER
    out.mkdir(parents=True, exist_ok=True)
    every = [figures(scene) for scene in scenes]
    (out / "report.json").write_text(json.dumps(every, indent=1) + "\n", "utf-8")
    parts = [f"<!doctype html><meta charset=utf-8><title>Dataset</title><style>{_STYLE}</style>", "<h1>Dataset</h1>"]
    parts.append(_table(COLUMNS, [row(scene) for scene in scenes]))
    for scene, values in zip(scenes, every, strict=True):
        picture = save_panels(scene, out / f"{scene.info.name}.png")
        parts.append(f"<h2 id='{_text(scene.info.name)}'>{_text(scene.info.name)}</h2>")
        parts.append(f"<p>{_text(values['place'])}. {_text(values['source'])}. {_text(values['licence'])}, "
                     f"grade {_text(values['grade'])}.</p>")  # fmt: skip
        parts += [f"<p class=remark>{_text(remark)}</p>" for remark in values.get("remarks", [])]
        parts.append(
            f"<img src='{_text(picture.name)}' alt='land cover, heights and colour of {_text(scene.info.name)}'>"
        )
        parts.append(f"<p class=small>{_text(_sentence(values))}</p>")
    (out / "index.html").write_text("\n".join(parts) + "\n", "utf-8")
    return out / "index.html"


def _sentence(values: dict[str, Any]) -> str:
    height = values["height"]
    text = [f"{values['crs']}, voxels of {values['voxel_size']:g} m, {values['columns']:,} columns"]
    if height:
        text.append(
            f"heights: median {height['p50']:.1f} m, 99 % below {height['p99']:.1f} m, highest {height['max']:.1f} m"
        )
    text.append("classes: " + ", ".join(f"{name} {share:.1%}" for name, share in sorted(
        values["classes"].items(), key=lambda item: -item[1])))  # fmt: skip
    shift = values.get("image_shift")
    if shift:
        text.append(
            f"picture as given {shift['east']:+.2f} m east, {shift['north']:+.2f} m north of the geometry by "
            f"{values['image_shift_by']}{'' if shift['sure'] else ' (not sure)'}, moved by "
            f"{values['image_moved_m'][0]:+.2f}, {values['image_moved_m'][1]:+.2f} m"
        )
    cover = values.get("cover_shift")
    if cover:
        text.append(
            f"buildings of the land cover {cover['east']:+.0f} m east, {cover['north']:+.0f} m north of the heights "
            f"(IoU {cover['score']:.3f}, unmoved {cover['at_zero']:.3f})"
        )
    return "; ".join(text) + "."


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr><td><a href='#{_text(cells[0])}'>{_text(cells[0])}</a></td>"
        + "".join(f"<td>{_text(cell)}</td>" for cell in cells[1:]) + "</tr>"
        for cells in rows
    )  # fmt: skip
    return f"<table><tr>{head}</tr>{body}</table>"


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)
