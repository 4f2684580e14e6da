"""Random fields and point lattices on a frame: each value is a function of seed and place alone.

Positions are float64 from the CRS origin, because lattice indices reach 1e7 and float32 could not
tell neighbours apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from earthgen.noise.philox import Stream
from geo_io.frame import Frame

GOLDEN_ANGLE = 2.399963229728653
"""Radians between the lattices of successive channels, so that their axes form no visible grid."""


def cell_centres(frame: Frame) -> tuple[NDArray, NDArray]:
    """Return the coordinates of the cells' centres.

    Returns
    -------
    x : NDArray (nx,) float64
        Eastings, CRS metres.
    y : NDArray (ny,) float64
        Northings, CRS metres, from north to south.
    """
    x = (np.arange(frame.x[0], frame.x[1]) + 0.5) * frame.voxel_size
    y = (np.arange(frame.y[1] - 1, frame.y[0] - 1, -1) + 0.5) * frame.voxel_size
    return x, y


def white_noise(stream: Stream, frame: Frame, channel: int = 0) -> NDArray:
    """Return independent random values, one per cell: (ny, nx) float32 in [-1, 1)."""
    i = np.arange(frame.x[0], frame.x[1])[None, :]
    j = np.arange(frame.y[1] - 1, frame.y[0] - 1, -1)[:, None]
    return (stream.uniform(i, j, 0, channel) * 2.0 - 1.0).astype(np.float32)


def gradient_noise(stream: Stream, frame: Frame, wavelength: float, channel: int = 0) -> NDArray:
    """Return gradient noise, one value per cell.

    The method is Perlin's ("Improving noise", SIGGRAPH 2002) with random unit gradients.

    Parameters
    ----------
    stream : Stream
        Source of the gradients.
    frame : Frame
        Where to evaluate.
    wavelength : float
        Distance of the lattice points, metres; at least two voxels are used, because shorter waves
        cannot be represented.
    channel : int
        Fields of different channels are independent.

    Returns
    -------
    NDArray (ny, nx) float32
        About -1 to 1.
    """
    x, y = cell_centres(frame)
    return np.asarray(_noise_on_cells(x, y, *_gradients(stream, frame, wavelength, channel)))


def gradient_noise_at(
    stream: Stream, frame: Frame, x: NDArray, y: NDArray, wavelength: float, channel: int = 0
) -> NDArray:
    """Return gradient noise at points: the field that `gradient_noise` samples at cells.

    Parameters
    ----------
    stream, wavelength, channel
        As for `gradient_noise`.
    frame : Frame
        Contains the points; its voxel size bounds the wavelength from below.
    x, y : NDArray (n,) float64
        CRS metres.

    Returns
    -------
    NDArray (n,) float32
        About -1 to 1.
    """
    return np.asarray(_noise_at_points(x, y, *_gradients(stream, frame, wavelength, channel)))


def _gradients(
    stream: Stream, frame: Frame, wavelength: float, channel: int
) -> tuple[float, float, int, int, NDArray, NDArray]:
    """Return the lattice of one wavelength on and around the frame.

    These are cosine and sine of its rotation divided by its spacing, the indices (i, j) of its
    first point, and the x and y parts of the gradients at its points.
    """
    spacing = max(float(wavelength), 2.0 * frame.voxel_size)
    angle = 0.5 + GOLDEN_ANGLE * channel + spacing * 0.01
    cos, sin = float(np.cos(angle) / spacing), float(np.sin(angle) / spacing)
    left, bottom, right, top = frame.bounds
    corners = [(x * cos + y * sin, y * cos - x * sin) for x in (left, right) for y in (bottom, top)]
    u, v = zip(*corners, strict=True)
    i0, i1 = math.floor(min(u)) - 1, math.floor(max(u)) + 2
    j0, j1 = math.floor(min(v)) - 1, math.floor(max(v)) + 2
    i, j = np.arange(i0, i1 + 1)[None, :], np.arange(j0, j1 + 1)[:, None]
    turn = stream.uniform(i, j, round(spacing * 1000), channel) * (2.0 * np.pi)
    return cos, sin, i0, j0, np.cos(turn), np.sin(turn)


@numba.njit(cache=True, nogil=True, inline="always")
def _noise_at(x, y, cos, sin, i0, j0, gx, gy):  # type: ignore[no-untyped-def]
    u = x * cos + y * sin
    v = y * cos - x * sin
    fu, fv = np.floor(u), np.floor(v)
    a, b = u - fu, v - fv
    i, j = int(fu) - i0, int(fv) - j0
    su = a * a * a * (a * (a * 6.0 - 15.0) + 10.0)
    sv = b * b * b * (b * (b * 6.0 - 15.0) + 10.0)
    n00 = gx[j, i] * a + gy[j, i] * b
    n10 = gx[j, i + 1] * (a - 1.0) + gy[j, i + 1] * b
    n01 = gx[j + 1, i] * a + gy[j + 1, i] * (b - 1.0)
    n11 = gx[j + 1, i + 1] * (a - 1.0) + gy[j + 1, i + 1] * (b - 1.0)
    low, high = n00 + su * (n10 - n00), n01 + su * (n11 - n01)
    return 1.5 * (low + sv * (high - low))


@numba.njit(cache=True, nogil=True)
def _noise_on_cells(x, y, cos, sin, i0, j0, gx, gy):  # type: ignore[no-untyped-def]
    out = np.empty((y.size, x.size), np.float32)
    for row in range(y.size):
        for col in range(x.size):
            out[row, col] = _noise_at(x[col], y[row], cos, sin, i0, j0, gx, gy)
    return out


@numba.njit(cache=True, nogil=True)
def _noise_at_points(x, y, cos, sin, i0, j0, gx, gy):  # type: ignore[no-untyped-def]
    out = np.empty(x.size, np.float32)
    for n in range(x.size):
        out[n] = _noise_at(x[n], y[n], cos, sin, i0, j0, gx, gy)
    return out


def fractal_noise(
    stream: Stream, frame: Frame, wavelengths: tuple[float, ...], gain: float, channel: int = 0
) -> NDArray:
    """Return a sum of gradient noise fields.

    Parameters
    ----------
    stream : Stream
        Source of the gradients.
    frame : Frame
        Where to evaluate.
    wavelengths : tuple of float
        Metres, one per octave.
    gain : float
        Amplitude of each octave relative to the one before; the first has 1.
    channel : int
        Channel of the first octave; the others use the channels after it.

    Returns
    -------
    NDArray (ny, nx) float32
    """
    total = np.zeros(frame.shape, np.float32)
    for octave, wavelength in enumerate(wavelengths):
        total += np.float32(gain**octave) * gradient_noise(
            stream, frame, wavelength, channel + octave
        )
    return total


@dataclass(frozen=True)
class PointLattice:
    """A jittered lattice of points on and around a frame.

    Attributes
    ----------
    spacing : float
        Mean distance of neighbouring points, metres.
    i0, j0 : int
        Lattice indices (east, north) of entry [0, 0] of the arrays.
    x, y : NDArray (rows, cols) float64
        CRS metres.
    key : NDArray (rows, cols) uint32
        Random number of the point, never 0: a function of seed and place.
    """

    spacing: float
    i0: int
    j0: int
    x: NDArray
    y: NDArray
    key: NDArray

    def cells(self, frame: Frame) -> tuple[NDArray, NDArray]:
        """Return the row and column of a frame that each point lies in, (n,) int64 each, by which
        what a whole cell of the lattice shares is looked up; the nearest on the frame for points
        outside."""
        return nearest_cells(frame, self.x.ravel(), self.y.ravel())


def nearest_cells(frame: Frame, x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
    """Return the row and column of the cell that each place lies in, (n,) int64 each; the nearest
    on the frame for places outside.

    Parameters
    ----------
    frame : Frame
    x, y : NDArray (n,) float64
        CRS metres.
    """
    row = frame.y[1] - 1 - np.floor(y / frame.voxel_size).astype(np.int64)
    col = np.floor(x / frame.voxel_size).astype(np.int64) - frame.x[0]
    return np.clip(row, 0, frame.ny - 1), np.clip(col, 0, frame.nx - 1)


def jittered_lattice(
    stream: Stream, frame: Frame, spacing: float, jitter: float = 0.7, channel: int = 0
) -> PointLattice:
    """Return one random point per lattice cell, for all cells within two cells of `frame`.

    Parameters
    ----------
    stream : Stream
        Source of the positions and keys.
    frame : Frame
        The area to cover.
    spacing : float
        Edge of a lattice cell, metres.
    jitter : float
        0 keeps the points in the middle of their cells, 1 spreads them over the whole cell.
    channel : int
        Lattices of different channels are independent.
    """
    left, bottom, right, top = frame.bounds
    i = np.arange(int(np.floor(left / spacing)) - 2, int(np.floor(right / spacing)) + 3)
    j = np.arange(int(np.floor(bottom / spacing)) - 2, int(np.floor(top / spacing)) + 3)
    words = stream.bits(i[None, :], j[:, None], round(spacing * 1000), channel)
    x = (i[None, :] + 0.5 + jitter * (words[..., 0] * 2.0**-32 - 0.5)) * spacing
    y = (j[:, None] + 0.5 + jitter * (words[..., 1] * 2.0**-32 - 0.5)) * spacing
    return PointLattice(spacing, int(i[0]), int(j[0]), x, y, words[..., 2] | np.uint32(1))


def nearest_point(points: PointLattice, x: ArrayLike, y: ArrayLike) -> NDArray:
    """Return the nearest lattice point, of the 3 x 3 lattice cells around each place.

    Parameters
    ----------
    points : PointLattice
        Covers the places.
    x, y : array_like
        CRS metres, broadcast against each other.

    Returns
    -------
    NDArray int32
        Flat index into the arrays of `points`, of the broadcast shape.
    """
    x, y = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
    shape = x.shape
    flat = _nearest_at_points(
        np.ascontiguousarray(x).ravel(),
        np.ascontiguousarray(y).ravel(),
        points.spacing,
        points.i0,
        points.j0,
        points.x,
        points.y,
    )
    return np.asarray(flat).reshape(shape)


def voronoi_cells(points: PointLattice, frame: Frame) -> NDArray:
    """Return the Voronoi diagram of `points` on a frame.

    Returns
    -------
    NDArray (ny, nx) int32
        Flat index into the arrays of `points` of the point nearest to each cell's centre.
    """
    x, y = cell_centres(frame)
    return np.asarray(
        _nearest_on_cells(x, y, points.spacing, points.i0, points.j0, points.x, points.y)
    )


@numba.njit(cache=True, nogil=True, inline="always")
def _closest(px, py, spacing, i0, j0, sx, sy):  # type: ignore[no-untyped-def]
    i, j = int(np.floor(px / spacing)) - i0, int(np.floor(py / spacing)) - j0
    best, nearest = np.inf, 0
    for b in range(max(j - 1, 0), min(j + 2, sx.shape[0])):
        for a in range(max(i - 1, 0), min(i + 2, sx.shape[1])):
            d = (sx[b, a] - px) ** 2 + (sy[b, a] - py) ** 2
            if d < best:
                best, nearest = d, b * sx.shape[1] + a
    return nearest


@numba.njit(cache=True, nogil=True)
def _nearest_at_points(x, y, spacing, i0, j0, sx, sy):  # type: ignore[no-untyped-def]
    out = np.empty(x.size, np.int32)
    for n in range(x.size):
        out[n] = _closest(x[n], y[n], spacing, i0, j0, sx, sy)
    return out


@numba.njit(cache=True, nogil=True)
def _nearest_on_cells(x, y, spacing, i0, j0, sx, sy):  # type: ignore[no-untyped-def]
    out = np.empty((y.size, x.size), np.int32)
    for row in range(y.size):
        for col in range(x.size):
            out[row, col] = _closest(x[col], y[row], spacing, i0, j0, sx, sy)
    return out
