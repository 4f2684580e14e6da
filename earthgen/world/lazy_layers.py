"""Layers of a world for xarray, which are read on use, with the errors of the world."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing


class LayerArray(BackendArray):
    """An array that reads what it is asked for.

    Attributes
    ----------
    read : callable
        Takes an index, and how it is understood: "" of whole numbers and slices, "oindex" or
        "vindex" with vectors, as Zarr has them. Returns the values.
    shape, dtype
        Of the array.
    """

    def __init__(
        self, read: Callable[[Any, str], NDArray], shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self.read, self.shape, self.dtype = read, shape, dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray:
        how = ""
        if not isinstance(key, indexing.BasicIndexer):
            how = "vindex" if isinstance(key, indexing.VectorizedIndexer) else "oindex"
        return np.asarray(
            indexing.explicit_indexing_adapter(
                key, self.shape, indexing.IndexingSupport.VECTORIZED, partial(self._read, how)
            )
        )

    def _read(self, how: str, key: Any) -> NDArray:
        return self.read(key, how)


def lazy(read: Callable[[Any, str], NDArray], array: Any) -> indexing.LazilyIndexedArray:
    """Return an array of a Variable.

    Parameters
    ----------
    read : callable
        As of `LayerArray`.
    array : zarr.Array
        Whose shape and dtype it has.
    """
    return indexing.LazilyIndexedArray(LayerArray(read, array.shape, array.dtype))
