"""Errors of training, named after what went wrong for the user. docs/cli.md lists the exit codes."""

from __future__ import annotations

from geo_io.errors import EarthgenError

__all__ = [
    "CheckpointError",
    "EmptyDatasetError",
    "MissingPartError",
    "NotFiniteLossError",
    "RunExistsError",
    "RunMismatchError",
    "TrainingError",
    "TrainingSettingsError",
]


class TrainingError(EarthgenError):
    """Training cannot start, or cannot go on."""

    exit_code = 12


class TrainingSettingsError(TrainingError, ValueError):
    """A setting is unknown or wrong, or settings contradict each other."""

    exit_code = 2


class RunExistsError(TrainingError, FileExistsError):
    """The folder holds a run already."""


class RunMismatchError(TrainingError):
    """A run cannot be continued with other settings or other data than it was begun with."""


class CheckpointError(TrainingError):
    """A checkpoint is damaged, or of another version."""


class NotFiniteLossError(TrainingError, ArithmeticError):
    """The loss, or its gradient, became NaN or infinite."""


class EmptyDatasetError(TrainingError):
    """There is nothing to train on: no scenes, no crops, or crops without voxels or colours."""


class MissingPartError(TrainingError, FileNotFoundError):
    """A part learns the latents of another part, which has not been trained yet."""
