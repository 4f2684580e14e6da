"""Sites: which voxels of a batch are active, and where the batch lies.

Coordinates are int32 rows (sample, x, y, z), x east, y north, z up, counted in strides from the
origin of their sample, which is a voxel of the frame's lattice. So a cell has `stride` voxels along
its edge and begins at the voxel with lattice index `origin + coordinate * stride`. Rows are sorted
and unique, so results do not depend on the order in which voxels are given.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from earthgen.errors import SparseError

if TYPE_CHECKING:
    from geo_io.frame import Frame

Triple = tuple[int, int, int]
T = TypeVar("T")

LOW, HIGH = -(2**31), 2**31 - 1


def triple(value: int | Sequence[int], name: str, least: int = 1) -> Triple:
    """Expand one number to all axes, or check three; SparseError if one is below `least`."""
    values = tuple(value) if isinstance(value, Sequence) else (value,) * 3
    if len(values) != 3 or any(not isinstance(one, int) or one < least for one in values):
        raise SparseError(
            f"{name} {value!r} is not one integer or three of at least {least}",
            "give one for each axis",
        )
    return values[0], values[1], values[2]


@dataclass(frozen=True)
class Place:
    """Where the samples of a batch lie.

    Attributes
    ----------
    origins : tuple of (int, int, int)
        For each sample the lattice index (x, y, z) of its voxel (0, 0, 0).
    voxel_size : float
        Edge of a voxel of stride 1, metres.
    crs : str
        CRS of the lattice, "" for none.
    """

    origins: tuple[Triple, ...] = ((0, 0, 0),)
    voxel_size: float = 1.0
    crs: str = ""

    @classmethod
    def of(cls, *frames: Frame) -> Place:
        """Place one sample at each frame: its voxel (0, 0, 0) is the frame's lowest south-west
        voxel.

        Raises
        ------
        SparseError
            If the frames differ in CRS or voxel size.
        """
        kinds = {(frame.crs, frame.voxel_size) for frame in frames}
        if len(kinds) != 1:
            raise SparseError(
                f"samples of a batch lie on several lattices: {sorted(kinds)}",
                "make one batch for each lattice",
            )
        first = frames[0]
        return cls(
            tuple((frame.x[0], frame.y[0], frame.z[0]) for frame in frames),
            first.voxel_size,
            first.crs,
        )

    def check_same(self, other: Place) -> None:
        """Raise SparseError if two batches do not lie in the same place."""
        if self != other:
            raise SparseError(
                f"sparse tensors lie in different places: {self} and {other}",
                "crop or batch them in the same way first",
            )


@dataclass(frozen=True, eq=False)
class Sites:
    """Active voxels. `make_sites` checks and sorts them.

    Results that depend on the sites alone, such as kernel maps, are stored with the object, so
    tensors with the same voxels should share it.

    Attributes
    ----------
    coordinates : Tensor (n, 4) int32
        Rows (sample, x, y, z), sorted and unique.
    stride : tuple of int
        Edge of a cell in voxels, on each axis.
    place : Place
        Where the samples lie; its number of origins is the batch size.
    """

    coordinates: Tensor
    stride: Triple = (1, 1, 1)
    place: Place = field(default_factory=Place)
    _cache: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return self.coordinates.shape[0]

    def __reduce__(self) -> tuple[type[Sites], tuple[Tensor, Triple, Place]]:
        return Sites, (self.coordinates, self.stride, self.place)  # without the cache

    @property
    def batch_size(self) -> int:
        """Number of samples."""
        return len(self.place.origins)

    @property
    def device(self) -> torch.device:
        """Device of the coordinates."""
        return self.coordinates.device

    def cached(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the result of `make`, which is computed once for these sites and key."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def to(self, device: torch.device | str) -> Sites:
        """The sites on another device, with an empty cache; the same object on the same device."""
        if torch.device(device) == self.device:
            return self
        return Sites(self.coordinates.to(device), self.stride, self.place)

    @property
    def box(self) -> tuple[list[int], list[int]]:
        """The lowest and the highest coordinates of each column; without sites, zeros and minus
        ones."""

        def make() -> tuple[list[int], list[int]]:
            if not len(self):
                return [0] * 4, [-1] * 4
            low, high = torch.aminmax(self.coordinates, dim=0)
            return low.tolist(), high.tolist()

        return self.cached("box", make)

    @property
    def keys(self) -> Tensor:
        """(n,) int64 ascending numbers of the voxels in the box; SparseError if the box has more
        than 2^62 cells."""
        return self.cached("keys", lambda: _keys(self.coordinates, *self.box))

    def rows(self, coordinates: Tensor) -> Tensor:
        """Find the rows of voxels.

        Parameters
        ----------
        coordinates : Tensor (m, 4)
            Of any integer dtype.

        Returns
        -------
        Tensor (m,) int64
            Row numbers, -1 where the voxel is not active.
        """
        if coordinates.device != self.device:
            raise SparseError(
                f"coordinates are on {coordinates.device}, sites on {self.device}",
                "move them to one device",
            )
        if not len(self):
            return torch.full((len(coordinates),), -1, dtype=torch.int64, device=coordinates.device)
        low, high = (torch.tensor(bound, device=coordinates.device) for bound in self.box)
        inside = ((coordinates >= low) & (coordinates <= high)).all(1)
        # Voxels outside are replaced by the first row, so that their keys match no other voxel.
        keys = _keys(torch.where(inside[:, None], coordinates, self.coordinates[:1]), *self.box)
        rows = torch.searchsorted(self.keys, keys).clamp_(max=len(self) - 1)
        return torch.where(inside & (self.keys[rows] == keys), rows, -1)

    @property
    def bounds(self) -> list[int]:
        """Row number at which each sample begins, and the number of rows: batch size + 1
        numbers."""

        def make() -> list[int]:
            samples = torch.arange(self.batch_size + 1, dtype=torch.int32, device=self.device)
            return torch.searchsorted(self.coordinates[:, 0].contiguous(), samples).tolist()

        return self.cached("bounds", make)

    def lattice(self) -> Tensor:
        """(n, 3) int64 lattice indices of the first voxel of each cell."""
        origins = torch.tensor(self.place.origins, dtype=torch.int64, device=self.device).reshape(
            -1, 3
        )
        stride = torch.tensor(self.stride, device=self.device)
        return origins[self.coordinates[:, 0].long()] + self.coordinates[:, 1:].long() * stride

    def centres(self) -> Tensor:
        """(n, 3) float64 centres of the cells, metres; x and y in the CRS, z above the ground."""
        half = torch.tensor(self.stride, dtype=torch.float64, device=self.device) / 2
        return (self.lattice().double() + half) * self.place.voxel_size

    def check_same(self, other: Sites) -> None:
        """Raise SparseError if the voxels or their place differ."""
        if self is other:
            return
        self.place.check_same(other.place)
        if self.stride != other.stride:
            raise SparseError(
                f"sparse tensors have strides {self.stride} and {other.stride}",
                "resample one of them first",
            )
        if len(self) != len(other) or not torch.equal(self.coordinates, other.coordinates):
            raise SparseError(
                f"sparse tensors have different voxels ({len(self):,} and {len(other):,})",
                "use `union`, or prune both to the same sites",
            )

    def select(self, keep: Tensor) -> Sites:
        """The sites where `keep`, (n,) bool, is true."""
        return Sites(self.coordinates[keep], self.stride, self.place)

    def parents(self, factor: int | Sequence[int] = 2) -> Sites:
        """The cells of `factor` times the stride that contain sites. Equal calls return the same
        object.

        Raises
        ------
        SparseError
            If an origin is not a multiple of the new stride: the coarser cells would then depend on
            where a crop begins.
        """
        by = triple(factor, "factor")

        def make() -> Sites:
            stride = tuple(a * b for a, b in zip(self.stride, by, strict=True))
            coordinates = torch.cat(
                [self.coordinates[:, :1], coarsen_coordinates(self.coordinates[:, 1:], by)], 1
            )
            return distinct_sites(coordinates, _strided(self.place, stride), self.place)

        return self.cached(("parents", by), make)

    def children(self, factor: int | Sequence[int] = 2) -> tuple[Sites, Tensor]:
        """Divide every cell into its children.

        Parameters
        ----------
        factor : int or sequence of int
            Divisor of the stride, one number or one for each axis.

        Returns
        -------
        Sites
            All n * c children, c = the product of the factors.
        Tensor (n * c,) int64
            Their numbers, `parent row * c + (i * factor_y + j) * factor_z + k`, which index the
            rows of a (n * c, channels) tensor.

        Raises
        ------
        SparseError
            If the stride is not divisible, or coordinates do not fit int32.
        """
        by = triple(factor, "factor")
        if any(a % b for a, b in zip(self.stride, by, strict=True)):
            raise SparseError(
                f"stride {self.stride} is not divisible by {by}", "only coarser cells have children"
            )

        def make() -> tuple[Sites, Tensor]:
            stride = tuple(a // b for a, b in zip(self.stride, by, strict=True))
            steps = torch.cartesian_prod(
                *(torch.arange(n, device=self.device) for n in by)
            ).reshape(-1, 3)
            factors = torch.tensor(by, device=self.device)
            fine = self.coordinates[:, None, 1:].long() * factors + steps
            sample = self.coordinates[:, None, :1].long().expand(-1, len(steps), 1)
            rows = torch.cat([sample, fine], 2).reshape(-1, 4)
            check_range(rows)
            order = torch.argsort(_keys(rows, *_box(rows)))
            return Sites(rows[order].int(), (stride[0], stride[1], stride[2]), self.place), order

        return self.cached(("children", by), make)


def make_sites(
    coordinates: Tensor, *, stride: int | Sequence[int] = 1, place: Place | None = None
) -> tuple[Sites, Tensor]:
    """Check and sort voxels.

    Parameters
    ----------
    coordinates : Tensor (n, 4)
        Rows (sample, x, y, z) of an integer dtype, in any order.
    stride : int or sequence of int
        Edge of a cell in voxels, one number or one for each axis.
    place : Place, optional
        Where the samples lie; by default at the origin of a lattice without CRS.

    Returns
    -------
    Sites
        The voxels.
    Tensor (n,) int64
        For each row of the sites its row in `coordinates`.

    Raises
    ------
    SparseError
        If the coordinates are not (n, 4) integers within int32, a voxel occurs twice, the place
        does not have a sample, an origin is not a multiple of the stride, or the box around the
        voxels has more than 2^62 cells.
    """
    check_coordinates(coordinates)
    if place is None:
        samples = int(coordinates[:, 0].max()) + 1 if len(coordinates) else 1
        place = Place(origins=((0, 0, 0),) * max(samples, 1))
    if len(coordinates):
        low, high = (int(value) for value in torch.aminmax(coordinates[:, 0]))
        if low < 0 or high >= len(place.origins):
            raise SparseError(
                f"samples {low} to {high} are given, the batch has {len(place.origins)}",
                "number the samples from 0, and give an origin for each",
            )
    keys = _keys(coordinates, *_box(coordinates))
    rising = bool((keys[1:] > keys[:-1]).all())
    order = (
        torch.arange(len(keys), device=keys.device) if rising else torch.argsort(keys, stable=True)
    )
    if not rising:
        same = torch.nonzero(keys[order][1:] == keys[order][:-1])
        if len(same):
            first = tuple(coordinates[order[same[0, 0]]].tolist())
            raise SparseError(
                f"{len(same):,} of {len(keys):,} voxels occur twice, the first is {first}",
                "merge them first, for instance with `merge_duplicates`",
            )
    steps = triple(stride, "stride")
    return Sites(coordinates[order].int().contiguous(), _strided(place, steps), place), order


def distinct_sites(coordinates: Tensor, stride: Triple, place: Place) -> Sites:
    """Sites of voxels that may occur several times; `coordinates` (n, 4) of an integer dtype,
    within int32."""
    if not len(coordinates):
        return Sites(coordinates.reshape(0, 4).int(), stride, place)
    low, high = _box(coordinates)
    keys = torch.unique(_keys(coordinates, low, high))
    columns = []
    for a, b in zip(reversed(low), reversed(high), strict=True):
        columns.append(keys % (b - a + 1) + a)
        keys = keys.div(b - a + 1, rounding_mode="floor")
    return Sites(torch.stack(columns[::-1], 1).int(), stride, place)


def coarsen_coordinates(xyz: Tensor, by: Triple) -> Tensor:
    """Divide integer coordinates and round down, also negative ones."""
    return xyz.div(torch.tensor(by, dtype=xyz.dtype, device=xyz.device), rounding_mode="floor")


def union_sites(sites: Iterable[Sites]) -> Sites:
    """The union of sites of one place and one stride."""
    several = list(sites)
    first = several[0]
    for other in several[1:]:
        first.place.check_same(other.place)
        if first.stride != other.stride:
            raise SparseError(
                f"sites have strides {first.stride} and {other.stride}",
                "resample one of them first",
            )
    return distinct_sites(
        torch.cat([one.coordinates for one in several]), first.stride, first.place
    )


def check_coordinates(coordinates: Tensor) -> None:
    """Raise SparseError if coordinates are not (n, 4) integers within int32."""
    if coordinates.dtype not in (torch.int8, torch.int16, torch.int32, torch.int64):
        raise SparseError(f"coordinates are {coordinates.dtype}", "give int32 voxel indices")
    if coordinates.ndim != 2 or coordinates.shape[1] != 4:
        raise SparseError(
            f"coordinates have shape {tuple(coordinates.shape)}",
            "give (n, 4) rows (sample, x, y, z)",
        )
    check_range(coordinates)


def check_range(coordinates: Tensor) -> None:
    """Raise SparseError if integer coordinates do not fit int32."""
    if coordinates.dtype == torch.int64 and coordinates.numel():
        low, high = (int(value) for value in torch.aminmax(coordinates))
        if low < LOW or high > HIGH:
            raise SparseError(
                f"coordinates from {low:,} to {high:,} do not fit 32 bits",
                "count them from a nearer origin",
            )


def _strided(place: Place, stride: Sequence[int]) -> Triple:
    for origin in place.origins:
        if any(a % b for a, b in zip(origin, stride, strict=True)):
            raise SparseError(
                f"origin {origin} is not a multiple of stride {tuple(stride)}: cells would depend "
                "on where a crop begins",
                "begin crops at multiples of the coarsest stride",
            )
    return stride[0], stride[1], stride[2]


def _box(coordinates: Tensor) -> tuple[list[int], list[int]]:
    if not len(coordinates):
        return [0] * 4, [-1] * 4
    low, high = torch.aminmax(coordinates, dim=0)
    return low.tolist(), high.tolist()


def _keys(coordinates: Tensor, low: list[int], high: list[int]) -> Tensor:
    """(n,) int64 row-major numbers of coordinates in the box [low, high]."""
    cells = 1
    for a, b in zip(low, high, strict=True):
        cells *= max(b - a + 1, 1)
    if cells > 2**62:
        size = " x ".join(f"{b - a + 1:,}" for a, b in zip(low, high, strict=True))
        raise SparseError(
            f"voxels lie in a box of {size} cells (samples, x, y, z), too many for 64-bit keys",
            "crop, or count from an origin in each sample",
        )
    keys = coordinates[:, 0].long() - low[0]
    for axis in (1, 2, 3):
        keys.mul_(high[axis] - low[axis] + 1).add_(coordinates[:, axis]).sub_(low[axis])
    return keys
