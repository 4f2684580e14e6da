"""The procedural backends: the conformance kit, and the properties of their rules."""

from __future__ import annotations

import functools
import math
import pickle
import pkgutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from earthgen.engine.compute import Engine
from earthgen.engine.graph import Graph, make_chain
from earthgen.noise import fields as noise_fields
from earthgen.noise.philox import Noise
from earthgen.stages.block import Block
from earthgen.stages.stage import Stage
from earthgen.terrain import filters
from earthgen.terrain.reach import Reach, require_fit, widest_reach
from earthgen.testing.backends import GeometryConformance, StageWindows, TextureConformance
from earthgen.testing.worlds import (
    FormulaCondition,
    count_holes,
    same_splats,
    same_voxels,
    sample_conditions,
)
from earthgen.voxels import objects
from earthgen.voxels.pyramid import LEVEL_HALO
from earthgen.voxels.splat_math import SH_C0
from earthgen.voxels.voxels import FACES, TOP, Geometry, Splats
from earthgen_procedural import (
    buildings,
    earthgen_geometry_backends,
    earthgen_info,
    earthgen_texture_backends,
    footprints,
    geometry,
    land,
    lots,
    surface_model,
)
from earthgen_procedural.geometry import ProceduralGeometry
from earthgen_procedural.ground_colour import row_share
from earthgen_procedural.texture import ProceduralTexture
from geo_io.errors import FrameError
from geo_io.frame import Frame
from geo_io.layers import Raster, Trees
from geo_io.legend import codes
from tests.helpers.procedural_scene import buildings as footprint_layer
from tests.helpers.procedural_scene import (
    conditions,
    generate,
    hash_place,
    padded,
    paint,
    patchwork,
    places,
    rectangle,
    run,
    village,
    window,
)

CODE = codes()
SMALL = 96
"""Edge of the windows of most tests, voxels; results do not depend on it."""


def small(voxel_size: float = 1.0, tx: int = 7149, ty: int = 57752) -> Frame:
    return window(tx, ty, voxel_size, SMALL)


def surface(made: Geometry) -> NDArray:
    """(ny, nx) float32: absolute height of the topmost surface."""
    xyz = made.voxels.xyz
    out = np.full(made.frame.shape, -np.inf, np.float32)
    row, col = made.frame.y[1] - 1 - xyz[:, 1], xyz[:, 0] - made.frame.x[0]
    height = (xyz[:, 2] + 0.5) * made.frame.voxel_size + made.offset[:, 2] + made.ground[row, col]
    np.maximum.at(out, (row, col), height)
    return out


def topmost(made: Geometry, values: NDArray) -> NDArray:
    """(ny, nx): `values` of the topmost voxel of each column."""
    xyz = made.voxels.xyz
    out = np.zeros(made.frame.shape, values.dtype)
    out[made.frame.y[1] - 1 - xyz[:, 1], xyz[:, 0] - made.frame.x[0]] = (
        values  # sorted upwards: the last one stays
    )
    return out


def rgb(splats: Splats) -> NDArray:
    return np.asarray((splats.sh[:, 0] * SH_C0 + 0.5) * 255)


class SmallGeometry(ProceduralGeometry):
    """The backend with windows small enough for many of them."""

    def stages(self) -> Sequence[Stage]:
        first, last = super().stages()
        return first, replace(last, window=128 + 2 * last.margin, stride=128)


@functools.cache
def layers_by_frame() -> dict[str, FormulaCondition]:
    """The kit's conditions, each read once per frame."""
    return {
        name: FormulaCondition(functools.cache(condition.read))
        for name, condition in sample_conditions().items()
    }


class TestGeometryConformance(GeometryConformance):
    frame = replace(GeometryConformance.frame, x=(341_700, 341_860), y=(2_769_400, 2_769_580))

    def conditions(self) -> dict[str, FormulaCondition]:
        return layers_by_frame()

    def backend(self) -> ProceduralGeometry:
        return SmallGeometry()


class TestTextureConformance(TextureConformance):
    frame = replace(GeometryConformance.frame, x=(341_700, 341_800), y=(2_769_400, 2_769_580))

    def conditions(self) -> dict[str, FormulaCondition]:
        return layers_by_frame()

    def backend(self) -> ProceduralGeometry:
        return SmallGeometry()

    def texture(self) -> ProceduralTexture:
        return ProceduralTexture()


def test_plugin_offers_both_backends() -> None:
    assert earthgen_info().licence == "Apache-2.0" and earthgen_info().name == "procedural"
    [shape], [colour] = earthgen_geometry_backends(), earthgen_texture_backends()
    assert pkgutil.resolve_name(shape.create) is ProceduralGeometry
    assert pkgutil.resolve_name(colour.create) is ProceduralTexture
    assert ProceduralGeometry().stages() and ProceduralTexture().sh_degree == 0
    with pytest.raises(TypeError):
        ProceduralGeometry(roofs="gold")


