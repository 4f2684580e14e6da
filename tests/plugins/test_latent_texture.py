"""The texture backend `latent`: one Gaussian a voxel of any geometry, a function of the place."""

from __future__ import annotations

from pathlib import Path

import pytest

from earthgen.testing.backends import TextureConformance
from geo_io.frame import Frame
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
