"""Views that a file brings: bounded ones are read, others are refused before GDAL runs them."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import geopandas as gpd
import pytest
import shapely

from geo_io.errors import InputError
from geo_io.safety import sql_views
from geo_io.safety.sql_views import require_bounded_views
from geo_io.vector.source import open_vector

TURN = "SELECT a.fid, a.geom, a.landuse FROM land a"


@pytest.fixture(scope="module")
def land(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("views") / "land.gpkg"
    boxes = [shapely.box(n, 0, n + 1, 1) for n in range(200)]
    table = gpd.GeoDataFrame({"landuse": ["meadow"] * 200}, geometry=boxes, crs="EPSG:32632")
    table.to_file(path, layer="land", engine="pyogrio")
    return path


def with_view(land: Path, path: Path, sql: str) -> Path:
    path.write_bytes(land.read_bytes())
    with closing(sqlite3.connect(path)) as base:
        base.execute(f"CREATE VIEW some AS {sql}")
        for table, columns in (
            ("gpkg_contents", "data_type, identifier, srs_id"),
            ("gpkg_geometry_columns", "column_name, geometry_type_name, srs_id, z, m"),
        ):
            values = columns.replace("identifier", "'some'")
            base.execute(
                f"INSERT INTO {table} (table_name, {columns}) SELECT 'some', {values} FROM {table}"
            )
        base.commit()
    return path


@pytest.mark.parametrize(
    "sql", [TURN, f"{TURN} WHERE a.fid < 3", f"{TURN} WHERE ST_Area(a.geom) >= 0 LIMIT 5"]
)
def test_views_that_are_read(land: Path, tmp_path: Path, sql: str) -> None:
    source = open_vector(str(with_view(land, tmp_path / "a.gpkg", sql)), layer="some")
    assert source.fields == ("landuse",) and source.feature_count > 0


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        (
            "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "
            "SELECT x AS fid, NULL AS geom FROM c",
            "refers to itself",
        ),
        (f"{TURN}, land b, land c, land d, land e", "takes more than"),
        (
            "SELECT a.fid, a.geom, hex(zeroblob(200000000)) AS landuse FROM land a",
            "makes values of over",
        ),
    ],
)
def test_views_that_know_no_end(
    land: Path, tmp_path: Path, sql: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_views, "STEPS_A_BYTE", 1)
    monkeypatch.setattr(sql_views, "STEPS", 1_000_000)
    path = with_view(land, tmp_path / "a.gpkg", sql)
    began = time.process_time()
    with pytest.raises(InputError, match=f"the view 'some' of .*{why}"):
        open_vector(str(path), layer="some")
    assert time.process_time() - began < 5


def test_a_bound_of_all_views_together(
    land: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_views, "STEPS", 10_000)
    monkeypatch.setattr(sql_views, "STEPS_A_BYTE", 0)
    path = with_view(land, tmp_path / "a.gpkg", f"{TURN}, land b")
    with pytest.raises(InputError, match="takes more than 10,000 steps"):
        require_bounded_views(path)


def test_what_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "a.gpkg").write_bytes(b"SQLite format 3\0 and no more")
    (tmp_path / "b.gpkg").write_bytes(b"")
    for name in ("a.gpkg", "b.gpkg", "c.gpkg"):
        require_bounded_views(tmp_path / name)
