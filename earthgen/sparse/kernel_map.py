"""The walks along sorted voxels that plain torch has no operation for, compiled for the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from numba import njit
from torch import Tensor

from earthgen.errors import SparseError
from earthgen.sparse.sites import Sites, Triple, check_range, distinct, triple

CHUNK = 1024
"""Output rows whose part of the table stays in a core's cache while all offsets are looked at."""


def spread(count: int, work: Callable[[int, int], Any], least: int = 8192) -> None:
    """Call `work(first, last)` on ranges that cover `count`, on as many threads as torch uses.

    numba's own threads would have to be switched off wherever threads or forks are used; these end
    with the call.
    """
    threads = min(torch.get_num_threads(), -(-count // least))
    if threads <= 1:
        work(0, count)
        return
    bounds = [count * number // threads for number in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, a, b) for a, b in pairwise(bounds)]:
            done.result()


@njit(nogil=True, cache=True)
def fill_table(keys, outputs, low, high, stride, first, step, size, table, begin, end):  # type: ignore[no-untyped-def]
    """Rows [begin, end) of a kernel map.

    keys : (inputs,) int64, rising: row-major numbers in the box [low, high] of (sample, x, y, z)
    outputs : (m, 4) int32, sorted
    stride, first, step, size : of the kernel: stride, lowest offset, dilation, number of offsets
    table : (m, volume) int32, written
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
                    if at < 0:  # the first of the chunk: by bisection; the others follow in order
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


@dataclass(frozen=True)
class Kernel:
    """A kernel's shape. An output voxel o meets input voxels o * stride + offset * dilation.

    Offsets run from -(size - 1) // 2 to size // 2 on each axis: symmetric for odd sizes, {0, 1} for
    size 2.

    Attributes
    ----------
    size, stride, dilation : by axis x, y, z
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
        """A kernel from numbers for all axes, or three for each; SparseError where they are
        neither."""
        return cls(
            triple(size, "kernel size"), triple(stride, "stride"), triple(dilation, "dilation")
        )

    @property
    def volume(self) -> int:
        return self.size[0] * self.size[1] * self.size[2]

    @property
    def first(self) -> Triple:
        """The lowest offset by axis, dilated."""
        a, b, c = (-((n - 1) // 2) * d for n, d in zip(self.size, self.dilation, strict=True))
        return a, b, c

    @property
    def symmetric(self) -> bool:
        """Whether an offset's opposite is an offset too, and the kernel looks at its own sites."""
        return self.stride == (1, 1, 1) and all(n % 2 for n in self.size)

    def offsets(self, device: torch.device | str = "cpu") -> Tensor:
        """(volume, 3) int64, dilated, x slowest and z fastest: the order of a weight's rows."""
        axes = [
            first + step * torch.arange(count, device=device)
            for first, step, count in zip(self.first, self.dilation, self.size, strict=True)
        ]
        return torch.cartesian_prod(*axes).reshape(-1, 3)


@dataclass(frozen=True, eq=False)
class KernelMap:
    """Input rows by output row and offset.

    Attributes
    ----------
    table : (outputs, volume) int32, -1 where there is no voxel
    inputs : number of input voxels
    symmetric : whether the table of the other direction is this one with its columns reversed
    """

    table: Tensor
    inputs: int
    symmetric: bool = False
    _cache: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def transposed(self) -> KernelMap:
        """The same meetings, with inputs and outputs changed over."""
        if "transposed" not in self._cache:
            if self.symmetric:
                table = self.table.flip(1)
            else:
                table = self.table.new_full((self.inputs, self.table.shape[1]), -1)
                for offset in range(self.table.shape[1]):
                    column = self.table[:, offset]
                    there = torch.nonzero(column >= 0)[:, 0]
                    table[column[there].long(), offset] = there.int()
            self._cache["transposed"] = KernelMap(table, len(self.table), self.symmetric)
        return self._cache["transposed"]

    @property
    def pairs(self) -> int:
        """How many meetings there are."""
        if "pairs" not in self._cache:
            self._cache["pairs"] = int((self.table >= 0).sum())
        return self._cache["pairs"]


def check_strides(fine: Sites, coarse: Sites, kernel: Kernel) -> None:
    """Raise SparseError where sites lie in other places, or their strides are not those that a
    kernel joins."""
    fine.place.check_same(coarse.place)
    expected = tuple(a * b for a, b in zip(fine.stride, kernel.stride, strict=True))
    if coarse.stride != expected:
        raise SparseError(
            f"a kernel of stride {kernel.stride} joins strides {fine.stride} and {expected}, not {coarse.stride}",
            "give output sites of that stride",
        )


def kernel_map(source: Sites, target: Sites, kernel: Kernel) -> KernelMap:
    """The map of a kernel from input to output sites, made once for the two.

    Raises SparseError where the output's stride is not the input's times the kernel's.
    """
    check_strides(source, target, kernel)

    def make() -> KernelMap:
        find = _walked if source.device.type == "cpu" else searched
        return KernelMap(
            find(source, target, kernel), len(source), source is target and kernel.symmetric
        )

    # The output's sites are named by an object of their own. Their id may be another's once they
    # are gone, and if they were kept here, they and sites that keep these would stay in memory
    # until Python looks for cycles.
    return source.cached(("kernel map", kernel, target.cached("name", object)), make)


def searched(source: Sites, target: Sites, kernel: Kernel) -> Tensor:
    """The table by binary search: (outputs, volume) int32. For any device; the reference for
    `_walked`."""
    table = torch.full((len(target), kernel.volume), -1, dtype=torch.int32, device=source.device)
    stride = torch.tensor(kernel.stride, device=source.device)
    at = target.coordinates.long()
    at[:, 1:] *= stride
    for number, offset in enumerate(kernel.offsets(source.device)):
        there = at.clone()
        there[:, 1:] += offset
        table[:, number] = source.rows(there).int()
    return table


def _walked(source: Sites, target: Sites, kernel: Kernel) -> Tensor:
    """The table by walking along both sorted lists."""

    table = torch.empty((len(target), kernel.volume), dtype=torch.int32)
    if not len(source):
        return table.fill_(-1)
    keys, outputs, low, high = source.keys.numpy(), target.coordinates.numpy(), *source.box
    filled = table.numpy()
    spread(
        len(target),
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
    )
    return table


def reached(source: Sites, kernel: Kernel) -> Sites:
    """All coarser cells whose kernel meets an input voxel, after which a strided convolution can
    be other than 0."""

    def make() -> Sites:
        stride = torch.tensor(kernel.stride, device=source.device)
        found = [source.coordinates.new_zeros((0, 4), dtype=torch.int64)]
        for offset in kernel.offsets(source.device):
            at = source.coordinates.long()
            at[:, 1:] -= offset
            whole = (at[:, 1:] % stride == 0).all(1)
            at = at[whole]
            at[:, 1:] = at[:, 1:].div(stride, rounding_mode="floor")
            found.append(at)
        coordinates = torch.cat(found)
        check_range(coordinates)
        target = source.parents(kernel.stride)  # checks the origins
        return distinct(coordinates, target.stride, source.place)

    return source.cached(("reached", kernel), make)


def grown(source: Sites, kernel: Kernel) -> Sites:
    """All finer voxels that the kernel of a coarse one meets: what a generative transposed
    convolution makes.

    Raises SparseError where the stride is not divisible by the kernel's.
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
        return distinct(coordinates, (a, b, c), source.place)

    return source.cached(("grown", kernel), make)
