"""Pictures of patches in a few fixed views, by which worlds are compared and which a report
shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from earthgen.dataset.crop import Crop
from earthgen.evaluation.patch import Patch, plain_geometry
from earthgen.splats.cameras.camera import Camera, look_at, map_view
from earthgen.splats.gaussians import from_voxels
from earthgen.splats.raster.model import Rendering
from earthgen.splats.raster.rendering import render
from earthgen.voxels.surface import surface_splats
from earthgen.voxels.voxels import Splats, Voxels
from geo_io.frame import Frame
from geo_io.legend import palette

PIXELS = 224
"""Edge of a picture, pixels, which the image network requires."""

BACKGROUND = (0.5, 0.5, 0.5)
"""Grey, which is neither as dark as shadows nor as light as roofs."""

OBLIQUE = (200.0, 40.0)
"""Azimuth and elevation of the oblique view, degrees clockwise from north and above the horizon, as
in previews."""

SUN = (-0.5, 0.5, 0.707)
"""Direction to the light of clay renderings and hillshades: east, north, up."""

ABOVE = 1000.0
"""Height of the cameras above the ground, metres. It has no effect: they are orthographic."""


def view_from_above(frame: Frame, middle: float, pixels: int = PIXELS) -> Camera:
    """Return a camera that sees a map of the frame, north up.

    Parameters
    ----------
    frame : Frame
        The area.
    middle : float
        Height of the ground, metres.
    pixels : int
        Edge of the picture.
    """
    edge = max(frame.nx, frame.ny) * frame.voxel_size
    return map_view(
        frame.bounds, edge / pixels, middle + ABOVE, crs=frame.crs, vertical_crs=frame.vertical_crs
    )


def oblique_view(
    frame: Frame,
    middle: float,
    pixels: int = PIXELS,
    azimuth: float = OBLIQUE[0],
    elevation: float = OBLIQUE[1],
) -> Camera:
    """Return an oblique, orthographic camera.

    It sees all columns of the frame; tall ones at the back may be cut off.

    Parameters
    ----------
    frame : Frame
        The area.
    middle : float
        Height of the ground, metres.
    pixels : int
        Edge of the picture.
    azimuth, elevation : float
        As in `OBLIQUE`, degrees.
    """
    a, e = np.radians([azimuth, elevation])
    left, bottom, right, top = frame.bounds
    centre = np.array([(left + right) / 2, (bottom + top) / 2, middle])
    away = np.array([np.sin(a) * np.cos(e), np.cos(a) * np.cos(e), np.sin(e)])
    across = (right - left) * abs(np.cos(a)) + (top - bottom) * abs(np.sin(a))
    return look_at(
        (centre + ABOVE * away).tolist(),
        centre.tolist(),
        width=pixels,
        height=pixels,
        metres_per_pixel=1.04 * across / pixels,
        crs=frame.crs,
        vertical_crs=frame.vertical_crs,
    )


def views(patch: Patch, pixels: int = PIXELS) -> dict[str, Camera]:
    """Return the cameras that pictures are compared in, by name.

    They depend only on the frame and its ground.
    """
    middle = float(np.median(patch.ground))
    return {
        "above": view_from_above(patch.frame, middle, pixels),
        "oblique": oblique_view(patch.frame, middle, pixels),
    }


def around(patch: Patch, pixels: int, count: int = 4) -> list[Camera]:
    """Return a camera from above and `count` oblique ones around, which reconstructed Gaussians are
    compared in.
    """
    middle = float(np.median(patch.ground))
    turns = [OBLIQUE[0] + 360.0 * number / count for number in range(count)]
    return [
        view_from_above(patch.frame, middle, pixels),
        *(oblique_view(patch.frame, middle, pixels, azimuth=turn % 360) for turn in turns),
    ]


def clay(patch: Patch) -> Splats:
    """Make Gaussians that show only geometry and classes: in the colours of the legend, shaded."""
    geometry = plain_geometry(patch)
    light = np.clip(geometry.normal @ np.array(SUN, np.float32), 0, 1)
    colour = palette()[patch.semantic].astype(np.float32)
    return surface_splats(geometry, colour * (np.float32(0.4) + np.float32(0.6) * light[:, None]))


def draw(patch: Patch, splats: Splats, camera: Camera) -> Rendering:
    """Render the valid columns of a patch."""
    keep = patch.valid[patch.rows]
    rows = np.flatnonzero(keep)
    zeros = np.zeros(len(rows), np.uint8)
    voxels = Voxels(
        patch.frame, patch.xyz[rows], patch.semantic[rows], zeros, zeros.astype(np.uint32)
    )
    return render(
        from_voxels(voxels, splats.take(rows), patch.ground), camera, background=BACKGROUND
    )


def picture(patch: Patch, splats: Splats, camera: Camera) -> NDArray:
    """Render the valid columns of a patch as (h, w, 3) uint8 sRGB."""
    return to_bytes(draw(patch, splats, camera).rgb)


def to_bytes(rgb: torch.Tensor) -> NDArray:
    """Convert float sRGB to (h, w, 3) uint8."""
    return np.asarray((rgb.clamp(0, 1) * 255).round().to(torch.uint8).numpy())


SHOWN = 6
"""Number of crops with pictures in the report."""

LEAST_PIXELS = 128
"""Least edge of a map in the report; cells are repeated to reach it."""


def shown_crops(positions: Sequence[Sequence[int]]) -> list[int]:
    """Choose the crops with pictures, from each place in turn, given the crops of each place."""
    order = [each[turn] for turn in range(SHOWN) for each in positions if turn < len(each)]
    return order[:SHOWN]


def hillshade(patch: Patch) -> NDArray:
    """Shade the heights above the ground, which shows ridges and rough roofs.

    Parameters
    ----------
    patch : Patch
        Its valid columns are drawn, others are grey.

    Returns
    -------
    NDArray (h, w, 3) uint8
    """
    height = patch.height.astype(np.float64)
    south, east = (np.gradient(height, patch.frame.voxel_size, axis=axis) for axis in (0, 1))
    light = np.array(SUN) / np.linalg.norm(SUN)
    shade = (-east * light[0] + south * light[1] + light[2]) / np.sqrt(east**2 + south**2 + 1)
    grey = np.where(patch.valid & patch.covered, np.clip(shade, 0, 1) * 255, 128)
    return enlarged(np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2))


def enlarged(image: NDArray) -> NDArray:
    """Repeat the cells of a map (h, w, 3) until it has at least `LEAST_PIXELS` along an edge."""
    return image.repeat(-(-LEAST_PIXELS // image.shape[0]), 0).repeat(
        -(-LEAST_PIXELS // image.shape[1]), 1
    )


def cover_picture(cover: NDArray, valid: NDArray) -> NDArray:
    """Draw class codes (ny, nx) in the colours of the legend, grey where unknown."""
    known = (valid & (cover > 0))[..., None]
    return enlarged(np.where(known, palette()[cover], 128).astype(np.uint8))


def first_pictures(
    crop: Crop, truth: Patch, land_map: NDArray | None, coloured: bool
) -> list[tuple[str, NDArray]]:
    """Draw the conditions and the truth of a crop.

    Parameters
    ----------
    crop : Crop
        The crop.
    truth : Patch
        Its patch.
    land_map : NDArray (ny, nx) uint8 | None
        Its land cover as a map has it, None if that is not measured.
    coloured : bool
        Whether its true colours are known.

    Returns
    -------
    list[tuple[str, NDArray]]
        Captions and pictures.
    """
    pictures = [("land cover", cover_picture(crop.cover, crop.valid))]
    if land_map is not None:
        pictures.append(("map", cover_picture(land_map, crop.valid)))
    pictures += [
        ("truth", picture(truth, clay(truth), views(truth)["oblique"])),
        ("truth, hillshade", hillshade(truth)),
    ]
    if coloured and truth.splats is not None:
        pictures.append(("truth, colours", picture(truth, truth.splats, views(truth)["above"])))
    return pictures


def world_pictures(patch: Patch, name: str, colours: bool) -> list[tuple[str, NDArray]]:
    """Draw a candidate: geometry and classes, a hillshade, and its colours if wanted."""
    pictures = [
        (name, picture(patch, clay(patch), views(patch)["oblique"])),
        (f"{name}, hillshade", hillshade(patch)),
    ]
    if colours and patch.splats is not None:
        pictures.append((f"{name}, colours", picture(patch, patch.splats, views(patch)["above"])))
    return pictures
