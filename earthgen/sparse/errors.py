"""What can be wrong with a sparse tensor or an operation on it. All are SparseErrors, and also the builtin's kind."""

from __future__ import annotations

from geo_io.errors import EarthgenError

__all__ = [
    "CoordinateRangeError",
    "DeviceError",
    "DtypeError",
    "DuplicateError",
    "LatticeError",
    "ShapeError",
    "SparseBackendError",
    "SparseError",
    "SparseMemoryError",
]


class SparseError(EarthgenError):
    """An operation on sparse tensors was given what it cannot work with."""

    exit_code = 9


class ShapeError(SparseError):
    """A tensor has another rank, number of rows or number of channels than is needed."""


class DtypeError(SparseError, TypeError):
    """A tensor has another dtype than is needed."""


class DeviceError(SparseError):
    """Tensors that are to meet lie on different devices."""


class LatticeError(SparseError):
    """Tensors that are to meet lie elsewhere: another CRS, voxel size, origin, stride, or other sites."""


class DuplicateError(SparseError):
    """A voxel is named twice."""


class CoordinateRangeError(SparseError, OverflowError):
    """Coordinates lie so far apart, or so far out, that integers would wrap."""


class SparseMemoryError(SparseError, MemoryError):
    """An operation would take more memory than is free."""


class SparseBackendError(SparseError):
    """A sparse backend cannot run here, or does not do what was asked of it."""
