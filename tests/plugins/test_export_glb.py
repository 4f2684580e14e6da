"""The surface mesh, and its way into glTF and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pygltflib
import pytest
import trimesh

from earthgen.errors import JobError, StoreError
from earthgen.mesh.tile import LINEAR
from earthgen.progress import Progress
from earthgen.render.mesh import Mesh, pieces, surface_mesh
from earthgen.voxels.splat_math import base_colours
from earthgen.voxels.tile import tile_from_voxels
from earthgen.world.selection import select
from earthgen.world.world import World
from earthgen_glb.exporter import GlbExporter, GlbOptions
from geo_io.errors import RegionError
from tests.helpers import synthetic


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return synthetic.make(tmp_path_factory.mktemp("glb") / "world.zarr", (-20, 110), (5, 130))


def export(world: World, out: Path, bounds=None, level: int = 1, **options) -> list[Path]:
    return GlbExporter(GlbOptions(style="voxel"), **options).export(
        world, out, bounds=bounds, level=level, progress=Progress()
    )


def read(path: Path) -> tuple[trimesh.Trimesh, dict]:
    """The mesh in glTF's axes, in float64, with equal positions merged; and the scene's extras."""
    scene = trimesh.load_scene(str(path), process=False)
    whole = scene.to_mesh()
    merged = trimesh.Trimesh(whole.vertices, whole.faces, process=False)
    points, index = np.unique(np.asarray(whole.vertices, np.float32), axis=0, return_inverse=True)
    merged = trimesh.Trimesh(points.astype(np.float64), index[whole.faces], process=False)
    return merged, pygltflib.GLTF2().load(str(path)).scenes[0].extras


def world_positions(points: np.ndarray, extras: dict) -> np.ndarray:
    x, y, z = points.T
    return np.stack([x, -z, y], axis=1) + np.array(extras["anchor"])


def unmatched_edges(mesh: trimesh.Trimesh) -> np.ndarray:
    """(n, 2) vertices of the edges that do not have as many triangles one way as the other."""
    edges = mesh.edges.astype(np.int64)
    n = len(mesh.vertices)
    there, here = edges[:, 0] * n + edges[:, 1], edges[:, 1] * n + edges[:, 0]
    values, counts = np.unique(np.concatenate([there, here]), return_inverse=True)
    balance = np.zeros(len(values), np.int64)
    np.add.at(balance, counts[: len(there)], 1)
    np.add.at(balance, counts[len(there) :], -1)
    open_edges = values[balance != 0]
    return np.stack([open_edges // n, open_edges % n], axis=1)


@pytest.mark.parametrize("level", [1, 2, 4, 8])
def test_the_surface_is_closed_but_at_the_worlds_border(
    world: World, tmp_path: Path, level: int
) -> None:
    check_closed(world, tmp_path, level)


@pytest.mark.parametrize("share", [0.15, 0.6, 0.97])
def test_even_rubble_is_closed(tmp_path: Path, share: float) -> None:
    store = synthetic.start(tmp_path / "w.zarr", (-13, 86), (31, 97))
    for tile in store.frame.tiles(store.tile_size):
        frame = store.tile_frame(*tile)
        synthetic.put(store, tile, tile_from_voxels(frame, *synthetic.rubble(frame, share)))
    for level in (1, 2, 4, 8):
        check_closed(synthetic.open_world(store.path), tmp_path, level)


def check_closed(world: World, out: Path, level: int) -> None:
    (path,) = export(world, out, level=level)
    mesh, extras = read(path)
    assert len(mesh.faces) > 100
    ends = world_positions(mesh.vertices, extras)[unmatched_edges(mesh)]
    assert len(ends)  # open at the border
    left, bottom, right, top = world.level_frame(level).bounds
    x, y = ends[..., 0], ends[..., 1]
    on_border = (x == left) | (x == right) | (y == bottom) | (y == top)
    assert on_border.all()


def test_most_edges_have_two_faces(world: World, tmp_path: Path) -> None:
    (path,) = export(world, tmp_path)
    mesh, _ = read(path)
    _, uses = np.unique(mesh.edges_sorted, axis=0, return_counts=True)
    # One at the border; four where two voxels touch along an edge only, or a wall of the ground
    # ends; six where both.
    assert set(np.unique(uses)) <= {1, 2, 4, 6}
    assert (uses == 2).mean() > 0.95


def test_it_stands_where_the_world_stands(world: World, tmp_path: Path) -> None:
    (path,) = export(world, tmp_path)
    mesh, extras = read(path)
    assert extras["crs"] == "EPSG:32632" and extras["vertical_crs"] == "EPSG:7837"
    assert extras["axes"] == {"x": "east", "y": "up", "z": "south"} and extras["seed"] == 7
    points = world_positions(mesh.vertices, extras)
    left, bottom, right, top = world.frame.bounds
    np.testing.assert_array_equal(points[:, :2].min(axis=0), [left, bottom])
    np.testing.assert_array_equal(points[:, :2].max(axis=0), [right, top])
    layers = world.layers().load()
    assert abs(points[:, 2].max() - float(layers["surface"].max())) < 1.5
    assert abs(points[:, 2].min() - float(layers["ground"].min())) < 1.5


def test_open_ground_looks_up(world: World, tmp_path: Path) -> None:
    (path,) = export(world, tmp_path)
    mesh, extras = read(path)
    # A ray from above meets a face that looks up, at the height of the surface layer.
    left, bottom, right, top = world.frame.bounds
    rng = np.random.default_rng(1)
    at = np.stack([rng.integers(5, 120, 40), rng.integers(5, 110, 40)], axis=1) + 0.37
    layers = world.layers().load()
    up = mesh.face_normals[:, 1] > 0.5
    centres = world_positions(mesh.triangles_center, extras)
    total = 0
    for east, north in at:
        x, y = left + east, bottom + north
        near = np.flatnonzero((np.abs(centres[:, 0] - x) < 0.7) & (np.abs(centres[:, 1] - y) < 0.7))
        highest = near[np.argmax(centres[near, 2])]
        total += up[highest]
        surface = float(layers["surface"].sel(x=x, y=y, method="nearest"))
        assert abs(centres[highest, 2] - surface) < 8  # of the column or one beside it
    assert total > 30
    # By area, as much looks up as the world is wide, less what overhangs hide.
    upward = (mesh.area_faces * mesh.face_normals[:, 1]).sum()
    assert upward == pytest.approx((right - left) * (top - bottom), rel=1e-6)


def test_colours_and_material(world: World, tmp_path: Path) -> None:
    (path,) = export(world, tmp_path)
    document = pygltflib.GLTF2().load(str(path))
    material = document.materials[0]
    assert (
        material.pbrMetallicRoughness.metallicFactor == 0
        and material.pbrMetallicRoughness.roughnessFactor == 1
    )
    assert not material.doubleSided
    piece = next(pieces(world, select(world, None, 1)))
    mesh = surface_mesh(piece, (0.0, 0.0, 0.0))
    accessor = document.accessors[document.meshes[0].primitives[0].attributes.COLOR_0]
    view = document.bufferViews[accessor.bufferView]
    raw = np.frombuffer(
        document.binary_blob(), np.uint16, accessor.count * 4, view.byteOffset
    ).reshape(-1, 4)
    assert accessor.normalized and accessor.componentType == pygltflib.UNSIGNED_SHORT
    np.testing.assert_array_equal(raw[:, :3], LINEAR[base_colours(piece.splats.sh)[mesh.owner]])
    assert (raw[:, 3] == 65535).all()
    assert (
        LINEAR[0] == 0
        and LINEAR[255] == 65535
        and LINEAR[188] == pytest.approx(0.5029 * 65535, rel=1e-3)
    )
    for position in (
        document.accessors[m.primitives[0].attributes.POSITION] for m in document.meshes
    ):
        view = document.bufferViews[position.bufferView]
        data = np.frombuffer(
            document.binary_blob(), np.float32, position.count * 3, view.byteOffset
        ).reshape(-1, 3)
        np.testing.assert_array_equal(data.min(axis=0), np.float32(position.min))
        np.testing.assert_array_equal(data.max(axis=0), np.float32(position.max))


def test_a_large_world_is_one_file_a_tile_and_the_files_fit(world: World, tmp_path: Path) -> None:
    (single,) = export(world, tmp_path / "one")
    many = export(world, tmp_path / "many", faces_limit=1000)
    assert len(many) == len(world.tiles()) > 4
    assert {p.name for p in many} == {f"world_{x}_{y}.glb" for x, y in world.tiles()}
    whole, extras = read(single)
    parts = [read(path) for path in many]
    assert all(part[1] == extras for part in parts)
    together = np.unique(np.concatenate([part[0].vertices for part in parts]), axis=0)
    np.testing.assert_array_equal(together, np.unique(whole.vertices, axis=0))


def test_a_crop_has_the_same_corners(world: World, tmp_path: Path) -> None:
    left, bottom, _, _ = world.frame.bounds
    bounds = (left + 30, bottom + 20, left + 90, bottom + 80)
    whole, whole_extras = read(export(world, tmp_path / "whole")[0])
    part, extras = read(export(world, tmp_path / "part", bounds)[0])
    every = {tuple(p) for p in np.round(world_positions(whole.vertices, whole_extras), 3)}
    cropped = {tuple(p) for p in np.round(world_positions(part.vertices, extras), 3)}
    # The anchors differ, so heights may round differently in their last bit.
    assert len(cropped - every) < 0.001 * len(cropped)
    xs = np.array([p[0] for p in cropped])
    assert xs.min() == bounds[0] and xs.max() == bounds[2]


def test_unfinished_tiles_are_a_border(tmp_path: Path) -> None:
    store = synthetic.start(tmp_path / "w.zarr", (0, 128), (0, 128))
    tiles = list(store.frame.tiles(64))
    for tile in tiles[:2]:
        frame = store.tile_frame(*tile)
        synthetic.put(store, tile, tile_from_voxels(frame, *synthetic.build(frame)))
    mesh, extras = read(export(synthetic.open_world(tmp_path / "w.zarr"), tmp_path)[0])
    points = world_positions(mesh.vertices, extras)
    assert len({tile[1] for tile in tiles[:2]}) == 1  # the southern row
    assert np.ptp(points[:, 0]) + np.ptp(points[:, 1]) < 200


def test_flat_ground_is_flat(tmp_path: Path) -> None:
    world = synthetic.make(tmp_path / "w.zarr", (200, 230), (470, 500), flat=True)
    piece = next(pieces(world, select(world, None, 1)))
    mesh: Mesh = surface_mesh(piece, (0.0, 0.0, 400.0))
    ground = mesh.quads[(piece.voxels.xyz[mesh.voxel, 2] == -1) & (mesh.side == 5)]
    assert len(ground) and np.abs(mesh.vertices[ground][..., 2]).max() == 0


def test_what_the_user_is_told(world: World, tmp_path: Path) -> None:
    with pytest.raises(RegionError, match=r"0–1 east.*639980–640110 east"):
        export(world, tmp_path, (0.0, 0.0, 1.0, 1.0))
    with pytest.raises(StoreError, match="1, 2, 4, 8"):
        export(world, tmp_path, level=16)
    synthetic.start(tmp_path / "empty.zarr", (0, 64), (0, 64))
    with pytest.raises(StoreError, match="--resume"):
        export(synthetic.open_world(tmp_path / "empty.zarr"), tmp_path)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("smooth")
    return synthetic.make(folder / "world.zarr", (0, 96), (64, 160), tile_size=128)


def smooth(world: World, out: Path, level: int = 1, bounds=None, **options) -> Path:
    exporter = GlbExporter(GlbOptions(**options))
    (path,) = exporter.export(world, out, bounds=bounds, level=level, progress=Progress())
    assert [child.name for child in out.iterdir()] == ["world.glb"]
    return path


def test_a_smooth_mesh_stands_where_the_world_stands(place: World, tmp_path: Path) -> None:
    path = smooth(place, tmp_path / "a")
    mesh, extras = read(path)
    points = world_positions(mesh.vertices, extras)
    left, bottom, right, top = place.frame.bounds
    np.testing.assert_allclose(points[:, :2].min(axis=0), [left, bottom], atol=1e-3)
    np.testing.assert_allclose(points[:, :2].max(axis=0), [right, top], atol=1e-3)
    assert abs(points[:, 2].max() - float(place.layers()["surface"].max())) < 1.5
    document = pygltflib.GLTF2().load(str(path))
    assert "KHR_mesh_quantization" in document.extensionsRequired
    assert document.materials[0].pbrMetallicRoughness.metallicFactor == 0
    voxels = smooth(place, tmp_path / "b", style="voxel")
    assert path.stat().st_size < 0.4 * voxels.stat().st_size


def test_a_part_of_a_smooth_mesh_is_cut_at_the_bounds(place: World, tmp_path: Path) -> None:
    bounds = (640010.0, 5560080.0, 640050.0, 5560110.0)
    mesh, extras = read(smooth(place, tmp_path / "a", bounds=bounds))
    points = world_positions(mesh.vertices, extras)
    assert (points[:, :2].min(axis=0) > [640009, 5560079]).all()
    assert (points[:, :2].max(axis=0) < [640051, 5560111]).all()


def test_coarse_levels_do_not_tell_trees_apart(place: World, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="level 1 or 2"):
        smooth(place, tmp_path / "b", level=4, trees="instances")
