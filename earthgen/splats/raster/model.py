"""The model of a picture of 2D Gaussians: its constants, what it holds, and who draws it.

The constants are those of Huang et al. 2024, "2D Gaussian Splatting for Geometrically Accurate
Radiance Fields", and of gsplat.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from earthgen.errors import SplatError

if TYPE_CHECKING:  # `earthgen plugins` imports this module without torch
    from torch import Tensor

    from earthgen.splats.cameras.camera import Camera
    from earthgen.splats.tensors import SplatTensors

MOST_ALPHA = 0.999
"""Largest share of a pixel that one Gaussian covers, as in gsplat."""

LEAST_ALPHA = 1 / 255
"""A Gaussian that covers a smaller share of a pixel is not drawn there."""

LEAST_LIGHT = 1e-4
"""A Gaussian is not drawn at a pixel where it would leave no more than this share of the light,
nor is any behind it."""

PIXEL_WEIGHT = 2.0
"""1 / sigma^2 of the smallest Gaussian that is drawn, sigma = sqrt(1/2) pixel: the low-pass filter
of section 4.2."""


@dataclass(frozen=True)
class Rendering:
    """What a camera sees of 2D Gaussians.

    w_i is the weight of the i-th Gaussian from the front in a pixel. Float tensors have the dtype
    of the Gaussians. All tensors but `semantics` have gradients.

    Attributes
    ----------
    rgb : Tensor (h, w, 3)
        sum w_i c_i, plus the background times the light that is left; sRGB as stored, not clipped.
    alpha : Tensor (h, w)
        sum w_i.
    depth : Tensor (h, w)
        sum w_i d_i / sum w_i, metres along the camera's z axis; 0 where nothing is drawn. d_i is
        the depth at which the pixel's ray meets the disc, or that of the disc's mean where the
        low-pass filter is larger than the disc.
    median_depth : Tensor (h, w)
        d_i of the Gaussian behind which at most half of the light is left; 0 where more is left.
    normal : Tensor (h, w, 3)
        sum w_i n_i in world axes; n_i is a unit vector that faces the camera.
    distortion : Tensor (h, w)
        Sum over pairs i < j of w_i w_j (d_i - d_j)^2, square metres (appendix of the paper).
    semantics : Tensor (h, w) uint8
        Class with the largest sum of w_i, the lowest code of equal ones; 0 where nothing is drawn.
    camera : Camera
        The camera.
    """

    rgb: Tensor
    alpha: Tensor
    depth: Tensor
    median_depth: Tensor
    normal: Tensor
    distortion: Tensor
    semantics: Tensor
    camera: Camera


class Rasterizer(ABC):
    """Base class of what draws 2D Gaussians.

    A subclass sets `name` and `devices` and overrides `rasterize`.
    `earthgen.testing.check_rasterizer` compares it with the reference.

    Attributes
    ----------
    name : str
        Name by which users choose the rasterizer.
    devices : tuple of str
        torch device types on which it draws.
    differs : tuple of str
        Fields of `Rendering` whose values differ from their definition there.
    note : str
        A remark that `earthgen doctor` shows.
    """

    name: str
    devices: tuple[str, ...]
    differs: tuple[str, ...] = ()
    note: str = ""

    def unavailable(self) -> str:
        """Say why it cannot run on this machine and what to do about it; "" if it can."""
        return ""

    @abstractmethod
    def rasterize(self, splats: SplatTensors, camera: Camera, background: Tensor) -> Rendering:
        """Draw Gaussians.

        Parameters
        ----------
        splats : SplatTensors
            Gaussians whose values have been checked.
        camera : Camera
            The camera.
        background : Tensor (3,)
            sRGB colour, on the device of the Gaussians.

        Raises
        ------
        SplatError
            If the picture cannot be drawn.
        """


def check_frame(splats: SplatTensors, camera: Camera) -> None:
    """Raise SplatError if camera and Gaussians are in different CRSs; "" matches any."""
    if splats.crs and camera.crs and splats.crs != camera.crs:
        raise SplatError(
            f"the camera is in {camera.crs}, the Gaussians are in {splats.crs}",
            "give the camera in their CRS",
        )
