"""All scenes of a recipe, one after the other, with progress."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from earthgen.dataset.build import build_scene
from earthgen.dataset.recipe import Recipe
from earthgen.dataset.report import write_report
from earthgen.dataset.scene import SUFFIX, Scene, open_scene, scenes_in
from earthgen.progress import Listener, Progress
from geo_io.errors import EarthgenError


@dataclass(frozen=True)
class Built:
    """What a build made: new scenes, those that were there already, errors by name; seconds; the page of the report."""

    made: list[Scene] = field(default_factory=list)
    kept: list[Scene] = field(default_factory=list)
    failed: dict[str, EarthgenError] = field(default_factory=dict)
    seconds: float = 0.0
    report: str | None = None


def build_all(
    recipe: Recipe, root: str | Path, out: str | Path, *, only: Sequence[str] | None = None,
    voxel_size: float | None = None, overwrite: bool = False, keep_going: bool = False,
    listener: Listener | None = None, report: bool = True, frames: int = 0,
) -> Built:  # fmt: skip
    """Build the scenes of a recipe into a folder; scenes that are there already stay, unless they are overwritten.

    only : names of scenes, all unless given
    voxel_size : metres, instead of the recipe's
    frames : posed pictures of each scene that is made; see `earthgen.dataset.frames`
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
                scene, root, out, voxel_size=voxel_size or recipe.voxel_size, band=recipe.band, overwrite=overwrite
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
                from earthgen.dataset.frames import write_scene_frames

                write_scene_frames(made, out, frames)
        progress.step(scene.name)
    page = None
    if report and (built.made or built.kept):
        page = str(write_report(out, scenes_in(out)))
    return Built(built.made, built.kept, built.failed, time.monotonic() - began, page)
