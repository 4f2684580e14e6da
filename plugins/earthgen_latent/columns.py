"""The stage `latent.columns`: the ground and the conditions of each column.

Networks run on cells of several sizes. They read the conditions from here, because the engine would
average the conditions of the job to their cells.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from earthgen.models.height_state import OBJECT_MAPS
from earthgen.noise.philox import Noise
from earthgen.stages.block import Block, Field
from earthgen.stages.stage import Read, Stage
from earthgen.terrain.cover import fill_unknown_cover, on_surface, raster_on, semantics_on
from earthgen.terrain.ground import GROUND_REACH, make_ground
from earthgen_latent.buildings import told_buildings
from earthgen_latent.hanging import cover_with_hanging
from earthgen_latent.usual_heights import stand_heights
from geo_io.frame import Frame

if TYPE_CHECKING:
    from earthgen.stages.block import Inputs

COLUMNS = "latent.columns"

WINDOW = 512
"""Cells. The rules for the ground need wide margins, which large windows waste less on."""

FIELDS = {
    # Metres, absolute.
    "ground": Field("float32"),
    # Class codes, 0 unknown.
    "cover": Field("uint8"),
    # Metres of a surface model above the ground, NaN unknown; 0 on water.
    "above": Field("float32"),
    # RGBA, alpha 0 unknown.
    "image": Field("uint8", (4,)),
    # 1 if the job has land cover at all: where not, its class is hidden and not unmapped.
    "mapped": Field("uint8"),
}

OBJECT_FIELDS = {
    # Height of the building or of the stand of trees, metres, 0 for none; and the shape of the
    # building (earthgen.models.height_state).
    "told": Field("float32"),
    "objects": Field("float16", (OBJECT_MAPS,)),
    # Metres that the told roof lies below that height, NaN where none is told.
    "roof": Field("float32"),
}
"""Fields for a flow on heights by object."""


def columns_stage(objects: bool, window: int = WINDOW) -> Stage:
    """Return the stage, with windows of so many columns, and with `OBJECT_FIELDS` if `objects`."""
    reads = (*(GROUND_REACH.read(name) for name in ("semantics", "dem", "dsm")), Read("image"))
    fields = FIELDS | OBJECT_FIELDS if objects else FIELDS
    return Stage(COLUMNS, window, fields, partial(make_columns, objects=objects), reads)


def make_columns(window: Frame, inputs: Inputs, noise: Noise, objects: bool = True) -> Block:
    """Return ground and conditions of the columns of `window`; every condition may be absent."""
    outer = window.pad(GROUND_REACH.voxels(window.voxel_size))
    inside = outer.slices(window)
    layer = semantics_on(inputs, outer)
    cover = cover_with_hanging(outer, layer)
    land = make_ground(
        outer,
        fill_unknown_cover(layer.cover),
        raster_on(inputs, "dem", outer),
        raster_on(inputs, "dsm", outer),
        noise,
        layer.water,
    )
    dense: dict[str, NDArray] = {}
    if objects:
        told, shapes, roof = told_buildings(outer, layer, cover, noise)
        dense["roof"] = np.ascontiguousarray(roof[inside])
        told = np.maximum(told, stand_heights(outer, cover, noise))
        dense["told"] = np.ascontiguousarray(told[inside])
        dense["objects"] = np.ascontiguousarray(shapes[inside]).astype(np.float16)
    ground, cover = np.ascontiguousarray(land.height[inside]), np.ascontiguousarray(cover[inside])
    above = np.full(window.shape, np.nan, np.float32)
    if land.surface is not None:
        above = np.maximum(land.surface[inside] - ground, np.float32(0))
        above[on_surface(cover, "water")] = 0
    image = raster_on(inputs, "image", window)
    return Block(
        window,
        {
            "ground": ground,
            "cover": cover,
            "above": above,
            "image": _rgba(image, window),
            "mapped": np.full(window.shape, inputs.get("semantics") is not None, np.uint8),
            **dense,
        },
    )


def _rgba(image: NDArray | None, window: Frame) -> NDArray:
    if image is None:
        return np.zeros((*window.shape, 4), np.uint8)
    return np.ascontiguousarray(image, np.uint8)
