"""Distances between distributions of features: Fréchet, and the unbiased kernel distance with a
confidence interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geo_io.errors import InputError

Kernel = Callable[[NDArray, NDArray], NDArray]
"""(n, d), (m, d) -> (n, m) float64."""

NORMAL_95 = 1.959963984540054
"""Half width of the interval that holds 95 % of a normal distribution, in standard deviations."""

FRECHET_SAMPLES = 5
"""Samples per feature from which a Fréchet distance is given. Heusel et al. advise at least 10,000
for 2,048 features; with fewer the covariance is not of full rank, and the bias hides the rest."""


def frechet_of_normals(
    mean: NDArray, covariance: NDArray, other_mean: NDArray, other_covariance: NDArray
) -> float:
    """Compute the squared Fréchet (Wasserstein-2) distance of two normal distributions (Dowson and
    Landau 1982).

    Parameters
    ----------
    mean, other_mean : NDArray (d,)
        Means.
    covariance, other_covariance : NDArray (d, d)
        Symmetric, without negative eigenvalues.
    """
    difference = mean - other_mean
    # tr (A B)^(1/2) by the symmetric sqrt(A) B sqrt(A), whose eigenvalues are real and not
    # negative.
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ other_covariance @ root)
    trace = (
        np.trace(covariance)
        + np.trace(other_covariance)
        - 2 * np.sqrt(np.clip(inner, 0, None)).sum()
    )
    return float(difference @ difference + max(trace, 0.0))


def frechet(one: NDArray, other: NDArray) -> float:
    """Compute the squared Fréchet distance of normal distributions fitted to samples (Heusel et al.
    2017).

    It is biased upwards with few samples: two samples of one distribution are about d / n apart.
    Compare only numbers with the same n, and with the distance between two halves of the truth.

    Parameters
    ----------
    one, other : NDArray (n, d), (m, d)
        Features.

    Raises
    ------
    InputError
        for fewer than two samples
    """
    a, b = _checked(one, 2), _checked(other, 2)
    if a.shape[1] > len(a) + len(b):
        a, b = _in_their_span(a, b)
    return frechet_of_normals(
        a.mean(0),
        np.atleast_2d(np.cov(a, rowvar=False)),
        b.mean(0),
        np.atleast_2d(np.cov(b, rowvar=False)),
    )


def _in_their_span(a: NDArray, b: NDArray) -> tuple[NDArray, NDArray]:
    """Express samples in the space that they span, where distances are the same."""
    whole = np.concatenate([a, b])
    whole = whole - whole.mean(0)
    left, sizes, _ = np.linalg.svd(whole, full_matrices=False)
    flat = left * sizes
    return flat[: len(a)], flat[len(a) :]


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


def polynomial(x: NDArray, y: NDArray) -> NDArray:
    """Evaluate the kernel (x · y / d + 1)³ of KID (Binkowski et al., "Demystifying MMD GANs", ICLR
    2018).
    """
    return (x @ y.T / x.shape[1] + 1) ** 3


def gaussian(bandwidth: float) -> Kernel:
    """Make the kernel exp(-|x - y|² / (2 bandwidth²))."""

    def kernel(x: NDArray, y: NDArray) -> NDArray:
        square = (x * x).sum(1)[:, None] + (y * y).sum(1)[None] - 2 * x @ y.T
        return np.exp(-np.clip(square, 0, None) / (2 * bandwidth**2))

    return kernel


def median_distance(samples: NDArray) -> float:
    """Return the median distance between (n, d) samples, a usual bandwidth, or 1 if it is 0."""
    a = _checked(samples, 2)
    square = (a * a).sum(1)[:, None] + (a * a).sum(1)[None] - 2 * a @ a.T
    pairs = np.sqrt(np.clip(square[np.triu_indices(len(a), 1)], 0, None))
    return float(np.median(pairs)) or 1.0


def kernel_distance(one: NDArray, other: NDArray, kernel: Kernel = polynomial) -> Estimate:
    """Estimate the squared maximum mean discrepancy of two samples (Gretton et al., JMLR 2012).

    The estimate is unbiased: for samples of one distribution it is 0 on average, and often slightly
    negative. For n = m the samples may be pairs, such as a place and the world made for it: the
    U-statistic of Gretton's lemma 6 leaves out the pairs, which are not independent. The interval
    is from the jackknife, over pairs, or over the samples of both.

    Parameters
    ----------
    one, other : NDArray (n, d), (m, d)
        Features.
    kernel : Kernel
        A function of (n, d) and (m, d) features that returns (n, m) values.

    Raises
    ------
    InputError
        for fewer than three samples
    """
    a, b = _checked(one, 3), _checked(other, 3)
    if len(a) == len(b):
        h = kernel(a, a) + kernel(b, b) - kernel(a, b) - kernel(a, b).T
        np.fill_diagonal(h, 0.0)
        n, total, rows = len(a), h.sum(), h.sum(1)
        left_out = (total - 2 * rows) / ((n - 1) * (n - 2))
        return jackknife(total / (n * (n - 1)), [left_out])
    aa, bb, ab = kernel(a, a), kernel(b, b), kernel(a, b)
    np.fill_diagonal(aa, 0.0)
    np.fill_diagonal(bb, 0.0)
    n, m = len(a), len(b)
    sum_a, sum_b, sum_ab = aa.sum(), bb.sum(), ab.sum()

    def value(sa: NDArray, sb: NDArray, sab: NDArray, n: int, m: int) -> NDArray:
        return np.asarray(sa / (n * (n - 1)) + sb / (m * (m - 1)) - 2 * sab / (n * m))

    without_a = value(sum_a - 2 * aa.sum(1), sum_b, sum_ab - ab.sum(1), n - 1, m)
    without_b = value(sum_a, sum_b - 2 * bb.sum(1), sum_ab - ab.sum(0), n, m - 1)
    return jackknife(float(value(sum_a, sum_b, sum_ab, n, m)), [without_a, without_b])


def jackknife(value: float, left_out: list[NDArray]) -> Estimate:
    """Make an estimate from a value and its values without each sample.

    Parameters
    ----------
    value : float
        With all samples.
    left_out : list[NDArray (n,)]
        Values without each sample, for one or more independent sets of samples.
    """
    variance = sum((len(v) - 1) / len(v) * float(np.square(v - v.mean()).sum()) for v in left_out)
    reach = NORMAL_95 * float(np.sqrt(variance))
    return Estimate(float(value), float(value) - reach, float(value) + reach)


def interval_over_places(value: float, left_out: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of a value by the jackknife over places (Tukey 1958; Efron and Stein
    1981).

    Columns and crops of one place are alike, so places are what is sampled. With n places, and the
    value v_i without the i-th, the variance is (n - 1) / n times the sum of (v_i - mean v)², and
    the interval reaches the 97.5 % quantile of Student's t of n - 1 degrees of freedom to both
    sides.

    Parameters
    ----------
    value : float
        Over all places.
    left_out : Sequence[float]
        Without each place; NaN where nothing is left, which is not counted.

    Returns
    -------
    tuple[float, float] | None
        None for fewer than two places.
    """
    from scipy.stats import t

    known = np.array([each for each in left_out if np.isfinite(each)])
    count = len(known)
    if count < 2 or not np.isfinite(value):
        return None
    variance = (count - 1) / count * float(np.square(known - known.mean()).sum())
    reach = float(t.ppf(0.975, count - 1)) * float(np.sqrt(variance))
    return value - reach, value + reach


def over_places(
    figures: Callable[[list[int]], Mapping[str, float]], places: Sequence[int]
) -> tuple[dict[str, float], dict[str, tuple[float, float] | None]]:
    """Compute figures of crops, and their intervals over places.

    Parameters
    ----------
    figures : Callable[[list[int]], Mapping[str, float]]
        The figures of some crops, given by their positions.
    places : Sequence[int]
        Number of the place of each crop.

    Returns
    -------
    tuple[dict[str, float], dict[str, tuple[float, float] | None]]
        Values over all crops, and the ends of their intervals, by name.
    """
    every = list(range(len(places)))
    values = dict(figures(every))
    names = sorted(set(places))
    rows = (
        [dict(figures([n for n in every if places[n] != name])) for name in names]
        if len(names) > 1
        else []
    )
    intervals = {
        key: interval_over_places(value, [row.get(key, float("nan")) for row in rows])
        for key, value in values.items()
    }
    return values, intervals


def _checked(samples: NDArray, least: int) -> NDArray:
    if samples.ndim != 2 or len(samples) < least:
        raise InputError(
            f"{len(samples)} samples are too few for a distance of distributions",
            f"give at least {least}, such as more --crops",
        )
    return samples.astype(np.float64)
