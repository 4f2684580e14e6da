"""Crops of scenes, as arrays on a frame: the samples that models are trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen.errors import CropError
from earthgen.stages.block import column_order
from geo_io.frame import Frame

CELL = 8
"""Crops begin and end at multiples of this many voxels, so that the cells of latents lie on the
world's lattice."""


@dataclass(frozen=True)
class Crop:
    """A window of a scene.

    Rows of (ny, nx) arrays run from north to south, z counts from the ground of each column
    (docs/reference/conventions.md).

    Attributes
    ----------
    frame : Frame
        Place of the crop; its x, y and z ranges are multiples of `CELL`.
    xyz : NDArray (n, 3) int32
        Lattice indices of the surface voxels, sorted by (y, x, z). The surface is closed within
        the crop, with filled walls.
    semantic : NDArray (n,) uint8
        Class codes of `geo_io.legend`.
    normal : NDArray (n, 3) float32
        Outward unit normals in ground-relative space, where the ground is level.
    rgb : NDArray (n, 3) uint8
        sRGB colours.
    rgb_known : NDArray (n,) bool
        Where the colour was observed; elsewhere `rgb` is a guess.
    object : NDArray (n,) uint32
        Number of the building or plant that a voxel belongs to, 0 for none.
    ground : NDArray (ny, nx) float32
        Absolute height of the terrain, metres.
    height : NDArray (ny, nx) float32
        Top of the solid above the ground, metres, not negative.
    cover : NDArray (ny, nx) uint8
        Class seen from above.
    image : NDArray (ny, nx, 3) uint8
        sRGB colour seen from above.
    image_known : NDArray (ny, nx) bool
        Where that colour was observed.
    valid : NDArray (ny, nx) bool
        Where the scene has data; other columns have no voxels.
    map : NDArray (ny, nx) uint8
        Class as a map has it: of simulated scenes the land-use layers, else `cover`.
    building : NDArray (ny, nx) uint32
        Number of the building, 0 for none.
    building_height : NDArray (ny, nx) float32
        Height of the building as a map has it, metres; 0 where there is none.
    building_axes : NDArray (ny, nx, 4) float16
        Distance from the centre of the building along and across its longer axis, and its half
        length and half width, metres; 0 where there is none.
    kind : str
        "real" or "simulated", as of the scene.
    """

    frame: Frame
    xyz: NDArray
    semantic: NDArray
    normal: NDArray
    rgb: NDArray
    rgb_known: NDArray
    object: NDArray
    ground: NDArray
    height: NDArray
    cover: NDArray
    image: NDArray
    image_known: NDArray
    valid: NDArray
    map: NDArray
    building: NDArray
    building_height: NDArray
    building_axes: NDArray
    kind: str = "real"

    def __len__(self) -> int:
        """Number of voxels."""
        return len(self.xyz)

    @property
    def local(self) -> NDArray:
        """Voxel indices from the south-west corner and bottom of the crop, (n, 3) int32."""
        origin = (self.frame.x[0], self.frame.y[0], self.frame.z[0])
        return np.asarray(self.xyz - np.array(origin, np.int32), np.int32)


ROWS = ("semantic", "normal", "rgb", "rgb_known", "object")
"""Fields of a crop with one row per voxel, besides `xyz`."""

COLUMNS = (
    "ground",
    "height",
    "cover",
    "image",
    "image_known",
    "valid",
    "map",
    "building",
    "building_height",
    "building_axes",
)
"""Fields of a crop with one value per column."""


def require_cells(frame: Frame) -> None:
    """Check that the ranges of a frame are multiples of `CELL`.

    Raises
    ------
    CropError
        if one is not
    """
    for axis in ("x", "y", "z"):
        low, high = getattr(frame, axis)
        if low % CELL or high % CELL:
            raise CropError(
                f"the {axis} range [{low}, {high}) of a crop is not a multiple of {CELL} voxels",
                f"begin and end crops at multiples of {CELL}",
            )


def transform_crop(crop: Crop, turns: int, flip: bool) -> Crop:
    """Mirror a crop, then turn it. Its frame stays, although the true place is then another one.

    Heights above the ground belong to the columns and move with them.

    Parameters
    ----------
    crop : Crop
        The crop.
    turns : int
        Number of quarter turns, counter-clockwise.
    flip : bool
        Whether the crop is mirrored east to west first.

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
    rows: dict[str, Any] = {name: getattr(crop, name)[order] for name in ROWS if name != "normal"}
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
