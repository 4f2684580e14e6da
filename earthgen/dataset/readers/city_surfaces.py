"""Surfaces of CityJSON geometries: rings of points with semantic type, material and texture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen.dataset.readers.polygons import newell

DEPTH = {"MultiSurface": 1, "CompositeSurface": 1, "Solid": 2, "MultiSolid": 3, "CompositeSolid": 3}
"""How deep surfaces are nested in the boundaries of each type of geometry."""

STEEP = 0.9
"""A face looks down if the z of its unit normal is below minus this."""


@dataclass(frozen=True)
class Surface:
    """A polygon of an object.

    Attributes
    ----------
    rings : tuple[NDArray, ...]
        (n, 3) float64 each: the outer ring and the holes.
    kind : str
        Semantic type, such as "RoofSurface"; empty without one.
    material : int | None
        Index of its material.
    texture : tuple[int, tuple[int, ...]] | None
        Index of the picture, and the index of the texture coordinate of each point of all rings.
    code, role : int
        Class and role, as in `earthgen.dataset.readers.triangles.Patch`.
    """

    rings: tuple[NDArray, ...]
    kind: str = ""
    material: int | None = None
    texture: tuple[int, tuple[int, ...]] | None = None
    code: int = 0
    role: int = 0

    def of_class(self, code: int, role: int) -> Surface:
        """Return the surface with a class and a role."""
        return replace(self, code=code, role=role)

    def facing_up(self) -> Surface:
        """Return the surface wound to look up; terrain is often wound either way."""
        return self.reversed() if self._normal()[2] < 0 else self

    def reversed(self) -> Surface:
        """Return the surface seen from its other side."""
        texture = None
        if self.texture is not None:
            places, ends = np.array(self.texture[1]), np.cumsum([len(ring) for ring in self.rings])
            turned = np.concatenate([part[::-1] for part in np.split(places, ends[:-1])])
            texture = self.texture[0], tuple(turned.tolist())
        return replace(self, rings=tuple(ring[::-1] for ring in self.rings), texture=texture)

    def looks_down_below(self, height: float) -> bool:
        """Whether the surface looks down and lies below a height in metres."""
        return bool(self._normal()[2] < -STEEP and self.rings[0][:, 2].max() <= height)

    def _normal(self) -> NDArray:
        normal = newell(self.rings[0])
        return np.asarray(normal / max(float(np.linalg.norm(normal)), 1e-12))


def surfaces_of(
    geometry: Mapping[str, Any], points: NDArray, *, mirrored: bool = False
) -> list[Surface]:
    """Return the surfaces of a geometry in the order of its boundaries.

    Parameters
    ----------
    geometry : mapping
        A geometry object of CityJSON.
    points : NDArray (n, 3)
        Vertices that its boundaries refer to.
    mirrored : bool
        Whether the points are a mirror image of the object, which reverses every winding.

    Raises
    ------
    KeyError, IndexError, TypeError, ValueError
        if it is damaged: the caller knows the object and the file
    """
    kind = geometry["type"]
    if kind not in DEPTH:
        raise ValueError(f"unknown type of geometry {kind!r}")
    depth = DEPTH[kind]
    semantics = geometry.get("semantics") or {}
    names = [str(surface["type"]) for surface in semantics.get("surfaces", ())]
    material, texture = _of_theme(geometry.get("material")), _of_theme(geometry.get("texture"))
    one_for_all = None if material is None else material.get("value")
    nested = _together(
        geometry["boundaries"],
        (
            semantics.get("values"),
            None if material is None else material.get("values"),
            None if texture is None else texture.get("values"),
        ),
        depth,
    )
    out = []
    for rings, (semantic, own_material, places) in nested:
        loops = tuple(points[_indices(ring, len(points))] for ring in rings)
        kept = [n for n, loop in enumerate(loops) if len(loop) >= 3]
        if 0 not in kept:
            continue  # a surface without an outer ring has no area
        surface = Surface(
            tuple(loops[n] for n in kept),
            names[semantic] if semantic is not None else "",
            one_for_all if own_material is None else own_material,
            _places(places, loops, kept),
        )
        out.append(surface.reversed() if mirrored else surface)
    return out


def _indices(ring: Any, count: int) -> NDArray:
    index = np.asarray(ring)
    if index.ndim != 1 or (len(index) and index.dtype.kind not in "iu"):
        raise TypeError("a ring is not a list of indices of vertices")
    if len(index) and not (index.min() >= 0 and index.max() < count):
        raise IndexError(f"a ring names vertex {int(index.max())} of {count}")
    return index.astype(np.int64)


def _of_theme(themes: Any) -> Mapping[str, Any] | None:
    """Return the appearance of the first theme of a geometry."""
    return next(iter(themes.values())) if isinstance(themes, Mapping) and themes else None


def _together(
    boundaries: Any, beside: tuple[Any, ...], depth: int
) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield each surface with the values at its place in each of `beside`. There, None applies to
    everything below it."""
    for n, inner in enumerate(boundaries):
        values = tuple(None if each is None else each[n] for each in beside)
        if depth == 1:
            yield inner, values
        else:
            yield from _together(inner, values, depth - 1)


def _places(
    rings: Any, loops: tuple[NDArray, ...], kept: list[int]
) -> tuple[int, tuple[int, ...]] | None:
    """Return the texture of a surface, given for each ring as its picture and then the coordinates
    of its points."""
    if not rings or not rings[0] or rings[0][0] is None:
        return None
    out: list[int] = []
    for n in kept:
        values = rings[n]
        if len(values) != 1 + len(loops[n]):
            raise ValueError("a ring has more or fewer texture coordinates than points")
        out += [int(value) for value in values[1:]]
    return int(rings[0][0]), tuple(out)
