"""Errors of the core. They share geo_io's base; docs/cli.md lists the exit codes."""

from __future__ import annotations

from geo_io.errors import EarthgenError

__all__ = [
    "EarthgenError",
    "JobError",
    "PluginError",
    "SchedulerError",
    "SizeError",
    "StoreError",
    "StoreExistsError",
    "StoreFullError",
    "UnknownNameError",
]


class JobError(EarthgenError):
    """A job's settings contradict each other or cannot be read."""

    exit_code = 2


class PluginError(EarthgenError):
    """A plugin did not do what its hook promises."""

    exit_code = 6


class UnknownNameError(PluginError, LookupError):
    """No plugin offers what was named."""


class SizeError(EarthgenError):
    """The job is so large that it wants an explicit yes."""

    exit_code = 7


class StoreError(EarthgenError):
    """A world on disk cannot be opened, read or written."""

    exit_code = 5


class StoreExistsError(StoreError, FileExistsError):
    """There is something at the output path already."""


class StoreFullError(StoreError, OSError):
    """The disk filled up; what was written stays valid."""


class SchedulerError(EarthgenError):
    """Workers or a scheduler cannot be reached, or died again and again."""

    exit_code = 8
