"""Small scenes of Gaussians, and cameras that see them, for the tests of pictures."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from earthgen.splats.cameras.camera import Camera, look_at
from earthgen.splats.tensors import FLOATS, SplatTensors

OUTPUTS = ("rgb", "alpha", "depth", "median_depth", "normal", "distortion")
"""Of a Rendering, those with gradients."""


def scattered(
    count: int,
    *,
    seed: int = 0,
    degree: int = 0,
    extent: float = 2.0,
    scales: tuple[float, float] = (0.02, 0.3),
    opacities: tuple[float, float] = (0.0, 1.0),
    dtype: torch.dtype = torch.float32,
) -> SplatTensors:
    """Discs of any direction in a cube of twice `extent` around the anchor."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=random, dtype=torch.float64)

    turns = torch.randn((count, 4), generator=random, dtype=torch.float64)
    return SplatTensors(
        means=((2 * draw(count, 3) - 1) * extent).to(dtype),
        scales=(scales[0] + draw(count, 2) * (scales[1] - scales[0])).to(dtype),
        rotations=torch.nn.functional.normalize(turns, dim=1).to(dtype),
        opacities=(opacities[0] + draw(count) * (opacities[1] - opacities[0])).to(dtype),
        sh=(draw(count, (degree + 1) ** 2, 3) - 0.5).to(dtype),
        semantics=(draw(count) * 5 + 1).to(torch.uint8),
    )


def disc(
    *,
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0),
    scale: tuple[float, float] = (0.5, 0.5),
    rotation: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0),
    opacity: float = 0.8,
    grey: float = 0.5,
    code: int = 3,
    dtype: torch.dtype = torch.float64,
) -> SplatTensors:
    """One disc of one grey; unless turned it lies flat, its normal up."""
    return SplatTensors(
        torch.tensor([mean], dtype=dtype),
        torch.tensor([scale], dtype=dtype),
        torch.tensor([rotation], dtype=dtype),
        torch.tensor([opacity], dtype=dtype),
        torch.full((1, 1, 3), (grey - 0.5) / 0.28209479177387814, dtype=dtype),
        torch.tensor([code], dtype=torch.uint8),
    )


def joined(*parts: SplatTensors) -> SplatTensors:
    """All parts in their order; with classes if the first has them."""
    names = (*FLOATS, *(() if parts[0].semantics is None else ("semantics",)))
    return replace(
        parts[0], **{name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    )


def leaves(splats: SplatTensors) -> SplatTensors:
    """The same with gradients wanted."""
    return replace(
        splats, **{name: getattr(splats, name).detach().clone().requires_grad_() for name in FLOATS}
    )


def above(
    width: int = 33, height: int = 25, *, metres_per_pixel: float | None = None, z: float = 10.0
) -> Camera:
    """Straight above the anchor, north up; pinhole with 20 pixels to the radian, or
    orthographic."""
    made = look_at(
        (0, 0, z),
        (0, 0, 0),
        width=width,
        height=height,
        metres_per_pixel=metres_per_pixel,
        field_of_view=None if metres_per_pixel else 60,
    )
    return made if metres_per_pixel else replace(made, fx=20.0, fy=20.0)


def oblique(width: int = 70, height: int = 45, *, metres_per_pixel: float | None = None) -> Camera:
    """From the south and above, sizes that are no multiple of a tile."""
    return look_at(
        (0.3, -6, 3),
        (0, 0, 0),
        width=width,
        height=height,
        metres_per_pixel=metres_per_pixel,
        field_of_view=None if metres_per_pixel else 50,
    )


CAMERAS = {"pinhole": oblique(), "orthographic": oblique(metres_per_pixel=0.07)}
