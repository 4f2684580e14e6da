"""The `procedural` geometry backend."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen.backends import Conditions
from earthgen.engine import padding
from earthgen.noise import Noise
from earthgen.surface import NORMAL_RADIUS, face_offsets, occupancy_normals, shear_normals, surface_voxels
from earthgen.voxels import FACES, TOP, Geometry, Voxels, concatenate_voxels
from earthgen_procedural import PROCEDURAL_VERSION, buildings, ground, lots, measured, vegetation
from earthgen_procedural.cover import code, is_class, known_cover, raster_on, semantics_on
from earthgen_procedural.fields import make_fields
from earthgen_procedural.filters import slopes
from earthgen_procedural.volume import LOW, Columns, fill, top_level
from geo_io.errors import FrameError
from geo_io.frame import Frame
from geo_io.layers import Semantics

HALO = 128.0
"""Metres around a window on which conditions are read. What stands in a column just outside the window, which decides
whether a wall is open, must come out the same in both windows; so the halo holds the longest chain of rules."""

COARSEST = 10.0
"""Metres: up to this voxel size the chains of rules fit into the halo."""

MARGIN = max(vegetation.CROWN_REACH, 2 * COARSEST)
"""Metres around a window in which everything must be right: for crowns and normals that reach in."""

CHAINS = {
    "ground": ground.GROUND_REACH,
    "footprints": buildings.REACH + ground.TERRAIN_REACH - buildings.SURROUNDINGS,
    "plots": 1.5 * buildings.PLOT + buildings.BASE_MEAN + ground.TERRAIN_REACH,
    "lots": lots.REACH,
    "plants": vegetation.REACH + measured.REACH + ground.TERRAIN_REACH,
}
"""How far each chain of rules reaches, metres."""

SIDES = FACES["-x"] | FACES["+x"] | FACES["-y"] | FACES["+y"]
LEVEL = FACES["-z"] | TOP

STRIP = 96
"""Rows of a window that are made solid at a time."""


class ProceduralGeometry:
    """Terrain, water, roads, buildings and plants by rules. See the modules beside this one."""

    name = "procedural"
    version = PROCEDURAL_VERSION
    window = 512
    halo = HALO
    requires: tuple[str, ...] = ()

    def __init__(self) -> None:
        for name, reach in CHAINS.items():
            if reach + MARGIN > HALO + COARSEST:  # the halo is rounded up to whole voxels
                raise FrameError(f"the rules for {name} reach {reach + MARGIN:g} m, the halo is {HALO:g} m")

    def generate(self, window: Frame, conditions: Conditions, noise: Noise) -> Geometry:
        """The geometry of `window`; conditions: "semantics", "dem" and "dsm", none of which it must have.

        Raises FrameError for voxels so large that the halo does not hold the rules' reach.
        """
        size = window.voxel_size
        if size > COARSEST:
            raise FrameError(
                f"voxels of {size:g} m are too coarse for the procedural rules", f"use {COARSEST:g} m or less"
            )
        outer = padding(window, HALO)
        layer = semantics_on(conditions, outer)
        cover = known_cover(layer.cover)
        land = ground.make_ground(
            outer, cover, raster_on(conditions, "dem", outer), raster_on(conditions, "dsm", outer), noise
        )
        roofs = buildings.make_buildings(outer, cover, layer.buildings, land, noise)

        # From here on only the window and what reaches into it.
        inner = window.pad(math.ceil(vegetation.CROWN_REACH / size) + NORMAL_RADIUS + 1)
        columns, plants = _columns(outer, inner, layer, cover, land, roofs, noise)
        return _surface(window, inner, columns, plants)


def _columns(
    outer: Frame, inner: Frame, layer: Semantics, cover: NDArray, land: ground.Ground, roofs: buildings.Roofs,
    noise: Noise,
) -> tuple[Columns, vegetation.Plants]:  # fmt: skip
    """What stands on `inner`, and the plants around."""
    size = inner.voxel_size
    # Plants look beyond the window: at trees of the source, at walls, at the edges of woods.
    wide = inner.pad(min(math.ceil(vegetation.MAPPED / size), inner.x[0] - outer.x[0]))
    part, inside = outer.slices(wide), wide.slices(inner)
    cover, height = cover[part], land.height[part]
    top, number = roofs.top[part].copy(), roofs.object[part].copy()
    seen = known = np.zeros(wide.shape, bool)
    canopy = np.zeros(wide.shape, np.float32)
    canopy_object = np.zeros(wide.shape, np.uint32)
    if land.surface is not None:
        found = measured.measure(outer, layer.cover, land.height, land.surface, ~np.isnan(roofs.top), noise)
        block = found.block[part] & np.isnan(top)
        top[block], number[block] = land.surface[part][block], found.block_object[part][block]
        seen, known = found.seen[part], found.known[part]
        canopy = np.where(np.isnan(top), found.canopy[part], np.float32(0.0))
        canopy_object = found.canopy_object[part]

    built = ~np.isnan(top)
    # Where the land cover says building and none stands, there is a yard.
    cover = np.where(is_class(cover, "building") & ~built, np.uint8(code("paved")), cover)
    site = vegetation.Site(wide, cover, built, seen, known)
    field = make_fields(wide, cover, layer.parcel[part], noise)
    plants = vegetation.plant(site, field, layer.trees, noise)
    low = vegetation.low_growth(site, field, noise)
    semantic = np.where(built, np.uint8(code("building")), low.semantic)
    above = np.where(built, np.nan_to_num(top) - height, low.height).astype(np.float32)
    columns = Columns(
        ground=height,
        top=above,
        ground_class=np.where(built, semantic, cover),
        semantic=semantic,
        object=np.where(built, number, low.object),
        canopy=canopy,
        canopy_base=np.where(canopy > 0, np.maximum(0.35 * canopy, canopy - 9.0), 0.0).astype(np.float32),
        canopy_class=measured.canopy_class(cover),
        canopy_object=canopy_object,
    )
    return Columns(*(np.ascontiguousarray(getattr(columns, f.name)[inside]) for f in fields(columns))), plants


def _surface(window: Frame, inner: Frame, columns: Columns, plants: vegetation.Plants) -> Geometry:
    """The surface of the columns and plants in `window`; they lie on `inner`."""
    size = window.voxel_size
    level = top_level(columns.top, size, window.z[1])
    normals = _column_normals(columns.ground, columns.top, columns.object, columns.semantic, size)
    east, north = slopes(columns.ground, size)
    pad = NORMAL_RADIUS
    edge = inner.y[1] - window.y[1]
    parts: list[tuple[Voxels, NDArray, NDArray]] = []
    for last in range(window.ny, 0, -STRIP):
        first = max(last - STRIP, 0)
        strip = replace(window, y=(window.y[1] - last, window.y[1] - first))
        rows = (edge + first - pad, edge + last + pad)
        volume, objects = fill(inner, rows, columns, level, plants)
        volume, objects = (a[:, edge - pad : edge + window.nx + pad] for a in (volume, objects))
        voxels = surface_voxels(strip, volume, objects, LOW, pad)
        row = inner.y[1] - 1 - voxels.xyz[:, 1]
        col = voxels.xyz[:, 0] - inner.x[0]
        tops = (voxels.xyz[:, 2] == level[row, col]) & (voxels.faces & TOP != 0)
        rough = ~tops | (voxels.faces & SIDES != 0)
        normal = shear_normals(occupancy_normals(voxels, volume, LOW, pad, rough), east[row, col], north[row, col])
        offset = face_offsets(voxels.faces, size)
        _finish(
            normal, offset, tops, voxels.xyz, voxels.faces, voxels.semantic == code("building"), row, col,
            normals, columns.top, columns.object, level, size,
        )  # fmt: skip
        parts.append((voxels, normal, offset))
    voxels = concatenate_voxels(window, [part[0] for part in parts])
    here = columns.ground[inner.slices(window)]
    normal, offset = (np.concatenate([part[n] for part in parts]) for n in (1, 2))
    return Geometry(window, np.ascontiguousarray(here), voxels, offset, normal)


@numba.njit(cache=True, nogil=True)
def _column_normals(ground, top, number, semantic, size):  # type: ignore[no-untyped-def]
    """(ny, nx, 3) float32 unit normals of the columns' exact tops, each from neighbours of the same thing."""
    rows, cols = ground.shape
    out = np.zeros((rows, cols, 3), np.float32)
    for row in range(rows):
        for col in range(cols):
            here = ground[row, col] + top[row, col]
            slope = np.zeros(2)
            for axis in range(2):
                total, count = 0.0, 0
                for side in (-1, 1):
                    r, c = (row, col + side) if axis == 0 else (row - side, col)
                    if r < 0 or r >= rows or c < 0 or c >= cols:
                        continue
                    same = number[r, c] == number[row, col] and semantic[r, c] == semantic[row, col]
                    if not same and (number[r, c] != 0 or number[row, col] != 0):
                        continue
                    step = ground[r, c] + top[r, c] - here
                    if abs(top[r, c] - top[row, col]) > 1.6 * size:
                        continue
                    total += side * step
                    count += 1
                if count > 0:
                    slope[axis] = total / (count * size)
            length = np.sqrt(1.0 + slope[0] * slope[0] + slope[1] * slope[1])
            out[row, col, 0], out[row, col, 1], out[row, col, 2] = -slope[0] / length, -slope[1] / length, 1.0 / length
    return out


