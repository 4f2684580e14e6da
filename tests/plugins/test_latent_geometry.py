"""The geometry backend `latent`: a world is a function of the place, also through latents and
decoder."""

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


@pytest.mark.slow
@pytest.mark.usefixtures("weights")
class TestLatentGeometry(GeometryConformance):
    """Without a height map and in one phase: each sampler makes every check look two windows
    further."""

    frame = Frame("EPSG:32632", 2.0, (341_700, 341_772), (2_769_392, 2_769_440))
    folder: Path

    def backend(self):
        from earthgen_latent.geometry import LatentGeometry

        return LatentGeometry(
            self.folder, window=64, surface=64, steps=1, phases=1, height_map=False
        )


@pytest.mark.slow
@pytest.mark.usefixtures("weights")
class TestLatentGeometryWithHeights(GeometryConformance):
    """With a height map, on windows with the context of the default, but smaller ones."""

    frame = Frame("EPSG:32632", 2.0, (341_740, 341_776), (2_769_392, 2_769_424))
    folder: Path

    def backend(self):
        from earthgen_latent.geometry import LatentGeometry

        return LatentGeometry(self.folder, stride=64, surface=48, steps=1)
