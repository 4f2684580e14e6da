"""A crop: what a model is trained on, as arrays on a frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen.errors import CropError
from earthgen.stages.block import column_order
from geo_io.frame import Frame

CELL = 8
"""Crops begin and end at multiples of this many voxels, so that cells of the latent lie on the
world's lattice."""


@dataclass(frozen=True)
class Crop:
    """A window of a scene.

    Rows of (ny, nx) arrays run from north to south, z counts from the ground of each column
    (docs/reference/conventions.md).

    Attributes
    ----------
    frame : where it is; x, y and z ranges are multiples of `CELL`
    xyz : (n, 3) int32, lattice indices of the surface voxels, sorted by (y, x, z); the surface is
        closed within the
        crop, walls filled
    semantic : (n,) uint8, class codes of `geo_io.legend`
    normal : (n, 3) float32, unit, outward, in ground-relative space, where the ground is level
    rgb : (n, 3) uint8, sRGB
    rgb_known : (n,) bool, where the colour was seen; elsewhere `rgb` is a guess
    ground : (ny, nx) float32, absolute height of the terrain, metres
    height : (ny, nx) float32, top of the solid above the ground, metres, not negative
    cover : (ny, nx) uint8, class seen from above
    image : (ny, nx, 3) uint8, sRGB, seen from above
    image_known : (ny, nx) bool
    valid : (ny, nx) bool, where the scene has data; other columns have no voxels
    """

    frame: Frame
    xyz: NDArray
    semantic: NDArray
    normal: NDArray
    rgb: NDArray
    rgb_known: NDArray
    ground: NDArray
    height: NDArray
    cover: NDArray
    image: NDArray
    image_known: NDArray
    valid: NDArray

    def __len__(self) -> int:
        """Number of voxels."""
        return len(self.xyz)

    @property
    def local(self) -> NDArray:
        """(n, 3) int32, voxels relative to the south-west corner and the bottom of the crop."""
        origin = (self.frame.x[0], self.frame.y[0], self.frame.z[0])
        return np.asarray(self.xyz - np.array(origin, np.int32), np.int32)


ROWS = ("semantic", "normal", "rgb", "rgb_known")
COLUMNS = ("ground", "height", "cover", "image", "image_known", "valid")


def require_cells(frame: Frame) -> None:
    """Raise CropError unless the frame's ranges are multiples of `CELL`."""
    for axis in ("x", "y", "z"):
        low, high = getattr(frame, axis)
        if low % CELL or high % CELL:
            raise CropError(
                f"the {axis} range [{low}, {high}) of a crop is no multiple of {CELL} voxels",
                f"begin and end crops at multiples of {CELL}",
            )


def transform_crop(crop: Crop, turns: int, flip: bool) -> Crop:
    """The crop mirrored east to west (`flip`), then turned by `turns` quarter turns
    counter-clockwise.

    It stays on its frame: the place is then no longer the true one, but its cells still lie on the
    lattice. Heights above the ground are the columns' own and go with them.

    Raises
    ------
    CropError
        if a crop that is not square is to be turned by an odd number of quarter turns
    """
    turns %= 4
    frame = crop.frame
    if turns % 2 and frame.nx != frame.ny:
        raise CropError(
            f"a crop of {frame.nx} by {frame.ny} voxels does not fit its frame when turned",
            "crop squares",
        )
    if not turns and not flip:
        return crop
    east, north = crop.xyz[:, 0] - frame.x[0], crop.xyz[:, 1] - frame.y[0]
    normal = crop.normal.copy()
    if flip:
        east = frame.nx - 1 - east
        normal[:, 0] = -normal[:, 0]
    for step in range(turns):  # (east, north) to (-north, east); each turn swaps the sides
        depth = frame.nx if step % 2 else frame.ny
        east, north = depth - 1 - north, east
        normal = np.stack([-normal[:, 1], normal[:, 0], normal[:, 2]], axis=1)
    xyz = np.stack([east + frame.x[0], north + frame.y[0], crop.xyz[:, 2]], axis=1).astype(np.int32)
    order = column_order(xyz)
    rows: dict[str, Any] = {
        name: getattr(crop, name)[order] for name in ("semantic", "rgb", "rgb_known")
    }
    columns: dict[str, Any] = {}
    for name in COLUMNS:
        values = getattr(crop, name)
        if flip:
            values = values[:, ::-1]
        # Rows run to the south, so a counter-clockwise turn on the map is one of the array too.
        columns[name] = np.ascontiguousarray(np.rot90(values, turns))
    return replace(
        crop, xyz=xyz[order], normal=np.ascontiguousarray(normal[order]), **rows, **columns
    )
