"""What a training run can be told, as checked values; loads no torch."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

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
"""What `earthgen train` can be asked for, and the parts that it then trains, in order."""

SHARES = {
    "struct-vae": 0.24,
    "struct-coarse": 0.08,
    "struct-fine": 0.22,
    "tex-vae": 0.12,
    "tex-flow": 0.22,
    "height-flow": 0.12,
}
"""How `all` divides --minutes or --steps among the parts, unless their own settings say."""

Mixture = tuple[tuple[tuple[str, ...], float], ...]

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


class PartSettings(BaseModel):
    """How one part is trained.

    Attributes
    ----------
    steps, minutes : how long, whichever ends first; at least one of them. Minutes are those spent
        on steps,
        measurements and pictures, over all continuations together
    batch : crops a step
    max_voxels : of a batch; crops beyond it are left out (paper: 250,000 a sample)
    learning_rate : of AdamW at its highest
    warm_up : share of the training in which it rises from 0
    power : of the polynomial by which it falls to 0 at the end
    betas, weight_decay : of AdamW
    clip : largest norm of the gradient
    average : decay of the exponential moving average of the weights, which is what is kept
    mixture : sets of conditions with weights, one drawn for each sample (flows)
    drop : odds that land cover is hidden from a sample (height-flow)
    shortcut, shortcut_from : share of steps that teach few-step sampling, after this share of the
        training (flows)
    dilation : odds of a neighbour of an active cell to be added (struct-fine)
    pool : how many crops' latents are kept and drawn from (struct-fine)
    render_from, render_every : share of the training after which, and every how many steps, views
        are rendered; 1
        renders none (tex-vae)
    render_size : pixels an edge of a view
    l1, ssim, perceptual : weights of the errors of views
    divergence : weight of the latent's divergence; None is the part's own
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int | None = Field(None, ge=1)
    minutes: float | None = Field(None, gt=0)
    batch: int = Field(4, ge=1)
    max_voxels: int = Field(250_000, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    warm_up: float = Field(0.03, ge=0, lt=1)
    power: float = Field(1.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(1.0, gt=0)
    average: float = Field(0.998, ge=0, lt=1)
    mixture: Mixture = STRUCTURE
    drop: float = Field(0.1, ge=0, le=1)
    shortcut: float = Field(0.25, ge=0, le=1)
    shortcut_from: float = Field(0.5, ge=0, le=1)
    dilation: float = Field(0.15, ge=0, le=1)
    pool: int = Field(4096, ge=1)
    render_from: float = Field(0.5, ge=0, le=1)
    render_every: int = Field(2, ge=1)
    render_size: int = Field(64, ge=16)
    l1: float = Field(1.0, ge=0)
    ssim: float = Field(0.2, ge=0)
    perceptual: float = Field(0.1, ge=0)
    divergence: float | None = Field(None, ge=0)


DEFAULTS: dict[str, dict[str, Any]] = {
    "struct-vae": {"batch": 2, "learning_rate": 2e-3},
    "tex-vae": {"batch": 2, "learning_rate": 2e-3},
    "struct-coarse": {"batch": 8},
    "struct-fine": {"batch": 16},
    "tex-flow": {"batch": 2, "mixture": TEXTURE},
    "height-flow": {"batch": 16},
}
"""Of each part, for presets that learn on few crops; `LARGE` changes them for the others."""

LARGE: dict[str, Any] = {"batch": 64, "learning_rate": 1e-4, "average": 0.9999, "warm_up": 0.01}
"""For presets `base` and `paper`: the paper's batch and learning rate."""


class Settings(BaseModel):
    """A run: what is trained, on what, and how.

    Attributes
    ----------
    data : a folder of scenes, of `earthgen dataset build`
    out : the folder of the run
    steps, minutes : of all parts together
    columns : along an edge of a crop, voxels; the preset's unless given
    overlap : of neighbouring crops
    grades, scenes : licence grades, and names of scenes, that are trained on
    precision : "bf16" autocasts; "auto" does so where the device multiplies bfloat16 in hardware
    device, devices : "cpu" or "cuda", and how many of them; more than one needs Lightning Fabric
    threads : of the CPU; torch's own number unless given
    prefetch : batches that are prepared ahead in threads of their own
    checkpoint_minutes, checkpoint_steps : between checkpoints; each comes with measurements and
        pictures
    keep : checkpoints that stay
    log_steps : between rows of metrics.csv
    held_out : crops that are measured
    weights_dtype, licence, title, notes : of the weights that come out
    parts : settings of parts by name, where they are others than the defaults
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path
    out: Path
    preset: str = "tiny"
    seed: int = Field(0, ge=0, lt=2**63)
    steps: int | None = Field(None, ge=1)
    minutes: float | None = Field(None, gt=0)
    columns: int | None = Field(None, ge=8)
    overlap: float = Field(0.5, ge=0, lt=1)
    grades: tuple[str, ...] = ("A", "B")
    scenes: tuple[str, ...] = ()
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    device: str = "cpu"
    devices: int = Field(1, ge=1)
    threads: int | None = Field(None, ge=1)
    prefetch: int = Field(0, ge=0, le=64)
    checkpoint_minutes: float = Field(5.0, gt=0)
    checkpoint_steps: int | None = Field(None, ge=1)
    keep: int = Field(2, ge=1)
    log_steps: int = Field(20, ge=1)
    held_out: int = Field(6, ge=0)
    pictures: bool = True
    tensorboard: bool = True
    weights_dtype: Literal["float32", "bfloat16"] = "float32"
    licence: str = ""
    title: str = ""
    notes: tuple[str, ...] = ()
    parts: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("parts")
    @classmethod
    def _known(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        unknown = sorted(set(value) - set(PARTS))
        if unknown:
            raise ValueError(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
        return value

    @model_validator(mode="after")
    def _crops(self) -> Settings:
        if self.columns is not None and self.columns % 8:
            raise ValueError("crops are multiples of 8 voxels")
        return self


FREE = frozenset(
    {
        "out",
        "steps",
        "minutes",
        "threads",
        "device",
        "devices",
        "prefetch",
        "checkpoint_minutes",
        "checkpoint_steps",
        "keep",
        "log_steps",
        "held_out",
        "pictures",
        "tensorboard",
        "weights_dtype",
        "licence",
        "title",
        "notes",
        "parts",
        "data",
    }
)
"""Settings of a run that a continuation may change: of `data` the digest counts, not where it
lies."""

FREE_OF_PART = frozenset({"steps", "minutes"})


def of_part(settings: Settings, part: str, of: tuple[str, ...]) -> PartSettings:
    """The settings of one part, with its share of the run's steps and minutes.

    of : the parts of the run

    Raises JobError where a setting is wrong, or nothing says how long to train.
    """
    given = {
        **DEFAULTS[part],
        **(LARGE if settings.preset in ("base", "paper") else {}),
        **settings.parts.get(part, {}),
    }
    if "steps" not in given and "minutes" not in given:
        share = SHARES[part] / sum(SHARES[each] for each in of)
        if settings.steps is not None:
            given["steps"] = max(round(settings.steps * share), 1)
        if settings.minutes is not None:
            given["minutes"] = settings.minutes * share
    found: PartSettings = _checked(PartSettings, given, f"parts.{part}.")
    if found.steps is None and found.minutes is None:
        raise JobError(f"nothing says how long to train {part}", "give --minutes or --steps")
    return found


def make_settings(values: Mapping[str, Any]) -> Settings:
    """Checked settings from values by name. Raises JobError, naming the first that is wrong."""
    return _checked(Settings, values, "")


def load_settings(path: Path | str) -> dict[str, Any]:
    """The values of a TOML file, `data` and `out` relative to it.

    Raises JobError where it is not there, or no TOML.
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


def _checked(kind: Any, values: Mapping[str, Any], prefix: str) -> Any:
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = prefix + ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise JobError(
            f"setting {name!r}: {message}", "docs/guides/training.md describes the settings"
        ) from error
