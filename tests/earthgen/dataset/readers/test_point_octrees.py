"""Octrees of points on disk, EPT and Potree, written by hand from known points."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earthgen.dataset.build import build_scene
from earthgen.dataset.readers.points import read_points
from earthgen.dataset.recipe import parse_recipe
from geo_io.errors import InputError, MissingCrsError, MissingFileError
from tests.helpers.dataset_places import CRS, EAST, NORTH, SIZE, village_points, write_points

SCALE = 0.001
CENTRE = np.array([EAST + 64.0, NORTH + 64.0, 164.0])
"""Middle of a cube with edges of 128 m around the village."""


@pytest.fixture(scope="module")
def cloud() -> dict[str, np.ndarray]:
    points = village_points()
    keep = np.arange(0, len(points["xyz"]), 5)
    return {
        "xyz": np.round(points["xyz"][keep], 3),
        "class": points["class"][keep].astype(np.uint8),
        "rgb": points["rgb"][keep].astype(np.uint16) * 257,
    }


def nodes(cloud: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Indices of the points of the root and its children, by the digits of Potree."""
    xyz = cloud["xyz"]
    high = xyz >= CENTRE
    child = high[:, 0] * 4 + high[:, 1] * 2 + high[:, 2]
    root = np.arange(len(xyz)) % 7 == 0
    out = {"": np.flatnonzero(root)}
    for digit in range(8):
        inside = np.flatnonzero(~root & (child == digit))
        if len(inside):
            out[str(digit)] = inside
    return out


def write_ept(folder: Path, cloud: dict[str, np.ndarray], kind: str = "binary") -> Path:
    (folder / "ept-data").mkdir(parents=True)
    (folder / "ept-hierarchy").mkdir()
    kinds = {"X": "<i4", "Y": "<i4", "Z": "<i4", "Intensity": "<u2", "Classification": "<u1"}
    kinds |= {"Red": "<u2", "Green": "<u2", "Blue": "<u2"}
    offset = {"X": EAST, "Y": NORTH, "Z": 100}
    counts: dict[str, int] = {}
    for name, index in nodes(cloud).items():
        bits = int(name or 0)
        key = f"1-{bits >> 2 & 1}-{bits >> 1 & 1}-{bits & 1}" if name else "0-0-0-0"
        counts[key] = len(index)
        if kind == "laszip":
            write_points(
                folder / "ept-data" / f"{key}.laz",
                cloud["xyz"][index],
                cloud["class"][index],
                cloud["rgb"][index],
            )
            continue
        raw = np.zeros(len(index), list(kinds.items()))
        for axis, letter in enumerate("XYZ"):
            raw[letter] = np.round((cloud["xyz"][index, axis] - offset[letter]) / SCALE)
        raw["Classification"] = cloud["class"][index]
        for band, colour in enumerate(("Red", "Green", "Blue")):
            raw[colour] = cloud["rgb"][index, band]
        raw.tofile(folder / "ept-data" / f"{key}.bin")
    # Half of the tree lies in another file, as in large ones.
    inner = {key: count for key, count in counts.items() if key != "0-0-0-0"}
    first = next(iter(inner))
    outer = {"0-0-0-0": counts["0-0-0-0"], **{key: inner[key] for key in inner if key != first}}
    (folder / "ept-hierarchy" / "0-0-0-0.json").write_text(json.dumps({**outer, first: -1}))
    (folder / "ept-hierarchy" / f"{first}.json").write_text(json.dumps({first: inner[first]}))
    schema = [
        {
            "name": name,
            "type": "signed" if dtype[1] == "i" else "unsigned",
            "size": int(dtype[2]),
            **({"scale": SCALE, "offset": offset[name]} if name in offset else {}),
        }
        for name, dtype in kinds.items()
    ]
    (folder / "ept.json").write_text(
        json.dumps(
            {
                "dataType": kind,
                "hierarchyType": "json",
                "points": len(cloud["xyz"]),
                "schema": schema,
                "srs": {"authority": "EPSG", "horizontal": CRS.removeprefix("EPSG:")},
                "version": "1.0.0",
            }
        )
    )
    return folder


