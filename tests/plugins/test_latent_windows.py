"""Which windows learned worlds make, and in which precision: counted, not timed."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from earthgen.engine.compute import Engine
from earthgen.engine.graph import Traversal
from earthgen.errors import ModelError
from earthgen.jobs.identity import with_machine_options
from earthgen.jobs.job import make_job
from earthgen.models.height_flow import MapBlock
from earthgen.noise.philox import Noise
from earthgen.sparse import products
from earthgen.stages.stage import Stage
from earthgen.testing.worlds import CRS
from earthgen_latent.geometry import LatentGeometry
from earthgen_latent.height_map import HeightFlowGeometry
from earthgen_latent.networks import fast_bfloat16
from earthgen_latent.structure import nested_lattice, nested_margins
from earthgen_latent.texture import LatentTexture
from geo_io.frame import Frame
from tests.helpers.latent_weights import make_set

HEIGHTS, CELLS, VOXELS = "latent.heights", "latent.cells", "latent.voxels"
SURFACE = "latent.surface"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("weights"), voxel_size=1.0)


def square(west: int, south: int, side: int) -> Frame:
    return Frame(CRS, 1.0, (west, west + side), (south, south + side))


def made(geometry: Any, texture: Any, frame: Frame) -> dict[str, int]:
    """The number of windows of each stage that a world's tasks make."""
    graph = Engine(frame, geometry, texture, {}, Noise(0)).graph(512)
    found: dict[str, int] = {}
    for task in Traversal(graph, lambda task: False):
        for name in graph.groups[task.stage]:
            found[name] = found.get(name, 0) + 1
    return found


