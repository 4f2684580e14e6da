"""Which voxels attend to each other: those of a window, or those of a sample.

Windows are boxes on the lattice, as in Swin3D (Yang et al. 2023), whose empty cells take no part.
They are counted from the lattice and not from where a sample begins, so that crops of one place are
cut along the same faces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from earthgen.sparse.sites import Place, Sites, Triple, distinct, triple


@dataclass(frozen=True, eq=False)
class Partition:
    """Rows of sites, window by window.

    Attributes
    ----------
    order : (n,) int64: rows sorted by window, those of one window in the order of the sites
    counts : (windows,) int64: how many rows each window has, none of them 0
    boxes : the windows themselves, as cells: sorted as `counts`. `boxes.stride` is a window's edge
        in voxels, and
        `boxes.lattice()` its first voxel. Partitions of the same place and stride of boxes are of
        the same windows
    """

    order: Tensor
    counts: Tensor
    boxes: Sites
    # By the partition that it meets, which it must not keep alive: two that meet both ways would
    # never be let go.
    _cache: WeakKeyDictionary[Partition, Any] = field(default_factory=WeakKeyDictionary, repr=False)

    def __len__(self) -> int:
        return len(self.counts)

    def __reduce__(self) -> tuple[type[Partition], tuple[Tensor, Tensor, Sites]]:
        return Partition, (self.order, self.counts, self.boxes)  # weak references cannot be pickled

    @property
    def bounds(self) -> Tensor:
        """(windows + 1,) int64: where each window begins in `order`, and the last one ends."""
        return torch.nn.functional.pad(self.counts.cumsum(0), (1, 0))


def windows(sites: Sites, size: int | Sequence[int], shift: int | Sequence[int] = 0) -> Partition:
    """Windows of `size` cells whose lowest cells are at shift + whole multiples of size on the
    lattice.

    A window is never of two samples. The same call gives the same object.

    size, shift : in cells of the sites' stride, one number or (x, y, z)

    Raises SparseError for sizes below 1 and shifts below 0.
    """
    by, moved = triple(size, "window size"), triple(shift, "shift", least=0)
    moved = (
        moved[0] % by[0],
        moved[1] % by[1],
        moved[2] % by[2],
    )  # the same windows are to be the same object
    return sites.cached(("earthgen.sparse.windows", by, moved), lambda: _windows(sites, by, moved))


def whole(sites: Sites) -> Partition:
    """A window for each sample that has voxels. The same call gives the same object."""

    def make() -> Partition:
        bounds = torch.tensor(sites.bounds, device=sites.device)
        counts = bounds[1:] - bounds[:-1]
        sample = torch.nonzero(counts)
        coordinates = torch.nn.functional.pad(sample, (0, 3)).int()
        boxes = Sites(
            coordinates, (0, 0, 0), sites.place
        )  # of no size: so they are no windows' equals
        return Partition(torch.arange(len(sites), device=sites.device), counts[sample[:, 0]], boxes)

    return sites.cached("earthgen.sparse.windows.whole", make)


def cells(sites: Sites, size: Triple, shift: Triple = (0, 0, 0)) -> Tensor:
    """(n, 3) int64: cells counted from the first cell of the window that holds the sample's origin.

    Divided by the size and rounded down they say which window; the remainder says where in it.
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
    named = torch.cat([sites.coordinates[:, :1].long(), box], 1)
    edge = sites.stride[0] * size[0], sites.stride[1] * size[1], sites.stride[2] * size[2]
    boxes = distinct(named, edge, _corners(sites, size, shift))
    number = boxes.rows(named)
    return Partition(
        torch.argsort(number, stable=True), torch.bincount(number, minlength=len(boxes)), boxes
    )


def _corners(sites: Sites, size: Triple, shift: Triple) -> Place:
    """The place of the windows: a sample's origin is the first voxel of the window that holds
    the sites' origin."""

    def corner(origin: Triple) -> Triple:
        x, y, z = (
            ((a // stride - moved) // by * by + moved) * stride
            for a, stride, moved, by in zip(origin, sites.stride, shift, size, strict=True)
        )
        return x, y, z

    return Place(tuple(map(corner, sites.place.origins)), sites.place.voxel_size, sites.place.crs)
