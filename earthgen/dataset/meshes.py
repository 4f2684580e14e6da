"""Textured meshes as scenes: OBJ, glTF and what else trimesh (MIT) reads.

Surfaces are sampled densely; samples mark voxels, half a voxel behind the surface, so that a roof at height h tops the
voxels whose centres are below h, as in height fields. What the open air cannot reach from above or from the sides is
solid: roofs without a floor become closed, and overhangs stay open below. Triangles are to be wound counter-clockwise
seen from outside, as all these formats have it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from earthgen.dataset.cover import Given, combine
from earthgen.dataset.errors import MeshFormatError, RecipeError, SourceOverlapError
from earthgen.dataset.ground import fill_nearest, filter_ground, interpolate
from earthgen.dataset.layers import ground_and_height, read_cover, semantics_options
from earthgen.dataset.points import INSTALL
from earthgen.dataset.quality import Evidence
from earthgen.dataset.recipe import SceneRecipe
from earthgen.dataset.scene import SceneData
from earthgen.dataset.shell import Columns, solid_volume
from earthgen.dataset.sources import Sources, find_bounds
from geo_io.frame import UNKNOWN_DATUM, projected_crs

SUFFIXES = (".obj", ".gltf", ".glb", ".ply", ".stl", ".off")
Y_UP = (".gltf", ".glb")
"""Formats whose y axis points up (the glTF specification says so); others are taken as z up unless told."""

DENSITY = 3.0
"""Samples along a voxel's edge."""

UPWARD = 0.2
"""The ground is looked for among samples whose normal points up by more than this."""

MOST_SAMPLES = 60_000_000

TILES = {
    ".json": "3D Tiles and CityJSON are not read",
    ".b3dm": "3D Tiles are not read",
    ".cityjson": "CityJSON is not read",
    ".gml": "CityGML is not read",
    ".fbx": "FBX is not read",
}


def scene_of_meshes(
    recipe: SceneRecipe, sources: Sources, size: float, band: tuple[int, int]
) -> tuple[SceneData, Evidence, str]:
    """(scene, what it is judged by, vertical CRS) of meshes.

    The ground is the recipe's dtm, else found below the mesh by its shape.

    Raises
    ------
    MeshFormatError
        if a file is of another format, or holds no surface
    RecipeError
        if the recipe gives no CRS, or the mesh is too large for its voxels
    """
    if recipe.crs is None:
        raise RecipeError(f"the meshes of scene {recipe.name} say no CRS", "give crs = 'EPSG:...', and mesh_offset")
    crs = projected_crs(recipe.target or recipe.crs)
    points, normals, colours, seen = (np.concatenate(parts) for parts in zip(
        *(sample_mesh(path, size, recipe.mesh_up, recipe.mesh_offset) for path in sources.all("mesh")), strict=True
    ))  # fmt: skip
    if recipe.bounds:
        left, bottom, right, top = recipe.bounds
    else:
        (left, bottom), (right, top) = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    frame = find_bounds(crs, size, (float(left), float(bottom), float(right), float(top)), band)
    within = points - normals * (0.5 * size)
    col = np.floor(within[:, 0] / size).astype(np.int64) - frame.x[0]
    row = frame.y[1] - 1 - np.floor(within[:, 1] / size).astype(np.int64)
    inside = (col >= 0) & (col < frame.nx) & (row >= 0) & (row < frame.ny)
    if not inside.any():
        raise SourceOverlapError(
            f"the meshes of scene {recipe.name} have nothing on {frame}", "check bounds and mesh_offset"
        )
    upward = normals[inside, 2] > UPWARD
    points, within, colours, seen = points[inside], within[inside], colours[inside], seen[inside]
    col, row = col[inside], row[inside]
    low, high = np.full(frame.shape, np.inf, np.float32), np.full(frame.shape, -np.inf, np.float32)
    # The underside of a floor is not the ground.
    np.minimum.at(low, (row[upward], col[upward]), points[upward, 2].astype(np.float32))
    np.maximum.at(high, (row, col), points[:, 2].astype(np.float32))
    valid = np.isfinite(high)
    vertical = UNKNOWN_DATUM
    if dtm := sources.one("dtm"):
        found = ground_and_height(dtm, None, frame, recipe.unit, recipe.crs)
        ground, vertical = found.ground, found.vertical_crs
    else:
        lowest = np.where(np.isfinite(low), low, np.float32(np.nan))
        ground = interpolate(lowest, filter_ground(lowest, size, largest=recipe.largest_thing))
    # Small gaps between samples are no holes of the scene.
    valid = ndimage.binary_closing(np.pad(valid, 2), np.ones((3, 3)))[2:-2, 2:-2]
    above = np.where(np.isfinite(high), high - ground, np.float32(np.nan))
    level = np.floor((within[:, 2] - ground[row, col]) / size).astype(np.int64) - frame.z[0]
    fits = (level >= 0) & (level < frame.z[1] - frame.z[0])
    over = float(((high - ground) > frame.z[1] * size).mean())
    row, col, level = row[fits], col[fits], level[fits]
    shape = (*frame.shape, frame.z[1] - frame.z[0])
    shell = np.zeros(shape, bool)
    shell[row, col, level] = True
    # The ground's own surface, where the mesh has none.
    shell[..., : 0 - frame.z[0]] = True
    solid = _closed(shell, valid)
    image, known = _from_above(frame.shape, row, col, level, colours[fits], seen[fits])
    filled = np.where(np.isfinite(above), above, np.float32(0))
    filled = fill_nearest(filled, np.isfinite(above)) if np.isfinite(above).any() else filled
    base = None
    if sources.all("cover"):
        options = semantics_options(recipe.legend, recipe.legend_values, recipe.class_field, recipe.crs)
        base, _ = read_cover(sources.all("cover"), frame, options)
    result = combine(Given(filled, None, base, None, image, known), size, "all", ground, valid)
    height = np.clip(result.height, 0, frame.z[1] * size).astype(np.float32)
    columns = Columns(frame, ground.astype(np.float32), height, result.cover, image, known & valid, valid)
    classes = np.where(solid, np.maximum(result.cover, 1)[..., None], 0).astype(np.uint8)
    rgb, coloured = _colours(shape, row, col, level, colours[fits], seen[fits])
    data = solid_volume(columns, classes, rgb, coloured)
    return data, Evidence(measured=valid, solid=filled, over_band=over, changed=result.changed), vertical


