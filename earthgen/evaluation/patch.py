"""Patches: windows of scenes or of generated worlds in the one form in which both are measured."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from earthgen.dataset.crop import Crop
from earthgen.stages.block import within
from earthgen.voxels.shell import shell_geometry
from earthgen.voxels.surface import surface_splats
from earthgen.voxels.voxels import Geometry, Splats
from geo_io.frame import Frame
from geo_io.legend import classes, codes


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
    surface : NDArray (ny, nx) float32 | None
        Exact top of each column above the ground, metres, where it is known; else tops are those of
        voxels.
    building : NDArray (ny, nx) uint32 | None
        Number of the building, 0 for none; None where buildings are those of the truth.
    building_height : NDArray (ny, nx) float32 | None
        Their heights as a map would tell them, metres.
    """

    frame: Frame
    ground: NDArray
    xyz: NDArray
    semantic: NDArray
    splats: Splats | None
    valid: NDArray
    surface: NDArray | None = None
    building: NDArray | None = None
    building_height: NDArray | None = None

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
        """Top of the column above the ground, metres, 0 without voxels, (ny, nx) float32.

        It is exact where the patch knows that, else that of the topmost voxel.
        """
        if self.surface is not None:
            return np.where(self.covered, self.surface, 0).astype(np.float32)
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
        return replace(self, valid=self.valid & columns)

    def seen(self) -> Patch:
        """Return the patch without the voxels of columns that are not valid."""
        if bool(self.valid.all()):
            return self
        keep = self.valid[self.rows]
        splats = None if self.splats is None else self.splats.take(keep)
        return replace(self, xyz=self.xyz[keep], semantic=self.semantic[keep], splats=splats)


def patch_of_crop(crop: Crop) -> Patch:
    """Make a patch of a crop, with `plain_splats` in the colours of its voxels, its exact heights
    and its buildings."""
    bare = Patch(
        crop.frame,
        crop.ground,
        crop.xyz,
        crop.semantic,
        None,
        crop.valid,
        crop.height,
        crop.building,
        crop.building_height,
    )
    return replace(bare, splats=plain_splats(bare, crop.rgb))


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
    patch = Patch(
        frame,
        ground,
        voxels.xyz[keep],
        voxels.semantic[keep],
        None if splats is None else splats.take(keep),
        valid,
    )
    if not len(patch):
        return patch
    above = (patch.xyz[:, 2] + 0.5) * frame.voxel_size + geometry.offset[keep, 2]
    surface = np.maximum(above[patch.top], 0).astype(np.float32)
    return replace(patch, surface=surface)


def plain_geometry(patch: Patch) -> Geometry:
    """Return open sides, normals and offsets of a patch (`earthgen.voxels.shell_geometry`)."""
    return shell_geometry(patch.frame, patch.ground, patch.xyz, patch.semantic)


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


def trees(cover: NDArray) -> NDArray:
    """Return where class codes are trees or woods, as bool."""
    return tree_codes()[cover]


@functools.cache
def tree_codes() -> NDArray:
    """Return which class codes are trees or woods, (256,) bool."""
    table = np.zeros(256, bool)
    for land in classes():
        table[land.code] = land.surface in ("wood", "tree")
    return table
