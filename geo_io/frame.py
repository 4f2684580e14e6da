"""The frame: an immutable value that says where an array is.

A frame is a box of voxels on a lattice that is anchored at the origin of a projected CRS. Two
frames with the same CRS and voxel size therefore share one lattice. The horizontal part converts
to and from odc-geo's GeoBox. Heights are relative to the ground: voxel z = 0 stands on the ground
surface.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyproj
from affine import Affine

from geo_io.errors import FrameError

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

Range = tuple[int, int]
"""Half-open range of lattice indices."""

Bounds = tuple[float, float, float, float]
"""Left, bottom, right, top in the units of a CRS."""

INDEX_LIMIT = 2**31 - 1
"""Lattice indices are stored as int32."""

UNKNOWN_DATUM = "unknown"
"""The vertical CRS of heights whose source does not name one."""

DEFAULT_HEIGHTS: Range = (-16, 496)
"""Vertical range of voxels of a frame for which none is given."""

TOLERANCE = 1e-6
"""Voxels by which an edge may miss the lattice and still count as on it."""


EAST_NORTH_TWINS = {
    "EPSG:2065": "EPSG:5221",
    "EPSG:5513": "EPSG:5514",
    "EPSG:5515": "EPSG:5516",
    "EPSG:5224": "EPSG:5225",
    "EPSG:8352": "EPSG:8353",
}
"""The same projection with axes that point east and north, by CRS: Krovak's in use."""


