"""Farmland: its division into fields, their crops, and the direction of their rows.

A polygon of land use often contains many fields, and raster land cover has no polygons at all. So
every parcel is cut by a pattern of strips that depends on the place: blocks of a Voronoi diagram,
each with its own direction. Geometry and texture both call `make_fields` and get the same fields.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen.noise.fields import PointLattice, cell_centres, jittered_lattice, voronoi_cells
from earthgen.noise.philox import Noise
from earthgen.terrain.cover import is_class, on_surface
from geo_io.frame import Frame

BLOCK = 420.0  # mean distance of the centres of blocks, metres

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
"""Least and greatest height of each crop, metres: (crops, 2)."""

HEDGED_PARCEL, HEDGED_FIELD = 0.42, 0.06
"""Chance of a hedge between two parcels, and between two fields of one parcel."""


@dataclass(frozen=True)
class Fields:
    """The fields of a frame.

    Attributes
    ----------
    index : NDArray (ny, nx) int32
        Row of `draws`; -1 outside farmland and grass.
    draws : NDArray (n, 4) float64
        Uniform in [0, 1), one row per field of the frame.
    crop : NDArray (ny, nx) uint8
        One of the crops; valid where the class is cropland.
    height : NDArray (ny, nx) float32
        Height of the crop, metres; 0 elsewhere.
    angle : NDArray (ny, nx) float32
        Direction of the rows, radians from east.
    across : NDArray (ny, nx) float32
        Position across the rows, metres.
    edge : NDArray (ny, nx) bool
        Cells beside another field.
    hedge : NDArray (ny, nx) bool
        The edges that have a hedge.
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
        """Return the fields of a part of the frame, given as slices of its arrays."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        return Fields(
            **{name: values if name == "draws" else values[part] for name, values in arrays.items()}
        )


def field_blocks(frame: Frame, noise: Noise) -> tuple[PointLattice, NDArray]:
    """Return the blocks around `frame`; they are the same in all stages.

    Returns
    -------
    blocks : PointLattice
        Their centres, n points.
    draws : NDArray (n, 4) float64
        Uniform in [0, 1); the first is the direction of the rows divided by pi.
    """
    shared = noise.shared()
    blocks = jittered_lattice(shared.stream("procedural.fields.blocks"), frame, BLOCK, 0.7)
    return blocks, shared.stream("procedural.fields.strips").bits(blocks.key.ravel(), 0) * 2.0**-32


def make_fields(frame: Frame, cover: NDArray, parcel: NDArray, noise: Noise) -> Fields:
    """Return the fields on `frame`; `edge` and `hedge` are wrong in its outermost cells.

    Parameters
    ----------
    frame : Frame
        Of the arrays.
    cover : NDArray (ny, nx) uint8
        Land classes.
    parcel : NDArray (ny, nx) uint32
        Numbers of the land use polygons, 0 without one.
    noise : Noise
        Of the world or any of its stages.
    """
    blocks, draw = field_blocks(frame, noise)
    block = voronoi_cells(blocks, frame)
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
    field_keys, index = np.unique(key[tilled], return_inverse=True)
    where = np.full(frame.shape, -1, np.int32)
    where[tilled] = index
    draws = np.stack([stream.of_objects(field_keys, c) for c in range(4)], axis=1).reshape(-1, 4)
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
def _strips(x, y, block, bx, by, bkey, angle, width, length, mask, parcel):  # type: ignore[no-untyped-def]
    key = np.zeros(block.shape, np.uint64)
    across = np.zeros(block.shape, np.float32)
    cos, sin = np.cos(angle), np.sin(angle)
    for row in range(y.size):
        for col in range(x.size):
            if not mask[row, col]:
                continue
            b = block[row, col]
            dx, dy = x[col] - bx[b], y[row] - by[b]
            u, v = dx * cos[b] + dy * sin[b], dy * cos[b] - dx * sin[b]
            strip = int(np.floor(v / width[b]))
            # Neighbouring strips are cut at different positions.
            shift = 0.37 * strip
            cut = int(np.floor(u / length[b] + shift))
            field = np.uint64(bkey[b]) << np.uint64(32)
            field ^= np.uint64((strip + 512) & 1023) << np.uint64(10)
            field ^= np.uint64((cut + 512) & 1023)
            field ^= np.uint64(parcel[row, col]) * np.uint64(0x9E3779B97F4A7C15)
            key[row, col] = field
            across[row, col] = v
    return key, across


@numba.njit(cache=True, nogil=True)
def _borders(key, parcel, farmed):  # type: ignore[no-untyped-def]
    """Return the cells beside another field, the key of both fields, and whether parcels differ."""
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
