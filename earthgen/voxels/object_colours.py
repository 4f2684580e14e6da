"""Colours of objects: palettes of roofs, walls and crowns, by the type in an object's number.

The rule-based texture paints with them, and learned textures are told colours from them, one for
each part of an object. Colours that the map gives to buildings come first, in both.
"""

from __future__ import annotations

import functools

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray

from earthgen.errors import UnknownNameError
from earthgen.noise.philox import Noise
from earthgen.voxels.objects import (
    FLAT_ROOF,
    HALL_ROOF,
    PITCHED_ROOF,
    PLAIN_ROOF,
    object_number,
)
from earthgen.voxels.voxels import Voxels
from geo_io.layers import Buildings

OTHER, ROOF, WALL, CROWN = 0, 1, 2, 3
"""Parts of objects that have a colour of their own."""

PALETTES = ("rules", "real", "none")
"""Where the colours of objects may be drawn from."""

BROADLEAVES = np.array(
    [
        (72, 104, 42),
        (86, 116, 48),
        (64, 94, 40),
        (100, 124, 52),
        (92, 110, 44),
        (78, 112, 54),
        (108, 126, 60),
        (70, 98, 50),
    ],
    np.float32,
)
NEEDLES = np.array([(42, 70, 44), (50, 78, 48), (38, 62, 42), (58, 82, 52)], np.float32)
BUSHES = np.array([(92, 110, 54), (80, 102, 48), (110, 116, 62), (98, 120, 66)], np.float32)
HEDGES = np.array([(66, 96, 44), (76, 104, 48), (86, 106, 52), (70, 92, 50)], np.float32)

TILES = np.array(
    [
        (152, 86, 66),
        (162, 100, 76),
        (138, 78, 62),
        (148, 92, 76),
        (122, 70, 60),
        (110, 90, 78),
        (92, 86, 84),
        (134, 94, 80),
    ],
    np.float32,
)
FLATS = np.array(
    [
        (152, 150, 146),
        (124, 124, 124),
        (170, 166, 158),
        (138, 136, 130),
        (116, 126, 90),
        (160, 150, 138),
        (108, 110, 114),
        (146, 148, 152),
    ],
    np.float32,
)
METALS = np.array(
    [
        (178, 180, 182),
        (152, 158, 164),
        (196, 196, 192),
        (128, 136, 142),
        (166, 164, 158),
        (142, 98, 84),
        (184, 186, 190),
        (150, 152, 150),
    ],
    np.float32,
)
SHEDS = np.array(
    [
        (128, 112, 96),
        (112, 108, 104),
        (150, 88, 70),
        (138, 134, 128),
        (118, 98, 82),
        (96, 92, 90),
        (144, 128, 108),
        (126, 126, 126),
    ],
    np.float32,
)
"""Sheds; like TILES, FLATS and METALS eight roof colours of one type of building, (8, 3)."""

PLASTER = np.array(
    [
        (226, 219, 203),
        (234, 231, 222),
        (214, 201, 173),
        (222, 207, 188),
        (204, 199, 190),
        (230, 213, 178),
        (208, 186, 160),
        (166, 112, 90),
    ],
    np.float32,
)
CLADDING = np.array(
    [
        (198, 200, 200),
        (172, 180, 186),
        (212, 208, 200),
        (154, 164, 172),
        (186, 182, 172),
        (168, 122, 100),
        (206, 208, 210),
        (176, 176, 172),
    ],
    np.float32,
)


REAL_ROOFS = np.array(
    [
        (135, 134, 132),
        (214, 217, 219),
        (71, 77, 86),
        (102, 100, 102),
        (154, 145, 139),
        (176, 168, 164),
        (239, 242, 243),
        (125, 118, 117),
        (203, 197, 192),
        (153, 181, 212),
        (132, 158, 188),
        (207, 141, 118),
    ],
    np.float32,
)
REAL_ROOF_SHARE = (11.3, 10.4, 10.3, 10.3, 9.8, 9.5, 8.7, 8.6, 7.6, 6.9, 4.3, 2.3)
BLUE_ROOFS = (9, 10)
"""Rows of `REAL_ROOFS`: sheet metal of Unguja, which is on halls and sheds."""

