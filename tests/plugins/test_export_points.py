"""The surface of a world as LAZ and COPC."""

from __future__ import annotations

import builtins
from collections import Counter
from pathlib import Path

import laspy
import numpy as np
import pytest

from earthgen.errors import PluginError
from earthgen.progress import Progress
from earthgen.world.world import World
from earthgen_points.copc import CopcExporter, depth_of, levels_of
from earthgen_points.laz import LazExporter
from earthgen_points.records import CopcOptions, PointOptions, asprs_classes
from geo_io.legend import classes, codes
from tests.helpers import mapped_place as place


def write(exporter, world: World, out: Path, bounds=None) -> Path:
    out.mkdir(exist_ok=True)
    (path,) = exporter.export(world, out, bounds=bounds, level=1, progress=Progress())
    assert [each.name for each in out.iterdir()] == [path.name]  # nothing temporary is left
    return path


@pytest.fixture(scope="module")
def laz(mapped_world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(LazExporter(), mapped_world, tmp_path_factory.mktemp("laz"))


@pytest.fixture(scope="module")
def copc(mapped_world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = CopcOptions(points_per_node=1000)
    return write(CopcExporter(options), mapped_world, tmp_path_factory.mktemp("copc"))


def test_points_are_the_gaussians(laz: Path, mapped_world: World) -> None:
    cloud, world = laspy.read(laz), mapped_world.gaussians()
    assert cloud.header.version == laspy.header.Version(1, 4) and cloud.header.point_format.id == 7
    assert len(cloud.points) == mapped_world.counts["voxels"]
    read = np.asarray(cloud.xyz)
    read = read[np.lexsort(read.T.round(3))]
    wanted = world.positions[np.lexsort(world.positions.T.round(3))]
    np.testing.assert_allclose(read, wanted, atol=1e-3)
    crs = cloud.header.parse_crs()
    assert [part.to_epsg() for part in crs.sub_crs_list] == [32632, 7837]
    assert cloud.header.creation_date.isoformat() == "2026-11-30"


def test_classes_colours_and_objects(laz: Path) -> None:
    cloud = laspy.read(laz)
    code, semantic = np.asarray(cloud.classification), np.asarray(cloud.user_data)
    # What lies on the ground; plants of the place are higher than 2 m.
    assert set(np.unique(code)) == {2, 5, 6, 9, 11}
    assert (code[semantic == codes()["lake"]] == 9).all()
    assert ((code == 6) == (semantic == codes()["building"])).all()
    numbers = set(np.unique(cloud["object"]).tolist()) - {0}
    assert len(numbers) == len(place.HOUSES) + 1 + len(place.TREES) + 1
    assert 4003 in numbers  # the shed
    assert (np.asarray(cloud["object"])[np.isin(code, (2, 9, 11))] == 0).all()
    road = semantic == codes()["road"]
    rgb = np.stack([cloud.red, cloud.green, cloud.blue], axis=1)[road] // 257
    colour = next(land.rgb for land in classes() if land.name == "road")
    assert np.abs(rgb.astype(int) - colour).max() <= 1


def test_every_class_has_a_code() -> None:
    semantic = np.arange(26, dtype=np.uint8)
    ground = asprs_classes(semantic, np.zeros(26, np.uint32), np.zeros(26))
    assert ground[0] == 1 and not set(ground[1:].tolist()) & {0, 1, 3, 4, 5}
    plant = np.full(3, codes()["broadleaf_forest"], np.uint8)
    assert asprs_classes(plant, np.ones(3, np.uint32), np.array([0.2, 1.0, 9.0])).tolist() == [
        3,
        4,
        5,
    ]


def test_copc_has_the_same_points_in_an_octree(laz: Path, copc: Path) -> None:
    flat = laspy.read(laz)
    with laspy.CopcReader.open(copc) as reader:
        assert reader.header.point_count == len(flat.points)
        every = reader.query()
        by_level = [len(reader.query(level=level)) for level in range(3)]
        entries = reader.root_page.entries
        info = reader.copc_info
    assert len(entries) > 10 and all(entry.point_count >= 0 for entry in entries.values())
    assert sum(by_level) == len(flat.points) and 700 < by_level[0] < 1300  # about 1000 a node
    for name in ("X", "Y", "Z", "classification", "user_data", "object", "red"):
        first, second = (np.sort(np.asarray(cloud[name])) for cloud in (flat, every))
        assert (first == second).all(), name
    centre, half = np.asarray(info.center), info.halfsize
    assert (np.abs(np.asarray(flat.xyz) - centre) <= half).all()
    assert laspy.read(copc).header.parse_crs().sub_crs_list[0].to_epsg() == 32632


def test_nodes_hold_their_points(copc: Path) -> None:
    with laspy.CopcReader.open(copc) as reader:
        info, header = reader.copc_info, reader.header
        corner = np.asarray(info.center) - info.halfsize
        west, south, east, north = place.frame().bounds
        bounds = laspy.copc.Bounds(
            mins=np.array([west, south]), maxs=np.array([west + 30, south + 30])
        )
        part = reader.query(bounds=bounds)
    assert len(part) > 900 and part.x.max() <= west + 30 and part.y.max() <= south + 30
    assert (
        (corner[:2] <= (west, south)).all() and header.maxs[0] <= east and header.maxs[1] <= north
    )


def test_the_same_bytes_again(laz: Path, copc: Path, mapped_world: World, tmp_path: Path) -> None:
    assert write(LazExporter(), mapped_world, tmp_path / "a").read_bytes() == laz.read_bytes()
    again = write(CopcExporter(CopcOptions(points_per_node=1000)), mapped_world, tmp_path / "b")
    assert again.read_bytes() == copc.read_bytes()


def test_bounds_and_tops(mapped_world: World, tmp_path: Path) -> None:
    w, s = place.WEST, place.SOUTH
    bounds = (w + 64, s, w + 84, s + 20)
    whole = laspy.read(write(LazExporter(), mapped_world, tmp_path / "a", bounds))
    xy = np.asarray(whole.xyz)[:, :2]
    assert (xy >= bounds[:2]).all() and (xy <= bounds[2:]).all()
    options = PointOptions(walls=False)
    tops = laspy.read(write(LazExporter(options), mapped_world, tmp_path / "b", bounds))
    assert len(tops.points) == 400  # one for each column
    assert Counter(np.asarray(tops.classification).tolist())[6] == 160


def test_levels_are_shares_of_all_points() -> None:
    assert [depth_of(count, 1000) for count in (1, 1000, 1001, 5000, 5001)] == [0, 0, 1, 1, 2]
    xyz = np.random.default_rng(1).uniform(0, 1000, (20_000, 3))
    levels = levels_of(xyz, 20_000, 2, 1000)
    assert np.bincount(levels)[:2] == pytest.approx([1000, 4000], rel=0.1)
    again = levels_of(xyz[::-1], 20_000, 2, 1000)
    assert (again[::-1] == levels).all()


@pytest.mark.parametrize(
    ("module", "exporter"), [("laspy", LazExporter), ("copclib", CopcExporter)]
)
def test_without_the_libraries(
    module: str, exporter, mapped_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def missing(name: str, *rest, **more):
        if name == module:
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(PluginError, match=r"earthgen\[points\]"):
        exporter().export(mapped_world, tmp_path, bounds=None, level=1, progress=Progress())
    assert list(tmp_path.iterdir()) == []
