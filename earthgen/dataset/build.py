"""Build scenes from their sources: choose the builder, compute the quality, write.

`build_scene` makes one scene, `build_all` those of a recipe with a report.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from earthgen.dataset.builders.layers import scene_of_layers
from earthgen.dataset.builders.quality import judge
from earthgen.dataset.builders.sources import Sources, find_sources
from earthgen.dataset.crop import CELL
from earthgen.dataset.recipe import Recipe, SceneRecipe
from earthgen.dataset.report import write_report
from earthgen.dataset.scene import (
    SUFFIX,
    Scene,
    SceneData,
    SceneInfo,
    check_licence,
    open_scene,
    require_scene_or_nothing,
    scenes_in,
    write_scene,
)
from earthgen.errors import JobError
from earthgen.progress import Listener, Progress
from geo_io.digest import digest_file
from geo_io.errors import EarthgenError, InputError
from geo_io.frame import Bounds, Frame


def build_scene(
    recipe: SceneRecipe,
    root: str | Path,
    out: str | Path,
    *,
    voxel_size: float = 1.0,
    band: tuple[int, int] = (-16, 112),
    overwrite: bool = False,
) -> Scene:
    """Make a scene from its sources and write it to a folder.

    Parameters
    ----------
    recipe : SceneRecipe
        The sources and settings.
    root : str | Path
        Folder that the recipe's `folder` is relative to.
    out : str | Path
        Folder for the scene.
    voxel_size : float
        Edge of a voxel, metres, unless the recipe has its own.
    band : tuple[int, int]
        z range in voxels from the ground, multiples of 8, unless the recipe has its own.
    overwrite : bool
        Whether an existing scene is replaced.

    Raises
    ------
    JobError
        if the licence, its grade or the band is wrong; before anything is read
    RegionError
        if two sources do not overlap
    InputError
        if a source cannot be read or understood
    StoreExistsError
        if the scene exists and is not to be overwritten
    StoreError
        if the scene cannot be written
    """
    began = time.monotonic()
    check_licence(recipe.name, recipe.licence, recipe.grade)
    size = recipe.voxel_size or voxel_size
    z = recipe.band or band
    if z[0] % CELL or z[1] % CELL or not z[0] < 0 < z[1]:
        raise JobError(
            f"the band {list(z)} of scene {recipe.name} is not a range around 0 in whole cells",
            f"give multiples of {CELL}, one below and one above 0",
        )
    sources = find_sources(recipe, root)
    if recipe.world:
        from earthgen.dataset.builders.worlds import scene_of_world

        data, evidence, vertical = scene_of_world(sources.files["world"][0], size, z, recipe.bounds)
    elif recipe.mesh:
        from earthgen.dataset.builders.meshes import scene_of_meshes

        data, evidence, vertical = scene_of_meshes(recipe, sources, size, z)
    else:
        data, evidence, vertical = scene_of_layers(recipe, sources, size, z)
    data = replace(data, frame=replace(data.frame, vertical_crs=vertical))
    check_finite(data, recipe.name, sources)
    quality = judge(data, evidence)
    quality["seconds"] = round(time.monotonic() - began, 2)
    info = SceneInfo(
        name=recipe.name,
        frame=data.frame,
        place=recipe.place or recipe.name,
        source=recipe.source,
        licence=recipe.licence,
        grade=recipe.grade,
        inputs=tuple(
            {"role": role, "name": path.name, "digest": digest_file(path)}
            for role, paths in sources.files.items()
            for path in paths
        ),
        kind="simulated" if recipe.world else recipe.kind,
        resolution=recipe.resolution or evidence.resolution,
        colour_resolution=evidence.colour_resolution,
        held_out=held_out_bounds(recipe, data.frame),
        settings=recipe.model_dump(
            mode="json",
            exclude_defaults=True,
            exclude={"name", "place", "source", "licence", "grade"},
        ),
        quality=quality,
    )
    return write_scene(out, info, data, overwrite=overwrite)


def check_finite(data: SceneData, name: str, sources: Sources) -> None:
    """Check that the heights of a scene are numbers: a network that sees one NaN becomes NaN.

    Raises
    ------
    InputError
        if one is not, with the names of the files that heights come from
    """
    for layer in ("ground", "height"):
        bad = int((~np.isfinite(data.columns[layer])).sum())
        if bad:
            roles = ("points", "dsm", "dtm", "building_height", "canopy", "mesh", "world")
            names = ", ".join(path.name for role in roles for path in sources.all(role))
            raise InputError(
                f"the {layer} of scene {name}, from {names}, is not a number in {bad:,} columns",
                "give the file a nodata value, or leave this area out with `bounds`",
            )


def held_out_bounds(recipe: SceneRecipe, frame: Frame) -> tuple[Bounds, ...]:
    """Return the held-out parts of a scene as bounds in metres of its CRS."""
    left, bottom, right, top = frame.bounds
    share = recipe.held_out_share
    sides = {
        "south": (left, bottom, right, bottom + share * (top - bottom)),
        "north": (left, top - share * (top - bottom), right, top),
        "west": (left, bottom, left + share * (right - left), top),
        "east": (right - share * (right - left), bottom, right, top),
    }
    if recipe.held_out is False:
        return ()
    if recipe.held_out is True:
        return (frame.bounds,)
    return (sides[recipe.held_out] if isinstance(recipe.held_out, str) else recipe.held_out,)


@dataclass(frozen=True)
class BuildResult:
    """The outcome of `build_all`.

    Attributes
    ----------
    made : list[Scene]
        New scenes.
    kept : list[Scene]
        Scenes that existed before.
    failed : dict[str, EarthgenError]
        Errors by name of the scene.
    seconds : float
        Duration.
    report : str | None
        Path of the report's page, if one was written.
    """

    made: list[Scene] = field(default_factory=list)
    kept: list[Scene] = field(default_factory=list)
    failed: dict[str, EarthgenError] = field(default_factory=dict)
    seconds: float = 0.0
    report: str | None = None


def build_all(
    recipe: Recipe,
    root: str | Path,
    out: str | Path,
    *,
    only: Sequence[str] | None = None,
    voxel_size: float | None = None,
    overwrite: bool = False,
    keep_going: bool = False,
    listener: Listener | None = None,
    report: bool = True,
    frames: int = 0,
) -> BuildResult:
    """Build the scenes of a recipe into a folder. Existing scenes stay, unless overwritten.

    Parameters
    ----------
    recipe : Recipe
        The scenes.
    root : str | Path
        Folder that the recipe's folders are relative to.
    out : str | Path
        Folder of the dataset.
    only : Sequence[str] | None
        Names of the scenes to build, by default all.
    voxel_size : float | None
        Edge of a voxel, metres, instead of the recipe's.
    overwrite : bool
        Whether existing scenes are built again.
    keep_going : bool
        Whether the other scenes are built after an error; the errors are in the result.
    listener : Listener | None
        Gets the progress.
    report : bool
        Whether to write the report.
    frames : int
        Number of posed pictures of each new scene, see `write_scene_frames`.

    Raises
    ------
    EarthgenError
        as `build_scene`, unless `keep_going`
    """
    began = time.monotonic()
    chosen = [scene for scene in recipe.scene if only is None or scene.name in only]
    made: list[Scene] = []
    kept: list[Scene] = []
    failed: dict[str, EarthgenError] = {}
    progress = Progress(listener)
    progress.start("build", len(chosen))
    for scene in chosen:
        path = Path(out) / f"{scene.name}{SUFFIX}"
        if path.exists() and not overwrite:
            kept.append(open_scene(path))
            progress.step(scene.name)
            continue
        try:
            require_scene_or_nothing(path)
            new = build_scene(
                scene,
                root,
                out,
                voxel_size=voxel_size or recipe.voxel_size,
                band=recipe.band,
                overwrite=overwrite,
            )
        except EarthgenError as error:
            if not keep_going:
                raise
            failed[scene.name] = error
            progress.warn(f"{scene.name}: {error}")
        else:
            made.append(new)
            odd = new.info.quality.get("warnings", [])
            for remark in new.info.quality.get("remarks", []):
                tell = progress.warn if remark in odd else progress.say
                tell(f"{scene.name}: {remark}")
            if frames:
                from earthgen.dataset.posed_pictures import write_scene_frames

                write_scene_frames(new, out, frames)
        progress.step(scene.name)
    page = str(write_report(out, scenes_in(out))) if report and (made or kept) else None
    return BuildResult(made, kept, failed, time.monotonic() - began, page)
