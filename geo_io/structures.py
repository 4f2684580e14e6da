"""What crosses, divides and stands on the land: bridges, barriers, masts, and marked surfaces.

Readers make them of lines, areas and points (`geo_io.semantics.structures`). They are no land
cover.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

KINDS = (
    "none",
    "way",
    "deck",
    "pier",
    "ramp",
    "passage",
    "barrier",
    "hedge",
    "mast",
    "cable",
    "pitch",
    "parking",
    "bay",
    "pool",
    "tunnel",
)
"""Kinds of structures; the number of a kind is its place here.

- way: a road, railway, path or river on the ground; no structure of its own, but what others cross
- deck: what a bridge carries
- pier: a deck above water that ends in it
- ramp: ground that rises to a bridge, along the way that it carries
- passage: a way under a roof or through a building
- barrier: fences, walls, guard rails, kerbs
- mast: masts, towers of power lines, poles, chimneys of a point
- cable: lines of power supply, with their supports at the vertices
- pitch, parking, bay, pool: surfaces with markings or a rim
- tunnel: a way that the map puts under the ground; readers show it as land cover where it is not
"""

KIND = {name: number for number, name in enumerate(KINDS)}

MATERIALS = ("concrete", "stone", "wood", "metal")
"""Materials of structures; a material's number is its place here."""

STRUCTURE_FORM = np.dtype(
    [
        ("kind", "u1"),
        ("cover", "u1"),
        ("style", "u1"),
        ("width", "f4"),
        ("height", "f4"),
        ("layer", "f4"),
        ("base", "f4"),
        ("finest", "f4"),
        ("covered", "?"),
        ("viaduct", "?"),
    ]
)
"""What a map says of a structure.

- kind: of `KIND`
- cover: class code of what it carries or is seen as, 0 for none
- style: number of the material, of the sport of a pitch, or of the order of parked cars
- width, height: metres; of a passage, the height of its opening
- layer: order of what crosses, as OpenStreetMap's layer; 0 is the ground
- base: metres from the ground to its underside, NaN unknown
- finest: the largest voxel in which it is shown, metres
- covered: a way under a roof, whether or not a building stands there
- viaduct: a bridge said to be long and high
"""

SPORTS = (
    "",
    "soccer",
    "tennis",
    "basketball",
    "american_football",
    "rugby",
    "hockey",
    "volleyball",
    "handball",
    "badminton",
    "athletics",
    "baseball",
)
"""Sports whose pitches have markings; a sport's number is its place here."""

ORDERS = ("perpendicular", "parallel", "diagonal")
"""Orders of parked cars; an order's number is its place here."""


@dataclass(frozen=True)
class Profile:
    """Heights along the axis of a structure: heights of the ground at some places, and above them.

    The height at a place is that of the straight lines between `level`, and of those between
    `rise` above it.

    Attributes
    ----------
    at : NDArray (k,) float64
        Places along the axis, metres from its start, increasing; they may lie beyond the axis.
    xy : NDArray (k, 2) float64
        The same places, CRS metres.
    level : NDArray (k,) float64
        Heights of the ground there, metres; NaN without heights.
    place, rise : NDArray (m,) float64
        Metres along the axis, increasing, and above the lines between the levels.
    """

    at: NDArray
    xy: NDArray
    level: NDArray
    place: NDArray
    rise: NDArray

    def with_level(self, level: NDArray) -> Profile:
        """Return the profile with heights where they are not known."""
        known = np.where(np.isfinite(self.level), self.level, level)
        return Profile(self.at, self.xy, known, self.place, self.rise)

    def height(self, along: NDArray) -> NDArray:
        """Return the absolute height at places along the axis, metres."""
        return np.asarray(np.interp(along, self.at, self.level) + self.above(along))

    def above(self, along: NDArray) -> NDArray:
        """Return the rise at places along the axis, metres."""
        return np.asarray(np.interp(along, self.place, self.rise))


@dataclass(frozen=True)
class Structures:
    """n structures in and around a window, whole, in an order that depends on them alone.

    Attributes
    ----------
    shape : NDArray (n,) object
        Shapely LineStrings, Polygons and Points, CRS metres.
    axis : NDArray (n,) object
        Of decks and ramps, the LineString along which the profile runs; None for others.
    profile : NDArray (n,) object
        Of decks, ramps, cables and railways on the ground, their `Profile`; None for others.
    form : NDArray (n,) STRUCTURE_FORM
        What the map says.
    key : NDArray (n,) uint64
        Key for random draws; depends on the place alone.
    """

    shape: NDArray
    axis: NDArray
    profile: NDArray
    form: NDArray
    key: NDArray

    def __len__(self) -> int:
        return len(self.shape)

    def take(self, chosen: NDArray) -> Structures:
        """Return the structures with these indices or this mask."""
        return Structures(*(values[chosen] for values in vars(self).values()))

    def of(self, *kinds: str) -> Structures:
        """Return the structures of some kinds."""
        return self.take(np.isin(self.form["kind"], [KIND[name] for name in kinds]))


def no_structures() -> Structures:
    """Return an empty set of structures."""
    none = np.empty(0, object)
    return Structures(none, none, none, np.zeros(0, STRUCTURE_FORM), np.empty(0, np.uint64))
