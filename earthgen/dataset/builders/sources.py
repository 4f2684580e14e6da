"""The files of a scene, and the frame that they all cover."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from earthgen.dataset.crop import CELL
from earthgen.dataset.readers.points import Points
from earthgen.dataset.recipe import SceneRecipe
from earthgen.errors import JobError
from geo_io.errors import MissingFileError, RegionError
from geo_io.frame import UNKNOWN_DATUM, Bounds, Frame, projected_crs, snap
from geo_io.raster.source import open_raster
from geo_io.region.region import describe
from geo_io.safety.damage import damaged_file

SEARCHED = 200_000
"""Files and folders that a pattern with `**` is looked for in, at most."""


@dataclass(frozen=True)
class Sources:
    """The files of a scene by role, as existing paths."""

    files: Mapping[str, tuple[Path, ...]]

    def all(self, role: str) -> tuple[Path, ...]:
        """Return the files of a role."""
        return self.files.get(role, ())

    def one(self, role: str) -> Path | None:
        """Return the first file of a role, None without one."""
        return next(iter(self.files.get(role, ())), None)


def find_sources(recipe: SceneRecipe, root: str | Path) -> Sources:
    """Find the files of a recipe. The matches of a glob pattern are sorted.

    Raises
    ------
    MissingFileError
        if a file does not exist
    JobError
        if a path cannot be one
    """
    with damaged_file(f"a path of scene {recipe.name} is none", "correct it", JobError):
        return _found(recipe, Path(root) / recipe.folder)


def _check_size(folder: Path, pattern: str) -> None:
    """Check that a pattern that descends does so in a folder that can be searched in a moment.

    Raises
    ------
    JobError
        If it holds more than `SEARCHED` files and folders: someone's whole disk, for instance.
    """
    parts = Path(pattern).parts
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    if "**" not in parts and sum(map(glob.has_magic, parts)) <= 2:
        return
    base, count = folder.joinpath(*parts[:fixed]), 0
    for _, folders, files in os.walk(base):
        count += len(folders) + len(files)
        if count > SEARCHED:
            raise JobError(
                f"{folder / pattern} searches {base}, which holds more than {SEARCHED:,} files",
                "name the folder of the files",
            )


def _found(recipe: SceneRecipe, folder: Path) -> Sources:
    files: dict[str, tuple[Path, ...]] = {}
    for role in ("points", "cover", "mesh"):
        paths: list[Path] = []
        for pattern in getattr(recipe, role):
            if glob.has_magic(pattern):
                _check_size(folder, pattern)
                matches = sorted(folder.glob(pattern))
            else:
                matches = [folder / pattern]
            if not matches:
                raise MissingFileError(
                    f"no file matches {folder / pattern}", "check the pattern, and --data-root"
                )
            paths += matches
        files[role] = tuple(paths)
    for role in (
        "dsm",
        "dtm",
        "canopy",
        "building_height",
        "building_ids",
        "footprints",
        "image",
        "world",
    ):
        value = getattr(recipe, role)
        files[role] = (folder / value,) if value else ()
    for role, named in files.items():
        for path in named:
            plain = Path(str(path).split(":", 1)[0]) if not path.exists() else path
            if not plain.exists():
                raise MissingFileError(
                    f"{role} {path} does not exist", "check the path, and --data-root"
                )
    return Sources(files)


def find_frame(
    recipe: SceneRecipe, sources: Sources, cloud: Points | None, size: float, z: tuple[int, int]
) -> Frame:
    """Find the frame that all height sources cover, snapped outwards to multiples of `CELL` voxels.

    Raises
    ------
    RegionError
        if two sources do not overlap, or a source does not overlap the bounds of the recipe
    """
    rasters = {
        role: open_raster(path, assume_crs=recipe.crs)
        for role in ("dsm", "dtm", "building_height", "canopy")
        if (path := sources.one(role))
    }
    if recipe.target:
        crs = projected_crs(recipe.target)
    elif cloud is not None:
        crs = cloud.crs
    else:
        crs = projected_crs(next(iter(rasters.values())).crs)
    extents: list[tuple[str, Bounds]] = []
    if cloud is not None:
        (left, bottom), (right, top) = cloud.xyz[:, :2].min(axis=0), cloud.xyz[:, :2].max(axis=0)
        extents.append(("points", (float(left), float(bottom), float(right), float(top))))
    extents += [
        (role, raster.bounds_in(crs)) for role, raster in rasters.items() if role != "canopy"
    ]
    extents = extents or [(role, raster.bounds_in(crs)) for role, raster in rasters.items()]
    if recipe.bounds:
        extents.append(("the bounds of the recipe", recipe.bounds))
    common = extents[0][1]
    for role, extent in extents[1:]:
        overlap = _overlap(common, extent)
        if overlap is None:
            raise _no_overlap(recipe, extents[0], (role, extent), crs)
        common = overlap
    for role in ("image", "canopy"):
        if path := sources.one(role):
            extent = open_raster(path, assume_crs=recipe.crs).bounds_in(crs)
            if _overlap(common, extent) is None:
                raise _no_overlap(recipe, extents[0], (role, extent), crs)
    return frame_of_bounds(crs, size, common, z)


def frame_of_bounds(crs: str, size: float, bounds: Bounds, z: tuple[int, int]) -> Frame:
    """Return the frame of the voxels that meet bounds in metres, snapped outwards to multiples of
    `CELL` voxels."""
    ranges = snap(bounds, size, tolerance=1e-3)
    (x0, x1), (y0, y1) = ranges["x"], ranges["y"]
    return Frame(
        crs,
        size,
        (x0 // CELL * CELL, -(-x1 // CELL) * CELL),
        (y0 // CELL * CELL, -(-y1 // CELL) * CELL),
        z,
        UNKNOWN_DATUM,
    )


def _overlap(one: Bounds, other: Bounds) -> Bounds | None:
    left, bottom = max(one[0], other[0]), max(one[1], other[1])
    right, top = min(one[2], other[2]), min(one[3], other[3])
    return (left, bottom, right, top) if left < right and bottom < top else None


def _no_overlap(
    recipe: SceneRecipe, one: tuple[str, Bounds], other: tuple[str, Bounds], crs: str
) -> RegionError:
    return RegionError(
        f"the sources of scene {recipe.name} do not meet: {one[0]} covers "
        f"{describe(one[1], crs)}, {other[0]} {describe(other[1], crs)}",
        "check their CRSs and the bounds",
    )
