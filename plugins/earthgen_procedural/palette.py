"""Natural colours as sRGB albedo, without light or shade."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from earthgen.terrain.cover import CODES, class_code

Colour = tuple[int, int, int]

# Dark, light and patch colour of each class.
GROUND: dict[str, tuple[Colour, Colour, Colour]] = {
    "bare_ground": ((146, 124, 94), (172, 150, 116), (132, 122, 86)),
    "rock": ((122, 118, 112), (160, 155, 147), (104, 106, 98)),
    "sand": ((214, 197, 153), (234, 220, 182), (200, 184, 140)),
    "snow_ice": ((232, 237, 243), (248, 250, 252), (218, 228, 238)),
    "grass": ((92, 124, 54), (118, 148, 70), (106, 132, 62)),
    "grassland": ((112, 130, 62), (144, 154, 82), (98, 122, 56)),
    "cropland": ((150, 144, 84), (172, 162, 100), (130, 134, 74)),
    "orchard": ((104, 128, 60), (130, 148, 78), (120, 134, 70)),
    "shrub": ((110, 116, 64), (142, 140, 86), (128, 118, 84)),
    "broadleaf_forest": ((84, 76, 46), (108, 94, 60), (72, 78, 42)),
    "needleleaf_forest": ((80, 68, 48), (104, 86, 62), (66, 68, 42)),
    "mixed_forest": ((82, 72, 47), (106, 90, 61), (70, 74, 42)),
    "tree": ((92, 112, 54), (118, 132, 70), (86, 98, 52)),
    "wetland": ((86, 106, 64), (122, 128, 80), (74, 92, 74)),
    "river": ((60, 88, 88), (68, 97, 97), (72, 98, 88)),
    "lake": ((44, 76, 90), (50, 84, 98), (58, 90, 90)),
    "sea": ((34, 70, 96), (40, 78, 104), (52, 92, 104)),
    "building": ((140, 136, 130), (158, 154, 148), (128, 126, 122)),
    "residential": ((94, 122, 58), (122, 144, 74), (112, 126, 64)),
    "commercial": ((126, 125, 122), (148, 146, 141), (112, 111, 110)),
    "road": ((88, 88, 90), (102, 101, 101), (96, 94, 92)),
    "rail": ((108, 100, 93), (132, 121, 111), (98, 92, 86)),
    "paved": ((164, 158, 148), (184, 178, 168), (152, 148, 142)),
    "sports": ((84, 134, 60), (100, 150, 70), (92, 138, 64)),
    "extraction": ((172, 152, 122), (202, 184, 154), (156, 144, 124)),
}

WATER_SHALLOW: Colour = (104, 116, 96)

CROPS = np.array(
    [
        [(150, 150, 84), (178, 168, 100)],  # wheat
        [(178, 164, 104), (202, 186, 126)],  # barley
        [(84, 112, 50), (104, 128, 60)],  # maize
        [(168, 166, 70), (188, 182, 84)],  # rapeseed
        [(122, 96, 70), (142, 114, 86)],  # ploughed
        [(92, 128, 62), (116, 144, 76)],  # root crops
        [(112, 142, 66), (132, 156, 78)],  # ley
        [(188, 172, 124), (204, 188, 142)],  # stubble
    ],
    np.float32,
)
"""Two colours of each crop: (crops, 2, 3)."""

CROP_ROWS = np.array(
    [
        (18.0, 1.2, -0.11),
        (18.0, 1.2, -0.09),
        (3.0, 1.5, -0.12),
        (21.0, 1.2, -0.10),
        (4.5, 2.2, -0.10),
        (3.2, 1.6, -0.18),
        (9.0, 4.5, -0.04),
        (7.5, 3.7, -0.09),
    ]
)
"""Rows of each crop: distance and width in metres, and relative difference of brightness."""

GARDEN = np.array(
    [
        [(90, 124, 54), (116, 146, 70)],  # lawn
        [(104, 132, 62), (130, 152, 80)],  # dry lawn
        [(86, 106, 52), (134, 122, 82)],  # beds
        [(150, 144, 132), (170, 162, 150)],  # paving
        [(138, 130, 104), (158, 148, 122)],  # gravel
    ],
    np.float32,
)
GARDEN_SHARE = np.array([0.50, 0.24, 0.12, 0.07, 0.07])

YARD = np.array(
    [
        [(110, 110, 110), (124, 123, 121)],  # asphalt
        [(150, 148, 142), (168, 165, 158)],  # concrete
        [(152, 142, 124), (172, 160, 140)],  # gravel
        [(98, 126, 58), (120, 146, 72)],  # verge
    ],
    np.float32,
)
YARD_SHARE = np.array([0.42, 0.30, 0.13, 0.15])

BARK: Colour = (94, 76, 58)
GLASS: Colour = (74, 84, 96)


STRUCTURE = (
    [(148, 146, 140), (172, 168, 160)],  # concrete
    [(128, 118, 104), (168, 154, 134)],  # stone
    [(110, 84, 60), (146, 116, 86)],  # wood
    [(118, 124, 128), (150, 156, 160)],  # metal
)
"""Dark and light colours of structures, in the order of `geo_io.structures.MATERIALS`."""


@functools.cache
def structure_table() -> NDArray:
    """Return dark and light colours by material: (4, 2, 3) float32."""
    return np.array(STRUCTURE, np.float32)


@functools.cache
def ground_table() -> NDArray:
    """Return dark, light and patch colour by class code: (CODES, 3, 3) float32."""
    table = np.full((CODES, 3, 3), 128, np.float32)
    for name, colours in GROUND.items():
        table[class_code(name)] = colours
    return table
