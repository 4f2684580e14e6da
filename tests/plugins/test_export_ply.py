"""Gaussians, and their way into PLY and back."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import gsply
import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from earthgen.errors import SplatError, StoreError
from earthgen.progress import Progress
from earthgen.splats import Gaussians, from_voxels
from earthgen.splats.ply import (
    PlyWriter,
    encode,
    exponential,
    logistic,
    logit,
    read_ply,
    read_records,
    restore,
    write_ply,
)
from earthgen.splats.spz import SpzWriter
from earthgen.voxels.splat_math import disc_normals
from earthgen.voxels.voxels import Splats, Voxels
from earthgen.world.world import World
from earthgen_ply.exporter import PlyExporter, PlyOptions, SpzExporter
from geo_io.errors import FrameError, InputError, MissingCrsError, MissingFileError, RegionError
from geo_io.frame import Frame
from tests.helpers import synthetic


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return synthetic.make(
        tmp_path_factory.mktemp("ply") / "world.zarr", (-20, 90), (5, 80), degree=1
    )


def export(
    world: World, out: Path, bounds=None, level: int = 1, layout="exact", up="z"
) -> tuple[Path, dict]:
    exporter = PlyExporter(PlyOptions(layout=layout, up=up))
    path, side = exporter.export(world, out, bounds=bounds, level=level, progress=Progress())
    return path, json.loads(side.read_text("utf-8"))


SMALL = (640000.0, 5560010.0, 640040.0, 5560050.0)
"""A part of the world."""


def sample(n: int = 50, degree: int = 2) -> Gaussians:
    rng = np.random.default_rng(3)
    turn = rng.normal(size=(n, 4))
    turn /= np.linalg.norm(turn, axis=1, keepdims=True)
    return Gaussians(
        (640000.5, 5560000.25, 411.0),
        "EPSG:32632",
        "EPSG:7837",
        rng.normal(0, 300, (n, 3)).astype(np.float32),
        rng.uniform(0.05, 3, (n, 2)).astype(np.float32),
        turn.astype(np.float32),
        np.linspace(0, 1, n).astype(np.float32),
        rng.normal(size=(n, (degree + 1) ** 2, 3)).astype(np.float32),
        rng.integers(1, 26, n).astype(np.uint8),
    )


def assert_equal_bits(after: Gaussians, before: Gaussians) -> None:
    for name in ("means", "scales", "rotations", "opacities", "sh", "semantic"):
        one, other = getattr(after, name), getattr(before, name)
        assert one.dtype == other.dtype and one.shape == other.shape, name
        assert np.array_equal(one.view(np.uint8), other.view(np.uint8)), name


def test_means_are_voxel_centres_on_the_ground_plus_offset() -> None:
    frame = Frame("EPSG:32632", 0.5, (1_280_000, 1_280_002), (11_120_000, 11_120_003))
    xyz = np.array([[1_280_001, 11_120_000, -1], [1_280_000, 11_120_002, 4]], np.int32)
    ground = np.array(
        [[100.25, 0], [0, 0], [0, 300.5]], np.float32
    )  # first row is the northernmost
    one = np.ones(2, np.uint8)
    offset = np.array([[0.1, -0.2, 0.25], [0, 0, 0]], np.float32)
    splats = Splats(
        offset,
        np.ones((2, 2), np.float32),
        np.array([[1, 0, 0, 0], [0, 2, 0, 0]], np.float32),
        np.ones(2, np.float32),
        np.zeros((2, 1, 3), np.float32),
    )
    found = from_voxels(Voxels(frame, xyz, one, one, one.astype(np.uint32)), splats, ground)
    assert found.anchor == (640000.0, 5560000.0, 0.0)
    expected = [
        [640000.75 + 0.1, 5560000.25 - 0.2, 300.5 - 0.25 + 0.25],
        [640000.25, 5560001.25, 100.25 + 2.25],
    ]
    np.testing.assert_allclose(found.positions, expected, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found.rotations, axis=1), 1, atol=1e-6)
    moved = from_voxels(
        Voxels(frame, xyz, one, one, one.astype(np.uint32)),
        splats,
        ground,
        (640001.0, 5560001.0, 300.0),
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
    assert_equal_bits(after, before)
    assert (after.anchor, after.crs, after.vertical_crs) == (
        before.anchor,
        before.crs,
        before.vertical_crs,
    )
    assert json.loads(side.read_text("utf-8"))["seed"] == 4


def by_trimesh(path: Path) -> dict[str, np.ndarray]:
    """The vertices as trimesh reads them, by field."""
    data = trimesh.load(path).metadata["_ply_raw"]["vertex"]["data"]
    return {name: data[name].reshape(-1) for name in data.dtype.names}


def test_fields_are_those_of_splat_viewers_and_read_alike_by_trimesh(tmp_path: Path) -> None:
    before = sample(degree=1)
    path, _ = write_ply(tmp_path / "a.ply", before, 1e-3)
    vertex = by_trimesh(path)
    names = list(vertex)
    assert names == [
        "x",
        "y",
        "z",
        "nx",
        "ny",
        "nz",
        "f_dc_0",
        "f_dc_1",
        "f_dc_2",
        *(f"f_rest_{i}" for i in range(9)),
        "opacity",
        "scale_0",
        "scale_1",
        "scale_2",
        "rot_0",
        "rot_1",
        "rot_2",
        "rot_3",
        "semantic",
        "bits_opacity",
        "bits_scale_0",
        "bits_scale_1",
    ]
    # The reference implementation counts fields by the beginnings of their names.
    assert [
        sum(name.startswith(part) for name in names) for part in ("scale_", "rot", "f_rest_")
    ] == [3, 4, 9]
    np.testing.assert_allclose(np.exp(vertex["scale_2"]), 1e-3, rtol=1e-6)
    assert np.isfinite(vertex["opacity"]).all()  # 0 and 1 are among the opacities
    opacity = 1 / (1 + np.exp(-vertex["opacity"].astype(np.float64)))
    np.testing.assert_allclose(opacity, before.opacities, atol=1.5e-6)
    # f_rest goes by channel, then by coefficient.
    np.testing.assert_array_equal(vertex["f_rest_1"], before.sh[:, 2, 0])
    np.testing.assert_array_equal(vertex["f_rest_3"], before.sh[:, 1, 1])
    discs = disc_normals(before.rotations)
    np.testing.assert_allclose(
        np.stack([vertex["nx"], vertex["ny"], vertex["nz"]], 1), discs, atol=1e-6
    )


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
    assert (
        side["axes"] == {"x": "east", "y": "north", "z": "up"}
        and side["ground"] == "generated, not measured"
    )
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


def test_a_record_is_as_small_as_it_can_be() -> None:
    assert encode(sample(1000, 0), 1e-3).dtype.itemsize == 17 * 4 + 4


POSITIVE = st.floats(min_value=2.0**-149, max_value=float(np.finfo(np.float32).max), width=32)
SHARE = st.floats(min_value=0, max_value=1, width=32).map(abs)  # without a minus before 0
TRICKY_SCALES = [
    2.0**-149,
    2.0**-126,
    1e-38,
    1e-20,
    0.3,
    1 - 2**-24,
    1,
    1 + 2**-23,
    np.e,
    1e20,
    np.finfo(np.float32).max,
]
TRICKY_SHARES = [
    0,
    2.0**-149,
    2.0**-126,
    1e-30,
    1e-7,
    0.1,
    0.5 - 2**-25,
    0.5,
    0.5 + 2**-24,
    1 - 2**-23,
    1 - 2**-24,
    1,
]


def flat(scales: np.ndarray, opacities: np.ndarray, degree: int = 0) -> Gaussians:
    n = len(opacities)
    return Gaussians(
        (1.0, 2.0, 3.0),
        "EPSG:32632",
        "unknown",
        np.zeros((n, 3), np.float32),
        scales.astype(np.float32),
        np.tile(np.float32([1, 0, 0, 0]), (n, 1)),
        opacities.astype(np.float32),
        np.zeros((n, (degree + 1) ** 2, 3), np.float32),
        np.zeros(n, np.uint8),
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(POSITIVE, POSITIVE, SHARE), min_size=1, max_size=30))
def test_any_numbers_come_back_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, rows: list
) -> None:
    values = np.array(rows, np.float32)
    before = flat(values[:, :2], values[:, 2])
    path, _ = write_ply(tmp_path_factory.mktemp("bits") / "a.ply", before, 1e-3)
    assert_equal_bits(read_ply(path), before)


def test_tricky_numbers_and_whole_ranges_of_neighbours_come_back_to_the_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    scales = np.concatenate(
        [
            np.float32(TRICKY_SCALES),
            rng.integers(1, 0x7F800000, 200_000, np.uint32).view(np.float32),
        ]
    )
    shares = np.concatenate(
        [
            np.float32(TRICKY_SHARES),
            rng.integers(1, 0x3F800001, 200_000, np.uint32).view(np.float32),
        ]
    )
    for start in (0x3EB00000, 0x3F7FF000, 0x3DCCCCCC, 1):  # neighbours near 0.34, 1, 0.1 and 0
        near = (np.arange(4096, dtype=np.uint32) + np.uint32(start)).view(np.float32)
        scales, shares = np.concatenate([scales, near]), np.concatenate([shares, near[near <= 1]])
    n = min(len(scales), len(shares))
    before = flat(np.stack([scales[:n], scales[:n][::-1]], axis=1), shares[:n])
    path, _ = write_ply(tmp_path / "a.ply", before, 1e-3)
    assert_equal_bits(read_ply(path), before)
    stored = read_records(path)
    assert all(np.isfinite(stored[name]).all() for name in ("opacity", "scale_0", "scale_1"))
    # Without the last bits many would not come back: the test above can fail.
    assert (exponential(stored["scale_0"]) != before.scales[:, 0]).mean() > 0.5


def test_a_world_comes_back_to_the_bit(world: World, tmp_path: Path) -> None:
    whole = world.gaussians()
    path, _ = write_ply(tmp_path / "a.ply", whole, 1e-3)
    assert_equal_bits(read_ply(path), whole)


def test_the_last_bits_find_their_number_where_another_exp_differs() -> None:
    numbers = np.float32([1e-40, 0.1, 0.7, 1.0, 3.3, 1e38])
    bits = (numbers.view(np.uint32) & 255).astype(np.uint8)
    for units in (-127, -1, 0, 1, 127):
        near = (numbers.view(np.int32) + np.int32(units)).view(np.float32)
        np.testing.assert_array_equal(restore(near, bits), numbers)


def test_logits_are_finite_and_come_near_enough() -> None:
    shares = np.float32(TRICKY_SHARES)
    stored = logit(shares).astype(np.float32)
    assert np.isfinite(stored).all() and (np.diff(stored) >= 0).all()
    np.testing.assert_allclose(logistic(stored), shares, rtol=1e-5, atol=1e-44)
    with np.errstate(over="ignore"):  # as viewers compute it, in float32
        assert (1 / (1 + np.exp(-stored)))[[0, -1]].tolist() == [0, 1]


def test_a_file_edited_by_others_stays_near_and_in_range(tmp_path: Path) -> None:
    path, _ = write_ply(tmp_path / "a.ply", flat(np.ones((1, 2)), np.array([1 - 2**-24])), 1e-3)
    data = np.array(read_records(path))
    data["opacity"], data["bits_opacity"] = 18, 7
    data["scale_0"] = np.log(2)
    put(path, data)
    after = read_ply(path)
    assert after.opacities == 1  # and not above
    np.testing.assert_allclose(after.scales[0, 0], 2, rtol=2e-5)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    for scales, opacity, what in (
        (0.0, 0.5, "scales that are not above 0"),
        (1.0, np.nan, "NaN or infinity among"),
    ):
        with pytest.raises(SplatError, match=what):
            write_ply(tmp_path / "a.ply", flat(np.full((3, 2), scales), np.full(3, opacity)), 1e-3)
    assert list(tmp_path.iterdir()) == []


def foreign(gaussians: Gaussians, leave: tuple[str, ...] = (), **columns: np.ndarray) -> np.ndarray:
    """Records as another program writes them: without what is only ours."""
    own = encode(gaussians, 1e-3)
    keep = [
        name
        for name in own.dtype.names
        if name != "semantic" and name[:5] != "bits_" and name not in leave
    ]
    fields = [(name, columns[name].dtype.str if name in columns else "<f4") for name in keep]
    fields += [(name, value.dtype.str) for name, value in columns.items() if name not in keep]
    records = np.empty(len(own), fields)
    for name in records.dtype.names:
        records[name] = columns[name] if name in columns else own[name]
    return records


TYPES = {"f4": "float", "f8": "double", "u1": "uchar", "i4": "int", "u4": "uint"}
LITTLE, BIG, TEXT = "binary_little_endian", "binary_big_endian", "ascii"


def element(name: str, records: np.ndarray) -> bytes:
    kinds = [(field, TYPES[records[field].dtype.str[1:]]) for field in records.dtype.names]
    lines = [
        f"element {name} {len(records)}",
        *(f"property {kind} {field}" for field, kind in kinds),
    ]
    return ("\n".join(lines) + "\n").encode()


def body(records: np.ndarray, form: str) -> bytes:
    if form == TEXT:
        rows = (" ".join(repr(value.item()) for value in row) for row in records)
        return "".join(f"{row}\n" for row in rows).encode()
    return records.astype(records.dtype.newbyteorder("<" if form == LITTLE else ">")).tobytes()


def put(path: Path, records: np.ndarray, form: str = LITTLE, name: str = "vertex") -> Path:
    """Write records as the one element of a PLY."""
    head = f"ply\nformat {form} 1.0\n".encode() + element(name, records) + b"end_header\n"
    path.write_bytes(head + body(records, form))
    return path


@pytest.mark.parametrize("how", [TEXT, BIG, LITTLE])
@pytest.mark.parametrize("leave", [(), ("nx", "ny", "nz"), ("scale_2",)], ids=str)
def test_other_formats_are_read(tmp_path: Path, how: str, leave: tuple[str, ...]) -> None:
    before = sample(degree=3)
    path = put(tmp_path / "a.ply", foreign(before, leave), how)
    with pytest.raises(MissingCrsError, match="give crs and anchor"):
        read_ply(path)
    after = read_ply(path, crs="EPSG:25832", vertical_crs="EPSG:7837", anchor=(5.0, 6.0, 7.0))
    assert (after.anchor, after.crs, after.vertical_crs) == (
        (5.0, 6.0, 7.0),
        "EPSG:25832",
        "EPSG:7837",
    )
    np.testing.assert_allclose(after.means, before.means, rtol=1e-6)
    np.testing.assert_allclose(after.sh, before.sh, rtol=1e-6)
    np.testing.assert_allclose(after.scales, before.scales, rtol=1e-6)
    np.testing.assert_allclose(after.opacities, before.opacities, atol=1e-6)
    assert (after.semantic == 0).all() and after.check() is after


def test_the_shortest_of_three_scales_is_the_normal(tmp_path: Path) -> None:
    """Each Gaussian's covariance is the same before and after its axes are renamed."""
    rng = np.random.default_rng(8)
    n = 60
    three = np.float32([1, 2, 1e-3])[rng.permuted(np.tile([0, 1, 2], (n, 1)), axis=1)]
    turn = Rotation.random(n, random_state=4)
    quaternion = (turn.as_quat()[:, [3, 0, 1, 2]] * rng.uniform(0.2, 5, (n, 1))).astype(
        np.float32
    )  # as trained: any length
    columns = {f"scale_{i}": np.log(three[:, i]) for i in range(3)} | {
        f"rot_{i}": quaternion[:, i] for i in range(4)
    }
    after = read_ply(put(tmp_path / "a.ply", foreign(sample(n), **columns)), crs="")
    after.check()
    assert set(three.argmin(axis=1)) == {0, 1, 2}

    def covariance(rotation: Rotation, scales: np.ndarray) -> np.ndarray:
        axes = rotation.as_matrix() * scales[:, None, :]
        return axes @ axes.transpose(0, 2, 1)

    found = covariance(
        Rotation.from_quat(after.rotations[:, [1, 2, 3, 0]]), np.pad(after.scales, ((0, 0), (0, 1)))
    )
    np.testing.assert_allclose(
        found, covariance(turn, three), atol=4e-6
    )  # float32 quaternions; 1e-6 is the thin axis
    assert after.crs == "" and after.anchor == (0, 0, 0)


