"""Made-up conditions for the procedural backends: a village by a river, fields and woods."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_io.frame import Frame
from geo_io.layers import Buildings, Raster, Semantics, Trees, no_buildings, no_trees
from geo_io.legend import codes

CRS = "EPSG:32632"


def window(tx: int = 1340, ty: int = 10828, voxel_size: float = 1.0, size: int = 512) -> Frame:
    """A window of the lattice of `size` voxels."""
    return Frame(CRS, voxel_size, (tx * size, (tx + 1) * size), (ty * size, (ty + 1) * size))


def padded(frame: Frame, halo: float = 128.0) -> Frame:
    return frame.pad(math.ceil(halo / frame.voxel_size))


def places(frame: Frame) -> tuple[NDArray, NDArray]:
    """x (1, nx) and y (ny, 1) of the cells' centres, CRS metres."""
    s = frame.voxel_size
    x = (np.arange(frame.x[0], frame.x[1]) + 0.5) * s
    y = (np.arange(frame.y[1] - 1, frame.y[0] - 1, -1) + 0.5) * s
    return x[None, :], y[:, None]


def buildings(footprints: list[shapely.Polygon], heights: list[float] | None = None) -> Buildings:
    keys = [hash_place(*polygon.centroid.coords[0]) for polygon in footprints]
    values = np.full(len(footprints), np.nan) if heights is None else np.array(heights, float)
    array = np.empty(len(footprints), object)
    array[:] = footprints
    return Buildings(array, values, np.array(keys, np.uint64))


def hash_place(x: float, y: float) -> int:
    return (round(x * 10) * 2654435761 + round(y * 10) * 40503) % 2**64


def rectangle(x: float, y: float, length: float, width: float, degrees: float = 0.0) -> shapely.Polygon:
    box = shapely.box(x - length / 2, y - width / 2, x + length / 2, y + width / 2)
    return shapely.affinity.rotate(box, degrees)


def conditions(
    frame: Frame,
    cover: NDArray | int,
    parcel: NDArray | None = None,
    houses: Buildings | None = None,
    trees: Trees | None = None,
    **rasters: NDArray | float,
) -> dict[str, Any]:
    """Condition layers on `frame`; scalars and rows are spread over it. Footprints are burnt into the cover, as a
    reader does."""
    cover = np.broadcast_to(np.asarray(cover, np.uint8), frame.shape).copy()
    houses = houses or no_buildings()
    x, y = np.broadcast_arrays(*places(frame))
    for polygon in houses.footprint:
        cover[shapely.contains_xy(polygon, x, y)] = codes()["building"]
    if parcel is None:
        parcel = np.zeros(frame.shape, np.uint32)
    made: dict[str, Any] = {"semantics": Semantics(frame, cover, parcel.astype(np.uint32), houses, trees or no_trees())}
    for name, values in rasters.items():
        made[name] = Raster(frame, np.broadcast_to(np.asarray(values, np.float32), frame.shape).copy())
    return made


def village(frame: Frame) -> dict[str, Any]:
    """A valley with a river, a village on both sides of a road, fields, meadows, woods and a works: by place alone."""
    code = codes()
    x, y = places(frame)
    # Local coordinates around the middle of window (1340, 10828).
    u, v = x - 686336.0, y - 5544192.0
    cover = np.full(frame.shape, code["cropland"], np.uint8)
    parcel = (
        np.floor((u + 0.3 * v + 20 * np.sin(v / 90)) / 170) * 7919 + np.floor((v - 0.2 * u) / 140) * 104729
    ).astype(np.int64)
    cover[(parcel % 5) == 0] = code["grassland"]
    wood = v + 0.25 * u - 150 - 30 * np.sin(u / 60)
    cover = np.where(wood > 0, code["mixed_forest"], cover)
    cover = np.where((wood > 0) & (u > 60), code["broadleaf_forest"], cover)
    cover = np.where((wood > 0) & (u < -150), code["needleleaf_forest"], cover)
    middle = -60 + 40 * np.sin(u / 140) + 0.1 * u
    town = (abs(v - middle - 70) < 75) & (abs(u) < 190)
    cover = np.where(town, code["residential"], cover)
    cover = np.where((abs(v + 175) < 55) & (abs(u - 120) < 95), code["commercial"], cover)
    cover = np.where((abs(v + 205) < 40) & (abs(u + 160) < 50), code["orchard"], cover)
    cover = np.where((abs(v + 120) < 25) & (abs(u + 60) < 35), code["sports"], cover)
    cover = np.where(abs(v - middle) < 22, code["grass"], cover)
    cover = np.where(abs(v - middle) < 11, code["river"], cover)
    cover = np.where((u + 40) ** 2 + (v + 215) ** 2 < 30**2, code["lake"], cover)
    main_road = abs(v - middle - 68 - 6 * np.sin(u / 50)) < 3.5
    side_road = abs(u + 0.2 * v - 20) < 3.0
    cover = np.where(main_road | side_road, code["road"], cover)
    cover = np.where(abs(v + 0.15 * u + 135) < 2.0, code["rail"], cover)
    parcel = np.where(np.isin(cover, [code["cropland"], code["grassland"]]), parcel & 0xFFFFFFFF, 0)
    dem = 340 + 0.06 * v + 8 * np.sin(u / 170) * np.cos(v / 130) - 6 * np.exp(-(((v - middle) / 45) ** 2))
    return conditions(frame, cover, parcel, dem=dem.astype(np.float32))
