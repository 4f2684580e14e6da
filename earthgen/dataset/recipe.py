"""Recipes: which sources make which scene, as a TOML file. docs/guides/datasets.md lists the
keys."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from earthgen.dataset.scene import GRADES
from earthgen.errors import JobError
from geo_io.errors import MissingFileError, nearest_name

BAND = (-16, 112)
"""The z range of scenes unless given: voxels from the ground."""

Quad = tuple[float, float, float, float]


class SceneRecipe(BaseModel):
    """One scene. Paths are relative to `folder`, which is relative to the data root; points may
    be globs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    place: str = ""
    source: str = ""
    licence: str = ""
    grade: str = ""
    kind: Literal["real", "simulated"] = "real"
    held_out: bool | Quad | Literal["south", "north", "east", "west"] = False
    held_out_share: float = Field(0.25, gt=0, le=1)

    folder: str = ""
    crs: str | None = None
    """CRS of sources without one, and the scene's own unless `target` is given."""
    target: str | None = None
    bounds: Quad | None = None
    voxel_size: float | None = Field(None, gt=0)
    band: tuple[int, int] | None = None

    points: list[str] = []
    ground: Literal["class", "filter"] = "class"
    point_classes: dict[str, str] = {}
    """Point class to class name, beside those of the ASPRS legend."""
    dropped_points: list[int] | None = None
    unit: Literal["m", "ft", "us-ft"] | None = None
    colour_bits: int | None = None
    point_colours: bool = True
    largest_thing: float = Field(60.0, gt=0)

    dsm: str | None = None
    dtm: str | None = None
    canopy: str | None = None
    building_height: str | None = None
    dsm_holds: Literal["buildings", "all"] = "buildings"

    cover: list[str] = []
    legend: str | None = None
    legend_values: dict[str, str] = {}
    """Cell value to class name, instead of a legend."""
    class_field: str | None = None
    water_below: float | None = None
    """Metres: open ground without land cover that is lower than this is water, such as an
    estuary."""
    footprints: str | None = None
    footprint_height: float = Field(8.0, gt=0)
    """Metres, of footprints that say no height."""

    image: str | None = None
    image_shift: tuple[float, float] | Literal["auto"] = (0.0, 0.0)
    """Metres east and north that the picture is moved by; "auto" measures it."""
    cover_shift: tuple[int, int] | Literal["auto"] = (0, 0)
    """Voxels east and north that land cover is moved by; "auto" measures it."""

    mesh: list[str] = []
    mesh_up: Literal["y", "z"] | None = None
    mesh_offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """East, north, up that a mesh's own coordinates are relative to."""

    world: str | None = None

    @field_validator("points", "cover", "mesh", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _has_heights(self) -> SceneRecipe:
        kinds = [bool(self.world), bool(self.mesh)]
        if sum(kinds) > 1 or (any(kinds) and (self.points or self.dsm)):
            raise ValueError("a scene is made from one of a world, meshes, or points and rasters")
        if not (
            any(kinds)
            or self.points
            or self.dsm
            or self.building_height
            or self.canopy
            or self.footprints
        ):
            raise ValueError(
                "a scene needs heights: points, dsm, building_height, canopy, footprints, mesh or world"
            )
        if not (any(kinds) or self.points or self.dtm):
            raise ValueError("rasters and footprints need the ground below them: give a dtm")
        return self

    @property
    def uses_auto_shift(self) -> bool:
        return self.image_shift == "auto" or self.cover_shift == "auto"


class Recipe(BaseModel):
    """A dataset: its scenes, and what they share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    voxel_size: float = Field(1.0, gt=0)
    band: tuple[int, int] = BAND
    scene: list[SceneRecipe] = Field(min_length=1)

    @model_validator(mode="after")
    def _names(self) -> Recipe:
        names = [scene.name for scene in self.scene]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two scenes are called {twice[0]!r}")
        return self


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe.

    Raises
    ------
    MissingFileError
        if it is not there
    JobError
        if it is no TOML, or a key or value is wrong
    JobError
        if a scene lacks a licence or its grade
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise MissingFileError(f"{path} does not exist", "check the path") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise JobError(
            f"{path} cannot be read: {error}", "see docs/guides/datasets.md for the format"
        ) from error
    return parse_recipe(values, str(path))


def parse_recipe(values: dict[str, Any], where: str = "the recipe") -> Recipe:
    """A recipe from plain values. Raises as `read_recipe`."""
    try:
        recipe = Recipe(**values)
    except ValidationError as error:
        raise JobError(
            f"{where}: {_first(error, values)}", "see docs/guides/datasets.md for the keys"
        ) from error
    for scene in recipe.scene:
        if not scene.licence.strip() or scene.grade not in GRADES:
            what = (
                "licence" if not scene.licence.strip() else f"licence grade ({', '.join(GRADES)})"
            )
            raise JobError(
                f"{where}: scene {scene.name} has no {what}", "say it with licence = and grade ="
            )
    return recipe


def _first(error: ValidationError, values: dict[str, Any]) -> str:
    """The first problem as a phrase that names the scene and the key."""
    problem = error.errors()[0]
    place = problem["loc"]
    text = str(problem["msg"]).removeprefix("Value error, ")
    if len(place) >= 2 and place[0] == "scene" and isinstance(place[1], int):
        scene = values["scene"][place[1]]
        name = (
            scene.get("name", f"number {place[1] + 1}")
            if isinstance(scene, dict)
            else f"number {place[1] + 1}"
        )
        key = ".".join(map(str, place[2:3]))
        if problem["type"] == "extra_forbidden":
            return f"scene {name} has no key {key!r}{nearest_name(key, SceneRecipe.model_fields)}"
        return f"scene {name}: {key + ': ' if key else ''}{text}"
    return f"{'.'.join(map(str, place))}: {text}" if place else text
