"""Settings of an evaluation, as checked values. Loads no numpy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from earthgen.errors import EarthgenError, JobError

CELL = 8
"""Crop sizes are multiples of this many columns. It is `earthgen.dataset.crop.CELL`, whose module
loads numpy, which the help of a command must not."""

QUICK: dict[str, Any] = {
    "crops": 8,
    "seeds": 1,
    "borders": 0,
    "images": False,
    "maps": False,
    "reconstruction": False,
}
"""What `quick` sets unless it is given: geometry of few crops, for gates while a model trains."""


class Settings(BaseModel):
    """What is measured, and on which crops.

    Raises JobError, naming the setting, for a value that is out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path = Field(description="The dataset, of `earthgen dataset build`.")
    weights: Path | None = Field(
        None,
        description="A set of weights, a run of `earthgen train`, or one of its checkpoints; "
        "the weights that come with earthgen if not given.",
    )
    learned: bool = Field(True, description="Whether weights are measured, or only the others.")
    preset: str | None = Field(None, description="Preset that the weights must have.")
    places: tuple[str, ...] = Field(
        (), description="A scene to measure on; all that are held out if not given."
    )
    backends: tuple[str, ...] = Field(
        (),
        description="Geometry backends, as NAME or NAME+TEXTURE, and baselines (nearest-tile, "
        "mean-height); all if not given.",
    )
    crops: int = Field(64, ge=1, le=10**6, description="Number of crops, spread over the places.")
    size: int | None = Field(
        None,
        ge=2 * CELL,
        le=2**14,
        multiple_of=CELL,
        description="Columns along an edge of a crop; if not given, the preset's or 64.",
    )
    seed: int = Field(
        0, ge=0, lt=2**63, description="Seed of the choice of crops and of the worlds."
    )
    seeds: int = Field(
        3,
        ge=1,
        le=10**6,
        description="Number of worlds of one map that are compared for diversity; 1 compares none.",
    )
    borders: int = Field(
        32,
        ge=0,
        le=10**6,
        description="Number of places on borders of windows that are examined; 0 examines none.",
    )
    grades: tuple[str, ...] = Field(("A", "B"), description="Licence grade of scenes.")
    images: bool = Field(True, description="Whether pictures are compared by an image network.")
    maps: bool = Field(
        True,
        description="Whether worlds are also made from land cover as maps have it, from footprints "
        "with their heights, and from pictures alone.",
    )
    reconstruction: bool = Field(
        True, description="Whether the parts of the weights are measured alone."
    )
    quick: bool = Field(
        False,
        description="Measure geometry on few crops of the land cover alone: `crops` 8, `seeds` 1, "
        "`borders` 0 and neither pictures, maps nor reconstruction, unless these are given.",
    )
    steps: int | None = Field(
        None, ge=1, le=10**6, description="Steps of all flows; if not given, those of the backends."
    )
    guidance: float | None = Field(
        None,
        ge=-1000,
        le=1000,
        description="Guidance of all flows; if not given, that of the backends.",
    )
    device: str = Field("cpu", description="Device of the networks: cpu, cuda, cuda:N or auto.")
    options: Mapping[str, Mapping[str, Any]] = Field(
        default_factory=dict, description="Options of learned backends, by geometry and texture."
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**{**(QUICK if values.get("quick") else {}), **values})
        except ValidationError as error:
            first = error.errors()[0]
            own = first.get("ctx", {}).get("error")
            if isinstance(own, EarthgenError):
                raise own from error
            name = ".".join(str(part) for part in first["loc"])
            raise JobError(
                f"`{name}` of an evaluation is out of range: {first['msg'].lower()}",
                f"change `{name}`",
            ) from error

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.weights is not None and not self.learned:
            raise JobError(
                f"weights {self.weights} are given, but no weights are to be measured",
                "leave one of both out",
            )
        return self
