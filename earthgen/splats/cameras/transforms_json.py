"""Cameras as nerfstudio's transforms.json, which most tools for radiance fields read.

The format (docs.nerf.study, "Data conventions"): `transform_matrix` is world from camera, 4 x 4, of
a camera with x to the right, y up and z backwards (OpenGL). Intrinsics `fl_x, fl_y, cx, cy, w, h`
are given once for all frames or for each frame. Tools record changes of the coordinates in
`applied_transform` (3 x 4) and `applied_scale`: for a position p of the data the file has
applied_scale * (applied_transform @ p). Orthographic cameras are nerfstudio's ORTHOPHOTO, with
focal lengths in pixels per metre.

nerfstudio and viewers compute in float32. So positions in the file are relative to an anchor. It is
stored with CRS and vertical CRS under the key "earthgen", and added in float64 when the file is
read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen.errors import SplatError
from earthgen.files import read_json
from earthgen.splats.cameras.camera import TURN_TOLERANCE, Camera, Kind
from earthgen.splats.gaussians import Anchor
from geo_io.errors import InputError
from geo_io.frame import UNKNOWN_DATUM
from geo_io.safety.damage import damaged_file

PINHOLES = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "SIMPLE_RADIAL", "RADIAL")
"""Camera models that are a pinhole camera if all their distortion parameters are 0."""

ORTHOPHOTO = "ORTHOPHOTO"
"""Camera model of orthographic cameras."""

DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
"""Distortion parameters, which have to be 0."""

_OPENGL = np.diag([1.0, -1.0, -1.0])  # right, up, back <-> right, down, forward


@dataclass(frozen=True)
class View:
    """A camera and the files of its picture, relative to the transforms.json; "" for none."""

    camera: Camera
    file_path: str = ""
    depth_file_path: str = ""
    mask_path: str = ""


def write_transforms(
    path: str | Path,
    views: Sequence[View | Camera],
    *,
    anchor: Anchor | None = None,
    names: str = "images/{:05d}.png",
) -> Path:
    """Write a transforms.json and return its path; see `to_transforms` for arguments and errors."""
    out = Path(path)
    document = to_transforms(views, anchor=anchor, names=names)
    out.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", "utf-8")
    return out


def read_transforms(path: str | Path, *, size: tuple[int, int] | None = None) -> list[View]:
    """Read the cameras of a transforms.json.

    Parameters
    ----------
    path : str or Path
        The file.
    size : tuple of int, optional
        Width and height where the file does not have them, pixels.

    Raises
    ------
    MissingFileError
        If the file does not exist.
    InputError, SplatError
        If the file is not valid, see `from_transforms`.
    """
    document = read_json(path)
    with damaged_file(f"{path} holds no cameras that can be read", "write the file again"):
        return from_transforms(document, size=size)


def to_transforms(
    views: Sequence[View | Camera],
    *,
    anchor: Anchor | None = None,
    names: str = "images/{:05d}.png",
) -> dict[str, Any]:
    """Create the document of a transforms.json.

    Parameters
    ----------
    views : sequence of View or Camera
        Cameras with or without files; all pinhole or all orthographic, in one CRS.
    anchor : tuple of float, optional
        Origin of the positions in the file, metres of the CRS. By default the mean of all positions
        in whole metres, which lets most positions be restored exactly.
    names : str
        Format of `file_path` for views without one, from their number.

    Raises
    ------
    SplatError
        If there is no view, pinhole and orthographic cameras are mixed, which the format does not
        allow, or two views differ in CRS or vertical CRS.
    """
    given = [view if isinstance(view, View) else View(view) for view in views]
    if not given:
        raise SplatError("there is no camera to write", "give at least one")
    first = given[0].camera
    for view in given:
        if (view.camera.crs, view.camera.vertical_crs) != (first.crs, first.vertical_crs):
            raise SplatError(
                f"cameras in {first.crs}, {first.vertical_crs} and in {view.camera.crs}, "
                f"{view.camera.vertical_crs} cannot be in one file",
                "write one file for each CRS",
            )
        if view.camera.kind != first.kind:
            raise SplatError(
                "pinhole and orthographic cameras cannot be in one transforms.json",
                "write two files",
            )
    if anchor is None:
        middle: NDArray = np.round(np.array([view.camera.position for view in given]).mean(axis=0))
        anchor = (float(middle[0]), float(middle[1]), float(middle[2]))
    frames = [_frame(view, anchor, names.format(number)) for number, view in enumerate(given)]
    # Intrinsics that all frames share are written once, as nerfstudio does.
    keys = ("fl_x", "fl_y", "cx", "cy", "w", "h", "near", "far")
    shared = {key: frames[0][key] for key in keys if len({frame[key] for frame in frames}) == 1}
    return {
        "camera_model": "PINHOLE" if first.kind == "pinhole" else ORTHOPHOTO,
        **shared,
        "applied_transform": [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]],
        "earthgen": {"anchor": list(anchor), "crs": first.crs, "vertical_crs": first.vertical_crs},
        "frames": [
            {key: value for key, value in frame.items() if key not in shared} for frame in frames
        ],
    }


def _frame(view: View, anchor: Anchor, name: str) -> dict[str, Any]:
    camera = view.camera
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(camera.rotation) @ _OPENGL
    matrix[:3, 3] = np.array(camera.position) - np.array(anchor)
    frame: dict[str, Any] = {
        "file_path": view.file_path or name,
        "fl_x": camera.fx,
        "fl_y": camera.fy,
        "cx": camera.cx,
        "cy": camera.cy,
        "w": camera.width,
        "h": camera.height,
        "near": camera.near,
        "far": None if math.isinf(camera.far) else camera.far,
        "transform_matrix": (matrix + 0.0).tolist(),
    }
    if view.depth_file_path:
        frame["depth_file_path"] = view.depth_file_path
    if view.mask_path:
        frame["mask_path"] = view.mask_path
    return frame


def from_transforms(
    document: Mapping[str, Any], *, size: tuple[int, int] | None = None
) -> list[View]:
    """Convert the document of a transforms.json to cameras, in its order.

    `applied_transform` and `applied_scale` are reversed: positions are those of the original data,
    which are metres of the CRS in files of this package. Without the key "earthgen" there is no CRS
    and the anchor is 0.

    Parameters
    ----------
    document : mapping
        The parsed file.
    size : tuple of int, optional
        Width and height where the document does not have them, pixels.

    Raises
    ------
    InputError
        If there are no frames, a frame lacks what a camera needs, or a camera has distortion or is
        neither pinhole nor orthographic.
    SplatError
        If a matrix is not a rotation and a position.
    """
    frames = document.get("frames")
    if not isinstance(frames, list) or not all(isinstance(frame, Mapping) for frame in frames):
        raise InputError(
            "there are no frames in the transforms.json", "give a file with a list of frames"
        )
    own = document.get("earthgen", {})
    try:
        anchor = np.array([float(value) for value in own.get("anchor", (0.0, 0.0, 0.0))])
        crs, vertical = str(own.get("crs", "")), str(own.get("vertical_crs", UNKNOWN_DATUM))
        if anchor.shape != (3,):
            raise ValueError(f"an anchor has three numbers, not {anchor.tolist()}")
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"the key 'earthgen' of the transforms.json cannot be read: {error}",
            "write the file again with earthgen",
        ) from error
    undo = _undo(document)
    shared = {key: value for key, value in document.items() if key != "frames"}
    views = []
    for number, frame in enumerate(frames):
        what = f"frame {number} ({frame.get('file_path', 'without a file')})"
        values = {**shared, **frame}
        kind = _kind(values, what)
        rotation, place = _pose(frame, undo, what)
        fx, fy, cx, cy, width, height, near, far = _intrinsics(values, size, what)
        east, north, up = (anchor + place).tolist()
        views.append(
            View(
                Camera(
                    kind,
                    width,
                    height,
                    fx,
                    fy,
                    cx,
                    cy,
                    (east, north, up),
                    rotation,
                    crs,
                    vertical,
                    near,
                    far,
                ),
                str(frame.get("file_path", "")),
                str(frame.get("depth_file_path", "")),
                str(frame.get("mask_path", "")),
            )
        )
    return views


def _undo(document: Mapping[str, Any]) -> tuple[NDArray, NDArray, float]:
    """Rotation, shift and scale that were applied to the original positions."""
    applied = _matrix(document.get("applied_transform", np.eye(3, 4).tolist()), "applied_transform")
    scale = float(np.cbrt(np.linalg.det(applied[:, :3])))
    if (
        not scale > 0
        or np.abs(applied[:, :3] @ applied[:, :3].T - scale**2 * np.eye(3)).max() > 1e-5 * scale**2
    ):
        raise SplatError(
            "applied_transform is not a similarity (rotation, scale and shift)",
            "remove it with the program that wrote the file",
        )
    factor = document.get("applied_scale", 1.0)
    if not isinstance(factor, int | float) or not (factor > 0 and math.isfinite(factor)):
        raise SplatError(
            f"an applied_scale of {factor!r} cannot be reversed", "give a positive number"
        )
    return applied[:, :3] / scale, applied[:, 3] * factor, scale * factor


def _pose(
    frame: Mapping[str, Any], undo: tuple[NDArray, NDArray, float], what: str
) -> tuple[Any, NDArray]:
    """Rotation, world from camera (right, down, forward), and position relative to the anchor."""
    if "transform_matrix" not in frame:
        raise InputError(
            f"{what} has no transform_matrix", "give a transforms.json in nerfstudio's layout"
        )
    matrix = _matrix(frame["transform_matrix"], f"the transform_matrix of {what}")
    turn, shift, scale = undo
    rotation = turn.T @ matrix[:, :3] @ _OPENGL
    error = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if error > 1e-4 or np.linalg.det(rotation) < 0:
        raise SplatError(
            f"the transform_matrix of {what} is not a rotation",
            "remove scales and reflections from it",
        )
    if error > TURN_TOLERANCE:  # written with few digits: the nearest rotation
        u, _, v = np.linalg.svd(rotation)
        rotation = u @ v
    return rotation, turn.T @ (matrix[:, 3] - shift) / scale


def _matrix(value: Any, what: str) -> NDArray:
    """(3, 4) float64."""
    try:
        matrix = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise SplatError(
            f"{what} is not a matrix of numbers", "give three or four rows of four"
        ) from error
    if matrix.shape not in ((3, 4), (4, 4)) or not np.isfinite(matrix).all():
        raise SplatError(
            f"{what} of shape {matrix.shape} is not a pose",
            "give three or four rows of four finite numbers",
        )
    if len(matrix) == 4 and not np.array_equal(matrix[3], (0, 0, 0, 1)):
        raise SplatError(
            f"the last row of {what} is {matrix[3].tolist()}", "it has to be 0, 0, 0, 1"
        )
    return matrix[:3]


def _kind(values: Mapping[str, Any], what: str) -> Kind:
    model = str(values.get("camera_model", "OPENCV"))
    if model != ORTHOPHOTO and (model not in PINHOLES or values.get("is_fisheye")):
        name = model if model not in PINHOLES else "a fisheye"
        raise InputError(
            f"{what} was taken with camera model {name}, which is neither pinhole nor orthographic",
            "undistort the pictures to a pinhole camera first",
        )
    bent = [key for key in DISTORTION if values.get(key)] + ["distortion_params"] * any(
        values.get("distortion_params") or ()
    )
    if bent:
        raise InputError(
            f"{what} has a lens with distortion ({', '.join(bent)})",
            "undistort the pictures to a pinhole camera first",
        )
    return "orthographic" if model == ORTHOPHOTO else "pinhole"


def _intrinsics(
    values: Mapping[str, Any], size: tuple[int, int] | None, what: str
) -> tuple[float, float, float, float, int, int, float, float]:
    """fx, fy, cx, cy, width, height, near, far."""
    sized = "w" in values and "h" in values
    if not sized and size is None:
        raise InputError(
            f"{what} does not say the size of its picture (w, h)", "give size=(width, height)"
        )
    if "fl_x" not in values and "camera_angle_x" not in values:
        raise InputError(
            f"{what} has neither fl_x nor camera_angle_x", "give a transforms.json with intrinsics"
        )
    try:
        width, height = (values["w"], values["h"]) if sized else size or (0, 0)
        # instant-ngp and exporters of Blender write angles.
        fx = float(values["fl_x"]) if "fl_x" in values else _focal(width, values["camera_angle_x"])
        fy = fx
        if "fl_y" in values:
            fy = float(values["fl_y"])
        elif "fl_x" not in values and "camera_angle_y" in values:
            fy = _focal(height, values["camera_angle_y"])
        cx, cy = float(values.get("cx", width / 2)), float(values.get("cy", height / 2))
        far = values.get("far")
        return (
            fx,
            fy,
            cx,
            cy,
            width,
            height,
            float(values.get("near", 0.05)),
            math.inf if far is None else float(far),
        )
    except (TypeError, ValueError, ArithmeticError) as error:
        raise InputError(
            f"the intrinsics of {what} cannot be read: {error}", "give numbers"
        ) from error


def _focal(pixels: float, angle: float) -> float:
    return pixels / 2 / math.tan(float(angle) / 2)
