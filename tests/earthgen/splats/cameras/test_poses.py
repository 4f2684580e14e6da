"""Rings, grids and paths of cameras, over surfaces."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from earthgen.errors import SplatError
from earthgen.splats.cameras.camera import Camera
from earthgen.splats.cameras.paths import interpolate, look_along, read_cameras, write_cameras
from earthgen.splats.cameras.poses import (
    CLEARANCE,
    HeightField,
    Lens,
    above,
    aerial,
    clear,
    grid,
    height_at,
    ring,
)
from geo_io.errors import InputError, MissingFileError

LENS = Lens(640, 480, 60.0, crs="EPSG:32632", vertical_crs="EPSG:7837")
CENTRE = (690_300.0, 5_540_300.0, 400.0)
BOUNDS = (690_000.0, 5_540_000.0, 690_600.0, 5_540_600.0)


def places(cameras: list[Camera]) -> np.ndarray:
    return np.array([camera.position for camera in cameras])


def test_a_ring_goes_around_clockwise_and_looks_inwards() -> None:
    cameras = ring(CENTRE, 200, 120, 8, LENS)
    away = places(cameras) - CENTRE
    np.testing.assert_allclose(away[0], (0, 200, 120), atol=1e-9)  # the first to the north
    np.testing.assert_allclose(away[2], (200, 0, 120), atol=1e-9)  # then to the east
    np.testing.assert_allclose(np.hypot(away[:, 0], away[:, 1]), 200)
    for camera in cameras:
        np.testing.assert_allclose(camera.project(np.array([CENTRE]))[0], [[320, 240]], atol=1e-6)
        assert (camera.crs, camera.vertical_crs) == ("EPSG:32632", "EPSG:7837")
    np.testing.assert_allclose(
        (places(ring(CENTRE, 200, 120, 4, LENS, start=90)) - CENTRE)[0], (200, 0, 120), atol=1e-9
    )
    sky = ring(CENTRE, 200, 120, 4, LENS, target=(690_300.0, 5_540_300.0, 520.0))
    assert all(abs(camera.forward[2]) < 1e-9 for camera in sky)


def test_a_ring_may_look_straight_down() -> None:
    for camera in ring(CENTRE, 200, 120, 5, LENS, down=True):
        np.testing.assert_allclose(camera.forward, (0, 0, -1), atol=1e-12)
        inwards = np.array(CENTRE[:2]) - camera.position[:2]
        np.testing.assert_allclose(camera.down[:2], inwards / np.linalg.norm(inwards), atol=1e-9)


def hill(east: np.ndarray, north: np.ndarray) -> np.ndarray:
    return 400 + 300 * np.exp(-((east - 690_300) ** 2 + (north - 5_540_500) ** 2) / 100**2)


def test_no_camera_is_below_the_surface() -> None:
    cameras = ring(CENTRE, 200, 50, 24, LENS, surface=hill)
    cameras += grid(BOUNDS, 60, LENS, ground=400.0, surface=hill)
    cameras += grid(BOUNDS, 60, LENS, ground=hill, tilt=60, headings=(0, 90, 180, 270))
    cameras += aerial(BOUNDS, LENS, ground=400.0, surface=hill)
    at = places(cameras)
    assert (at[:, 2] >= hill(at[:, 0], at[:, 1]) + CLEARANCE - 1e-9).all()
    low = places(ring(CENTRE, 200, 50, 24, LENS))
    assert (low[:, 2] < hill(low[:, 0], low[:, 1])).any()  # some of them would have been
    # A wall two metres beside the camera counts as well.
    assert clear((0, 0, 10.0), lambda x, y: np.where(x > 2, 50.0, 0.0))[2] == 50 + CLEARANCE
    assert clear((0, 0, 10.0), lambda x, y: np.where(x > 4, 50.0, 0.0))[2] == 10
    assert clear((0, 0, -5.0), None)[2] == -5 and clear((0, 0, -5.0), 7.0)[2] == 7 + CLEARANCE
    raised = above(ring(CENTRE, 200, 50, 24, LENS), hill)
    assert [camera.position for camera in raised] == [
        c.position for c in ring(CENTRE, 200, 50, 24, LENS, surface=hill)
    ]


def test_a_height_field_is_a_surface() -> None:
    heights = np.array([[1, 2, 3], [4, np.nan, 6]], np.float32)
    field = HeightField(heights, (0, 0, 30, 20))
    x, y = np.array([0, 9.9, 10, 29.9, -50, 500]), np.array([19.9, 10, 19, 0, 100, -3])
    np.testing.assert_array_equal(field(x, y), [1, 4, 2, 6, 1, 6])
    assert field(np.array([15]), np.array([5])) in (2, 4, 6)  # the gap takes a neighbour's
    assert np.isnan(heights[1, 1])  # and the caller's array stays as it is
    # Rows count from the north: of the cell (row 0, column 0) the south-west corner belongs to row
    # 1.
    assert (
        field(np.array([5.0]), np.array([10.1])) == 1
        and field(np.array([5.0]), np.array([9.9])) == 4
    )
    for bad, bounds in (
        (np.full((2, 2), np.nan), (0, 0, 1, 1)),
        (heights, (0, 0, 0, 1)),
        (np.zeros(3), (0, 0, 1, 1)),
    ):
        with pytest.raises(SplatError, match="not a surface"):
            HeightField(bad, bounds)
    with pytest.raises(SplatError, match="surface is nan"):
        height_at(lambda x, y: x * np.nan, 1, 2)


def test_pictures_of_a_nadir_grid_overlap_as_asked() -> None:
    """Pixels on the ground: which share of one picture the next one, and the one beside it, see
    again."""
    cameras = grid(BOUNDS, 100, LENS, ground=400.0, overlap=80, side_overlap=60)
    at = places(cameras)
    x, y = np.unique(np.round(at[:, 0], 6)), np.unique(np.round(at[:, 1], 6))
    assert len(cameras) == len(x) * len(y) and (at[:, 2] == 500).all()
    assert (x[0], x[-1], y[0], y[-1]) == (BOUNDS[0], BOUNDS[2], BOUNDS[1], BOUNDS[3])
    across = 2 * 100 * math.tan(math.radians(30))
    along = across * 480 / 640
    # At least what was asked for, and not much more: lines are spread evenly from edge to edge.
    assert 0.6 <= 1 - np.diff(x).max() / across + 1e-9 < 0.7
    assert 0.8 <= 1 - np.diff(y).max() / along + 1e-9 < 0.85
    corners = np.array([[BOUNDS[i], BOUNDS[j], 400.0] for i in (0, 2) for j in (1, 3)])
    seen = np.zeros(4, bool)
    for camera in cameras:
        pixels, depth = camera.project(corners)
        seen |= (depth > 0) & (pixels >= 0).all(axis=1) & (pixels <= (640, 480)).all(axis=1)
    assert seen.all()
    assert (
        np.abs(np.diff(at[:, 1])).max() <= np.diff(y).max() + 1e-6
    )  # to and fro, without flying back


def test_a_grid_turned_by_its_heading_swaps_its_steps() -> None:
    east = places(grid(BOUNDS, 100, LENS, headings=(90,)))
    north = places(grid(BOUNDS, 100, LENS, headings=(0,)))
    assert len(np.unique(np.round(east[:, 0], 6))) == len(np.unique(np.round(north[:, 1], 6)))
    flat = grid(
        BOUNDS,
        100,
        replace(LENS, field_of_view=None, metres_per_pixel=0.5),
        overlap=50,
        side_overlap=50,
    )
    assert len(flat) == (1 + math.ceil(600 / 160)) * (1 + math.ceil(600 / 120))
    assert len(grid((5, 5, 5, 5), 100, LENS)) == 1


def test_oblique_cameras_look_at_the_grid() -> None:
    cameras = grid(BOUNDS, 100, LENS, ground=hill, surface=0.0, tilt=45, headings=(0, 90, 180, 270))
    count = len(cameras) // 4
    for camera, heading in zip(cameras[::count], (0, 90, 180, 270), strict=True):
        angle = math.radians(heading)
        np.testing.assert_allclose(
            camera.forward,
            np.array([math.sin(angle), math.cos(angle), -1]) / math.sqrt(2),
            atol=1e-9,
        )
        assert camera.down[2] < 0
    hit = places(cameras) + np.array([camera.forward for camera in cameras]) * 100 * math.sqrt(2)
    np.testing.assert_allclose(hit[:, 2], hill(hit[:, 0], hit[:, 1]), atol=1e-6)
    assert hit[:, 0].min() == pytest.approx(BOUNDS[0]) and hit[:, 1].max() == pytest.approx(
        BOUNDS[3]
    )


def test_an_aerial_set_has_high_and_low_oblique_and_nadir_views() -> None:
    cameras = aerial(BOUNDS, LENS, ground=400.0)
    assert len(cameras) == 4 * 12 + 1
    down = np.array([camera.forward[2] for camera in cameras])
    assert (down < -0.999).sum() == 13 and (np.abs(down) < 0.8).sum() == 36
    assert sorted({round(camera.position[2]) for camera in cameras})[:3] == [520, 640, 700]
    corners = np.array([[BOUNDS[i], BOUNDS[j], 400.0] for i in (0, 2) for j in (1, 3)])
    pixels, _ = cameras[-1].project(corners)
    assert (pixels > -1e-6).all() and (
        pixels < np.array([640, 480]) + 1e-6
    ).all()  # the last one sees all of it
    wide = (0, 0, 1500, 600)
    assert len(aerial(wide, LENS, views=4)) == 3 * 17
    assert np.ptp(places(aerial(wide, LENS, views=4)), axis=0)[0] > 1400
    assert len(aerial(BOUNDS, replace(LENS, field_of_view=None, metres_per_pixel=1.0))) == 49


def test_what_no_set_can_be() -> None:
    for make in (
        lambda: ring(CENTRE, 10, 10, 0, LENS),
        lambda: ring(CENTRE, -1, 10, 4, LENS),
        lambda: ring(CENTRE, 0, 0, 4, LENS),
        lambda: grid((5, 0, 0, 5), 10, LENS),
        lambda: grid(BOUNDS, 0, LENS),
        lambda: grid(BOUNDS, 10, LENS, tilt=90),
        lambda: grid(BOUNDS, 10, LENS, overlap=100),
        lambda: grid(BOUNDS, 1e-3, LENS),
        lambda: grid((0, 0, 1e9, 1), 1e-3, LENS),
        lambda: aerial((0, 0, 0, 5), LENS),
        lambda: aerial((0, 0, 1e8, 1e8), LENS),
        lambda: aerial(BOUNDS, LENS, views=0),
        lambda: Lens(640, 480).down((0, 0, 10)),
    ):
        with pytest.raises(SplatError):
            make()


def test_a_path_goes_through_its_keys() -> None:
    keys = ring(CENTRE, 200, 120, 5, LENS)
    path = interpolate(keys, 401)
    assert (path[0], path[-1].position) == (
        replace(keys[0], rotation=path[0].rotation),
        pytest.approx(keys[-1].position),
    )
    at = places(path)
    for key in keys:
        nearest = np.linalg.norm(at - key.position, axis=1).argmin()
        assert np.linalg.norm(at[nearest] - key.position) < 1.5  # a step
        assert path[nearest].forward @ key.forward > 0.9998
    steps = np.linalg.norm(np.diff(at, axis=0), axis=1)
    assert steps.max() < 1.5 * steps.min()
    turns = np.array([1 - a.forward @ b.forward for a, b in itertools.pairwise(path)])
    assert turns.max() < 1e-3  # smooth


def test_a_closed_path_has_no_seam() -> None:
    keys = ring(CENTRE, 200, 120, 6, LENS)
    path = interpolate(keys, 120, closed=True)
    at = places(path)
    np.testing.assert_allclose(at[0], keys[0].position, atol=1e-6)
    steps = np.linalg.norm(np.diff(np.concatenate([at, at[:1]]), axis=0), axis=1)
    assert steps.max() < 1.05 * steps.min()  # the step over the seam too
    # Splines through a circle's points are near the circle.
    np.testing.assert_allclose(np.hypot(*(at - CENTRE)[:, :2].T), 200, rtol=0.01)


def test_paths_of_few_keys() -> None:
    one, two = ring(CENTRE, 200, 120, 2, LENS)
    assert interpolate([one], 3) == [one] * 3 and interpolate([one, one], 2) == [one] * 2
    assert interpolate([one], 2, closed=True) == [one] * 2
    straight = places(interpolate([one, two], 5))
    np.testing.assert_allclose(straight, np.linspace(one.position, two.position, 5), atol=1e-6)
    assert len(interpolate([one, two], 7, closed=True)) == 7
    turn = interpolate([one, replace(one, rotation=two.rotation)], 3)  # on the spot
    assert {camera.position for camera in turn} == {one.position}
    zoom = interpolate([one, replace(two, fx=2 * one.fx, far=50.0)], 3)
    assert (
        zoom[1].fx == pytest.approx(1.5 * one.fx)
        and zoom[1].fy == one.fy
        and zoom[1].far == math.inf
    )
    over = interpolate([one, two], 9, surface=lambda x, y: np.full_like(x, 800.0))
    assert {camera.position[2] for camera in over} == {800 + CLEARANCE}
    assert all(
        abs(c.project(np.array([CENTRE]))[0] - (320, 240)).max() < 1e-6
        for c in look_along([one, two], CENTRE)
    )


def test_what_no_path_can_be() -> None:
    one, two = ring(CENTRE, 200, 120, 2, LENS)
    with pytest.raises(SplatError, match="make no path"):
        interpolate([], 3)
    with pytest.raises(SplatError, match="make no path"):
        interpolate([one], 0)
    with pytest.raises(SplatError, match="one kind and size"):
        interpolate([one, replace(two, width=10)], 3)
    with pytest.raises(SplatError, match="EPSG:32633"):
        interpolate([one, replace(two, crs="EPSG:32633")], 3)


def test_cameras_come_back_from_json_to_the_bit(tmp_path: Path) -> None:
    cameras = aerial(BOUNDS, LENS, ground=hill)
    path = write_cameras(tmp_path / "path.json", cameras)
    assert read_cameras(path) == cameras
    assert "Infinity" not in path.read_text()
    with pytest.raises(MissingFileError):
        read_cameras(tmp_path / "none.json")
    document = json.loads(path.read_text())
    for bad in (
        "no json",
        "[]",
        "{}",
        json.dumps(document | {"format": "x"}),
        json.dumps(document | {"version": 2}),
        json.dumps(document | {"cameras": [1]}),
        json.dumps(document | {"cameras": {}}),
    ):
        path.write_text(bad)
        with pytest.raises(InputError):
            read_cameras(path)
