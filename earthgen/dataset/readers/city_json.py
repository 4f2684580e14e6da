"""CityJSON 1.0 to 2.0, and sequences of CityJSON features, as patches with classes.

After the specifications at cityjson.org (CityJSON 2.0.1, CityJSONSeq). Of each object the
geometries of its highest level of detail are taken, and of a Building or Bridge that is less
detailed than its parts the parts alone. Classes come from the type of the object. ClosureSurfaces
are left out: they close what is open in reality.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
from numpy.typing import NDArray

from earthgen.dataset.readers.city_looks import Looks, patches_of
from earthgen.dataset.readers.city_surfaces import Surface, surfaces_of
from earthgen.dataset.readers.triangles import FOOT, SURFACE, TERRAIN, Patch
from geo_io.errors import EarthgenError, FrameError, InputError, MissingCrsError
from geo_io.frame import UNKNOWN_DATUM, projected_crs, vertical_crs
from geo_io.legend import UNKNOWN, codes

VERSIONS = ("1.0", "1.1", "2.0")

CLASSES = {
    "Building": "building",
    "BuildingPart": "building",
    "BuildingInstallation": "building",
    "BuildingConstructiveElement": "building",
    "BuildingFurniture": "building",
    "BuildingStorey": "building",
    "BuildingRoom": "building",
    "BuildingUnit": "building",
    "OtherConstruction": "building",
    "Bridge": "road",
    "BridgePart": "road",
    "BridgeInstallation": "road",
    "BridgeConstructiveElement": "road",
    "Road": "road",
    "Railway": "rail",
    "TransportSquare": "paved",
    "WaterBody": "lake",
    "Waterway": "river",
    "PlantCover": "shrub",
    "SolitaryVegetationObject": "tree",
    "TINRelief": "bare_ground",
}
"""Class by the type of an object; the others say nothing of what covers the ground, or are of
many kinds."""

GROUND_TYPES = (
    "TINRelief",
    "Road",
    "Railway",
    "TransportSquare",
    "WaterBody",
    "Waterway",
    "LandUse",
)
"""Objects that are the surface of the ground."""

UNDERGROUND = (
    "Tunnel",
    "TunnelPart",
    "TunnelInstallation",
    "TunnelHollowSpace",
    "TunnelFurniture",
    "TunnelConstructiveElement",
)
"""Objects that are left out: below the ground nothing is seen."""

PARTS = ("BuildingPart", "BridgePart")

LOWEST = 0.5
"""Metres above the lowest point of a building in which faces that look down are its foot, where
it says no surfaces."""


@dataclass(frozen=True)
class CityModel:
    """A CityJSON document.

    Attributes
    ----------
    header : the document, or the first line of a sequence
    features : objects and vertices: the document itself, or the lines of a sequence
    crs, vertical_crs : projected CRS in metres; "unknown"
    """

    path: Path
    header: Mapping[str, Any]
    features: tuple[Mapping[str, Any], ...]
    crs: str
    vertical_crs: str

    def patches(self) -> Iterator[Patch]:
        """The surfaces, in `crs` and metres, z up.

        Raises
        ------
        InputError
            if the document is damaged; the object is named
        InputError, MissingFileError
            if a texture lies outside the document's folder, or is not there
        """
        templates = _templates(self.header, self.path)
        count = 0
        for feature in self.features:
            points = _vertices(feature, self.header, self.path)
            looks = Looks.of(feature if "appearance" in feature else self.header, self.path)
            objects = feature["CityObjects"]
            found: list[Surface] = []
            for name, item in objects.items():
                try:
                    found += _object(item, objects, points, templates)
                except EarthgenError:
                    raise
                except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
                    text = f"{type(error).__name__}: {error}"[:120]
                    raise InputError(
                        f"object {name} of {self.path} is damaged ({text})",
                        "check the file with cjval",
                    ) from error
            count += len(found)
            yield from patches_of(found, looks, self.path)
        if not count:
            raise InputError(
                f"{self.path} holds no surfaces", "give a model with Solids or MultiSurfaces"
            )


def is_city_json(document: Any) -> bool:
    return isinstance(document, dict) and document.get("type") == "CityJSON"


def open_city(path: Path, crs: str | None = None) -> CityModel:
    """A CityJSON file (.json, .city.json, .cityjson) or a sequence (.jsonl).

    crs : what the recipe says; for a file that says none, and what the file says has to be that

    Raises
    ------
    InputError
        if it is damaged, is of another version, or its CRS is not that of the recipe, or not in
        metres
    MissingCrsError
        if neither it nor the recipe says a CRS
    """
    documents = _documents(path)
    header = documents[0]
    if not is_city_json(header):
        raise InputError(
            f"{path} is no CityJSON: its type is {header.get('type')!r}", "give a CityJSON file"
        )
    version = str(header.get("version"))
    if ".".join(version.split(".")[:2]) not in VERSIONS:
        raise InputError(
            f"{path} is CityJSON {version}; {', '.join(VERSIONS)} are read",
            f"convert it, for example with `cjio {path.name} upgrade save new.city.json`",
        )
    features = [header] if not documents[1:] or header.get("CityObjects") else []
    for number, document in enumerate(documents[1:], 2):
        if document.get("type") != "CityJSONFeature":
            raise InputError(
                f"line {number} of {path} is a {document.get('type')!r}, not a CityJSONFeature",
                "correct that line",
            )
        features.append(document)
    for feature in features:
        for key, kind in (("CityObjects", dict), ("vertices", list)):
            if not isinstance(feature.get(key), kind):
                raise InputError(f"{path} has no `{key}`", "check the file with cjval")
        if not all(isinstance(item, dict) for item in feature["CityObjects"].values()):
            raise InputError(f"an object of {path} is none", "check the file with cjval")
    found, vertical = _reference(header, path, crs)
    return CityModel(path, header, tuple(features), found, vertical)


def _documents(path: Path) -> list[dict[str, Any]]:
    number = 0
    try:
        text = path.read_text("utf-8-sig")
        if path.suffix.casefold() != ".jsonl":
            documents = [json.loads(text)]
        else:
            documents = []
            for number, line in enumerate(text.splitlines(), 1):  # noqa: B007 - named in the error
                if line.strip():
                    documents.append(json.loads(line))
    except (OSError, ValueError, RecursionError) as error:
        where = f"line {number} of {path}" if number else str(path)
        raise InputError(f"{where} is damaged: {error}", "fetch it again") from error
    if not documents or not all(isinstance(document, dict) for document in documents):
        raise InputError(f"{path} holds no JSON objects", "give a CityJSON file")
    return documents


def _reference(header: Mapping[str, Any], path: Path, given: str | None) -> tuple[str, str]:
    """(projected CRS, vertical CRS) of a document."""
    metadata = header.get("metadata")
    said = metadata.get("referenceSystem") if isinstance(metadata, dict) else None
    if said is None and given is None:
        raise MissingCrsError(
            f"{path} has no metadata.referenceSystem", "give crs = 'EPSG:...' in the recipe"
        )
    try:
        parsed = pyproj.CRS.from_user_input(given if said is None else str(said))
    except pyproj.exceptions.CRSError as error:
        raise InputError(
            f"the CRS {said or given!r} of {path} is not understood", "correct it"
        ) from error
    try:
        crs = projected_crs(parsed)
    except FrameError as error:
        raise InputError(
            f"{path}: {error.problem}",
            f"bring it into one, for example with `cjio {path.name} crs_reproject CODE`",
        ) from error
    heights = vertical_crs(parsed)
    if heights != UNKNOWN_DATUM and parsed.axis_info[-1].unit_conversion_factor != 1:
        raise InputError(
            f"heights of {path} are in {parsed.axis_info[-1].unit_name}", "bring them into metres"
        )
    if said is not None and given is not None and projected_crs(given) != crs:
        raise InputError(
            f"{path} says that it lies in {crs}, and the recipe that it lies in {given}",
            "take crs out of the recipe; target = 'EPSG:...' chooses the CRS of the scene",
        )
    return crs, heights


def _numbers(values: Any, path: Path, what: str) -> NDArray:
    try:
        found = np.asarray(values, np.float64).reshape(-1, 3)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{what} of {path} are no triples of numbers", "check the file with cjval"
        ) from error
    if not np.isfinite(found).all():
        raise InputError(f"{what} of {path} are not all finite", "check the file with cjval")
    return found


def _vertices(feature: Mapping[str, Any], header: Mapping[str, Any], path: Path) -> NDArray:
    """(n, 3) float64 in CRS units."""
    raw = _numbers(feature["vertices"], path, "vertices")
    transform = header.get("transform")
    if transform is None:
        return raw
    if not isinstance(transform, dict) or not {"scale", "translate"} <= set(transform):
        raise InputError(
            f"the transform of {path} has no scale and translate", "check the file with cjval"
        )
    scale, move = (
        _numbers(transform[key], path, f"transform.{key}") for key in ("scale", "translate")
    )
    if len(scale) != 1 or len(move) != 1:
        raise InputError(
            f"the transform of {path} is no scale and translate of 3 numbers", "correct it"
        )
    return raw * scale + move


@dataclass(frozen=True)
class Templates:
    """Geometries that objects share, and their own vertices (n, 3), not transformed."""

    geometries: tuple[Mapping[str, Any], ...]
    points: NDArray


def _templates(header: Mapping[str, Any], path: Path) -> Templates:
    held = header.get("geometry-templates")
    if not isinstance(held, dict):
        return Templates((), np.zeros((0, 3)))
    return Templates(
        tuple(held.get("templates", ())),
        _numbers(held.get("vertices-templates", []), path, "template vertices"),
    )


def _level(geometry: Mapping[str, Any]) -> float:
    return float(geometry.get("lod", 0))


def _geometries(
    item: Mapping[str, Any], templates: Templates
) -> list[tuple[float, Mapping[str, Any]]]:
    """(level of detail, geometry) of an object, without points and lines."""
    found = []
    for geometry in item.get("geometry") or ():
        shared = geometry
        if geometry["type"] == "GeometryInstance":
            shared = templates.geometries[geometry["template"]]
        if shared["type"] not in ("MultiPoint", "MultiLineString"):
            found.append((_level(shared), geometry))
    return found


def _object(
    item: Mapping[str, Any], objects: Mapping[str, Any], points: NDArray, templates: Templates
) -> list[Surface]:
    """The surfaces of one object."""
    kind = str(item["type"])
    found = _geometries(item, templates)
    if not found or kind in UNDERGROUND:
        return []
    highest = max(level for level, _ in found)
    children = (objects[name] for name in item.get("children", ()) if name in objects)
    parts = [
        level
        for child in children
        if child["type"] in PARTS
        for level, _ in _geometries(child, templates)
    ]
    if parts and max(parts) > highest:
        return []
    code = codes().get(CLASSES.get(kind, ""), UNKNOWN)
    out: list[Surface] = []
    for level, geometry in found:
        if level != highest:
            continue
        if geometry["type"] == "GeometryInstance":
            matrix = np.asarray(geometry["transformationMatrix"], np.float64).reshape(4, 4)
            shared = templates.geometries[geometry["template"]]
            place = points[_index(geometry["boundaries"][0], len(points))]
            moved = templates.points @ matrix[:3, :3].T + matrix[:3, 3] + place
            surfaces = surfaces_of(shared, moved, mirrored=np.linalg.det(matrix[:3, :3]) < 0)
        else:
            surfaces = surfaces_of(geometry, points)
        out += surfaces
    return [surface.of_class(code, role) for surface, role in _roles(out, kind)]


def _index(value: Any, count: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        raise IndexError(f"there is no vertex {value}")
    return value


def _roles(surfaces: list[Surface], kind: str) -> list[tuple[Surface, int]]:
    """Surfaces with what they say of the ground; without those that close what is open."""
    real = [surface for surface in surfaces if surface.kind != "ClosureSurface"]
    if kind in GROUND_TYPES:
        return [(surface.facing_up(), TERRAIN) for surface in real]
    if not real or not kind.startswith("Building"):
        return [(surface, SURFACE) for surface in real]
    if any(surface.kind for surface in real):
        return [(surface, FOOT if surface.kind == "GroundSurface" else SURFACE) for surface in real]
    lowest = min(float(surface.rings[0][:, 2].min()) for surface in real)
    return [
        (surface, FOOT if surface.looks_down_below(lowest + LOWEST) else SURFACE)
        for surface in real
    ]
