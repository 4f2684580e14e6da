"""A patch: a window of a scene or of a generated world, in the one form in which all of them are
measured."""

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
    """Voxels and their Gaussians on a window. Rows of (ny, nx) arrays run from north to south.

    Attributes
    ----------
    frame : where it is
    ground : (ny, nx) float32, height of the terrain, metres
    xyz : (n, 3) int32, lattice indices of the surface voxels, sorted by (y, x, z)
    semantic : (n,) uint8, their classes
    splats : their Gaussians, None where they have no colours
    valid : (ny, nx) bool, the columns that are measured
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
        """(n,) row and column of each voxel in (ny, nx) arrays."""
        return self.frame.y[1] - 1 - self.xyz[:, 1], self.xyz[:, 0] - self.frame.x[0]

    @cached_property
    def top(self) -> NDArray:
        """(ny, nx) int64, row of the topmost voxel of each column, -1 where there is none."""
        found = np.full(self.frame.shape, -1, np.int64)
        found[self.rows] = np.arange(
            len(self.xyz)
        )  # of the voxels of a column the last, which is the highest, stays
        return found

    @cached_property
    def covered(self) -> NDArray:
        """(ny, nx) bool, columns that have a voxel."""
        return self.top >= 0

    @cached_property
    def height(self) -> NDArray:
        """(ny, nx) float32, upper side of the topmost voxel above the ground, metres; 0 where
        there is none."""
        levels = (
            np.where(self.covered, self.xyz[self.top, 2] + 1, 0)
            if len(self)
            else np.zeros(self.frame.shape)
        )
        return np.asarray(levels * self.frame.voxel_size, np.float32)

    @cached_property
    def cover(self) -> NDArray:
        """(ny, nx) uint8, class of the topmost voxel, 0 where there is none."""
        if not len(self):
            return np.zeros(self.frame.shape, np.uint8)
        return np.where(self.covered, self.semantic[self.top], 0).astype(np.uint8)

    @cached_property
    def colour(self) -> NDArray | None:
        """(ny, nx, 3) uint8, colour of the topmost voxel, 0 where there is none; None without
        colours."""
        if self.splats is None:
            return None
        from earthgen.voxels.tile import colours

        found = np.zeros((*self.frame.shape, 3), np.uint8)
        found[self.covered] = colours(self.splats.sh[self.top[self.covered]])
        return found

    def only(self, columns: NDArray) -> Patch:
        """The patch with fewer valid columns: `columns` is (ny, nx) bool."""
        return Patch(
            self.frame, self.ground, self.xyz, self.semantic, self.splats, self.valid & columns
        )

    def seen(self) -> Patch:
        """The patch without the voxels of columns that are not valid."""
        if bool(self.valid.all()):
            return self
        keep = self.valid[self.rows]
        splats = None if self.splats is None else self.splats.take(keep)
        return Patch(
            self.frame, self.ground, self.xyz[keep], self.semantic[keep], splats, self.valid
        )


def patch_of_crop(crop: Crop) -> Patch:
    """A crop of a scene; its Gaussians are `plain_splats` in the colours of its voxels."""
    bare = Patch(crop.frame, crop.ground, crop.xyz, crop.semantic, None, crop.valid)
    return Patch(
        crop.frame, crop.ground, crop.xyz, crop.semantic, plain_splats(bare, crop.rgb), crop.valid
    )


def patch_of_geometry(
    geometry: Geometry, splats: Splats | None, frame: Frame, valid: NDArray
) -> Patch:
    """The part on `frame` of what backends made; voxels outside of the frame's z range are left
    out."""
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
    """Open sides, normals and offsets of a patch by its voxels alone, by one rule for all patches.

    Columns count as solid up to their topmost voxel, and beyond the window the surface goes on as
    it ends. What is below an overhang is not seen as open.
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
    """Discs that cover the surface, in (n, 3) colours from 0 to 255; by the voxels alone."""
    return surface_splats(plain_geometry(patch), rgb)


def buildings(cover: NDArray) -> NDArray:
    """Where a cover is building."""
    return np.asarray(cover == codes()["building"])
