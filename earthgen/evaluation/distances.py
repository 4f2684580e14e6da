"""Distances between distributions of features: Frechet, and the unbiased kernel distance with a
confidence interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geo_io.errors import InputError

Kernel = Callable[[NDArray, NDArray], NDArray]
"""(n, d), (m, d) -> (n, m) float64."""

NORMAL_95 = 1.959963984540054
"""Standard errors either side of the mean that hold 95 % of a normal distribution."""


def frechet_of_normals(
    mean: NDArray, covariance: NDArray, other_mean: NDArray, other_covariance: NDArray
) -> float:
    """Squared Frechet (Wasserstein-2) distance of two normal distributions (Dowson and Landau
    1982).

    mean : (d,); covariance : (d, d), symmetric, no negative eigenvalues
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
    """Squared Frechet distance of normal distributions fitted to (n, d) and (m, d) features (Heusel
    et al. 2017).

    With few samples it is too large: two samples of one distribution are some d / n apart. Compare
    numbers of one n only, and with what two halves of the truth give.

    Raises InputError for fewer than two samples.
    """
    a, b = _checked(one, 2), _checked(other, 2)
    if a.shape[1] > len(a) + len(
        b
    ):  # nothing is lost in the space that the samples span, and it is smaller
        a, b = _in_their_span(a, b)
    return frechet_of_normals(
        a.mean(0),
        np.atleast_2d(np.cov(a, rowvar=False)),
        b.mean(0),
        np.atleast_2d(np.cov(b, rowvar=False)),
    )


def _in_their_span(a: NDArray, b: NDArray) -> tuple[NDArray, NDArray]:
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
    """(x y / d + 1)^3: the kernel of KID (Binkowski et al., "Demystifying MMD GANs", ICLR 2018)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def gaussian(bandwidth: float) -> Kernel:
    """exp(-|x - y|^2 / (2 bandwidth^2))."""

    def kernel(x: NDArray, y: NDArray) -> NDArray:
        square = (x * x).sum(1)[:, None] + (y * y).sum(1)[None] - 2 * x @ y.T
        return np.exp(-np.clip(square, 0, None) / (2 * bandwidth**2))

    return kernel


def median_distance(samples: NDArray) -> float:
    """The median of the distances between (n, d) samples, a usual bandwidth; 1 where it is 0."""
    a = _checked(samples, 2)
    square = (a * a).sum(1)[:, None] + (a * a).sum(1)[None] - 2 * a @ a.T
    pairs = np.sqrt(np.clip(square[np.triu_indices(len(a), 1)], 0, None))
    return float(np.median(pairs)) or 1.0


def kernel_distance(one: NDArray, other: NDArray, kernel: Kernel = polynomial) -> Estimate:
    """Squared maximum mean discrepancy of (n, d) and (m, d) samples (Gretton et al., JMLR 2012),
    unbiased.

    Unbiased means: about 0 on average for samples of one distribution, and often a little below it.
    For n = m the samples may be in pairs, such as a place and the world made for it: the
    U-statistic of Gretton's lemma 6 leaves the pairs out, which are not independent. The interval
    is the jackknife's, over pairs, or over samples of both.

    Raises InputError for fewer than three samples.
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
    """A number and its interval, from what it is without each sample, for one or more
    independent sets of samples."""
    variance = sum((len(v) - 1) / len(v) * float(np.square(v - v.mean()).sum()) for v in left_out)
    reach = NORMAL_95 * float(np.sqrt(variance))
    return Estimate(float(value), float(value) - reach, float(value) + reach)


def _checked(samples: NDArray, least: int) -> NDArray:
    if samples.ndim != 2 or len(samples) < least:
        raise InputError(
            f"{len(samples)} samples tell nothing of a distribution",
            f"give at least {least}, such as more --crops",
        )
    return samples.astype(np.float64)
