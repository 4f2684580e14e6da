"""Sampling on dense boxes: (batch, channels, x, y, z) features and (batch, x, y, z) bool, which
voxels are active.

Loops over cells and points, for tests on a few of them. Features of voxels that are not active do
not count.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from earthgen.sparse.sites import Triple


def shuffle_up(dense: Tensor, active: Tensor, factor: Triple) -> tuple[Tensor, Tensor]:
    """Features and mask of the children; a box that begins at cell l becomes one that begins at
    l * factor."""
    (a, b, c), channels = factor, dense.shape[1] // math.prod(factor)
    samples, _, nx, ny, nz = dense.shape
    fine = dense.new_zeros((samples, channels, nx * a, ny * b, nz * c))
    for i, j, k in itertools.product(range(a), range(b), range(c)):
        first = ((i * b + j) * c + k) * channels
        fine[:, :, i::a, j::b, k::c] = dense[:, first : first + channels]
    return fine, spread(active[:, None], factor)[:, 0]


def spread(dense: Tensor, factor: Triple) -> Tensor:
    """Every cell's features to all of its children."""
    for axis, by in enumerate(factor):
        dense = dense.repeat_interleave(by, dim=2 + axis)
    return dense


def pool(
    dense: Tensor,
    active: Tensor,
    low: Triple,
    target: Tensor,
    size: Triple,
    stride: Triple,
    dilation: Triple,
    how: str,
) -> Tensor:
    """(m, channels): the largest, the mean or the sum of what a kernel meets at (m, 4) cells
    (sample, x, y, z).

    low : coordinates of the first voxel of the box
    """
    rows = [dense.new_zeros((0, dense.shape[1]))]
    for sample, *cell in target.tolist():
        met = []
        for number in itertools.product(*(range(n) for n in size)):
            offset = [
                (i - (n - 1) // 2) * d for i, n, d in zip(number, size, dilation, strict=True)
            ]
            at = [o * s + d - a for o, s, d, a in zip(cell, stride, offset, low, strict=True)]
            if _inside(at, active) and active[sample, at[0], at[1], at[2]]:
                met.append(dense[sample, :, at[0], at[1], at[2]])
        if not met:
            rows.append(dense.new_zeros((1, dense.shape[1])))
            continue
        values = torch.stack(met)
        rows.append(
            {"max": values.amax(0), "mean": values.mean(0), "sum": values.sum(0)}[how][None]
        )
    return torch.cat(rows)


def interpolate(
    dense: Tensor, active: Tensor, low: Triple, points: Tensor, how: str, missing: str
) -> Tensor:
    """(m, channels) at (m, 4) points (sample, x, y, z), in cells; `low` as above."""
    rows = [dense.new_zeros((0, dense.shape[1]))]
    for point in points:
        sample, position = int(point[0]), point[1:] - torch.tensor(low, dtype=points.dtype)
        value, total = dense.new_zeros(dense.shape[1]), dense.new_zeros(())
        for cell in itertools.product(*(range(n) for n in active.shape[1:])):
            if not active[sample, cell[0], cell[1], cell[2]]:
                continue
            if how == "nearest":
                weight = position.new_tensor(
                    float([math.floor(one) for one in position.tolist()] == list(cell))
                )
            else:  # a tent of one cell each way around the centre
                centre = position.new_tensor(cell) + 0.5
                weight = (1 - (position - centre).abs()).clamp(min=0).prod()
            value = value + weight * dense[sample, :, cell[0], cell[1], cell[2]]
            total = total + weight
        rows.append((value / total if missing == "renormalise" and total > 0 else value)[None])
    return torch.cat(rows)


def _inside(at: list[int], active: Tensor) -> bool:
    return all(0 <= one < n for one, n in zip(at, active.shape[1:], strict=True))
