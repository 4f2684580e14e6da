"""Point clouds on columns: top, ground, class and colour of each column."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen.dataset.builders.ground import LARGEST_THING, fill_nearest, filter_ground, interpolate
from earthgen.dataset.builders.land_cover import TALL
from earthgen.dataset.readers.points import GROUND, NO_SURFACE, Points
from geo_io.errors import InputError, RegionError
from geo_io.frame import Frame
from geo_io.legend import codes

NEAR_TOP = 1.0
"""Points within this distance of a column's top vote for its class, metres."""

COLOUR_DEPTH, COLOUR_WIDTH = 0.5, 0.5
"""Standard deviations of the weight of a point for its column's colour: metres below the top, and
voxels from the centre."""

REACH = 2.5
"""An empty column takes the values of the nearest column within this many mean point distances.
Farther columns are holes."""


@dataclass(frozen=True)
class PointColumns:
    """What points say about each column.

    Attributes
    ----------
    ground : NDArray (ny, nx) float32
        Height of the terrain without gaps, metres.
    top : NDArray (ny, nx) float32
        Height of the surface, metres; gaps are filled from the nearest column.
    code : NDArray (ny, nx) uint8
        Class of the top, 0 for unknown.
    image : NDArray (ny, nx, 3) uint8
        Colour seen from above.
    image_known : NDArray (ny, nx) bool
        Columns that have points with colours.
    measured : NDArray (ny, nx) bool
        Columns that have points.
    valid : NDArray (ny, nx) bool
        Columns with points within reach.
    roof : NDArray (ny, nx) float32
        Median height of a column's points on buildings, metres, NaN without such points. If the
        cloud has no class of buildings, of all points without a class well above the ground.
    intensity : NDArray (ny, nx) float32
        Mean intensity of the laser's returns, NaN without points.
    spacing : float
        Mean distance between points, metres.
    """

    ground: NDArray
    top: NDArray
    code: NDArray
    image: NDArray
    image_known: NDArray
    measured: NDArray
    valid: NDArray
    roof: NDArray
    intensity: NDArray
    spacing: float