def test_thick_gaussians_are_refused_or_flattened(tmp_path: Path) -> None:
    thick = np.log(np.linspace(0.001, 1, 50, dtype=np.float32))
    path = put(tmp_path / "a.ply", foreign(flat(np.ones((50, 2)), np.ones(50)), scale_2=thick))
    with pytest.raises(InputError, match=r"45 of 50 Gaussians .* are not flat.*flatten=True"):
        read_ply(path, crs="")
    np.testing.assert_allclose(read_ply(path, crs="", flatten=True).scales, 1, rtol=1e-6)


def test_coordinates_in_float64_get_an_anchor_of_their_own(tmp_path: Path) -> None:
    before = sample()
    utm = {axis: before.positions[:, i] for i, axis in enumerate("xyz")}
    after = read_ply(put(tmp_path / "a.ply", foreign(before, **utm)), crs="EPSG:32632")
    np.testing.assert_allclose(after.positions, before.positions, atol=1e-4)
    assert np.abs(after.means).max() < 2000 and all(value == round(value) for value in after.anchor)
    # In float32 they are as coarse as the file has them, and what follows does not lose more.
    short = {axis: column.astype(np.float32) for axis, column in utm.items()}
    after = read_ply(put(tmp_path / "a.ply", foreign(before, **short)), crs="EPSG:32632")
    assert np.abs(after.means).max() < 2000
    np.testing.assert_array_equal(
        after.positions, np.stack([short[axis] for axis in "xyz"], axis=1)
    )


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    points = np.zeros(
        4, [("x", "f4"), ("y", "f4"), ("z", "f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
    )
    with pytest.raises(
        InputError, match=r"lacks the fields f_dc_0.*opacity, scale_0.*point cloud"
    ) as caught:
        read_ply(put(tmp_path / "a.ply", points), crs="")
    assert (
        caught.value.exit_code == 3
        and "nx" not in str(caught.value)
        and "bits" not in str(caught.value)
    )
    with pytest.raises(InputError, match="lacks the fields rot_3 of"):
        read_ply(put(tmp_path / "a.ply", foreign(sample(), ("rot_3",))), crs="")
    with pytest.raises(InputError, match="has 23 fields f_rest_"):
        read_ply(put(tmp_path / "a.ply", foreign(sample(), ("f_rest_4",))), crs="")
    with pytest.raises(InputError, match="compressed"):
        read_ply(put(tmp_path / "a.ply", np.zeros(2, [("packed_position", "u4")])), crs="")
    put(tmp_path / "a.ply", points, name="camera")
    with pytest.raises(InputError, match="no vertices, only camera"):
        read_ply(tmp_path / "a.ply", crs="")
    for text in (
        b"solid stl",
        b"ply\nformat binary_little_endian 1.0\nelement vertex x\nend_header\n",
        b"ply\n",
        b"",
    ):
        (tmp_path / "a.ply").write_bytes(text)
        with pytest.raises(InputError):
            read_ply(tmp_path / "a.ply", crs="")
    (tmp_path / "a.ply").write_bytes(
        put(tmp_path / "a.ply", foreign(sample()), TEXT).read_bytes()[:-40]
    )
    with pytest.raises(InputError):
        read_ply(tmp_path / "a.ply", crs="")
    path, side = write_ply(tmp_path / "b.ply", sample(), 1e-3)
    side.write_text('{"anchor": [1, 2], "crs": "EPSG:32632", "vertical_crs": "unknown"}')
    with pytest.raises(InputError, match="anchor and CRS"):
        read_ply(path)


def test_no_gaussians_are_a_file_too(tmp_path: Path) -> None:
    path, _ = write_ply(
        tmp_path / "a.ply", Gaussians.empty((1.0, 2.0, 3.0), "EPSG:32632", degree=1), 1e-3
    )
    assert len(read_ply(path)) == 0 and read_ply(path).degree == 1


@pytest.mark.parametrize("degree", range(4))
def test_gsply_reads_our_fields_alike(tmp_path: Path, degree: int) -> None:
    """gsply accepts exactly the fields of the reference implementation, without our four bytes."""
    before = sample(degree=degree)
    write_ply(tmp_path / "own.ply", before, 1e-3)
    own = read_records(tmp_path / "own.ply")
    path = put(tmp_path / "a.ply", foreign(before))
    read = gsply.plyread(path)
    np.testing.assert_array_equal(read.means, before.means)
    np.testing.assert_array_equal(read.quats, before.rotations)
    np.testing.assert_array_equal(read.sh0, before.sh[:, 0])
    if degree:
        np.testing.assert_array_equal(read.shN, before.sh[:, 1:])
    np.testing.assert_array_equal(read.opacities, own["opacity"])
    for axis in range(3):
        np.testing.assert_array_equal(read.scales[:, axis], own[f"scale_{axis}"])


@pytest.mark.parametrize("degree", range(4))
def test_files_of_gsply_are_read(tmp_path: Path, degree: int) -> None:
    before = sample(degree=degree)
    logs = np.log(np.column_stack([before.scales, np.full(len(before), 1e-3, np.float32)]))
    gsply.plywrite(
        tmp_path / "a.ply",
        before.means,
        scales=logs,
        quats=before.rotations,
        opacities=logit(before.opacities).astype(np.float32),
        sh0=np.ascontiguousarray(before.sh[:, 0]),
        shN=np.ascontiguousarray(before.sh[:, 1:]) if degree else None,
    )
    after = read_ply(tmp_path / "a.ply", crs="EPSG:32632", anchor=before.anchor)
    assert after.degree == degree
    np.testing.assert_array_equal(after.means, before.means)
    np.testing.assert_array_equal(after.sh, before.sh)
    np.testing.assert_allclose(after.scales, before.scales, rtol=1e-6)  # logarithms in float32
    np.testing.assert_allclose(after.opacities, before.opacities, atol=1e-6)
    np.testing.assert_allclose(after.rotations, before.rotations, atol=1e-6)


CAMERA = np.zeros(3, [("k1", "<f4"), ("id", "u1")])
FACES = "element face 2\nproperty list uchar int vertex_indices\n"


@pytest.mark.parametrize("form", [TEXT, BIG, LITTLE])
def test_other_elements_are_skipped(tmp_path: Path, form: str) -> None:
    records = foreign(sample(3))
    head = f"ply\ncomment über\nobj_info x\nformat {form} 1.0\n".encode()
    head += element("camera", CAMERA) + element("vertex", records) + FACES.encode()
    path = tmp_path / "a.ply"
    path.write_bytes(head + b"end_header\n" + body(CAMERA, form) + body(records, form) + b"3 0 1 2")
    np.testing.assert_array_equal(read_records(path), records)
    path.write_bytes(head.replace(b"\n", b"\r\n") + b"end_header\r\n" + body(CAMERA, form))
    with pytest.raises(InputError, match="ends after 0 of 3 Gaussians"):
        read_records(path)


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ("element vertex 1\nproperty float x", "no format"),
        ("format binary_pdp 1.0\nelement vertex 1\nproperty float x", "line 'format binary_pdp"),
        ("format ascii 1.0\nelement vertex -1\nproperty float x", "line 'element vertex -1'"),
        ("format ascii 1.0\nproperty float x", "line 'property float x'"),
        ("format ascii 1.0\nelement vertex 1\nproperty half x", "line 'property half x'"),
        ("format ascii 1.0\nelement vertex 1", "no properties"),
        ("format ascii 1.0\nelement vertex 1\nproperty float x\nproperty int x", "two properties"),
        ("format ascii 1.0\nelement vertex 1\nelement vertex 1", "two elements 'vertex'"),
        (f"format {LITTLE} 1.0\nelement vertex 1\nproperty list int int x", "vertices have lists"),
        (f"format {LITTLE} 1.0\n{FACES}element vertex 1\nproperty int x", "lists of 'face' stand"),
        (f"format {LITTLE} 1.0\nelement vertex {10**18}\nproperty double x", f"1 of {10**18} Gau"),
        (f"format ascii 1.0\nelement vertex {10**18}\nproperty float x", f"1 of {10**18} Gauss"),
        (f"format ascii 1.0\nelement a {10**18}\nelement vertex 1\nproperty int x", "0 of 1 Gauss"),
        ("format ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y", "columns"),
    ],
)
def test_bad_headers_are_named(tmp_path: Path, header: str, complaint: str) -> None:
    """Nothing is allocated for a count that the file has no room for."""
    path = tmp_path / "a.ply"
    path.write_bytes(f"ply\n{header}\nend_header\n".encode() + b"1.2345678")
    with pytest.raises(InputError, match=complaint):
        read_records(path)


