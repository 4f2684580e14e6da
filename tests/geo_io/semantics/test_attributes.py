"""Widths and tunnels from the attributes of common data sets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import rioxarray  # noqa: F401  registers the .rio accessor

from geo_io.semantics.attributes import expand_tags, line_widths, underground
from geo_io.semantics.heights import choose_heights, height_tags


def test_tags_of_osm() -> None:
    tags = [
        '"building:levels"=>"4","roof:shape"=>"flat"',
        '"height"=>"20 m"',
        None,
        '"name"=>"a\\"b=>c"',
    ]
    table = pd.DataFrame({"other_tags": tags, "layer": ["0", None, "-1", None]})
    table = expand_tags(table)
    reading = choose_heights([*table.columns, *height_tags()], table, "EPSG:4326")
    np.testing.assert_allclose(reading.read(table).top, [13, 20, np.nan, np.nan])
    assert "name" not in table.columns
    given = expand_tags(pd.DataFrame({"other_tags": ['"height"=>"20"'], "HEIGHT": [5.0]}))
    reading = choose_heights(list(given.columns), given, "EPSG:4326")
    np.testing.assert_allclose(reading.read(given).top, [5])


def test_widths_of_lines() -> None:
    table = pd.DataFrame(
        {"LARGEUR": [0, 5.5, None, None, 500], "lanes": ["2", "2", "2", "2", None]}
    )
    road = np.array([True, True, True, False, True])
    np.testing.assert_allclose(line_widths(table, road), [6.5, 5.5, 6.5, np.nan, np.nan])


def test_underground() -> None:
    table = pd.DataFrame(
        {
            "tunnel": [
                "yes",
                "no",
                None,
                "culvert",
                "N",
                "building_passage",
                "null",
                False,
                0,
                "T",
            ],
            "layer": ["1", None, "-1", None, "-1", "pand", "-2", None, None, None],
            "POS_SOL": [0, 0, 0, 0, 0, -1, 0, 0, 0, 0],
        }
    )
    expected = [True, False, False, True, False, True, False, False, False, True]
    assert underground(table).tolist() == expected
    assert underground(table.iloc[:0]).tolist() == []
    below = pd.DataFrame({"is_underground": [True, False, None]})
    assert underground(below).tolist() == [True, False, False]
