"""Bounding volumes of 3D Tiles, compared with the place of a scene, and the transformation from
earth-centred coordinates to a projected CRS.

Volumes are those of the 3D Tiles specification 1.1, section "Bounding volumes". The test may keep a
volume that lies just outside the scene, and never drops one that meets it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
from numpy.typing import NDArray

from geo_io.crs import WGS84, transform_bounds, transformer
from geo_io.frame import Bounds

EARTH = "EPSG:4978"
"""WGS 84, earth-centred: the coordinates of 3D Tiles."""

ELLIPSOID = "EPSG:4979"
"""WGS 84 with heights above the ellipsoid."""

LOWEST, HIGHEST = -1000.0, 10_000.0
"""Lowest and highest height above the ellipsoid of anything on the earth's surface, metres."""


def lon_lat_height(points: NDArray) -> NDArray:
    """Convert earth-centred coordinates to longitude, latitude and height.

    Parameters
    ----------
    points : NDArray (n, 3)
        Earth-centred coordinates, metres.

    Returns
    -------
    NDArray (n, 3)
        Degrees, degrees, and metres above the ellipsoid.
    """
    return np.column_stack(transformer(EARTH, ELLIPSOID).transform(*points.T))


def project(points: NDArray, crs: str) -> NDArray:
    """Project earth-centred coordinates.

    Heights are above the ellipsoid of WGS 84, not that of the CRS, which may differ by 100 m.

    Parameters
    ----------
    points : NDArray (n, 3)
        Earth-centred coordinates, metres.
    crs : str
        A projected CRS in metres.

    Returns
    -------
    NDArray (n, 3)
        East and north in the CRS, and height, metres.
    """
    lon, lat, height = lon_lat_height(points).T
    east, north = transformer(WGS84, pyproj.CRS(crs)).transform(lon, lat)
    return np.column_stack([east, north, height])


@dataclass(frozen=True)
class Place:
    """The place of a scene, to compare bounding volumes with.

    Attributes
    ----------
    degrees : tuple[float, float, float, float]
        Bounds: west, south, east, north.
    centre : NDArray (3,)
        A point of the scene, earth-centred, metres.
    axes : NDArray (2, 3)
        Unit vectors east and north at the centre.
    low, high : NDArray (2,)
        Range of the scene's column of air and ground, metres east and north of the centre.
    """

    degrees: Bounds
    centre: NDArray
    axes: NDArray
    low: NDArray
    high: NDArray

    @classmethod
    def of(cls, bounds: Bounds, crs: str) -> Place | None:
        """Return the place of bounds in a projected CRS, or None outside the area of that CRS."""
        degrees = transform_bounds(bounds, crs, "EPSG:4326")
        if degrees is None:
            return None
        edge = np.linspace(0, 1, 11)
        u, v = (grid.ravel() for grid in np.meshgrid(edge, edge))
        east, north = (
            bounds[0] + u * (bounds[2] - bounds[0]),
            bounds[1] + v * (bounds[3] - bounds[1]),
        )
        lon, lat = transformer(pyproj.CRS(crs), WGS84).transform(east, north)
        to_earth = transformer(ELLIPSOID, EARTH)
        column = np.concatenate(
            [
                np.column_stack(to_earth.transform(lon, lat, np.full(len(lon), h)))
                for h in (LOWEST, HIGHEST)
            ]
        )
        middle = len(lon) // 2
        centre = np.array(to_earth.transform(lon[middle], lat[middle], 0.0))
        a, b = np.radians(lon[middle]), np.radians(lat[middle])
        axes = np.array(
            [
                [-np.sin(a), np.cos(a), 0.0],
                [-np.sin(b) * np.cos(a), -np.sin(b) * np.sin(a), np.cos(b)],
            ]
        )
        beside = (column - centre) @ axes.T
        return cls(degrees, centre, axes, beside.min(axis=0), beside.max(axis=0))

    def meets(self, volume: Mapping[str, Any], transform: NDArray) -> bool:
        """Whether a volume may meet the scene.

        Parameters
        ----------
        volume : mapping
            A tile's `boundingVolume`. A volume of an unknown type counts as meeting the scene.
        transform : NDArray (4, 4)
            From the tile to earth-centred coordinates. Regions are always in degrees.

        Raises
        ------
        ValueError, TypeError
            if the numbers of the volume are wrong
        """
        if "region" in volume:
            west, south, east, north = np.degrees(_numbers(volume["region"], 6)[:4])
            return bool(
                south <= self.degrees[3]
                and north >= self.degrees[1]
                and _longitudes(west, east, *self.degrees[::2])
            )
        if "box" in volume:
            box = _numbers(volume["box"], 12).reshape(4, 3)
            signs = np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)])
            beside = self._beside(box[0] + signs @ box[1:], transform)
            return bool(
                (beside.max(axis=0) >= self.low).all() and (beside.min(axis=0) <= self.high).all()
            )
        if "sphere" in volume:
            *middle, radius = _numbers(volume["sphere"], 4)
            beside = self._beside(np.array([middle]), transform)[0]
            radius *= largest_scale(transform)
            return bool(
                (beside + radius >= self.low).all() and (beside - radius <= self.high).all()
            )
        return True

    def _beside(self, points: NDArray, transform: NDArray) -> NDArray:
        """Return (n, 2) metres east and north of the centre."""
        return np.asarray(
            (points @ transform[:3, :3].T + transform[:3, 3] - self.centre) @ self.axes.T
        )


def centre_of(volume: Mapping[str, Any], transform: NDArray) -> tuple[float, float, float]:
    """Return (longitude, latitude, height) of the middle of a volume.

    Raises
    ------
    KeyError
        for a volume of an unknown type
    ValueError, TypeError
        if its numbers are wrong
    """
    if "region" in volume:
        west, south, east, north = np.degrees(_numbers(volume["region"], 6)[:4])
        return (west + (east - west) % 360 / 2 + 180) % 360 - 180, (south + north) / 2, 0.0
    middle = (
        _numbers(volume["box"], 12)[:3] if "box" in volume else _numbers(volume["sphere"], 4)[:3]
    )
    lon, lat, height = lon_lat_height((transform[:3, :3] @ middle + transform[:3, 3])[None])[
        0
    ].tolist()
    return lon, lat, height


def largest_scale(transform: NDArray) -> float:
    """Return the largest factor by which a (4, 4) transform scales along an axis."""
    return float(np.linalg.norm(transform[:3, :3], axis=0).max())


def _numbers(values: Any, count: int) -> NDArray:
    numbers = np.asarray(values, np.float64)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise ValueError(f"a bounding volume needs {count} numbers")
    return numbers


def _longitudes(west: float, east: float, left: float, right: float) -> bool:
    """Whether two ranges of longitudes meet; either may cross the antimeridian."""
    width, other = (east - west) % 360 if east - west < 360 else 360.0, (right - left) % 360
    return (left - west) % 360 <= width or (west - left) % 360 <= other
