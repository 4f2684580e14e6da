"""Made-up places for the tests of datasets: a village as rasters, points and a picture, with known
faults."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import laspy
import numpy as np
import pyproj
import rasterio
from affine import Affine

from earthgen.dataset.builders.surface import Columns, height_field
from earthgen.dataset.scene import Scene, SceneInfo, write_scene
from geo_io.frame import Frame
from geo_io.legend import codes

CRS = "EPSG:32632"
EAST, NORTH = 640_000, 5_560_000
SIZE = 96
"""Metres along an edge of the village."""


def hash01(*values: np.ndarray) -> np.ndarray:
    """Values in [0, 1) that look random, by integer place."""
    state = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        for value in values:
            state = (state ^ np.asarray(value).astype(np.int64).astype(np.uint64)) * np.uint64(
                0xBF58476D1CE4E5B9
            )
            state ^= state >> np.uint64(29)
    return (state >> np.uint64(11)).astype(np.float64) / 2**53


def village(size: int = SIZE) -> dict[str, np.ndarray]:
    """(size, size) arrays, a metre a cell, rows from the north: ground, built, canopy, cover
    (codes), image."""
    row, col = np.mgrid[0:size, 0:size]
    ground = (100 + 0.05 * col + 0.03 * row).astype(np.float32)
    built, canopy = np.zeros((size, size), np.float32), np.zeros((size, size), np.float32)
    cover = np.full((size, size), codes()["grass"], np.uint8)
    cover[:, 40:46] = codes()["road"]
    for r, c, h, w, tall in (
        (8, 10, 14, 20, 8.0),
        (50, 12, 18, 12, 12.0),
        (20, 56, 24, 16, 6.0),
        (66, 60, 12, 26, 9.0),
    ):
        built[r : r + h, c : c + w] = tall
        cover[r : r + h, c : c + w] = codes()["building"]
    for r, c in ((40, 20), (84, 30), (10, 80), (52, 84)):
        inside = (row - r) ** 2 + (col - c) ** 2 < 25
        canopy[inside] = (7 + 3 * hash01(row, col))[inside]
        cover[inside] = codes()["tree"]
    image = np.zeros((size, size, 3), np.uint8)
    image[:] = (70, 120, 60)
    image[cover == codes()["road"]] = (120, 120, 125)
    for number, (r, c, h, w) in enumerate(
        ((8, 10, 14, 20), (50, 12, 18, 12), (20, 56, 24, 16), (66, 60, 12, 26))
    ):
        image[r : r + h, c : c + w] = (
            (200, 90, 70),
            (180, 180, 190),
            (90, 80, 75),
            (210, 190, 160),
        )[number]
    image[canopy > 0] = (30, 80, 35)
    noise = (hash01(row, col, 3) * 6).astype(np.uint8)[..., None]
    return {
        "ground": ground,
        "built": built,
        "canopy": canopy,
        "cover": cover,
        "image": image + noise,
    }


def write_raster(
    path: Path,
    values: np.ndarray,
    *,
    cell: float = 1.0,
    crs: str | None = CRS,
    shift: tuple[float, float] = (0, 0),
    nodata: float | None = None,
) -> Path:
    """A GeoTIFF whose north-west corner is the village's, moved by metres east and north."""
    bands = values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)
    transform = Affine(cell, 0, EAST + shift[0], 0, -cell, NORTH + SIZE + shift[1])
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=bands.shape[2],
        height=bands.shape[1],
        count=len(bands),
        dtype=bands.dtype,
        crs=crs,
        transform=transform,
        nodata=nodata,
        **({"photometric": "RGB"} if len(bands) == 3 else {}),
    ) as out:
        out.write(bands)
    return path


