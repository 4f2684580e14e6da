"""Land classes that a network was not trained on: a similar class replaces them, or a rule
colours them.

A class that did not occur in the training has a random embedding, and its result is arbitrary.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from earthgen.terrain.cover import surface_table
from geo_io.legend import codes

SIMILAR: Mapping[str, tuple[str, ...]] = {
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
"""Classes that are similar to a class, the nearest first. Snow, ice and buildings have none."""

PAINTED: Mapping[str, tuple[int, int, int]] = {
    "river": (66, 92, 92),
    "lake": (50, 82, 94),
    "sea": (42, 76, 98),
    "snow_ice": (232, 236, 240),
}
"""sRGB of classes that a rule colours: water always, of which any training has too little to
learn more than the colour of its banks, and snow where it was not trained."""


@functools.lru_cache(maxsize=8)
def substitute_classes(trained: tuple[str, ...]) -> NDArray:
    """Return the class code that a network gets for each class code.

    Parameters
    ----------
    trained : tuple of str
        Names of the classes that it was trained on; empty for all.

    Returns
    -------
    NDArray (256,) uint8
        0, unknown, for classes without a trained similar class.
    """
    table = np.arange(256, dtype=np.uint8)
    number = codes()
    for name, code in number.items() if trained else ():
        similar = (each for each in (name, *SIMILAR.get(name, ())) if each in trained)
        table[code] = number.get(next(similar, ""), 0)
    return table


@functools.lru_cache(maxsize=8)
def painted_classes(trained: tuple[str, ...]) -> tuple[NDArray, NDArray]:
    """Return which class codes a rule colours, (256,) bool, and their sRGB, (256, 3) uint8.

    The parameter is that of `substitute_classes`.
    """
    table, colours = np.zeros(256, bool), np.zeros((256, 3), np.uint8)
    water = surface_table("water")
    for name, colour in PAINTED.items():
        code = codes()[name]
        table[code], colours[code] = water[code] or substitute_classes(trained)[code] == 0, colour
    return table, colours
