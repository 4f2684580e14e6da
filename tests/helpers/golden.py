"""Small fixed worlds and what is known of them: a change that should change no world shows here.

    python -m tests.helpers.golden             # make all and say what differs from the record
    python -m tests.helpers.golden --add       # also keep digests of this kind of machine
    python -m tests.helpers.golden --record    # rewrite the record, tests/golden/worlds.json

`--record` is legitimate for one reason only: the rules, the format of digests or a job of this
table were changed on purpose, so that other worlds are what is wanted. The change then has a note
in CHANGELOG that says which worlds become others, and why. A refactoring, a faster kernel or a
move of modules is no reason: where it changes a digest it is wrong. `--add` writes digests only
where all numbers agree with the record, so it needs no such reason. Both write nothing where a
job fails.

Everything that goes in is made here, of whole numbers and eighths, so it has the same bits on all
machines; one job reads the committed files of `examples/data`. Worlds are made and read through
`earthgen.generate` and `earthgen.World` alone. The one exception is `write_weights`, see there.
"""

from __future__ import annotations

import argparse
import copy
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import earthgen

ROOT = Path(__file__).parents[2]
RECORD = Path(__file__).parents[1] / "golden" / "worlds.json"
DATA = ROOT / "examples" / "data"

CRS = "EPSG:32632"
EAST, NORTH = 500_000, 5_537_000
"""The south-western corner of what is made here, metres: a multiple of 16."""

WIDE, HIGH = 192, 160
"""Metres from there to the east and to the north that the inputs cover."""


@dataclass(frozen=True)
class Golden:
    """A fixed job.

    Attributes
    ----------
    what : what the job is there for
    settings : of `earthgen.generate`; "@name", also in a list, is an input of `make_inputs`
    then : settings of a second run that extends the world; None for none
    """

    what: str
    settings: Mapping[str, Any]
    then: Mapping[str, Any] | None = None


def _box(x0: int, y0: int, x1: int, y1: int) -> dict[str, Any]:
    """Settings that say where: metres from the corner."""
    bbox = (float(EAST + x0), float(NORTH + y0), float(EAST + x1), float(NORTH + y1))
    return {"bbox": bbox, "bbox_crs": CRS, "crs": CRS}


_MAP = ["@areas", "@lines", "@houses"]
_QUICK = {"window": 64, "surface": 64, "steps": 2, "phases": 1}
_PLACE = _box(0, 0, 112, 80)
_SMALL = _box(32, 32, 96, 80)
_HILLS = {"semantics": _MAP, "dem": "@dem"}

GOLDEN: dict[str, Golden] = {
    "generated-1m": Golden(
        "rules at 1 m, no heights", {**_PLACE, "semantics": ["@areas"], "seed": 3}
    ),
    "vector-2m": Golden(
        "rules at 2 m, no heights: GeoJSON, a class field, a legend of the user's, trees, houses",
        {
            **_PLACE,
            "semantics": ["@areas.geojson", "@lines", "@trees", "@houses"],
            "class_field": "use",
            "legend": "@legend.yaml",
            "voxel_size": 2.0,
        },
    ),
    "raster": Golden(
        "a raster of WorldCover values",
        {**_PLACE, "semantics": "@cover.tif", "legend": "worldcover"},
    ),
    "dem": Golden("heights of the ground", {**_PLACE, **_HILLS}),
    "dsm": Golden(
        "heights of the ground, of houses and trees",
        {**_PLACE, **_HILLS, "dsm": "@dsm.tif", "voxel_size": 2.0},
    ),
    "image": Golden(
        "colours of an aerial image, and a polygon that cuts the world out",
        {
            "region": "@region.geojson",
            "crs": CRS,
            **_HILLS,
            "image": "@image.tif",
            "voxel_size": 2.0,
            "seed": 7,
        },
    ),
    "files": Golden(
        "a real place from files in longitude and latitude",
        {
            "bbox": (11.5920, 50.0052, 11.5936, 50.0064),
            "voxel_size": 2.0,
            "semantics": ["@landuse.shp", "@osm.gpkg:lines", "@osm.gpkg:buildings"],
            "dem": "@srtm3.tif",
        },
    ),
    "workers": Golden(
        "`dem` by two processes in small tiles", {**_PLACE, **_HILLS, "tile_size": 64, "workers": 2}
    ),
    "extended": Golden(
        "`dem` from a part that is extended",
        {**_box(32, 24, 88, 72), **_HILLS, "tile_size": 128},
        {**_PLACE, **_HILLS},
    ),
    "height-flow": Golden(
        "a flow makes heights, rules raise them",
        {
            **_SMALL,
            **_HILLS,
            "voxel_size": 2.0,
            "geometry": "height-flow",
            "geometry_options": _QUICK,
            "weights": "@weights",
        },
    ),
    "latent": Golden(
        "learned geometry and texture, with an image and colours that change with the view",
        {
            **_SMALL,
            **_HILLS,
            "image": "@image.tif",
            "voxel_size": 2.0,
            "weights": "@weights",
            "seed": 11,
            "geometry": "latent",
            "geometry_options": {**_QUICK, "steps": 1},
            "texture": "latent",
            "texture_options": {"window": 64, "steps": 1, "phases": 1},
        },
    ),
}
"""The jobs by name."""