REAL_CROWNS = np.array(
    [
        (69, 89, 67),
        (59, 69, 46),
        (88, 101, 83),
        (106, 117, 99),
        (103, 127, 68),
        (135, 152, 83),
        (142, 152, 123),
    ],
    np.float32,
)
REAL_CROWN_SHARE = (21.6, 21.1, 18.8, 14.2, 7.5, 7.1, 6.8)
"""Real colours, as cameras saw them, with sun and shade: centres of k-means clusters of the medians
of 315 roofs and 1565 groups of trees, places weighted equally, and their shares. Measured on
pictures from above of Autzen (Watershed Sciences via PDAL/data, CC BY 4.0), Machangara in Quito
(faustoaguanor, MIT) and Unguja (Zanzibar Mapping Initiative, CC BY 4.0). Roofs are level areas of
25 to 2,500 m2 above 2.5 m, trees green ones above 3 m. A cluster of 3 % whitish trees is left
out."""


@functools.cache
def roof_table() -> NDArray:
    """Return roof colours by type of building, as numbered in objects.py: (4, 8, 3) float32."""
    return np.stack([FLATS, TILES, METALS, SHEDS])


@functools.cache
def leaf_table() -> NDArray:
    """Return leaf colours by type of plant, as numbered in objects.py: (4, 8, 3) float32."""
    return np.stack(
        [BROADLEAVES, np.tile(NEEDLES, (2, 1)), np.tile(BUSHES, (2, 1)), np.tile(HEDGES, (2, 1))]
    )


@functools.cache
def wall_table() -> NDArray:
    """Return wall colours by type of building, as numbered in objects.py: (4, 8, 3) float32."""
    clad = (HALL_ROOF, PLAIN_ROOF)
    return np.stack([CLADDING if kind in clad else PLASTER for kind in range(4)])


def draw_object_colours(
    number: NDArray, part: NDArray, noise: Noise, palette: str = "rules"
) -> tuple[NDArray, NDArray]:
    """Draw a colour for each part of each object.

    Parameters
    ----------
    number : NDArray (n,) uint32
        Object numbers of voxels, 0 for none.
    part : NDArray (n,) int
        `ROOF`, `WALL`, `CROWN` or `OTHER`.
    noise : Noise
        Keys what is drawn, by the object.
    palette : str
        One of `PALETTES`. "real" has the colours of pictures for flat roofs, halls, sheds and
        crowns. Tiled roofs and walls, which no picture with heights shows, are those of "rules".

    Returns
    -------
    rgb : NDArray (n, 3) float32
        sRGB, 0 to 255; 0 where there is no colour.
    known : NDArray (n,) bool
        Voxels that got a colour.

    Raises
    ------
    UnknownNameError
        If there is no such palette.
    """
    if palette not in PALETTES:
        raise UnknownNameError(f"unknown palette {palette!r}", f"choose from {', '.join(PALETTES)}")
    rgb = np.zeros((len(number), 3), np.float32)
    known = np.zeros(len(number), bool)
    if palette == "none":
        return rgb, known
    for which, tables in (("roofs", ROOF), ("walls", WALL), ("crowns", CROWN)):
        rows = np.flatnonzero((part == tables) & (number > 0))
        words = noise.stream(f"told {which}").bits(number[rows], 0)
        unit = words[:, :2] * 2.0**-32
        table = {ROOF: roof_table, WALL: wall_table, CROWN: leaf_table}[tables]()
        picked = table[number[rows] & 3, words[:, 0] & 7]
        if palette == "real" and tables != WALL:
            photographed, colours = _real_colours(tables, number[rows] & 3, unit[:, 0])
            picked = np.where(photographed[:, None], colours, picked)
        # Half the width of what the rules vary from object to object.
        rgb[rows] = np.clip(picked * (0.93 + 0.14 * unit[:, 1:]), 0, 255)
        known[rows] = True
    return rgb, known


