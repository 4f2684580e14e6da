"""Shared by the cases of users: a command that runs in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.user_cases import Outcome, Run, run_case


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def started(name: str, *more: str) -> Outcome:
        return run_case(name, tmp_path, monkeypatch, capsys, *more)

    return started
