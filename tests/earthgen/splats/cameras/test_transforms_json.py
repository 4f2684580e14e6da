"""nerfstudio's transforms.json: out and back, and files that others wrote."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from earthgen.errors import SplatError
from earthgen.splats.cameras.camera import look_at, map_view
from earthgen.splats.cameras.paths import read_cameras
from earthgen.splats.cameras.poses import Lens, aerial
from earthgen.splats.cameras.transforms_json import (
    View,
    from_transforms,
    read_transforms,
    to_transforms,
    write_transforms,
)
from geo_io.errors import InputError, MissingFileError

LENS = Lens(640, 480, 60.0, crs="EPSG:32632", vertical_crs="EPSG:7837")
CAMERAS = aerial((690_000.1, 5_540_000.2, 690_400.3, 5_540_300.4), LENS, ground=412.7)

# As docs.nerf.studio describes the layout: intrinsics for all, one frame with its own; world from
# camera, OpenGL axes.
BY_HAND = {
    "camera_model": "OPENCV",
    "fl_x": 1072.0,
    "fl_y": 1068.0,
    "cx": 1504.0,
    "cy": 1000.0,
    "w": 3008,
    "h": 2000,
    "k1": 0.0,
    "k2": 0.0,
    "p1": 0.0,
    "p2": 0.0,
    "frames": [
        {
            "file_path": "images/frame_00001.jpeg",
            "mask_path": "masks/frame_00001.png",
            "depth_file_path": "depths/frame_00001.png",
            # At (4, 5, 6), looking along -z of the world (as OpenGL's camera without any turn):
            # straight down.
            "transform_matrix": [[1, 0, 0, 4], [0, 1, 0, 5], [0, 0, 1, 6], [0, 0, 0, 1]],
        },
        {
            "file_path": "images/frame_00002.jpeg",
            "fl_x": 500.0,
            "cx": 10.5,
            # Turned by a quarter about x: looking along +y, z up.
            "transform_matrix": [[1, 0, 0, 0], [0, 0, -1.0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1]],
        },
    ],
}


def test_a_file_written_by_hand() -> None:
    first, second = from_transforms(BY_HAND)
    assert (first.file_path, first.mask_path) == (
        "images/frame_00001.jpeg",
        "masks/frame_00001.png",
    )
    assert first.depth_file_path == "depths/frame_00001.png" and second.depth_file_path == ""
    one, two = first.camera, second.camera
    assert (one.fx, one.fy, one.cx, one.cy, one.width, one.height) == (
        1072,
        1068,
        1504,
        1000,
        3008,
        2000,
    )
    assert (two.fx, two.fy, two.cx, two.cy) == (500, 1068, 10.5, 1000)
    assert one.position == (4, 5, 6) and one.crs == "" and one.kind == "pinhole"
    np.testing.assert_array_equal(
        [one.right, one.down, one.forward], [[1, 0, 0], [0, -1, 0], [0, 0, -1]]
    )
    np.testing.assert_array_equal(
        [two.right, two.down, two.forward], [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
    )


def test_cameras_come_back_to_the_bit(tmp_path: Path) -> None:
    views = [
        View(camera, f"images/{n}.png", f"depths/{n}.tif", "") for n, camera in enumerate(CAMERAS)
    ]
    path = write_transforms(tmp_path / "transforms.json", views)
    assert read_transforms(path) == views
    assert read_cameras(path) == CAMERAS
    maps = [map_view((0, 0, 10, 8), 0.5, 20), replace(map_view((3, 0, 10, 8), 0.25, 20), far=100.0)]
    assert [
        view.camera for view in from_transforms(json.loads(json.dumps(to_transforms(maps))))
    ] == maps


def test_the_file_is_as_nerfstudio_reads_it() -> None:
    document = json.loads(json.dumps(to_transforms(CAMERAS), allow_nan=False))
    assert document["camera_model"] == "PINHOLE" and (document["w"], document["h"]) == (640, 480)
    assert document["fl_x"] == CAMERAS[0].fx and "fl_x" not in document["frames"][0]
    assert document["frames"][3]["file_path"] == "images/00003.png"
    assert np.array(document["applied_transform"]).shape == (3, 4)
    matrices = np.array([frame["transform_matrix"] for frame in document["frames"]])
    assert np.abs(matrices[:, :3, 3]).max() < 500  # near the anchor: float32 holds it
    anchor = document["earthgen"]["anchor"]
    assert (
        all(value == round(value) for value in anchor)
        and document["earthgen"]["crs"] == "EPSG:32632"
    )
    for camera, matrix in zip(CAMERAS, matrices, strict=True):
        np.testing.assert_allclose(matrix[:3, 3] + anchor, camera.position)
        np.testing.assert_allclose(matrix[:3, 0], camera.right)  # OpenGL: right, up, back
        np.testing.assert_allclose(matrix[:3, 1], -camera.down)
        np.testing.assert_allclose(matrix[:3, 2], -camera.forward)
        # A point before the camera has negative z there, and lands where our camera has it.
        point = np.array([690_200.0, 5_540_150.0, 412.0])
        x, y, z = np.linalg.inv(matrix)[:3] @ np.append(point - anchor, 1)
        assert z < 0
        pixel = (camera.cx + camera.fx * x / -z, camera.cy - camera.fy * y / -z)
        np.testing.assert_allclose(camera.project(point[None])[0][0], pixel, atol=1e-6)
    zoomed = to_transforms([CAMERAS[0], replace(CAMERAS[1], fx=700.0)])
    assert [frame["fl_x"] for frame in zoomed["frames"]] == [
        CAMERAS[0].fx,
        700.0,
    ] and "fl_x" not in zoomed
    assert to_transforms(maps_of_two())["camera_model"] == "ORTHOPHOTO"
    own = to_transforms(CAMERAS, anchor=(1.0, 2.0, 3.0))
    assert own["earthgen"]["anchor"] == [1, 2, 3]


def maps_of_two() -> list:
    return [map_view((0, 0, 10, 8), 0.5, 20), map_view((3, 0, 10, 8), 0.25, 20)]


def test_what_was_applied_is_undone() -> None:
    """nerfstudio's own import swaps axes and says so: file = scale * (applied @ original)."""
    swap = np.array([[1, 0, 0, 2.0], [0, 0, 1, -3.0], [0, -1, 0, 4.0]])
    camera = look_at((7, -2, 30), (1, 2, 3), width=64, height=48, field_of_view=50)
    document = to_transforms([camera], anchor=(0.0, 0.0, 0.0))
    matrix = np.array(document["frames"][0]["transform_matrix"])
    matrix = np.vstack([swap @ matrix, [0, 0, 0, 1]])
    matrix[:3, 3] *= 0.5
    document["frames"][0]["transform_matrix"] = matrix.tolist()
    document |= {"applied_transform": swap.tolist(), "applied_scale": 0.5}
    found = from_transforms(document)[0].camera
    np.testing.assert_allclose(found.position, camera.position, atol=1e-9)
    np.testing.assert_allclose(np.array(found.rotation), np.array(camera.rotation), atol=1e-9)
    for key, value in (
        ("applied_transform", np.diag([1, 1, -1])),
        ("applied_transform", np.diag([1, 2, 1])),
        ("applied_transform", np.zeros((3, 3))),
        ("applied_scale", 0),
        ("applied_scale", "x"),
    ):
        value = (
            np.column_stack([value, np.zeros(3)]).tolist()
            if isinstance(value, np.ndarray)
            else value
        )
        with pytest.raises(SplatError, match="applied"):
            from_transforms(document | {key: value})


