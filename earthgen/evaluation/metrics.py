"""Overlaps and distributions in numpy: voxels, classes seen from above, heights.
docs/guides/evaluation.md explains them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from earthgen.evaluation.patch import Patch, buildings, trees
from geo_io.legend import classes


@dataclass(frozen=True)
class Overlap:
    """Sizes of the intersection of a predicted and a true set and of their differences.

    Overlaps can be added.

    Attributes
    ----------
    both : int
        Elements of both sets.
    predicted : int
        Elements of the predicted set only.
    true : int
        Elements of the true set only.
    """

    both: int = 0
    predicted: int = 0
    true: int = 0

    def __add__(self, other: Overlap) -> Overlap:
        return Overlap(
            self.both + other.both, self.predicted + other.predicted, self.true + other.true
        )

    @property
    def iou(self) -> float:
        """Intersection over union; 1 where both are empty."""
        return _share(self.both, self.both + self.predicted + self.true)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 where both are empty."""
        return _share(2 * self.both, 2 * self.both + self.predicted + self.true)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 1.0


def overlap_of_masks(predicted: NDArray, true: NDArray) -> Overlap:
    """Return the overlap of two bool arrays of one shape."""
    both = int((predicted & true).sum())
    return Overlap(both, int(predicted.sum()) - both, int(true.sum()) - both)


def overlap_of_voxels(predicted: NDArray, true: NDArray, stride: int = 1) -> Overlap:
    """Return the overlap of two sets of voxels, or of the cells that they lie in.

    Parameters
    ----------
    predicted, true : NDArray (n, 3), (m, 3) int
        Lattice indices.
    stride : int
        Edge of a cell, voxels.
    """
    a, b = (np.unique(np.floor_divide(rows, stride), axis=0) for rows in (predicted, true))
    together = np.concatenate([a, b])
    both = len(together) - len(np.unique(together, axis=0)) if len(together) else 0
    return Overlap(both, len(a) - both, len(b) - both)


def wasserstein(one: NDArray, other: NDArray) -> float:
    """Compute the Wasserstein-1 distance of two samples of numbers; NaN if one is empty."""
    if not one.size or not other.size:
        return float("nan")
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(one.ravel(), other.ravel()))


