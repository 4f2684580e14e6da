"""Structures of a block of features, as read: packed, and found by bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_io.frame import Bounds
from geo_io.structures import STRUCTURE_FORM

COORDINATE_BYTES = 24
"""Bytes that a coordinate of a geometry takes, with its share of the geometry's own."""


@dataclass(frozen=True)
class Things:
    """n structures as the features of a source say.

    Attributes
    ----------
    shape : NDArray (n,) object
        Shapely LineStrings, Polygons and Points, CRS metres.
    bounds : NDArray (n, 4) float64
        Their bounds.
    form : NDArray (n,) STRUCTURE_FORM
        What the map says.
    key : NDArray (n,) uint64
        Key from the place.
    fid, part : NDArray (n,) int64
        Feature, and number of the simple part within it.
    """

    shape: NDArray
    bounds: NDArray
    form: NDArray
    key: NDArray
    fid: NDArray
    part: NDArray

    def __len__(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Approximate bytes of all arrays and geometries."""
        arrays = sum(values.nbytes for values in vars(self).values())
        return arrays + COORDINATE_BYTES * int(shapely.get_num_coordinates(self.shape).sum())

    def take(self, chosen: NDArray) -> Things:
        """Return the structures with these indices or this mask."""
        return Things(*(values[chosen] for values in vars(self).values()))

    def within(self, bounds: Bounds) -> Things:
        """Return the structures whose bounds meet others."""
        if not len(self):
            return self
        left, bottom, right, top = bounds
        west, south, east, north = self.bounds.T
        return self.take((west <= right) & (east >= left) & (south <= top) & (north >= bottom))

    @staticmethod
    def joined(several: Sequence[Things]) -> Things:
        """Return the structures of blocks of one source; those in several blocks occur once."""
        if len(several) == 1:
            return several[0]
        every = Things(
            *(
                np.concatenate([getattr(things, name) for things in several])
                for name in vars(several[0])
            )
        )
        places = np.stack([every.fid, every.part], axis=1)
        return every.take(np.unique(places, axis=0, return_index=True)[1])

    @staticmethod
    def of_sources(several: Sequence[Things]) -> Things:
        """Return the structures of several sources; the same one in two sources occurs once."""
        several = [things for things in several if len(things)]
        if not several:
            return no_things()
        if len(several) == 1:
            return several[0]
        every = Things(
            *(
                np.concatenate([getattr(things, name) for things in several])
                for name in vars(several[0])
            )
        )
        text = shapely.to_wkb(every.shape)
        seen: dict[tuple[bytes, bytes], int] = {}
        for n in range(len(every)):
            seen.setdefault((bytes(text[n]), every.form[n].tobytes()), n)
        return every.take(np.array(list(seen.values()), np.int64))


def no_things() -> Things:
    """Return an empty set of structures."""
    number = np.empty(0, np.int64)
    return Things(
        np.empty(0, object),
        np.empty((0, 4)),
        np.zeros(0, STRUCTURE_FORM),
        np.empty(0, np.uint64),
        number,
        number,
    )


def make_things(shape: NDArray, form: NDArray, key: NDArray, fid: NDArray, part: NDArray) -> Things:
    """Return structures with their bounds."""
    return Things(
        shape, shapely.bounds(shape).reshape(-1, 4), form, key, fid, part.astype(np.int64)
    )