def write_village(folder: Path, **shifts: tuple[float, float]) -> Path:
    """dsm.tif, dtm.tif, canopy.tif, cover.tif and image.tif; `shifts` by file."""
    made = village()
    layers = {
        "dsm": made["ground"] + made["built"],
        "dtm": made["ground"],
        "canopy": made["canopy"],
        "cover": made["cover"],
        "image": made["image"],
    }
    for name, values in layers.items():
        write_raster(folder / f"{name}.tif", values, shift=shifts.get(name, (0, 0)))
    return folder


def village_points(per_metre: int = 2) -> dict[str, np.ndarray]:
    """Points on the village, `per_metre` squared a cell: xyz (n, 3), class (n,), rgb (n, 3)
    uint8."""
    made = village()
    top = made["ground"] + np.maximum(made["built"], made["canopy"])
    kind = np.where(made["built"] > 0, 6, np.where(made["canopy"] > 0, 5, 2)).astype(np.uint8)
    parts = []
    for i in range(per_metre):
        for j in range(per_metre):
            row, col = np.mgrid[0:SIZE, 0:SIZE]
            x = EAST + col + (j + 0.5) / per_metre
            y = NORTH + SIZE - row - (i + 0.5) / per_metre
            parts.append(
                np.stack([x, y, top, kind, *np.moveaxis(made["image"], -1, 0)], axis=-1).reshape(
                    -1, 7
                )
            )
    every = np.concatenate(parts)
    return {
        "xyz": every[:, :3],
        "class": every[:, 3].astype(np.uint8),
        "rgb": every[:, 4:].astype(np.uint8),
    }


def write_points(
    path: Path,
    xyz: np.ndarray,
    kind: np.ndarray | None = None,
    rgb: np.ndarray | None = None,
    crs: str | None = CRS,
) -> Path:
    """A .las or .laz file; rgb (n, 3) as they are to be stored."""
    # A compound CRS is written as WKT, which LAS has from version 1.4 on.
    modern = crs is not None and "+" in crs
    kind_of = (7 if modern else 2) if rgb is not None else (6 if modern else 1)
    header = laspy.LasHeader(point_format=kind_of, version="1.4" if modern else "1.2")
    header.scales, header.offsets = np.array([0.001] * 3), np.floor(xyz.min(axis=0))
    if crs is not None:
        header.add_crs(pyproj.CRS.from_user_input(crs))
    cloud = laspy.LasData(header)
    cloud.x, cloud.y, cloud.z = xyz.T
    if kind is not None:
        cloud.classification = kind
    if rgb is not None:
        cloud.red, cloud.green, cloud.blue = rgb.astype(np.uint16).T
    cloud.write(path)
    return path


def village_scene(
    folder: Path,
    name: str = "village",
    *,
    at: tuple[int, int] = (EAST, NORTH),
    size: int = SIZE,
    crs: str = CRS,
    voxel_size: float = 1.0,
    grade: str = "A",
    held_out: Sequence[tuple[float, float, float, float]] = (),
    holes: bool = False,
) -> Scene:
    """The village as a scene on disk, without the builder: whose south-west corner is `at`, in
    voxels."""
    made = village(size)
    frame = Frame(crs, voxel_size, (at[0], at[0] + size), (at[1], at[1] + size), (-16, 112))
    valid = np.ones(frame.shape, bool)
    if holes:
        valid[30:44, 50:70] = False
    columns = Columns(
        frame,
        made["ground"],
        np.maximum(made["built"], made["canopy"]),
        made["cover"],
        made["image"],
        valid,
        valid,
    )
    quality = {
        "area_km2": size * size / 1e6,
        "voxels": 1,
        "coverage": 1.0,
        "holes": 0.0,
        "vegetation_noise": 0.0,
        "coloured": 1.0,
        "columns": size * size,
        "height": {},
        "classes": {},
    }
    info = SceneInfo(
        name,
        frame,
        "Made up",
        "nobody",
        "CC0-1.0",
        grade,
        held_out=tuple(map(tuple, held_out)),
        quality=quality,
    )
    return write_scene(folder, info, height_field(columns))
