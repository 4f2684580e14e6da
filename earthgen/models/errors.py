"""What can be wrong with models, their inputs and their weights."""

from __future__ import annotations

from geo_io.errors import EarthgenError

__all__ = [
    "ConditionError",
    "MissingWeightsError",
    "ModelError",
    "PrecisionError",
    "PresetError",
    "SamplingError",
    "WeightsDigestError",
    "WeightsError",
    "WeightsFormatError",
    "WeightsPresetError",
    "WeightsShapeError",
    "WeightsVersionError",
]


class ModelError(EarthgenError):
    """A model was given what it cannot work with."""

    exit_code = 11


class PresetError(ModelError, LookupError):
    """No preset, or no part of one, has this name."""


class ConditionError(ModelError):
    """Conditions do not fit the voxels, the batch or the model."""


class SamplingError(ModelError):
    """A flow cannot be sampled like this."""


class PrecisionError(ModelError, ValueError):
    """Products cannot be taken in this precision."""


class WeightsError(ModelError):
    """Weights cannot be used."""


class MissingWeightsError(WeightsError, FileNotFoundError):
    """There is no file of weights where one is looked for."""


class WeightsFormatError(WeightsError):
    """A file holds no weights of this program, or is damaged."""


class WeightsShapeError(WeightsError):
    """Tensors are missing, or have other shapes than the model."""


class WeightsDigestError(WeightsError):
    """The tensors are not those that were saved."""


class WeightsVersionError(WeightsError):
    """The weights were made for another version of the model."""


class WeightsPresetError(WeightsError):
    """The weights are of another model, preset or voxel size than is asked for."""
