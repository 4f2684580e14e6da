"""Smooth random fields on a frame, each value a function of seed and place alone.

Phases are float64 from the CRS origin: lattice indices reach 1e7, which float32 could not tell
apart.
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
"""Turns the lattice of each wavelength, so that the axes of several do not add up to a visible
grid."""


def cell_centres(frame: Frame) -> tuple[NDArray, NDArray]:
    """(nx,) eastings and (ny,) northings of the cells' centres, CRS metres, float64; rows from
    north to south."""
    x = (np.arange(frame.x[0], frame.x[1]) + 0.5) * frame.voxel_size
    y = (np.arange(frame.y[1] - 1, frame.y[0] - 1, -1) + 0.5) * frame.voxel_size
    return x, y


def white(stream: Stream, frame: Frame, channel: int = 0) -> NDArray:
    """(ny, nx) float32 in [-1, 1), independent in each cell."""
    i = np.arange(frame.x[0], frame.x[1])[None, :]
    j = np.arange(frame.y[1] - 1, frame.y[0] - 1, -1)[:, None]
    return (stream.uniform(i, j, 0, channel) * 2.0 - 1.0).astype(np.float32)


def gradient_noise(stream: Stream, frame: Frame, wavelength: float, channel: int = 0) -> NDArray:
    """(ny, nx) float32, about [-1, 1]: gradient noise with lattice points `wavelength` metres
    apart.

    Method: Perlin, "Improving noise", SIGGRAPH 2002, with random unit gradients. Where a wave is
    shorter than two voxels the lattice is widened to two voxels, because what is shorter cannot be
    seen.
    """
    x, y = cell_centres(frame)
    return np.asarray(_on_cells(x, y, *_gradients(stream, frame, wavelength, channel)))


def gradient_noise_at(
    stream: Stream, frame: Frame, x: NDArray, y: NDArray, wavelength: float, channel: int = 0
) -> NDArray:
    """(n,) float32: the same at places, CRS metres, which must lie on `frame`; its voxel size
    tells what is seen."""
    return np.asarray(_at_places(x, y, *_gradients(stream, frame, wavelength, channel)))


def _gradients(
    stream: Stream, frame: Frame, wavelength: float, channel: int
) -> tuple[float, float, int, int, NDArray, NDArray]:
    """Of the lattice of one wavelength: cosine and sine of its turn over its spacing, the index
    of its first point, and the gradients at its points on and around the frame."""
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
def _between(x, y, cos, sin, i0, j0, gx, gy):  # type: ignore[no-untyped-def]
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
def _on_cells(x, y, cos, sin, i0, j0, gx, gy):  # type: ignore[no-untyped-def]
    out = np.empty((y.size, x.size), np.float32)
    for row in range(y.size):
        for col in range(x.size):
            out[row, col] = _between(x[col], y[row], cos, sin, i0, j0, gx, gy)
    return out


@numba.njit(cache=True, nogil=True)
def _at_places(x, y, cos, sin, i0, j0, gx, gy):  # type: ignore[no-untyped-def]
    out = np.empty(x.size, np.float32)
    for n in range(x.size):
        out[n] = _between(x[n], y[n], cos, sin, i0, j0, gx, gy)
    return out


def fractal(
    stream: Stream, frame: Frame, wavelengths: tuple[float, ...], gain: float, channel: int = 0
) -> NDArray:
    """(ny, nx) float32: the sum of gradient noise at `wavelengths`, each `gain` times as strong
    as the one before."""
    total = np.zeros(frame.shape, np.float32)
    for octave, wavelength in enumerate(wavelengths):
        total += np.float32(gain**octave) * gradient_noise(
            stream, frame, wavelength, channel + octave
        )
    return total


@dataclass(frozen=True)
class Seeds:
    """A jittered lattice of points around a frame: (rows, cols) arrays, `spacing` metres apart on
    average.

    Attributes
    ----------
    i0, j0 : lattice index of [0, 0]
    x, y : float64 CRS metres
    key : uint32, non-zero, keyed by seed and place
    """

    spacing: float
    i0: int
    j0: int
    x: NDArray
    y: NDArray
    key: NDArray


def seeds(
    stream: Stream, frame: Frame, spacing: float, jitter: float = 0.7, channel: int = 0
) -> Seeds:
    """One random point a lattice cell, for all cells within two cells of `frame`.

    jitter : 0 keeps the points in the middle of their cells, 1 spreads them over the whole cell
    """
    left, bottom, right, top = frame.bounds
    i = np.arange(int(np.floor(left / spacing)) - 2, int(np.floor(right / spacing)) + 3)
    j = np.arange(int(np.floor(bottom / spacing)) - 2, int(np.floor(top / spacing)) + 3)
    words = stream.bits(i[None, :], j[:, None], round(spacing * 1000), channel)
    x = (i[None, :] + 0.5 + jitter * (words[..., 0] * 2.0**-32 - 0.5)) * spacing
    y = (j[:, None] + 0.5 + jitter * (words[..., 1] * 2.0**-32 - 0.5)) * spacing
    return Seeds(spacing, int(i[0]), int(j[0]), x, y, words[..., 2] | np.uint32(1))


def nearest_seed(points: Seeds, x: ArrayLike, y: ArrayLike) -> NDArray:
    """Flat index into `points` of the nearest seed (of the 3 x 3 cells around) to each place,
    int32.

    x, y : CRS metres, broadcast against each other.
    """
    x, y = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
    shape = x.shape
    flat = _nearest_seed(
        np.ascontiguousarray(x).ravel(),
        np.ascontiguousarray(y).ravel(),
        points.spacing,
        points.i0,
        points.j0,
        points.x,
        points.y,
    )
    return np.asarray(flat).reshape(shape)


def cells(points: Seeds, frame: Frame) -> NDArray:
    """(ny, nx) int32: flat index into `points` of each cell's nearest seed (a Voronoi diagram)."""
    x, y = cell_centres(frame)
    return np.asarray(_voronoi(x, y, points.spacing, points.i0, points.j0, points.x, points.y))


@numba.njit(cache=True, nogil=True, inline="always")
def _closest(px, py, spacing, i0, j0, sx, sy):  # type: ignore[no-untyped-def]
    i, j = int(np.floor(px / spacing)) - i0, int(np.floor(py / spacing)) - j0
    best, found = np.inf, 0
    for b in range(max(j - 1, 0), min(j + 2, sx.shape[0])):
        for a in range(max(i - 1, 0), min(i + 2, sx.shape[1])):
            d = (sx[b, a] - px) ** 2 + (sy[b, a] - py) ** 2
            if d < best:
                best, found = d, b * sx.shape[1] + a
    return found


@numba.njit(cache=True, nogil=True)
def _nearest_seed(x, y, spacing, i0, j0, sx, sy):  # type: ignore[no-untyped-def]
    out = np.empty(x.size, np.int32)
    for n in range(x.size):
        out[n] = _closest(x[n], y[n], spacing, i0, j0, sx, sy)
    return out


@numba.njit(cache=True, nogil=True)
def _voronoi(x, y, spacing, i0, j0, sx, sy):  # type: ignore[no-untyped-def]
    out = np.empty((y.size, x.size), np.int32)
    for row in range(y.size):
        for col in range(x.size):
            out[row, col] = _closest(x[col], y[row], spacing, i0, j0, sx, sy)
    return out
