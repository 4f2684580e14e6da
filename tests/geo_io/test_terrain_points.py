"""Contour lines and points as heights of the ground."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from shapely.geometry import LineString, Point

from geo_io.elevation_mosaic import open_heights
from geo_io.errors import InputError
from geo_io.frame import Frame

UTM = "EPSG:32632"
X, Y = 500000, 5500000
FRAME = Frame(UTM, 2.0, (X // 2, X // 2 + 100), (Y // 2, Y // 2 + 100))


def height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 300 + 0.2 * (x - X) + 0.1 * (y - Y)


def right() -> np.ndarray:
    x = X + (np.arange(100) + 0.5) * 2
    y = Y + 200 - (np.arange(100) + 0.5) * 2
    return height(*np.meshgrid(x, y))


def points(seed: int = 1, count: int = 900) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y = np.random.default_rng(seed).uniform(-30, 230, (2, count))
    return x + X, y + Y, height(x + X, y + Y)


def test_points_with_heights_are_triangulated(tmp_path: Path) -> None:
    x, y, z = points()
    path = tmp_path / "points.gpkg"
    gpd.GeoDataFrame({"id": range(len(x))}, geometry=gpd.points_from_xy(x, y, z), crs=UTM).to_file(
        path
    )
    reader = open_heights(str(path))
    np.testing.assert_allclose(reader.read(FRAME).data, right(), atol=0.3)
    report = reader.survey(FRAME)
    assert report["coverage"] == 1 and report["voids"] == 0
    (note,) = report["notes"]
    assert note.startswith(f"the DEM {path} was interpolated from 900 points, cells of ")


def test_heights_of_an_attribute_and_in_degrees(tmp_path: Path) -> None:
    x, y, z = points()
    table = gpd.GeoDataFrame(
        {"Elevation": [f"{value:.2f}".replace(".", ",") + " m" for value in z]},
        geometry=gpd.points_from_xy(x, y),
        crs=UTM,
    ).to_crs(4326)
    path = tmp_path / "points.geojson"
    table.to_file(path)
    np.testing.assert_allclose(open_heights(path).read(FRAME).data, right(), atol=0.3)


def test_contour_lines(tmp_path: Path) -> None:
    lines, z = [], []
    for value in range(290, 371, 2):
        x = X + np.array([-60.0, 260.0])
        lines.append(LineString(np.column_stack([x, Y + (value - 300 - 0.2 * (x - X)) / 0.1])))
        z.append(value)
    path = tmp_path / "contours.shp"
    gpd.GeoDataFrame({"ELEV": z}, geometry=lines, crs=UTM).to_file(path)
    reader = open_heights(path)
    found = reader.read(FRAME).data
    np.testing.assert_allclose(found, right(), atol=1.0)
    assert np.abs(found - right()).mean() < 0.3
    assert "of lines" in reader.survey(FRAME)["notes"][0]


def test_points_that_give_no_surface(tmp_path: Path) -> None:
    path = tmp_path / "points.geojson"
    gpd.GeoDataFrame(geometry=[Point(X, Y), Point(X + 9, Y)], crs=UTM).to_file(path)
    with pytest.raises(InputError, match="a file of points or lines without heights"):
        open_heights(path)
    row = [Point(X + n, Y + n, 5) for n in range(5)]
    gpd.GeoDataFrame(geometry=row, crs=UTM).to_file(path)
    with pytest.raises(InputError, match="heights at 5 places; a surface needs three or more"):
        open_heights(path)


@pytest.mark.parametrize("name", ["ELEV_FT", "Contour (ft)", "contour_elevation_ft"])
def test_the_unit_in_the_name_of_the_attribute(tmp_path: Path, name: str) -> None:
    x, y, z = points(count=200)
    path = tmp_path / "points.gpkg"
    frame = gpd.GeoDataFrame({name: z / 0.3048}, geometry=gpd.points_from_xy(x, y), crs=UTM)
    frame.to_file(path)
    np.testing.assert_allclose(open_heights(str(path)).read(FRAME).data, right(), atol=1.0)
