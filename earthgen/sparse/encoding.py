"""Positional encodings of voxels: sinusoidal ones, which are added to features, and rotary ones,
which rotate queries and keys.

Positions are whole numbers of cells of the sites' stride. Angles are computed in float64, where the
product of any int32 position and a frequency is precise to 1e-6 radians: a voxel 2^31 cells from
its origin is encoded as precisely as one beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from earthgen.errors import SparseError
from earthgen.sparse.products import sum_dtype
from earthgen.sparse.sites import Sites, triple
from earthgen.sparse.windows import cells

BASE = 10_000.0
"""Approximate ratio of the longest wavelength to the shortest, which is 2 pi cells (Vaswani et al.
2017, "Attention Is All You Need")."""


def sinusoidal(
    sites: Sites, channels: int, *, within: int | Sequence[int] | None = None, base: float = BASE
) -> Tensor:
    """Encode positions as sines and cosines (Vaswani et al. 2017, section 3.5), axis by axis.

    Each axis x, y, z has a third of the channels: first the sines, from short waves to long, then
    the cosines. If `channels` is not a multiple of 6, the remaining channels at the end are 0.

    Parameters
    ----------
    sites : Sites
        n voxels.
    channels : int
        Number of channels, at least 6.
    within : int or sequence of int, optional
        Window size in cells, one number or (x, y, z). Positions are then counted from the first
        cell of the window of the lattice that contains the voxel, so that all crops agree. By
        default they are counted from the origin of the sample, and depend on where a crop begins.
    base : float
        Ratio of the longest wavelength to the shortest.

    Returns
    -------
    Tensor (n, channels) float32
        The encoding.

    Raises
    ------
    SparseError
        If there are fewer than 6 channels, or a window size is below 1.
    """
    if channels < 6:
        raise SparseError(
            f"{channels} channels cannot hold a sine and a cosine of three axes",
            "give 6 or more, preferably a multiple of 6",
        )
    if within is None:
        positions = sites.coordinates[:, 1:]
    else:
        size = triple(within, "window size")
        positions = cells(sites, size) % torch.tensor(size, device=sites.device)
    angles = _angles(positions, channels // 6, base)
    encoded = torch.cat([angles.sin(), angles.cos()], 2).float().flatten(1)
    return torch.nn.functional.pad(encoded, (0, channels - encoded.shape[1]))


def rotary(x: Tensor, sites: Sites, *, base: float = BASE) -> Tensor:
    """Rotate queries or keys by the positions of their voxels on three axes (Su et al. 2021,
    "RoFormer: Enhanced Transformer with Rotary Position Embedding").

    The product of a rotated query and a rotated key depends on the difference of their positions
    alone, so crops agree. Angles are the same for all heads. Half precision is rotated in float32.

    Parameters
    ----------
    x : Tensor (n, heads, dim)
        Queries or keys in the order of the sites. Channel i < dim // 6 * 3 is rotated together with
        channel i + dim // 6 * 3, by its frequency times a position; each axis has a third of the
        pairs. If dim is not a multiple of 6, the remaining channels at the end are unchanged.
    sites : Sites
        n voxels.
    base : float
        Ratio of the longest wavelength to the shortest.

    Returns
    -------
    Tensor (n, heads, dim)
        In the dtype of `x`.

    Raises
    ------
    SparseError
        If shapes do not match, dim is below 6, or the devices differ.
    """
    check_rotary(x.shape[-1] if x.ndim else 0)
    if x.ndim != 3 or len(x) != len(sites):
        raise SparseError(
            f"queries or keys have shape {tuple(x.shape)}, there are {len(sites):,} voxels",
            f"give ({len(sites)}, heads, dim)",
        )
    if x.device != sites.device:
        raise SparseError(
            f"queries or keys are on {x.device}, coordinates on {sites.device}",
            "move them to one device",
        )
    count, dtype = x.shape[2] // 6, sum_dtype(x.dtype)

    def make() -> tuple[Tensor, Tensor]:
        angles = _angles(sites.coordinates[:, 1:], count, base).flatten(1)[:, None]
        return angles.cos().to(dtype), angles.sin().to(dtype)

    cos, sin = sites.cached(("earthgen.sparse.encoding", "rotary", count, base, dtype), make)
    a, b, rest = x[..., : 3 * count], x[..., 3 * count : 6 * count], x[..., 6 * count :]
    return torch.cat([(a * cos - b * sin).to(x.dtype), (a * sin + b * cos).to(x.dtype), rest], 2)


def check_rotary(dim: int) -> None:
    """Raise SparseError if `dim` channels do not hold one pair for each of three axes."""
    if dim < 6:
        raise SparseError(
            f"heads of {dim} channels have no pair for each of three axes",
            "give heads of 6 channels or more",
        )


def _angles(positions: Tensor, count: int, base: float) -> Tensor:
    """(n, 3, count) float64: positions (n, 3) times frequencies from 1 down to nearly 1 / base."""
    powers = torch.arange(count, dtype=torch.float64, device=positions.device) / count
    return positions.double()[:, :, None] * base**-powers
