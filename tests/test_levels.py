"""Levels of detail keep what they stand for: heights, classes, colours, closed surfaces."""

from __future__ import annotations

import numpy as np
import pytest

from earthgen.engine import Engine
from earthgen.levels import coarsen, colours, normals, rotations
from earthgen.noise import Noise
from earthgen.testing import open_sides
from earthgen.voxels import FACES, Splats, Voxels
from earthgen_stripes.backends import Stripes, Terraces
from geo_io.frame import Frame

FRAME = Frame("EPSG:32632", 1.0, (-13, 50), (7, 60))


def tile():
    return Engine(FRAME, Terraces(), Stripes(), {}, Noise(0)).tile(-1, 0, 64)


def test_dense_layers_are_what_the_voxels_show() -> None:
    t = tile()
    assert np.allclose(t.surface, t.ground)
    assert (t.semantics == 1).all()
    assert np.array_equal(t.rgb.reshape(-1, 3)[0], colours(t.splats.sh)[(t.frame.ny - 1) * t.frame.nx])


def test_coarse_layers() -> None:
    t = tile()
    c = coarsen(t)
    assert c.frame == t.frame.coarsen(2)
    assert abs(np.nanmean(c.ground) - np.nanmean(t.ground)) < 0.2
    assert (c.semantics == 1).all()
    assert len(c.voxels) == c.frame.nx * c.frame.ny
    assert np.allclose(np.linalg.norm(c.splats.rotation, axis=1), 1)
    assert np.allclose(c.splats.offset[:, 2], 1.0)  # the surface is the top of a voxel of 2 m, as it was of 1 m


def volume(solid: np.ndarray) -> Voxels:
    """Surface voxels of a bool volume (x, y, z) that is solid below and open around."""
    padded = np.pad(solid, 1)
    padded[..., 0] = padded[..., 1]
    faces = np.zeros(solid.shape, np.uint8)
    for axis, name in enumerate("xyz"):
        for sign, step in (("-", 1), ("+", -1)):
            neighbour = np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1]
            faces |= np.where(solid & ~neighbour, FACES[sign + name], 0).astype(np.uint8)
    xyz = np.argwhere(faces > 0).astype(np.int32)
    frame = Frame("EPSG:32632", 1.0, (0, solid.shape[0]), (0, solid.shape[1]))
    n = len(xyz)
    v = Voxels(frame, xyz, np.ones(n, np.uint8), faces[tuple(xyz.T)], np.zeros(n, np.uint32))
    return v.take(v.order())


@pytest.mark.parametrize("seed", range(6))
def test_coarse_surface_stays_closed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    solid = np.arange(16) < rng.integers(2, 14, (20, 24))[..., None]
    fine = volume(solid)
    assert open_sides(fine) == 0
    n = len(fine)
    flat = Splats(np.zeros((n, 3), np.float32), np.ones((n, 2), np.float32), np.tile(np.float32([1, 0, 0, 0]), (n, 1)),
                  np.ones(n, np.float32), np.zeros((n, 1, 3), np.float32))  # fmt: skip
    from earthgen.levels import _coarsen_voxels

    coarse, _ = _coarsen_voxels(fine, flat, fine.frame.coarsen(2))
    assert open_sides(coarse) == 0
    reference = volume(solid.reshape(10, 2, 12, 2, 8, 2).any(axis=(1, 3, 5)))
    assert np.array_equal(coarse.xyz, reference.xyz)
    inner = (coarse.xyz[:, 0] > 0) & (coarse.xyz[:, 0] < 9) & (coarse.xyz[:, 1] > 0) & (coarse.xyz[:, 1] < 11)
    assert np.array_equal(coarse.faces[inner], reference.faces[inner])


def test_rotations_turn_up_into_the_normal() -> None:
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(500, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    normal = np.concatenate([normal, [[0, 0, 1], [0, 0, -1], [1, 0, 0]]]).astype(np.float32)
    turned = normals(rotations(normal))
    assert np.allclose(turned, normal, atol=1e-3)
