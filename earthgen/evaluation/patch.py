"""Patches: windows of scenes or of generated worlds in the one form in which both are measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from earthgen.dataset.crop import Crop
from earthgen.stages.block import within
from earthgen.voxels.surface import (
    NORMAL_RADIUS,
    face_offsets,
    occupancy_normals,
    shear_normals,
    surface_splats,
)
from earthgen.voxels.voxels import FACES, TOP, Geometry, Splats, Voxels
from geo_io.frame import Frame
from geo_io.legend import codes


@dataclass(frozen=True)
class Patch:
    """Voxels and their Gaussians on a window; rows of (ny, nx) arrays run from north to south.

    Attributes
    ----------
    frame : Frame
        The window.
    ground : NDArray (ny, nx) float32
        Height of the terrain, metres.
    xyz : NDArray (n, 3) int32
        Lattice indices of the surface voxels, sorted by (y, x, z).
    semantic : NDArray (n,) uint8
        Their classes.
    splats : Splats | None
        Their Gaussians, None without colours.
    valid : NDArray (ny, nx) bool
        Columns that are measured.
    """

    frame: Frame
    ground: NDArray
    xyz: NDArray
    semantic: NDArray
    splats: Splats | None
    valid: NDArray

    def __len__(self) -> int:
        """Number of voxels."""
        return len(self.xyz)

    @cached_property
    def rows(self) -> tuple[NDArray, NDArray]:
        """Row and column of each voxel in (ny, nx) arrays, (n,) each."""
        return self.frame.y[1] - 1 - self.xyz[:, 1], self.xyz[:, 0] - self.frame.x[0]

    @cached_property
    def top(self) -> NDArray:
        """Row of the topmost voxel of each column, -1 without voxels, (ny, nx) int64."""
        top = np.full(self.frame.shape, -1, np.int64)
        top[self.rows] = np.arange(len(self.xyz))  # the last of a column, its highest, stays
        return top

    @cached_property
    def covered(self) -> NDArray:
        """Columns that have a voxel, (ny, nx) bool."""
        return self.top >= 0

    @cached_property
    def height(self) -> NDArray:
        """Top of the topmost voxel above the ground, metres, 0 without voxels, (ny, nx) float32."""
        levels = (
            np.where(self.covered, self.xyz[self.top, 2] + 1, 0)
            if len(self)
            else np.zeros(self.frame.shape)
        )
        return np.asarray(levels * self.frame.voxel_size, np.float32)

    @cached_property
    def cover(self) -> NDArray:
        """Class of the topmost voxel, 0 without voxels, (ny, nx) uint8."""
        if not len(self):
            return np.zeros(self.frame.shape, np.uint8)
        return np.where(self.covered, self.semantic[self.top], 0).astype(np.uint8)

    @cached_property
    def colour(self) -> NDArray | None:
        """Colour of the topmost voxel, 0 without voxels, (ny, nx, 3) uint8; None if unknown."""
        if self.splats is None:
            return None
        from earthgen.voxels.splat_math import base_colours

        rgb = np.zeros((*self.frame.shape, 3), np.uint8)
        rgb[self.covered] = base_colours(self.splats.sh[self.top[self.covered]])
        return rgb

    def only(self, columns: NDArray) -> Patch:
        """Return the patch with only some of its columns valid, (ny, nx) bool."""
        return Patch(
            self.frame, self.ground, self.xyz, self.semantic, self.splats, self.valid & columns
        )

    def seen(self) -> Patch:
        """Return the patch without the voxels of columns that are not valid."""
        if bool(self.valid.all()):
            return self
        keep = self.valid[self.rows]
        splats = None if self.splats is None else self.splats.take(keep)
        return Patch(
            self.frame, self.ground, self.xyz[keep], self.semantic[keep], splats, self.valid
        )


def patch_of_crop(crop: Crop) -> Patch:
    """Make a patch of a crop, with `plain_splats` in the colours of its voxels."""
    bare = Patch(crop.frame, crop.ground, crop.xyz, crop.semantic, None, crop.valid)
    return Patch(
        crop.frame, crop.ground, crop.xyz, crop.semantic, plain_splats(bare, crop.rgb), crop.valid
    )


def patch_of_geometry(
    geometry: Geometry, splats: Splats | None, frame: Frame, valid: NDArray
) -> Patch:
    """Make a patch of the output of backends.

    Parameters
    ----------
    geometry : Geometry
        Voxels and ground on a frame that contains `frame`.
    splats : Splats | None
        Their Gaussians.
    frame : Frame
        The window; voxels outside its z range are left out.
    valid : NDArray (ny, nx) bool
        Columns that are measured.
    """
    voxels = geometry.voxels
    keep = within(voxels.xyz, frame)
    keep &= (voxels.xyz[:, 2] >= frame.z[0]) & (voxels.xyz[:, 2] < frame.z[1])
    ground = geometry.ground[geometry.frame.slices(frame)]
    return Patch(
        frame,
        ground,
        voxels.xyz[keep],
        voxels.semantic[keep],
        None if splats is None else splats.take(keep),
        valid,
    )


def plain_geometry(patch: Patch) -> Geometry:
    """Compute open sides, normals and offsets of a patch from its voxels alone, by one rule.

    Columns count as solid up to their topmost voxel, and the surface continues beyond the window as
    it ends. The voxels below an overhang do not count as open.
    """
    frame, pad = patch.frame, NORMAL_RADIUS
    low = min(int(patch.xyz[:, 2].min()) if len(patch) else -1, -1)
    tops = (
        np.where(patch.covered, patch.xyz[patch.top, 2], low - 1)
        if len(patch)
        else np.full(frame.shape, low - 1)
    )
    wide = np.pad(tops, pad, mode="edge")
    levels = np.arange(low, int(wide.max()) + 2)
    volume = (levels <= wide[..., None]).astype(np.uint8)
    row, col = patch.rows
    z = patch.xyz[:, 2]
    faces = np.where(z == tops[row, col], TOP, 0)
    for side, (down, right) in {"-x": (0, -1), "+x": (0, 1), "-y": (1, 0), "+y": (-1, 0)}.items():
        faces |= np.where(z > wide[row + pad + down, col + pad + right], FACES[side], 0)
    voxels = Voxels(
        frame, patch.xyz, patch.semantic, faces.astype(np.uint8), np.zeros(len(patch), np.uint32)
    )
    normal = occupancy_normals(voxels, volume, low, pad, np.ones(len(patch), bool))
    south = np.asarray(np.gradient(patch.ground.astype(np.float32), frame.voxel_size, axis=0))
    east = np.asarray(np.gradient(patch.ground.astype(np.float32), frame.voxel_size, axis=1))
    sheared = shear_normals(normal, east[row, col], -south[row, col])
    return Geometry(
        frame,
        patch.ground.astype(np.float32),
        voxels,
        face_offsets(voxels.faces, frame.voxel_size),
        sheared,
    )


def plain_splats(patch: Patch, rgb: NDArray) -> Splats:
    """Make discs that cover the surface, from the voxels alone.

    Parameters
    ----------
    patch : Patch
        The voxels.
    rgb : NDArray (n, 3)
        Their colours, 0 to 255.
    """
    return surface_splats(plain_geometry(patch), rgb)


def buildings(cover: NDArray) -> NDArray:
    """Return where class codes are building, as bool."""
    return np.asarray(cover == codes()["building"])
