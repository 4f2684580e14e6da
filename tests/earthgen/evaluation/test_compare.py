"""Two worlds of one place beside each other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from earthgen.evaluation.compare import (
    NAMES,
    common_frame,
    compare,
    comparison_page,
    difference_picture,
    world_names,
    write_comparison,
)
from earthgen.progress import Progress
from earthgen.render.interfaces import View
from earthgen.world.world import World
from geo_io.errors import FrameError, RegionError
from tests.helpers import mapped_place as place


@pytest.fixture(scope="module")
def taller(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The place with the flat roof 5 m higher, in other tiles."""
    return place.make(tmp_path_factory.mktemp("taller"), tile_size=128, taller=5.0)


class Plain:
    """A renderer that fills the picture."""

    name = "plain"

    def render(self, world: World, view: View, progress: Progress):
        return np.full((40, 48, 3), 90, np.uint8)


def test_a_world_is_like_itself(mapped_world: World) -> None:
    made = compare(mapped_world, mapped_world)
    assert made.changed == 0 and made.area == 96 * 80
    assert made.surface.largest == made.ground.largest == 0
    assert (
        all(a == b for a, b in made.areas.values())
        and sum(a for a, _ in made.areas.values()) == made.area
    )
    stock, other = made.stocks
    assert stock == other and stock.buildings == len(place.HOUSES) + 1 and stock.trees == 3


def test_what_changed_is_measured(mapped_world: World, taller: World, tmp_path: Path) -> None:
    made = write_comparison(mapped_world, taller, tmp_path, renderer=Plain())
    assert {path.name for path in tmp_path.iterdir()} == set(NAMES)
    first, second = made.stocks
    assert second.volume - first.volume == pytest.approx(5 * 160, rel=0.01)
    assert second.buildings == first.buildings and second.footprint == first.footprint
    grown = (second.building_height - first.building_height) * first.buildings
    assert grown == pytest.approx(5, abs=0.05)
    assert made.changed == 0 and made.ground.largest == 0
    assert made.surface.largest == pytest.approx(5, abs=0.3)
    assert made.surface.mean == pytest.approx(5 * 160 / (96 * 80), rel=0.02)
    assert made.surface.different == 160 / (96 * 80)
    with rasterio.open(tmp_path / "difference.tif") as file:
        assert file.units == ("metre", "metre") and file.crs.to_epsg() == 32632
        change = file.read(1)
    assert (change > 1).sum() == 160
    red, _, blue = np.moveaxis(difference_picture(tmp_path / "difference.tif"), -1, 0).astype(int)
    assert (red - blue > 60).sum() == 160  # higher in the second is red
    page = (tmp_path / "report.html").read_text("utf-8")
    assert page.count("data:image/jpeg;base64,") == 3 and "http" not in page.replace(
        "https://www.w3", ""
    )
    assert "<td>same</td>" in page and "+0%" not in page and "+0 " not in page
    blank = dict.fromkeys(("a", "b", "difference"), Image.new("RGB", (2, 2)))
    assert "© the makers of the map" in comparison_page(made, blank, ["© the makers of the map"])
    assert "Volume of buildings" in page and f"{second.volume - first.volume:+,.0f} m³" in page
    values = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert values["stocks"][1]["volume"] == pytest.approx(second.volume)


def test_worlds_of_one_name_are_told_apart() -> None:
    assert world_names("town-1.zarr", "town-2.zarr") == ("town-1.zarr", "town-2.zarr")
    assert world_names("a/old/w.zarr", "a/new/w.zarr") == ("old/w.zarr", "new/w.zarr")
    assert world_names("a/x/w.zarr", "b/x/w.zarr") == ("a/x/w.zarr", "b/x/w.zarr")
    assert world_names("a/w.zarr", "w.zarr") == ("a/w.zarr", "w.zarr")
    assert world_names("w.zarr", "w.zarr") == ("w.zarr", "w.zarr")
    assert world_names("s3://one/w.zarr/", "s3://two/w.zarr") == ("one/w.zarr", "two/w.zarr")


def test_a_part(mapped_world: World, taller: World) -> None:
    w, s = place.WEST, place.SOUTH
    made = compare(mapped_world, taller, bounds=(w + 70, s, w + 96, s + 20))
    assert made.area == 26 * 20
    # Of the house that stands half in it, the part inside counts.
    assert made.stocks[0].footprint == 12 * 10 and made.stocks[0].buildings == 1


def test_worlds_without_a_common_lattice(mapped_world: World) -> None:
    class Elsewhere:
        path = "far.zarr"

        def __init__(self, **change) -> None:
            self.change = change

        def level_frame(self, level: int):
            return replace(mapped_world.level_frame(level), **self.change)

    with pytest.raises(
        FrameError, match=r"voxels of 1 m in EPSG:32632, far.zarr of 2 m in EPSG:32633"
    ):
        common_frame(mapped_world, Elsewhere(crs="EPSG:32633", voxel_size=2.0), None, 1)  # type: ignore[arg-type]
    with pytest.raises(RegionError, match=r"far.zarr covers .* does not meet"):
        common_frame(mapped_world, Elsewhere(x=(0, 9)), None, 1)  # type: ignore[arg-type]
