"""earthgen.voxels.heightfield: height maps to closed surfaces."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from earthgen.errors import PluginError
from earthgen.voxels.heightfield import HEIGHT_MARGIN, surface_of_heights
from earthgen.voxels.voxels import FACES, GEOMETRY_FIELDS, SIDES, TOP, WALL
from geo_io.errors import FrameError
from geo_io.frame import Frame
from geo_io.legend import codes

WINDOW = Frame("EPSG:32632", 2.0, (-3, 9), (10, 20), (-16, 48))
AROUND = WINDOW.pad(HEIGHT_MARGIN)
M = HEIGHT_MARGIN


def flat(value: float = 0.0) -> NDArray:
    return np.full(AROUND.shape, value, np.float32)


def bare() -> NDArray:
    return np.full(AROUND.shape, codes()["bare_ground"], np.uint8)


def random_columns(seed: int, frame: Frame = AROUND) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Ground, heights, classes and object numbers that depend on the place alone."""
    rng = np.random.default_rng(seed)
    ground = rng.normal(300, 2, frame.shape).astype(np.float32)
    height = np.maximum(rng.normal(0, 8, frame.shape), 0).astype(np.float32)
    return (
        ground,
        height,
        rng.integers(1, 6, frame.shape).astype(np.uint8),
        rng.integers(0, 4, frame.shape).astype(np.uint32),
    )


def test_bare_ground_is_one_layer_of_tops() -> None:
    semantic = bare()
    semantic[M, M] = 0  # the north-western column is unknown
    geometry = surface_of_heights(WINDOW, flat(300), flat(), semantic)
    voxels = geometry.voxels
    assert len(voxels) == WINDOW.nx * WINDOW.ny and (voxels.xyz[:, 2] == -1).all()
    assert (voxels.faces == TOP).all() and (voxels.object == 0).all()
    assert np.array_equal(voxels.order(), np.arange(len(voxels)))
    assert np.allclose(geometry.normal, [0, 0, 1]) and np.allclose(geometry.offset, [0, 0, 1.0])
    assert geometry.ground.shape == WINDOW.shape and (geometry.ground == 300).all()
    corner = (voxels.xyz[:, 0] == WINDOW.x[0]) & (voxels.xyz[:, 1] == WINDOW.y[1] - 1)
    assert (voxels.semantic[corner] == codes()["grassland"]).all() and corner.sum() == 1
    assert (voxels.semantic[~corner] == codes()["bare_ground"]).all()


def test_the_block_has_the_fields_of_geometry() -> None:
    block = surface_of_heights(WINDOW, *random_columns(0)).block()
    block.require(GEOMETRY_FIELDS, "test")
    assert block.frame == WINDOW


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_surface_is_closed(seed: int) -> None:
    """Each boundary between a solid and an empty voxel is an open face of a listed voxel."""
    ground, height, semantic, objects = random_columns(seed)
    voxels = surface_of_heights(WINDOW, ground, height, semantic, objects).voxels
    level = np.ceil(height / np.float32(2.0) - np.float32(0.5)).astype(int) - 1
    filled = np.arange(-2, level.max() + 2) <= level[..., None]
    for name, axis, step in (
        ("-x", 1, -1),
        ("+x", 1, 1),
        ("-y", 0, 1),
        ("+y", 0, -1),
        ("+z", 2, 1),
    ):
        boundary = filled & ~np.roll(filled, -step, axis=axis)
        rows, cols, levels = np.nonzero(boundary[M:-M, M:-M])
        expected = {
            (WINDOW.x[0] + c, WINDOW.y[1] - 1 - r, k - 2)
            for r, c, k in zip(rows, cols, levels, strict=True)
        }
        wall = voxels.faces & WALL > 0  # of the ground, which the lattice does not show
        open_faces = voxels.xyz[(voxels.faces & FACES[name] > 0) & ~wall]
        assert {tuple(xyz) for xyz in open_faces.tolist()} == expected, name
    assert (voxels.faces > 0).all()


