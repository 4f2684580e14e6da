"""What a world's content depends on, but the place: compared when a world is gone on with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def differences(there: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The paths of the values that differ, with both values."""
    found = []
    for key in sorted({*there, *now}):
        old, new = there.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key} ({old} there, {new} now)")
    return found
