"""The conformance kit passes what is right and catches what is wrong."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from earthgen.noise.philox import Noise
from earthgen.stages.block import Block, Field
from earthgen.stages.stage import Read, Stage
from earthgen.testing import GeometryConformance, TextureConformance
from earthgen.voxels.voxels import GEOMETRY_FIELDS, Geometry
from earthgen_procedural.geometry import ProceduralGeometry
from earthgen_procedural.texture import ProceduralTexture
from earthgen_stripes.backends import Stripes, Terraces
from geo_io.frame import Frame


@pytest.mark.slow  # tests/plugins/test_procedural.py has it with small windows
class TestProcedural(TextureConformance):
    def backend(self):
        return ProceduralGeometry()

    def texture(self):
        return ProceduralTexture()


class TestStripes(TextureConformance):
    def backend(self):
        return Terraces()

    def texture(self):
        return Stripes()


class Bare(Terraces):
    """A geometry whose windows have no margin: levels of detail are made from its neighbours."""

    def stages(self):
        return [Stage("bare", 96, GEOMETRY_FIELDS, self.terraces)]


class TestWithoutMargin(GeometryConformance):
    def backend(self):
        return Bare()


class Chained(Terraces):
    """Terraces from a stage of their own, on cells of eight voxels, which is read with a halo."""

    def stages(self):
        heights = Stage("heights", 12, {"level": Field("float32")}, self.heights, (), scale=8)
        return [
            heights,
            Stage(
                "steps",
                128,
                GEOMETRY_FIELDS,
                self.steps,
                (Read("heights", metres=24.0),),
                stride=96,
            ),
        ]

    def heights(self, window, inputs, noise):
        return Block(window, {"level": noise.stream("levels").normals(window, 1)[..., 0]})

    def steps(self, window, inputs, noise):
        made = Geometry.of(self.terraces(window, inputs, noise))
        coarse = inputs["heights"]
        x, y = np.arange(*window.x) // 8, np.arange(window.y[1] - 1, window.y[0] - 1, -1) // 8
        level = coarse["level"][np.ix_(coarse.frame.y[1] - 1 - y, x - coarse.frame.x[0])]
        around = coarse["level"].mean() * 0  # the halo is there
        return replace(made, ground=made.ground + level + np.float32(around)).block()


class TestChained(GeometryConformance):
    def backend(self):
        return Chained()


class Wrong(Terraces):
    def stages(self):
        return [Stage("wrong", 128, GEOMETRY_FIELDS, self.made, stride=96)]

    def made(self, window, inputs, noise):
        return self.change(Geometry.of(self.terraces(window, inputs, noise)), window).block()


class Counting(Wrong):
    """What it makes depends on how often it was asked."""

    calls = 0

    def change(self, made, window):
        Counting.calls += 1
        return replace(made, ground=made.ground + np.float32(Counting.calls))


class Ragged(Wrong):
    """A column without a voxel."""

    def change(self, made, window):
        keep = np.arange(len(made.voxels)) != 5
        return replace(
            made, voxels=made.voxels.take(keep), offset=made.offset[keep], normal=made.normal[keep]
        )


class Cliffs(Wrong):
    """Steps up by a voxel without a wall."""

    def change(self, made, window):
        xyz = made.voxels.xyz.copy()
        xyz[:, 2] += (xyz[:, 0] // 16) % 2
        return replace(made, voxels=replace(made.voxels, xyz=xyz))


class Windowed(Wrong):
    """A margin that differs from the neighbour's core."""

    def change(self, made, window):
        xyz = made.voxels.xyz.copy()
        xyz[:, 2] += (window.x[0] // 96) % 2
        return replace(made, voxels=replace(made.voxels, xyz=xyz))


class Sharing(Terraces):
    """Two stages that draw from one stream."""

    def stages(self):
        first = Stage("first", 96, {"draw": Field("float32")}, self.draw)
        return [
            first,
            Stage("second", 128, GEOMETRY_FIELDS, self.second, (Read("first"),), stride=96),
        ]

    def draw(self, window, inputs, noise):
        return Block(window, {"draw": noise.of_stage("a").stream("b").normals(window, 1)[..., 0]})

    def second(self, window, inputs, noise):
        noise.of_stage("a").stream("b")
        return self.terraces(window, inputs, noise)


class Deaf(Terraces):
    """Takes no notice of the seed."""

    def stages(self):
        return [Stage("deaf", 128, GEOMETRY_FIELDS, self.made, stride=96)]

    def made(self, window, inputs, noise):
        return self.terraces(window, inputs, Noise(5))


def test_the_kit_needs_torch_for_sparse_backends_and_rasterizers_alone() -> None:
    code = """
import sys
from earthgen.testing import GeometryConformance, PlainTexture, sample_conditions
from earthgen.testing import check_rasterizer, check_sparse_backend
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("wrong", "check"),
    [
        (Counting, "test_same_seed_same_bits"),
        (Counting, "test_any_tile_size_gives_the_same_world"),
        (Counting, "test_crop_equals_whole"),
        (Counting, "test_any_order_gives_the_same_world"),
        (Windowed, "test_windows_agree_where_they_overlap"),
        (Deaf, "test_seed_zero_is_a_seed_and_the_next_is_another_world"),
        (Sharing, "test_stages_share_no_noise"),
        (Ragged, "test_every_column_has_a_top"),
        (Cliffs, "test_surface_is_closed"),
    ],
)
def test_the_kit_catches(wrong, check: str) -> None:
    class Kit(GeometryConformance):
        frame = Frame("EPSG:32632", 2.0, (0, 200), (0, 200))

        def backend(self):
            return wrong()

    with pytest.raises(AssertionError):
        getattr(Kit(), check)()
