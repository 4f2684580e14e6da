"""The `procedural` geometry backend: the land, and on it plants and the surface of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen.blocks import Block
from earthgen.noise import Noise
from earthgen.stages import Stage
from earthgen.surface import NORMAL_RADIUS, face_offsets, occupancy_normals, shear_normals, surface_voxels
from earthgen.voxels import FACES, GEOMETRY_FIELDS, TOP, Geometry, Voxels, concatenate_voxels
from earthgen_procedural import PROCEDURAL_VERSION, land, measured, vegetation
from earthgen_procedural.cover import code, semantics_on
from earthgen_procedural.fields import Fields, make_fields
from earthgen_procedural.filters import slopes
from earthgen_procedural.reach import Reach, require_fit
from earthgen_procedural.volume import LOW, Columns, fill, top_level
from geo_io.frame import Frame

if TYPE_CHECKING:
    from earthgen.stages import Inputs

SURFACE = "procedural.surface"

STRIDE, MARGIN = 512, 16
"""Voxels: the core of a window, and what is added around it so that levels of detail need no neighbour."""

SOLID = NORMAL_RADIUS + 1
"""Cells around a window that must be made solid, for normals, and for slopes at those cells."""

HALO = Reach(35.0, 7)
"""Around a window, where the land and the mapped trees are read; each of CHAINS fits in."""

CHAINS = {
    "plants": Reach(0, SOLID) + vegetation.CROWN_REACH + vegetation.TRUNK_REACH,
    "low growth": Reach(0, SOLID) + vegetation.LOW_REACH,
}
"""How far each chain of rules reaches."""

SIDES = FACES["-x"] | FACES["+x"] | FACES["-y"] | FACES["+y"]
LEVEL = FACES["-z"] | TOP

STRIP = 96
"""Rows of a window that are made solid at a time."""


class ProceduralGeometry:
    """Terrain, water, roads, buildings and plants by rules. See the modules beside this one."""

    name = "procedural"
    version = PROCEDURAL_VERSION
    requires: tuple[str, ...] = ()

    def __init__(self) -> None:
        require_fit(land.CHAINS, land.HALO)
        require_fit(CHAINS, HALO)

    def stages(self) -> Sequence[Stage]:
        """The land in large windows, for its rules look far, then the surface in smaller ones."""
        reads = (HALO.read(land.LAND), HALO.read("semantics"))
        surface = Stage(SURFACE, STRIDE + 2 * MARGIN, GEOMETRY_FIELDS, make_surface, reads, STRIDE)
        return land.land_stage(), surface


def make_surface(window: Frame, inputs: Inputs, noise: Noise) -> Block:
    """The surface of `window`, from the land around; the condition "semantics", if given, has parcels and trees."""
    size = window.voxel_size
    wide = window.pad(HALO.voxels(size))
    block: Block = inputs[land.LAND]
    layer = semantics_on(inputs, wide)
    cover, sight = block["cover"], block["sight"]
    site = vegetation.Site(wide, cover, ~np.isnan(block["roof"]), sight & land.SEEN != 0, sight & land.KNOWN != 0)
    field = make_fields(wide, cover, layer.parcel, noise)
    plants = vegetation.plant(site, field, layer.trees, noise)
    foot = site.at(block["ground"], plants.x, plants.y)
    inner = window.pad(SOLID)
    return _surface(window, inner, _columns(inner, block, site, field, noise), plants, foot).block()


def _columns(inner: Frame, block: Block, site: vegetation.Site, field: Fields, noise: Noise) -> Columns:
    """What stands on `inner`, but plants."""
    around = inner.pad(vegetation.LOW_REACH.voxels(inner.voxel_size))
    low = vegetation.low_growth(site.crop(around), field.part(site.frame.slices(around)), noise)
    part = around.slices(inner)
    height, semantic, number = (np.ascontiguousarray(getattr(low, f.name)[part]) for f in fields(low))
    land_here = block.crop(inner)
    cover, roof, canopy = (np.ascontiguousarray(land_here[name]) for name in ("cover", "roof", "canopy"))
    ground = np.ascontiguousarray(land_here["ground"])
    built = ~np.isnan(roof)
    semantic = np.where(built, np.uint8(code("building")), semantic)
    canopied = bool((canopy > 0).any())
    return Columns(
        ground=ground,
        top=np.where(built, np.nan_to_num(roof) - ground, height).astype(np.float32),
        ground_class=np.where(built, semantic, cover),
        semantic=semantic,
        object=np.where(built, land_here["object"], number),
        canopy=canopy,
        canopy_base=np.where(canopy > 0, np.maximum(0.35 * canopy, canopy - 9.0), 0.0).astype(np.float32),
        canopy_class=measured.canopy_class(cover),
        canopy_object=measured.crown_objects(inner, cover, noise) if canopied else np.zeros(inner.shape, np.uint32),
    )


def _surface(window: Frame, inner: Frame, columns: Columns, plants: vegetation.Plants, foot: NDArray) -> Geometry:
    """The surface of the columns, which lie on `inner`, and of the plants, in `window`."""
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
        volume, objects = fill(inner, rows, columns, level, plants, foot)
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
