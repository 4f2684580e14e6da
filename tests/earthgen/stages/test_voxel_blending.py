"""Blending rules for voxels: windows that are sampled separately agree."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from earthgen.engine.compute import Engine
from earthgen.errors import PluginError, UnknownNameError
from earthgen.noise.philox import Noise
from earthgen.stages.backends import GeometryBackend, TextureBackend
from earthgen.stages.blending import STATE, raised_cosine
from earthgen.stages.block import Block, Field, column_order
from earthgen.stages.stage import Read, Stage
from earthgen.stages.voxel_blending import VOXEL_BLENDING_RULES, blend_voxels, voxel_blending_stages
from earthgen.testing.backends import PlainTexture
from earthgen.testing.worlds import same_tiles
from earthgen.voxels.voxels import (
    GEOMETRY_FIELDS,
    TOP,
    Geometry,
    Splats,
    Voxels,
    texture_fields,
)
from geo_io.frame import Frame

CRS = "EPSG:32632"
WINDOW, STRIDE = 24, 16


def frame_of(x: int, y: int) -> Frame:
    """The frame of window (x, y)."""
    margin = (WINDOW - STRIDE) // 2
    return Frame(
        CRS,
        1.0,
        (x * STRIDE - margin, (x + 1) * STRIDE + margin),
        (y * STRIDE - margin, (y + 1) * STRIDE + margin),
    )


def drawn(frame: Frame, seed: int) -> Block:
    """Some voxels of a frame with values and classes."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(np.arange(*frame.x), np.arange(*frame.y), np.arange(2), indexing="ij")
    xyz = np.stack([x.ravel(), y.ravel(), z.ravel()], 1).astype(np.int32)[rng.random(x.size) < 0.4]
    xyz = xyz[column_order(xyz)]
    values = rng.normal(size=(len(xyz), 3)).astype(np.float32)
    sparse = {
        "logit": values[:, 0],
        "state": values[:, 1:],
        "class": rng.integers(0, 4, len(xyz)).astype(np.uint8),
    }
    return Block(frame, {}, xyz, sparse)


WANTED = Frame(CRS, 1.0, (10, 22), (-6, 20))


def parts_of(wanted: Frame) -> list[tuple[tuple[int, int], Block]]:
    found = []
    for y in range(-1, 2):
        for x in range(-1, 3):
            meet = frame_of(x, y).intersection(wanted)
            if meet is not None:
                found.append(((x, y), drawn(frame_of(x, y), 10 * y + x + 50).crop(meet)))
    return found


