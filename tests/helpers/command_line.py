"""Words, plugins and worlds for tests of the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from earthgen import errors
from earthgen.jobs.job import Job
from earthgen.progress import Event
from earthgen_cli.main import main

ROOT = Path(__file__).parents[2]
BBOX = "11.5500,49.9403,11.5512,49.9407"  # two tiles of 64 m
NEAR = 1e-4  # degrees: the UTM grid is turned by 2 degrees here, and boxes grow to whole voxels
PLUGIN = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests" / "plugin_package" / "src")!r})
from earthgen_stripes import *
"""


def generate_words(out: Path, plugin_dir: Path) -> list[str]:
    """Return the words of a command that generates a small world without input."""
    return [
        "generate",
        "--bbox",
        BBOX,
        "--geometry",
        "terraces",
        "--texture",
        "stripes",
        "--seed",
        "5",
        "--tile-size",
        "64",
        "--plugin-dir",
        str(plugin_dir),
        "--out",
        str(out),
    ]


@dataclass
class Core:
    """Stands in for `earthgen.jobs.generate.run`: keeps the job, tells `events`, raises `error`."""

    jobs: list[Job] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    error: BaseException | None = None

    def run(self, job: Job, listener: Callable[[Event], None] | None = None) -> Any:
        self.jobs.append(job)
        for event in self.events:
            assert listener is not None
            listener(event)
        raise self.error or errors.JobError("the test stops here", "go on")


def digest_of(world: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["digest", str(world), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["tiles_missing"] == 0
    return str(values["digest"])


def drop_tile(world: Path) -> None:
    """Make a world as an interrupted run leaves it."""
    from earthgen.world.store import open_store

    store = open_store(world, mode="r+")
    store.forget(store.finished_tiles()[:1])


def areas(path: Path, boxes: list[str], **columns: list[Any]) -> Any:
    """Write a file of rectangles W,S,E,N, and return its features."""
    import geopandas
    import shapely

    shapes = [shapely.box(*map(float, box.split(","))) for box in boxes]
    frame = geopandas.GeoDataFrame(columns, geometry=shapes, crs="EPSG:4326")
    frame.to_file(path)
    return frame
