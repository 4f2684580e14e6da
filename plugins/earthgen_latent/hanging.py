"""What a map says hangs in the air: the undersides of bridges, roofs on posts, and parts.

A network gives heights alone. Its columns are solid from the ground up, but for those whose highest
building hangs: they are empty below its underside.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from earthgen.terrain.cover import class_code, fill_unknown_cover, is_class
from earthgen_latent.solid import Columns
from geo_io.frame import Frame
from geo_io.layers import Buildings, Semantics
from geo_io.semantics.rasterize import paint

SLAB = 0.4
"""Thickness of a roof on posts, metres."""

USUAL_ROOF = 5.0
"""Height of a roof on posts of unknown height, metres."""


def hanging_bases(frame: Frame, buildings: Buildings) -> NDArray:
    """Return the height below which columns are empty, (ny, nx) float32 metres, 0 for solid ones.

    Parts on top of each other are one solid. Where anything stands on the ground a column is solid.
    """
    base = np.zeros(frame.shape, np.float32)
    hangs = buildings.hangs
    if not hangs.any():
        return base
    form = buildings.form
    top = np.where(np.isfinite(buildings.height), buildings.height, USUAL_ROOF)
    low = np.where(form["base"] > 0, form["base"], np.maximum(top - SLAB, 0))
    # From the highest underside down, so that each part finds what it stands on.
    for k in sorted(np.flatnonzero(hangs), key=lambda k: (-low[k], -top[k])):
        part = frame.crop(buildings.footprint[k].bounds)
        if part is None:
            continue
        here = paint(part, buildings.footprint[k : k + 1], np.ones(1, np.uint8), 1) > 0
        window = base[frame.slices(part)]
        joins = (window == 0) | (top[k] >= window - frame.voxel_size)
        window[here & joins] = low[k]
    standing = buildings.footprint[~hangs]
    if len(standing):
        base[paint(frame, standing, np.ones(len(standing), np.uint8), 1) > 0] = 0
    return base


def cover_with_hanging(frame: Frame, layer: Semantics) -> NDArray:
    """Return the classes seen from above, (ny, nx) uint8: also buildings that hang in the air."""
    if not layer.buildings.hangs.any():
        return layer.cover
    hangs = hanging_bases(frame, layer.buildings) > 0
    return np.where(hangs, np.uint8(class_code("building")), layer.cover).astype(np.uint8)


def hang_columns(frame: Frame, layer: Semantics, columns: Columns) -> Columns:
    """Return columns that are empty below the undersides of what hangs, over open ground."""
    if not layer.buildings.hangs.any():
        return columns
    low = np.minimum(
        hanging_bases(frame, layer.buildings), columns.top - np.float32(frame.voxel_size)
    )
    hangs = (low > 0) & is_class(columns.semantic, "building")
    ground = fill_unknown_cover(layer.cover)
    return replace(
        columns,
        base=np.where(hangs, low, columns.base).astype(np.float32),
        ground_class=np.where(hangs, ground, columns.ground_class).astype(np.uint8),
    )