SAME = {"workers": "dem", "extended": "dem"}
"""Jobs that have to make the world of another one, whatever is recorded."""


# ---- inputs ---------------------------------------------------------------------------------


def make_inputs(folder: Path) -> dict[str, Any]:
    """Everything that jobs name with "@".

    Parameters
    ----------
    folder : where files are written; they are the same whenever it is called

    Returns
    -------
    dict
        Paths as text, GeoDataFrames and DataArrays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[str, Any] = {
        "areas": _areas(),
        "lines": _lines(),
        "houses": _houses(),
        "trees": _trees(),
        "dem": _array(_heights(8), 8),
        "weights": str(write_weights(folder / "weights")),
    }
    for name in ("landuse.shp", "osm.gpkg", "srtm3.tif"):
        made[name] = str(DATA / name)
    for layer in ("lines", "buildings"):
        made[f"osm.gpkg:{layer}"] = f"{DATA / 'osm.gpkg'}:{layer}"
    _write_areas(folder / "areas.geojson")
    _write_geojson(folder / "region.geojson", [{}], [_REGION])
    (folder / "legend.yaml").write_text(_LEGEND, "utf-8")
    _write_raster(folder / "cover.tif", _cover(), 8, nodata=0)
    _write_raster(folder / "dsm.tif", _surface(), 2, nodata=-9999)
    _write_raster(folder / "image.tif", _picture(), 2)
    names = ("areas.geojson", "region.geojson", "legend.yaml", "cover.tif", "dsm.tif", "image.tif")
    return {**made, **{name: str(folder / name) for name in names}}


_AREAS: list[tuple[str, list[tuple[int, int]]]] = [
    ("cropland", [(-40, -40), (240, -40), (240, 200), (-40, 200)]),
    ("residential", [(0, 34), (70, 40), (66, 110), (0, 104)]),
    ("mixed_forest", [(76, 40), (140, 30), (200, 60), (200, 170), (80, 170), (88, 90)]),
    (
        "river",
        [(-20, 14), (60, 20), (130, 8), (210, 16), (210, 24), (130, 17), (60, 29), (-20, 22)],
    ),
    ("commercial", [(80, -10), (120, -10), (124, 4), (84, 6)]),
    ("orchard", [(0, -20), (36, -20), (36, 10), (0, 10)]),
    ("lake", [(50, 112), (70, 118), (74, 136), (56, 146), (44, 130)]),
    ("sports", [(4, 112), (30, 112), (30, 140), (4, 140)]),
]
"""Land use: class and corners, metres from (`EAST`, `NORTH`)."""

_HOUSES = [
    ([(8, 44), (20, 44), (20, 53), (8, 53)], 9.0),
    ([(30, 48), (44, 51), (42, 60), (28, 57)], 6.5),
    ([(10, 70), (22, 70), (22, 76), (16, 76), (16, 84), (10, 84)], None),
    ([(36, 74), (50, 74), (50, 90), (36, 90)], 12.0),
    ([(84, -4), (116, -4), (116, 3), (84, 3)], 8.0),
]
"""Footprints and heights of their roofs, metres."""

_REGION = [(8, 4), (104, 12), (120, 70), (70, 92), (60, 60), (16, 84)]

_LEGEND = """\
name: golden
title: Made-up land use
source: tests/helpers/golden.py
licence: Apache-2.0
rules:
  - field: use
    values:
      a field: cropland
      homes: residential
      wood: needleleaf_forest
      water: river
      works: commercial
      fruit: orchard
      pond: lake
      play: sports
      house: building
      one tree: tree
      road: road
      rail: rail
