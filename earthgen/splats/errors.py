"""What can be wrong with Gaussians, cameras and pictures of them. All are SplatErrors."""

from __future__ import annotations

from geo_io.errors import EarthgenError, InputError

__all__ = [
    "CameraError",
    "CameraModelError",
    "GaussiansError",
    "MetricError",
    "PlyError",
    "RasterizerError",
    "SplatCrsError",
    "SplatDeviceError",
    "SplatDtypeError",
    "SplatError",
    "SplatMemoryError",
    "SplatShapeError",
]


class SplatError(EarthgenError):
    """An operation on Gaussians, cameras or pictures was given what it cannot work with."""

    exit_code = 10


class CameraError(SplatError):
    """A camera or a path of cameras that cannot be: no direction of view, no pixels, a turn that is none."""


class CameraModelError(CameraError, InputError):
    """A file holds cameras with a lens (distortion, fisheye ...) that `Camera` does not have."""

    exit_code = 3


class GaussiansError(SplatError):
    """Gaussians hold what no Gaussian is: NaN, scales of zero, quaternions of another length than 1."""


class SplatCrsError(SplatError):
    """Gaussians or cameras of different CRSs or vertical CRSs meet."""


class PlyError(SplatError, InputError):
    """A PLY is of a dialect that cannot be read as Gaussians."""

    exit_code = 3


class MetricError(SplatError):
    """Pictures that are to be compared do not fit, or what compares them is not installed."""


class SplatShapeError(SplatError):
    """A tensor of Gaussians, a background or a canvas has another shape than is needed."""


class SplatDtypeError(SplatError, TypeError):
    """A tensor of Gaussians has another dtype than is needed."""


class SplatDeviceError(SplatError):
    """Tensors of Gaussians lie on different devices, or on one that the rasteriser does not draw on."""


class SplatMemoryError(SplatError, MemoryError):
    """A picture would take more memory than is free."""


class RasterizerError(SplatError):
    """A rasteriser cannot run here, or does not do what was asked of it."""
