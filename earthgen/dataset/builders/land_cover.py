"""The class seen from above and the height of each column, from all sources of a scene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from earthgen.dataset.builders.ground import fill_nearest
from geo_io.legend import classes, codes

TALL = 2.5
"""Height above the ground from which a column is an object, metres."""

LOW = 1.0
"""Height above the ground below which a column is no object, whatever its land cover, metres."""

CANOPY = 1.0
"""Least height of a canopy, metres."""

ROUGH = 0.3
"""Mean deviation of tall columns from the mean of their neighbours over 5 x 5, metres: larger for
crowns and smaller for roofs."""

GREEN = 0.06
"""Excess green, (2 g - r - b) / (r + g + b), above which a surface is vegetation (after
Woebbecke et al. 1995)."""

GREY = 0.0
"""Excess green below which a rough surface is a roof with clutter rather than a crown."""

BROWN = 0.085
"""(r - b) / (r + g + b) above which ground is bare or dry."""

DARK, TURF, WATER_RELIEF, WATER_LEVEL_OVER, SMALLEST_WATER = 110.0, 0.12, 0.4, 7.0, 1000.0
"""Thresholds of the rule for water: its brightest band (of 255) is below the first, its excess
green below the second, its height varies by less than the third within the fourth (metres), and
its area is at least the last, square metres."""

BANK, LOWER = 12.0, 0.7
"""Water is lower than the ground within the first distance, by the second, metres ..."""

LARGE_WATER = 6000.0
"""... unless it covers at least this area, square metres: no shadow is that large."""

ANNEX, ANNEX_REACH = 1.2, 10.0
"""Columns above the first height that are not green and reach a roof within the second distance
belong to the building, metres: in closed blocks a derived terrain lies above the courtyards, and
low wings look lower than `TALL`."""

RED = 0.075
"""(r - g) / (r + g + b) above which brown ground is soil or rock, not dry grass."""

STEEP, STEEP_OVER = 0.25, 25.0
"""Mean slope above which open ground is not paved, rise over run, and the metres it is meant over:
a derived terrain has humps inside blocks."""

SMALLEST = 12.0
"""Smallest area of a building that is detected by its shape alone, square metres."""

WEAK = ("bare_ground", "grassland")
"""Classes of points that only mean open ground: other land cover is more specific."""

BRIDGES = ("road", "rail", "paved")
"""Classes of points that may be high above the ground, because of bridges."""


def class_table(names: tuple[str, ...] | list[str]) -> NDArray:
    """Return a (256,) bool table by class code: True for the named classes."""
    out = np.zeros(256, bool)
    for name in names:
        out[codes()[name]] = True
    return out


def standing_classes() -> NDArray:
    """Return a (256,) bool table by class code: True for classes of objects on the ground."""
    return class_table(
        [land.name for land in classes() if land.surface in ("wood", "tree", "shrub", "building")]
    )


@dataclass(frozen=True)
class CoverInputs:
    """The layers that are combined; None without a source.

    Attributes
    ----------
    built : NDArray (ny, nx)
        Height above the ground from a surface model, metres, NaN where unknown.
    canopy : NDArray (ny, nx) | None
        Height of vegetation above the ground, metres.
    base : NDArray (ny, nx) uint8 | None
        Classes of land cover, 0 for unknown.
    code : NDArray (ny, nx) uint8 | None
        Classes of the topmost points, 0 for unknown.
    image : NDArray (ny, nx, 3) uint8 | None
        Picture from above, sRGB.
    image_known : NDArray (ny, nx) bool | None
        Where the picture has data.
    intensity : NDArray (ny, nx) | None
        Intensity of a laser, NaN where unknown. It is low on water, and shadows do not dim it.
    """

    built: NDArray
    canopy: NDArray | None = None
    base: NDArray | None = None
    code: NDArray | None = None
    image: NDArray | None = None
    image_known: NDArray | None = None
    intensity: NDArray | None = None


@dataclass(frozen=True)
class Cover:
    """The combined layers.

    Attributes
    ----------
    cover : NDArray (ny, nx) uint8
        Class seen from above.
    height : NDArray (ny, nx) float32
        Height above the ground, metres.
    told : NDArray (ny, nx) bool
        Where a source says what the class is. Elsewhere it is bare ground for want of a better
        guess, and a map says nothing.
    changed : Mapping[str, float]
        Share of the columns that each rule changed.
    """

    cover: NDArray
    height: NDArray
    told: NDArray
    changed: Mapping[str, float]


def combine(
    given: CoverInputs, voxel_size: float, dsm_holds: str, ground: NDArray, valid: NDArray
) -> Cover:
    """Find one class and one height per column.

    The rules, in their order:

    1. The class is that of land cover, and over it that of points where these say more than "open
       ground". Where points say only that, and there is a picture, rule 5 decides.
    2. Canopies above roofs or ground are trees.
    3. Objects taller than `TALL` without the class of an object are buildings if the surface model
       holds nothing else, trees if it holds plants, else trees if they are rough or green, else
       buildings.
    4. Classes of objects lower than `LOW` become the nearest class of the ground.
    5. What is still unknown is classified by its colour (`ground_rule`), and is bare ground without
       a picture.

    Parameters
    ----------
    given : CoverInputs
        The layers.
    voxel_size : float
        Metres.
    dsm_holds : {"buildings", "plants", "all"}
        What stands on the surface model.
    ground : NDArray (ny, nx)
        Height of the terrain, metres.
    valid : NDArray (ny, nx) bool
        Where there is data.
    """
    code = codes()
    shape = given.built.shape
    cover = np.zeros(shape, np.uint8) if given.base is None else given.base.copy()
    changed: dict[str, float] = {}
    seen = np.zeros(shape, bool)
    if given.image is not None and given.image_known is not None:
        seen = given.image_known
    guess = np.zeros(shape, bool)
    if given.code is not None:
        guess = (given.code == code["bare_ground"]) & (cover == 0)
        weak = class_table(list(WEAK))[given.code] & (cover != 0)
        cover = np.where((given.code != 0) & ~weak & ~(guess & seen), given.code, cover)
    height = np.maximum(np.nan_to_num(given.built, nan=0.0), 0.0).astype(np.float32)
    stands = standing_classes()
    woods = stands.copy()
    woods[code["building"]] = False
    if given.canopy is not None:
        crown = (given.canopy >= CANOPY) & (given.canopy > height)
        cover = np.where(crown & ~woods[cover], np.uint8(code["tree"]), cover)
        height = np.where(crown, given.canopy, height).astype(np.float32)

    odd = (height > TALL) & ~stands[cover]
    if given.code is not None:
        odd &= ~class_table(list(BRIDGES))[given.code]
    if odd.any():
        if dsm_holds == "buildings":
            kind = np.full(shape, code["building"], np.uint8)
        elif dsm_holds == "plants":
            kind = np.full(shape, code["tree"], np.uint8)
        else:
            kind = _building_or_tree(given, height, odd | (height > TALL), voxel_size)
        cover = np.where(odd, kind, cover)
        if dsm_holds == "all" and seen.any():
            cover = np.where(
                _annexes(given, height, cover, seen, voxel_size), code["building"], cover
            )
    changed["tall_without_class"] = float(odd.mean())

    flat = stands[cover] & (height < LOW)
    if flat.any():
        bare = ~stands[cover] & (cover != 0)
        # If the land cover has objects only, low columns are unknown.
        cover = np.where(flat, fill_nearest(cover, bare) if bare.any() else np.uint8(0), cover)
    changed["standing_without_height"] = float(flat.mean())

    unknown = cover == 0
    told = ~((unknown | (guess & (height <= TALL))) & ~seen)
    changed["ground_by_rule"] = float(unknown.mean())
    if unknown.any():
        rule = np.full(shape, code["bare_ground"], np.uint8)
        if seen.any():
            looks = ground_rule(given, height, ground, valid & seen, voxel_size)
            rule = np.where(seen, looks, rule).astype(np.uint8)
        rule = np.where(height > TALL, np.uint8(code["tree"]), rule)
        cover = np.where(unknown, rule, cover)
    return Cover(cover.astype(np.uint8), height, told, changed)


def ground_rule(
    given: CoverInputs, height: NDArray, ground: NDArray, known: NDArray, voxel_size: float
) -> NDArray:
    """Guess classes of the ground from colours, for scenes without land cover.

    Green is grass; brown (red well above blue) is grassland, which is dry in most pictures, or bare
    ground if it is red; the rest is paved, or bare ground where it is steep. Large, dark, level
    areas that are not brown are water.

    Parameters
    ----------
    given : CoverInputs
        Its picture and intensity are used.
    height : NDArray (ny, nx)
        Height above the ground, metres.
    ground : NDArray (ny, nx)
        Height of the terrain, metres.
    known : NDArray (ny, nx) bool
        Where the picture has data.
    voxel_size : float
        Metres.

    Returns
    -------
    NDArray (ny, nx) uint8
        Class codes.
    """
    code = codes()
    image = np.zeros((*height.shape, 3), np.uint8) if given.image is None else given.image
    smooth = ndimage.uniform_filter(image.astype(np.float32), (3, 3, 1))
    total = np.maximum(smooth.sum(axis=2), 1.0)
    brown = (smooth[..., 0] - smooth[..., 2]) / total > BROWN
    south, east = np.gradient(
        ndimage.uniform_filter(ground, max(round(STEEP_OVER / voxel_size), 1)), voxel_size
    )
    hard = np.where(np.hypot(south, east) > STEEP, code["bare_ground"], code["paved"])
    red = (smooth[..., 0] - smooth[..., 1]) / total > RED
    dry = np.where(red, code["bare_ground"], code["grassland"])
    out = np.where(greenness(image) > GREEN, code["grass"], np.where(brown, dry, hard))

    size = max(round(WATER_LEVEL_OVER / voxel_size) | 1, 3)
    top = ground + height
    level = ndimage.maximum_filter(top, size) - ndimage.minimum_filter(top, size) < WATER_RELIEF
    dark = (smooth.max(axis=2) < DARK) & ~brown & (greenness(image) < TURF)
    if given.intensity is not None and np.isfinite(given.intensity).any():
        around = ndimage.uniform_filter(
            np.nan_to_num(given.intensity, nan=0.0).astype(np.float32), size
        )
        dark &= around < np.nanmedian(given.intensity)
    water = ndimage.binary_opening(known & level & dark, np.ones((3, 3)))
    water = _basins(water, ground, known, voxel_size)
    # Shores are not level, so dark and low columns beside water are water too.
    for _ in range(size // 2):
        water |= ndimage.binary_dilation(water) & known & dark & (height < LOW)
    return np.where(water, code["lake"], out).astype(np.uint8)


def _basins(water: NDArray, ground: NDArray, known: NDArray, voxel_size: float) -> NDArray:
    """Keep the areas that are large, or lower than their surroundings; the others are shadows."""
    number, _ = ndimage.label(water)
    out = np.zeros(water.shape, bool)
    around = max(round(BANK / voxel_size), 2)
    for part, place in enumerate(ndimage.find_objects(number), 1):
        mine = number[place] == part
        area = mine.sum() * voxel_size**2
        if area < SMALLEST_WATER:
            continue
        wide = tuple(slice(max(s.start - around, 0), s.stop + around) for s in place)
        inside = number[wide] == part
        ring = (
            ndimage.binary_dilation(inside, np.ones((3, 3)), around)
            & (number[wide] == 0)
            & known[wide]
        )
        # The upper ground around it counts: the rest may be foaming or shaded parts of a river.
        if (
            area >= LARGE_WATER
            or not ring.any()
            or np.percentile(ground[wide][ring], 80) - np.median(ground[wide][inside]) > LOWER
        ):
            out[wide] |= inside
    return out


def greenness(image: NDArray) -> NDArray:
    """Compute the excess green, smoothed over 3 x 3 columns.

    Parameters
    ----------
    image : NDArray (ny, nx, 3) uint8
        sRGB.

    Returns
    -------
    NDArray (ny, nx) float32
        (2 g - r - b) / (r + g + b).
    """
    smooth = ndimage.uniform_filter(image.astype(np.float32), (3, 3, 1))
    total = np.maximum(smooth.sum(axis=2), 1.0)
    return np.asarray((2 * smooth[..., 1] - smooth[..., 0] - smooth[..., 2]) / total, np.float32)


def roughness(height: NDArray, where: NDArray) -> NDArray:
    """Compute the mean deviation of columns from the mean of their neighbours, over 5 x 5.

    Parameters
    ----------
    height : NDArray (ny, nx)
        Metres.
    where : NDArray (ny, nx) bool
        Columns that count.

    Returns
    -------
    NDArray (ny, nx) float32
        Metres.
    """
    mean = _mean(height, where, 3)
    return _mean(np.abs(height - mean), where, 5)


def _mean(values: NDArray, where: NDArray, size: int) -> NDArray:
    weight = ndimage.uniform_filter(where.astype(np.float32), size)
    total = ndimage.uniform_filter(np.where(where, values, 0).astype(np.float32), size)
    return np.asarray(total / np.maximum(weight, 1e-6), np.float32)


def _building_or_tree(
    given: CoverInputs, height: NDArray, tall: NDArray, voxel_size: float
) -> NDArray:
    """Return (ny, nx) uint8 class codes: building or tree, for tall columns."""
    leaf = roughness(height, tall) > ROUGH * max(voxel_size, 0.5)
    if given.image is not None and given.image_known is not None:
        green = greenness(given.image)
        # Roofs with clutter are as rough as crowns, but grey.
        leaf &= (green > GREY) | ~given.image_known
        leaf |= given.image_known & (green > GREEN)
    roof = tall & (
        ndimage.uniform_filter((tall & ~leaf).astype(np.float32), 5) > 0.5 * _share(tall, 5)
    )
    roof = ndimage.binary_opening(roof, np.ones((3, 3))) if voxel_size <= 1.5 else roof
    number, _ = ndimage.label(roof)
    size = np.bincount(number.ravel()) * voxel_size**2
    roof &= size[number] >= SMALLEST
    # Edges of roofs are rough: columns beside a roof that are not higher belong to it.
    near = ndimage.maximum_filter(np.where(roof, height, 0), 3)
    rim = (
        tall
        & ~roof
        & (near > 0)
        & (height <= near + 1.0)
        & ndimage.binary_dilation(roof, np.ones((3, 3)))
    )
    return np.where(roof | rim, codes()["building"], codes()["tree"]).astype(np.uint8)


def _annexes(
    given: CoverInputs, height: NDArray, cover: NDArray, seen: NDArray, voxel_size: float
) -> NDArray:
    """Return where open ground is the low wing of a building beside it."""
    assert given.image is not None  # the caller has colours
    stands = standing_classes()
    low = (height > ANNEX) & (height <= TALL) & ~stands[cover] & (cover != codes()["lake"])
    low &= seen & (greenness(given.image) <= GREEN)
    low &= roughness(height, height > LOW) <= 2 * ROUGH
    roof = cover == codes()["building"]
    steps = max(round(ANNEX_REACH / voxel_size), 1)
    grown = ndimage.binary_dilation(roof, np.ones((3, 3)), steps, mask=low | roof)
    wing = ndimage.binary_opening(grown & (low | roof), np.ones((3, 3)))
    return np.asarray(wing & low)


def _share(where: NDArray, size: int) -> NDArray:
    return np.asarray(ndimage.uniform_filter(where.astype(np.float32), size))
