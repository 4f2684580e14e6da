"""Pictures of a scene for people: what is seen from above, the land cover, and the shaded heights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earthgen.dataset.scene import Scene
from geo_io.legend import palette

PANEL = 640
"""Pixels along the longer side of a panel at most; a column is at least one pixel where that is larger."""

NO_DATA = (255, 255, 255)
SUN = (-0.5, 0.5, 0.707)
"""Towards the sun: east, north, up. From the north-west, as maps have it."""


def shade(surface: NDArray, voxel_size: float) -> NDArray:
    """(ny, nx) float32 in [0, 1]: light on a surface of absolute heights."""
    south, east = np.gradient(surface.astype(np.float32), voxel_size)
    length = np.sqrt(south * south + east * east + 1)
    return np.asarray(np.clip((-east * SUN[0] + south * SUN[1] + SUN[2]) / length, 0, 1), np.float32)


def panels(scene: Scene) -> dict[str, NDArray]:
    """(rows, columns, 3) uint8 by title: land cover, heights, image where there is one."""
    valid = scene.layer("valid")
    height, cover = scene.layer("height"), scene.layer("cover")
    light = shade(scene.layer("ground") + height, scene.frame.voxel_size)[..., None]
    grey = np.clip(np.sqrt(height / max(float(np.percentile(height[valid], 99.5)) if valid.any() else 1.0, 1.0)), 0, 1)
    # From dark blue over green to pale yellow: low to high.
    ramp = np.stack(
        [np.interp(grey, (0, 0.5, 1), values) for values in ((40, 60, 250), (60, 150, 245), (90, 110, 190))], 2
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
        size = (max(round(picture.shape[1] * PANEL / longer), 1), max(round(picture.shape[0] * PANEL / longer), 1))
        return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
    times = max(PANEL // longer, 1)
    return picture.repeat(times, axis=0).repeat(times, axis=1)
