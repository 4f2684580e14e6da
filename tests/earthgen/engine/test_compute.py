"""The engine's own rules, on a chain that samples by diffusion and on small wrong ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cachetools import LRUCache

from earthgen.engine.compute import Engine, TaskStats, aligned
from earthgen.engine.graph import TILE, Task
from earthgen.engine.scheduler import Totals, generate_tiles, open_pool
from earthgen.engine.worker import WorkerContext
from earthgen.errors import PluginError
from earthgen.jobs.forecast import forecast
from earthgen.jobs.job import make_job
from earthgen.jobs.prepare import prepare
from earthgen.noise.philox import Noise
from earthgen.progress import Progress
from earthgen.stages.block import Block, Field
from earthgen.stages.stage import Read, Stage
from earthgen.testing.backends import PlainTexture, same_levels
from earthgen.voxels.tile import LEVELS
from earthgen.voxels.voxels import GEOMETRY_FIELDS, Geometry
from earthgen.world.digest import digest_text
from earthgen.world.store import Store, create_store, open_store
from earthgen_stripes.backends import Stripes, Terraces
from geo_io.frame import Frame
from geo_io.legend import codes
from tests.helpers.diffusion import Cover, DiffusionHills

FRAME = Frame("EPSG:32632", 1.0, (-43, 90), (7, 101))
STRIPES = Path(__file__).parents[2] / "plugin_package" / "src" / "earthgen_stripes"


def engine(
    geometry: Any, conditions: Mapping[str, Any] | None = None, frame: Frame = FRAME
) -> Engine:
    return Engine(frame, geometry, PlainTexture(), conditions or {}, Noise(5))


def filled(made: Engine, path: Path, tile_size: int, workers: int = 1) -> tuple[Store, Totals]:
    """A world made through store and scheduler, and what that took."""
    attributes = {"identity": {"seed": 5}, "provenance": {}, "settings": {}}
    store = create_store(path, made.frame, tile_size, attributes)
    with open_pool(WorkerContext(made, path, tile_size), workers) as pool:
        totals = generate_tiles(store, made.graph(tile_size), pool, Progress())
    return open_store(path), totals


@pytest.mark.parametrize("rule", [pytest.param("blended", marks=pytest.mark.slow), "four_colour"])
def test_a_sampled_world_has_one_digest(tmp_path: Path, rule: str) -> None:
    made = engine(DiffusionHills(rule, steps=3), {"semantics": Cover()})
    small, totals = filled(made, tmp_path / "a.zarr", 64)
    large, others = filled(made, tmp_path / "b.zarr", 104, workers=2)
    assert small.digest() == large.digest() != (0, 0, 0, 0)
    assert digest_text(small.identity, small.digest()) == digest_text(
        large.identity, large.digest()
    )
    for size, found in ((64, totals), (104, others)):
        assert found.tasks == {name: n for name, n in made.graph(size).counts().items() if n}, (
            "a task is done once"
        )


def test_the_rules_make_different_worlds() -> None:
    one, other = (
        engine(DiffusionHills(rule, steps=3), {"semantics": Cover()}).reference(64)(0, 0)
        for rule in ("blended", "four_colour")
    )
    assert not same_levels(one, other)


def test_a_tile_is_a_part_of_any_other_tile_around_it() -> None:
    """Coarse cells that the world's border cuts show all of their children, so a crop has the
    same ones."""
    made = engine(DiffusionHills(steps=2), {"semantics": Cover()})
    part = engine(made.geometry, made.conditions, replace(FRAME, x=(3, 30), y=(9, 45)))
    assert part.frame.x[0] % 8 and part.frame.y[0] % 8
    for whole, crop in zip(made.reference(64)(0, 0), part.reference(64)(0, 0), strict=True):
        window = whole.frame.slices(crop.frame)
        for name in ("ground", "surface", "semantics", "rgb"):
            assert np.array_equal(getattr(whole, name)[window], getattr(crop, name)), name
        inside = whole.voxels.inside(crop.frame)
        assert np.array_equal(whole.voxels.xyz[inside], crop.voxels.xyz)
        assert np.array_equal(whole.splats.offset[inside], crop.splats.offset)


def test_whole_coarse_cells_cover_a_frame() -> None:
    assert aligned(FRAME) == replace(FRAME, x=(-48, 96), y=(0, 104))
    assert aligned(aligned(FRAME)) == aligned(FRAME)


def bytes_of(size: int) -> LRUCache[Task, Block]:
    return LRUCache(size, getsizeof=lambda block: block.nbytes)


@pytest.mark.parametrize(
    "outputs", [None, {}, LRUCache(3), bytes_of(1), bytes_of(300_000)], ids=str
)
def test_a_window_is_the_same_part_of_the_tiles(outputs: Any) -> None:
    """Whether outputs are kept, some of them, or none: one byte holds no block."""
    made = engine(DiffusionHills(steps=2), {"semantics": Cover()})
    tile = made.reference(64)(0, 0)[0]
    for part in (tile.frame, replace(FRAME, x=(3, 40), y=(20, 61))):
        block = made.window("geometry", part, outputs)
        whole = tile.frame.slices(part)
        assert block.frame == part and block.xyz is not None
        assert np.array_equal(block["ground"], tile.ground[whole])
        inside = tile.voxels.inside(part)
        assert np.array_equal(block.xyz, tile.voxels.xyz[inside])
        assert np.array_equal(block["semantic"], tile.voxels.semantic[inside])
        assert same_blocks(block, made.window(made.chain.geometry, part, outputs))


def test_a_window_of_any_stage_is_a_part_of_any_other_around_it() -> None:
    made, outputs = engine(DiffusionHills(steps=2), {"semantics": Cover()}), bytes_of(10**6)
    for stage in made.chain.stages:
        around = stage.cells(FRAME)
        part = replace(
            around, x=(around.x[0] + 2, around.x[1] - 1), y=(around.y[0], around.y[1] - 1)
        )
        whole = made.window(stage.name, around, outputs)
        assert same_blocks(made.window(stage.name, part), whole.crop(part)), stage.name
    with pytest.raises(KeyError, match="nowhere"):
        made.window("nowhere", FRAME)


def test_a_window_that_is_held_is_not_computed_again() -> None:
    made, outputs = engine(Terraces()), {}
    block = made.window("terraces", FRAME, outputs)
    assert outputs and {task.stage for task in outputs} == {"terraces"}
    made.chain = replace(made.chain, stages=tuple(map(uncomputable, made.chain.stages)))
    assert same_blocks(made.window("terraces", FRAME, outputs), block)
    with pytest.raises(PluginError, match="computed"):
        made.window("terraces", FRAME)


def uncomputable(stage: Stage) -> Stage:
    def compute(window: Frame, inputs: Mapping[str, Any], noise: Noise) -> Block:
        raise AssertionError("it is computed")

    return replace(stage, compute=compute)


def same_blocks(left: Block, right: Block) -> bool:
    names = (*left.dense, *left.sparse)
    return (
        left.frame == right.frame
        and set(names) == {*right.dense, *right.sparse}
        and all(np.array_equal(left[name], right[name]) for name in names)
        and (left.xyz is None) == (right.xyz is None)
        and (left.xyz is None or np.array_equal(left.xyz, right.xyz))
    )


def test_a_tile_elsewhere_is_refused() -> None:
    with pytest.raises(ValueError, match="lies outside"):
        engine(Terraces()).reference(64)(9, 9)


@dataclass(frozen=True)
class Changed(Terraces):
    """Terraces from which something is changed."""

    kind: str = ""
    step: float = 2.0

    def stages(self) -> Sequence[Stage]:
        return [Stage("changed", 128, GEOMETRY_FIELDS, self.made, stride=96)]

    def made(self, window: Frame, inputs: Mapping[str, Any], noise: Noise) -> Block:
        block = self.terraces(window, inputs, noise)
        dense, sparse, xyz = dict(block.dense), dict(block.sparse), block.xyz
        assert xyz is not None
        if self.kind == "lacks":
            del dense["ground"]
        elif self.kind == "dtype":
            dense["ground"] = dense["ground"].astype(np.float64)
        elif self.kind == "shape":
            dense["ground"] = dense["ground"][1:]
        elif self.kind == "rows":
            sparse["faces"] = sparse["faces"][1:]
        elif self.kind == "width":
            sparse["normal"] = sparse["normal"][:, :2]
        elif self.kind == "no voxels":
            xyz = None
        elif self.kind == "frame":
            return Block(window.pad(1), dense, xyz, sparse)
        elif self.kind == "outside":
            xyz = xyz.copy()
            xyz[-1, 0] = window.x[1]
        return Block(window, dense, xyz, sparse)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("lacks", "lacks field 'ground'"),
        ("dtype", r"'ground' as float64 \(128, 128\), not float32 \(128, 128\)"),
        ("shape", r"'ground' as float32 \(127, 128\)"),
        ("rows", r"'faces' as uint8 \(17783,\), not uint8 \(17784,\)"),
        ("width", r"'normal' as float32 \(17784, 2\), not float32 \(17784, 3\)"),
        ("no voxels", "gave field"),
        ("frame", "gave a block on"),
        ("outside", "voxels outside its window"),
    ],
)
def test_output_that_is_not_what_was_declared_is_an_error_that_names_the_stage(
    kind: str, words: str
) -> None:
    with pytest.raises(PluginError, match=words) as caught:
        engine(Changed(kind)).reference(64)(0, 0)
    assert "'changed'" in str(caught.value) and "author" in str(caught.value.remedy)


def test_output_as_declared_is_none() -> None:
    assert same_levels(
        engine(Changed()).reference(64)(0, 0), engine(Changed("")).reference(64)(0, 0)
    )


class Below(Terraces):
    """Its voxels lie at z = -1, whatever the band."""

    def terraces(self, window, inputs, noise):
        block = super().terraces(replace(window, z=(-16, 496)), inputs, noise)
        return Block(window, block.dense, block.xyz, block.sparse)


def test_what_lies_above_or_below_the_band_is_left_out_and_counted_where_its_core_is() -> None:
    made = engine(Below(), frame=replace(FRAME, z=(0, 10)))
    stats, graph = TaskStats(), made.graph(64)
    block = made.block(
        Task("terraces", 0, 0), graph, lambda task: pytest.fail("nothing is read"), stats
    )
    assert block.xyz is not None and len(block.xyz) == 0 and block["faces"].shape == (0,)
    # A voxel a column of the core, and the walls between terraces.
    assert 96 * 96 <= stats.clipped < 128 * 128 and stats.seconds["terraces"] > 0


def test_a_condition_that_is_absent_is_absent_from_the_inputs() -> None:
    class Asking(Terraces):
        def stages(self) -> Sequence[Stage]:
            reads = (Read("semantics", cells=2), Read("dem", metres=3.0))
            return [Stage("asking", 128, GEOMETRY_FIELDS, self.ask, reads, stride=96)]

        def ask(self, window: Frame, inputs: Mapping[str, Any], noise: Noise) -> Block:
            asked.append({name: layer.frame for name, layer in inputs.items()})
            windows.append(window)
            return self.terraces(window, inputs, noise)

    asked: list[dict[str, Frame]] = []
    windows: list[Frame] = []
    engine(Asking(), {}).reference(64)(0, 0)
    assert asked and all(inputs == {} for inputs in asked)
    asked.clear(), windows.clear()
    engine(Asking(), {"semantics": Cover()}).reference(64)(0, 0)
    assert asked == [{"semantics": window.pad(2)} for window in windows], (
        "on the window and its halo"
    )


def test_a_sampler_does_without_a_map() -> None:
    with_map = engine(DiffusionHills(steps=2), {"semantics": Cover()}).reference(64)(0, 0)[0]
    without = engine(DiffusionHills(steps=2)).reference(64)(0, 0)[0]
    assert set(np.unique(without.semantics)) == {codes()["grassland"]}
    assert len(np.unique(with_map.semantics)) > 1


def place(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return ((x * 7 + y * 13) % 101).astype(np.float32)


def cells(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    return np.meshgrid(np.arange(*frame.x), np.arange(frame.y[1] - 1, frame.y[0] - 1, -1))


class UpAndDown(Terraces):
    """A number a voxel, its mean over cells of 8 voxels, and from these a ground on voxels
    again."""

    def stages(self) -> Sequence[Stage]:
        fine = Stage("fine", 24, {"value": Field("float32")}, self.fine)
        coarse = Stage(
            "coarse",
            9,
            {"mean": Field("float64")},
            self.coarse,
            (Read("fine", cells=1),),
            7,
            scale=8,
        )
        reads = (Read("coarse", cells=3), Read("fine", cells=2))
        return [fine, coarse, Stage("ground", 96, GEOMETRY_FIELDS, self.ground, reads, 64)]

    def fine(self, window: Frame, inputs: Mapping[str, Any], noise: Noise) -> Block:
        return Block(window, {"value": place(*cells(window))})

    def coarse(self, window: Frame, inputs: Mapping[str, Any], noise: Noise) -> Block:
        around = inputs["fine"]
        assert window.voxel_size == 8 and around.frame.voxel_size == 1
        assert around.frame.x == (window.x[0] * 8 - 8, window.x[1] * 8 + 8), (
            "a cell of 8 voxels around"
        )
        assert np.array_equal(around["value"], place(*cells(around.frame)))
        inner = around["value"][8:-8, 8:-8].astype(np.float64)
        return Block(window, {"mean": inner.reshape(window.ny, 8, window.nx, 8).mean(axis=(1, 3))})

    def ground(self, window: Frame, inputs: Mapping[str, Any], noise: Noise) -> Block:
        coarse, fine = inputs["coarse"], inputs["fine"]
        assert fine.frame == window.pad(2) and np.array_equal(
            fine["value"], place(*cells(fine.frame))
        )
        assert coarse.frame == window.pad(3).coarsen(8), "rounded outwards to whole cells"
        x, y = cells(window)
        means = coarse["mean"][coarse.frame.y[1] - 1 - y // 8, x // 8 - coarse.frame.x[0]]
        made = Geometry.of(self.terraces(window, inputs, noise))
        return replace(made, ground=means.astype(np.float32)).block()


@pytest.mark.parametrize("tile_size", [64, 104])
def test_stages_of_other_scales_are_read_on_whole_cells(tile_size: int) -> None:
    made = engine(UpAndDown())
    tile = made.reference(tile_size)
    for tx, ty in FRAME.tiles(tile_size):
        level = tile(tx, ty)[0]
        x, y = cells(level.frame)
        expected = np.zeros(level.frame.shape)
        for dx in range(8):
            for dy in range(8):
                expected += place(x // 8 * 8 + dx, y // 8 * 8 + dy)
        assert np.allclose(level.ground, expected / 64, atol=1e-4)


@pytest.mark.parametrize("tile_size", [96, 64])
def test_a_plan_has_the_tasks_that_a_run_does(tmp_path: Path, tile_size: int) -> None:
    job = make_job(
        {
            "bbox": (699_957, 5_540_007, 700_090, 5_540_101),
            "bbox_crs": "EPSG:32632",
            "crs": "EPSG:32632",
            "geometry": "terraces",
            "texture": "stripes",
            "plugin_dir": [STRIPES],
            "tile_size": tile_size,
            "out": tmp_path / "w.zarr",
        }
    )
    expected = forecast(job)
    assert not (tmp_path / "w.zarr").exists(), "a plan writes nothing"
    prepared = prepare(job)
    store, totals = filled(replace_noise(prepared.engine), tmp_path / "w.zarr", tile_size)
    assert {name: n for name, n in expected.tasks.items() if n} == totals.tasks
    assert (
        expected.tiles == len(store.finished_tiles()) == totals.tasks[TILE]
        and expected.frame == store.frame
    )
    assert list(expected.tasks)[-1] == TILE, "the tiles come last"
    sampled = forecast(make_job({**dict(job), "out": tmp_path / "x.zarr"}), sample=1)
    assert (
        sampled.tasks == expected.tasks
        and sampled.bytes > 0
        and sampled.memory > 0
        and "made here" in sampled.basis
    )


def replace_noise(made: Engine) -> Engine:
    return Engine(made.frame, made.geometry, Stripes(), made.conditions, Noise(1))


def test_levels_are_those_of_the_world() -> None:
    tiles = engine(Terraces()).reference(64)(-1, 0)
    assert [tile.frame for tile in tiles] == [
        (part.coarsen(level) if level > 1 else part)
        for level in LEVELS
        for part in [FRAME.tile(-1, 0, 64).intersection(FRAME)]
        if part is not None
    ]


def test_a_stage_that_fails_is_named() -> None:
    class Broken(Terraces):
        def stages(self) -> Sequence[Stage]:
            *first, last = super().stages()
            return [*first, replace(last, compute=lambda window, inputs, noise: 1 / 0)]

    with pytest.raises(PluginError, match=r"stage '\w+' failed on .*: ZeroDivisionError"):
        engine(Broken()).reference(64)(0, 0)
