"""Realism: distances between the features of made and true patches, by geometry and by pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen.evaluation.distances import (
    FRECHET_SAMPLES,
    Kernel,
    frechet,
    gaussian,
    interval_over_places,
    kernel_distance,
    median_distance,
    polynomial,
)
from earthgen.evaluation.geometry_features import geometry_features, standardise
from earthgen.evaluation.patch import Patch

LEAST = 4
"""Least number of patches for a distance; reliable distances need many more."""

KINDS = ("geometry", "clay_above", "clay_oblique", "colour_above")
"""Sets of features: statistics of the geometry, pictures of geometry and classes, and pictures in
colour."""

Features = dict[str, NDArray]
"""(d,) of one patch or (n, d) of several, by kind; a kind may be missing."""


def features_of(patch: Patch, known: NDArray | None, images: bool) -> Features:
    """Compute all features of one patch.

    Parameters
    ----------
    patch : Patch
        The patch.
    known : NDArray (ny, nx) bool | None
        Columns whose colours are compared, None for none of them.
    images : bool
        Whether pictures are compared.
    """
    features: Features = {"geometry": geometry_features(patch)}
    if images:
        from earthgen.evaluation.views import clay, picture, views
        from earthgen.models.image_features import image_features

        cameras, shaded = views(patch), clay(patch)
        for name, camera in cameras.items():
            features[f"clay_{name}"] = image_features([picture(patch, shaded, camera)])[0]
        if known is not None and patch.splats is not None:
            part = picture(patch.only(known), patch.splats, cameras["above"])
            features["colour_above"] = image_features([part])[0]
    return features


def realism(
    rows: Sequence[Features], truth: Sequence[Features], places: Sequence[int] | None = None
) -> dict[str, Any]:
    """Compute the distances of made patches from the truth.

    They are called KIND_kernel, with its interval over places, and KIND_frechet, for each kind of
    features. Kinds with too few patches are left out, and Fréchet distances of fewer than
    `FRECHET_SAMPLES` patches per feature.

    Geometry is normalised by the deviations of the truth and compared by a Gaussian kernel with the
    median distance of true patches as its bandwidth; pictures are compared by the polynomial kernel
    of KID.

    Parameters
    ----------
    rows : Sequence[Features]
        Features of each made patch.
    truth : Sequence[Features]
        Features of each true patch.
    places : Sequence[int] | None
        Number of the place of each patch; by default each is a place of its own.
    """
    numbers = list(range(len(rows))) if places is None else list(places)
    every = list(range(len(rows)))
    return _distances((rows, every), (truth, every), truth, numbers)


def halves(count: int, seed: int) -> tuple[list[int], list[int]]:
    """Draw two halves of `count` patches; one is left out of an odd number."""
    order = np.random.default_rng([seed, count]).permutation(count).tolist()
    return sorted(order[: count // 2]), sorted(order[count // 2 : count // 2 * 2])


def truth_halves(
    truth: Sequence[Features], seed: int, places: Sequence[int] | None = None
) -> dict[str, Any]:
    """Compute the same distances between two halves of the truth, which no backend can beat.

    Parameters
    ----------
    truth : Sequence[Features]
        Features of each true patch.
    seed : int
        Key of the draw of the halves.
    places : Sequence[int] | None
        As for `realism`.
    """
    numbers = list(range(len(truth))) if places is None else list(places)
    one, other = halves(len(truth), seed)
    return _distances((truth, one), (truth, other), truth, numbers)


Chosen = tuple[Sequence[Features], Sequence[int]]
"""Features of patches, and the positions of those that count."""


def _distances(
    made: Chosen, true: Chosen, scale: Sequence[Features], places: Sequence[int]
) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for kind in KINDS:
        (a, at), (b, bt) = (_of_kind(rows, kind, chosen) for rows, chosen in (made, true))
        if min(len(a), len(b)) < LEAST:
            continue
        kernel: Kernel = polynomial
        if kind == "geometry":
            whole = _of_kind(scale, kind, range(len(scale)))[0]
            a, b, whole = (standardise(values, whole) for values in (a, b, whole))
            kernel = gaussian(median_distance(whole))
        value = kernel_distance(a, b, kernel).value
        ends = interval_over_places(value, _left_out((a, at), (b, bt), kernel, places))
        out[f"{kind}_kernel"] = {
            "value": value,
            "low": None if ends is None else ends[0],
            "high": None if ends is None else ends[1],
        }
        if min(len(a), len(b)) >= FRECHET_SAMPLES * a.shape[1]:
            out[f"{kind}_frechet"] = frechet(a, b)
        out[f"{kind}_samples"] = len(a)
    return out


def _of_kind(
    rows: Sequence[Features], kind: str, chosen: Sequence[int]
) -> tuple[NDArray, list[int]]:
    """Return the features of the chosen patches that have a kind, and their positions."""
    at = [number for number in chosen if kind in rows[number]]
    return (np.stack([rows[number][kind] for number in at]) if at else np.zeros((0, 1))), at


def _left_out(
    one: tuple[NDArray, list[int]],
    other: tuple[NDArray, list[int]],
    kernel: Kernel,
    places: Sequence[int],
) -> list[float]:
    """Return the kernel distance without each place, NaN where too few patches are left."""
    values = []
    for place in sorted({places[number] for number in (*one[1], *other[1])}):
        a, b = (
            rows[[places[number] != place for number in numbers]] for rows, numbers in (one, other)
        )
        enough = min(len(a), len(b)) >= 3
        values.append(kernel_distance(a, b, kernel).value if enough else float("nan"))
    return values
