"""A scene from its sources: find the frame, read them onto it, combine, make the surface, judge, write."""

from __future__ import annotations

import glob
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen.dataset import layers
from earthgen.dataset.binning import PointColumns, bin_points
from earthgen.dataset.cover import TALL, Given, combine
from earthgen.dataset.crop import CELL
from earthgen.dataset.errors import RecipeError, SourceOverlapError
from earthgen.dataset.points import NO_SURFACE, Points, read_points
from earthgen.dataset.quality import Evidence, judge
from earthgen.dataset.recipe import SceneRecipe
from earthgen.dataset.registration import Shift, image_shift, mask_shift
from earthgen.dataset.scene import Scene, SceneData, SceneInfo, check_licence, write_scene
from earthgen.dataset.shell import Columns, height_field
from geo_io.digest import digest_file
from geo_io.errors import MissingFileError
from geo_io.frame import UNKNOWN_DATUM, Bounds, Frame, projected_crs, snap
from geo_io.legend import builtin_crosswalks, codes
from geo_io.raster import open_raster
from geo_io.rasterize import paint
from geo_io.region import describe

AUTO_LEAST = 0.5
"""Voxels that a measured shift has at least to be worth correcting."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class Sources:
    """The files of a scene by role, as paths that exist."""

    files: Mapping[str, tuple[Path, ...]]

    def all(self, role: str) -> tuple[Path, ...]:
        return self.files.get(role, ())

    def one(self, role: str) -> Path | None:
        found = self.files.get(role, ())
        return found[0] if found else None


def find_sources(recipe: SceneRecipe, root: str | Path) -> Sources:
    """The files that a recipe names; globs are sorted. Raises MissingFileError where one is not there."""
    folder = Path(root) / recipe.folder
    files: dict[str, tuple[Path, ...]] = {}
    for role in ("points", "cover", "mesh"):
        found: list[Path] = []
        for pattern in getattr(recipe, role):
            matches = sorted(folder.glob(pattern)) if glob.has_magic(pattern) else [folder / pattern]
            if not matches:
                raise MissingFileError(f"no file matches {folder / pattern}", "check the pattern, and --data-root")
            found += matches
        files[role] = tuple(found)
    for role in ("dsm", "dtm", "canopy", "building_height", "footprints", "image", "world"):
        value = getattr(recipe, role)
        files[role] = (folder / value,) if value else ()
    for role, paths in files.items():
        for path in paths:
            plain = Path(str(path).split(":", 1)[0]) if not path.exists() else path
            if not plain.exists():
                raise MissingFileError(f"{role} {path} does not exist", "check the path, and --data-root")
    return Sources(files)


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


# ---- from points, rasters and vectors --------------------------------------------------------------------


def from_layers(
    recipe: SceneRecipe, sources: Sources, size: float, z: tuple[int, int], say: Report
) -> tuple[SceneData, Evidence, str]:
    """(scene, what it is judged by, vertical CRS) from points, rasters and vectors."""
    cloud = None
    if sources.all("points"):
        cloud = read_points(
            sources.all("points"), crs=recipe.crs, target=recipe.target, unit=recipe.unit, bounds=None,
            colour_bits=recipe.colour_bits, colours=recipe.point_colours,
        )  # fmt: skip
    frame = find_frame(recipe, sources, cloud, size, z)
    say("heights")
    dtm, dsm = sources.one("dtm"), sources.one("dsm")
    heights = layers.ground_and_height(dtm, dsm, frame, recipe.unit, recipe.crs) if dtm else None
    points = _bin(recipe, frame, cloud, heights.ground if heights else None, (0.0, 0.0)) if cloud is not None else None
    ground, built, valid, vertical = _solid(heights, dsm is not None, points, cloud)
    canopy = None
    if path := sources.one("building_height"):
        built = np.fmax(built, layers.above_ground(path, frame, recipe.unit, recipe.crs, "building heights"))
    if path := sources.one("canopy"):
        canopy = layers.above_ground(path, frame, recipe.unit, recipe.crs, "canopy")

    say("land cover")
    options = layers.semantics_options(recipe.legend, recipe.legend_values, recipe.class_field, recipe.crs)
    base, cover_found = None, None
    if sources.all("cover"):
        base, cover_found, cover_moved = _cover(recipe, sources, frame, options, built, valid)
    else:
        cover_moved = (0, 0)
    if path := sources.one("footprints"):
        base, built = _footprints(recipe, path, frame, options, base, built, dsm is not None or points is not None)
    if recipe.building_height and base is None:
        base = np.where(built > 0, np.uint8(codes()["building"]), np.uint8(0))

    if base is not None:
        # A laser sees no water: where land cover has some, a hole is none.
        wet = np.isin(base, [codes()[name] for name in ("river", "lake", "sea")]) & ~valid
        valid, built = valid | wet, np.where(wet, np.float32(0), built)
    say("colours")
    reference = built if canopy is None else np.fmax(np.nan_to_num(built), canopy)
    picture = _picture(recipe, sources, frame, cloud, points, reference, valid, heights.ground if heights else None)
    given = Given(built, canopy, base, points.code if points else None, picture.image, picture.known,
                  points.intensity if points is not None else None)  # fmt: skip
    result = combine(given, size, recipe.dsm_holds if points is None or dsm is not None else "all", ground, valid)
    limit = frame.z[1] * size
    columns = Columns(
        frame, ground.astype(np.float32), np.minimum(result.height, np.float32(limit)), result.cover, picture.image,
        picture.known & valid, valid,
    )  # fmt: skip
    say("surface")
    by_points = points is not None and (dsm is None or heights is None)
    evidence = Evidence(
        measured=points.measured if by_points and points is not None else heights.measured if heights else valid,
        solid=np.nan_to_num(built, nan=0.0),
        building=_building_mask(base if sources.all("cover") or recipe.footprints else None, points),
        over_band=float((result.height > limit).mean()),
        changed=result.changed,
        image_shift=picture.shift,
        image_moved=picture.moved,
        cover_shift=cover_found,
        cover_moved=(cover_moved[0] * size, cover_moved[1] * size),
        intensity=points.intensity if points is not None else None,
        spacing=points.spacing if points is not None else None,
    )
    return height_field(columns), evidence, vertical


def find_frame(recipe: SceneRecipe, sources: Sources, cloud: Points | None, size: float, z: tuple[int, int]) -> Frame:
    """The frame of what all height sources cover, snapped outwards to multiples of `CELL` voxels.

    Raises SourceOverlapError where two sources do not meet, or none meets the bounds of the recipe.
    """
    rasters = {role: open_raster(path, assume_crs=recipe.crs) for role in ("dsm", "dtm", "building_height", "canopy")
               if (path := sources.one(role))}  # fmt: skip
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
    extents += [(role, raster.bounds_in(crs)) for role, raster in rasters.items() if role != "canopy"]
    extents = extents or [(role, raster.bounds_in(crs)) for role, raster in rasters.items()]
    if recipe.bounds:
        extents.append(("the bounds of the recipe", recipe.bounds))
    common = extents[0][1]
    for role, extent in extents[1:]:
        met = _meet(common, extent)
        if met is None:
            raise _apart(recipe, extents[0], (role, extent), crs)
        common = met
    for role in ("image", "canopy"):
        if path := sources.one(role):
            extent = open_raster(path, assume_crs=recipe.crs).bounds_in(crs)
            if _meet(common, extent) is None:
                raise _apart(recipe, extents[0], (role, extent), crs)
    return find_bounds(crs, size, common, z)


def find_bounds(crs: str, size: float, bounds: Bounds, z: tuple[int, int]) -> Frame:
    """The frame of voxels that meet bounds in metres, snapped outwards to multiples of `CELL` voxels."""
    ranges = snap(bounds, size, tolerance=1e-3)
    (x0, x1), (y0, y1) = ranges["x"], ranges["y"]
    return Frame(
        crs, size, (x0 // CELL * CELL, -(-x1 // CELL) * CELL), (y0 // CELL * CELL, -(-y1 // CELL) * CELL), z,
        UNKNOWN_DATUM,
    )  # fmt: skip


def _meet(one: Bounds, other: Bounds) -> Bounds | None:
    left, bottom = max(one[0], other[0]), max(one[1], other[1])
    right, top = min(one[2], other[2]), min(one[3], other[3])
    return (left, bottom, right, top) if left < right and bottom < top else None


def _apart(recipe: SceneRecipe, one: tuple[str, Bounds], other: tuple[str, Bounds], crs: str) -> SourceOverlapError:
    return SourceOverlapError(
        f"the sources of scene {recipe.name} do not meet: {one[0]} covers {describe(one[1], crs)}, {other[0]} "
        f"{describe(other[1], crs)}",
        "check their CRSs and the bounds",
    )


def _bin(
    recipe: SceneRecipe, frame: Frame, cloud: Points, ground: NDArray | None, shift: tuple[float, float]
) -> PointColumns:
    asprs = next(crosswalk for crosswalk in builtin_crosswalks() if crosswalk.name == "asprs")
    table = {int(value): code for value, code in asprs.raster_table().items()}
    for value, name in recipe.point_classes.items():
        if not value.isdigit() or name not in {"unknown", *codes()}:
            raise RecipeError(
                f"scene {recipe.name}: point_classes maps {value!r} to {name!r}", "map point classes to class names"
            )
        table[int(value)] = 0 if name == "unknown" else codes()[name]
    return bin_points(
        cloud, frame, table, ground=recipe.ground if ground is None else ground,
        dropped=NO_SURFACE if recipe.dropped_points is None else tuple(recipe.dropped_points), colour_shift=shift,
        largest=recipe.largest_thing,
    )  # fmt: skip


def _solid(
    heights: layers.Heights | None, has_dsm: bool, points: PointColumns | None, cloud: Points | None
) -> tuple[NDArray, NDArray, NDArray, str]:
    """Ground, height above it (NaN for none), where there is data, vertical CRS."""
    if heights is not None and (has_dsm or points is None):
        valid = heights.measured & np.isfinite(heights.above)
        return heights.ground, heights.above, valid, heights.vertical_crs
    assert points is not None  # a recipe has heights
    ground = points.ground
    vertical = (
        heights.vertical_crs if heights is not None else cloud.vertical_crs if cloud is not None else UNKNOWN_DATUM
    )
    valid = points.valid & (heights.measured if heights is not None else True)
    return ground, np.where(valid, points.top - ground, np.nan).astype(np.float32), valid, vertical


def _cover(
    recipe: SceneRecipe, sources: Sources, frame: Frame, options: Any, built: NDArray, valid: NDArray
) -> tuple[NDArray, Shift | None, tuple[int, int]]:
    """Land cover, how far it lies from the heights as given, and by what it was moved."""
    paths = sources.all("cover")
    fixed = (0, 0) if recipe.cover_shift == "auto" else recipe.cover_shift
    base, _ = layers.read_cover(paths, frame, options, fixed)
    if not base.any():
        raise SourceOverlapError(
            f"the land cover of scene {recipe.name} says nothing on {frame}", "check its CRS, its legend and the bounds"
        )
    mask, tall = base == codes()["building"], np.nan_to_num(built, nan=0.0) > TALL
    found = mask_shift(mask, tall, valid, frame.voxel_size)
    if recipe.cover_shift == "auto" and found is not None and found.sure:
        back = (-round(found.east / frame.voxel_size), -round(found.north / frame.voxel_size))
        if back != (0, 0):
            return layers.read_cover(paths, frame, options, back)[0], found, back
    return base, found, fixed


def _footprints(
    recipe: SceneRecipe, path: Path, frame: Frame, options: Any, base: NDArray | None, built: NDArray, has_surface: bool
) -> tuple[NDArray, NDArray]:
    """Land cover and heights with the buildings of footprints: their heights count where no surface model is."""
    cover, buildings = layers.read_cover([path], frame, options)
    if not len(buildings) or not (cover == codes()["building"]).any():
        raise SourceOverlapError(
            f"no footprint of scene {recipe.name} lies on {frame}", "check the CRS of the footprints and their legend"
        )
    mask = cover == codes()["building"]
    merged = np.where(mask, cover, 0 if base is None else base).astype(np.uint8)
    if has_surface:
        return merged, built
    tops = np.where(np.isfinite(buildings.height), buildings.height, recipe.footprint_height)
    order = np.argsort(tops, kind="stable")  # the higher over the lower
    centimetres = np.clip(np.round(tops[order] * 100), 1, 2**31 - 1).astype(np.int32)
    painted = paint(frame, buildings.footprint[order], centimetres, 1) / np.float32(100)
    return merged, np.fmax(built, painted.astype(np.float32))


@dataclass(frozen=True)
class _Picture:
    image: NDArray
    known: NDArray
    shift: Shift | None = None
    moved: tuple[float, float] = (0.0, 0.0)


def _picture(
    recipe: SceneRecipe, sources: Sources, frame: Frame, cloud: Points | None, points: PointColumns | None,
    height: NDArray, valid: NDArray, ground: NDArray | None,
) -> _Picture:  # fmt: skip
    """The colours seen from above, how far they lie from the heights as given, and by what they were moved."""
    path = sources.one("image")
    fixed = (0.0, 0.0) if recipe.image_shift == "auto" else recipe.image_shift

    def read(shift: tuple[float, float]) -> tuple[NDArray, NDArray]:
        if path is not None:
            return layers.read_image(path, frame, recipe.crs, shift)
        if cloud is None or cloud.rgb is None or points is None:
            return np.zeros((*frame.shape, 3), np.uint8), np.zeros(frame.shape, bool)
        if shift == (0.0, 0.0):
            return points.image, points.image_known
        moved = _bin(recipe, frame, cloud, points.ground, shift)
        return moved.image, moved.image_known

    image, known = read(fixed)
    if path is not None and not (known & valid).any():
        raise SourceOverlapError(
            f"the image of scene {recipe.name} shows nothing of {frame}", "check its CRS and extent"
        )
    if not known.any():
        return _Picture(image, known)
    shift = measure_image(
        image, known, height, valid, points.intensity if points is not None else None, frame.voxel_size
    )
    if (
        recipe.image_shift == "auto"
        and shift is not None
        and shift.sure
        and shift.length > AUTO_LEAST * frame.voxel_size
    ):
        back = (-round(shift.east, 2), -round(shift.north, 2))
        image, known = read(back)
        return _Picture(image, known, shift, back)
    return _Picture(image, known, shift, fixed)


def measure_image(
    image: NDArray, known: NDArray, height: NDArray, valid: NDArray, intensity: NDArray | None, voxel_size: float
) -> Shift | None:
    """How far a picture lies from the geometry: by the laser's intensity where there is one, else by edges of heights.

    Intensity is a picture taken from straight above in the geometry's own place: no leaning roofs and no shadows, so
    it is the better witness.
    """
    both = known & valid
    if intensity is not None and np.nanstd(intensity) > 0:
        seen = np.isfinite(intensity)
        if seen.mean() > 0.3:
            from earthgen.dataset.ground import fill_nearest

            return image_shift(image, fill_nearest(intensity, seen), both, voxel_size, limit=None)
    return image_shift(image, np.nan_to_num(height, nan=0.0), both, voxel_size)


def _building_mask(base: NDArray | None, points: PointColumns | None) -> NDArray | None:
    """Where land cover or classes of points have a building; None where neither has any."""
    building = codes()["building"]
    masks = [layer == building for layer in (base, points.code if points is not None else None) if layer is not None]
    return np.logical_or.reduce(masks) if any(mask.any() for mask in masks) else None
