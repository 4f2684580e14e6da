"""What a world's content depends on, but the place: compared when a world is gone on with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from earthgen.errors import StoreError

if TYPE_CHECKING:
    from earthgen.jobs.prepare import PreparedJob
    from earthgen.world.store import Store


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


def changes(store: Store, plan: PreparedJob) -> list[str]:
    """What a plan would make of other things, or elsewhere, than a world is."""
    found = differences(store.identity, plan.identity)
    if store.frame != plan.frame:
        found.append(f"extent ({store.frame} there, {plan.frame} now)")
    return found


def require_none(store: Store, changed: list[str], verb: str, remedy: str) -> None:
    """Raise StoreError if something changed: names it, and says what cannot be done with the
    world."""
    if changed:
        raise StoreError(f"{store.path} cannot be {verb}: {'; '.join(changed)} changed", remedy)
