"""Posed pictures of scenes: colour, depth, normals and classes, with the cameras in a
transforms.json a scene.

Cameras are designed on the scene's own solid, as Aerial-Earth3D designs them on a simulated one:
rings of oblique views and of views straight down, high and low
(`earthgen.splats.cameras.poses.aerial`), never below its surface.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from earthgen.dataset.crop import CELL, Crop
from earthgen.dataset.scene import Scene
from earthgen.errors import CropError
from earthgen.files import PARTIAL
from earthgen.splats.cameras.camera import Camera
from earthgen.splats.cameras.poses import SITE, HeightField, Lens, aerial
from earthgen.splats.cameras.transforms_json import View, write_transforms
from earthgen.splats.gaussians import Anchor, Gaussians, from_voxels
from earthgen.splats.raster.rendering import render
from earthgen.voxels.surface import face_offsets, shear_normals, surface_splats
from earthgen.voxels.voxels import FACES, Geometry, Voxels
from geo_io.frame import Frame
from geo_io.legend import palette

FOLDER = "frames"
FACING = 0.3
"""A voxel's side counts as open where its normal's part along it is larger."""

MARGIN = 152
"""Voxels around a site that its pictures show."""

SIZE = (480, 360)
VIEW = 60.0
"""Degrees across a picture."""


def crop_gaussians(
    crop: Crop, anchor: Anchor | None = None, colours: NDArray | None = None
) -> Gaussians:
    """One Gaussian a voxel of a crop, in its colour.

    colours : (n, 3) 0 to 255, instead of the crop's own; where it has not even a guess, those of
        the classes are taken
    """
    normal, frame = crop.normal, crop.frame
    faces = np.zeros(len(crop), np.uint8)
    for name, bit in FACES.items():
        part = normal[:, "xyz".index(name[1])] * (1 if name[0] == "+" else -1)
        faces |= np.where(part > FACING, np.uint8(bit), np.uint8(0))
    voxels = Voxels(frame, crop.xyz, crop.semantic, faces, np.zeros(len(crop), np.uint32))
    row, col = frame.y[1] - 1 - crop.xyz[:, 1], crop.xyz[:, 0] - frame.x[0]
    ground = _level_holes(crop.ground, crop.valid)
    east, north = (
        np.gradient(ground, frame.voxel_size, axis=1),
        -np.gradient(ground, frame.voxel_size, axis=0),
    )
    sheared = shear_normals(normal, east[row, col], north[row, col])
    geometry = Geometry(frame, ground, voxels, face_offsets(faces, frame.voxel_size), sheared)
    guessed = (
        crop.image_known[row, col] | crop.rgb_known
    )  # a wall's guess is the colour of its column's top
    seen = (
        np.where(guessed[:, None], crop.rgb, palette()[crop.semantic])
        if colours is None
        else colours
    )
    return from_voxels(voxels, surface_splats(geometry, seen), ground, anchor)


def _level_holes(ground: NDArray, valid: NDArray) -> NDArray:
    """The ground without a cliff where there is no data."""
    from earthgen.dataset.builders.ground import fill_nearest

    return fill_nearest(ground, valid)


def scene_cameras(
    scene: Scene, count: int, size: tuple[int, int] = SIZE, site: float = SITE
) -> list[Camera]:
    """`count` cameras around a scene, evenly chosen of all that `aerial` gives.

    Raises
    ------
    CropError
        if the scene has no data
    """
    frame, valid = scene.frame, scene.layer("valid")
    if not valid.any():
        raise CropError(
            f"scene {scene.info.name} has no data to look at", "build it from sources that overlap"
        )
    ground = np.where(valid, scene.layer("ground").astype(np.float64), np.nan)
    rows, cols = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(valid.any(axis=0))
    s, (left, _, _, top) = frame.voxel_size, frame.bounds
    bounds = (
        left + cols[0] * s,
        top - (rows[-1] + 1) * s,
        left + (cols[-1] + 1) * s,
        top - rows[0] * s,
    )
    lens = Lens(*size, field_of_view=VIEW, crs=frame.crs, vertical_crs=frame.vertical_crs)
    every = aerial(
        bounds,
        lens,
        ground=HeightField(ground, frame.bounds),
        surface=HeightField(ground + scene.layer("height"), frame.bounds),
        views=12,
        site=site,
    )
    chosen = np.unique(np.linspace(0, len(every) - 1, min(count, len(every))).round().astype(int))
    return [every[n] for n in chosen]


def write_scene_frames(
    scene: Scene,
    folder: str | Path,
    count: int,
    *,
    size: tuple[int, int] = SIZE,
    told: Callable[[str], None] | None = None,
) -> Path:
    """Draw `count` pictures of a scene into `folder`/frames/NAME; returns its transforms.json.

    images/ : PNG, sRGB; depth/ : TIFF, float32 metres along the view, 0 for nothing; normals/ :
    PNG, 0.5 + 0.5 n, world axes; semantics/ : PNG of class codes; masks/ : PNG, 255 where the
    colour was seen, where that is not everywhere. They appear together, when all are drawn.

    Raises
    ------
    CropError
        if the scene has no data
    StoreError
        if they cannot be written
    """
    target = Path(folder) / FOLDER / scene.info.name
    cameras = scene_cameras(scene, count, size)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}{PARTIAL}")
    names = ("images", "depth", "normals", "semantics", "masks")
    try:
        for name in names:
            (part / name).mkdir(parents=True)
        views = []
        for number, camera in enumerate(cameras):
            views.append(_draw(scene, camera, part, f"{number:05d}"))
            if told is not None:
                told(f"{scene.info.name} {number + 1} of {len(cameras)}")
        left, bottom, _ = scene.frame.anchor
        write_transforms(part / "transforms.json", views, anchor=(left, bottom, 0.0))
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target / "transforms.json"


def _draw(scene: Scene, camera: Camera, out: Path, name: str) -> View:
    crop = scene.crop(_seen(scene.frame, camera))
    anchor = crop.frame.anchor
    made = render(crop_gaussians(crop, anchor), camera)
    picture = np.clip(np.rint(made.rgb.numpy() * 255), 0, 255).astype(np.uint8)
    normal = made.normal.numpy()
    length = np.linalg.norm(normal, axis=2, keepdims=True)
    Image.fromarray(picture).save(out / "images" / f"{name}.png")
    Image.fromarray(made.depth.numpy()).save(out / "depth" / f"{name}.tif")
    Image.fromarray(
        np.rint(127.5 + 127.5 * normal / np.maximum(length, 1e-6)).astype(np.uint8)
    ).save(out / "normals" / f"{name}.png")
    Image.fromarray(made.semantics.numpy()).save(out / "semantics" / f"{name}.png")
    mask = ""
    if not crop.rgb_known.all():
        white = np.repeat(np.where(crop.rgb_known, 255, 0)[:, None], 3, axis=1)
        seen = render(crop_gaussians(crop, anchor, white), camera).rgb.numpy()[..., 0] > 0.5
        mask = f"masks/{name}.png"
        Image.fromarray(np.where(seen, 255, 0).astype(np.uint8)).save(out / mask)
    return View(camera, f"images/{name}.png", f"depth/{name}.tif", mask)


def _seen(frame: Frame, camera: Camera) -> Frame:
    """The part of a scene around the site that a camera looks at: that of the middle of its
    picture, with a margin."""
    s = frame.voxel_size
    reach = int(SITE / s / 2) // CELL * CELL + MARGIN
    depth = max(camera.position[2], 1.0)
    down = -camera.forward[2]
    along = min(depth / max(down, 0.2), 2 * SITE)
    east, north = (
        camera.position[0] + camera.forward[0] * along,
        camera.position[1] + camera.forward[1] * along,
    )
    left, bottom, right, top = frame.bounds
    east, north = np.clip(east, left, right), np.clip(north, bottom, top)
    x, y = int(east / s) // CELL * CELL, int(north / s) // CELL * CELL
    return replace(
        frame,
        x=(max(x - reach, frame.x[0]), min(x + reach, frame.x[1])),
        y=(max(y - reach, frame.y[0]), min(y + reach, frame.y[1])),
    )
