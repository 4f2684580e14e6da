"""A small place with a map, for tests of what exports say about a world.

It has houses with known roofs, of which some lie across the borders of tiles, a road below a crown,
and a lake.

Its heights are computed here and not by a backend, so that they are known exactly, and quickly.
"""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from shapely import affinity
from shapely.geometry import Point, box

from earthgen.jobs.job import make_job, stored_settings
from earthgen.voxels.heightfield import HEIGHT_MARGIN, surface_of_heights
from earthgen.voxels.objects import (
    BROADLEAF,
    FLAT_ROOF,
    NEEDLELEAF,
    PITCHED_ROOF,
    PLAIN_ROOF,
    object_number,
)
from earthgen.voxels.pyramid import tile_levels
from earthgen.voxels.splat_math import disc_rotations
from earthgen.voxels.tile import crop_tile, tile_from_voxels
from earthgen.voxels.voxels import Splats, Voxels
from earthgen.world.store import create_store
from earthgen.world.world import World, open_world
from geo_io.digest import digest_source
from geo_io.frame import Frame
from geo_io.legend import builtin_crosswalks, codes, palette
from geo_io.semantics.options import SemanticsOptions
from geo_io.semantics.reader import open_semantics

WEST, SOUTH = 684000.0, 5540000.0  # tiles of 64 m meet 32 m from both
WIDTH, HEIGHT = 96.0, 80.0
CRS = "EPSG:32632"
SH_C0 = 0.28209479177387814


def at(west: float, south: float, east: float, north: float):
    return box(WEST + west, SOUTH + south, WEST + east, SOUTH + north)


HOUSES = {
    # Across the border of two tiles, and turned.
    "gabled": (affinity.rotate(at(20, 6, 44, 16), 20), 9.0, 3.0),
    "flat": (at(66, 6, 82, 16), 12.0, 0.0),
    "hipped": (at(56, 54, 76, 64), 10.0, 4.0),
    "pyramidal": (at(76, 30, 88, 42), 8.0, 4.0),
    "skillion": (at(4, 66, 16, 74), 6.0, 2.0),
    # In four tiles, and not a rectangle.
    "ell": (at(24, 26, 44, 34).union(at(24, 26, 34, 46)), 13.0, 0.0),
}
"""Outline, height and height of the roof of each house."""

SHED = at(4, 6, 12, 14)
"""A house that is not on the map: 3 m."""

TREES = {
    "road": (Point(WEST + 51.5, SOUTH + 20.5), 4, BROADLEAF),
    "border": (Point(WEST + 32.0, SOUTH + 60.0), 4, NEEDLELEAF),
}
"""Mapped trees: place, radius of the crown in cells, kind. Crowns reach from 4 to 7 m."""

WILD = Point(WEST + 14.5, SOUTH + 52.5), 3
"""A tree that is not on the map."""

LAKE = at(84, 60, 96, 80)
ROAD = at(46, -5, 50, 85)


def write_map(path: Path) -> Path:
    """Write the map as a GeoPackage."""
    rows = [
        {"geometry": at(-5, -5, 101, 85), "landuse": "grass"},
        {"geometry": ROAD, "landuse": None, "highway": "residential"},
        {"geometry": LAKE, "natural": "water"},
    ]
    for name, (outline, height, _) in HOUSES.items():
        shape = {"roof:shape": "hipped"} if name == "hipped" else {}
        rows.append({"geometry": outline, "building": "yes", "height": height, **shape})
    gpd.GeoDataFrame(rows, crs=CRS).to_file(path, layer="areas", driver="GPKG")
    trees = [{"geometry": point, "natural": "tree", "height": 7.0} for point, *_ in TREES.values()]
    gpd.GeoDataFrame(trees, crs=CRS).to_file(path, layer="trees", driver="GPKG")
    return path


def frame() -> Frame:
    x, y = int(WEST), int(SOUTH)
    return Frame(CRS, 1.0, (x, x + int(WIDTH)), (y, y + int(HEIGHT)), (-16, 64), "EPSG:7837")


