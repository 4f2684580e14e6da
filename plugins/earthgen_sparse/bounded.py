"""Sites in the form that the libraries need: coordinates from 0 on, in a box of known size.

The libraries omit what lies outside the box. So voxels are shifted by a multiple of the stride,
with a margin on all sides for the reach of the kernel.
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
    """The box around the fine sites of a convolution.

    Attributes
    ----------
    base : tuple of int
        (x, y, z) of the fine voxel that becomes 0; a multiple of the kernel's stride.
    coarse_base : tuple of int
        (x, y, z) of the coarse cell that becomes 0.
    shape : tuple of int
        Edges in fine voxels.
    samples : int
        Number of samples of the batch.
    """

    base: Triple
    coarse_base: Triple
    shape: Triple
    samples: int

    @property
    def cells(self) -> int:
        """Number of cells of all samples."""
        return self.samples * self.shape[0] * self.shape[1] * self.shape[2]

    def moved(self, fine: Sites) -> Tensor:
        """(n, 4) int32 fine coordinates, from 0 on."""
        base = torch.tensor((0, *self.base), device=fine.device)
        return (fine.coordinates.long() - base).int().contiguous()

    def rows(self, coordinates: Tensor, coarse: Sites) -> Tensor:
        """(m,) int64 rows of `coarse` of a library's coarse cells (m, 4) from 0 on; -1 for absent
        ones."""
        return coarse.rows(
            coordinates.long() + torch.tensor((0, *self.coarse_base), device=coarse.device)
        )


def around(fine: Sites, kernel: Kernel) -> Box:
    """The box around fine sites and the reach of a kernel; there has to be at least one site."""
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


def invert(rows: Tensor, count: int) -> Tensor:
    """(count,) int64 position of each number in `rows` (m,), which are unique except for -1; -1 for
    absent numbers."""
    at = torch.full((count,), -1, dtype=torch.int64, device=rows.device)
    present = torch.nonzero(rows >= 0)[:, 0]
    at[rows[present]] = present
    return at


def check_cells(box: Box, most: int, library: str) -> None:
    """Raise SparseError if a box has too many cells for a library's integers."""
    if box.cells >= most or max(box.shape) >= 2**31:
        size = " x ".join(f"{edge:,}" for edge in box.shape)
        raise SparseError(
            f"voxels lie in a box of {size} cells in {box.samples:,} samples, too many for "
            f"{library}",
            "crop, or use --sparse-backend torch",
        )
