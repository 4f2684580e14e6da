"""How far two layers of a scene are apart: a picture from the heights, or land cover from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SEARCH = 8.0
"""Metres that are searched in each direction."""

CAPPED = 12.0
"""Metres from which on heights are alike, so that towers do not decide alone."""

LEAST_COLUMNS = 2500
"""Columns that have to be compared before a shift is believed: a wood's own shadows decide in a
small scene."""

LEAST_IOU = 0.3
"""Masks that agree less at best are not of the same things."""

LEAST_PEAK = 0.04
"""Correlation below which no shift is told: layers without common edges."""

PARTS = 2
"""A picture is also compared in so many parts along each edge."""


@dataclass(frozen=True)
class Shift:
    """Metres by which a layer lies east and north of where the heights have it.

    score : correlation of the edges there (or intersection over union of masks); at_zero : without
        the shift
    columns : that were compared
    """

    east: float
    north: float
    score: float
    at_zero: float
    columns: int

    @property
    def sure(self) -> bool:
        """Whether the score gains more by the shift than it would among unrelated layers: 2 /
        sqrt(n), where four columns count as one, for edges are some columns wide."""
        if self.columns < LEAST_COLUMNS:
            return False
        return (
            self.score - self.at_zero > 2 / np.sqrt(max(self.columns, 1) / 4)
            and self.score > LEAST_PEAK
        )

    @property
    def length(self) -> float:
        return float(np.hypot(self.east, self.north))


def image_shift(
    image: NDArray,
    height: NDArray,
    known: NDArray,
    voxel_size: float,
    search: float = SEARCH,
    limit: float | None = CAPPED,
) -> Shift | None:
    """How far a picture lies east and north of the edges of heights, or of another picture (laser
    intensity).

    The correlation of the strength of edges in both, over all whole shifts, and a parabola through
    the best and its neighbours. Strength and not direction, since a roof may be darker or brighter
    than the street. None where the layers have too few edges in common.

    image : (ny, nx, 3) uint8; height : (ny, nx) metres above the ground; known : (ny, nx) bool,
        where both are known
    limit : metres from which on heights are alike; None for what is no height
    """
    grey = image.astype(np.float32).mean(axis=2)
    edges = _edges(grey, known)
    capped = height if limit is None else np.minimum(height, limit)
    steps = _edges(capped.astype(np.float32), known)
    if edges is None or steps is None:
        return None
    return _peak(edges, steps, known, voxel_size, search)


def shifts_by_part(
    image: NDArray, height: NDArray, known: NDArray, voxel_size: float, limit: float | None = CAPPED
) -> list[Shift]:
    """`image_shift` of PARTS x PARTS parts of a scene, of those that have edges enough."""
    ny, nx = height.shape
    rows, cols = (
        np.linspace(0, ny, PARTS + 1).astype(int),
        np.linspace(0, nx, PARTS + 1).astype(int),
    )
    found = []
    for i in range(PARTS):
        for j in range(PARTS):
            part = slice(rows[i], rows[i + 1]), slice(cols[j], cols[j + 1])
            if min(rows[i + 1] - rows[i], cols[j + 1] - cols[j]) * voxel_size < 6 * SEARCH:
                continue
            if known[part].mean() < 0.5:
                continue
            shift = image_shift(image[part], height[part], known[part], voxel_size, limit=limit)
            if shift is not None:
                found.append(shift)
    return found


def mask_shift(
    mask: NDArray, tall: NDArray, known: NDArray, voxel_size: float, search: float = 4.0
) -> Shift | None:
    """How far a mask of buildings lies from where the heights are tall: the whole shift of the best
    IoU.

    mask, tall, known : (ny, nx) bool. None where one of the masks is empty, or they are not of the
        same things.
    """
    reach = max(round(search / voxel_size), 1)
    if not (mask & known).any() or not (tall & known).any() or min(mask.shape) <= 4 * reach:
        return None
    inner = slice(reach, -reach), slice(reach, -reach)
    best, zero = (0.0, 0, 0), 0.0
    target, sure = tall[inner], known[inner]
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            # The mask moved back by (right east, down south).
            moved = mask[
                reach + down : mask.shape[0] - reach + down,
                reach + right : mask.shape[1] - reach + right,
            ]
            both = (moved & target & sure).sum()
            either = ((moved | target) & sure).sum()
            score = float(both / max(either, 1))
            if score > best[0]:
                best = (score, right, down)
            if right == 0 and down == 0:
                zero = score
    if best[0] < LEAST_IOU:
        return None
    return Shift(best[1] * voxel_size, -best[2] * voxel_size, best[0], zero, int(sure.sum()))


def _edges(values: NDArray, known: NDArray) -> NDArray | None:
    """(ny, nx) float32: strength of edges, without those at the border of what is known; mean 0,
    deviation 1."""
    filled = np.where(known, values, values[known].mean() if known.any() else 0.0)
    smooth = ndimage.gaussian_filter(filled, 0.7)
    strength = np.hypot(ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1))
    inside = ndimage.binary_erosion(known, np.ones((5, 5)))
    if inside.sum() < 400:
        return None
    # Few strong edges must not decide alone.
    limit = np.percentile(strength[inside], 98)
    strength = np.where(inside, np.minimum(strength, limit), 0.0)
    mean, spread = strength[inside].mean(), strength[inside].std()
    if spread < 1e-6:
        return None
    return np.where(inside, (strength - mean) / spread, 0.0).astype(np.float32)


def _peak(
    edges: NDArray, steps: NDArray, known: NDArray, voxel_size: float, search: float
) -> Shift | None:
    reach = int(np.ceil(search / voxel_size)) + 1
    # Zero padding: no wrapping round.
    shape = tuple(n + reach for n in edges.shape)
    product = np.fft.irfft2(np.fft.rfft2(edges, shape) * np.conj(np.fft.rfft2(steps, shape)), shape)
    count = max(float(ndimage.binary_erosion(known, np.ones((5, 5))).sum()), 1.0)
    # Rows go south: entry [down, right] is the correlation with the picture lying that far south
    # and east.
    window = np.roll(product, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1] / count
    inner = window[1:-1, 1:-1]
    down, right = np.unravel_index(int(inner.argmax()), inner.shape)
    if inner[down, right] < LEAST_PEAK:
        return None
    row, col = int(down) + 1, int(right) + 1
    fine_row = row + _parabola(*(float(window[row + d, col]) for d in (-1, 0, 1)))
    fine_col = col + _parabola(*(float(window[row, col + d]) for d in (-1, 0, 1)))
    return Shift(
        (fine_col - reach) * voxel_size,
        -(fine_row - reach) * voxel_size,
        float(window[row, col]),
        float(window[reach, reach]),
        int(count),
    )


def _parabola(before: float, middle: float, after: float) -> float:
    """Where the parabola through three values peaks, from the middle one."""
    bend = before - 2 * middle + after
    return 0.0 if bend >= 0 else float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5))
