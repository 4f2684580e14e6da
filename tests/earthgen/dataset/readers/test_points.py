"""Point clouds: units, colours, CRSs, damaged files, and binning into columns."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import laspy
import numpy as np
import pytest

from earthgen.dataset.builders.binning import bin_points
from earthgen.dataset.builders.ground import fill_nearest, filter_ground, interpolate
from earthgen.dataset.readers.mesh_files import read_mesh_file
from earthgen.dataset.readers.points import read_points, scale_colours
from geo_io.errors import FrameError, InputError, MissingCrsError, MissingFileError, RegionError
from geo_io.frame import Frame
from geo_io.legend import codes
from tests.helpers.dataset_places import (
    CRS,
    EAST,
    NORTH,
    SIZE,
    village,
    village_points,
    write_points,
)

TABLE = {2: codes()["bare_ground"], 5: codes()["tree"], 6: codes()["building"]}
FRAME = Frame(CRS, 1.0, (EAST, EAST + SIZE), (NORTH, NORTH + SIZE), (-16, 112))


@pytest.fixture(scope="module")
def cloud() -> dict[str, np.ndarray]:
    return village_points()


@pytest.mark.parametrize("suffix", [".laz", ".las"])
def test_points_come_back(tmp_path: Path, cloud: dict[str, np.ndarray], suffix: str) -> None:
    path = write_points(
        tmp_path / f"p{suffix}", cloud["xyz"], cloud["class"], cloud["rgb"].astype(np.uint16) * 256
    )
    points = read_points([path])
    assert (
        points.crs == CRS and points.vertical_crs == "unknown" and len(points) == len(cloud["xyz"])
    )
    assert np.allclose(points.xyz, cloud["xyz"], atol=1e-3)  # stored in millimetres
    assert np.array_equal(points.classification, cloud["class"]) and np.array_equal(
        points.rgb, cloud["rgb"]
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_reads_what_its_parent_read(tmp_path: Path) -> None:
    """The threads of lazrs are not in the child: it once waited for them for ever."""
    xyz = np.array([[EAST + 1.0, NORTH + 1.0, 3.0]])
    path = write_points(tmp_path / "p.laz", xyz, np.array([2]))
    assert len(read_points([path])) == 1
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if len(read_points([path])) == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_bounds_and_several_files(tmp_path: Path, cloud: dict[str, np.ndarray]) -> None:
    west = cloud["xyz"][:, 0] < EAST + 48
    paths = [
        write_points(
            tmp_path / f"{name}.laz", cloud["xyz"][part], cloud["class"][part], cloud["rgb"][part]
        )
        for name, part in (("west", west), ("east", ~west))
    ]
    assert len(read_points(paths)) == len(west)
    few = read_points(paths, bounds=(EAST + 40, NORTH + 10, EAST + 50, NORTH + 20))
    assert len(few) == 4 * 10 * 10 and len(few.rgb) == len(few)
    assert read_points(paths, colours=False).rgb is None


def test_a_cloud_without_crs_names_the_option(tmp_path: Path, cloud: dict[str, np.ndarray]) -> None:
    path = write_points(tmp_path / "p.laz", cloud["xyz"], crs=None)
    with pytest.raises(MissingCrsError, match="--crs EPSG"):
        read_points([path])
    assert read_points([path], crs=CRS).crs == CRS
    with pytest.raises(MissingCrsError, match="not understood"):
        read_points([path], crs="EPSG:nothing")


def test_points_are_brought_into_a_metric_crs(tmp_path: Path, cloud: dict[str, np.ndarray]) -> None:
    path = write_points(tmp_path / "p.laz", cloud["xyz"])
    other = read_points([path], target="EPSG:3035")
    assert other.crs == "EPSG:3035" and not np.allclose(
        other.xyz[:, 0], cloud["xyz"][:, 0], atol=1000
    )
    assert np.allclose(other.xyz[:, 2], cloud["xyz"][:, 2], atol=1e-3)
    with pytest.raises(FrameError, match="geographic"):
        read_points([path], target="EPSG:4326")


FEET = 0.3048


def feet(cloud: dict[str, np.ndarray]) -> np.ndarray:
    """The village's points where they would lie in Oregon, everything in feet."""
    xyz = cloud["xyz"] - (EAST, NORTH, 0) + (194_000, 260_000, 0)
    return xyz / FEET


def test_feet_are_converted_where_the_crs_says_so(
    tmp_path: Path, cloud: dict[str, np.ndarray]
) -> None:
    # EPSG:2994 is in international feet, EPSG:8228 (NAVD88 height, ft) too
    path = write_points(tmp_path / "p.laz", feet(cloud), crs="EPSG:2994+8228")
    points = read_points([path], target="EPSG:2993")
    assert np.allclose(points.xyz[:, 2], cloud["xyz"][:, 2], atol=2e-3)
    assert np.allclose(points.xyz[:, 0] - 194_000, cloud["xyz"][:, 0] - EAST, atol=0.01)
    assert (
        read_points([path]).crs == "EPSG:32610"
    )  # no metric CRS was given: the UTM zone of the place


