"""The stage `procedural.land`: the ground, and what stands on it besides plants, one value a
cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from earthgen.noise.philox import Noise
from earthgen.stages.block import Block, Field
from earthgen.stages.stage import Stage
from earthgen.terrain import ground
from earthgen.terrain.cover import code, is_class, known_cover, raster_on, semantics_on
from earthgen.terrain.reach import Reach
from earthgen_procedural import buildings, lots, measured
from geo_io.errors import FrameError
from geo_io.frame import Frame

if TYPE_CHECKING:
    from earthgen.stages.block import Inputs

LAND = "procedural.land"

WINDOW = 1024
"""Cells. The rules look far, so that large windows save more of what is computed around them
than they waste on small worlds."""

COARSEST = 10.0
"""Metres: the rules are made for voxels up to this size."""

HALO = Reach(114.0, 8)
"""Around a window, where conditions are read; each of CHAINS fits in."""

CHAINS = {
    "ground": ground.GROUND_REACH,
    "footprints": measured.ROOFS_REACH + buildings.FOOTPRINT_REACH,
    "plots": measured.ROOFS_REACH + buildings.PLOT_REACH,
    "lots": measured.THINGS_REACH + lots.REACH,
    "grown houses": buildings.GROWN_REACH,
    "measured things": measured.THINGS_REACH + measured.ROOFS_REACH + ground.TERRAIN_REACH,
    "measured trees": measured.SEEN_REACH + ground.TERRAIN_REACH,
}
"""How far each chain of rules reaches."""

KNOWN, SEEN = 1, 2
"""Bits of the field `sight`: a surface model has data, and it shows the trees."""

FIELDS = {
    "ground": Field("float32"),  # metres, absolute
    "cover": Field("uint8"),  # class codes, never 0; "building" only where one stands
    "roof": Field("float32"),  # metres, absolute: the top of a building, NaN where there is none
    "object": Field("uint32"),  # of the building, 0 where there is none
    "canopy": Field("float32"),  # metres above ground of trees in a surface model, 0 for none
    "sight": Field("uint8"),  # KNOWN and SEEN
}


def land_stage() -> Stage:
    reads = tuple(HALO.read(name) for name in ("semantics", "dem", "dsm"))
    return Stage(LAND, WINDOW, FIELDS, make_land, reads)


def make_land(window: Frame, inputs: Inputs, noise: Noise) -> Block:
    """The land of `window`; conditions: "semantics", "dem" and "dsm", none of which it must have.

    Raises FrameError for voxels too large for the rules.
    """
    size = window.voxel_size
    if size > COARSEST:
        raise FrameError(
            f"voxels of {size:g} m are too coarse for the procedural rules",
            f"use {COARSEST:g} m or less",
        )
    outer = window.pad(HALO.voxels(size))
    inside = outer.slices(window)
    layer = semantics_on(inputs, outer)
    cover = known_cover(layer.cover)
    land = ground.make_ground(
        outer, cover, raster_on(inputs, "dem", outer), raster_on(inputs, "dsm", outer), noise
    )
    roofs = buildings.make_buildings(outer, cover, layer.buildings, land, noise)
    height, top, number = (
        np.ascontiguousarray(a[inside]) for a in (land.height, roofs.top, roofs.object)
    )
    canopy, sight = np.zeros(window.shape, np.float32), np.zeros(window.shape, np.uint8)
    if land.surface is not None:
        built = ~np.isnan(roofs.top)
        found = measured.measure(outer, layer.cover, land.terrain, land.surface, built, noise)
        surface = land.surface[inside]
        block = found.block[inside] & np.isnan(top)
        top[block] = np.maximum(surface, height + np.float32(buildings.LOWEST))[block]
        number[block] = found.block_object[inside][block]
        tree = found.canopy[inside] & np.isnan(top) & (surface - height > measured.TALL)
        canopy[tree] = (surface - height)[tree]
        sight = (
            found.known[inside] * np.uint8(KNOWN) | found.seen[inside] * np.uint8(SEEN)
        ).astype(np.uint8)
    fields = {
        "ground": height,
        "cover": _yards(cover[inside], top),
        "roof": top,
        "object": number,
        "canopy": canopy,
        "sight": sight,
    }
    return Block(window, fields)


def _yards(cover: NDArray, top: NDArray) -> NDArray:
    """`cover` without buildings where none stands: there is a yard."""
    yard = is_class(cover, "building") & np.isnan(top)
    return np.where(yard, np.uint8(code("paved")), cover).astype(np.uint8)