def test_a_header_without_an_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    path.write_bytes(b"ply\nformat ascii 1.0\n" + b"comment x\n" * 200_000)
    with pytest.raises(InputError, match="does not end within"):
        read_records(path)
    with pytest.raises(InputError, match="cannot be read as PLY"):
        read_records(tmp_path)


@pytest.mark.parametrize("layout", ["plain", "inria"])
def test_gsply_reads_the_layouts_of_other_programs(
    world: World, tmp_path: Path, layout: str
) -> None:
    exact, _ = export(world, tmp_path / "exact", bounds=SMALL)
    path, side = export(world, tmp_path / layout, bounds=SMALL, layout=layout)
    before, after = read_ply(exact), read_ply(path)
    found = gsply.plyread(path)
    np.testing.assert_array_equal(found.means, before.means)
    np.testing.assert_allclose(found.quats, before.rotations, atol=1e-6)
    np.testing.assert_allclose(np.exp(found.scales[:, :2]), before.scales, rtol=1e-5)
    np.testing.assert_allclose(found.sh0, before.sh[:, 0], atol=1e-6)
    np.testing.assert_allclose(after.opacities, before.opacities, atol=1e-6)
    header = path.read_bytes().split(b"end_header\n")[0]
    record = (path.stat().st_size - len(header) - 11) / len(before)
    assert b"uchar" not in header and record == (248 if layout == "inria" else 104)  # degree 1
    assert "semantic" not in side["encoding"]


