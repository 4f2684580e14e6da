"""Shapes of roofs: the height above the eaves at a place of a footprint, as a share of the rise.

A roof is a function of its footprint: of the place along and across its axes, of the distance to
its walls, or of the place between its centre and its outline. Shapes and their tags are those of
OpenStreetMap's Simple 3D Buildings (wiki.openstreetmap.org/wiki/Simple_3D_Buildings).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen_procedural.footprints import Outlines, Rectangles
from geo_io.layers import ACROSS, ROOF_NUMBER

FLAT, GABLED, HIPPED, SKELETON, HALF_HIPPED, SIDE_HIPPED, PYRAMIDAL, GAMBREL, MANSARD = range(9)
DOME, ONION, ROUND, SKILLION, SALTBOX, SAWTOOTH, BUTTERFLY, COMPLEX = range(9, 17)
"""Shapes of roofs. A skeleton roof rises from every wall, whatever the outline."""

OF_MAP = {
    "flat": FLAT,
    "gabled": GABLED,
    "hipped": HIPPED,
    "half-hipped": HALF_HIPPED,
    "side-hipped": SIDE_HIPPED,
    "pyramidal": PYRAMIDAL,
    "gambrel": GAMBREL,
    "mansard": MANSARD,
    "dome": DOME,
    "onion": ONION,
    "cone": PYRAMIDAL,  # round because its footprint is
    "round": ROUND,
    "skillion": SKILLION,
    "saltbox": SALTBOX,
    "sawtooth": SAWTOOTH,
    "butterfly": BUTTERFLY,
    "complex": COMPLEX,
}
"""Shapes of roofs by their names in `geo_io.layers.ROOF_SHAPES`."""

KNEE_IN, KNEE_UP = 1 / 3, 2 / 3
"""Gambrel and mansard roofs: where the steep part ends, as shares of the way in and of the rise."""

HALF_HIP = 0.5
"""Share of the rise at which the hips of a half-hipped roof begin."""

SALTBOX_RIDGE = 1 / 3
"""Place of a saltbox's ridge between the middle and the wall of the short side."""

TOOTH = 10.0
"""Approximate width of the teeth of a sawtooth roof, metres."""

SNAP = np.radians(12.0)
"""A mapped direction this close to an axis of the footprint is that of the axis."""

ONION_RADIUS = np.array([1.0, 0.97, 0.88, 0.72, 0.52, 0.33, 0.19, 0.1, 0.05, 0.0])
ONION_HEIGHT = np.array([0.0, 0.25, 0.36, 0.46, 0.55, 0.64, 0.73, 0.82, 0.9, 1.0])
"""Profile of an onion: shares of the radius, falling, and of the rise."""

AXIAL = (GABLED, HIPPED, HALF_HIPPED, SIDE_HIPPED)
"""Roofs that become skeleton roofs on footprints that are no rectangles."""

BULKY = (PYRAMIDAL, DOME, ONION, ROUND)
"""Roofs that may be most of a building."""

RADIAL = (PYRAMIDAL, DOME, ONION)
"""Roofs that depend on the place between the centre and the outline."""


def roof_of_map(numbers: NDArray) -> NDArray:
    """Return the shapes of roofs of `ROOF_NUMBER`s; -1 for unknown."""
    table = np.full(256, -1)
    for name, shape in OF_MAP.items():
        table[ROOF_NUMBER[name]] = shape
    return np.asarray(table[numbers])


