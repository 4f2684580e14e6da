"""What the learned backends share: rules for solid columns, options, weights, and whole jobs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import earthgen
from earthgen.engine.compute import Engine
from earthgen.errors import (
    JobError,
    MissingWeightsError,
    ModelError,
    PluginError,
    StoreError,
    UnknownNameError,
)
from earthgen.jobs.forecast import forecast
from earthgen.jobs.job import make_job
from earthgen.jobs.prepare import prepare
from earthgen.models.flow import Flow, sample
from earthgen.models.weights import bundled as shipped
from earthgen.noise.philox import Noise
from earthgen.sparse import Place
from earthgen.sparse.layers import Convolution
from earthgen.stages.blending import STATE, InpaintingMask
from earthgen.stages.block import Block
from earthgen.testing.backends import PlainTexture
from earthgen.testing.worlds import (
    CRS,
    FormulaCondition,
    hills,
    same_tiles,
    sample_conditions,
    village,
)
from earthgen.voxels.heightfield import column_tops, surface_of_columns, top_level
from earthgen.voxels.objects import FLAT_ROOF, HALL_ROOF, PITCHED_ROOF, PLAIN_ROOF
from earthgen.voxels.tile import crop_tile
from earthgen_latent import networks as networks_module
from earthgen_latent.columns import COLUMNS, make_columns
from earthgen_latent.geometry import LatentGeometry, fit_tops, highest_voxels
from earthgen_latent.height_map import HeightFlowGeometry
from earthgen_latent.networks import inference, open_networks
from earthgen_latent.sampling import Sampling, condition_names, hold_known, window_lattice
from earthgen_latent.solid import (
    SOLID_MARGIN,
    clear_open_land,
    columns_from_heights,
    raise_columns,
    roof_kinds,
    standing_classes,
)
from earthgen_latent.structure import CoarseSampler, FineSampler, _rows, active_cells
from earthgen_latent.texture import (
    LatentTexture,
    decoder_reach,
    lattice_normals,
    seen_from_above,
    voxel_sites,
)
from geo_io.errors import FrameError
from geo_io.frame import Frame
from geo_io.layers import Raster
from geo_io.legend import codes
from tests.helpers.latent_weights import SMALL, make_set

CODE = codes()
FRAME = Frame(CRS, 2.0, (341_700, 341_724), (2_769_252, 2_769_268))  # houses, in one tile


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("weights"))


def quick(weights: Path, **options: Any) -> HeightFlowGeometry:
    return HeightFlowGeometry(
        weights, **{"window": 64, "surface": 64, "steps": 2, "phases": 1, **options}
    )


def engine(
    geometry: Any, conditions: Any = None, frame: Frame = FRAME, texture: Any = None, seed: int = 0
) -> Engine:
    given = sample_conditions() if conditions is None else conditions
    return Engine(frame, geometry, texture or PlainTexture(), given, Noise(seed))


def one_tile(made: Engine, size: int = 512) -> Any:
    """The finest level of the one tile that a small world is."""
    ((tx, ty),) = made.frame.tiles(size)
    return made.reference(size)(tx, ty)[0]


def height_above(tile: Any) -> NDArray:
    return np.asarray(tile.surface - tile.ground)


def test_columns_follow_their_cover_where_heights_do_not() -> None:
    frame = Frame(CRS, 1.0, (0, 6), (0, 1))
    cover = np.array([["lake", "building", "building", "broadleaf_forest", "road", "grassland"]])
    cover = np.vectorize(CODE.get)(cover).astype(np.uint8)
    height = np.float32([[7.0, 1.0, 9.0, 12.0, 0.3, 5.0]])
    layer = replace(village(frame), cover=cover)
    found = columns_from_heights(frame, layer, cover, height, Noise(0))
    assert found.top.tolist() == [[0, 0, 9, 12, 0, 5]], (
        "water is level, a yard is no building, a bump is no thing"
    )
    assert found.ground_class[0, 1] == CODE["paved"] and found.ground_class[0, 0] == CODE["lake"]
    assert found.semantic[0, [2, 3, 5]].tolist() == [
        CODE["building"],
        CODE["broadleaf_forest"],
        CODE["tree"],
    ]
    assert (found.object[0, [0, 1, 4]] == 0).all() and (found.object[0, [2, 3, 5]] > 0).all()


def test_the_map_goes_before_the_decoder_s_classes() -> None:
    land = [
        "building",
        "grass",
        "grass",
        "residential",
        "residential",
        "broadleaf_forest",
        "unknown",
        "paved",
    ]
    seen = ["tree", "building", "tree", "building", "lake", "grass", "building", "building"]
    cover, decoded = (
        np.array([[CODE.get(name, 0) for name in row]], np.uint8) for row in (land, seen)
    )
    found = standing_classes(cover, decoded)
    condition_names = {number: name for name, number in CODE.items()}
    assert [condition_names[number] for number in found[0].tolist()] == [
        "building",
        "tree",
        "tree",
        "building",
        "tree",
        "broadleaf_forest",
        "building",
        "tree",
    ]


def test_a_mapped_building_is_one_object_in_every_window() -> None:
    layer = village(FRAME.pad(8))
    cover = layer.cover
    found = columns_from_heights(
        FRAME.pad(8), layer, cover, np.full(cover.shape, 9, np.float32), Noise(0)
    )
    part = columns_from_heights(
        FRAME,
        layer.crop(FRAME),
        layer.crop(FRAME).cover,
        np.full(FRAME.shape, 9, np.float32),
        Noise(0),
    )
    assert np.array_equal(found.object[FRAME.pad(8).slices(FRAME)], part.object)
    seen = 0
    for row in range(len(layer.buildings)):
        x0, y0, x1, y1 = layer.buildings.footprint[row].bounds
        x, y = int((x0 + x1) / 4) - FRAME.x[0] + 8, FRAME.y[1] + 8 - 1 - int((y0 + y1) / 4)
        if 6 < x < FRAME.nx + 10 and 6 < y < FRAME.ny + 10:
            seen += 1
            assert found.object[y, x] == found.object[y, x + 1] == found.object[y + 1, x]
    assert seen


def test_raised_columns_take_better_classes_where_there_are_any() -> None:
    window = Frame(CRS, 1.0, (0, 4), (0, 4))
    inner = window.pad(SOLID_MARGIN)
    top = np.zeros(inner.shape, np.float32)
    top[SOLID_MARGIN + 1, SOLID_MARGIN + 1] = 2.0  # too low for a crown
    cover = np.full(inner.shape, CODE["grassland"], np.uint8)
    layer = replace(village(inner), cover=cover)
    columns = columns_from_heights(inner, layer, cover, top, Noise(0))
    xyz, rock = np.array([[1, 2, 1]], np.int32), np.array([CODE["rock"]], np.uint8)
    found = raise_columns(window, inner, np.zeros(inner.shape, np.float32), columns, xyz, rock)
    classes = {
        tuple(v): c for v, c in zip(found.voxels.xyz.tolist(), found.voxels.semantic, strict=True)
    }
    assert classes[1, 2, 1] == CODE["rock"] and classes[1, 2, 0] == CODE["tree"]
    assert classes[0, 0, -1] == CODE["grassland"] and len(found.voxels) == 16 - 1 + 2


def test_trees_have_crowns_and_trunks_and_roofs_no_needles() -> None:
    window = Frame(CRS, 1.0, (0, 48), (0, 48))
    inner = window.pad(SOLID_MARGIN)
    cover = np.full(inner.shape, CODE["broadleaf_forest"], np.uint8)
    layer = replace(village(inner), cover=cover)
    top = np.full(inner.shape, 10.0, np.float32)
    columns = columns_from_heights(inner, layer, cover, top, Noise(0))
    found = raise_columns(window, inner, np.zeros(inner.shape, np.float32), columns).voxels
    column = found.xyz[:, 1] * 48 + found.xyz[:, 0]
    low = np.bincount(column[(found.xyz[:, 2] >= 0) & (found.xyz[:, 2] < 3)], minlength=48 * 48) > 0
    crowns = np.bincount(column[found.xyz[:, 2] >= 3], minlength=48 * 48) > 0
    assert crowns.all() and 0.005 < low.mean() < 0.06, "a trunk in about 36 columns"
    ground = found.semantic[found.xyz[:, 2] == -1]
    assert len(ground) > 0.9 * 48 * 48, "the ground below is seen"

    cover[:] = CODE["grass"]
    cover[10:16, 10:30] = CODE["building"]
    top = np.where(cover == CODE["building"], 9.0, 0.0).astype(np.float32)
    top[12, 12] = 30.0
    top[10, 10] = 9.5  # a corner stays
    columns = columns_from_heights(inner, replace(layer, cover=cover), cover, top, Noise(0))
    assert columns.top[12, 12] == 12 and columns.top[10, 10] == 9.5
    assert (columns.top[cover == CODE["building"]] >= 9).all() and columns.top[0, 0] == 0
    assert (columns.base == 0).all()


def test_a_footprint_says_its_roof() -> None:
    area, height = np.array([12.0, 120.0, 120.0, 600.0, 4000.0]), np.full(5, np.nan)
    height[2] = 40.0
    kinds = roof_kinds(area, height)
    assert kinds.tolist() == [PLAIN_ROOF, PITCHED_ROOF, FLAT_ROOF, FLAT_ROOF, HALL_ROOF]


def test_tops_of_candidates() -> None:
    frame = Frame(CRS, 1.0, (0, 3), (0, 1))
    xyz = np.array([[0, 0, -1], [0, 0, 0], [0, 0, 5], [1, 0, 2], [1, 0, 3]], np.int32)
    logit = np.float32([1.0, -1.0, 2.0, -0.5, -0.5])
    block = Block(frame, {}, xyz, {"logit": logit, "semantic": np.array([1, 2, 3, 4, 5], np.uint8)})
    level, semantic, keep = highest_voxels(frame, block)
    assert level.tolist() == [[5, 2, -1]], (
        "the highest that stays; the likeliest, of equals the lowest; bare ground"
    )
    assert semantic.tolist() == [[3, 4, 0]] and keep.tolist() == [True, False, True, True, False]
    none = highest_voxels(
        frame, Block(frame, {}, xyz[:0], {"logit": logit[:0], "semantic": np.zeros(0, np.uint8)})
    )
    assert none[0].tolist() == [[-1, -1, -1]] and len(none[2]) == 0


def test_exact_tops_leave_the_voxels_as_they_are() -> None:
    frame = Frame(CRS, 2.0, (0, 5), (0, 1))
    level = np.array([[-1, 0, 3, 3, 3]], np.int32)
    height = np.float32([[0.9, 2.3, 9.9, 30.0, np.nan]])
    found = fit_tops(frame, level, height)
    assert np.allclose(found, [[0, 2.3, 8.9, 8, 8]]), (
        "the height where it is near, within the voxel; else the face"
    )
    assert np.array_equal(top_level(found, 2.0, 100), level)


def test_tops_have_to_reach_beyond_their_window() -> None:
    frame = Frame(CRS, 2.0, (0, 5), (0, 5))
    flat, none = np.zeros(frame.shape, np.float32), np.zeros(frame.shape, np.uint8)
    tops = column_tops(frame, flat, flat + 3, none.astype(np.uint32), none, 100)
    assert (tops.level == 0).all() and np.allclose(tops.normal, [0, 0, 1])
    volume = np.ones((9, 9, 4), np.uint8)
    with pytest.raises(FrameError, match=r"do not extend a cell beyond .*pad their frame"):
        surface_of_columns(frame, volume, volume.astype(np.uint32), -2, tops)


def test_every_column_of_cells_has_one() -> None:
    state = np.float32([[[-1, -0.2, -0.9], [0.1, -1, 2.0]]])
    assert active_cells(state).tolist() == [[[False, True, False], [True, False, True]]]


def test_rows_of_cells_are_the_cells_of_the_map(weights: Path) -> None:
    """Maps begin in the north, voxels count from the south."""
    structure = LatentGeometry(weights, window=64, height_map=False).structure
    window = replace(FRAME.coarsen(8), x=(42_712, 42_715), y=(346_156, 346_158))  # cells
    frame = structure.fine(window)
    assert (frame.voxel_size, frame.x, frame.y, frame.z) == (
        2.0,
        (341_696, 341_720),
        (2_769_248, 2_769_264),
        (-16, 112),
    )
    place = Place.of(frame)
    values = np.arange(2 * 3 * 16, dtype=np.float32).reshape(2, 3, 16)
    grid = structure.networks("struct-coarse").grid(place, (24, 16, 128))
    _, x, y, z = grid.coordinates.long().numpy().T
    assert np.array_equal(_rows(values, "cpu")[:, 0].numpy(), values[2 - 1 - y, x, z])
    sites, index = structure.sites(values % 5 == 0, window)
    _, x, y, z = sites.coordinates.long().numpy().T
    assert np.array_equal(values[index], values[2 - 1 - y, x, z]) and (values[index] % 5 == 0).all()
    assert sites.lattice()[0].tolist() == [341_696 + 8 * x[0], 2_769_248 + 8 * y[0], -16 + 8 * z[0]]
    xyz = sites.lattice().numpy().astype(np.int32)[::-1]
    again, order = voxel_sites(np.ascontiguousarray(xyz), frame, "cpu")
    assert np.array_equal(again.lattice().numpy(), xyz[order])


@pytest.mark.parametrize("start", [0.0, 0.5])
def test_a_sampler_s_window_comes_back_the_way_it_went(weights: Path, start: float) -> None:
    """Where all cells are known, what is given is what comes out: no row or layer is swapped on
    the way."""
    structure = LatentGeometry(weights, window=64, steps=1, height_map=False).structure
    window = FRAME.coarsen(8).tile(7_118, 57_692, 6).pad(1)
    known = make_columns(
        structure.fine(window), sample_conditions_on(structure.fine(window)), Noise(0)
    )
    for sampler in (CoarseSampler(structure), FineSampler(structure)):
        shape = (*window.shape, sampler.channels)
        data = np.random.default_rng(1).normal(size=shape).astype(np.float32)
        noise = np.random.default_rng(2).normal(size=shape).astype(np.float32)
        state = np.float32(start) * data + np.float32(1 - start) * noise
        given = InpaintingMask(
            data, np.ones(window.shape, bool), noise, lambda n, noise=noise: noise
        )
        inputs = {
            COLUMNS: known,
            structure.cells: Block(window, {STATE: np.ones((*window.shape, 16), np.float32)}),
        }
        found = sampler.advance(state, window, inputs, start, 1.0, given)
        assert np.allclose(found, data, atol=1e-5)


def test_cells_that_heights_do_not_reach_are_not_computed(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    structure = LatentGeometry(weights, window=64, steps=2, height_map=False).structure
    window = FRAME.coarsen(8).tile(7_118, 57_692, 6).pad(1)
    frame = structure.fine(window)
    given = make_columns(frame, sample_conditions_on(frame), Noise(0))
    height = np.zeros(frame.shape, np.float32)
    height[:8, :8] = 50.0  # metres, in the north-west: 25 voxels
    known = replace(given, dense={**given.dense, "above": height})
    state = np.random.default_rng(2).normal(size=(*window.shape, 16)).astype(np.float32)
    seen: list[int] = []
    real = Sampling.integrate

    def integrate(self: Sampling, flow: Any, predict: Any, rows: Any, *times: float) -> Any:
        seen.append(len(rows))
        return real(self, flow, predict, rows, *times)

    monkeypatch.setattr(Sampling, "integrate", integrate)
    sampler = CoarseSampler(structure)
    found = sampler.advance(state, window, {COLUMNS: known}, 0.0, 1.0, None)
    computed = found != -1
    # Layers begin at -16, -8, 0, ...: one below the ground, and two above what stands there.
    assert not computed[..., 8:].any() and not computed[4:, 4:, 4:].any()
    assert computed[:2, :2, :8].mean() > 0.99 and computed[4:, 4:, :4].mean() > 0.99
    assert seen == [computed.shape[0] * computed.shape[1] * 4 + 2 * 2 * 4] and computed.sum() > 0
    half = sampler.advance(state, window, {COLUMNS: known}, 0.0, 0.5, None)
    assert np.allclose(half[..., 8:], 0.5 * state[..., 8:] - 0.5), "on the way there"
    free = sampler.advance(state, window, {COLUMNS: given}, 0.0, 1.0, None)
    assert (free != -1).mean() > 0.99 and seen[-1] == free.size


def sample_conditions_on(frame: Frame) -> dict[str, Any]:
    wide = frame.pad(200)
    return {name: condition.read(wide) for name, condition in sample_conditions().items()}


@pytest.mark.parametrize("predicts", ["data", "velocity", "preconditioned"])
@pytest.mark.parametrize("parts", [[(0.0, 1.0)], [(0.0, 0.5), (0.5, 1.0)]])
def test_known_data_are_reached_and_all_else_is_as_before(predicts: Any, parts: Any) -> None:
    flow = Flow(predicts)
    state = torch.linspace(-1, 1, 8)[None]
    data, mask = torch.full((1, 8), 3.0), torch.arange(8)[None] < 3

    def predict(state: torch.Tensor, time: float) -> torch.Tensor:
        return torch.full_like(state, 0.5)

    found, free = state, state
    for start, stop in parts:
        found = sample(
            flow, hold_known(predict, flow, mask, data), found, steps=4, start=start, stop=stop
        )
        free = sample(flow, predict, free, steps=4, start=start, stop=stop)
    assert torch.allclose(found[mask], data[mask], atol=1e-5) and torch.equal(
        found[~mask], free[~mask]
    )
    assert hold_known(predict, flow, torch.zeros(1, 8, dtype=torch.bool), data) is predict
    assert hold_known(predict, flow, None, data) is predict


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "number of steps is 0.*from 1 to 1000"),
        ({"steps": 2.5}, "number of steps is 2.5"),
        ({"method": "rk4"}, "unknown method 'rk4'.*euler, heun"),
        ({"guidance": -1.0}, "guidance -1.0"),
        ({"shift": 0.0}, "shift 0.0"),
        ({"use": ("semantic",)}, "unknown condition 'semantic' to use.*semantics, height, image"),
        ({"rule": "rows"}, "unknown rule 'rows'"),
        ({"phases": 0}, "number of phases is 0"),
    ],
)
def test_options_that_lead_nowhere(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ModelError, UnknownNameError), match=message):
        Sampling(**options)


def test_names_of_conditions() -> None:
    assert condition_names("semantics, image") == ("semantics", "image") and condition_names(
        "none"
    ) == () == condition_names([])


def test_styles_that_the_weights_do_not_know(weights: Path) -> None:
    none = open_networks(weights, ("struct-coarse", "struct-fine"))
    assert none.style_number("struct-fine", "") is none.style_number("struct-fine", "any") is None
    with pytest.raises(ModelError, match="height-flow was not trained with the style 'real'"):
        quick(weights, style="real")
    with pytest.raises(ModelError, match=r"struct-coarse was not trained.*leave the style"):
        LatentGeometry(weights, style="rules")

    config = none.config("struct-fine").model_copy(update={"styles": 2})
    two = replace(none, configs=(("struct-fine", config),))
    names = ("", "any", "rules", "real")
    numbers = [two.style_number("struct-fine", name) for name in names]
    assert [float(number[0]) for number in numbers if number is not None] == [1, 0, 1, 2]
    rules = replace(two, styles=(("struct-fine", ("rules",)),))  # no real place was trained on
    found = rules.style_number("struct-fine", "")
    assert found is not None and float(found[0]) == 1
    for name in ("real", "baroque"):
        with pytest.raises(ModelError, match=rf"the style '{name}'\. choose from rules, any"):
            rules.style_number("struct-fine", name)


def test_open_land_has_no_specks() -> None:
    names = ("road", "paved", "grass", "grass", "forest", "building")
    code = codes() | {"forest": codes()["mixed_forest"]}
    cover = np.array([[code[name] for name in names] + [0]], np.uint8)
    top = np.array([[3.0, 0.7, 1.2, 6.0, 0.8, 9.0, 1.0]], np.float32)
    assert clear_open_land(cover, top, False).tolist() == [[0, 0, 0, 6, top[0, 4], 9, 1]]
    assert clear_open_land(cover, top, True).tolist() == [[0, 0, 0, 0, top[0, 4], 9, 1]]


def test_kinds_of_maps_that_the_weights_do_not_know(weights: Path) -> None:
    none = open_networks(weights, ("height-flow",))
    assert none.map_number("height-flow", "") is none.map_number("height-flow", "any") is None
    with pytest.raises(ModelError, match=r"not trained with kinds of maps.*leave `map_kind` out"):
        quick(weights, map_kind="whole")
    with pytest.raises(ModelError, match="no kind of map 'old'"):
        quick(weights, map_kind="old")
    config = none.config("height-flow").model_copy(update={"map_kinds": True})
    known = replace(none, configs=(("height-flow", config),))
    numbers = [known.map_number("height-flow", kind) for kind in ("", "any", "whole", "gaps")]
    assert [int(number[0]) for number in numbers if number is not None] == [2, 0, 1, 2]


def test_windows_lie_on_cells() -> None:
    assert window_lattice(None, None, 128, 8) == (128, 96) and window_lattice(64, 48, 128, 8) == (
        64,
        48,
    )
    for window, stride in ((60, None), (64, 64), (64, 56), (64, 0)):
        with pytest.raises(ModelError, match="do not lie on cells of 8"):
            window_lattice(window, stride, 128, 8)


def test_a_surface_model_goes_before_the_network(weights: Path) -> None:
    def dsm(frame: Frame) -> Raster:
        ground = hills(frame).data
        east = np.arange(frame.x[0], frame.x[1]) < 341_712
        return Raster(frame, np.where(east[None], ground + 20, np.nan).astype(np.float32))

    conditions = {"dem": FormulaCondition(hills), "dsm": FormulaCondition(dsm)}
    tile = one_tile(engine(quick(weights), conditions))
    above = height_above(tile)
    assert np.allclose(above[:, :11], 20, atol=0.01), "where it has data"
    assert not np.allclose(above[:, 13:], 20, atol=1.0)
    unused = one_tile(engine(quick(weights, use="semantics"), conditions))
    assert not np.allclose(height_above(unused)[:, :11], 20, atol=1.0)


def test_conditions_that_are_not_used_change_nothing(weights: Path) -> None:
    def image(frame: Frame) -> Raster:
        return Raster(frame, np.full((*frame.shape, 4), 200, np.uint8))

    conditions = {"image": FormulaCondition(image)}
    geometry = quick(weights, use="semantics")

    def colours(use: str, given: Any) -> NDArray:
        texture = LatentTexture(weights, window=64, steps=1, phases=1, use=use)
        return np.asarray(one_tile(engine(geometry, given, texture=texture)).splats.sh)

    told, untold = colours("semantics,image", conditions), colours("semantics", conditions)
    assert not np.array_equal(told, untold)
    assert np.array_equal(untold, colours("semantics", {}))


def test_variants_are_other_worlds_on_the_same_heights(weights: Path) -> None:
    geometry = quick(weights)

    def tile(**options: Any) -> Any:
        texture = LatentTexture(weights, window=64, steps=1, phases=1, **options)
        return one_tile(engine(geometry, texture=texture))

    first, second = tile(), tile(variant=1)
    assert np.array_equal(first.voxels.xyz, second.voxels.xyz)
    assert not np.array_equal(first.splats.sh, second.splats.sh)
    stages = [stage.name for stage in LatentGeometry(weights, window=64, variant=2).stages()]
    assert (
        "latent.heights" in stages and "latent.cells#2" in stages and "latent.latents#2" in stages
    )


@pytest.mark.parametrize("rule", ["four_colour", "independent"])
def test_other_rules_keep_a_world_a_function_of_the_place(weights: Path, rule: str) -> None:
    whole = one_tile(engine(quick(weights, rule=rule)))
    inner = replace(FRAME, x=(341_703, 341_717), y=(2_769_253, 2_769_262))
    assert same_tiles(
        crop_tile(whole, inner), one_tile(engine(quick(weights, rule=rule), frame=inner))
    )


@pytest.mark.slow
def test_the_whole_chain_is_a_function_of_the_place(weights: Path) -> None:
    """Heights, cells, latents and voxels, in two phases each, with guidance."""

    def made(frame: Frame) -> Any:
        geometry = LatentGeometry(weights, window=64, surface=64, steps=1, guidance=1.5)
        return one_tile(engine(geometry, frame=frame))

    frame = replace(FRAME, x=(341_712, 341_724), y=(2_769_264, 2_769_268))
    inner = replace(frame, x=(341_714, 341_719), y=(2_769_265, 2_769_267))
    assert same_tiles(crop_tile(made(frame), inner), made(inner))


@pytest.mark.slow
def test_windows_with_the_default_context_make_a_function_of_the_place(weights: Path) -> None:
    """Two windows, in tiles of two sizes and from two boxes."""

    def made(frame: Frame) -> Engine:
        geometry = LatentGeometry(weights, stride=64, surface=48, steps=1)
        return engine(geometry, frame=frame)

    frame = replace(FRAME, x=(341_752, 341_768), y=(2_769_264, 2_769_268))
    inner = replace(frame, x=(341_757, 341_763), y=(2_769_265, 2_769_267))
    whole = one_tile(made(frame))
    assert same_tiles(crop_tile(whole, inner), one_tile(made(inner)))
    for tx, ty in frame.tiles(128):  # the border of tiles is one of windows too
        tile = made(frame).reference(128)(tx, ty)[0]
        assert same_tiles(crop_tile(whole, tile.voxels.frame), tile)


def test_bits_do_not_depend_on_torch_s_threads(weights: Path) -> None:
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(one_tile(engine(quick(weights))))
            assert torch.get_num_threads() == threads, "it is put back"
    finally:
        torch.set_num_threads(before)
    assert same_tiles(*found)
    with inference(quick(weights).networks):
        assert torch.get_num_threads() == 1 and not torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")


def test_precision(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of it makes almost the same world; a CPU that would be slower by it refuses."""
    with pytest.raises(ModelError, match=r"unknown precision 'int8'.*choose from auto, fp32, bf16"):
        quick(weights, precision="int8")
    monkeypatch.setattr(networks_module, "product_dtype", lambda dtype, device: torch.float32)
    with pytest.raises(ModelError, match=r"slower in bfloat16.*with AMX"):
        LatentTexture(weights, precision="bf16")
    monkeypatch.setattr(networks_module, "product_dtype", lambda dtype, device: dtype)

    def made(precision: str) -> Any:
        geometry = quick(weights, steps=1, precision=precision)
        texture = LatentTexture(weights, window=64, steps=1, phases=1, precision=precision)
        with inference(geometry.networks):
            assert torch.is_autocast_enabled("cpu") == (precision == "bf16")
        return one_tile(engine(geometry, texture=texture))

    full, half = made("fp32"), made("bf16")
    assert not same_tiles(full, half)
    assert np.abs(height_above(full) - height_above(half)).mean() < 0.5
    assert np.abs(full.rgb.astype(int) - half.rgb).mean() < 5


