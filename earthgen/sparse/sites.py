"""Sites: which voxels of a batch are active, and where the batch lies.

Coordinates are int32 rows (sample, x, y, z), x east, y north, z up, counted in strides from the
origin of their sample, which is a voxel of the frame's lattice. So the voxel of lattice index
`origin + coordinate * stride` begins a cell of `stride` voxels an edge. Rows are sorted and none is
there twice: what is computed from sites does not depend on the order in which their voxels were
given.
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
    """One number for all axes, or three, as three; SparseError where it is neither or below
    `least`."""
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
    origins : for each sample the lattice index (x, y, z) of its voxel (0, 0, 0)
    voxel_size : edge length of a voxel of stride 1, metres
    crs : the CRS of the lattice, "" for samples that lie nowhere
    """

    origins: tuple[Triple, ...] = ((0, 0, 0),)
    voxel_size: float = 1.0
    crs: str = ""

    @classmethod
    def of(cls, *frames: Frame) -> Place:
        """A sample for each frame, whose voxel (0, 0, 0) is the frame's south-west-bottom corner.

        Raises SparseError for frames of several CRSs or voxel sizes.
        """
        kinds = {(frame.crs, frame.voxel_size) for frame in frames}
        if len(kinds) != 1:
            raise SparseError(
                f"samples of a batch lie on several lattices: {sorted(kinds)}", "batch those of one"
            )
        first = frames[0]
        return cls(
            tuple((frame.x[0], frame.y[0], frame.z[0]) for frame in frames),
            first.voxel_size,
            first.crs,
        )

    def check_same(self, other: Place) -> None:
        """Raise SparseError where two batches do not lie in the same place."""
        if self != other:
            raise SparseError(
                f"sparse tensors lie in different places: {self} and {other}",
                "crop or batch them alike first",
            )


