"""The texture backend `latent`: one Gaussian per voxel of any geometry, a function of the place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from earthgen.engine.compute import Engine
from earthgen.noise.philox import Noise
from earthgen.splats.cameras.camera import look_at
from earthgen.splats.gaussians import from_voxels
from earthgen.splats.raster.rendering import render
from earthgen.testing.backends import TextureConformance
from earthgen.testing.worlds import sample_conditions
from earthgen.voxels.voxels import Geometry, Splats
from geo_io.frame import Frame
from geo_io.legend import codes
from tests.helpers.latent_weights import make_set


@pytest.fixture(scope="class")
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    request.cls.folder = make_set(tmp_path_factory.mktemp("weights"))
    return request.cls.folder


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
