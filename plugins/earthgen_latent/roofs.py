"""The roof of each building, as the flow of heights is told: what the map says, else a draw."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from earthgen.models.roofs import FLAT, GABLED, HIPPED, LARGEST_SLOPE, LEAST_SLOPE
from earthgen.noise.philox import Noise
from earthgen_latent.usual_heights import uniform_of_mix
from geo_io.layers import ACROSS, ROOF_SHAPES, Buildings

SHARES_BY_AREA = (
    # Largest area, m2, then the shares of flat and of gabled roofs; the others are hipped.
    (35.0, 0.35, 0.45),
    (90.0, 0.25, 0.55),
    (300.0, 0.25, 0.50),
    (900.0, 0.55, 0.28),
    (np.inf, 0.80, 0.15),
)
"""Between what fits simulated towns (flat 0.19, gabled 0.55 of houses) and real ones of mostly
Mediterranean places (flat 0.7 and more of those that a roof fits)."""

SLOPES = (0.4, 0.9)
"""Range of the slopes of drawn roofs, metres a metre; the middle half of those that fit."""

LARGE, LARGE_SLOPES = 900.0, (0.16, 0.3)
"""Square metres from which a roof is that of a hall, and the range of its slope."""

TALLEST_PITCHED = 26.0
"""Metres; a taller building has a flat roof, unless the map says otherwise."""

FLAT_SHAPES = frozenset(("flat", "sawtooth"))
RIDGED_SHAPES = frozenset(("gabled", "half-hipped", "gambrel", "round", "saltbox"))
HIPPED_SHAPES = frozenset(
    ("hipped", "side-hipped", "pyramidal", "mansard", "dome", "onion", "cone")
)
"""Shapes of a map by the kind of roof that is told. Others (skillion, butterfly, complex) are left
to the flow."""

PRECISION = 0.1
"""Metres to which the depth of a footprint is computed."""

SETTLED = 0.7
"""Metres by which all differences from a told roof shrink, so that what is left is a dormer, a wing
or a step, and not the noise of a network that was trained for hours: roofs of real towns differ
from their planes in few places and much, generated ones everywhere and a little."""

EDGE_SAG = 0.3
"""Metres that a told roof may sag at the edge of its footprint. Surface models mix roof and ground
there, and networks learn it; a map says that the wall stands at the edge."""


def told_roofs(
    buildings: Buildings, height: NDArray, half: NDArray, district: NDArray, noise: Noise
) -> dict[str, NDArray]:
    """Return the roof of each building.

    Parameters
    ----------
    buildings : Buildings
        Whole footprints.
    height : NDArray (n,) float64
        Of the buildings, metres.
    half : NDArray (n, 2) float64
        Half length and half width of the footprints, metres.
    district : NDArray (n,) float64
        Numbers in [0, 1] that neighbours share.
    noise : Noise
        Keys what is drawn.

    Returns
    -------
    dict of NDArray (n,)
        "kind" int64, of `earthgen.models.roofs`, -1 where none is told; "slope", metres a metre,
        "depth", metres, as of `earthgen.models.roofs.roof_drop`; "turned" bool, where the ridge
        runs across the longer side.
    """
    form = buildings.form
    area = shapely.area(buildings.footprint)
    depth = shapely.length(shapely.maximum_inscribed_circle(buildings.footprint, PRECISION))
    limits, flat, gabled = np.array(SHARES_BY_AREA).T
    size = np.searchsorted(limits, area, side="left")
    keys = np.asarray(buildings.key, np.uint64)
    own = noise.stream("roof kinds").of_objects(keys)
    drawn = uniform_of_mix(own, district)
    kind = np.where(drawn < flat[size], FLAT, HIPPED)
    second = noise.stream("roof ridges").of_objects(keys) * (1 - flat[size])
    kind = np.where((kind == HIPPED) & (second < gabled[size]), GABLED, kind)
    kind = np.where(height > TALLEST_PITCHED, FLAT, kind)
    shape = np.array(ROOF_SHAPES)[form["roof"]]
    for names, number in ((FLAT_SHAPES, FLAT), (RIDGED_SHAPES, GABLED), (HIPPED_SHAPES, HIPPED)):
        kind = np.where(np.isin(shape, list(names)), number, kind)
    kind = np.where(np.isin(shape, ["skillion", "butterfly", "complex"]), -1, kind)

    turned = (form["roof_orientation"] == ACROSS) & (kind == GABLED)
    run = np.where(kind == GABLED, np.where(turned, half[:, 0], half[:, 1]), depth)
    low, high = np.where((area > LARGE)[:, None], LARGE_SLOPES, SLOPES).T
    steep = low + (high - low) * noise.stream("roof slopes").of_objects(keys)
    # Nothing but a roof is between the eaves and the top; two thirds of the height at most.
    steep = np.minimum(steep, 2 / 3 * height / np.maximum(run, 0.1))
    angle = np.tan(np.radians(form["roof_angle"].astype(np.float64)))
    rise = form["roof_height"].astype(np.float64)
    rise = np.where(np.isfinite(rise), rise, height - form["eaves"])
    told = np.where(np.isfinite(rise) & (rise > 0), rise / np.maximum(run, 0.1), angle)
    slope = np.where(np.isfinite(told), np.clip(told, 0.0, LARGEST_SLOPE), steep)
    kind = np.where((kind > FLAT) & (slope < LEAST_SLOPE), FLAT, kind)
    return {"kind": kind, "slope": slope, "depth": depth, "turned": turned}


def settle_roofs(height: NDArray, told: NDArray, roof: NDArray, border: NDArray) -> NDArray:
    """Return generated heights with told roofs as planes, and what differs much from them.

    Differences from a told roof are shrunk by a soft threshold (Donoho 1995, "De-noising by
    soft-thresholding").

    Parameters
    ----------
    height : NDArray (ny, nx) float32
        Metres above the ground.
    told, roof : NDArray (ny, nx) float32
        Height of the building, and how far its roof lies below it, metres; NaN where none is told.
    border : NDArray (ny, nx) bool
        Where a building ends.

    Returns
    -------
    NDArray (ny, nx) float32
        Metres; as they were where no roof is told.
    """
    surface = np.maximum(told - roof, 0)
    differs = height - surface
    rest = np.sign(differs) * np.maximum(np.abs(differs) - np.float32(SETTLED), 0)
    rest = np.where(border, np.maximum(rest, np.float32(-EDGE_SAG)), rest)
    return np.where(np.isfinite(roof), surface + rest, height).astype(np.float32)
