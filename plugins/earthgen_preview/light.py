"""Light for pictures: a low sun, a wide sky, shadows cast by the surface, and dimness between
things.

All colours here are linear; `to_srgb` ends the work. Heights come as grids with rows from north to
south.
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
"""Height of what casts no shadow."""


def sun_vector(azimuth: float, elevation: float) -> NDArray:
    """(3,) float32 unit vector east, north, up towards the sun; degrees clockwise from north,
    above the horizon."""
    a, e = math.radians(azimuth), math.radians(elevation)
    return np.array([math.sin(a) * math.cos(e), math.cos(a) * math.cos(e), math.sin(e)], np.float32)


def to_linear(srgb: NDArray) -> NDArray:
    """Linear light, float32, of uint8 sRGB."""
    return LINEAR[srgb]


def to_srgb(linear: NDArray) -> NDArray:
    """uint8 sRGB of linear light."""
    table = np.rint(255 * _encode(np.arange(4097) / 4096)).astype(np.uint8)
    return table[np.rint(np.clip(linear, 0, 1) * 4096).astype(np.int32)]


SHOULDER = 0.75
"""Linear light above this is compressed, so that sunlit white keeps its shape."""


def roll_off(value: NDArray) -> NDArray:
    """Linear light with what is too bright bent towards 1 instead of cut."""
    bent = SHOULDER + (1 - SHOULDER) * np.tanh((value - SHOULDER) / (1 - SHOULDER))
    return np.where(value <= SHOULDER, np.maximum(value, 0), bent)


def _encode(x: NDArray) -> NDArray:
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-9) ** (1 / 2.4) - 0.055)


def decode(x: NDArray) -> NDArray:
    """Linear light of sRGB values in [0, 1] (IEC 61966-2-1)."""
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


LINEAR = decode(np.arange(256) / 255).astype(np.float32)
"""(256,) linear light of the sRGB values (IEC 61966-2-1)."""


def shadow_heights(surface: NDArray, cell: float, azimuth: float, elevation: float) -> NDArray:
    """(ny, nx) float32: the height below which the surface around lies between a place and the sun.

    surface : (ny, nx) float32 metres, NaN where nothing stands; cell : metres

    One sweep from the sun's side: the shadow over a cell is what the next cell towards the sun
    throws, less what the sunbeam drops on the way.
    """
    a = math.radians(azimuth)
    east, south = math.sin(a), -math.cos(a)
    filled = np.where(np.isfinite(surface), surface, np.float32(FAR_BELOW)).astype(np.float32)
    across = abs(east) > abs(south)
    if across:  # sweep along rows of the transposed grid
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
    """The sun stands beyond row 0; a step towards it moves `shift` columns."""
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
    """(ny, nx) float32 mean height of the surface within `radius` metres; what lies below it is
    dim."""
    from scipy.ndimage import uniform_filter

    size = max(round(2 * radius / cell) | 1, 3)
    known = np.isfinite(surface)
    total = uniform_filter(np.where(known, surface, 0).astype(np.float64), size, mode="nearest")
    share = uniform_filter(known.astype(np.float64), size, mode="nearest")
    return np.where(share > 1e-6, total / np.maximum(share, 1e-6), FAR_BELOW).astype(np.float32)
