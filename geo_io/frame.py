"""The frame: the one immutable value that says where an array is.

A frame is a box of voxels on a lattice that is anchored at the origin of a projected CRS. Two
frames with the same CRS and voxel size therefore share one lattice, whatever was asked for. The
horizontal part converts to odc-geo's GeoBox. Heights are kept relative to the ground: voxel z = 0
stands on the ground surface.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyproj
from affine import Affine

from geo_io.errors import FrameError

Range = tuple[int, int]
"""Half-open range of lattice indices."""

Bounds = tuple[float, float, float, float]
"""left, bottom, right, top in the units of a CRS."""

INDEX_LIMIT = 2**31 - 1
"""Lattice indices are stored as int32."""

UNKNOWN_DATUM = "unknown"
"""The vertical CRS of heights whose source does not say."""


@dataclass(frozen=True)
class Frame:
    """Where an array is: CRS, voxel size, and ranges of lattice indices.

    Voxel (i, j, k) covers [i, i + 1) x [j, j + 1) x [k, k + 1) times `voxel_size` metres, east,
    north and up; i and j count from the CRS origin, k from the ground surface. Arrays on a frame
    have shape (ny, nx), the first row being the northernmost.

    Attributes
    ----------
    crs : the CRS as an authority code ("EPSG:32632") or WKT; projected, in metres
    voxel_size : edge length of a voxel, metres
    x, y, z : half-open int ranges east, north, up
    vertical_crs : the CRS of absolute heights, or "unknown"

    Raises
    ------
    FrameError
        if the CRS is not projected in metres, a range is empty or does not fit int32
    """

    crs: str
    voxel_size: float
    x: Range
    y: Range
    z: Range = (-16, 496)
    vertical_crs: str = UNKNOWN_DATUM

    def __post_init__(self) -> None:
        if not (self.voxel_size > 0 and math.isfinite(self.voxel_size)):
            raise FrameError(
                f"voxel size {self.voxel_size} is not a positive number", "give it in metres"
            )
        for axis in ("x", "y", "z"):
            low, high = getattr(self, axis)
            if low >= high:
                raise FrameError(
                    f"the {axis} range [{low}, {high}) of the frame is empty",
                    "give a larger region",
                )
            if not (low >= -INDEX_LIMIT and high <= INDEX_LIMIT):
                raise FrameError(
                    f"the {axis} range [{low}, {high}) does not fit 32-bit indices",
                    "use larger voxels",
                )

    @property
    def nx(self) -> int:
        return self.x[1] - self.x[0]

    @property
    def ny(self) -> int:
        return self.y[1] - self.y[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx), rows from north to south."""
        return self.ny, self.nx

    @property
    def bounds(self) -> Bounds:
        """left, bottom, right, top in metres of the CRS (float64)."""
        s = self.voxel_size
        return self.x[0] * s, self.y[0] * s, self.x[1] * s, self.y[1] * s

    @property
    def anchor(self) -> tuple[float, float, float]:
        """The float64 point that float32 positions of this frame are relative to: south-west
        corner, height 0."""
        return self.x[0] * self.voxel_size, self.y[0] * self.voxel_size, 0.0

    @property
    def transform(self) -> Affine:
        """From (column, row) to CRS metres, north up."""
        s = self.voxel_size
        return Affine(s, 0.0, self.x[0] * s, 0.0, -s, self.y[1] * s)

    @property
    def area_km2(self) -> float:
        return self.nx * self.ny * self.voxel_size**2 / 1e6

    @property
    def geobox(self) -> Any:
        """The horizontal part as an `odc.geo.geobox.GeoBox`."""
        from odc.geo.geobox import GeoBox

        return GeoBox(self.shape, self.transform, self.crs)

    def pad(self, voxels: int) -> Frame:
        """This frame with `voxels` more on each of the four sides."""
        return replace(
            self,
            x=(self.x[0] - voxels, self.x[1] + voxels),
            y=(self.y[0] - voxels, self.y[1] + voxels),
        )

    def intersection(self, other: Frame) -> Frame | None:
        """The frame of what both cover, None where that is nothing."""
        self.require_lattice(other)
        x = (max(self.x[0], other.x[0]), min(self.x[1], other.x[1]))
        y = (max(self.y[0], other.y[0]), min(self.y[1], other.y[1]))
        return replace(self, x=x, y=y) if x[0] < x[1] and y[0] < y[1] else None

    def crop(self, bounds: Bounds) -> Frame | None:
        """The part of this frame whose voxels meet `bounds` (CRS metres), None where there is
        none."""
        ranges = snap(bounds, self.voxel_size)
        return self.intersection(replace(self, x=ranges["x"], y=ranges["y"]))

    def tiles(self, size: int) -> Iterator[tuple[int, int]]:
        """(tx, ty) of the tiles of `size` voxels that this frame meets, row by row from the
        south-west.

        The tile lattice starts at the CRS origin, not at this frame.
        """
        for ty in range(self.y[0] // size, -(-self.y[1] // size)):
            for tx in range(self.x[0] // size, -(-self.x[1] // size)):
                yield tx, ty

    def tile(self, tx: int, ty: int, size: int) -> Frame:
        """The whole frame of one tile of the lattice, not cropped to this frame."""
        return replace(self, x=(tx * size, (tx + 1) * size), y=(ty * size, (ty + 1) * size))

    def slices(self, inner: Frame) -> tuple[slice, slice]:
        """(row slice, column slice) of `inner` in an array on this frame."""
        self.require_lattice(inner)
        if not (
            self.x[0] <= inner.x[0]
            and inner.x[1] <= self.x[1]
            and self.y[0] <= inner.y[0]
            and inner.y[1] <= self.y[1]
        ):
            raise FrameError(f"{inner} does not lie inside {self}", "pad the outer frame")
        return (
            slice(self.y[1] - inner.y[1], self.y[1] - inner.y[0]),
            slice(inner.x[0] - self.x[0], inner.x[1] - self.x[0]),
        )

    def coarsen(self, factor: int) -> Frame:
        """The frame of voxels `factor` times as large that covers this one."""
        x, y, z = ((low // factor, -(-high // factor)) for low, high in (self.x, self.y, self.z))
        return replace(self, voxel_size=self.voxel_size * factor, x=x, y=y, z=z)

    def require_lattice(self, other: Frame) -> None:
        """Raise FrameError unless both frames share CRS and voxel size. The one place that
        checks it."""
        if self.crs != other.crs or self.voxel_size != other.voxel_size:
            raise FrameError(
                f"frames do not share a lattice: {self} and {other}", "resample one of them first"
            )

    def to_dict(self) -> dict[str, Any]:
        return {
            "crs": self.crs,
            "voxel_size": self.voxel_size,
            "x": list(self.x),
            "y": list(self.y),
            "z": list(self.z),
            "vertical_crs": self.vertical_crs,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Frame:
        return cls(
            crs=values["crs"],
            voxel_size=values["voxel_size"],
            x=tuple(values["x"]),
            y=tuple(values["y"]),
            z=tuple(values["z"]),
            vertical_crs=values["vertical_crs"],
        )

    def __str__(self) -> str:
        return f"Frame({self.crs}, {self.voxel_size:g} m, x {self.x}, y {self.y})"


def snap(bounds: Bounds, voxel_size: float, tolerance: float = 1e-6) -> dict[str, Range]:
    """The x and y ranges of the voxels that meet `bounds`: outwards to the lattice.

    `tolerance` is in voxels: an edge that is nearer to a lattice line than this counts as on it.
    """
    left, bottom, right, top = (value / voxel_size for value in bounds)
    return {
        "x": (math.floor(left + tolerance), math.ceil(right - tolerance)),
        "y": (math.floor(bottom + tolerance), math.ceil(top - tolerance)),
    }


def projected_crs(crs: str | pyproj.CRS) -> str:
    """The CRS as the text a Frame carries: its authority code, else WKT.

    Raises
    ------
    FrameError
        if it cannot be understood, is geographic, or is not in metres
    """
    try:
        parsed = pyproj.CRS.from_user_input(crs)
    except pyproj.exceptions.CRSError as error:
        raise FrameError(
            f"CRS {str(crs)!r} is not understood", "give an EPSG code such as EPSG:32632"
        ) from error
    horizontal = horizontal_crs(parsed)
    if horizontal.is_geographic:
        raise FrameError(
            f"{short_name(horizontal)} is geographic: its unit is the degree",
            "give a projected CRS in metres, or leave --crs away to get the UTM zone of the place",
        )
    if not horizontal.is_projected:
        raise FrameError(
            f"{short_name(horizontal)} is not a projected CRS",
            "give an EPSG code such as EPSG:32632",
        )
    units = {axis.unit_conversion_factor for axis in horizontal.axis_info}
    if units != {1.0}:
        raise FrameError(
            f"{short_name(horizontal)} is in {horizontal.axis_info[0].unit_name}, not in metres",
            "give a projected CRS in metres, or leave --crs away to get the UTM zone of the place",
        )
    return short_name(horizontal)


def horizontal_crs(crs: pyproj.CRS) -> pyproj.CRS:
    """The horizontal part of a compound CRS, without a bound transformation."""
    if crs.is_compound:
        crs = crs.sub_crs_list[0]
    if crs.is_bound and crs.source_crs is not None:
        crs = crs.source_crs
    return crs


def vertical_crs(crs: pyproj.CRS) -> str:
    """The vertical part of a compound or 3D CRS as text, "unknown" where there is none."""
    if crs.is_compound:
        return short_name(crs.sub_crs_list[1])
    if len(crs.axis_info) == 3:
        return short_name(crs)
    return UNKNOWN_DATUM


def short_name(crs: pyproj.CRS) -> str:
    """Authority code such as "EPSG:3006" where the CRS has one, else its WKT."""
    authority = crs.to_authority(min_confidence=70)
    return ":".join(authority) if authority else crs.to_wkt()


def extent(bounds: Bounds) -> str:
    """Bounds as they stand in messages."""
    left, bottom, right, top = bounds
    return f"{left:.0f}–{right:.0f} east, {bottom:.0f}–{top:.0f} north"
