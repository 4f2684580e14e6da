"""Small pictures of crops: oblique views of voxels, maps, and sheets of several pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from earthgen.models.gaussian_head import rotation_from_normal
from earthgen.splats.cameras.camera import Camera, look_at
from earthgen.splats.raster.rendering import rasterize
from earthgen.splats.spherical_harmonics import C0
from earthgen.splats.tensors import SplatTensors
from geo_io.frame import Frame
from geo_io.legend import palette

SIDE = 220
"""Pixels an edge of a picture."""

SKY = (0.93, 0.95, 0.98)

FACES = (
    ((0, 0, 1), 1.0),
    ((1, 0, 0), 0.82),
    ((-1, 0, 0), 0.66),
    ((0, -1, 0), 0.76),
    ((0, 1, 0), 0.6),
)
"""Normals of a cube's sides except the lower one, and the brightness of each."""


def cubes(xyz: NDArray, rgb: NDArray, frame: Frame, ground: NDArray) -> SplatTensors:
    """Return the free faces of voxels as opaque 2D Gaussians.

    Parameters
    ----------
    xyz : NDArray (n, 3) int32
        Lattice indices.
    rgb : NDArray (n, 3) float32
        Colours in [0, 1].
    frame : Frame
        The frame of the crop.
    ground : NDArray (ny, nx) float32
        Metres, on the frame.
    """
    size = frame.voxel_size
    where = np.asarray(xyz, np.int64)
    occupied = set(map(tuple, where.tolist()))
    centre = (where + 0.5) * size
    centre[:, 2] += ground[frame.y[1] - 1 - where[:, 1], where[:, 0] - frame.x[0]]
    middle = np.array(centre_of(frame, ground))
    means, normals, colours = [], [], []
    for normal, bright in FACES:
        open_ = np.array([tuple(row) not in occupied for row in (where + normal).tolist()], bool)
        means.append(centre[open_] + 0.5 * size * np.asarray(normal) - middle)
        normals.append(np.repeat(np.asarray(normal, np.float32)[None], int(open_.sum()), 0))
        colours.append(rgb[open_] * bright)
    mean, colour = (np.concatenate(parts).astype(np.float32) for parts in (means, colours))
    count = len(mean)
    return SplatTensors(
        torch.from_numpy(mean),
        torch.full((count, 2), 0.5 * size),
        rotation_from_normal(torch.from_numpy(np.concatenate(normals))),
        torch.full((count,), 0.98),
        torch.from_numpy((colour - 0.5) / C0)[:, None],
        None,
        tuple(middle),
        frame.crs,
        frame.vertical_crs,
    )


def centre_of(frame: Frame, ground: NDArray) -> tuple[float, float, float]:
    """Return east, north and up of the middle of a crop's ground, metres."""
    size = frame.voxel_size
    return (
        (frame.x[0] + frame.x[1]) / 2 * size,
        (frame.y[0] + frame.y[1]) / 2 * size,
        float(ground.mean()),
    )


def oblique(frame: Frame, ground: NDArray, side: int = SIDE, azimuth: float = 205.0) -> Camera:
    """Return an oblique camera that sees a whole crop.

    Parameters
    ----------
    frame : Frame
        The frame of the crop.
    ground : NDArray (ny, nx) float32
        Metres, on the frame.
    side : int
        Pixels per edge.
    azimuth : float
        Direction that it looks from, degrees clockwise from north.
    """
    edge = max(frame.nx, frame.ny) * frame.voxel_size
    angle = math.radians(azimuth)
    east, north, up = centre_of(frame, ground)
    target = (east, north, up + 0.08 * edge)
    eye = (
        east + 1.2 * edge * math.sin(angle),
        north + 1.2 * edge * math.cos(angle),
        target[2] + edge,
    )
    return look_at(
        eye,
        target,
        width=side,
        height=side,
        field_of_view=50.0,
        crs=frame.crs,
        vertical_crs=frame.vertical_crs,
    )


def view(splats: SplatTensors, frame: Frame, ground: NDArray, side: int = SIDE) -> Image.Image:
    """Draw an oblique view of Gaussians in a crop's frame."""
    with torch.no_grad():
        return as_image(rasterize(splats, oblique(frame, ground, side), background=SKY).rgb)


def voxel_view(
    xyz: NDArray, rgb: NDArray, frame: Frame, ground: NDArray, side: int = SIDE
) -> Image.Image:
    """Draw an oblique view of coloured voxels; without voxels, only sky."""
    if not len(xyz):
        return Image.new("RGB", (side, side), tuple(int(255 * value) for value in SKY))
    return view(cubes(xyz, rgb, frame, ground), frame, ground, side)


def class_colours(codes: NDArray) -> NDArray:
    """Return the colours of class codes in [0, 1], (n, 3); unknown is grey."""
    table = palette().copy()
    table[0] = 150
    return table[np.asarray(codes, np.int64)] / np.float32(255)


def map_view(values: NDArray, side: int = SIDE) -> Image.Image:
    """Draw a map, (ny, nx, 3) uint8 colours or (ny, nx) values in [0, 1], without smoothing."""
    colours = (
        values
        if values.ndim == 3
        else np.repeat((np.clip(values, 0, 1) * 255).astype(np.uint8)[..., None], 3, 2)
    )
    return Image.fromarray(colours).resize((side, side), Image.Resampling.NEAREST)


def heat(height: NDArray, top: float = 30.0) -> NDArray:
    """Return colours of heights in metres, white to dark blue, (ny, nx, 3) uint8."""
    share = np.clip(np.nan_to_num(height) / top, 0, 1) ** 0.6
    stops = np.array(
        [[250, 250, 240], [190, 220, 170], [90, 170, 170], [50, 90, 150], [30, 20, 60]], np.float64
    )
    at = share * (len(stops) - 1)
    low = np.minimum(at.astype(int), len(stops) - 2)
    mix = (at - low)[..., None]
    return np.round(stops[low] * (1 - mix) + stops[low + 1] * mix).astype(np.uint8)


def as_image(rgb: Tensor) -> Image.Image:
    """Return an (h, w, 3) tensor of values in [0, 1] as a picture."""
    return Image.fromarray((rgb.detach().clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy())


def sheet(rows: Sequence[Sequence[Image.Image]], titles: Sequence[str]) -> Image.Image | None:
    """Arrange pictures of one size in rows, with a title above each column; None without rows."""
    if not rows:
        return None
    side, gap, top = rows[0][0].size[0], 6, 22
    width = gap + len(titles) * (side + gap)
    result = Image.new("RGB", (width, top + len(rows) * (side + gap)), "white")
    draw = ImageDraw.Draw(result)
    for number, title in enumerate(titles):
        draw.text((gap + number * (side + gap), 4), title, (40, 40, 40), ImageFont.load_default(13))
    for down, row in enumerate(rows):
        for across, picture in enumerate(row):
            result.paste(picture, (gap + across * (side + gap), top + down * (side + gap)))
    return result
