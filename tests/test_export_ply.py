"""Gaussians, and their way into PLY and back."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import plyfile
import pytest

import synthetic
from earthgen.errors import StoreError
from earthgen.levels import normals
from earthgen.progress import Progress
from earthgen.splats import Gaussians, from_voxels
from earthgen.splats.ply import PlyWriter, encode, read_ply, read_records, write_ply
from earthgen.voxels import Splats, Voxels
from earthgen.world import World
from earthgen_ply.exporter import PlyExporter
from geo_io.errors import FrameError, InputError, MissingCrsError, MissingFileError, RegionError
from geo_io.frame import Frame


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return synthetic.make(tmp_path_factory.mktemp("ply") / "world.zarr", (-20, 90), (5, 80), degree=1)


def export(world: World, out: Path, bounds=None, level: int = 1) -> tuple[Path, dict]:
    path, side = PlyExporter().export(world, out, bounds=bounds, level=level, progress=Progress())
    return path, json.loads(side.read_text("utf-8"))


def sample(n: int = 50, degree: int = 2) -> Gaussians:
    rng = np.random.default_rng(3)
    turn = rng.normal(size=(n, 4))
    turn /= np.linalg.norm(turn, axis=1, keepdims=True)
    return Gaussians(
        (640000.5, 5560000.25, 411.0), "EPSG:32632", "EPSG:7837",
        rng.normal(0, 300, (n, 3)).astype(np.float32), rng.uniform(0.05, 3, (n, 2)).astype(np.float32),
        turn.astype(np.float32), np.linspace(0, 1, n).astype(np.float32),
        rng.normal(size=(n, (degree + 1) ** 2, 3)).astype(np.float32), rng.integers(1, 26, n).astype(np.uint8),
    )  # fmt: skip


def test_means_are_voxel_centres_on_the_ground_plus_offset() -> None:
    frame = Frame("EPSG:32632", 0.5, (1_280_000, 1_280_002), (11_120_000, 11_120_003))
    xyz = np.array([[1_280_001, 11_120_000, -1], [1_280_000, 11_120_002, 4]], np.int32)
    ground = np.array([[100.25, 0], [0, 0], [0, 300.5]], np.float32)  # first row is the northernmost
    one = np.ones(2, np.uint8)
    offset = np.array([[0.1, -0.2, 0.25], [0, 0, 0]], np.float32)
    splats = Splats(
        offset, np.ones((2, 2), np.float32), np.array([[1, 0, 0, 0], [0, 2, 0, 0]], np.float32),
        np.ones(2, np.float32), np.zeros((2, 1, 3), np.float32),
    )  # fmt: skip
    found = from_voxels(Voxels(frame, xyz, one, one, one.astype(np.uint32)), splats, ground)
    assert found.anchor == (640000.0, 5560000.0, 0.0)
    expected = [[640000.75 + 0.1, 5560000.25 - 0.2, 300.5 - 0.25 + 0.25], [640000.25, 5560001.25, 100.25 + 2.25]]
    np.testing.assert_allclose(found.positions, expected, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found.rotations, axis=1), 1, atol=1e-6)
    moved = from_voxels(
        Voxels(frame, xyz, one, one, one.astype(np.uint32)), splats, ground, (640001.0, 5560001.0, 300.0)
    )
    np.testing.assert_allclose(moved.positions, expected, atol=1e-4)
    assert np.abs(moved.means).max() < 210
    with pytest.raises(FrameError):
        from_voxels(Voxels(frame, xyz, one, one, one.astype(np.uint32)), splats, ground[:2])


def test_gaussians_of_different_anchors_do_not_join() -> None:
    one = sample()
    assert len(Gaussians.concatenate([one, one.take(np.arange(10))])) == 60
    with pytest.raises(FrameError, match="one anchor"):
        Gaussians.concatenate([one, replace(one, anchor=(0.0, 0.0, 0.0))])
    with pytest.raises(FrameError, match=r"\(degree \+ 1\)"):
        replace(one, sh=one.sh[:, :3])


def test_a_ply_comes_back(tmp_path: Path) -> None:
    before = sample()
    path, side = write_ply(tmp_path / "a.ply", before, 1e-3, {"seed": 4})
    after = read_ply(path)
    for name in ("means", "rotations", "sh", "semantic"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name), err_msg=name)
    # A logarithm in float32 is good to some units in the last place.
    np.testing.assert_allclose(after.scales, before.scales, rtol=1e-6)
    np.testing.assert_allclose(after.opacities, before.opacities, atol=1.5e-6)
    assert (after.anchor, after.crs, after.vertical_crs) == (before.anchor, before.crs, before.vertical_crs)
    assert json.loads(side.read_text("utf-8"))["seed"] == 4


def test_fields_are_those_of_splat_viewers_and_read_alike_by_plyfile(tmp_path: Path) -> None:
    before = sample(degree=1)
    path, _ = write_ply(tmp_path / "a.ply", before, 1e-3)
    vertex = plyfile.PlyData.read(str(path))["vertex"]
    names = [p.name for p in vertex.properties]
    assert names == [
        "x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{i}" for i in range(9)),
        "opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3", "semantic",
    ]  # fmt: skip
    own = read_records(path)
    for name in names:
        assert vertex[name].tobytes() == own[name].tobytes(), name
    np.testing.assert_allclose(np.exp(vertex["scale_2"]), 1e-3, rtol=1e-6)
    assert np.isfinite(vertex["opacity"]).all()  # 0 and 1 are among the opacities
    opacity = 1 / (1 + np.exp(-vertex["opacity"].astype(np.float64)))
    np.testing.assert_allclose(opacity, before.opacities, atol=1.5e-6)
    # f_rest goes by channel, then by coefficient.
    np.testing.assert_array_equal(vertex["f_rest_1"], before.sh[:, 2, 0])
    np.testing.assert_array_equal(vertex["f_rest_3"], before.sh[:, 1, 1])
    discs = normals(before.rotations)
    np.testing.assert_allclose(np.stack([vertex["nx"], vertex["ny"], vertex["nz"]], 1), discs, atol=1e-6)


def test_a_world_comes_back_from_its_ply(world: World, tmp_path: Path) -> None:
    path, side = export(world, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["world.ply", "world.ply.json"]
    found = read_ply(path)
    whole = world.gaussians()
    assert len(found) == len(whole) == side["count"] == world.counts["voxels"]

    # The file is in the order of tiles, the world's reader in that of the lattice.
    def order(positions: np.ndarray) -> np.ndarray:
        return np.lexsort(np.round(positions, 3).T)

    a, b = order(found.positions), order(whole.positions)
    np.testing.assert_allclose(found.positions[a], whole.positions[b], atol=2e-3)
    np.testing.assert_array_equal(found.semantic[a], whole.semantic[b])
    assert side["crs"] == "EPSG:32632" and side["vertical_crs"] == "EPSG:7837" and side["seed"] == 7
    assert side["axes"] == {"x": "east", "y": "north", "z": "up"} and side["ground"] == "generated, not measured"
    assert found.degree == 1
    left, bottom, right, top = world.frame.bounds
    x, y = found.positions[:, 0], found.positions[:, 1]
    assert left <= x.min() < left + 2 and right - 2 < x.max() <= right
    assert bottom <= y.min() < bottom + 2 and top - 2 < y.max() <= top


def test_order_is_that_of_the_tiles(world: World, tmp_path: Path) -> None:
    path, _ = export(world, tmp_path)
    found = read_ply(path)
    parts = []
    for tile in world.tiles():
        voxels, splats = world.tile_voxels(*tile)
        parts.append(from_voxels(voxels, splats, world.tile_layers(*tile)["ground"], found.anchor))
    np.testing.assert_array_equal(found.means, Gaussians.concatenate(parts).means)


def test_a_part_at_a_coarser_level(world: World, tmp_path: Path) -> None:
    left, bottom, _, _ = world.frame.bounds
    bounds = (left + 30, bottom + 20, left + 70, bottom + 60)
    path, side = export(world, tmp_path, bounds, level=2)
    found = read_ply(path)
    assert len(found) == len(world.voxels(bounds, 2)) > 0
    assert side["level"] == 2 and side["voxel_size"] == 2.0
    x = found.positions[:, 0]
    assert x.min() >= bounds[0] - 2 and x.max() <= bounds[2] + 2


def test_an_interrupted_export_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), PlyWriter(tmp_path / "a.ply", 2, 1e-3) as writer:
        writer.write(sample())
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_pieces_make_the_same_file_as_the_whole(tmp_path: Path) -> None:
    gaussians = sample()
    for name, cuts in (("one", [0, 50]), ("many", [0, 1, 7, 7, 50])):
        with PlyWriter(tmp_path / name, 2, 1e-3) as writer:
            for low, high in itertools.pairwise(cuts):
                writer.write(gaussians.take(np.arange(low, high)))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "many").read_bytes()


def test_what_the_user_is_told(world: World, tmp_path: Path) -> None:
    with pytest.raises(RegionError, match=r"0–1 east.*639980–640090 east"):
        export(world, tmp_path, (0.0, 0.0, 1.0, 1.0))
    with pytest.raises(RegionError, match="empty"):
        export(world, tmp_path, (640010.0, 5560010.0, 640010.0, 5560020.0))
    with pytest.raises(StoreError, match="1, 2, 4, 8"):
        export(world, tmp_path, level=3)
    synthetic.start(tmp_path / "empty.zarr", (0, 64), (0, 64))
    with pytest.raises(StoreError, match="--resume"):
        export(synthetic.open_world(tmp_path / "empty.zarr"), tmp_path)
    path, side = write_ply(tmp_path / "a.ply", sample(), 1e-3)
    with pytest.raises(MissingFileError):
        read_ply(tmp_path / "none.ply")
    side.unlink()
    with pytest.raises(MissingCrsError):
        read_ply(path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match="49 of 50"):
        read_ply(path)


def test_encoding_is_fast_enough_to_stream() -> None:
    assert encode(sample(1000, 0), 1e-3).dtype.itemsize == 17 * 4 + 1
