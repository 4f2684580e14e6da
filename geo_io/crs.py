"""Coordinate reference systems: the CRS of a source, and transformations between them."""

from __future__ import annotations

import functools
import re
from typing import Any

import numpy as np
import pyproj

from geo_io.errors import InputError, MissingCrsError
from geo_io.frame import Bounds, horizontal_crs, short_name, spoken_name

WGS84 = pyproj.CRS.from_epsg(4326)

GRID = re.compile(
    r"""(?:grids?=|PROJ4_GRIDS",\s*"|PARAMETERFILE\[[^]]*?,\s*")\s*@?([^"\s]+)""", re.IGNORECASE
)
"""A file of a grid that a CRS names, as PROJ's text and as WKT have it."""


@functools.lru_cache(maxsize=64)
def parse_crs(crs: str) -> pyproj.CRS:
    """Return the CRS of an authority code or WKT, parsed once."""
    return pyproj.CRS.from_user_input(crs)


@functools.lru_cache(maxsize=128)
def transformer(source: str | pyproj.CRS, target: str | pyproj.CRS) -> pyproj.Transformer:
    """Return the transformer from `source` to `target`; x (east or longitude) comes first.

    Raises
    ------
    InputError
        If there is none: one of them is damaged, or names files.
    """
    for crs in (source, target):
        require_plain_crs(crs, "a source")
    try:
        return pyproj.Transformer.from_crs(source, target, always_xy=True)
    except pyproj.exceptions.ProjError as error:
        names = [
            parse_crs(crs).name if isinstance(crs, str) else crs.name for crs in (source, target)
        ]
        raise InputError(
            f"nothing leads from the CRS {names[0]} to {names[1]}: {str(error)[:200]}",
            "correct the CRS of the source, or give it as `assume_crs`",
        ) from error


def require_plain_crs(crs: str | pyproj.CRS, where: str) -> None:
    """Check that a CRS is understood, and that it names no grid file by a path or an address.

    PROJ opens such files. Grids that it knows by their names are sought among its own.

    Parameters
    ----------
    crs : str or CRS
    where : str
        What has it, for messages.

    Raises
    ------
    InputError
        If it is not, or does.
    """
    remedy = "give a CRS such as EPSG:32632"
    try:
        parsed = parse_crs(crs) if isinstance(crs, str) else crs
        texts = (crs if isinstance(crs, str) else "", parsed.to_wkt())
    except pyproj.exceptions.ProjError as error:
        raise InputError(
            f"the CRS of {where}, {str(crs)[:200]!r}, is not understood", remedy
        ) from error
    named = GRID.search(" ".join(texts))
    if named and ("/" in named[1] or "\\" in named[1]):
        raise InputError(f"the CRS of {where} names the file {named[1][:200]}", remedy)


def transform_bounds(bounds: Bounds, source: str, target: str) -> Bounds | None:
    """Transform bounds, with points along their edges; None where `target` is not defined.

    In a geographic CRS left > right means that the bounds cross the antimeridian.
    """
    if source == target:
        return bounds
    result = transformer(source, target).transform_bounds(*bounds, densify_pts=21)
    return tuple(map(float, result)) if np.isfinite(result).all() else None  # type: ignore[return-value]


def resolve_crs(
    crs: Any, assume_crs: str | None, name: str, bounds: Bounds | None, hint: str = ""
) -> str:
    """Return the horizontal CRS of a source as text: its own record, else `assume_crs`.

    Parameters
    ----------
    crs : Any
        The CRS record of the source, None if it has none.
    assume_crs : str, optional
        CRS of a source without a record.
    name : str
        Name of the source in messages.
    bounds : (float, float, float, float), optional
        Left, bottom, right, top of the source, None if it is empty.
    hint : str
        Added to the message about a missing record.

    Raises
    ------
    MissingCrsError
        If there is neither a record nor `assume_crs`.
    InputError
        If either is not understood, or is in degrees while the coordinates cannot be degrees.
    """
    try:
        parsed = None if crs is None else horizontal_crs(pyproj.CRS.from_user_input(crs))
    except pyproj.exceptions.CRSError as error:
        raise InputError(
            f"the CRS record of {name} is not understood: {error}",
            "correct it, or remove it and give the CRS as `assume_crs`",
        ) from error
    if parsed is not None and (
        parsed.type_name == "Engineering CRS" or parsed.name.startswith("Undefined")
    ):
        parsed = None
    if parsed is None:
        if assume_crs is None:
            looks = ""
            if bounds is not None and like_degrees(bounds):
                looks = "; its bounds look like longitude and latitude: EPSG:4326"
            raise MissingCrsError(
                f"{name} has no CRS record{hint}; its bounds are {extent_text(bounds)}",
                f"give its CRS as `assume_crs`, such as EPSG:32632{looks}",
            )
        try:
            parsed = horizontal_crs(pyproj.CRS.from_user_input(assume_crs))
        except pyproj.exceptions.CRSError as error:
            raise InputError(
                f"`assume_crs` {assume_crs!r} is not understood",
                "give an EPSG code such as EPSG:32632",
            ) from error
    if parsed.is_geographic and bounds is not None and not like_degrees(bounds):
        raise InputError(
            f"{name} is said to be in {spoken_name(parsed)}, in degrees, but its bounds are "
            f"{extent_text(bounds)}",
            "its CRS record (.prj), or `assume_crs`, is wrong: correct it",
        )
    return short_name(parsed)


def extent_text(bounds: Bounds | None) -> str:
    """Return bounds as text for messages: degrees to 5 digits, metres to 1."""
    if bounds is None:
        return "empty"
    digits = 5 if max(map(abs, bounds)) <= 360 else 1
    return "({})".format(", ".join(f"{value:.{digits}f}" for value in bounds))


def like_degrees(bounds: Bounds) -> bool:
    """Return whether bounds can be longitude and latitude."""
    left, bottom, right, top = bounds
    return left >= -360 and right <= 360 and bottom >= -90.5 and top <= 90.5
