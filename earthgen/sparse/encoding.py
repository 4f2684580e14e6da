"""Positional encodings of voxels: added to features (sinusoidal), or turned into queries and keys
(rotary).

Positions are whole numbers of cells of the sites' stride. Angles are taken in float64, where all
int32 positions and their products with a frequency keep a precision of 1e-6 radians: a voxel 2^31
from its origin is encoded as well as one beside it.
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
"""The longest wave is about this many times as long as the shortest, which is 2 pi cells
(Vaswani et al. 2017)."""


def sinusoidal(
    sites: Sites, channels: int, *, within: int | Sequence[int] | None = None, base: float = BASE
) -> Tensor:
    """(n, channels) float32: sines and cosines of positions (Vaswani et al. 2017, section 3.5), by
    axis.

    A third of the channels for each axis x, y, z: first the sines, from short waves to long, then
    the cosines. The channels that do not divide by 6, at the end, are 0.

    within : None counts from the origin of the sample: it says where in its sample a voxel lies, so
        crops that begin
        elsewhere get other encodings. A window size in cells, one number or (x, y, z), counts from
        the first cell of the lattice's window that the voxel is in: then all crops agree

    Raises SparseError for fewer than 6 channels, and for a window size below 1.
    """
    if channels < 6:
        raise SparseError(
            f"{channels} channels cannot hold a sine and a cosine of three axes",
            "give 6 or more, best a multiple of 6",
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
    """Queries or keys turned by their voxels' positions (Su et al. 2021, RoFormer), over three
    axes.

    x : (n, heads, dim), of the sites' rows. Channel i < dim // 6 * 3 is turned together with
        channel
        i + dim // 6 * 3, by its frequency times a position: a third of the pairs for each axis. The
        channels that do not divide by 6, at the end, stay.

    The product of a turned query and a turned key depends on how far apart they are, and not on
    where: crops agree. Angles do not depend on the head. The result has the dtype of `x`; half
    dtypes are turned in float32.

    Raises SparseError for other shapes and for dim below 6, SparseError for another device.
    """
    check_rotary(x.shape[-1] if x.ndim else 0)
    if x.ndim != 3 or len(x) != len(sites):
        raise SparseError(
            f"queries or keys have shape {tuple(x.shape)}, there are {len(sites):,} voxels",
            f"give ({len(sites)}, heads, dim)",
        )
    if x.device != sites.device:
        raise SparseError(
            f"queries or keys are on {x.device}, coordinates on {sites.device}", "bring them to one"
        )
    count, dtype = x.shape[2] // 6, sum_dtype(x.dtype)

    def make() -> tuple[Tensor, Tensor]:
        angles = _angles(sites.coordinates[:, 1:], count, base).flatten(1)[:, None]
        return angles.cos().to(dtype), angles.sin().to(dtype)

    cos, sin = sites.cached(("earthgen.sparse.encoding", "rotary", count, base, dtype), make)
    a, b, rest = x[..., : 3 * count], x[..., 3 * count : 6 * count], x[..., 6 * count :]
    return torch.cat([(a * cos - b * sin).to(x.dtype), (a * sin + b * cos).to(x.dtype), rest], 2)


def check_rotary(dim: int) -> None:
    """Raise SparseError where heads of `dim` channels have no pair for each of three axes."""
    if dim < 6:
        raise SparseError(
            f"heads of {dim} channels have no pair for each of three axes",
            "give heads of 6 channels or more",
        )


def _angles(positions: Tensor, count: int, base: float) -> Tensor:
    """(n, 3, count) float64: positions (n, 3) times frequencies from 1 down to almost 1 / base."""
    powers = torch.arange(count, dtype=torch.float64, device=positions.device) / count
    return positions.double()[:, :, None] * base**-powers
