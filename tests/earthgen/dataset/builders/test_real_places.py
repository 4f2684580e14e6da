"""What real sources need: roofs by medians, walls with colours, roofs left out, numbers of
buildings, gaps, maps that say nothing, and heights that are no numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import earthgen.dataset.build as build_module
from earthgen.dataset.build import build_scene
from earthgen.dataset.builders.buildings import roof_medians
from earthgen.dataset.crop import Crop
from earthgen.dataset.recipe import parse_recipe
from earthgen.dataset.scene import Scene
from geo_io.errors import InputError
from geo_io.legend import codes
from tests.helpers.dataset_places import (
    EAST,
    NORTH,
    SIZE,
    village,
    village_points,
    write_points,
    write_raster,
    write_village,
)

ABOUT = {"name": "village", "licence": "CC0-1.0", "grade": "A"}
BUILDING = codes()["building"]


def build(folder: Path, **keys: object) -> Scene:
    recipe = parse_recipe({"scene": [{**ABOUT, **keys}]}).scene[0]
    return build_scene(recipe, folder, folder / "out", overwrite=True)


def whole(scene: Scene) -> Crop:
    return scene.crop(replace(scene.frame))


def test_medians_take_needles_and_keep_ridges_and_steps() -> None:
    x = np.arange(24, dtype=np.float32)
    gable = 6 + 0.5 * np.minimum(x, 23 - x)
    height = np.tile(gable, (20, 1))
    height[:, 12:] += 8  # a taller house beside it
    number = np.ones((20, 24), np.uint32)
    number[:, 12:] = 2
    number[:, :2] = 0
    noisy = height.copy()
    noisy[4::5, 3::5] += 6  # aerials
    smooth = roof_medians(noisy, number)
    assert np.array_equal(smooth[:, :2], noisy[:, :2])  # no building
    inside = number > 0
    assert np.abs(smooth - height)[inside].max() <= 0.75
    assert (
        np.abs(smooth - height)[inside].mean() < 0.1 * np.abs(noisy - height)[inside].mean() + 0.1
    )
    assert (smooth[:, 12] - smooth[:, 11]).min() > 7  # the step between the two stays


def test_roofs_of_points_are_medians(tmp_path: Path) -> None:
    points = village_points()
    xyz = points["xyz"].copy()
    roof = np.flatnonzero(points["class"] == 6)
    xyz[roof[::11], 2] += 7  # the highest return of many columns is an aerial
    write_points(tmp_path / "p.laz", xyz, points["class"])
    made = village()["built"]
    median = whole(build(tmp_path, points="p.laz"))
    given = whole(build(tmp_path, points="p.laz", roofs="as_given"))
    roofs = (made > 0) & (median.cover == BUILDING)
    off = [float((np.abs(crop.height - made)[roofs] > 0.5).mean()) for crop in (median, given)]
    assert off[0] < 0.02 and off[1] > 0.2


def test_walls_have_the_colours_of_their_points(tmp_path: Path) -> None:
    write_village(tmp_path)
    made = village()
    # Points each half metre on the western wall of the first house, 8 m tall.
    step = np.arange(0.25, 8.0, 0.5)
    north = np.arange(SIZE - 22 + 0.25, SIZE - 8, 0.5) + NORTH
    z, y = (a.ravel() for a in np.meshgrid(step, north))
    row = (NORTH + SIZE - 1 - np.floor(y)).astype(int) + 0
    ground = made["ground"][row, 10]
    wall = np.column_stack([np.full(len(y), EAST + 10.05), y, ground + z])
    corners = np.array([[EAST + 1, NORTH + 1, 100.0], [EAST + SIZE - 1, NORTH + SIZE - 1, 100.0]])
    rgb = np.concatenate([np.tile([200, 40, 30], (len(wall), 1)), np.zeros((2, 3))])
    write_points(
        tmp_path / "walls.laz",
        np.concatenate([wall, corners]),
        np.ones(len(wall) + 2, np.uint8),
        (rgb * 257).astype(np.uint16),
    )
    keys = {"dsm": "dsm.tif", "dtm": "dtm.tif", "canopy": "canopy.tif", "image": "image.tif"}
    keys |= {"cover": "cover.tif", "legend": "earthgen", "points": "walls.laz"}
    plain, seen = (whole(build(tmp_path, **keys, walls=walls)) for walls in (False, True))
    assert np.array_equal(plain.xyz, seen.xyz)
    col, row = seen.xyz[:, 0] - seen.frame.x[0], seen.frame.y[1] - 1 - seen.xyz[:, 1]
    west = (col == 10) & (row >= 9) & (row < 21) & (seen.xyz[:, 2] > 0) & (seen.xyz[:, 2] < 7)
    assert west.any() and not plain.rgb_known[west].any() and seen.rgb_known[west].all()
    assert np.abs(seen.rgb[west].astype(int) - [200, 40, 30]).max() <= 2
    # What the picture shows stays; a wall without points stays a guess.
    top = plain.rgb_known
    assert np.array_equal(seen.rgb[top], plain.rgb[top])
    east = (col == 29) & (row >= 9) & (row < 21) & (seen.xyz[:, 2] > 0) & (seen.xyz[:, 2] < 7)
    assert east.any() and not seen.rgb_known[east].any()


def test_roofs_can_be_left_out(tmp_path: Path) -> None:
    write_village(tmp_path)
    keys = {"dsm": "dsm.tif", "dtm": "dtm.tif", "image": "image.tif", "dsm_holds": "all"}
    made = village()
    crop = whole(build(tmp_path, **keys, roofs="hidden"))
    assert not crop.valid[made["built"] > 0].any() and crop.valid.mean() > 0.6
    assert not (crop.cover[crop.valid] == BUILDING).any() and not (crop.semantic == BUILDING).any()
    trees = whole(build(tmp_path, **keys | {"dsm_holds": "plants"}))
    assert (trees.cover[made["built"] > 0] == codes()["tree"]).all()


def test_buildings_keep_their_numbers(tmp_path: Path) -> None:
    write_village(tmp_path)
    made = village()
    ids = np.where(made["built"] > 0, 7, 0).astype(np.uint16)
    ids[:48][ids[:48] > 0] = 4000
    write_raster(tmp_path / "ids.tif", ids)
    crop = whole(build(tmp_path, dsm="dsm.tif", dtm="dtm.tif", building_ids="ids.tif"))
    assert np.array_equal(crop.building, ids) and (crop.cover[ids > 0] == BUILDING).all()
    tall = crop.building_height[ids == 4000]
    assert np.allclose(tall, np.percentile(made["built"][ids == 4000], 95), atol=0.1)
    # There is no picture, so a map says nothing of the ground.
    assert set(np.unique(crop.map)) == {0, BUILDING}
    write_raster(tmp_path / "bad.tif", np.where(ids > 0, 1.5, 0).astype(np.float32))
    with pytest.raises(InputError, match="no whole numbers"):
        build(tmp_path, dsm="dsm.tif", dtm="dtm.tif", building_ids="bad.tif")


def test_a_map_says_what_a_picture_shows(tmp_path: Path) -> None:
    write_village(tmp_path)
    keys = {"dsm": "dsm.tif", "dtm": "dtm.tif", "image": "image.tif", "dsm_holds": "all"}
    crop = whole(build(tmp_path, **keys))
    assert (crop.map[crop.valid] > 0).all() and (crop.map == codes()["grass"]).mean() > 0.3


def test_gaps_near_data_are_ground(tmp_path: Path) -> None:
    made = village()
    ground = np.round(made["ground"] * 10).astype(np.uint16)
    ground[:, 50:] = 0  # unknown, without a declared value
    write_raster(tmp_path / "dtm.tif", ground)
    write_raster(tmp_path / "tall.tif", np.round(made["built"] * 10).astype(np.uint16))
    keys = {"dtm": "dtm.tif", "building_height": "tall.tif", "unit": "dm", "missing": 0}
    near = whole(build(tmp_path, **keys))
    assert near.valid[:, :50].all() and not near.valid[:, 50:].any()
    assert np.allclose(near.height[:, :50], made["built"][:, :50], atol=0.06)
    assert np.allclose(near.ground[:, :48], made["ground"][:, :48], atol=0.11)
    far = whole(build(tmp_path, **keys, reach=12))
    assert far.valid[:, :61].all() and not far.valid[:, 63:].any()


@pytest.mark.parametrize(("kind", "native"), [("points", 0.5), ("dsm", 1.0), ("said", 3.0)])
def test_the_native_resolution_is_kept(tmp_path: Path, kind: str, native: float) -> None:
    write_village(tmp_path)
    points = village_points()
    write_points(
        tmp_path / "p.laz", points["xyz"], points["class"], points["rgb"].astype(np.uint16) * 256
    )
    keys: dict[str, object] = {"dsm": "dsm.tif", "dtm": "dtm.tif", "image": "image.tif"}
    if kind == "points":
        keys = {"points": "p.laz"}
    elif kind == "said":
        keys["resolution"] = 3.0
    info = build(tmp_path, **keys).info
    assert info.native() == pytest.approx(native, rel=0.1)
    assert info.native("colours") == pytest.approx(native if kind != "said" else 1.0, rel=0.1)


def test_dark_pictures_can_be_brightened(tmp_path: Path) -> None:
    write_village(tmp_path)
    keys = {"dsm": "dsm.tif", "dtm": "dtm.tif", "image": "image.tif"}
    plain, bright = (whole(build(tmp_path, **keys, image_gamma=gamma)) for gamma in (1.0, 0.5))
    expected = np.round(255 * np.sqrt(plain.image / 255))
    assert np.abs(bright.image - expected).max() <= 1
    assert np.array_equal(plain.cover, bright.cover)  # classes come from the picture as it is


def test_heights_that_are_no_numbers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_village(tmp_path)
    good = build_module.scene_of_layers

    def spoiled(*given: object) -> object:
        data, evidence, vertical = good(*given)  # type: ignore[arg-type]
        data.columns["height"][3, 5] = np.nan
        return data, evidence, vertical

    monkeypatch.setattr(build_module, "scene_of_layers", spoiled)
    with pytest.raises(InputError, match=r"height of scene village, from dsm.tif, dtm.tif, is not"):
        build(tmp_path, dsm="dsm.tif", dtm="dtm.tif")
    assert not (tmp_path / "out").exists()