"""

_USES = {
    "cropland": "a field",
    "residential": "homes",
    "mixed_forest": "wood",
    "river": "water",
    "commercial": "works",
    "orchard": "fruit",
    "lake": "pond",
    "sports": "play",
}


def _there(points: list[tuple[int, int]]) -> list[tuple[float, float]]:
    return [(float(EAST + x), float(NORTH + y)) for x, y in points]


def _areas() -> Any:
    import geopandas
    import shapely

    names, corners = zip(*_AREAS, strict=True)
    return geopandas.GeoDataFrame(
        {"class": list(names)},
        geometry=[shapely.Polygon(_there(points)) for points in corners],
        crs=CRS,
    )


def _lines() -> Any:
    import geopandas
    import shapely

    roads = [[(-20, 62), (24, 62), (72, 66), (210, 54)], [(25, -20), (26, 62), (24, 180)]]
    rails = [[(140, -20), (118, 60), (110, 180)]]
    return geopandas.GeoDataFrame(
        {name: ["road"] * len(roads) + ["rail"] * len(rails) for name in ("class", "use")},
        geometry=[shapely.LineString(_there(points)) for points in roads + rails],
        crs=CRS,
    )


def _houses() -> Any:
    import geopandas
    import shapely

    return geopandas.GeoDataFrame(
        {
            "class": ["building"] * len(_HOUSES),
            "use": ["house"] * len(_HOUSES),
            "height": [np.nan if height is None else height for _, height in _HOUSES],
        },
        geometry=[shapely.Polygon(_there(points)) for points, _ in _HOUSES],
        crs=CRS,
    )


def _trees() -> Any:
    import geopandas
    import shapely

    places = [(54, 46), (60, 84), (26, 92), (6, 60), (70, 8), (120, 30)]
    return geopandas.GeoDataFrame(
        {"use": ["one tree"] * len(places), "height": [7.0, 12.0, 9.5, 15.0, 6.0, 18.0]},
        geometry=[shapely.Point(point) for point in _there(places)],
        crs=CRS,
    )


def _write_areas(path: Path) -> None:
    _write_geojson(
        path, [{"use": _USES[name]} for name, _ in _AREAS], [points for _, points in _AREAS]
    )


def _write_geojson(
    path: Path, properties: list[dict[str, Any]], corners: list[list[tuple[int, int]]]
) -> None:
    """Polygons in the CRS of the worlds, named in the old way that GDAL reads and writes."""
    rings = [[[*point] for point in _there([*points, points[0]])] for points in corners]
    features = [
        {
            "type": "Feature",
            "properties": values,
            "geometry": {"type": "Polygon", "coordinates": [ring]},
        }
        for values, ring in zip(properties, rings, strict=True)
    ]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}
    path.write_text(
        json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}), "utf-8"
    )


def _cells(size: int) -> tuple[NDArray, NDArray]:
    """Middles of cells of `size` metres, 64 m more than the inputs cover, from the corner."""
    x = np.arange(-64, WIDE + 64, size, dtype=np.int64) + size // 2
    y = np.arange(-64, HIGH + 64, size, dtype=np.int64)[::-1] + size // 2
    return np.meshgrid(x, y)  # type: ignore[return-value]


def _scramble(*values: NDArray) -> NDArray:
    """Whole numbers of 16 bits that look random, by place."""
    state = np.full(values[0].shape, 40503, np.int64)
    for value in values:
        state = (state ^ (value & 0xFFFF)) * 25173 + 13849 & 0xFFFF
        state ^= state >> 7
    return state


def _heights(size: int) -> NDArray:
    """Ground: a slope, a hill and a valley, in eighths of a metre."""
    x, y = _cells(size)
    eighths = 8 * 400 + x // 2 + y // 4 + (x - 60) * (y - 40) // 64 + (y - 18) ** 2 // 96
    return (eighths / 8).astype(np.float32)


def _surface() -> NDArray:
    """Ground, houses and crowns on cells of 2 m, with a hole in the data."""
    import shapely

    x, y = _cells(2)
    above = np.zeros(x.shape, np.float32)
    for points, height in _HOUSES:
        above[shapely.contains_xy(shapely.Polygon(points), x, y)] = 7 if height is None else height
    wood = shapely.contains_xy(shapely.Polygon(_AREAS[2][1]), x, y)
    crowns = 8 + _scramble(x // 6, y // 6) % 64 / 8
    surface = np.where(wood, crowns, above).astype(np.float32) + _heights(2)
    surface[(x > 100) & (x < 112) & (y > 60) & (y < 70)] = -9999
    return surface


def _picture() -> NDArray:
    x, y = _cells(2)
    grain = _scramble(x, y) % 32
    bands = [
        60 + (x // 16 * 37 + y // 16 * 11) % 128,
        80 + (x // 32 * 29) % 96,
        50 + (y // 16 * 23) % 96,
    ]
    return np.stack([band + grain for band in bands]).astype(np.uint8)


def _cover() -> NDArray:
    """WorldCover values in patches of 24 m."""
    x, y = _cells(8)
    values = np.array([10, 20, 30, 40, 50, 50, 60, 80, 90], np.uint8)
    return values[_scramble(x // 24, y // 24) % len(values)]


def _array(values: NDArray, size: int) -> Any:
    """A DataArray with a CRS."""
    import rioxarray  # noqa: F401 - registers .rio
    import xarray

    x, y = _cells(size)
    centre = {"x": EAST + x[0].astype(float), "y": NORTH + y[:, 0].astype(float)}
    return xarray.DataArray(values, dims=("y", "x"), coords=centre).rio.write_crs(CRS)


def _write_raster(path: Path, values: NDArray, size: int, nodata: float | None = None) -> None:
    import rasterio

    bands = values.reshape(-1, *values.shape[-2:])
    transform = rasterio.Affine(size, 0, EAST - 64, 0, -size, NORTH + HIGH + 64)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(bands),
        height=bands.shape[1],
        width=bands.shape[2],
        dtype=bands.dtype,
        crs=CRS,
        transform=transform,
        nodata=nodata,
    ) as out:
        out.write(bands)


# ---- weights --------------------------------------------------------------------------------

SEED = 4_000
"""Of random weights."""

_BLOCKS = {"head": 8, "mlp": 1.0}
_FLOW = {"embedding": 8}
_CONDITION = {
    "channels": (4, 4, 4, 8),
    "plane": ("", "", "c", "c"),
    "voxels": False,
    "heights": 8,
    "blocks": _BLOCKS,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "height-flow": {"channels": (4, 8, 8, 8), "blocks": (1, 1, 1, 1), "flow": _FLOW},
    "struct-vae": {
        "channels": (4, 4, 8, 8),
        "latent": 4,
        "encoder": ("c", "c", "c"),
        "middle": "ct",
        "before": ("", "", ""),
        "after": ("c", "c", "c"),
        "early": True,
        "blocks": _BLOCKS,
    },
    "struct-coarse": {
        "patch": 1,
        "channels": 8,
        "middle": "ct",
        "blocks": _BLOCKS,
        "flow": _FLOW,
        "condition": _CONDITION,
    },
    "struct-fine": {
        "latent": 4,
        "flow": _FLOW,
        "condition": _CONDITION,
        "unet": {"channels": (8,), "middle": "ct", "blocks": _BLOCKS},
    },
    "tex-vae": {"channels": 8, "latent": 4, "encoder": "c", "decoder": "c", "blocks": _BLOCKS},
    "tex-flow": {
        "latent": 4,
        "flow": _FLOW,
        "condition": _CONDITION,
        "unet": {
            "channels": (4, 8, 8, 8),
            "down": ("c", "c", "c"),
            "middle": "t",
            "up": ("c", "c", "c"),
            "blocks": _BLOCKS,
        },
    },
}
"""The smallest networks of each part, as configurations that stand in files of weights."""


def write_weights(folder: Path) -> Path:
    """A set of weights for voxels of 2 m, of random numbers.

    The numbers are raw words of numpy's PCG64, the same everywhere and in all versions, and do not
    depend on how networks are initialised. What the set makes is rubble, always the same.

    This is the only place here that looks into the package: a move of modules changes these
    imports, and nothing else.
    """
    import torch

    from earthgen.models.build import make_model
    from earthgen.models.presets import PARTS
    from earthgen.models.weights.card import write_card
    from earthgen.models.weights.format import part_path, save_weights

    folder.mkdir(parents=True, exist_ok=True)
    for number, (part, config) in enumerate(CONFIGS.items()):
        model = make_model(part, PARTS[part].model_validate(config))
        bits = np.random.PCG64(SEED + number)
        tensors = {}
        for name, value in sorted(model.state_dict().items()):
            if value.ndim > 1:
                bound = 1 / (value.numel() // value.shape[0]) ** 0.5
            elif name.endswith(".bias"):
                bound = 0.125
            else:  # gains of norms, and statistics: as they begin
                tensors[name] = value
                continue
            words = bits.random_raw(value.numel()) >> np.uint64(
                40
            )  # 24 bits: whole numbers that float32 holds
            values = (words.astype(np.float64) * 2.0**-23 - 1) * bound
            tensors[name] = torch.from_numpy(values.astype(np.float32).reshape(value.shape))
        save_weights(
            part_path(folder, part), part, model, voxel_size=2.0, licence="CC0-1.0", tensors=tensors
        )
    write_card(folder, title="Random numbers", licence="CC0-1.0")
    return folder


# ---- worlds ---------------------------------------------------------------------------------


def make_world(name: str, folder: Path, inputs: Mapping[str, Any]) -> earthgen.World:
    """The world of a job, made new.

    Parameters
    ----------
    name : of `GOLDEN`
    folder : where the world is written, under its name
    inputs : of `make_inputs`
    """
    job, out = GOLDEN[name], folder / f"{name}.zarr"
    world = earthgen.generate(out=out, **_given(job.settings, inputs))
    if job.then is None:
        return world
    earthgen.generate(out=out, extend=True, **_given(job.then, inputs))
    return earthgen.open_world(out)


def _given(settings: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    def one(value: Any) -> Any:
        if isinstance(value, list):
            return [one(item) for item in value]
        return (
            inputs[value[1:]]
            if isinstance(value, str) and value.startswith("@")
            else copy.deepcopy(value)
        )

    return {name: one(value) for name, value in settings.items()}


def describe(world: earthgen.World) -> dict[str, Any]:
    """What is recorded of a world.

    Returns
    -------
    dict
        digest : of identity and content, `World.digest`
        content : `content_digest`
        identity : of the world, as it stores it, so that a difference can be named
        counts : voxels by level
        cells : columns and rows
        voxels, tops : number of voxels, and of cells seen from above, by class code
        means : of cells: ground, top, colour from above; of Gaussians: opacity, scale, and colour
        (the constant term)
    """
    layers, gaussians = world.layers(), world.gaussians()
    there = layers["semantics"].values > 0
    colour = np.moveaxis(layers["rgb"].transpose("band", "y", "x").values, 0, -1)[there]
    means = {
        "ground": np.nanmean(layers["ground"].values.astype(np.float64)),
        "top": np.nanmean(layers["surface"].values.astype(np.float64)),
        "colour": colour.astype(np.float64).mean(axis=0),
        "opacity": gaussians.opacities.astype(np.float64).mean(),
        "scale": gaussians.scales.astype(np.float64).mean(axis=0),
        "splat_colour": gaussians.sh[:, 0].astype(np.float64).mean(axis=0),
    }
    return {
        "digest": world.digest(),
        "content": content_digest(world),
        "identity": json.loads(json.dumps(world.identity)),
        "counts": world.counts,
        "cells": [int(layers.sizes["x"]), int(layers.sizes["y"])],
        "voxels": _by_class(world.voxels().semantic),
        "tops": _by_class(layers["semantics"].values),
        "means": {name: np.round(value, 4).tolist() for name, value in means.items()},
    }


def _by_class(codes: NDArray) -> dict[str, int]:
    found, numbers = np.unique(codes, return_counts=True)
    return {str(code): int(number) for code, number in zip(found, numbers, strict=True)}


def content_digest(world: earthgen.World) -> str:
    """32 hex digits of all that a world holds, at all levels, as its readers see it.

    It is computed here, so unlike `World.digest` it depends neither on the identity (the version of
    earthgen, names of options) nor on how earthgen computes digests: where these change, it says
    whether the world is still the same.
    """
    total = hashlib.blake2b(digest_size=16)

    def feed(values: Any) -> None:
        array = np.ascontiguousarray(values)
        if array.dtype.kind == "f":  # one NaN, one zero
            array = np.where(np.isnan(array), array.dtype.type(np.nan), array) + array.dtype.type(0)
        total.update(f"{array.dtype.str}{array.shape}".encode())
        total.update(array.tobytes())

    for level in world.levels:
        layers = world.layers(level)
        for name in ("x", "y", "ground", "surface", "semantics"):
            feed(layers[name].values)
        feed(layers["rgb"].transpose("y", "x", "band").values)
        voxels, gaussians = world.voxels(level=level), world.gaussians(level=level)
        for values in (voxels.xyz, voxels.semantic, voxels.faces, voxels.object):
            feed(values)
        feed(np.array(gaussians.anchor, np.float64))
        for name in ("means", "scales", "rotations", "opacities", "sh"):
            feed(getattr(gaussians, name))
    return total.hexdigest()


# ---- fingerprints ---------------------------------------------------------------------------

FLAGS = (
    "avx",
    "f16c",
    "fma",
    "avx2",
    "avx512f",
    "avx512dq",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_tile",
)
"""Instructions by which libraries choose how they compute."""

LIBRARIES = (
    "numpy",
    "numba",
    "llvmlite",
    "torch",
    "scipy",
    "shapely",
    "rasterio",
    "pyproj",
    "zarr",
)
"""Libraries whose version can change the last bits."""


@functools.cache
def fingerprint() -> dict[str, str]:
    """What the last bits of a world depend on beside the code: one text by name."""
    from torch.backends.cpu import get_cpu_capability

    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    known = dict(
        map(str.strip, line.split(":", 1)) for line in lines if ":" in line
    )  # of the last core
    flags = set(known.get("flags", known.get("Features", "")).split())
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": known.get("vendor_id", "unknown"),  # MKL computes otherwise on AMD
        "flags": " ".join(flag for flag in FLAGS if flag in flags),
        "torch uses": get_cpu_capability(),  # less than the flags where ATEN_CPU_CAPABILITY says so
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
    }


# ---- the record -----------------------------------------------------------------------------

_SMALL_COUNT = 4
"""So many voxels or cells of a class may differ however few there are."""

EXACT, CLOSE = 0.0005, 0.02
"""Shares by which counts may differ on another machine: of rules, and where networks take part.

