"""The surface of a dense window of solid voxels: voxels with open sides, normals, covering discs.

Any geometry backend can use `surface_voxels` and `occupancy_normals`, any texture backend
`surface_splats`. `earthgen.voxels.heightfield` is for height maps.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from earthgen.voxels.ground_walls import wall_heights
from earthgen.voxels.splat_math import SH_C0
from earthgen.voxels.voxels import SIDES, TOP, TOP_AND_BOTTOM, Geometry, Splats, Voxels
from geo_io.errors import FrameError
from geo_io.frame import Frame

COVERAGE = 0.58
"""Standard deviation of a disc as a share of the distance to its neighbours.

At 0.58, four discs around a corner where voxels meet hide more than nine tenths of the background.
"""

MAX_STRETCH = 4.0
"""Upper limit of a disc's stretch down a slope, enough for slopes up to 76 degrees."""

EDGE = 1.4
"""Factor on the variances of a disc whose voxel has several open sides: it covers a corner."""

NORMAL_RADIUS = 2
"""Radius of the neighbourhood of `occupancy_normals`, voxels; its volume needs this padding."""


def surface_voxels(
    frame: Frame, volume: NDArray, objects: NDArray, low: int, pad: int = 1
) -> Voxels:
    """Return the solid voxels of `frame` that have an empty voxel beside, above or below them.

    Voxels outside the frame's z range are left out.

    Parameters
    ----------
    frame : Frame
        Of the result.
    volume : NDArray (ny + 2 pad, nx + 2 pad, nz) uint8
        Class codes, 0 for empty; rows from north to south, z upwards. Below the volume everything
        counts as solid, above it as empty.
    objects : NDArray uint32
        Object numbers, of the same shape.
    low : int
        Lattice index z of volume[:, :, 0].
    pad : int
        Voxels by which the volume extends beyond the frame on each of the four sides, at least 1.

    Raises
    ------
    FrameError
        If the shapes do not fit.
    """
    rows, cols = frame.shape
    if volume.ndim != 3 or pad < 1 or volume.shape[:2] != (rows + 2 * pad, cols + 2 * pad):
        raise FrameError(
            f"a volume of shape {volume.shape} does not cover {frame} with a margin of {pad} voxels"
        )
    if objects.shape != volume.shape:
        raise FrameError(
            f"objects of shape {objects.shape} do not fit a volume of shape {volume.shape}"
        )
    count = int(_count(volume, pad, low, frame.z[0], frame.z[1]))
    xyz = np.empty((count, 3), np.int32)
    semantic, faces = np.empty(count, np.uint8), np.empty(count, np.uint8)
    number = np.empty(count, np.uint32)
    _extract(
        volume,
        objects,
        pad,
        low,
        frame.z[0],
        frame.z[1],
        frame.x[0],
        frame.y[0],
        xyz,
        semantic,
        faces,
        number,
    )
    return Voxels(frame, xyz, semantic, faces, number)


@numba.njit(cache=True, nogil=True, inline="always")
def _open_sides(volume, row, col, k):  # type: ignore[no-untyped-def]
    faces = 0
    if volume[row, col - 1, k] == 0:
        faces |= 1
    if volume[row, col + 1, k] == 0:
        faces |= 2
    if volume[row + 1, col, k] == 0:
        faces |= 4
    if volume[row - 1, col, k] == 0:
        faces |= 8
    if k > 0 and volume[row, col, k - 1] == 0:
        faces |= 16
    if k + 1 == volume.shape[2] or volume[row, col, k + 1] == 0:
        faces |= 32
    return faces


@numba.njit(cache=True, nogil=True)
def _count(volume, pad, low, z0, z1):  # type: ignore[no-untyped-def]
    total = 0
    for row in range(pad, volume.shape[0] - pad):
        for col in range(pad, volume.shape[1] - pad):
            for k in range(max(z0 - low, 0), min(z1 - low, volume.shape[2])):
                if volume[row, col, k] != 0 and _open_sides(volume, row, col, k) != 0:
                    total += 1
    return total


@numba.njit(cache=True, nogil=True)
def _extract(volume, objects, pad, low, z0, z1, x0, y0, xyz, semantic, faces, number):  # type: ignore[no-untyped-def]
    n = 0
    for row in range(volume.shape[0] - pad - 1, pad - 1, -1):
        for col in range(pad, volume.shape[1] - pad):
            for k in range(max(z0 - low, 0), min(z1 - low, volume.shape[2])):
                if volume[row, col, k] != 0:
                    sides = _open_sides(volume, row, col, k)
                    if sides != 0:
                        xyz[n, 0] = x0 + col - pad
                        xyz[n, 1] = y0 + volume.shape[0] - pad - 1 - row
                        xyz[n, 2] = low + k
                        semantic[n] = volume[row, col, k]
                        faces[n] = sides
                        number[n] = objects[row, col, k]
                        n += 1


