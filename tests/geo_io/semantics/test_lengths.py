"""Heights in texts, as people write them."""

from __future__ import annotations

import numpy as np
import pytest

from geo_io.semantics.lengths import TextStyle, comma_is_decimal, is_unknown, parse_length


@pytest.mark.parametrize(
    ("value", "metres"),
    [
        (12, 12),
        (12.5, 12.5),
        ("12", 12),
        ("12.5 m", 12.5),
        ("12,5", 12.5),
        (" 12m ", 12),
        ("12 m.", 12),
        ("12.00m\N{NO-BREAK SPACE}", 12),
        ("039", 39),
        ("+12", 12),
        ("~12", 12),
        ("ca. 12", 12),
        ("h=12", 12),
        ("12 (roof)", 12),
        ("\N{FULLWIDTH DIGIT ONE}\N{FULLWIDTH DIGIT TWO}", 12),
        ("3 metres", 3),
        ("12 m\u00e8tres", 12),
        ("1200 cm", 12),
        ("12 m above ground", 12),
        ("40 ft", 12.192),
        ("40'", 12.192),
        ("40\N{RIGHT SINGLE QUOTATION MARK}", 12.192),
        ("40'6\"", 12.3444),
        ("40 ft 6", 12.3444),
        ("6 feet 6 in", 1.9812),
        ("40-45 ft", 42.5 * 0.3048),
        ("12-14", 13),
        ("12 to 14 m", 13),
        ("12;14", 14),
        ("12 / 15", 15),
        ("12 m; 30 ft", 12),
        ("1,200", 1200),
        ("1 200", 1200),
        ("4 levels", 13),
        ("3 \u00e9tages", 10),
        ("2 Stockwerke", 7),
        ("high", None),
        ("10 x 5", None),
        ("312 m \u00fc.M.", None),
        ("12 furlongs", None),
        ("-3", None),
        ("", None),
        (None, None),
        (float("nan"), None),
        (True, None),
    ],
)
def test_lengths(value: object, metres: float | None) -> None:
    np.testing.assert_allclose(parse_length(value), np.nan if metres is None else metres)


def test_a_text_without_a_unit_takes_that_of_its_column() -> None:
    feet = TextStyle("ft")
    np.testing.assert_allclose(parse_length("100", feet), 30.48)
    np.testing.assert_allclose(parse_length(100, feet), 30.48)
    np.testing.assert_allclose(parse_length("12 m", feet), 12)
    np.testing.assert_allclose(parse_length("4", TextStyle("level")), 13)


def test_what_a_comma_means() -> None:
    assert comma_is_decimal(["12,500", "8,250", "110,000"])
    assert not comma_is_decimal(["12,5", "12.5", "1,200"])
    assert not comma_is_decimal(["900", "850", "1,200"])
    np.testing.assert_allclose(parse_length("12,500", TextStyle(comma=True)), 12.5)


@pytest.mark.parametrize("value", [None, float("nan"), 0, "0", "-1", -9999.0, "N/A", "null", "?"])
def test_what_says_that_nothing_is_known(value: object) -> None:
    assert is_unknown(value)
    assert not is_unknown("tall")


@pytest.mark.parametrize(
    ("text", "metres"),
    [
        ("12 м", 12),
        ("12 метров", 12),
        ("12 メートル", 12),
        ("12米", 12),
        ("3 этажа", 10),
        ("4층", 13),
        ("4階建て", 13),
        ("12+", 12),
        ("12 m approx.", 12),
        ("12 m tall", 12),
        ("12 m 50", 12.5),
        ("12m05 cm", 12.05),
        ("10 yd", 9.144),
        ("2½ storeys", 8.5),
        ("2 1/2 storeys", 8.5),
        ("G+3", 13),
        ("R+4+C", 16),
        ("EG+2", 10),
        ("12 m 5", np.nan),
        ("3+1", np.nan),
        ("12 Ellen", np.nan),
    ],
)
def test_words_and_signs_of_other_places(text: str, metres: float) -> None:
    np.testing.assert_allclose(parse_length(text), metres)
