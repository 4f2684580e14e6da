"""TODO docstring of earthgen.world.world.layout."""

from __future__ import annotations

import numpy as np

from earthgen.files import (
    HIDDEN,
)
from earthgen.voxels.tile import LEVELS

FORMAT_VERSION = 2
"""Of the layout in storage. A store with another one is refused."""

ROWS = 2**26
"""Most voxels a tile can have; rows that are not written take no space."""

ROW_CHUNK = 2**16
"""Rows that are compressed together."""

ROW_SHARD = 2**21
"""Rows that share an object."""

INDEX_CHUNK = 64
"""Tiles along an edge of a chunk of the index."""

INDEX_FIELDS = 1 + len(LEVELS) + 4 + 1
"""Marker, rows by level, digest, bytes."""

DENSE = {
    "ground": ("float32", (), np.nan, "terrain height", "m"),
    "surface": ("float32", (), np.nan, "height of the topmost surface", "m"),
    "semantics": ("uint8", (), 0, "land class of the topmost surface", "1"),
    "rgb": ("uint8", (3,), 0, "colour of the topmost surface", "1"),
}
VOXELS = {
    "xyz": ("int32", (3,)),
    "semantic": ("uint8", ()),
    "faces": ("uint8", ()),
    "object": ("uint32", ()),
}
SPLATS = {
    "offset": ("float16", (3,)),
    "scale": ("float16", (2,)),
    "rotation": ("float16", (4,)),
    "opacity": ("float16", ()),
}
RAGGED = [f"voxels/level_{{level}}/{name}" for name in VOXELS]
RAGGED += [f"splats/level_{{level}}/{name}" for name in (*SPLATS, "sh")]

OBJECTS_PER_TILE = len(LEVELS) * (len(DENSE) + len(RAGGED))
"""Files of a tile of up to ROW_SHARD voxels."""

STAGES = f"{HIDDEN}stages"
"""The folder of all scratch, inside the world."""
