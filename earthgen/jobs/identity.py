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
    differing = named_differences(store, prepared)
    if store.frame != prepared.frame:
        differing.append(f"extent ({store.frame} before, {prepared.frame} now)")
    return differing


def named_differences(store: Store, prepared: PreparedJob) -> list[str]:
    """Return how the identity of a prepared job differs from that of a world, with the names of
    the files of inputs that changed."""
    before, now = (
        each.get("inputs", {})
        for each in (dict(store.root.attrs["earthgen"]).get("provenance", {}), prepared.provenance)
    )
    differing = []
    for text in differences(store.identity, prepared.identity):
        name = text.partition(" ")[0].removeprefix("inputs.")
        changed = _changed_files(before.get(name, []), now.get(name, []))
        shown = text if not text.startswith("inputs.") or not changed else f"{text}: "
        differing.append(shown + ", ".join(changed if shown != text else []))
    return differing


def _changed_files(before: Any, now: Any) -> list[str]:
    """Return the files of an input that changed, from what a provenance says of its sources."""
    names = []
    for old, new in zip(before, now, strict=False):
        if old.get("digest") == new.get("digest"):
            continue
        parts, others = old.get("files", {}), new.get("files", {})
        changed = [
            part for part in sorted({*parts, *others}) if parts.get(part) != others.get(part)
        ]
        source = str(new.get("source", ""))
        names += [f"{part} of {source}" for part in changed] if parts and changed else [source]
    return names


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
