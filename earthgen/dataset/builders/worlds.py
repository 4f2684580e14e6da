"""Generated worlds as scenes: simulated places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earthgen.dataset.builders.buildings import add_objects
from earthgen.dataset.builders.quality import Evidence
from earthgen.dataset.crop import CELL
from earthgen.dataset.scene import BLOCK, SceneData
from earthgen.voxels.splat_math import SH_C0
from earthgen.world.world import open_world
from geo_io.errors import FrameError
from geo_io.frame import Bounds, Frame
from geo_io.legend import codes


def scene_of_world(
    path: Path, voxel_size: float, band: tuple[int, int], bounds: Bounds | None = None
) -> tuple[SceneData, Evidence, str]:
    """Make a scene of a world, or of its part within some bounds.

    The voxels are those of the world, so overhangs and tree trunks stay; those outside the band are
    left out. Their colours are those of their Gaussians, and their normals those of the discs,
    transformed to ground-relative space.

    Parameters
    ----------
    path : Path
        The world.
    voxel_size : float
        Voxel size of the scene, metres.
    band : tuple[int, int]
        z range in voxels.
    bounds : tuple[float, float, float, float] | None
        Left, bottom, right, top in the CRS of the world; by default all of it.

    Returns
    -------
    tuple[SceneData, Evidence, str]
        The scene, what its quality is computed from, and the vertical CRS.

    Raises
    ------
    FrameError
        if the world has voxels of another size
    StoreError
        if there is no world
    RegionError
        if it does not overlap the bounds
    """
    world = open_world(path)
    if world.frame.voxel_size != voxel_size:
        raise FrameError(
            f"world {path} has voxels of {world.frame.voxel_size:g} m, not {voxel_size:g} m",
            f"build with --voxel-size {world.frame.voxel_size:g}, or generate it again",
        )
    part = world.part(1, bounds)
    frame = Frame(
        part.crs,
        voxel_size,
        (part.x[0] // CELL * CELL, -(-part.x[1] // CELL) * CELL),
        (part.y[0] // CELL * CELL, -(-part.y[1] // CELL) * CELL),
        band,
        part.vertical_crs,
    )
    layers = world.layers(1, part.bounds)
    place = frame.slices(part)
    ground = np.asarray(layers["ground"].values, np.float32)
    surface = np.asarray(layers["surface"].values, np.float32)
    valid = np.isfinite(ground) & np.isfinite(surface)
    columns = {
        "ground": _put(frame, place, np.where(valid, ground, 0).astype(np.float32)),
        "height": _put(
            frame,
            place,
            np.where(valid, np.clip(surface - ground, 0, band[1] * voxel_size), 0).astype(
                np.float32
            ),
        ),
        "cover": _put(frame, place, np.asarray(layers["semantics"].values, np.uint8)),
        "image": _put(frame, place, np.asarray(layers["rgb"].values, np.uint8)),
        "image_known": _put(frame, place, valid),
        "valid": _put(frame, place, valid),
    }
    voxels = world.voxels(part.bounds)
    gaussians = world.gaussians(part.bounds)
    xyz = voxels.xyz
    keep = (xyz[:, 2] >= band[0]) & (xyz[:, 2] < band[1])
    row, col = frame.y[1] - 1 - xyz[:, 1], xyz[:, 0] - frame.x[0]
    keep &= columns["valid"][row, col]
    rgb = np.clip(
        np.round((0.5 + SH_C0 * np.asarray(gaussians.sh, np.float32)[:, 0, :]) * 255), 0, 255
    ).astype(np.uint8)
    normal = _level(
        _disc_normals(np.asarray(gaussians.rotations, np.float32)),
        columns["ground"],
        row,
        col,
        voxel_size,
    )
    rows = {
        "xyz": xyz[keep],
        "semantic": voxels.semantic[keep],
        "normal": normal[keep],
        "rgb": rgb[keep],
        "rgb_known": np.ones(int(keep.sum()), bool),
        "object": voxels.object[keep],
    }
    columns["building"] = _building_numbers(columns["cover"], xyz, voxels.object, row, col)
    rows, blocks = sort_by_blocks(frame, rows)
    over = float((surface - ground > band[1] * voxel_size)[valid].mean()) if valid.any() else 0.0
    evidence = Evidence(measured=columns["valid"], solid=columns["height"], over_band=over)
    return add_objects(SceneData(frame, columns, rows, blocks)), evidence, part.vertical_crs


def _building_numbers(
    cover: NDArray, xyz: NDArray, objects: NDArray, row: NDArray, col: NDArray
) -> NDArray:
    """Return the object number of the topmost voxel of each column of a building."""
    order = np.argsort(xyz[:, 2], kind="stable")
    number = np.zeros(cover.shape, np.uint32)
    number[row[order], col[order]] = objects[order]
    return np.where(cover == codes()["building"], number, 0).astype(np.uint32)


def sort_by_blocks(frame: Frame, rows: dict[str, NDArray]) -> tuple[dict[str, NDArray], NDArray]:
    """Sort rows of voxels as `earthgen.dataset.scene` needs them, and return the first row of each
    block."""
    xyz = rows["xyz"]
    down, across = -(-frame.ny // BLOCK), -(-frame.nx // BLOCK)
    block = (frame.y[1] - 1 - xyz[:, 1]) // BLOCK * across + (xyz[:, 0] - frame.x[0]) // BLOCK
    order = np.lexsort((xyz[:, 2], xyz[:, 0], xyz[:, 1], block))
    starts = np.searchsorted(block[order], np.arange(down * across + 1))
    index = np.zeros((down, across + 1), np.int64)
    index[:, :-1] = starts[:-1].reshape(down, across)
    index[:, -1] = starts[across::across]
    return {name: values[order] for name, values in rows.items()}, index


def _put(frame: Frame, place: tuple[slice, slice], values: NDArray) -> NDArray:
    """Return (ny, nx, ...) values on a frame, 0 outside of `place`."""
    out = np.zeros((*frame.shape, *values.shape[2:]), values.dtype)
    out[place] = values
    return out


def _disc_normals(rotation: NDArray) -> NDArray:
    """Return the (n, 3) directions of the z axis rotated by unit quaternions (w, x, y, z)."""
    w, x, y, z = rotation.T
    return np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], axis=1)


def _level(
    normal: NDArray, ground: NDArray, row: NDArray, col: NDArray, voxel_size: float
) -> NDArray:
    """Transform normals to ground-relative space: the inverse of
    `earthgen.voxels.surface.shear_normals`."""
    south, east = np.gradient(ground, voxel_size)
    out = normal.copy()
    out[:, 0] += east[row, col] * normal[:, 2]
    out[:, 1] -= south[row, col] * normal[:, 2]
    length = np.sqrt((out * out).sum(axis=1, keepdims=True))
    return np.asarray(out / np.maximum(length, 1e-6), np.float32)
