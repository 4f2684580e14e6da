"""Partitions of voxels that attend to each other: windows, or whole samples.

Windows are boxes on the lattice whose empty cells are ignored, as in Swin3D (Yang et al. 2023).
They are aligned to the lattice and not to the origin of a sample, so that all crops of one place
are divided along the same faces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from earthgen.sparse.sites import Place, Sites, Triple, distinct_sites, triple


@dataclass(frozen=True, eq=False)
class Partition:
    """Rows of sites, window by window.

    Attributes
    ----------
    order : Tensor (n,) int64
        Rows sorted by window; those of one window in the order of the sites.
    counts : Tensor (windows,) int64
        Number of rows of each window, at least 1.
    boxes : Sites
        The windows as cells, in the order of `counts`. `boxes.stride` is the edge of a window in
        voxels, `boxes.lattice()` its first voxel. Partitions whose boxes have the same place and
        stride are of the same windows.
    """

    order: Tensor
    counts: Tensor
    boxes: Sites
    # Keys are other partitions. References to them are weak, because two partitions that refer to
    # each other would stay in memory.
    _cache: WeakKeyDictionary[Partition, Any] = field(default_factory=WeakKeyDictionary, repr=False)

    def __len__(self) -> int:
        return len(self.counts)

    def __reduce__(self) -> tuple[type[Partition], tuple[Tensor, Tensor, Sites]]:
        return Partition, (self.order, self.counts, self.boxes)  # weak references do not pickle

    @property
    def bounds(self) -> Tensor:
        """(windows + 1,) int64 positions in `order` at which each window begins, and its length."""
        return torch.nn.functional.pad(self.counts.cumsum(0), (1, 0))


def windows(sites: Sites, size: int | Sequence[int], shift: int | Sequence[int] = 0) -> Partition:
    """Divide sites into windows whose lowest cells are at shift + multiples of size on the lattice.

    Each window belongs to one sample. Equal calls return the same object.

    Parameters
    ----------
    sites : Sites
        The voxels.
    size, shift : int or sequence of int
        In cells of the sites' stride, one number or (x, y, z).

    Raises
    ------
    SparseError
        If a size is below 1, or a shift below 0.
    """
    by, moved = triple(size, "window size"), triple(shift, "shift", least=0)
    # Equal windows have to be the same object.
    moved = (moved[0] % by[0], moved[1] % by[1], moved[2] % by[2])
    return sites.cached(("earthgen.sparse.windows", by, moved), lambda: _windows(sites, by, moved))


def whole(sites: Sites) -> Partition:
    """One window for each sample with voxels. Equal calls return the same object."""

    def make() -> Partition:
        bounds = torch.tensor(sites.bounds, device=sites.device)
        counts = bounds[1:] - bounds[:-1]
        sample = torch.nonzero(counts)
        coordinates = torch.nn.functional.pad(sample, (0, 3)).int()
        boxes = Sites(coordinates, (0, 0, 0), sites.place)  # a stride that no window has
        return Partition(torch.arange(len(sites), device=sites.device), counts[sample[:, 0]], boxes)

    return sites.cached("earthgen.sparse.windows.whole", make)


def cells(sites: Sites, size: Triple, shift: Triple = (0, 0, 0)) -> Tensor:
    """(n, 3) int64 cells, counted from the first cell of the window with the sample's origin.

    Divided by the size and rounded down they give the window; the remainder is the position in it.
    """
    offsets = [
        [
            (a // stride - moved) % by
            for a, stride, moved, by in zip(origin, sites.stride, shift, size, strict=True)
        ]
        for origin in sites.place.origins
    ]
    table = torch.tensor(offsets, dtype=torch.int64, device=sites.device).reshape(-1, 3)
    return sites.coordinates[:, 1:].long() + table[sites.coordinates[:, 0].long()]


def _windows(sites: Sites, size: Triple, shift: Triple) -> Partition:
    by = torch.tensor(size, device=sites.device)
    box = cells(sites, size, shift).div(by, rounding_mode="floor")
    window = torch.cat([sites.coordinates[:, :1].long(), box], 1)
    edge = sites.stride[0] * size[0], sites.stride[1] * size[1], sites.stride[2] * size[2]
    boxes = distinct_sites(window, edge, _corners(sites, size, shift))
    number = boxes.rows(window)
    return Partition(
        torch.argsort(number, stable=True), torch.bincount(number, minlength=len(boxes)), boxes
    )


def _corners(sites: Sites, size: Triple, shift: Triple) -> Place:
    """The place of the windows: the origin of a sample is the first voxel of the window that
    contains the origin of the sites."""

    def corner(origin: Triple) -> Triple:
        x, y, z = (
            ((a // stride - moved) // by * by + moved) * stride
            for a, stride, moved, by in zip(origin, sites.stride, shift, size, strict=True)
        )
        return x, y, z

    return Place(tuple(map(corner, sites.place.origins)), sites.place.voxel_size, sites.place.crs)
