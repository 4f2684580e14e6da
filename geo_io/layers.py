"""Data types that readers return: arrays and objects together with the frame they lie on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from geo_io.errors import FrameError
from geo_io.frame import Frame
from geo_io.structures import Structures, no_structures


@dataclass(frozen=True)
class Raster:
    """A 2D layer on a frame.

    Attributes
    ----------
    frame : Frame
        Where the raster is.
    data : NDArray (ny, nx) or (ny, nx, bands)
        Rows from north to south. Heights are float32 metres with NaN for nodata; images are uint8
        RGBA, with alpha 0 for nodata.

    Raises
    ------
    FrameError
        If the array does not have the shape of the frame.
    """

    frame: Frame
    data: NDArray

    def __post_init__(self) -> None:
        if self.data.shape[:2] != self.frame.shape:
            raise FrameError(
                f"an array of shape {self.data.shape} does not fit {self.frame} "
                f"of shape {self.frame.shape}",
                "give an array with one row and one column per voxel of the frame",
            )

    def crop(self, inner: Frame) -> Raster:
        """Return the part on `inner`, a frame within this one."""
        return Raster(inner, self.data[self.frame.slices(inner)])


ROOF_SHAPES = (
    "unknown",
    "flat",
    "gabled",
    "hipped",
    "half-hipped",
    "side-hipped",
    "pyramidal",
    "gambrel",
    "mansard",
    "dome",
    "onion",
    "cone",
    "round",
    "skillion",
    "saltbox",
    "sawtooth",
    "butterfly",
    "complex",
)
"""Shapes of roofs, as in Simple 3D Buildings; a roof's number is its place here."""

ROOF_NUMBER = {name: number for number, name in enumerate(ROOF_SHAPES)}

ALONG, ACROSS = 1, 2
"""Directions of a ridge: along the longer or the shorter side; 0 is unknown."""

BUILDING_FORM = np.dtype(
    [
        ("base", "f4"),
        ("eaves", "f4"),
        ("roof", "u1"),
        ("roof_height", "f4"),
        ("roof_angle", "f4"),
        ("roof_direction", "f4"),
        ("roof_orientation", "u1"),
        ("wall_rgba", "u1", 4),
        ("roof_rgba", "u1", 4),
        ("part", "?"),
        ("open", "?"),
    ]
)
"""What a map says of the shape and the colours of a building, besides its height.

- base: metres from the ground to the underside, 0 for what stands on the ground
- eaves: metres from the ground to the eaves, NaN unknown
- roof: of `ROOF_NUMBER`
- roof_height: metres from the eaves to the top of the roof, NaN unknown
- roof_angle: degrees of the roof's slope, NaN unknown
- roof_direction: degrees clockwise from north towards which the roof falls, NaN unknown
- roof_orientation: `ALONG`, `ACROSS` or 0
- wall_rgba, roof_rgba: sRGB; alpha 0 unknown
- part: a part of a building, such as OpenStreetMap's building:part
- open: a roof on posts, without walls
"""


def unknown_form(n: int) -> NDArray:
    """Return `BUILDING_FORM` of n buildings of which the map says nothing, (n,)."""
    form = np.zeros(n, BUILDING_FORM)
    for name in ("eaves", "roof_height", "roof_angle", "roof_direction"):
        form[name] = np.nan
    return form


@dataclass(frozen=True)
class Buildings:
    """Building footprints that intersect a frame, whole and not clipped.

    They are in painting order: where two that stand on the ground overlap, the later one stands.
    Their order depends on the features alone (`geo_io.semantics.overlaps` has the rule).

    Attributes
    ----------
    footprint : NDArray (n,) object
        Valid shapely Polygons, CRS metres.
    height : NDArray (n,) float64
        Metres from the ground to the top of the roof, NaN where the source gives none.
    key : NDArray (n,) uint64
        Key for random draws; depends on the place of the footprint, and the height of its base,
        alone.
    form : NDArray (n,) BUILDING_FORM
        Roofs, colours, and what hangs in the air.
    ridges : NDArray (n,) object
        Ridges of complex roofs, shapely MultiLineStrings, or None.
    site : NDArray (n,) object
        Of a part: the footprint of the whole building, on whose ground all its parts stand. None
        for others.
    """

    footprint: NDArray
    height: NDArray
    key: NDArray
    form: NDArray = None  # type: ignore[assignment]  # unknown, and set below
    ridges: NDArray = None  # type: ignore[assignment]
    site: NDArray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        n = len(self.footprint)
        for name in ("form", "ridges", "site"):
            if vars(self)[name] is None:
                unknown = unknown_form(n) if name == "form" else np.full(n, None)
                object.__setattr__(self, name, unknown)

    def __len__(self) -> int:
        return len(self.footprint)

    @property
    def hangs(self) -> NDArray:
        """Return which buildings have open air below them, (n,) bool."""
        return np.asarray((self.form["base"] > 0) | self.form["open"])

    def take(self, chosen: NDArray) -> Buildings:
        """Return the buildings with these indices or this mask."""
        return Buildings(
            self.footprint[chosen],
            self.height[chosen],
            self.key[chosen],
            self.form[chosen],
            self.ridges[chosen],
            self.site[chosen],
        )


