"""Land classes that a network was not trained on: a relative that it knows stands in, or a rule
paints them.

A class that training never showed has an embedding of random numbers, and what a network makes of
it is anything.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from geo_io.legend import codes

RELATIVES: Mapping[str, tuple[str, ...]] = {
    "bare_ground": ("sand", "extraction", "paved"),
    "rock": ("bare_ground", "extraction"),
    "sand": ("bare_ground",),
    "grass": ("grassland",),
    "grassland": ("grass",),
    "cropland": ("grassland", "grass"),
    "orchard": ("shrub", "tree", "grass"),
    "shrub": ("orchard", "grassland", "tree"),
    "broadleaf_forest": ("mixed_forest", "tree", "needleleaf_forest"),
    "needleleaf_forest": ("mixed_forest", "tree", "broadleaf_forest"),
    "mixed_forest": ("broadleaf_forest", "needleleaf_forest", "tree"),
    "tree": ("broadleaf_forest", "mixed_forest", "needleleaf_forest"),
    "wetland": ("grassland", "grass"),
    "river": ("lake", "sea"),
    "lake": ("river", "sea"),
    "sea": ("lake", "river"),
    "residential": ("grass", "paved", "grassland"),
    "commercial": ("paved", "road"),
    "road": ("paved", "rail"),
    "rail": ("bare_ground", "road", "paved"),
    "paved": ("road", "commercial"),
    "sports": ("grass", "grassland"),
    "extraction": ("bare_ground", "sand", "rock"),
}
"""What comes next to a class, the nearest first. Snow, ice and buildings are like nothing else."""

PAINTED: Mapping[str, tuple[int, int, int]] = {
    "river": (74, 86, 78),
    "lake": (58, 76, 80),
    "sea": (46, 72, 88),
    "snow_ice": (232, 236, 240),
}
"""sRGB of classes without a known relative, where the network was never shown their colour."""


@functools.lru_cache(maxsize=8)
def stand_ins(known: tuple[str, ...]) -> NDArray:
    """(256,) uint8: what a network is told of each class code; 0, unknown, of classes without a
    known relative.

    known : names of the classes that it was trained on; empty for all
    """
    table = np.arange(256, dtype=np.uint8)
    number = codes()
    for name, code in number.items() if known else ():
        found = next((each for each in (name, *RELATIVES.get(name, ())) if each in known), None)
        table[code] = 0 if found is None else number[found]
    return table


@functools.lru_cache(maxsize=8)
def paints(known: tuple[str, ...]) -> tuple[NDArray, NDArray]:
    """(256,) bool, which class codes a rule paints; and (256, 3) uint8, their colours. known :
    as of `stand_ins`"""
    table, colours = np.zeros(256, bool), np.zeros((256, 3), np.uint8)
    for name, colour in PAINTED.items():
        code = codes()[name]
        table[code], colours[code] = stand_ins(known)[code] == 0, colour
    return table, colours
