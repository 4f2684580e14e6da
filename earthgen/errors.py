"""Every error that a user can cause and mend, one class per exit code and per case that code
catches.

Each carries the problem, the next step (`remedy`) and the exit code of the command line;
docs/reference/exit-codes.md lists them. What exactly went wrong is said by the text, not by the
class. The errors of inputs and of places come from `geo_io.errors` and can be imported from here
too.
"""

from __future__ import annotations

from geo_io.errors import (
    EarthgenError,
    FrameError,
    InputError,
    MissingCrsError,
    MissingFileError,
    RegionError,
    UnsafePathError,
)

__all__ = [
    "CropError",
    "EarthgenError",
    "FrameError",
    "InputError",
    "JobError",
    "MissingCrsError",
    "MissingFileError",
    "MissingWeightsError",
    "ModelError",
    "OutOfMemoryError",
    "PluginError",
    "RegionError",
    "SchedulerError",
    "SizeError",
    "SparseError",
    "SplatError",
    "StoreError",
    "StoreExistsError",
    "StoreFullError",
    "TrainingError",
    "UnknownNameError",
    "UnsafePathError",
]


class JobError(EarthgenError):
    """Settings of a job, a recipe, a training or an evaluation are wrong or contradict each
    other."""

    exit_code = 2


class CropError(FrameError):
    """A dataset has no crop like the one asked for."""


class StoreError(EarthgenError):
    """A world, dataset or scene on disk cannot be opened, read or written."""

    exit_code = 5


class StoreExistsError(StoreError, FileExistsError):
    """There is something at the output path already."""


class StoreFullError(StoreError, OSError):
    """The disk filled up; what was written stays valid."""


class PluginError(EarthgenError):
    """A plugin did not do what its hook promises."""

    exit_code = 6


class UnknownNameError(PluginError, LookupError):
    """No plugin offers what was named."""


class SizeError(EarthgenError):
    """The job is so large that it needs an explicit yes."""

    exit_code = 7


class OutOfMemoryError(SizeError, MemoryError):
    """An operation would take more memory than is free."""


class SchedulerError(EarthgenError):
    """Workers or a scheduler cannot be reached, or died again and again."""

    exit_code = 8


class SparseError(EarthgenError):
    """An operation on sparse tensors cannot work with what it was given, or its backend cannot
    run here."""

    exit_code = 9


class SplatError(EarthgenError):
    """Gaussians, cameras or pictures of them cannot be worked with, or a rasteriser cannot run
    here."""

    exit_code = 10


class ModelError(EarthgenError):
    """A model, or its weights, cannot work with what it was given."""

    exit_code = 11


class MissingWeightsError(ModelError, FileNotFoundError):
    """There is no weights file where one is looked for."""


class TrainingError(EarthgenError):
    """Training cannot start, or cannot go on."""

    exit_code = 12
