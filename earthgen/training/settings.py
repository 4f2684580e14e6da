"""Settings of a training run, as checked values. Loads no torch.

`TrainingSettings` describes a run. Each part has a model of its own (`PART_SETTINGS`) with the
settings that this part uses and no others, so that a run and a model card record only those.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from earthgen.errors import JobError
from earthgen.models.presets import PARTS
from geo_io.safety.damage import damaged_file
from geo_io.safety.limits import bounded_text

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
    (("height", "image"), 0.5),
    (("semantics", "height", "image"), 0.5),
    ((), 1.0),
)
HEIGHTS: Mixture = (
    (("semantics",), 5.0),
    (("semantics", "image"), 2.0),
    (("semantics", "height"), 1.0),
    (("semantics", "height", "image"), 0.5),
    (("image",), 1.5),
    (("height", "image"), 0.25),
    (("height",), 0.25),
    ((), 0.5),
)
TEXTURE: Mixture = (
    (("semantics",), 5.0),
    (("semantics", "image"), 2.0),
    (("image",), 1.0),
    ((), 1.0),
)

MIXTURE = "Sets of conditions with weights; one set is drawn for each sample, [] is none"

Count = Annotated[int, Field(ge=1, le=10**9)]
Batch = Annotated[int, Field(ge=1, le=2**16)]
Machines = Annotated[int, Field(ge=1, le=4096)]
Positive = Annotated[float, Field(gt=0, le=1e9)]
NonNegative = Annotated[float, Field(ge=0, le=1e9)]
Ratio = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


COARSE_ODDS = (
    "Odds of crops from sources twice as coarse as the voxels or coarser, against 1 for fine ones"
)


class PartSettings(BaseModel):
    """Settings that every part has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    large: ClassVar[Mapping[str, Any]] = {
        "batch_size": 64,
        "learning_rate": 1e-4,
        "ema_decay": 0.9999,
        "warmup_ratio": 0.01,
    }
    """Defaults of the presets `base` and `paper`: the paper's batch size and learning rate."""

    steps: Count | None = Field(
        None, description="Steps of the training, which ends with the first of steps and minutes"
    )
    minutes: Positive | None = Field(
        None,
        description="Time of the steps, over all continuations; measuring, drawing and saving come "
        "in addition",
    )
    batch_size: Batch = Field(description="Crops per step")
    coarse_weight: Ratio = Field(0.1, description=COARSE_ODDS)
    micro_batch: Batch | None = Field(
        None,
        description="Crops computed at once, the gradients of a step are accumulated; the whole "
        "step if not given",
    )
    learning_rate: Positive = Field(1e-3, description="Highest learning rate of AdamW")
    warmup_ratio: Decay = Field(
        0.03, description="Share of the training in which the learning rate rises"
    )
    cooldown_ratio: Annotated[float, Field(gt=0, le=1)] = Field(
        0.4,
        description="Share of the training, at its end, in which the learning rate falls to 0; "
        "before, it is constant",
    )
    decay_power: NonNegative = Field(1.0, description="Power of the polynomial by which it falls")
    betas: tuple[float, float] = Field((0.9, 0.99), description="Betas of AdamW")
    weight_decay: NonNegative = Field(
        0.01, description="Weight decay of AdamW; biases and norms have none"
    )
    max_grad_norm: Positive = Field(1.0, description="The gradient is clipped to this norm")
    ema_decay: Decay = Field(
        0.998, description="Decay of the moving average of the weights, which is what is kept"
    )


class VoxelSettings(PartSettings):
    """Settings of parts that compute voxels."""

    max_voxels: Count = Field(
        250_000,
        description="Largest number of voxels of a crop, as in the paper; a crop with more is "
        "divided into quarters, which are all trained on",
    )
    micro_voxels: Count = Field(
        500_000,
        description="Voxels computed at once; the gradients of a step with more are accumulated",
    )


class FlowSettings(PartSettings):
    """Settings of all flows."""

    style_dropout: Ratio = Field(
        0.1, description="Probability that the style is hidden from a sample"
    )
    map_ratio: Ratio = Field(
        0.5,
        description="Probability that the land cover of a sample is that of the scene's map, which "
        "lacks single trees and small things, instead of what stands there",
    )
    map_noise: Ratio = Field(
        0.75, description="Probability that the land cover of a sample is corrupted as maps are"
    )


