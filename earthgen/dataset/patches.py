"""Triangles as every reader of meshes gives them, and samples of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from earthgen.dataset.errors import RecipeError
from geo_io.frame import Bounds

DENSITY = 3.0
"""Samples along a voxel's edge."""

MOST_SAMPLES = 60_000_000

SURFACE, FOOT, TERRAIN = 0, 1, 2
"""Roles of a triangle: of something; where something meets the ground; the ground itself."""


@dataclass(frozen=True)
class Patch:
    """Triangles of one look, wound counter-clockwise seen from outside.

    Attributes
    ----------
    corners : (n, 3, 3) float64, triangle, corner, xyz: metres, z up
    rgb : (n, 3, 3) float64, colours of the corners, 0 to 255
    seen : (n,) bool, whether these are known
    uv, texels : (n, 3, 2) float64, from the lower left, and (h, w, 3) uint8: a texture, instead of `rgb`
    code : (n,) uint8 class codes, 0 for none
    role : (n,) uint8, SURFACE, FOOT or TERRAIN
    """

    corners: NDArray
    rgb: NDArray
    seen: NDArray
    code: NDArray
    role: NDArray
    uv: NDArray | None = None
    texels: NDArray | None = None

    def __len__(self) -> int:
        return len(self.corners)

    def select(self, keep: NDArray) -> Patch:
        """The triangles of a mask or of indices."""
        uv = None if self.uv is None else self.uv[keep]
        return Patch(
            self.corners[keep], self.rgb[keep], self.seen[keep], self.code[keep], self.role[keep], uv, self.texels
        )

    def within(self, bounds: Bounds | None, margin: float) -> Patch:
        """The triangles whose box meets bounds that are wider by `margin` metres; all of them without bounds."""
        if bounds is None:
            return self
        low, high = self.corners[..., :2].min(axis=1), self.corners[..., :2].max(axis=1)
        inside = (high >= np.array(bounds[:2]) - margin).all(axis=1) & (low <= np.array(bounds[2:]) + margin).all(
            axis=1
        )
        return self if inside.all() else self.select(inside)

    def moved(self, corners: NDArray) -> Patch:
        """The same triangles elsewhere."""
        return replace(self, corners=corners)


def plain_patch(corners: NDArray, code: NDArray | None = None, role: NDArray | None = None) -> Patch:
    """A patch of which no colour is known."""
    n = len(corners)
    return Patch(
        corners, np.full((n, 3, 3), 128.0), np.zeros(n, bool), np.zeros(n, np.uint8) if code is None else code,
        np.zeros(n, np.uint8) if role is None else role,
    )  # fmt: skip


@dataclass(frozen=True)
class Samples:
    """Points on surfaces: at (n, 3) float64 metres, normal (n, 3), rgb (n, 3) uint8, seen (n,) bool, code and role (n,)
    uint8 as of `Patch`."""

    at: NDArray
    normal: NDArray
    rgb: NDArray
    seen: NDArray
    code: NDArray
    role: NDArray

    def __len__(self) -> int:
        return len(self.at)

    def select(self, keep: NDArray) -> Samples:
        return Samples(
            self.at[keep], self.normal[keep], self.rgb[keep], self.seen[keep], self.code[keep], self.role[keep]
        )


def sample(patches: Iterable[Patch], size: float) -> Samples:
    """Samples on a regular pattern over each triangle, `DENSITY` along a voxel's edge of `size` metres.

    A mesh is always sampled alike.

    Raises
    ------
    RecipeError
        if there would be more than MOST_SAMPLES
    """
    parts: list[Samples] = []
    total = 0
    for patch in patches:
        if not len(patch):
            continue
        steps = _steps(patch, size)
        total += int(((steps + 1) * (steps + 2) // 2).sum())
        if total > MOST_SAMPLES:
            raise RecipeError(
                f"a mesh would need {total:,} samples", "take larger voxels, or give bounds and a part of it"
            )
        parts.append(_sample(patch, steps))
    if not parts:
        none = np.zeros((0, 3))
        return Samples(none, none, none.astype(np.uint8), *(np.zeros(0, kind) for kind in (bool, np.uint8, np.uint8)))
    names = ("at", "normal", "rgb", "seen", "code", "role")
    return Samples(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _steps(patch: Patch, size: float) -> NDArray:
    """(n,) int64: parts that the edges of each triangle are cut into."""
    sides = patch.corners - np.roll(patch.corners, 1, axis=1)
    longest = np.linalg.norm(sides, axis=2).max(axis=1)
    return np.clip(np.ceil(longest / size * DENSITY).astype(np.int64), 1, 4096)


def _sample(patch: Patch, steps: NDArray) -> Samples:
    corners = patch.corners
    points, owner, weights = [], [], []
    for step in np.unique(steps):
        faces = np.flatnonzero(steps == step)
        i, j = np.meshgrid(np.arange(step + 1), np.arange(step + 1), indexing="ij")
        inside = i + j <= step
        weight = np.stack([i[inside], j[inside], step - i[inside] - j[inside]], axis=1) / step
        points.append(np.einsum("sk,fkd->fsd", weight, corners[faces]).reshape(-1, 3))
        owner.append(np.repeat(faces, len(weight)))
        weights.append(np.tile(weight, (len(faces), 1)))
    at, face, weight = np.concatenate(points), np.concatenate(owner), np.concatenate(weights)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal = across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-12)
    rgb, seen = _colours(patch, face, weight)
    return Samples(at, normal[face], rgb, seen, patch.code[face], patch.role[face])


def _colours(patch: Patch, face: NDArray, weight: NDArray) -> tuple[NDArray, NDArray]:
    """Colours of samples from the texture, else of the corners."""
    if patch.uv is not None and patch.texels is not None:
        texels = patch.texels
        place = np.einsum("sk,skd->sd", weight, patch.uv[face]) % 1.0
        x = np.minimum((place[:, 0] * texels.shape[1]).astype(np.int64), texels.shape[1] - 1)
        y = np.minimum(((1 - place[:, 1]) * texels.shape[0]).astype(np.int64), texels.shape[0] - 1)
        return texels[y, x], patch.seen[face]
    mixed = np.einsum("sk,skd->sd", weight, patch.rgb[face])
    return np.clip(np.round(mixed), 0, 255).astype(np.uint8), patch.seen[face]