def _real_colours(part: int, kind: NDArray, unit: NDArray) -> tuple[NDArray, NDArray]:
    """Whether pictures show such roofs or crowns, (n,) bool, and a colour of theirs, (n, 3).

    `kind` is that of the object (earthgen/voxels/objects.py), `unit` uniform in [0, 1).
    """
    if part == CROWN:
        return np.ones(len(kind), bool), _pick(REAL_CROWNS, REAL_CROWN_SHARE, unit)
    metal = _pick(REAL_ROOFS, REAL_ROOF_SHARE, unit)
    stone = np.delete(np.arange(len(REAL_ROOFS)), BLUE_ROOFS)
    flat = _pick(REAL_ROOFS[stone], np.array(REAL_ROOF_SHARE)[stone], unit)
    return kind != PITCHED_ROOF, np.where((kind == FLAT_ROOF)[:, None], flat, metal)


def _pick(colours: NDArray, share: ArrayLike, unit: NDArray) -> NDArray:
    limits = np.cumsum(share) / np.sum(share)
    return np.asarray(colours[np.minimum(np.searchsorted(limits, unit), len(colours) - 1)])


BESIDE = 4.0
"""Metres, and voxels, that a building's voxels may lie outside the bounds of its footprint."""


def mapped_colours(buildings: Buildings, voxels: Voxels) -> tuple[NDArray, NDArray] | None:
    """Return the colours that the map gives to the buildings of voxels.

    Backends number the voxels of a building with `object_number` of its key; a number and the
    place of the footprint tell which building it is.

    Parameters
    ----------
    buildings : Buildings
        Those that touch the frame of the voxels.
    voxels : Voxels
        n voxels.

    Returns
    -------
    tuple of NDArray (n, 4) uint8, or None
        sRGB and alpha of roofs and of walls; alpha 0 where the map says nothing. None if it says
        nothing of any of them.
    """
    form = buildings.form
    told = np.flatnonzero((form["roof_rgba"][:, 3] > 0) | (form["wall_rgba"][:, 3] > 0))
    if not len(told) or not len(voxels):
        return None
    names = object_number(buildings.key[told], 0)
    order = np.argsort(names, kind="stable")
    names, told = names[order], told[order]
    rows = np.flatnonzero(voxels.object != 0)
    own = voxels.object[rows] & np.uint32(0xFFFFFFFC)
    at = np.minimum(np.searchsorted(names, own), len(names) - 1)
    found = names[at] == own
    rows, which = rows[found], told[at[found]]
    size = voxels.frame.voxel_size
    x, y = ((voxels.xyz[rows, axis] + 0.5) * size for axis in (0, 1))
    west, south, east, north = shapely.bounds(buildings.footprint[which]).reshape(-1, 4).T
    far = BESIDE * max(size, 1.0)
    near = (x > west - far) & (x < east + far) & (y > south - far) & (y < north + far)
    rows, which = rows[near], which[near]
    if not len(rows):
        return None
    roof, wall = (np.zeros((len(voxels), 4), np.uint8) for _ in range(2))
    roof[rows], wall[rows] = form["roof_rgba"][which], form["wall_rgba"][which]
    return roof, wall


def with_mapped_colours(
    rgb: NDArray, known: NDArray, part: NDArray, mapped: tuple[NDArray, NDArray] | None
) -> tuple[NDArray, NDArray]:
    """Return drawn colours, as of `draw_object_colours`, with those of the map in their place.

    Parameters
    ----------
    rgb, known : NDArray
        Of `draw_object_colours`.
    part : NDArray (n,) int
        `ROOF`, `WALL`, `CROWN` or `OTHER`.
    mapped : tuple of NDArray (n, 4) uint8, or None
        Of `mapped_colours`.
    """
    if mapped is None:
        return rgb, known
    rgb, known = rgb.copy(), known.copy()
    for which, colours in zip((ROOF, WALL), mapped, strict=True):
        rows = (part == which) & (colours[:, 3] > 0)
        rgb[rows], known[rows] = colours[rows, :3], True
    return rgb, known
