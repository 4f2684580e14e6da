"""Data types that readers return: arrays and objects together with the frame they lie on."""

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


@dataclass(frozen=True)
class Buildings:
    """Building footprints that intersect a frame, whole and not clipped.

    Their order depends on the features alone.

    Attributes
    ----------
    footprint : NDArray (n,) object
        Valid shapely Polygons, CRS metres.
    height : NDArray (n,) float64
        Metres from the ground to the top of the roof, NaN where the source gives none.
    key : NDArray (n,) uint64
        Key for random draws; depends on the place of the footprint alone.
    """

    footprint: NDArray
    height: NDArray
    key: NDArray

    def __len__(self) -> int:
        return len(self.footprint)


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
    """

    xy: NDArray
    height: NDArray
    crown: NDArray
    key: NDArray

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
    """

    frame: Frame
    cover: NDArray
    parcel: NDArray
    buildings: Buildings = field(default_factory=no_buildings)
    trees: Trees = field(default_factory=no_trees)

    def crop(self, inner: Frame) -> Semantics:
        """Return cover and parcels of `inner`, and all objects: footprints are never clipped."""
        window = self.frame.slices(inner)
        return Semantics(inner, self.cover[window], self.parcel[window], self.buildings, self.trees)
