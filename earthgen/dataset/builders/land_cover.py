"""The class seen from above and the height of each column, from all that a scene's sources say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from earthgen.dataset.builders.ground import fill_nearest
from geo_io.legend import classes, codes

TALL = 2.5
"""Metres above which something stands on the ground."""

LOW = 1.0
"""Metres below which nothing stands there, whatever the land cover says."""

CANOPY = 1.0
"""Metres from which on a canopy counts."""

ROUGH = 0.3
"""Mean departure, metres, of tall columns from their neighbours' mean, over 5 x 5: crowns have
more, roofs less."""

GREEN = 0.06
"""Excess green, (2 g - r - b) / (r + g + b), above which a surface is vegetation (after
Woebbecke et al. 1995)."""

BROWN = 0.085
"""Red less blue over their sum with green, above which ground is bare or dry."""

DARK, TURF, WATER_RELIEF, WATER_LEVEL_OVER, SMALLEST_WATER = 110.0, 0.12, 0.4, 7.0, 1000.0
"""Water by rule: its brightest band stays below the first (of 255), its excess green below the
second, its height varies by less than the third over the fourth, metres, and it covers the last,
square metres."""

BANK, LOWER = 12.0, 0.7
"""Water lies lower than the ground within so many metres of it, by so many metres ..."""

LARGE_WATER = 6000.0
"""... unless it covers so many square metres, as no shadow does."""

SMALLEST = 12.0
"""Square metres of the smallest thing that is taken for a building by its shape alone."""

WEAK = ("bare_ground", "grassland")
"""Classes of points that say no more than that nothing stands there: land cover from elsewhere
knows better."""


BRIDGES = ("road", "rail", "paved")
"""Classes of points that may be high above the ground: bridge decks."""


def table_of(names: tuple[str, ...] | list[str]) -> NDArray:
    """(256,) bool by class code."""
    out = np.zeros(256, bool)
    for name in names:
        out[codes()[name]] = True
    return out


def standing() -> NDArray:
    """(256,) bool: classes of which things stand on the ground."""
    return table_of(
        [land.name for land in classes() if land.surface in ("wood", "tree", "shrub", "building")]
    )


@dataclass(frozen=True)
class Given:
    """What the sources say, (ny, nx) each; None for what there is no source of.

    built : metres above the ground by a surface model, NaN for none
    canopy : metres above the ground of vegetation
    base : uint8 classes of land cover, 0 for none
    code : uint8 classes of points on top, 0 for none
    image, image_known : picture
    intensity : of a laser, NaN for none; low on water, and not dimmed by shadows
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
    """(ny, nx) cover uint8 and height float32; `changed` : shares of columns by what was done to
    them."""

    cover: NDArray
    height: NDArray
    changed: Mapping[str, float]


def combine(
    given: Given, voxel_size: float, dsm_holds: str, ground: NDArray, valid: NDArray
) -> Cover:
    """One class and one height a column.

    In this order: classes of land cover; over them classes of points, where these say more than
    "ground"; canopies above roofs or ground are trees; things taller than TALL without a class that
    stands are buildings where the surface model holds nothing else (`dsm_holds` "buildings"), else
    trees if rough or green, or buildings; classes that stand but are lower than LOW take the
    nearest class of the ground; what then is unknown is grass where the picture is green, water
    where a large part is level and dark, else what its colour says (`ground_rule`), and bare ground
    without a picture.

    ground : (ny, nx) metres; valid : (ny, nx) bool, where there is data
    """
    code = codes()
    shape = given.built.shape
    cover = np.zeros(shape, np.uint8) if given.base is None else given.base.copy()
    changed: dict[str, float] = {}
    if given.code is not None:
        weak = table_of(list(WEAK))[given.code] & (cover != 0)
        cover = np.where((given.code != 0) & ~weak, given.code, cover)
    height = np.maximum(np.nan_to_num(given.built, nan=0.0), 0.0).astype(np.float32)
    stands = standing()
    woods = stands.copy()
    woods[code["building"]] = False
    if given.canopy is not None:
        crown = (given.canopy >= CANOPY) & (given.canopy > height)
        cover = np.where(crown & ~woods[cover], np.uint8(code["tree"]), cover)
        height = np.where(crown, given.canopy, height).astype(np.float32)

    odd = (height > TALL) & ~stands[cover]
    if given.code is not None:
        odd &= ~table_of(list(BRIDGES))[given.code]
    if odd.any():
        if dsm_holds == "buildings":
            kind = np.full(shape, code["building"], np.uint8)
        else:
            kind = _kinds(given, height, odd | (height > TALL), voxel_size)
        cover = np.where(odd, kind, cover)
    changed["tall_without_class"] = float(odd.mean())

    flat = stands[cover] & (height < LOW)
    if flat.any():
        bare = ~stands[cover] & (cover != 0)
        # Where all the land cover stands, what is low is as good as unknown.
        cover = np.where(flat, fill_nearest(cover, bare) if bare.any() else np.uint8(0), cover)
    changed["standing_without_height"] = float(flat.mean())

    unknown = cover == 0
    changed["ground_by_rule"] = float(unknown.mean())
    if unknown.any():
        rule = np.full(shape, code["bare_ground"], np.uint8)
        if given.image is not None and given.image_known is not None and given.image_known.any():
            seen = ground_rule(given, height, ground, valid & given.image_known, voxel_size)
            rule = np.where(given.image_known, seen, rule).astype(np.uint8)
        rule = np.where(height > TALL, np.uint8(code["tree"]), rule)
        cover = np.where(unknown, rule, cover)
    return Cover(cover.astype(np.uint8), height, changed)


