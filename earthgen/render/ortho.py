"""Ortho images: the Gaussians of a world from above in their stored colours, georeferenced, of any
size."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from earthgen.errors import JobError
from earthgen.progress import Progress
from earthgen.render.pictures import WINDOW, draw
from earthgen.splats.cameras.camera import Camera, map_view
from earthgen.world.world import World
from geo_io.frame import Bounds, Frame, snap
from geo_io.layers import Raster
from geo_io.raster.geotiff import CogWriter

FAR = 20_000.0
"""Metres above and below the middle of the world's ground within which everything is drawn."""

MOST_PIXELS = 2**31 - 1
"""Largest edge of a GeoTIFF, pixels."""


def ortho_view(
    world: World, metres_per_pixel: float, bounds: Bounds | None = None
) -> tuple[Frame, Camera]:
    """Compute the frame of an ortho image, and its camera.

    Pixels lie on the lattice of `metres_per_pixel` from the origin of the CRS, so that images of
    neighbouring parts match. The image covers the part of the world within `bounds`.

    Raises
    ------
    JobError
        If the size of pixels is not positive, or so small that the image has too many.
    RegionError
        If the bounds are empty or outside the world.
    """
    if not (metres_per_pixel > 0 and math.isfinite(metres_per_pixel)):
        raise JobError(
            f"pixels of {metres_per_pixel} metres are not possible", "give a positive number"
        )
    part = world.part(1, bounds)
    extent = max(part.bounds[2] - part.bounds[0], part.bounds[3] - part.bounds[1])
    if extent / metres_per_pixel > MOST_PIXELS:
        raise JobError(
            f"pixels of {metres_per_pixel} metres are too small for a world of {extent:,.0f} m",
            "give a larger pixel size",
        )
    ranges = snap(part.bounds, metres_per_pixel)
    frame = Frame(part.crs, metres_per_pixel, ranges["x"], ranges["y"], (0, 1), part.vertical_crs)
    camera = map_view(
        frame.bounds, metres_per_pixel, 0.0, crs=part.crs, vertical_crs=part.vertical_crs
    )
    return frame, replace(camera, width=frame.nx, height=frame.ny, near=-FAR, far=FAR)


def write_ortho(
    world: World,
    path: str | Path,
    metres_per_pixel: float,
    *,
    bounds: Bounds | None = None,
    level: int | None = None,
    window: int = WINDOW,
    rasterizer: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write an ortho image as cloud-optimised GeoTIFF of RGBA, window by window. Return its path.

    Memory does not grow with the image. Alpha is 255 where Gaussians cover more than half of a
    pixel and 0 elsewhere, so that the world is not transparent on a map. The other options are
    those of `earthgen.render.pictures.draw`.

    Raises
    ------
    JobError, RegionError
        As in `ortho_view`.
    StoreError
        If the world has no such level, or no finished tile there.
    InputError
        If the file cannot be written.
    """
    frame, camera = ortho_view(world, metres_per_pixel, bounds)
    with CogWriter(
        path, frame, np.uint8, 4, band_names=("red", "green", "blue", "alpha")
    ) as writer:
        for part in draw(
            world,
            camera,
            bounds=bounds,
            level=level,
            window=window,
            rasterizer=rasterizer,
            progress=progress,
        ):
            alpha = part.rendering.alpha.numpy()
            colour = part.rendering.rgb.numpy() / np.maximum(alpha, 1e-6)[..., None]
            rgba = np.concatenate([colour, alpha[..., None] > 0.5], axis=2)
            data = np.rint(np.clip(rgba, 0, 1) * 255).astype(np.uint8)
            h, w = alpha.shape
            x, y = frame.x[0] + part.column, frame.y[1] - part.row
            writer.write(Raster(replace(frame, x=(x, x + w), y=(y - h, y)), data))
    return Path(path)