def roof_axes(
    lines: Outlines, box: Rectangles, roof: NDArray, direction: NDArray, orientation: NDArray
) -> Rectangles:
    """Return the axes of roofs: the ridge runs along `length`, and the roof falls towards +v.

    Without a direction or an orientation the ridge runs along the longer side, and the ridges of
    a sawtooth roof across it.

    Parameters
    ----------
    lines : Outlines
        n footprints.
    box : Rectangles
        The smallest rectangles around them.
    roof : NDArray (n,) int
        Shapes.
    direction : NDArray (n,)
        Degrees clockwise from north towards which the roof falls; NaN unknown.
    orientation : NDArray (n,)
        `ALONG`, `ACROSS` or 0.
    """
    x, y, angle, length, width = (
        getattr(box, name).copy() for name in ("x", "y", "angle", "length", "width")
    )
    turned = (orientation == ACROSS) | ((orientation == 0) & (roof == SAWTOOTH))
    turned &= np.isnan(direction)
    angle[turned] += 0.5 * np.pi
    length[turned], width[turned] = width[turned], length[turned].copy()
    for k in np.flatnonzero(np.isfinite(direction)):
        ridge = -np.radians(direction[k])
        step = np.round((ridge - angle[k]) / (0.5 * np.pi)) * 0.5 * np.pi
        if abs(ridge - angle[k] - step) <= SNAP:
            ridge = angle[k] + step
        first, last = lines.ring[lines.polygon[k]], lines.ring[lines.polygon[k] + 1]
        xy = lines.xy[first:last]
        east, north = (xy - xy[0]).T
        cos, sin = np.cos(ridge), np.sin(ridge)
        u, v = east * cos + north * sin, north * cos - east * sin
        middle = 0.5 * (u.min() + u.max()), 0.5 * (v.min() + v.max())
        x[k] = xy[0, 0] + middle[0] * cos - middle[1] * sin
        y[k] = xy[0, 1] + middle[0] * sin + middle[1] * cos
        angle[k], length[k], width[k] = ridge, 0.5 * np.ptp(u), 0.5 * np.ptp(v)
    return replace(box, x=x, y=y, angle=angle, length=length, width=width)


@dataclass(frozen=True)
class Rises:
    """How far roofs rise if the map does not say: (n,) arrays, metres.

    Attributes
    ----------
    run : NDArray
        Horizontal distance over which the roof rises.
    rise : NDArray
        Height of the roof.
    """

    run: NDArray
    rise: NDArray


def usual_rises(roof: NDArray, box: Rectangles, pitched: NDArray, inside: NDArray) -> Rises:
    """Return how far mapped roofs rise where neither their height nor their angle is known.

    Parameters
    ----------
    roof : NDArray (n,) int
        Shapes.
    box : Rectangles
        Axes of the roofs.
    pitched : NDArray (n,)
        Rise of a pitched roof, metres.
    inside : NDArray (n,)
        Metres from the innermost place to the walls.
    """
    short = np.minimum(box.length, box.width)
    run = np.where(np.isin(roof, (MANSARD, HIPPED, *RADIAL)), short, box.width)
    run = np.where(roof == SKELETON, np.minimum(inside, 6.0), run)
    run = np.where(roof == SKILLION, 2.0 * box.width, run)
    rise = np.where(np.isin(roof, (PYRAMIDAL, DOME, ROUND)), run, pitched)
    rise = np.where(roof == ONION, 2.2 * run, rise)
    rise = np.where(np.isin(roof, (GAMBREL, MANSARD)), 0.8 * run, rise)
    rise = np.where(roof == SKILLION, np.minimum(0.2 * run, 4.0), rise)
    rise = np.where(roof == SAWTOOTH, 2.5, rise)
    rise = np.where(roof == BUTTERFLY, np.minimum(0.25 * run, 3.0), rise)
    return Rises(np.maximum(run, 0.1), rise)


@numba.njit(cache=True, nogil=True)
def radial_place(xy, first, last, cx, cy, x, y):  # type: ignore[no-untyped-def]
    """Return how far a point lies on the way from a centre to the outline: 0 to 1.

    The outline is the ring xy[first:last]. Where it bends back, its outermost part counts.
    """
    dx, dy = x - cx, y - cy
    if dx * dx + dy * dy < 1e-12:
        return 0.0
    far = 0.0
    for a in range(first, last - 1):
        ax, ay = xy[a, 0] - cx, xy[a, 1] - cy
        ex, ey = xy[a + 1, 0] - xy[a, 0], xy[a + 1, 1] - xy[a, 1]
        cross = dx * ey - dy * ex
        if cross == 0.0:
            continue
        along = (ax * ey - ay * ex) / cross  # in units of (dx, dy)
        on = (ax * dy - ay * dx) / cross
        if along > far and -1e-9 <= on <= 1.0 + 1e-9:
            far = along
    return 1.0 if far <= 1.0 else 1.0 / far


