"""From what a user names as a region to a frame: a box, polygons, or the extent of a raster.

A region without a CRS gets the UTM zone of its centre. (The zones are the regular ones of six
degrees: the exceptions around Norway and Svalbard are a matter of map sheets; name the CRS to have
them.) Whatever is projected is projected with points along its edges, and back again, so that a
region that a CRS cannot hold, or only distorted, is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_io.crs import WGS84, parsed_crs, transformer
from geo_io.errors import RegionError
from geo_io.frame import (
    UNKNOWN_DATUM,
    Bounds,
    Frame,
    horizontal_crs,
    projected_crs,
    short_name,
    snap,
)
from geo_io.frame import vertical_crs as vertical_part
from geo_io.raster.positions import overlaps
from geo_io.raster.source import RasterSource

BAND = (-16.0, 496.0)
"""Depth and height of the voxels around the ground, metres."""

UTM_LATITUDES = (-80.0, 84.0)
"""UTM is defined between these."""

UTM_REACH = 6.0
"""Degrees from its central meridian up to which a UTM zone is used: three beyond its edges."""

AREA_TOLERANCE = 3.0
"""Degrees that a region may stick out of the area of use of a CRS."""

SCALE_TOLERANCE = 0.1
"""How much a metre of a CRS may differ from a metre on the ground: lengths and areas are in
metres."""

EDGE_POINTS = 64
"""Points along each edge of a box that is projected."""

ROUND_TRIP = 1e-6
"""Degrees by which a place may move when it is projected and brought back."""

LonLat = tuple[float, float, float, float]
"""west, south, east, north in degrees; west may be below -180 or east above 180 across the
antimeridian."""


def frame_from_bbox(
    bbox: Sequence[float],
    *,
    bbox_crs: str = "EPSG:4326",
    crs: str | None = None,
    voxel_size: float = 1.0,
    band: tuple[float, float] = BAND,
    vertical_crs: str = UNKNOWN_DATUM,
) -> Frame:
    """The frame of a box.

    Parameters
    ----------
    bbox : west, south, east, north in `bbox_crs`. In longitude and latitude, west > east means
        across the
        antimeridian, if the box is less than half a turn wide that way
    crs : projected CRS in metres; by default the UTM zone of the centre
    voxel_size : metres
    band : lowest and highest height above ground that voxels reach, metres
    vertical_crs : CRS of absolute heights; by default the one of a compound `crs`

    Raises
    ------
    RegionError
        if the box is empty or impossible, or the CRS cannot hold it, or not without distortion
    FrameError
        if the CRS is not projected in metres
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
    """The frame of polygons, and their union in the CRS of the frame.

    Parameters
    ----------
    geometry : a shapely polygon or multipolygon, or an array of them; only polygons count
    geometry_crs : their CRS
    name : how messages call them
    crs, voxel_size, band, vertical_crs : as in `frame_from_bbox`

    Raises
    ------
    RegionError
        if there is no polygon, or the CRS cannot hold them
    """
    parts = shapely.get_parts(np.atleast_1d(np.asarray(geometry, object)))
    parts = parts[np.isin(shapely.get_type_id(parts), (3, 6)) & ~shapely.is_empty(parts)]
    if len(parts) == 0:
        raise RegionError(f"{name} holds no polygons", "give polygons, or a box with --bbox")
    if not np.isfinite(_coordinates(parts)).all():
        raise RegionError(f"{name} has coordinates that are no numbers", "repair the file")
    source = _horizontal(geometry_crs)
    if source.is_geographic:
        _check_degrees(shapely.total_bounds(parts).tolist(), name)
        parts = shapely.transform(
            parts, lambda xy: np.column_stack([unwrapped(xy[:, 0]), xy[:, 1]])
        )
    left, bottom, right, top = shapely.total_bounds(parts)
    union = shapely.union_all(shapely.make_valid(parts))
    union = shapely.segmentize(union, max(right - left, top - bottom) / EDGE_POINTS)
    if union.area == 0:
        raise RegionError(f"{name} has no area", "give polygons with an area, or a box with --bbox")
    frame = _frame(_coordinates(union), geometry_crs, crs, voxel_size, band, vertical_crs, name)
    to_frame = transformer(source, parsed_crs(frame.crs))
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
    """The frame of the extent of a raster; otherwise as `frame_from_bbox`."""
    outline = shapely.Polygon(source.corners)
    left, bottom, right, top = outline.bounds
    ring = shapely.segmentize(outline, max(right - left, top - bottom) / EDGE_POINTS)
    name = f"the extent of {source.name}"
    return _frame(_coordinates(ring), source.crs, crs, voxel_size, band, vertical_crs, name)