def occupancy_normals(
    voxels: Voxels, volume: NDArray, low: int, pad: int, mask: NDArray
) -> NDArray:
    """Return normals from the solid to the empty voxels within NORMAL_RADIUS voxels.

    They are normals on the lattice, where the ground is level; `shear_normals` converts them to the
    projected CRS.

    Parameters
    ----------
    voxels : Voxels
        Surface voxels of the volume.
    volume, low, pad
        As for `surface_voxels`; pad must be at least NORMAL_RADIUS.
    mask : NDArray (n,) bool
        Voxels to compute; other rows are 0.

    Returns
    -------
    NDArray (n, 3) float32
        Unit normals.

    Raises
    ------
    FrameError
        If the padding is too small.
    """
    if pad < NORMAL_RADIUS:
        raise FrameError(
            f"a margin of {pad} voxels is too small for normals", f"pad by {NORMAL_RADIUS} voxels"
        )
    out = np.zeros((len(voxels), 3), np.float32)
    frame = voxels.frame
    _normals(voxels.xyz, voxels.faces, mask, volume, low, pad, frame.x[0], frame.y[0], out)
    return out


@numba.njit(cache=True, nogil=True)
def _normals(xyz, faces, mask, volume, low, pad, x0, y0, out):  # type: ignore[no-untyped-def]
    rows, _, levels = volume.shape
    for n in range(xyz.shape[0]):
        if not mask[n]:
            continue
        col, row, k = xyz[n, 0] - x0 + pad, rows - pad - 1 - (xyz[n, 1] - y0), xyz[n, 2] - low
        a, b, c = 0.0, 0.0, 0.0
        for dr in range(-2, 3):
            for dc in range(-2, 3):
                for dk in range(-2, 3):
                    if k + dk < 0:
                        continue
                    if k + dk >= levels or volume[row + dr, col + dc, k + dk] == 0:
                        distance = dr * dr + dc * dc + dk * dk
                        if distance > 0:
                            a += dc / distance
                            b -= dr / distance
                            c += dk / distance
        size = np.sqrt(a * a + b * b + c * c)
        if size < 0.3:
            # A thin object is open on all sides: use its open faces, and a fixed direction where
            # they cancel out too.
            f = faces[n]
            a = float((f & 2) >> 1) - float(f & 1)
            b = float((f & 8) >> 3) - float((f & 4) >> 2)
            c = float((f & 32) >> 5) - float((f & 16) >> 4)
            if a == 0.0 and b == 0.0 and c == 0.0:
                a, b = 1.0, -1.0
            size = np.sqrt(a * a + b * b + c * c)
        out[n, 0], out[n, 1], out[n, 2] = a / size, b / size, c / size


def shear_normals(normal: NDArray, slope_east: NDArray, slope_north: NDArray) -> NDArray:
    """Convert normals on the lattice to normals in the projected CRS.

    Lattice heights are relative to the ground, so the conversion shears the columns by its slope.

    Parameters
    ----------
    normal : NDArray (n, 3)
        Unit normals on the lattice.
    slope_east, slope_north : NDArray (n,)
        Slope of the ground at each voxel, rise over run.

    Returns
    -------
    NDArray (n, 3) float32
        Unit normals.
    """
    sheared = normal.astype(np.float32).copy()
    sheared[:, 0] -= slope_east * normal[:, 2]
    sheared[:, 1] -= slope_north * normal[:, 2]
    length = np.sqrt((sheared * sheared).sum(axis=1, keepdims=True))
    return np.asarray(sheared / np.maximum(length, 1e-6), np.float32)


def unshear_normals(normal: NDArray, slope_east: NDArray, slope_north: NDArray) -> NDArray:
    """Convert normals in the projected CRS to normals on the lattice; see `shear_normals`."""
    return shear_normals(normal, -slope_east, -slope_north)


def face_offsets(faces: NDArray, voxel_size: float) -> NDArray:
    """Return the offsets from voxels' centres to the middle of their open faces.

    Opposite faces cancel out.

    Parameters
    ----------
    faces : NDArray (n,) uint8
        Bits of `FACES`.
    voxel_size : float
        Metres.

    Returns
    -------
    NDArray (n, 3) float32
        Metres.
    """
    bits = faces.astype(np.int32)
    axes = [((bits >> (2 * axis + 1)) & 1) - ((bits >> (2 * axis)) & 1) for axis in range(3)]
    toward = np.stack(axes, axis=1).astype(np.float32)
    count = np.maximum(np.abs(toward).sum(axis=1, keepdims=True), 1.0)
    return np.asarray(toward * np.float32(0.5 * voxel_size) / count, np.float32)


