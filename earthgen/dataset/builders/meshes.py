"""Scenes from textured meshes: OBJ and glTF (`mesh_files`), CityJSON (`city_json`) and 3D Tiles
(`tiles_3d`).

Surfaces are sampled densely. A sample marks the voxel half a voxel behind the surface, so a roof at
height h tops the voxels whose centres are below h, as in height fields. Everything that open air
cannot reach from above or from the sides is solid: roofs without a floor become closed, and
overhangs stay open below. Triangles have to be wound counter-clockwise seen from outside, as in all
these formats.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from earthgen.dataset.builders.ground import fill_nearest, filter_ground, interpolate
from earthgen.dataset.builders.land_cover import LOW, CoverInputs, combine
from earthgen.dataset.builders.quality import Evidence
from earthgen.dataset.builders.sources import Sources, frame_of_bounds
from earthgen.dataset.builders.surface import Columns, solid_volume
from earthgen.dataset.readers.city_json import CityModel, open_city
from earthgen.dataset.readers.mesh_files import read_mesh_file
from earthgen.dataset.readers.rasters import ground_and_height, read_cover, semantics_options
from earthgen.dataset.readers.tile_volumes import ELLIPSOID
from earthgen.dataset.readers.tiles_3d import Tileset, open_tileset, tileset_crs, tileset_patches
from earthgen.dataset.readers.triangles import (
    FOOT,
    SURFACE,
    TERRAIN,
    Patch,
    Samples,
    require_sound,
    sample,
)
from earthgen.dataset.recipe import SceneRecipe
from earthgen.dataset.scene import SceneData
from earthgen.errors import JobError
from geo_io.crs import parse_crs, transformer
from geo_io.errors import InputError, RegionError
from geo_io.frame import UNKNOWN_DATUM, Bounds, Frame, projected_crs
from geo_io.legend import codes
from geo_io.safety.limits import SCENE_CELLS

JSON = (".json", ".jsonl", ".cityjson")
"""Suffixes of city models and tilesets."""

UPWARD = 0.2
"""Samples of the ground have normals with a larger z than this."""


def scene_of_meshes(
    recipe: SceneRecipe, sources: Sources, size: float, band: tuple[int, int]
) -> tuple[SceneData, Evidence, str]:
    """Make a scene from meshes.

    The ground is that of the recipe's dtm; else the terrain and the feet of buildings in city
    models; else it is found below the mesh by its shape.

    Parameters
    ----------
    recipe : SceneRecipe
        Settings.
    sources : Sources
        The files.
    size : float
        Voxel size, metres.
    band : tuple[int, int]
        z range in voxels.

    Returns
    -------
    tuple[SceneData, Evidence, str]
        The scene, what its quality is computed from, and the vertical CRS.

    Raises
    ------
    InputError
        if a file has another format, is damaged, holds no surface, or refers to a file on the
        network or outside its folder
    JobError
        if neither the recipe nor a file gives a CRS, the mesh is too large for its voxels, or its
        heights and those of the dtm have different datums
    RegionError
        if there is nothing within the bounds
    """
    samples, frame, vertical = _samples(recipe, sources, size, band)
    within = samples.at - samples.normal * (0.5 * size)
    row, col = _columns(within, frame)
    inside = (col >= 0) & (col < frame.nx) & (row >= 0) & (row < frame.ny)
    if not inside.any():
        raise RegionError(
            f"the meshes of scene {recipe.name} have nothing on {frame}",
            "check bounds and mesh_offset",
        )
    samples, within, row, col = samples.select(inside), within[inside], row[inside], col[inside]
    high = np.full(frame.shape, -np.inf, np.float32)
    np.maximum.at(high, (row, col), samples.at[:, 2].astype(np.float32))
    valid = np.isfinite(high)
    if dtm := sources.one("dtm"):
        terrain = ground_and_height(dtm, None, frame, recipe.unit, recipe.crs)
        ground = terrain.ground
        vertical = _common_datum(recipe, vertical, terrain.vertical_crs)
        if samples.code.any():
            # A city model is complete: what lies between its objects is ground.
            valid |= terrain.measured
    else:
        ground = _ground(samples, row, col, frame, recipe.largest_thing)
    # Small gaps between samples are not holes of the scene.
    valid = ndimage.binary_closing(np.pad(valid, 2), np.ones((3, 3)))[2:-2, 2:-2]
    above = np.where(np.isfinite(high), high - ground, np.float32(np.nan))
    level = np.floor((within[:, 2] - ground[row, col]) / size).astype(np.int64) - frame.z[0]
    fits = (level >= 0) & (level < frame.z[1] - frame.z[0])
    over = float(((high - ground) > frame.z[1] * size).mean())
    samples, row, col, level = samples.select(fits), row[fits], col[fits], level[fits]
    shape = (*frame.shape, frame.z[1] - frame.z[0])
    shell = np.zeros(shape, bool)
    shell[row, col, level] = True
    # The surface of the ground, where the mesh has none.
    shell[..., : 0 - frame.z[0]] = True
    solid = _closed(shell, valid)
    image, known = _from_above(frame.shape, row, col, level, samples.rgb, samples.seen)
    filled = np.where(np.isfinite(above), above, np.float32(0))
    if np.isfinite(above).any() and not (dtm and samples.code.any()):
        filled = fill_nearest(filled, np.isfinite(above))
    base = None
    if sources.all("cover"):
        options = semantics_options(
            recipe.legend, recipe.legend_values, recipe.class_field, recipe.crs
        )
        base, _ = read_cover(sources.all("cover"), frame, options)
    inner = _classes(shape, row, col, level, samples.code) if samples.code.any() else None
    top = None if inner is None else _topmost(frame.shape, row, col, level, samples.code)
    given = None if top is None else _specific_classes(top, filled)
    result = combine(
        CoverInputs(filled, None, base, given, image, known), size, "all", ground, valid
    )
    height = np.clip(result.height, 0, frame.z[1] * size).astype(np.float32)
    columns = Columns(
        frame, ground.astype(np.float32), height, result.cover, image, known & valid, valid
    )
    cover = np.maximum(result.cover, 1)[..., None]
    if inner is not None and top is not None:
        # If a rule changed the class of the column to fit its height, its voxels change too.
        cover = np.where((inner == 0) | (inner == top[..., None]), cover, inner)
    classes = np.where(solid, cover, 0).astype(np.uint8)
    rgb, coloured = _colours(shape, row, col, level, samples.rgb, samples.seen)
    data = solid_volume(columns, classes, rgb, coloured)
    return (
        data,
        Evidence(measured=valid, solid=filled, over_band=over, changed=result.changed),
        vertical,
    )


@dataclass(frozen=True)
class _Plain:
    """A file without CRS and datum."""

    path: Path


_Source = _Plain | CityModel | Tileset


def _samples(
    recipe: SceneRecipe, sources: Sources, size: float, band: tuple[int, int]
) -> tuple[Samples, Frame, str]:
    """Return the samples in the scene's CRS, the frame, and the vertical CRS."""
    paths = sources.all("mesh")
    source: _Source = _open(paths[0], recipe.crs)
    crs = _scene_crs(recipe, source)
    frame = frame_of_bounds(crs, size, recipe.bounds, band) if recipe.bounds else None
    datums: list[str] = []

    def patches() -> Iterator[Patch]:
        nonlocal source
        for number, path in enumerate(paths):
            source = _open(path, recipe.crs) if number else source
            datums.append(_datum(source))
            for patch in _patches(
                source, recipe, crs, size, None if frame is None else frame.bounds
            ):
                require_sound(patch, str(path))
                moved = patch.moved(patch.corners + np.array(recipe.mesh_offset))
                yield moved if frame is None else moved.within(frame.bounds, size)

    samples = sample(patches(), size)
    if len(set(datums)) > 1:
        raise JobError(
            f"heights of the meshes of scene {recipe.name} have several datums: "
            f"{', '.join(sorted(set(datums)))}",
            "make one scene per datum",
        )
    if frame is None and not len(samples):
        raise InputError(f"the meshes of scene {recipe.name} hold no surfaces", "give other files")
    if frame is None:
        (left, bottom), (right, top) = samples.at[:, :2].min(axis=0), samples.at[:, :2].max(axis=0)
        box = (float(left), float(bottom), float(right), float(top))
        frame = frame_of_bounds(crs, size, box, band)
        if frame.nx * frame.ny * (band[1] - band[0]) > SCENE_CELLS:
            raise JobError(
                f"the meshes of scene {recipe.name} cover {frame.nx:,} x {frame.ny:,} voxels",
                "give bounds, or larger voxels",
            )
    # After a vertical offset the datum of the file no longer applies.
    return samples, frame, datums[0] if recipe.mesh_offset[2] == 0 else UNKNOWN_DATUM