def ground_rule(
    given: Given, height: NDArray, ground: NDArray, known: NDArray, voxel_size: float
) -> NDArray:
    """(ny, nx) uint8 classes of the ground by colour alone, for scenes without land cover: a rule,
    not a measurement.

    Green is grass; brown (red well above blue) is grassland, dry in most pictures; the rest is
    paved. Large, dark, level parts that are not brown are water.
    """
    code = codes()
    image = np.zeros((*height.shape, 3), np.uint8) if given.image is None else given.image
    smooth = ndimage.uniform_filter(image.astype(np.float32), (3, 3, 1))
    total = np.maximum(smooth.sum(axis=2), 1.0)
    brown = (smooth[..., 0] - smooth[..., 2]) / total > BROWN
    out = np.where(
        greenness(image) > GREEN, code["grass"], np.where(brown, code["grassland"], code["paved"])
    )

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
    # Shores are not level: what is dark beside water and hardly higher is water.
    for _ in range(size // 2):
        water |= ndimage.binary_dilation(water) & known & dark & (height < LOW)
    return np.where(water, code["lake"], out).astype(np.uint8)


def _basins(water: NDArray, ground: NDArray, known: NDArray, voxel_size: float) -> NDArray:
    """Of parts that look like water those that are large, or lower than what is around them:
    shadows are not."""
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
        # The upper ground around it: part of what is around a river is the river, where it foams or
        # is shaded.
        if (
            area >= LARGE_WATER
            or not ring.any()
            or np.percentile(ground[wide][ring], 80) - np.median(ground[wide][inside]) > LOWER
        ):
            out[wide] |= inside
    return out


def greenness(image: NDArray) -> NDArray:
    """(ny, nx) float32 excess green of (ny, nx, 3) uint8, smoothed over 3 x 3 columns."""
    smooth = ndimage.uniform_filter(image.astype(np.float32), (3, 3, 1))
    total = np.maximum(smooth.sum(axis=2), 1.0)
    return np.asarray((2 * smooth[..., 1] - smooth[..., 0] - smooth[..., 2]) / total, np.float32)


def roughness(height: NDArray, where: NDArray) -> NDArray:
    """(ny, nx) float32 metres: how far columns depart from the mean of those around them that
    count, over 5 x 5."""
    mean = _mean(height, where, 3)
    return _mean(np.abs(height - mean), where, 5)


def _mean(values: NDArray, where: NDArray, size: int) -> NDArray:
    weight = ndimage.uniform_filter(where.astype(np.float32), size)
    total = ndimage.uniform_filter(np.where(where, values, 0).astype(np.float32), size)
    return np.asarray(total / np.maximum(weight, 1e-6), np.float32)


def _kinds(given: Given, height: NDArray, tall: NDArray, voxel_size: float) -> NDArray:
    """(ny, nx) uint8: building or tree, for tall columns."""
    leaf = roughness(height, tall) > ROUGH * max(voxel_size, 0.5)
    if given.image is not None and given.image_known is not None:
        leaf |= given.image_known & (greenness(given.image) > GREEN)
    roof = tall & (
        ndimage.uniform_filter((tall & ~leaf).astype(np.float32), 5) > 0.5 * _share(tall, 5)
    )
    roof = ndimage.binary_opening(roof, np.ones((3, 3))) if voxel_size <= 1.5 else roof
    number, _ = ndimage.label(roof)
    size = np.bincount(number.ravel()) * voxel_size**2
    roof &= size[number] >= SMALLEST
    # Edges of roofs are rough: what touches a roof and is no higher belongs to it.
    near = ndimage.maximum_filter(np.where(roof, height, 0), 3)
    rim = (
        tall
        & ~roof
        & (near > 0)
        & (height <= near + 1.0)
        & ndimage.binary_dilation(roof, np.ones((3, 3)))
    )
    return np.where(roof | rim, codes()["building"], codes()["tree"]).astype(np.uint8)


def _share(where: NDArray, size: int) -> NDArray:
    return np.asarray(ndimage.uniform_filter(where.astype(np.float32), size))
