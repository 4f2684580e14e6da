"""Shared by the tests of training."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not draw curves at every checkpoint: it takes longer than the steps of these runs.

    `curves.png` of a whole run is looked at in test_parts.py, its drawing in test_settings.py.
    """
    if request.path.name not in ("test_parts.py", "test_settings.py"):
        monkeypatch.setattr("earthgen.training.loop.draw_curves", lambda *_: None)
