"""Roofs that fit buildings: shape and slope come back, and what no roof fits is not told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from earthgen.models.height_state import EDGE_UNIT, height_scales, object_maps
from earthgen.models.roofs import FLAT, GABLED, HIPPED, ROOF_SCALE, fit_roofs, fitted_drop
from geo_io.legend import codes

B = codes()["building"]


def place() -> tuple[Tensor, Tensor, Tensor]:
    """Five houses of 20 m x 10 m, their axes' distances and distances from their edges."""
    number, axes = torch.zeros(1, 40, 80, dtype=torch.int64), torch.zeros(1, 40, 80, 4)
    v, u = np.meshgrid(np.abs(np.arange(10) - 4.5), np.abs(np.arange(20) - 9.5), indexing="ij")
    box = np.stack([u, v, np.full_like(u, 10), np.full_like(u, 5)], -1).astype(np.float32)
    for n, (row, col) in enumerate(((3, 3), (3, 30), (3, 57), (22, 3), (22, 30)), 1):
        number[0, row : row + 10, col : col + 20] = n
        axes[0, row : row + 10, col : col + 20] = torch.from_numpy(box)
    edge = EDGE_UNIT * object_maps(number, axes, 1.0)[:, 0]
    return number, axes[..., 1], edge


def test_the_roof_that_was_built_is_found() -> None:
    number, across, edge = place()
    told = torch.where(number > 0, 12.0, 0.0)
    noise = 0.1 * torch.randn(number.shape, generator=torch.Generator().manual_seed(0))
    wild = 6 * torch.randn(number.shape, generator=torch.Generator().manual_seed(1))
    shapes = {
        1: told,
        2: 12 - 0.7 * across,
        3: 12 - 0.5 * (5 - edge).clamp(min=0),
        4: 12 - 0.05 * across,
        5: 12 + wild,
    }
    height = told + noise
    for n, shape in shapes.items():
        height = torch.where(number == n, shape + noise, height)
    index, kind, slope, _ = fit_roofs(height, told, number, number >= 0, across, edge)
    of = {n: int(index[number == n][0]) for n in shapes}
    assert [int(kind[of[n]]) for n in shapes] == [FLAT, GABLED, HIPPED, FLAT, -1]
    assert float(slope[of[2]]) == pytest.approx(0.7, abs=0.03)
    assert float(slope[of[3]]) == pytest.approx(0.5, abs=0.05)

    drop = fitted_drop(height, told, number, number >= 0, across, edge)
    assert torch.isnan(drop[number == 0]).all() and torch.isnan(drop[number == 5]).all()
    fits = (number > 0) & (number < 5)
    assert float((height - (told - drop))[fits].abs().mean()) < 0.3


def test_a_ridge_needs_axes_and_a_roof_needs_columns() -> None:
    number, across, edge = place()
    told = torch.where(number > 0, 12.0, 0.0)
    height = torch.where(number > 0, 12 - 0.7 * across, 0.0)
    index, kind, _, _ = fit_roofs(height, told, number, number >= 0, across * 0 - 1, edge)
    assert GABLED not in kind[index[number > 0]].tolist()
    few = number >= 0
    few[0, 3:13, 3:23] = False
    few[0, 3, 3:8] = True
    index, kind, _, _ = fit_roofs(height, told, number, few, across, edge)
    assert int(kind[index[0, 5, 5]]) == -1 and int(kind[index[0, 5, 40]]) == GABLED


def test_a_told_roof_is_the_centre_of_the_state() -> None:
    semantics, told = torch.full((1, 1, 3), B), torch.tensor([[[12.0, 12.0, 0.0]]])
    centre, scale = height_scales(semantics, told, torch.tensor([[[2.5, torch.nan, 1.0]]]))
    plain = height_scales(semantics, told)
    assert float(centre[0, 0, 0]) == 9.5 and float(scale[0, 0, 0]) == ROOF_SCALE
    for each, other in zip((centre, scale), plain, strict=True):
        assert torch.equal(each[..., 1:], other[..., 1:]), "nothing is told there"
