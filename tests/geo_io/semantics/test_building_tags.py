"""Shape and colours of buildings from attributes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from geo_io.layers import ACROSS, ALONG, ROOF_SHAPES
from geo_io.semantics.building_tags import (
    TagTally,
    building_forms,
    fit_to_height,
    is_ridge,
    is_roof_edge,
)


def form(**tags: object) -> np.void:
    """The form of one building, with "_of_" for ":" in the names of tags."""
    table = pd.DataFrame([{key.replace("_of_", ":"): tag for key, tag in tags.items()}])
    return building_forms(table)[0][0]


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        ("flat", "flat"),
        ("Gabled", "gabled"),
        ("half-hipped", "half-hipped"),
        ("half_hipped", "half-hipped"),
        ("Satteldach", "gabled"),
        ("Krüppelwalmdach", "half-hipped"),
        (1000, "flat"),
        ("1030", "gabled"),
        (3100.0, "gabled"),
        ("tented", "pyramidal"),
        ("lean_to", "skillion"),
        ("multiple horizontal", "flat"),
        ("no", "unknown"),
        (None, "unknown"),
    ],
)
def test_names_of_roofs(value: object, shape: str) -> None:
    assert ROOF_SHAPES[form(roof_of_shape=value)["roof"]] == shape


def test_every_shape_of_simple_3d_buildings_is_known() -> None:
    names = "flat skillion gabled half-hipped hipped pyramidal gambrel mansard dome onion round"
    for name in (names + " cone saltbox sawtooth side_hipped complex").split():
        assert form(roof_of_shape=name)["roof"] > 0, name


def test_undersides() -> None:
    assert form(min_height="18 m")["base"] == 18
    assert form(building_of_min_level="2")["base"] == 6
    assert form(min_height=4.5, building_of_min_level=9)["base"] == 4.5
    assert form(min_height="0", building_of_min_level=None)["base"] == 0
    assert form(min_height=-3)["base"] == 0


def test_sizes_of_roofs() -> None:
    assert form(roof_of_height="2,5 m")["roof_height"] == 2.5
    assert form(roof_of_height="0")["roof_height"] == 0
    assert form(roof_of_levels=2)["roof_height"] == 6
    assert np.isnan(form(roof_of_height=None)["roof_height"])
    assert form(roof_of_angle="35°")["roof_angle"] == 35
    assert form(roof_of_orientation="across")["roof_orientation"] == ACROSS
    assert form(roof_of_orientation="along")["roof_orientation"] == ALONG


@pytest.mark.parametrize(
    ("value", "degrees"),
    [("N", 0), ("SSW", 202.5), ("e", 90), ("135", 135), ("90°", 90), (-10, 350), ("370", 10)],
)
def test_directions(value: object, degrees: float) -> None:
    assert form(roof_of_direction=value)["roof_direction"] == degrees


@pytest.mark.parametrize(
    ("value", "rgb"),
    [
        ("red", (255, 0, 0)),
        ("#a52", (170, 85, 34)),
        ("AA5522", (170, 85, 34)),
        ("light_grey", (211, 211, 211)),
        ("Dark Slate Gray", (47, 79, 79)),
        ("white;green", (255, 255, 255)),
    ],
)
def test_colours(value: str, rgb: tuple[int, int, int]) -> None:
    assert tuple(form(building_of_colour=value)["wall_rgba"]) == (*rgb, 255)
    assert tuple(form(roof_color=value)["roof_rgba"]) == (*rgb, 255)


def test_a_colour_comes_before_a_material() -> None:
    made = form(roof_of_colour="red", roof_of_material="copper", building_of_material="brick")
    assert tuple(made["roof_rgba"][:3]) == (255, 0, 0)
    assert made["wall_rgba"][3] == 255 and made["wall_rgba"][0] > made["wall_rgba"][2]
    assert form(building="yes")["wall_rgba"][3] == 0


def test_parts() -> None:
    table = pd.DataFrame(
        {
            "building": ["yes", None, "yes", None, "no"],
            "building:part": [None, "yes", "yes", "no", "tower"],
        }
    )
    assert building_forms(table)[0]["part"].tolist() == [False, True, False, False, True]
    assert form(building_id="a1b2")["part"]  # Overture
    assert form(building="roof")["open"] and form(building_of_part="roof")["open"]
    assert not form(building="yes")["open"]


def test_what_is_not_understood_is_counted_with_its_value() -> None:
    table = pd.DataFrame(
        {
            "roof:shape": ["blob", "blob", "gabled", None],
            "building:colour": ["#12", "red", "none", None],
            "roof:direction": ["upwards", 12, None, None],
            "min_height": ["tall", None, "unknown", 3],
        }
    )
    unread = building_forms(table)[1]
    assert unread == {
        "roof:shape": {0: "blob", 1: "blob"},
        "building:colour": {0: "#12"},
        "roof:direction": {0: "upwards"},
        "min_height": {0: "tall"},
    }
    tally = TagTally()
    tally.add(unread, np.array([0, 3]))
    tally.add(unread, np.array([1]))
    told = tally.warnings()
    assert len(told) == 4
    assert told[3].startswith("roof:shape of 2 buildings is not understood, such as 'blob'")


def test_ridges() -> None:
    assert is_ridge(pd.DataFrame({"roof:ridge": ["yes", None, "no"]})).tolist() == [
        True,
        False,
        False,
    ]
    assert not is_ridge(pd.DataFrame({"name": ["a"]})).any()
    lines = pd.DataFrame(
        {"roof:edge": ["yes", "yes", "no", None], "roof:ridge": [None, "yes", None, "yes"]}
    )
    assert is_roof_edge(lines).tolist() == [True, False, False, False]


def test_words_for_directions_and_the_first_of_several() -> None:
    values = ["north", "south-west", "E;W", "45 degrees", "-45"]
    found = building_forms(pd.DataFrame({"roof:direction": values}))[0]["roof_direction"]
    assert found.tolist() == [0, 225, 90, 45, 315]
    assert ROOF_SHAPES[form(**{"roof:shape": "hipped; gabled"})["roof"]] == "hipped"
    assert building_forms(pd.DataFrame({"min_height": ["-2"]}))[1] == {"min_height": {0: "-2"}}


def test_undersides_and_roofs_that_contradict_the_height() -> None:
    table = pd.DataFrame({"min_height": [35.0, 3.0, 3.0], "roof:height": [None, 8.0, 6.0]})
    found, _ = building_forms(table)
    clashes = fit_to_height(found, np.array([30.0, 9.0, 9.0]))
    assert found["base"].tolist() == [0, 3, 3]
    np.testing.assert_array_equal(found["roof_height"], [np.nan, np.nan, 6])
    tally = TagTally()
    tally.add(clashes, np.arange(3))
    told = " ".join(tally.warnings())
    assert "of 1 building is not below the top, such as 35 m of 30 m" in told
    assert "of 1 building is taller than the whole, such as 8 m of 9 m" in told