@numba.njit(cache=True, nogil=True)
def _finish(normal, offset, tops, xyz, faces, building, row, col, normals, top, number, level, size):  # type: ignore[no-untyped-def]
    """Exact normals and offsets where a voxel is its column's top; upright walls."""
    for n in range(xyz.shape[0]):
        r, c = row[n], col[n]
        if not tops[n]:
            if building[n] and faces[n] & LEVEL == 0:
                flat = np.sqrt(normal[n, 0] ** 2 + normal[n, 1] ** 2)
                if flat > 0.2:
                    normal[n, 0], normal[n, 1], normal[n, 2] = normal[n, 0] / flat, normal[n, 1] / flat, 0.0
            continue
        offset[n, 0], offset[n, 1] = 0.0, 0.0
        offset[n, 2] = top[r, c] - (xyz[n, 2] + 0.5) * size
        a, b, z = normals[r, c, 0], normals[r, c, 1], normals[r, c, 2]
        # Sides that drop to another thing make an edge; the steps of one roof do not.
        drop_x, drop_y = 0.0, 0.0
        for side in range(4):
            if faces[n] & (1 << side) == 0:
                continue
            dr, dc = ((0, -1), (0, 1), (1, 0), (-1, 0))[side]
            same = number[r + dr, c + dc] == number[r, c]
            if not same or level[r, c] - level[r + dr, c + dc] > 2:
                drop_x += dc
                drop_y -= dr
        if drop_x != 0.0 or drop_y != 0.0:
            # One disc stands for the edge of the roof and the wall below it: it chamfers the edge.
            far = np.sqrt(drop_x * drop_x + drop_y * drop_y)
            offset[n, 0], offset[n, 1] = 0.25 * size * drop_x / far, 0.25 * size * drop_y / far
            offset[n, 2] -= 0.2 * size
            a, b = a + 0.75 * drop_x / far, b + 0.75 * drop_y / far
            length = np.sqrt(a * a + b * b + z * z)
            a, b, z = a / length, b / length, z / length
        normal[n, 0], normal[n, 1], normal[n, 2] = a, b, z
