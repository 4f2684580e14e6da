"""Digests of inputs: they depend on the content alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr

from geo_io import digest
from geo_io.digest import digest_file, digest_source
from geo_io.errors import InputError, MissingFileError


def test_digest_is_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"abc")
    known = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest_file(tmp_path / "a.bin") == known == digest_source(str(tmp_path / "a.bin"))
    shutil.copy(tmp_path / "a.bin", tmp_path / "b.bin")
    assert digest_file(tmp_path / "b.bin") == known
    with pytest.raises(MissingFileError):
        digest_file(tmp_path / "c.bin")


def test_large_files_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "WHOLE", 1000)
    monkeypatch.setattr(digest, "BLOCK", 10)
    monkeypatch.setattr(digest, "BLOCKS", 4)
    content = bytearray(range(256)) * 5
    path = tmp_path / "a.bin"
    seen = set()
    for change in (None, 0, len(content) - 1, len(content)):
        data = bytearray(content) + (b"x" if change == len(content) else b"")
        if change is not None:
            data[change] ^= 0xFF
        path.write_bytes(data)
        seen.add(digest_file(path))
    assert len(seen) == 4 and all(text.startswith("sampled-sha256:") for text in seen)


def test_shapefile_digest_counts_side_files(tmp_path: Path) -> None:
    table = gpd.GeoDataFrame(
        {"a": [1, 2]}, geometry=[shapely.Point(0, 0), shapely.Point(1, 1)], crs=4326
    )
    table.to_file(tmp_path / "a.shp")
    first = digest_file(tmp_path / "a.shp")
    (tmp_path / "a.qml").write_text("a style is no data")
    assert digest_file(tmp_path / "a.shp") == first
    (tmp_path / "a.cpg").write_text("ISO-8859-1")
    assert digest_file(tmp_path / "a.shp") != first


def test_objects_in_memory_have_digests() -> None:
    import rioxarray  # noqa: F401  (registers the .rio accessor)

    table = gpd.GeoDataFrame({"a": ["x", None]}, geometry=[shapely.Point(0, 0), None], crs=4326)
    assert digest_source(table) == digest_source(table.copy())
    assert (
        len(
            {
                digest_source(t)
                for t in (
                    table,
                    table.assign(a=["x", "y"]),
                    table.set_crs(3857, allow_override=True),
                )
            }
        )
        == 3
    )
    array = xr.DataArray(
        np.arange(6.0).reshape(2, 3),
        dims=("y", "x"),
        coords={"y": [5.0, 4.0], "x": [1.0, 2.0, 3.0]},
    )
    array = array.rio.write_crs(32632)
    assert digest_source(array) == digest_source(array.copy())
    moved = array.assign_coords(x=[2.0, 3.0, 4.0])
    assert (
        len({digest_source(a) for a in (array, moved, array + 1, array.rio.write_crs(32633))}) == 4
    )
    with pytest.raises(InputError):
        digest_source(3)
    assert digest_source("https://example.org/a.tif") == "name:https://example.org/a.tif"
