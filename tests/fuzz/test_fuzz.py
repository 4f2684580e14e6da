"""The fuzzer finds what is wrong, and a short run of it finds nothing; `make fuzz` runs it for
long."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz import run, targets
from tests.fuzz.mutate import mutated
from tests.fuzz.seeds import write_seeds


def test_mutations_are_many_and_repeat() -> None:
    data = b'{"a": [1, 2.5, {"b": "c"}], "d": null}'
    first = [mutated(data, random.Random(number), [b"other"]) for number in range(200)]
    again = [mutated(data, random.Random(number), [b"other"]) for number in range(200)]
    assert first == again
    assert len(set(first)) > 100 and sum(each != data for each in first) > 190


def test_a_finding_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(path: Path) -> None:
        raise ZeroDivisionError(path.name)

    monkeypatch.setitem(targets.TARGETS, "legend", broken)
    monkeypatch.setattr(run, "_warm", lambda *_: None)
    words = ["--seconds", "0.2", "--format", "legend", "--keep", str(tmp_path / "kept")]
    assert run.main(words) == 1
    assert "ZeroDivisionError" in capsys.readouterr().out
    (kept, *_) = (tmp_path / "kept").iterdir()
    assert (kept / "about.json").is_file()


@pytest.mark.slow
def test_the_seeds_are_sound(tmp_path: Path) -> None:
    """Damage would hide behind an error that a sound file has."""
    write_seeds(tmp_path)
    for seed in run.seeds_of(tmp_path, None):
        if run.CORPUS not in seed.folder.parents:
            path = targets.main_file(seed.fmt, seed.folder, seed.changed)
            targets.TARGETS[seed.fmt](path)


@pytest.mark.slow
def test_nothing_is_found_in_a_minute(tmp_path: Path) -> None:
    assert run.main(["--seconds", "60", "--keep", str(tmp_path / "kept")]) == 0
