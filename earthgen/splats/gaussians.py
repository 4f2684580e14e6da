"""Gaussians that know where they are: float32 means relative to a float64 anchor in a CRS.

A world stores each Gaussian relative to its voxel (`earthgen.voxels.voxels.Splats`); here they
stand in space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen.errors import SplatError
from earthgen.voxels.voxels import Splats, Voxels
from geo_io.errors import FrameError
from geo_io.frame import UNKNOWN_DATUM

Anchor = tuple[float, float, float]
"""East, north, up: float64 metres of the CRS and its vertical CRS."""

UNIT_TOLERANCE = 1e-3
"""How far the length of a quaternion may be from 1: half precision, in which worlds keep them,
is good to 5e-4."""


@dataclass(frozen=True)
class Gaussians:
    """2D Gaussians (discs) in space.

    Axes are east, north, up in the projected CRS, right-handed, z up.

    Attributes
    ----------
    anchor : the point that `means` are relative to, metres
    crs, vertical_crs : as of `geo_io.frame.Frame`
    means : (n, 3) float32, metres from the anchor
    scales : (n, 2) float32, standard deviations along the disc's two axes, metres
    rotations : (n, 4) float32, unit quaternions (w, x, y, z) that turn the z axis into the disc's
        normal
    opacities : (n,) float32 in [0, 1]
    sh : (n, k, 3) float32, spherical harmonics coefficients of the sRGB colour, k = (degree + 1)^2
    semantic : (n,) uint8, class codes of `geo_io.legend`
    """

    anchor: Anchor
    crs: str
    vertical_crs: str
    means: NDArray
    scales: NDArray
    rotations: NDArray
    opacities: NDArray
    sh: NDArray
    semantic: NDArray

    def __post_init__(self) -> None:
        n = len(self.means)
        shapes = {
            "means": (n, 3),
            "scales": (n, 2),
            "rotations": (n, 4),
            "opacities": (n,),
            "semantic": (n,),
            "sh": (n, *self.sh.shape[1:2], 3),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise FrameError(
                    f"{name} of shape {getattr(self, name).shape} do not fit {n} Gaussians"
                )
        if round(self.sh.shape[1] ** 0.5) ** 2 != self.sh.shape[1]:
            raise FrameError(f"{self.sh.shape[1]} colour coefficients are not (degree + 1)^2")

    def __len__(self) -> int:
        return len(self.means)

    @property
    def degree(self) -> int:
        """Degree of the spherical harmonics."""
        return round(self.sh.shape[1] ** 0.5) - 1

    @property
    def positions(self) -> NDArray:
        """(n, 3) float64, east, north, up in metres of the CRS."""
        return self.means.astype(np.float64) + np.asarray(self.anchor)

    def faults(self) -> dict[str, NDArray]:
        """(n,) bool for each thing that no Gaussian may be, where there is one that is."""
        with np.errstate(invalid="ignore", over="ignore"):
            length = np.linalg.norm(self.rotations.astype(np.float64), axis=1)
            finite = {
                name: np.isfinite(getattr(self, name)).all(
                    axis=tuple(range(1, getattr(self, name).ndim))
                )
                for name in ("means", "scales", "rotations", "opacities", "sh")
            }
            found = {f"NaN or infinity among their {name}": ~good for name, good in finite.items()}
            found["scales that are not above 0"] = finite["scales"] & (self.scales <= 0).any(axis=1)
            found["quaternions of another length than 1"] = finite["rotations"] & (
                np.abs(length - 1) > UNIT_TOLERANCE
            )
            found["opacities outside [0, 1]"] = finite["opacities"] & (
                (self.opacities < 0) | (self.opacities > 1)
            )
        return {what: rows for what, rows in found.items() if rows.any()}

    def check(self) -> Gaussians:
        """These Gaussians, if all of them can be.

        Making a `Gaussians` checks shapes alone; whoever computes with values from elsewhere calls
        this first.

        Raises
        ------
        SplatError
            if there are NaN, infinities, scales that are not positive, quaternions that are not
            unit, or opacities outside [0, 1]; it says of each how many there are, and the first
        """
        faults = self.faults()
        if faults:
            texts = [
                f"{rows.sum()} have {what} (the first is {rows.argmax()})"
                for what, rows in faults.items()
            ]
            raise SplatError(
                f"of {len(self)} Gaussians {'; '.join(texts)}",
                "leave them out with take(valid()), or mend them",
            )
        return self

    def valid(self) -> NDArray:
        """(n,) bool: those in which `check` finds no fault."""
        good = np.ones(len(self), bool)
        for rows in self.faults().values():
            good &= ~rows
        return good

    def take(self, index: NDArray) -> Gaussians:
        """The Gaussians at `index` (a mask or integers)."""
        names = ("means", "scales", "rotations", "opacities", "sh", "semantic")
        return replace(self, **{name: getattr(self, name)[index] for name in names})

    @classmethod
    def concatenate(cls, parts: Sequence[Gaussians]) -> Gaussians:
        """All parts in their order; they must share anchor and CRS, and at least one must be given.

        Raises
        ------
        FrameError
            if there is no part, or two differ in anchor, CRS or vertical CRS
        """
        if not parts:
            raise FrameError("no Gaussians to put together")
        first = parts[0]
        for part in parts[1:]:
            if (part.anchor, part.crs, part.vertical_crs) != (
                first.anchor,
                first.crs,
                first.vertical_crs,
            ):
                raise FrameError(
                    f"Gaussians anchored at {part.anchor} in {part.crs} cannot join those at {first.anchor} in "
                    f"{first.crs}",
                    "make them with one anchor",
                )
        names = ("means", "scales", "rotations", "opacities", "sh", "semantic")
        whole: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in names
        }
        return replace(first, **whole)

    @classmethod
    def empty(
        cls, anchor: Anchor, crs: str, vertical_crs: str = UNKNOWN_DATUM, degree: int = 0
    ) -> Gaussians:
        """No Gaussians."""
        return cls(
            anchor,
            crs,
            vertical_crs,
            np.empty((0, 3), np.float32),
            np.empty((0, 2), np.float32),
            np.empty((0, 4), np.float32),
            np.empty(0, np.float32),
            np.empty((0, (degree + 1) ** 2, 3), np.float32),
            np.empty(0, np.uint8),
        )


def from_voxels(
    voxels: Voxels, splats: Splats, ground: NDArray, anchor: Anchor | None = None
) -> Gaussians:
    """The Gaussians of `voxels` in space, in their order.

    voxels, splats : as a world gives them for a tile
    ground : (ny, nx) float32 on the voxels' frame, height of the terrain, metres
    anchor : of the result, the frame's own where None

    A mean is the centre of its voxel (the ground under its column counts as height 0 of the
    lattice) plus the splat's offset, summed in float64 before the anchor is taken off.

    Raises
    ------
    FrameError
        if the ground does not lie on the voxels' frame, or the numbers of voxels and splats differ
    """
    frame = voxels.frame
    if ground.shape != frame.shape or len(splats) != len(voxels):
        raise FrameError(
            f"ground of shape {ground.shape} and {len(splats)} splats do not fit {len(voxels)} voxels on {frame}"
        )
    at = frame.anchor if anchor is None else anchor
    s = frame.voxel_size
    positions = (voxels.xyz.astype(np.float64) + 0.5) * s + splats.offset
    positions[:, 2] += ground[frame.y[1] - 1 - voxels.xyz[:, 1], voxels.xyz[:, 0] - frame.x[0]]
    return Gaussians(
        anchor=at,
        crs=frame.crs,
        vertical_crs=frame.vertical_crs,
        means=(positions - np.asarray(at, np.float64)).astype(np.float32),
        scales=splats.scale.astype(np.float32, copy=False),
        rotations=_unit(splats.rotation),
        opacities=splats.opacity.astype(np.float32, copy=False),
        sh=splats.sh.astype(np.float32, copy=False),
        semantic=voxels.semantic,
    )


def _unit(rotation: NDArray) -> NDArray:
    """(n, 4) float32 quaternions of length 1: stores keep them in half precision."""
    length = np.linalg.norm(rotation.astype(np.float64), axis=1, keepdims=True)
    return (rotation / np.where(length > 0, length, 1)).astype(np.float32)