def test_feet_of_an_unknown_height_are_asked_for(
    tmp_path: Path, cloud: dict[str, np.ndarray]
) -> None:
    path = write_points(tmp_path / "p.laz", feet(cloud), crs="EPSG:2994")
    with pytest.raises(InputError, match="--unit m, ft or us-ft"):
        read_points([path], target="EPSG:2993")
    by_hand = read_points([path], target="EPSG:2993", unit="ft")
    assert np.allclose(by_hand.xyz[:, 2], cloud["xyz"][:, 2], atol=2e-3)
    kept = read_points([path], target="EPSG:2993", unit="m")
    assert np.allclose(kept.xyz[:, 2], cloud["xyz"][:, 2] / FEET, atol=2e-3)
    with pytest.raises(InputError, match="'yards'"):
        read_points([path], unit="yards")


def test_damage_has_a_name(tmp_path: Path, cloud: dict[str, np.ndarray]) -> None:
    whole = write_points(
        tmp_path / "p.laz", cloud["xyz"], cloud["class"], cloud["rgb"]
    ).read_bytes()
    for share in (0.9, 0.5, 0.01):
        (tmp_path / "cut.laz").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(InputError, match="fetch it again"):
            read_points([tmp_path / "cut.laz"])
    plain = write_points(tmp_path / "p.las", cloud["xyz"]).read_bytes()
    (tmp_path / "cut.las").write_bytes(plain[:-1000])
    with pytest.raises(InputError):
        read_points([tmp_path / "cut.las"])
    (tmp_path / "text.laz").write_text("no points")
    with pytest.raises(InputError, match="not a LAS or LAZ file"):
        read_points([tmp_path / "text.laz"])
    with pytest.raises(MissingFileError):
        read_points([tmp_path / "none.laz"])
    with pytest.raises(InputError, match="no point cloud was given"):
        read_points([])


