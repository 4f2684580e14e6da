"""The surface mesh of voxels, with trimesh as the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from earthgen.render.mesh import Piece, surface_mesh
from earthgen.voxels.voxels import Splats, Voxels
from geo_io.frame import Frame


def floating_cube(edge: int, voxel_size: float) -> Piece:
    """A cube of voxels two voxels above flat ground, with the surface at the tops of voxels."""
    n = edge + 4
    frame = Frame("EPSG:32632", voxel_size, (10, 10 + n), (20, 20 + n))
    rows = []
    for y in range(edge):
        for x in range(edge):
            for z in range(edge):
                ends = [x == 0, x == edge - 1, y == 0, y == edge - 1, z == 0, z == edge - 1]
                sides = sum(1 << bit for bit, end in enumerate(ends) if end)
                if sides:
                    rows.append((12 + x, 22 + y, 2 + z, sides))
    xyz, faces = np.array(rows, np.int32)[:, :3], np.array(rows)[:, 3].astype(np.uint8)
    count = len(rows)
    splats = Splats(
        np.tile(np.float32([0, 0, voxel_size / 2]), (count, 1)),
        np.ones((count, 2), np.float32),
        np.tile(np.float32([1, 0, 0, 0]), (count, 1)),
        np.ones(count, np.float32),
        np.zeros((count, 1, 3), np.float32),
    )
    column = (xyz[:, 1] - 19) * (n + 2) + xyz[:, 0] - 9
    start = np.searchsorted(column, np.arange((n + 2) ** 2 + 1))
    voxels = Voxels(frame, xyz, np.ones(count, np.uint8), faces, np.zeros(count, np.uint32))
    ground = np.full((n + 2, n + 2), 100, np.float32)
    lift = np.zeros(count, np.float32)
    return Piece((0, 0), frame, voxels, splats, ground, start, xyz[:, 2].copy(), faces, lift)


@pytest.mark.parametrize(("edge", "voxel_size"), [(1, 1.0), (3, 1.0), (4, 0.5)])
def test_a_floating_cube_is_watertight(edge: int, voxel_size: float) -> None:
    piece = floating_cube(edge, voxel_size)
    mesh = surface_mesh(piece, piece.frame.anchor)
    triangles = mesh.quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)
    solid = trimesh.Trimesh(mesh.vertices.astype(float), triangles)  # merges equal vertices
    assert solid.is_watertight and solid.is_winding_consistent
    size = edge * voxel_size
    assert solid.volume == pytest.approx(size**3) and solid.area == pytest.approx(6 * size**2)
    low, high = solid.bounds
    np.testing.assert_allclose(high - low, size)
    np.testing.assert_allclose(low, [2 * voxel_size, 2 * voxel_size, 100 + 2 * voxel_size])
