"""Lengths and numbers of levels in texts, as people write them into attributes.

"12 m", "12,5", "40'6\"", "1200 cm", "12 m 50", "ca. 12", "12-14", "12;14", "3 levels" and "G+2" are
understood, and "IV" and "2+1" in columns of levels; a text without a unit takes that of its column.
What is not understood is NaN, and never a guess.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import numpy as np

FOOT = 0.3048
UNITS = {
    "m": 1.0,
    "dm": 0.1,
    "cm": 0.01,
    "mm": 0.001,
    "in": FOOT / 12,
    "ft": FOOT,
    "us-ft": 1200 / 3937,
    "yd": 3 * FOOT,
}
"""Length in metres of each unit that a column can have."""

LEVEL = "level"
"""Unit of a number of levels."""

METRES_PER_LEVEL = 3.0
ROOF_METRES = 1.0
"""A building of n levels without a height is n x 3 m + 1 m tall."""

_SINGLE_WORDS = (
    "- -- ? . na n/a n.a. nan nil no none null <null> <na> nodata unknown unk unbekannt k.a. "
    "inconnu inconnue nc n.c. s/d onbekend tbd yes false"
)
UNKNOWN_WORDS = {"", "no data", "k. a.", "keine angabe", "sin dato", *_SINGLE_WORDS.split()}
"""Texts that say that nothing is known, so that they are not counted as unreadable."""

UNKNOWN_NUMBERS = {0.0, -1.0, -9.0, -99.0, -999.0, -9999.0, -99999.0, 9999.0, 99999.0}
"""Numbers that say that nothing is known."""

_WORDS = {
    "m": "m mt mts mtr mtrs meter meters metre metres metro metros metri metr metry metru metriä "
    "м метр метра метров 米 公尺 メートル 미터",
    "dm": "dm decimetre decimetres decimeter decimeters",
    "cm": "cm centimetre centimetres centimeter centimeters zentimeter",
    "mm": "mm millimetre millimetres millimeter millimeters",
    "ft": "ft foot feet ' pied pieds fuss",
    "in": "in inch inches \" ''",
    "us-ft": "us-ft usft ftus",
    "yd": "yd yds yard yards",
    LEVEL: "level levels lvl floor floors storey storeys story stories fl etage etages niveau "
    "niveaux geschoss geschosse geschoß stock stockwerk stockwerke vollgeschosse og verdieping "
    "verdiepingen bouwlaag bouwlagen piso pisos planta plantas piano piani andar andares vaning "
    "vaningar kondygnacje kerrosta nivel niveles niveis livelli podlazi pater patra этаж этажа "
    "этажей эт 层 層 階 階建 階建て 층",
}
_NUMBER = r"\d{1,3}(?:[,\s]\d{3})+(?:\.\d+)?(?!\d)|\d+(?:[.,]\d+)?(?:e[+-]?\d+)?|[.,]\d+"
_UNIT = r"[^\W\d_]+(?:-ft)?\.?|''|[\"']"
_PRIMES = str.maketrans("\u2019\u2032\u201d\u2033", "''\"\"")
_QUANTITY = re.compile(rf"\s*({_NUMBER})\s*({_UNIT})?\s*")
_APPROXIMATELY = re.compile(
    r"^(?:h(?:eight)?\s*[=:]|ca\.?|c\.|circa|cca\.?|approx(?:imately|\.)?|about|around|est\.?|env\."
    r"|environ|ungef(?:ahr|\.)|etwa|[~\u2248\u2243\u00b1+<>\u2264\u2265=]+)\s*"
)
_ASIDE = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_AFTER = re.compile(
    r"\s*(?:agl|a\.g\.l\.|above\s+ground(?:\s+level)?|uber\s+grund|hoch|tall|high|[+*?]|approx\.?"
    r"|approximately|est\.?|ca\.|circa|max\.?)$"
)
_GROUND_PLUS = re.compile(
    r"(?:b\d?\s*\+\s*)?(?:g|gf|r|rc|rdc|rez|eg|e|p|pb|pt|pr|bg|ground)\s*\+\s*(\d{1,2})"
    r"(?:\s*\+\s*[a-z]+)?"
)
_LEVELS_PLUS = re.compile(r"(.*?)\s*\+\s*(\d(?:[.,]\d)?|[a-z]+\.?)")
"""Levels, and an attic: "2+1", "II+D". Of an attic that is a letter nothing is counted."""

_ROMAN = re.compile(r"(?=[ivxl])(x[lc]|l?x{0,3})(ix|iv|v?i{0,3})")
_ROMAN_VALUES = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}
_HALVES = {"\u00bd": ".5", "\u00bc": ".25", "\u00be": ".75"}
_HALF = re.compile(r"(?<=\d)\s*(?:\s1/2|[\u00bd\u00bc\u00be])")
_RANGE = re.compile(r"\s*(?:-|\u2013|\u2014|\.\.\.?|\bto\b|\bbis\b|\btot\b|\ba\b)\s*")
_CHOICE = re.compile(r"\s*(?:[;/|]|\bor\b|\bou\b|\boder\b|\band\b|&)\s*")
_THOUSANDS = re.compile(r"\d{1,3}(?:[,\s]\d{3})+(?:\.\d+)?")


@dataclass(frozen=True)
class TextStyle:
    """How the texts of a column are to be read.

    Attributes
    ----------
    unit : str
        Unit of numbers without one, of `UNITS`, or `LEVEL`.
    comma : bool
        Whether "12,500" is 12.5 and not 12500.
    """

    unit: str = "m"
    comma: bool = False


METRES = TextStyle()
"""The style of a column in metres."""


def parse_length(value: object, style: TextStyle = METRES) -> float:
    """Return a length in metres from a number or a text, NaN if it is not one.

    Of a range ("12-14") the middle is taken, of a choice ("12;14") the largest. Levels become
    metres as `METRES_PER_LEVEL` and `ROOF_METRES` say.
    """
    return _metres(*parse_quantity(value, style))


def parse_quantity(value: object, style: TextStyle) -> tuple[float, str]:
    """Return a number and its unit, of `UNITS` or `LEVEL`; the number is NaN if there is none."""
    if isinstance(value, bool) or value is None:
        return np.nan, style.unit
    if isinstance(value, (int, float)):
        return float(value), style.unit
    text = _plain(_HALF.sub(_decimal_half, str(value)))
    storeys = _GROUND_PLUS.fullmatch(text)
    if storeys is not None:  # "G+3": the ground floor and three above it
        return float(storeys[1]) + 1, LEVEL
    if style.unit == LEVEL:
        text = _plain_levels(text)
    best, found = np.nan, style.unit
    unit: str | None = None
    for choice in reversed(_CHOICE.split(text)):  # the last may carry the unit of all
        number, unit = _range(choice, style, unit)
        if np.isnan(number):
            return np.nan, style.unit
        own = unit or style.unit
        if np.isnan(best) or _metres(number, own) > _metres(best, found):
            best, found = number, own
    return best, found


def _plain_levels(text: str) -> str:
    """Return a number of levels in digits: that of "IV", "II-III", "2+1" and "5F"."""
    added = 0.0
    plus = _LEVELS_PLUS.fullmatch(text)
    if plus is not None:
        text = plus[1]
        added = float(plus[2].replace(",", ".")) if plus[2][0].isdigit() else 0.0
    text = re.sub(r"(?<=\d)\s*f$", "", text)
    text = re.sub(r"[ivxlc]+", lambda match: _from_roman(match[0]), text) if _romans(text) else text
    try:
        return f"{float(text.replace(',', '.')) + added:g}" if added else text
    except ValueError:
        return f"{text} + {added:g}"  # not understood


def _romans(text: str) -> bool:
    """Return whether all words of a text are Roman numbers, such as "ii-iii"."""
    words = re.findall(r"[a-z]+", text)
    return bool(words) and all(_ROMAN.fullmatch(word) for word in words)


def _from_roman(text: str) -> str:
    values = [_ROMAN_VALUES[letter] for letter in text]
    after = [*values[1:], 0]
    return str(sum(-one if one < two else one for one, two in zip(values, after, strict=True)))


def is_unknown(value: object) -> bool:
    """Return whether a value says that nothing is known."""
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, (int, float)):
        return bool(np.isnan(value)) or float(value) in UNKNOWN_NUMBERS
    text = _folded(str(value))
    if text in UNKNOWN_WORDS:
        return True
    try:
        return float(text) in UNKNOWN_NUMBERS
    except ValueError:
        return False


def unit_of_word(word: str) -> str | None:
    """Return the unit that a word such as "feet" or "m" names, of `UNITS` or `LEVEL`."""
    return _UNIT_OF.get(_folded(word).rstrip("."))


def comma_is_decimal(values: list[object]) -> bool:
    """Return whether "12,500" among these values is 12.5 and not 12500.

    It is where most of the texts have a comma: thousands alone would have it only in the few
    values that are that large, and nothing above ground is.
    """
    texts = [_plain(str(value)) for value in values if isinstance(value, str)]
    texts = [text for text in texts if any(letter.isdigit() for letter in text)]
    with_comma = [text for text in texts if re.search(r"\d,\d{3}(?!\d)", text)]
    with_dot = any(re.search(r"\d\.\d", text) for text in texts)
    return bool(with_comma) and not with_dot and 2 * len(with_comma) > len(texts) > 1


def _metres(number: float, unit: str) -> float:
    if unit == LEVEL:
        return number * METRES_PER_LEVEL + ROOF_METRES
    return number * UNITS[unit]


def _range(text: str, style: TextStyle, unit: str | None) -> tuple[float, str | None]:
    """Return the middle of "12-14", or the number of "12"; `unit` is that of what follows."""
    ends = _RANGE.split(text)
    if len(ends) > 2 or not all(end.strip() for end in ends):
        return np.nan, unit
    numbers = []
    for end in reversed(ends):
        number, own = _single(end, style, unit)
        unit = own or unit
        numbers.append(number)
    return float(np.mean(numbers)), unit


def _single(text: str, style: TextStyle, unit: str | None) -> tuple[float, str | None]:
    """Return the number of "12", "12 m" or "40' 6\"", and the unit that it or `unit` gives."""
    text = _AFTER.sub("", _APPROXIMATELY.sub("", text.strip())).strip()
    first = _QUANTITY.match(text)
    if first is None:
        return np.nan, unit
    number, word = _number(first[1], style), (first[2] or "").rstrip(".")
    own = _UNIT_OF.get(word) if word else None
    if word and own is None:
        return np.nan, unit
    rest = text[first.end() :].strip(" .")
    if own == "in":
        return number / 12, "ft"
    if rest and own == "ft":
        second = _QUANTITY.fullmatch(rest)
        if second is None or _UNIT_OF.get((second[2] or "in").rstrip(".")) != "in":
            return np.nan, unit
        return number + _number(second[1], style) / 12, "ft"
    if rest and own == "m":  # "12 m 50"
        hundredths = re.fullmatch(r"(\d\d)(?:\s*cm)?", rest)
        return (number + float(hundredths[1]) / 100, "m") if hundredths else (np.nan, unit)
    return (np.nan, unit) if rest else (number, own or unit)


def _number(text: str, style: TextStyle) -> float:
    if _THOUSANDS.fullmatch(text) and not (style.comma and "," in text):
        return float(re.sub(r"[,\s]", "", text))
    return float(text.replace(",", "."))


def _decimal_half(match: re.Match[str]) -> str:
    return _HALVES.get(match[0].strip(), ".5")


def _plain(text: str) -> str:
    """Return a text in lower case without accents, wide digits, asides and outer spaces."""
    return _ASIDE.sub("", _folded(text)).strip()


def _folded(text: str) -> str:
    text = unicodedata.normalize("NFKD", text.translate(_PRIMES))
    text = "".join(letter for letter in text if not unicodedata.combining(letter))
    return " ".join(text.casefold().split())


_UNIT_OF = {_folded(word): unit for unit, words in _WORDS.items() for word in words.split()}