def write_potree_2(folder: Path, cloud: dict[str, np.ndarray]) -> Path:
    folder.mkdir()
    layout = [("position", "<i4", 3), ("classification", "<u1"), ("rgb", "<u2", 3)]
    data, records, mask = b"", [], 0
    for name, index in nodes(cloud).items():
        raw = np.zeros(len(index), layout)
        raw["position"] = np.round((cloud["xyz"][index] - [EAST, NORTH, 100]) / SCALE)
        raw["classification"], raw["rgb"] = cloud["class"][index], cloud["rgb"][index]
        records.append((len(index), len(data), raw.nbytes))
        mask |= 1 << int(name) if name else 0
        data += raw.tobytes()
    # The first child is a proxy: its node stands in a part of its own.
    first = struct.pack("<BBIQQ", 0, mask, *records[0])
    rest = [struct.pack("<BBIQQ", 1, 0, *record) for record in records[1:]]
    start = 22 * len(records)
    proxy = struct.pack("<BBIQQ", 2, 0, records[1][0], start, 22)
    (folder / "hierarchy.bin").write_bytes(first + proxy + b"".join(rest[1:]) + rest[0])
    (folder / "octree.bin").write_bytes(data)
    attributes = [
        {"name": "position", "type": "int32", "numElements": 3},
        {"name": "classification", "type": "uint8", "numElements": 1},
        {"name": "rgb", "type": "uint16", "numElements": 3},
    ]
    (folder / "metadata.json").write_text(
        json.dumps(
            {
                "version": "2.0",
                "projection": CRS,
                "encoding": "DEFAULT",
                "points": len(cloud["xyz"]),
                "hierarchy": {"firstChunkSize": start, "stepSize": 4, "depth": 1},
                "scale": [SCALE] * 3,
                "offset": [EAST, NORTH, 100],
                "attributes": attributes,
            }
        )
    )
    return folder


def write_potree_1(folder: Path, cloud: dict[str, np.ndarray], laz: bool = False) -> Path:
    (folder / "data" / "r").mkdir(parents=True)
    corner = CENTRE - 64
    for name, index in nodes(cloud).items():
        file = folder / "data" / "r" / f"r{name}"
        if laz:
            write_points(
                file.with_suffix(".laz"),
                cloud["xyz"][index],
                cloud["class"][index],
                cloud["rgb"][index],
            )
            continue
        bits = int(name or 0)
        origin = corner + 64.0 * np.array([bits >> 2 & 1, bits >> 1 & 1, bits & 1])
        raw = np.zeros(len(index), [("p", "<u4", 3), ("c", "<u1", 4), ("n", "<u2"), ("k", "<u1")])
        raw["p"] = np.round((cloud["xyz"][index] - origin) / SCALE)
        raw["c"][:, :3], raw["k"] = cloud["rgb"][index] // 257, cloud["class"][index]
        raw.tofile(file.with_suffix(".bin"))
    box = dict(zip(("lx", "ly", "lz", "ux", "uy", "uz"), [*corner, *(corner + 128)], strict=True))
    names = ["POSITION_CARTESIAN", "COLOR_PACKED", "NORMAL_OCT16", "CLASSIFICATION"]
    (folder / "cloud.js").write_text(
        json.dumps(
            {
                "version": "1.7",
                "octreeDir": "data",
                "projection": "",
                "boundingBox": box,
                "pointAttributes": "LAZ" if laz else names,
                "scale": SCALE,
            }
        )
    )
    return folder


def write(kind: str, folder: Path, cloud: dict[str, np.ndarray]) -> Path:
    if kind.startswith("ept"):
        return write_ept(folder, cloud, kind.removeprefix("ept "))
    if kind == "potree 2":
        return write_potree_2(folder, cloud)
    return write_potree_1(folder, cloud, kind.endswith("laz"))


