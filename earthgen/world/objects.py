"""Which objects of a world hold a part of an array, which of them is damaged, and which is missing.

An object of nothing but the fill value is not written, so that a missing one reads as no data. The
index says how many bytes the objects of a finished tile have: fewer, and one was lost.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_LOOKS = 4096
"""Objects that are looked through for the damaged one, at most."""


def objects_of(array: Any, place: Any) -> list[tuple[int, ...]]:
    """Return the places in the grid of objects, of which each holds some of a part of an array.

    Parameters
    ----------
    array : zarr.Array
    place : index
        Of whole numbers, slices and vectors of numbers, or an ellipsis alone.
    """
    edges = array.shards or array.chunks
    parts = () if place is Ellipsis else place if isinstance(place, tuple) else (place,)
    axes: list[list[int]] = []
    for axis, (length, edge) in enumerate(zip(array.shape, edges, strict=True)):
        part = parts[axis] if axis < len(parts) else slice(None)
        if isinstance(part, slice):
            start, stop, step = part.indices(length)
            if step < 0:
                start, stop, step = stop + 1, start + 1, -step
            numbers = range(start, stop, step) if step > edge else range(start, stop, edge)
            last = [stop - 1] if step <= edge and stop > start else []
            axes.append(sorted({n // edge for n in (*numbers, *last)}))
        else:
            axes.append(np.unique(np.atleast_1d(part) // edge).tolist())
    return list(itertools.product(*axes))


def object_name(name: str, array: Any, at: tuple[int, ...]) -> str:
    """Return the name of an object of an array of a world."""
    return f"{name}/{array.metadata.encode_chunk_key(at)}"


def damaged_object(name: str, array: Any, place: Any, errors: tuple[type[Exception], ...]) -> str:
    """Return the name of the first object of a part that cannot be decoded, else of the array.

    Parameters
    ----------
    name : str
        Of the array.
    array : zarr.Array
    place : index
    errors : tuple of type
        What decoders raise.
    """
    edges = array.shards or array.chunks
    inside = array.chunks  # of a shard, its first chunk is enough: its list of chunks is read too
    for at in objects_of(array, place)[:MOST_LOOKS]:
        first = [n * edge for n, edge in zip(at, edges, strict=True)]
        reach = inside if array.shards is None else _read_of(array, place, at)
        box = tuple(slice(a, a + size) for a, size in zip(first, reach, strict=True))
        try:
            array[box]
        except errors:
            return object_name(name, array, at)
    return name


def _read_of(array: Any, place: Any, at: tuple[int, ...]) -> list[int]:
    """How far a part reaches into a shard, along each axis."""
    parts = place if isinstance(place, tuple) else (place,)
    reach = list(array.shards)
    for axis, part in enumerate(parts):
        if isinstance(part, slice):
            stop = part.indices(array.shape[axis])[1] - at[axis] * array.shards[axis]
            reach[axis] = min(reach[axis], stop)
    return reach


def has_fill(values: NDArray, fill: Any) -> bool:
    """Return whether any value may be one that was never written."""
    if values.dtype.kind == "f" and np.isnan(fill):
        return bool(np.isnan(values).any())
    return not bool((values != fill).all())
