"""Layers whose columns or names alone say that they hold buildings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest
from shapely.geometry import Polygon, box

from geo_io.errors import InputError
from geo_io.frame import Frame
from geo_io.legend import builtin_crosswalks, codes
from geo_io.semantics.options import SemanticsOptions
from geo_io.semantics.reader import open_semantics

X, Y = 500000, 5500000
FRAME = Frame("EPSG:32632", 2.0, (X // 2, X // 2 + 40), (Y // 2, Y // 2 + 20))
OPTIONS = SemanticsOptions(crosswalks=tuple(builtin_crosswalks()))


def place(n: int) -> Polygon:
    return box(X + 10 + 30 * n, Y + 10, X + 20 + 30 * n, Y + 20)


def read(table: dict[str, list[Any]], path: Path | None = None) -> Any:
    count = len(next(iter(table.values())))
    frame = gpd.GeoDataFrame(table, geometry=[place(n) for n in range(count)], crs=FRAME.crs)
    if path is not None:
        frame.to_file(path)
    return open_semantics([frame if path is None else str(path)], FRAME, OPTIONS).read(FRAME)


@pytest.mark.parametrize(
    ("table", "tops"),
    [
        ({"b3_h_maaiveld": [2.0, 2.0], "b3_h_dak_max": [12.0, 30.0]}, [10, 28]),
        ({"HEIGHT_ROOF": [100.0, 50.0], "GROUND_ELEVATION": [30, 30]}, [30.48, 15.24]),
        ({"objektart": ["Hochhaus"] * 2, "GESAMTHOEHE": [12.0, 50.0]}, [12, 50]),
        ({"byg054AntalEtager": [2, 3]}, [7, 10]),
        ({"currentUse": ["1_residential"] * 2, "numberOfFloorsAboveGround": [3, 5]}, [10, 16]),
        ({"UN_VOL_AV": [9.5, 12.0]}, [9.5, 12]),
        (
            {"AVG_HEIGHT": [30.0, 20.0], "MAX_HEIGHT": [40.0, 20.0], "SURF_ELEV": [9, 9]},
            [12.2, 6.1],
        ),
        ({"rooftop_elev_z": [1060.0, 1050.0], "grd_elev_min_z": [1040.0, 1040.0]}, [20, 10]),
    ],
)
def test_columns_of_publishers_are_those_of_buildings(
    table: dict[str, list[Any]], tops: list[float]
) -> None:
    found = read(table).buildings
    assert sorted(found.height.tolist()) == pytest.approx(sorted(tops), abs=0.02)


def test_lots_are_no_buildings() -> None:
    with pytest.raises(InputError, match="gives the class of its features"):
        read({"BBL": [1, 2], "NumFloors": [10.0, 2.0], "LandUse": ["01", "02"]})


@pytest.mark.parametrize("name", ["Häuser", "здания", "建物", "bldgs_2020"])
def test_names_of_layers(tmp_path: Path, name: str) -> None:
    assert len(read({"id": [1]}, tmp_path / f"{name}.gpkg").buildings) == 1


@pytest.mark.parametrize("column", ["building", "is_building"])
def test_columns_that_say_no(column: str) -> None:
    found = read({column: ["-", "нет"], "landuse": ["forest", "grass"]})
    assert set(found.cover[found.cover > 0].tolist()) == {codes()["mixed_forest"], codes()["grass"]}
    assert len(found.buildings) == 0
