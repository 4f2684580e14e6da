"""The backend `height-flow`: a world is a function of the place, and rules hold where the
network has no say."""

from __future__ import annotations

from pathlib import Path

import pytest

from earthgen.testing.backends import GeometryConformance
from geo_io.frame import Frame
from tests.helpers.latent_weights import make_set


@pytest.fixture(scope="class")
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    request.cls.folder = make_set(tmp_path_factory.mktemp("weights"))
    return request.cls.folder


SMALL_FRAME = Frame("EPSG:32632", 2.0, (341_700, 341_796), (2_769_400, 2_769_576))


@pytest.mark.usefixtures("weights")
class TestHeightFlow(GeometryConformance):
    frame = SMALL_FRAME
    folder: Path

    def backend(self):
        from earthgen_latent.height_map import HeightFlowGeometry

        return HeightFlowGeometry(self.folder, window=64, surface=64, steps=2)
