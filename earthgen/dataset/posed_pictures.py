"""Posed pictures of scenes: colour, depth, normals and classes, with cameras in transforms.json.

Cameras are placed on the scene's own solid, as in Aerial-Earth3D on a simulated one: rings of
oblique and nadir views, high and low (`earthgen.splats.cameras.poses.aerial`), never below its
surface.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from earthgen.dataset.builders.ground import fill_nearest
from earthgen.dataset.crop import CELL, Crop
from earthgen.dataset.scene import Scene
from earthgen.errors import CropError
from earthgen.splats.cameras.camera import Camera
from earthgen.splats.cameras.poses import SITE, HeightField, Lens, aerial
from earthgen.splats.cameras.transforms_json import View, write_transforms
from earthgen.splats.gaussians import Anchor, Gaussians, from_voxels
from earthgen.splats.raster.rendering import render
from earthgen.staging import put_back, replace_folder, staging_folder
from earthgen.voxels.surface import face_offsets, shear_normals, surface_splats
from earthgen.voxels.voxels import FACES, Geometry, Voxels
from geo_io.frame import Frame
from geo_io.legend import palette

FOLDER = "frames"
FACING = 0.3
"""A side of a voxel counts as open if the component of its normal along it is larger."""

MARGIN = 152
"""Width around a site that is drawn too, voxels."""

SIZE = (480, 360)
"""Width and height of a picture, pixels."""

VIEW = 60.0
"""Horizontal field of view, degrees."""


def crop_gaussians(
    crop: Crop, anchor: Anchor | None = None, colours: NDArray | None = None
) -> Gaussians:
    """Make one Gaussian per voxel of a crop.

    Parameters
    ----------
    crop : Crop
        The voxels.
    anchor : Anchor | None
        Origin of the Gaussians' coordinates.
    colours : NDArray (n, 3) | None
        0 to 255; by default those of the crop, and of the legend where the crop has no guess.
    """
    normal, frame = crop.normal, crop.frame
    faces = np.zeros(len(crop), np.uint8)
    for name, bit in FACES.items():
        part = normal[:, "xyz".index(name[1])] * (1 if name[0] == "+" else -1)
        faces |= np.where(part > FACING, np.uint8(bit), np.uint8(0))
    voxels = Voxels(frame, crop.xyz, crop.semantic, faces, np.zeros(len(crop), np.uint32))
    row, col = frame.y[1] - 1 - crop.xyz[:, 1], crop.xyz[:, 0] - frame.x[0]
    ground = fill_nearest(crop.ground, crop.valid)  # no cliffs where there is no data
    east, north = (
        np.gradient(ground, frame.voxel_size, axis=1),
        -np.gradient(ground, frame.voxel_size, axis=0),
    )
    sheared = shear_normals(normal, east[row, col], north[row, col])
    geometry = Geometry(frame, ground, voxels, face_offsets(faces, frame.voxel_size), sheared)
    if colours is None:
        # The guess for a wall is the colour of its column's top.
        guessed = crop.image_known[row, col] | crop.rgb_known
        colours = np.where(guessed[:, None], crop.rgb, palette()[crop.semantic])
    return from_voxels(voxels, surface_splats(geometry, colours), ground, anchor)


def scene_cameras(
    scene: Scene, count: int, size: tuple[int, int] = SIZE, site: float = SITE
) -> list[Camera]:
    """Choose cameras around a scene, evenly from all that `aerial` gives.

    Parameters
    ----------
    scene : Scene
        The scene.
    count : int
        Number of cameras; fewer if `aerial` has fewer.
    size : tuple[int, int]
        Width and height of the pictures, pixels.
    site : float
        Distance of the sites that cameras look at, metres.

    Raises
    ------
    CropError
        if the scene has no data
    """
    frame, valid = scene.frame, scene.layer("valid")
    if not valid.any():
        raise CropError(
            f"scene {scene.info.name} has no data to draw", "build it from sources that overlap"
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
    report: Callable[[str], None] | None = None,
) -> Path:
    """Draw pictures of a scene into `folder`/frames/NAME. They appear together, when all are drawn.

    images/ has PNGs in sRGB; depth/ TIFFs of float32 metres along the view, 0 for no surface;
    normals/ PNGs of 0.5 + 0.5 n in world axes; semantics/ PNGs of class codes; masks/ PNGs with
    255 where the colour was observed, if that is not everywhere.

    Parameters
    ----------
    scene : Scene
        The scene.
    folder : str | Path
        Folder of the dataset.
    count : int
        Number of pictures.
    size : tuple[int, int]
        Width and height, pixels.
    report : Callable[[str], None] | None
        Called with a line after each picture.

    Returns
    -------
    Path
        The transforms.json with the cameras.

    Raises
    ------
    CropError
        if the scene has no data
    StoreError
        if the pictures cannot be written
    """
    target = Path(folder) / FOLDER / scene.info.name
    cameras = scene_cameras(scene, count, size)
    names = ("images", "depth", "normals", "semantics", "masks")
    with staging_folder(target, beside=True) as staging:
        put_back(target)
        part = staging / target.name
        for name in names:
            (part / name).mkdir(parents=True)
        views = []
        for number, camera in enumerate(cameras):
            views.append(_draw(scene, camera, part, f"{number:05d}"))
            if report is not None:
                report(f"{scene.info.name} {number + 1} of {len(cameras)}")
        left, bottom, _ = scene.frame.anchor
        write_transforms(part / "transforms.json", views, anchor=(left, bottom, 0.0))
        replace_folder(part, target)
    return target / "transforms.json"


def _draw(scene: Scene, camera: Camera, out: Path, name: str) -> View:
    """Draw one picture with its layers, and describe it."""
    crop = scene.crop(_visible_part(scene.frame, camera))
    anchor = crop.frame.anchor
    drawn = render(crop_gaussians(crop, anchor), camera)
    picture = np.clip(np.rint(drawn.rgb.numpy() * 255), 0, 255).astype(np.uint8)
    normal = drawn.normal.numpy()
    length = np.linalg.norm(normal, axis=2, keepdims=True)
    Image.fromarray(picture).save(out / "images" / f"{name}.png")
    Image.fromarray(drawn.depth.numpy()).save(out / "depth" / f"{name}.tif")
    Image.fromarray(
        np.rint(127.5 + 127.5 * normal / np.maximum(length, 1e-6)).astype(np.uint8)
    ).save(out / "normals" / f"{name}.png")
    Image.fromarray(drawn.semantics.numpy()).save(out / "semantics" / f"{name}.png")
    mask = ""
    if not crop.rgb_known.all():
        white = np.repeat(np.where(crop.rgb_known, 255, 0)[:, None], 3, axis=1)
        seen = render(crop_gaussians(crop, anchor, white), camera).rgb.numpy()[..., 0] > 0.5
        mask = f"masks/{name}.png"
        Image.fromarray(np.where(seen, 255, 0).astype(np.uint8)).save(out / mask)
    return View(camera, f"images/{name}.png", f"depth/{name}.tif", mask)


def _visible_part(frame: Frame, camera: Camera) -> Frame:
    """Return the part of a scene around the middle of a camera's picture, with a margin."""
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
