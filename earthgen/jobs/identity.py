"""Comparison of a world's identity with a job's, before the world is resumed or extended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from earthgen.errors import StoreError

if TYPE_CHECKING:
    from earthgen.jobs.job import Job
    from earthgen.jobs.prepare import PreparedJob
    from earthgen.world.store import Store


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the paths of the values that differ, with both values."""
    differing = []
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            differing += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            differing.append(f"{prefix}{key} ({old} before, {new} now)")
    return differing


MACHINE_OPTIONS = ("precision",)
"""Options of backends whose default depends on the machine (`Backend.chosen`)."""


def with_machine_options(job: Job, identity: Mapping[str, Any]) -> Job:
    """Return a job with those options of a world whose default depends on the machine.

    A world that is continued elsewhere keeps what was chosen where it was begun.

    Parameters
    ----------
    job : Job
    identity : mapping
        Of the world.
    """
    update = {}
    for kind in ("geometry", "texture"):
        name = f"{kind}_options"
        given, stored = getattr(job, name), identity.get(kind, {}).get("options", {})
        kept = {
            option: stored[option]
            for option in MACHINE_OPTIONS
            if option in stored and given.get(option, "auto") == "auto"
        }
        update[name] = {**given, **kept}
    return job.model_copy(update=update)


def changes(store: Store, prepared: PreparedJob) -> list[str]:
    """Return how the identity and extent of a prepared job differ from those of a world."""
    differing = differences(store.identity, prepared.identity)
    if store.frame != prepared.frame:
        differing.append(f"extent ({store.frame} before, {prepared.frame} now)")
    return differing


def require_unchanged(store: Store, changed: list[str], verb: str, remedy: str) -> None:
    """Raise StoreError if something changed.

    Parameters
    ----------
    store : Store
    changed : list of str
        What `changes` or `differences` returned.
    verb : str
        What cannot be done with the world: "resumed".
    remedy : str
    """
    if changed:
        raise StoreError(f"{store.path} cannot be {verb}: {'; '.join(changed)} changed", remedy)