def _open(path: Path, crs: str | None) -> _Source:
    """Open a file by its suffix and content."""
    if path.suffix.casefold() not in JSON:
        return _Plain(path)
    text = path.read_bytes()
    if path.suffix.casefold() != ".json" or b'"CityJSON"' in text:
        return open_city(path, crs)
    if b'"asset"' in text:
        return open_tileset(path)
    raise InputError(
        f"{path} is neither CityJSON nor a tileset of 3D Tiles", "give one of these, OBJ or glTF"
    )


def _scene_crs(recipe: SceneRecipe, source: _Source) -> str:
    """Return the CRS of a scene: target, crs, or else that of its first mesh."""
    if recipe.target or recipe.crs:
        return projected_crs(recipe.target or recipe.crs or "")
    if isinstance(source, CityModel):
        return source.crs
    if isinstance(source, Tileset):
        if recipe.bounds:
            raise JobError(
                f"the bounds of scene {recipe.name} have no CRS, because 3D Tiles have none",
                "give target = 'EPSG:...'",
            )
        return tileset_crs(source)
    raise JobError(
        f"the meshes of scene {recipe.name} say no CRS", "give crs = 'EPSG:...', and mesh_offset"
    )


def _datum(source: _Source) -> str:
    """Return the vertical CRS of a file."""
    if isinstance(source, CityModel):
        return source.vertical_crs
    return ELLIPSOID if isinstance(source, Tileset) else UNKNOWN_DATUM