def test_blended_voxels_are_weighted_means_of_the_windows_that_cover_them() -> None:
    """Compare with a loop over voxels and windows."""
    parts = parts_of(WANTED)
    found = blend_voxels(WINDOW, STRIDE, raised_cosine, {"logit": -4.0}, ("class",), WANTED, parts)
    along = raised_cosine(WINDOW)
    expected: dict[tuple[int, ...], tuple[float, NDArray, int]] = {}
    for voxel in sorted(
        {tuple(row) for _, block in parts for row in block.xyz.tolist()},
        key=lambda v: (v[1], v[0], v[2]),
    ):
        logit, state, covered, listed, best = 0.0, np.zeros(2), 0.0, 0.0, (0.0, 0)
        for (wx, wy), block in parts:
            whole = frame_of(wx, wy)
            if not (whole.x[0] <= voxel[0] < whole.x[1] and whole.y[0] <= voxel[1] < whole.y[1]):
                continue
            share = along[voxel[0] - whole.x[0]] * along[voxel[1] - whole.y[0]]
            covered += share
            row = np.flatnonzero((block.xyz == voxel).all(1))
            logit += share * (float(block.sparse["logit"][row[0]]) if len(row) else -4.0)
            if len(row):
                state, listed = state + share * block.sparse["state"][row[0]], listed + share
                if block.sparse["class"][row[0]] and share > best[0]:
                    best = share, int(block.sparse["class"][row[0]])
        expected[voxel] = logit / covered, state / listed, best[1]
    assert [tuple(row) for row in found.xyz.tolist()] == list(expected)
    # float32 results of float64 sums: the last bit of values of a few units.
    np.testing.assert_allclose(
        found.sparse["logit"], [e[0] for e in expected.values()], rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(
        found.sparse["state"], [e[1] for e in expected.values()], rtol=1e-6, atol=1e-6
    )
    assert found.sparse["class"].tolist() == [e[2] for e in expected.values()]
    assert found.sparse["logit"].dtype == np.float32 and found.sparse["class"].dtype == np.uint8


def test_a_part_of_a_frame_is_blended_to_the_same_bits() -> None:
    inner = replace(WANTED, x=(12, 19), y=(-2, 11))
    whole = blend_voxels(
        WINDOW, STRIDE, raised_cosine, {"logit": -4.0}, ("class",), WANTED, parts_of(WANTED)
    )
    part = blend_voxels(
        WINDOW, STRIDE, raised_cosine, {"logit": -4.0}, ("class",), inner, parts_of(inner)
    )
    cropped = whole.crop(inner)
    assert np.array_equal(cropped.xyz, part.xyz) and len(part.xyz)
    for name in ("logit", "state", "class"):
        assert np.array_equal(cropped.sparse[name], part.sparse[name]), name


def test_windows_without_voxels_blend_to_none() -> None:
    empty = [
        (at, Block(b.frame, {}, b.xyz[:0], {n: v[:0] for n, v in b.sparse.items()}))
        for at, b in parts_of(WANTED)
    ]
    found = blend_voxels(WINDOW, STRIDE, raised_cosine, {}, ("class",), WANTED, empty)
    assert found.xyz.shape == (0, 3) and found.sparse["state"].shape == (0, 2)
    with pytest.raises(PluginError, match=r"no window covers .*pass every"):
        blend_voxels(WINDOW, STRIDE, raised_cosine, {}, (), WANTED, [])


@dataclass(frozen=True)
class Pull:
    """Pulls each voxel to the mean of its window, on which neighbouring windows disagree."""

    window: int = WINDOW
    stride: int = STRIDE
    channels: int = 2
    name: str = "pull"
    voxels: str = "geometry"
    reads: tuple[Read, ...] = (Read("geometry"),)

    def advance(
        self, state: NDArray, xyz: NDArray, window: Frame, inputs: Any, start: float, stop: float
    ) -> NDArray:
        assert len(state) == len(xyz) == len(inputs["geometry"].xyz)
        mean = state.astype(np.float64).mean(0) if len(state) else 0.0
        return (state + np.float32((stop - start) / (1 - start)) * (mean - state)).astype(
            np.float32
        )


class Scattered(GeometryBackend):
    """Ground with some higher voxels; small windows."""

    name, version = "scattered", "1"

    def stages(self) -> list[Stage]:
        return [Stage("scattered", 64, GEOMETRY_FIELDS, self.make, (), 32)]

    def make(self, window: Frame, inputs: Any, noise: Noise) -> Block:
        y, x = np.mgrid[window.y[0] : window.y[1], window.x[0] : window.x[1]]
        z = (noise.stream("z").uniform(x, y) * 3).astype(np.int64) - 1
        xyz = np.stack([x.ravel(), y.ravel(), z.ravel()], 1).astype(np.int32)
        n = len(xyz)
        voxels = Voxels(
            window, xyz, np.ones(n, np.uint8), np.full(n, TOP, np.uint8), np.zeros(n, np.uint32)
        )
        up = np.tile(np.float32([0, 0, 1]), (n, 1))
        return Geometry(window, np.zeros(window.shape, np.float32), voxels, 0 * up, up).block()


class Coloured(TextureBackend):
    """A texture whose colours are the sampler's state."""

    name, version = "coloured", "1"

    def __init__(self, rule: str = "blended", phases: int = 2) -> None:
        self.rule, self.phases = rule, phases

    def stages(self, geometry: Stage) -> list[Stage]:
        reads = (Read("geometry"), Read("pull"))
        last = Stage("coloured", geometry.step, texture_fields(0), self.paint, reads)
        return [*voxel_blending_stages(Pull(), self.rule, self.phases), last]

    def paint(self, window: Frame, inputs: Any, noise: Noise) -> Block:
        geometry, state = Geometry.of(inputs["geometry"]), inputs["pull"].sparse[STATE]
        assert np.array_equal(inputs["pull"].xyz, geometry.voxels.xyz)
        plain = PlainTexture().grey(window, inputs, noise)
        sh = np.concatenate([state, state[:, :1]], 1)[:, None]
        return replace(Splats.of(plain), sh=sh).block(geometry.voxels)


def made(frame: Frame, texture: Coloured, size: int = 64) -> Any:
    make = Engine(frame, Scattered(), texture, {}, Noise(3)).reference(size)
    return [make(tx, ty) for tx, ty in frame.tiles(size)]


@pytest.mark.parametrize("rule", VOXEL_BLENDING_RULES)
def test_a_crop_is_the_whole(rule: str) -> None:
    frame = Frame(CRS, 1.0, (0, 64), (-64, 0))
    (whole,) = made(frame, Coloured(rule))
    inner = replace(frame, x=(9, 40), y=(-50, -17))
    (part,) = made(inner, Coloured(rule))
    from earthgen.voxels.tile import crop_tile

    assert same_tiles(crop_tile(whole[0], inner), part[0])
    assert not np.array_equal(whole[0].splats.sh[0], whole[0].splats.sh[-1])


def test_blending_takes_the_seams_away() -> None:
    """Independent windows meet in steps at their means; blended ones change gradually."""

    def steepest(rule: str) -> float:
        (tile,) = made(Frame(CRS, 1.0, (0, 64), (0, 64)), Coloured(rule))
        colour = tile[0].splats.sh[:, 0, 0].reshape(64, 64)  # one voxel a column, sorted by (y, x)
        return float(max(np.abs(np.diff(colour, axis=axis)).max() for axis in (0, 1)))

    assert steepest("independent") > 3 * steepest("blended") > 0


def test_stages_of_a_sampler() -> None:
    stages = voxel_blending_stages(Pull(), phases=3)
    assert [stage.name for stage in stages] == ["pull/0", "pull/1", "pull"]
    assert stages[-1].fields == {STATE: Field("float32", (2,), sparse=True)}
    assert [read.source for read in stages[1].reads] == ["geometry", "pull/0"]
    pickle.loads(pickle.dumps(stages[-1].merge))
    assert [stage.name for stage in voxel_blending_stages(Pull(), "independent")] == ["pull"]
    with pytest.raises(
        UnknownNameError,
        match=r"unknown blending rule 'four_colour' for voxels.*choose one of blended, independent",
    ):
        voxel_blending_stages(Pull(), "four_colour")
    with pytest.raises(PluginError, match="at a stride of 24 cannot be blended in 2 phases"):
        voxel_blending_stages(Pull(stride=24))
    with pytest.raises(PluginError, match="in 0 phases"):
        voxel_blending_stages(Pull(), phases=0)
