"""Mutations of files: of bytes, and of the values of JSON, TOML, YAML and text.

They are random by a seed, so that a finding can be made again.
"""

from __future__ import annotations

import json
import random
import re
from typing import Any

NUMBERS = (
    b"0",
    b"-1",
    b"1e308",
    b"-1e308",
    b"1e18",
    b"NaN",
    b"Infinity",
    b"4294967295",
    b"9223372036854775808",
    b"9" * 400,
    b"9" * 5000,
)
"""Texts that stand in for a number."""

VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**31,
    2**63,
    10**400,
    1e308,
    1e18,
    0.5,
    "",
    "a",
    "\x1b[2J",
    "../../etc/passwd",
    "/etc/passwd",
    "http://127.0.0.1:9/a",
    "a" * 5000,
    [],
    {},
    [[]],
)
"""Values that stand in for one in JSON."""

BINARY_KINDS = (0, 5, 6, 7, 8, 8, 8, 9, 9, 9)
"""Kinds of changes to files that are no text: what has another length is soon no file at all."""

NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")


def mutated(data: bytes, dice: random.Random, others: list[bytes]) -> bytes:
    """Return the content of a file with one to four changes.

    Parameters
    ----------
    data : bytes
    dice : random.Random
    others : list of bytes
        Other files of the format, from which pieces are taken.
    """
    for _ in range(dice.choice((1, 1, 1, 1, 2, 2, 3, 4))):
        data = _once(data, dice, others)
    return data


def _once(data: bytes, dice: random.Random, others: list[bytes]) -> bytes:
    binary = b"\0" in data[:1024]
    kind = dice.choice(BINARY_KINDS) if binary else dice.randrange(10)
    if dice.random() < 0.7:
        inner = _framed(data)
        if inner is not None:
            before, text, after = inner
            return _reframed(before, mutated(text, dice, []), after)
    if data[:1] in (b"{", b"[") and dice.random() < 0.7:  # flipped bits are soon no text
        changed = _json(data, dice)
        if changed is not None:
            return changed
    if kind <= 4:
        places = list(NUMBER.finditer(data[: 2**16]))
        if places:
            place = dice.choice(places)
            return data[: place.start()] + dice.choice(NUMBERS) + data[place.end() :]
    if not data:
        return dice.randbytes(dice.randint(1, 64))
    at = dice.randrange(len(data))
    size = min(dice.choice((1, 1, 2, 4, 8, 64, 1024)), len(data) - at)
    if kind == 5:  # cut off
        return data[:at]
    if kind == 6:  # left out, or twice
        piece = data[at : at + size]
        return data[:at] + piece * dice.choice((0, 2, 50)) + data[at + size :]
    if kind == 7 and others:
        other = dice.choice(others)
        start = dice.randrange(len(other)) if other else 0
        return data[:at] + other[start : start + size] + data[at + size :]
    if kind == 8:  # a number of a binary format
        width = dice.choice((2, 4, 8))
        value = dice.choice((0, 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1))
        raw = value.to_bytes(width, dice.choice(("little", "big")))
        return data[:at] + raw + data[at + width :]
    flipped = bytearray(data)
    for place in range(at, at + min(size, 8)):
        flipped[place] ^= 1 << dice.randrange(8)
    return bytes(flipped)


def _framed(data: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Return what lies before, in and after the JSON of a file whose head holds its length.

    These are glTF's binary form (glTF 2.0, 4.4) and safetensors. Without its length mended, such a
    file would be refused before its values are looked at.
    """
    if data[:4] == b"glTF" and data[16:20] == b"JSON":
        end = 20 + int.from_bytes(data[12:16], "little")
        return data[:20], data[20:end], data[end:]
    length = int.from_bytes(data[:8], "little")
    if data[8:9] == b"{" and 2 <= length <= len(data) - 8:
        return data[:8], data[8 : 8 + length], data[8 + length :]
    return None


def _reframed(before: bytes, text: bytes, after: bytes) -> bytes:
    if len(before) == 8:
        return len(text).to_bytes(8, "little") + text + after
    text += b" " * (-len(text) % 4)
    whole = (len(before) + len(text) + len(after)).to_bytes(4, "little")
    return before[:8] + whole + len(text).to_bytes(4, "little") + before[16:] + text + after


def _json(data: bytes, dice: random.Random) -> bytes | None:
    """Return JSON with one value replaced, left out, or buried deep; None if it is not JSON."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    holders: list[tuple[Any, Any]] = []
    waiting = [document]
    while waiting and len(holders) < 5000:
        item = waiting.pop()
        pairs = item.items() if isinstance(item, dict) else enumerate(item)
        for key, value in pairs:
            holders.append((item, key))
            if isinstance(value, dict | list):
                waiting.append(value)
    if not holders:
        return None
    holder, key = dice.choice(holders)
    what = dice.randrange(4)
    if what == 0:
        del holder[key]
    elif what == 1 and dice.random() < 0.1:
        text = json.dumps(document).encode()
        return text.replace(b"[", b"[" * 3000, 1)
    else:
        holder[key] = dice.choice(VALUES)
    try:
        return json.dumps(document).encode()
    except ValueError:
        return None
