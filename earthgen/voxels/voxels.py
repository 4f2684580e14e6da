"""Surface voxels: what a geometry backend makes and a world stores."""

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
"""Bits of `Voxels.faces`: the sides of a voxel that look into the open."""

TOP = FACES["+z"]

GEOMETRY_FIELDS = {
    "ground": Field("float32"),
    "semantic": Field("uint8", sparse=True),
    "faces": Field("uint8", sparse=True),
    "object": Field("uint32", sparse=True),
    "offset": Field("float32", (3,), sparse=True),
    "normal": Field("float32", (3,), sparse=True),
}
"""What the last stage of a geometry backend makes; see `Voxels` and `Geometry`."""


def texture_fields(sh_degree: int) -> dict[str, Field]:
    """What the last stage of a texture backend makes, a row a voxel of the geometry; see
    `Splats`."""
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
    frame : the frame they lie in
    xyz : (n, 3) int32, lattice indices east, north, up; z = 0 stands on the ground surface of its
        column
    semantic : (n,) uint8, class codes of `geo_io.legend`
    faces : (n,) uint8, bits of `FACES`
    object : (n,) uint32, the same number for all voxels of one building or tree, 0 for the ground
    """

    frame: Frame
    xyz: NDArray
    semantic: NDArray
    faces: NDArray
    object: NDArray

    def __len__(self) -> int:
        return len(self.xyz)

    def take(self, index: NDArray, frame: Frame | None = None) -> Voxels:
        """The voxels at `index` (a mask or integers), on `frame` or this frame."""
        return Voxels(
            frame or self.frame,
            self.xyz[index],
            self.semantic[index],
            self.faces[index],
            self.object[index],
        )

    def inside(self, frame: Frame) -> NDArray:
        """(n,) bool: in the columns of `frame`."""
        self.frame.require_lattice(frame)
        return within(self.xyz, frame)

    def order(self) -> NDArray:
        """(n,) the permutation that sorts by (y, x, z)."""
        return column_order(self.xyz)


@dataclass(frozen=True)
class Splats:
    """2D Gaussians, one a voxel, in the voxels' order.

    Attributes
    ----------
    offset : (n, 3) float32, metres from the voxel's centre (which stands on its column's ground) to
        the mean
    scale : (n, 2) float32, standard deviations along the disc's two axes, metres
    rotation : (n, 4) float32, unit quaternion (w, x, y, z) that turns the z axis into the disc's
        normal
    opacity : (n,) float32 in [0, 1]
    sh : (n, k, 3) float32, spherical harmonics coefficients of the colour, k = (degree + 1)^2
    """

    offset: NDArray
    scale: NDArray
    rotation: NDArray
    opacity: NDArray
    sh: NDArray

    def __len__(self) -> int:
        return len(self.offset)

    def take(self, index: NDArray) -> Splats:
        return Splats(*(getattr(self, field.name)[index] for field in fields(self)))

    @classmethod
    def concatenate(cls, parts: Sequence[Splats]) -> Self:
        return cls(
            *(
                np.concatenate([getattr(part, field.name) for part in parts])
                for field in fields(cls)
            )
        )

    @classmethod
    def of(cls, block: Block) -> Self:
        """The Gaussians in a block of `texture_fields`."""
        return cls(*(block.sparse[field.name] for field in fields(cls)))

    def block(self, voxels: Voxels) -> Block:
        """A block of these Gaussians, which are those of `voxels`."""
        return Block(
            voxels.frame,
            {},
            voxels.xyz,
            {field.name: getattr(self, field.name) for field in fields(self)},
        )


@dataclass(frozen=True)
class Geometry:
    """What a geometry backend makes of one window.

    Attributes
    ----------
    frame : the window
    ground : (ny, nx) float32, height of the terrain surface, metres in the frame's vertical CRS
    voxels : the surface voxels of the window
    offset : (n, 3) float32, metres from each voxel's centre to the surface it stands for (at most
        half a voxel
        along x and y)
    normal : (n, 3) float32, unit normal of that surface in the projected CRS, up positive
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
                f"a geometry of {n} voxels with ground {self.ground.shape}, offset {self.offset.shape} and normal "
                f"{self.normal.shape} does not fit {self.frame} of shape {self.frame.shape}"
            )

    @classmethod
    def of(cls, block: Block) -> Self:
        """The geometry in a block of `GEOMETRY_FIELDS`."""
        sparse = block.sparse
        voxels = Voxels(
            block.frame, _rows(block), sparse["semantic"], sparse["faces"], sparse["object"]
        )
        return cls(block.frame, block.dense["ground"], voxels, sparse["offset"], sparse["normal"])

    def block(self) -> Block:
        """This as a block of `GEOMETRY_FIELDS`: what a stage gives."""
        sparse = {name: getattr(self.voxels, name) for name in ("semantic", "faces", "object")}
        sparse |= {"offset": self.offset, "normal": self.normal}
        return Block(self.frame, {"ground": self.ground}, self.voxels.xyz, sparse)


def _rows(block: Block) -> NDArray:
    return np.empty((0, 3), np.int32) if block.xyz is None else block.xyz


def concatenate_voxels(frame: Frame, parts: Sequence[Voxels]) -> Voxels:
    """The voxels of several windows on the frame that covers them, in the parts' order."""
    return Voxels(
        frame,
        np.concatenate([part.xyz for part in parts]),
        np.concatenate([part.semantic for part in parts]),
        np.concatenate([part.faces for part in parts]),
        np.concatenate([part.object for part in parts]),
    )
