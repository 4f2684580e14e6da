"""The surface mesh of voxels, with trimesh as the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from earthgen.render.corners import ground_corners
from earthgen.render.mesh import Mesh, Piece, piece_columns, surface_mesh
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


def crossing(ground: NDArray, deck: NDArray, voxel_size: float = 1.0) -> Piece:
    """Columns over a ground (ny, nx), with decks a metre thick whose tops are at `deck`, or NaN."""
    ny, nx = ground.shape
    frame = Frame("EPSG:32632", voxel_size, (0, nx), (0, ny))
    size = voxel_size
    level = np.rint((np.nan_to_num(deck) - ground) / size).astype(int) - 1
    rows = []
    for y in range(ny):
        for x in range(nx):
            rows.append((x, y, -1, 32, 0.0))
            if np.isnan(deck[y, x]):
                continue
            k = int(level[y, x])
            sides = 48
            for bit, (c, r) in enumerate(((x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1))):
                inside = 0 <= c < nx and 0 <= r < ny
                if not inside or np.isnan(deck[r, c]) or level[r, c] != k:
                    sides |= 1 << bit
            rows.append((x, y, k, sides, deck[y, x] - ground[y, x] - (k + 1) * size))
    table = np.array(rows)
    xyz, faces = table[:, :3].astype(np.int32), table[:, 3].astype(np.uint8)
    count = len(rows)
    offset = np.zeros((count, 3), np.float32)
    offset[:, 2] = table[:, 4] + 0.5 * size
    splats = Splats(
        offset,
        np.ones((count, 2), np.float32),
        np.tile(np.float32([1, 0, 0, 0]), (count, 1)),
        np.ones(count, np.float32),
        np.zeros((count, 1, 3), np.float32),
    )
    column = (xyz[:, 1] + 1) * (nx + 2) + xyz[:, 0] + 1
    start = np.searchsorted(column, np.arange((nx + 2) * (ny + 2) + 1))
    voxels = Voxels(frame, xyz, np.ones(count, np.uint8), faces, np.zeros(count, np.uint32))
    padded = np.pad(ground.astype(np.float32), 1, constant_values=np.nan)
    lift = table[:, 4].astype(np.float32)
    return Piece((0, 0), frame, voxels, splats, padded, start, xyz[:, 2].copy(), faces, lift)


def open_inside(mesh: Mesh, frame: Frame) -> int:
    """How many edges away from the border are not used as often one way as the other."""
    place, number = np.unique(mesh.vertices, axis=0, return_inverse=True)
    corners = number.reshape(-1)[mesh.quads]
    first, second = corners.reshape(-1), np.roll(corners, -1, axis=1).reshape(-1)
    low, high = np.minimum(first, second), np.maximum(first, second)
    edges, which = np.unique(low * len(place) + high, return_inverse=True)
    balance = np.zeros(len(edges), int)
    np.add.at(balance, which, np.sign(second - first))
    ends = place[np.stack([edges // len(place), edges % len(place)])[:, balance != 0]]
    x, y = ends[..., 0], ends[..., 1]
    rim = (x == 0) | (x == frame.nx) | (y == 0) | (y == frame.ny)
    return int((~rim).any(axis=0).sum())


@pytest.mark.parametrize("drop", [2.0, 3.0, 12.0])
def test_a_deck_ends_level_with_a_bank(drop: float) -> None:
    """At a quay or cliff neither the end of the deck nor the bank is drawn to the other."""
    ground = np.full((7, 12), 30.0)
    ground[:, 4:9] -= drop
    deck = np.full(ground.shape, np.nan)
    deck[2:5, 4:9] = 30.0
    mesh = surface_mesh(crossing(ground, deck), (0.0, 0.0, 0.0))
    _, y, z = mesh.vertices.T
    voxels = crossing(ground, deck).voxels
    tops = np.unique(mesh.quads[(mesh.side == 5) & (voxels.xyz[mesh.voxel, 2] >= 0)])
    assert len(tops) and np.all(z[tops] == 30.0)
    bank = np.unique(mesh.quads[(mesh.side == 5) & (voxels.xyz[mesh.voxel, 0] == 3)])
    abutment = bank[(y[bank] >= 3) & (y[bank] <= 4)]
    assert np.all(z[abutment] == 30.0)
    below = np.unique(mesh.quads[(mesh.side == 4)])
    assert np.all(z[below] == 29.0)
    assert open_inside(mesh, voxels.frame) == 0


def test_a_deck_over_a_slope_is_smooth() -> None:
    ground = np.tile(30.0 - 0.8 * np.arange(10), (6, 1))
    deck = np.full(ground.shape, np.nan)
    deck[1:5, 2:9] = 30.0 + 0.05 * np.arange(2, 9)
    piece = crossing(ground, deck)
    mesh = surface_mesh(piece, (0.0, 0.0, 0.0))
    x, _, z = mesh.vertices.T
    over = piece.voxels.xyz[mesh.voxel, 2] >= 0
    for side, expected in ((5, 30.0), (4, 29.0)):
        used = np.unique(mesh.quads[over & (mesh.side == side)])
        assert np.abs(z[used] - expected - 0.05 * (x[used] - 0.5)).max() < 0.06
    assert open_inside(mesh, piece.frame) == 0


def test_cliffs_are_upright_and_slopes_are_not() -> None:
    """A wall is drawn where it is, in one plane; a slope of 45 degrees stays smooth."""
    cliff = np.full((6, 8), 50.0)
    cliff[:, 4:] = 10.0
    cliff[3:, 3] = 10.0
    nothing = np.full(cliff.shape, np.nan)
    mesh = surface_mesh(crossing(cliff, nothing), (0.0, 0.0, 0.0))
    assert set(np.unique(mesh.vertices[:, 2]).tolist()) == {10.0, 50.0}
    a, b, c = (mesh.vertices[mesh.quads[:, n]].astype(float) for n in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    upright = (mesh.side < 4) & (area > 0)
    assert area[upright].sum() == pytest.approx(7 * 40.0)
    assert open_inside(mesh, Frame("EPSG:32632", 1.0, (0, 8), (0, 6))) == 0
    slope = np.tile(np.arange(8) * 1.0, (6, 1))
    mesh = surface_mesh(crossing(slope, np.full(slope.shape, np.nan)), (0.0, 0.0, 0.0))
    x, _, z = mesh.vertices.T
    inner = (x > 0) & (x < 8)
    assert np.all(z[inner] == x[inner] - 0.5) and len(mesh.quads) == slope.size


def test_ground_corners_are_means_of_the_columns_that_have_a_height() -> None:
    piece = crossing(np.array([[1.0, 3.0], [5.0, 7.0]]), np.full((2, 2), np.nan))
    corners = ground_corners(piece_columns(piece))
    middle = [corners[3, 0, 0], corners[2, 0, 1], corners[1, 1, 0], corners[0, 1, 1]]
    assert middle == [4.0] * 4
    assert corners[0, 0, 0] == 1.0 and corners[1, 0, 0] == 2.0 and corners[3, 1, 1] == 7.0
