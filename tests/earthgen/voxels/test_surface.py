"""earthgen.voxels.surface: dense volumes to surface voxels, normals and covering discs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earthgen.voxels.splat_math import SH_C0
from earthgen.voxels.surface import (
    face_offsets,
    occupancy_normals,
    shear_normals,
    surface_splats,
    surface_voxels,
)
from earthgen.voxels.voxels import FACES, TOP, Geometry
from geo_io.errors import FrameError
from geo_io.frame import Frame

PAD = 2
LOW = -2


def frame(nx: int = 6, ny: int = 5, size: float = 1.0, z: tuple[int, int] = (-16, 496)) -> Frame:
    return Frame("EPSG:32632", size, (-3, nx - 3), (10, 10 + ny), z)


def level_ground(at: Frame, levels: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """A volume that is solid below z = 0."""
    volume = np.zeros((at.ny + 2 * PAD, at.nx + 2 * PAD, levels), np.uint8)
    volume[:, :, :-LOW] = 5
    return volume, np.zeros(volume.shape, np.uint32)


def rotate(quaternion: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Rotate one vector by (n, 4) quaternions (w, x, y, z)."""
    w, xyz = quaternion[:, :1], quaternion[:, 1:]
    cross = 2 * np.cross(xyz, vector)
    return vector + w * cross + np.cross(xyz, cross)


def test_level_ground_is_one_layer_of_tops() -> None:
    at = frame()
    voxels = surface_voxels(at, *level_ground(at), LOW, PAD)
    assert len(voxels) == at.nx * at.ny
    assert (voxels.xyz[:, 2] == -1).all() and (voxels.faces == FACES["+z"]).all()
    assert np.array_equal(voxels.order(), np.arange(len(voxels)))


def test_faces_and_places_of_a_single_block() -> None:
    at = frame()
    volume, objects = level_ground(at)
    # The column x = -3 + 1, y = 10 + 3 (the second row from the north of five) gets two voxels.
    row, col = PAD + at.ny - 1 - 3, PAD + 1
    volume[row, col, 2:4], objects[row, col, 2:4] = 18, 77
    voxels = surface_voxels(at, volume, objects, LOW, PAD)
    block = voxels.take(voxels.object == 77)
    assert block.xyz.tolist() == [[-2, 13, 0], [-2, 13, 1]]
    sides = FACES["-x"] | FACES["+x"] | FACES["-y"] | FACES["+y"]
    assert block.faces.tolist() == [sides, sides | FACES["+z"]]
    assert (block.semantic == 18).all()
    under = (voxels.xyz == [-2, 13, -1]).all(axis=1)
    assert not under.any(), "the ground below the block is covered on all sides"


def test_axes_of_faces() -> None:
    at = frame()
    volume, objects = level_ground(at)
    volume[: PAD + 2, :, 2] = 1  # the two northern rows of the frame are one voxel higher
    voxels = surface_voxels(at, volume, objects, LOW, PAD)
    wall = voxels.take(voxels.faces & FACES["-y"] > 0)
    assert len(wall) == at.nx and (wall.xyz[:, 1] == at.y[1] - 2).all(), "it looks south"
    assert not (voxels.faces & FACES["+y"]).any()


def test_voxels_outside_the_band_are_left_out() -> None:
    at = frame(z=(-1, 2))
    volume, objects = level_ground(at)
    volume[4, 4, 2:7] = 18
    assert surface_voxels(at, volume, objects, LOW, PAD).xyz[:, 2].max() == 1


@pytest.mark.parametrize("shape", [(9, 9), (9, 10, 8), (8, 10, 8)])
def test_shapes_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    at = frame()
    with pytest.raises(FrameError):
        surface_voxels(at, np.zeros(shape, np.uint8), np.zeros((9, 9, 8), np.uint32), LOW, PAD)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
