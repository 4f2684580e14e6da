"""TODO docstring of earthgen.splats.raster.model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # every plugin imports this module, and `earthgen --help` imports every plugin
    from torch import Tensor

    from earthgen.splats.cameras.camera import Camera
    from earthgen.splats.tensors import SplatTensors
from torch import Tensor

from earthgen.errors import SplatError
from earthgen.splats.cameras.camera import Camera
from earthgen.splats.tensors import SplatTensors


class Rasterizer(Protocol):
    """What draws 2D Gaussians on some devices. `earthgen.testing.rasterizer.check_rasterizer`
    compares one with the reference.

    Attributes
    ----------
    name : what it is asked for by
    devices : torch device types it draws on
    differs : fields of `earthgen.splats.raster.model.Rendering` that are not what is promised there

    A text attribute `note`, where there is one, is shown by `earthgen doctor`.
    """

    name: str
    devices: tuple[str, ...]
    differs: tuple[str, ...]

    def unavailable(self) -> str:
        """Why it cannot run here and what to do about it, "" where it can."""

    def rasterize(self, splats: SplatTensors, camera: Camera, background: Tensor) -> Rendering:
        """The picture of Gaussians whose values have been checked, over a background (3,) on their
        device.

        Raises an `earthgen.errors.SplatError` where it cannot be drawn.
        """


MOST_ALPHA = 0.999
"""What one Gaussian may cover of a pixel, as in gsplat."""


LEAST_ALPHA = 1 / 255
"""A Gaussian that covers less of a pixel is not drawn on it."""


LEAST_LIGHT = 1e-4
"""A Gaussian that would leave no more than this of the light behind a pixel is not drawn, and
none behind it is."""


PIXEL_WEIGHT = 2.0
"""1 / sigma^2 of the least Gaussian that is drawn, sigma = sqrt(1/2) pixel: the low-pass of
section 4.2."""


@dataclass(frozen=True)
class Rendering:
    """What a camera sees of 2D Gaussians; w_i is what the i-th Gaussian from the front gives to a
    pixel.

    Attributes
    ----------
    rgb : (h, w, 3), sum w_i c_i and the background through what is left of the light; sRGB as
        stored, not clipped
    alpha : (h, w), sum w_i
    depth : (h, w), metres along the camera's z axis: sum w_i d_i / sum w_i, 0 where nothing is. d_i
        is where the
        pixel's ray meets the disc; where the low-pass is the larger Gaussian, the depth of the
        disc's mean
    median_depth : (h, w), d_i of the Gaussian at which less than half of the light is left, 0 where
        more stays
    normal : (h, w, 3), sum w_i n_i, world axes, n_i unit and towards the camera
    distortion : (h, w), sum over pairs i < j of w_i w_j (d_i - d_j)^2, square metres (the paper's
        appendix)
    semantics : (h, w) uint8, class with the largest sum of w_i, the lowest code of equal ones, 0
        where nothing is
    camera : that made it

    Floats have the dtype of the Gaussians. All but `semantics` have gradients.
    """

    rgb: Tensor
    alpha: Tensor
    depth: Tensor
    median_depth: Tensor
    normal: Tensor
    distortion: Tensor
    semantics: Tensor
    camera: Camera


def check_frame(splats: SplatTensors, camera: Camera) -> None:
    """Raise SplatError where camera and Gaussians name different CRSs; "" fits any."""
    if splats.crs and camera.crs and splats.crs != camera.crs:
        raise SplatError(
            f"the camera is in {camera.crs}, the Gaussians are in {splats.crs}",
            "give the camera in their CRS",
        )