def terrain(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A slope with a bump: contours of 1 m that cross tiles, and a closed one."""
    bump = 4 * np.exp(-(((x - WEST - 60) / 9) ** 2) - ((y - SOUTH - 38) / 9) ** 2)
    return 100 + (x - WEST) * 0.05 + bump


def roof_height(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height of a house's roof above the ground at places within it."""
    outline, height, rise = HOUSES[name]
    if not rise:
        return np.full(x.shape, height)
    if name == "skillion":  # falls to the south
        _, south, _, north = outline.bounds
        return height - rise + rise * (y - south) / (north - south)
    centre = np.array(outline.centroid.coords[0])
    turn = np.radians(-20 if name == "gabled" else 0)
    u = (x - centre[0]) * np.cos(turn) - (y - centre[1]) * np.sin(turn)
    v = (x - centre[0]) * np.sin(turn) + (y - centre[1]) * np.cos(turn)
    long, wide = {"gabled": (12, 5), "hipped": (10, 5), "pyramidal": (6, 6)}[name]
    across = np.abs(v) / wide
    share = across if name == "gabled" else np.maximum(across, (np.abs(u) - long + wide) / wide)
    return height - rise * np.clip(share, 0, 1)


def numbers(source: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Object numbers of the houses and trees of the map, without their types."""
    options = SemanticsOptions(crosswalks=builtin_crosswalks())
    reader = open_semantics([f"{source}:areas", f"{source}:trees"], frame(), options)
    buildings, trees = reader.objects(frame())
    keys = dict(zip(buildings.key.tolist(), buildings.footprint, strict=True))
    houses = {
        name: int(object_number(key, 0))
        for name, (outline, _, _) in HOUSES.items()
        for key, footprint in keys.items()
        if footprint.intersection(outline).area > 0.9 * outline.area
    }
    plants = {
        name: int(object_number(trees.key[k], 0))
        for name, (point, _, _) in TREES.items()
        for k in range(len(trees))
        if np.hypot(*(trees.xy[k] - point.coords[0])) < 0.1
    }
    return houses, plants


def make(folder: Path, tile_size: int = 64, name: str = "world.zarr", taller: float = 0.0) -> World:
    """Make the place as a world that knows its map; the flat roof is `taller` by some metres."""
    source = folder / "map.gpkg"
    if not source.exists():
        write_map(source)
    houses, plants = numbers(source)
    whole = frame()
    wide = whole.pad(HEIGHT_MARGIN + 40)
    x, y = np.meshgrid(np.arange(*wide.x) + 0.5, np.arange(*wide.y)[::-1] + 0.5)
    ground = terrain(x, y).astype(np.float32)
    height = np.zeros(wide.shape, np.float32)
    cover = np.full(wide.shape, codes()["grass"], np.uint8)
    number = np.zeros(wide.shape, np.uint32)
    for area, land in ((ROAD, "road"), (LAKE, "lake")):
        cover[shapely.contains_xy(area, x, y)] = codes()[land]
    kinds = {"flat": FLAT_ROOF, "ell": FLAT_ROOF}
    for each, (outline, _, _) in HOUSES.items():
        own = shapely.contains_xy(outline, x, y)
        height[own] = roof_height(each, x[own], y[own]) + (taller if each == "flat" else 0.0)
        number[own] = houses[each] | kinds.get(each, PITCHED_ROOF)
        cover[own] = codes()["building"]
    own = shapely.contains_xy(SHED, x, y)
    height[own], number[own], cover[own] = 3.0, 4000 | PLAIN_ROOF, codes()["building"]
    crowns = [(*TREES[each], plants[each]) for each in TREES]
    crowns.append((*WILD, BROADLEAF, 8000))
    job = make_job(
        {
            "bbox": whole.bounds,
            "bbox_crs": CRS,
            "crs": CRS,
            "semantics": [f"{source}:areas", f"{source}:trees"],
            "tile_size": tile_size,
            "out": folder / name,
        }
    )
    digest = digest_source(source)
    inputs = [f"{digest} layer {layer}" for layer in ("areas", "trees")]
    attributes = {
        "identity": {"seed": 7, "inputs": {"semantics": inputs}},
        "provenance": {"ground": "measured (dem)", "made": "2026-11-30T10:00:00+00:00"},
        "settings": stored_settings(job),
    }
    store = create_store(folder / name, whole, tile_size, attributes, 0)
    for tile in store.frame.tiles(tile_size):
        part = store.tile_frame(*tile)
        # Whole cells of the coarsest level.
        window = part.coarsen(8)
        window = Frame(
            CRS,
            1.0,
            (window.x[0] * 8, window.x[1] * 8),
            (window.y[0] * 8, window.y[1] * 8),
            whole.z,
            whole.vertical_crs,
        )
        around = wide.slices(window.pad(HEIGHT_MARGIN))
        geometry = surface_of_heights(
            window, ground[around], height[around], cover[around], number[around]
        )
        voxels, offset, normal = geometry.voxels, geometry.offset, geometry.normal
        voxels, offset, normal = _with_crowns(voxels, offset, normal, crowns)
        colour = palette()[voxels.semantic] / 255
        splats = Splats(
            offset.astype(np.float32),
            np.full((len(voxels), 2), 0.5, np.float32),
            disc_rotations(normal.astype(np.float32)),
            np.ones(len(voxels), np.float32),
            ((colour - 0.5) / SH_C0).astype(np.float32)[:, None, :],
        )
        levels = tile_levels(tile_from_voxels(window, geometry.ground, voxels, splats))
        cut = [crop_tile(one, store.tile_frame(*tile, 2**n)) for n, one in enumerate(levels)]
        store.commit({tile: store.write(*tile, cut)})
    return open_world(folder / name)


def _with_crowns(voxels: Voxels, offset, normal, crowns):
    """Voxels with crowns that hang in the air from 4 to 7 m, two voxels of leaves a column."""
    rows = []
    for point, radius, kind, key in crowns:
        cx, cy = point.x, point.y
        for x in range(int(cx) - radius - 1, int(cx) + radius + 2):
            for y in range(int(cy) - radius - 1, int(cy) + radius + 2):
                if np.hypot(x + 0.5 - cx, y + 0.5 - cy) <= radius:
                    rows += [(x, y, 4, 16 | 15, key | kind), (x, y, 6, 32 | 15, key | kind)]
    more = np.array(rows, np.int64)
    inside = (more[:, 0] >= voxels.frame.x[0]) & (more[:, 0] < voxels.frame.x[1])
    inside &= (more[:, 1] >= voxels.frame.y[0]) & (more[:, 1] < voxels.frame.y[1])
    more = more[inside]
    n = len(more)
    xyz = np.concatenate([voxels.xyz, more[:, :3].astype(np.int32)])
    joined = Voxels(
        voxels.frame,
        xyz,
        np.concatenate([voxels.semantic, np.full(n, codes()["tree"], np.uint8)]),
        np.concatenate([voxels.faces, more[:, 3].astype(np.uint8)]),
        np.concatenate([voxels.object, more[:, 4].astype(np.uint32)]),
    )
    lift = np.zeros((n, 3))
    lift[:, 2] = np.where(more[:, 2] == 6, 0.5, 0.0)
    up = np.zeros((n, 3))
    up[:, 2] = np.where(more[:, 2] == 6, 1.0, -1.0)
    order = joined.order()
    return (
        joined.take(order),
        np.concatenate([offset, lift])[order],
        np.concatenate([normal, up])[order],
    )
