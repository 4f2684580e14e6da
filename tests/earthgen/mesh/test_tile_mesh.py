"""Smooth meshes of made-up places: exact roofs, upright walls, areas of coarse levels, seams."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from earthgen.mesh.columns import LOW, Columns, Slabs, columns_of_voxels, flattened, paste
from earthgen.mesh.pieces import make_piece
from earthgen.mesh.reader import ColumnReader
from earthgen.mesh.shells import HALO, ROOF, UNDERSIDE, WALL, shells
from earthgen.mesh.tile import CLASSES, tile_mesh
from earthgen.terrain.cover import class_code
from earthgen.voxels.heightfield import HEIGHT_MARGIN, surface_of_heights
from earthgen.voxels.surface import surface_splats
from earthgen.world.world import World
from geo_io.frame import Frame
from tests.helpers import synthetic

HOUSE, TREE, GRASS = (class_code(name) for name in ("building", "tree", "grass"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return synthetic.make(
        tmp_path_factory.mktemp("mesh") / "world.zarr", (0, 96), (64, 160), tile_size=128
    )


@pytest.fixture(scope="module")
def reader(world: World, tmp_path_factory: pytest.TempPathFactory) -> ColumnReader:
    return ColumnReader(world, tmp_path_factory.mktemp("columns"))


def gabled(slope: float = 0.5, level: float = 100.0) -> Columns:
    """One house of 8 x 12 cells under a gable along y, and ground that falls to the east."""
    window = Frame("EPSG:32632", 1.0, (0, 32), (0, 32), (-16, 64))
    around = window.pad(HEIGHT_MARGIN)
    row, col = np.mgrid[: around.ny, : around.nx] - HEIGHT_MARGIN
    house = (col >= 10) & (col < 18) & (row >= 8) & (row < 20)
    ground = level - 0.1 * (col + 0.5)
    roof = level + 6 + slope * (4 - np.abs(col + 0.5 - 14))
    height = np.where(house, roof - ground, 0)
    geometry = surface_of_heights(
        window,
        ground.astype(np.float32),
        height.astype(np.float32),
        np.where(house, HOUSE, GRASS).astype(np.uint8),
        house.astype(np.uint32) * 7,
    )
    rgb = np.full((len(geometry.voxels), 3), 120)
    splats = surface_splats(geometry, rgb)
    return columns_of_voxels(geometry.ground, geometry.voxels, splats)


def columns(top: np.ndarray, number: np.ndarray, crown: bool = False, low: float = 0.0) -> Columns:
    """Slabs of given heights on flat ground, with a margin; 0 for none."""
    frame = Frame("EPSG:32632", 1.0, (0, top.shape[1]), (0, top.shape[0]))
    here = top > 0
    n = int(here.sum())
    start = np.concatenate([[0], np.cumsum(here.ravel())])
    slabs = Slabs(
        start,
        np.full(n, low, np.float32),
        top[here].astype(np.float32),
        np.ones(n, np.float32),
        number[here].astype(np.uint32),
        np.full(n, TREE if crown else HOUSE, np.uint8),
        np.full(n, crown),
        np.full((n, 3), 200, np.uint8),
        np.full((n, 3), 100, np.uint8),
        np.zeros(n, bool),
    )
    ground = np.zeros(top.shape, np.float32)
    cover = np.full(top.shape, GRASS, np.uint8)
    return Columns(frame, ground, cover, np.zeros((*top.shape, 3), np.uint8), slabs).padded(HALO)


def test_roofs_are_exact_and_walls_upright() -> None:
    slope = 0.5
    place = gabled(slope)
    made = shells(place.padded(HALO), 1)
    roof = made.triangles[made.part == ROOF]
    corners = made.position[np.unique(roof)]
    expected = 106 + slope * (4 - np.abs(corners[:, 0] - 14))
    # Exact but for the ridge, which is a flat strip of two cells' half, and half precision.
    ridge = corners[:, 0] == 14
    np.testing.assert_allclose(corners[~ridge, 2], expected[~ridge], atol=0.12)
    assert np.abs(corners[ridge, 2] - expected[ridge]).max() < slope / 2 + 0.1
    walls = made.triangles[made.part == WALL]
    across = np.cross(
        made.position[walls[:, 1]] - made.position[walls[:, 0]],
        made.position[walls[:, 2]] - made.position[walls[:, 0]],
    )
    assert np.abs(across[:, 2]).max() < 1e-9 and (made.normal[walls][..., 2] == 0).all()
    # The walls face outwards, and reach below the ground.
    outwards = made.position[walls].mean(axis=1)[:, :2] - [14, 18]
    assert ((across[:, :2] * outwards).sum(axis=1) > 0).all()
    assert made.position[np.unique(walls), 2].min() < 100 - 0.1 * 18


def test_a_house_covers_its_footprint() -> None:
    made = shells(gabled().padded(HALO), 1)
    roof = made.position[made.triangles[made.part == ROOF]][..., :2]
    a, b, c = roof[:, 0], roof[:, 1], roof[:, 2]
    area = 0.5 * ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    assert (area > 0).all() and area.sum() == pytest.approx(8 * 12)


def test_stairs_of_an_outline_become_a_straight_wall() -> None:
    row, col = np.mgrid[:16, :16]
    place = columns(np.where(row + col < 16, 6.0, 0.0), np.ones((16, 16)))
    made = shells(place, 1)
    walls = made.triangles[made.part == WALL]
    normal = made.normal[walls[:, 0]]
    askew = (np.abs(normal[:, 0] - normal[:, 1]) < 0.01) & (normal[:, 0] > 0.7)
    length = np.ptp(made.position[walls[askew]][:, :, 0], axis=1)
    assert length.sum() / 2 > 12  # of 15 cells, less the ends
    along = made.position[np.unique(walls[askew])][:, :2].sum(axis=1)
    assert np.ptp(along) < 1e-9 and along[0] == 16.5  # halfway between the corners of the steps


def test_a_tower_has_walls_above_the_roof_beside_it() -> None:
    top = np.full((8, 8), 5.0)
    top[:, :4] = 12.0
    made = shells(columns(top, np.ones((8, 8))), 1)
    walls = made.position[made.triangles[made.part == WALL]]
    inner = (np.abs(walls[..., 0] - 4) < 1e-9).all(axis=1)
    assert inner.sum() == 16 and walls[inner][..., 2].max() == pytest.approx(12)
    assert walls[inner][..., 2].min() < 5.0
    heights = np.unique(made.position[np.unique(made.triangles[made.part == ROOF]), 2])
    assert heights.tolist() == [5.0, 12.0]


def test_row_houses_share_a_wall_only_in_closed_shells() -> None:
    number = np.ones((8, 8))
    number[:, 4:] = 2
    place = columns(np.full((8, 8), 5.0), number)
    for closed, count in ((False, 0), (True, 32)):
        made = shells(place, 1, closed=closed)
        walls = made.position[made.triangles[made.part == WALL]]
        assert (np.abs(walls[..., 0] - 4) < 1e-9).all(axis=1).sum() == count


def test_a_crown_is_closed_and_round() -> None:
    row, col = np.mgrid[:9, :9] - 4
    ball = np.sqrt(np.maximum(12.0 - row**2 - col**2, 0))
    place = columns(np.where(ball > 0, 6 + ball, 0), np.ones((9, 9)), crown=True, low=3.0)
    made = shells(place, 1)
    assert not (made.part == WALL).any() and (made.part == UNDERSIDE).any()
    edges = np.concatenate([made.triangles[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    n = len(made.position)
    there, back = edges @ [n, 1], edges @ [1, n]
    assert np.array_equal(np.sort(there), np.sort(back))  # each edge once each way
    assert len(np.unique(made.triangles)) == n  # vertices are shared
    a, b, c = (made.position[made.triangles[:, k]] for k in range(3))
    assert np.einsum("ij,ij->i", a, np.cross(b, c)).sum() > 0  # outwards


def test_eaves_askew_to_the_lattice_are_level() -> None:
    row, col = np.mgrid[:24, :24] + 0.5
    # A gable whose ridge runs from the north-west to the south-east.
    across, along = (row + col - 24) / 2**0.5, (row - col) / 2**0.5
    house = (np.abs(across) < 5) & (np.abs(along) < 9)
    made = shells(columns(np.where(house, 6 + 0.8 * (5 - np.abs(across)), 0), house), 1)
    walls = made.position[np.unique(made.triangles[made.part == WALL])]
    eaves = walls[walls[:, 2] > 2]
    across, along = (eaves[:, :2] @ [[1, 1], [1, -1]] / 2**0.5 - [24 / 2**0.5, 0]).T
    sides = (np.abs(along) < 7) & (np.abs(across) > 4)
    assert sides.sum() > 20
    assert np.ptp(eaves[sides, 2]) < 0.15  # steps of the cells would be 0.57


def test_hedges_and_narrow_crowns_have_sides() -> None:
    hedge = np.zeros((5, 9))
    hedge[2, 1:8] = 1.5
    for low, level in ((0.0, 1), (0.5, 1), (0.5, 2)):
        made = shells(columns(hedge, hedge > 0, crown=True, low=low), level)
        up = made.position[np.unique(made.triangles[made.part == ROOF])]
        assert up[:, 2].tolist() == [1.5] * 16  # not half of it, as at the rim of a round crown
        walls = made.position[made.triangles[made.part == WALL]]
        assert len(walls) == 2 * 16 and walls[..., 2].min() == pytest.approx(low or -0.5)
    made = shells(columns(hedge, hedge > 0, crown=True, low=0.5), 4)
    assert len(made.triangles) == 4 * 7  # a pyramid each, from the ground
    z = made.position[np.unique(made.triangles)][:, 2]
    assert sorted(set(z.tolist())) == [0.0, 1.5]


def test_a_crown_stands_on_its_trunk() -> None:
    row, col = np.mgrid[:9, :9] - 4
    ball = np.sqrt(np.maximum(12.0 - row**2 - col**2, 0))
    place = columns(np.where(ball > 0, 6 + ball, 0), np.ones((9, 9)), crown=True, low=3.0)
    middle = np.zeros(len(place.slabs), bool)
    middle[len(middle) // 2] = True
    place = replace(place, slabs=replace(place.slabs, trunk=middle))
    made = shells(place, 1)
    trunk = made.position[np.unique(made.triangles[made.part == WALL])]
    assert np.abs(trunk[:, :2] - 4.5).max() < 0.4
    assert trunk[:, 2].min() < 0 and trunk[:, 2].max() > 3.0  # from the ground into the crown
    assert made.side[made.triangles[made.part == WALL]].all()  # in the colour of the bark
    assert not (shells(place, 2).part == WALL).any()


def test_what_each_vertex_belongs_to(world: World, reader: ColumnReader) -> None:
    frame = world.frame
    mesh = make_piece(reader, frame, 1, *next(frame.tiles(128)), 128)
    assert mesh is not None
    kinds = mesh.features.semantic[mesh.feature]
    assert {HOUSE, TREE} & set(kinds.tolist()) and (mesh.features.semantic[:CLASSES]).tolist() == (
        list(range(CLASSES))
    )
    assert (mesh.features.object[CLASSES:] > 0).all()
    # Objects of the mesh are those of the voxels in the piece.
    left, bottom, right, top = frame.tile(*next(frame.tiles(128)), 128).bounds
    voxels = world.voxels((left, bottom, right, top))
    above = voxels.object[(voxels.object > 0) & (voxels.xyz[:, 2] >= 0)]
    assert set(mesh.features.object[CLASSES:].tolist()) <= set(above.tolist())
    assert len(mesh.features.object) - CLASSES > 0.9 * len(np.unique(above))


@pytest.mark.parametrize("level", [1, 2])
def test_neighbouring_pieces_share_their_rims(
    world: World, reader: ColumnReader, level: int
) -> None:
    frame, n = world.level_frame(level), 32
    tiles = list(frame.tiles(n))
    x, y = next((x, y) for x, y in tiles if (x + 1, y) in tiles)
    west, east = (make_piece(reader, frame, level, x + i, y, n) for i in (0, 1))
    assert west is not None and east is not None
    border = (x + 1) * n * frame.voxel_size

    def rim(mesh) -> set[tuple[float, float]]:
        points = mesh.terrain * mesh.step + np.array(mesh.origin)
        on = np.abs(points[:, 0] - border) < 1e-6
        return {(round(p[1], 3), round(p[2], 2)) for p in points[on]}

    assert len(rim(west)) > n and rim(west) == rim(east)


@pytest.mark.parametrize("level", [2, 4, 8])
def test_coarse_levels_keep_the_area_of_buildings_and_crowns(
    world: World, reader: ColumnReader, level: int
) -> None:
    def area(level: int, crown: bool) -> float:
        frame = world.level_frame(level)
        slabs = reader.columns(frame, level).slabs
        covered = np.repeat(np.arange(len(slabs.start) - 1), np.diff(slabs.start))
        return len(np.unique(covered[slabs.crown == crown])) * frame.voxel_size**2

    # Whole cells are drawn, so each tile can be half a cell off.
    rounding = 0.5 * level**2 * len(world.tiles())
    for crown in (False, True):
        fine = area(1, crown)
        assert fine > 60
        assert abs(area(level, crown) - fine) < 0.05 * fine + rounding


def test_what_is_too_low_for_a_level_is_ground_of_its_colour() -> None:
    """Crops become colour; buildings, crowns, bridges and what is high enough stay."""
    top = np.full((4, 4), 0.9 * LOW)
    top[0] = 1.1 * LOW
    low = columns(top, np.zeros((4, 4)))
    share = np.where(np.arange(16) % 4 == 3, np.float32(0.25), np.float32(1))
    crops = replace(
        low, slabs=replace(low.slabs, semantic=np.full(16, class_code("cropland")), share=share)
    )
    flat = flattened(crops)
    assert len(flat.slabs) == 4 and (flat.slabs.top > LOW).all()
    rgb = flat.rgb[HALO:-HALO, HALO:-HALO]
    assert (rgb[0] == 0).all() and (rgb[1:, :3] == 200).all() and (rgb[1:, 3] == 50).all()
    for kept in (
        low,
        replace(crops, slabs=replace(crops.slabs, crown=np.ones(16, bool))),
        replace(crops, slabs=replace(crops.slabs, bottom=np.full(16, 0.1, np.float32))),
    ):
        assert flattened(kept) is kept


def test_a_piece_without_ground_is_nothing(world: World, reader: ColumnReader) -> None:
    far = replace(world.frame, x=(0, 64), y=(0, 64))
    assert tile_mesh(reader.columns(far.pad(HALO), 1), 1) is None
    assert make_piece(reader, world.frame, 1, 0, 0, 64) is None


def test_pasting_pieces_is_reading_the_whole(world: World, reader: ColumnReader) -> None:
    frame = world.frame
    whole = reader.columns(frame, 1)
    halves = [
        replace(frame, x=(frame.x[0], frame.x[0] + 50)),
        replace(frame, x=(frame.x[0] + 50, frame.x[1])),
    ]
    joined = paste(frame, [reader.columns(half, 1) for half in halves])
    np.testing.assert_array_equal(joined.ground, whole.ground)
    assert np.array_equal(joined.slabs.start, whole.slabs.start)
    for name, values in whole.slabs.rows().items():
        np.testing.assert_array_equal(getattr(joined.slabs, name), values)


def test_columns_stay_on_disk(world: World, tmp_path: Path) -> None:
    reader = ColumnReader(world, tmp_path)
    reader.prepare(*world.tiles()[0])
    files = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(files) == 4
    ColumnReader(world, tmp_path).prepare(*world.tiles()[0])
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files
