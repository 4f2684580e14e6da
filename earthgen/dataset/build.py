"""A scene from its sources: find the frame, read them onto it, combine, make the surface, judge, write."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from earthgen.dataset.crop import CELL
from earthgen.dataset.errors import RecipeError
from earthgen.dataset.from_layers import from_layers
from earthgen.dataset.quality import judge
from earthgen.dataset.recipe import SceneRecipe
from earthgen.dataset.scene import Scene, SceneInfo, check_licence, write_scene
from earthgen.dataset.sources import find_sources
from geo_io.digest import digest_file
from geo_io.frame import Bounds, Frame

Report = Callable[[str], None]


def build_scene(
    recipe: SceneRecipe, root: str | Path, out: str | Path, *, voxel_size: float = 1.0,
    band: tuple[int, int] = (-16, 112), overwrite: bool = False, report: Report | None = None,
) -> Scene:  # fmt: skip
    """Make a scene from its sources and write it to the folder `out`.

    root : what the recipe's folder is relative to
    voxel_size, band : metres, and z range in voxels, unless the recipe has its own
    report : told what is being done

    Raises
    ------
    LicenceError, RecipeError
        before anything is read
    SourceOverlapError
        if two sources have no place in common
    InputError and its subclasses
        if a source cannot be read or understood
    SceneExistsError, StoreError
        if the scene cannot be written
    """
    began = time.monotonic()
    say = report or (lambda text: None)
    check_licence(recipe.name, recipe.licence, recipe.grade)
    size = recipe.voxel_size or voxel_size
    z = recipe.band or band
    if z[0] % CELL or z[1] % CELL or not z[0] < 0 < z[1]:
        raise RecipeError(f"the band {list(z)} of scene {recipe.name} is none", f"give multiples of {CELL} around 0")
    sources = find_sources(recipe, root)
    say("reading sources")
    if recipe.world:
        from earthgen.dataset.worlds import scene_of_world

        data, evidence, vertical = scene_of_world(sources.files["world"][0], size, z, recipe.bounds)
    elif recipe.mesh:
        from earthgen.dataset.meshes import scene_of_meshes

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
        recipe.name, data.frame, recipe.place or recipe.name, recipe.source, recipe.licence, recipe.grade, inputs,
        "simulated" if recipe.world else recipe.kind, held_out_bounds(recipe, data.frame),
        recipe.model_dump(mode="json", exclude_defaults=True, exclude={"name", "place", "source", "licence", "grade"}),
        quality,
    )  # fmt: skip
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
