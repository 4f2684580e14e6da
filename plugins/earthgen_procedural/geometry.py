"""The `procedural` geometry backend: the land, plants on it, and the surface of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earthgen.noise.philox import Noise
from earthgen.stages.backends import GeometryBackend
from earthgen.stages.block import Block
from earthgen.stages.stage import Stage
from earthgen.terrain.cover import semantics_on
from earthgen.terrain.reach import Reach, require_fit
from earthgen.voxels.heightfield import column_tops, surface_of_columns
from earthgen.voxels.surface import NORMAL_RADIUS
from earthgen.voxels.voxels import GEOMETRY_FIELDS, Geometry, Voxels, concatenate_voxels
from earthgen_procedural import PROCEDURAL_VERSION, land, surface_model, vegetation
from earthgen_procedural.fields import Fields, make_fields
from earthgen_procedural.markings import marked_cells
from earthgen_procedural.volume import LOW, Columns, fill_volume
from geo_io.frame import Frame

if TYPE_CHECKING:
    from earthgen.stages.block import Inputs

SURFACE = "procedural.surface"

STRIDE, MARGIN = 512, 16
"""Core of a window, and the margin with which levels of detail need no neighbour; voxels."""

SOLID_MARGIN = NORMAL_RADIUS + 1
"""Cells around a window that are filled too: for normals, and for slopes at those cells."""

HALO = Reach(35.0, 7)
"""How far around a window the land and the mapped trees are read; at least each of CHAINS."""

CHAINS = {
    "plants": Reach(0, SOLID_MARGIN) + vegetation.CROWN_REACH + vegetation.TRUNK_REACH,
    "low growth": Reach(0, SOLID_MARGIN) + vegetation.LOW_REACH,
}
"""The reach of each chain of rules."""

STRIP = 96
"""Rows of a window that are filled at a time, to save memory."""


class ProceduralGeometry(GeometryBackend):
    """Terrain, water, roads, buildings and plants by rules.

    `land` makes ground and buildings, `vegetation` plants, `volume` solid voxels of all.
    """

    name = "procedural"
    version = PROCEDURAL_VERSION

    def __init__(self) -> None:
        require_fit(land.CHAINS, land.HALO)
        require_fit(CHAINS, HALO)
        self._with_image = False

    def check_inputs(self, surveys: Mapping[str, Mapping[str, Any]]) -> None:
        """Note whether a surface model comes with an image; every input is accepted."""
        self._with_image = {"dsm", "image"} <= surveys.keys()

    def stages(self) -> Sequence[Stage]:
        """Return two stages: the land in large windows, the surface in smaller ones."""
        reads = (HALO.read(land.LAND), HALO.read("semantics"))
        surface = Stage(SURFACE, STRIDE + 2 * MARGIN, GEOMETRY_FIELDS, make_surface, reads, STRIDE)
        return land.land_stage(self._with_image), surface


def make_surface(window: Frame, inputs: Inputs, noise: Noise) -> Block:
    """Return the surface of `window` as a block of GEOMETRY_FIELDS.

    Inputs are the land around and, if the job has it, "semantics" with parcels and trees.
    """
    size = window.voxel_size
    wide = window.pad(HALO.voxels(size))
    block: Block = inputs[land.LAND]
    layer = semantics_on(inputs, wide)
    cover, flags = block["cover"], block["dsm_flags"]
    site = vegetation.Site(
        wide,
        cover,
        ~np.isnan(block["roof"]),
        flags & land.SHOWS_TREES != 0,
        (flags & land.HAS_DATA != 0) | marked_cells(wide, layer.structures),
        block["roof_class"],
    )
    field = make_fields(wide, cover, layer.parcel, noise)
    plants = vegetation.plant(site, field, layer.trees, noise)
    foot = site.at(block["ground"], plants.x, plants.y)
    inner = window.pad(SOLID_MARGIN)
    return _surface(window, inner, _columns(inner, block, site, field, noise), plants, foot).block()


def _columns(
    inner: Frame, block: Block, site: vegetation.Site, field: Fields, noise: Noise
) -> Columns:
    """Return the columns of `inner` without trees and bushes."""
    around = inner.pad(vegetation.LOW_REACH.voxels(inner.voxel_size))
    low = vegetation.low_growth(site.crop(around), field.part(site.frame.slices(around)), noise)
    part = around.slices(inner)
    height, semantic, number = (
        np.ascontiguousarray(getattr(low, f.name)[part]) for f in fields(low)
    )
    land_here = block.crop(inner)
    cover, roof, canopy, under, lower, roof_class, lower_class = (
        np.ascontiguousarray(land_here[name])
        for name in ("cover", "roof", "canopy", "under", "lower", "roof_class", "lower_class")
    )
    ground = np.ascontiguousarray(land_here["ground"])
    built = ~np.isnan(roof)
    semantic = np.where(built, roof_class, semantic).astype(np.uint8)
    hangs = ~np.isnan(under)
    stands = np.where(hangs, lower_class, semantic)
    canopied = bool((canopy > 0).any())
    return Columns(
        ground=ground,
        top=np.where(built, np.nan_to_num(roof) - ground, height).astype(np.float32),
        ground_class=np.where(built & ~(hangs & np.isnan(lower)), stands, cover).astype(np.uint8),
        semantic=semantic,
        lower_semantic=stands.astype(np.uint8),
        object=np.where(built, land_here["object"], number),
        under=np.where(hangs, under - ground, 0.0).astype(np.float32),
        lower=np.where(np.isnan(lower), 0.0, lower - ground).astype(np.float32),
        lower_object=np.ascontiguousarray(land_here["lower_object"]),
        canopy=canopy,
        canopy_base=np.where(canopy > 0, np.maximum(0.35 * canopy, canopy - 9.0), 0.0).astype(
            np.float32
        ),
        canopy_class=surface_model.canopy_class(cover),
        canopy_object=surface_model.crown_objects(inner, cover, noise)
        if canopied
        else np.zeros(inner.shape, np.uint32),
    )


def _surface(
    window: Frame, inner: Frame, columns: Columns, plants: vegetation.Plants, foot: NDArray
) -> Geometry:
    """Return the surface of the columns, which lie on `inner`, and of the plants, in `window`."""
    tops = column_tops(
        inner, columns.ground, columns.top, columns.object, columns.semantic, window.z[1]
    )
    pad = NORMAL_RADIUS
    edge = inner.y[1] - window.y[1]
    parts: list[tuple[Voxels, NDArray, NDArray]] = []
    for last in range(window.ny, 0, -STRIP):
        first = max(last - STRIP, 0)
        strip = replace(window, y=(window.y[1] - last, window.y[1] - first))
        rows = (edge + first - pad, edge + last + pad)
        volume, objects = fill_volume(inner, rows, columns, tops.level, plants, foot)
        volume, objects = (a[:, edge - pad : edge + window.nx + pad] for a in (volume, objects))
        parts.append(surface_of_columns(strip, volume, objects, LOW, tops))
    voxels = concatenate_voxels(window, [part[0] for part in parts])
    here = columns.ground[inner.slices(window)]
    normal, offset = (np.concatenate([part[n] for part in parts]) for n in (1, 2))
    return Geometry(window, np.ascontiguousarray(here), voxels, offset, normal)