@dataclass(frozen=True, eq=False)
class Sites:
    """Active voxels. Make them with `make_sites`, which checks and sorts; the same object means the
    same voxels.

    Attributes
    ----------
    coordinates : (n, 4) int32, rows (sample, x, y, z), sorted, none twice
    stride : edge lengths of a cell in voxels, by axis
    place : where the samples lie; its number of origins is the batch size
    """

    coordinates: Tensor
    stride: Triple = (1, 1, 1)
    place: Place = field(default_factory=Place)
    _cache: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return self.coordinates.shape[0]

    def __reduce__(self) -> tuple[type[Sites], tuple[Tensor, Triple, Place]]:
        return Sites, (
            self.coordinates,
            self.stride,
            self.place,
        )  # copies begin with nothing cached

    @property
    def batch_size(self) -> int:
        return len(self.place.origins)

    @property
    def device(self) -> torch.device:
        return self.coordinates.device

    def cached(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, made once for these sites: kernel maps, windows, coarser sites."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def to(self, device: torch.device | str) -> Sites:
        """The sites on another device, with nothing cached; these where they are there already."""
        if torch.device(device) == self.device:
            return self
        return Sites(self.coordinates.to(device), self.stride, self.place)

    @property
    def box(self) -> tuple[list[int], list[int]]:
        """The lowest and the highest coordinates, by column; of no sites, zeros and minus ones."""

        def make() -> tuple[list[int], list[int]]:
            if not len(self):
                return [0] * 4, [-1] * 4
            low, high = torch.aminmax(self.coordinates, dim=0)
            return low.tolist(), high.tolist()

        return self.cached("box", make)

    @property
    def keys(self) -> Tensor:
        """(n,) int64: the rows as numbers of their place in the box, rising.

        Raises SparseError where the box has more than 2^62 cells.
        """
        return self.cached("keys", lambda: _keys(self.coordinates, *self.box))

    def rows(self, coordinates: Tensor) -> Tensor:
        """Which row a voxel has: (m, 4) coordinates of any integer dtype to (m,) int64, -1 where
        it is not active."""
        if coordinates.device != self.device:
            raise SparseError(
                f"coordinates are on {coordinates.device}, sites on {self.device}",
                "bring them to one",
            )
        if not len(self):
            return torch.full((len(coordinates),), -1, dtype=torch.int64, device=coordinates.device)
        low, high = (torch.tensor(bound, device=coordinates.device) for bound in self.box)
        inside = ((coordinates >= low) & (coordinates <= high)).all(1)
        # What lies outside is looked up as the first row, so that its key cannot be taken for
        # another's.
        keys = _keys(torch.where(inside[:, None], coordinates, self.coordinates[:1]), *self.box)
        found = torch.searchsorted(self.keys, keys).clamp_(max=len(self) - 1)
        return torch.where(inside & (self.keys[found] == keys), found, -1)

    @property
    def bounds(self) -> list[int]:
        """Where each sample's rows begin, and the last ones end: batch size + 1 row numbers."""

        def make() -> list[int]:
            samples = torch.arange(self.batch_size + 1, dtype=torch.int32, device=self.device)
            return torch.searchsorted(self.coordinates[:, 0].contiguous(), samples).tolist()

        return self.cached("bounds", make)

    def lattice(self) -> Tensor:
        """(n, 3) int64: lattice indices of the first voxels of the cells."""
        origins = torch.tensor(self.place.origins, dtype=torch.int64, device=self.device).reshape(
            -1, 3
        )
        stride = torch.tensor(self.stride, device=self.device)
        return origins[self.coordinates[:, 0].long()] + self.coordinates[:, 1:].long() * stride

    def centres(self) -> Tensor:
        """(n, 3) float64: centres of the cells, metres; x and y in the CRS, z above the ground."""
        half = torch.tensor(self.stride, dtype=torch.float64, device=self.device) / 2
        return (self.lattice().double() + half) * self.place.voxel_size

    def check_same(self, other: Sites) -> None:
        """Raise SparseError where these are other voxels, or lie elsewhere."""
        if self is other:
            return
        self.place.check_same(other.place)
        if self.stride != other.stride:
            raise SparseError(
                f"sparse tensors have strides {self.stride} and {other.stride}",
                "bring them to one stride first",
            )
        if len(self) != len(other) or not torch.equal(self.coordinates, other.coordinates):
            raise SparseError(
                f"sparse tensors have other voxels ({len(self):,} and {len(other):,})",
                "use `union`, or prune both to the same sites",
            )

    def select(self, keep: Tensor) -> Sites:
        """The sites where `keep`, (n,) bool, holds."""
        return Sites(self.coordinates[keep], self.stride, self.place)

    def parents(self, factor: int | Sequence[int] = 2) -> Sites:
        """The cells of `factor` times the stride that hold sites. The same call gives the same
        object.

        Raises SparseError where an origin is no multiple of the new stride: the coarser cells would
        then depend on where a crop begins.
        """
        by = triple(factor, "factor")

        def make() -> Sites:
            stride = tuple(a * b for a, b in zip(self.stride, by, strict=True))
            coordinates = torch.cat(
                [self.coordinates[:, :1], coarsened(self.coordinates[:, 1:], by)], 1
            )
            return distinct(coordinates, _strided(self.place, stride), self.place)

        return self.cached(("parents", by), make)

    def children(self, factor: int | Sequence[int] = 2) -> tuple[Sites, Tensor]:
        """All cells of the stride divided by `factor`, and (children,) int64: which one each is.

        The number is `parent row * children of one + (i * factor_y + j) * factor_z + k`, so it
        indexes rows of a (n * children of one, channels) tensor.

        Raises SparseError where the stride is not divisible; SparseError where int32 would wrap.
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
    """Sites of voxels in any order, and (n,) int64: the given row for each of theirs.

    coordinates : (n, 4) of an integer dtype, rows (sample, x, y, z)
    stride : of the coordinates, in voxels
    place : where the samples lie; by default at the origin of a lattice of no CRS

    Raises
    ------
    SparseError, SparseError
        for anything but (n, 4) integers, or a sample that the place does not have
    SparseError
        where a voxel is named twice
    SparseError
        where coordinates do not fit int32, or the box around them has more than 2^62 cells
    SparseError
        where an origin is no multiple of the stride
    """
    check_coordinates(coordinates)
    if place is None:
        samples = int(coordinates[:, 0].max()) + 1 if len(coordinates) else 1
        place = Place(origins=((0, 0, 0),) * max(samples, 1))
    if len(coordinates):
        low, high = (int(value) for value in torch.aminmax(coordinates[:, 0]))
        if low < 0 or high >= len(place.origins):
            raise SparseError(
                f"samples {low} to {high} are named, the batch has {len(place.origins)}",
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
                f"{len(same):,} of {len(keys):,} voxels are named twice, first {first}",
                "merge them first, for instance with `merged`",
            )
    steps = triple(stride, "stride")
    return Sites(coordinates[order].int().contiguous(), _strided(place, steps), place), order


def distinct(coordinates: Tensor, stride: Triple, place: Place) -> Sites:
    """Sites of voxels that may be named many times; `coordinates` (n, 4) of an integer dtype,
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


def coarsened(xyz: Tensor, by: Triple) -> Tensor:
    """Integer coordinates divided and rounded down, for negative ones too."""
    return xyz.div(torch.tensor(by, dtype=xyz.dtype, device=xyz.device), rounding_mode="floor")


def joined(sites: Iterable[Sites]) -> Sites:
    """The voxels of any of several sites, which must lie in one place and have one stride."""
    several = list(sites)
    first = several[0]
    for other in several[1:]:
        first.place.check_same(other.place)
        if first.stride != other.stride:
            raise SparseError(
                f"sites have strides {first.stride} and {other.stride}", "bring them to one first"
            )
    return distinct(torch.cat([one.coordinates for one in several]), first.stride, first.place)


def check_coordinates(coordinates: Tensor) -> None:
    """Raise SparseError, SparseError or SparseError where these are not (n, 4) integers within
    int32."""
    if coordinates.dtype not in (torch.int8, torch.int16, torch.int32, torch.int64):
        raise SparseError(f"coordinates are {coordinates.dtype}", "give int32 voxel indices")
    if coordinates.ndim != 2 or coordinates.shape[1] != 4:
        raise SparseError(
            f"coordinates have shape {tuple(coordinates.shape)}",
            "give (n, 4) rows (sample, x, y, z)",
        )
    check_range(coordinates)


def check_range(coordinates: Tensor) -> None:
    """Raise SparseError where integer coordinates do not fit int32."""
    if coordinates.dtype == torch.int64 and coordinates.numel():
        low, high = (int(value) for value in torch.aminmax(coordinates))
        if low < LOW or high > HIGH:
            raise SparseError(
                f"coordinates from {low:,} to {high:,} do not fit 32 bits",
                "count them from an origin that is nearer",
            )


def _strided(place: Place, stride: Sequence[int]) -> Triple:
    for origin in place.origins:
        if any(a % b for a, b in zip(origin, stride, strict=True)):
            raise SparseError(
                f"origin {origin} is no multiple of stride {tuple(stride)}: cells would depend on where a crop begins",
                "begin crops at multiples of the coarsest stride",
            )
    return stride[0], stride[1], stride[2]


def _box(coordinates: Tensor) -> tuple[list[int], list[int]]:
    if not len(coordinates):
        return [0] * 4, [-1] * 4
    low, high = torch.aminmax(coordinates, dim=0)
    return low.tolist(), high.tolist()


def _keys(coordinates: Tensor, low: list[int], high: list[int]) -> Tensor:
    """(n,) int64: row-major numbers of coordinates in the box [low, high]."""
    cells = 1
    for a, b in zip(low, high, strict=True):
        cells *= max(b - a + 1, 1)
    if cells > 2**62:
        size = " x ".join(f"{b - a + 1:,}" for a, b in zip(low, high, strict=True))
        raise SparseError(
            f"voxels lie in a box of {size} cells (samples, x, y, z), more than 64-bit keys can number",
            "crop, or count from an origin in each sample",
        )
    keys = coordinates[:, 0].long() - low[0]
    for axis in (1, 2, 3):
        keys.mul_(high[axis] - low[axis] + 1).add_(coordinates[:, axis]).sub_(low[axis])
    return keys
