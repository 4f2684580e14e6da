"""Whether a surface model fits its ground model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from earthgen.errors import JobError
from earthgen.jobs.job import make_job
from earthgen.jobs.surface_fit import ShiftedSurface, fit_surface, open_ground_jump
from geo_io.errors import InputError
from geo_io.frame import Frame
from geo_io.layers import Raster, Semantics
from geo_io.legend import codes

FRAME = Frame("EPSG:32632", 1.0, (500_000, 500_300), (5_500_000, 5_500_300))


@dataclass
class Heights:
    """Heights that rise to the east."""

    low: float = 100.0
    slope: float = 0.05
    factor: float = 1.0
    crowns: float = 0.0

    def read(self, window: Frame) -> Raster:
        x = np.arange(window.nx) + window.x[0] - FRAME.x[0]
        heights = np.broadcast_to(self.low + self.slope * x, window.shape).copy()
        if self.crowns:
            heights[:, : window.nx * 2 // 5] += self.crowns
        return Raster(window, (heights * self.factor).astype(np.float32))

    def survey(self, frame: Frame) -> Mapping[str, Any]:
        return {"coverage": 1.0, "voids": 0.0}


@dataclass
class Cover:
    """One class everywhere."""

    name: str

    def read(self, window: Frame) -> Semantics:
        cover = np.full(window.shape, codes()[self.name], np.uint8)
        return Semantics(window, cover, np.zeros(window.shape, np.uint32))

    def survey(self, frame: Frame) -> Mapping[str, Any]:
        return {}


def fit(
    dsm: Heights, cover: str | None = "grassland", asked: float | None = None, datums: Any = None
) -> tuple[Any, list[str]]:
    shifted = ShiftedSurface(dsm, asked) if asked else dsm
    conditions: dict[str, Any] = {"dem": Heights(), "dsm": shifted}
    if cover is not None:
        conditions["semantics"] = Cover(cover)
    surveys = {
        name: {"name": f"{name}.tif", "vertical_crs": (datums or {}).get(name, "unknown")}
        for name in conditions
    }
    return fit_surface(conditions, surveys, FRAME, asked)


def test_models_that_fit() -> None:
    dsm = Heights()
    assert fit(dsm) == (dsm, [])
    assert fit(Heights(low=100.4))[1] == []


def test_crowns_over_open_ground_are_no_jump() -> None:
    assert fit(Heights(crowns=20.0))[1] == []
    # A wood that covers everything is none either.
    assert fit(Heights(low=118.0), "mixed_forest")[1] == []
    with pytest.raises(InputError, match="above the DEM over the whole region"):
        fit(Heights(low=147.0), "mixed_forest")


@pytest.mark.parametrize("cover", ["grassland", "road", None])
@pytest.mark.parametrize(("metres", "word"), [(47.0, "47.00 m above"), (-31.5, "31.50 m below")])
def test_a_jump_is_an_error_that_prints_it(cover: str | None, metres: float, word: str) -> None:
    with pytest.raises(InputError, match=f"the DSM lies {word} the DEM") as caught:
        fit(Heights(low=100.0 + metres), cover)
    assert f"give `vertical_shift` {-metres:.2f}" in str(caught.value)
    assert "dsm.tif and dem.tif" in str(caught.value)


def test_feet_are_recognised() -> None:
    with pytest.raises(InputError, match="give `dsm_unit` ft"):
        fit(Heights(factor=3.2808))
    with pytest.raises(InputError, match="give `dem_unit` ft"):
        fit(Heights(factor=0.3048))


def test_a_small_jump_is_a_warning() -> None:
    (said,) = fit(Heights(low=101.6))[1]
    assert "1.60 m above the DEM over open ground" in said


def test_a_shift_that_is_asked_for() -> None:
    surface, said = fit(Heights(low=147.0), asked=-47.0)
    assert said == []
    np.testing.assert_allclose(surface.read(FRAME).data, Heights().read(FRAME).data, atol=1e-4)
    taken, said = fit(Heights(low=147.0), asked=0.0)
    assert isinstance(taken, Heights) and "47.00 m above" in said[0]


def test_a_transformation_that_is_at_hand() -> None:
    """Belgian heights lie 2.3 m above European ones; PROJ needs no grid for that."""
    surface, said = fit(Heights(low=102.30), datums={"dsm": "EPSG:5710", "dem": "EPSG:5730"})
    assert isinstance(surface, ShiftedSurface)
    assert said == ["the DSM is brought from EPSG:5710 to the DEM's EPSG:5730: -2.30 m"]
    part = Frame("EPSG:32632", 1.0, (500_100, 500_164), (5_500_100, 5_500_164))
    whole: NDArray = surface.read(FRAME).data
    assert np.array_equal(surface.read(part).data[0, 0], whole[FRAME.slices(part)][0, 0])


def test_the_jump_is_measured_where_both_have_heights() -> None:
    class Gaps(Heights):
        def read(self, window: Frame) -> Raster:
            heights = super().read(window).data
            heights[: window.ny // 2] = np.nan
            return Raster(window, heights)

    jump = open_ground_jump(
        {"dem": Heights(), "dsm": Gaps(low=110.0), "semantics": Cover("grass")}, FRAME
    )
    assert jump is not None and abs(jump.metres - 10) < 0.01


def test_a_shift_needs_a_surface() -> None:
    with pytest.raises(JobError, match="`vertical_shift` is added to `dsm`"):
        make_job({"bbox": (0, 0, 1, 1), "out": "w.zarr", "vertical_shift": 3.0})
