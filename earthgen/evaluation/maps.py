"""The land cover of a scene as a map has it, which is what users give.

The land cover of a real scene comes from the scene's own heights, so it agrees with them better
than any map does. A figure on it alone promises too much.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from earthgen.dataset.scene import Scene
from earthgen.training.map_noise import LEAST_STRENGTH, LandMap, corrupt_map
from geo_io.frame import Frame
from geo_io.legend import codes

DIFFERENT = 0.001
"""Least share of mapped columns in which a map differs from the land cover to be one of its own."""

SQUARE = 256
"""Columns along an edge of the squares that are corrupted apart, each by its own strength."""

UNNUMBERED = 2**31 - 1
"""Number of buildings that have none, as in `earthgen.training.map_noise.batch_map`."""

COVER, MAP, FOOTPRINTS, PICTURE = "cover", "map", "footprints", "picture"
"""The conditions beside the terrain: the land cover of the truth; a map; the land cover with
footprints and the height of each; an aerial image alone."""


def label(name: str, condition: str) -> str:
    """Return the name of a candidate in the report."""
    return name if condition == COVER else f"{name}, {condition}"


def scene_map(scene: Scene, seed: int) -> NDArray:
    """Return the land cover of a scene as a map has it.

    It is the scene's own map where that differs from the land cover, as in simulated scenes and
    where land use and footprints were given. Else the land cover is corrupted as in training
    (`earthgen.training.map_noise`), square by square.

    Parameters
    ----------
    scene : Scene
        The scene.
    seed : int
        Key of the corruption.

    Returns
    -------
    NDArray (ny, nx) uint8
        Class codes, 0 where nothing is mapped.
    """
    valid, cover, given = (scene.layer(name) for name in ("valid", "cover", "map"))
    mapped = valid & (given != 0)
    if mapped.any() and (given != cover)[mapped].mean() >= DIFFERENT:
        return np.where(valid, given, 0).astype(np.uint8)
    return corrupted_cover(
        scene.frame,
        np.where(valid, cover, 0).astype(np.uint8),
        scene.layer("building"),
        scene.layer("building_height"),
        scene.layer("building_axes"),
        seed,
    )


def corrupted_cover(
    frame: Frame,
    cover: NDArray,
    building: NDArray,
    told: NDArray,
    axes: NDArray,
    seed: int,
) -> NDArray:
    """Corrupt a land cover as maps are.

    Parameters
    ----------
    frame : Frame
        The area.
    cover : NDArray (ny, nx) uint8
        Class codes, 0 unknown.
    building : NDArray (ny, nx) uint32
        Number of the building, 0 for none.
    told : NDArray (ny, nx) float32
        Height of the building, metres.
    axes : NDArray (ny, nx, 4)
        As of `earthgen.dataset.crop.Crop.building_axes`.
    seed : int
        Key of the corruption; a place is corrupted alike whatever is measured there.

    Returns
    -------
    NDArray (ny, nx) uint8
    """
    made = np.zeros_like(cover)
    built = cover == codes()["building"]
    number = np.where(built, np.where(building > 0, building, UNNUMBERED), 0).astype(np.int64)
    for row in range(0, cover.shape[0], SQUARE):
        for col in range(0, cover.shape[1], SQUARE):
            part = slice(row, row + SQUARE), slice(col, col + SQUARE)
            place = frame.x[0] + col, frame.y[1] - row
            random = np.random.default_rng([seed, *(int(each) & 0xFFFFFFFF for each in place)])
            generator = torch.Generator().manual_seed(int(random.integers(2**63)))
            strength = LEAST_STRENGTH + (1 - LEAST_STRENGTH) * random.random()
            land = LandMap(
                torch.from_numpy(np.ascontiguousarray(cover[part]))[None],
                torch.from_numpy(np.ascontiguousarray(number[part]))[None],
                torch.from_numpy(np.where(built, told, 0).astype(np.float32)[part].copy())[None],
                torch.from_numpy(axes[part].astype(np.float32))[None],
                torch.ones(1, dtype=torch.bool),
            )
            noisy = corrupt_map(land, frame.voxel_size, torch.tensor([strength]), generator)
            made[part] = noisy.cover[0].numpy()
    return made
