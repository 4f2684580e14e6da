"""The structures of a window: chosen, with the heights of those that hang."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_io.frame import Bounds, Frame
from geo_io.legend import codes
from geo_io.semantics.structures.beds import bed_profile
from geo_io.semantics.structures.decks import Decks
from geo_io.semantics.structures.reach import AROUND, RAMP
from geo_io.semantics.structures.things import Things
from geo_io.structures import KIND, Profile, Structures, no_structures

SAG = 0.9
"""Share of the height of a support at which its cables hang."""


def structures_in(
    window: Frame,
    ways: Callable[[Bounds], Things],
    decks: Decks,
    heights: Callable[[NDArray], NDArray] | None,
) -> Structures:
    """Return the structures in and around a window that its voxels can show.

    Parameters
    ----------
    window : Frame
        The window.
    ways : callable
        Finds structures of all sources.
    decks : Decks
        Heights of bridges.
    heights : callable or None
        Heights of the ground at places (n, 2), metres.
    """
    near = ways(_padded(window.bounds, AROUND))
    far = ways(_padded(window.bounds, AROUND + RAMP))
    bridges = far.take(far.form["kind"] == KIND["deck"])
    seen = (near.form["kind"] > 0) & (near.form["kind"] != KIND["tunnel"])
    here = near.take(seen & (near.form["finest"] >= window.voxel_size))
    if not len(here) and not len(bridges):
        return no_structures()
    own = here.form["kind"] != KIND["deck"]
    rows: list[tuple[Any, Any, Profile | None, NDArray, int]] = []
    kept = here.take(own)
    rail, around = codes()["rail"], _padded(window.bounds, AROUND)
    for shape, form, key in zip(kept.shape, kept.form, kept.key.tolist(), strict=True):
        profile = None
        if form["kind"] == KIND["cable"]:
            profile = _cable(shape, float(form["height"]), heights)
        elif form["kind"] == KIND["way"] and form["cover"] == rail and heights is not None:
            profile = bed_profile(shape, around, heights)
        rows.append((shape, None, profile, form, key))
    area = shapely.box(*_padded(window.bounds, AROUND))
    shapely.prepare(area)
    ramps = {}
    for shape, form, key in zip(bridges.shape, bridges.form, bridges.key.tolist(), strict=True):
        deck = decks.of(shape, form)
        if shapely.intersects(area, shape):
            rows.append((shape, deck.axis, deck.profile, form, key))
        for ramp in deck.ramps:
            if shapely.intersects(area, ramp.line):
                ramps[bytes(shapely.to_wkb(ramp.line)), float(ramp.profile.rise.max())] = ramp
    for ramp in ramps.values():
        rows.append((ramp.line, ramp.line, ramp.profile, ramp.form, ramp.key))
    if not rows:
        return no_structures()
    shapes, axes, profiles = (_objects([row[n] for row in rows]) for n in range(3))
    forms = np.array([row[3] for row in rows], near.form.dtype)
    keys = np.array([row[4] for row in rows], np.uint64)
    text = shapely.to_wkb(shapes)
    order = sorted(
        range(len(rows)), key=lambda k: (int(forms["kind"][k]), int(keys[k]), bytes(text[k]))
    )
    return Structures(shapes, axes, profiles, forms, keys).take(np.array(order, np.int64))


def _cable(
    line: shapely.LineString, height: float, heights: Callable[[NDArray], NDArray] | None
) -> Profile:
    xy = shapely.get_coordinates(line)
    at = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(xy, axis=0).T))])
    level = np.full(len(xy), np.nan) if heights is None else heights(xy)
    return Profile(at, xy, level, at, np.full(len(at), SAG * height))


def _objects(values: list[object]) -> NDArray:
    out = np.empty(len(values), object)
    for n, value in enumerate(values):
        out[n] = value
    return out


def _padded(bounds: Bounds, by: float) -> Bounds:
    return bounds[0] - by, bounds[1] - by, bounds[2] + by, bounds[3] + by