def test_weights_are_read_once_in_a_process(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[Any] = []
    real = networks_module.load_weights
    monkeypatch.setattr(
        networks_module, "load_weights", lambda *a, **k: loads.append(a) or real(*a, **k)
    )
    networks_module._load.cache_clear()
    one_tile(engine(quick(weights)))
    one_tile(engine(quick(weights), seed=1))
    assert len(loads) == 1


def test_a_sparse_backend_by_name_computes_and_enters_the_identity(
    weights: Path, tmp_path: Path
) -> None:
    geometry = quick(weights)
    plain, named = (
        one_tile(
            engine(
                geometry,
                texture=LatentTexture(weights, window=64, steps=1, phases=1, sparse_backend=name),
            )
        )
        for name in (None, "torch")
    )
    assert same_tiles(plain, named)
    prepared = prepare(
        make_job(
            {**SETTINGS, "out": tmp_path / "w.zarr", "weights": weights, "sparse_backend": "torch"}
        )
    )
    assert prepared.identity["texture"]["options"]["sparse_backend"] == "torch"
    assert "sparse_backend" not in prepared.identity["geometry"]["options"], "a height map is dense"
    networks = open_networks(weights, ("tex-vae",), sparse_backend="torch")
    assert {
        layer.backend.name
        for layer in networks("tex-vae").modules()
        if isinstance(layer, Convolution)
    } == {"torch"}


def test_normals_in_the_networks_space_and_what_is_seen_from_above(weights: Path) -> None:
    made = engine(quick(weights))
    stage = made.chain[made.chain.geometry]
    window = stage.frame(FRAME, FRAME.x[0] // 64, FRAME.y[0] // 64)
    inner = window.pad(SOLID_MARGIN)
    flat = np.zeros(inner.shape, np.float32)
    slope = (np.arange(inner.nx, dtype=np.float32) * 2.0 * 0.3)[None].repeat(inner.ny, 0)
    cover = np.full(inner.shape, CODE["grassland"], np.uint8)
    columns = columns_from_heights(
        inner, replace(village(inner), cover=cover), cover, flat, Noise(0)
    )
    geometry = raise_columns(window, inner, slope, columns)
    assert np.allclose(geometry.normal[:, 0], -0.3 / np.hypot(1, 0.3), atol=1e-5)
    assert np.allclose(lattice_normals(geometry), [0, 0, 1], atol=1e-3), (
        "level ground, where networks live"
    )
    seen, level = seen_from_above(geometry)
    assert (seen == CODE["grassland"]).all() and (level == -1).all()
    assert decoder_reach("ccs", SMALL) == 2 + 7 and decoder_reach("cf", SMALL) > 96


def test_sets_that_do_not_serve(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "BUNDLED", tmp_path / "none")
    with pytest.raises(
        MissingWeightsError, match=r"has no weights.*earthgen train all.*--weights DIR"
    ):
        HeightFlowGeometry()
    monkeypatch.setattr(shipped, "BUNDLED", weights)
    assert HeightFlowGeometry().networks.folder == str(weights.resolve()), (
        "else those that the package comes with"
    )
    part = make_set(tmp_path / "part", parts=("height-flow",))
    with pytest.raises(
        MissingWeightsError, match=r"has no struct-coarse, only height-flow.*train struct-coarse"
    ):
        LatentGeometry(part)
    with pytest.raises(MissingWeightsError, match="no set of weights"):
        LatentTexture(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"for voxels of 2 m, not of 1 m.*--voxel-size 2"):
        HeightFlowGeometry(weights).check(replace(FRAME, voxel_size=1.0))


def test_weights_that_change_under_a_world_are_refused(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set", parts=("height-flow",))
    opened = open_networks(folder, ("height-flow",))
    make_set(folder, parts=("height-flow",), seed=6)
    with pytest.raises(ModelError, match="the weights changed"):
        opened("height-flow")


def test_wrong_options_of_backends(weights: Path) -> None:
    with pytest.raises(ModelError, match="unknown rule 'four_colour' for voxels"):
        LatentTexture(weights, rule="four_colour")
    with pytest.raises(TypeError):
        HeightFlowGeometry(weights, stps=3)


SETTINGS: dict[str, Any] = {
    "bbox": (500_000.0, 5_537_000.0, 500_120.0, 5_537_080.0),
    "bbox_crs": "EPSG:32632",
    "crs": "EPSG:32632",
    "voxel_size": 2.0,
    "geometry": "height-flow",
    "texture": "latent",
    "tile_size": 64,
    "geometry_options": {"window": 64, "surface": 64, "steps": 1, "phases": 1},
    "texture_options": {"window": 64, "steps": 1, "phases": 1},
}


def by_rules() -> dict[str, Any]:
    return {
        **SETTINGS,
        "geometry": "procedural",
        "texture": "procedural",
        "geometry_options": {},
        "texture_options": {},
    }


@pytest.mark.slow
def test_a_world_of_workers_and_of_one_that_was_resumed(weights: Path, tmp_path: Path) -> None:
    one = earthgen.generate(out=tmp_path / "one.zarr", weights=weights, **SETTINGS)
    two = earthgen.generate(out=tmp_path / "two.zarr", weights=weights, workers=2, **SETTINGS)
    threads = {**SETTINGS, "scheduler": "threads", "workers": 2, "tile_size": 128}
    three = earthgen.generate(out=tmp_path / "three.zarr", weights=weights, **threads)
    assert one.digest() == two.digest() == three.digest()
    moved = tmp_path / "elsewhere"
    shutil.copytree(weights, moved)
    again = earthgen.generate(out=tmp_path / "one.zarr", weights=moved, resume=True, **SETTINGS)
    assert again.complete, "where the weights lie is no part of a world"
    other = make_set(tmp_path / "other", seed=9)
    with pytest.raises(StoreError, match=r"geometry\.weights .*height-flow=sha256.*changed"):
        earthgen.generate(out=tmp_path / "one.zarr", weights=other, resume=True, **SETTINGS)


def test_what_a_world_keeps_of_its_weights(weights: Path, tmp_path: Path) -> None:
    prepared = prepare(make_job({**SETTINGS, "out": tmp_path / "w.zarr", "weights": weights}))
    of_geometry, of_texture = prepared.identity["geometry"], prepared.identity["texture"]
    assert (
        of_geometry["weights"].startswith("height-flow=sha256:")
        and "tex-vae=sha256:" in of_texture["weights"]
    )
    chosen = prepared.backends.geometry.chosen
    assert of_geometry["options"] == {**SETTINGS["geometry_options"], **chosen}, "no path"
    card = prepared.provenance["weights"]["texture"]
    assert (
        card["licence"] == "CC0-1.0"
        and card["title"] == "Random numbers"
        and set(card["parts"])
        == {
            "tex-flow",
            "tex-vae",
        }
    )
    both = {**SETTINGS, "geometry_options": {**SETTINGS["geometry_options"], "device": "cpu"}}
    same = prepare(make_job({**both, "out": tmp_path / "w.zarr", "weights": weights}))
    assert same.identity == prepared.identity, "nor is the device"


def test_jobs_whose_weights_do_not_fit(weights: Path, tmp_path: Path) -> None:
    rules = {
        **SETTINGS,
        "geometry": "procedural",
        "texture": "procedural",
        "geometry_options": {},
        "texture_options": {},
    }
    with pytest.raises(JobError, match=r"neither the procedural geometry nor .* takes `weights`"):
        prepare(make_job({**rules, "out": tmp_path / "w.zarr", "weights": weights}))
    with pytest.raises(ModelError, match="not of 1 m"):
        prepare(
            make_job(
                {**SETTINGS, "voxel_size": 1.0, "out": tmp_path / "w.zarr", "weights": weights}
            )
        )
    wrong = {**SETTINGS, "texture_options": {"colour": "red"}}
    with pytest.raises(PluginError, match=r"texture 'latent'.*colour"):
        prepare(make_job({**wrong, "out": tmp_path / "w.zarr", "weights": weights}))
    assert not (tmp_path / "w.zarr").exists()


def test_a_plan_counts_what_networks_take(weights: Path, tmp_path: Path) -> None:
    rules = {
        **SETTINGS,
        "geometry": "procedural",
        "texture": "procedural",
        "geometry_options": {},
        "texture_options": {},
    }
    plain = forecast(make_job({**rules, "out": tmp_path / "w.zarr"}))
    learned = forecast(make_job({**SETTINGS, "out": tmp_path / "w.zarr", "weights": weights}))
    assert learned.memory > plain.memory and "give --sample" in learned.basis
    from earthgen_latent.costs import count_cost

    tiny = replace(open_networks(weights, ("tex-flow", "tex-vae")), preset="tiny")
    few, many = (
        count_cost(tiny, Sampling(steps=n), 64, 48, ("tex-flow",), ("tex-vae",)) for n in (4, 8)
    )
    assert 0 < few.seconds < many.seconds < 2 * few.seconds and few.memory > 250_000_000
    guided = count_cost(tiny, Sampling(guidance=2.0), 64, 48, ("tex-flow",), ("tex-vae",))
    assert few.seconds < guided.seconds < 2 * few.seconds
    assert "preset tiny" in few.basis


def test_listing_the_plugin_loads_no_torch() -> None:
    code = (
        "import sys, earthgen_latent as p; p.earthgen_geometry_backends(); "
        "p.earthgen_texture_backends(); p.earthgen_info(); print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
