"""Made-up conditions for the procedural backends, and how to run their stages on a window of any
size."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from earthgen.noise.philox import Noise, Stream
from earthgen.stages.block import Block
from earthgen.stages.stage import Stage
from earthgen.voxels.voxels import Geometry, Splats
from earthgen_procedural import geometry, land
from earthgen_procedural.texture import EDGE, ProceduralTexture
from geo_io.frame import Frame
from geo_io.layers import Buildings, Raster, Semantics, Trees, no_buildings, no_trees
from geo_io.legend import codes

CRS = "EPSG:32632"


def window(tx: int = 1340, ty: int = 10828, voxel_size: float = 1.0, size: int = 512) -> Frame:
    """A window of the lattice of `size` voxels."""
    return Frame(CRS, voxel_size, (tx * size, (tx + 1) * size), (ty * size, (ty + 1) * size))


def padded(frame: Frame) -> Frame:
    """What the stages read around `frame`, one after the other (the halo of each is rounded up
    to whole cells)."""
    return frame.pad((land.HALO + geometry.HALO).voxels(frame.voxel_size) + 2 + EDGE)


def generate(frame: Frame, layers: Mapping[str, Any], seed: int = 1) -> Geometry:
    """The geometry of a window of any size from layers on `padded(frame)`, stage by stage."""
    blocks: dict[str, Block] = {}
    wanted = frame.pad(geometry.HALO.voxels(frame.voxel_size))
    first, last = geometry.ProceduralGeometry().stages()
    blocks[first.name] = run(first, wanted, layers, seed)
    return Geometry.of(run(last, frame, {**layers, **blocks}, seed))


def paint(
    made: Geometry, layers: Mapping[str, Any], seed: int = 1, texture_seed: int | None = None
) -> Splats:
    """The Gaussians of the voxels that `generate` made; the texture wants to see a cell more of
    them."""
    (stage,) = ProceduralTexture().stages(geometry.ProceduralGeometry().stages()[-1])
    wider = generate(made.frame.pad(EDGE), layers, seed)
    splats = Splats.of(
        run(stage, made.frame, {**layers, "geometry": wider.block()}, texture_seed or seed)
    )
    assert len(splats) == len(made.voxels)
    return splats


def run(stage: Stage, window: Frame, inputs: Mapping[str, Any], seed: int = 1) -> Block:
    """What a stage makes of any window, from layers and blocks that are as wide as it reads, or
    wider."""
    around = {read.source: window.pad(read.halo(window.voxel_size)) for read in stage.reads}
    given = {name: inputs[name].crop(frame) for name, frame in around.items() if name in inputs}
    block = stage.compute(window, given, Noise(seed).of_stage(stage.name))
    assert block.frame == window
    block.require(stage.fields, stage.name)
    return block


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


def rectangle(
    x: float, y: float, length: float, width: float, degrees: float = 0.0
) -> shapely.Polygon:
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
    """Condition layers on `frame`; scalars and rows are spread over it. Footprints are burnt
    into the cover, as a reader does."""
    cover = np.broadcast_to(np.asarray(cover, np.uint8), frame.shape).copy()
    houses = houses or no_buildings()
    for polygon in houses.footprint:
        box = frame.crop(polygon.bounds)
        if box is not None:
            part, (x, y) = cover[frame.slices(box)], np.broadcast_arrays(*places(box))
            part[shapely.contains_xy(polygon, x, y)] = codes()["building"]
    if parcel is None:
        parcel = np.zeros(frame.shape, np.uint32)
    made: dict[str, Any] = {
        "semantics": Semantics(frame, cover, parcel.astype(np.uint32), houses, trees or no_trees())
    }
    for name, values in rasters.items():
        made[name] = Raster(
            frame, np.broadcast_to(np.asarray(values, np.float32), frame.shape).copy()
        )
    return made


def village(frame: Frame) -> dict[str, Any]:
    """A valley with a river, a village on both sides of a road, fields, meadows, woods and a
    works: by place alone."""
    code = codes()
    x, y = places(frame)
    # Local coordinates around the middle of window (1340, 10828).
    u, v = x - 686336.0, y - 5544192.0
    cover = np.full(frame.shape, code["cropland"], np.uint8)
    parcel = (
        np.floor((u + 0.3 * v + 20 * np.sin(v / 90)) / 170) * 7919
        + np.floor((v - 0.2 * u) / 140) * 104729
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
    dem = (
        340
        + 0.06 * v
        + 8 * np.sin(u / 170) * np.cos(v / 130)
        - 6 * np.exp(-(((v - middle) / 45) ** 2))
    )
    return conditions(frame, cover, parcel, dem=dem.astype(np.float32))


def patchwork(frame: Frame) -> dict[str, Any]:
    """All that rules look far for, side by side: large footprints, rough heights, water, woods,
    mapped trees with wide crowns. Ugly, and by place alone."""
    code = codes()
    stream = Noise(99).stream("patchwork")
    x, y = np.broadcast_arrays(*places(frame))
    names = (
        "residential",
        "residential",
        "commercial",
        "building",
        "lake",
        "river",
        "road",
        "mixed_forest",
        "cropland",
        "grassland",
        "shrub",
        "paved",
        "tree",
        "orchard",
    )
    kinds = np.array([code[name] for name in names], np.uint8)
    large, small = patches(stream, x, y, 41.0), patches(stream, x, y, 17.0)
    pick = np.where(small[..., 1] % 5 < 2, small[..., 0], large[..., 0])
    cover = kinds[pick % len(kinds)]
    cover[np.abs(np.mod(x + 0.3 * y, 137.0)) < 6] = code["road"]
    rough = patches(stream, x, y, 9.0)[..., 2] * 2.0**-32
    dem = 50 + 6 * np.sin(x / 37) * np.cos(y / 29) + 3 * rough
    above = (
        np.where(large[..., 3] % 3 == 0, 3 + 9 * (small[..., 3] * 2.0**-32), 0)
        + 1.5 * np.sin(x * 1.3) ** 2
    )
    dsm = np.where(large[..., 2] % 7 == 0, np.nan, dem + above)
    left, bottom, right, top = frame.bounds
    houses, heights, spots, sizes, keys = [], [], [], [], []
    edges = [
        range(int(low // 47) - 2, int(high // 47) + 3)
        for low, high in ((left, right), (bottom, top))
    ]
    words = stream.bits(*np.meshgrid(*edges, indexing="ij"), 47) * 2.0**-32
    for (i, j), word in zip(itertools.product(*edges), words.reshape(-1, 4), strict=True):
        mx, my = (i + word[0]) * 47.0, (j + word[1]) * 47.0
        if word[2] < 0.4:
            house = rectangle(mx, my, 8 + 45 * word[3], 6 + 18 * word[1], 180 * word[0])
            west, south, east, north = house.bounds
            if west < right and east > left and south < top and north > bottom:
                houses.append(house)
                heights.append(float("nan") if word[1] < 0.5 else 4 + 10 * word[3])
        elif left < mx < right and bottom < my < top:
            spots.append((mx, my))
            sizes.append((5 + 15 * word[3], 18.0 if word[0] < 0.5 else float("nan")))
            keys.append(hash_place(mx, my))
    size = np.array(sizes).reshape(-1, 2)
    trees = Trees(np.array(spots).reshape(-1, 2), size[:, 0], size[:, 1], np.array(keys, np.uint64))
    layers = conditions(frame, cover, large[..., 1], buildings(houses, heights), trees, dem=dem)
    return {**layers, "dsm": Raster(frame, dsm.astype(np.float32))}


def patches(stream: Stream, x: NDArray, y: NDArray, edge: float) -> NDArray:
    """(..., 4) uint32: random words of the squares of `edge` metres in which places lie."""
    i, j = np.floor(x / edge).astype(np.int64), np.floor(y / edge).astype(np.int64)
    return stream.bits(i, j, round(edge))
