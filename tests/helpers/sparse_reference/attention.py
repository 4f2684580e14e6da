"""Attention with all scores in one matrix, and windows by whole numbers of Python's."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from earthgen.sparse.sites import Sites, Triple

Window = tuple[int, int, int, int]


def windows(sites: Sites, size: Triple, shift: Triple = (0, 0, 0)) -> list[Window]:
    """For each row its window on the lattice: sample, x, y, z, the window's lowest cell being
    size * number + shift."""
    found = []
    for sample, *cell in sites.coordinates.tolist():
        x, y, z = (
            (origin // stride + at - moved) // by
            for origin, stride, at, moved, by in zip(
                sites.place.origins[sample], sites.stride, cell, shift, size, strict=True
            )
        )
        found.append((sample, x, y, z))
    return found


def attention(
    q: Tensor, k: Tensor, v: Tensor, query_windows: list[Window], key_windows: list[Window]
) -> Tensor:
    """(n, heads, dim) float64: a softmax over the keys of the same window, zeros where there are
    none.

    q : (n, heads, dim); k, v : (m, heads, dim)
    """
    q, k, v = q.double(), k.double(), v.double()
    same = torch.tensor(
        [[a == b for b in key_windows] for a in query_windows], dtype=torch.bool, device=q.device
    )
    same = same.reshape(len(q), len(k))
    scores = torch.einsum("nhd,mhd->hnm", q, k) / math.sqrt(q.shape[2])
    # A row of no keys would be a softmax of nothing: it is taken over all of them, and then not
    # used.
    none = ~same.any(1, keepdim=True)
    weights = torch.softmax(scores.masked_fill(~(same | none), -torch.inf), 2)
    return torch.einsum("hnm,mhd->nhd", weights.masked_fill(none, 0.0), v)


def rotary(x: Tensor, positions: Tensor, base: float) -> Tensor:
    """(n, heads, dim) complex128 of n x heads x dim // 6 * 3: pairs of channels as complex numbers,
    turned.

    x : (n, heads, dim); positions : (n, 3), in cells
    """
    count = x.shape[2] // 6
    numbers = torch.complex(x[:, :, : 3 * count].double(), x[:, :, 3 * count : 6 * count].double())
    turned = []
    for axis in range(3):
        for number in range(count):
            angle = positions[:, axis].double() * base ** -(number / count)
            turned.append(numbers[:, :, axis * count + number] * torch.exp(1j * angle)[:, None])
    return torch.stack(turned, 2)