def test_angles_instead_of_focal_lengths() -> None:
    """As Blender's and instant-ngp's files say it; the size may have to be told."""
    blender = {"camera_angle_x": math.pi / 2, "frames": BY_HAND["frames"][:1]}
    with pytest.raises(InputError, match=r"size=\(width, height\)"):
        from_transforms(blender)
    camera = from_transforms(blender, size=(800, 600))[0].camera
    assert (camera.fx, camera.cx, camera.cy, camera.width) == (pytest.approx(400), 400, 300, 800)
    assert camera.fy == camera.fx
    both = from_transforms(blender | {"camera_angle_y": math.pi / 2, "w": 800, "h": 600})[0].camera
    assert both.fy == pytest.approx(300)


def test_few_digits_become_the_nearest_rotation() -> None:
    document = to_transforms([CAMERAS[3]])
    matrix = np.round(document["frames"][0]["transform_matrix"], 5)
    document["frames"][0]["transform_matrix"] = matrix.tolist()
    found = from_transforms(document)[0].camera
    np.testing.assert_allclose(np.array(found.rotation), np.array(CAMERAS[3].rotation), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"k1": 0.01}, r"distortion \(k1\)"),
        ({"p2": -1e-4}, r"distortion \(p2\)"),
        ({"distortion_params": [0, 0, 0.1]}, "distortion_params"),
        ({"camera_model": "OPENCV_FISHEYE"}, "OPENCV_FISHEYE"),
        ({"camera_model": "EQUIRECTANGULAR"}, "EQUIRECTANGULAR"),
        ({"is_fisheye": True}, "fisheye"),
    ],
)
@pytest.mark.parametrize("where", ["file", "frame"])
def test_lenses_that_are_no_pinhole_are_named(change: dict, what: str, where: str) -> None:
    if where == "file":
        document = {**BY_HAND, **change}
    else:
        document = {**BY_HAND, "frames": [BY_HAND["frames"][0], {**BY_HAND["frames"][1], **change}]}
    with pytest.raises(InputError, match=what) as caught:
        from_transforms(document)
    assert (
        "frame_0000" in str(caught.value)
        and "undistort" in str(caught.value)
        and caught.value.exit_code == 3
    )
    assert (
        len(
            from_transforms(
                {**BY_HAND, "camera_model": "SIMPLE_RADIAL", "distortion_params": [0, 0]}
            )
        )
        == 2
    )