def _patches(
    source: _Source, recipe: SceneRecipe, crs: str, size: float, bounds: Bounds | None
) -> Iterator[Patch]:
    """Yield the surfaces of a file in the CRS of the scene, without `mesh_offset`."""
    if isinstance(source, Tileset):
        yield from tileset_patches(source, crs, size, bounds, recipe.mesh_up)
        return
    if isinstance(source, CityModel):
        own, parts = source.crs, source.patches()
    else:
        if recipe.crs is None:
            raise JobError(f"{source.path} has no CRS", "give crs = 'EPSG:...', and mesh_offset")
        own, parts = projected_crs(recipe.crs), iter(read_mesh_file(source.path, recipe.mesh_up))
    if own == crs:
        yield from parts
        return
    way = transformer(parse_crs(own), parse_crs(crs))
    # Coordinates of a plain mesh are in its CRS only with the offset, which is added after this.
    offset = np.array((0.0, 0.0, 0.0) if isinstance(source, CityModel) else recipe.mesh_offset)
    for part in parts:
        x, y, z = np.moveaxis(part.corners + offset, -1, 0)
        yield part.moved(np.stack([*way.transform(x, y), z], axis=-1) - offset)


def _common_datum(recipe: SceneRecipe, mesh: str, dtm: str) -> str:
    """Return the vertical CRS of a scene. Datums are not transformed: `mesh_offset` gives their
    difference."""
    if UNKNOWN_DATUM not in (mesh, dtm) and mesh != dtm:
        raise JobError(
            f"heights of the meshes of scene {recipe.name} are in {mesh}, those of its dtm in "
            f"{dtm}",
            "give mesh_offset = [0, 0, METRES], which is added to those of the meshes",
        )
    return dtm


def _columns(points: NDArray, frame: Frame) -> tuple[NDArray, NDArray]:
    """Return (row, column) int64 of points, which may lie outside the frame."""
    col = np.floor(points[:, 0] / frame.voxel_size).astype(np.int64) - frame.x[0]
    row = frame.y[1] - 1 - np.floor(points[:, 1] / frame.voxel_size).astype(np.int64)
    return row, col


def _ground(samples: Samples, row: NDArray, col: NDArray, frame: Frame, largest: float) -> NDArray:
    """Return (ny, nx) float32 heights of the ground, metres."""

    def lowest(which: NDArray) -> NDArray:
        out = np.full(frame.shape, np.inf, np.float32)
        np.minimum.at(out, (row[which], col[which]), samples.at[which, 2].astype(np.float32))
        return np.where(np.isfinite(out), out, np.float32(np.nan))

    if (samples.role != SURFACE).any():
        terrain, foot = lowest(samples.role == TERRAIN), lowest(samples.role == FOOT)
        known = np.where(np.isfinite(terrain), terrain, foot)
        return interpolate(known, np.isfinite(known))
    # The underside of a floor is not the ground.
    upward = lowest(samples.normal[:, 2] > UPWARD)
    return interpolate(upward, filter_ground(upward, frame.voxel_size, largest=largest))


