"""Triangles as every reader of meshes gives them, and samples of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from earthgen.errors import JobError
from geo_io.frame import Bounds

DENSITY = 3.0
"""Samples along a voxel's edge."""

MOST_SAMPLES = 60_000_000

LONGEST = 12.0
"""Voxels along the longest edge of a triangle that is sampled: longer ones are cut, for the
samples of a sliver grow with the square of its length."""

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
    uv, texels : (n, 3, 2) float64, from the lower left, and (h, w, 3) uint8: a texture, instead of
        `rgb`
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
            self.corners[keep],
            self.rgb[keep],
            self.seen[keep],
            self.code[keep],
            self.role[keep],
            uv,
            self.texels,
        )

    def within(self, bounds: Bounds | None, margin: float) -> Patch:
        """The triangles whose box meets bounds that are wider by `margin` metres; all of them
        without bounds."""
        if bounds is None:
            return self
        low, high = self.corners[..., :2].min(axis=1), self.corners[..., :2].max(axis=1)
        inside = (high >= np.array(bounds[:2]) - margin).all(axis=1) & (
            low <= np.array(bounds[2:]) + margin
        ).all(axis=1)
        return self if inside.all() else self.select(inside)

    def cut(self, longest: float) -> Patch:
        """The same surface in triangles whose edges are no longer than so many metres, halved at
        their longest edge."""
        patch = self
        while True:
            sides = np.linalg.norm(np.roll(patch.corners, -1, axis=1) - patch.corners, axis=2)
            long = sides.max(axis=1) > longest
            if not long.any():
                return patch
            # Turned so that the longest edge comes first, then cut from its middle to the corner
            # across.
            turn = (sides[long].argmax(axis=1)[:, None] + np.arange(3)) % 3
            first, second = patch.select(long)._halves(turn)
            patch = _joined([patch.select(~long), first, second])

    def _halves(self, turn: NDArray) -> tuple[Patch, Patch]:
        def halved(values: NDArray) -> tuple[NDArray, NDArray]:
            a, b, c = np.moveaxis(np.take_along_axis(values, turn[..., None], axis=1), 1, 0)
            middle = 0.5 * (a + b)
            return np.stack([a, middle, c], axis=1), np.stack([middle, b, c], axis=1)

        corners, rgb = halved(self.corners), halved(self.rgb)
        uv = (None, None) if self.uv is None else halved(self.uv)
        one, other = (
            Patch(corners[n], rgb[n], self.seen, self.code, self.role, uv[n], self.texels)
            for n in (0, 1)
        )
        return one, other

    def moved(self, corners: NDArray) -> Patch:
        """The same triangles elsewhere."""
        return replace(self, corners=corners)


def _joined(parts: list[Patch]) -> Patch:
    """Patches of one look as one."""

    def every(name: str) -> NDArray:
        return np.concatenate([getattr(part, name) for part in parts])

    uv = None if parts[0].uv is None else every("uv")
    return Patch(
        every("corners"),
        every("rgb"),
        every("seen"),
        every("code"),
        every("role"),
        uv,
        parts[0].texels,
    )


def plain_patch(
    corners: NDArray, code: NDArray | None = None, role: NDArray | None = None
) -> Patch:
    """A patch of which no colour is known."""
    n = len(corners)
    return Patch(
        corners,
        np.full((n, 3, 3), 128.0),
        np.zeros(n, bool),
        np.zeros(n, np.uint8) if code is None else code,
        np.zeros(n, np.uint8) if role is None else role,
    )


@dataclass(frozen=True)
class Samples:
    """Points on surfaces: at (n, 3) float64 metres, normal (n, 3), rgb (n, 3) uint8, seen (n,)
    bool, code and role (n,) uint8 as of `Patch`."""

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
            self.at[keep],
            self.normal[keep],
            self.rgb[keep],
            self.seen[keep],
            self.code[keep],
            self.role[keep],
        )


def sample(patches: Iterable[Patch], size: float) -> Samples:
    """Samples on a regular pattern over each triangle, `DENSITY` along a voxel's edge of `size`
    metres.

    A mesh is always sampled alike.

    Raises
    ------
    JobError
        if there would be more than MOST_SAMPLES
    """
    parts: list[Samples] = []
    total = 0
    for patch in patches:
        if not len(patch):
            continue
        if _least(patch, size) > MOST_SAMPLES:
            raise _too_many(_least(patch, size))
        patch = patch.cut(LONGEST * size)
        steps = _steps(patch, size)
        total += int(((steps + 1) * (steps + 2) // 2).sum())
        if total > MOST_SAMPLES:
            raise _too_many(total)
        parts.append(_sample(patch, steps))
    if not parts:
        none = np.zeros((0, 3))
        return Samples(
            none,
            none,
            none.astype(np.uint8),
            *(np.zeros(0, kind) for kind in (bool, np.uint8, np.uint8)),
        )
    names = ("at", "normal", "rgb", "seen", "code", "role")
    return Samples(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _least(patch: Patch, size: float) -> int:
    """Samples that the area of a patch alone asks for."""
    one, other = (
        patch.corners[:, 1] - patch.corners[:, 0],
        patch.corners[:, 2] - patch.corners[:, 0],
    )
    return int(np.linalg.norm(np.cross(one, other), axis=1).sum() / 2 * (DENSITY / size) ** 2)


def _too_many(count: int) -> JobError:
    return JobError(
        f"a mesh would need {count:,} samples",
        "take larger voxels, or give bounds and a part of it",
    )


def _steps(patch: Patch, size: float) -> NDArray:
    """(n,) int64: parts that the edges of each triangle are cut into."""
    sides = patch.corners - np.roll(patch.corners, 1, axis=1)
    longest = np.linalg.norm(sides, axis=2).max(axis=1)
    return np.maximum(np.ceil(longest / size * DENSITY).astype(np.int64), 1)


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
    if not patch.seen.any():
        return np.full((len(face), 3), 128, np.uint8), np.zeros(len(face), bool)
    mixed = np.einsum("sk,skd->sd", weight, patch.rgb[face])
    return np.clip(np.round(mixed), 0, 255).astype(np.uint8), patch.seen[face]
