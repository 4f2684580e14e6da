"""Diversity: how much the worlds of several seeds differ on one map. Seams: whether windows show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from earthgen.dataset.scene import Scene
from earthgen.evaluation.distances import Estimate, jackknife
from earthgen.evaluation.overlap import overlap_of_voxels
from earthgen.evaluation.patch import Patch, buildings
from geo_io.frame import Frame


def diversity(outcomes: Sequence[Patch]) -> dict[str, float]:
    """How the worlds of several seeds on one place differ; NaN for fewer than two.

    voxels : 1 - IoU of the voxels of two seeds, mean over pairs
    height : mean absolute difference of the heights of two seeds, metres; building_height : where both have a building
    colour : mean absolute difference of colours seen from above, of 255
    """
    found: dict[str, list[float]] = {"voxels": [], "height": [], "building_height": [], "colour": []}
    for one, other in combinations(outcomes, 2):
        both = one.valid & one.covered & other.covered
        a, b = one.seen(), other.seen()
        found["voxels"].append(1 - overlap_of_voxels(a.xyz, b.xyz).iou)
        difference = np.abs(one.height - other.height)
        found["height"].append(_mean(difference[both]))
        found["building_height"].append(_mean(difference[both & buildings(one.cover) & buildings(other.cover)]))
        if one.colour is not None and other.colour is not None:
            shades = np.abs(one.colour.astype(np.float64) - other.colour.astype(np.float64))
            found["colour"].append(_mean(shades[both]))
    return {name: _mean(np.array(values)[~np.isnan(values)]) for name, values in found.items()}


def _mean(values: NDArray) -> float:
    return float(values.mean()) if values.size else float("nan")


# ---- seams ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Border:
    """A patch of a place across the border of two windows.

    Attributes
    ----------
    frame : the patch
    pitch : distance of the windows, voxels
    """

    frame: Frame
    pitch: int


def borders(
    scene: Scene, cells: NDArray, pitch: int, band: tuple[int, int], *, half: int = 16, along: int = 64, most: int = 8
) -> list[Border]:
    """Places across borders of windows in both directions, `half` voxels to each side, that lie in what may be seen.

    cells : (ny / 8, nx / 8) bool, cells of the scene that may be looked at
    most : of them, spread over the scene
    """
    frame, found = scene.frame, []
    allowed = cells.repeat(8, 0).repeat(8, 1) & scene.layer("valid")
    for x, y, wide, high in _places(frame, pitch, half, along):
        part = replace(frame, x=(x, x + wide), y=(y, y + high), z=band)
        inside = frame.x[0] <= x and x + wide <= frame.x[1] and frame.y[0] <= y and y + high <= frame.y[1]
        if inside and allowed[frame.slices(part)].mean() > 0.9:
            found.append(Border(part, pitch))
    step = max(len(found) / most, 1.0)
    return [found[int(number * step)] for number in range(min(most, len(found)))]


def _places(frame: Frame, pitch: int, half: int, along: int) -> list[tuple[int, int, int, int]]:
    """South-west corners and sizes, east-west borders and north-south ones in turn."""
    upright = [
        (x - half, y, 2 * half, along)
        for y in range(-(-frame.y[0] // along) * along, frame.y[1], along)
        for x in range(-(-frame.x[0] // pitch) * pitch, frame.x[1], pitch)
    ]
    level = [
        (x, y - half, along, 2 * half)
        for x in range(-(-frame.x[0] // along) * along, frame.x[1], along)
        for y in range(-(-frame.y[0] // pitch) * pitch, frame.y[1], pitch)
    ]
    return [place for pair in zip(upright, level, strict=False) for place in pair] + (
        upright[len(level) :] or level[len(upright) :]
    )


@dataclass
class Seams:
    """Jumps across window borders and elsewhere, of the places that were added.

    A jump is the absolute difference of two neighbouring columns, of their heights or their colours. Across borders it
    is compared with what is usual in the same place and direction elsewhere. What a border happens to lie on, such as
    the wall of a building, makes a ratio large or small as well: hence the interval, and the truth's ratio at the same
    places.

    Attributes
    ----------
    across, usual : for each place (2,): the sum of the jumps of heights, and of colours, across borders, and what it
        would be if borders were as all other places
    """

    across: list[NDArray] = field(default_factory=list)
    usual: list[NDArray] = field(default_factory=list)

    def add(self, patch: Patch, pitch: int) -> None:
        """Add a place whose borders are every multiple of `pitch` voxels from the CRS origin, in both directions."""
        frame = patch.frame
        layers = [patch.height.astype(np.float64)]
        if patch.colour is not None:
            layers.append(patch.colour.astype(np.float64).mean(-1))
        seen = patch.valid & patch.covered
        across, usual = np.zeros(2), np.zeros(2)
        for number, layer in enumerate(layers):
            for axis in (1, 0):
                jump = np.abs(np.diff(layer, axis=axis))
                both = (seen[:, 1:] & seen[:, :-1]) if axis == 1 else (seen[1:] & seen[:-1])
                # Where the line between two neighbours lies, on the lattice.
                if axis == 1:
                    at = frame.x[0] + 1 + np.arange(jump.shape[1])
                else:
                    at = frame.y[1] - 1 - np.arange(jump.shape[0])
                border = np.mod(at, pitch) == 0
                border = np.broadcast_to(border[None] if axis == 1 else border[:, None], jump.shape)
                meeting, inside = border & both, ~border & both
                if meeting.any() and inside.any():
                    across[number] += jump[meeting].sum()
                    usual[number] += jump[inside].mean() * meeting.sum()
        self.across.append(across)
        self.usual.append(usual)

    def ratios(self) -> dict[str, Estimate]:
        """Jumps across borders by what is usual, of "height" and "colour"; 1 where windows do not show.

        The interval is the jackknife's over places; NaN where too little is known.
        """
        return {name: self._ratio(number) for number, name in enumerate(("height", "colour"))}

    def _ratio(self, number: int) -> Estimate:
        across, usual = (np.array([each[number] for each in parts]) for parts in (self.across, self.usual))
        value = _quotient(across.sum(keepdims=True), usual.sum(keepdims=True))[0]
        left_out = _quotient(across.sum() - across, usual.sum() - usual)
        if len(across) < 2 or np.isnan(left_out).any():
            return Estimate(float(value), float("nan"), float("nan"))
        return jackknife(float(value), [left_out])


def _quotient(part: NDArray, whole: NDArray) -> NDArray:
    """(n,) float64, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 1e-9)
