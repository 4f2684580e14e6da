"""Georeferenced Gaussians: float32 means relative to a float64 anchor in a CRS.

A world stores each Gaussian relative to its voxel (`earthgen.voxels.voxels.Splats`); these have
positions in space.
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
"""Largest difference between the length of a quaternion and 1. Half precision, in which worlds
store them, is precise to 5e-4."""

ARRAYS = ("means", "scales", "rotations", "opacities", "sh", "semantic")
"""Fields of `Gaussians` with one row for each Gaussian."""


@dataclass(frozen=True)
class Gaussians:
    """2D Gaussians (discs) in space.

    Axes are east, north, up in the projected CRS, right-handed, z up. Creating an object checks
    shapes only; `check` checks the values.

    Attributes
    ----------
    anchor : tuple of float
        Origin of `means`: east, north, up in metres of the CRS.
    crs, vertical_crs : str
        CRSs, see `geo_io.frame.Frame`.
    means : NDArray (n, 3) float32
        Metres from the anchor.
    scales : NDArray (n, 2) float32
        Standard deviations along the disc's two axes, metres.
    rotations : NDArray (n, 4) float32
        Unit quaternions (w, x, y, z) that rotate the z axis to the disc's normal.
    opacities : NDArray (n,) float32
        In [0, 1].
    sh : NDArray (n, k, 3) float32
        Spherical harmonics coefficients of the sRGB colour, k = (degree + 1)^2.
    semantic : NDArray (n,) uint8
        Class codes of `geo_io.legend`.

    Raises
    ------
    FrameError
        If a shape does not match.
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
                    f"{name} of shape {getattr(self, name).shape} do not match {n} Gaussians"
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
        """(n, 3) float64 east, north, up in metres of the CRS."""
        return self.means.astype(np.float64) + np.asarray(self.anchor)

    def faults(self) -> dict[str, NDArray]:
        """Find invalid values.

        Returns
        -------
        dict
            (n,) bool for each kind of fault that occurs: which Gaussians have it.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            length = np.linalg.norm(self.rotations.astype(np.float64), axis=1)
            finite = {
                name: np.isfinite(getattr(self, name)).all(
                    axis=tuple(range(1, getattr(self, name).ndim))
                )
                for name in ("means", "scales", "rotations", "opacities", "sh")
            }
            faults = {f"NaN or infinity among their {name}": ~good for name, good in finite.items()}
            faults["scales that are not above 0"] = finite["scales"] & (self.scales <= 0).any(
                axis=1
            )
            faults["quaternions of another length than 1"] = finite["rotations"] & (
                np.abs(length - 1) > UNIT_TOLERANCE
            )
            faults["opacities outside [0, 1]"] = finite["opacities"] & (
                (self.opacities < 0) | (self.opacities > 1)
            )
        return {what: rows for what, rows in faults.items() if rows.any()}

    def check(self) -> Gaussians:
        """Check the values and return these Gaussians.

        Raises
        ------
        SplatError
            If there are NaN, infinities, scales that are not positive, quaternions of another
            length than 1, or opacities outside [0, 1]. The message counts each fault and names the
            first Gaussian with it.
        """
        faults = self.faults()
        if faults:
            texts = [
                f"{rows.sum()} have {what} (the first is {rows.argmax()})"
                for what, rows in faults.items()
            ]
            raise SplatError(
                f"of {len(self)} Gaussians {'; '.join(texts)}",
                "remove them with take(valid()), or correct them",
            )
        return self

    def valid(self) -> NDArray:
        """(n,) bool: which Gaussians have valid values, see `check`."""
        good = np.ones(len(self), bool)
        for rows in self.faults().values():
            good &= ~rows
        return good

    def take(self, index: NDArray) -> Gaussians:
        """Select Gaussians by a mask or by integers."""
        return replace(self, **{name: getattr(self, name)[index] for name in ARRAYS})

    @classmethod
    def concatenate(cls, parts: Sequence[Gaussians]) -> Gaussians:
        """Join Gaussians with the same anchor and CRS, in their order.

        Raises
        ------
        FrameError
            If there is no part, or two differ in anchor, CRS or vertical CRS.
        """
        if not parts:
            raise FrameError("there are no Gaussians to join", "give at least one part")
        first = parts[0]
        for part in parts[1:]:
            if (part.anchor, part.crs, part.vertical_crs) != (
                first.anchor,
                first.crs,
                first.vertical_crs,
            ):
                raise FrameError(
                    f"Gaussians with the anchor {part.anchor} in {part.crs} cannot be joined with "
                    f"those with {first.anchor} in {first.crs}",
                    "give them one anchor with earthgen.splats.reanchor",
                )
        whole: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS
        }
        return replace(first, **whole)

    @classmethod
    def empty(
        cls, anchor: Anchor, crs: str, vertical_crs: str = UNKNOWN_DATUM, degree: int = 0
    ) -> Gaussians:
        """Create an object without Gaussians."""
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
    """Compute the Gaussians of voxels in space, in their order.

    A mean is the centre of its voxel plus the splat's offset; height 0 of the lattice is the ground
    of the column. It is summed in float64 before the anchor is subtracted.

    Parameters
    ----------
    voxels, splats : Voxels, Splats
        n voxels of a world and their splats.
    ground : NDArray (ny, nx) float32
        Height of the terrain on the voxels' frame, metres.
    anchor : tuple of float, optional
        Anchor of the result; by default that of the frame.

    Raises
    ------
    FrameError
        If the ground does not have the shape of the frame, or the numbers of voxels and splats
        differ.
    """
    frame = voxels.frame
    if ground.shape != frame.shape or len(splats) != len(voxels):
        raise FrameError(
            f"ground of shape {ground.shape} and {len(splats)} splats do not match {len(voxels)} "
            f"voxels on {frame}"
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
    """(n, 4) float32 quaternions of length 1; worlds store them in half precision."""
    length = np.linalg.norm(rotation.astype(np.float64), axis=1, keepdims=True)
    return (rotation / np.where(length > 0, length, 1)).astype(np.float32)
