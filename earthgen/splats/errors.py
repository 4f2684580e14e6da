"""What can be wrong with Gaussians, cameras and pictures of them. All are SplatErrors."""

from __future__ import annotations

from geo_io.errors import EarthgenError

__all__ = [
    "CameraError",
    "CameraModelError",
    "GaussiansError",
    "MetricError",
    "PlyError",
    "SplatCrsError",
    "SplatError",
]


class SplatError(EarthgenError):
    """An operation on Gaussians, cameras or pictures was given what it cannot work with."""

    exit_code = 10


class CameraError(SplatError):
    """A camera or a path of cameras that cannot be: no direction of view, no pixels, a turn that is none."""


class CameraModelError(CameraError, NotImplementedError):
    """A file holds cameras with a lens (distortion, fisheye ...) that `Camera` does not have."""


class GaussiansError(SplatError):
    """Gaussians hold what no Gaussian is: NaN, scales of zero, quaternions of another length than 1."""


class SplatCrsError(SplatError):
    """Gaussians or cameras of different CRSs or vertical CRSs meet."""


class PlyError(SplatError):
    """A PLY is of a dialect that cannot be read as Gaussians."""


class MetricError(SplatError):
    """Pictures that are to be compared do not fit, or what compares them is not installed."""