def bin_points(
    points: Points,
    frame: Frame,
    table: Mapping[int, int],
    *,
    ground: str | NDArray = "class",
    dropped: tuple[int, ...] = NO_SURFACE,
    colour_shift: tuple[float, float] = (0.0, 0.0),
    largest: float = LARGEST_THING,
) -> PointColumns:
    """Bin points onto a frame.

    Parameters
    ----------
    points : Points
        The points.
    frame : Frame
        Where the columns are.
    table : Mapping[int, int]
        Class code by point class.
    ground : str | NDArray (ny, nx)
        "class" takes the ground classes, "filter" uses `filter_ground`; or heights in metres.
    dropped : tuple[int, ...]
        Point classes that are not part of the surface.
    colour_shift : tuple[float, float]
        Metres east and north to move the colours by.
    largest : float
        Width of the largest object that `filter_ground` removes, metres.

    Raises
    ------
    RegionError
        if no point lies on the frame
    InputError
        if `ground` is "class" and no point has a ground class
    """
    size, shape = frame.voxel_size, frame.shape
    col, row, inside = _cells(points.xyz, frame, (0.0, 0.0))
    surface = inside & ~np.isin(points.classification, dropped)
    if not surface.any():
        raise RegionError(
            f"none of {len(points):,} points lies in {frame}",
            "check the CRS of the points and the bounds of the scene",
        )
    z = points.xyz[:, 2].astype(np.float32)
    top, low, count = (
        np.full(shape, np.nan, np.float32),
        np.full(shape, np.nan, np.float32),
        np.zeros(shape, np.int32),
    )
    _extremes(col, row, z, surface, top, low, count)
    measured = count > 0
    spacing = (
        math.sqrt(measured.sum() * size * size / count.sum())
        if _dense(count)
        else _sparse_spacing(count, size)
    )

    lookup = np.zeros(256, np.uint8)
    for value, code in table.items():
        if 0 <= value < 256:
            lookup[value] = code
    votes = np.zeros((*shape, 26), np.uint16)
    _vote(
        col,
        row,
        z,
        lookup[points.classification],
        surface,
        top,
        np.float32(max(NEAR_TOP, size)),
        votes,
    )
    votes[..., 0] = 0  # known classes win over unknown
    code = votes.argmax(axis=2).astype(np.uint8)

    if isinstance(ground, str):
        terrain = _terrain(points, col, row, z, inside, ground, low, size, largest)
    else:
        terrain = np.asarray(ground, np.float32)
    meaning = lookup[points.classification]
    on_roof = surface & (meaning == codes()["building"])
    if not on_roof.any():
        on_roof = surface & (meaning == 0)
        on_roof[on_roof] &= z[on_roof] - terrain[row[on_roof], col[on_roof]] > TALL
    roof = _medians(row[on_roof] * frame.nx + col[on_roof], z[on_roof], shape)
    from scipy.ndimage import distance_transform_edt

    distance = distance_transform_edt(~measured) * size
    valid = distance <= max(REACH * spacing, 1.5 * size)
    image, known = _colours(points, frame, z, surface, top, colour_shift)
    strength = np.bincount(
        row[surface] * frame.nx + col[surface], points.intensity[surface], frame.nx * frame.ny
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        intensity = (strength.reshape(shape) / count).astype(np.float32)
    return PointColumns(
        terrain,
        fill_nearest(top, measured),
        fill_nearest(code, measured),
        image,
        known,
        measured,
        valid,
        roof,
        intensity,
        spacing,
    )


def _medians(cell: NDArray, z: NDArray, shape: tuple[int, int]) -> NDArray:
    """Return the (ny, nx) float32 median of the values in each cell, NaN without any."""
    out = np.full(shape, np.nan, np.float32)
    if len(cell):
        order = np.lexsort((z, cell))
        place, first, count = np.unique(cell[order], return_index=True, return_counts=True)
        ordered = z[order]
        middle = ordered[first + (count - 1) // 2], ordered[first + count // 2]
        out.reshape(-1)[place] = 0.5 * (middle[0] + middle[1])
    return out


def _dense(count: NDArray) -> bool:
    """Whether most columns have points."""
    return bool((count > 0).mean() > 0.5)


def _sparse_spacing(count: NDArray, size: float) -> float:
    """Return the mean distance between points if it is larger than a column, from cells of 8 x 8
    columns that have points."""
    ny, nx = (n // 8 * 8 for n in count.shape)
    coarse = count[:ny, :nx].reshape(ny // 8, 8, nx // 8, 8).sum(axis=(1, 3))
    held = coarse[coarse > 0]
    return float(8 * size / math.sqrt(max(np.median(held), 1.0))) if held.size else size


def _cells(
    xyz: NDArray, frame: Frame, shift: tuple[float, float]
) -> tuple[NDArray, NDArray, NDArray]:
    """Return the column and row of points, and which lie on the frame."""
    col = np.floor((xyz[:, 0] + shift[0]) / frame.voxel_size).astype(np.int64) - frame.x[0]
    row = frame.y[1] - 1 - np.floor((xyz[:, 1] + shift[1]) / frame.voxel_size).astype(np.int64)
    inside = (col >= 0) & (col < frame.nx) & (row >= 0) & (row < frame.ny)
    return col, row, inside


def _terrain(
    points: Points,
    col: NDArray,
    row: NDArray,
    z: NDArray,
    inside: NDArray,
    ground: str,
    low: NDArray,
    size: float,
    largest: float,
) -> NDArray:
    if ground == "filter":
        known = filter_ground(low, size, largest=largest)
        return interpolate(low, known)
    of_ground = inside & np.isin(points.classification, GROUND)
    if not of_ground.any():
        existing = ", ".join(map(str, np.unique(points.classification)[:12]))
        raise InputError(
            f"no point has a ground class ({', '.join(map(str, GROUND))}); "
            f"their classes are {existing}",
            "give a dtm, or ground = 'filter' to find the ground by its shape",
        )
    total, number = np.zeros(low.shape, np.float64), np.zeros(low.shape, np.int32)
    np.add.at(total, (row[of_ground], col[of_ground]), z[of_ground].astype(np.float64))
    np.add.at(number, (row[of_ground], col[of_ground]), 1)
    return interpolate(total / np.maximum(number, 1), number > 0)


def _colours(
    points: Points,
    frame: Frame,
    z: NDArray,
    surface: NDArray,
    top: NDArray,
    shift: tuple[float, float],
) -> tuple[NDArray, NDArray]:
    """Return the colour seen from above, and where it is known.

    It is the mean of a column's points, weighted by their distances from its top and its centre, as
    in the score aggregation of Aerial-Earth3D (Liu et al., AAAI 2026): one weight for the distance
    from the surface and one for the view, which from above is the distance from the centre. Shifted
    colours come from a picture draped over the points. Then the height of a point says nothing
    about its colour, and has no weight.
    """
    image = np.zeros((*frame.shape, 3), np.uint8)
    if points.rgb is None:
        return image, np.zeros(frame.shape, bool)
    col, row, inside = _cells(points.xyz, frame, shift)
    use = surface if shift == (0.0, 0.0) else inside & (points.rgb.any(axis=1))
    total, weight = np.zeros((*frame.shape, 3), np.float64), np.zeros(frame.shape, np.float64)
    east = (points.xyz[:, 0] + shift[0]) / frame.voxel_size - frame.x[0] - col - 0.5
    north = frame.y[1] - (points.xyz[:, 1] + shift[1]) / frame.voxel_size - row - 0.5
    depth = COLOUR_DEPTH if shift == (0.0, 0.0) else 1e6
    _score(col, row, z, east, north, points.rgb, use, top, depth, COLOUR_WIDTH, total, weight)
    known = weight > 1e-6
    image[known] = np.clip(np.round(total[known] / weight[known][:, None]), 0, 255).astype(np.uint8)
    return image, known


@numba.njit(cache=True, nogil=True)
def _extremes(col, row, z, use, top, low, count):  # type: ignore[no-untyped-def]
    for n in range(z.size):
        if use[n]:
            r, c = row[n], col[n]
            if count[r, c] == 0 or z[n] > top[r, c]:
                top[r, c] = z[n]
            if count[r, c] == 0 or z[n] < low[r, c]:
                low[r, c] = z[n]
            count[r, c] += 1


@numba.njit(cache=True, nogil=True)
def _vote(col, row, z, code, use, top, near, votes):  # type: ignore[no-untyped-def]
    for n in range(z.size):
        if use[n] and top[row[n], col[n]] - z[n] <= near:
            votes[row[n], col[n], code[n]] += 1


@numba.njit(cache=True, nogil=True)
def _score(col, row, z, east, north, rgb, use, top, depth, width, total, weight):  # type: ignore[no-untyped-def]
    for n in range(z.size):
        if use[n]:
            r, c = row[n], col[n]
            below = max(top[r, c] - z[n], 0.0) / depth if top[r, c] == top[r, c] else 0.0
            score = np.exp(
                -0.5 * (below * below + (east[n] * east[n] + north[n] * north[n]) / (width * width))
            )
            weight[r, c] += score
            for band in range(3):
                total[r, c, band] += score * rgb[n, band]