def test_y_up_is_the_same_world_turned(world: World, tmp_path: Path) -> None:
    before = read_ply(export(world, tmp_path / "z", bounds=SMALL)[0])
    path, side = export(world, tmp_path / "y", bounds=SMALL, layout="plain", up="y")
    found = gsply.plyread(path)
    east, north, up = before.means.T
    np.testing.assert_allclose(found.means, np.stack([east, up, -north], 1), atol=1e-4)
    assert side["axes"] == {"x": "east", "y": "up", "z": "south"}
    back = read_ply(path)
    np.testing.assert_allclose(back.positions, before.positions, atol=1e-3)
    np.testing.assert_allclose(
        disc_normals(back.rotations), disc_normals(before.rotations), atol=1e-3
    )
    np.testing.assert_allclose(back.sh, before.sh, atol=1e-4)


def test_gsply_reads_spz(world: World, tmp_path: Path) -> None:
    before = read_ply(export(world, tmp_path / "ply", bounds=SMALL)[0])
    path, side = SpzExporter().export(
        world, tmp_path / "spz", bounds=SMALL, level=1, progress=Progress()
    )
    found, said = gsply.read_spz(path), json.loads(side.read_text("utf-8"))
    assert said["count"] == len(found.means) == len(before)
    assert said["anchor"] == list(before.anchor) and said["axes"]["y"] == "up"
    east, north, up = before.means.T
    np.testing.assert_allclose(
        found.means, np.stack([east, up, -north], 1), atol=said["position_step"]
    )
    # Scales are steps of a sixteenth of e, colours 8 bits of a fifteenth.
    np.testing.assert_allclose(np.exp(found.scales[:, :2]), before.scales, rtol=0.04)
    np.testing.assert_allclose(found.sh0, before.sh[:, 0], atol=0.5 / 255 / 0.15 + 1e-3)
    w, x, y, z = found.quats.T
    normal = np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], 1)
    east, north, up = disc_normals(before.rotations).T
    assert (normal * np.stack([east, up, -north], 1)).sum(axis=1).min() > 0.998
    assert path.stat().st_size / len(before) < 12


def test_an_spz_that_reaches_far_has_coarser_positions(tmp_path: Path) -> None:
    far = replace(sample(), means=np.float32([[9000.0, -8000.0, 100.0]]).repeat(50, 0))
    with (
        pytest.raises(SplatError, match="bounds"),
        SpzWriter(tmp_path / "a.spz", far.anchor, 100.0) as writer,
    ):
        writer.write(far)
    assert not (tmp_path / "a.spz").exists()
    with SpzWriter(tmp_path / "a.spz", far.anchor, 9000.0) as writer:
        writer.write(far)
    step = 2.0**-writer.bits
    found = gsply.read_spz(tmp_path / "a.spz").means
    np.testing.assert_allclose(found, np.float32([[9000, 100, 8000]]).repeat(50, 0), atol=step)
    assert step < 0.005
