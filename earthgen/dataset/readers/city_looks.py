"""The appearance of CityJSON surfaces: materials, and textures in pictures beside the file."""

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
from geo_io.safety.damage import damaged_file

CHECK = "check the file with cjval"


@dataclass(frozen=True)
class Appearance:
    """The appearance of a document.

    Attributes
    ----------
    colours : NDArray (n, 3) float64
        Diffuse colours of the materials, 0 to 255, NaN for materials without one.
    pictures : tuple[Any, ...]
        The file names of the textures.
    places : NDArray (n, 2) float64
        Texture coordinates from the lower left corner, 0 to 1.
    """

    colours: NDArray
    pictures: tuple[Any, ...]
    places: NDArray

    @classmethod
    def of(cls, document: Mapping[str, Any], path: Path) -> Appearance:
        """Read the appearance of a document.

        Raises
        ------
        InputError
            if it is damaged
        """
        appearance = document.get("appearance") or {}
        with damaged_file(f"the appearance of {path} is damaged", CHECK):
            no_colour = (np.nan,) * 3
            materials = appearance.get("materials", ())
            colours = np.array(
                [material.get("diffuseColor", no_colour) for material in materials], np.float64
            )
            places = np.asarray(appearance.get("vertices-texture", ()), np.float64)
            pictures = tuple(texture["image"] for texture in appearance.get("textures", ()))
            return cls(colours.reshape(-1, 3) * 255, pictures, places.reshape(-1, 2))


def patches_of(surfaces: Sequence[Surface], appearance: Appearance, path: Path) -> Iterator[Patch]:
    """Yield a patch of all surfaces without a texture, and one for each picture.

    Raises
    ------
    InputError
        if a surface refers to a material, a picture or a texture coordinate that does not exist,
        or a picture cannot be read or lies outside the file's folder
    MissingFileError
        if a picture does not exist
    """
    by_picture: dict[int, list[Surface]] = {}
    for surface in surfaces:
        by_picture.setdefault(-1 if surface.texture is None else surface.texture[0], []).append(
            surface
        )
    for number in sorted(by_picture):
        part = by_picture[number]
        with damaged_file(f"a surface of {path} is no polygon", CHECK):
            triangles = triangulate([surface.rings for surface in part])
        code = np.array([surface.code for surface in part], np.uint8)[triangles.owner]
        role = np.array([surface.role for surface in part], np.uint8)[triangles.owner]
        plain = plain_patch(triangles.corners, code, role)
        if number < 0:
            colours = _colours(part, appearance, path)[triangles.owner]
            seen = np.isfinite(colours).all(axis=1)
            rgb = np.where(seen[:, None], colours, 128.0)
            yield Patch(plain.corners, np.repeat(rgb[:, None], 3, axis=1), seen, code, role)
            continue
        starts = np.cumsum([0] + [len(surface.texture[1]) for surface in part if surface.texture])
        every = np.concatenate([surface.texture[1] for surface in part if surface.texture])
        if len(every) and not (every.min() >= 0 and every.max() < len(appearance.places)):
            raise InputError(f"a texture of {path} has no coordinate {int(every.max())}", CHECK)
        uv = appearance.places[every[starts[triangles.owner][:, None] + triangles.source]]
        texels = _picture(number, appearance, path)
        yield Patch(plain.corners, plain.rgb, np.ones(len(plain), bool), code, role, uv, texels)


def _colours(surfaces: Sequence[Surface], appearance: Appearance, path: Path) -> NDArray:
    """Return (n, 3) float64 colours of surfaces by their materials, NaN without one."""
    table = np.concatenate([appearance.colours, np.full((1, 3), np.nan)])
    index = np.array(
        [-1 if surface.material is None else surface.material for surface in surfaces], np.int64
    )
    if len(index) and not (index.min() >= -1 and index.max() < len(appearance.colours)):
        raise InputError(f"{path} has no material {int(index.max())}", CHECK)
    return table[index]


def _picture(number: int, appearance: Appearance, path: Path) -> NDArray:
    """Read a texture as (h, w, 3) uint8."""
    if not 0 <= number < len(appearance.pictures):
        raise InputError(f"{path} has no texture {number}", CHECK)
    try:
        file = local_file(appearance.pictures[number], path.parent, path.parent, str(path))
    except MissingFileError as error:
        without = f"`cjio {path.name} textures_remove save new.city.json`"
        raise MissingFileError(
            error.problem, f"fetch it, or remove the textures with {without}"
        ) from error
    with (
        damaged_file(f"the texture {file} of {path} cannot be read", "fetch it again"),
        Image.open(file) as image,
    ):
        return np.asarray(image.convert("RGB"))
