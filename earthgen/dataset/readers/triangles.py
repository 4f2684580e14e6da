"""Triangles in the one form in which all mesh readers give them, and samples of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from earthgen.errors import JobError
from geo_io.errors import InputError
from geo_io.frame import Bounds
from geo_io.safety.limits import FARTHEST, LONGEST_EDGE

DENSITY = 3.0
"""Number of samples along a voxel's edge."""

MOST_SAMPLES = 60_000_000
"""Largest number of samples of the meshes of a scene."""

LONGEST = 12.0
"""Longest edge of a triangle that is sampled, in voxels. Longer ones are cut, because the number of
samples of a thin triangle grows with the square of its length."""

SURFACE, FOOT, TERRAIN = 0, 1, 2
"""Roles of a triangle: surface of an object, foot of an object, or the ground itself."""


@dataclass(frozen=True)
class Patch:
    """Triangles with one texture, or none, wound counter-clockwise seen from outside.

    Attributes
    ----------
    corners : NDArray (n, 3, 3) float64
        Triangle, corner, xyz: metres, z up.
    rgb : NDArray (n, 3, 3) float64
        Colours of the corners, 0 to 255.
    seen : NDArray (n,) bool
        Whether the colours are known.
    code : NDArray (n,) uint8
        Class codes, 0 for unknown.
    role : NDArray (n,) uint8
        SURFACE, FOOT or TERRAIN.
    uv : NDArray (n, 3, 2) float64 | None
        Texture coordinates from the lower left corner.
    texels : NDArray (h, w, 3) uint8 | None
        The texture, which is used instead of `rgb`.
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
        """Return the triangles of a mask or of indices."""
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
        """Return the triangles whose box meets some bounds, or all of them without bounds.

        Parameters
        ----------
        bounds : tuple[float, float, float, float] | None
            Left, bottom, right, top, metres.
        margin : float
            Metres that the bounds are widened by.
        """
        if bounds is None:
            return self
        low, high = self.corners[..., :2].min(axis=1), self.corners[..., :2].max(axis=1)
        inside = (high >= np.array(bounds[:2]) - margin).all(axis=1) & (
            low <= np.array(bounds[2:]) + margin
        ).all(axis=1)
        return self if inside.all() else self.select(inside)

    def cut(self, longest: float) -> Patch:
        """Return the surface in triangles with edges of at most `longest` metres.

        Triangles are halved at their longest edge.
        """
        patch = self
        while True:
            sides = np.linalg.norm(np.roll(patch.corners, -1, axis=1) - patch.corners, axis=2)
            long = sides.max(axis=1) > longest
            if not long.any():
                return patch
            # Turned so that the longest edge comes first, then cut from its middle to the
            # opposite corner.
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
        """Return the triangles with other corners, (n, 3, 3) float64."""
        return replace(self, corners=corners)


def _joined(parts: list[Patch]) -> Patch:
    """Join patches that have one texture."""

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
    """Make a patch without known colours from (n, 3, 3) corners, and codes and roles if any."""
    n = len(corners)
    return Patch(
        corners,
        np.full((n, 3, 3), 128.0),
        np.zeros(n, bool),
        np.zeros(n, np.uint8) if code is None else code,
        np.zeros(n, np.uint8) if role is None else role,
    )


def require_sound(patch: Patch, where: str) -> None:
    """Check that triangles can be of a place on Earth, before they are cut and sampled.

    Parameters
    ----------
    patch : Patch
        The triangles.
    where : str
        Their file, for messages.

    Raises
    ------
    InputError
        if a coordinate or a colour is not a number, a corner is farther than `FARTHEST`, or an
        edge longer than `LONGEST_EDGE`
    """
    problem = ""
    with np.errstate(over="ignore", invalid="ignore"):
        values = [patch.corners, patch.rgb, *([] if patch.uv is None else [patch.uv])]
        if not all(np.isfinite(each).all() for each in values):
            problem = "holds numbers that are not finite"
        elif len(patch) and np.abs(patch.corners).max() > FARTHEST:
            far = float(np.abs(patch.corners).max())
            problem = f"has a corner at {far:.3g} m, farther than any place on Earth"
        elif len(patch):
            sides = patch.corners - np.roll(patch.corners, 1, axis=1)
            longest = float(np.linalg.norm(sides, axis=2).max())
            if longest > LONGEST_EDGE:
                problem = (
                    f"has a triangle with an edge of {longest:,.0f} m, longer than "
                    f"{LONGEST_EDGE:,.0f} m"
                )
        if patch.texels is not None and not patch.texels.size:
            problem = problem or "has a texture without pixels"
    if problem:
        raise InputError(f"{where} {problem}", "repair the mesh, or leave that part out")


@dataclass(frozen=True)
class Samples:
    """Points on surfaces.

    Attributes
    ----------
    at : NDArray (n, 3) float64
        Places, metres.
    normal : NDArray (n, 3) float64
        Unit normals of their triangles.
    rgb : NDArray (n, 3) uint8
        Colours.
    seen : NDArray (n,) bool
        Whether the colours are known.
    code, role : NDArray (n,) uint8
        As in `Patch`.
    """

    at: NDArray
    normal: NDArray
    rgb: NDArray
    seen: NDArray
    code: NDArray
    role: NDArray

    def __len__(self) -> int:
        return len(self.at)

    def select(self, keep: NDArray) -> Samples:
        """Return the samples of a mask or of indices."""
        return Samples(
            self.at[keep],
            self.normal[keep],
            self.rgb[keep],
            self.seen[keep],
            self.code[keep],
            self.role[keep],
        )


def sample(patches: Iterable[Patch], size: float) -> Samples:
    """Sample patches on a regular pattern over each triangle. The result is deterministic.

    Parameters
    ----------
    patches : Iterable[Patch]
        The triangles.
    size : float
        Voxel size, metres. There are `DENSITY` samples along a voxel's edge.

    Raises
    ------
    JobError
        if there would be more than `MOST_SAMPLES`
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
        empty = np.zeros((0, 3))
        return Samples(
            empty,
            empty,
            empty.astype(np.uint8),
            *(np.zeros(0, kind) for kind in (bool, np.uint8, np.uint8)),
        )
    names = ("at", "normal", "rgb", "seen", "code", "role")
    return Samples(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _least(patch: Patch, size: float) -> int:
    """Return the number of samples that the area of a patch needs at least."""
    one, other = (
        patch.corners[:, 1] - patch.corners[:, 0],
        patch.corners[:, 2] - patch.corners[:, 0],
    )
    return int(np.linalg.norm(np.cross(one, other), axis=1).sum() / 2 * (DENSITY / size) ** 2)


def _too_many(count: int) -> JobError:
    return JobError(
        f"a mesh needs {count:,} samples, more than {MOST_SAMPLES:,}",
        "use larger voxels, or give bounds and a part of the mesh",
    )


def _steps(patch: Patch, size: float) -> NDArray:
    """Return (n,) int64: the number of parts that the edges of each triangle are divided into."""
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
    """Return the colours of samples from the texture or the corners, and which are known."""
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