def sample_mesh(
    path: Path, size: float, up: str | None, offset: tuple[float, float, float]
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Points (n, 3) float64 on a mesh in CRS metres, normals (n, 3), colours (n, 3) uint8, whether they are known (n,).

    Points lie on a regular pattern over each triangle, `DENSITY` a voxel's edge: a mesh is always sampled alike.
    Raises as `scene_of_meshes`.
    """
    suffix = path.suffix.casefold()
    if suffix not in SUFFIXES:
        said = TILES.get(suffix, f"meshes of the format {suffix or 'without a suffix'} are not read")
        raise MeshFormatError(f"{path}: {said}", f"convert it to OBJ or glTF; {', '.join(SUFFIXES)} are read")
    try:
        import trimesh
    except ImportError as error:
        raise MeshFormatError(f"{path} is read with trimesh, which is not installed", INSTALL) from error
    try:
        # Its readers check little: a damaged file ends in whatever their parsing meets.
        loaded = trimesh.load(path, process=False)
    except (ValueError, KeyError, IndexError, TypeError, OSError, AttributeError, NotImplementedError) as error:
        raise MeshFormatError(
            f"{path} cannot be read as a mesh: {error}", "check it, and the files that it names"
        ) from error
    parts = [mesh for mesh in _parts(loaded) if len(mesh.faces)]
    if not parts:
        raise MeshFormatError(f"{path} holds no triangles", "give a mesh with faces")
    found = [_sample(mesh, size) for mesh in parts]
    points, normals, colours, seen = (np.concatenate(part) for part in zip(*found, strict=True))
    if up == "y" or (up is None and suffix in Y_UP):
        points, normals = (np.stack([v[:, 0], -v[:, 2], v[:, 1]], axis=1) for v in (points, normals))
    return points + np.array(offset), normals, colours, seen


def _parts(loaded: Any) -> list[Any]:
    """The meshes of a file, in the file's coordinates."""
    if hasattr(loaded, "dump"):
        return [mesh for mesh in loaded.dump() if hasattr(mesh, "faces")]
    return [loaded] if hasattr(loaded, "faces") else []


def _sample(mesh: Any, size: float) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    corners = np.asarray(mesh.vertices, np.float64)[np.asarray(mesh.faces)]
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
    steps = np.clip(np.ceil(longest / size * DENSITY).astype(np.int64), 1, 4096)
    total = int(((steps + 1) * (steps + 2) // 2).sum())
    if total > MOST_SAMPLES:
        raise RecipeError(f"a mesh would need {total:,} samples", "take larger voxels, or give bounds and a part of it")
    points, owner, weights = [], [], []
    for step in np.unique(steps):
        faces = np.flatnonzero(steps == step)
        i, j = np.meshgrid(np.arange(step + 1), np.arange(step + 1), indexing="ij")
        inside = i + j <= step
        weight = np.stack([i[inside], j[inside], step - i[inside] - j[inside]], axis=1) / step
        points.append(np.einsum("sk,fkd->fsd", weight, corners[faces]).reshape(-1, 3))
        owner.append(np.repeat(faces, len(weight)))
        weights.append(np.tile(weight, (len(faces), 1)))
    at, face, weight = np.concatenate(points), np.concatenate(owner), np.concatenate(weights)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal = across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-12)
    colours, seen = _texture(mesh, face, weight)
    return at, normal[face], colours, seen


def _texture(mesh: Any, face: NDArray, weight: NDArray) -> tuple[NDArray, NDArray]:
    """Colours of samples from a texture, else of vertices or faces, else none."""
    count = len(face)
    visual, faces = mesh.visual, np.asarray(mesh.faces)
    uv = getattr(visual, "uv", None)
    image = _image(getattr(visual, "material", None))
    if uv is not None and image is not None:
        texels = np.asarray(image.convert("RGB"))
        place = np.einsum("sk,skd->sd", weight, np.asarray(uv, np.float64)[faces[face]]) % 1.0
        x = np.minimum((place[:, 0] * texels.shape[1]).astype(np.int64), texels.shape[1] - 1)
        y = np.minimum(((1 - place[:, 1]) * texels.shape[0]).astype(np.int64), texels.shape[0] - 1)
        return texels[y, x], np.ones(count, bool)
    kind = getattr(visual, "kind", None)
    if kind == "vertex":
        rgb = np.asarray(visual.vertex_colors, np.float64)[:, :3]
        mixed = np.einsum("sk,skd->sd", weight, rgb[faces[face]])
        return np.clip(np.round(mixed), 0, 255).astype(np.uint8), np.ones(count, bool)
    if kind == "face":
        return np.asarray(visual.face_colors, np.uint8)[face, :3], np.ones(count, bool)
    return np.full((count, 3), 128, np.uint8), np.zeros(count, bool)


def _image(material: Any) -> Any:
    for name in ("baseColorTexture", "image"):
        image = getattr(material, name, None)
        if image is not None:
            return image
    return None


def _closed(shell: NDArray, valid: NDArray) -> NDArray:
    """(ny, nx, nz) bool: all that open air does not reach. Air comes in from above and from the sides of the box.

    Columns without data let no air in: beside a hole the surface is not open.
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
    shape: tuple[int, ...], row: NDArray, col: NDArray, level: NDArray, colours: NDArray, seen: NDArray
) -> tuple[NDArray, NDArray]:
    """Mean colour of the samples in each voxel, and where there are any."""
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
    shape: tuple[int, int], row: NDArray, col: NDArray, level: NDArray, colours: NDArray, seen: NDArray
) -> tuple[NDArray, NDArray]:
    """Mean colour of the samples in the topmost voxel of each column."""
    top = np.full(shape, -1, np.int64)
    np.maximum.at(top, (row, col), level)
    highest = seen & (level == top[row, col])
    image, known = _colours((*shape, 1), row[highest], col[highest], np.zeros(int(highest.sum()), np.int64),
                            colours[highest], np.ones(int(highest.sum()), bool))  # fmt: skip
    return image[:, :, 0], known[:, :, 0]
