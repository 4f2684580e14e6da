"""Heights, widths and tunnels from the attributes of common data sets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401  registers the .rio accessor

from geo_io.semantics.attributes import expand_tags, heights, line_widths, parse_metres, underground


@pytest.mark.parametrize(
    ("value", "metres"),
    [
        (12, 12),
        (12.5, 12.5),
        ("12", 12),
        ("12.5 m", 12.5),
        ("12,5", 12.5),
        (" 12m ", 12),
        ("3 metres", 3),
        ("40 ft", 12.192),
        ("40'", 12.192),
        ("40'6\"", 12.3444),
        ("6 feet 6 in", 1.9812),
        (0, None),
        (-3, None),
        (901, None),
        ("0", None),
        ("high", None),
        ("", None),
        (None, None),
        (float("nan"), None),
        ("10-12", None),
        ("12;15", None),
        (True, None),
    ],
)
def test_parse_metres(value: object, metres: float | None) -> None:
    np.testing.assert_allclose(parse_metres(value), np.nan if metres is None else metres)


def test_heights_take_the_first_attribute_that_says() -> None:
    table = pd.DataFrame(
        {
            "NB_ETAGES": [2, 3, None, 0],
            "HAUTEUR": [0.0, 9.5, np.nan, np.nan],
            "Height": pd.Series(["12 m", None, pd.NA, "x"], dtype="str"),
        }
    )
    np.testing.assert_allclose(heights(table), [12, 9.5, np.nan, np.nan])
    np.testing.assert_allclose(heights(table[["NB_ETAGES", "HAUTEUR"]]), [7, 9.5, np.nan, np.nan])
    assert np.isnan(heights(pd.DataFrame({"name": ["a"]}))).all()
    np.testing.assert_allclose(
        heights(pd.DataFrame({"building:l": [2]})), [7]
    )  # as a shapefile cuts it


def test_tags_of_osm() -> None:
    tags = [
        '"building:levels"=>"4","roof:shape"=>"flat"',
        '"height"=>"20 m"',
        None,
        '"name"=>"a\\"b=>c"',
    ]
    table = pd.DataFrame({"other_tags": tags, "layer": ["0", None, "-1", None]})
    np.testing.assert_allclose(heights(expand_tags(table)), [13, 20, np.nan, np.nan])
    assert "name" not in expand_tags(table).columns
    given = pd.DataFrame({"other_tags": ['"height"=>"20"'], "HEIGHT": [5.0]})
    np.testing.assert_allclose(heights(expand_tags(given)), [5])


def test_widths_of_lines() -> None:
    table = pd.DataFrame(
        {"LARGEUR": [0, 5.5, None, None, 500], "lanes": ["2", "2", "2", "2", None]}
    )
    road = np.array([True, True, True, False, True])
    np.testing.assert_allclose(line_widths(table, road), [6.5, 5.5, 6.5, np.nan, np.nan])


def test_underground() -> None:
    table = pd.DataFrame(
        {
            "tunnel": ["yes", "no", None, "culvert", None, None],
            "layer": ["1", None, "-1", None, "-1", "pand"],
            "POS_SOL": [0, 0, 0, 0, 0, -1],
        }
    )
    water = np.array([False, False, False, False, True, False])
    assert underground(table, water).tolist() == [True, False, True, True, False, True]
    assert underground(table.iloc[:0], water[:0]).tolist() == []
