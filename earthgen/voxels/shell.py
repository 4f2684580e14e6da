"""The surface of voxels that are known alone: open sides, normals and offsets by one rule.

Crops of scenes have no open sides or exact offsets. This gives all that draw or compare them,
training as well as evaluation, the same surface.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from earthgen.voxels.surface import (
    NORMAL_RADIUS,
    face_offsets,
    occupancy_normals,
    shear_normals,
)
from earthgen.voxels.voxels import FACES, TOP, Geometry, Voxels
from geo_io.frame import Frame


def shell_geometry(frame: Frame, ground: NDArray, xyz: NDArray, semantic: NDArray) -> Geometry:
    """Return the geometry of surface voxels, for `surface_splats`.

    Columns count as solid up to their topmost voxel, and the surface continues beyond the window as
    it ends. The voxels below an overhang do not count as open.

    Parameters
    ----------
    frame : Frame
        The window.
    ground : NDArray (ny, nx) float32
        Height of the terrain, metres.
    xyz : NDArray (n, 3) int32
        Lattice indices, sorted by (y, x, z).
    semantic : NDArray (n,) uint8
        Class codes.

    Returns
    -------
    Geometry
        Object numbers are 0.
    """
    pad = NORMAL_RADIUS
    row, col, z = frame.y[1] - 1 - xyz[:, 1], xyz[:, 0] - frame.x[0], xyz[:, 2]
    low = min(int(z.min()) if len(xyz) else -1, -1)
    tops = np.full(frame.shape, low - 1, np.int64)
    tops[row, col] = z  # the last of a column, its highest, stays
    wide = np.pad(tops, pad, mode="edge")
    levels = np.arange(low, int(wide.max()) + 2)
    volume = (levels <= wide[..., None]).astype(np.uint8)
    faces = np.where(z == tops[row, col], TOP, 0)
    for side, (down, right) in {"-x": (0, -1), "+x": (0, 1), "-y": (1, 0), "+y": (-1, 0)}.items():
        faces |= np.where(z > wide[row + pad + down, col + pad + right], FACES[side], 0)
    voxels = Voxels(frame, xyz, semantic, faces.astype(np.uint8), np.zeros(len(xyz), np.uint32))
    normal = occupancy_normals(voxels, volume, low, pad, np.ones(len(xyz), bool))
    south = np.asarray(np.gradient(ground.astype(np.float32), frame.voxel_size, axis=0))
    east = np.asarray(np.gradient(ground.astype(np.float32), frame.voxel_size, axis=1))
    sheared = shear_normals(normal, east[row, col], -south[row, col])
    offset = face_offsets(voxels.faces, frame.voxel_size)
    return Geometry(frame, ground.astype(np.float32), voxels, offset, sheared)
