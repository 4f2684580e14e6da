"""The parts of the soak and of the table of kills that need no long run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks import kills, soak


@pytest.mark.parametrize("km2", [1.0, 4.0, 100.0, 1000.0])
def test_a_square_lies_on_tiles_and_has_enough_of_them(km2: float) -> None:
    size = soak.size_of(km2, 4.0)
    assert km2 <= size.side**2 / 1e6 < 1.6 * km2
    assert size.tiles**2 >= soak.FEW_TILES and size.side % (size.tile_size * 4.0) == 0
    part, whole = (size.job(Path(), Path("w"), part=part)["bbox"] for part in (True, False))
    assert whole[0] < part[0] < part[2] < whole[2]


def test_kills_are_spread_and_repeat() -> None:
    first, again = (soak.disturbances(100, 20, random.Random(3)) for _ in range(2))
    assert first == again and [what for _, what in first].count("command") == 20
    moments = [moment for moment, _ in first]
    assert moments == sorted(moments) and moments[0] < 25 and moments[-1] > 75


def test_growth_is_that_of_the_last_third() -> None:
    rows = [{"km2": n, "command": [100 + n, 9, 3], "workers": [50, 8, 2]} for n in range(1, 31)]
    found = soak.growth(rows)
    assert found["command_mb_first_and_last_third"] == [110, 130]
    assert found["workers_threads_first_and_last_third"] == [2, 2]


def test_what_lies_at_a_place(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert kills.state(out) is None
    (out / ".a.partial").mkdir(parents=True)
    (out / ".a.partial" / "b").write_text("")
    assert kills.state(out) is None and kills.hidden(tmp_path)
    (out / "a.tif").write_text("")
    assert kills.state(out) == (["a.tif"], [])
