"""Voxels, Gaussians and geometry: what backends make and a world stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from earthgen.stages.block import Block, Field, column_order, within
from geo_io.errors import FrameError
from geo_io.frame import Frame

FACES = {"-x": 1, "+x": 2, "-y": 4, "+y": 8, "-z": 16, "+z": 32}
"""Bits of `Voxels.faces`: the open sides of a voxel."""

WALL = 64
"""A further bit of `Voxels.faces`: the voxel belongs to a wall of the ground and hangs below the
surface of its column (`earthgen.voxels.ground_walls`)."""

TOP = FACES["+z"]
"""The bit of the upper side."""

SIDES = FACES["-x"] | FACES["+x"] | FACES["-y"] | FACES["+y"]
"""The bits of the four vertical sides."""

TOP_AND_BOTTOM = FACES["-z"] | TOP
"""The bits of the two horizontal sides."""

GEOMETRY_FIELDS = {
    "ground": Field("float32"),
    "semantic": Field("uint8", sparse=True),
    "faces": Field("uint8", sparse=True),
    "object": Field("uint32", sparse=True),
    "offset": Field("float32", (3,), sparse=True),
    "normal": Field("float32", (3,), sparse=True),
}
"""Fields of the last stage of a geometry backend; see `Voxels` and `Geometry`."""


def texture_fields(sh_degree: int) -> dict[str, Field]:
    """Return the fields of the last stage of a texture backend, one row per voxel; see `Splats`.

    Parameters
    ----------
    sh_degree : int
        Degree of the spherical harmonics, 0 to 3.
    """
    return {
        "offset": Field("float32", (3,), sparse=True),
        "scale": Field("float32", (2,), sparse=True),
        "rotation": Field("float32", (4,), sparse=True),
        "opacity": Field("float32", sparse=True),
        "sh": Field("float32", ((sh_degree + 1) ** 2, 3), sparse=True),
    }


@dataclass(frozen=True)
class Voxels:
    """Solid voxels that have at least one open side, sorted by (y, x, z).

    Attributes
    ----------
    frame : Frame
        Contains the voxels.
    xyz : NDArray (n, 3) int32
        Lattice indices east, north, up; z = 0 is the first voxel above the ground of its column.
    semantic : NDArray (n,) uint8
        Class codes of `geo_io.legend`.
    faces : NDArray (n,) uint8
        Open sides, bits of `FACES`, and `WALL`.
    object : NDArray (n,) uint32
        One number for all voxels of a building or tree, 0 for the ground.
    """

    frame: Frame
    xyz: NDArray
    semantic: NDArray
    faces: NDArray
    object: NDArray

    def __len__(self) -> int:
        return len(self.xyz)

    def take(self, index: NDArray, frame: Frame | None = None) -> Voxels:
        """Return the voxels at `index`, a mask or integers, on `frame` or else this frame."""
        return Voxels(
            frame or self.frame,
            self.xyz[index],
            self.semantic[index],
            self.faces[index],
            self.object[index],
        )

    def inside(self, frame: Frame) -> NDArray:
        """Return which voxels stand in the columns of `frame`: (n,) bool."""
        self.frame.require_lattice(frame)
        return within(self.xyz, frame)

    def order(self) -> NDArray:
        """Return the permutation that sorts by (y, x, z): (n,) int."""
        return column_order(self.xyz)


@dataclass(frozen=True)
class Splats:
    """2D Gaussians, one per voxel, in the voxels' order.

    Attributes
    ----------
    offset : NDArray (n, 3) float32
        Metres from the voxel's centre, whose height is above the column's ground, to the mean.
    scale : NDArray (n, 2) float32
        Standard deviations along the disc's two axes, metres.
    rotation : NDArray (n, 4) float32
        Unit quaternions (w, x, y, z) that rotate the z axis to the disc's normal.
    opacity : NDArray (n,) float32
        0 to 1.
    sh : NDArray (n, k, 3) float32
        Spherical harmonics coefficients of the colour, k = (degree + 1)^2.
    """

    offset: NDArray
    scale: NDArray
    rotation: NDArray
    opacity: NDArray
    sh: NDArray

    def __len__(self) -> int:
        return len(self.offset)

    def take(self, index: NDArray) -> Splats:
        """Return the Gaussians at `index`, a mask or integers."""
        return Splats(*(getattr(self, field.name)[index] for field in fields(self)))

    @classmethod
    def concatenate(cls, parts: Sequence[Splats]) -> Self:
        """Join several sets of Gaussians, in their order."""
        return cls(
            *(
                np.concatenate([getattr(part, field.name) for part in parts])
                for field in fields(cls)
            )
        )

    @classmethod
    def of(cls, block: Block) -> Self:
        """Return the Gaussians in a block of `texture_fields`."""
        return cls(*(block.sparse[field.name] for field in fields(cls)))

    def block(self, voxels: Voxels) -> Block:
        """Return a block of `texture_fields` with these Gaussians: the result of a stage.

        Parameters
        ----------
        voxels : Voxels
            The voxels of the Gaussians, in the same order.
        """
        return Block(
            voxels.frame,
            {},
            voxels.xyz,
            {field.name: getattr(self, field.name) for field in fields(self)},
        )


@dataclass(frozen=True)
class Geometry:
    """The result of a geometry backend on one window.

    Attributes
    ----------
    frame : Frame
        The window.
    ground : NDArray (ny, nx) float32
        Height of the terrain, metres in the frame's vertical CRS.
    voxels : Voxels
        The surface voxels of the window.
    offset : NDArray (n, 3) float32
        Metres from each voxel's centre to the surface that it represents; at most half a voxel
        along x and y.
    normal : NDArray (n, 3) float32
        Unit normal of that surface in the projected CRS, z up.

    Raises
    ------
    FrameError
        If the shapes do not fit the frame and the voxels.
    """

    frame: Frame
    ground: NDArray
    voxels: Voxels
    offset: NDArray
    normal: NDArray

    def __post_init__(self) -> None:
        n = len(self.voxels)
        if (
            self.ground.shape != self.frame.shape
            or self.offset.shape != (n, 3)
            or self.normal.shape != (n, 3)
        ):
            raise FrameError(
                f"a geometry of {n} voxels with ground {self.ground.shape}, "
                f"offset {self.offset.shape} and normal {self.normal.shape} does not fit "
                f"{self.frame} of shape {self.frame.shape}"
            )

    @classmethod
    def of(cls, block: Block) -> Self:
        """Return the geometry in a block of `GEOMETRY_FIELDS`."""
        sparse = block.sparse
        voxels = Voxels(
            block.frame, _rows(block), sparse["semantic"], sparse["faces"], sparse["object"]
        )
        return cls(block.frame, block.dense["ground"], voxels, sparse["offset"], sparse["normal"])

    def block(self) -> Block:
        """Return a block of `GEOMETRY_FIELDS`: the result of a stage."""
        sparse = {name: getattr(self.voxels, name) for name in ("semantic", "faces", "object")}
        sparse |= {"offset": self.offset, "normal": self.normal}
        return Block(self.frame, {"ground": self.ground}, self.voxels.xyz, sparse)


def _rows(block: Block) -> NDArray:
    return np.empty((0, 3), np.int32) if block.xyz is None else block.xyz


def concatenate_voxels(frame: Frame, parts: Sequence[Voxels]) -> Voxels:
    """Join the voxels of several windows on the frame that covers them, in their order."""
    return Voxels(
        frame,
        np.concatenate([part.xyz for part in parts]),
        np.concatenate([part.semantic for part in parts]),
        np.concatenate([part.faces for part in parts]),
        np.concatenate([part.object for part in parts]),
    )