Rules made the same bits with AVX-512 and with AVX2 alone, so only a voxel or two on the edge of a
threshold may fall elsewhere; networks sum in another order there, and thresholds, rounding to half
precision and the attention that follows carry last bits on to a few voxels in a hundred at most.
"""

MEANS = {
    "ground": 0.001,
    "top": 0.02,
    "colour": 0.1,
    "opacity": 0.001,
    "scale": 0.001,
    "splat_colour": 0.002,
}
"""By how much means may differ on another machine; see `EXACT` and `CLOSE`."""

_STRICT = ("digest", "content")


def load() -> dict[str, Any]:
    """The record: `jobs` with numbers by job, and `digests` with an entry a fingerprint."""
    return json.loads(RECORD.read_text("utf-8"))  # type: ignore[no-any-return]


def numbers_that_differ(name: str, found: Mapping[str, Any], kept: Mapping[str, Any]) -> list[str]:
    """What of a world's numbers is outside the tolerances: what is recorded and what was found."""
    learned = "weights" in GOLDEN[name].settings
    share = CLOSE if learned else EXACT
    wrong = []
    if found["cells"] != kept["cells"]:
        wrong.append(f"cells: {kept['cells']} recorded, {found['cells']} now")
    for group in ("counts", "voxels", "tops"):
        old, new = kept[group], found[group]
        for key in sorted({*old, *new}):
            there, now = old.get(key, 0), new.get(key, 0)
            if abs(there - now) > max(_SMALL_COUNT, share * there):
                wrong.append(f"{group}.{key}: {there} recorded, {now} now")
    for key, tolerance in MEANS.items():
        there, now = np.asarray(kept["means"][key]), np.asarray(found["means"][key])
        allowed = tolerance * (10 if learned and key != "ground" else 1)
        if not (np.abs(there - now) <= allowed).all():  # also where one is NaN
            wrong.append(
                f"means.{key}: {there.tolist()} recorded, {now.tolist()} now, ± {allowed:g} allowed"
            )
    return wrong


