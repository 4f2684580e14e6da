"""Texts of shapefiles that are not in the encoding which the file claims, or that claim none.

A .dbf without a .cpg is read as Latin-1, in which any bytes are letters. Such texts are decoded
again in the encodings of `ENCODINGS`; one is taken if it alone gives words, or words that a legend
knows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from geo_io.errors import InputError
from geo_io.vector.source import VectorSource

ENCODINGS = {
    "CP1252": "[\u00a0-\u00ff\u2013-\u2026\u20ac\u2122\u0152\u0153\u0160\u0161\u0178\u017d\u017e]",
    "CP932": "[\u3040-\u30ff\u4e00-\u9fff\uff10-\uff9f\u3000-\u303f\u2460-\u24ff]",
    "GB18030": "[\u4e00-\u9fff\u3000-\u303f\uff00-\uff65]",
    "CP950": "[\u4e00-\u9fff\u3000-\u303f\uff00-\uff65]",
    "CP949": "[\uac00-\ud7a3\u4e00-\u9fff]",
    "CP1251": "[\u0400-\u045f\u0490-\u0491\u2116\u00ab\u00bb]",
    "KOI8-R": "[\u0410-\u044f\u0401\u0451]",
    "CP1253": "[\u0384-\u03ce]",
    "CP1250": "[\u0100-\u017f\u00c0-\u00ff]",
    "CP1254": "[\u011e\u011f\u0130\u0131\u015e\u015f\u00c0-\u00ff]",
}
"""Encodings of shapefiles, and the letters beyond ASCII of the languages that they are used for."""

ODD = re.compile("[\x80-\x9f]")
"""Control characters of Latin-1: a text with one was written in another encoding."""

FOREIGN = re.compile(r"(?<![A-Za-z\u00a1-\u00ff])[\u00a1-\u00ff]{3,}(?![A-Za-z])")
"""Three letters or signs beyond ASCII and no other: a word of another alphabet, read as Latin-1."""

STRICT = {"CP932": "cp932", "GB18030": "gb2312", "CP950": "big5", "CP949": "euc_kr"}
"""Smaller sets of letters, which all common words have: the larger ones read most bytes."""

LATIN = re.compile("(?![\u00c0-\u017f]{3,}$).+")

RARE = ("CP1250", "CP1251", "CP866", "CP850", "CP852", "CP1254", "ISO-8859-2")
"""Encodings whose texts look like words of Latin-1 ("Straáe"): one is taken where a legend knows
more of its texts than of those of Latin-1."""

PROPER = {
    "CP1252": LATIN,
    "CP1250": LATIN,
    "CP1254": LATIN,
    "CP1251": re.compile("[\u0410-\u042f]?[\u0430-\u044f\u0451]+|[\u0410-\u042f\u0401]+"),
    "KOI8-R": re.compile("[\u0410-\u042f]?[\u0430-\u044f\u0451]+|[\u0410-\u042f\u0401]+"),
}
"""How words of an alphabet with cases look: a wrong table turns small letters into capitals."""

SAMPLE = 2000
"""Features whose texts are looked at."""


def with_encoding(
    source: VectorSource, known: Callable[[str], bool]
) -> tuple[VectorSource, InputError | None]:
    """Find the encoding of a source's texts, if it is not the one that it claims.

    Parameters
    ----------
    source : VectorSource
        Only shapefiles and .dbf tables can claim none.
    known : callable
        Whether a text is a value that a legend maps.

    Returns
    -------
    source : VectorSource
        With the encoding and a note, if one is found.
    doubt : InputError or None
        If none or several would do, and no legend knows a text in one of them alone. It is an error
        only if the texts matter.
    """
    path = (source.path or "").casefold()
    if not path.endswith((".shp", ".dbf", ".tab", ".mif")) and "/vsizip/" not in path:
        return source, None
    texts = _texts(source)
    raw = [_bytes(text) for text in texts]
    named = _by_words(texts, raw, known)
    if named is not None:
        note = f"its texts were read as {named}, which it does not declare: {_shown(raw, [named])}"
        return replace(source, encoding=named, notes=(*source.notes, note)), None
    odd = [data for data, text in zip(raw, texts, strict=True) if data and _is_odd(data, text)]
    control = any(ODD.search(text) for text in texts)
    if not odd or (not control and 2 * len(odd) < len(texts)):
        return source, None
    found = [name for name, letters in ENCODINGS.items() if _fits(odd, name, letters)]
    if len(found) > 1:
        mapped = {name: sum(known(data.decode(name)) for data in odd) for name in found}
        best = max(mapped.values())
        found = [name for name in found if mapped[name] == best] if best else found
        if best and len({tuple(data.decode(name) for data in odd) for name in found}) == 1:
            found = found[:1]
    if len(found) == 1:
        note = f"its texts were read as {found[0]}, which it does not declare: {_shown(odd, found)}"
        return replace(source, encoding=found[0], notes=(*source.notes, note)), None
    place = Path(source.origin or source.path or source.name).with_suffix(".cpg").name
    readings = _shown(odd, found) or "none that is known"
    doubt = InputError(
        f"the texts of {source.name} are not in the encoding that the file claims; they can be "
        f"{readings}",
        f"write the name of the right one, such as {(found or ['CP932'])[0]}, into a text file "
        f"{place} beside it",
    )
    return replace(source, notes=(*source.notes, f"{doubt.problem}; {doubt.remedy}")), doubt


def _by_words(texts: list[str], raw: list[bytes], known: Callable[[str], bool]) -> str | None:
    """Return the one of `RARE` in which a legend knows texts, if it knows none as they are."""
    if not texts or not all(raw) or any(known(text) for text in texts):
        return None
    mapped = {name: sum(known(data.decode(name, "replace")) for data in raw) for name in RARE}
    best = max(mapped.values())
    named = [name for name in RARE if mapped[name] == best] if best else []
    same = {tuple(data.decode(name, "replace") for data in raw) for name in named}
    return named[0] if len(same) == 1 else None


def _texts(source: VectorSource) -> list[str]:
    """Return the distinct texts of the first features that are not ASCII, sorted."""
    table = source.head(SAMPLE)
    columns = [table[name] for name in table.columns if table[name].dtype.kind in "OTU"]
    return sorted(
        {
            text
            for column in columns
            for text in column.dropna()
            if isinstance(text, str) and not text.isascii()
        }
    )


def _bytes(text: str) -> bytes:
    """Return the bytes of a text that was read as Latin-1; empty if it was not."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return b""


def _is_odd(data: bytes, text: str) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return bool(ODD.search(text) or FOREIGN.search(text))
    return False  # `legend.normalise` repairs it


def _fits(texts: Iterable[bytes], name: str, letters: str) -> bool:
    """Return whether all texts are words in an encoding."""
    for data in texts:
        try:
            text = data.decode(STRICT.get(name, name))
        except UnicodeDecodeError:
            return False
        beyond = [letter for letter in text if not letter.isascii()]
        if not all(re.match(letters, letter) for letter in beyond):
            return False
        words = re.findall(r"[^\W\d_]+", text)
        if name in PROPER and not all(
            word.isascii() or PROPER[name].fullmatch(word) for word in words
        ):
            return False
    return True


def _shown(texts: list[bytes], names: list[str]) -> str:
    return ", ".join(f"{texts[0].decode(name)!r} ({name})" for name in names[:4])
