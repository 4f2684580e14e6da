"""Exports in the programs of others: 3D Tiles in Cesium, Gaussians in Spark and splat-transform.

Their packages are those of tests/viewers/package-lock.json; `npm ci` puts them there, where it can.
(3d-tiles-renderer is part of our own page: tests/plugins/test_viewer_browser.py.)
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from PIL import Image
from scipy.spatial import cKDTree

from earthgen.progress import Progress
from earthgen.splats.gaussians import Gaussians
from earthgen.splats.ply import read_ply
from earthgen.voxels.splat_math import base_colours
from earthgen.world.world import World
from earthgen_3dtiles.exporter import TilesExporter, TilesOptions
from earthgen_cli.serving import open_server
from earthgen_ply.exporter import PlyExporter, PlyOptions, SpzExporter
from geo_io.crs import WGS84, transformer
from geo_io.legend import classes
from tests.helpers import synthetic
from tests.helpers.chromium import Page, chromium_page, find_chromium

pytestmark = [pytest.mark.slow, pytest.mark.network]

VIEWERS = Path(__file__).parents[1] / "viewers"
WIDTH, HEIGHT = 500, 400


@pytest.fixture(scope="module")
def packages() -> Path:
    """Folder of the packages; skipped where npm cannot bring them."""
    modules = VIEWERS / "node_modules"
    if not (modules / ".package-lock.json").is_file():
        if shutil.which("npm") is None:
            pytest.skip("needs npm, for the packages of other viewers")
        words = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(words, cwd=VIEWERS, capture_output=True, text=True, timeout=600)
        if done.returncode:
            pytest.skip(f"npm cannot install the other viewers: {done.stderr[-300:]}")
    return modules


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    path = tmp_path_factory.mktemp("viewers") / "world.zarr"
    return synthetic.make(path, (0, 96), (64, 160), tile_size=128)


@contextmanager
def opened(folder: Path, **links: Path) -> Iterator[Page]:
    """A page of a folder, served beside the folders of packages."""
    for name, target in links.items():
        (folder / name).symlink_to(target)
    server = open_server(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
    thread.start()
    try:
        with chromium_page(WIDTH, HEIGHT) as page:
            page.open(server.url, 180)
            yield page
            assert all(url.startswith((server.url, "blob:", "data:")) for url in page.requests)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("trees", ["mesh", "instances"])
def test_cesium_draws_and_names_what_it_draws(
    packages: Path, world: World, tmp_path: Path, trees: str
) -> None:
    find_chromium()
    TilesExporter(TilesOptions(trees=trees)).export(
        world, tmp_path / "tiles", bounds=None, level=2, progress=Progress()
    )
    shutil.copy(VIEWERS / "cesium.html", tmp_path / "index.html")
    with opened(tmp_path, cesium=packages / "cesium" / "Build" / "Cesium") as page:
        left, bottom, right, top = world.frame.bounds
        look_down(page, world)
        assert page.run("earthgen.errors") == []
        hits = [
            hit
            for y in range(120, 300, 36)
            for x in range(130, 390, 36)
            if (hit := page.run(f"earthgen.pick({x}, {y})")) is not None
        ]
        errors = [text for text in page.errors if "GPU stall" not in text]
        assert errors == []
    assert len(hits) > 15
    to = transformer(WGS84, world.frame.crs)
    layers = world.layers()
    names = {land.name: land.code for land in classes()}
    for hit in hits:
        x, y = to.transform(hit["lon"], hit["lat"])
        assert left - 2 < x < right + 2 and bottom - 2 < y < top + 2
        # Cells are those of a coarser level, and outlines are straightened.
        near = layers.sel(x=slice(x - 5, x + 5), y=slice(y + 5, y - 5))
        assert float(near["ground"].min()) - 3 < hit["height"] < float(near["surface"].max()) + 1
        kind = hit["properties"]["class"]
        assert names.get(kind, kind) in near["semantics"]
    assert any(hit["properties"]["object"] > 0 for hit in hits)


def look_down(page: Page, world: World) -> None:
    """Look at the middle of a world, and wait until it is drawn."""
    left, bottom, right, top = world.frame.bounds
    ground = float(world.layers()["ground"].mean())
    lon, lat = transformer(world.frame.crs, WGS84).transform((left + right) / 2, (bottom + top) / 2)
    page.run(f"earthgen.look({lon}, {lat}, {ground}, 150)")
    page.wait("earthgen.drawn > 5 && earthgen.tileset.tilesLoaded", 180)
    time.sleep(1)  # Gaussians are sorted in a worker


def test_cesium_draws_gaussians(packages: Path, world: World, tmp_path: Path) -> None:
    """Where they are, in their colours: the background is magenta, which no Gaussian is."""
    find_chromium()
    TilesExporter(TilesOptions(content="splats", splats="spz")).export(
        world, tmp_path / "tiles", bounds=None, level=1, progress=Progress()
    )
    shutil.copy(VIEWERS / "cesium.html", tmp_path / "index.html")
    gaussians = world.gaussians()
    # Those on top, well inside.
    x, y, z = (gaussians.means.astype(float) + gaussians.anchor).T
    left, bottom, right, top = world.frame.bounds
    cell = world.layers().sel(x=xarray.DataArray(x), y=xarray.DataArray(y), method="nearest")
    inside = np.minimum.reduce([x - left, right - x, y - bottom, top - y]) > 4
    rows = np.flatnonzero(inside & (np.abs(z - cell["surface"].values) < 0.3))[::37]
    to = transformer(world.frame.crs, WGS84)
    with opened(tmp_path, cesium=packages / "cesium" / "Build" / "Cesium") as page:
        look_down(page, world)
        assert page.run("earthgen.errors") == []
        picture = np.asarray(Image.open(io.BytesIO(page.picture())).convert("RGB")).astype(int)
        places = np.array(
            [
                page.run("earthgen.place({}, {}, {})".format(*to.transform(x[i], y[i]), z[i]))
                for i in rows
            ]
        )
        assert [text for text in page.errors if "GPU stall" not in text] == []
    column, line = np.rint(places).astype(int).T
    shown = picture[line, column]
    colours = base_colours(gaussians.sh)[rows].astype(int)
    assert len(rows) > 50
    assert np.median(np.abs(shown - colours).max(axis=1)) < 45
    background = (np.abs(picture - [255, 0, 255]) < 8).all(axis=2)
    assert not background[line, column].any()
    rim = np.concatenate([background[0], background[-1], background[:, 0], background[:, -1]])
    assert rim.all() and 0.2 < background.mean() < 0.9


def exported(world: World, folder: Path) -> dict[str, Path]:
    out = {}
    for name, options in (("plain", {}), ("inria", {"layout": "inria"}), ("up", {"up": "y"})):
        PlyExporter(PlyOptions(**options)).export(
            world, folder / name, bounds=None, level=2, progress=Progress()
        )
        out[name] = folder / name / "world.ply"
    SpzExporter().export(world, folder / "spz", bounds=None, level=2, progress=Progress())
    out["spz"] = folder / "spz" / "world.spz"
    return out


def expected(files: dict[str, Path], name: str) -> tuple[np.ndarray, Gaussians]:
    """Middles in the axes of a file, (n, 3), of the Gaussians of the plain one."""
    gaussians = read_ply(files["plain"])
    anchor = json.loads(files[name].with_name(files[name].name + ".json").read_text())["anchor"]
    shift = np.subtract(gaussians.anchor, anchor)
    means = gaussians.means + shift
    if name in ("up", "spz"):
        means = np.stack([means[:, 0], means[:, 2], -means[:, 1]], axis=1)
    return means, gaussians


def compare(name: str, found: np.ndarray, files: dict[str, Path], where: float) -> None:
    """Rows of middle, three deviations, opacity 0 to 1, sRGB 0 to 1."""
    means, gaussians = expected(files, name)
    assert len(found) == len(means)
    wanted = np.column_stack(
        [means, gaussians.opacities, base_colours(gaussians.sh).astype(float) / 255]
    )
    away, row = cKDTree(found[:, :3]).query(wanted[:, :3])
    assert away.max() < where and len(np.unique(row)) == len(row)
    found = found[row]
    np.testing.assert_allclose(found[:, 6], wanted[:, 3], atol=0.02)
    np.testing.assert_allclose(found[:, 7:], wanted[:, 4:], atol=0.02)
    flat = np.sort(found[:, 3:6], axis=1)
    assert (flat[:, 0] < 0.1 * flat[:, 1]).all(), "discs are flat"


@pytest.mark.parametrize("name", ["plain", "inria", "up", "spz"])
def test_spark_reads_the_gaussians(packages: Path, world: World, tmp_path: Path, name: str) -> None:
    find_chromium()
    files = exported(world, tmp_path / "splats")
    site = tmp_path / "site"
    site.mkdir()
    shutil.copy(VIEWERS / "spark.html", site / "index.html")
    links: dict[str, Any] = {
        "three": packages / "three",
        "spark": packages / "@sparkjsdev" / "spark",
        "splats": tmp_path / "splats",
    }
    with opened(site, **links) as page:
        rows = page.run(f"earthgen.read('/splats/{name}/{files[name].name}')")
    # Spark packs middles into half precision.
    compare(name, np.array(rows), files, 0.05)


@pytest.mark.parametrize("name", ["plain", "inria", "up", "spz"])
def test_splat_transform_reads_the_gaussians(
    packages: Path, world: World, tmp_path: Path, name: str
) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    files = exported(world, tmp_path)
    program = packages / "@playcanvas" / "splat-transform" / "bin" / "cli.mjs"
    words = [node, str(program), str(files[name]), str(tmp_path / "out.csv")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "out.csv").open() as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    found = np.array(
        [
            [
                *(row[axis] for axis in "xyz"),
                *(np.exp(row[f"scale_{axis}"]) for axis in range(3)),
                1 / (1 + np.exp(-row["opacity"])),
                *(np.clip(0.5 + 0.28209479 * row[f"f_dc_{band}"], 0, 1) for band in range(3)),
            ]
            for row in rows
        ]
    )
    compare(name, found, files, 0.01)
