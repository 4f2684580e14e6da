"""The conformance kit passes what is right and catches what is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from earthgen.testing import GeometryConformance, TextureConformance
from earthgen_procedural.geometry import ProceduralGeometry
from earthgen_procedural.texture import ProceduralTexture
from earthgen_stripes.backends import Stripes, Terraces
from geo_io.frame import Frame


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

    # One voxel a column in every world: the seeds differ in the ground alone.
    def test_seed_zero_is_a_seed_and_the_next_is_another_world(self):
        assert np.array_equal(self.window(seed=0).ground, self.window(seed=0).ground)
        assert not np.array_equal(self.window(seed=0).ground, self.window(seed=1).ground)


class Counting(Terraces):
    """Wrong: what it makes depends on how often it was asked."""

    calls = 0

    def generate(self, window, conditions, noise):
        Counting.calls += 1
        made = super().generate(window, conditions, noise)
        return replace(made, ground=made.ground + np.float32(Counting.calls))


class Ragged(Terraces):
    """Wrong: a column without a voxel."""

    def generate(self, window, conditions, noise):
        made = super().generate(window, conditions, noise)
        keep = np.arange(len(made.voxels)) != 5
        return replace(made, voxels=made.voxels.take(keep), offset=made.offset[keep], normal=made.normal[keep])


class Cliffs(Terraces):
    """Wrong: steps up by a voxel without a wall."""

    def generate(self, window, conditions, noise):
        made = super().generate(window, conditions, noise)
        xyz = made.voxels.xyz.copy()
        xyz[:, 2] += (xyz[:, 0] // 16) % 2
        return replace(made, voxels=replace(made.voxels, xyz=xyz))


@pytest.mark.parametrize(
    ("wrong", "check"),
    [
        (Counting, "test_same_seed_same_bits"),
        (Counting, "test_any_tile_size_gives_the_same_world"),
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
