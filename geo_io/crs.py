"""Coordinate reference systems of sources: which one a source has, and the way from one to
another."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyproj

from geo_io.errors import InputError, MissingCrsError
from geo_io.frame import Bounds, horizontal_crs, short_name

WGS84 = pyproj.CRS.from_epsg(4326)


@functools.lru_cache(maxsize=64)
def parsed_crs(crs: str) -> pyproj.CRS:
    """The CRS of an authority code or WKT, parsed once."""
    return pyproj.CRS.from_user_input(crs)


@functools.lru_cache(maxsize=128)
def transformer(source: str | pyproj.CRS, target: str | pyproj.CRS) -> pyproj.Transformer:
    """From `source` to `target`, x (east or longitude) first, whatever the axis order of the two
    CRSs."""
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def transform_bounds(bounds: Bounds, source: str, target: str) -> Bounds | None:
    """Bounds in another CRS, edges densified, None where that CRS does not reach.

    In a geographic CRS left > right means that they cross the antimeridian.
    """
    if source == target:
        return bounds
    result = transformer(source, target).transform_bounds(*bounds, densify_pts=21)
    return tuple(map(float, result)) if np.isfinite(result).all() else None  # type: ignore[return-value]


def resolve_crs(
    crs: Any, assume_crs: str | None, name: str, bounds: Bounds | None, hint: str = ""
) -> str:
    """The horizontal CRS of a source as text: its own record, else `assume_crs`.

    Raises
    ------
    MissingCrsError
        if there is neither
    InputError
        if the record says degrees and the coordinates cannot be degrees, or `assume_crs` is not
        understood
    """
    try:
        parsed = None if crs is None else horizontal_crs(pyproj.CRS.from_user_input(crs))
    except pyproj.exceptions.CRSError as error:
        raise InputError(
            f"the CRS record of {name} is not understood: {error}",
            "correct it, or remove it and give --assume-crs",
        ) from error
    if parsed is not None and (
        parsed.type_name == "Engineering CRS" or parsed.name.startswith("Undefined")
    ):
        parsed = None
    if parsed is None:
        if assume_crs is None:
            looks = ""
            if bounds is not None and _like_degrees(bounds):
                looks = "; its bounds look like longitude and latitude, which would be EPSG:4326"
            raise MissingCrsError(
                f"{name} has no CRS record{hint}; its bounds are {extent_text(bounds)}",
                f"say which it is with --assume-crs EPSG:...{looks}",
            )
        try:
            parsed = horizontal_crs(pyproj.CRS.from_user_input(assume_crs))
        except pyproj.exceptions.CRSError as error:
            raise InputError(
                f"--assume-crs {assume_crs!r} is not understood",
                "give an EPSG code such as EPSG:32632",
            ) from error
    if parsed.is_geographic and bounds is not None and not _like_degrees(bounds):
        raise InputError(
            f"{name} is said to be in {short_name(parsed)}, in degrees, but its bounds are {extent_text(bounds)}",
            "its CRS record (.prj), or --assume-crs, is wrong: correct it",
        )
    return short_name(parsed)


def extent_text(bounds: Bounds | None) -> str:
    """Bounds for a message: degrees to 5 digits, metres to 1."""
    if bounds is None:
        return "empty"
    digits = 5 if max(map(abs, bounds)) <= 360 else 1
    return "({})".format(", ".join(f"{value:.{digits}f}" for value in bounds))


def _like_degrees(bounds: Bounds) -> bool:
    left, bottom, right, top = bounds
    return left >= -360 and right <= 360 and bottom >= -90.5 and top <= 90.5
