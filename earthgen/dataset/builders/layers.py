"""Scenes from points, rasters and vectors: heights, land cover and colours, combined per column."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from earthgen.dataset.builders.binning import PointColumns, bin_points
from earthgen.dataset.builders.buildings import roof_medians
from earthgen.dataset.builders.ground import fill_nearest
from earthgen.dataset.builders.land_cover import (
    GREEN,
    LOW,
    TALL,
    CoverInputs,
    combine,
    greenness,
)
from earthgen.dataset.builders.quality import Evidence
from earthgen.dataset.builders.registration import Shift, image_shift, mask_shift
from earthgen.dataset.builders.sources import Sources, find_frame
from earthgen.dataset.builders.surface import Columns, height_field
from earthgen.dataset.builders.walls import colour_walls
from earthgen.dataset.readers import rasters
from earthgen.dataset.readers.points import NO_SURFACE, Points, read_points
from earthgen.dataset.recipe import SceneRecipe
from earthgen.dataset.scene import SceneData
from earthgen.errors import JobError
from geo_io.errors import RegionError
from geo_io.frame import UNKNOWN_DATUM, Frame
from geo_io.legend import builtin_crosswalks, codes
from geo_io.raster.source import open_raster
from geo_io.semantics.rasterize import paint

AUTO_LEAST = 0.5
"""Least length of a measured shift that is corrected, voxels."""


def scene_of_layers(
    recipe: SceneRecipe, sources: Sources, size: float, z: tuple[int, int]
) -> tuple[SceneData, Evidence, str]:
    """Make a scene from points, rasters and vectors.

    Parameters
    ----------
    recipe : SceneRecipe
        Settings.
    sources : Sources
        The files.
    size : float
        Voxel size, metres.
    z : tuple[int, int]
        z range in voxels.

    Returns
    -------
    tuple[SceneData, Evidence, str]
        The scene, what its quality is computed from, and the vertical CRS.

    Raises
    ------
    RegionError
        if the sources do not overlap
    InputError
        if a source cannot be read or understood
    """
    cloud = None
    if sources.all("points"):
        cloud = read_points(
            sources.all("points"),
            crs=recipe.crs,
            target=recipe.target,
            unit=recipe.unit,
            bounds=None,
            colour_bits=recipe.colour_bits,
            colours=recipe.point_colours,
        )
    frame = find_frame(recipe, sources, cloud, size, z)
    dtm, dsm = sources.one("dtm"), sources.one("dsm")
    heights = (
        rasters.ground_and_height(dtm, dsm, frame, recipe.unit, recipe.crs, recipe.missing)
        if dtm
        else None
    )
    points = (
        _bin(recipe, frame, cloud, heights.ground if heights else None, (0.0, 0.0))
        if cloud is not None
        else None
    )
    ground, built, valid, vertical = _solid(heights, dsm is not None, points, cloud)
    if recipe.reach:
        near = ndimage.distance_transform_edt(~valid) * size <= recipe.reach
        built, valid = np.where(near & ~valid, np.float32(0), built), near
    canopy = None
    if path := sources.one("building_height"):
        built = np.fmax(
            built, rasters.above_ground(path, frame, recipe.unit, recipe.crs, "building heights")
        )
    if path := sources.one("canopy"):
        canopy = rasters.above_ground(path, frame, recipe.unit, recipe.crs, "canopy")

    options = rasters.semantics_options(
        recipe.legend, recipe.legend_values, recipe.class_field, recipe.crs
    )
    base, cover_shift, cover_moved = None, None, (0, 0)
    number = None
    if path := sources.one("building_ids"):
        number = rasters.read_numbers(path, frame, recipe.crs)
        base = np.where(number > 0, np.uint8(codes()["building"]), np.uint8(0))
    if sources.all("cover"):
        known = base
        base, cover_shift, cover_moved = _cover(recipe, sources, frame, options, built, valid)
        base = base if known is None else np.where(known > 0, known, base)
    if path := sources.one("footprints"):
        base, built, number = _footprints(
            recipe, path, frame, options, base, built, dsm is not None or points is not None
        )
    if recipe.building_height and base is None:
        base = np.where(built > 0, np.uint8(codes()["building"]), np.uint8(0))

    if recipe.water_below is not None:
        open_ground = (ground < recipe.water_below) & (np.nan_to_num(built, nan=0.0) < LOW)
        base = np.zeros(frame.shape, np.uint8) if base is None else base
        base = np.where(open_ground & (base == 0), np.uint8(codes()["river"]), base)
    if base is not None:
        # Lasers record no water, so where the land cover has water there is no hole.
        wet = np.isin(base, [codes()[name] for name in ("river", "lake", "sea")]) & ~valid
        valid, built = valid | wet, np.where(wet, np.float32(0), built)
    reference = built if canopy is None else np.fmax(np.nan_to_num(built), canopy)
    picture = _picture(
        recipe, sources, frame, cloud, points, reference, valid, heights.ground if heights else None
    )
    given = CoverInputs(
        built,
        canopy,
        base,
        points.code if points else None,
        picture.image,
        picture.known,
        points.intensity if points is not None else None,
    )
    result = combine(
        given, size, recipe.dsm_holds if points is None or dsm is not None else "all", ground, valid
    )
    limit = frame.z[1] * size
    roofs = result.cover == codes()["building"]
    height = result.height
    if recipe.roofs == "median":
        if points is not None and dsm is None:
            # A column of a building at the height of its roof, not of the aerial on it.
            lower = np.maximum(points.roof - ground, 0.0)
            height = np.where(roofs & np.isfinite(lower), np.fmin(height, lower), height)
        height = roof_medians(height, roofs if number is None else np.where(roofs, number, 0))
    elif recipe.roofs == "hidden":
        valid &= ~_not_plants(height, roofs, picture, size)
    columns = Columns(
        frame,
        ground.astype(np.float32),
        np.minimum(height, np.float32(limit)).astype(np.float32),
        result.cover,
        _brighter(picture.image, recipe.image_gamma),
        picture.known & valid,
        valid,
        map=np.where(valid & result.told, result.cover, 0).astype(np.uint8),
        building=None if number is None else _complete(number, roofs & valid),
    )
    if points is not None and (dsm is None or heights is None):
        measured = points.measured
    else:
        measured = heights.measured if heights is not None else valid
    evidence = Evidence(
        measured=measured,
        solid=np.nan_to_num(built, nan=0.0),
        building=_building_mask(
            base if sources.all("cover") or recipe.footprints else None, points
        ),
        over_band=float((result.height > limit).mean()),
        changed=result.changed,
        image_shift=picture.shift,
        image_moved=picture.moved,
        cover_shift=cover_shift,
        cover_moved=(cover_moved[0] * size, cover_moved[1] * size),
        intensity=points.intensity if points is not None else None,
        spacing=points.spacing if points is not None else None,
        resolution=_resolution(recipe, sources, points),
        colour_resolution=_colour_resolution(recipe, sources, points),
        unit_told=cloud is None or cloud.unit_told,
    )
    data = height_field(columns)
    if recipe.walls and cloud is not None and cloud.rgb is not None:
        data = colour_walls(data, cloud)
    return data, evidence, vertical


def _resolution(recipe: SceneRecipe, sources: Sources, points: PointColumns | None) -> float:
    """Return the distance of independent heights in the sources, metres: the spacing of points,
    else the cells of the raster of the surface."""
    if points is not None and not sources.one("dsm"):
        return points.spacing
    for role in ("dsm", "building_height", "canopy", "dtm"):
        if path := sources.one(role):
            cells = open_raster(path, assume_crs=recipe.crs).pixel_metres
            return round(float(max(cells)), 3)
    raise JobError(f"scene {recipe.name} has no heights", "give points, or a dsm and a dtm")


def _colour_resolution(
    recipe: SceneRecipe, sources: Sources, points: PointColumns | None
) -> float | None:
    """Return the size of the pixels of the picture, or the spacing of coloured points, metres."""
    if path := sources.one("image"):
        return round(float(max(open_raster(path, assume_crs=recipe.crs).pixel_metres)), 3)
    return points.spacing if points is not None and points.image_known.any() else None


def _brighter(image: NDArray, gamma: float) -> NDArray:
    """Return colours to a power: below 1 dark pictures become brighter."""
    if gamma == 1:
        return image
    return np.round(255 * (image.astype(np.float32) / 255) ** gamma).astype(np.uint8)


def _complete(number: NDArray, roofs: NDArray) -> NDArray:
    """Return the (ny, nx) uint32 number of each building's columns: its own, else a new one for
    each connected area without one."""
    own = np.where(roofs, number, 0)
    parts, count = ndimage.label(roofs & (own == 0))
    # A rim beside a numbered building is part of it.
    if (own > 0).any() and count:
        distance, near = ndimage.distance_transform_edt(own == 0, return_indices=True)
        rim = (parts > 0) & (distance <= 2)
        own = np.where(rim, own[tuple(near)], own)
        parts = np.where(rim, 0, parts)
    return np.where(parts > 0, parts + int(own.max()), own).astype(np.uint32)


def _not_plants(height: NDArray, roofs: NDArray, picture: _Picture, size: float) -> NDArray:
    """Return where to leave a scene out that has no usable roofs: roofs, and what stands above the
    ground without being green, with a rim of 2 m."""
    bumps = (height > LOW) & picture.known & (greenness(picture.image) <= GREEN)
    bumps = ndimage.binary_opening(bumps, np.ones((3, 3)))
    return np.asarray(
        ndimage.binary_dilation(roofs | bumps, np.ones((3, 3)), max(round(2 / size), 1))
    )


def _bin(
    recipe: SceneRecipe,
    frame: Frame,
    cloud: Points,
    ground: NDArray | None,
    shift: tuple[float, float],
) -> PointColumns:
    asprs = next(crosswalk for crosswalk in builtin_crosswalks() if crosswalk.name == "asprs")
    table = {int(value): code for value, code in asprs.raster_table().items()}
    for value, name in recipe.point_classes.items():
        if not value.isdigit() or name not in {"unknown", *codes()}:
            raise JobError(
                f"scene {recipe.name}: point_classes maps {value!r} to {name!r}",
                "map point classes (numbers) to class names",
            )
        table[int(value)] = 0 if name == "unknown" else codes()[name]
    return bin_points(
        cloud,
        frame,
        table,
        ground=recipe.ground if ground is None else ground,
        dropped=NO_SURFACE if recipe.dropped_points is None else tuple(recipe.dropped_points),
        colour_shift=shift,
        largest=recipe.largest_thing,
    )


def _solid(
    heights: rasters.Heights | None,
    has_dsm: bool,
    points: PointColumns | None,
    cloud: Points | None,
) -> tuple[NDArray, NDArray, NDArray, str]:
    """Return the ground, the height above it (NaN where unknown), where there is data, and the
    vertical CRS."""
    if heights is not None and (has_dsm or points is None):
        valid = heights.measured & np.isfinite(heights.above)
        return heights.ground, heights.above, valid, heights.vertical_crs
    assert points is not None  # a recipe has heights
    ground = points.ground
    known_datum = heights if heights is not None else cloud
    vertical = known_datum.vertical_crs if known_datum is not None else UNKNOWN_DATUM
    valid = points.valid & (heights.measured if heights is not None else True)
    return ground, np.where(valid, points.top - ground, np.nan).astype(np.float32), valid, vertical


def _cover(
    recipe: SceneRecipe,
    sources: Sources,
    frame: Frame,
    options: Any,
    built: NDArray,
    valid: NDArray,
) -> tuple[NDArray, Shift | None, tuple[int, int]]:
    """Return the land cover, its shift from the heights as given, and the voxels that it was moved
    by."""
    paths = sources.all("cover")
    fixed = (0, 0) if recipe.cover_shift == "auto" else recipe.cover_shift
    base, _ = rasters.read_cover(paths, frame, options, fixed)
    if not base.any():
        raise RegionError(
            f"the land cover of scene {recipe.name} says nothing on {frame}",
            "check its CRS, its legend and the bounds",
        )
    mask, tall = base == codes()["building"], np.nan_to_num(built, nan=0.0) > TALL
    shift = mask_shift(mask, tall, valid, frame.voxel_size)
    if recipe.cover_shift == "auto" and shift is not None and shift.sure:
        back = (-round(shift.east / frame.voxel_size), -round(shift.north / frame.voxel_size))
        if back != (0, 0):
            return rasters.read_cover(paths, frame, options, back)[0], shift, back
    return base, shift, fixed


def _footprints(
    recipe: SceneRecipe,
    path: Path,
    frame: Frame,
    options: Any,
    base: NDArray | None,
    built: NDArray,
    has_surface: bool,
) -> tuple[NDArray, NDArray, NDArray]:
    """Add the buildings of footprints to land cover and heights, and return their numbers too.
    Their heights are used if there is no surface model."""
    cover, buildings = rasters.read_cover([path], frame, options)
    if not len(buildings) or not (cover == codes()["building"]).any():
        raise RegionError(
            f"no footprint of scene {recipe.name} lies on {frame}",
            "check the CRS of the footprints and their legend",
        )
    mask = cover == codes()["building"]
    merged = np.where(mask, cover, 0 if base is None else base).astype(np.uint8)
    every = np.arange(1, len(buildings) + 1, dtype=np.int32)
    number = paint(frame, buildings.footprint, every, 1).astype(np.uint32)
    if has_surface:
        return merged, built, number
    tops = np.where(np.isfinite(buildings.height), buildings.height, recipe.footprint_height)
    order = np.argsort(tops, kind="stable")  # higher buildings are painted over lower ones
    centimetres = np.clip(np.round(tops[order] * 100), 1, 2**31 - 1).astype(np.int32)
    painted = paint(frame, buildings.footprint[order], centimetres, 1) / np.float32(100)
    return merged, np.fmax(built, painted.astype(np.float32)), number


@dataclass(frozen=True)
class _Picture:
    """Colours seen from above, their shift as given, and the metres that they were moved by."""

    image: NDArray
    known: NDArray
    shift: Shift | None = None
    moved: tuple[float, float] = (0.0, 0.0)


def _picture(
    recipe: SceneRecipe,
    sources: Sources,
    frame: Frame,
    cloud: Points | None,
    points: PointColumns | None,
    height: NDArray,
    valid: NDArray,
    ground: NDArray | None,
) -> _Picture:
    """Read the colours seen from above, from the picture or else from the points."""
    path = sources.one("image")
    fixed = (0.0, 0.0) if recipe.image_shift == "auto" else recipe.image_shift

    def read(shift: tuple[float, float]) -> tuple[NDArray, NDArray]:
        if path is not None:
            return rasters.read_image(path, frame, recipe.crs, shift)
        if cloud is None or cloud.rgb is None or points is None:
            return np.zeros((*frame.shape, 3), np.uint8), np.zeros(frame.shape, bool)
        if shift == (0.0, 0.0):
            return points.image, points.image_known
        moved = _bin(recipe, frame, cloud, points.ground, shift)
        return moved.image, moved.image_known

    image, known = read(fixed)
    if path is not None and not (known & valid).any():
        raise RegionError(
            f"the image of scene {recipe.name} shows nothing of {frame}", "check its CRS and extent"
        )
    if not known.any():
        return _Picture(image, known)
    shift = measure_image(
        image,
        known,
        height,
        valid,
        points.intensity if points is not None else None,
        frame.voxel_size,
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
    image: NDArray,
    known: NDArray,
    height: NDArray,
    valid: NDArray,
    intensity: NDArray | None,
    voxel_size: float,
) -> Shift | None:
    """Measure the shift of a picture from the geometry.

    It is compared with the intensity of the laser if there is one, else with the edges of heights.
    Intensity is a picture from straight above, in the place of the geometry, without leaning roofs
    and shadows, so it is more reliable.
    """
    both = known & valid
    if intensity is not None and np.nanstd(intensity) > 0:
        seen = np.isfinite(intensity)
        if seen.mean() > 0.3:
            return image_shift(image, fill_nearest(intensity, seen), both, voxel_size, limit=None)
    return image_shift(image, np.nan_to_num(height, nan=0.0), both, voxel_size)


def _building_mask(base: NDArray | None, points: PointColumns | None) -> NDArray | None:
    """Return where land cover or classes of points have a building; None if neither has any."""
    building = codes()["building"]
    masks = [
        layer == building
        for layer in (base, points.code if points is not None else None)
        if layer is not None
    ]
    return np.logical_or.reduce(masks) if any(mask.any() for mask in masks) else None
