"""Sparse tensors: features of active voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from earthgen.errors import SparseError
from earthgen.memory import require
from earthgen.sparse.sites import (
    Place,
    Sites,
    Triple,
    check_coordinates,
    distinct_sites,
    make_sites,
    union_sites,
)


@dataclass(frozen=True, eq=False)
class SparseTensor:
    """Features of active voxels. `sparse_tensor` creates one from voxels in any order.

    Operations return new tensors, which share the sites if these do not change.

    Attributes
    ----------
    sites : Sites
        n active voxels.
    features : Tensor (n, channels)
        Of a floating dtype.
    """

    sites: Sites
    features: Tensor

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or len(self.features) != len(self.sites):
            raise SparseError(
                f"features have shape {tuple(self.features.shape)}, there are "
                f"{len(self.sites):,} voxels",
                f"give ({len(self.sites)}, channels)",
            )
        if self.features.device != self.sites.device:
            raise SparseError(
                f"features are on {self.features.device}, coordinates on {self.sites.device}",
                "move them to one device",
            )

    def __len__(self) -> int:
        return len(self.sites)

    @property
    def coordinates(self) -> Tensor:
        """(n, 4) int32 rows (sample, x, y, z), in strides."""
        return self.sites.coordinates

    @property
    def stride(self) -> Triple:
        """Edge of a cell in voxels, on each axis."""
        return self.sites.stride

    @property
    def place(self) -> Place:
        """Where the samples lie."""
        return self.sites.place

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.features.shape[1]

    @property
    def batch_size(self) -> int:
        """Number of samples."""
        return self.sites.batch_size

    def with_features(self, features: Tensor) -> SparseTensor:
        """The same sites with other features, (n, channels)."""
        return SparseTensor(self.sites, features)

    def to(self, target: torch.device | str | torch.dtype) -> SparseTensor:
        """Convert to a device, or convert the features to a dtype."""
        if isinstance(target, torch.dtype):
            return self.with_features(self.features.to(target))
        return SparseTensor(self.sites.to(target), self.features.to(target))

    def __add__(self, other: SparseTensor) -> SparseTensor:
        """The sum at the same sites; SparseError if the sites differ, see `union`."""
        _same_channels(self, other)  # checks devices before coordinates are compared
        self.sites.check_same(other.sites)
        return self.with_features(self.features + other.features)

    def samples(self) -> list[SparseTensor]:
        """The samples of the batch, each as a batch of one."""
        bounds = self.sites.bounds
        parts = []
        for number, origin in enumerate(self.place.origins):
            rows = slice(bounds[number], bounds[number + 1])
            coordinates = self.coordinates[rows].clone()
            coordinates[:, 0] = 0
            place = Place((origin,), self.place.voxel_size, self.place.crs)
            parts.append(SparseTensor(Sites(coordinates, self.stride, place), self.features[rows]))
        return parts

    def crop(self, low: Sequence[int], high: Sequence[int]) -> SparseTensor:
        """The voxels of the box [low, high) in every sample, in coordinates (x, y, z). The origin
        does not change."""
        xyz = self.coordinates[:, 1:]
        _check_corners(low, high)
        bounds = torch.tensor([list(low), list(high)], device=xyz.device)
        return self.prune(((xyz >= bounds[0]) & (xyz < bounds[1])).all(1))

    def prune(self, keep: Tensor) -> SparseTensor:
        """The voxels where `keep`, (n,) bool, is true."""
        if keep.dtype != torch.bool or keep.shape != (len(self),):
            raise SparseError(
                f"the mask to prune by is {keep.dtype} {tuple(keep.shape)}",
                f"give ({len(self)},) of torch.bool",
            )
        return SparseTensor(self.sites.select(keep), self.features[keep])

    def at(self, sites: Sites) -> SparseTensor:
        """These features at other sites of the same place and stride; 0 where there is no voxel."""
        if sites is self.sites:
            return self
        self.place.check_same(sites.place)
        if self.stride != sites.stride:
            raise SparseError(
                f"strides differ: {self.stride} and {sites.stride}", "resample one of them first"
            )
        return SparseTensor(sites, take_rows(self.features, self.sites.rows(sites.coordinates)))

    def dense(
        self, low: Sequence[int] | None = None, high: Sequence[int] | None = None, fill: float = 0.0
    ) -> Tensor:
        """Convert the box [low, high) of coordinates to a dense tensor.

        Parameters
        ----------
        low, high : sequence of int, optional
            Corners (x, y, z); by default those of the box around all voxels.
        fill : float
            Value where there is no voxel.

        Returns
        -------
        Tensor (batch, channels, x, y, z)
            The box in every sample.

        Raises
        ------
        SparseError
            If the box ends before it begins.
        OutOfMemoryError
            If there is too little free memory.
        """
        box = self.sites.box
        low = box[0][1:] if low is None else list(low)
        high = [value + 1 for value in box[1][1:]] if high is None else list(high)
        _check_corners(low, high)
        shape = [b - a for a, b in zip(low, high, strict=True)]
        if min(shape) < 0:
            raise SparseError(
                f"the box {tuple(low)} to {tuple(high)} ends before it begins",
                "give low before high",
            )
        cells = self.batch_size * shape[0] * shape[1] * shape[2]
        what = f"a dense box of {' x '.join(map(str, shape))} voxels with {self.channels} channels"
        require(
            cells * self.channels * self.features.element_size(), self.features.device, what, cells
        )
        part = self.crop(low, high)
        sample, x, y, z = (
            (part.coordinates - torch.tensor([0, *low], device=self.features.device))
            .long()
            .unbind(1)
        )
        dense = self.features.new_full((self.batch_size, *shape, self.channels), fill)
        return dense.index_put((sample, x, y, z), part.features).permute(0, 4, 1, 2, 3)


def take_rows(rows: Tensor, number: Tensor) -> Tensor:
    """(m, c): select rows of (n, c) by (m,) numbers; 0 where the number is negative."""
    if not len(rows):
        return rows.new_zeros((len(number), rows.shape[1]))
    return rows.index_select(0, number.clamp(min=0)).masked_fill_((number < 0)[:, None], 0)


def sparse_tensor(
    coordinates: Tensor,
    features: Tensor,
    *,
    stride: int | Sequence[int] = 1,
    place: Place | None = None,
) -> SparseTensor:
    """Create a sparse tensor of voxels in any order.

    Parameters
    ----------
    coordinates : Tensor (n, 4)
        Rows (sample, x, y, z) of an integer dtype, in strides from the origin of the sample.
    features : Tensor (n, channels)
        Of a floating dtype.
    stride : int or sequence of int
        Edge of a cell in voxels, one number or one for each axis.
    place : Place, optional
        Where the samples lie; by default at the origin of a lattice without CRS.

    Raises
    ------
    SparseError
        If shapes or devices do not match, or as in `make_sites`.
    """
    _check_rows(coordinates, features)
    sites, order = make_sites(coordinates, stride=stride, place=place)
    return SparseTensor(sites, features[order])


def from_dense(
    dense: Tensor,
    active: Tensor,
    *,
    low: Sequence[int] = (0, 0, 0),
    place: Place | None = None,
    stride: int | Sequence[int] = 1,
) -> SparseTensor:
    """Create a sparse tensor of the active voxels of a dense tensor.

    Parameters
    ----------
    dense : Tensor (batch, channels, x, y, z)
        Features.
    active : Tensor (batch, x, y, z) bool
        Which voxels are active.
    low : sequence of int
        Coordinates (x, y, z) of the first voxel.
    place : Place, optional
        Where the samples lie; by default at the origin of a lattice without CRS.
    stride : int or sequence of int
        Edge of a cell in voxels.

    Raises
    ------
    SparseError
        If the shapes do not match.
    """
    if dense.ndim != 5 or active.shape != (dense.shape[0], *dense.shape[2:]):
        raise SparseError(
            f"dense tensor {tuple(dense.shape)} and mask {tuple(active.shape)} do not match",
            "give (batch, channels, x, y, z) and (batch, x, y, z)",
        )
    _check_corners(low)
    index = torch.nonzero(active)
    features = dense.permute(0, 2, 3, 4, 1)[tuple(index.unbind(1))]
    coordinates = index + torch.tensor([0, *low], device=index.device)
    return sparse_tensor(
        coordinates, features, stride=stride, place=place or Place(((0, 0, 0),) * dense.shape[0])
    )


def batch(tensors: Sequence[SparseTensor]) -> SparseTensor:
    """Join the samples of several tensors to one batch; CRS, voxel size, stride and channels have
    to be the same, otherwise SparseError."""
    if not tensors:
        raise SparseError("a batch needs at least one sparse tensor", "give one or more")
    first = tensors[0]
    coordinates, number = [], 0
    for one in tensors:
        if (one.place.crs, one.place.voxel_size, one.stride) != (
            first.place.crs,
            first.place.voxel_size,
            first.stride,
        ):
            raise SparseError(
                f"samples lie on lattices of {first.place.crs!r}, {first.place.voxel_size} m, "
                f"stride {first.stride} and {one.place.crs!r}, {one.place.voxel_size} m, "
                f"stride {one.stride}",
                "make one batch for each lattice",
            )
        _same_channels(first, one)
        shifted = one.coordinates.clone()
        shifted[:, 0] += number
        coordinates.append(shifted)
        number += one.batch_size
    origins = tuple(origin for one in tensors for origin in one.place.origins)
    place = Place(origins, first.place.voxel_size, first.place.crs)
    sites = Sites(torch.cat(coordinates), first.stride, place)
    return SparseTensor(sites, torch.cat([one.features for one in tensors]))


def union(a: SparseTensor, b: SparseTensor) -> SparseTensor:
    """The voxels of both tensors, with the sum of the features where both have one."""
    _same_channels(a, b)
    if a.sites is b.sites:
        return a + b
    sites = union_sites([a.sites, b.sites])
    return a.at(sites) + b.at(sites)


def merge_duplicates(
    coordinates: Tensor,
    features: Tensor,
    *,
    how: str = "mean",
    stride: int | Sequence[int] = 1,
    place: Place | None = None,
) -> SparseTensor:
    """Create a sparse tensor of rows that may contain a voxel several times, such as points.

    Sums run in the order of the rows, so that results are reproducible, and in float32 for half
    precision.

    Parameters
    ----------
    coordinates : Tensor (n, 4)
        Rows (sample, x, y, z) of an integer dtype.
    features : Tensor (n, channels)
        Of a floating dtype.
    how : str
        "mean" or "sum" of the rows of a voxel, or "refuse".
    stride : int or sequence of int
        Edge of a cell in voxels.
    place : Place, optional
        Where the samples lie; by default at the origin of a lattice without CRS.

    Raises
    ------
    SparseError
        If `how` is unknown, or as in `sparse_tensor`.
    """
    if how == "refuse":
        return sparse_tensor(coordinates, features, stride=stride, place=place)
    if how not in ("mean", "sum"):
        raise SparseError(f"unknown merging how={how!r}", "give mean, sum or refuse")
    _check_rows(coordinates, features)
    check_coordinates(coordinates)
    samples = int(coordinates[:, 0].max()) + 1 if len(coordinates) else 1
    where = place or Place(((0, 0, 0),) * samples)
    once = distinct_sites(coordinates, (1, 1, 1), where)
    sites, _ = make_sites(once.coordinates, stride=stride, place=where)
    if not len(sites):
        return SparseTensor(sites, features)
    rows = sites.rows(coordinates)
    # The rows of a voxel in their order: index_add has no fixed order on CUDA.
    order = torch.argsort(rows, stable=True)
    count = torch.bincount(rows, minlength=len(sites))
    wide = features[order].to(torch.promote_types(features.dtype, torch.float32))
    return SparseTensor(sites, torch.segment_reduce(wide, how, lengths=count).to(features.dtype))


def _check_rows(coordinates: Tensor, features: Tensor) -> None:
    if coordinates.device != features.device:
        raise SparseError(
            f"features are on {features.device}, coordinates on {coordinates.device}",
            "move them to one device",
        )
    if coordinates.ndim != 2 or features.ndim != 2 or len(features) != len(coordinates):
        raise SparseError(
            f"coordinates have shape {tuple(coordinates.shape)}, features {tuple(features.shape)}",
            "give (n, 4) and (n, channels)",
        )


def _check_corners(*corners: Sequence[int]) -> None:
    for corner in corners:
        if len(corner) != 3:
            raise SparseError(
                f"corner {tuple(corner)} of a box does not have three axes", "give (x, y, z)"
            )


def _same_channels(a: SparseTensor, b: SparseTensor) -> None:
    if a.channels != b.channels:
        raise SparseError(
            f"sparse tensors have {a.channels} and {b.channels} channels",
            "project one of them first",
        )
    if a.features.device != b.features.device:
        raise SparseError(
            f"sparse tensors are on {a.features.device} and {b.features.device}",
            "move them to one device",
        )
