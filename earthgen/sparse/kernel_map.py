"""Kernel maps: which voxel a convolution's kernel meets where.

The map of a kernel from sites to sites is a table: for each output voxel and each offset of the kernel the row of the
input voxel that lies there, or -1. The same table read the other way, from input to output, serves the gradient and
the transposed convolution, so that nothing is ever scattered.

Rows are sorted, and so are the places at which a kernel's offset looks: on the CPU two sorted lists are walked side by
side, without a hash table. On other devices a binary search stands for the walk; both give the same table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from earthgen.sparse.errors import LatticeError
from earthgen.sparse.sites import Sites, Triple, check_range, distinct, triple


@dataclass(frozen=True)
class Kernel:
    """A kernel's shape. An output voxel o meets input voxels o * stride + offset * dilation.

    Offsets run from -(size - 1) // 2 to size // 2 on each axis: symmetric for odd sizes, {0, 1} for size 2.

    Attributes
    ----------
    size, stride, dilation : by axis x, y, z
    """

    size: Triple
    stride: Triple = (1, 1, 1)
    dilation: Triple = (1, 1, 1)

    @classmethod
    def of(
        cls, size: int | Sequence[int], stride: int | Sequence[int] = 1, dilation: int | Sequence[int] = 1
    ) -> Kernel:
        """A kernel from numbers for all axes, or three for each; ShapeError where they are neither."""
        return cls(triple(size, "kernel size"), triple(stride, "stride"), triple(dilation, "dilation"))

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
    """Raise LatticeError where sites lie in other places, or their strides are not those that a kernel joins."""
    fine.place.check_same(coarse.place)
    expected = tuple(a * b for a, b in zip(fine.stride, kernel.stride, strict=True))
    if coarse.stride != expected:
        raise LatticeError(
            f"a kernel of stride {kernel.stride} joins strides {fine.stride} and {expected}, not {coarse.stride}",
            "give output sites of that stride",
        )


def kernel_map(source: Sites, target: Sites, kernel: Kernel) -> KernelMap:
    """The map of a kernel from input to output sites, made once for the two.

    Raises LatticeError where the output's stride is not the input's times the kernel's.
    """
    check_strides(source, target, kernel)

    def make() -> KernelMap:
        find = _walked if source.device.type == "cpu" else searched
        return KernelMap(find(source, target, kernel), len(source), source is target and kernel.symmetric)

    # The output's sites are named by an object of their own. Their id may be another's once they are gone, and if they
    # were kept here, they and sites that keep these would stay in memory until Python looks for cycles.
    return source.cached(("kernel map", kernel, target.cached("name", object)), make)


def searched(source: Sites, target: Sites, kernel: Kernel) -> Tensor:
    """The table by binary search: (outputs, volume) int32. For any device; the reference for `_walked`."""
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
    from earthgen.sparse.walk import fill_table, spread

    table = torch.empty((len(target), kernel.volume), dtype=torch.int32)
    if not len(source):
        return table.fill_(-1)
    keys, outputs, low, high = source.keys.numpy(), target.coordinates.numpy(), *source.box
    filled = table.numpy()
    spread(
        len(target),
        lambda first, last: fill_table(
            keys, outputs, tuple(low), tuple(high), kernel.stride, kernel.first, kernel.dilation, kernel.size,
            filled, first, last,
        ),
    )  # fmt: skip
    return table


# ---- output sites -----------------------------------------------------------------------------------------


def reached(source: Sites, kernel: Kernel) -> Sites:
    """All coarser cells whose kernel meets an input voxel, after which a strided convolution can be other than 0."""

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
    """All finer voxels that the kernel of a coarse one meets: what a generative transposed convolution makes.

    Raises LatticeError where the stride is not divisible by the kernel's.
    """
    if any(a % b for a, b in zip(source.stride, kernel.stride, strict=True)):
        raise LatticeError(
            f"stride {source.stride} is not divisible by {kernel.stride}", "only coarser voxels have finer ones"
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
