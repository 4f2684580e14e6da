"""Which voxels are there: repair of what a classifier leaves out, and how well it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from earthgen.sparse.sites import Sites

Repair = Literal["none", "cells", "columns"]

REPAIRS: tuple[Repair, ...] = ("none", "cells", "columns")


def kept(sites: Sites, logits: Tensor, repair: Repair = "columns") -> Tensor:
    """(n,) bool: which children of active cells to keep.

    sites : all children of the cells, eight each; logits : (n,) of being active
    repair : "none" keeps those above 0. A surface that is one voxel thick and at even odds between
        two heights falls
        below 0 at both, and leaves a hole. "columns" closes it: every column of children whose
        parents are active keeps its most likely child, which in a height field is never wrong to
        have one. "cells" keeps one child a cell, which holds for any scene, since a cell is active
        because it has an active child

    Of equal logits the lowest is kept.
    """
    keep = logits > 0
    if repair == "none" or not len(sites):
        return keep
    rows = sites.coordinates
    named = rows[:, :3] if repair == "columns" else torch.cat([rows[:, :1], rows[:, 1:] >> 1], 1)
    group, count = _numbered(named)
    best = torch.full((count,), -torch.inf, dtype=logits.dtype, device=logits.device)
    best.scatter_reduce_(0, group, logits, "amax")
    number = torch.arange(len(rows), device=rows.device)
    winner = torch.full((count,), len(rows), device=rows.device)
    winner.scatter_reduce_(0, group, torch.where(logits == best[group], number, len(rows)), "amin")
    # A column that keeps any keeps its best anyway: the winner is never one child too many.
    keep[winner[winner < len(rows)]] = True
    return keep


def _numbered(rows: Tensor) -> tuple[Tensor, int]:
    """(n,) int64 numbers of equal rows, and how many there are."""
    low = rows.amin(0)
    extent = (rows.amax(0) - low + 1).long()
    key = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    for column in range(rows.shape[1]):
        key = key * extent[column] + (rows[:, column] - low[column])
    found, group = torch.unique(key, return_inverse=True)
    return group, len(found)


@dataclass(frozen=True)
class Agreement:
    """How well predicted voxels meet true ones, over a whole batch; 1 throughout where both are
    empty.

    Attributes
    ----------
    hits, false, missed : numbers of voxels
    holes : columns that have a true voxel and no predicted one, and `columns` that have a true one
    """

    hits: int
    false: int
    missed: int
    holes: int
    columns: int

    @property
    def iou(self) -> float:
        return _share(self.hits, self.hits + self.false + self.missed)

    @property
    def f1(self) -> float:
        return _share(2 * self.hits, 2 * self.hits + self.false + self.missed)

    @property
    def precision(self) -> float:
        return _share(self.hits, self.hits + self.false)

    @property
    def recall(self) -> float:
        return _share(self.hits, self.hits + self.missed)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def agreement(found: Sites, true: Sites) -> Agreement:
    """Of predicted sites with the true ones; they have to lie in one place and have one stride.

    Raises SparseError where they do not.
    """
    found.place.check_same(true.place)
    hits = int((found.rows(true.coordinates) >= 0).sum())
    mine, theirs = _columns(found), _columns(true)
    holes = len(theirs - mine)
    return Agreement(hits, len(found) - hits, len(true) - hits, holes, len(theirs))


def _columns(sites: Sites) -> set[tuple[int, ...]]:
    return set(map(tuple, torch.unique(sites.coordinates[:, :3], dim=0).tolist()))


def accuracy(logits: Tensor, true: Tensor) -> float:
    """Share of candidates that are classified right, as the paper's accuracy of StructVAE; 1 of
    none."""
    return float(((logits > 0) == true).float().mean()) if len(true) else 1.0
