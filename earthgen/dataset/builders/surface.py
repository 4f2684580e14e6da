"""The surface voxels of a scene, by blocks, from columns with heights or from a dense solid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen.dataset.builders.buildings import add_objects
from earthgen.dataset.builders.ground import fill_nearest
from earthgen.dataset.scene import BLOCK, SceneData
from earthgen.voxels.surface import NORMAL_RADIUS, occupancy_normals, surface_voxels
from geo_io.errors import FrameError
from geo_io.frame import Frame

UNKNOWN_SOLID = 255
"""Value in a volume: solid, of unknown class."""

LOW = -1
"""The lowest voxel of a column of a height field, which is the surface of the ground."""


@dataclass(frozen=True)
class Columns:
    """The columns of a scene, rows from north to south.

    Attributes
    ----------
    frame : Frame
        Place of the scene.
    ground, height, cover, image, image_known, valid : NDArray (ny, nx) or (ny, nx, 3)
        As in `earthgen.dataset.crop.Crop`.
    map, building : NDArray (ny, nx) | None
        As there; by default derived from `cover`.
    """

    frame: Frame
    ground: NDArray
    height: NDArray
    cover: NDArray
    image: NDArray
    image_known: NDArray
    valid: NDArray
    map: NDArray | None = None
    building: NDArray | None = None

    def layers(self) -> dict[str, NDArray]:
        """Return the arrays by the names that they have in a scene."""
        optional = {"map": self.map, "building": self.building}
        return {
            "ground": self.ground,
            "height": self.height,
            "cover": self.cover,
            "image": self.image,
            "image_known": self.image_known,
            "valid": self.valid,
            **{name: values for name, values in optional.items() if values is not None},
        }


def levels(height: NDArray, voxel_size: float, top: int) -> NDArray:
    """Convert heights to numbers of voxels above the ground, rounded.

    Parameters
    ----------
    height : NDArray (ny, nx)
        Metres.
    voxel_size : float
        Metres.
    top : int
        Largest result.

    Returns
    -------
    NDArray (ny, nx) int32
        Numbers of voxels.
    """
    return np.clip(np.floor(height / voxel_size + 0.5), 0, top).astype(np.int32)


def height_field(columns: Columns) -> SceneData:
    """Make the closed surface of columns that are solid from the ground to their height.

    The voxels of a wall have the class of their column, and the colour of its top as a guess.
    Columns without data have no voxels, and their neighbours no walls towards them.
    """
    frame = columns.frame
    tops = levels(columns.height, frame.voxel_size, frame.z[1])
    pad = NORMAL_RADIUS
    tops = fill_nearest(tops, columns.valid)
    cover = fill_nearest(columns.cover, columns.valid)
    # The edge columns are repeated outside, so that there is no wall at the scene's edge.
    tops, cover = np.pad(tops, pad, mode="edge"), np.pad(cover, pad, mode="edge")

    def volume(rows: slice, cols: slice) -> NDArray:
        wide = slice(rows.start, rows.stop + 2 * pad), slice(cols.start, cols.stop + 2 * pad)
        return _filled(tops[wide], cover[wide], int(tops[wide].max()) - LOW + 1)

    return _blocks(columns, volume, LOW, tops[pad:-pad, pad:-pad] - 1)


def solid_volume(
    columns: Columns, solid: NDArray, rgb: NDArray | None = None, known: NDArray | None = None
) -> SceneData:
    """Make the surface of any solid, with overhangs.

    Parameters
    ----------
    columns : Columns
        The columns; their image colours the voxels seen from above.
    solid : NDArray (ny, nx, nz) uint8
        Class codes over the frame's z range, `UNKNOWN_SOLID` for an unknown class, 0 for empty.
        Everything below is solid.
    rgb : NDArray (ny, nx, nz, 3) uint8 | None
        Colours of voxels.
    known : NDArray (ny, nx, nz) bool | None
        Where these are known.

    Raises
    ------
    FrameError
        if the solid does not have the shape of the frame
    """
    frame = columns.frame
    if solid.shape != (*frame.shape, frame.z[1] - frame.z[0]):
        raise FrameError(
            f"a solid of shape {solid.shape} does not fill {frame}", "give (ny, nx, nz) classes"
        )
    pad = NORMAL_RADIUS
    wide = np.pad(solid, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    filled = solid != 0
    highest = frame.z[1] - 1 - np.argmax(filled[..., ::-1], axis=2)
    highest = np.where(filled.any(axis=2), highest, frame.z[0] - 1)

    def volume(rows: slice, cols: slice) -> NDArray:
        return np.ascontiguousarray(
            wide[rows.start : rows.stop + 2 * pad, cols.start : cols.stop + 2 * pad]
        )

    data = _blocks(columns, volume, frame.z[0], highest)
    if rgb is None or known is None:
        return data
    xyz = data.rows["xyz"]
    place = (frame.y[1] - 1 - xyz[:, 1], xyz[:, 0] - frame.x[0], xyz[:, 2] - frame.z[0])
    seen = known[place]
    colour = np.where(seen[:, None], rgb[place], data.rows["rgb"]).astype(np.uint8)
    rows = {**data.rows, "rgb": colour, "rgb_known": seen | data.rows["rgb_known"]}
    return replace(data, rows=rows)


def _blocks(
    columns: Columns, volume: Callable[[slice, slice], NDArray], low: int, highest: NDArray
) -> SceneData:
    """Extract the surface of each block from a volume with a margin of NORMAL_RADIUS voxels.

    Parameters
    ----------
    columns : Columns
        The columns.
    volume : Callable[[slice, slice], NDArray]
        Gives (rows, columns, levels) uint8 class codes with the margin.
    low : int
        Lattice index of the lowest level.
    highest : NDArray (ny, nx)
        Lattice index of the topmost voxel of each column, which has the colour seen from above.
    """
    frame, pad = columns.frame, NORMAL_RADIUS
    down, across = -(-frame.ny // BLOCK), -(-frame.nx // BLOCK)
    starts = np.zeros((down, across + 1), np.int64)
    parts: dict[str, list[NDArray]] = {
        name: [] for name in ("xyz", "semantic", "normal", "rgb", "rgb_known")
    }
    total = 0
    for i in range(down):
        for j in range(across):
            starts[i, j] = total
            rows = slice(i * BLOCK, min((i + 1) * BLOCK, frame.ny))
            cols = slice(j * BLOCK, min((j + 1) * BLOCK, frame.nx))
            if not columns.valid[rows, cols].any():
                continue
            part = replace(
                frame,
                x=(frame.x[0] + cols.start, frame.x[0] + cols.stop),
                y=(frame.y[1] - rows.stop, frame.y[1] - rows.start),
            )
            solid = volume(rows, cols)
            voxels = surface_voxels(part, solid, np.zeros(solid.shape, np.uint32), low, pad)
            normal = occupancy_normals(voxels, solid, low, pad, np.ones(len(voxels), bool))
            row, col = frame.y[1] - 1 - voxels.xyz[:, 1], voxels.xyz[:, 0] - frame.x[0]
            keep = columns.valid[row, col]
            row, col, xyz = row[keep], col[keep], voxels.xyz[keep]
            top = xyz[:, 2] == highest[row, col]
            parts["xyz"].append(xyz)
            semantic = voxels.semantic[keep]
            parts["semantic"].append(np.where(semantic == UNKNOWN_SOLID, np.uint8(0), semantic))
            parts["normal"].append(normal[keep])
            parts["rgb"].append(columns.image[row, col])
            parts["rgb_known"].append(top & columns.image_known[row, col])
            total += len(xyz)
        starts[i, across] = total
    empty = {
        "xyz": ((0, 3), np.int32),
        "semantic": ((0,), np.uint8),
        "normal": ((0, 3), np.float32),
        "rgb": ((0, 3), np.uint8),
        "rgb_known": ((0,), bool),
    }
    rows_by_name = {
        name: np.concatenate(arrays) if arrays else np.zeros(*empty[name])
        for name, arrays in parts.items()
    }
    return add_objects(SceneData(frame, columns.layers(), rows_by_name, starts))


@numba.njit(cache=True, nogil=True)
def _filled(tops, cover, depth):  # type: ignore[no-untyped-def]
    """Return (rows, cols, depth) uint8: columns that are solid from LOW to below `tops`."""
    out = np.zeros((tops.shape[0], tops.shape[1], depth), np.uint8)
    for row in range(tops.shape[0]):
        for col in range(tops.shape[1]):
            for k in range(tops[row, col] + 1):
                out[row, col, k] = cover[row, col] if cover[row, col] != 0 else UNKNOWN_SOLID
    return out
