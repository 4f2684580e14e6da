"""Cameras: axes, pixels, large coordinates, crops, and what cannot be."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earthgen.errors import SplatError
from earthgen.splats.cameras.camera import Camera, facing, look_at, map_view, nadir

UTM = (690_000.0, 5_540_000.0, 500.0)


def camera(**changes) -> Camera:
    values = {"width": 640, "height": 480, "field_of_view": 60.0, "crs": "EPSG:32632"}
    return look_at(UTM, (690_120.0, 5_540_050.0, 420.0), **(values | changes))


def test_the_target_is_in_the_middle_and_axes_are_right_down_forward() -> None:
    seen = camera()
    pixels, depth = seen.project(
        np.array([[690_120.0, 5_540_050.0, 420.0], [690_120.0, 5_540_050.0, 430.0]])
    )
    np.testing.assert_allclose(pixels[0], (320, 240), atol=1e-6)
    np.testing.assert_allclose(depth[0], math.dist(UTM, (690_120.0, 5_540_050.0, 420.0)))
    np.testing.assert_allclose(pixels[1, 0], 320, atol=1e-6)
    assert pixels[1, 1] < 240  # what is higher is higher in the picture, where rows count downwards
    np.testing.assert_allclose(np.cross(seen.right, seen.down), seen.forward, atol=1e-12)
    assert seen.right[2] == pytest.approx(0, abs=1e-12) and seen.down[2] < 0
    # Looking east, what lies to the south is on the right.
    east = look_at((0, 0, 0), (1, 0, 0), width=4, height=4, field_of_view=90)
    np.testing.assert_allclose(east.right, (0, -1, 0), atol=1e-12)


def test_field_of_view_is_that_of_the_width() -> None:
    wide = look_at((0, 0, 0), (0, 10, 0), width=200, height=100, field_of_view=90)
    pixels, _ = wide.project(np.array([[10, 10, 0], [-10, 10, 0]]))
    np.testing.assert_allclose(pixels, [[200, 50], [0, 50]], atol=1e-9)
    assert wide.field_of_view == pytest.approx((90, 2 * math.degrees(math.atan(0.5))))


def test_an_orthographic_pixel_is_so_many_metres() -> None:
    flat = nadir((1000, 2000, 300), width=10, height=10, metres_per_pixel=0.5)
    pixels, depth = flat.project(
        np.array([[1000.5, 2000, 10], [1000, 2000.5, 250], [1000, 2000, 301]])
    )
    np.testing.assert_allclose(pixels, [[6, 5], [5, 4], [5, 5]])  # east is right, north is up
    np.testing.assert_allclose(depth, (290, 50, -1))
    assert flat.field_of_view == (0, 0)


@pytest.mark.parametrize(
    "options", [{}, {"field_of_view": None, "metres_per_pixel": 0.3}], ids=["pinhole", "ortho"]
)
def test_unproject_is_the_way_back(options: dict) -> None:
    rng = np.random.default_rng(1)
    seen, points = camera(**options), np.array(UTM) + rng.uniform(-200, 200, (50, 3))
    pixels, depth = seen.project(points)
    front = depth > 0
    assert 0 < front.sum() < 50
    np.testing.assert_allclose(
        seen.unproject(pixels[front], depth[front]), points[front], atol=1e-7
    )
    behind = np.isnan(pixels[~front]).all()
    assert behind if seen.kind == "pinhole" else not np.isnan(pixels).any()


def test_utm_northings_keep_their_digits() -> None:
    """A mean 3 m from an anchor in UTM: relative to it float32 is exact to micrometres,
    absolutely to half a metre."""
    seen, anchor = camera(), (690_100.25, 5_540_040.75, 400.0)
    means = np.float32([[1.3, 2.1, 3.7], [1.3, 2.1001, 3.7]])
    turn, shift = seen.world_to_camera(anchor)
    assert turn.dtype == shift.dtype == np.float64
    here = means @ turn.T.astype(np.float32) + shift.astype(np.float32)
    exact = (means.astype(np.float64) + anchor - np.array(UTM)) @ np.array(seen.rotation)
    np.testing.assert_allclose(here, exact, atol=3e-5)  # float32 at 120 m
    assert np.abs(here[1] - here[0]).max() > 5e-5
    lost = (means + np.float32(anchor) - np.float32(UTM)) @ turn.T.astype(np.float32)
    assert np.abs(lost - exact).max() > 0.05


def test_a_crop_is_a_window_of_the_same_picture() -> None:
    seen, points = camera(), np.array(UTM) + np.array([[110.0, 60, -90], [90, 50, -70]])
    pixels, depth = seen.project(points)
    window = seen.crop(100, 180, -20, 300)
    assert (window.width, window.height) == (320, 80)
    found, same = window.project(points)
    np.testing.assert_allclose(found, pixels - (-20, 100), atol=1e-9)
    np.testing.assert_array_equal(same, depth)
    assert seen.crop(0, 480, 0, 640) == seen
    with pytest.raises(SplatError, match="contain no pixel"):
        seen.crop(5, 5, 0, 3)


def test_scaling_keeps_the_edges() -> None:
    seen = replace(camera(), width=641, cx=300.0)
    half = seen.scaled(0.5)
    assert (half.width, half.height) == (320, 240)
    points = seen.unproject(np.array([[0.0, 0], [641, 480]]), 100)
    np.testing.assert_allclose(half.project(points)[0], [[0, 0], [320, 240]], atol=1e-6)
    assert camera().scaled(1e-9).width == 1 and camera().scaled(1) == camera()
    for factor in (0, -1, math.nan, math.inf):
        with pytest.raises(SplatError, match="cannot be scaled"):
            seen.scaled(factor)


def test_a_map_has_its_first_pixel_in_the_north_west() -> None:
    plan = map_view((1000, 2000, 1100, 2050), 0.5, 300, crs="EPSG:32632")
    assert (plan.width, plan.height, plan.kind, plan.crs) == (
        200,
        100,
        "orthographic",
        "EPSG:32632",
    )
    pixels, _ = plan.project(np.array([[1000.25, 2049.75, 0], [1099.75, 2000.25, 0]]))
    np.testing.assert_allclose(pixels, [[0.5, 0.5], [199.5, 99.5]], atol=1e-9)
    odd = map_view((0, 0, 1.1, 0.9), 0.5, 10)
    assert (odd.width, odd.height) == (3, 2)
    np.testing.assert_allclose(odd.project(np.array([[0, 0.9, 0]]))[0], [[0, 0]], atol=1e-9)
    for bounds, size in (((0, 0, 0, 1), 1), ((0, 2, 1, 1), 1), ((0, 0, 1, 1), 0)):
        with pytest.raises(SplatError, match="has no pixel"):
            map_view(bounds, size, 10)


def test_straight_down_north_is_up_unless_told_otherwise() -> None:
    for down in (camera_down(UTM), nadir(UTM, width=8, height=8, field_of_view=50)):
        np.testing.assert_allclose(
            np.array(down.rotation), [[1, 0, 0], [0, -1, 0], [0, 0, -1]], atol=1e-12
        )
    east = nadir((0, 0, 10), heading=90, width=8, height=8, field_of_view=50)
    np.testing.assert_allclose(east.down, (-1, 0, 0), atol=1e-12)
    up = look_at((0, 0, 0), (0, 0, 5), width=8, height=8, field_of_view=50)
    np.testing.assert_allclose(up.down, (0, -1, 0), atol=1e-12)
    # `up` along the view, and the view to the north: the sky is up.
    north = facing((0, 0, 0), (0, 7, 0), up=(0, 1, 0))
    np.testing.assert_allclose(np.array(north)[:, 1], (0, 0, -1), atol=1e-12)


def camera_down(eye: tuple[float, float, float]) -> Camera:
    return look_at(eye, (eye[0], eye[1], eye[2] - 100), width=8, height=8, field_of_view=50)


@settings(max_examples=80, deadline=None)
@given(st.tuples(*[st.floats(-1, 1)] * 3), st.tuples(*[st.floats(-1, 1)] * 3))
def test_any_view_with_any_up_is_a_rotation(view: tuple, up: tuple) -> None:
    if math.hypot(*view) < 1e-150 or math.hypot(*up) < 1e-150:  # squares below 1e-300 are 0
        return
    turn = np.array(facing((0, 0, 0), view, up))
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(turn), 1, atol=1e-9)
    np.testing.assert_allclose(turn[:, 2], np.array(view) / math.hypot(*view), atol=1e-9)


def test_json_brings_a_camera_back_to_the_bit() -> None:
    for seen in (
        camera(),
        map_view((0, 0, 10, 5), 0.3, 77),
        replace(camera(), far=1e4, near=0.123456789),
    ):
        assert Camera.from_dict(json.loads(json.dumps(seen.to_dict(), allow_nan=False))) == seen
    assert len({camera(), camera(), camera(width=100)}) == 2  # hashable
    assert "690000.00" in str(camera()) and "EPSG:32632" in str(camera())
    with pytest.raises(SplatError, match="cannot be read"):
        Camera.from_dict({"kind": "pinhole"})
    for wrong in ({"fx": "long"}, {"width": "wide"}, {"far": []}):
        with pytest.raises(SplatError, match=r"cannot be read|not a number"):
            Camera.from_dict(camera().to_dict() | wrong)
    with pytest.raises(SplatError, match="shutter"):
        Camera.from_dict(camera().to_dict() | {"shutter": 1})


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"kind": "fisheye"}, "unknown kind of camera 'fisheye'"),
        ({"width": 0}, "width of 0 pixels"),
        ({"height": 10.5}, "height of 10.5 pixels"),
        ({"width": math.nan}, "width of nan pixels"),
        ({"fx": 0.0}, "focal lengths of 0.0"),
        ({"fy": -3.0}, "are not positive"),
        ({"cx": math.nan}, "cx is nan"),
        ({"near": 0.0}, "enclose no depth"),
        ({"near": 5.0, "far": 5.0}, "enclose no depth"),
        ({"far": math.nan}, "enclose no depth"),
        ({"position": (1, 2)}, "position"),
        ({"position": (1, 2, math.inf)}, "position"),
        ({"position": "here"}, "position"),
        ({"rotation": np.eye(3) * 2}, "is not a rotation"),
        ({"rotation": np.diag([1, 1, -1])}, "right-handed"),
        ({"rotation": np.eye(2)}, "shape"),
        ({"rotation": [["a"] * 3] * 3}, "not a rotation"),
    ],
)
def test_what_no_camera_can_be(changes: dict, what: str) -> None:
    with pytest.raises(SplatError, match=what) as caught:
        replace(camera(), **changes)
    assert isinstance(caught.value, SplatError) and caught.value.remedy


@pytest.mark.parametrize(
    ("target", "changes", "what"),
    [
        (UTM, {}, "is at its target"),
        ((0, 0, math.nan), {}, "the target"),
        ((0, 0, 0), {"up": (0, 0, 0)}, "no direction"),
        ((0, 0, 0), {"field_of_view": None}, "either a field of view or"),
        ((0, 0, 0), {"metres_per_pixel": 1.0}, "either a field of view or"),
        ((0, 0, 0), {"field_of_view": 180.0}, "of 180"),
        ((0, 0, 0), {"field_of_view": None, "metres_per_pixel": 0.0}, "pixels of 0"),
    ],
)
def test_what_no_view_can_be(target: tuple, changes: dict, what: str) -> None:
    with pytest.raises(SplatError, match=what):
        look_at(UTM, target, **({"width": 8, "height": 8, "field_of_view": 60.0} | changes))


def test_a_fresh_import_needs_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, earthgen.splats, earthgen.sparse\n"
    code += "from earthgen.splats import Camera, Gaussians, Lens, interpolate, read_transforms\n"
    code += "from earthgen.splats import Rasterizer, coarsen, read_ply, transform\n"
    code += "from earthgen.sparse import SparseBackend\n"
    code += "assert callable(transform) and callable(coarsen)  # and not the modules\n"
    out = subprocess.run(
        [sys.executable, "-c", code + "print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
    )
    assert out.stdout.strip() == "False", out.stderr