def test_what_the_user_is_told(tmp_path: Path) -> None:
    frame = BY_HAND["frames"][0]

    def told(error: type[Exception], what: str, **changes) -> None:
        document = {
            **BY_HAND,
            **{
                key: value
                for key, value in changes.items()
                if key in ("frames", "earthgen", "fl_x")
            },
        }
        if "matrix" in changes:
            document["frames"] = [{**frame, "transform_matrix": changes["matrix"]}]
        with pytest.raises(error, match=what):
            from_transforms(document)

    told(InputError, "no frames", frames=3)
    told(InputError, "no frames", frames=[1])
    told(InputError, "frame 0 .without a file. has no transform_matrix", frames=[{}])
    told(InputError, "intrinsics", fl_x=[])
    told(InputError, "intrinsics", fl_x="long")
    told(InputError, "'earthgen'", earthgen={"anchor": [1, 2]})
    told(InputError, "'earthgen'", earthgen=[1])
    told(SplatError, "focal", fl_x=-5)
    eye = np.eye(4)
    told(SplatError, "frame_00001.*is not a rotation", matrix=(eye * [2, 2, 2, 1]).tolist())
    told(SplatError, "is not a rotation", matrix=(eye * [1, -1, 1, 1]).tolist())
    told(SplatError, "shape", matrix=[[1, 0], [0, 1]])
    told(SplatError, "finite", matrix=(eye * np.nan).tolist())
    told(SplatError, "numbers", matrix=[["a"] * 4] * 4)
    told(SplatError, "last row", matrix=np.diag([1, 1, 1, 0.01]).tolist())
    with pytest.raises(InputError, match="intrinsics of frame 0"):
        from_transforms({**BY_HAND, "near": "x"})
    with pytest.raises(SplatError, match=r"width of 10\.5"):
        from_transforms({**BY_HAND, "w": 10.5})
    with pytest.raises(InputError, match="camera_angle_x"):
        from_transforms({"w": 5, "h": 5, "frames": [frame]})
    with pytest.raises(SplatError, match="no camera to write"):
        to_transforms([])
    with pytest.raises(SplatError, match="two files"):
        to_transforms(
            [
                CAMERAS[0],
                replace(map_view((0, 0, 1, 1), 1, 1), crs="EPSG:32632", vertical_crs="EPSG:7837"),
            ]
        )
    with pytest.raises(SplatError, match="EPSG:25833"):
        to_transforms([CAMERAS[0], replace(CAMERAS[0], crs="EPSG:25833")])
    with pytest.raises(MissingFileError):
        read_transforms(tmp_path / "transforms.json")