@pytest.mark.parametrize(
    "kind", ["ept binary", "ept laszip", "potree 2", "potree 1", "potree 1 laz"]
)
def test_all_points_come_back(tmp_path: Path, cloud: dict[str, np.ndarray], kind: str) -> None:
    folder = write(kind, tmp_path / "tree", cloud)
    points = read_points([folder], crs=CRS)
    assert points.crs == CRS and len(points) == len(cloud["xyz"])
    found, true = (
        np.round((xyz - [EAST, NORTH, 0]) / SCALE).astype(np.int64)
        for xyz in (points.xyz, cloud["xyz"])
    )
    assert np.array_equal(found[np.lexsort(found.T)], true[np.lexsort(true.T)])
    total = np.bincount(cloud["class"], minlength=256)
    assert np.array_equal(np.bincount(points.classification, minlength=256), total)
    assert points.rgb is not None
    assert np.allclose(points.rgb.mean(axis=0), (cloud["rgb"] // 257).mean(axis=0), atol=1e-6)


def test_a_scene_from_a_folder(tmp_path: Path, cloud: dict[str, np.ndarray]) -> None:
    write_ept(tmp_path / "tree", cloud)
    keys = {"name": "village", "licence": "CC0-1.0", "grade": "A", "points": "tree"}
    scene = build_scene(parse_recipe({"scene": [keys]}).scene[0], tmp_path, tmp_path / "out")
    assert scene.frame.bounds == (EAST, NORTH, EAST + SIZE, NORTH + SIZE)
    assert scene.info.quality["coloured"] > 0.5


def test_a_tree_without_a_crs(tmp_path: Path, cloud: dict[str, np.ndarray]) -> None:
    write_potree_1(tmp_path / "tree", cloud)
    with pytest.raises(MissingCrsError, match="has no CRS"):
        read_points([tmp_path / "tree" / "cloud.js"])


def change(file: Path, **values: Any) -> None:
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, **values}))


def more_points(folder: Path) -> None:
    change(folder / "ept-hierarchy" / "0-0-0-0.json", **{"0-0-0-0": 10**12})


def loop(folder: Path) -> None:
    change(folder / "ept-hierarchy" / "0-0-0-0.json", **{"0-0-0-0": -1})


def zstandard(folder: Path) -> None:
    change(folder / "ept.json", dataType="zstandard")


def outside(folder: Path) -> None:
    change(folder / "ept-hierarchy" / "0-0-0-0.json", **{"../../secret": 5})


def no_node(folder: Path) -> None:
    (folder / "ept-data" / "0-0-0-0.bin").unlink()


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (more_points, InputError, "node 0-0-0-0 of 1,000,000,000,000 points"),
        (loop, InputError, "twice"),
        (zstandard, InputError, "'zstandard', which is not read"),
        (outside, InputError, "secret"),
        (no_node, MissingFileError, "0-0-0-0.bin"),
    ],
)
def test_damaged_ept(
    tmp_path: Path, cloud: dict[str, np.ndarray], spoil: Any, error: type, message: str
) -> None:
    spoil(write_ept(tmp_path / "tree", cloud))
    with pytest.raises(error, match=message) as caught:
        read_points([tmp_path / "tree"])
    assert "\n" not in str(caught.value)


def record(count: int, start: int, size: int, kind: int = 1) -> bytes:
    return struct.pack("<BBIQQ", kind, 0, count, start, size)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (record(4_000_000_000, 0, 76_000_000_000), "more points than"),
        (record(100, 2**62, 1900), "at 4,611,686,018,427,387,904"),
        (record(10, 0, 22, kind=2), "part of its hierarchy"),  # a proxy for itself
        (record(10, 2**40, 22, kind=2), "part of its hierarchy"),
        (record(0, 0, 0)[:-1], "part of its hierarchy"),
    ],
)
def test_potree_that_lies(
    tmp_path: Path, cloud: dict[str, np.ndarray], content: bytes, message: str
) -> None:
    folder = write_potree_2(tmp_path / "tree", cloud)
    (folder / "hierarchy.bin").write_bytes(content)
    change(folder / "metadata.json", hierarchy={"firstChunkSize": 22})
    with pytest.raises(InputError, match=message):
        read_points([folder])


def test_what_is_not_read_says_so(tmp_path: Path, cloud: dict[str, np.ndarray]) -> None:
    folder = write_potree_2(tmp_path / "two", cloud)
    change(folder / "metadata.json", encoding="BROTLI")
    with pytest.raises(InputError, match="'BROTLI', which is not read"):
        read_points([folder])
    (folder / "metadata.json").write_text("{")
    with pytest.raises(InputError, match="damaged octree"):
        read_points([folder])
    one = write_potree_1(tmp_path / "one", cloud)
    change(one / "cloud.js", octreeDir="../two")
    with pytest.raises(InputError, match="outside its folder"):
        read_points([one], crs=CRS)
    change(one / "cloud.js", octreeDir="data")
    (one / "data" / "r" / "r.bin").write_bytes(b"123")
    with pytest.raises(InputError, match="no node"):
        read_points([one], crs=CRS)
    shutil.rmtree(one / "data")
    with pytest.raises(MissingFileError, match="data"):
        read_points([one], crs=CRS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"without ept\.json"):
        read_points([tmp_path / "empty"])
