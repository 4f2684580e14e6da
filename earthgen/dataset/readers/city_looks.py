"""How surfaces of CityJSON look: materials, and pictures beside the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from earthgen.dataset.readers.city_surfaces import Surface
from earthgen.dataset.readers.local_files import local_file
from earthgen.dataset.readers.polygons import triangulate
from earthgen.dataset.readers.triangles import Patch, plain_patch
from geo_io.errors import InputError, MissingFileError


@dataclass(frozen=True)
class Looks:
    """The appearance of a document.

    colours : (n, 3) float64, diffuse colours of materials, 0 to 255, NaN for none
    pictures : what the textures name
    places : (n, 2) float64, from the lower left, in 0 to 1
    """

    colours: NDArray
    pictures: tuple[Any, ...]
    places: NDArray

    @classmethod
    def of(cls, document: Mapping[str, Any], path: Path) -> Looks:
        """Raises InputError where the appearance is damaged."""
        held = document.get("appearance") or {}
        try:
            none = (np.nan,) * 3
            colours = np.array(
                [each.get("diffuseColor", none) for each in held.get("materials", ())], np.float64
            )
            places = np.asarray(held.get("vertices-texture", ()), np.float64).reshape(-1, 2)
            pictures = tuple(each["image"] for each in held.get("textures", ()))
            return cls(colours.reshape(-1, 3) * 255, pictures, places)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"the appearance of {path} is damaged ({error})", "check the file with cjval"
            ) from error


def patches_of(surfaces: Sequence[Surface], looks: Looks, path: Path) -> Iterator[Patch]:
    """A patch of all surfaces without a texture, and one for each picture.

    Raises
    ------
    InputError
        if a surface names a material, a picture or a place in it that is not there, or a picture
        cannot be read
    InputError, MissingFileError
        if a picture lies outside the file's folder, or is not there
    """
    by_picture: dict[int, list[Surface]] = {}
    for surface in surfaces:
        by_picture.setdefault(-1 if surface.texture is None else surface.texture[0], []).append(
            surface
        )
    for number in sorted(by_picture):
        part = by_picture[number]
        triangles = triangulate([surface.rings for surface in part])
        code = np.array([surface.code for surface in part], np.uint8)[triangles.owner]
        role = np.array([surface.role for surface in part], np.uint8)[triangles.owner]
        plain = plain_patch(triangles.corners, code, role)
        if number < 0:
            colours = _colours(part, looks, path)[triangles.owner]
            seen = np.isfinite(colours).all(axis=1)
            rgb = np.where(seen[:, None], colours, 128.0)
            yield Patch(plain.corners, np.repeat(rgb[:, None], 3, axis=1), seen, code, role)
            continue
        starts = np.cumsum([0] + [len(surface.texture[1]) for surface in part if surface.texture])
        every = np.concatenate([surface.texture[1] for surface in part if surface.texture])
        if len(every) and not (every.min() >= 0 and every.max() < len(looks.places)):
            raise InputError(
                f"a texture of {path} has no place {int(every.max())}", "check the file with cjval"
            )
        uv = looks.places[every[starts[triangles.owner][:, None] + triangles.source]]
        texels = _picture(number, looks, path)
        yield Patch(plain.corners, plain.rgb, np.ones(len(plain), bool), code, role, uv, texels)


def _colours(surfaces: Sequence[Surface], looks: Looks, path: Path) -> NDArray:
    """(n, 3) float64 colours of surfaces by their materials, NaN for none."""
    table = np.concatenate([looks.colours, np.full((1, 3), np.nan)])
    index = np.array(
        [-1 if surface.material is None else surface.material for surface in surfaces], np.int64
    )
    if len(index) and not (index.min() >= -1 and index.max() < len(looks.colours)):
        raise InputError(f"{path} has no material {int(index.max())}", "check the file with cjval")
    return table[index]


def _picture(number: int, looks: Looks, path: Path) -> NDArray:
    """(h, w, 3) uint8."""
    if not 0 <= number < len(looks.pictures):
        raise InputError(f"{path} has no texture {number}", "check the file with cjval")
    try:
        file = local_file(looks.pictures[number], path.parent, path.parent, str(path))
    except MissingFileError as error:
        remedy = f"fetch it, or take the textures out with `cjio {path.name} textures_remove save new.city.json`"
        raise MissingFileError(error.problem, remedy) from error
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"the texture {file} of {path} cannot be read: {error}", "fetch it again"
        ) from error
