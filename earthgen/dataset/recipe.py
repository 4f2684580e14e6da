"""Recipes: TOML files that list the sources and settings of scenes. docs/guides/datasets.md
describes the keys.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from earthgen.dataset.scene import GRADES
from earthgen.errors import JobError
from geo_io.errors import EarthgenError, MissingFileError, nearest_name
from geo_io.safety.damage import damaged_file
from geo_io.safety.limits import bounded_text
from geo_io.safety.names import require_name

BAND = (-16, 112)
"""Default z range of scenes, voxels from the ground."""

Quad = tuple[float, float, float, float]


class SceneRecipe(BaseModel):
    """The sources and settings of one scene.

    Paths are relative to `folder`, which is relative to the data root; points, land cover and
    meshes may be glob patterns. docs/guides/datasets.md describes the keys.
    """

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
    """CRS of sources without one; also that of the scene, unless `target` is given."""
    target: str | None = None
    bounds: Quad | None = None
    voxel_size: float | None = Field(None, gt=0, le=1000)
    band: tuple[int, int] | None = None

    points: list[str] = []
    ground: Literal["class", "filter"] = "class"
    point_classes: dict[str, str] = {}
    """Class name by point class, in addition to the ASPRS legend."""
    dropped_points: list[int] | None = None
    unit: Literal["m", "dm", "ft", "us-ft"] | None = None
    missing: float | None = None
    """Value of cells without data in `dsm` and `dtm` that do not declare one."""
    resolution: float | None = Field(None, gt=0, le=1e6)
    """Metres between independent heights, if the sources are coarser than their cells."""
    reach: float = Field(0.0, ge=0, le=1e6)
    """Metres: gaps within this distance of measured ground are ground too."""
    colour_bits: int | None = None
    point_colours: bool = True
    largest_thing: float = Field(60.0, gt=0, le=1e6)

    dsm: str | None = None
    dtm: str | None = None
    canopy: str | None = None
    building_height: str | None = None
    dsm_holds: Literal["buildings", "plants", "all"] = "buildings"
    roofs: Literal["median", "as_given", "hidden"] = "median"
    """Roofs smoothed by medians, as they are, or left out with their surroundings."""
    walls: bool = False
    """Whether the points lie on walls too, whose colours are then seen."""

    cover: list[str] = []
    legend: str | None = None
    legend_values: dict[str, str] = {}
    """Class name by cell value, instead of a legend."""
    class_field: str | None = None
    water_below: float | None = None
    """Open ground without land cover below this height, metres, is water, such as an estuary."""
    footprints: str | None = None
    building_ids: str | None = None
    """Raster of the numbers of buildings, 0 for none."""
    footprint_height: float = Field(8.0, gt=0, le=1e4)
    """Height of footprints without a height, metres."""

    image: str | None = None
    image_shift: tuple[float, float] | Literal["auto"] = (0.0, 0.0)
    """Metres east and north to move the picture by; "auto" measures the shift."""
    image_gamma: float = Field(1.0, gt=0.2, le=5)
    """Power of the picture's colours, below 1 to make a dark one brighter."""
    cover_shift: tuple[int, int] | Literal["auto"] = (0, 0)
    """Voxels east and north to move land cover by; "auto" measures the shift."""

    mesh: list[str] = []
    mesh_up: Literal["y", "z"] | None = None
    mesh_offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """East, north and up, metres, of the origin of the meshes' own coordinates."""

    world: str | None = None

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        try:
            return require_name(value, "scene", "name")
        except EarthgenError as error:
            raise ValueError(error.problem.removeprefix("name: ")) from error

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
                "a scene needs heights: points, dsm, building_height, canopy, footprints, mesh "
                "or world"
            )
        if not (any(kinds) or self.points or self.dtm):
            raise ValueError("rasters and footprints need the ground below them: give a dtm")
        return self


class Recipe(BaseModel):
    """The scenes of a dataset, and their common settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    voxel_size: float = Field(1.0, gt=0, le=1000)
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
    """Read a recipe from a TOML file.

    Raises
    ------
    MissingFileError
        if it does not exist
    JobError
        if it is not TOML, a key or value is wrong, or a scene lacks a licence or its grade
    """
    path = Path(path)
    if not path.exists():
        raise MissingFileError(f"{path} does not exist", "check the path")
    remedy = "see docs/guides/datasets.md for the format"
    with damaged_file(f"{path} cannot be read", remedy, JobError):
        values = tomllib.loads(bounded_text(path))
    return parse_recipe(values, str(path))


def parse_recipe(values: dict[str, Any], where: str = "the recipe") -> Recipe:
    """Check a recipe given as plain values.

    Parameters
    ----------
    values : dict[str, Any]
        As in a TOML file.
    where : str
        Name of the recipe in error messages.

    Raises
    ------
    JobError
        if a key or value is wrong, or a scene lacks a licence or its grade
    """
    try:
        recipe = Recipe(**values)
    except ValidationError as error:
        raise JobError(
            f"{where}: {_first_problem(error, values)}", "see docs/guides/datasets.md for the keys"
        ) from error
    for scene in recipe.scene:
        if not scene.licence.strip() or scene.grade not in GRADES:
            grades = f"licence grade ({', '.join(GRADES)})"
            missing = grades if scene.licence.strip() else "licence"
            raise JobError(
                f"{where}: scene {scene.name} has no {missing}", "give licence = and grade ="
            )
    return recipe


def _first_problem(error: ValidationError, values: dict[str, Any]) -> str:
    """Return the first problem as a phrase that names the scene and the key."""
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