@dataclass
class Agreement:
    """Agreement of worlds with their condition and the truth, over the patches that were added.

    Columns that are valid in the truth are compared. `table` returns the numbers.
    """

    by_class: dict[int, Overlap] = field(default_factory=dict)
    building: Overlap = field(default_factory=Overlap)
    voxels: Overlap = field(default_factory=Overlap)
    cells: Overlap = field(default_factory=Overlap)
    columns: int = 0
    right: int = 0
    holes: int = 0
    heights: list[NDArray] = field(default_factory=list)
    true_heights: list[NDArray] = field(default_factory=list)
    built: list[NDArray] = field(default_factory=list)
    true_built: list[NDArray] = field(default_factory=list)
    wooded: list[NDArray] = field(default_factory=list)
    true_wooded: list[NDArray] = field(default_factory=list)
    errors: list[NDArray] = field(default_factory=list)

    def add(self, made: Patch, truth: Patch, cover: NDArray) -> None:
        """Add one place.

        Parameters
        ----------
        made : Patch
            The world.
        truth : Patch
            The truth, on the same frame.
        cover : NDArray (ny, nx) uint8
            The condition: class seen from above, 0 where unknown.
        """
        made.frame.require_lattice(truth.frame)
        valid = truth.valid
        here = valid & (cover != 0)
        for code in np.union1d(np.unique(cover[here]), np.unique(made.cover[here])):
            if code:
                overlap = overlap_of_masks((made.cover == code) & here, (cover == code) & here)
                self.by_class[int(code)] = self.by_class.get(int(code), Overlap()) + overlap
        self.building += overlap_of_masks(buildings(made.cover) & here, buildings(cover) & here)
        seen, true = made.only(valid).seen(), truth.seen()
        self.voxels += overlap_of_voxels(seen.xyz, true.xyz)
        self.cells += overlap_of_voxels(seen.xyz, true.xyz, 8)
        self.columns += int(valid.sum())
        self.right += int(((made.cover == cover) & here).sum())
        self.holes += int((valid & ~made.covered).sum())
        there = valid & made.covered
        self.heights.append(made.height[there])
        self.true_heights.append(truth.height[valid])
        self.built.append(made.height[there & buildings(made.cover)])
        self.true_built.append(truth.height[valid & buildings(truth.cover)])
        self.wooded.append(made.height[there & trees(made.cover)])
        self.true_wooded.append(truth.height[valid & trees(truth.cover)])
        self.errors.append(np.abs(made.height - truth.height)[there])

    @classmethod
    def over(cls, parts: Iterable[Agreement]) -> Agreement:
        """Return the agreement over the patches of several ones."""
        whole = cls()
        for part in parts:
            for code, overlap in part.by_class.items():
                whole.by_class[code] = whole.by_class.get(code, Overlap()) + overlap
            for each in fields(cls):
                if each.name != "by_class":
                    joined = getattr(whole, each.name) + getattr(part, each.name)
                    setattr(whole, each.name, joined)
        return whole

    def table(self) -> dict[str, float]:
        """Return the numbers by name.

        - class_iou: mean IoU of the classes of the condition, each over all places together
        - building_iou: IoU of the building mask
        - class_right: share of columns that show the class of the condition
        - voxel_iou, cell_iou: IoU with the truth, of voxels and of cells of 8 voxels
        - height_w1, building_w1, tree_w1: Wasserstein-1 distance of the distributions of heights,
          metres: of all columns, of buildings, of trees and woods
        - height_error: mean absolute difference of heights in the same column, metres
        - holes: share of columns without a surface voxel
        """
        conditioned = [each for each in self.by_class.values() if each.both + each.true]
        errors = _joined(self.errors)
        return {
            "class_iou": float(np.mean([each.iou for each in conditioned]))
            if conditioned
            else float("nan"),
            "building_iou": self.building.iou,
            "class_right": _share(self.right, self.columns),
            "voxel_iou": self.voxels.iou,
            "cell_iou": self.cells.iou,
            **self.against(self),
            "height_error": float(errors.mean()) if errors.size else float("nan"),
            "holes": _share(self.holes, self.columns) if self.columns else 0.0,
        }

    def against(self, other: Agreement) -> dict[str, float]:
        """Return the distances of these heights from the true ones of another agreement: height_w1,
        building_w1 and tree_w1 of `table`."""
        pairs = {
            "height_w1": (self.heights, other.true_heights),
            "building_w1": (self.built, other.true_built),
            "tree_w1": (self.wooded, other.true_wooded),
        }
        return {
            name: wasserstein(_joined(made), _joined(true)) for name, (made, true) in pairs.items()
        }

    def class_table(self) -> dict[str, float]:
        """Return the IoU of each class of the condition, by name."""
        names = {land.code: land.name for land in classes()}
        return {
            names[code]: overlap.iou
            for code, overlap in sorted(self.by_class.items())
            if overlap.both + overlap.true
        }


Sums = dict[str, tuple[float, float]]
"""Numerator and denominator of figures by name, of one patch. Over several they are added."""


def ratios(parts: Iterable[Sums]) -> dict[str, float]:
    """Return figures over several patches: sums of numerators over those of denominators.

    NaN where a denominator is 0.
    """
    total: dict[str, tuple[float, float]] = {}
    for part in parts:
        for name, (value, weight) in part.items():
            before = total.get(name, (0.0, 0.0))
            total[name] = before[0] + value, before[1] + weight
    return {
        name: value / weight if weight else float("nan") for name, (value, weight) in total.items()
    }


def _joined(parts: Sequence[NDArray]) -> NDArray:
    return np.concatenate(parts).astype(np.float64) if parts else np.zeros(0)
