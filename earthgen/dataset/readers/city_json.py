"""CityJSON 1.0 to 2.0, and sequences of CityJSON features, as patches with classes.

After the specifications at cityjson.org (CityJSON 2.0.1, CityJSONSeq). Each object contributes the
geometries of its highest level of detail. If the parts of a Building or Bridge are more detailed
than the object itself, only the parts are read. The class comes from the type of the object.
ClosureSurfaces are left out: they close what is open in reality.
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

from earthgen.dataset.readers.city_looks import Appearance, patches_of
from earthgen.dataset.readers.city_surfaces import Surface, surfaces_of
from earthgen.dataset.readers.triangles import FOOT, SURFACE, TERRAIN, Patch
from geo_io.errors import FrameError, InputError, MissingCrsError
from geo_io.frame import UNKNOWN_DATUM, projected_crs, vertical_crs
from geo_io.legend import UNKNOWN, codes
from geo_io.safety.damage import damaged_file

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
"""Class by the type of an object. Other types have none: they do not cover the ground, or include
very different objects."""

GROUND_TYPES = (
    "TINRelief",
    "Road",
    "Railway",
    "TransportSquare",
    "WaterBody",
    "Waterway",
    "LandUse",
)
"""Types of objects that are the surface of the ground."""

UNDERGROUND = (
    "Tunnel",
    "TunnelPart",
    "TunnelInstallation",
    "TunnelHollowSpace",
    "TunnelFurniture",
    "TunnelConstructiveElement",
)
"""Types of objects that are left out because they lie below the ground."""

PARTS = ("BuildingPart", "BridgePart")

CHECK, REFETCH = "check the file with cjval", "fetch it again"

LOWEST = 0.5
"""In a building without semantic surfaces, faces that look down are its foot up to this height
above its lowest point, metres."""


@dataclass(frozen=True)
class CityModel:
    """A CityJSON document.

    Attributes
    ----------
    header : mapping
        The document, or the first line of a sequence.
    features : tuple[mapping, ...]
        Objects and vertices: the document itself, or the lines of a sequence.
    crs, vertical_crs : str
        Projected CRS in metres, and the vertical CRS or "unknown".
    """

    path: Path
    header: Mapping[str, Any]
    features: tuple[Mapping[str, Any], ...]
    crs: str
    vertical_crs: str

    def patches(self) -> Iterator[Patch]:
        """Yield the surfaces, in `crs`, metres, z up.

        Raises
        ------
        InputError
            if the document is damaged (the error names the object), or a texture lies outside its
            folder
        MissingFileError
            if a texture does not exist
        """
        templates = _templates(self.header, self.path)
        count = 0
        for feature in self.features:
            points = _vertices(feature, self.header, self.path)
            appearance = Appearance.of(
                feature if "appearance" in feature else self.header, self.path
            )
            objects = feature["CityObjects"]
            surfaces: list[Surface] = []
            for name, item in objects.items():
                with damaged_file(f"object {name} of {self.path} is damaged", CHECK):
                    surfaces += _object(item, objects, points, templates)
            count += len(surfaces)
            yield from patches_of(surfaces, appearance, self.path)
        if not count:
            raise InputError(
                f"{self.path} holds no surfaces", "give a model with Solids or MultiSurfaces"
            )


def is_city_json(document: Any) -> bool:
    """Whether a parsed JSON document is CityJSON."""
    return isinstance(document, dict) and document.get("type") == "CityJSON"


def open_city(path: Path, crs: str | None = None) -> CityModel:
    """Open a CityJSON file (.json, .city.json, .cityjson) or a sequence (.jsonl).

    Parameters
    ----------
    path : Path
        The file.
    crs : str | None
        CRS that the recipe gives: that of a file without one. The CRS of the file must equal it.

    Raises
    ------
    InputError
        if the file is damaged, has another version, or its CRS is not that of the recipe or not
        in metres
    MissingCrsError
        if neither the file nor the recipe has a CRS
    """
    documents = _documents(path)
    header = documents[0]
    if not is_city_json(header):
        raise InputError(
            f"{path} is not CityJSON: its type is {header.get('type')!r}", "give a CityJSON file"
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
                raise InputError(f"{path} has no `{key}`", CHECK)
        if not all(isinstance(item, dict) for item in feature["CityObjects"].values()):
            raise InputError(f"an object of {path} is not a JSON object", CHECK)
    horizontal, vertical = _reference(header, path, crs)
    return CityModel(path, header, tuple(features), horizontal, vertical)


def _documents(path: Path) -> list[dict[str, Any]]:
    """Parse a file, or each line of a sequence."""
    with damaged_file(f"{path} is damaged", REFETCH):
        text = path.read_text("utf-8-sig")
    if path.suffix.casefold() != ".jsonl":
        with damaged_file(f"{path} is damaged", REFETCH):
            documents = [json.loads(text)]
    else:
        documents = []
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                with damaged_file(f"line {number} of {path} is damaged", REFETCH):
                    documents.append(json.loads(line))
    if not documents or not all(isinstance(document, dict) for document in documents):
        raise InputError(f"{path} holds no JSON objects", "give a CityJSON file")
    return documents


def _reference(header: Mapping[str, Any], path: Path, given: str | None) -> tuple[str, str]:
    """Return (projected CRS, vertical CRS) of a document."""
    metadata = header.get("metadata")
    own = metadata.get("referenceSystem") if isinstance(metadata, dict) else None
    if own is None and given is None:
        raise MissingCrsError(
            f"{path} has no metadata.referenceSystem", "give crs = 'EPSG:...' in the recipe"
        )
    try:
        parsed = pyproj.CRS.from_user_input(given if own is None else str(own))
    except pyproj.exceptions.CRSError as error:
        raise InputError(
            f"the CRS {own or given!r} of {path} is not understood", "correct it"
        ) from error
    try:
        crs = projected_crs(parsed)
    except FrameError as error:
        raise InputError(
            f"{path}: {error.problem}",
            f"reproject it, for example with `cjio {path.name} crs_reproject CODE`",
        ) from error
    heights = vertical_crs(parsed)
    if heights != UNKNOWN_DATUM and parsed.axis_info[-1].unit_conversion_factor != 1:
        raise InputError(
            f"heights of {path} are in {parsed.axis_info[-1].unit_name}", "convert them to metres"
        )
    if own is not None and given is not None and projected_crs(given) != crs:
        raise InputError(
            f"the CRS of {path} is {crs}, but the recipe gives {given}",
            "remove crs from the recipe; target = 'EPSG:...' chooses the CRS of the scene",
        )
    return crs, heights


def _numbers(values: Any, path: Path, what: str) -> NDArray:
    with damaged_file(f"{what} of {path} are not triples of numbers", CHECK):
        triples = np.asarray(values, np.float64).reshape(-1, 3)
    if not np.isfinite(triples).all():
        raise InputError(f"{what} of {path} are not all finite", CHECK)
    return triples


def _vertices(feature: Mapping[str, Any], header: Mapping[str, Any], path: Path) -> NDArray:
    """Return (n, 3) float64 vertices in CRS units."""
    raw = _numbers(feature["vertices"], path, "vertices")
    transform = header.get("transform")
    if transform is None:
        return raw
    if not isinstance(transform, dict) or not {"scale", "translate"} <= set(transform):
        raise InputError(f"the transform of {path} has no scale and translate", CHECK)
    scale, move = (
        _numbers(transform[key], path, f"transform.{key}") for key in ("scale", "translate")
    )
    if len(scale) != 1 or len(move) != 1:
        raise InputError(
            f"scale and translate of the transform of {path} need 3 numbers each", "correct it"
        )
    return raw * scale + move


@dataclass(frozen=True)
class Templates:
    """Geometries that objects share, and their own vertices (n, 3), without the transform."""

    geometries: tuple[Mapping[str, Any], ...]
    points: NDArray


def _templates(header: Mapping[str, Any], path: Path) -> Templates:
    templates = header.get("geometry-templates")
    if not isinstance(templates, dict):
        return Templates((), np.zeros((0, 3)))
    return Templates(
        tuple(templates.get("templates", ())),
        _numbers(templates.get("vertices-templates", []), path, "template vertices"),
    )


def _level(geometry: Mapping[str, Any]) -> float:
    return float(geometry.get("lod", 0))


def _geometries(
    item: Mapping[str, Any], templates: Templates
) -> list[tuple[float, Mapping[str, Any]]]:
    """Return (level of detail, geometry) of an object, without points and lines."""
    leveled = []
    for geometry in item.get("geometry") or ():
        shared = geometry
        if geometry["type"] == "GeometryInstance":
            shared = templates.geometries[geometry["template"]]
        if shared["type"] not in ("MultiPoint", "MultiLineString"):
            leveled.append((_level(shared), geometry))
    return leveled


def _object(
    item: Mapping[str, Any], objects: Mapping[str, Any], points: NDArray, templates: Templates
) -> list[Surface]:
    """Return the surfaces of one object."""
    kind = str(item["type"])
    geometries = _geometries(item, templates)
    if not geometries or kind in UNDERGROUND:
        return []
    highest = max(level for level, _ in geometries)
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
    for level, geometry in geometries:
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
    """Return the surfaces with their roles, without ClosureSurfaces."""
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
