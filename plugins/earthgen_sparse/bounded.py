"""Sites as the libraries want them: coordinates from 0 on, in a box of known size, on which coarser
cells fit.

Our lattice has no bounds, theirs has: what would lie outside is left out. So voxels are moved by a
multiple of the stride, with room on all sides for whatever a kernel can reach.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from earthgen.errors import SparseError
from earthgen.sparse.kernel_map import Kernel
from earthgen.sparse.sites import Sites, Triple


@dataclass(frozen=True)
class Box:
    """Where the fine sites of a convolution lie.

    Attributes
    ----------
    base : (x, y, z) of the fine voxel that becomes 0; a multiple of the kernel's stride
    coarse_base : of the coarse cell that becomes 0
    shape : edges in fine voxels
    samples : of the batch
    """

    base: Triple
    coarse_base: Triple
    shape: Triple
    samples: int

    @property
    def cells(self) -> int:
        return self.samples * self.shape[0] * self.shape[1] * self.shape[2]

    def moved(self, fine: Sites) -> Tensor:
        """(n, 4) int32: the fine coordinates, from 0 on."""
        base = torch.tensor((0, *self.base), device=fine.device)
        return (fine.coordinates.long() - base).int().contiguous()

    def rows(self, coordinates: Tensor, coarse: Sites) -> Tensor:
        """Which rows of `coarse` the coarse cells of a library are: (m, 4) from 0 on to (m,)
        int64, -1 for none."""
        return coarse.rows(
            coordinates.long() + torch.tensor((0, *self.coarse_base), device=coarse.device)
        )


def around(fine: Sites, kernel: Kernel) -> Box:
    """The box of fine sites, and what a kernel reaches from them. There must be sites."""
    low, high = fine.box
    base, coarse, shape = [], [], []
    for axis in range(3):
        reach = (kernel.size[axis] - 1) * kernel.dilation[axis]
        cell = (low[axis + 1] - reach) // kernel.stride[axis]
        base.append(cell * kernel.stride[axis])
        coarse.append(cell)
        shape.append(high[axis + 1] - base[axis] + 1 + reach)
    return Box(
        (base[0], base[1], base[2]),
        (coarse[0], coarse[1], coarse[2]),
        (shape[0], shape[1], shape[2]),
        fine.batch_size,
    )


def inverted(rows: Tensor, count: int) -> Tensor:
    """Where each of `count` numbers stands: (m,) without repeats but for -1 to (count,) int64,
    -1 for nowhere."""
    at = torch.full((count,), -1, dtype=torch.int64, device=rows.device)
    there = torch.nonzero(rows >= 0)[:, 0]
    at[rows[there]] = there
    return at


def check_cells(box: Box, most: int, library: str) -> None:
    """Raise SparseError where a library's numbers for the cells of a box would wrap."""
    if box.cells >= most or max(box.shape) >= 2**31:
        size = " x ".join(f"{edge:,}" for edge in box.shape)
        raise SparseError(
            f"voxels lie in a box of {size} cells in {box.samples:,} samples, more than {library} can number",
            "crop, or use --sparse-backend torch",
        )