def _specific_classes(top: NDArray, height: NDArray) -> NDArray:
    """Return the classes other than bare terrain, else 0: there, colours and land cover say more.

    "Plant cover" hardly above the ground is grassland; higher, it is shrub.
    """
    code = codes()
    low = (top == code["shrub"]) & (height < LOW)
    specific = np.where(low, np.uint8(code["grassland"]), top)
    return np.where(top == code["bare_ground"], np.uint8(0), specific).astype(np.uint8)


def _classes(
    shape: tuple[int, ...], row: NDArray, col: NDArray, level: NDArray, code: NDArray
) -> NDArray:
    """Return the most frequent class of the samples in each voxel as uint8: the lowest code of
    equally frequent ones, 0 without a class."""
    known = code != 0
    place = np.ravel_multi_index((row[known], col[known], level[known]), shape)
    pair, count = np.unique(place * 256 + code[known], return_counts=True)
    order = np.lexsort((pair % 256, -count, pair // 256))
    unique, first = np.unique(pair[order] // 256, return_index=True)
    out = np.zeros(shape, np.uint8)
    out.reshape(-1)[unique] = (pair[order] % 256)[first]
    return out


def _highest(shape: tuple[int, int], row: NDArray, col: NDArray, level: NDArray) -> NDArray:
    """Return (n,) bool: which samples are in the topmost voxel of their column."""
    top = np.full(shape, -1, np.int64)
    np.maximum.at(top, (row, col), level)
    return np.asarray(level == top[row, col])


def _topmost(
    shape: tuple[int, int], row: NDArray, col: NDArray, level: NDArray, code: NDArray
) -> NDArray:
    """Return the (ny, nx) uint8 class of the samples in the topmost voxel of each column."""
    highest = _highest(shape, row, col, level)
    flat = np.zeros(int(highest.sum()), np.int64)
    return _classes((*shape, 1), row[highest], col[highest], flat, code[highest])[:, :, 0]


def _closed(shell: NDArray, valid: NDArray) -> NDArray:
    """Return (ny, nx, nz) bool: everything that open air does not reach from above or the sides.

    Columns without data let no air in, so the surface beside a hole is not open.
    """
    air = ~shell
    air[~valid] = False
    number, count = ndimage.label(air)
    if not count:
        return ~air
    open_numbers = np.unique(
        np.concatenate(
            [
                number[..., -1].ravel(),
                number[0].ravel(),
                number[-1].ravel(),
                number[:, 0].ravel(),
                number[:, -1].ravel(),
            ]
        )
    )
    reached = np.zeros(count + 1, bool)
    reached[open_numbers] = True
    reached[0] = False
    return np.asarray(~reached[number])


def _colours(
    shape: tuple[int, ...],
    row: NDArray,
    col: NDArray,
    level: NDArray,
    colours: NDArray,
    seen: NDArray,
) -> tuple[NDArray, NDArray]:
    """Return the mean colour of the samples in each voxel, and where there are samples."""
    place = np.ravel_multi_index((row[seen], col[seen], level[seen]), shape)
    unique, inverse = np.unique(place, return_inverse=True)
    rgb, known = np.zeros((*shape, 3), np.uint8), np.zeros(shape, bool)
    if not len(unique):
        return rgb, known
    count = np.bincount(inverse)
    for band in range(3):
        mean = np.bincount(inverse, colours[seen][:, band]) / count
        rgb.reshape(-1, 3)[unique, band] = np.round(mean).astype(np.uint8)
    known.reshape(-1)[unique] = True
    return rgb, known


def _from_above(
    shape: tuple[int, int],
    row: NDArray,
    col: NDArray,
    level: NDArray,
    colours: NDArray,
    seen: NDArray,
) -> tuple[NDArray, NDArray]:
    """Return the mean colour of the samples in each column's topmost voxel, and where it is."""
    highest = seen & _highest(shape, row, col, level)
    image, known = _colours(
        (*shape, 1),
        row[highest],
        col[highest],
        np.zeros(int(highest.sum()), np.int64),
        colours[highest],
        np.ones(int(highest.sum()), bool),
    )
    return image[:, :, 0], known[:, :, 0]