class StructVaeSettings(VoxelSettings):
    """Settings of StructVAE."""

    coarse_weight: Ratio = Field(0.0, description=COARSE_ODDS)

    batch_size: Batch = Field(2, description="Crops per step")
    learning_rate: Positive = Field(2e-3, description="Highest learning rate of AdamW")
    kl_weight: NonNegative = Field(
        1e-3, description="Weight of the latent's divergence from a normal distribution"
    )


class TexVaeSettings(VoxelSettings):
    """Settings of TexVAE."""

    batch_size: Batch = Field(2, description="Crops per step")
    learning_rate: Positive = Field(2e-3, description="Highest learning rate of AdamW")
    kl_weight: NonNegative = Field(
        1e-4, description="Weight of the latent's divergence from a normal distribution"
    )
    render_start: Ratio = Field(
        0.5, description="Share of the training after which views are rendered; 1 renders none"
    )
    render_every: Count = Field(2, description="A view is rendered in one of so many steps")
    render_size: Annotated[int, Field(ge=16, le=4096)] = Field(
        64, description="Pixels per edge of a view"
    )
    l1_weight: NonNegative = Field(1.0, description="Weight of the L1 error of a view")
    ssim_weight: NonNegative = Field(0.2, description="Weight of 1 - SSIM of a view")
    perceptual_weight: NonNegative = Field(
        0.1, description="Weight of the perceptual distance of a view"
    )


class StructCoarseSettings(FlowSettings, VoxelSettings):
    """Settings of StructFM's first stage."""

    batch_size: Batch = Field(8, description="Crops per step")
    condition_mixture: Mixture = Field(STRUCTURE, description=MIXTURE)


class StructFineSettings(FlowSettings):
    """Settings of StructFM's second stage."""

    coarse_weight: Ratio = Field(0.0, description=COARSE_ODDS)

    batch_size: Batch = Field(16, description="Crops per step")
    condition_mixture: Mixture = Field(STRUCTURE, description=MIXTURE)
    dilation_probability: Ratio = Field(
        0.15,
        description="Probability that a neighbour of an active cell is added; the target of its "
        "latent is 0",
    )
    latent_pool_size: Count = Field(
        4096, description="Crops whose latents are kept in memory and drawn from"
    )


class TexFlowSettings(FlowSettings, VoxelSettings):
    """Settings of TexFM."""

    batch_size: Batch = Field(2, description="Crops per step")
    condition_mixture: Mixture = Field(TEXTURE, description=MIXTURE)
    target: Literal["latent", "rgb"] | None = Field(
        None,
        description="What is learned for each voxel: `latent`, that of TexVAE, or `rgb`, the "
        "colour; by default the preset's",
    )
    told_dropout: Ratio = Field(
        0.35,
        description="Probability that a sample is told no colours of objects; of the others, half "
        "are told all and half those of every other object",
    )


