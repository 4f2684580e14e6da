"""The `procedural` texture backend: the colour of each voxel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen.engine.graph import GEOMETRY
from earthgen.noise.fields import gradient_noise
from earthgen.noise.philox import Noise
from earthgen.stages.backends import TextureBackend
from earthgen.stages.block import Block
from earthgen.stages.stage import Read, Stage
from earthgen.terrain.cover import (
    CODES,
    class_code,
    fill_unknown_cover,
    raster_on,
    semantics_on,
    surface_table,
)
from earthgen.terrain.reach import Reach
from earthgen.voxels.object_colours import (
    CLADDING,
    PLASTER,
    leaf_table,
    mapped_colours,
    roof_table,
)
from earthgen.voxels.objects import BROADLEAF, HALL_ROOF, PLAIN_ROOF, structure_classes
from earthgen.voxels.surface import surface_splats
from earthgen.voxels.voxels import SIDES, TOP, WALL, Geometry, Voxels, texture_fields
from earthgen_procedural import PROCEDURAL_VERSION
from earthgen_procedural.ground_colour import GROUND_REACH, colour_ground
from earthgen_procedural.markings import mark_ground, pave_rims
from earthgen_procedural.palette import BARK, GLASS, ground_table, structure_table
from geo_io.frame import Frame

if TYPE_CHECKING:
    from earthgen.stages.block import Inputs

TEXTURE = "procedural.texture"

EDGE = 1
"""Cells around a window that are coloured with it."""

STOREY = 3.0  # metres
WINDOW_SILL, WINDOW_TOP = 0.9, 2.3  # metres above the floor of a storey
WINDOW_STEP, WINDOW_WIDTH = 3.0, 1.4  # metres along a wall
HALL_SILL, HALL_TOP = 2.6, 3.5  # halls have a band of windows
ONCE = 1e6  # metres: a period that does not repeat
TRUNK_VOXEL = 1.6  # metres: trunks are brown if voxels are smaller than this

_OTHER, _BUILDING, _PLANT, _STRUCTURE = 0, 1, 2, 3


class ProceduralTexture(TextureBackend):
    """Colours by class, object and place, or of an image for voxels visible from above."""

    name = "procedural"
    version = PROCEDURAL_VERSION

    def stages(self, geometry: Stage) -> Sequence[Stage]:
        """Return one stage; it reads one cell beyond its window, for slopes at the edge."""
        reads = (
            Read(GEOMETRY, cells=EDGE),
            (Reach(0, EDGE) + GROUND_REACH).read("semantics"),
            Read("image", cells=EDGE),
        )
        return (Stage(TEXTURE, geometry.step, texture_fields(self.sh_degree), colour, reads),)


def colour(window: Frame, inputs: Inputs, noise: Noise) -> Block:
    """Return one disc per voxel of "geometry" in `window` as a block of `texture_fields`.

    The conditions "semantics" and "image" are optional.
    """
    frame = window.pad(EDGE)
    geometry = Geometry.of(inputs[GEOMETRY])
    voxels = geometry.voxels
    outer = frame.pad(GROUND_REACH.voxels(frame.voxel_size))
    layer = semantics_on(inputs, outer)
    cover = pave_rims(outer, layer.structures, fill_unknown_cover(layer.ground_cover))
    painted = colour_ground(outer, cover, layer.parcel, noise)
    mark_ground(outer, layer.structures, cover, painted)
    ground = painted[outer.slices(frame)]
    mapped = mapped_colours(layer.buildings, voxels)
    rgb = _colour(frame, voxels, geometry.normal, ground, noise, mapped)
    image = raster_on(inputs, "image", frame)
    if image is not None:
        _drape(rgb, frame, voxels, image)
    opacity = np.where(_group()[voxels.semantic] == _PLANT, np.float32(0.98), np.float32(1.0))
    splats = surface_splats(geometry, np.clip(rgb, 0.0, 255.0), opacity)
    inside = np.flatnonzero(voxels.inside(window))
    return splats.take(inside).block(voxels.take(inside, window))


def _group() -> NDArray:
    """Return how voxels above the ground are coloured, by class: (CODES,) uint8."""
    table = np.zeros(CODES, np.uint8)
    table[class_code("building")] = _BUILDING
    table[surface_table("wood", "tree", "shrub")] = _PLANT
    table[structure_classes()] = _STRUCTURE
    return table


def _colour(
    frame: Frame,
    voxels: Voxels,
    normal: NDArray,
    ground: NDArray,
    noise: Noise,
    mapped: tuple[NDArray, NDArray] | None,
) -> NDArray:
    """Return the sRGB of each voxel, 0 to 255: (n, 3) float32."""
    xyz = voxels.xyz
    row, col = frame.y[1] - 1 - xyz[:, 1], xyz[:, 0] - frame.x[0]
    group = np.where(voxels.object == 0, _OTHER, _group()[voxels.semantic])
    structure = np.flatnonzero(group == _STRUCTURE)
    thing = np.flatnonzero((group == _BUILDING) | (group == _PLANT))
    # All voxels of an object get the same words of the object, and each has words of its own.
    of_object = noise.stream("objects").bits(voxels.object[thing], 0)
    of_voxel = noise.stream("voxels").bits(xyz[thing, 0], xyz[thing, 1], xyz[thing, 2])[:, :2]
    weather = gradient_noise(noise.stream("weather"), frame, 7.0)
    stand = gradient_noise(noise.stream("weather"), frame, 60.0, 1)
    rgb = np.ascontiguousarray(ground[row, col], np.float32)
    sides = (voxels.faces & SIDES != 0) & (voxels.faces & TOP == 0)
    rgb[sides] *= np.float32(0.86)
    wall = np.flatnonzero(voxels.faces & WALL)
    if len(wall):
        grain = noise.stream("walls").bits(xyz[wall, 0], xyz[wall, 1], xyz[wall, 2])[:, 0]
        share = (grain * np.float32(2.0**-32))[:, None]
        dark, light = (ground_table()[voxels.semantic[wall], tone] for tone in range(2))
        rgb[wall] = np.float32(0.92) * (dark + share * (light - dark))
    if len(structure):
        grain = noise.stream("voxels").bits(*xyz[structure].T)[:, 0] * np.float32(2.0**-32)
        of_structure = noise.stream("objects").bits(voxels.object[structure], 0)[:, 1]
        rgb[structure] = _structure_colours(
            voxels.semantic[structure],
            voxels.object[structure],
            normal[structure, 2],
            grain - np.float32(0.5),
            of_structure * np.float32(2.0**-32) - np.float32(0.5),
        )
    _paint(
        rgb,
        thing,
        group,
        voxels.object,
        voxels.faces,
        xyz,
        normal.astype(np.float32),
        row,
        col,
        weather,
        stand,
        of_object,
        of_voxel,
        frame.voxel_size,
        roof_table(),
        leaf_table(),
        PLASTER,
        CLADDING,
        np.array(GLASS, np.float32),
        np.array(BARK, np.float32),
        *(mapped or (np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8))),
    )
    return rgb


def _structure_colours(
    semantic: NDArray, number: NDArray, up: NDArray, grain: NDArray, tint: NDArray
) -> NDArray:
    """Return the colours of bridges, walls and masts: (n, 3) float32.

    A way over a bridge has the colour of its class on top; all else that of its material.
    """
    dark, light = structure_table()[number & 3].transpose(1, 0, 2)
    rgb = dark + (0.5 + tint)[:, None] * (light - dark)
    way = (up > 0.5) & (semantic != class_code("paved"))
    plain = ground_table()[semantic, :2].mean(axis=1)
    rgb = np.where(way[:, None], plain, rgb)
    return np.asarray(rgb * (1.0 + 0.1 * grain)[:, None], np.float32)


@numba.njit(cache=True, nogil=True, inline="always")
def _covered(x, period, low, high):  # type: ignore[no-untyped-def]
    whole = np.floor(x / period)
    return whole * (high - low) + min(max(x - whole * period, low), high) - low


@numba.njit(cache=True, nogil=True, inline="always")
def _share(x, size, period, low, high):  # type: ignore[no-untyped-def]
    """Return the share of [x - size / 2, x + size / 2] in the bands [low, high) of each period."""
    return (
        _covered(x + 0.5 * size, period, low, high) - _covered(x - 0.5 * size, period, low, high)
    ) / size


@numba.njit(cache=True, nogil=True)
def _paint(  # type: ignore[no-untyped-def]
    rgb,
    thing,
    group,
    number,
    faces,
    xyz,
    normal,
    row,
    col,
    weather,
    stand,
    of_object,
    of_voxel,
    size,
    roofs,
    leaves,
    plaster,
    cladding,
    glass,
    bark,
    roof_rgba,
    wall_rgba,
):
    unit = 2.0**-32
    for m in range(thing.size):
        n = thing[m]
        kind = number[n] & 3
        pick = of_object[m, 0] & 7
        grain = of_voxel[m, 0] * unit - 0.5
        tint = of_object[m, 1] * unit - 0.5
        warm = of_object[m, 2] * unit - 0.5
        worn = weather[row[n], col[n]]
        if group[n] == _PLANT:
            # A voxel open on exactly its four sides is a trunk, or the tip of a conifer.
            if (
                faces[n] == SIDES
                and size < TRUNK_VOXEL
                and (kind == BROADLEAF or xyz[n, 2] * size < 2.5)
            ):
                for c in range(3):
                    rgb[n, c] = bark[c] * (1.0 + 0.2 * grain)
                continue
            if kind == BROADLEAF:
                # Three of four trees have the colour that prevails in the stand.
                prevailing = int((stand[row[n], col[n]] + 1.0) * 3.99) & 7
                pick = pick if of_object[m, 3] & 3 == 0 else prevailing
            light = 1.0 + 0.20 * tint + 0.15 * grain + 0.05 * worn
            light *= 0.87 + 0.13 * normal[n, 2]  # leaves inside a crown are darker
            for c in range(3):
                rgb[n, c] = leaves[kind, pick, c] * light
            rgb[n, 0] *= 1.0 + 0.10 * warm
            continue
        # Tops, and the steps of steep roofs; walls are upright.
        if normal[n, 2] > 0.3:
            if roof_rgba.shape[0] > 0 and roof_rgba[n, 3] > 0:  # weathered, but that of the map
                light = 1.0 + 0.07 * grain + 0.05 * worn
                for c in range(3):
                    rgb[n, c] = roof_rgba[n, c] * light
                continue
            light = 1.0 + 0.14 * tint + 0.07 * grain + 0.05 * worn
            for c in range(3):
                rgb[n, c] = roofs[kind, pick, c] * light
            continue
        pick = (of_object[m, 0] >> 8) & 7
        painted = wall_rgba.shape[0] > 0 and wall_rgba[n, 3] > 0
        own = 0.0 if painted else of_object[m, 3] * unit - 0.5
        light = 1.0 + 0.10 * own + 0.04 * grain + 0.02 * worn
        height = (xyz[n, 2] + 0.5) * size
        along = xyz[n, 1] * size if abs(normal[n, 0]) > abs(normal[n, 1]) else xyz[n, 0] * size
        pane = 0.0
        if kind == HALL_ROOF:
            pane = 0.7 * _share(height, size, ONCE, HALL_SILL, HALL_TOP)
        elif kind != PLAIN_ROOF:
            step = WINDOW_STEP + 0.8 * warm
            left, right = 0.5 * (step - WINDOW_WIDTH), 0.5 * (step + WINDOW_WIDTH)
            pane = 0.9 * _share(height, size, STOREY, WINDOW_SILL, WINDOW_TOP)
            pane *= _share(along + 3.0 * tint, size, step, left, right)
        if height < 0.5 * size + 0.1 and kind != PLAIN_ROOF:
            light *= 0.90  # the plinth
            pane *= 0.6
        shade = 1.0 + 0.3 * (of_voxel[m, 1] * unit - 0.5)
        for c in range(3):
            wall = cladding[pick, c] if kind in (HALL_ROOF, PLAIN_ROOF) else plaster[pick, c]
            if painted:
                wall = np.float32(wall_rgba[n, c])
            rgb[n, c] = wall * light * (1.0 - pane) + glass[c] * shade * pane


def _drape(rgb: NDArray, frame: Frame, voxels: Voxels, image: NDArray) -> None:
    """Give voxels visible from above the image's colour; lower leaves of a crown a darker one.

    image : (ny, nx, 4) uint8 RGBA
    """
    xyz = voxels.xyz
    row, col = frame.y[1] - 1 - xyz[:, 1], xyz[:, 0] - frame.x[0]
    last = np.ones(len(voxels), bool)  # voxels are sorted by column, then upwards
    last[:-1] = (xyz[1:, 0] != xyz[:-1, 0]) | (xyz[1:, 1] != xyz[:-1, 1])
    highest = np.zeros(frame.shape, np.uint32)
    highest[row[last], col[last]] = voxels.object[last]
    leaf = (
        (_group()[voxels.semantic] == _PLANT)
        & (voxels.object != 0)
        & (voxels.object == highest[row, col])
    )
    seen = image[row, col, 3] > 0
    for mask, factor in ((leaf & ~last, 0.85), (last, 1.0)):
        take = mask & seen
        rgb[take] = image[row[take], col[take], :3].astype(np.float32) * np.float32(factor)
