"""`--bbox W,S,E,N` and `--bbox-crs`, which several commands take."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from geo_io.frame import Bounds, Frame

BBOX_HELP = "West, south, east, north: four numbers with commas or spaces between them."
BBOX_CRS_HELP = "CRS of --bbox."
LON_LAT = "EPSG:4326"


def checked_bbox(text: str | None) -> str | None:
    """Check the typed text. As the option's callback it reports a wrong box before other errors."""
    if text is not None:
        parse_bbox(text)
    return text


def parse_bbox(text: str) -> Bounds:
    """Read (west, south, east, north) from "W,S,E,N", "W, S, E, N" or "W S E N".

    Raises
    ------
    typer.BadParameter
        If it is not four finite numbers.
    """
    example = "write it as 11.585,49.992,11.595,49.998 (west, south, east, north)"
    parts = [part for part in re.split(r"[,;\s]+", text.strip(" \t\n,;()[]")) if part]
    if len(parts) != 4:
        raise typer.BadParameter(
            f"{text!r} is {len(parts)} number{'s' * (len(parts) != 1)}, not 4: {example}"
        )
    try:
        west, south, east, north = map(float, parts)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not four numbers: {example}") from error
    if not all(map(math.isfinite, (west, south, east, north))):
        raise typer.BadParameter(f"{text!r} is not four finite numbers: {example}")
    return west, south, east, north


def join_bbox(words: Sequence[str]) -> list[str]:
    """Join the numbers that follow --bbox, which may be several words: `--bbox 11.5, 50 11.6 50.1`.

    Parameters
    ----------
    words : sequence of str
        A command line.
    """
    joined: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        joined.append(word)
        if word == "--":
            break
        if word != "--bbox":
            continue
        if len(rest) >= 4 and all(map(_DECIMAL_COMMA.fullmatch, rest[:4])):
            rest[:4] = [number.replace(",", ".") for number in rest[:4]]
        numbers: list[str] = []
        while rest and sum(map(_count, numbers)) < 4 and _NUMBERS.fullmatch(rest[0]):
            numbers.append(rest.pop(0))
        if numbers:
            joined.append(",".join(number.strip(",;") for number in numbers))
    return [*joined, *rest]


_NUMBERS = re.compile(r"[,;]*([-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?[,;]*)+", re.IGNORECASE)


_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")
"""Four words like this are no eight numbers."""


def _count(word: str) -> int:
    return len([part for part in re.split(r"[,;]+", word) if part])


def bounds_on(frame: Frame, bbox: str | None, bbox_crs: str) -> Bounds | None:
    """Convert --bbox to metres of the frame's CRS, enlarged to whole voxels.

    Returns
    -------
    Bounds or None
        None, which means the whole world, if no box was given.

    Raises
    ------
    RegionError, FrameError
        If the box is empty, its CRS is unknown, or it does not meet the frame.
    """
    if bbox is None:
        return None
    from geo_io.errors import RegionError
    from geo_io.region.region import frame_from_bbox

    covered = ",".join(f"{value:.6f}" for value in lon_lat_bounds(frame))
    remedy = f"the world covers {covered} in longitude and latitude"
    try:
        box = frame_from_bbox(
            parse_bbox(bbox), bbox_crs=bbox_crs, crs=frame.crs, voxel_size=frame.voxel_size
        )
    except RegionError as error:
        raise RegionError(error.problem, remedy) from error
    if frame.crop(box.bounds) is None:
        raise RegionError(f"the bbox {bbox} ({bbox_crs}) does not meet the world", remedy)
    return box.bounds


def lon_lat_bounds(frame: Frame) -> Bounds:
    """Return the frame's extent in degrees of longitude and latitude (WGS 84)."""
    import pyproj

    transformer = pyproj.Transformer.from_crs(frame.crs, LON_LAT, always_xy=True)
    bounds: Bounds = transformer.transform_bounds(*frame.bounds, densify_pts=21)
    return bounds
