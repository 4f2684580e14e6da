"""Shifts between two layers of a scene: of a picture, or of land cover, from the heights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SEARCH = 8.0
"""Largest shift that is searched for in each direction, metres."""

CAPPED = 12.0
"""Height from which all heights count as equal, metres, so that towers do not dominate."""

LEAST_COLUMNS = 2500
"""Least number of compared columns for a reliable shift: in small scenes the shadows of a wood
dominate."""

LEAST_IOU = 0.3
"""Two masks with a lower best IoU do not show the same objects."""

LEAST_PEAK = 0.04
"""Correlation below which two layers have no common edges."""

PARTS = 2
"""Number of parts along each edge in which a picture is also compared."""


@dataclass(frozen=True)
class Shift:
    """A shift of a layer from where it is in the heights.

    Attributes
    ----------
    east, north : float
        Metres.
    score : float
        Correlation of the edges with this shift, or IoU of the masks.
    at_zero : float
        The same without the shift.
    columns : int
        Number of columns that were compared.
    """

    east: float
    north: float
    score: float
    at_zero: float
    columns: int

    @property
    def sure(self) -> bool:
        """Whether the shift improves the score by more than chance allows.

        That is 2 / sqrt(n) for unrelated layers. Four columns count as one, because edges are some
        columns wide.
        """
        if self.columns < LEAST_COLUMNS:
            return False
        return (
            self.score - self.at_zero > 2 / np.sqrt(max(self.columns, 1) / 4)
            and self.score > LEAST_PEAK
        )

    @property
    def length(self) -> float:
        """Metres."""
        return float(np.hypot(self.east, self.north))


def image_shift(
    image: NDArray,
    height: NDArray,
    known: NDArray,
    voxel_size: float,
    search: float = SEARCH,
    limit: float | None = CAPPED,
) -> Shift | None:
    """Measure the shift of a picture from the edges of heights, or of another picture.

    It maximises the correlation of the strengths of edges over all whole shifts, with a parabola
    through the best one and its neighbours. The direction of edges is ignored, since a roof may be
    darker or brighter than the street.

    Parameters
    ----------
    image : NDArray (ny, nx, 3) uint8
        The picture.
    height : NDArray (ny, nx)
        Height above the ground, metres, or laser intensity.
    known : NDArray (ny, nx) bool
        Where both are known.
    voxel_size : float
        Metres.
    search : float
        Largest shift in each direction, metres.
    limit : float | None
        Height from which all heights count as equal, metres; None for intensities.

    Returns
    -------
    Shift | None
        None if the layers have too few edges in common.
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
    """Measure `image_shift` in PARTS x PARTS parts of a scene, where there are enough edges."""
    ny, nx = height.shape
    rows, cols = (
        np.linspace(0, ny, PARTS + 1).astype(int),
        np.linspace(0, nx, PARTS + 1).astype(int),
    )
    shifts = []
    for i in range(PARTS):
        for j in range(PARTS):
            part = slice(rows[i], rows[i + 1]), slice(cols[j], cols[j + 1])
            if min(rows[i + 1] - rows[i], cols[j + 1] - cols[j]) * voxel_size < 6 * SEARCH:
                continue
            if known[part].mean() < 0.5:
                continue
            shift = image_shift(image[part], height[part], known[part], voxel_size, limit=limit)
            if shift is not None:
                shifts.append(shift)
    return shifts


def mask_shift(
    mask: NDArray, tall: NDArray, known: NDArray, voxel_size: float, search: float = 4.0
) -> Shift | None:
    """Measure the shift of a mask of buildings from tall columns: the whole shift of the best IoU.

    Parameters
    ----------
    mask : NDArray (ny, nx) bool
        Buildings.
    tall : NDArray (ny, nx) bool
        Tall columns.
    known : NDArray (ny, nx) bool
        Where both are known.
    voxel_size : float
        Metres.
    search : float
        Largest shift in each direction, metres.

    Returns
    -------
    Shift | None
        None if a mask is empty, or they do not show the same objects.
    """
    reach = max(round(search / voxel_size), 1)
    if not (mask & known).any() or not (tall & known).any() or min(mask.shape) <= 4 * reach:
        return None
    inner = slice(reach, -reach), slice(reach, -reach)
    best, zero = (0.0, 0, 0), 0.0
    target, sure = tall[inner], known[inner]
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            # The mask, moved back by `right` to the east and `down` to the south.
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
    """Return the strength of edges as (ny, nx) float32 with mean 0 and deviation 1.

    Edges at the border of the known area are left out. None if there are too few.
    """
    filled = np.where(known, values, values[known].mean() if known.any() else 0.0)
    smooth = ndimage.gaussian_filter(filled, 0.7)
    strength = np.hypot(ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1))
    inside = ndimage.binary_erosion(known, np.ones((5, 5)))
    if inside.sum() < 400:
        return None
    # A few strong edges must not dominate.
    limit = np.percentile(strength[inside], 98)
    strength = np.where(inside, np.minimum(strength, limit), 0.0)
    mean, spread = strength[inside].mean(), strength[inside].std()
    if spread < 1e-6:
        return None
    return np.where(inside, (strength - mean) / spread, 0.0).astype(np.float32)


def _peak(
    edges: NDArray, steps: NDArray, known: NDArray, voxel_size: float, search: float
) -> Shift | None:
    """Find the peak of the correlation of two layers of edges."""
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
    """Return the position of the peak of a parabola through three values, from the middle one."""
    bend = before - 2 * middle + after
    return 0.0 if bend >= 0 else float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5))