def test_what_is_not_installed_is_named(
    tmp_path: Path, cloud: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_points(tmp_path / "p.laz", cloud["xyz"])
    monkeypatch.setattr(laspy.LazBackend, "detect_available", classmethod(lambda cls: ()))
    with pytest.raises(InputError, match=r"lazrs.*pip install 'earthgen\[dataset\]'"):
        read_points([path])
    monkeypatch.setitem(sys.modules, "laspy", None)
    with pytest.raises(InputError, match="laspy, which is not installed"):
        read_points([path])
    monkeypatch.setitem(sys.modules, "trimesh", None)
    (tmp_path / "m.obj").write_text("v 0 0 0")
    with pytest.raises(InputError, match="trimesh, which is not installed"):
        read_mesh_file(tmp_path / "m.obj", None)


def test_colours_of_any_depth_become_8_bits() -> None:
    eight = np.arange(240, dtype=np.uint16).reshape(80, 3)
    assert np.array_equal(scale_colours(eight), eight)
    assert np.array_equal(scale_colours(eight * 256), eight)
    assert np.array_equal(scale_colours(eight * 257), eight)
    bright = np.linspace(1001, 65535, 300).astype(np.uint16).reshape(100, 3)
    assert np.array_equal(scale_colours(bright), bright // 256)
    assert np.array_equal(scale_colours(eight * 257 + 1, bits=16), (eight * 257 + 1) // 256)
    twelve = np.linspace(100, 4000, 3000).astype(np.uint16).reshape(1000, 3)
    stretched = scale_colours(twelve)
    assert stretched.min() == 0 and stretched.max() == 255
    assert np.all(np.diff(stretched.ravel().astype(int)) >= 0)


def test_colours_that_are_not_what_was_said() -> None:
    with pytest.raises(InputError, match="more than an 8-bit colour"):
        scale_colours(np.array([[0, 100, 300]], np.uint16), bits=8, name="p.laz")
    with pytest.raises(InputError, match="12 bits"):
        scale_colours(np.zeros((1, 3), np.uint16), bits=12)


def test_columns_of_a_classified_cloud(tmp_path: Path, cloud: dict[str, np.ndarray]) -> None:
    points = read_points(
        [write_points(tmp_path / "p.laz", cloud["xyz"], cloud["class"], cloud["rgb"])]
    )
    columns = bin_points(points, FRAME, TABLE)
    made = village()
    bare = (made["built"] == 0) & (made["canopy"] == 0)
    assert np.allclose(columns.ground[bare], made["ground"][bare], atol=0.01)
    # under houses the ground is bridged: a plane, so linearly and exactly
    assert np.allclose(columns.ground, made["ground"], atol=0.05)
    assert np.allclose(
        columns.top, made["ground"] + np.maximum(made["built"], made["canopy"]), atol=0.01
    )
    assert np.array_equal(columns.code == codes()["building"], made["built"] > 0)
    assert columns.valid.all() and columns.measured.all() and columns.spacing == pytest.approx(0.5)
    assert np.array_equal(columns.image, made["image"]) and columns.image_known.all()


def test_sparse_points_fill_their_neighbourhood_and_no_more(
    tmp_path: Path, cloud: dict[str, np.ndarray]
) -> None:
    keep = np.random.default_rng(1).random(len(cloud["xyz"])) < 0.07
    keep &= ~((cloud["xyz"][:, 0] > EAST + 50) & (cloud["xyz"][:, 1] > NORTH + 60))
    points = read_points(
        [write_points(tmp_path / "p.laz", cloud["xyz"][keep], cloud["class"][keep])]
    )
    columns = bin_points(points, FRAME, TABLE)
    assert columns.measured.mean() < 0.3 and columns.spacing == pytest.approx(1.9, abs=0.3)
    assert columns.valid[:, :45].mean() > 0.98
    assert not columns.valid[:20, 70:].any()
    assert not columns.image_known.any()


def test_points_without_classes_need_a_filter(tmp_path: Path, cloud: dict[str, np.ndarray]) -> None:
    points = read_points([write_points(tmp_path / "p.laz", cloud["xyz"])])
    with pytest.raises(InputError, match="ground = 'filter'"):
        bin_points(points, FRAME, TABLE)
    columns = bin_points(points, FRAME, TABLE, ground="filter")
    made = village()
    assert np.abs(columns.ground - made["ground"]).max() < 0.3
    given = bin_points(points, FRAME, TABLE, ground=made["ground"])
    assert np.array_equal(given.ground, made["ground"])


def test_noise_and_wires_are_no_surface(tmp_path: Path, cloud: dict[str, np.ndarray]) -> None:
    high = cloud["xyz"][:50] + np.array((0, 0, 80))
    xyz = np.concatenate([cloud["xyz"], high])
    kind = np.concatenate([cloud["class"], np.repeat(np.array([7, 14], np.uint8), 25)])
    points = read_points([write_points(tmp_path / "p.laz", xyz, kind)])
    assert bin_points(points, FRAME, TABLE).top.max() < 130
    assert bin_points(points, FRAME, TABLE, dropped=(7,)).top.max() > 170


def test_moved_colours(tmp_path: Path, cloud: dict[str, np.ndarray]) -> None:
    points = read_points(
        [write_points(tmp_path / "p.laz", cloud["xyz"], cloud["class"], cloud["rgb"])]
    )
    columns = bin_points(points, FRAME, TABLE, colour_shift=(-3.0, 0.0))
    assert np.array_equal(columns.image[:, :-3], village()["image"][:, 3:])
    assert not columns.image_known[:, -3:].any()


def test_points_elsewhere(tmp_path: Path, cloud: dict[str, np.ndarray]) -> None:
    points = read_points([write_points(tmp_path / "p.laz", cloud["xyz"], cloud["class"])])
    away = replace(FRAME, x=(0, 96))
    with pytest.raises(RegionError, match="check the CRS"):
        bin_points(points, away, TABLE)


def test_the_filter_takes_houses_and_trees_off_a_hillside() -> None:
    row, col = np.mgrid[0:120, 0:120]
    hill = 0.12 * col + 4 * np.sin(row / 20)
    house = (row % 40 > 10) & (row % 40 < 28) & (col % 40 > 12) & (col % 40 < 30)
    lowest = hill + np.where(house, 7.0, 0.0)
    lowest[5, 5] = hill[5, 5] - 8  # a point below the ground
    lowest[60:64, 60:64] = np.nan
    ground = filter_ground(lowest, 1.0)
    assert not ground[house].any() and ground[~house].mean() > 0.9
    assert not ground[5, 5] and not ground[60:64, 60:64].any()
    assert np.abs(interpolate(lowest, ground) - hill).max() < 1.5
    assert not filter_ground(np.full((9, 9), np.nan), 1.0).any()


def test_gaps_are_filled_linearly_inside_and_by_the_nearest_outside() -> None:
    row, col = np.mgrid[0:30, 0:30]
    plane = (2.0 * row - col).astype(np.float32)
    known = np.ones(plane.shape, bool)
    known[10:20, 8:22] = False
    assert np.allclose(interpolate(np.where(known, plane, 0), known), plane, atol=1e-3)
    corner = np.zeros(plane.shape, bool)
    corner[:5, :5] = True
    assert interpolate(plane, corner)[29, 29] == plane[4, 4]
    assert np.array_equal(fill_nearest(plane, known)[known], plane[known])
    assert np.array_equal(interpolate(plane, np.ones_like(known)), plane)