def test_no_boundary_without_a_face(seed: int, share: float) -> None:
    """Count the boundaries of a random volume directly: each is an open face of a listed voxel,
    and no other."""
    at = frame(5, 4)
    volume, objects = level_ground(at)
    rng = np.random.default_rng(seed)
    volume[:, :, 2:] = rng.random(volume[:, :, 2:].shape) < share
    voxels = surface_voxels(at, volume, objects, LOW, PAD)
    padded = np.concatenate([volume > 0, np.zeros((*volume.shape[:2], 1), bool)], axis=2)
    inside = (slice(PAD, -PAD), slice(PAD, -PAD))
    for name, axis, step in (
        ("-x", 1, -1),
        ("+x", 1, 1),
        ("-y", 0, 1),
        ("+y", 0, -1),
        ("+z", 2, 1),
    ):
        open_there = padded & ~np.roll(padded, -step, axis=axis)
        open_there[..., -1] = False
        expected = open_there[inside]
        rows, cols, levels = np.nonzero(expected)
        found = voxels.xyz[voxels.faces & FACES[name] > 0]
        mine = {
            (at.x[0] + c, at.y[1] - 1 - r, LOW + k)
            for r, c, k in zip(rows, cols, levels, strict=True)
        }
        assert {tuple(p) for p in found.tolist()} == mine, name
    assert (voxels.faces > 0).all()


def test_occupancy_normals_point_outwards() -> None:
    at = frame(9, 9)
    volume, objects = level_ground(at, 12)
    volume[:, : PAD + 4, 2:10] = 18  # a wall that looks east
    voxels = surface_voxels(at, volume, objects, LOW, PAD)
    normal = occupancy_normals(voxels, volume, LOW, PAD, np.ones(len(voxels), bool))
    assert np.allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-5)
    wall = (voxels.faces == FACES["+x"]) & (voxels.xyz[:, 2] == 4)
    assert wall.sum() == at.ny and (normal[wall, 0] > 0.99).all()
    ground = (voxels.faces == FACES["+z"]) & (voxels.xyz[:, 0] == at.x[1] - 1)
    assert (normal[ground, 2] > 0.99).all()
    wanted = np.zeros(len(voxels), bool)
    assert not occupancy_normals(voxels, volume, LOW, PAD, wanted).any()
    with pytest.raises(FrameError):
        occupancy_normals(voxels, volume, LOW, 1, wanted)


def test_a_thin_post_has_a_normal_too() -> None:
    at = frame()
    volume, objects = level_ground(at, 12)
    volume[4, 4, 2:9] = 13
    voxels = surface_voxels(at, volume, objects, LOW, PAD)
    normal = occupancy_normals(voxels, volume, LOW, PAD, np.ones(len(voxels), bool))
    assert np.allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-5)


def test_shear_turns_level_ground_into_a_slope() -> None:
    up = np.array([[0.0, 0.0, 1.0]], np.float32)
    east, north = np.array([0.5], np.float32), np.array([-0.25], np.float32)
    expected = np.array([-0.5, 0.25, 1.0])
    assert np.allclose(shear_normals(up, east, north), expected / np.linalg.norm(expected))
    wall = np.array([[1.0, 0.0, 0.0]], np.float32)
    assert np.allclose(shear_normals(wall, east, north), wall), "walls stay upright"


def test_face_offsets() -> None:
    faces = np.array(
        [FACES["+z"], FACES["-x"], FACES["-x"] | FACES["+x"], FACES["+y"] | FACES["+z"]], np.uint8
    )
    assert face_offsets(faces, 2.0).tolist() == [[0, 0, 1], [-1, 0, 0], [0, 0, 0], [0, 0.5, 0.5]]


