"""What of each column the sources said, and what was added: `earthgen.world.decisions`.

It is decided for each cell on its own, from the sources at that place and the finished tile, so it
is the same whatever tiles, workers or crops a world is made with, and for every backend.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import shapely
from numpy.typing import NDArray

from earthgen.stages.backends import Condition
from earthgen.voxels.tile import Tile
from earthgen.world.decisions import FILLED, GENERATED, INFERRED, MAPPED
from geo_io.frame import Frame
from geo_io.layers import Raster, Semantics
from geo_io.legend import codes
from geo_io.semantics.rasterize import paint

TREE_REACH = 8.0
"""Metres around a mapped tree that its crown may cover."""

CROWN = 4.0
"""Diameter of the crown of a mapped tree whose map gives none, metres."""

RAISED = ("building", "tree", "shrub", "broadleaf_forest", "needleleaf_forest", "mixed_forest")
"""Classes that heights of a surface or a canopy show."""


def decide(tile: Tile, conditions: Mapping[str, Condition]) -> NDArray:
    """Return the decisions of a tile at level 1.

    Parameters
    ----------
    tile : Tile
        The finished tile.
    conditions : mapping of str to Condition
        The opened sources.

    Returns
    -------
    NDArray (ny, nx) uint8
        Codes of `earthgen.world.decisions.DECISIONS`, 0 where the tile has no data.
    """
    frame, made = tile.frame, tile.semantics
    reader = conditions.get("semantics")
    source = None if reader is None else reader.read(_around(frame))
    if isinstance(source, Semantics):
        land = source.crop(frame)
        out = np.where(land.cover == made, MAPPED, GENERATED).astype(np.uint8)
        out[land.cover == 0] = FILLED
        out[(made == codes()["tree"]) & _crowns(source, frame)] = MAPPED
        building = codes()["building"]
        unknown = np.isnan(land.buildings.height)
        if "dsm" not in conditions and unknown.any():
            footprints = _painted(land, frame, unknown)
            out[(made == building) & (out == MAPPED) & footprints] = INFERRED
    else:
        out = np.full(frame.shape, GENERATED, np.uint8)
    doubtful = (out != MAPPED) & np.isin(made, [codes()[name] for name in RAISED])
    if doubtful.any():
        for name in ("dsm", "canopy"):
            heights = _heights(conditions.get(name), frame)
            if heights is not None:
                least = tile.ground if name == "dsm" else 0.0
                with np.errstate(invalid="ignore"):
                    out[doubtful & (heights > least + 1.0)] = INFERRED
    out[made == 0] = 0
    return out


def _around(frame: Frame) -> Frame:
    """A frame with the mapped trees around it whose crowns reach into it."""
    return frame.pad(math.ceil(TREE_REACH / frame.voxel_size))


def _crowns(source: Semantics, frame: Frame) -> NDArray:
    """Where the crowns of mapped trees are, (ny, nx) bool."""
    trees = source.trees
    if not len(trees):
        return np.zeros(frame.shape, bool)
    radius = np.minimum(np.where(np.isnan(trees.crown), CROWN, trees.crown) / 2, TREE_REACH)
    discs = shapely.buffer(shapely.points(trees.xy), np.maximum(radius, frame.voxel_size))
    return np.asarray(paint(frame, discs, np.ones(len(discs), np.uint8), 1) > 0)


def _painted(land: Semantics, frame: Frame, chosen: NDArray) -> NDArray:
    """Where some of the buildings stand that no other covers, (ny, nx) bool."""
    values = np.where(chosen, 2, 1).astype(np.uint8)
    return np.asarray(paint(frame, land.buildings.footprint, values, 1) == 2)


def _heights(condition: Condition | None, frame: Frame) -> NDArray | None:
    """The heights of a condition on a frame, (ny, nx) metres."""
    layer = None if condition is None else condition.read(frame)
    return layer.data if isinstance(layer, Raster) and layer.data.ndim == 2 else None