def utm_crs(bounds: LonLat) -> str:
    """The UTM zone of the centre of west, south, east, north in degrees: "EPSG:326xx" or
    "EPSG:327xx".

    Raises RegionError where one zone cannot hold the region.
    """
    west, south, east, north = bounds
    if south < UTM_LATITUDES[0] or north > UTM_LATITUDES[1]:
        polar = "EPSG:3413" if north > UTM_LATITUDES[1] else "EPSG:3031"
        raise RegionError(
            f"the region {_numbers(bounds)} lies beyond 84° north or 80° south, where UTM ends",
            f"give a polar CRS, for example --crs {polar}",
        )
    zone = math.floor(((west + east) / 2 + 180) / 6) % 60 + 1
    meridian = zone * 6 - 183
    reach = max(abs(_turned(west - meridian)), abs(_turned(east - meridian)))
    if reach > UTM_REACH or east - west > 2 * UTM_REACH:
        raise RegionError(
            f"the region {_numbers(bounds)} spans several UTM zones",
            "give a projected CRS in metres that holds it with --crs, for example EPSG:3035 in Europe, or a "
            "smaller region",
        )
    return f"EPSG:{326 if (south + north) / 2 >= 0 else 327}{zone:02d}"


def describe(bounds: Bounds, crs: str | pyproj.CRS) -> str:
    """Bounds in any CRS as text for messages: "W,S,E,N = 11.4000,49.9400,11.6400,50.0600
    lon/lat"."""
    return f"W,S,E,N = {','.join(f'{value:.4f}' for value in lonlat_bounds(bounds, crs))} lon/lat"


def lonlat_bounds(bounds: Bounds, crs: str | pyproj.CRS) -> LonLat:
    """west, south, east, north in degrees, edges densified; NaN or infinite where there is no
    such place."""
    parsed = _horizontal(crs)
    west, south, east, north = transformer(parsed, WGS84).transform_bounds(
        *bounds, densify_pts=EDGE_POINTS
    )
    return west, south, east + 360 if east < west else east, north


def swap_hint(
    region: Bounds, region_crs: str | pyproj.CRS, data: Bounds, data_crs: str | pyproj.CRS
) -> str:
    """A sentence to add to a message if the region meets the data once longitude and latitude
    are swapped."""
    west, south, east, north = lonlat_bounds(region, region_crs)
    a, b, c, d = lonlat_bounds(data, data_crs)
    if not np.isfinite([west, south, east, north, a, b, c, d]).all():
        return ""
    meets = south < c and north > a and west < d and east > b
    return (
        "; with longitude and latitude swapped they would overlap: the order is W,S,E,N"
        if meets
        else ""
    )


def no_overlap(source: RasterSource, frame: Frame, what: str) -> RegionError:
    """The error that a raster and a region have no place in common, with both extents."""
    hint = swap_hint(frame.bounds, frame.crs, source.bounds, source.crs)
    return RegionError(
        f"the {what} {source.name} does not meet the region: it covers {describe(source.bounds, source.crs)}, "
        f"the region is {describe(frame.bounds, frame.crs)}{hint}",
        "choose a region inside it, or check the CRS of the file",
    )


def require_overlap(source: RasterSource, frame: Frame, what: str) -> None:
    """Raise the RegionError of `no_overlap` if a raster and a region have no place in common."""
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
    """The frame around points (n, 2) in a CRS."""
    source = _horizontal(points_crs)
    lon, lat = _to_lonlat(points, source, name)
    bounds = (float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max()))
    if crs is None:
        target = utm_crs(bounds)
    else:
        target = projected_crs(crs)
        _check_area(bounds, parsed_crs(target), name)
        if vertical_crs == UNKNOWN_DATUM:
            vertical_crs = vertical_part(pyproj.CRS.from_user_input(crs))
    if source.equals(parsed_crs(target), ignore_axis_order=True):
        x, y = points[:, 0], points[:, 1]
    else:
        x, y = transformer(source, parsed_crs(target)).transform(points[:, 0], points[:, 1])
    _check_round_trip(x, y, lon, lat, target, name)
    _check_scale(lon, lat, parsed_crs(target), name)
    if not (band[0] < band[1] and np.isfinite(band).all()):
        raise RegionError(
            f"the height band {band[0]:g} to {band[1]:g} m is empty", "give the lower first"
        )
    if not (voxel_size > 0 and math.isfinite(voxel_size)):
        raise RegionError(f"voxel size {voxel_size} is not a positive number", "give it in metres")
    return Frame(
        target,
        voxel_size,
        **snap((x.min(), y.min(), x.max(), y.max()), voxel_size),
        z=(math.floor(band[0] / voxel_size), math.ceil(band[1] / voxel_size)),
        vertical_crs=vertical_crs,
    )


