"""Heights of one vertical CRS in another."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest

from geo_io.frame import Frame
from geo_io.vertical import vertical_shift

FRAME = Frame("EPSG:32632", 1.0, (500_000, 500_300), (5_500_000, 5_500_200))
NAP, OSTEND, LN02, EVRF2000 = "EPSG:5709", "EPSG:5710", "EPSG:5728", "EPSG:5730"


@pytest.mark.parametrize(("source", "metres"), [(NAP, -0.005), (OSTEND, -2.3018), (LN02, -0.5638)])
def test_offsets_that_need_no_grid(source: str, metres: float) -> None:
    shift = vertical_shift(source, EVRF2000, FRAME)
    assert shift is not None
    values = shift.at(FRAME)
    assert values.shape == FRAME.shape and values.dtype == np.float32
    np.testing.assert_allclose(values, metres, atol=0.01)
    # The south-western corner is where PROJ was asked for the figures above.
    np.testing.assert_allclose(values[-1, 0], metres, atol=2e-4)


def test_the_shift_is_a_function_of_the_place() -> None:
    shift = vertical_shift(LN02, EVRF2000, FRAME)
    assert shift is not None
    whole = shift.at(FRAME)
    part = Frame("EPSG:32632", 1.0, (500_101, 500_257), (5_500_033, 5_500_150))
    assert np.array_equal(shift.at(part), whole[FRAME.slices(part)])
    assert np.ptp(whole) > 0


def test_what_cannot_be_transformed() -> None:
    assert vertical_shift("unknown", EVRF2000, FRAME) is None
    assert vertical_shift(EVRF2000, EVRF2000, FRAME) is None
    # Japanese heights do not reach central Europe.
    assert vertical_shift("EPSG:6695", EVRF2000, FRAME) is None


def test_a_missing_grid() -> None:
    ellipsoidal = pyproj.CRS("EPSG:32632").to_3d().to_wkt()
    shift = vertical_shift(ellipsoidal, "EPSG:5773", FRAME)
    if shift is not None:  # where the grid of EGM96 is at hand
        assert -50 < shift.at(FRAME).mean() < -44
