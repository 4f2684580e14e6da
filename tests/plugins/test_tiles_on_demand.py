"""Tiles that are made when a viewer asks for them: the same world, in the same place."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earthgen.dataset.readers.tiles_3d import open_tileset, tileset_patches
from earthgen.progress import Progress
from earthgen.world.world import World
from earthgen_3dtiles.exporter import TilesExporter
from earthgen_3dtiles.on_demand import TilesOnDemand
from earthgen_3dtiles.pieces import PieceMaker
from geo_io.errors import RegionError
from tests.helpers import synthetic


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    path = tmp_path_factory.mktemp("live") / "world.zarr"
    return synthetic.make(path, (0, 80), (64, 150), tile_size=64)


def live(world: World, folder: Path, level: int = 1, **more: Any) -> TilesOnDemand:
    return TilesOnDemand(world, folder, None, level, **more)


def ask_for_all(tiles: TilesOnDemand) -> list[str]:
    """Ask for all that the tileset leads to, as a viewer that looks everywhere would."""
    asked = []

    def look(node: dict[str, Any], base: str) -> None:
        if "content" in node:
            uri = (base + node["content"]["uri"]).replace("sub/../", "")
            assert tiles.make(uri), uri
            asked.append(uri)
            if uri.endswith(".json"):
                look(json.loads((tiles.folder / uri).read_text())["root"], "sub/")
        for child in node.get("children", []):
            look(child, base)

    look(json.loads((tiles.folder / "tileset.json").read_text())["root"], "")
    return asked


def surface(folder: Path) -> np.ndarray:
    """Middles of the triangles of the finest tiles, and their areas: (n, 4), sorted."""
    patches = tileset_patches(open_tileset(folder / "tileset.json"), "EPSG:32632", 1.0, None)
    corners = np.concatenate([patch.corners for patch in patches])
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return np.column_stack([corners.mean(axis=1), np.linalg.norm(across, axis=1) / 2])


def test_they_are_the_world_that_an_export_writes(world: World, tmp_path: Path) -> None:
    TilesExporter().export(world, tmp_path / "export", bounds=None, level=1, progress=Progress())
    tiles = live(world, tmp_path / "live")
    assert not (tmp_path / "live" / "tiles").exists(), "nothing is made before it is asked for"
    asked = ask_for_all(tiles)
    assert {uri.split("/")[0] for uri in asked} == {"tiles", "sub"}
    made, exported = surface(tmp_path / "live"), surface(tmp_path / "export")
    # The same pieces of terrain and walls, but for skirts, which smaller pieces have more of.
    places = np.abs(made[:, None, :3] - exported[None, ::50, :3]).max(axis=2).min(axis=0)
    assert np.median(places) < 0.01 and (places < 0.02).mean() > 0.8
    for axis in range(3):
        assert made[:, axis].min() == pytest.approx(exported[:, axis].min(), abs=0.6)
        assert made[:, axis].max() == pytest.approx(exported[:, axis].max(), abs=0.6)


@pytest.mark.parametrize("content", ["mesh", "splats"])
def test_boxes_hold_what_is_in_them(world: World, tmp_path: Path, content: str) -> None:
    tiles = live(world, tmp_path, content=content)
    document = json.loads((tmp_path / "tileset.json").read_text())
    assert document["extras"]["seed"] == world.seed
    for record in tiles._records(1):
        assert tiles.make(record.uri)
        (made,) = json.loads(
            (tmp_path / ".work" / f"records/1_{record.x}_{record.y}_{record.n}.json").read_text()
        )
        assert record.heights[0] <= made["heights"][0] and made["heights"][1] <= record.heights[1]
        assert made["anchor"] == list(record.anchor) and made["error"] < 0.01
        assert (made["splats"] > 0) == (content == "splats")


def test_other_addresses_are_nothing(world: World, tmp_path: Path) -> None:
    tiles = live(world, tmp_path, level=4)
    for uri in (
        "tiles/1/0_0.glb",  # finer than asked for
        "tiles/8/99_99.glb",
        "tiles/8/0_0_32.glb",
        "sub/99_0.json",
        "../../etc/passwd",
        "tiles/8/../8/0_0.glb",
        "",
    ):
        assert not tiles.make(uri), uri
    assert not (tmp_path / "tiles").exists()
    with pytest.raises(RegionError):
        TilesOnDemand(world, tmp_path / "x", (0.0, 0.0, 1.0, 1.0), 1)


def test_a_tile_is_made_once(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask at the same time; and never again while it is there."""
    tiles = live(world, tmp_path, level=8)
    (uri,) = ask_for_all(live(world, tmp_path / "other", level=8))
    made: list[Any] = []
    real = PieceMaker.make
    monkeypatch.setattr(PieceMaker, "make", lambda self, p: (made.append(p), real(self, p))[1])
    threads = [threading.Thread(target=tiles.make, args=(uri,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and (tmp_path / uri).stat().st_size > 1000
    assert live(world, tmp_path, level=8).make(uri) and len(made) == 1
    tiles.close()


@pytest.mark.slow
def test_processes_make_the_same(world: World, tmp_path: Path) -> None:
    one, two = live(world, tmp_path / "1"), live(world, tmp_path / "2", workers=2)
    asked = ask_for_all(one)
    assert ask_for_all(two) == asked
    for uri in asked:
        assert (tmp_path / "1" / uri).read_bytes() == (tmp_path / "2" / uri).read_bytes()
    two.close()
