"""Where tiles stand on the earth: affine maps from a tile's east, north and up to earth-centred
coordinates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geo_io.crs import transformer
from geo_io.frame import Bounds

SAMPLES = 5
"""Points along each edge of a tile to which its map is fitted."""


def lon_lat(crs: str, x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
    """Return longitudes and latitudes in degrees (WGS 84) of points in a CRS."""
    lon, lat = transformer(crs, "EPSG:4326").transform(x, y)
    return np.asarray(lon), np.asarray(lat)


def earth_centred(crs: str, x: NDArray, y: NDArray, height: NDArray) -> NDArray:
    """Return earth-centred coordinates of points.

    Parameters
    ----------
    crs : str
        Of x and y.
    x, y, height : NDArray (n,) float64
        Metres; heights above the ellipsoid.

    Returns
    -------
    NDArray (n, 3) float64
        EPSG:4978, metres.
    """
    lon, lat = lon_lat(crs, x, y)
    return np.stack(transformer("EPSG:4979", "EPSG:4978").transform(lon, lat, height), axis=1)


def fitted_transform(
    crs: str, bounds: Bounds, heights: tuple[float, float], anchor: tuple[float, float, float]
) -> tuple[NDArray, float]:
    """Return the affine map of a tile, and how far it is off.

    Grid north is not true north, and the grid is not to scale, so the map is fitted to points of
    the tile by least squares.

    Parameters
    ----------
    crs : str
        Of the bounds and the anchor.
    bounds : tuple of float
        Left, bottom, right, top of the tile.
    heights : tuple of float
        Lowest and highest, metres above the ellipsoid.
    anchor : tuple of float
        Origin of the tile's coordinates: x, y, height.

    Returns
    -------
    transform : NDArray (4, 4) float64
        From (east, north, up) relative to the anchor to EPSG:4978.
    error : float
        Largest distance between mapped points and where they are, metres.
    """
    along = np.linspace(0, 1, SAMPLES)
    u, v, w = (a.ravel() for a in np.meshgrid(along, along, (0.0, 1.0)))
    x = bounds[0] + u * (bounds[2] - bounds[0])
    y = bounds[1] + v * (bounds[3] - bounds[1])
    z = heights[0] + w * max(heights[1] - heights[0], 1.0)
    earth = earth_centred(crs, x, y, z)
    centre = earth.mean(axis=0)
    local = np.stack([x - anchor[0], y - anchor[1], z - anchor[2], np.ones(len(x))], axis=1)
    solution, *_ = np.linalg.lstsq(local, earth - centre, rcond=None)
    error = np.linalg.norm(local @ solution + centre - earth, axis=1).max()
    transform = np.eye(4)
    transform[:3, :] = solution.T
    transform[:3, 3] += centre
    return transform, float(error)