def test_classes_objects_and_exact_heights_of_a_house() -> None:
    height, semantic, objects = flat(), bare(), np.zeros(AROUND.shape, np.uint32)
    house = (slice(M + 3, M + 7), slice(M + 3, M + 8))
    height[house], semantic[house], objects[house] = 7.3, codes()["building"], 77
    geometry = surface_of_heights(WINDOW, flat(300), height, semantic, objects)
    voxels = geometry.voxels
    built = voxels.semantic == codes()["building"]
    assert np.array_equal(built, voxels.object == 77)
    assert (built == (voxels.xyz[:, 2] >= 0)).all(), "the house hides the ground below it"
    roof = built & (voxels.faces == TOP)
    assert roof.sum() == 2 * 3
    centre = (voxels.xyz[roof, 2] + 0.5) * WINDOW.voxel_size
    assert np.allclose(centre + geometry.offset[roof, 2], 7.3, atol=1e-5)
    wall = built & (voxels.faces & (TOP | FACES["-z"]) == 0) & (voxels.faces & SIDES != 0)
    assert wall.any() and np.allclose(geometry.normal[wall, 2], 0)
    assert np.allclose(np.linalg.norm(geometry.normal, axis=1), 1, atol=1e-5)


def test_a_slope_of_the_ground_is_in_the_normals() -> None:
    x = np.arange(*AROUND.x) * AROUND.voxel_size
    ground = np.broadcast_to((0.5 * x).astype(np.float32), AROUND.shape)
    geometry = surface_of_heights(WINDOW, ground, flat(), bare())
    expected = np.array([-0.5, 0, 1]) / np.sqrt(1.25)
    assert np.allclose(geometry.normal, expected, atol=1e-4)


def test_absolute_heights() -> None:
    ground, height, semantic, objects = random_columns(1)
    absolute = ground.astype(np.float64) + height
    first = surface_of_heights(WINDOW, ground, height, semantic, objects)
    second = surface_of_heights(WINDOW, ground, absolute, semantic, objects, absolute=True)
    assert np.array_equal(first.voxels.xyz, second.voxels.xyz)
    assert np.array_equal(first.offset, second.offset)
    below = surface_of_heights(WINDOW, ground, flat(-100), semantic, absolute=True)
    wall = below.voxels.faces & WALL > 0
    assert (below.voxels.xyz[~wall, 2] == -1).all(), "a surface below the ground is bare ground"
    assert (below.voxels.xyz[wall, 2] < -1).all()


def test_heights_are_cut_off_at_the_z_range() -> None:
    window = replace(WINDOW, z=(-16, 5))
    height = flat(3.0)
    height[M + 4, M + 4] = 1e4
    geometry = surface_of_heights(window, flat(800), height, bare())
    assert geometry.voxels.xyz[:, 2].max() == 4
    top = (geometry.voxels.xyz[:, 2] + 0.5) * 2.0 + geometry.offset[:, 2]
    assert top.max() <= 10.0
    # The range is relative to the ground: the same columns on a mountain give the same voxels.
    high = surface_of_heights(window, flat(4000), height, bare())
    assert np.array_equal(high.voxels.xyz, geometry.voxels.xyz)
    assert np.array_equal(high.offset, geometry.offset)


def test_a_window_equals_the_crop_of_a_larger_one() -> None:
    wide = replace(WINDOW, x=(-11, 17), y=(4, 26))
    columns = random_columns(2, wide.pad(M))
    whole = surface_of_heights(wide, *columns).block().crop(WINDOW)
    part = wide.pad(M).slices(AROUND)
    alone = surface_of_heights(WINDOW, *(a[part] for a in columns)).block()
    assert alone.xyz is not None and whole.xyz is not None
    assert np.array_equal(alone.xyz, whole.xyz)
    for name in GEOMETRY_FIELDS:
        assert alone[name].tobytes() == np.ascontiguousarray(whole[name]).tobytes(), name


@pytest.mark.parametrize("name", ["ground", "height", "semantic", "objects"])
def test_arrays_on_another_frame_are_refused(name: str) -> None:
    arrays: dict[str, Any] = {
        "ground": flat(),
        "height": flat(),
        "semantic": bare(),
        "objects": np.zeros(AROUND.shape, np.uint32),
    }
    arrays[name] = arrays[name][M:-M, M:-M]
    with pytest.raises(FrameError, match=rf"{name} of shape .*HEIGHT_MARGIN"):
        surface_of_heights(WINDOW, **arrays)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("ground", flat(np.nan), "ground on .* is not finite"),
        ("height", flat(np.inf), "height on .* is not finite"),
        ("semantic", np.full(AROUND.shape, 256), "semantic on .* uint8 cannot hold"),
        ("semantic", flat(2.0), "semantic on .* uint8 cannot hold"),
        ("objects", np.full(AROUND.shape, -1), "objects on .* uint32 cannot hold"),
    ],
)
def test_bad_values_are_refused(name: str, values: NDArray, message: str) -> None:
    arrays: dict[str, Any] = {"ground": flat(), "height": flat(), "semantic": bare()}
    with pytest.raises(PluginError, match=message):
        surface_of_heights(WINDOW, **(arrays | {name: values}))
