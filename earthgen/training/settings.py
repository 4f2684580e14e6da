"""Settings of a training run, as checked values. Loads no torch.

`TrainingSettings` describes a run. Each part has a model of its own (`PART_SETTINGS`) with the
settings that this part uses and no others, so that a run and a model card record only those.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from earthgen.errors import JobError
from earthgen.models.presets import PARTS

TASKS: dict[str, tuple[str, ...]] = {
    "struct-vae": ("struct-vae",),
    "tex-vae": ("tex-vae",),
    "struct-flow": ("struct-coarse", "struct-fine"),
    "struct-coarse": ("struct-coarse",),
    "struct-fine": ("struct-fine",),
    "tex-flow": ("tex-flow",),
    "height-flow": ("height-flow",),
    "all": ("struct-vae", "struct-coarse", "struct-fine", "height-flow", "tex-vae", "tex-flow"),
}
"""What `earthgen train` accepts, and the parts that each task trains, in order."""

SHARES = {
    "struct-vae": 0.24,
    "struct-coarse": 0.08,
    "struct-fine": 0.22,
    "tex-vae": 0.12,
    "tex-flow": 0.22,
    "height-flow": 0.12,
}
"""How `all` divides --minutes or --steps among the parts that set neither themselves."""

Mixture = tuple[tuple[tuple[str, ...], float], ...]
"""Sets of condition names, each with its weight."""

STRUCTURE: Mixture = (
    (("semantics",), 4.0),
    (("semantics", "height"), 4.0),
    (("height",), 1.0),
    (("image",), 0.5),
    (("semantics", "image"), 0.5),
    ((), 1.0),
)
TEXTURE: Mixture = (
    (("semantics",), 5.0),
    (("semantics", "image"), 2.0),
    (("image",), 1.0),
    ((), 1.0),
)

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Ratio = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class PartSettings(BaseModel):
    """Settings that every part has.

    Attributes
    ----------
    steps, minutes : int, float
        Length of the training, at least one of the two; it ends with the first that is reached.
        Minutes are those of steps, measurements and pictures, over all continuations.
    batch_size : int
        Crops per step.
    learning_rate : float
        Highest learning rate of AdamW.
    warmup_ratio : float
        Share of the training in which the learning rate rises from 0.
    cooldown_ratio : float
        Share of the training, at its end, in which the learning rate falls to 0.
    decay_power : float
        Power of the polynomial by which it falls.
    betas, weight_decay : (float, float), float
        Parameters of AdamW.
    max_grad_norm : float
        The gradient is clipped to this norm.
    ema_decay : float
        Decay of the exponential moving average of the weights, which is what is kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    large: ClassVar[Mapping[str, Any]] = {
        "batch_size": 64,
        "learning_rate": 1e-4,
        "ema_decay": 0.9999,
        "warmup_ratio": 0.01,
    }
    """Defaults of the presets `base` and `paper`: the paper's batch size and learning rate."""

    steps: Count | None = None
    minutes: Positive | None = None
    batch_size: Count
    learning_rate: Positive = 1e-3
    warmup_ratio: Decay = 0.03
    cooldown_ratio: Annotated[float, Field(gt=0, le=1)] = 0.4
    decay_power: NonNegative = 1.0
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: NonNegative = 0.01
    max_grad_norm: Positive = 1.0
    ema_decay: Decay = 0.998


class FlowSettings(PartSettings):
    """Settings of all flows.

    Attributes
    ----------
    shortcut_ratio : float
        Share of the steps that train few-step sampling. It measured worse than none
        (docs/background/benchmarks.md).
    shortcut_start : float
        Share of the training after which these steps begin.
    """

    shortcut_ratio: Ratio = 0.0
    shortcut_start: Ratio = 0.5


class StructVaeSettings(PartSettings):
    """Settings of StructVAE.

    Attributes
    ----------
    max_voxels : int
        Voxels of a batch; further crops are left out (paper: 250,000 per sample).
    kl_weight : float
        Weight of the latent's Kullback-Leibler divergence.
    """

    batch_size: Count = 2
    learning_rate: Positive = 2e-3
    max_voxels: Count = 250_000
    kl_weight: NonNegative = 1e-3


class TexVaeSettings(PartSettings):
    """Settings of TexVAE.

    Attributes
    ----------
    max_voxels, kl_weight : int, float
        As of `StructVaeSettings`.
    render_start : float
        Share of the training after which views are rendered; 1 renders none.
    render_every : int
        A view is rendered in one of so many steps.
    render_size : int
        Pixels per edge of a view.
    l1_weight, ssim_weight, perceptual_weight : float
        Weights of the errors of views.
    """

    batch_size: Count = 2
    learning_rate: Positive = 2e-3
    max_voxels: Count = 250_000
    kl_weight: NonNegative = 1e-4
    render_start: Ratio = 0.5
    render_every: Count = 2
    render_size: Annotated[int, Field(ge=16)] = 64
    l1_weight: NonNegative = 1.0
    ssim_weight: NonNegative = 0.2
    perceptual_weight: NonNegative = 0.1


