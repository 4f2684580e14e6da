"""What is done with damaged worlds and runs: whole commands, exporters, and options of plugins."""

from __future__ import annotations

import contextlib
import io
import json
import re
import tempfile
import zlib
from pathlib import Path

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters that a terminal obeys, apart from tab and line feed."""

SOUND = "sound.zarr"
"""A world beside a damaged one, to compare it with."""

FORMATS = (
    "3dtiles",
    "cityjson",
    "cog",
    "copc",
    "geoparquet",
    "glb",
    "gpkg",
    "heightmap",
    "html",
    "laz",
    "obj",
    "palm",
    "ply",
    "schem",
    "spz",
    "stl",
    "umep",
)
"""Exporters that a damaged world goes through."""


def commands(path: Path) -> None:
    """A world under one of the commands that read worlds, and what they print.

    Which one depends on its content, so that a case stays what it is.
    """
    out = path.parent / "out"
    export = [["export", str(path), "--format", name, "--out", str(out)] for name in FORMATS]
    box = ["--bbox", "685740,5542480,685790,5542520", "--bbox-crs", "EPSG:32632"]
    every = [
        ["info", str(path), "--all"],
        ["info", str(path), "--json"],
        ["digest", str(path)],
        ["verify", str(path), "--sample", "1", "--workers", "1"],
        ["preview", str(path), "--out", str(out / "a.png"), "--size", "64"],
        ["preview", str(path), "--out", str(out / "a.png"), "--view", "oblique", "--size", "64"],
        ["compare", str(path), str(path.with_name(SOUND))],
        ["compare", str(path.with_name(SOUND)), str(path), "--out", str(out)],
        ["render", str(path), "--ortho", "4", "--out", str(out / "a.tif")],
        ["plan", "--resume", "--out", str(path)],
        ["generate", "--resume", "--out", str(path), "--workers", "1"],
        ["generate", "--extend", "--out", str(path), "--workers", "1", *box],
        *export,
    ]
    content = b"".join(p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file())
    run_command(every[zlib.crc32(content) % len(every)])


def run_command(words: list[str]) -> None:
    """Run a command; what it prints must hold no control character.

    Raises
    ------
    EarthgenError
        As the command.
    AssertionError
        If a terminal would obey something that it printed.
    """
    from earthgen_cli import main

    said, errors = io.StringIO(), io.StringIO()
    printed = contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors)
    with printed[0], printed[1], contextlib.suppress(main.ClickError):
        main.run(words)
    found = CONTROLS.search(said.getvalue() + errors.getvalue())
    assert found is None, f"{words[0]} printed {found!r}"


def xarray_engine(path: Path) -> None:
    """A world as xarray opens it."""
    from earthgen.world.xarray_backend import EarthgenBackend

    for level in (1, 8):
        EarthgenBackend().open_dataset(str(path), level=level).load()


def options(path: Path) -> None:
    """Options of a plugin, as a job or a command gives them; exporters also write with them."""
    from earthgen.errors import JobError
    from earthgen.plugins import load
    from earthgen.render.export import export_world
    from earthgen.world.world import open_world

    try:
        values = json.loads(path.read_bytes())
        kind, name, given = values["kind"], values["name"], values["options"]
        known = isinstance(kind, str) and kind in ("geometry", "texture", "exporter")
        known = known and isinstance(name, str) and isinstance(given, dict)
    except (ValueError, LookupError, TypeError, RecursionError):
        return  # no options of a plugin
    if not known:
        return
    try:
        load().create(kind, name, **given)
    except TypeError as error:
        if "keyword" in str(error):  # of the call in this function
            raise JobError("no name of an option", "correct it") from error
        raise
    if kind == "exporter":
        with tempfile.TemporaryDirectory() as out:
            level = values.get("level") if values.get("level") in (1, 2, 4, 8) else 1
            world = open_world(path.with_name(SOUND))
            export_world(world, name, Path(out) / "a", options=given, level=level)


def train_run(path: Path) -> None:
    """The folder of a training: its records are compared, and its checkpoint is read."""
    from earthgen.training.checkpoint import checkpoints, read_average
    from earthgen.training.runs.compare import compare_runs, write_page

    compare_runs([path, path])
    write_page([path, path], path / "page.html")
    for part in ("struct-vae", "tex-vae"):
        for each in checkpoints(path / part):
            read_average(each)


def training(path: Path) -> None:
    """Settings of a training."""
    from earthgen.training.settings import TASKS, load_settings, make_settings, part_settings

    settings = make_settings({"data": "d", "out": "o", **load_settings(path)})
    for task, parts in TASKS.items():
        for part in parts:
            part_settings(settings, part, TASKS[task])


def dataset(path: Path) -> None:
    """A dataset's split, and what `earthgen dataset` says of its scenes."""
    run_command(["dataset", "inspect", str(path)])
    run_command(["dataset", "split", str(path), "--json"])


def points(path: Path) -> None:
    """A point cloud, as the inputs of a world and as those of a scene."""
    from earthgen.jobs.point_layers import point_layers

    for rasters in point_layers([path], assume_crs="EPSG:32632", unit="m").values():
        for raster in rasters:
            Path(raster.path).unlink(missing_ok=True)  # the cache would grow


def picture(path: Path) -> None:
    """An orthophoto."""
    from geo_io.image_mosaic import open_images
    from tests.fuzz.targets import frame

    reader = open_images([str(path)], assume_crs="EPSG:32632")
    reader.survey(frame())
    reader.read(frame())
