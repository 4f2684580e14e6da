"""Blocks: the result of a stage on a window, as named arrays on a frame."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen.errors import PluginError
from geo_io.frame import Frame

Inputs = Mapping[str, Any]
"""What a stage reads, by name: a Block for a stage, a layer for a condition (see
`earthgen.stages.Conditions`)."""


@dataclass(frozen=True)
class Field:
    """One output of a stage: one value per cell (dense) or one value per voxel (sparse).

    A stage with a height map and one normal per voxel declares::

        fields = {"ground": Field("float32"), "normal": Field("float32", (3,), sparse=True)}

    Attributes
    ----------
    dtype : str
        Numpy's name of the type.
    shape : tuple of int
        Shape of one value; () for a number.
    sparse : bool
        Whether there is one value per voxel instead of one per cell.
    """

    dtype: str
    shape: tuple[int, ...] = ()
    sparse: bool = False


@dataclass(frozen=True)
class Block:
    """Arrays on a frame: dense ones with one value per cell, sparse ones with one row per voxel.

    A stage returns one for its window, and reads those of earlier stages::

        block = Block(window, {"height": np.zeros(window.shape, np.float32)})
        block["height"]

    Attributes
    ----------
    frame : Frame
        Where the arrays lie.
    dense : mapping of str to NDArray (ny, nx, ...)
        Rows run from north to south.
    xyz : NDArray (n, 3) int32 or None
        Lattice indices east, north, up of the rows of `sparse`; None without sparse arrays.
    sparse : mapping of str to NDArray (n, ...)
        One row per voxel.
    """

    frame: Frame
    dense: Mapping[str, NDArray] = field(default_factory=dict)
    xyz: NDArray | None = None
    sparse: Mapping[str, NDArray] = field(default_factory=dict)

    def __getitem__(self, name: str) -> NDArray:
        """Return the array with this name, dense or sparse."""
        return self.dense[name] if name in self.dense else self.sparse[name]

    @property
    def nbytes(self) -> int:
        """Size of all arrays, bytes."""
        arrays = (*self.dense.values(), *self.sparse.values())
        return sum(a.nbytes for a in arrays) + (0 if self.xyz is None else self.xyz.nbytes)

    def crop(self, inner: Frame) -> Block:
        """Return the part on `inner`, a frame that lies inside this one."""
        if (inner.x, inner.y) == (self.frame.x, self.frame.y):
            return self
        part = self.frame.slices(inner)
        dense = {name: values[part] for name, values in self.dense.items()}
        if self.xyz is None:
            return Block(inner, dense)
        runs = _runs_within(self.xyz, inner)
        sparse = {name: take_runs(values, runs) for name, values in self.sparse.items()}
        return Block(inner, dense, take_runs(self.xyz, runs), sparse)

    def require(self, fields: Mapping[str, Field], stage: str) -> None:
        """Raise PluginError unless the block has these fields with their dtypes and shapes.

        Parameters
        ----------
        fields : mapping of str to Field
            The required fields.
        stage : str
            Name of the stage that made the block, for the message.
        """
        rows = -1 if self.xyz is None else len(self.xyz)
        for name, field_ in fields.items():
            values = (self.sparse if field_.sparse else self.dense).get(name)
            shape = ((rows,) if field_.sparse else self.frame.shape) + field_.shape
            if values is None:
                problem = f"lacks field {name!r}"
            elif values.dtype != field_.dtype or values.shape != shape:
                problem = (
                    f"gave field {name!r} as {values.dtype} {values.shape}, "
                    f"not {field_.dtype} {shape}"
                )
            else:
                continue
            raise PluginError(
                f"stage {stage!r} {problem} on {self.frame}", "report it to the plugin's author"
            )


def within(xyz: NDArray, frame: Frame) -> NDArray:
    """Return which of the (n, 3) voxels stand in the columns of `frame`: (n,) bool."""
    x, y = xyz[:, 0], xyz[:, 1]
    return (x >= frame.x[0]) & (x < frame.x[1]) & (y >= frame.y[0]) & (y < frame.y[1])


def _runs_within(xyz: NDArray, frame: Frame) -> list[tuple[int, int]]:
    """Return the ranges [first, last) of voxels that stand in the columns of `frame`.

    Voxels are sorted by row and column, so there is about one range per row, and copying ranges is
    much faster than picking single voxels.
    """
    edges = run_edges(within(xyz, frame)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def run_edges(mask: NDArray) -> NDArray:
    """Return where the k runs of True in (n,) bool begin and end, in turn: (2 k,) int."""
    padded = np.zeros(len(mask) + 2, np.int8)
    padded[1:-1] = mask
    return np.flatnonzero(np.diff(padded))


def take_runs(values: NDArray, runs: Sequence[tuple[int, int]]) -> NDArray:
    """Return the rows of the ranges [first, last), copied one after the other."""
    return np.concatenate([values[first:last] for first, last in runs]) if runs else values[:0]


def column_order(xyz: NDArray) -> NDArray:
    """Return the permutation that sorts (n, 3) voxels by (y, x, z): (n,) int."""
    return np.lexsort((xyz[:, 2], xyz[:, 0], xyz[:, 1]))


def join(frame: Frame, parts: Sequence[Block]) -> Block:
    """Join blocks that do not overlap to one on `frame`.

    Its sparse rows are sorted by (y, x, z). Cells that no part covers are 0.
    """
    first = parts[0]
    if len(parts) == 1 and first.frame == frame:
        return first
    dense = {
        name: np.zeros((*frame.shape, *a.shape[2:]), a.dtype) for name, a in first.dense.items()
    }
    for part in parts:
        where = frame.slices(part.frame)
        for name, whole in dense.items():
            whole[where] = part.dense[name]
    if first.xyz is None:
        return Block(frame, dense)
    xyz = np.concatenate([part.xyz for part in parts if part.xyz is not None])
    order = column_order(xyz)
    sparse = {
        name: np.concatenate([part.sparse[name] for part in parts])[order] for name in first.sparse
    }
    return Block(frame, dense, xyz[order], sparse)


def pack(block: Block) -> bytes:
    """Return the block as bytes: a safetensors file followed by its CRC-32."""
    from safetensors.numpy import save

    arrays = {f"dense/{name}": np.ascontiguousarray(a) for name, a in block.dense.items()}
    arrays |= {f"sparse/{name}": np.ascontiguousarray(a) for name, a in block.sparse.items()}
    if block.xyz is not None:
        arrays["xyz"] = np.ascontiguousarray(block.xyz)
    data = save(arrays, metadata={"frame": json.dumps(block.frame.to_dict())})
    return data + struct.pack("<I", zlib.crc32(data))


def unpack(data: bytes) -> Block | None:
    """Return the block that `pack` stored in `data`; None if the bytes are damaged."""
    if len(data) < 12 or struct.pack("<I", zlib.crc32(data[:-4])) != data[-4:]:
        return None
    from safetensors.numpy import load

    body = data[:-4]
    header = json.loads(body[8 : 8 + struct.unpack("<Q", body[:8])[0]])
    arrays = load(body)
    return Block(
        Frame.from_dict(json.loads(header["__metadata__"]["frame"])),
        {name.removeprefix("dense/"): a for name, a in arrays.items() if name.startswith("dense/")},
        arrays.get("xyz"),
        {
            name.removeprefix("sparse/"): a
            for name, a in arrays.items()
            if name.startswith("sparse/")
        },
    )
