"""Which voxels are active: repair of a classifier's gaps, and measures of its quality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from earthgen.sparse.sites import Sites

Repair = Literal["none", "cells", "columns"]

REPAIRS: tuple[Repair, ...] = ("none", "cells", "columns")


def select_children(sites: Sites, logits: Tensor, repair: Repair = "columns") -> Tensor:
    """Return which children of active cells to keep.

    A surface that is one voxel thick and equally likely at two heights has logits below 0 at both,
    which would leave a hole. Repair closes it; of equal logits the lowest child is kept.

    Parameters
    ----------
    sites : Sites
        All children of the cells, eight each.
    logits : Tensor (n,)
        Logits of being active.
    repair : str
        "none" keeps children above 0. "columns" also keeps the most likely child of each column of
        children, which suits height fields. "cells" also keeps the most likely child of each cell,
        which suits any scene, since a cell is active because it has an active child.

    Returns
    -------
    Tensor (n,) bool
    """
    keep = logits > 0
    if repair == "none" or not len(sites):
        return keep
    rows = sites.coordinates
    groups = rows[:, :3] if repair == "columns" else torch.cat([rows[:, :1], rows[:, 1:] >> 1], 1)
    group, count = _number_rows(groups)
    best = torch.full((count,), -torch.inf, dtype=logits.dtype, device=logits.device)
    best.scatter_reduce_(0, group, logits, "amax")
    number = torch.arange(len(rows), device=rows.device)
    winner = torch.full((count,), len(rows), device=rows.device)
    winner.scatter_reduce_(0, group, torch.where(logits == best[group], number, len(rows)), "amin")
    # A column that keeps any child keeps its best one anyway.
    keep[winner[winner < len(rows)]] = True
    return keep


def _number_rows(rows: Tensor) -> tuple[Tensor, int]:
    """Return a number for each row, equal for equal rows, (n,) int64, and their count."""
    low = rows.amin(0)
    extent = (rows.amax(0) - low + 1).long()
    key = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    for column in range(rows.shape[1]):
        key = key * extent[column] + (rows[:, column] - low[column])
    values, group = torch.unique(key, return_inverse=True)
    return group, len(values)


@dataclass(frozen=True)
class Agreement:
    """Agreement of predicted voxels with true ones over a whole batch.

    Attributes
    ----------
    hits, false, missed : int
        Numbers of voxels.
    holes, columns : int
        Columns with a true voxel and no predicted one, and columns with a true voxel.
    """

    hits: int
    false: int
    missed: int
    holes: int
    columns: int

    @property
    def iou(self) -> float:
        """Intersection over union; 1 if both are empty."""
        return _share(self.hits, self.hits + self.false + self.missed)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 if both are empty."""
        return _share(2 * self.hits, 2 * self.hits + self.false + self.missed)

    @property
    def precision(self) -> float:
        """Share of predicted voxels that are true; 1 of none."""
        return _share(self.hits, self.hits + self.false)

    @property
    def recall(self) -> float:
        """Share of true voxels that are predicted; 1 of none."""
        return _share(self.hits, self.hits + self.missed)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def agreement(predicted: Sites, true: Sites) -> Agreement:
    """Return the agreement of predicted sites with true ones of the same place and stride.

    Raises
    ------
    SparseError
        If the places differ.
    """
    predicted.place.check_same(true.place)
    hits = int((predicted.rows(true.coordinates) >= 0).sum())
    columns = _columns(true)
    holes = len(columns - _columns(predicted))
    return Agreement(hits, len(predicted) - hits, len(true) - hits, holes, len(columns))


def _columns(sites: Sites) -> set[tuple[int, ...]]:
    return set(map(tuple, torch.unique(sites.coordinates[:, :3], dim=0).tolist()))


def accuracy(logits: Tensor, true: Tensor) -> float:
    """Return the share of candidates that are classified correctly, 1 of none."""
    return float(((logits > 0) == true).float().mean()) if len(true) else 1.0