def geometry(
    at: Frame, normal: np.ndarray, faces: int, ground: np.ndarray | None = None
) -> Geometry:
    voxels = surface_voxels(at, *level_ground(at), LOW, PAD)
    voxels.faces[:] = faces
    n = len(voxels)
    return Geometry(
        at,
        np.zeros(at.shape, np.float32) if ground is None else ground,
        voxels,
        face_offsets(voxels.faces, at.voxel_size),
        np.broadcast_to(normal, (n, 3)).astype(np.float32),
    )


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: sum(c * c for c in v) > 1e-3))
def test_discs_turn_up_into_the_normal(direction: tuple[float, float, float]) -> None:
    normal = np.array(direction) / np.linalg.norm(direction)
    splats = surface_splats(geometry(frame(2, 2), normal, FACES["+z"]), np.zeros((4, 3)))
    assert np.allclose(np.linalg.norm(splats.rotation, axis=1), 1, atol=1e-5)
    assert np.allclose(rotate(splats.rotation, np.array([0.0, 0.0, 1.0])), normal, atol=1e-4)
    level = rotate(splats.rotation, np.array([0.0, 1.0, 0.0]))
    assert np.allclose(level[:, 2], 0, atol=1e-4), "the second axis is level"


def test_discs_cover_their_voxels() -> None:
    flat = surface_splats(
        geometry(frame(size=2.0), np.array([0, 0, 1.0]), FACES["+z"]), np.zeros((30, 3))
    )
    assert np.allclose(flat.scale, 0.58 * 2.0)
    # On a slope of 2 a column's disc is sqrt(5) voxels long down the slope, and no wider across.
    at = frame()
    slope = 2.0 * np.broadcast_to(np.arange(at.nx, dtype=np.float32), at.shape)
    normal = np.array([-2.0, 0, 1]) / np.sqrt(5)
    steep = surface_splats(
        geometry(at, normal, FACES["+z"], np.ascontiguousarray(slope)), np.zeros((30, 3))
    )
    assert np.allclose(steep.scale[:, 0], 0.58 * np.sqrt(5), rtol=1e-3)
    assert np.allclose(steep.scale[:, 1], 0.58, rtol=1e-3)


def test_colours_come_back() -> None:
    rgb = np.tile(np.array([[0, 128, 255]], np.uint8), (30, 1))
    splats = surface_splats(geometry(frame(), np.array([0, 0, 1.0]), FACES["+z"]), rgb, 0.5)
    assert splats.sh.shape == (30, 1, 3) and splats.sh.dtype == np.float32
    assert np.allclose((splats.sh[:, 0] * SH_C0 + 0.5) * 255, rgb, atol=1e-3)
    assert (splats.opacity == 0.5).all()


def test_voxels_alone_have_a_surface() -> None:
    """Open sides and normals of a box on a plain, as a geometry backend would give them."""
    from earthgen.voxels.shell import shell_geometry

    frame = Frame("EPSG:32632", 1.0, (0, 16), (0, 16), (-8, 24))
    rows = []
    for y in range(16):
        for x in range(16):
            if 5 <= x < 11 and 5 <= y < 11:
                edge = x in (5, 10) or y in (5, 10)
                rows += [(x, y, z) for z in range(0 if edge else 4, 5)]
            else:
                rows.append((x, y, -1))
    xyz = np.array(rows, np.int32)
    semantic = np.where(xyz[:, 2] >= 0, 18, 7).astype(np.uint8)
    made = shell_geometry(frame, np.zeros(frame.shape, np.float32), xyz, semantic)
    top = made.voxels.faces & TOP > 0
    assert np.array_equal(top, (xyz[:, 2] == 4) | (xyz[:, 2] == -1))
    west = (xyz[:, 0] == 5) & (xyz[:, 1] == 8) & (xyz[:, 2] == 2)
    assert int(made.voxels.faces[west][0]) == 1 and made.normal[west][0, 0] < -0.9
    roof = (xyz == (8, 8, 4)).all(axis=1)
    assert made.normal[roof][0, 2] > 0.99 and made.offset[roof][0].tolist() == [0, 0, 0.5]
    assert surface_splats(made, np.zeros((len(xyz), 3))).scale.min() > 0.3
    empty = shell_geometry(frame, np.zeros(frame.shape), xyz[:0], semantic[:0])
    assert len(empty.voxels) == 0
