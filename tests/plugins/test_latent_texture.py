"""The texture backend `latent`: one Gaussian per voxel of any geometry, a function of the place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from earthgen.engine.compute import Engine
from earthgen.errors import EarthgenError, MissingWeightsError
from earthgen.models.build import make_model
from earthgen.models.presets import STYLES, FlowConfig
from earthgen.models.weights.card import write_card
from earthgen.models.weights.format import part_path, save_weights
from earthgen.noise.philox import Noise
from earthgen.splats.cameras.camera import look_at
from earthgen.splats.gaussians import from_voxels
from earthgen.splats.raster.rendering import render
from earthgen.stages.backends import GeometryBackend, TextureBackend
from earthgen.stages.block import Block
from earthgen.stages.stage import Stage
from earthgen.testing.backends import TextureConformance
from earthgen.testing.worlds import sample_conditions
from earthgen.voxels.objects import PITCHED_ROOF, object_number
from earthgen.voxels.splat_math import SH_C0
from earthgen.voxels.surface import (
    NORMAL_RADIUS,
    face_offsets,
    occupancy_normals,
    surface_voxels,
)
from earthgen.voxels.voxels import GEOMETRY_FIELDS, TOP, Geometry, Splats
from earthgen_latent.texture import TOLD_COLOURS, LatentTexture
from geo_io.frame import Frame
from geo_io.legend import codes
from tests.helpers.latent_weights import CONFIGS, make_set


@pytest.fixture(scope="class")
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    request.cls.folder = make_set(tmp_path_factory.mktemp("weights"))
    return request.cls.folder


@pytest.mark.slow
@pytest.mark.usefixtures("weights")
class TestLatentTexture(TextureConformance):
    frame = Frame("EPSG:32632", 2.0, (341_700, 341_772), (2_769_392, 2_769_440))
    folder: Path

    def backend(self):
        from earthgen_latent.height_map import HeightFlowGeometry

        return HeightFlowGeometry(self.folder, window=64, surface=64, steps=1, phases=1)

    def texture(self):
        from earthgen_latent.texture import LatentTexture

        return LatentTexture(self.folder, window=64, steps=1)


@pytest.mark.slow
@pytest.mark.usefixtures("weights")
class TestCover:
    """Learned colours on discs of the geometry's shape leave no holes and no stripes."""

    folder: Path

    def test_walls_and_roofs_are_covered_from_all_sides(self) -> None:
        from earthgen_latent.texture import LatentTexture
        from earthgen_procedural.geometry import ProceduralGeometry

        frame = Frame("EPSG:32632", 1.0, (341_700, 341_764), (2_768_996, 2_769_060))
        texture = LatentTexture(self.folder, window=64, steps=1)
        made = Engine(frame, ProceduralGeometry(), texture, sample_conditions(), Noise(1))
        geometry = Geometry.of(made.window("geometry", frame))
        splats = Splats.of(made.window(made.chain.texture, frame))
        built = geometry.voxels.semantic == codes()["building"]
        assert 500 < built.sum() < len(built)
        # The colours are the network's: not one per class.
        assert len(np.unique(splats.sh[built].reshape(built.sum(), -1), axis=0)) > 100
        gaussians = from_voxels(geometry.voxels.take(built), splats.take(built), geometry.ground)
        whole = from_voxels(geometry.voxels, splats, geometry.ground)
        x, y, z = (float(gaussians.means[:, axis].mean()) for axis in range(3))
        x, y, z = (a + b for a, b in zip((x, y, z), gaussians.anchor, strict=True))
        open_pixels = surface = 0
        for turn in range(0, 8, 3):
            for steep in (25.0, 60.0):
                east = np.cos(np.radians(steep)) * np.sin(np.radians(45 * turn))
                north = np.cos(np.radians(steep)) * np.cos(np.radians(45 * turn))
                eye = (x + 80 * east, y + 80 * north, z + 80 * np.sin(np.radians(steep)))
                camera = look_at(
                    eye,
                    (x, y, z),
                    width=256,
                    height=256,
                    metres_per_pixel=0.3,
                    crs=frame.crs,
                    vertical_crs=frame.vertical_crs,
                )
                on_buildings = render(gaussians, camera).alpha.numpy() > 0.5
                alpha = render(whole, camera).alpha.numpy()
                inside = ndimage.binary_erosion(on_buildings, iterations=2)
                surface += int(inside.sum())
                open_pixels += int((alpha[inside] < 0.8).sum())
        assert surface > 10_000
        assert open_pixels < 0.005 * surface