def recorded_digests(record: Mapping[str, Any]) -> tuple[dict[str, dict[str, str]] | None, str]:
    """Digests by job that were recorded under this machine's fingerprint.

    Returns
    -------
    tuple
        The digests and "", or None and what differs from the fingerprint that is nearest.
    """
    here, nearest = fingerprint(), None
    for entry in record["digests"]:
        differing = [
            f"{name} {entry['fingerprint'].get(name)!r} there, {here.get(name)!r} here"
            for name in sorted({*here, *entry["fingerprint"]})
            if entry["fingerprint"].get(name) != here.get(name)
        ]
        if not differing:
            return entry["jobs"], ""
        if nearest is None or len(differing) < len(nearest):
            nearest = differing
    return None, "; ".join(nearest or ["nothing is recorded"])


def digests_that_differ(
    found: Mapping[str, Any], kept: Mapping[str, str], identity: Mapping[str, Any]
) -> list[str]:
    """What of a world's digests is another; where only the identity is, names its parts."""
    wrong = [
        f"{key}: {kept[key]} recorded, {found[key]} now"
        for key in _STRICT
        if kept[key] != found[key]
    ]
    if wrong and kept["content"] == found["content"]:
        wrong.append("the content is the same: it is the identity, or how digests are computed")
    if wrong:
        wrong += _paths_that_differ(identity, found["identity"])
    return wrong


