"""The colours of the ground and of crops, one per cell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from earthgen.noise.fields import gradient_noise, jittered_lattice, voronoi_cells, white_noise
from earthgen.noise.philox import Noise
from earthgen.terrain.cover import is_class, on_surface
from earthgen.terrain.filters import box_share, nearest_cell, whole_cells
from earthgen.terrain.reach import Reach
from earthgen_procedural.fields import Fields, make_fields
from earthgen_procedural.palette import (
    CROP_ROWS,
    CROPS,
    GARDEN,
    GARDEN_SHARE,
    WATER_SHALLOW,
    YARD,
    YARD_SHARE,
    ground_table,
)
from geo_io.frame import Frame

SHORE = 12.0  # metres from the bank to deep water
GROUND_REACH = Reach(SHORE, 1)
TWO_PI = 2.0 * np.pi


def row_share(position: NDArray, voxel_size: float, period: NDArray, width: NDArray) -> NDArray:
    """Return the share of each cell that is covered by periodic stripes [0, width).

    It is exact for cells of width voxel_size, so thin rows fade out at large voxels without
    aliasing.

    Parameters
    ----------
    position : NDArray
        Of the cells' centres across the stripes, metres.
    voxel_size : float
        Metres.
    period, width : NDArray
        Distance and width of the stripes, metres.

    Returns
    -------
    NDArray
        0 to 1.
    """
    low, high = position - 0.5 * voxel_size, position + 0.5 * voxel_size

    def covered(x: NDArray) -> NDArray:
        whole = np.floor(x / period)
        return np.asarray(whole * width + np.minimum(x - whole * period, width))

    return np.asarray((covered(high) - covered(low)) / voxel_size)


def colour_ground(frame: Frame, cover: NDArray, parcel: NDArray, noise: Noise) -> NDArray:
    """Return the colours of the ground; cells nearer than GROUND_REACH to the edge are not exact.

    Parameters
    ----------
    frame : Frame
        The padded window.
    cover : NDArray (ny, nx) uint8
        Land classes.
    parcel : NDArray (ny, nx) uint32
        Numbers of the land use polygons, 0 without one.
    noise : Noise
        Of the stage.

    Returns
    -------
    NDArray (ny, nx, 3) float32
        sRGB, 0 to 255.
    """
    size = frame.voxel_size
    stream = noise.stream("ground")
    fine, middle = gradient_noise(stream, frame, 2.4, 0), gradient_noise(stream, frame, 9.0, 1)
    coarse, grain = gradient_noise(stream, frame, 48.0, 2), white_noise(stream, frame, 3)
    blend = np.clip(0.5 + 0.5 * middle + 0.3 * fine, 0.0, 1.0)[..., None]
    patch = np.clip(1.6 * coarse - 0.1, 0.0, 1.0)[..., None]

    table = ground_table()[cover]
    colour = table[..., 0, :] + blend * (table[..., 1, :] - table[..., 0, :])
    colour += 0.7 * patch * (table[..., 2, :] - colour)

    field = make_fields(frame, cover, parcel, noise)
    _crops(colour, cover, field, blend, coarse, size)
    _grass(colour, cover, field, size)
    for name, colours, share, spacing in (
        ("residential", GARDEN, GARDEN_SHARE, 9.0),
        ("commercial", YARD, YARD_SHARE, 26.0),
    ):
        _mosaic(colour, is_class(cover, name), frame, noise, name, colours, share, spacing, blend)
    _slabs(colour, cover, frame, noise)
    _roads(colour, cover, size)
    water = on_surface(cover, "water")
    _water(colour, cover, water, middle, size)

    variation = 1.0 + np.where(water, 0.006, 0.03) * grain + np.where(water, 0.01, 0.035) * fine
    return np.asarray(colour * variation[..., None], np.float32)


def _crops(
    colour: NDArray, cover: NDArray, field: Fields, blend: NDArray, coarse: NDArray, size: float
) -> None:
    crop = on_surface(cover, "crop") & (field.index >= 0)
    if not crop.any():
        return
    kind, index = field.crop[crop], field.index[crop]
    draw = field.draws[index]
    pair = CROPS[kind]
    base = pair[:, 0] + (0.6 * draw[:, 2:3] + 0.4 * blend[crop]) * (pair[:, 1] - pair[:, 0])
    period, width, depth = CROP_ROWS[kind].T
    tone = depth * row_share(field.across[crop].astype(np.float64), size, period, width)
    tone += 0.10 * (draw[:, 3] - 0.5) + 0.05 * coarse[crop]
    base = base * (1.0 + tone[:, None])
    # Weeds grow along the edges of fields.
    rim = field.edge[crop][:, None]
    colour[crop] = np.where(rim, 0.35 * base + 0.65 * np.array([112.0, 128.0, 62.0]), base)


def _grass(colour: NDArray, cover: NDArray, field: Fields, size: float) -> None:
    """Colour meadows by field, some mown in swaths, and turf mown in stripes."""
    meadow = is_class(cover, "grassland") & (field.index >= 0)
    if meadow.any():
        draw = field.draws[field.index[meadow]]
        tone = 0.14 * (draw[:, 3] - 0.5)
        swath = (
            row_share(field.across[meadow].astype(np.float64), size, np.array(7.0), np.array(3.5))
            - 0.5
        )
        tone = tone + np.where(draw[:, 0] < 0.3, 0.09, 0.0) * swath
        hay = np.where(draw[:, 0:1] < 0.3, 0.35, 0.12 * draw[:, 1:2])
        mixed = colour[meadow] + hay * (np.array([164.0, 164.0, 96.0]) - colour[meadow])
        colour[meadow] = mixed * (1.0 + tone[:, None])
    turf = is_class(cover, "sports") & (field.index >= 0)
    if turf.any():
        stripe = (
            row_share(field.across[turf].astype(np.float64), size, np.array(10.0), np.array(5.0))
            - 0.5
        )
        colour[turf] *= (1.0 + 0.10 * stripe)[:, None]


def _mosaic(
    colour: NDArray,
    mask: NDArray,
    frame: Frame,
    noise: Noise,
    name: str,
    colours: NDArray,
    share: NDArray,
    spacing: float,
    blend: NDArray,
) -> None:
    """Colour gardens or yards as a mosaic of surfaces."""
    if not mask.any():
        return
    points = jittered_lattice(noise.stream(name), frame, max(spacing, frame.voxel_size), 0.9)
    draw = noise.stream(f"{name}.kinds").bits(points.key.ravel(), 0) * 2.0**-32
    kind = np.searchsorted(np.cumsum(share)[:-1], draw[:, 0], side="right")
    cell = voronoi_cells(points, frame)[mask]
    pair = colours[kind[cell]]
    tone = 1.0 + 0.10 * (draw[:, 1][cell] - 0.5)
    colour[mask] = (pair[:, 0] + blend[mask] * (pair[:, 1] - pair[:, 0])) * tone[:, None]


def _slabs(colour: NDArray, cover: NDArray, frame: Frame, noise: Noise) -> None:
    """Vary the tone of paving and asphalt from slab to slab."""
    for name, spacing, depth in (("paved", 5.0, 0.09), ("road", 17.0, 0.06)):
        mask = is_class(cover, name)
        if mask.any():
            points = jittered_lattice(
                noise.stream(name), frame, max(spacing, frame.voxel_size), 0.9
            )
            tone = 1.0 + depth * (points.key.ravel() * 2.0**-32 - 0.5)
            colour[mask] *= tone[voronoi_cells(points, frame)[mask]][:, None]


def _roads(colour: NDArray, cover: NDArray, size: float) -> None:
    """Colour dust along the edges of roads, and rails on their ballast."""
    road = is_class(cover, "road")
    if road.any() and size <= 2.0:
        inner = box_share(road, max(whole_cells(1.0, size), 1))[road]
        dust = np.clip(0.9 - inner, 0.0, 0.4)[:, None]
        colour[road] += dust * (np.array([136.0, 130.0, 118.0]) - colour[road])
    rail = is_class(cover, "rail")
    if rail.any() and size <= 1.3:
        distance, _ = nearest_cell(~rail, max(whole_cells(3.0, size), 1))
        inward = np.where(np.isfinite(distance), distance * size - 0.5 * size, 9.0)
        track = (rail & (np.abs(inward - 1.0) < 0.5 * max(size, 0.4)))[..., None]
        colour += track * 0.55 * (np.array([86.0, 76.0, 70.0]) - colour)


def _water(colour: NDArray, cover: NDArray, water: NDArray, middle: NDArray, size: float) -> None:
    """Colour water pale near the bank and dark farther out."""
    if not water.any():
        return
    distance, _ = nearest_cell(~water, max(whole_cells(SHORE, size), 1))
    out = np.clip(np.where(np.isfinite(distance), distance * size, SHORE) / SHORE, 0.0, 1.0)
    reach = np.where(is_class(cover, "river"), 0.45, 0.8)
    shallow = (reach * (1.0 - out + 0.15 * middle) ** 2)[water][:, None]
    deep = colour[water] * (1.0 - 0.18 * out[water])[:, None]
    colour[water] = deep + np.clip(shallow, 0.0, 0.8) * (np.array(WATER_SHALLOW, np.float32) - deep)