def _checked_box(bbox: Sequence[float], bbox_crs: str) -> Bounds:
    """left, bottom, right, top with left < right; across the antimeridian right is above 180."""
    if len(bbox) != 4:
        raise RegionError(
            f"the bbox {_numbers(bbox)} has {len(bbox)} numbers, not 4", "give W,S,E,N"
        )
    west, south, east, north = map(float, bbox)
    if not np.isfinite([west, south, east, north]).all():
        raise RegionError(f"the bbox {_numbers(bbox)} holds what is no number", "give W,S,E,N")
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
                f"the bbox {_numbers(bbox)} is empty: west is east of east",
                "give W,S,E,N; W > E means across the antimeridian, if the box is under 180° wide there",
            )
        east += 360
    return west, south, east, north


def _check_degrees(bounds: Sequence[float], name: str) -> None:
    west, south, east, north = bounds
    if max(abs(south), abs(north)) > 90:
        swapped = max(abs(west), abs(east)) <= 90
        guess = f": {_numbers((south, west, north, east))}" if swapped else ", in degrees"
        raise RegionError(
            f"{name} has a latitude beyond 90°{': longitude and latitude seem swapped' if swapped else ''}",
            f"the order is W,S,E,N, longitude before latitude{guess}",
        )
    if max(abs(west), abs(east)) > 360 or east - west > 360:
        raise RegionError(
            f"{name} has a longitude beyond 360°", "give degrees, or name the CRS of the numbers"
        )


def _to_lonlat(points: NDArray, source: pyproj.CRS, name: str) -> tuple[NDArray, NDArray]:
    """Longitudes without a jump at the antimeridian, and latitudes, of points in a CRS."""
    lon, lat = transformer(source, WGS84).transform(points[:, 0], points[:, 1])
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        raise RegionError(
            f"{name} lies where its CRS {short_name(source)} is not defined",
            "check the numbers and the CRS",
        )
    return unwrapped(lon), lat


def unwrapped(lon: NDArray) -> NDArray:
    """Longitudes moved by whole turns so that they span less than half a turn, if they can."""
    if lon.max() - lon.min() <= 180:
        return lon
    east = np.where(lon < 0, lon + 360, lon)
    return east if east.max() - east.min() < 180 else lon


def _check_area(bounds: LonLat, crs: pyproj.CRS, name: str) -> None:
    """Refuse a region that lies outside a CRS's area of use by more than `AREA_TOLERANCE`."""
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
            f"{name} ({_numbers(bounds)} lon/lat) lies outside {short_name(crs)}, which is made for "
            f"{_numbers((a, b, area.east, d))}",
            "choose another --crs, or leave it away to get the UTM zone of the place",
        )


def _check_round_trip(
    x: NDArray, y: NDArray, lon: NDArray, lat: NDArray, crs: str, name: str
) -> None:
    """Refuse a projection that loses places: far from where it is made for, some give finite
    nonsense."""
    if np.isfinite(x).all() and np.isfinite(y).all():
        lon2, lat2 = transformer(parsed_crs(crs), WGS84).transform(x, y)
        moved = np.hypot(_turned_all(lon2 - lon) * np.cos(np.radians(lat)), lat2 - lat)
        if np.isfinite(moved).all() and moved.max() <= ROUND_TRIP:
            return
    raise RegionError(
        f"{name} cannot be projected to {crs}", "choose a CRS that is made for the place"
    )


def _check_scale(lon: NDArray, lat: NDArray, crs: pyproj.CRS, name: str) -> None:
    """Refuse a projection whose metres are not metres on the ground, such as Web Mercator away
    from the equator."""
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
        f"a metre of {short_name(crs)} is {1 / worst:.2f} m on the ground at {name}",
        "choose a --crs that is made for the place, or leave it away to get its UTM zone",
    )


def _turned(degrees: float) -> float:
    return (degrees + 180) % 360 - 180


def _turned_all(degrees: NDArray) -> NDArray:
    return np.asarray((degrees + 180) % 360 - 180)


def _horizontal(crs: str | pyproj.CRS) -> pyproj.CRS:
    try:
        parsed = crs if isinstance(crs, pyproj.CRS) else parsed_crs(crs)
    except pyproj.exceptions.CRSError as error:
        raise RegionError(
            f"CRS {crs!r} is not understood", "give an EPSG code such as EPSG:4326"
        ) from error
    return horizontal_crs(parsed)


def _coordinates(geometry: Any) -> NDArray:
    return np.asarray(shapely.get_coordinates(geometry))


def _numbers(values: Sequence[float]) -> str:
    return ",".join(f"{value:.9g}" for value in values)
