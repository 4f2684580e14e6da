"""A world as columns of slabs: what stands on the ground or floats above it, with exact heights.

A slab is one run of solid voxels of a column. Meshes are made of slabs because a slab knows the
exact height of its top, where voxels know it to half a voxel only, and because slabs of a coarse
level have a share: the part of the cell that they cover. So a coarse mesh shows a building where it
covers half of a cell or more, and keeps its area, while coarse voxels grow with the level.

Rows of all arrays run from south to north here, as voxels do.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from earthgen.terrain.cover import CODES, class_code
from earthgen.voxels.columns import index_columns
from earthgen.voxels.splat_math import base_colours
from earthgen.voxels.voxels import SIDES, WALL, Splats, Voxels
from geo_io.frame import Frame

PLANTS = ("orchard", "shrub", "broadleaf_forest", "needleleaf_forest", "mixed_forest", "tree")
"""Classes of slabs that are crowns: round, not bounded by walls."""

CANOPY_LEVEL = 4
"""From this level on, crowns are one canopy instead of an object each."""

BLOCK_LEVEL = 8
"""From this level on, buildings are not told apart, as most are smaller than a cell."""

LEAST_SHARE = 1 / 128
"""Slabs that cover less of a cell are dropped."""

STANDS = 0.25
"""A coarse slab whose mean underside is lower than this part of its top stands on the ground."""

LOW = 0.25
"""Cells: what stands lower than this on a coarse level, and is no building or crown, is drawn as
the colour of the ground. Crops and walls are, which otherwise are most of a level's triangles."""

CHAMFER = 0.2
"""Voxels by which the Gaussian at the edge of a roof lies below the roof, and more than its
horizontal offset, by which it is recognised (`earthgen.voxels.heightfield`)."""


