"""What a reader returns: arrays and objects that carry the frame they lie on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from geo_io.errors import FrameError
from geo_io.frame import Frame


@dataclass(frozen=True)
class Raster:
    """A 2D layer on a frame.

    Attributes
    ----------
    frame : where it is
    data : (ny, nx) or (ny, nx, bands), rows from north to south; float32 metres with NaN for nodata
        for heights,
        uint8 RGBA for images (alpha 0 is nodata)
    """

    frame: Frame
    data: NDArray

    def __post_init__(self) -> None:
        if self.data.shape[:2] != self.frame.shape:
            raise FrameError(
                f"an array of shape {self.data.shape} does not lie on {self.frame} of shape {self.frame.shape}"
            )

    def crop(self, inner: Frame) -> Raster:
        return Raster(inner, self.data[self.frame.slices(inner)])


@dataclass(frozen=True)
class Buildings:
    """Footprints that meet a frame, each whole (not clipped), in an order that depends on the
    features alone.

    Attributes
    ----------
    footprint : (n,) object array of valid shapely Polygons, CRS metres
    height : (n,) float64, metres from ground to roof top, NaN where the source does not say
    key : (n,) uint64, depends on the footprint's place alone; keys random draws
    """

    footprint: NDArray
    height: NDArray
    key: NDArray

    def __len__(self) -> int:
        return len(self.footprint)


@dataclass(frozen=True)
class Trees:
    """Single trees that meet a frame, sorted by key.

    Attributes
    ----------
    xy : (n, 2) float64, CRS metres
    height, crown : (n,) float64, height and crown diameter in metres, NaN where the source does not
        say
    key : (n,) uint64, depends on the tree's place alone
    """

    xy: NDArray
    height: NDArray
    crown: NDArray
    key: NDArray

    def __len__(self) -> int:
        return len(self.xy)


def no_buildings() -> Buildings:
    return Buildings(np.empty(0, object), np.empty(0), np.empty(0, np.uint64))


def no_trees() -> Trees:
    return Trees(np.empty((0, 2)), np.empty(0), np.empty(0), np.empty(0, np.uint64))


@dataclass(frozen=True)
class Semantics:
    """Land cover on a frame, and the objects that stand on it.

    Attributes
    ----------
    frame : where it is
    cover : (ny, nx) uint8, class codes of `geo_io.legend`, 0 where nothing is known
    parcel : (ny, nx) uint32, the same number for all cells of one land-use polygon (0: none);
        depends on the
        polygon alone, so that a field can have one crop
    buildings, trees : the objects that meet the frame
    """

    frame: Frame
    cover: NDArray
    parcel: NDArray
    buildings: Buildings = field(default_factory=no_buildings)
    trees: Trees = field(default_factory=no_trees)

    def crop(self, inner: Frame) -> Semantics:
        """The cover and parcels of `inner`; the objects stay, since a footprint is always whole."""
        window = self.frame.slices(inner)
        return Semantics(inner, self.cover[window], self.parcel[window], self.buildings, self.trees)
