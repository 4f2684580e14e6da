"""The terrain mesh: near enough to the ground, whole, and equal at the rims of neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from earthgen.mesh.terrain import Terrain, triangulate


def hills(n: int) -> np.ndarray:
    y, x = np.mgrid[: n + 1, : n + 1]
    return 3 * np.sin(x / 7) * np.cos(y / 11)


def areas(mesh: Terrain) -> np.ndarray:
    a, b, c = (
        np.stack([mesh.column, mesh.row], 1)[mesh.triangles[:, k]].astype(float) for k in range(3)
    )
    return 0.5 * (
        (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    )  # counter-clockwise: positive


def lone_edges(mesh: Terrain) -> np.ndarray:
    """Edges with a triangle on one side only, as pairs of (column, row)."""
    t = mesh.triangles
    edges = np.concatenate([t[:, [0, 1]], t[:, [1, 2]], t[:, [2, 0]]]).astype(np.int64)
    n = len(mesh.column)
    there, back = edges @ [n, 1], edges @ [1, n]
    assert len(np.unique(there)) == len(there)
    lone = edges[~np.isin(there, back)]
    return np.stack([mesh.column[lone], mesh.row[lone]], axis=-1)


def at_corners(mesh: Terrain, height: np.ndarray) -> np.ndarray:
    """Heights of the mesh at all corners, by looking for the triangle above each."""
    out = np.full(height.shape, np.nan)
    for triangle in mesh.triangles:
        x, y = mesh.column[triangle].astype(float), mesh.row[triangle].astype(float)
        z = height[mesh.row[triangle], mesh.column[triangle]]
        cols = np.arange(int(x.min()), int(x.max()) + 1)
        rows = np.arange(int(y.min()), int(y.max()) + 1)
        px, py = np.meshgrid(cols, rows)
        d = (y[1] - y[2]) * (x[0] - x[2]) + (x[2] - x[1]) * (y[0] - y[2])
        u = ((y[1] - y[2]) * (px - x[2]) + (x[2] - x[1]) * (py - y[2])) / d
        v = ((y[2] - y[0]) * (px - x[2]) + (x[0] - x[2]) * (py - y[2])) / d
        inside = (u > -1e-9) & (v > -1e-9) & (u + v < 1 + 1e-9)
        value = u * z[0] + v * z[1] + (1 - u - v) * z[2]
        out[py[inside], px[inside]] = value[inside]
    return out


def test_it_is_coarse_where_the_ground_is_plane_and_near_everywhere() -> None:
    height, known = hills(32), np.ones((32, 32), bool)
    exact, near = triangulate(height, known, 0.0), triangulate(height, known, 0.1)
    assert len(exact.triangles) == 2 * 32 * 32
    assert len(near.triangles) < 0.5 * len(exact.triangles)
    assert np.abs(at_corners(near, height) - height).max() < 0.15
    plane = triangulate(np.zeros((33, 33)), known, 0.1)
    # The rim is whole, the middle has few triangles.
    assert len(plane.triangles) < 450
    for mesh in (exact, near, plane):
        assert (areas(mesh) > 0).all() and areas(mesh).sum() == 32 * 32
        ends = lone_edges(mesh)
        assert (np.abs(ends[:, 0] - ends[:, 1]).sum(axis=1) == 1).all()  # all corners of the rim
        assert len(ends) == 4 * 32


def test_cells_without_ground_are_left_out_whole() -> None:
    known = np.random.default_rng(2).random((16, 16)) > 0.3
    mesh = triangulate(hills(16), known, 5.0)
    assert (areas(mesh) > 0).all() and areas(mesh).sum() == known.sum()
    middle = np.stack([mesh.column, mesh.row], 1)[mesh.triangles].mean(axis=1)
    assert known[middle[:, 1].astype(int), middle[:, 0].astype(int)].all()


@pytest.mark.parametrize("n", [1, 2, 4])
def test_small_grids(n: int) -> None:
    mesh = triangulate(hills(n), np.ones((n, n), bool), 0.0)
    assert areas(mesh).sum() == n * n
    assert len(triangulate(hills(n), np.zeros((n, n), bool), 0.0).triangles) == 0