class StructCoarseSettings(FlowSettings):
    """Settings of StructFM's first stage.

    Attributes
    ----------
    max_voxels : int
        As of `StructVaeSettings`.
    condition_mixture : Mixture
        Sets of conditions with weights; one set is drawn for each sample.
    """

    batch_size: Count = 8
    max_voxels: Count = 250_000
    condition_mixture: Mixture = STRUCTURE


class StructFineSettings(FlowSettings):
    """Settings of StructFM's second stage.

    Attributes
    ----------
    condition_mixture : Mixture
        As of `StructCoarseSettings`.
    dilation_probability : float
        Probability that a neighbour of an active cell is added.
    latent_pool_size : int
        Crops whose latents are kept in memory and drawn from.
    """

    batch_size: Count = 16
    condition_mixture: Mixture = STRUCTURE
    dilation_probability: Ratio = 0.15
    latent_pool_size: Count = 4096


class TexFlowSettings(FlowSettings):
    """Settings of TexFM.

    Attributes
    ----------
    max_voxels, condition_mixture : int, Mixture
        As of `StructCoarseSettings`.
    """

    batch_size: Count = 2
    max_voxels: Count = 250_000
    condition_mixture: Mixture = TEXTURE


class HeightFlowSettings(FlowSettings):
    """Settings of the flow on height maps.

    Attributes
    ----------
    condition_dropout : float
        Probability that the land cover is hidden from a sample.
    map_ratio : float
        Probability that the land cover of a sample is that of a map, which lacks single trees and
        small things, instead of what stands there.
    axes_dropout : float
        Probability that the axes of buildings are hidden, as where land cover is a raster.
    style_dropout : float
        Probability that the style is hidden.
    """

    batch_size: Count = 16
    condition_dropout: Ratio = 0.05
    map_ratio: Ratio = 0.5
    axes_dropout: Ratio = 0.2
    style_dropout: Ratio = 0.1


PART_SETTINGS: dict[str, type[PartSettings]] = {
    "struct-vae": StructVaeSettings,
    "tex-vae": TexVaeSettings,
    "struct-coarse": StructCoarseSettings,
    "struct-fine": StructFineSettings,
    "tex-flow": TexFlowSettings,
    "height-flow": HeightFlowSettings,
}
"""The settings model of each part."""

RENAMED = {
    "batch": "batch_size",
    "warm_up": "warmup_ratio",
    "power": "decay_power",
    "clip": "max_grad_norm",
    "average": "ema_decay",
    "mixture": "condition_mixture",
    "drop": "condition_dropout",
    "shortcut": "shortcut_ratio",
    "shortcut_from": "shortcut_start",
    "dilation": "dilation_probability",
    "pool": "latent_pool_size",
    "render_from": "render_start",
    "l1": "l1_weight",
    "ssim": "ssim_weight",
    "perceptual": "perceptual_weight",
    "divergence": "kl_weight",
}
"""Earlier names of settings and their names now, for error messages."""