def colour_set(folder: Path, **config: object) -> Path:
    """A set whose only part is a flow of colours; without TexVAE."""
    made = CONFIGS["tex-flow"].model_copy(
        update={
            "target": "rgb",
            "told": True,
            "styles": len(STYLES),
            "flow": FlowConfig(predicts="preconditioned", embedding=8),
            **config,
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    model = make_model("tex-flow", made, seed=3)
    save_weights(part_path(folder, "tex-flow"), "tex-flow", model, voxel_size=1.0, licence="CC0")
    write_card(folder, title="Colours", licence="CC0")
    return folder


FRAME = Frame("EPSG:32632", 1.0, (341_696, 341_728), (2_769_024, 2_769_056), (-16, 48))


class Boxes(GeometryBackend):
    """Houses of 8 x 8 x 6 voxels on a plain, each with a number, made at once."""

    name = "boxes"
    version = "1"

    def stages(self) -> Sequence[Stage]:
        return [Stage("boxes", 96, GEOMETRY_FIELDS, self.boxes, (), 64)]

    def boxes(self, window: Frame, inputs: object, noise: Noise) -> Block:
        outer = window.pad(NORMAL_RADIUS)
        x, y = np.meshgrid(np.arange(*outer.x), np.arange(outer.y[1] - 1, outer.y[0] - 1, -1))
        house = (x % 16 < 8) & (y % 16 < 8)
        number = object_number((x // 16 * 7919 + y // 16) * 4, PITCHED_ROOF)
        level = np.arange(-1, 8)
        solid = (level < 0) | (house[..., None] & (level < 6))
        code = np.where(house[..., None] & (level >= 0), codes()["building"], codes()["grass"])
        volume = np.where(solid, code, 0).astype(np.uint8)
        objects = np.where(solid & house[..., None], number[..., None], 0).astype(np.uint32)
        voxels = surface_voxels(window, volume, objects, -1, NORMAL_RADIUS)
        every = np.ones(len(voxels), bool)
        normal = occupancy_normals(voxels, volume, -1, NORMAL_RADIUS, every)
        offset = face_offsets(voxels.faces, window.voxel_size)
        ground = np.full(window.shape, 100, np.float32)
        return Geometry(window, ground, voxels, offset, normal).block()


def painted(texture: TextureBackend) -> tuple[Geometry, Splats]:
    made = Engine(FRAME, Boxes(), texture, sample_conditions(), Noise(1))
    geometry = Geometry.of(made.window("geometry", FRAME))
    return geometry, Splats.of(made.window(made.chain.texture, FRAME))


def rgb_of(splats: Splats) -> NDArray:
    return splats.sh[:, 0] * SH_C0 + 0.5


class TestColours:
    """A flow of colours, told colours of objects, and a start from other colours."""

    @pytest.fixture(scope="class")
    @staticmethod
    def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
        return colour_set(tmp_path_factory.mktemp("colours") / "set")

    def test_it_needs_no_autoencoder(self, colours: Path) -> None:
        texture = LatentTexture(colours, window=64, steps=2)
        geometry, splats = painted(texture)
        assert len(splats) == len(geometry.voxels) and texture.decoders == ()
        rgb = rgb_of(splats)
        assert rgb.min() >= -1e-5 and rgb.max() <= 1 + 1e-5 and rgb.std() > 0.01
        with pytest.raises(MissingWeightsError, match="no tex-vae"):
            LatentTexture(colour_set(colours.parent / "latents", target="latent"))

    def test_told_colours_are_those_of_a_palette(self, colours: Path) -> None:
        found = {}
        for palette in ("rules", "real", "none"):
            texture = LatentTexture(colours, window=64, steps=1, palette=palette)
            made = Engine(FRAME, Boxes(), texture, sample_conditions(), Noise(1))
            told = made.window(TOLD_COLOURS, FRAME).sparse["told"]
            found[palette] = told
            geometry = Geometry.of(made.window("geometry", FRAME))
        assert not found["none"].any()
        built = (geometry.voxels.semantic == codes()["building"]) & (geometry.voxels.object > 0)
        up = built & (geometry.voxels.faces & TOP > 0) & (geometry.normal[:, 2] > 0.6)
        sides = built & (np.abs(geometry.normal[:, 2]) < 0.1) & (geometry.voxels.faces & TOP == 0)
        assert up.any() and sides.any()
        for palette in ("rules", "real"):
            assert (found[palette][up | sides, 3] == 1).all()
        assert not found["rules"][geometry.voxels.object == 0].any(), "the ground is not told"
        for number in np.unique(geometry.voxels.object[up]):
            own = up & (geometry.voxels.object == number)
            assert len(np.unique(found["rules"][own], axis=0)) == 1

    def test_the_palette_follows_the_style(self, colours: Path) -> None:
        palette = {
            style: LatentTexture(colours, style=style).palette
            for style in ("", "rules", "real", "any")
        }
        assert palette == {"": "rules", "rules": "rules", "real": "real", "any": "rules"}
        rules, real = (
            rgb_of(painted(LatentTexture(colours, window=64, steps=1, style=style))[1])
            for style in ("rules", "real")
        )
        assert not np.allclose(rules, real, atol=1e-3)

    @pytest.mark.parametrize("target", ["rgb", pytest.param("latent", marks=pytest.mark.slow)])
    def test_a_start_from_the_colours_of_the_rules(
        self, colours: Path, weights_of_1_m: Path, target: str
    ) -> None:
        """The less of the way the flow goes, the nearer are its colours to where it started."""
        from earthgen_procedural.texture import ProceduralTexture

        folder = colours if target == "rgb" else weights_of_1_m
        rules = rgb_of(painted(ProceduralTexture())[1])
        error = []
        for strength in (0.02, 0.5, 1.0):
            texture = LatentTexture(
                folder, window=64, steps=4, start="procedural", strength=strength, palette="none"
            )
            error.append(float(np.abs(rgb_of(painted(texture)[1]) - rules).mean()))
        if target == "rgb":
            assert error[0] < 0.03 and error[0] < error[1] < error[2]
        alone = LatentTexture(folder, window=64, steps=4, palette="none")
        whole = LatentTexture(
            folder, window=64, steps=4, start="procedural", strength=1.0, palette="none"
        )
        first, second = (rgb_of(painted(each)[1]) for each in (alone, whole))
        # The whole way leaves nothing of the start; the rows are the same voxels.
        np.testing.assert_allclose(first, second, atol=1e-4)
        assert whole.version != alone.version and "procedural" in whole.version

    @pytest.fixture(scope="class")
    @staticmethod
    def weights_of_1_m(tmp_path_factory: pytest.TempPathFactory) -> Path:
        parts = ("tex-vae", "tex-flow")
        return make_set(tmp_path_factory.mktemp("latents"), voxel_size=1.0, parts=parts)

    def test_wrong_options(self, colours: Path) -> None:
        for options, complaint in (
            ({"start": "prozedural"}, "unknown texture 'prozedural'.*did you mean 'procedural'"),
            ({"start": "latent"}, "cannot start from its own colours"),
            ({"start": "procedural", "strength": 0}, "the strength 0 is out of range"),
            ({"strength": 1.5}, "the strength 1.5 is out of range"),
            ({"palette": "pastel"}, "unknown palette 'pastel'"),
            ({"style": "baroque"}, "style 'baroque'"),
        ):
            with pytest.raises(EarthgenError, match=complaint) as caught:
                LatentTexture(colours, **options)
            assert "\n" not in str(caught.value)