@dataclass(frozen=True)
class Trees:
    """Single trees within a frame, sorted by key.

    Attributes
    ----------
    xy : NDArray (n, 2) float64
        Position, CRS metres.
    height, crown : NDArray (n,) float64
        Height and crown diameter in metres, NaN where the source gives none.
    key : NDArray (n,) uint64
        Key for random draws; depends on the place of the tree alone.
    leaf : NDArray (n,) uint8
        1 for broad leaves, 2 for needles, 0 where the source does not say.
    """

    xy: NDArray
    height: NDArray
    crown: NDArray
    key: NDArray
    leaf: NDArray = None  # type: ignore[assignment]  # unknown, and set below

    def __post_init__(self) -> None:
        if vars(self)["leaf"] is None:
            object.__setattr__(self, "leaf", np.zeros(len(self.key), np.uint8))

    def __len__(self) -> int:
        return len(self.xy)


def no_buildings() -> Buildings:
    """Return an empty set of buildings."""
    return Buildings(np.empty(0, object), np.empty(0), np.empty(0, np.uint64))


def no_trees() -> Trees:
    """Return an empty set of trees."""
    return Trees(np.empty((0, 2)), np.empty(0), np.empty(0), np.empty(0, np.uint64))


@dataclass(frozen=True)
class Semantics:
    """Land cover on a frame, and the objects that stand on it.

    Attributes
    ----------
    frame : Frame
        Where the data is.
    cover : NDArray (ny, nx) uint8
        Class codes of `geo_io.legend`, 0 where the class is unknown.
    parcel : NDArray (ny, nx) uint32
        The same number for all cells of one land-use polygon, 0 outside polygons. It depends on the
        polygon alone, so that a whole field gets one crop.
    buildings : Buildings
        Buildings that intersect the frame.
    trees : Trees
        Trees within the frame.
    water : NDArray (ny, nx) float32 or None
        Level of mapped lakes and of the sea, metres, one for a whole lake; NaN elsewhere. None
        without heights.
    ashore : NDArray (ny, nx) bool or None
        Where a coastline says that there is land. None without coastlines.
    footprints : bool
        Whether the sources map buildings, so that none need be found in a surface model.
    beneath : NDArray (ny, nx) uint8 or None
        Class codes of the ground itself, below bridges and piers. None where that is `cover`.
    structures : Structures
        What crosses, divides and stands on the land, in and around the frame.
    """

    frame: Frame
    cover: NDArray
    parcel: NDArray
    buildings: Buildings = field(default_factory=no_buildings)
    trees: Trees = field(default_factory=no_trees)
    water: NDArray | None = None
    ashore: NDArray | None = None
    footprints: bool = False
    beneath: NDArray | None = None
    structures: Structures = field(default_factory=no_structures)

    @property
    def ground_cover(self) -> NDArray:
        """Class codes of the ground itself, (ny, nx) uint8."""
        return self.cover if self.beneath is None else self.beneath

    def crop(self, inner: Frame) -> Semantics:
        """Return cover and parcels of `inner`, and all objects: footprints are never clipped."""
        window = self.frame.slices(inner)
        return Semantics(
            inner,
            self.cover[window],
            self.parcel[window],
            self.buildings,
            self.trees,
            None if self.water is None else self.water[window],
            None if self.ashore is None else self.ashore[window],
            self.footprints,
            None if self.beneath is None else self.beneath[window],
            self.structures,
        )