@dataclass(frozen=True)
class Slabs:
    """The solid parts above the ground, by column from the south-west, upwards.

    Attributes
    ----------
    start : NDArray (ny * nx + 1,) int64
        First slab of each column, and n.
    bottom, top : NDArray (n,) float32
        Heights above the ground of the column, metres. The bottom of what stands is 0.
    share : NDArray (n,) float32
        Part of the cell that the slab covers; 1 at level 1.
    object : NDArray (n,) uint32
        Object numbers; 0 for none.
    semantic : NDArray (n,) uint8
        Class codes.
    crown : NDArray (n,) bool
        Whether it is a crown.
    roof, side : NDArray (n, 3) uint8
        sRGB of the top and of the sides.
    trunk : NDArray (n,) bool
        Whether a trunk carries the crown here; `side` is its colour then.
    """

    start: NDArray
    bottom: NDArray
    top: NDArray
    share: NDArray
    object: NDArray
    semantic: NDArray
    crown: NDArray
    roof: NDArray
    side: NDArray
    trunk: NDArray

    def __len__(self) -> int:
        return len(self.top)

    def rows(self) -> dict[str, NDArray]:
        """Return the arrays with one row per slab by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "start"}

    def take(self, keep: NDArray) -> Slabs:
        """Return the slabs in a mask (n,) bool."""
        before = np.concatenate([[0], np.cumsum(keep)])
        return Slabs(
            before[self.start], **{name: values[keep] for name, values in self.rows().items()}
        )


@dataclass(frozen=True)
class Columns:
    """A piece of a world at one level: the ground, and slabs.

    Attributes
    ----------
    frame : Frame
        On the lattice of the level.
    ground : NDArray (ny, nx) float32
        Height of the terrain, metres; NaN for no data.
    semantic : NDArray (ny, nx) uint8
        Class of the ground; where something hides it, that of what stands there. 0 for no data.
    rgb : NDArray (ny, nx, 3) uint8
        sRGB of the ground; continued from around where something hides it.
    slabs : Slabs
    """

    frame: Frame
    ground: NDArray
    semantic: NDArray
    rgb: NDArray
    slabs: Slabs

    def padded(self, cells: int) -> Columns:
        """Return the columns with a margin of cells without data."""
        return paste(self.frame.pad(cells), [self])


def columns_of_voxels(ground: NDArray, voxels: Voxels, splats: Splats) -> Columns:
    """Return the columns of the voxels of level 1.

    Parameters
    ----------
    ground : NDArray (ny, nx) float32
        On the voxels' frame, rows from north to south, metres.
    voxels, splats : Voxels, Splats
        Sorted by (y, x, z).
    """
    frame = voxels.frame
    index = index_columns(frame, voxels.xyz, voxels.faces)
    number = frame.nx * frame.ny
    colour = base_colours(splats.sh)
    args: tuple[Any, ...] = (
        index.start,
        index.xyz[:, 2].copy(),
        index.faces,
        np.ascontiguousarray(splats.offset, np.float32),
        voxels.semantic,
        voxels.object,
        colour,
        plants(),
        frame.voxel_size,
    )
    start = np.zeros(number + 1, np.int64)
    none = (False, start, *_rows(0), *_ground(1))
    n = _slabs(*args, *none)
    rows, cells = _rows(n), _ground(number)
    arrays = (True, start, *rows, *cells)
    _slabs(*args, *arrays)
    bottom, top, numbers, semantic, crown, roof, side, trunk = rows
    classes, rgb = cells[0].reshape(frame.shape), cells[1].reshape(*frame.shape, 3)
    known = cells[2].reshape(frame.shape)
    if known.any() and not known.all():
        near = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
        rgb = rgb[tuple(near)]
    slabs = Slabs(
        start, bottom, top, np.ones(n, np.float32), numbers, semantic, crown, roof, side, trunk
    )
    height = np.where(classes > 0, ground[::-1], np.float32(np.nan)).astype(np.float32)
    return Columns(frame, height, classes, rgb, slabs)


def plants() -> NDArray:
    """Return which classes are crowns: (CODES,) bool."""
    out = np.zeros(CODES, bool)
    out[[class_code(name) for name in PLANTS]] = True
    return out


def _rows(n: int) -> tuple[NDArray, ...]:
    return (
        np.empty(n, np.float32),
        np.empty(n, np.float32),
        np.empty(n, np.uint32),
        np.empty(n, np.uint8),
        np.empty(n, np.bool_),
        np.empty((n, 3), np.uint8),
        np.empty((n, 3), np.uint8),
        np.empty(n, np.bool_),
    )


def _ground(n: int) -> tuple[NDArray, NDArray, NDArray]:
    return np.zeros(n, np.uint8), np.zeros((n, 3), np.uint8), np.zeros(n, np.bool_)


@numba.njit(cache=True, nogil=True)
def _slabs(  # type: ignore[no-untyped-def]
    voxel_start,
    z,
    faces,
    offset,
    semantic,
    number,
    colour,
    plant,
    size,
    fill,
    start,
    bottom,
    top,
    numbers,
    classes,
    crown,
    roof,
    side,
    trunk,
    ground_class,
    ground_rgb,
    ground_known,
):
    """Count the slabs, or fill the arrays with them."""
    n = 0
    total = np.zeros(3)
    for column in range(voxel_start.shape[0] - 1):
        start[column] = n
        first = voxel_start[column]
        low, standing, count = 0.0, True, 0  # of the run of voxels below
        total[:] = 0.0
        begin = first
        for k in range(first, voxel_start[column + 1]):
            if faces[k] & WALL:
                begin = k + 1
                continue
            if faces[k] & 16:
                standing, begin, count = False, k, 0
                total[:] = 0.0
                low = z[k] * size
                if faces[k] & (SIDES | 32) == 0:
                    low = (z[k] + 0.5) * size + offset[k, 2]
            if faces[k] & SIDES:
                count += 1
                for band in range(3):
                    total[band] += colour[k, band]
            if not faces[k] & 32:
                continue
            if z[k] < 0:
                if fill:
                    ground_class[column] = semantic[k]
                    ground_known[column] = True
                    for band in range(3):
                        ground_rgb[column, band] = colour[k, band]
            else:
                if fill:
                    is_plant = plant[semantic[k]]
                    at = 0
                    if standing and is_plant:
                        # The trunk: voxels that are open on all sides, up to the crown.
                        b = begin
                        while b < k and z[b] < 0:
                            b += 1
                        while b < k and z[b] == at and faces[b] & SIDES == SIDES:
                            b, at = b + 1, at + 1
                        low = at * size
                    elif standing:
                        low = 0.0
                    high = (z[k] + 0.5) * size + offset[k, 2]
                    if is_plant:
                        high = (z[k] + 1.0) * size
                    elif np.hypot(offset[k, 0], offset[k, 1]) > CHAMFER * size:
                        high += CHAMFER * size
                    bottom[n], top[n] = low, max(high, low + 0.05 * size)
                    numbers[n], classes[n], crown[n] = number[k], semantic[k], is_plant
                    trunk[n] = at > 0
                    for band in range(3):
                        roof[n, band] = colour[k, band]
                        side[n, band] = np.uint8(total[band] / count) if count else colour[k, band]
                    if ground_class[column] == 0:
                        ground_class[column] = semantic[k]
                n += 1
            standing, begin, count = False, k + 1, 0
            total[:] = 0.0
    start[-1] = n
    return n


def coarsen(columns: Columns) -> Columns:
    """Return columns at twice the cell size; the frame may begin at odd cells.

    The parts of one object in the four cells become one slab, whose height and colour are means
    weighted by the share, and whose share is their sum. The caller joins objects that are too small
    for the level (`without_objects`).
    """
    fine, frame = columns.slabs, columns.frame.coarsen(2)
    row, col = columns.frame.y[0] - 2 * frame.y[0], columns.frame.x[0] - 2 * frame.x[0]
    shape = (frame.ny * 2, frame.nx * 2)
    place = slice(row, row + columns.frame.ny), slice(col, col + columns.frame.nx)
    ground = np.full(shape, np.nan, np.float32)
    semantic, rgb = np.zeros(shape, np.uint8), np.zeros((*shape, 3), np.float32)
    ground[place], semantic[place], rgb[place] = columns.ground, columns.semantic, columns.rgb
    known = np.isfinite(ground)
    count = _four(known.astype(np.float32)).sum(axis=-1)
    weight = np.maximum(count, 1)
    mean = _four(np.where(known, ground, 0)).sum(axis=-1) / weight
    colour = np.stack(
        [_four(np.where(known, rgb[..., band], 0)).sum(axis=-1) / weight for band in range(3)], -1
    )
    classes = _four(semantic)
    votes = ((classes[..., None] == classes[..., None, :]) & (classes[..., None] > 0)).sum(axis=-1)
    mode = np.take_along_axis(classes, votes.argmax(axis=-1)[..., None], axis=-1)[..., 0]

    cell = np.repeat(np.arange(len(fine.start) - 1), np.diff(fine.start))
    y, x = np.divmod(cell, columns.frame.nx)
    parent = ((y + row) >> 1) * frame.nx + ((x + col) >> 1)
    slabs = _merge(fine, parent, frame.nx * frame.ny, np.float32(0.25))
    return Columns(
        frame,
        np.where(count > 0, mean, np.nan).astype(np.float32),
        np.where(count > 0, mode, 0).astype(np.uint8),
        np.rint(colour).astype(np.uint8),
        slabs,
    )


def without_objects(columns: Columns, *, crowns_only: bool) -> Columns:
    """Return columns whose crowns, and other slabs of one class unless `crowns_only`, are one per
    column, of no object."""
    slabs = columns.slabs
    cell = np.repeat(np.arange(len(slabs.start) - 1), np.diff(slabs.start))
    numbers = np.where(slabs.crown | (not crowns_only), np.uint32(0), slabs.object)
    joined = replace(slabs, object=numbers)
    return replace(columns, slabs=_merge(joined, cell, len(slabs.start) - 1, np.float32(1)))


def _four(values: NDArray) -> NDArray:
    """(ny, nx, 4) the children of each coarse cell of an array (2 ny, 2 nx)."""
    return np.stack(
        [values[0::2, 0::2], values[0::2, 1::2], values[1::2, 0::2], values[1::2, 1::2]], -1
    )


def _merge(slabs: Slabs, cell: NDArray, cells: int, factor: np.float32) -> Slabs:
    """Join slabs of one object in one new cell; those of no object by class, crowns by kind."""
    kind = np.where(slabs.crown, 0, np.where(slabs.object > 0, 0, slabs.semantic))
    crown = slabs.crown.astype(np.int64)
    order = np.lexsort((kind, slabs.object, crown, cell))
    keys = [values[order] for values in (cell, crown, slabs.object, kind)]
    fresh = np.ones(len(order), bool)
    if len(order):
        fresh[1:] = np.logical_or.reduce([key[1:] != key[:-1] for key in keys])
    first = np.flatnonzero(fresh)
    if not len(first):
        return Slabs(np.zeros(cells + 1, np.int64), **slabs.rows())
    share = slabs.share[order].astype(np.float64)
    total = np.add.reduceat(share, first)

    def mean(values: NDArray) -> NDArray:
        weights = share if values.ndim == 1 else share[:, None]
        sums = np.add.reduceat(values[order] * weights, first)
        return np.asarray(sums / (total if values.ndim == 1 else total[:, None]))

    bottom, top = mean(slabs.bottom), mean(slabs.top)
    standing = ~slabs.crown[order][first] & (bottom < STANDS * top)
    # The class of the largest part; of equal ones, of the first.
    group = np.cumsum(fresh) - 1
    largest = np.lexsort((-share, group))[first]
    keep = total * factor >= LEAST_SHARE
    counts = np.bincount(keys[0][first][keep], minlength=cells)
    rows = {
        "bottom": np.where(standing, 0, bottom).astype(np.float32),
        "top": top.astype(np.float32),
        "share": np.minimum(total * factor, 1).astype(np.float32),
        "object": slabs.object[order][first],
        "semantic": slabs.semantic[order][largest],
        "crown": slabs.crown[order][first],
        "roof": np.rint(mean(slabs.roof)).astype(np.uint8),
        "side": np.rint(mean(slabs.side)).astype(np.uint8),
        "trunk": np.logical_or.reduceat(slabs.trunk[order], first),
    }
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Slabs(start, **{name: values[keep] for name, values in rows.items()})


def flattened(columns: Columns) -> Columns:
    """Return coarse columns without what is too low to be seen as a shape; its colour stays.

    Buildings and crowns stay, however low, so that their area does.
    """
    slabs, cells = columns.slabs, columns.ground.size
    low = ~slabs.crown & (slabs.bottom <= 0) & (slabs.top < LOW * columns.frame.voxel_size)
    low &= slabs.semantic != class_code("building")
    if not low.any():
        return columns
    cell = np.repeat(np.arange(cells), np.diff(slabs.start))[low]
    share = slabs.share[low].astype(np.float64)
    covered = np.bincount(cell, share, cells)
    rgb = columns.rgb.reshape(-1, 3) * np.maximum(1 - covered, 0)[:, None]
    for band in range(3):
        rgb[:, band] += np.bincount(cell, share * slabs.roof[low, band], cells)
    rgb /= np.maximum(covered, 1)[:, None]
    return replace(
        columns,
        rgb=np.rint(rgb).astype(np.uint8).reshape(columns.rgb.shape),
        slabs=slabs.take(~low),
    )


def shown(columns: Columns) -> Columns:
    """Return the columns with the slabs that are drawn: per cell at most one solid and one crown.

    A cell shows a building, or a crown, if those cover most of it; the largest stands for them.
    Most is about a half: as many cells are drawn, the fullest first, as the covered area is large.
    So the area stays although single houses and trees are smaller than a coarse cell. At level 1,
    where every share is 1, all slabs are drawn.
    """
    slabs = columns.slabs
    if not len(slabs) or slabs.share.min() >= 1:
        return columns
    cells = len(slabs.start) - 1
    cell = np.repeat(np.arange(cells), np.diff(slabs.start))
    keep = np.zeros(len(slabs), bool)
    for kind in (False, True):
        rows = np.flatnonzero(slabs.crown == kind)
        covered = np.minimum(np.bincount(cell[rows], slabs.share[rows], cells), 1)
        fullest = np.argsort(-covered, kind="stable")[: round(covered.sum())]
        drawn = np.zeros(cells, bool)
        drawn[fullest] = covered[fullest] > 0
        rows = rows[drawn[cell[rows]]]
        order = rows[np.lexsort((rows, -slabs.share[rows], cell[rows]))]
        _, first = np.unique(cell[order], return_index=True)
        keep[order[first]] = True
    return replace(columns, slabs=slabs.take(keep))


def paste(frame: Frame, parts: list[Columns]) -> Columns:
    """Return columns on a frame from pieces that do not overlap; cells outside them are no data."""
    ground = np.full(frame.shape, np.nan, np.float32)
    semantic, rgb = np.zeros(frame.shape, np.uint8), np.zeros((*frame.shape, 3), np.uint8)
    counts = np.zeros(frame.shape, np.int64)
    pieces = []
    for part in parts:
        shared = frame.intersection(part.frame)
        if shared is None:
            continue
        to = _window(frame, shared)
        of = _window(part.frame, shared)
        ground[to], semantic[to], rgb[to] = part.ground[of], part.semantic[of], part.rgb[of]
        here = np.zeros(part.frame.shape, bool)
        here[of] = True
        number = np.diff(part.slabs.start)
        counts[to] = number.reshape(part.frame.shape)[of]
        cell = np.repeat(np.arange(part.ground.size), number)
        keep = here.ravel()[cell]
        y, x = np.divmod(cell[keep], part.frame.nx)
        y, x = y + part.frame.y[0] - frame.y[0], x + part.frame.x[0] - frame.x[0]
        pieces.append((y * frame.nx + x, part.slabs, keep))
    start = np.concatenate([[0], np.cumsum(counts.ravel())]).astype(np.int64)
    if not pieces:
        return Columns(frame, ground, semantic, rgb, no_slabs(start))
    order = np.argsort(np.concatenate([cells for cells, _, _ in pieces]), kind="stable")
    rows = {
        name: np.concatenate([getattr(slabs, name)[keep] for _, slabs, keep in pieces])[order]
        for name in pieces[0][1].rows()
    }
    return Columns(frame, ground, semantic, rgb, Slabs(start, **rows))


def no_slabs(start: NDArray) -> Slabs:
    """Return the slabs of columns that have none."""
    bottom, top, number, semantic, crown, roof, side, trunk = _rows(0)
    return Slabs(start, bottom, top, top.copy(), number, semantic, crown, roof, side, trunk)


def _window(frame: Frame, inner: Frame) -> tuple[slice, slice]:
    """Rows from the south, and columns, of a frame inside another."""
    return (
        slice(inner.y[0] - frame.y[0], inner.y[1] - frame.y[0]),
        slice(inner.x[0] - frame.x[0], inner.x[1] - frame.x[0]),
    )
