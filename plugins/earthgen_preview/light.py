"""Light for pictures: a low sun, a wide sky, shadows cast by the surface, and dim hollows.

Colours are linear; `to_srgb` converts the final picture. Grids have rows from north to south.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

SUN = np.array([1.0, 0.955, 0.87], np.float32)
SKY = np.array([0.86, 0.95, 1.12], np.float32)
SUN_STRENGTH = 0.70
SKY_STRENGTH = 0.38
FAR_BELOW = -1e9
"""Height of cells that cast no shadow, metres."""


def sun_vector(azimuth: float, elevation: float) -> NDArray:
    """(3,) float32 unit vector (east, north, up) towards the sun.

    Parameters
    ----------
    azimuth : float
        Degrees clockwise from north.
    elevation : float
        Degrees above the horizon.
    """
    a, e = math.radians(azimuth), math.radians(elevation)
    return np.array([math.sin(a) * math.cos(e), math.cos(a) * math.cos(e), math.sin(e)], np.float32)


def to_linear(srgb: NDArray) -> NDArray:
    """Convert uint8 sRGB to float32 linear light."""
    return LINEAR[srgb]


def to_srgb(linear: NDArray) -> NDArray:
    """Convert linear light to uint8 sRGB."""
    table = np.rint(255 * _encode(np.arange(4097) / 4096)).astype(np.uint8)
    return table[np.rint(np.clip(linear, 0, 1) * 4096).astype(np.int32)]


SHOULDER = 0.75
"""Linear light above this is compressed, so that sunlit white keeps its shading."""


def roll_off(value: NDArray) -> NDArray:
    """Compress linear light above `SHOULDER` smoothly towards 1."""
    bent = SHOULDER + (1 - SHOULDER) * np.tanh((value - SHOULDER) / (1 - SHOULDER))
    return np.where(value <= SHOULDER, np.maximum(value, 0), bent)


def _encode(x: NDArray) -> NDArray:
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-9) ** (1 / 2.4) - 0.055)


def decode(x: NDArray) -> NDArray:
    """Convert sRGB values in [0, 1] to linear light (IEC 61966-2-1)."""
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


LINEAR = decode(np.arange(256) / 255).astype(np.float32)
"""(256,) linear light of the 8-bit sRGB values."""


def shadow_heights(surface: NDArray, cell: float, azimuth: float, elevation: float) -> NDArray:
    """Compute the height below which each cell is in the shadow of the surface.

    One sweep starts at the sun's side: the shadow over a cell is that over the next cell towards
    the sun, or that cell's surface, minus the descent of the sunbeam between them.

    Parameters
    ----------
    surface : NDArray (ny, nx) float32
        Heights, metres; NaN where there is no surface.
    cell : float
        Edge of a cell, metres.
    azimuth, elevation : float
        Direction of the sun, degrees.

    Returns
    -------
    NDArray (ny, nx) float32
        Heights, metres.
    """
    a = math.radians(azimuth)
    east, south = math.sin(a), -math.cos(a)
    filled = np.where(np.isfinite(surface), surface, np.float32(FAR_BELOW)).astype(np.float32)
    across = abs(east) > abs(south)
    if across:  # sweep along the rows of the transposed grid
        filled, east, south = filled.T, south, east
    if south > 0:
        filled = filled[::-1]
    drop = cell / abs(south) * math.tan(math.radians(elevation))
    swept = _sweep(np.ascontiguousarray(filled), east / abs(south), drop)
    if south > 0:
        swept = swept[::-1]
    return np.ascontiguousarray(swept.T if across else swept)


@numba.njit(cache=True, nogil=True)
def _sweep(surface, shift, drop):  # type: ignore[no-untyped-def]
    """Sweep from row 0, which is nearest to the sun; a step towards the sun moves `shift`
    columns."""
    ny, nx = surface.shape
    out = np.full((ny, nx), np.float32(FAR_BELOW))
    for r in range(1, ny):
        for c in range(nx):
            at = c + shift
            left = math.floor(at)
            t = at - left
            i = int(left)
            a = max(out[r - 1, i], surface[r - 1, i]) if 0 <= i < nx else FAR_BELOW
            b = max(out[r - 1, i + 1], surface[r - 1, i + 1]) if 0 <= i + 1 < nx else a
            if a == FAR_BELOW:
                a = b
            out[r, c] = max(a * (1 - t) + b * t - drop, FAR_BELOW)
    return out


def surroundings(surface: NDArray, cell: float, radius: float) -> NDArray:
    """(ny, nx) float32 mean height of the surface within `radius` metres; places below it are
    dim."""
    from scipy.ndimage import uniform_filter

    size = max(round(2 * radius / cell) | 1, 3)
    known = np.isfinite(surface)
    total = uniform_filter(np.where(known, surface, 0).astype(np.float64), size, mode="nearest")
    share = uniform_filter(known.astype(np.float64), size, mode="nearest")
    return np.where(share > 1e-6, total / np.maximum(share, 1e-6), FAR_BELOW).astype(np.float32)