def covering(stage: Stage, frame: Frame, around: int) -> int:
    """The number of windows of a stage that count somewhere on a frame and so far around it."""
    wide = around + stage.counted * stage.scale
    spans = [
        -(-(high + wide) // stage.pitch) - (low - wide) // stage.pitch
        for low, high in (frame.x, frame.y)
    ]
    return spans[0] * spans[1]


def around(geometry: Any) -> int:
    """How far around a place its voxels read heights."""
    last = geometry.stages()[-1]
    return int(last.margin + max(read.halo(1.0) for read in last.reads))


def test_a_small_place_makes_few_more_windows_than_it_needs(weights: Path) -> None:
    """Over 200 x 200 m at 64 places: before, twenty times as many windows of heights as cover it.

    It needs heights on itself and around it, for normals and levels of detail.
    """
    geometry, texture = HeightFlowGeometry(weights), LatentTexture(weights)
    stage = next(stage for stage in geometry.stages() if stage.name == HEIGHTS)
    total = needed = cover = 0
    for west, south in product(range(684_000, 684_480, 60), repeat=2):
        frame = square(west, south, 200)
        found = made(geometry, texture, frame)
        total += found[HEIGHTS]
        needed += covering(stage, frame, around(geometry))
        cover += covering(stage, frame, 0)
        assert found[HEIGHTS] <= 16
        assert found["latent.colours"] == found["latent.splats"] == found["height-flow.surface"]
    assert total <= 1.5 * needed and total <= 2 * cover


def test_a_large_place_makes_hardly_a_window_more_than_it_needs(weights: Path) -> None:
    geometry, texture = HeightFlowGeometry(weights), LatentTexture(weights)
    stage = next(stage for stage in geometry.stages() if stage.name == HEIGHTS)
    frame = square(683_476, 5_538_883, 2000)
    assert made(geometry, texture, frame)[HEIGHTS] <= 1.15 * covering(
        stage, frame, around(geometry)
    )


def test_the_whole_chain_makes_few_more_windows_than_it_needs(weights: Path) -> None:
    """Before, 30 windows of heights where 9 are needed: cells read them a window further."""
    geometry, texture = LatentGeometry(weights), LatentTexture(weights)
    stages = {stage.name: stage for stage in geometry.stages()}
    real = ((684_376, 5_539_783, 200, 1.5), (683_476, 5_538_883, 2000, 1.15))
    for west, south, side, goal in real:
        frame = square(west, south, side)
        found = made(geometry, texture, frame)
        for name in (HEIGHTS, CELLS, "latent.latents", VOXELS):
            assert found[name] <= goal * covering(stages[name], frame, around(geometry)), name
        for name in ("latent.colours", "latent.splats"):
            assert found[name] == found[SURFACE] == covering(stages[SURFACE], frame, 0)
    total = needed = 0
    for west, south in product(range(684_000, 684_480, 60), repeat=2):
        frame = square(west, south, 200)
        total += made(geometry, texture, frame)[HEIGHTS]
        needed += covering(stages[HEIGHTS], frame, around(geometry))
    assert total <= 1.5 * needed


def test_cells_latents_and_voxels_are_one_task_and_read_no_neighbour(weights: Path) -> None:
    geometry, texture = LatentGeometry(weights), LatentTexture(weights)
    graph = Engine(square(684_376, 5_539_783, 200), geometry, texture, {}, Noise(0)).graph(512)
    assert graph.groups[VOXELS] == (CELLS, "latent.latents", VOXELS)
    task = next(task for task in Traversal(graph, lambda task: False) if task.stage == VOXELS)
    heights = [each for each in graph.needs(task) if each.stage == HEIGHTS]
    assert [(each.x, each.y) for each in heights] == [(task.x, task.y)], "its own window"
    # The margin of the surface reads its neighbours, so that windows agree on every voxel of it.
    with pytest.raises(ModelError, match=r"would not agree.*surface"):
        LatentGeometry(weights, window=304, stride=192, surface=192)


def test_windows_of_the_chain_carry_their_context(weights: Path) -> None:
    stages = {stage.name: stage for stage in LatentGeometry(weights, window=64).stages()}
    assert stages[VOXELS].window == 64 and stages[CELLS].window * 8 == 128
    assert nested_lattice(None, 256, 8) == (352, 256)
    assert nested_lattice(256, None, 8) == (256, 160)
    assert nested_lattice(None, None, 16) == (352, 192)
    assert nested_margins(80, 16) == (80, 48, 16) and nested_margins(8, 8) == (40, 24, 8)


def test_the_default_rules_and_windows_of_the_other_rule(weights: Path) -> None:
    stages = {stage.name: stage for stage in LatentGeometry(weights).stages()}
    assert stages[HEIGHTS].window == 288 and stages[HEIGHTS].step == 192
    assert stages[CELLS].window * 8 == 288 and stages[VOXELS].window == 224
    assert stages[SURFACE].window == 112 and stages[SURFACE].step == 80
    old = [stage.name for stage in LatentGeometry(weights, rule="blended").stages()]
    assert [name for name in old if name.startswith("latent.heights")] == [
        "latent.heights/0",
        "latent.heights",
    ]
    texture = LatentTexture(weights)
    assert texture.lattice(96) == (112, 96) and texture.lattice(512) == (272, 256)
    assert LatentTexture(weights, window=64).lattice(96) == (64, 48)


def test_the_fast_norm_without_gradients_is_the_norm() -> None:
    block = MapBlock(16, 8)
    with torch.no_grad():
        block.norm.weight.normal_()
        block.change.weight.normal_()
    x = torch.randn(2, 16, 24, 40).contiguous(memory_format=torch.channels_last)
    embedded = torch.randn(2, 8)
    slow = block(x, embedded).detach()
    with torch.inference_mode():
        fast = block(x, embedded)
        other = block(x.contiguous(), embedded)  # another layout in memory takes the plain way
    assert torch.allclose(slow, fast, atol=1e-4) and torch.allclose(slow, other, atol=1e-4)
    scale, offset = block.change(embedded).detach()[:, :, None, None].chunk(2, 1)
    with torch.inference_mode():  # a sample's bits do not depend on its batch
        both = block.norm.modulated(x, scale, offset)
        assert torch.equal(both[:1], block.norm.modulated(x[:1], scale[:1], offset[:1]))


@pytest.mark.parametrize(
    ("supported", "features", "fast"),
    [
        (True, {"architecture": "x86_64", "sse4a": True}, True),  # AMD
        (True, {"architecture": "x86_64", "avx512_bf16": True}, False),  # Intel without AMX
        (True, {"architecture": "x86_64", "amx_bf16": True}, True),
        (False, {"architecture": "x86_64", "sse4a": True}, False),
    ],
)
def test_precision_by_the_kind_of_cpu(
    supported: bool,
    features: dict[str, Any],
    fast: bool,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    answer = SimpleNamespace(_is_mkldnn_bf16_supported=lambda: supported)
    monkeypatch.setattr(torch.ops, "mkldnn", answer)
    products._fast.cache_clear()
    try:
        assert fast_bfloat16("cpu") == fast
        geometry = HeightFlowGeometry(weights)
        assert geometry.networks.precision == ("bf16" if fast else "fp32")
        assert geometry.chosen == {"precision": geometry.networks.precision}
        if not fast:
            with pytest.raises(ModelError, match="this CPU is slower in bfloat16"):
                HeightFlowGeometry(weights, precision="bf16")
    finally:
        products._fast.cache_clear()


def test_a_continued_world_keeps_its_precision() -> None:
    identity = {"geometry": {"options": {"precision": "bf16", "steps": 3}}, "texture": {}}
    place = {"bbox": (0, 0, 1, 1), "out": "world.zarr"}
    job = make_job({**place, "geometry_options": {"steps": 4}})
    kept = with_machine_options(job, identity)
    assert kept.geometry_options == {"steps": 4, "precision": "bf16"} and not kept.texture_options
    job = make_job({**place, "geometry_options": {"precision": "fp32"}})
    assert with_machine_options(job, identity).geometry_options == {"precision": "fp32"}


def test_heights_of_neighbouring_windows_agree(weights: Path) -> None:
    """The result on a place does not depend on what else is asked for."""
    from dataclasses import replace

    frame = square(684_300, 5_539_700, 96)
    engine = Engine(
        frame, HeightFlowGeometry(weights, steps=2), LatentTexture(weights), {}, Noise(0)
    )
    whole = engine.window(HEIGHTS, frame).dense["state"]
    part = replace(frame, x=(frame.x[0] + 30, frame.x[1]))
    assert np.array_equal(engine.window(HEIGHTS, part).dense["state"], whole[:, 30:])
