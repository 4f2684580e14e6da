"""Counts of a LAS file that its size gives no room for."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import numpy as np
import pytest

from earthgen.dataset.readers.las_header import DECODED, check_counts, points_at_once
from earthgen.dataset.readers.points import read_points
from geo_io.errors import EarthgenError, InputError

laspy = pytest.importorskip("laspy")


@pytest.fixture(scope="module", params=["a.las", "a.laz"])
def cloud(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    header = laspy.LasHeader(point_format=6, version="1.4")
    header.add_crs(__import__("pyproj").CRS("EPSG:32632"))
    header.offsets, header.scales = [640000, 5560000, 0], [0.01] * 3
    las = laspy.LasData(header)
    las.x, las.y = 640000 + np.arange(300.0), 5560000 + np.arange(300.0)
    las.z = np.zeros(300)
    path = tmp_path_factory.mktemp("las") / request.param
    las.write(str(path))
    return path


FIELDS = {  # offset and format, LAS 1.4 R15 table 3
    "size of the header": (94, "<H"),
    "place of the points": (96, "<I"),
    "records": (100, "<I"),
    "bytes of a point": (105, "<H"),
    "place of the later records": (235, "<Q"),
    "later records": (243, "<I"),
    "points": (247, "<Q"),
}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("high", [True, False])
def test_a_count_beyond_the_file(cloud: Path, tmp_path: Path, field: str, high: bool) -> None:
    place, kind = FIELDS[field]
    data = bytearray(cloud.read_bytes())
    struct.pack_into(kind, data, place, 256 ** struct.calcsize(kind) - 1 if high else 0)
    path = tmp_path / cloud.name
    path.write_bytes(data)
    began = time.process_time()
    try:
        read_points([path], crs="EPSG:32632")
    except EarthgenError as error:
        assert str(path) in error.problem
    else:
        assert not high or field == "place of the later records"  # of none
    assert time.process_time() - began < 5


@pytest.mark.parametrize("value", [2**32 - 1, 2**24])
def test_a_chunk_table_beyond_the_file(cloud: Path, tmp_path: Path, value: int) -> None:
    if cloud.suffix == ".las":
        check_counts(cloud)
        return
    data = bytearray(cloud.read_bytes())
    (points,) = struct.unpack_from("<I", data, 96)
    (table,) = struct.unpack_from("<q", data, points)
    struct.pack_into("<I", data, table + 4, value)
    path = tmp_path / cloud.name
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"have no room for chunks \([\d,]+\)"):
        read_points([path])
    struct.pack_into("<q", data, points, len(data) + 1)
    path.write_bytes(data)
    with pytest.raises(InputError, match="its chunk table would lie at byte"):
        read_points([path])


def test_points_are_decoded_in_pieces() -> None:
    assert points_at_once(30, 2_000_000) == 2_000_000
    assert points_at_once(65535, 2_000_000) * 65535 <= DECODED
    assert points_at_once(0, 7) == 7
