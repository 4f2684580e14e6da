"""Tunnels and culverts are hidden where the ground lies over them, and shown where it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from shapely.geometry import LineString, box

from geo_io.frame import Frame
from geo_io.layers import Raster
from geo_io.legend import builtin_crosswalks, codes
from geo_io.semantics.options import SemanticsOptions
from geo_io.semantics.reader import SemanticsReader, open_semantics
from geo_io.semantics.structures.tunnels import in_the_open

X, Y = 500_000, 5_500_000
FRAME = Frame("EPSG:32632", 1.0, (X, X + 200), (Y, Y + 60))
OPTIONS = SemanticsOptions(crosswalks=builtin_crosswalks())
CODE = codes()


@dataclass(frozen=True)
class Along:
    """Heights that change to the east alone."""

    of: Callable[[NDArray], NDArray]

    def read(self, frame: Frame) -> Raster:
        x = (np.arange(*frame.x) + 0.5) * frame.voxel_size - X
        return Raster(frame, np.broadcast_to(self.of(x), frame.shape).astype(np.float32))


def hill(x: NDArray) -> NDArray:
    """Level ground at 100 m, and a hill of 20 m from 60 to 140."""
    return 100 + 20.0 * ((x > 60) & (x < 140))


def valleys(x: NDArray) -> NDArray:
    """A hill, a valley below the ends, and a hill."""
    return 100 + np.where((x > 90) & (x < 110), -8.0, np.where((x > 40) & (x < 160), 15.0, 0.0))


def level(x: NDArray) -> NDArray:
    return np.full(x.shape, 100.0)


def reader(
    heights: Callable[[NDArray], NDArray] | None, *rows: tuple[LineString, dict[str, Any]]
) -> SemanticsReader:
    rows = ((box(-300, -300, 500, 500), {"landuse": "meadow"}), *rows)
    names = sorted({name for _, tags in rows for name in tags})
    table = gpd.GeoDataFrame(
        {name: [tags.get(name) for _, tags in rows] for name in names},
        geometry=[shapely.transform(shape, lambda xy: xy + np.array([X, Y])) for shape, _ in rows],
        crs=FRAME.crs,
    )
    opened = open_semantics([table], FRAME, OPTIONS)
    if heights is not None:
        opened.use_heights(Along(heights))
    return opened


ROAD = {"highway": "primary", "tunnel": "yes"}
CULVERT = {"waterway": "stream", "tunnel": "culvert"}
THROUGH = LineString([(20, 30), (180, 30)])


def seen(opened: SemanticsReader, name: str, window: Frame = FRAME) -> list[int]:
    """Columns of the middle row that show a class, metres from the west."""
    cover = opened.read(window).cover[window.ny // 2]
    return (np.flatnonzero(cover == CODE[name]) + window.x[0] - X).tolist()


@pytest.mark.parametrize("layer", [None, "-1"])
def test_a_tunnel_mapped_beyond_its_portals_is_seen_before_the_hill(layer: str | None) -> None:
    found = seen(reader(hill, (THROUGH, {**ROAD, "layer": layer})), "road")
    assert {*range(22, 58), *range(142, 178)} <= set(found)
    assert not set(found) & {*range(63, 138)} and min(found) >= 20 and max(found) < 180


def test_a_chain_of_pieces_is_one_tunnel() -> None:
    pieces = [(LineString([(a, 30), (b, 30)]), ROAD) for a, b in ((20, 50), (150, 50), (150, 180))]
    whole = seen(reader(hill, (THROUGH, ROAD)), "road")
    assert abs(len(seen(reader(hill, *pieces), "road")) - len(whole)) <= 4


def test_windows_see_the_same() -> None:
    opened = reader(hill, (THROUGH, ROAD))
    whole = opened.read(FRAME).cover
    part = Frame(FRAME.crs, 1.0, (X + 30, X + 75), (Y + 10, Y + 50))
    assert np.array_equal(whole[FRAME.slices(part)], opened.read(part).cover)


@pytest.mark.parametrize(("heights", "layer"), [(None, None), (level, None), (level, "-1")])
def test_under_level_ground_the_map_is_believed(heights: Any, layer: str | None) -> None:
    rail = {"railway": "rail", "tunnel": "yes"}
    for tags, name in ((ROAD, "road"), (CULVERT, "river"), (rail, "rail")):
        opened = reader(heights, (THROUGH, {**tags, "layer": layer}))
        assert seen(opened, name) == []
        assert opened.survey().sources[0].warnings == ()


def test_a_tunnel_in_a_layer_at_the_ground_is_seen() -> None:
    assert len(seen(reader(level, (THROUGH, {**ROAD, "layer": "0"})), "road")) > 150


def test_a_valley_between_two_hills_shows_the_way() -> None:
    found = set(seen(reader(valleys, (THROUGH, ROAD)), "road"))
    assert {*range(94, 106)} <= found and not found & {*range(60, 85), *range(115, 150)}
    # A layer below the ground says that the way passes under the valley, as under a river.
    below = seen(reader(valleys, (THROUGH, {**ROAD, "layer": "-1"})), "road")
    assert not set(below) & {*range(92, 108)}


def test_a_tunnel_under_a_river_stays_hidden() -> None:
    def banks(x: NDArray) -> NDArray:
        return 100 - 6.0 * ((x > 60) & (x < 140))

    assert seen(reader(banks, (THROUGH, ROAD)), "road") == []


def test_a_culvert_is_hidden_under_the_embankment_alone() -> None:
    def embankment(x: NDArray) -> NDArray:
        return 100 + 3.0 * ((x > 90) & (x < 110))

    found = set(seen(reader(embankment, (LineString([(70, 30), (130, 30)]), CULVERT)), "river"))
    assert {*range(72, 88), *range(112, 128)} <= found and not found & {*range(93, 107)}


def test_other_ways_buildings_and_water_are_not_painted_over() -> None:
    rows = [
        (THROUGH, {"railway": "rail", "tunnel": "yes"}),
        (LineString([(40, 0), (40, 60)]), {"highway": "primary"}),
        (box(150, 20, 160, 40), {"building": "yes"}),
    ]
    found = seen(reader(hill, *rows), "rail")
    assert not set(found) & {*range(37, 43), *range(151, 159)} and {*range(46, 58)} <= set(found)


def test_what_is_shown_is_said_with_its_length_and_a_place() -> None:
    (source,) = reader(hill, (THROUGH, ROAD)).survey().sources
    (text,) = [text for text in source.warnings if "tunnels" in text]
    assert source.underground == 1 and "in 2 places" in text and "500020 east, 5500030" in text
    metres = float(text.split(" over ")[1].split(" m ")[0])
    assert metres == pytest.approx(80, abs=5)


def test_long_ends_in_a_layer_below_are_tunnels_under_level_ground() -> None:
    at = np.arange(0.0, 400.0, 2.0)
    over = 10.0 * ((at > 100) & (at < 300))
    assert not in_the_open(at, over, -1.0, 1.0, 4.0).any()
    assert in_the_open(at, over, np.nan, 1.0, 4.0)[[0, -1]].all()
    unknown = np.where(at > 350, np.nan, over)
    assert not in_the_open(at, unknown, np.nan, 1.0, 4.0)[at > 350].any()
