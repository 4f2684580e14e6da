"""Frames of regions: a box, polygons, or the extent of a raster.

Without a CRS, the frame gets the UTM zone of the centre of the region. Zones are the regular ones
of six degrees, without the exceptions around Norway and Svalbard. Regions are projected with points
along their edges, and back, so that a CRS that cannot represent the region, or only with
distortion, is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_io.crs import WGS84, like_degrees, parse_crs, transformer
from geo_io.errors import RegionError
from geo_io.frame import (
    UNKNOWN_DATUM,
    Bounds,
    Frame,
    horizontal_crs,
    projected_crs,
    snap,
    spoken_name,
)
from geo_io.frame import vertical_crs as vertical_part
from geo_io.raster.positions import overlaps
from geo_io.raster.source import RasterSource

BAND = (-16.0, 496.0)
"""Depth and height of the voxels around the ground, metres."""

UTM_LATITUDES = (-80.0, 84.0)
"""Latitudes between which UTM is defined."""

UTM_REACH = 6.0
"""Degrees from the central meridian up to which a UTM zone is used: three beyond its edges."""

AREA_TOLERANCE = 3.0
"""Degrees by which a region may extend beyond the area of use of a CRS."""

SCALE_TOLERANCE = 0.1
"""Largest relative difference between a metre of a CRS and a metre on the ground."""

EDGE_POINTS = 64
"""Points along each edge of a box that is projected."""

ROUND_TRIP = 1e-6
"""Degrees by which a place may move when it is projected forth and back."""

LonLat = tuple[float, float, float, float]
"""West, south, east, north in degrees. Across the antimeridian west is below -180 or east above
180."""


def frame_from_bbox(
    bbox: Sequence[float],
    *,
    bbox_crs: str = "EPSG:4326",
    crs: str | None = None,
    voxel_size: float = 1.0,
    band: tuple[float, float] = BAND,
    vertical_crs: str = UNKNOWN_DATUM,
) -> Frame:
    """Make the frame of a box.

    Parameters
    ----------
    bbox : sequence of 4 float
        West, south, east, north in `bbox_crs`. For degrees, west > east is a box across the
        antimeridian, which must be less than half a turn wide.
    bbox_crs : str
        CRS of the numbers.
    crs : str, optional
        Projected CRS in metres; by default the UTM zone of the centre.
    voxel_size : float
        Metres.
    band : (float, float)
        Lowest and highest height of voxels above ground, metres.
    vertical_crs : str
        CRS of absolute heights; by default that of a compound `crs`.

    Raises
    ------
    RegionError
        If the box is empty or impossible, or the CRS cannot represent it without distortion.
    FrameError
        If the CRS is not projected in metres.
    """
    box = _checked_box(bbox, bbox_crs)
    ring = shapely.segmentize(
        shapely.box(*box), max(box[2] - box[0], box[3] - box[1]) / EDGE_POINTS
    )
    return _frame(
        _coordinates(ring),
        bbox_crs,
        crs,
        voxel_size,
        band,
        vertical_crs,
        f"the bbox {_numbers(bbox)}",
    )


def frame_from_polygons(
    geometry: Any,
    geometry_crs: str,
    *,
    crs: str | None = None,
    voxel_size: float = 1.0,
    band: tuple[float, float] = BAND,
    vertical_crs: str = UNKNOWN_DATUM,
    name: str = "the region",
) -> tuple[Frame, shapely.Geometry]:
    """Make the frame of polygons.

    Parameters
    ----------
    geometry : shapely geometry or array of them
        Polygons and multipolygons; other geometries are ignored.
    geometry_crs : str
        Their CRS.
    crs, voxel_size, band, vertical_crs
        As in `frame_from_bbox`.
    name : str
        Name of the region in messages.

    Returns
    -------
    frame : Frame
        The frame around the polygons.
    polygons : shapely geometry
        Their union in the CRS of the frame.

    Raises
    ------
    RegionError
        If there is no polygon, or the CRS cannot represent them without distortion.
    FrameError
        If the CRS is not projected in metres.
    """
    parts = shapely.get_parts(np.atleast_1d(np.asarray(geometry, object)))
    parts = parts[np.isin(shapely.get_type_id(parts), (3, 6)) & ~shapely.is_empty(parts)]
    if len(parts) == 0:
        raise RegionError(f"{name} has no polygons", "give polygons, or a box as `bbox`")
    if not np.isfinite(_coordinates(parts)).all():
        raise RegionError(f"{name} has coordinates that are not finite", "repair the file")
    source = _horizontal(geometry_crs)
    if source.is_geographic:
        _check_degrees(shapely.total_bounds(parts).tolist(), name)
        parts = shapely.transform(
            parts, lambda xy: np.column_stack([unwrap_longitudes(xy[:, 0]), xy[:, 1]])
        )
    left, bottom, right, top = shapely.total_bounds(parts)
    union = shapely.union_all(shapely.make_valid(parts))
    union = shapely.segmentize(union, max(right - left, top - bottom) / EDGE_POINTS)
    if union.area == 0:
        raise RegionError(f"{name} has no area", "give polygons with an area, or a box as `bbox`")
    frame = _frame(_coordinates(union), geometry_crs, crs, voxel_size, band, vertical_crs, name)
    to_frame = transformer(source, parse_crs(frame.crs))
    projected = shapely.transform(
        union, lambda xy: np.column_stack(to_frame.transform(xy[:, 0], xy[:, 1]))
    )
    return frame, shapely.make_valid(projected)


def frame_from_raster(
    source: RasterSource,
    *,
    crs: str | None = None,
    voxel_size: float = 1.0,
    band: tuple[float, float] = BAND,
    vertical_crs: str = UNKNOWN_DATUM,
) -> Frame:
    """Make the frame of the extent of a raster; options and errors as in `frame_from_bbox`."""
    outline = shapely.Polygon(source.corners)
    left, bottom, right, top = outline.bounds
    ring = shapely.segmentize(outline, max(right - left, top - bottom) / EDGE_POINTS)
    name = f"the extent of {source.name}"
    return _frame(_coordinates(ring), source.crs, crs, voxel_size, band, vertical_crs, name)


def utm_crs(bounds: LonLat) -> str:
    """Return the UTM zone of the centre of a region: "EPSG:326xx" or "EPSG:327xx".

    Parameters
    ----------
    bounds : (float, float, float, float)
        West, south, east, north in degrees.

    Raises
    ------
    RegionError
        If one zone cannot cover the region.
    """
    west, south, east, north = bounds
    if not all(map(math.isfinite, bounds)):
        raise RegionError(
            f"the region {_numbers(bounds)} is nowhere on Earth", "check its coordinates and CRS"
        )
    if south < UTM_LATITUDES[0] or north > UTM_LATITUDES[1]:
        polar = "EPSG:3413" if north > UTM_LATITUDES[1] else "EPSG:3031"
        raise RegionError(
            f"the region {_numbers(bounds)} lies beyond 84° north or 80° south, where UTM ends",
            f"give a polar CRS as `crs`, for example {polar}",
        )
    zone = math.floor(((west + east) / 2 + 180) / 6) % 60 + 1
    meridian = zone * 6 - 183
    reach = max(abs(_turned(west - meridian)), abs(_turned(east - meridian)))
    if reach > UTM_REACH or east - west > 2 * UTM_REACH:
        raise RegionError(
            f"the region {_numbers(bounds)} spans several UTM zones",
            "give a projected CRS in metres for all of it as `crs`, such as EPSG:3035 in "
            "Europe, or a smaller region",
        )
    return f"EPSG:{326 if (south + north) / 2 >= 0 else 327}{zone:02d}"


def describe(bounds: Bounds, crs: str | pyproj.CRS) -> str:
    """Return bounds as text for messages: "W,S,E,N = 11.4000,49.9400,11.6400,50.0600 lon/lat"."""
    return f"W,S,E,N = {','.join(f'{value:.4f}' for value in lonlat_bounds(bounds, crs))} lon/lat"


def lonlat_bounds(bounds: Bounds, crs: str | pyproj.CRS) -> LonLat:
    """Transform bounds to west, south, east, north in degrees, with points along their edges.

    The result is NaN or infinite where the CRS is not defined.
    """
    parsed = _horizontal(crs)
    west, south, east, north = transformer(parsed, WGS84).transform_bounds(
        *bounds, densify_pts=EDGE_POINTS
    )
    return west, south, east + 360 if east < west else east, north


def swap_hint(
    region: Bounds, region_crs: str | pyproj.CRS, data: Bounds, data_crs: str | pyproj.CRS
) -> str:
    """Return a hint for messages on why a region and data do not overlap; "" without one.

    They would with longitude and latitude swapped, or if the numbers of the data were in degrees,
    or in the CRS of the region.
    """
    west, south, east, north = lonlat_bounds(region, region_crs)
    a, b, c, d = lonlat_bounds(data, data_crs)
    if not np.isfinite([west, south, east, north]).all():
        return ""
    if south < c and north > a and west < d and east > b:
        return "; with longitude and latitude swapped they would overlap: the order is W,S,E,N"
    name = spoken_name(_horizontal(data_crs))
    left, bottom, right, top = data
    if not _horizontal(data_crs).is_geographic and like_degrees(data):
        if west < right and east > left and south < top and north > bottom:
            return (
                f"; its numbers would, as longitude and latitude: its CRS record, {name}, is wrong"
            )
        if west < top and east > bottom and south < right and north > left:
            return (
                f"; its numbers would, as latitude and longitude: its CRS record, {name}, is wrong"
            )
    meets = region[0] < right and region[2] > left and region[1] < top and region[3] > bottom
    if meets:
        return (
            f"; its numbers would, in {spoken_name(_horizontal(region_crs))}: its CRS record, "
            f"{name}, may be wrong"
        )
    return ""


def no_overlap(source: RasterSource, frame: Frame, what: str) -> RegionError:
    """Return the error that a raster and a region do not overlap, with both extents."""
    hint = swap_hint(frame.bounds, frame.crs, source.bounds, source.crs)
    return RegionError(
        f"the {what} {source.name} does not overlap the region: it covers "
        f"{describe(source.bounds, source.crs)}, the region is "
        f"{describe(frame.bounds, frame.crs)}{hint}",
        "choose a region inside it, or check the CRS of the file",
    )


def require_overlap(source: RasterSource, frame: Frame, what: str) -> None:
    """Raise the RegionError of `no_overlap` if a raster and a region do not overlap."""
    if not overlaps(source, frame):
        raise no_overlap(source, frame, what)


def _frame(
    points: NDArray,
    points_crs: str | pyproj.CRS,
    crs: str | None,
    voxel_size: float,
    band: tuple[float, float],
    vertical_crs: str,
    name: str,
) -> Frame:
    """Make the frame around points (n, 2) in a CRS."""
    source = _horizontal(points_crs)
    lon, lat = _to_lonlat(points, source, name)
    bounds = (float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max()))
    if crs is None:
        target = utm_crs(bounds)
    else:
        target = projected_crs(crs)
        _check_area(bounds, parse_crs(target), name)
        if vertical_crs == UNKNOWN_DATUM:
            vertical_crs = vertical_part(pyproj.CRS.from_user_input(crs))
    if source.equals(parse_crs(target), ignore_axis_order=True):
        x, y = points[:, 0], points[:, 1]
    else:
        x, y = transformer(source, parse_crs(target)).transform(points[:, 0], points[:, 1])
    _check_round_trip(x, y, lon, lat, target, name)
    _check_scale(lon, lat, parse_crs(target), name)
    if not (band[0] < band[1] and np.isfinite(band).all()):
        raise RegionError(
            f"the height `band` from {band[0]:g} to {band[1]:g} m is empty",
            "give the lower height first",
        )
    if not (voxel_size > 0 and math.isfinite(voxel_size)):
        raise RegionError(
            f"the voxel size {voxel_size} is not a positive number", "give it in metres"
        )
    return Frame(
        target,
        voxel_size,
        **snap((x.min(), y.min(), x.max(), y.max()), voxel_size),
        z=(math.floor(band[0] / voxel_size), math.ceil(band[1] / voxel_size)),
        vertical_crs=vertical_crs,
    )


def _checked_box(bbox: Sequence[float], bbox_crs: str) -> Bounds:
    """Return left, bottom, right, top with left < right; right > 180 across the antimeridian."""
    if len(bbox) != 4:
        raise RegionError(
            f"the bbox {_numbers(bbox)} has {len(bbox)} numbers, not 4", "give W,S,E,N"
        )
    west, south, east, north = map(float, bbox)
    if not np.isfinite([west, south, east, north]).all():
        raise RegionError(
            f"the bbox {_numbers(bbox)} has values that are not finite numbers", "give W,S,E,N"
        )
    geographic = _horizontal(bbox_crs).is_geographic
    if geographic:
        _check_degrees((west, south, east, north), f"the bbox {_numbers(bbox)}")
    if south >= north:
        raise RegionError(
            f"the bbox {_numbers(bbox)} is empty: south is not below north", "give W,S,E,N"
        )
    if west >= east and not geographic:
        raise RegionError(
            f"the bbox {_numbers(bbox)} is empty: west is not below east", "give W,S,E,N"
        )
    if west >= east:
        if west == east or east + 360 - west >= 180:
            raise RegionError(
                f"the bbox {_numbers(bbox)} is empty: west is not below east",
                "give W,S,E,N; W > E is a box across the antimeridian, less than 180° wide",
            )
        east += 360
    return west, south, east, north


def _check_degrees(bounds: Sequence[float], name: str) -> None:
    west, south, east, north = bounds
    if max(abs(south), abs(north)) > 90:
        swapped = max(abs(west), abs(east)) <= 90
        hint = ": longitude and latitude seem swapped" if swapped else ""
        guess = f": {_numbers((south, west, north, east))}" if swapped else ", in degrees"
        if max(map(abs, bounds)) > 360:  # metres
            guess += ", or give the CRS of the numbers as `bbox_crs`"
        raise RegionError(
            f"{name} has a latitude beyond 90°{hint}",
            f"the order is W,S,E,N, longitude before latitude{guess}",
        )
    if max(abs(west), abs(east)) > 360 or east - west > 360:
        raise RegionError(
            f"{name} has a longitude beyond 360°", "give degrees, or the CRS of the numbers"
        )


def _to_lonlat(points: NDArray, source: pyproj.CRS, name: str) -> tuple[NDArray, NDArray]:
    """Return longitudes, without a jump at the antimeridian, and latitudes of points."""
    lon, lat = transformer(source, WGS84).transform(points[:, 0], points[:, 1])
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        raise RegionError(
            f"{name} lies where its CRS {spoken_name(source)} is not defined",
            "check the numbers and the CRS",
        )
    return unwrap_longitudes(lon), lat


def unwrap_longitudes(lon: NDArray) -> NDArray:
    """Shift longitudes by whole turns so that they span less than half a turn, if possible."""
    if lon.max() - lon.min() <= 180:
        return lon
    east = np.where(lon < 0, lon + 360, lon)
    return east if east.max() - east.min() < 180 else lon


def _check_area(bounds: LonLat, crs: pyproj.CRS, name: str) -> None:
    """Raise RegionError for a region outside the area of use of a CRS by `AREA_TOLERANCE`."""
    area = crs.area_of_use
    if area is None:
        return
    west, south, east, north = bounds
    a, b, c, d = area.bounds
    c += 360 if c < a else 0
    slack = AREA_TOLERANCE
    fits = c - a >= 360 or any(
        a - slack <= west + t and east + t <= c + slack for t in (-360, 0, 360)
    )
    if not fits or south < b - slack or north > d + slack:
        raise RegionError(
            f"{name} ({_numbers(bounds)} lon/lat) lies outside the area of {spoken_name(crs)}, "
            f"{_numbers((a, b, area.east, d))}",
            "choose another `crs`, or leave it out to use the UTM zone",
        )


def _check_round_trip(
    x: NDArray, y: NDArray, lon: NDArray, lat: NDArray, crs: str, name: str
) -> None:
    """Raise RegionError if projecting forth and back moves places.

    Far from their area of use, some projections return finite but wrong numbers.
    """
    if np.isfinite(x).all() and np.isfinite(y).all():
        lon2, lat2 = transformer(parse_crs(crs), WGS84).transform(x, y)
        moved = np.hypot(_turned_all(lon2 - lon) * np.cos(np.radians(lat)), lat2 - lat)
        if np.isfinite(moved).all() and moved.max() <= ROUND_TRIP:
            return
    raise RegionError(
        f"{name} cannot be projected to {spoken_name(parse_crs(crs))}",
        "choose a CRS whose area of use covers the region",
    )


def _check_scale(lon: NDArray, lat: NDArray, crs: pyproj.CRS, name: str) -> None:
    """Raise RegionError if a metre of the CRS is not a metre on the ground.

    An example is Web Mercator away from the equator. Scales are the axes of Tissot's indicatrix.
    """
    base = crs.geodetic_crs
    if base is not None:
        lon, lat = transformer(WGS84, base).transform(lon, lat)
    factors = pyproj.Proj(crs).get_factors(lon, lat)
    scales = np.concatenate([factors.tissot_semimajor, factors.tissot_semiminor])
    scales = scales[np.isfinite(scales)]
    if scales.size == 0 or np.abs(scales - 1).max() <= SCALE_TOLERANCE:
        return
    worst = scales[np.abs(scales - 1).argmax()]
    raise RegionError(
        f"a metre of {spoken_name(crs)} is {1 / worst:.2f} m on the ground at {name}",
        "choose a `crs` with less distortion there, or leave it out to use the UTM zone",
    )


def _turned(degrees: float) -> float:
    return (degrees + 180) % 360 - 180


def _turned_all(degrees: NDArray) -> NDArray:
    return np.asarray((degrees + 180) % 360 - 180)


def _horizontal(crs: str | pyproj.CRS) -> pyproj.CRS:
    try:
        parsed = crs if isinstance(crs, pyproj.CRS) else parse_crs(crs)
    except pyproj.exceptions.CRSError as error:
        raise RegionError(
            f"CRS {crs!r} is not understood", "give an EPSG code such as EPSG:4326"
        ) from error
    return horizontal_crs(parsed)


def _coordinates(geometry: Any) -> NDArray:
    return np.asarray(shapely.get_coordinates(geometry))


def _numbers(values: Sequence[float]) -> str:
    return ",".join(f"{value:.9g}" for value in values)
