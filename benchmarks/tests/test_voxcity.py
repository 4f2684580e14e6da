"""benchmarks/voxcity.py: what is counted as agreement, and that it says why it does not run."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import voxcity


def test_agreement_counts_what_both_have_built() -> None:
    number = np.zeros((10, 20), np.int32)
    number[:, :5], number[:, 15:] = 1, 2
    above = np.where(number > 0, 9.0, 0.0)
    above[0, :5] = 0.0  # a yard in the first footprint: no height to hold against
    built = number > 0
    built[:, 5:7] = True
    height = np.where(number == 1, 8.0, 12.0)
    found = voxcity.agreement(number, above, built, height)
    assert found["footprint_iou"] == round(100 / 120, 3)
    assert found["height_bias_m"] == round((45 * -1 + 50 * 3) / 95, 2)
    assert found["height_rmse_m"] == round(float(np.sqrt((45 + 50 * 9) / 95)), 2)
    assert found["footprint_height_median_error_m"] == 2.0 and found["footprints"] == 2


def test_it_says_why_it_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXCITY_PYTHON", "no-such-interpreter")
    assert voxcity.interpreter() is None
    assert set(voxcity.run()) == {"skipped"}
