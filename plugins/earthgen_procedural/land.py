"""The stage `procedural.land`: the ground, buildings and measured canopies, one value per cell."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from earthgen.noise.philox import Noise
from earthgen.stages.block import Block, Field
from earthgen.stages.stage import AS_READ, Stage
from earthgen.terrain import ground
from earthgen.terrain.cover import class_code, fill_unknown_cover, is_class, raster_on, semantics_on
from earthgen.terrain.reach import Reach
from earthgen_procedural import buildings, lots, structures, surface_model
from earthgen_procedural.markings import pave_rims
from earthgen_procedural.parts import stack_solids
from geo_io.errors import FrameError
from geo_io.frame import Frame

if TYPE_CHECKING:
    from earthgen.stages.block import Inputs

LAND = "procedural.land"

COARSEST = 10.0
"""Metres: the largest voxels for which the rules work."""

HALO = Reach(120.0, 9)
"""How far around a window conditions are read; at least each of CHAINS."""

CHAINS = {
    "ground": ground.GROUND_REACH,
    "footprints": surface_model.ROOFS_REACH + buildings.FOOTPRINT_REACH,
    "plots": surface_model.ROOFS_REACH + buildings.PLOT_REACH,
    "lots": surface_model.THINGS_REACH + lots.REACH,
    "grown houses": buildings.GROWN_REACH,
    "structures": ground.GROUND_REACH + structures.REACH,
    "measured things": surface_model.THINGS_REACH
    + surface_model.ROOFS_REACH
    + ground.TERRAIN_REACH,
    "measured trees": surface_model.SEEN_REACH + ground.TERRAIN_REACH,
}
"""The reach of each chain of rules."""

HAS_DATA, SHOWS_TREES = 1, 2
"""Bits of the field `dsm_flags`: a surface model has data here, and it shows the trees."""

FIELDS = {
    "ground": Field("float32"),  # metres, absolute
    "cover": Field("uint8"),  # class codes, never 0; "building" only where one stands
    "roof": Field("float32"),  # metres, absolute: the top of what is built, NaN without any
    "roof_class": Field("uint8"),  # class of what is built: buildings, bridges, walls, hedges
    "object": Field("uint32"),  # number of the building, 0 without one
    "under": Field("float32"),  # metres, absolute: its underside in the air, NaN on the ground
    "lower": Field("float32"),  # metres, absolute: top of what is built under that, else NaN
    "lower_class": Field("uint8"),  # class of what is built under it
    "lower_object": Field("uint32"),  # number of what is built under it
    "canopy": Field("float32"),  # metres above ground: measured trees, 0 without one
    "dsm_flags": Field("uint8"),  # HAS_DATA and SHOWS_TREES
}


def land_stage(with_image: bool = False) -> Stage:
    """Return the stage `procedural.land`.

    Parameters
    ----------
    with_image : bool
        Whether to read the image too, which tells leaves from roofs in a surface model.
    """
    names = ("semantics", "dem", "dsm", "canopy", *(("image",) if with_image else ()))
    reads = tuple(HALO.read(name) for name in names)
    return Stage(LAND, AS_READ, FIELDS, make_land, reads)


def make_land(window: Frame, inputs: Inputs, noise: Noise) -> Block:
    """Return the land of `window` as a block of FIELDS.

    The conditions "semantics", "dem", "dsm", "canopy" and "image" are all optional.

    Raises
    ------
    FrameError
        If the voxels are too large for the rules.
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
    cover = pave_rims(outer, layer.structures, fill_unknown_cover(layer.ground_cover))
    land = ground.make_ground(
        outer,
        cover,
        raster_on(inputs, "dem", outer),
        raster_on(inputs, "dsm", outer),
        noise,
        layer.water,
    )
    things = layer.structures
    # Beds first: a ramp that leads to a bridge rises from its bed.
    bedded = structures.level_beds(outer, things, land.height, cover)
    land = replace(land, height=structures.raise_ramps(outer, things, bedded, cover))
    roofs, solids = buildings.make_buildings(outer, cover, layer.buildings, land, noise)
    made = structures.add_structures(
        outer, things, cover, land.height, roofs.top, roofs.object, solids, noise
    )
    cover = made.cover
    built = stack_solids(made.top, made.number, land.height, size, made.solids)
    height, top, number, under, lower, lower_number = (
        np.ascontiguousarray(a[inside])
        for a in (
            land.height,
            built.top,
            built.object,
            built.under,
            built.lower,
            built.lower_object,
        )
    )
    roof_class = made.class_of(number, ~np.isnan(top))
    canopy, flags = np.zeros(window.shape, np.float32), np.zeros(window.shape, np.uint8)
    if land.surface is not None:
        measured = surface_model.detect_objects(
            outer,
            layer.ground_cover,
            land.terrain,
            land.surface,
            ~np.isnan(built.top),
            noise,
            footprints=layer.footprints,
            image=raster_on(inputs, "image", outer),
        )
        surface = land.surface[inside]
        block = measured.block[inside] & np.isnan(top)
        top[block] = np.maximum(surface, height + np.float32(buildings.LOWEST))[block]
        number[block] = measured.block_object[inside][block]
        roof_class[block] = class_code("building")
        tree = measured.canopy[inside] & np.isnan(top) & (surface - height > surface_model.TALL)
        canopy[tree] = (surface - height)[tree]
        flags = (
            measured.has_data[inside] * np.uint8(HAS_DATA)
            | measured.shows_trees[inside] * np.uint8(SHOWS_TREES)
        ).astype(np.uint8)
    crowns = raster_on(inputs, "canopy", outer)
    if crowns is not None:
        crown = crowns[inside]
        known = np.isfinite(crown)
        stands = known & np.isnan(top) & (crown > surface_model.TALL)
        canopy[known] = np.where(stands, crown, np.float32(0))[known]
        flags[known] |= np.uint8(HAS_DATA | SHOWS_TREES)
    fields = {
        "ground": height,
        "cover": _yards(cover[inside], np.where(np.isnan(under), top, lower)),
        "roof": top,
        "roof_class": roof_class,
        "object": number,
        "under": under,
        "lower": lower,
        "lower_class": made.class_of(lower_number, ~np.isnan(lower)),
        "lower_object": lower_number,
        "canopy": canopy,
        "dsm_flags": flags,
    }
    return Block(window, fields)


def _yards(cover: NDArray, top: NDArray) -> NDArray:
    """Return `cover` with paving where the class is building but none stands: yards.

    `top` is that of what stands on the ground.
    """
    yard = is_class(cover, "building") & np.isnan(top)
    return np.where(yard, np.uint8(class_code("paved")), cover).astype(np.uint8)
