"""A scene from its sources: find the frame, read them onto it, combine, make the surface, judge,
write."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from earthgen.dataset.builders.layers import from_layers
from earthgen.dataset.builders.quality import judge
from earthgen.dataset.builders.sources import find_sources
from earthgen.dataset.crop import CELL
from earthgen.dataset.recipe import Recipe, SceneRecipe
from earthgen.dataset.report import write_report
from earthgen.dataset.scene import (
    SUFFIX,
    Scene,
    SceneInfo,
    check_licence,
    open_scene,
    scenes_in,
    write_scene,
)
from earthgen.errors import JobError
from earthgen.progress import Listener, Progress
from geo_io.digest import digest_file
from geo_io.errors import EarthgenError
from geo_io.frame import Bounds, Frame

Report = Callable[[str], None]


def build_scene(
    recipe: SceneRecipe,
    root: str | Path,
    out: str | Path,
    *,
    voxel_size: float = 1.0,
    band: tuple[int, int] = (-16, 112),
    overwrite: bool = False,
    report: Report | None = None,
) -> Scene:
    """Make a scene from its sources and write it to the folder `out`.

    root : what the recipe's folder is relative to
    voxel_size, band : metres, and z range in voxels, unless the recipe has its own
    report : told what is being done

    Raises
    ------
    JobError, JobError
        before anything is read
    RegionError
        if two sources have no place in common
    InputError and its subclasses
        if a source cannot be read or understood
    StoreExistsError, StoreError
        if the scene cannot be written
    """
    began = time.monotonic()
    say = report or (lambda text: None)
    check_licence(recipe.name, recipe.licence, recipe.grade)
    size = recipe.voxel_size or voxel_size
    z = recipe.band or band
    if z[0] % CELL or z[1] % CELL or not z[0] < 0 < z[1]:
        raise JobError(
            f"the band {list(z)} of scene {recipe.name} is none",
            f"give multiples of {CELL} around 0",
        )
    sources = find_sources(recipe, root)
    say("reading sources")
    if recipe.world:
        from earthgen.dataset.builders.worlds import scene_of_world

        data, evidence, vertical = scene_of_world(sources.files["world"][0], size, z, recipe.bounds)
    elif recipe.mesh:
        from earthgen.dataset.builders.meshes import scene_of_meshes

        data, evidence, vertical = scene_of_meshes(recipe, sources, size, z)
    else:
        data, evidence, vertical = from_layers(recipe, sources, size, z, say)
    say("judging")
    data = replace(data, frame=replace(data.frame, vertical_crs=vertical))
    quality = judge(data, evidence)
    quality["seconds"] = round(time.monotonic() - began, 2)
    inputs = tuple(
        {"role": role, "name": path.name, "digest": digest_file(path)}
        for role, paths in sources.files.items()
        for path in paths
    )
    info = SceneInfo(
        recipe.name,
        data.frame,
        recipe.place or recipe.name,
        recipe.source,
        recipe.licence,
        recipe.grade,
        inputs,
        "simulated" if recipe.world else recipe.kind,
        held_out_bounds(recipe, data.frame),
        recipe.model_dump(
            mode="json",
            exclude_defaults=True,
            exclude={"name", "place", "source", "licence", "grade"},
        ),
        quality,
    )
    say("writing")
    return write_scene(out, info, data, overwrite=overwrite)


def held_out_bounds(recipe: SceneRecipe, frame: Frame) -> tuple[Bounds, ...]:
    """What of a scene is held out, as bounds in metres."""
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
class Built:
    """What a build made: new scenes, those that were there already, errors by name; seconds; the
    page of the report."""

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
) -> Built:
    """Build the scenes of a recipe into a folder; scenes that are there already stay, unless they
    are overwritten.

    only : names of scenes, all unless given
    voxel_size : metres, instead of the recipe's
    frames : posed pictures of each scene that is made; see `earthgen.dataset.posed_pictures`
    keep_going : errors of scenes are kept in the result, and the others built

    Raises
    ------
    EarthgenError
        as `earthgen.dataset.build.build_scene`, unless `keep_going`
    """
    began = time.monotonic()
    chosen = [scene for scene in recipe.scene if only is None or scene.name in only]
    built = Built()
    progress = Progress(listener)
    progress.start("build", len(chosen))
    for scene in chosen:
        path = Path(out) / f"{scene.name}{SUFFIX}"
        if path.exists() and not overwrite:
            built.kept.append(open_scene(path))
            progress.step(scene.name)
            continue
        try:
            made = build_scene(
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
            built.failed[scene.name] = error
            progress.warn(f"{scene.name}: {error}")
        else:
            built.made.append(made)
            for remark in made.info.quality.get("remarks", []):
                progress.say(f"{scene.name}: {remark}")
            if frames:
                from earthgen.dataset.posed_pictures import write_scene_frames

                write_scene_frames(made, out, frames)
        progress.step(scene.name)
    page = None
    if report and (built.made or built.kept):
        page = str(write_report(out, scenes_in(out)))
    return Built(built.made, built.kept, built.failed, time.monotonic() - began, page)