class LoopSettings(BaseModel):
    """Settings of a run that the training loop uses.

    Attributes
    ----------
    seed : int
        Weights, crops and noise depend on it.
    precision : str
        "bf16" autocasts, "fp32" does not; "auto" is bf16 where the device multiplies bfloat16 in
        hardware.
    prefetch : int
        Batches that are prepared ahead, in threads of their own.
    checkpoint_minutes, checkpoint_steps : float, int
        Between checkpoints, each with measurements and pictures; steps override minutes.
    keep : int
        Checkpoints to keep.
    log_steps : int
        Steps between rows of metrics.csv.
    pictures, tensorboard : bool
        Whether to write these.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    prefetch: Annotated[int, Field(ge=0, le=64)] = 0
    checkpoint_minutes: Positive = 5.0
    checkpoint_steps: Count | None = None
    keep: Count = 2
    log_steps: Count = 20
    pictures: bool = True
    tensorboard: bool = True


class TrainingSettings(LoopSettings):
    """A run: what is trained, on what, and how.

    Attributes
    ----------
    data : Path
        A folder of scenes, made by `earthgen dataset build`.
    out : Path
        The folder of the run.
    preset : str
        A name in `earthgen.models.presets.PRESETS`.
    steps, minutes : int, float
        Length of the training of all parts together.
    columns : int
        Columns along an edge of a crop; None takes the preset's.
    overlap : float
        Overlap of neighbouring crops, as a share of their edge.
    grades, scenes : tuple of str
        Licence grades, and names of scenes, to train on; no names are all scenes.
    device, devices : str, int
        "cpu", "cuda" or "auto", and how many; more than one needs Lightning Fabric.
    threads : int
        Threads of the CPU; None is torch's default.
    held_out : int
        Crops to measure.
    weights_dtype, licence, title, notes : str, str, str, tuple of str
        Of the resulting weights and their model card.
    parts : dict
        Settings of parts that differ from the defaults, by the name of the part: the fields of
        its model in `PART_SETTINGS`.
    """

    data: Path
    out: Path
    preset: str = "tiny"
    steps: Count | None = None
    minutes: Positive | None = None
    columns: Annotated[int, Field(ge=8)] | None = None
    overlap: Decay = 0.5
    grades: tuple[str, ...] = ("A", "B")
    scenes: tuple[str, ...] = ()
    device: str = "cpu"
    devices: Count = 1
    threads: Count | None = None
    held_out: Annotated[int, Field(ge=0)] = 6
    weights_dtype: Literal["float32", "bfloat16"] = "float32"
    licence: str = ""
    title: str = ""
    notes: tuple[str, ...] = ()
    parts: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("parts")
    @classmethod
    def _check_parts(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        unknown = sorted(set(value) - set(PARTS))
        if unknown:
            raise ValueError(f"unknown part {unknown[0]!r}; choose from {', '.join(PARTS)}")
        return value

    @field_validator("columns")
    @classmethod
    def _check_columns(cls, value: int | None) -> int | None:
        if value is not None and value % 8:
            raise ValueError("must be a multiple of 8")
        return value


IDENTITY = ("preset", "seed", "columns", "overlap", "grades", "scenes", "precision")
"""Settings of a run that a continuation has to share. The dataset is compared by its digest."""

LENGTH = frozenset({"steps", "minutes"})
"""Settings of a part that a continuation may change."""


def part_settings(settings: TrainingSettings, part: str, task: tuple[str, ...]) -> PartSettings:
    """Return the settings of one part, with its share of the run's steps and minutes.

    Parameters
    ----------
    settings : TrainingSettings
        The run.
    part : str
        The part.
    task : tuple of str
        All parts of the run, which share its steps and minutes.

    Raises
    ------
    JobError
        If a setting is wrong, or neither steps nor minutes are given.
    """
    model = PART_SETTINGS[part]
    large = model.large if settings.preset in ("base", "paper") else {}
    values = {**large, **settings.parts.get(part, {})}
    if "steps" not in values and "minutes" not in values:
        share = SHARES[part] / sum(SHARES[each] for each in task)
        if settings.steps is not None:
            values["steps"] = max(round(settings.steps * share), 1)
        if settings.minutes is not None:
            values["minutes"] = settings.minutes * share
    result = make_part_settings(part, values)
    if result.steps is None and result.minutes is None:
        raise JobError(f"no setting says how long to train {part}", "give --minutes or --steps")
    return result


def make_part_settings(part: str, values: Mapping[str, Any]) -> PartSettings:
    """Return checked settings of a part from values by name.

    Raises
    ------
    JobError
        For the first setting that is unknown, not used by this part, or out of range.
    """
    model = PART_SETTINGS[part]
    for name in values:
        if name not in model.model_fields:
            raise _unknown_setting(part, name)
    return _checked(model, values, f"parts.{part}.")


def make_settings(values: Mapping[str, Any]) -> TrainingSettings:
    """Return checked settings of a run from values by name, those of its parts included.

    Raises
    ------
    JobError
        For the first setting that is wrong.
    """
    settings = _checked(TrainingSettings, values, "")
    for part, own in settings.parts.items():
        make_part_settings(part, own)
    return settings


def load_settings(path: Path | str) -> dict[str, Any]:
    """Return the values of a TOML file; `data` and `out` are relative to the file.

    Raises
    ------
    JobError
        If the file does not exist or is not TOML.
    """
    where = Path(path)
    try:
        values = tomllib.loads(where.read_text("utf-8"))
    except FileNotFoundError as error:
        raise JobError(
            f"{where} does not exist", "write one as docs/guides/training.md shows"
        ) from error
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise JobError(
            f"{where} is not TOML: {error}", "see docs/guides/training.md for an example"
        ) from error
    for name in ("data", "out"):
        if isinstance(values.get(name), str):
            values[name] = str(where.resolve().parent / values[name])
    return values


def _unknown_setting(part: str, name: str) -> JobError:
    """Return the error for a setting that a part does not have, with the nearest of its names."""
    own = list(PART_SETTINGS[part].model_fields)
    current = RENAMED.get(name, name)
    nearest = current if current in own else difflib.get_close_matches(current, own, 1, 0.0)[0]
    users = [each for each, model in PART_SETTINGS.items() if current in model.model_fields]
    if users and current not in own:
        problem = f"{part} does not use it, it is a setting of {', '.join(users)}"
        remedy = f"remove it, or did you mean {nearest!r}?"
    else:
        problem, remedy = f"{part} has no such setting", f"did you mean {nearest!r}?"
    return JobError(f"setting 'parts.{part}.{name}': {problem}", remedy)


M = TypeVar("M", bound=BaseModel)


def _checked(model: type[M], values: Mapping[str, Any], prefix: str) -> M:
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = prefix + ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise JobError(
            f"setting {name!r}: {message}", "docs/guides/training.md describes the settings"
        ) from error
