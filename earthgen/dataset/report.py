"""The report of a dataset: figures and pictures of each scene, and remarks for people to check."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from earthgen.dataset.crop_weights import resolution_odds
from earthgen.dataset.html import Cell, render_page
from earthgen.dataset.scene import Scene
from earthgen.staging import staged_folder
from geo_io.legend import palette
from geo_io.safety.access import require_inside

FOLDER = "report"

TABLE_COLUMNS = (
    "scene",
    "grade",
    "km2",
    "voxels",
    "coverage",
    "holes",
    "veg. noise",
    "buildings IoU",
    "colour",
    "native m",
    "odds",
    "seconds",
)

PANEL = 640
"""Longest side of a panel, pixels. Smaller scenes are enlarged by a whole factor."""

NO_DATA = (255, 255, 255)
SUN = (-0.5, 0.5, 0.707)
"""Direction to the sun: east, north, up. It is in the north-west, as usual in maps."""


def write_report(folder: str | Path, scenes: Sequence[Scene]) -> Path:
    """Write `folder`/report: index.html, report.json and a picture of each scene.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    UnsafePathError
        If a link leads out of the dataset there.
    """
    place = Path(folder) / FOLDER
    require_inside(place, Path(folder), str(folder))
    with staged_folder(place, overwrite=True) as out:
        _write(out, scenes)
    return place / "index.html"


def _write(out: Path, scenes: Sequence[Scene]) -> None:
    figures = [scene_figures(scene) for scene in scenes]
    (out / "report.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    rows = [table_row(scene) for scene in scenes]
    page = render_page(
        "earthgen.dataset",
        "dataset.html",
        title="Dataset",
        heads=TABLE_COLUMNS,
        rows=[[Cell(row[0], link=f"#{row[0]}"), *map(Cell, row[1:])] for row in rows],
        scenes=[
            {
                "figures": values,
                "remarks": values.get("remarks", []),
                "picture": save_panels(scene, out / f"{scene.info.name}.png").name,
                "summary": _summary(values),
            }
            for scene, values in zip(scenes, figures, strict=True)
        ],
    )
    (out / "index.html").write_text(page, "utf-8")


def scene_figures(scene: Scene) -> dict[str, Any]:
    """Return what the report says about a scene, as JSON values."""
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
        "resolution_m": round(info.native(), 3),
        "colour_resolution_m": round(info.native("colours"), 3),
        "odds": round(resolution_odds(info.native(), info.frame.voxel_size), 3),
        **info.quality,
    }


def table_row(scene: Scene) -> tuple[str, ...]:
    """Return a scene as a row of a table with `TABLE_COLUMNS`."""
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
        f"{scene.info.native():.2g}",
        f"{resolution_odds(scene.info.native(), scene.frame.voxel_size):.2f}",
        f"{q.get('seconds', 0):.1f}",
    )


def _summary(values: dict[str, Any]) -> str:
    """Return the main figures of a scene as one sentence."""
    parts = [
        f"{values['crs']}, voxels of {values['voxel_size']:g} m, {values['columns']:,} columns"
    ]
    if height := values["height"]:
        parts.append(
            f"heights: median {height['p50']:.1f} m, 99 % below {height['p99']:.1f} m, "
            f"highest {height['max']:.1f} m"
        )
    shares = sorted(values["classes"].items(), key=lambda item: -item[1])
    parts.append("classes: " + ", ".join(f"{name} {share:.1%}" for name, share in shares))
    if shift := values.get("image_shift"):
        east, north = values["image_moved_m"]
        parts.append(
            f"picture as given {shift['east']:+.2f} m east, {shift['north']:+.2f} m north of the "
            f"geometry by {values['image_shift_by']}{'' if shift['sure'] else ' (not sure)'}, "
            f"moved by {east:+.2f}, {north:+.2f} m"
        )
    if cover := values.get("cover_shift"):
        parts.append(
            f"buildings of the land cover {cover['east']:+.0f} m east, {cover['north']:+.0f} m "
            f"north of the heights (IoU {cover['score']:.3f}, unmoved {cover['at_zero']:.3f})"
        )
    return "; ".join(parts) + "."


def save_panels(scene: Scene, path: str | Path) -> Path:
    """Write the panels of a scene side by side as one PNG."""
    images = list(panels(scene).values())
    gap = np.full((images[0].shape[0], 8, 3), 255, np.uint8)
    parts = [part for image in images for part in (image, gap)][:-1]
    Image.fromarray(np.concatenate(parts, axis=1)).save(path, optimize=True)
    return Path(path)


def panels(scene: Scene) -> dict[str, NDArray]:
    """Draw land cover, heights, and colour if there is any.

    Returns
    -------
    dict[str, NDArray]
        (rows, columns, 3) uint8 sRGB by title.
    """
    valid = scene.layer("valid")
    height, cover = scene.layer("height"), scene.layer("cover")
    light = 0.35 + 0.65 * shade(scene.layer("ground") + height, scene.frame.voxel_size)[..., None]
    highest = max(float(np.percentile(height[valid], 99.5)) if valid.any() else 1.0, 1.0)
    grey = np.clip(np.sqrt(height / highest), 0, 1)
    # From dark blue over green to pale yellow: low to high.
    ramp = np.stack(
        [
            np.interp(grey, (0, 0.5, 1), values)
            for values in ((40, 60, 250), (60, 150, 245), (90, 110, 190))
        ],
        2,
    )
    images = {"land cover": palette()[cover] * light, "height above ground": ramp * light}
    known = scene.layer("image_known")
    if known.any():
        images["colour"] = np.where(known[..., None], scene.layer("image"), np.array(NO_DATA))
    return {
        title: _resize(np.where(valid[..., None], values, np.array(NO_DATA)).astype(np.uint8))
        for title, values in images.items()
    }


def shade(surface: NDArray, voxel_size: float) -> NDArray:
    """Shade a surface by the light from `SUN`.

    Parameters
    ----------
    surface : NDArray (ny, nx)
        Absolute heights, metres.
    voxel_size : float
        Metres.

    Returns
    -------
    NDArray (ny, nx) float32
        Light, 0 to 1.
    """
    south, east = np.gradient(surface.astype(np.float32), voxel_size)
    length = np.sqrt(south * south + east * east + 1)
    return np.asarray(
        np.clip((-east * SUN[0] + south * SUN[1] + SUN[2]) / length, 0, 1), np.float32
    )


def _resize(picture: NDArray) -> NDArray:
    """Fit a picture into `PANEL` pixels: averaged, or each cell repeated as a square."""
    longer = max(picture.shape[:2])
    if longer > PANEL:
        size = (
            max(round(picture.shape[1] * PANEL / longer), 1),
            max(round(picture.shape[0] * PANEL / longer), 1),
        )
        return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
    times = max(PANEL // longer, 1)
    return picture.repeat(times, axis=0).repeat(times, axis=1)
