"""What the arrays and groups of a world say about themselves, in the words of others.

- CF 1.11 (https://cfconventions.org): names, units, flags and the grid mapping of layers.
- ACDD 1.3 (https://wiki.esipfed.org/ACDD): where the world lies.
- The Zarr conventions `proj`, `spatial` and `multiscales` 0.1 (https://github.com/zarr-conventions),
  of which GeoZarr consists.

What a group of layers says is numbers, text, and lists of them, so that it can go into netCDF. The
conventions of Zarr want objects, which netCDF does not have: they are in the root group, whose
layout gives the place of each level.
"""

from __future__ import annotations

import functools
import math
import re
import warnings
from typing import Any

import numpy as np
import pyproj
import zarr
from numpy.typing import NDArray

from earthgen.voxels.tile import LEVELS
from earthgen.world.layout import DENSE
from geo_io.frame import UNKNOWN_DATUM, Frame
from geo_io.legend import classes
from geo_io.region.region import lonlat_bounds

_SOURCE = "https://raw.githubusercontent.com/zarr-conventions/{}/refs/tags/v0.1/schema.json"
_PAGE = "https://github.com/zarr-conventions/{}/blob/v0.1/README.md"

CONVENTIONS = {
    "proj": (
        "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "Coordinate reference system information for geospatial data",
    ),
    "spatial": ("689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "Spatial coordinate information"),
    "multiscales": ("d35379db-88df-4056-af3a-620245f8e347", "Multiscale layout of zarr datasets"),
}
"""The Zarr conventions that the root group follows: their UUIDs and descriptions, which they
prescribe."""


def of_world(frame: Frame, tiles: Frame, version: str) -> dict[str, Any]:
    """Return the attributes of the root group, beside "earthgen".

    Parameters
    ----------
    frame : Frame
        Of the world.
    tiles : Frame
        Of the arrays at level 1, which cover whole tiles.
    version : str
        Of this software.
    """
    layout: list[dict[str, Any]] = []
    for level in LEVELS:
        entry: dict[str, Any] = {"asset": f"level_{level}"}
        if level > 1:
            entry["derived_from"] = f"level_{level // 2}"
            entry["transform"] = {"scale": [2.0, 2.0], "translation": [0.0, 0.0]}
        layout.append(entry | _grid(tiles.coarsen(level) if level > 1 else tiles))
    return {
        **_place(frame),
        "title": "earthgen world",
        "source": f"earthgen {version}",
        "comment": "the layers are in the groups level_1 (finest), level_2, level_4 and level_8",
        # xarray's way to say which variables of a group are coordinates.
        "coordinates": "spatial_ref",
        "zarr_conventions": [
            {
                "uuid": uuid,
                "name": name,
                "description": text,
                "schema_url": _SOURCE.format(name),
                "spec_url": _PAGE.format(name),
            }
            for name, (uuid, text) in CONVENTIONS.items()
        ],
        **_projection(frame),
        "spatial:dimensions": ["y", "x"],
        "spatial:registration": "pixel",
        "spatial:bbox": [float(value) for value in frame.bounds],
        "multiscales": {"layout": layout},
    }


def of_level(frame: Frame) -> dict[str, Any]:
    """Return the attributes of the group of the dense layers of a level, or of a part of them.

    Parameters
    ----------
    frame : Frame
        Of the world, or of the part, at that level.
    """
    return {
        **_place(frame),
        "title": f"layers of an earthgen world, cells of {frame.voxel_size:g} m",
    }


def of_layer(name: str, frame: Frame) -> dict[str, Any]:
    """Return the attributes of a dense layer.

    Parameters
    ----------
    name : str
        A key of `earthgen.world.layout.DENSE`.
    frame : Frame
        Of the layer.
    """
    *_, title, unit = DENSE[name]
    values: dict[str, Any] = {
        "long_name": title,
        "units": unit,
        "grid_mapping": "spatial_ref",
        # CF names auxiliary coordinates here; without it xarray keeps the CRS among the data.
        "coordinates": "spatial_ref",
    }
    if unit == "m":
        values |= {"vertical_crs": frame.vertical_crs, "standard_name": _height_name(name, frame)}
    if name == "semantics":
        land = classes()
        values |= {
            "flag_values": [0, *(each.code for each in land)],
            "flag_meanings": " ".join(["no_data", *(_word(each.name) for each in land)]),
            "flag_colors": " ".join(["#000000", *(each.color for each in land)]),
        }
    return values


def centres(frame: Frame, axis: str) -> NDArray:
    """Return the coordinates of the columns ("x") or rows ("y", from the north) of a frame, metres,
    (n,) float64."""
    if axis == "x":
        return (np.arange(frame.x[0], frame.x[1]) + 0.5) * frame.voxel_size
    return (np.arange(frame.y[1], frame.y[0], -1) - 0.5) * frame.voxel_size


def of_axis(axis: str) -> dict[str, Any]:
    """Return the attributes of the coordinates "x" or "y", which are centres of cells."""
    return {
        "units": "m",
        "axis": axis.upper(),
        "long_name": {"x": "easting", "y": "northing"}[axis],
        "standard_name": f"projection_{axis}_coordinate",
    }


def of_reference(frame: Frame) -> dict[str, Any]:
    """Return the attributes of the variable `spatial_ref`: the CRS in the words of CF and of GDAL,
    and the place of the cells of a frame."""
    crs = _crs(frame.crs)
    known = {
        name: value
        for name, value in crs.to_cf().items()
        if isinstance(value, str | int | float) or (isinstance(value, list | tuple) and value)
    }
    wkt, a = crs.to_wkt(), frame.transform
    return known | {
        "crs_wkt": wkt,
        "spatial_ref": wkt,
        "GeoTransform": f"{a.c!r} {a.a!r} {a.b!r} {a.f!r} {a.d!r} {a.e!r}",
    }


def consolidate(store: Any) -> None:
    """Write the metadata of all groups and arrays also into that of the root group, from where
    xarray reads them at once.

    Parameters
    ----------
    store : zarr.abc.store.Store
        Of the world; the metadata of its arrays do not change afterwards.
    """
    with warnings.catch_warnings():
        # That this is not yet in the specification of Zarr 3. Readers may ignore it.
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(store, zarr_format=3)


def _place(frame: Frame) -> dict[str, Any]:
    """CF and ACDD of a group: where it lies."""
    left, bottom, right, top = (float(value) for value in frame.bounds)
    degrees = lonlat_bounds(frame.bounds, frame.crs)
    names = [f"geospatial_{name}" for name in ("lon_min", "lat_min", "lon_max", "lat_max")]
    corners = ((left, bottom), (left, top), (right, top), (right, bottom), (left, bottom))
    place = {
        "Conventions": "CF-1.11, ACDD-1.3",
        "geospatial_bounds": f"POLYGON (({', '.join(f'{x!r} {y!r}' for x, y in corners)}))",
        "geospatial_bounds_crs": _code(frame) or _crs(frame.crs).to_wkt(),
    }
    if not all(map(math.isfinite, degrees)):  # outside of where the CRS is defined
        return place
    return place | {name: float(value) for name, value in zip(names, degrees, strict=True)}


def _grid(frame: Frame) -> dict[str, Any]:
    """The `spatial` convention of the arrays of a level."""
    a = frame.transform
    return {
        "spatial:shape": [int(n) for n in frame.shape],
        "spatial:transform": [float(value) for value in (a.a, a.b, a.c, a.d, a.e, a.f)],
    }


@functools.lru_cache(8)
def _crs(text: str) -> pyproj.CRS:
    return pyproj.CRS.from_user_input(text)


def _code(frame: Frame) -> str | None:
    """The CRS as AUTHORITY:CODE."""
    found = _crs(frame.crs).to_authority(min_confidence=100)
    return ":".join(found) if found else None


def _projection(frame: Frame) -> dict[str, Any]:
    """The `proj` convention."""
    code = _code(frame)
    return ({"proj:code": code} if code else {}) | {"proj:wkt2": _crs(frame.crs).to_wkt()}


def _height_name(name: str, frame: Frame) -> str:
    """CF's name of a height, which is above the geoid unless its CRS says otherwise."""
    if frame.vertical_crs != UNKNOWN_DATUM:
        vertical = _crs(frame.vertical_crs)
        if vertical.is_geographic or "ellipsoid" in vertical.name.casefold():
            return "height_above_reference_ellipsoid"
    return {"ground": "ground_level_altitude", "surface": "altitude"}[name]


def _word(name: str) -> str:
    """A name as one of the words of `flag_meanings`."""
    return re.sub(r"[^A-Za-z0-9_.+@-]+", "_", name)
