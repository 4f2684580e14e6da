"""Fields: how farmland is divided, what grows where, and in which direction it is tilled.

One polygon of land use is often many fields, and raster land cover has no polygons at all. So every
parcel is cut by a pattern of strips that depends on the place: blocks of a Voronoi diagram, each
with its own direction. Geometry and texture both call `make_fields`, and get the same fields.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen.noise.fields import Seeds, cell_centres, cells, seeds
from earthgen.noise.philox import Noise
from earthgen.terrain.cover import is_class, on_surface
from geo_io.frame import Frame

BLOCK = 420.0  # metres between the middles of blocks of one direction

WHEAT, BARLEY, MAIZE, RAPESEED, PLOUGHED, ROOTS, LEY, STUBBLE = range(8)
"""Crops."""

CROP_SHARE = np.array([0.27, 0.14, 0.18, 0.06, 0.10, 0.10, 0.10, 0.05])
CROP_HEIGHT = np.array(
    [
        [0.6, 0.9],
        [0.6, 0.85],
        [0.9, 1.6],
        [1.0, 1.4],
        [0.0, 0.0],
        [0.3, 0.5],
        [0.15, 0.3],
        [0.1, 0.15],
    ]
)
"""Metres, (crops, 2)."""

HEDGED_PARCEL, HEDGED_FIELD = 0.42, 0.06
"""Chance of a hedge between two parcels, and between two fields of one parcel."""


@dataclass(frozen=True)
class Fields:
    """The fields of a frame; all (ny, nx).

    Attributes
    ----------
    index : int32, into the draws of this frame's fields, -1 outside farmland and grass
    draws : (n, 4) float64 uniform in [0, 1), by field
    crop : uint8, one of the crops; only where the class is cropland
    height : float32, metres, of the crop; 0 elsewhere
    angle : float32, radians from east, direction of the rows
    across : float32, metres across the rows
    edge : bool, cells beside another field
    hedge : bool, the edges on which a hedge stands
    """

    index: NDArray
    draws: NDArray
    crop: NDArray
    height: NDArray
    angle: NDArray
    across: NDArray
    edge: NDArray
    hedge: NDArray

    def part(self, part: tuple[slice, slice]) -> Fields:
        """The fields of a part of the frame, given as slices of its arrays."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        return Fields(
            **{name: values if name == "draws" else values[part] for name, values in arrays.items()}
        )


def field_blocks(frame: Frame, noise: Noise) -> tuple[Seeds, NDArray]:
    """The middles of the blocks around `frame`, and (n, 4) float64 uniform draws of each: the
    first is its angle over pi. Stages agree on them: they come from shared noise."""
    shared = noise.shared()
    blocks = seeds(shared.stream("procedural.fields.blocks"), frame, BLOCK, 0.7)
    return blocks, shared.stream("procedural.fields.strips").bits(blocks.key.ravel(), 0) * 2.0**-32


def make_fields(frame: Frame, cover: NDArray, parcel: NDArray, noise: Noise) -> Fields:
    """The fields on `frame`; `edge` and `hedge` are not to be used in its outermost cells.

    cover : (ny, nx) uint8; parcel : (ny, nx) uint32
    """
    blocks, draw = field_blocks(frame, noise)
    block = cells(blocks, frame)
    angle = draw[:, 0] * np.pi
    width, length = 45.0 + 75.0 * draw[:, 1] ** 1.5, 150.0 + 230.0 * draw[:, 2]
    farmed = on_surface(cover, "crop") | is_class(cover, "grassland")
    tilled = farmed | is_class(cover, "grass", "sports", "orchard")
    x, y = cell_centres(frame)
    key, across = _strips(
        x,
        y,
        block,
        blocks.x.ravel(),
        blocks.y.ravel(),
        blocks.key.ravel(),
        angle,
        width,
        length,
        tilled,
        np.ascontiguousarray(parcel),
    )

    stream = noise.shared().stream("procedural.fields")
    names, index = np.unique(key[tilled], return_inverse=True)
    where = np.full(frame.shape, -1, np.int32)
    where[tilled] = index
    draws = np.stack([stream.of_objects(names, c) for c in range(4)], axis=1).reshape(-1, 4)
    crop_of = np.searchsorted(np.cumsum(CROP_SHARE)[:-1], draws[:, 0], side="right").astype(
        np.uint8
    )
    low, high = CROP_HEIGHT[crop_of].T
    height_of = low + draws[:, 1] * (high - low)
    crop, height = np.zeros(frame.shape, np.uint8), np.zeros(frame.shape, np.float32)
    grows = on_surface(cover, "crop") & (where >= 0)
    crop[grows], height[grows] = crop_of[where[grows]], height_of[where[grows]]

    edge, pair, parted = _borders(key, np.ascontiguousarray(parcel), farmed)
    hedge = np.zeros(frame.shape, bool)
    if edge.any():
        pairs, which = np.unique(pair[edge], return_inverse=True)
        chance = np.where(parted[edge], HEDGED_PARCEL, HEDGED_FIELD)
        hedge[edge] = stream.of_objects(pairs, 4)[which] < chance
    return Fields(where, draws, crop, height, angle[block].astype(np.float32), across, edge, hedge)


@numba.njit(cache=True, nogil=True)
def _strips(x, y, block, bx, by, bkey, angle, width, length, wanted, parcel):  # type: ignore[no-untyped-def]
    key = np.zeros(block.shape, np.uint64)
    across = np.zeros(block.shape, np.float32)
    cos, sin = np.cos(angle), np.sin(angle)
    for row in range(y.size):
        for col in range(x.size):
            if not wanted[row, col]:
                continue
            b = block[row, col]
            dx, dy = x[col] - bx[b], y[row] - by[b]
            u, v = dx * cos[b] + dy * sin[b], dy * cos[b] - dx * sin[b]
            strip = int(np.floor(v / width[b]))
            # Neighbouring strips are cut at different places.
            shift = 0.37 * strip
            cut = int(np.floor(u / length[b] + shift))
            name = np.uint64(bkey[b]) << np.uint64(32)
            name ^= np.uint64((strip + 512) & 1023) << np.uint64(10) | np.uint64((cut + 512) & 1023)
            name ^= np.uint64(parcel[row, col]) * np.uint64(0x9E3779B97F4A7C15)
            key[row, col] = name
            across[row, col] = v
    return key, across


@numba.njit(cache=True, nogil=True)
def _borders(key, parcel, farmed):  # type: ignore[no-untyped-def]
    """Cells beside a farmed cell of another field: a key of the pair of fields, and whether
    their parcels differ."""
    rows, cols = key.shape
    edge, parted = np.zeros((rows, cols), np.bool_), np.zeros((rows, cols), np.bool_)
    pair = np.zeros((rows, cols), np.uint64)
    steps = ((-1, 0), (1, 0), (0, -1), (0, 1))
    for row in range(1, rows - 1):
        for col in range(1, cols - 1):
            if not farmed[row, col]:
                continue
            for dr, dc in steps:
                r, c = row + dr, col + dc
                if farmed[r, c] and key[r, c] != key[row, col]:
                    low, high = min(key[row, col], key[r, c]), max(key[row, col], key[r, c])
                    edge[row, col] = True
                    pair[row, col] = low * np.uint64(0xD1B54A32D192ED03) ^ high
                    parted[row, col] = parcel[r, c] != parcel[row, col]
                    break
    return edge, pair, parted
