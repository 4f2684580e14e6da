"""Diversity: how much the worlds of several seeds differ on one map. Seams: whether the borders of
windows are visible.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from earthgen.dataset.crop import CELL, COLUMNS, ROWS, Crop
from earthgen.dataset.scene import Scene
from earthgen.evaluation.distances import Estimate
from earthgen.evaluation.metrics import overlap_of_voxels
from earthgen.evaluation.patch import Patch, buildings
from earthgen.stages.block import within
from geo_io.frame import Frame


def diversity(outcomes: Sequence[Patch], truth: Patch) -> dict[str, float]:
    """Measure how the worlds of several seeds on one place differ; NaN for fewer than two.

    Parameters
    ----------
    outcomes : sequence of Patch
        A world of each seed.
    truth : Patch
        The place itself.

    Returns
    -------
    dict[str, float]
        Means over pairs of worlds. "voxels": 1 - IoU of the voxels. "height": absolute difference
        of heights, metres. "building_height": the same where both have a building. "colour":
        absolute difference of colours seen from above, of 255. And the first three over those of
        pairs of a world and the truth, with "_share" in their names: 1 if the truth could be one of
        the worlds, below 1 if seeds differ too little.
    """
    seeds = _differences(combinations(outcomes, 2))
    real = _differences((truth, each) for each in outcomes) if len(outcomes) > 1 else {}
    shares = {
        f"{name}_share": seeds[name] / real[name] if real.get(name) else float("nan")
        for name in ("voxels", "height", "building_height")
    }
    return seeds | shares


def _differences(pairs: Iterable[tuple[Patch, Patch]]) -> dict[str, float]:
    """Return the means over pairs; NaN without any."""
    found: dict[str, list[float]] = {
        "voxels": [],
        "height": [],
        "building_height": [],
        "colour": [],
    }
    for one, other in pairs:
        both = one.valid & one.covered & other.covered
        a, b = one.seen(), other.seen()
        found["voxels"].append(1 - overlap_of_voxels(a.xyz, b.xyz).iou)
        difference = np.abs(one.height - other.height)
        found["height"].append(_mean(difference[both]))
        found["building_height"].append(
            _mean(difference[both & buildings(one.cover) & buildings(other.cover)])
        )
        if one.colour is not None and other.colour is not None:
            colours = np.abs(one.colour.astype(np.float64) - other.colour.astype(np.float64))
            found["colour"].append(_mean(colours[both]))
    return {name: _mean(np.array(values)[~np.isnan(values)]) for name, values in found.items()}


def _mean(values: NDArray) -> float:
    return float(values.mean()) if values.size else float("nan")


HALF = 16
"""Width on each side of a border that is measured, voxels."""


@dataclass(frozen=True)
class Border:
    """An area across the border of two windows.

    Attributes
    ----------
    frame : Frame
        The area.
    pitch : int
        Distance of the windows, voxels.
    """

    frame: Frame
    pitch: int


def borders(
    scene: Scene,
    cells: NDArray,
    pitch: int,
    band: tuple[int, int],
    *,
    half: int = HALF,
    along: int = 64,
    most: int = 8,
) -> list[Border]:
    """Find areas across borders of windows in both directions.

    Parameters
    ----------
    scene : Scene
        The scene.
    cells : NDArray (ny / 8, nx / 8) bool
        Cells of the scene that may be used.
    pitch : int
        Distance of the windows, voxels.
    band : tuple[int, int]
        z range of the areas.
    half : int
        Width on each side of a border, voxels.
    along : int
        Length along a border, voxels.
    most : int
        Largest number of areas, spread over the scene.
    """
    frame, areas = scene.frame, []
    allowed = cells.repeat(8, 0).repeat(8, 1) & scene.layer("valid")
    for x, y, wide, high in _places(frame, pitch, half, along):
        part = replace(frame, x=(x, x + wide), y=(y, y + high), z=band)
        inside = (
            frame.x[0] <= x
            and x + wide <= frame.x[1]
            and frame.y[0] <= y
            and y + high <= frame.y[1]
        )
        if inside and allowed[frame.slices(part)].mean() > 0.9:
            areas.append(Border(part, pitch))
    step = max(len(areas) / most, 1.0)
    return [areas[int(number * step)] for number in range(min(most, len(areas)))]


def _places(frame: Frame, pitch: int, half: int, along: int) -> list[tuple[int, int, int, int]]:
    """Return south-west corners and sizes, for vertical and horizontal borders in turn."""
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


def crop_on(scene: Scene, frame: Frame) -> Crop:
    """Read the crop of a scene on a frame inside it that may begin and end anywhere."""
    x, y = ((low // CELL * CELL, -(-high // CELL) * CELL) for low, high in (frame.x, frame.y))
    crop = scene.crop(replace(frame, x=x, y=y))
    part, keep = crop.frame.slices(frame), within(crop.xyz, frame)
    rows = {name: getattr(crop, name)[keep] for name in ("xyz", *ROWS)}
    return Crop(frame, **rows, **{name: getattr(crop, name)[part] for name in COLUMNS})


@dataclass
class Seams:
    """Jumps of heights and colours across window borders and elsewhere.

    A jump is the absolute difference of two neighbouring columns. Those across borders are compared
    with the mean in the same area and direction elsewhere. This ratio also depends on what a border
    happens to lie on, such as a wall. So it is computed for every line beside the borders too, with
    all borders moved alike: a border without a seam is one line among them.

    Attributes
    ----------
    half : int
        Number of lines on each side of a border that are compared.
    across, usual : list[NDArray (2, 2 half - 1)]
        For each area the sum of the jumps of heights, and of colours, across borders moved by
        1 - half to half - 1 voxels, and the sum expected from all other lines.
    """

    half: int = HALF
    across: list[NDArray] = field(default_factory=list)
    usual: list[NDArray] = field(default_factory=list)

    def add(self, patch: Patch, pitch: int) -> None:
        """Add an area whose borders are at every multiple of `pitch` voxels from the CRS origin."""
        frame = patch.frame
        layers = [patch.height.astype(np.float64)]
        if patch.colour is not None:
            layers.append(patch.colour.astype(np.float64).mean(-1))
        seen = patch.valid & patch.covered
        across, usual = np.zeros((2, 2 * self.half - 1)), np.zeros((2, 2 * self.half - 1))
        for axis in (1, 0):
            both = (seen[:, 1:] & seen[:, :-1]) if axis == 1 else (seen[1:] & seen[:-1]).T
            # Lattice index of the line between two neighbours.
            if axis == 1:
                at = frame.x[0] + 1 + np.arange(both.shape[1])
            else:
                at = frame.y[1] - 1 - np.arange(both.shape[1])
            if not (np.mod(at, pitch) == 0).any():
                continue  # no border in this direction
            pairs = both.sum(axis=0)
            for number, layer in enumerate(layers):
                jump = np.abs(np.diff(layer, axis=axis))
                lines = np.where(both, jump if axis == 1 else jump.T, 0).sum(axis=0)
                for place, moved in enumerate(range(1 - self.half, self.half)):
                    here = np.mod(at - moved, pitch) == 0
                    if pairs[here].any() and pairs[~here].any():
                        across[number, place] += lines[here].sum()
                        usual[number, place] += (
                            lines[~here].sum() / pairs[~here].sum() * pairs[here].sum()
                        )
        self.across.append(across)
        self.usual.append(usual)

    def ratios(self) -> dict[str, Estimate]:
        """Compute the jumps across borders relative to those elsewhere.

        Returns
        -------
        dict[str, Estimate]
            For "height" and "colour"; 1 on average without seams, NaN with too little data. The
            interval holds 95 % of the lines beside the borders: a value above it is a seam.
        """
        estimates = {}
        for number, name in enumerate(("height", "colour")):
            across, usual = (
                sum((each[number] for each in parts), np.zeros(1))
                for parts in (self.across, self.usual)
            )
            ratios = np.divide(
                across, usual, out=np.full(np.shape(across), np.nan), where=np.asarray(usual) > 1e-9
            )
            others = np.delete(ratios, self.half - 1) if len(ratios) > 1 else ratios[:0]
            others = others[~np.isnan(others)]
            value = float(ratios[self.half - 1]) if len(ratios) > 1 else float("nan")
            ends = (
                np.percentile(others, (2.5, 97.5))
                if others.size and not np.isnan(value)
                else (np.nan, np.nan)
            )
            estimates[name] = Estimate(value, float(ends[0]), float(ends[1]))
        return estimates
