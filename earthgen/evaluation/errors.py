"""Errors of evaluations, named after what a user gave. docs/cli.md lists the exit codes."""

from __future__ import annotations

from earthgen.dataset.errors import CropError
from earthgen.errors import JobError, UnknownNameError
from geo_io.errors import EarthgenError

__all__ = [
    "EvaluationSettingsError",
    "FeatureNetworkError",
    "NoHeldOutCropsError",
    "TooFewSamplesError",
    "UnknownBackendError",
]


class EvaluationSettingsError(JobError):
    """A setting of an evaluation is wrong, or settings contradict each other."""


class NoHeldOutCropsError(CropError):
    """A dataset has no crop in what is held out."""


class UnknownBackendError(UnknownNameError):
    """Neither a plugin nor a baseline has this name."""


class FeatureNetworkError(EarthgenError):
    """The image network is not there, or is not the one that is expected."""

    exit_code = 11


class TooFewSamplesError(EarthgenError):
    """A distance between distributions is asked for, of which too few samples are known."""
