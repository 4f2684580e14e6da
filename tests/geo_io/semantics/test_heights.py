"""Which columns hold the heights of buildings, in which unit, and what they mean."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from geo_io.errors import InputError
from geo_io.frame import Frame
from geo_io.legend import builtin_crosswalks
from geo_io.semantics.heights import choose_heights, publishers, unit_in_name
from geo_io.semantics.options import SemanticsOptions
from geo_io.semantics.reader import open_semantics

METRIC, STATE_PLANE = "EPSG:32632", "EPSG:2263"


def tops(table: pd.DataFrame, crs: str = METRIC, **asked: str) -> list[float]:
    """Return the heights of a table."""
    reading = choose_heights(list(table.columns), table, crs, **asked)
    return reading.read(table).top.tolist()


def test_the_first_column_with_a_value_decides() -> None:
    table = pd.DataFrame(
        {
            "floors": [2, 3, None, 0],
            "hoogte": [0.0, 9.5, np.nan, np.nan],
            "Height": pd.Series(["12 m", None, pd.NA, "x"], dtype="str"),
        }
    )
    np.testing.assert_allclose(tops(table), [12, 9.5, np.nan, np.nan])
    np.testing.assert_allclose(tops(table[["floors"]]), [7, 10, np.nan, np.nan])
    assert np.isnan(tops(pd.DataFrame({"name": ["a"]}))).all()
    # As a shapefile cuts it.
    np.testing.assert_allclose(tops(pd.DataFrame({"building:l": [2]})), [7])


@pytest.mark.parametrize(
    ("columns", "crs", "top"),
    [
        ({"heightroof": 100.0}, STATE_PLANE, 100 * 1200 / 3937),
        ({"height_roof": 100.0, "ground_ele": 33.0, "bin": 1}, METRIC, 100 * 1200 / 3937),
        ({"height": 100.0}, STATE_PLANE, 100 * 1200 / 3937),
        ({"height": 100.0, "building:levels": 3}, STATE_PLANE, 100),  # OpenStreetMap is in metres
        ({"height_m": 100.0}, STATE_PLANE, 100),
        ({"BLDG_HGT_FT": 100.0}, METRIC, 30.48),
        ({"heightft": 100.0}, METRIC, 30.48),
        ({"hgt_maxcm": 1234, "gnd_min_m": 30.0}, METRIC, 12.34),
        ({"b3_h_dak_max": 32.0, "b3_h_maaiveld": 2.0, "b3_bouwlagen": 4}, METRIC, 30),
        ({"b3_h_dak_50p": 1.0, "b3_h_maaiveld": -4.0}, METRIC, 5),
        ({"DACH_MAX": 512.0, "GELAENDEPUNKT": 500.0}, METRIC, 12),
        ({"RelH2": 6.0, "RelHMax": 8.5, "AbsHMin": 90.0}, METRIC, 8.5),
        ({"measuredHeight": 11.5}, METRIC, 11.5),
        ({"height": np.nan, "num_floors": 10, "roof_height": 2.5}, METRIC, 31),
        ({"roof_height": 22.0}, METRIC, np.nan),  # of the roof alone, for all we know
        ({"elevation": 22.0, "z_max": 30.0}, METRIC, np.nan),
    ],
)
def test_known_columns(columns: dict[str, float], crs: str, top: float) -> None:
    table = pd.DataFrame({name: [value] for name, value in columns.items()})
    np.testing.assert_allclose(tops(table, crs), [top])


def test_bdtopo_gives_the_gutter() -> None:
    table = pd.DataFrame({"HAUTEUR": [6.0, 4.0], "NB_ETAGES": [2, 1], "Z_MIN_SOL": [100.0, None]})
    table["Z_MAX_TOIT"] = [109.5, None]
    heights = choose_heights(list(table.columns), table, METRIC).read(table)
    np.testing.assert_allclose(heights.top, [9.5, np.nan])
    np.testing.assert_allclose(heights.eaves, [6, 4])
    assert heights.known.all()


def test_what_is_asked_for() -> None:
    table = pd.DataFrame({"height": [100.0], "h_cad": [20.0], "top_ft": [50.0]})
    np.testing.assert_allclose(tops(table, unit="ft"), [30.48])
    np.testing.assert_allclose(tops(table, field="H_CAD"), [20])
    np.testing.assert_allclose(tops(table, field="top_ft", unit="m"), [15.24])


def test_units_in_names() -> None:
    assert unit_in_name("HGT_FT") == ("hgt", "ft")
    assert unit_in_name("height (m)") == ("height", "m")
    assert unit_in_name("bldg_height_us_ft") == ("bldg_height", "us-ft")
    assert unit_in_name("hgt_mediancm") == ("hgt_median", "cm")
    assert unit_in_name("heightm") == ("heightm", None)
    assert unit_in_name("num") == ("num", None)


def test_texts_that_are_not_understood_are_kept() -> None:
    table = pd.DataFrame({"height": ["12 m", "tall", "N/A", None, "1,200"]})
    heights = choose_heights(["height"], table, METRIC).read(table)
    np.testing.assert_allclose(heights.top, [12, np.nan, np.nan, np.nan, np.nan])
    assert heights.unread.tolist() == ["", "height='tall'", "", "", "height='1,200'"]


def test_every_publisher_is_recognised_by_its_own_columns() -> None:
    for publisher in publishers():
        for signs in publisher.signs:
            reading = choose_heights(list(signs), pd.DataFrame(), METRIC)
            assert reading.publisher != "common", f"{publisher.name}: {signs}"


def survey_warnings(table: pd.DataFrame, name: str = "houses", **options: str) -> list[str]:
    """Survey houses of 10 m x 10 m with these attributes."""
    boxes = [shapely.box(20 * i, 0, 20 * i + 10, 10) for i in range(len(table))]
    frame = gpd.GeoDataFrame(table, geometry=boxes, crs=METRIC)
    frame.geometry = frame.geometry.translate(500_000, 5_500_000)
    frame.attrs["name"] = name
    area = Frame(METRIC, 1.0, (500_000, 500_000 + 20 * len(table)), (5_500_000, 5_500_020))
    reading = SemanticsOptions(crosswalks=builtin_crosswalks(), **options)
    return list(open_semantics([frame], area, reading).survey().sources[0].warnings)


def test_the_survey_says_what_is_not_known() -> None:
    table = pd.DataFrame({"building": "yes", "height": ["12", None, "tall"]})
    missing, strange = survey_warnings(table)
    assert "no height is known of 2 of 3 buildings" in missing
    assert "1 of 3 buildings is not understood, such as height='tall'" in strange
    assert survey_warnings(table.iloc[:1]) == []


def test_the_survey_names_columns_that_look_like_heights() -> None:
    table = pd.DataFrame({"building": "yes", "dakrand_hoogte": [8.0, 9.0]})
    (missing,) = survey_warnings(table)
    assert "dakrand_hoogte; name one as `height_field`" in missing
    assert survey_warnings(table, height_field="dakrand_hoogte") == []


@pytest.mark.parametrize(
    ("columns", "odd"),
    [
        ({"height": 33.0, "floors": 3}, "11.0 m for each of its levels"),
        ({"height": 9.0, "floors": 3}, None),
        ({"height": 26.0}, "less than 150 m2 is 26.0 m tall"),
        ({"height": 8.0}, None),
    ],
)
def test_the_survey_doubts_units(columns: dict[str, float], odd: str | None) -> None:
    table = pd.DataFrame({"building": ["yes"] * 5, **columns})
    said = survey_warnings(table)
    assert (odd is None and not said) or (odd is not None and odd in said[0])
    assert survey_warnings(table, height_unit="ft") == [] or odd is None


def test_footprints_stay_footprints() -> None:
    table = pd.DataFrame({"type": ["Residential", "School", "Garage"], "height": [22.0, 12, 9]})
    assert survey_warnings(table, "building_footprints") == []
    (said,) = survey_warnings(table, "zoning")
    assert "3 areas of land use" in said or "2 areas of land use" in said
    with_floors = table.assign(num_floors=[7, 4, 3])
    assert survey_warnings(with_floors, "town") == []


def test_a_height_field_that_no_layer_has(tmp_path: Path) -> None:
    table = pd.DataFrame({"building": ["yes"], "height": [3.0]})
    with pytest.raises(InputError, match="did you mean 'height'"):
        survey_warnings(table, height_field="heigth")


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("Building Height (ft)", "ft"),
        ("Height_Ft_", "ft"),
        ("HeightInFeet", "ft"),
        ("heightmeters", "m"),
        ("BldgHeight", "m"),
        ("hgt-agl", "m"),
    ],
)
def test_blanks_and_signs_in_names_do_not_count(name: str, unit: str) -> None:
    (column,) = choose_heights([name], pd.DataFrame({name: [10]}), METRIC).top
    assert column.style.unit == unit


def test_a_column_beside_can_name_the_unit() -> None:
    table = pd.DataFrame({"height": [100.0, 50.0], "height_units": ["Feet", None]})
    reading = choose_heights(list(table), table, METRIC)
    assert (reading.top[0].style.unit, reading.top[0].why) == ("ft", "column")
    # Dwelling units are none, and a word of the user goes first.
    assert tops(table.assign(height_units=["12", "3"])) == [100, 50]
    assert tops(table, unit="m") == [100, 50]


def test_layers_of_3dbag_have_other_names() -> None:
    table = pd.DataFrame(
        {"b3_h_maaiveld": [2.0], "b3_h_max": [12.0], "b3_h_70p": [11.0], "b3_h_min": [8.0]}
    )
    heights = choose_heights(list(table), table, METRIC).read(table)
    assert (heights.top[0], heights.eaves[0]) == (10, 6)
    above_sea = choose_heights(["b3_h_dak_max"], table[[]], METRIC)
    assert above_sea.top == () and above_sea.sea == ("b3_h_dak_max",)


def test_levels_that_are_not_understood_are_kept_as_examples() -> None:
    table = pd.DataFrame({"building:levels": ["3", "some", None], "building": "yes"})
    heights = choose_heights(list(table), table, METRIC).read(table)
    assert heights.unread.tolist() == ["", "building:levels='some'", ""]
