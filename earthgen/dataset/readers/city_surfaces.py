"""Surfaces of CityJSON geometries: rings of points, what they are called, how they look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen.dataset.readers.polygons import newell

DEPTH = {"MultiSurface": 1, "CompositeSurface": 1, "Solid": 2, "MultiSolid": 3, "CompositeSolid": 3}
"""Lists around a surface in the boundaries of each type of geometry."""

STEEP = 0.9
"""A face looks down whose unit normal's z is below minus this."""


@dataclass(frozen=True)
class Surface:
    """A polygon of an object.

    rings : (n, 3) float64 each, the outer one and the holes
    kind : its semantic type, such as "RoofSurface", "" for none
    material : index of its material, None for none
    texture : (index of the picture, index of the place in it for each point of all rings), None for
        none
    code, role : class and role as of `earthgen.dataset.readers.triangles.Patch`
    """

    rings: tuple[NDArray, ...]
    kind: str = ""
    material: int | None = None
    texture: tuple[int, tuple[int, ...]] | None = None
    code: int = 0
    role: int = 0

    def of_class(self, code: int, role: int) -> Surface:
        return replace(self, code=code, role=role)

    def facing_up(self) -> Surface:
        """The surface wound so that it looks up: terrain is often wound either way."""
        return self.reversed() if self._normal()[2] < 0 else self

    def reversed(self) -> Surface:
        texture = None
        if self.texture is not None:
            places, ends = np.array(self.texture[1]), np.cumsum([len(ring) for ring in self.rings])
            turned = np.concatenate([part[::-1] for part in np.split(places, ends[:-1])])
            texture = self.texture[0], tuple(turned.tolist())
        return replace(self, rings=tuple(ring[::-1] for ring in self.rings), texture=texture)

    def looks_down_below(self, height: float) -> bool:
        """Whether it looks down and lies below a height, metres."""
        return bool(self._normal()[2] < -STEEP and self.rings[0][:, 2].max() <= height)

    def _normal(self) -> NDArray:
        normal = newell(self.rings[0])
        return np.asarray(normal / max(float(np.linalg.norm(normal)), 1e-12))


def surfaces_of(
    geometry: Mapping[str, Any], points: NDArray, *, mirrored: bool = False
) -> list[Surface]:
    """The surfaces of a geometry on `points` (n, 3), in the order of its boundaries.

    mirrored : whether the points are a mirror image of the object, which turns every winding

    Raises
    ------
    KeyError, IndexError, TypeError, ValueError
        if it is damaged: the caller knows the object and the file
    """
    kind = geometry["type"]
    if kind not in DEPTH:
        raise ValueError(f"there is no geometry of the type {kind!r}")
    depth = DEPTH[kind]
    semantics = geometry.get("semantics") or {}
    names = [str(surface["type"]) for surface in semantics.get("surfaces", ())]
    material, texture = _of_theme(geometry.get("material")), _of_theme(geometry.get("texture"))
    one_for_all = None if material is None else material.get("value")
    walk = _together(
        geometry["boundaries"],
        (
            semantics.get("values"),
            None if material is None else material.get("values"),
            None if texture is None else texture.get("values"),
        ),
        depth,
    )
    out = []
    for rings, (semantic, look, places) in walk:
        loops = tuple(points[_indices(ring, len(points))] for ring in rings)
        kept = [n for n, loop in enumerate(loops) if len(loop) >= 3]
        if 0 not in kept:
            continue  # a surface without an outer ring has no area
        surface = Surface(
            tuple(loops[n] for n in kept),
            names[semantic] if semantic is not None else "",
            one_for_all if look is None else look,
            _places(places, loops, kept),
        )
        out.append(surface.reversed() if mirrored else surface)
    return out


def _indices(ring: Any, count: int) -> NDArray:
    index = np.asarray(ring)
    if index.ndim != 1 or (len(index) and index.dtype.kind not in "iu"):
        raise TypeError("a ring is a list of indices of vertices")
    if len(index) and not (index.min() >= 0 and index.max() < count):
        raise IndexError(f"a ring names vertex {int(index.max())} of {count}")
    return index.astype(np.int64)


def _of_theme(themes: Any) -> Mapping[str, Any] | None:
    """The looks of the first theme of a geometry."""
    return next(iter(themes.values())) if isinstance(themes, Mapping) and themes else None


def _together(
    boundaries: Any, beside: tuple[Any, ...], depth: int
) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """(surface, what stands at its place in each of `beside`); None in these stands for all that
    is in that place."""
    for n, inner in enumerate(boundaries):
        values = tuple(None if each is None else each[n] for each in beside)
        if depth == 1:
            yield inner, values
        else:
            yield from _together(inner, values, depth - 1)


def _places(
    rings: Any, loops: tuple[NDArray, ...], kept: list[int]
) -> tuple[int, tuple[int, ...]] | None:
    """The texture of a surface: per ring its picture and then the places of its points."""
    if not rings or not rings[0] or rings[0][0] is None:
        return None
    out: list[int] = []
    for n in kept:
        values = rings[n]
        if len(values) != 1 + len(loops[n]):
            raise ValueError("a ring has not as many places in its texture as points")
        out += [int(value) for value in values[1:]]
    return int(rings[0][0]), tuple(out)