def test_chains_of_rules_fit_the_halos(monkeypatch: pytest.MonkeyPatch) -> None:
    for chains, halo in ((land.CHAINS, land.HALO), (geometry.CHAINS, geometry.HALO)):
        require_fit(chains, halo)
        assert (
            widest_reach(*chains.values()).metres > halo.metres - 1
            and widest_reach(*chains.values()).cells == halo.cells
        )
    monkeypatch.setitem(land.CHAINS, "lots", land.HALO + Reach(0, 1))
    with pytest.raises(FrameError, match="lots"):
        ProceduralGeometry()


def test_stages_read_what_their_rules_reach() -> None:
    first, last = ProceduralGeometry().stages()
    (colour,) = ProceduralTexture().stages(last)
    assert last.margin >= LEVEL_HALO and last.step == colour.step and colour.margin == 0
    assert {read.source for read in first.reads} == {"semantics", "dem", "dsm", "canopy"}
    assert [read.halo(0.5) for read in last.reads] == [77, 77]
    chain = make_chain((first, last), (colour,))
    graph = Graph(chain, Frame("EPSG:32632", 1.0, (0, 4096), (0, 4096)), 512)
    assert graph.groups == {"tile": (first.name, last.name, colour.name)}, "one task a tile"
    for stage in (first, *chain.stages):
        assert pickle.loads(pickle.dumps(stage)) == stage


def with_dsm(frame: Frame) -> dict[str, Any]:
    """The village with a surface model that shows crowns and a large building."""
    layers = village(frame)
    x, y = places(frame)
    crowns = np.maximum(0, 9 - 0.5 * ((x % 9 - 4.5) ** 2 + (y % 8 - 4) ** 2)) * (
        np.sin(x / 45) > 0.3
    )
    house = 12.0 * ((abs(x % 190 - 95) < 22) & (abs(y % 170 - 85) < 13))
    surface_model = layers["dem"].data + np.maximum(crowns, house).astype(np.float32)
    return {**layers, "dsm": Raster(frame, surface_model.astype(np.float32))}


def no_heights(frame: Frame) -> dict[str, Any]:
    layers = village(frame)
    del layers["dem"]
    return layers


def no_dem(frame: Frame) -> dict[str, Any]:
    layers = patchwork(frame)
    del layers["dem"]
    return layers


def no_dsm(frame: Frame) -> dict[str, Any]:
    layers = patchwork(frame)
    del layers["dsm"]
    return layers


def same_blocks(left: Block, right: Block) -> bool:
    """Whether two blocks hold the same bits."""
    sparse = (
        left.xyz is None
        if right.xyz is None
        else np.array_equal(left.xyz, right.xyz)
        and all(np.array_equal(left.sparse[name], values) for name, values in right.sparse.items())
    )
    return sparse and all(
        np.array_equal(left.dense[name], values, equal_nan=values.dtype.kind == "f")
        for name, values in right.dense.items()
    )


