"""Errors of datasets, named after what a user gave. docs/cli.md lists the exit codes."""

from __future__ import annotations

from earthgen.errors import JobError, StoreError
from geo_io.errors import FrameError, InputError, RegionError

__all__ = [
    "CityModelError",
    "ColourDepthError",
    "CropError",
    "DatasetError",
    "LicenceError",
    "MeshFormatError",
    "PointCloudError",
    "RecipeError",
    "SceneExistsError",
    "SourceOverlapError",
    "TilesetError",
    "TruncatedCloudError",
    "UnclassifiedCloudError",
    "UnsafePathError",
    "VoxelSizeError",
]


class RecipeError(JobError):
    """A recipe cannot be read, or its settings contradict each other."""


class LicenceError(RecipeError):
    """A scene lacks a licence or its grade, or its grade forbids what it is used for."""


class PointCloudError(InputError):
    """A point cloud cannot be read, or does not hold what it is used for."""


class TruncatedCloudError(PointCloudError):
    """A LAS or LAZ file ends before its last point, or is damaged."""


class UnclassifiedCloudError(PointCloudError):
    """Points that are to say where the ground is have no ground class."""


class ColourDepthError(PointCloudError):
    """Colours do not fit the number of bits that was given for them."""


class MeshFormatError(InputError):
    """A mesh is of a format that is not read, or holds no surface."""


class CityModelError(MeshFormatError):
    """A CityJSON file is damaged, of an unknown version, or does not say where it lies."""


class TilesetError(MeshFormatError):
    """3D Tiles are damaged, or need what is not read."""


class UnsafePathError(InputError, PermissionError):
    """A file names another one on the network, or outside its own folder."""


class SourceOverlapError(RegionError):
    """The sources of a scene have no place in common."""


class VoxelSizeError(FrameError):
    """Scenes that are to be used together have another voxel size."""


class CropError(FrameError):
    """A crop is asked for that no scene can give."""


class DatasetError(StoreError):
    """A dataset on disk is not there, damaged, or of another version."""


class SceneExistsError(DatasetError, FileExistsError):
    """There is a scene of this name already."""
