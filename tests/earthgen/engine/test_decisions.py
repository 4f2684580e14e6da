"""What of each column the sources said, and the layer that notes it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from earthgen.engine.decisions import decide
from earthgen.jobs.generate import generate
from earthgen.voxels.tile import Tile
from earthgen.world.decisions import FILLED, GENERATED, INFERRED, MAPPED, NAME
from earthgen.world.world import World, open_world
from earthgen_cli.main import main
from geo_io.frame import Frame
from geo_io.layers import Buildings, Raster, Semantics, Trees
from geo_io.legend import codes
from tests.helpers.command_line import PLUGIN

CRS = "EPSG:32632"
FRAME = Frame(CRS, 1.0, (500_000, 500_032), (5_500_000, 5_500_016))
C = codes()


@dataclass
class Heights:
    """Metres above sea on the western half."""

    data: NDArray

    def read(self, window: Frame) -> Raster:
        return Raster(window, self.data[FRAME.slices(window)])


@dataclass
class Land:
    """Residential plots, no data in the east, two houses and a tree."""

    def read(self, window: Frame) -> Semantics:
        rows = np.arange(window.y[1], window.y[0], -1)[:, None] - 1 - FRAME.y[0]
        columns = np.arange(*window.x)[None] - FRAME.x[0]
        cover = np.where(columns + 0 * rows < 24, C["residential"], 0).astype(np.uint8)
        for column in (2, 10):
            house = (rows >= 2) & (rows < 8) & (columns >= column) & (columns < column + 6)
            cover[house] = C["building"]
        x, y = FRAME.bounds[:2]
        houses = [shapely.box(x + column, y + 2, x + column + 6, y + 8) for column in (2, 10)]
        heights = np.array([9.0, np.nan])
        buildings = Buildings(np.array(houses), heights, np.arange(2, dtype=np.uint64))
        trees = Trees(
            np.array([[x + 20, y + 12]]), np.full(1, np.nan), np.full(1, 6.0), np.ones(1, np.uint64)
        )
        return Semantics(window, cover, np.zeros(window.shape, np.uint32), buildings, trees)


def tile(frame: Frame = FRAME) -> Tile:
    """What was made of it: the houses, another one, trees, and grass where nothing is mapped."""
    made = Land().read(FRAME).cover
    made[made == 0] = C["grassland"]
    made[1:4, 2:5] = C["building"]  # generated
    made[1:7, 17:23] = C["tree"]  # the mapped one, and around it
    made[1:3, 28:30] = C["tree"]
    made[:, 31] = 0  # outside of the region
    part = made[FRAME.slices(frame)]
    none: Any = None
    ground = np.full(frame.shape, 100, np.float32)
    return Tile(frame, ground, ground, part, none, none, none)


def test_each_kind_of_column() -> None:
    found = decide(tile(), {"semantics": Land()})
    assert found.dtype == np.uint8
    assert (found[9, 3], found[9, 12]) == (MAPPED, INFERRED), "a house with a height, one without"
    assert (found[12, 20], found[12, 28], found[0, 0]) == (MAPPED, FILLED, MAPPED)
    assert (found[2, 3], found[2, 28]) == (GENERATED, FILLED)
    assert found[3, 20] == MAPPED, "under the crown of the mapped tree"
    assert found[6, 17] == GENERATED, "a tree beside it"
    assert (found[:, 31] == 0).all() and (found[:, :31] > 0).all()


def test_models_of_heights_tell_what_stands_there() -> None:
    heights = np.full(FRAME.shape, np.nan, np.float32)
    heights[:, :16] = 100.5
    heights[1:4, 2:5] = 104
    found = decide(tile(), {"semantics": Land(), "dsm": Heights(heights)})
    assert found[2, 3] == INFERRED, "a house that no map has, in the surface model"
    assert found[9, 12] == MAPPED, "the surface model has its height"
    assert found[6, 17] == GENERATED
    crowns = np.where(tile().semantics == C["tree"], 7, 0).astype(np.float32)
    found = decide(tile(), {"semantics": Land(), "canopy": Heights(crowns)})
    assert (found[6, 17], found[2, 28], found[2, 3]) == (INFERRED, INFERRED, GENERATED)
    alone = decide(tile(), {"dsm": Heights(heights)})
    assert (alone[2, 3], alone[0, 0]) == (INFERRED, GENERATED)


@pytest.mark.parametrize("x", [0, 7, 19, 23])
def test_a_tile_is_decided_as_the_whole(x: int) -> None:
    """The mapped tree stands outside of some of the parts, and its crown reaches into them."""
    whole = decide(tile(), {"semantics": Land()})
    part = replace(FRAME, x=(FRAME.x[0] + x, FRAME.x[0] + x + 8), y=(FRAME.y[0] + 5, FRAME.y[1]))
    found = decide(tile(part), {"semantics": Land()})
    assert np.array_equal(found, whole[FRAME.slices(part)])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A small world without sources, of two tiles."""
    folder = tmp_path_factory.mktemp("decisions")
    (folder / "stripes.py").write_text(PLUGIN)
    return generate(
        bbox=(500_000, 5_500_000, 500_080, 5_500_040),
        bbox_crs=CRS,
        crs=CRS,
        geometry="terraces",
        texture="stripes",
        tile_size=64,
        plugin_dir=[folder],
        out=folder / "w.zarr",
    )


def extended(world: World, out: Path) -> World:
    """Extend a copy of the world to the east."""
    left, bottom, right, top = world.frame.bounds
    more = {"bbox": (left, bottom, right + 60, top), "bbox_crs": CRS, "out": out}
    folder = Path(str(world.path)).parent
    return generate(**{**world.settings, **more, "extend": True, "plugin_dir": [folder]})


def test_the_layer_of_a_world(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    layer = world.layers()[NAME]
    assert layer.dtype == np.uint8 and (layer.values == GENERATED).all()
    assert layer.attrs["flag_meanings"] == "no_data mapped inferred filled generated"
    assert len(world.tiles()) > 1
    capsys.readouterr()
    assert main(["info", str(world.path), "--decisions"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["m2", "mapped", "inferred", "filled", "generated"]
    assert ["all", "0", "0", "0", "3,200"] in [line.split() for line in lines]


def test_an_older_world_without_the_layer(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = shutil.copytree(world.path, tmp_path / "old.zarr")
    shutil.rmtree(old / "level_1" / NAME)
    opened = open_world(old)
    assert opened.tile_decisions(*opened.tiles()[0]) is None
    assert opened.digest(recompute=True) == world.digest()
    assert main(["verify", str(old)]) == 0
    assert main(["info", str(old)]) == 0
    assert main(["info", str(old), "--decisions"]) == 5
    assert "before decisions were noted. Generate it again" in capsys.readouterr().err
    grown = extended(world, old)
    known = grown.tile_decisions(*max(grown.tiles()))
    assert known is not None and (known == GENERATED).all(), "the new tile notes them"
    assert main(["info", str(old), "--decisions"]) == 0
    assert "m2 were made before decisions were noted" in capsys.readouterr().out


def test_an_extension_keeps_the_layer(world: World, tmp_path: Path) -> None:
    grown = extended(world, shutil.copytree(world.path, tmp_path / "w.zarr"))
    assert len(grown.tiles()) > len(world.tiles())
    assert (grown.layers()[NAME].values == GENERATED).all()