def at(place: tuple[float, float], size: float, cells: int) -> Frame:
    """A window of `cells` cells around a place in metres."""
    x, y = (round(value / size) for value in place)
    return Frame(
        "EPSG:32632", size, (x - cells // 2, x + cells // 2), (y - cells // 2, y + cells // 2)
    )


@pytest.mark.parametrize("scene", [patchwork, no_dem, no_dsm, with_dsm, no_heights])
@pytest.mark.parametrize("size", [0.5, 1.0, 2.0, 5.0, 10.0])
def test_halos_hold_the_rules(scene: Any, size: float) -> None:
    """What is farther than a stage's halo changes nothing: a window in a larger one has the same
    bits.

    So windows agree wherever they overlap, and it does not matter how large they are.
    """
    frame = at((686336.0, 5544192.0), size, 48)
    more = math.ceil(min(70.0 * max(size, 1.0), 170.0) / size)
    layers = scene(padded(frame.pad(more)))
    first, last = ProceduralGeometry().stages()
    (colour,) = ProceduralTexture().stages(last)
    around = frame.pad(geometry.HALO.voxels(size))
    narrow, wide = run(first, around, layers), run(first, around.pad(more), layers)
    assert same_blocks(narrow, wide.crop(around))
    narrow = run(last, frame, {**layers, first.name: narrow})
    wide = run(last, frame.pad(more), {**layers, first.name: wide})
    assert same_blocks(narrow, wide.crop(frame))
    inner = frame.pad(-1)
    assert same_blocks(
        run(colour, inner, {**layers, "geometry": narrow}),
        run(colour, inner.pad(more), {**layers, "geometry": wide}).crop(inner),
    )


@pytest.mark.parametrize(("scene", "size"), [(village, 1.0), (with_dsm, 1.0), (patchwork, 2.0)])
def test_neighbouring_windows_agree(scene: Any, size: float) -> None:
    """Through the engine: the margins of window (0, 0) are the core of window (1, 0), to the
    last bit."""
    corner = at((686336.0, 5544192.0), size, 64)
    layers_of = functools.cache(scene)
    conditions_of = {
        name: FormulaCondition(lambda frame, name=name: layers_of(frame)[name])
        for name in layers_of(corner)
    }
    engine = Engine(corner, SmallGeometry(), ProceduralTexture(), conditions_of, Noise(1))
    blocks = StageWindows(engine, corner)
    left, right = blocks.of(geometry.SURFACE), blocks.of(geometry.SURFACE, 1)
    meet = left.frame.intersection(right.frame)
    assert meet is not None and meet.nx == 2 * geometry.MARGIN
    assert len(left.crop(meet).sparse["faces"]) and same_blocks(left.crop(meet), right.crop(meet))
    assert count_holes(Geometry.of(left).voxels) == 0
    alone = generate(left.frame, layers_of(padded(left.frame)))
    assert same_blocks(left, alone.block()), "an engine adds nothing"


@pytest.mark.parametrize("size", [0.5, 10.0])
def test_coarse_and_fine_windows_are_sound(size: float) -> None:
    frame = at((686336.0, 5544192.0), size, 96)
    made = generate(frame, village(padded(frame)))
    assert len(made.voxels) and count_holes(made.voxels) == 0
    splats = paint(made, village(padded(frame)))
    assert np.isfinite(splats.sh).all() and (rgb(splats) > 0).mean() > 0.99


def test_mapped_trees_with_the_widest_crowns_stand_whole_in_every_window() -> None:
    """A crown bulges beyond its radius: its voxels stand in windows that do not hold its trunk."""
    frame = small()
    spot = np.array([[frame.x[0] - 9.6, frame.y[0] + 40.5]])
    trees = Trees(spot, np.array([20.0]), np.array([16.0]), np.array([77], np.uint64))
    made = [
        generate(part, conditions(padded(part), CODE["paved"], trees=trees, dem=0.0))
        for part in (frame, replace(frame, x=(frame.x[0] - 40, frame.x[1])))
    ]
    mine = made[1].voxels.take(made[1].voxels.inside(frame), frame)
    assert same_voxels(mine, made[0].voxels)


def test_voxels_too_coarse_for_the_halo_are_refused() -> None:
    frame = small(20.0)
    with pytest.raises(FrameError, match="coarse"):
        generate(frame, conditions(padded(frame), 0))


def test_fresh_instances_give_the_same_bits_and_seeds_other_worlds() -> None:
    frame = small()
    layers = village(padded(frame))
    first, second, other = (generate(frame, layers, seed) for seed in (5, 5, 6))
    assert same_voxels(first.voxels, second.voxels) and np.array_equal(first.normal, second.normal)
    assert not same_voxels(first.voxels, other.voxels)
    assert same_splats(paint(first, layers, 5), paint(second, layers, 5))
    assert not np.array_equal(
        paint(first, layers, 5).sh, paint(first, layers, 5, texture_seed=6).sh
    )


@pytest.mark.parametrize(
    "frame", [small(), small(tx=-1, ty=-1), small(0.5, -3, 2), small(10.0, 0, 0)]
)
def test_nothing_known_is_open_ground(frame: Frame) -> None:
    made = generate(frame, {})
    assert made.voxels.inside(frame).all() and (made.voxels.semantic > 0).all()
    ground = made.voxels.object == 0
    assert (made.voxels.semantic[ground] == CODE["grassland"]).all()
    assert np.isfinite(made.ground).all() and np.ptp(made.ground) < 120
    assert np.array_equal(made.voxels.order(), np.arange(len(made.voxels)))
    green = rgb(paint(made, {}))[made.voxels.faces == TOP]
    assert green[:, 1].mean() > green[:, 0].mean() > green[:, 2].mean()


@pytest.mark.parametrize("name", [land for land in codes() if land != "building"])
def test_each_class_alone(name: str) -> None:
    frame = window(7149 * 2, 57752 * 2, 1.0, 48)
    layers = conditions(padded(frame), CODE[name])
    made = generate(frame, layers)
    assert count_holes(made.voxels) == 0
    assert (made.voxels.semantic == CODE[name]).any()
    splats = paint(made, layers)
    assert np.isfinite(splats.sh).all()


def test_ground_is_the_dem_away_from_water_and_roads() -> None:
    frame = small()
    layers = village(padded(frame))
    layers["semantics"].cover[:] = CODE["grassland"]
    made = generate(frame, layers)
    assert np.array_equal(made.ground, layers["dem"].crop(frame).data)


def test_relief_is_keyed_by_seed_and_smooth() -> None:
    frame = small()
    hills = generate(frame, conditions(padded(frame), 0)).ground
    assert np.ptp(hills) > 0.5 and np.abs(np.diff(hills, axis=0)).max() < 1.0
    assert not np.allclose(hills, generate(frame, conditions(padded(frame), 0), 2).ground)


def lake(frame: Frame, radius: float) -> tuple[NDArray, NDArray]:
    middle = small()
    x, y = places(frame)
    dx, dy = x - (middle.x[0] + SMALL / 2), y - (middle.y[0] + SMALL / 2)
    bumps = 3 * np.sin(dx / 7) * np.cos(dy / 9) + 0.04 * dx
    cover = np.where(dx**2 + dy**2 < radius**2, CODE["lake"], CODE["grassland"])
    return cover, (200 + bumps).astype(np.float32)


def test_water_is_level_and_below_its_banks() -> None:
    frame = small()
    cover, dem = lake(padded(frame), 20.0)
    made = generate(frame, conditions(padded(frame), cover, dem=dem))
    wet = topmost(made, made.voxels.semantic) == CODE["lake"]
    assert wet.sum() > 1000
    assert np.ptp(made.ground[wet]) < 0.15, "the DEM varies by 7 m there"
    distance, _ = filters.nearest_cell(wet, 2)
    bank = (distance > 0) & np.isfinite(distance)
    level = np.median(made.ground[wet])
    assert made.ground[bank].min() > level and made.ground[bank].max() < level + 2.2
    up = made.normal[(made.voxels.semantic == CODE["lake"]) & (made.voxels.faces == TOP)]
    assert np.median(up[:, 2]) > 0.999


def test_roads_are_level_across() -> None:
    frame = small()
    x, y = places(padded(frame))
    along = abs(x - frame.x[0] - SMALL / 2) < 3
    slope = (0.3 * (x - frame.x[0]) + 0.0 * y).astype(np.float32)
    made = generate(
        frame,
        conditions(padded(frame), np.where(along, CODE["road"], CODE["bare_ground"]), dem=slope),
    )
    road = topmost(made, made.voxels.semantic) == CODE["road"]
    assert np.ptp(made.ground[road]) < 0.6 < np.ptp(slope[padded(frame).slices(frame)][road])


def test_dsm_without_dem_gives_the_ground_below_buildings() -> None:
    frame = small()
    around = padded(frame)
    x, y = places(around)
    ground = 100 + 0.05 * (x - frame.x[0]) + 0.03 * (y - frame.y[0])
    middle = (frame.x[0] + SMALL / 2, frame.y[0] + SMALL / 2)
    house = (abs(x - middle[0]) < 9) & (abs(y - middle[1]) < 6)
    tree = (x - middle[0] - 25) ** 2 + (y - middle[1] - 25) ** 2 < 3**2
    cover = np.where(house, CODE["building"], CODE["grassland"])
    made = generate(frame, conditions(around, cover, dsm=ground + 8 * house + 6 * tree))
    error = made.ground - ground[around.slices(frame)]
    assert np.sqrt((error**2).mean()) < 0.2 and abs(error).max() < 1.0
    assert abs(surface(made) - made.ground)[house[around.slices(frame)]].min() > 7.0


def one_house(
    degrees: float,
    height: float,
    length: float = 16.0,
    width: float = 9.0,
    dem: Any = 50.0,
    shift: float = 0.0,
) -> tuple[Geometry, shapely.Polygon]:
    frame = small()
    middle = (frame.x[0] + SMALL / 2 + shift, frame.y[0] + SMALL / 2 + shift)
    house = rectangle(*middle, length, width, degrees)
    layers = conditions(
        padded(frame), CODE["grass"], houses=footprint_layer([house], [height]), dem=dem
    )
    return generate(frame, layers), house


@settings(max_examples=12, deadline=None)
@given(st.floats(0, 180), st.floats(2.5, 25), st.floats(8, 40), st.floats(0, 1))
def test_given_heights_are_kept(degrees: float, height: float, length: float, shift: float) -> None:
    made, _ = one_house(degrees, height, length, shift=shift)
    built = topmost(made, made.voxels.semantic) == CODE["building"]
    assert built.any()
    # Half a voxel: the cell nearest to a ridge stands up to half a cell beside it.
    assert abs(surface(made)[built].max() - 50.0 - height) <= 0.5 + 1e-3


def house_stock(n: int) -> buildings.Stock:
    keys = np.array([hash_place(7.0 * k, 3.0 * k) for k in range(n)], np.uint64)
    shapes = np.array([rectangle(20.0 * k, 0, 14, 9, 30) for k in range(n)], object)
    return buildings.Stock(footprints.outlines(shapes), np.full(n, 8.0), keys)


def test_ridges_run_along_the_long_side() -> None:
    stock = house_stock(60)
    box = footprints.rectangles(stock.lines)
    assert (
        np.allclose(np.degrees(box.angle) % 180, 30)
        and np.allclose(box.length, 7)
        and np.allclose(box.width, 4.5)
    )
    none = np.zeros(60, bool)
    shapes = buildings.shape_roofs(
        Noise(3).stream("x"), stock.key, box, stock.height, none, np.full(60, 4.5)
    )
    assert {buildings.FLAT, buildings.GABLED, buildings.HIPPED} == set(shapes.roof.tolist())
    assert np.allclose(shapes.eaves + shapes.rise, 8.0)
    # On the lattice: the highest cells of a gabled roof lie along the axis of the long side.
    for degrees in (0, 35, 90, 140):
        made, house = one_house(degrees, 8.0, 18.0, 9.0)
        top = surface(made) - 50
        built = topmost(made, made.voxels.semantic) == CODE["building"]
        if np.ptp(top[built]) < 1.5:
            continue  # drawn flat
        ridge = built & (top > top[built].max() - 0.8)
        rows, cols = np.nonzero(ridge)
        (middle,) = house.centroid.coords
        x = made.frame.x[0] + cols + 0.5 - middle[0]
        y = made.frame.y[1] - 1 - rows + 0.5 - middle[1]
        turn = np.radians(degrees)
        along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        assert np.abs(across).max() < 2.5 and np.ptp(along) > np.ptp(across)


def test_roofs_are_level_on_a_slope() -> None:
    x, _ = places(padded(small()))
    made, _ = one_house(0, 30.0, 20.0, 12.0, dem=0.2 * (x - small().x[0]))
    built = topmost(made, made.voxels.semantic) == CODE["building"]
    top = surface(made)[built]
    if np.ptp(top) < 1.0:  # drawn flat: the edges are chamfered by a fifth of a voxel
        assert np.ptp(top) < 0.45
    assert abs(top.max() - made.ground[built].mean() - 30.0) < 0.6


def test_cover_wins_over_footprints() -> None:
    frame = small()
    around = padded(frame)
    middle = (frame.x[0] + SMALL / 2, frame.y[0] + SMALL / 2)
    layers = conditions(
        around, CODE["grass"], houses=footprint_layer([rectangle(*middle, 20, 20)], [9.0]), dem=0.0
    )
    x, _ = np.broadcast_arrays(*places(around))
    layers["semantics"].cover[x < middle[0]] = CODE["grass"]
    made = generate(frame, layers)
    built = topmost(made, made.voxels.semantic) == CODE["building"]
    assert built.sum() == 200 and (x[around.slices(frame)][built] > middle[0]).all()


def test_building_cells_without_footprints_are_built_too() -> None:
    frame = small()
    around = padded(frame)
    x, y = places(around)
    block = (abs(x - frame.x[0] - 48) < 30) & (abs(y - frame.y[0] - 48) < 14)
    made = generate(
        frame, conditions(around, np.where(block, CODE["building"], CODE["paved"]), dem=10.0)
    )
    height = surface(made) - 10
    inside = block[around.slices(frame)]
    assert (height[inside] > 2.0).all() and height[inside].max() < 30
    assert len(np.unique(made.voxels.object[made.voxels.semantic == CODE["building"]])) > 2, (
        "a row of houses"
    )


def test_houses_grow_where_people_live() -> None:
    frame = window()
    around = padded(frame)
    x, _ = places(around)
    road = abs(x - frame.x[0] - 256) < 3
    cover = np.where(road, CODE["road"], CODE["residential"]) + np.zeros(around.shape, int)
    grown = lots.grow(around, cover.astype(np.uint8), np.zeros(around.shape, bool), Noise(4))
    homes = grown.take(~grown.annex)
    assert 600 < len(homes) * 1e6 / (around.area_km2 * 1e6) < 2500, "houses a km2"
    shapes = [shapely.Polygon(corner) for corner in homes.corner]
    tree = shapely.STRtree(shapes)
    pairs = tree.query(shapes, predicate="overlaps")
    assert pairs.shape[1] == 0, "no two houses overlap"
    # Houses at the road stand along or across it.
    middle = homes.corner.mean(axis=1)
    near = abs(middle[:, 0] - frame.x[0] - 256) < 16
    edge = homes.corner[near, 1] - homes.corner[near, 0]
    turn = np.degrees(np.arctan2(edge[:, 1], edge[:, 0])) % 90
    assert near.sum() > 10 and (np.minimum(turn, 90 - turn) < 3).mean() > 0.9
    street = shapely.box(frame.x[0] + 253, around.y[0], frame.x[0] + 259, around.y[1])
    assert not any(shape.intersects(street) for shape in shapes)


def test_nothing_grows_beside_mapped_buildings_or_where_a_dsm_sees() -> None:
    frame = small()
    around = padded(frame)
    cover = np.full(around.shape, CODE["residential"], np.uint8)
    assert len(lots.grow(around, cover, np.ones(around.shape, bool), Noise(4))) == 0
    rows, cols = around.shape
    cover[rows // 2, cols // 2] = CODE["building"]
    grown = lots.grow(around, cover, np.zeros(around.shape, bool), Noise(4))
    middle = grown.take(~grown.annex).corner.mean(axis=1)
    at = (around.x[0] + cols // 2 + 0.5, around.y[1] - rows // 2 - 0.5)
    assert len(middle) and np.hypot(*(middle - at).T).min() > lots.EXCLUSION - 1


def test_halls_grow_among_works_and_do_not_overlap() -> None:
    around = padded(window())
    grown = lots.grow(
        around,
        np.full(around.shape, CODE["commercial"], np.uint8),
        np.zeros(around.shape, bool),
        Noise(4),
    )
    shapes = [shapely.Polygon(corner) for corner in grown.corner]
    assert len(shapes) > 50 and grown.trade.all()
    assert shapely.STRtree(shapes).query(shapes, predicate="overlaps").shape[1] == 0


def town_with_dsm(frame: Frame) -> tuple[dict[str, Any], NDArray]:
    """Sloping ground, houses of three heights with gables, and a DSM that shows them."""
    around = padded(frame)
    x, y = places(around)
    u, v = x - frame.x[0], y - frame.y[0]
    ground = 80 + 0.04 * u + 0.02 * v
    house = (abs(u % 32 - 16) < 9) & (abs(v % 24 - 12) < 6)
    roof = 5 + 3.0 * ((u // 32) % 3) + 0.6 * (6 - abs(v % 24 - 12))
    dsm = ground + np.where(house, roof, 0)
    cover = np.where(house, CODE["building"], CODE["paved"])
    return conditions(around, cover, dem=ground, dsm=dsm), dsm[around.slices(frame)]


@pytest.mark.parametrize("size", [0.5, 1.0, 2.0])
def test_dsm_is_honoured(size: float) -> None:
    frame = small(size, round(7149 / size), round(57752 / size))
    layers, dsm = town_with_dsm(frame)
    made = generate(frame, layers)
    built = topmost(made, made.voxels.semantic) == CODE["building"]
    assert built.mean() > 0.2
    error = (surface(made) - dsm)[built]
    assert np.sqrt((error**2).mean()) < 0.5 * size
    assert abs(error).max() < size


def test_ramps_of_a_smooth_dsm_become_walls() -> None:
    frame = small()
    around = padded(frame)
    x, y = places(around)
    outside = np.maximum(abs(x - frame.x[0] - 48) - 12, abs(y - frame.y[0] - 48) - 12)
    dsm = 10 * np.clip(0.5 - outside / 4, 0, 1)  # 10 m of wall over 4 m
    cover = np.where(outside < 1.5, CODE["building"], CODE["paved"])
    made = generate(frame, conditions(around, cover, dem=0.0, dsm=dsm))
    height = surface(made)
    assert ((height < 1) | (height > 8.5)).mean() > 0.995, (
        "no steps between the ground and the roof"
    )
    trees = made.voxels.semantic == CODE["tree"]
    assert not trees.any(), "the ramp outside is no hedge"


def test_canopies_of_a_dsm_become_crowns_and_rule_trees_stay_away() -> None:
    frame = small()
    around = padded(frame)
    x, y = places(around)
    crown = np.maximum(0, 12 - 0.6 * ((x % 10 - 5) ** 2 + (y % 10 - 5) ** 2)).astype(np.float32)
    crown[crown < 3] = 0
    made = generate(frame, conditions(around, CODE["broadleaf_forest"], dem=0.0, dsm=crown))
    expected = crown[around.slices(frame)]
    height = surface(made)
    assert np.sqrt(((height - expected)[expected > 0] ** 2).mean()) < 0.7
    assert (height[expected == 0] < 0.7).mean() > 0.98
    # A surface model of buildings alone leaves woods at ground level: there the rules plant trees.
    bare = generate(frame, conditions(around, CODE["broadleaf_forest"], dem=0.0, dsm=0.0))
    assert (surface(bare) > 5).mean() > 0.7


def test_unmapped_buildings_and_trees_are_told_apart() -> None:
    frame = small()
    around = padded(frame)
    x, y = np.broadcast_arrays(*places(around))
    u, v = x - frame.x[0], y - frame.y[0]
    house = (abs(u - 25) < 9) & (abs(v - 48) < 9)
    tree = (u - 70) ** 2 + (v - 48) ** 2 < 8**2
    rough = 8 + 3 * np.sin(x * 2.1) * np.sin(y * 1.9)
    dsm = np.where(house, 7.0, np.where(tree, rough, 0.0))
    made = generate(frame, conditions(around, CODE["residential"], dem=0.0, dsm=dsm))
    top = topmost(made, made.voxels.semantic)
    inner = around.slices(frame)
    assert (top[house[inner]] == CODE["building"]).mean() > 0.9
    assert (top[tree[inner]] == CODE["tree"]).mean() > 0.8
    assert not ((top == CODE["building"]) & tree[inner]).any()


def test_ramps_leave_crisp_steps_alone() -> None:
    crisp = np.zeros((20, 20), np.float32)
    crisp[5:12, 5:12], crisp[12:16, 5:12] = 12, 4
    assert not surface_model.ramps(crisp, 1.0).any()
    smooth = np.tile(np.clip(np.arange(20) * 3.0 - 24, 0, 12).astype(np.float32), (20, 1))
    assert surface_model.ramps(smooth, 1.0)[10].tolist() == [8 <= c <= 11 for c in range(20)]


def test_trees_of_the_source_stand_where_they_are_said_to() -> None:
    frame = small()
    places_of = np.array(
        [[frame.x[0] + 20.5, frame.y[0] + 30.5], [frame.x[0] + 60.5, frame.y[0] + 70.5]]
    )
    trees = Trees(
        places_of, np.array([12.0, np.nan]), np.array([6.0, np.nan]), np.array([5, 9], np.uint64)
    )
    made = generate(frame, conditions(padded(frame), CODE["sports"], trees=trees, dem=0.0))
    tall = made.voxels.semantic == CODE["tree"]
    numbers = objects.object_number(trees.key, objects.BROADLEAF)
    assert set(numbers.tolist()) <= set(made.voxels.object[tall].tolist())
    first = made.voxels.take(made.voxels.object == numbers[0])
    assert abs(first.xyz[:, 2].max() + 1 - 12) <= 1
    assert 4 <= np.ptp(first.xyz[:, 0]) + 1 <= 8
    assert np.abs(first.xyz[:, :2].mean(axis=0) + 0.5 - places_of[0]).max() < 1


def test_woods_have_a_closed_canopy_in_the_range_of_their_class() -> None:
    frame = small()
    for name, low, high in (("broadleaf_forest", 6, 26), ("needleleaf_forest", 7, 30)):
        made = generate(frame, conditions(padded(frame), CODE[name], dem=0.0))
        height = surface(made)
        covered = height[height > 2]
        assert len(covered) > 0.75 * height.size
        assert low <= np.percentile(covered, 50) <= high and covered.max() <= high + 1
    assert len(np.unique(made.voxels.object)) > 100, "many trees"


def test_crops_are_one_height_a_field_and_hedges_stand_on_borders() -> None:
    frame = window()
    layers = village(padded(frame))
    made = generate(frame, layers)
    crops = (topmost(made, made.voxels.semantic) == CODE["cropland"]) & (
        surface(made) - made.ground > 0.05
    )
    assert np.percentile((surface(made) - made.ground)[crops], 99) <= 1.8
    hedge = (made.voxels.semantic == CODE["tree"]) & (made.voxels.object & 3 == objects.HEDGE)
    assert hedge.sum() > 200


def test_roofs_have_one_colour_and_walls_another() -> None:
    frame = small()
    houses = footprint_layer(
        [rectangle(frame.x[0] + 12 + 24 * k, frame.y[0] + 48, 14, 10) for k in range(4)],
        [9.0, 8.0, 7.0, 9.0],
    )
    layers = conditions(padded(frame), CODE["paved"], houses=houses, dem=0.0)
    made = generate(frame, layers)
    colour = rgb(paint(made, layers))
    built = made.voxels.semantic == CODE["building"]
    roof = built & (made.voxels.faces & TOP > 0)
    wall = built & (made.voxels.faces & TOP == 0) & (made.voxels.faces & FACES["-z"] == 0)
    means = []
    for number in np.unique(made.voxels.object[roof]):
        own = made.voxels.object == number
        assert colour[roof & own].std(axis=0).max() < 9
        means.append(colour[roof & own].mean(axis=0))
        assert np.abs(colour[roof & own].mean(axis=0) - colour[wall & own].mean(axis=0)).max() > 10
    assert np.ptp(np.array(means), axis=0).max() > 8, "houses differ"
    assert colour[wall].std() > 15, "walls have windows"


def test_image_is_draped_over_what_the_sky_sees() -> None:
    frame = small()
    around = padded(frame)
    houses = footprint_layer([rectangle(frame.x[0] + 48, frame.y[0] + 48, 30, 20)], [9.0])
    image = np.zeros((*around.shape, 4), np.uint8)
    image[..., 0], image[..., 2], image[..., 3] = 255, 200, 255
    image[:, : around.nx // 2, 3] = 0  # the western half has no data
    layers = conditions(around, CODE["grass"], houses=houses, dem=0.0)
    made = generate(frame, layers)
    with_image = rgb(paint(made, {**layers, "image": Raster(around, image)}))
    without = rgb(paint(made, layers))
    xyz = made.voxels.xyz
    west = xyz[:, 0] < frame.x[0] + SMALL // 2
    last = np.append((np.diff(xyz[:, :2], axis=0) != 0).any(axis=1), True)
    assert np.allclose(with_image[last & ~west], [255, 0, 200], atol=0.5)
    wall = (made.voxels.semantic == CODE["building"]) & ~last
    assert wall.any() and np.array_equal(with_image[wall | west], without[wall | west])


def test_fields_have_stripes_that_fade_with_the_voxel() -> None:
    frame = small()
    layers = conditions(padded(frame), CODE["cropland"], dem=0.0)
    made = generate(frame, layers)
    top = topmost(made, rgb(paint(made, layers)).mean(axis=1))
    assert top.std() > 2
    position = np.arange(0, 60, 0.5)
    period, width = np.array(3.0), np.array(1.5)
    assert np.allclose(row_share(position, 0.01, period, width).mean(), 0.5, atol=0.02)
    assert np.ptp(row_share(position, 6.0, period, width)) < 1e-9


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 5), st.integers(0, 30), st.integers(0, 30))
def test_filters_do_not_depend_on_the_window(seed: int, radius: int, row: int, col: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(500, 80, (60, 64)).astype(np.float32)
    mask = rng.random((60, 64)) < 0.3
    part = np.s_[row : row + 26, col : col + 30]
    inner = np.s_[radius : 26 - radius, radius : 30 - radius]
    whole = (filters.box_mean(values, mask, radius), filters.nearest_cell(mask, radius)[0])
    cut = (
        filters.box_mean(values[part], mask[part], radius),
        filters.nearest_cell(mask[part], radius)[0],
    )
    for a, b in zip(whole, cut, strict=True):
        assert np.array_equal(a[part][inner], b[inner], equal_nan=True)


def test_nearest_is_the_nearest() -> None:
    mask = np.zeros((40, 50), bool)
    mask[[3, 20, 33], [7, 40, 12]] = True
    distance, index = filters.nearest_cell(mask, 12)
    rows, cols = np.indices(mask.shape)
    direct = np.min(
        [np.hypot(rows - r, cols - c) for r, c in zip(*np.nonzero(mask), strict=True)], axis=0
    )
    near = direct <= 12
    assert np.array_equal(np.isfinite(distance), near) and np.allclose(
        distance[near], direct[near], atol=1e-5
    )
    assert (index[~near] == -1).all()
    back = np.hypot(rows - index // 50, cols - index % 50)
    assert np.allclose(back[near], distance[near], atol=1e-5)


def test_noise_is_a_function_of_the_place() -> None:
    stream = Noise(11).stream("test")
    frame = Frame("EPSG:32632", 1.0, (9_999_900, 9_999_980), (-40, 30))
    part = replace(frame, x=(9_999_930, 9_999_950), y=(-10, 20))
    for wavelength in (3.0, 64.0, 2048.0):
        whole = noise_fields.gradient_noise(stream, frame, wavelength)
        assert np.array_equal(
            whole[frame.slices(part)], noise_fields.gradient_noise(stream, part, wavelength)
        )
        assert np.abs(whole).max() < 1.3
    assert np.array_equal(
        noise_fields.white_noise(stream, frame)[frame.slices(part)],
        noise_fields.white_noise(stream, part),
    )
    names = [noise_fields.jittered_lattice(stream, f, 12.0) for f in (frame, part)]
    keys = [
        points.key.ravel()[noise_fields.voronoi_cells(points, f)]
        for points, f in zip(names, (frame, part), strict=True)
    ]
    assert np.array_equal(keys[0][frame.slices(part)], keys[1])


def test_rasterise_agrees_with_shapely_and_keeps_small_polygons() -> None:
    frame = Frame("EPSG:32632", 1.0, (1000, 1040), (2000, 2030))
    ring = shapely.Point(1018, 2014).buffer(11).difference(shapely.Point(1018, 2014).buffer(5))
    tiny = shapely.box(1030.6, 2020.6, 1030.8, 2020.8)
    lines = footprints.outlines(np.array([ring, tiny], object))
    owner = footprints.rasterise(lines, frame)
    x, y = np.broadcast_arrays(*places(frame))
    assert np.array_equal(owner == 0, shapely.contains_xy(ring, x, y))
    assert (owner == 1).sum() == 1 and owner[frame.y[1] - 1 - 2020, 30] == 1
    walls = footprints.wall_distance(lines, frame, owner, np.ones(2, bool))
    at = np.nonzero(owner == 0)
    direct = shapely.distance(ring.boundary, shapely.points(x[at], y[at]))
    assert np.allclose(walls[at], direct, atol=1e-4)
    assert np.allclose(footprints.rectangles(lines).area, [ring.area, tiny.area])


def test_object_numbers_are_never_zero_and_carry_their_kind() -> None:
    keys = np.array([0, 1, 2**63, 2**32], np.uint64)
    for kind in range(4):
        numbers = objects.object_number(keys, kind)
        assert (numbers > 0).all() and (numbers & 3 == kind).all() and numbers.dtype == np.uint32