@numba.njit(cache=True, nogil=True)
def _kneed(x):  # type: ignore[no-untyped-def]
    if x < KNEE_IN:
        return x * KNEE_UP / KNEE_IN
    return KNEE_UP + (x - KNEE_IN) * (1.0 - KNEE_UP) / (1.0 - KNEE_IN)


@numba.njit(cache=True, nogil=True)
def roof_share(shape, u, v, length, width, walls, span, place):  # type: ignore[no-untyped-def]
    """Return the height above the eaves as a share of the rise, 0 to 1.

    Parameters
    ----------
    shape : int
        Shape of the roof; not COMPLEX, whose ridges are mapped.
    u, v : float
        Place along and across the ridge, metres from the middle; the roof falls towards +v.
    length, width : float
        Half extents along and across the ridge, metres.
    walls : float
        Distance to the nearest wall, metres.
    span : float
        Way from a wall to the highest place, metres; for SKELETON, and GAMBREL and MANSARD on
        outlines that are no rectangles. 0 where the rectangle decides.
    place : float
        Of `radial_place`.
    """
    across = min(max(1.0 - abs(v) / width, 0.0), 1.0)
    end = max(length - abs(u), 0.0)
    inward = min(min(max(width - abs(v), 0.0), end) / min(length, width), 1.0)
    if shape == FLAT:
        return 0.0
    if shape == SKELETON:
        return min(walls / span, 1.0)
    if shape == GABLED:
        return across
    if shape == HIPPED:
        return inward
    if shape == HALF_HIPPED:
        return min(across, HALF_HIP + end / width)
    if shape == SIDE_HIPPED:
        return min(across, max(length - u, 0.0) / width)
    if shape == GAMBREL:
        return _kneed(min(walls / span, 1.0) if span > 0.0 else across)
    if shape == MANSARD:
        return _kneed(min(walls / span, 1.0) if span > 0.0 else inward)
    if shape == PYRAMIDAL:
        return 1.0 - place
    if shape == DOME:
        return np.sqrt(max(1.0 - place * place, 0.0))
    if shape == ONION:
        n = ONION_RADIUS.size
        for k in range(1, n):
            if place >= ONION_RADIUS[k]:
                part = (ONION_RADIUS[k - 1] - place) / (ONION_RADIUS[k - 1] - ONION_RADIUS[k])
                return ONION_HEIGHT[k - 1] + part * (ONION_HEIGHT[k] - ONION_HEIGHT[k - 1])
        return 1.0
    if shape == ROUND:
        return np.sqrt(max(1.0 - (v / width) ** 2, 0.0))
    if shape == SKILLION:
        return min(max(0.5 - 0.5 * v / width, 0.0), 1.0)
    if shape == SALTBOX:
        # The long side falls towards +v.
        ridge = -SALTBOX_RIDGE * width
        if v < ridge:
            return min(max((v + width) / (ridge + width), 0.0), 1.0)
        return min(max((width - v) / (width - ridge), 0.0), 1.0)
    if shape == SAWTOOTH:
        # Each tooth falls towards +v; between two teeth is an upright band of windows.
        teeth = max(np.round(2.0 * width / TOOTH), 2.0)
        tooth = min(max((v + width) / (2.0 * width), 0.0), 1.0 - 1e-9) * teeth
        return 1.0 - (tooth - np.floor(tooth))
    if shape == BUTTERFLY:
        return 1.0 - across
    return 0.0
