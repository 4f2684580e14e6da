"""Pictures of patches: the few fixed views by which worlds are compared, drawn from their
Gaussians."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

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
"""Pixels an edge: what the image network wants."""

BACKGROUND = (0.5, 0.5, 0.5)
"""Grey: neither the dark of a shadow nor the light of a roof."""

OBLIQUE = (200.0, 40.0)
"""Azimuth and elevation of the oblique view, degrees clockwise from north and above the horizon,
as in previews."""

SUN = (-0.5, 0.5, 0.707)
"""Towards the light of clay: east, north, up."""

ABOVE = 1000.0
"""Metres above the ground that cameras stand; they are orthographic, so nothing depends on it."""


def view_from_above(frame: Frame, middle: float, pixels: int = PIXELS) -> Camera:
    """North up, a map of the frame.

    middle : height of the ground, metres
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
    """Orthographic, with the frame's columns in the picture, those high above the ground cut off
    in the back."""
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
    """The views that pictures are compared in, by name. They depend on the frame and its ground
    alone."""
    middle = float(np.median(patch.ground))
    return {
        "above": view_from_above(patch.frame, middle, pixels),
        "oblique": oblique_view(patch.frame, middle, pixels),
    }


def around(patch: Patch, pixels: int, count: int = 4) -> list[Camera]:
    """From above, and `count` oblique views around: what reconstructed Gaussians are compared
    in."""
    middle = float(np.median(patch.ground))
    turns = [OBLIQUE[0] + 360.0 * number / count for number in range(count)]
    return [
        view_from_above(patch.frame, middle, pixels),
        *(oblique_view(patch.frame, middle, pixels, azimuth=turn % 360) for turn in turns),
    ]


def clay(patch: Patch) -> Splats:
    """Gaussians that show the geometry and the classes alone: colours of the legend, shaded by
    one rule."""
    geometry = plain_geometry(patch)
    light = np.clip(geometry.normal @ np.array(SUN, np.float32), 0, 1)
    colour = palette()[patch.semantic].astype(np.float32)
    return surface_splats(geometry, colour * (np.float32(0.4) + np.float32(0.6) * light[:, None]))


def draw(patch: Patch, splats: Splats, camera: Camera) -> Rendering:
    """What a camera sees of the valid columns of a patch."""
    keep = patch.valid[patch.rows]
    rows = np.flatnonzero(keep)
    none = np.zeros(len(rows), np.uint8)
    voxels = Voxels(
        patch.frame, patch.xyz[rows], patch.semantic[rows], none, none.astype(np.uint32)
    )
    return render(
        from_voxels(voxels, splats.take(rows), patch.ground), camera, background=BACKGROUND
    )


def picture(patch: Patch, splats: Splats, camera: Camera) -> NDArray:
    """(h, w, 3) uint8 sRGB."""
    return to_bytes(draw(patch, splats, camera).rgb)


def to_bytes(rgb: torch.Tensor) -> NDArray:
    """(h, w, 3) uint8 of float sRGB."""
    return np.asarray((rgb.clamp(0, 1) * 255).round().to(torch.uint8).numpy())


def pictures(patches: Sequence[Patch], name: str, *, colour: bool) -> list[NDArray]:
    """One view of each patch, in its own colours or as clay."""
    found = []
    for patch in patches:
        splats = patch.splats if colour and patch.splats is not None else clay(patch)
        found.append(picture(patch, splats, views(patch)[name]))
    return found