class HeightFlowSettings(FlowSettings):
    """Settings of the flow on height maps."""

    batch_size: Batch = Field(16, description="Crops per step")
    condition_mixture: Mixture = Field(
        HEIGHTS,
        description=MIXTURE
        + '; "semantics" is a map with its buildings and woods, "height" a surface model that '
        "covers a part of the sample",
    )
    condition_dropout: Ratio = Field(
        0.05,
        description="Probability that classes and image are hidden while heights of buildings "
        "stay, which is what guidance goes away from",
    )
    image_dropout: Ratio = Field(
        0.0, description="Probability that an image of the mixture is hidden all the same"
    )
    axes_dropout: Ratio = Field(
        0.2,
        description="Probability that the axes of buildings are hidden, as where land cover is a "
        "raster",
    )
    roof_dropout: Ratio = Field(
        0.2, description="Probability that the roofs of a sample's buildings are not told"
    )
    wood_ratio: Ratio = Field(
        0.4,
        description="Probability that the heights of woods are told, as by a map of forest stands",
    )


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
    """Settings of a run that the training loop uses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="Each seed gives other weights, crops and noise"
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="bf16 autocasts; auto is bf16 on devices that multiply it in hardware"
    )
    prefetch: Annotated[int, Field(ge=0, le=64)] | None = Field(
        None,
        description="Batches prepared ahead, in threads; if not given, none on a CPU and 4 "
        "elsewhere",
    )
    data_device: Literal["auto", "cpu", "training"] = Field(
        "auto",
        description="Where the rasters of the scenes lie for height-flow: with training, crops are "
        "cut on the device of the training; auto does so on GPUs",
    )
    sparse_backend: str | None = Field(
        None,
        description="Backend of sparse operations, listed by `earthgen doctor`; chosen by device "
        "and dtype if not given",
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="Whether height-flow is compiled by torch; auto does so on GPUs"
    )
    recompute: bool = Field(
        False,
        description="Compute the blocks again in the backward pass instead of keeping them in "
        "memory (gradient checkpointing)",
    )
    checkpoint_minutes: Positive = Field(
        5.0, description="Time between checkpoints, each with measurements and pictures"
    )
    checkpoint_steps: Count | None = Field(
        None, description="Steps between checkpoints, instead of minutes"
    )
    keep: Count = Field(2, description="Checkpoints to keep")
    log_steps: Count = Field(20, description="Steps between rows of metrics.csv")
    pictures: bool = Field(True, description="Draw held-out crops with each checkpoint")
    tensorboard: bool = Field(True, description="Write for TensorBoard too, if it is installed")


class TrainingSettings(LoopSettings):
    """A run: what is trained, on what, and how."""

    data: tuple[Path, ...] = Field(
        min_length=1,
        description="Folder of scenes, made by `earthgen dataset build` or `simulate`; several are "
        "mixed",
    )
    out: Path = Field(description="Folder of the run")
    preset: str = Field("tiny", description="Sizes of the models: tiny, base or paper")
    init: str | None = Field(
        None,
        description="Start from trained weights: `shipped`, a folder of weights, or a run; new "
        "weights if not given",
    )
    freeze: tuple[str, ...] = Field(
        (), description="Part that is taken from `init` without training it"
    )
    steps: Count | None = Field(None, description="Steps of the training, of all parts together")
    minutes: Positive | None = Field(
        None, description="Time of the training, of all parts together, with the rate at 0 then"
    )
    columns: Annotated[int, Field(ge=8, le=2**14)] | None = Field(
        None, description="Edge of a crop in voxels; the preset's if not given"
    )
    overlap: Decay = Field(0.5, description="Overlap of neighbouring crops, a share of their edge")
    grades: tuple[str, ...] = Field(("A", "B"), description="Licence grade to train on")
    scenes: tuple[str, ...] = Field((), description="Train on this scene only")
    simulated: Ratio | None = Field(
        None,
        description="Share of the crops from simulated scenes, if there are real ones too; by "
        "their number if not given",
    )
    device: str = Field("cpu", description="cpu, cuda or auto")
    devices: Machines = Field(1, description="Number of devices; more than 1 need earthgen[train]")
    threads: Machines | None = Field(None, description="Threads of the CPU; torch's if not given")
    held_out: Annotated[int, Field(ge=0, le=10**6)] = Field(
        6, description="Held-out crops to measure"
    )
    weights_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Data type of the resulting weights"
    )
    licence: str = Field("", description="Licence of the weights, for their model card")
    title: str = Field("", description="Title of the model card")
    notes: tuple[str, ...] = Field((), description="Paragraphs of the model card")
    parts: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Settings of single parts: by the name of the part, the fields of its model in "
        "`PART_SETTINGS`",
    )

    @field_validator("data", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Path) else value

    @field_validator("parts")
    @classmethod
    def _check_parts(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        unknown = sorted(set(value) - set(PARTS))
        if unknown:
            raise ValueError(f"unknown part {unknown[0]!r}; choose from {', '.join(PARTS)}")
        return value

    @field_validator("freeze")
    @classmethod
    def _check_freeze(cls, value: tuple[str, ...]) -> tuple[str, ...]:
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


IDENTITY = ("preset", "seed", "columns", "overlap", "grades", "scenes", "simulated", "precision")
"""Settings of a run that a continuation has to share. The dataset is compared by its digest."""

LENGTH = frozenset({"steps", "minutes", "micro_batch", "micro_voxels"})
"""Settings of a part that a continuation may change: its length, and what memory allows."""


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


def default_settings(part: str, preset: str) -> dict[str, Any]:
    """Return the values of all settings that a run records of a part, if none is given, as JSON."""
    model = PART_SETTINGS[part]
    run = {
        name: TrainingSettings.model_fields[name].get_default(call_default_factory=True)
        for name in IDENTITY
    }
    own = model.model_validate(model.large if preset in ("base", "paper") else {})
    values = {
        **{name: value for name, value in run.items() if name != "preset"},
        **own.model_dump(mode="json"),
    }
    result: dict[str, Any] = json.loads(json.dumps(values))
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
    if not where.exists():
        raise JobError(f"{where} does not exist", "write one as docs/guides/training.md shows")
    remedy = "see docs/guides/training.md for an example"
    with damaged_file(f"{where} is not TOML", remedy, JobError):
        values = tomllib.loads(bounded_text(where))
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
