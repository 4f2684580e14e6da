"""Kernels, and kernel maps: which input voxels each output voxel of a convolution is computed from.

On the CPU compiled code merges the two sorted lists of voxels; on other devices each offset is a
binary search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from numba import njit
from torch import Tensor

from earthgen.errors import SparseError
from earthgen.sparse.sites import Sites, Triple, check_range, distinct_sites, triple
from earthgen.threads import side_by_side, stretches

CHUNK = 1024
"""Output rows that are filled together, so that their part of the table stays in a core's cache."""


@dataclass(frozen=True)
class Kernel:
    """Shape of a kernel. An output voxel o depends on input voxels o * stride + offset * dilation.

    Offsets run from -(size - 1) // 2 to size // 2 on each axis: symmetric for odd sizes, {0, 1} for
    size 2.

    Attributes
    ----------
    size, stride, dilation : tuple of int
        One number for each axis x, y, z.
    """

    size: Triple
    stride: Triple = (1, 1, 1)
    dilation: Triple = (1, 1, 1)

    @classmethod
    def of(
        cls,
        size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
    ) -> Kernel:
        """Create a kernel; each argument is one number for all axes or three.

        Raises
        ------
        SparseError
            If an argument is neither, or below 1.
        """
        return cls(
            triple(size, "kernel size"), triple(stride, "stride"), triple(dilation, "dilation")
        )

    @property
    def volume(self) -> int:
        """Number of offsets."""
        return self.size[0] * self.size[1] * self.size[2]

    @property
    def first(self) -> Triple:
        """The lowest offset on each axis, dilated."""
        a, b, c = (-((n - 1) // 2) * d for n, d in zip(self.size, self.dilation, strict=True))
        return a, b, c

    @property
    def symmetric(self) -> bool:
        """Whether the opposite of each offset is an offset, and the stride is 1."""
        return self.stride == (1, 1, 1) and all(n % 2 for n in self.size)

    def offsets(self, device: torch.device | str = "cpu") -> Tensor:
        """(volume, 3) int64 offsets, dilated, x slowest and z fastest: the order of a weight's
        matrices."""
        axes = [
            first + step * torch.arange(count, device=device)
            for first, step, count in zip(self.first, self.dilation, self.size, strict=True)
        ]
        return torch.cartesian_prod(*axes).reshape(-1, 3)


@dataclass(frozen=True, eq=False)
class KernelMap:
    """Input rows for each output row and offset.

    Attributes
    ----------
    table : Tensor (outputs, volume) int32
        Input rows, -1 where there is no voxel.
    inputs : int
        Number of input voxels.
    symmetric : bool
        Whether the table of the other direction is this one with its columns reversed.
    """

    table: Tensor
    inputs: int
    symmetric: bool = False
    _cache: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def transposed(self) -> KernelMap:
        """The same pairs with inputs and outputs exchanged."""
        if "transposed" not in self._cache:
            if self.symmetric:
                table = self.table.flip(1)
            else:
                table = self.table.new_full((self.inputs, self.table.shape[1]), -1)
                for offset in range(self.table.shape[1]):
                    column = self.table[:, offset]
                    outputs = torch.nonzero(column >= 0)[:, 0]
                    table[column[outputs].long(), offset] = outputs.int()
            self._cache["transposed"] = KernelMap(table, len(self.table), self.symmetric)
        return self._cache["transposed"]

    @property
    def pairs(self) -> int:
        """Number of pairs of an input and an output voxel."""
        if "pairs" not in self._cache:
            self._cache["pairs"] = int((self.table >= 0).sum())
        return self._cache["pairs"]


def check_strides(fine: Sites, coarse: Sites, kernel: Kernel) -> None:
    """Raise SparseError if two sites lie in different places or their strides do not match a
    kernel."""
    fine.place.check_same(coarse.place)
    expected = tuple(a * b for a, b in zip(fine.stride, kernel.stride, strict=True))
    if coarse.stride != expected:
        raise SparseError(
            f"a kernel of stride {kernel.stride} joins strides {fine.stride} and {expected}, "
            f"not {coarse.stride}",
            "give output sites of that stride",
        )


def kernel_map(source: Sites, target: Sites, kernel: Kernel) -> KernelMap:
    """Build the map of a kernel from input to output sites, once for each pair of sites.

    Parameters
    ----------
    source, target : Sites
        Input and output voxels.
    kernel : Kernel
        Size, stride and dilation.

    Raises
    ------
    SparseError
        If the output's stride is not the input's times the kernel's.
    """
    check_strides(source, target, kernel)

    def make() -> KernelMap:
        find = _merge if source.device.type == "cpu" else search_table
        return KernelMap(
            find(source, target, kernel), len(source), source is target and kernel.symmetric
        )

    # The key contains an object that stands for the output's sites. Their id may be reused after
    # they are deleted, and a reference to them would create cycles, which stay in memory until the
    # garbage collector runs.
    return source.cached(("kernel map", kernel, target.cached("name", object)), make)


def search_table(source: Sites, target: Sites, kernel: Kernel) -> Tensor:
    """Fill the table by binary search, (outputs, volume) int32, on any device. It is the reference
    of `_merge`."""
    table = torch.full((len(target), kernel.volume), -1, dtype=torch.int32, device=source.device)
    stride = torch.tensor(kernel.stride, device=source.device)
    at = target.coordinates.long()
    at[:, 1:] *= stride
    for number, offset in enumerate(kernel.offsets(source.device)):
        neighbours = at.clone()
        neighbours[:, 1:] += offset
        table[:, number] = source.rows(neighbours).int()
    return table


def _merge(source: Sites, target: Sites, kernel: Kernel) -> Tensor:
    """Fill the table by traversing both sorted lists once for each column of offsets."""
    table = torch.empty((len(target), kernel.volume), dtype=torch.int32)
    if not len(source):
        return table.fill_(-1)
    keys, outputs, low, high = source.keys.numpy(), target.coordinates.numpy(), *source.box
    filled = table.numpy()
    side_by_side(
        lambda first, last: fill_table(
            keys,
            outputs,
            tuple(low),
            tuple(high),
            kernel.stride,
            kernel.first,
            kernel.dilation,
            kernel.size,
            filled,
            first,
            last,
        ),
        stretches(len(target)),
    )
    return table


@njit(nogil=True, cache=True)
def fill_table(keys, outputs, low, high, stride, first, step, size, table, begin, end):  # type: ignore[no-untyped-def]
    """Fill rows [begin, end) of a kernel map.

    Parameters
    ----------
    keys : NDArray (inputs,) int64
        Ascending row-major numbers of the input voxels in the box [low, high] of (sample, x, y, z).
    outputs : NDArray (m, 4) int32
        Sorted output voxels.
    stride, first, step, size : tuple of int
        The kernel's stride, lowest offset, dilation and number of offsets on each axis.
    table : NDArray (m, volume) int32
        Is written.
    """
    extent_x, extent_y = high[1] - low[1] + 1, high[2] - low[2] + 1
    extent_z = high[3] - low[3] + 1
    count = len(keys)
    for chunk in range(begin, end, CHUNK):
        last = min(chunk + CHUNK, end)
        for i in range(size[0]):
            for j in range(size[1]):
                column = (i * size[1] + j) * size[2]
                at = -1
                for row in range(chunk, last):
                    sample = outputs[row, 0] - low[0]
                    x = outputs[row, 1] * stride[0] + first[0] + i * step[0] - low[1]
                    y = outputs[row, 2] * stride[1] + first[1] + j * step[1] - low[2]
                    inside = (
                        0 <= sample <= high[0] - low[0] and 0 <= x < extent_x and 0 <= y < extent_y
                    )
                    z = outputs[row, 3] * stride[2] + first[2] - low[3]
                    if not inside or z >= extent_z:
                        for k in range(size[2]):
                            table[row, column + k] = -1
                        continue
                    base = ((sample * extent_x + x) * extent_y + y) * extent_z
                    lowest = base + max(z, 0)
                    if at < 0:  # bisection for the first row of the chunk; the others follow
                        a, b = 0, count
                        while a < b:
                            middle = (a + b) // 2
                            if keys[middle] < lowest:
                                a = middle + 1
                            else:
                                b = middle
                        at = a
                    while at < count and keys[at] < lowest:
                        at += 1
                    there = at
                    for k in range(size[2]):
                        height = z + k * step[2]
                        found = -1
                        if 0 <= height < extent_z:
                            key = base + height
                            while there < count and keys[there] < key:
                                there += 1
                            if there < count and keys[there] == key:
                                found = there
                        table[row, column + k] = found


def reached_sites(source: Sites, kernel: Kernel) -> Sites:
    """All coarser cells whose kernel touches an input voxel: where a strided convolution can be
    nonzero."""

    def make() -> Sites:
        stride = torch.tensor(kernel.stride, device=source.device)
        parts = [source.coordinates.new_zeros((0, 4), dtype=torch.int64)]
        for offset in kernel.offsets(source.device):
            at = source.coordinates.long()
            at[:, 1:] -= offset
            whole = (at[:, 1:] % stride == 0).all(1)
            at = at[whole]
            at[:, 1:] = at[:, 1:].div(stride, rounding_mode="floor")
            parts.append(at)
        coordinates = torch.cat(parts)
        check_range(coordinates)
        target = source.parents(kernel.stride)  # checks the origins
        return distinct_sites(coordinates, target.stride, source.place)

    return source.cached(("reached", kernel), make)


def generative_sites(source: Sites, kernel: Kernel) -> Sites:
    """All finer voxels that the kernel of a coarse one touches: the output of a generative
    transposed convolution.

    Raises
    ------
    SparseError
        If the stride is not divisible by the kernel's.
    """
    if any(a % b for a, b in zip(source.stride, kernel.stride, strict=True)):
        raise SparseError(
            f"stride {source.stride} is not divisible by {kernel.stride}",
            "only coarser voxels have finer ones",
        )

    def make() -> Sites:
        stride = torch.tensor(kernel.stride, device=source.device)
        at = source.coordinates.long()
        at[:, 1:] *= stride
        offsets = torch.nn.functional.pad(kernel.offsets(source.device), (1, 0))
        coordinates = (at[:, None] + offsets).reshape(-1, 4)
        check_range(coordinates)
        a, b, c = (one // by for one, by in zip(source.stride, kernel.stride, strict=True))
        return distinct_sites(coordinates, (a, b, c), source.place)

    return source.cached(("grown", kernel), make)