def surface_splats(geometry: Geometry, rgb: NDArray, opacity: ArrayLike = 1.0) -> Splats:
    """Return one disc per voxel; together they cover the surface without holes.

    Normals and means are those of the geometry. The first axis of a disc points down its steepest
    slope, the second is level. A disc is as wide as the voxel along each axis, where the voxel is
    sheared with the ground below; on a steep slope it is stretched down the slope.

    Parameters
    ----------
    geometry : Geometry
        The surface.
    rgb : NDArray (n, 3)
        sRGB colours of the voxels, 0 to 255.
    opacity : float or NDArray (n,)
        0 to 1.

    Returns
    -------
    Splats
        With spherical harmonics of degree 0.
    """
    n = len(geometry.voxels)
    slope_east, slope_north = ground_slopes(geometry)
    scale, rotation = np.empty((n, 2), np.float32), np.empty((n, 4), np.float32)
    _discs(
        geometry.normal.astype(np.float32),
        geometry.voxels.faces,
        wall_heights(geometry.voxels, geometry.offset),
        slope_east,
        slope_north,
        geometry.frame.voxel_size,
        scale,
        rotation,
    )
    colour = (np.asarray(rgb, np.float32) * np.float32(1.0 / 255.0) - np.float32(0.5)) * np.float32(
        1.0 / SH_C0
    )
    alpha = np.empty(n, np.float32)
    alpha[:] = opacity
    return Splats(geometry.offset.astype(np.float32), scale, rotation, alpha, colour[:, None, :])


def ground_slopes(geometry: Geometry) -> tuple[NDArray, NDArray]:
    """Return the slope of the ground at each voxel, by central differences in the window.

    Returns
    -------
    east, north : NDArray (n,) float32
        Rise over run.
    """
    ground, frame = geometry.ground.astype(np.float32), geometry.frame
    row = frame.y[1] - 1 - geometry.voxels.xyz[:, 1]
    col = geometry.voxels.xyz[:, 0] - frame.x[0]
    zero = np.zeros_like(ground)
    north = -np.gradient(ground, frame.voxel_size, axis=0) if frame.ny > 1 else zero
    east = np.gradient(ground, frame.voxel_size, axis=1) if frame.nx > 1 else zero
    return np.asarray(east[row, col]), np.asarray(north[row, col])


@numba.njit(cache=True, nogil=True)
def _discs(normal, faces, wall, slope_east, slope_north, size, scale, rotation):  # type: ignore[no-untyped-def]
    for n in range(normal.shape[0]):
        nx, ny = float(normal[n, 0]), float(normal[n, 1])
        nz = min(max(float(normal[n, 2]), -1.0), 1.0)
        level = np.sqrt(nx * nx + ny * ny)
        # A tilt by theta about y, then a turn by psi about z: z becomes the normal, and x points
        # down the slope.
        if level < 1e-6:
            cos_psi, sin_psi = 1.0, 0.0
        else:
            cos_psi, sin_psi = nx / level, ny / level
        half_tilt = 0.5 * np.arctan2(level, nz)
        half_turn = 0.5 * np.arctan2(sin_psi, cos_psi)
        ct, st, cp, sp = np.cos(half_tilt), np.sin(half_tilt), np.cos(half_turn), np.sin(half_turn)
        rotation[n, 0], rotation[n, 1] = cp * ct, -sp * st
        rotation[n, 2], rotation[n, 3] = cp * st, sp * ct

        down_x, down_y, down_z = cos_psi * nz, sin_psi * nz, -level  # the first axis
        side_x, side_y = -sin_psi, cos_psi  # the second
        ge, gn = float(slope_east[n]), float(slope_north[n])
        # Extent of the sheared voxel along each axis: its edges are (1, 0, ge), (0, 1, gn) and (0,
        # 0, 1).
        a, b = down_x + ge * down_z, down_y + gn * down_z
        along = a * a + b * b
        across = side_x * side_x + side_y * side_y
        if faces[n] & TOP:
            if nz > 0.2:
                # One voxel a column carries a top: its neighbour down the slope is 1 / nz away.
                along = max(
                    along, 1.0 / (nz * nz) if faces[n] & SIDES == 0 else min(1.0 / (nz * nz), 2.25)
                )
            else:
                along += down_z * down_z
        else:
            along += down_z * down_z
        sides = faces[n] & SIDES
        if sides != 0 and (faces[n] & TOP_AND_BOTTOM != 0 or sides & (sides - 1) != 0):
            along, across = along * EDGE, across * EDGE
        scale[n, 0] = COVERAGE * size * min(max(np.sqrt(along), 0.85), MAX_STRETCH)
        if wall[n] > 0.0:
            scale[n, 0] = COVERAGE * wall[n]
        scale[n, 1] = COVERAGE * size * min(max(np.sqrt(across), 0.85), MAX_STRETCH)
