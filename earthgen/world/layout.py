"""The layout of a world in storage: names, dtypes and chunks of its arrays, and hidden files.

docs/reference/store.md describes the same for other readers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from earthgen.files import HIDDEN
from earthgen.voxels.tile import LEVELS
from geo_io.frame import Frame

FORMAT_VERSION = 3
"""Version of the layout that is written."""

OLDEST_VERSION = 2
"""Oldest version that is read and continued. In version 2 the layers of level 1 lie in the root
group; nothing else of what is read here is different."""

ROWS = 2**26
"""Most voxels of a tile. Rows that are not written take no space."""

ROW_CHUNK = 2**16
"""Rows that are compressed together."""

ROW_SHARD = 2**21
"""Rows that share an object of an object store, or a file."""

INDEX_CHUNK = 64
"""Edge of a chunk of the index, tiles."""

INDEX_FIELDS = 1 + len(LEVELS) + 4 + 1
"""Number of fields of the index: marker, rows by level, digest (4), bytes."""

DENSE = {
    "ground": ("float32", (), np.nan, "terrain height", "m"),
    "surface": ("float32", (), np.nan, "height of the topmost surface", "m"),
    "semantics": ("uint8", (), 0, "land class of the topmost surface", "1"),
    "rgb": ("uint8", (3,), 0, "colour of the topmost surface", "1"),
}
"""Dense layers, whose chunks are tiles: dtype, shape of a value, fill value, long name, unit."""

VOXELS = {
    "xyz": ("int32", (3,)),
    "semantic": ("uint8", ()),
    "faces": ("uint8", ()),
    "object": ("uint32", ()),
}
"""Attributes of voxels: dtype, shape of a value."""

SPLATS = {
    "offset": ("float16", (3,)),
    "scale": ("float16", (2,)),
    "rotation": ("float16", (4,)),
    "opacity": ("float16", ()),
}
"""Attributes of Gaussians beside "sh", whose shape depends on the degree: dtype, shape."""

AXES = {
    "rgb": ("band",),
    "xyz": ("axis",),
    "offset": ("axis",),
    "scale": ("tangent",),
    "rotation": ("quaternion",),
    "sh": ("harmonic", "band"),
}
"""Names of the dimensions of a value that has more than one number."""

RAGGED = [
    *(f"voxels/level_{{level}}/{name}" for name in VOXELS),
    *(f"splats/level_{{level}}/{name}" for name in (*SPLATS, "sh")),
]
"""Ragged arrays, with one row per voxel. Their shape is (tiles north to south, tiles west to east,
rows, ...)."""

OBJECTS_PER_TILE = len(LEVELS) * (len(DENSE) + len(RAGGED))
"""Objects of a tile of up to ROW_SHARD voxels."""

STAGES = f"{HIDDEN}stages"
"""Folder of the stage caches, inside the world."""


def array_layout(
    name: str, whole: Frame, tile_size: int, sh: tuple[int, ...] = (1, 3)
) -> dict[str, Any]:
    """Return the shape, chunks, shards and dtype of an array: what it is made with, and what a
    reader, which allocates it first, asks of it.

    Parameters
    ----------
    name : str
        "index", or the path of a layer or of a ragged array. A layer without a level is of level 1.
    whole : Frame
        All tiles of the world.
    tile_size : int
        Voxels.
    sh : tuple of int
        Shape of the spherical harmonics of a Gaussian.
    """
    grid = (whole.ny // tile_size, whole.nx // tile_size)
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None = None
    if name == "index":
        dtype, shape = "int64", (*grid, INDEX_FIELDS)
        chunks = (INDEX_CHUNK, INDEX_CHUNK, INDEX_FIELDS)
    elif name.startswith(("voxels/", "splats/")):
        dtype, value = {**VOXELS, **SPLATS, "sh": ("float16", sh)}[name.rpartition("/")[2]]
        shape, chunks = (*grid, ROWS, *value), (1, 1, ROW_CHUNK, *value)
        shards = (1, 1, ROW_SHARD, *value)
    else:
        level = int(name.partition("/")[0].removeprefix("level_")) if "/" in name else 1
        dtype, value, *_ = DENSE[name.rpartition("/")[2]]
        edge = tile_size // level
        shape, chunks = (*whole.coarsen(level).shape, *value), (edge, edge, *value)
    return {"shape": shape, "chunks": chunks, "shards": shards, "dtype": np.dtype(dtype)}
