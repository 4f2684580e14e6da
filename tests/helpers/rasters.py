"""Small height rasters and windows for the tests of raster readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.warp
from affine import Affine
from numpy.typing import NDArray

from geo_io.frame import Frame

UTM = "EPSG:32632"
CORNER = (500_000.0, 5_500_000.0)


def write(
    path: Path,
    data: NDArray,
    *,
    size: float = 10.0,
    crs: Any = UTM,
    corner: tuple[float, float] = CORNER,
    transform: Affine | None = None,
    unit: str = "",
    scale: float = 1.0,
    offset: float = 0.0,
    overviews: tuple[int, ...] = (),
    **profile: Any,
) -> Path:
    """A one-band GeoTIFF whose north-west corner is at `corner`."""
    transform = transform or Affine(size, 0, corner[0], 0, -size, corner[1])
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=data.shape[1],
        height=data.shape[0],
        count=1,
        dtype=data.dtype,
        crs=crs,
        transform=transform,
        **profile,
    ) as dataset:
        dataset.write(data, 1)
        if unit:
            dataset.units = (unit,)
        dataset.scales, dataset.offsets = (scale,), (offset,)
    if overviews:
        with rasterio.open(path, "r+") as dataset:
            dataset.build_overviews(list(overviews), rasterio.enums.Resampling.average)
    return path


def hills(shape: tuple[int, int], seed: int = 0, amplitude: float = 40.0) -> NDArray:
    """A smooth random surface (h, w) float32."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]] / 25.0
    waves = [
        np.sin(a * x + b * y + c) / (1 + abs(a) + abs(b))
        for a, b, c in rng.normal(size=(12, 3)) * (1, 1, 9)
    ]
    return (300 + amplitude * sum(waves)).astype(np.float32)


def window(size: float, left: float, bottom: float, nx: int, ny: int, crs: str = UTM) -> Frame:
    i, j = round(left / size), round(bottom / size)
    return Frame(crs, size, (i, i + nx), (j, j + ny))
