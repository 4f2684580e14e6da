"""The fuzzer finds what is wrong, and a short run of it finds nothing; `make fuzz` runs it for
long."""

from __future__ import annotations

import contextlib
import json
import random
import struct
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


@pytest.mark.parametrize("frame", ["glb", "safetensors"])
def test_the_json_of_a_binary_file_is_damaged_too(frame: str) -> None:
    """Its length is mended, so that more than the check of that length sees it."""
    text = json.dumps({"asset": {"version": "2.0"}, "nodes": [{"mesh": n} for n in range(9)]})
    text += " " * (-len(text) % 4)
    raw, tail = text.encode(), b"\0" * 16
    if frame == "glb":
        head = b"glTF" + struct.pack("<3I", 2, 20 + len(raw) + len(tail), len(raw)) + b"JSON"
    else:
        head = struct.pack("<Q", len(raw))
    changed = [mutated(head + raw + tail, random.Random(n), []) for n in range(200)]
    kept = 0
    for data in changed:
        start = len(head)
        length = int.from_bytes(data[12:16] if frame == "glb" else data[:8], "little")
        with contextlib.suppress(ValueError, RecursionError):
            kept += json.loads(data[start : start + length]) != json.loads(text)
    assert kept > 60


def test_a_folder_is_as_it_was(tmp_path: Path) -> None:
    seed = run.Seed("world", "w", {"w/a/b": b"1", "w/c": b"22", "d": b""}, False)
    run.restore(seed, tmp_path / "x")
    (tmp_path / "x/w/a/b").write_bytes(b"2")
    (tmp_path / "x/w/new/e").mkdir(parents=True)
    (tmp_path / "x/w/new/f").write_bytes(b"3")
    (tmp_path / "x/d").unlink()
    run.restore(seed, tmp_path / "x")
    found = {p.relative_to(tmp_path / "x").as_posix() for p in (tmp_path / "x").rglob("*")}
    assert found == {"w", "w/a", "w/a/b", "w/c", "d"}
    assert all((tmp_path / "x" / name).read_bytes() == data for name, data in seed.files.items())


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
    write_seeds(tmp_path / "seeds")
    for number, seed in enumerate(run.seeds_of(tmp_path / "seeds", None)):
        if not seed.known:
            folder = tmp_path / "work" / str(number)
            run.restore(seed, folder)
            targets.TARGETS[seed.fmt](targets.main_file(seed.fmt, folder, seed.changed))


@pytest.mark.slow
def test_nothing_is_found_in_a_minute(tmp_path: Path) -> None:
    assert run.main(["--seconds", "60", "--keep", str(tmp_path / "kept")]) == 0