@dataclass(frozen=True)
class Frame:
    """The place of an array: CRS, voxel size, and ranges of lattice indices.

    Voxel (i, j, k) covers [i, i + 1) x [j, j + 1) x [k, k + 1) times `voxel_size` metres, east,
    north and up; i and j count from the CRS origin, k from the ground surface. Arrays on a frame
    have shape (ny, nx), the first row being the northernmost.

    Attributes
    ----------
    crs : str
        Authority code ("EPSG:32632") or WKT of a projected CRS in metres (see `projected_crs`).
    voxel_size : float
        Edge length of a voxel, metres.
    x, y, z : (int, int)
        Half-open ranges of lattice indices to the east, to the north and upwards.
    vertical_crs : str
        CRS of absolute heights, or "unknown".

    Raises
    ------
    FrameError
        If the voxel size is not positive, or a range is empty or does not fit int32.
    """

    crs: str
    voxel_size: float
    x: Range
    y: Range
    z: Range = DEFAULT_HEIGHTS
    vertical_crs: str = UNKNOWN_DATUM

    def __post_init__(self) -> None:
        if not (self.voxel_size > 0 and math.isfinite(self.voxel_size)):
            raise FrameError(
                f"the voxel size {self.voxel_size} is not a positive number", "give it in metres"
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
        """Number of voxels from west to east."""
        return self.x[1] - self.x[0]

    @property
    def ny(self) -> int:
        """Number of voxels from south to north."""
        return self.y[1] - self.y[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx), rows from north to south."""
        return self.ny, self.nx

    @property
    def bounds(self) -> Bounds:
        """Left, bottom, right, top in metres of the CRS (float64)."""
        s = self.voxel_size
        return self.x[0] * s, self.y[0] * s, self.x[1] * s, self.y[1] * s

    @property
    def anchor(self) -> tuple[float, float, float]:
        """Origin of the frame's float32 positions: the south-west corner at height 0, float64."""
        return self.x[0] * self.voxel_size, self.y[0] * self.voxel_size, 0.0

    @property
    def transform(self) -> Affine:
        """Affine transform from (column, row) to CRS metres, north up."""
        s = self.voxel_size
        return Affine(s, 0.0, self.x[0] * s, 0.0, -s, self.y[1] * s)

    @property
    def area_km2(self) -> float:
        """Area in square kilometres."""
        return self.nx * self.ny * self.voxel_size**2 / 1e6

    @property
    def geobox(self) -> GeoBox:
        """The horizontal part as an `odc.geo.geobox.GeoBox`; heights are left out."""
        from odc.geo.geobox import GeoBox

        return GeoBox(self.shape, self.transform, self.crs)

    @classmethod
    def from_geobox(
        cls,
        geobox: GeoBox,
        *,
        z: Range = DEFAULT_HEIGHTS,
        vertical_crs: str | None = None,
        tolerance: float = TOLERANCE,
    ) -> Frame:
        """Make the frame of a GeoBox.

        A GeoBox without heights gives a frame with the default vertical range, so the round trip
        is `Frame.from_geobox(frame.geobox, z=frame.z, vertical_crs=frame.vertical_crs)`.

        Parameters
        ----------
        geobox : odc.geo.geobox.GeoBox
            North up, with square pixels, in a projected CRS in metres, its edges at multiples of
            the pixel size.
        z : (int, int)
            Half-open range of voxels upwards.
        vertical_crs : str, optional
            CRS of absolute heights; by default the vertical part of a compound CRS, else "unknown".
        tolerance : float
            Largest distance between a pixel's corner and the lattice, in pixels.

        Returns
        -------
        Frame
            Its voxels are the pixels of the GeoBox.

        Raises
        ------
        FrameError
            If the GeoBox has no CRS, or one that is not projected in metres; if it is rotated,
            sheared, flipped or has pixels that are not square; if it does not lie on the lattice;
            if it is empty.
        """
        if geobox.crs is None:
            raise FrameError("the GeoBox has no CRS", "give it a projected CRS in metres")
        crs = projected_crs(geobox.crs.proj)
        a, b, left, d, e, top = geobox.affine[:6]
        slack = tolerance * abs(a) / max(1, *geobox.shape)  # in sum over all pixels: `tolerance`
        if abs(b) > slack or abs(d) > slack:
            raise FrameError(
                f"the GeoBox is rotated or sheared: its transform is {tuple(geobox.affine[:6])}",
                "reproject its data to a GeoBox that is aligned with the axes of its CRS",
            )
        if a <= 0 or e >= 0:
            raise FrameError(
                f"the GeoBox is not north up: its pixels measure {a:g} x {e:g}",
                "flip it, so that columns go east and rows go south",
            )
        if abs(a + e) > slack:
            raise FrameError(
                f"the pixels of the GeoBox are not square: {a:g} x {-e:g} m",
                "resample it to square pixels",
            )
        column, row = left / a, top / a
        west, north = round(column), round(row)
        if max(abs(column - west), abs(row - north)) > tolerance:
            raise FrameError(
                f"the corner of the GeoBox at {left:.9g}, {top:.9g} is not a multiple of its pixel "
                f"size, {a:g} m",
                'make it with GeoBox.from_bbox(..., anchor="edge"), and resample its data',
            )
        ny, nx = geobox.shape
        return cls(
            crs,
            float(a),
            (west, west + nx),
            (north - ny, north),
            z,
            _vertical_part(geobox.crs.proj) if vertical_crs is None else vertical_crs,
        )

    def pad(self, voxels: int) -> Frame:
        """Return this frame with `voxels` more on each of the four sides."""
        return replace(
            self,
            x=(self.x[0] - voxels, self.x[1] + voxels),
            y=(self.y[0] - voxels, self.y[1] + voxels),
        )

    def intersection(self, other: Frame) -> Frame | None:
        """Return the frame that both cover, None if they do not overlap.

        Raises
        ------
        FrameError
            If the frames do not share a lattice.
        """
        self.require_lattice(other)
        x = (max(self.x[0], other.x[0]), min(self.x[1], other.x[1]))
        y = (max(self.y[0], other.y[0]), min(self.y[1], other.y[1]))
        return replace(self, x=x, y=y) if x[0] < x[1] and y[0] < y[1] else None

    def crop(self, bounds: Bounds) -> Frame | None:
        """Return the part whose voxels intersect `bounds` (CRS metres), None if there is none."""
        ranges = snap(bounds, self.voxel_size)
        return self.intersection(replace(self, x=ranges["x"], y=ranges["y"]))

    def tiles(self, size: int) -> Iterator[tuple[int, int]]:
        """Yield (tx, ty) of the tiles that this frame overlaps, row by row from the south-west.

        A tile has `size` voxels along each edge. The tile lattice starts at the CRS origin, not at
        this frame.
        """
        for ty in range(self.y[0] // size, -(-self.y[1] // size)):
            for tx in range(self.x[0] // size, -(-self.x[1] // size)):
                yield tx, ty

    def tile(self, tx: int, ty: int, size: int) -> Frame:
        """Return the whole frame of one tile of the lattice, not cropped to this frame."""
        return replace(self, x=(tx * size, (tx + 1) * size), y=(ty * size, (ty + 1) * size))

    def slices(self, inner: Frame) -> tuple[slice, slice]:
        """Return the row slice and the column slice of `inner` in an array on this frame.

        Raises
        ------
        FrameError
            If the frames do not share a lattice, or `inner` does not lie within this frame.
        """
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
        """Return the frame with voxels `factor` times as large that covers this one."""
        x, y, z = ((low // factor, -(-high // factor)) for low, high in (self.x, self.y, self.z))
        return replace(self, voxel_size=self.voxel_size * factor, x=x, y=y, z=z)

    def require_lattice(self, other: Frame) -> None:
        """Raise FrameError unless both frames have the same CRS and voxel size."""
        if self.crs != other.crs or self.voxel_size != other.voxel_size:
            raise FrameError(
                f"frames do not share a lattice: {self} and {other}", "resample one of them first"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the frame as JSON values."""
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
        """Make a frame from what `to_dict` returned."""
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


def snap(bounds: Bounds, voxel_size: float, tolerance: float = TOLERANCE) -> dict[str, Range]:
    """Return the ranges "x" and "y" of the voxels that intersect `bounds`: outwards to the lattice.

    Parameters
    ----------
    bounds : (float, float, float, float)
        Left, bottom, right, top, metres.
    voxel_size : float
        Metres.
    tolerance : float
        In voxels: an edge that is nearer than this to a line of the lattice counts as on it.
    """
    left, bottom, right, top = (value / voxel_size for value in bounds)
    return {
        "x": (math.floor(left + tolerance), math.ceil(right - tolerance)),
        "y": (math.floor(bottom + tolerance), math.ceil(top - tolerance)),
    }


def projected_crs(crs: str | pyproj.CRS) -> str:
    """Return the horizontal CRS as the text that a Frame carries: authority code, else WKT.

    Raises
    ------
    FrameError
        If the CRS is not understood, is geographic, or is not in metres.
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
            f"{spoken_name(horizontal)} is geographic: its unit is the degree",
            "give a projected CRS in metres as `crs`, or leave it out to use the UTM zone",
        )
    if not horizontal.is_projected:
        raise FrameError(
            f"{spoken_name(horizontal)} is not a projected CRS",
            "give an EPSG code such as EPSG:32632",
        )
    units = {axis.unit_conversion_factor for axis in horizontal.axis_info}
    if units != {1.0}:
        raise FrameError(
            f"{spoken_name(horizontal)} is in {horizontal.axis_info[0].unit_name}, not in metres",
            "give a projected CRS in metres as `crs`, or leave it out to use the UTM zone",
        )
    _require_east_north(horizontal)
    return short_name(horizontal)


def _require_east_north(crs: pyproj.CRS) -> None:
    """Raise FrameError if an axis points west, or south beside one that does not.

    Voxel x is to be east and y north. Both axes of a polar CRS point along meridians, north or
    south.
    """
    directions = [axis.direction.casefold() for axis in crs.axis_info]
    if "west" not in directions and set(directions) not in ({"east", "south"},):
        return
    twin = EAST_NORTH_TWINS.get(short_name(crs))
    other = f"give {twin} as `crs`, or another" if twin else "give a"
    raise FrameError(
        f"the axes of {spoken_name(crs)} point {' and '.join(directions)}, not east and north",
        f"{other} projected CRS whose axes do, or leave it out to use the UTM zone",
    )


def horizontal_crs(crs: pyproj.CRS) -> pyproj.CRS:
    """Return the horizontal part of a compound CRS, without a bound transformation."""
    if crs.is_compound:
        crs = crs.sub_crs_list[0]
    if crs.is_bound and crs.source_crs is not None:
        crs = crs.source_crs
    return crs


def vertical_crs(crs: pyproj.CRS) -> str:
    """Return the vertical part of a compound or 3D CRS as text, "unknown" if it has none."""
    if crs.is_compound:
        return short_name(crs.sub_crs_list[1])
    if len(crs.axis_info) == 3:
        return short_name(crs)
    return UNKNOWN_DATUM


_vertical_part = vertical_crs  # the name of the function where a parameter has the same name


def short_name(crs: pyproj.CRS) -> str:
    """Return the authority code, such as "EPSG:3006", if the CRS has one, else its WKT."""
    authority = crs.to_authority(min_confidence=70)
    return ":".join(authority) if authority else crs.to_wkt()


def spoken_name(crs: pyproj.CRS) -> str:
    """Return a CRS for messages, in few words: its code and name, or its name."""
    authority = crs.to_authority(min_confidence=70)
    if authority:
        return f"{':'.join(authority)} ({crs.name})"
    if crs.name and crs.name.casefold() not in ("unknown", "unnamed"):
        return f"the CRS {crs.name[:60]!r}"
    operation = crs.coordinate_operation
    method = "no projection" if operation is None else operation.method_name
    return f"the CRS without a name ({method})"


def extent(bounds: Bounds) -> str:
    """Return bounds as text for messages."""
    left, bottom, right, top = bounds
    return f"{left:.0f}–{right:.0f} east, {bottom:.0f}–{top:.0f} north"
