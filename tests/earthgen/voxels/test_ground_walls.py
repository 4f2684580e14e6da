"""earthgen.voxels.ground_walls: cliffs are closed, in any window and at any depth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from earthgen.testing.worlds import count_holes
from earthgen.voxels.heightfield import HEIGHT_MARGIN, surface_of_heights
from earthgen.voxels.surface import surface_splats
from earthgen.voxels.voxels import FACES, WALL, Geometry
from geo_io.frame import Frame
from geo_io.legend import codes

FRAME = Frame("EPSG:32632", 1.0, (-20, 20), (0, 24), (-16, 48))


def surface(frame: Frame, ground: NDArray, cover: str = "grassland") -> Geometry:
    flat = np.zeros(ground.shape, np.float32)
    return surface_of_heights(
        frame, ground.astype(np.float32), flat, np.full(ground.shape, codes()[cover], np.uint8)
    )


def places(frame: Frame) -> tuple[NDArray, NDArray]:
    around = frame.pad(HEIGHT_MARGIN)
    x, y = np.arange(*around.x) + 0.5, np.arange(*around.y)[::-1] + 0.5
    return tuple(np.meshgrid(x * frame.voxel_size, y * frame.voxel_size))  # type: ignore[return-value]


def covered(geometry: Geometry, low: float, high: float) -> NDArray:
    """Greatest distance of heights on a wall from a disc of it, in standard deviations, by row."""
    voxels, size = geometry.voxels, geometry.frame.voxel_size
    splats = surface_splats(geometry, np.zeros((len(voxels), 3)))
    wall = voxels.faces & WALL > 0
    row = geometry.frame.y[1] - 1 - voxels.xyz[:, 1]
    ground = geometry.ground[row, voxels.xyz[:, 0] - geometry.frame.x[0]]
    height = (ground + (voxels.xyz[:, 2] + 0.5) * size + geometry.offset[:, 2])[wall]
    levels = np.arange(low + 0.5 * size, high, size)
    worst = []
    for y in np.unique(row):
        own = row[wall] == y
        far = np.abs(levels[:, None] - height[own]) / splats.scale[wall, 0][own]
        worst.append(far.min(axis=1).max())
    return np.array(worst)


@pytest.mark.parametrize("depth", [3.0, 8.0, 15.0, 80.0, 400.0])
@pytest.mark.parametrize("size", [0.5, 1.0, 2.0])
def test_a_step_is_covered_from_rim_to_foot(depth: float, size: float) -> None:
    if depth <= 2 * size:
        pytest.skip("no wall: a step of up to two voxels is covered by the tops")
    frame = replace(FRAME, voxel_size=size, z=(-int(16 / size), 48))
    x, _ = places(frame)
    geometry = surface(frame, np.where(x < 0, 0.0, depth))
    assert (covered(geometry, 0, depth) < 1.2).all()
    voxels = geometry.voxels
    wall = voxels.faces & WALL > 0
    assert (voxels.xyz[wall, 0] == 0).all() and (voxels.xyz[wall, 2] < -1).all()
    assert (voxels.faces[wall] == WALL | FACES["-x"]).all()
    assert np.allclose(geometry.normal[wall], [-1, 0, 0])
    assert np.allclose(geometry.offset[wall, :2], [-0.5 * size, 0])
    assert (voxels.semantic[wall] == codes()["rock"]).all()
    # Tops are flat up to the rim: they cover the ground and not the air beside it.
    assert np.allclose(geometry.normal[~wall], [0, 0, 1])
    assert np.array_equal(voxels.order(), np.arange(len(voxels)))
    assert count_holes(voxels) == 0


def test_slopes_have_no_walls() -> None:
    x, y = places(FRAME)
    for ground in (3.5 * x, 1.9 * np.floor(x), 20 * np.sin(0.1 * x) * np.cos(0.1 * y)):
        assert not (surface(FRAME, ground).voxels.faces & WALL).any()


def test_corners_and_terraces() -> None:
    x, y = places(FRAME)
    ground = np.where((x > 0) & (y > 10), 30.0, np.where((x > -5) & (y > 5), 12.0, 0.0))
    geometry = surface(FRAME, ground, "paved")
    wall = geometry.voxels.faces & WALL > 0
    xyz, faces = geometry.voxels.xyz[wall], geometry.voxels.faces[wall]
    corner = (xyz[:, 0] == 0) & (xyz[:, 1] == 10)
    assert (faces[corner] == WALL | FACES["-x"] | FACES["-y"]).all() and corner.sum() == 15
    assert np.allclose(geometry.normal[wall][corner], [-np.sqrt(0.5), -np.sqrt(0.5), 0])
    assert (geometry.voxels.semantic[wall] == codes()["paved"]).all()


def test_what_stands_before_a_wall_hides_it() -> None:
    x, _ = places(FRAME)
    ground = np.where(x < 0, 0.0, 10.0).astype(np.float32)
    height = np.where((x < 0) & (x > -6), 11.0, 0.0).astype(np.float32)
    cover = np.where(height > 0, codes()["building"], codes()["paved"]).astype(np.uint8)
    geometry = surface_of_heights(FRAME, ground, height, cover)
    assert not (geometry.voxels.faces & WALL).any()


def test_windows_fit() -> None:
    """The same voxels, whatever the window."""
    rng = np.random.default_rng(3)
    around = FRAME.pad(HEIGHT_MARGIN)
    ground = np.round(rng.uniform(0, 3, around.shape)) * 9.0
    whole = surface(FRAME, ground)
    for part in (replace(FRAME, x=(-20, -3)), replace(FRAME, y=(7, 13)), replace(FRAME, x=(5, 6))):
        found = surface(part, ground[around.slices(part.pad(HEIGHT_MARGIN))])
        inside = whole.voxels.inside(part)
        assert np.array_equal(found.voxels.xyz, whole.voxels.xyz[inside])
        assert np.array_equal(found.voxels.faces, whole.voxels.faces[inside])
        assert np.array_equal(found.offset, whole.offset[inside])
        assert np.array_equal(found.normal, whole.normal[inside])
