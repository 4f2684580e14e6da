"""The layer `decisions` of a world: what of each column the map said, and what was added.

It is a note about the world and not part of its content: digests leave it out, and worlds that were
made without it are as good as others.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from zarr.codecs import GzipCodec

from earthgen.files import link_file
from earthgen.world.bounded_codecs import has_bounded_codecs

if TYPE_CHECKING:
    from geo_io.frame import Frame

Store = Any
"""An `earthgen.world.store.Store`, which imports this module."""

NAME = "decisions"
"""Name of the array, at level 1."""

MAPPED, INFERRED, FILLED, GENERATED = 1, 2, 3, 4

DECISIONS = {
    "mapped": MAPPED,
    "inferred": INFERRED,
    "filled": FILLED,
    "generated": GENERATED,
}
"""Codes by name; 0 is no data.

- mapped: the class is that of the sources, and so is the height of a building
- inferred: a building of the sources whose height they do not give; what stands there according to
  a surface model or a canopy model, but on no map
- filled: no source of land cover says what is there
- generated: the rules or the model put something else there than the sources say, such as a tree
  into a garden or a house onto a plot; all of a world without land cover
"""


def create(group: Any, frame: Frame, chunk: int) -> None:
    """Create the array of a new world.

    Parameters
    ----------
    group : zarr.Group
        That of level 1.
    frame : Frame
        Of all tiles.
    chunk : int
        Edge of a tile, voxels.
    """
    group.create_array(
        NAME,
        shape=frame.shape,
        chunks=(chunk, chunk),
        dtype="uint8",
        compressors=[GzipCodec(level=1)],
        fill_value=0,
        dimension_names=("y", "x"),
        attributes={
            "long_name": "what the sources say and what was added",
            "units": "1",
            "grid_mapping": "spatial_ref",
            "coordinates": "spatial_ref",
            "flag_values": [0, *DECISIONS.values()],
            "flag_meanings": " ".join(["no_data", *DECISIONS]),
        },
    )


def has_decisions(store: Store) -> bool:
    """Return whether a world has the layer: older ones do not."""
    return array_of(store) is not None


def write(store: Store, tx: int, ty: int, codes: NDArray) -> None:
    """Write the layer of a tile; nothing happens if the world has none.

    Parameters
    ----------
    store : Store
    tx, ty : int
        Index of the tile.
    codes : NDArray (ny, nx) uint8
        On `tile_frame(tx, ty)`.

    Raises
    ------
    StoreError
        If it cannot be written, or its description is damaged.
    """
    array = array_of(store)
    if array is None:
        return
    whole, t = store.tiles_frame, store.tile_size
    chunk = whole.tile(tx, ty, t)
    data = np.zeros(chunk.shape, np.uint8)
    data[chunk.slices(store.tile_frame(tx, ty))] = codes
    store._safely(partial(array.__setitem__, whole.slices(chunk), data))
    store._safely(partial(store.folder.sync, [_object(store, tx, ty)]))


def read(store: Store, tx: int, ty: int) -> NDArray | None:
    """Return the layer of a tile, (ny, nx) uint8 on `tile_frame(tx, ty)`; None if the world has
    none.

    Raises
    ------
    StoreError
        If it cannot be read.
    """
    array = array_of(store)
    if array is None:
        return None
    place = store.tiles_frame.slices(store.tile_frame(tx, ty))
    return np.asarray(store.decode(NAME, array, place))


def adopt(store: Store, other: Store, tx: int, ty: int) -> None:
    """Link the layer of a tile of another local world, or copy it, where both have it."""
    old = Path(other.path) / _object(other, tx, ty)
    if has_decisions(store) and old.exists():
        new = _object(store, tx, ty)
        store._safely(partial(link_file, old, Path(store.path) / new))
        store._safely(partial(store.folder.sync, [new]))


def array_of(store: Store) -> Any:
    """Return the array, if its shape and chunks are what the world's frame says, else None."""
    found = store.member(store.dense_path(NAME, 1))
    shape, t = store.tiles_frame.shape, store.tile_size
    if getattr(found, "shape", None) != shape or found.chunks != (t, t):
        return None
    return found if found.dtype == np.uint8 and has_bounded_codecs(found) else None


def _object(store: Store, tx: int, ty: int) -> str:
    row, column = store._place(tx, ty)
    return f"{store.dense_path(NAME, 1)}/c/{row}/{column}"
