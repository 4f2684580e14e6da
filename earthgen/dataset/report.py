"""A page about a dataset: pictures and figures of each scene, and what a person should look at."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen.dataset.scene import Scene
from geo_io.legend import palette

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
        "name": info.name,
        "place": info.place,
        "source": info.source,
        "licence": info.licence,
        "grade": info.grade,
        "kind": info.kind,
        "crs": info.frame.crs,
        "vertical_crs": info.frame.vertical_crs,
        "voxel_size": info.frame.voxel_size,
        "bounds": list(info.frame.bounds),
        "held_out": [list(bounds) for bounds in info.held_out],
        **info.quality,
    }


COLUMNS = (
    "scene",
    "grade",
    "km2",
    "voxels",
    "coverage",
    "holes",
    "veg. noise",
    "buildings IoU",
    "colour",
    "seconds",
)


def row(scene: Scene) -> tuple[str, ...]:
    """A scene in a table with `COLUMNS`."""
    q = scene.info.quality
    iou = f"{q['building_iou']:.2f}" if "building_iou" in q else "-"
    return (
        scene.info.name,
        scene.info.grade,
        f"{q['area_km2']:.3f}",
        f"{q['voxels']:,}",
        f"{q['coverage']:.0%}",
        f"{q['holes']:.1%}",
        f"{q['vegetation_noise']:.1%}",
        iou,
        f"{q['coloured']:.0%}",
        f"{q.get('seconds', 0):.1f}",
    )


def write_report(folder: str | Path, scenes: Sequence[Scene]) -> Path:
    """Write `folder`/report: index.html, report.json and a picture a scene. Gives the path of
    the page."""
    out = Path(folder) / FOLDER
    out.mkdir(parents=True, exist_ok=True)
    every = [figures(scene) for scene in scenes]
    (out / "report.json").write_text(json.dumps(every, indent=1) + "\n", "utf-8")
    parts = [
        f"<!doctype html><meta charset=utf-8><title>Dataset</title><style>{_STYLE}</style>",
        "<h1>Dataset</h1>",
    ]
    parts.append(_table(COLUMNS, [row(scene) for scene in scenes]))
    for scene, values in zip(scenes, every, strict=True):
        picture = save_panels(scene, out / f"{scene.info.name}.png")
        parts.append(f"<h2 id='{_text(scene.info.name)}'>{_text(scene.info.name)}</h2>")
        parts.append(
            f"<p>{_text(values['place'])}. {_text(values['source'])}. {_text(values['licence'])}, "
            f"grade {_text(values['grade'])}.</p>"
        )
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
    text.append(
        "classes: "
        + ", ".join(
            f"{name} {share:.1%}"
            for name, share in sorted(values["classes"].items(), key=lambda item: -item[1])
        )
    )
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
        + "".join(f"<td>{_text(cell)}</td>" for cell in cells[1:])
        + "</tr>"
        for cells in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)


PANEL = 640
"""Pixels along the longer side of a panel at most; a column is at least one pixel where that is
larger."""

NO_DATA = (255, 255, 255)
SUN = (-0.5, 0.5, 0.707)
"""Towards the sun: east, north, up. From the north-west, as maps have it."""


def shade(surface: NDArray, voxel_size: float) -> NDArray:
    """(ny, nx) float32 in [0, 1]: light on a surface of absolute heights."""
    south, east = np.gradient(surface.astype(np.float32), voxel_size)
    length = np.sqrt(south * south + east * east + 1)
    return np.asarray(
        np.clip((-east * SUN[0] + south * SUN[1] + SUN[2]) / length, 0, 1), np.float32
    )


def panels(scene: Scene) -> dict[str, NDArray]:
    """(rows, columns, 3) uint8 by title: land cover, heights, image where there is one."""
    valid = scene.layer("valid")
    height, cover = scene.layer("height"), scene.layer("cover")
    light = shade(scene.layer("ground") + height, scene.frame.voxel_size)[..., None]
    grey = np.clip(
        np.sqrt(
            height / max(float(np.percentile(height[valid], 99.5)) if valid.any() else 1.0, 1.0)
        ),
        0,
        1,
    )
    # From dark blue over green to pale yellow: low to high.
    ramp = np.stack(
        [
            np.interp(grey, (0, 0.5, 1), values)
            for values in ((40, 60, 250), (60, 150, 245), (90, 110, 190))
        ],
        2,
    )
    out = {
        "land cover": palette()[cover] * (0.35 + 0.65 * light),
        "height above ground": ramp * (0.35 + 0.65 * light),
    }
    known = scene.layer("image_known")
    if known.any():
        out["colour"] = np.where(known[..., None], scene.layer("image"), np.array(NO_DATA))
    return {
        title: _fit(np.where(valid[..., None], values, np.array(NO_DATA)).astype(np.uint8))
        for title, values in out.items()
    }


def save_panels(scene: Scene, path: str | Path) -> Path:
    """One PNG with all panels side by side."""
    from PIL import Image

    found = list(panels(scene).values())
    gap = np.full((found[0].shape[0], 8, 3), 255, np.uint8)
    row = [part for panel in found for part in (panel, gap)][:-1]
    Image.fromarray(np.concatenate(row, axis=1)).save(path, optimize=True)
    return Path(path)


def _fit(picture: NDArray) -> NDArray:
    """A picture in at most PANEL pixels: averaged, or each cell a square of pixels."""
    from PIL import Image

    longer = max(picture.shape[:2])
    if longer > PANEL:
        size = (
            max(round(picture.shape[1] * PANEL / longer), 1),
            max(round(picture.shape[0] * PANEL / longer), 1),
        )
        return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
    times = max(PANEL // longer, 1)
    return picture.repeat(times, axis=0).repeat(times, axis=1)