def _paths_that_differ(there: Any, now: Any, path: str = "identity") -> list[str]:
    if isinstance(there, Mapping) and isinstance(now, Mapping):
        return [
            line
            for key in sorted({*there, *now})
            for line in _paths_that_differ(there.get(key), now.get(key), f"{path}.{key}")
        ]
    return [] if there == now else [f"{path}: {there} recorded, {now} now"]


def _record_of(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    numbers = {
        name: {
            "what": GOLDEN[name].what,
            **{key: value for key, value in one.items() if key not in _STRICT},
        }
        for name, one in found.items()
    }
    return {"digests": [_digests_of(found)], "jobs": numbers}


def _digests_of(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    jobs = {name: {key: one[key] for key in _STRICT} for name, one in found.items()}
    return {"fingerprint": fingerprint(), "jobs": jobs}


def _write(record: Mapping[str, Any]) -> None:
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(f"wrote {RECORD}")


def main() -> int:
    """The command; see the head of this file. Returns 1 where something differs from the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--record", action="store_true", help="rewrite the record: see above when this is right"
    )
    what.add_argument(
        "--add", action="store_true", help="keep this machine's digests beside those recorded"
    )
    parser.add_argument(
        "--reverse", action="store_true", help="make the jobs in the opposite order"
    )
    parser.add_argument("--only", nargs="+", choices=sorted(GOLDEN), help="only compare these")
    options = parser.parse_args()
    if options.only and (options.record or options.add):
        parser.error("a record is of all jobs")
    names = [name for name in GOLDEN if not options.only or name in options.only]
    print(f"earthgen is {earthgen.__file__}")
    found, began = {}, sum(os.times()[:4])
    with tempfile.TemporaryDirectory() as folder:
        inputs = make_inputs(Path(folder) / "inputs")
        for name in reversed(names) if options.reverse else names:
            start = time.process_time()
            found[name] = describe(make_world(name, Path(folder), inputs))
            print(
                f"{name}: {time.process_time() - start:.1f} s, {found[name]['digest'][:16]}",
                flush=True,
            )
    print(f"{sum(os.times()[:4]) - began:.1f} s of CPU, with workers")
    found = {name: found[name] for name in names}
    wrong = [
        f"{one}: is not the world of {other}"
        for one, other in SAME.items()
        if one in found and other in found and found[one]["content"] != found[other]["content"]
    ]
    if options.record:
        if not wrong:
            _write(_record_of(found))
    else:
        record = load()
        digests, why = recorded_digests(record)
        for name, one in found.items():
            wrong += [
                f"{name}: {line}" for line in numbers_that_differ(name, one, record["jobs"][name])
            ]
            if digests is not None:
                identity = record["jobs"][name]["identity"]
                wrong += [
                    f"{name}: {line}" for line in digests_that_differ(one, digests[name], identity)
                ]
        if digests is None:
            print(f"digests are not compared: {why}")
            if options.add and not wrong:
                _write({**record, "digests": [*record["digests"], _digests_of(found)]})
    print("\n".join(wrong) or "all as recorded")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
