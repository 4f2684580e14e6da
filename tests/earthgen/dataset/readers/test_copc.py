"""COPC: a file from another program gives the scene of the same points in plain LAZ, and truncated
files are errors."""

from __future__ import annotations

from pathlib import Path

import laspy
import numpy as np
import pytest

from earthgen.dataset.readers.points import read_points
from geo_io.errors import InputError
from tests.helpers.dataset_places import CRS, EAST, NORTH, village_points, write_points
from tests.helpers.mesh_places import build, whole

FILE = Path(__file__).parents[3] / "data" / "village.copc.laz"
"""tests/data/write_copc.py wrote it."""


def test_the_file_is_copc_and_small() -> None:
    data = FILE.read_bytes()
    # COPC 1.0: the first record of the header is that of COPC, right behind its 375 bytes.
    assert data[:4] == b"LASF" and data[377:381] == b"copc" and len(data) < 50_000
    with laspy.open(FILE) as reader:
        assert reader.header.number_of_evlrs > 0 and reader.header.point_count == 64 * 64


def test_points_of_all_levels_come_back() -> None:
    found, made = read_points([FILE]), village_points(per_metre=1)
    part = (made["xyz"][:, :2] < (EAST + 64, NORTH + 64)).all(axis=1)
    one, other = np.lexsort(found.xyz.T[:2]), np.lexsort(made["xyz"][part].T[:2])
    assert found.crs == CRS and len(found) == 64 * 64
    assert np.allclose(found.xyz[one], made["xyz"][part][other], atol=1e-3)  # stored in millimetres
    assert np.array_equal(found.classification[one], made["class"][part][other])
    assert np.array_equal(found.rgb[one], made["rgb"][part][other])


def test_a_scene_of_copc_is_that_of_laz(tmp_path: Path) -> None:
    points = village_points(per_metre=1)
    part = (points["xyz"][:, :2] < (EAST + 64, NORTH + 64)).all(axis=1)
    colours = points["rgb"][part].astype(np.uint16) * 257
    write_points(tmp_path / "plain.laz", points["xyz"][part], points["class"][part], colours)
    (tmp_path / "village.copc.laz").write_bytes(FILE.read_bytes())
    copc, plain = (build(tmp_path, points=name) for name in ("village.copc.laz", "plain.laz"))
    assert copc.frame == plain.frame and copc.frame.shape == (64, 64)
    one, other = whole(copc), whole(plain)
    for name in (
        "xyz",
        "semantic",
        "rgb",
        "rgb_known",
        "normal",
        "ground",
        "height",
        "cover",
        "image",
        "valid",
    ):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("left", [100, 300, 600, 5_000, -3_000, -500, -10])
def test_cut_files_have_a_name(tmp_path: Path, left: int) -> None:
    """Also where only the records behind the points are gone: with them goes the CRS, and that
    is not what is wrong."""
    path = tmp_path / "cut.copc.laz"
    path.write_bytes(FILE.read_bytes()[:left])
    with pytest.raises(InputError, match=r"cut\.copc\.laz .*fetch it again"):
        read_points([path])


def test_damage_in_the_points_has_a_name(tmp_path: Path) -> None:
    data = bytearray(FILE.read_bytes())
    data[2_000:30_000] = bytes(28_000)
    path = tmp_path / "bad.copc.laz"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"bad\.copc\.laz"):
        read_points([path])
