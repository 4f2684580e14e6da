"""Blocks: what a stage makes of a window, as named arrays on a frame."""

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
"""What a stage reads by name: a Block for a stage, a layer for a condition (see
`earthgen.stages.backends.Conditions`)."""


@dataclass(frozen=True)
class Field:
    """One output of a stage: a value a cell (dense), or a value a voxel (sparse).

    Attributes
    ----------
    dtype : numpy's name of it
    shape : of one value; () for a number
    sparse : whether it is a value a voxel rather than a value a column
    """

    dtype: str
    shape: tuple[int, ...] = ()
    sparse: bool = False


@dataclass(frozen=True)
class Block:
    """Arrays on a frame: dense ones with a value a cell, sparse ones with a row a voxel.

    Attributes
    ----------
    frame : where they are
    dense : (ny, nx, ...) arrays by name, rows from north to south
    xyz : (n, 3) int32, lattice indices east, north, up of the rows of `sparse`; None where there
        are none
    sparse : (n, ...) arrays by name
    """

    frame: Frame
    dense: Mapping[str, NDArray] = field(default_factory=dict)
    xyz: NDArray | None = None
    sparse: Mapping[str, NDArray] = field(default_factory=dict)

    def __getitem__(self, name: str) -> NDArray:
        """The array with this name, dense or sparse."""
        return self.dense[name] if name in self.dense else self.sparse[name]

    @property
    def nbytes(self) -> int:
        arrays = (*self.dense.values(), *self.sparse.values())
        return sum(a.nbytes for a in arrays) + (0 if self.xyz is None else self.xyz.nbytes)

    def crop(self, inner: Frame) -> Block:
        """The part on a frame that lies inside this one."""
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
        """Raise PluginError unless this holds these fields with their dtypes and shapes."""
        rows = -1 if self.xyz is None else len(self.xyz)
        for name, wanted in fields.items():
            values = (self.sparse if wanted.sparse else self.dense).get(name)
            lead = (rows,) if wanted.sparse else self.frame.shape
            if values is None:
                problem = f"lacks field {name!r}"
            elif values.dtype != wanted.dtype or values.shape != (*lead, *wanted.shape):
                problem = f"gave field {name!r} as {values.dtype} {values.shape}, not {wanted.dtype} {(*lead, *wanted.shape)}"
            else:
                continue
            raise PluginError(
                f"stage {stage!r} {problem} on {self.frame}", "report it to the plugin's author"
            )


def within(xyz: NDArray, frame: Frame) -> NDArray:
    """(n,) bool: which of the (n, 3) voxels stand in the columns of `frame`."""
    x, y = xyz[:, 0], xyz[:, 1]
    return (x >= frame.x[0]) & (x < frame.x[1]) & (y >= frame.y[0]) & (y < frame.y[1])


def _runs_within(xyz: NDArray, frame: Frame) -> list[tuple[int, int]]:
    """[first, last) of the stretches of (n, 3) voxels that stand in the columns of `frame`.

    Voxels are sorted by row and column, so there is about one a row, and copying stretches is much
    quicker than picking voxels.
    """
    edges = run_edges(within(xyz, frame)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def run_edges(wanted: NDArray) -> NDArray:
    """(2 k,) where the k stretches of True in (n,) bool begin and end, in turn."""
    padded = np.zeros(len(wanted) + 2, np.int8)
    padded[1:-1] = wanted
    return np.flatnonzero(np.diff(padded))


def take_runs(values: NDArray, runs: Sequence[tuple[int, int]]) -> NDArray:
    """The rows of some stretches [first, last), copied one after the other."""
    return np.concatenate([values[first:last] for first, last in runs]) if runs else values[:0]


def column_order(xyz: NDArray) -> NDArray:
    """(n,) the permutation that sorts (n, 3) voxels by (y, x, z)."""
    return np.lexsort((xyz[:, 2], xyz[:, 0], xyz[:, 1]))


def join(frame: Frame, parts: Sequence[Block]) -> Block:
    """One block on `frame` from blocks that do not overlap; their sparse rows sorted by (y, x, z).

    Cells that no part covers are 0.
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
    """The block as bytes: a safetensors file and its CRC-32."""
    from safetensors.numpy import save

    arrays = {f"dense/{name}": np.ascontiguousarray(a) for name, a in block.dense.items()}
    arrays |= {f"sparse/{name}": np.ascontiguousarray(a) for name, a in block.sparse.items()}
    if block.xyz is not None:
        arrays["xyz"] = np.ascontiguousarray(block.xyz)
    data = save(arrays, metadata={"frame": json.dumps(block.frame.to_dict())})
    return data + struct.pack("<I", zlib.crc32(data))


def unpack(data: bytes) -> Block | None:
    """The block in what `pack` gave; None where the bytes are not whole."""
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
