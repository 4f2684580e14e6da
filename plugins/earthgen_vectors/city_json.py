"""Buildings, trees and terrain of a world as CityJSON 2.0 (cityjson.org/specs/2.0.1).

Objects and vertices go to two temporary files tile by tile, and are put together at the end, so
that memory does not grow with the world. Buildings have an extruded solid (LoD 1.2) and one with
its roof (LoD 2.2), with semantic surfaces. Trees are instances of four templates.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyproj
from numpy.typing import NDArray
from shapely.geometry import Polygon

from earthgen._version import __version__
from earthgen.progress import Progress
from earthgen.render.features.buildings import Building
from earthgen.render.features.objects import world_objects
from earthgen.render.features.plants import KINDS, plants_of
from earthgen.voxels.objects import BROADLEAF, BUSH, HEDGE, NEEDLELEAF
from earthgen.world.selection import Selection, anchor_of, select, source_record
from earthgen.world.world import World
from earthgen_vectors.options import CityJsonOptions
from earthgen_vectors.origins import origins_of, tree_sources
from earthgen_vectors.solids import Point, Solid, block, detailed
from earthgen_vectors.tables import buildings_of, class_names, hex_colour
from geo_io.frame import UNKNOWN_DATUM, Bounds

SCALE = 0.001
"""Metres of a unit of the vertices."""

SIDES = 8
"""Corners of a tree's template around its trunk."""

PROFILES = {
    BROADLEAF: ((0.12, 0.0), (0.12, 0.3), (0.75, 0.38), (1.0, 0.6), (0.7, 0.88)),
    NEEDLELEAF: ((0.1, 0.0), (0.1, 0.12), (1.0, 0.16), (0.5, 0.6)),
    BUSH: ((0.8, 0.0), (1.0, 0.45), (0.65, 0.85)),
    HEDGE: ((1.0, 0.0), (1.0, 0.9)),
}
"""Radius and height, as shares of the crown's radius and the tree's height, from the ground up;
above them comes a point."""


class CityJsonExporter:
    """Write world.city.json.

    Parameters
    ----------
    options : CityJsonOptions
    """

    name = "cityjson"

    def __init__(self, options: CityJsonOptions | None = None) -> None:
        self.options = options or CityJsonOptions()

    def export(
        self, world: World, out: Path, *, bounds: Bounds | None, level: int, progress: Progress
    ) -> list[Path]:
        """Write into the folder `out`; see `earthgen.Exporter`.

        Raises
        ------
        StoreError, RegionError
            If the world has no such level, no finished tile, or nothing within `bounds`; if the
            sources are not in the folder that the options name.
        """
        selection = select(world, bounds, level)
        origins = origins_of(world, self.options.inputs, progress)
        anchor = anchor_of(world, selection)
        steps = 1 + self.options.trees + self.options.relief
        progress.start("export cityjson", steps)
        out.mkdir(parents=True, exist_ok=True)
        path = out / "world.city.json"
        size = selection.frame.voxel_size
        parts = [path.with_name(f".{path.name}.{name}") for name in ("objects", "vertices")]
        try:
            with (
                parts[0].open("w", encoding="utf-8") as objects,
                parts[1].open("w", encoding="utf-8") as vertices,
            ):
                model = _Model(objects, vertices, anchor)
                for source, building in buildings_of(world, selection, origins):
                    _add_building(model, building, source, size)
                progress.step("buildings")
                if self.options.trees:
                    names = class_names()
                    for group in world_objects(world, selection, buildings=False):
                        mapped = origins.around(group, selection.frame, level)
                        plants = plants_of(group, size)
                        sources, xy = tree_sources(origins, mapped, plants.number, plants.xy)
                        first = group.cells[group.start[:-1]]
                        for k in range(len(plants)):
                            _add_tree(model, plants, k, xy[k], first[k], sources[k], names)
                    progress.step("trees")
                if self.options.relief:
                    step = max(1, round(self.options.relief_step / size))
                    for name, points, triangles in _relief(world, selection, step):
                        model.add(name, _relief_object(model, points, triangles))
                    progress.step("relief")
            with path.open("w", encoding="utf-8") as file:
                _put_together(file, parts, _head(world, selection, model))
        finally:
            for part in parts:
                part.unlink(missing_ok=True)
        return [path]


@dataclass
class _Model:
    """Objects and vertices, as they are written."""

    objects: IO[str]
    vertices: IO[str]
    anchor: tuple[float, float, float]
    count: int = 0
    written: int = 0

    def __post_init__(self) -> None:
        self.low = np.full(3, 2**62, np.int64)
        self.high = np.full(3, -(2**62), np.int64)

    def add(self, name: str, item: dict[str, Any]) -> None:
        """Write a city object."""
        comma = ",\n" if self.written else "\n"
        self.objects.write(f"{comma}{json.dumps(name)}:{_compact(item)}")
        self.written += 1

    def place(self, points: NDArray) -> list[int]:
        """Write the vertices (n, 3) of an object, each once; the index of each point."""
        units = np.rint((points - self.anchor) / SCALE).astype(np.int64)
        unique, index = np.unique(units, axis=0, return_inverse=True)
        if len(unique):
            self.low = np.minimum(self.low, unique.min(axis=0))
            self.high = np.maximum(self.high, unique.max(axis=0))
            comma = ",\n" if self.count else "\n"
            self.vertices.write(comma + ",".join(f"[{x},{y},{z}]" for x, y, z in unique.tolist()))
        first = self.count
        self.count += len(unique)
        return (index.reshape(-1) + first).tolist()

    def solid(self, solid: Solid, lod: str) -> dict[str, Any]:
        """Write the vertices of a solid; its geometry."""
        points: list[Point] = [point for face in solid.faces for ring in face for point in ring]
        index = iter(self.place(np.array(points, np.float64)))
        shell = [[[next(index) for _ in ring] for ring in face] for face in solid.faces]
        kinds = sorted(set(solid.kinds))
        kept = [k for k, face in enumerate(shell) if all(len(set(ring)) > 2 for ring in face)]
        return {
            "type": "Solid",
            "lod": lod,
            "boundaries": [[_without_doubles(shell[k]) for k in kept]],
            "semantics": {
                "surfaces": [{"type": kind} for kind in kinds],
                "values": [[kinds.index(solid.kinds[k]) for k in kept]],
            },
        }


def _without_doubles(face: list[list[int]]) -> list[list[int]]:
    """Rings without points that rounding put on the one before."""
    return [[v for k, v in enumerate(ring) if v != ring[k - 1]] for ring in face]


def _add_building(model: _Model, building: Building, source: str, size: float) -> None:
    name = f"building-{building.name}"
    attributes: dict[str, Any] = {
        "source": source,
        "object": building.number,
        "height": round(building.height, 2),
        "eavesHeight": round(building.eaves, 2),
        "roofShape": building.roof,
        "wallMaterial": building.material,
        "roofMaterial": building.roof_material,
        "roofColour": hex_colour(building.roof_rgb),
        "area": round(building.area, 2),
        "volume": round(building.volume, 2),
    }
    if building.wall_rgb is not None:
        attributes["wallColour"] = hex_colour(building.wall_rgb)
    hangs = building.base > 0
    level = building.level_ground + building.base if hangs else building.ground
    outline = building.outline
    polygons = [part for part in getattr(outline, "geoms", [outline]) if isinstance(part, Polygon)]
    item: dict[str, Any] = {"type": "Building", "attributes": attributes}
    if len(polygons) == 1:
        item["geometry"] = _geometries(model, building, polygons[0], level, size)
        model.add(name, item)
        return
    children = [f"{name}-{k}" for k in range(1, len(polygons) + 1)]
    model.add(name, {**item, "children": children})
    for child, polygon in zip(children, polygons, strict=True):
        geometry = _geometries(model, building, polygon, level, size)
        model.add(child, {"type": "BuildingPart", "parents": [name], "geometry": geometry})


def _geometries(
    model: _Model, building: Building, polygon: Polygon, level: float, size: float
) -> list[dict[str, Any]]:
    return [
        model.solid(block(building, polygon, level), "1.2"),
        model.solid(detailed(building, polygon, level, size), "2.2"),
    ]


def _add_tree(
    model: _Model,
    plants: Any,
    k: int,
    xy: NDArray,
    first: NDArray,
    source: str,
    names: dict[int, str],
) -> None:
    radius, height = plants.crown[k] / 2, plants.height[k]
    number, kind = int(plants.number[k]), int(plants.kind[k])
    (place,) = model.place(np.array([[*xy, plants.ground[k]]]))
    matrix = np.diag([radius, radius, height, 1.0]).round(3).ravel().tolist()
    model.add(
        f"tree-{number:08x}-{first['x']}-{first['y']}",
        {
            "type": "SolitaryVegetationObject",
            "attributes": {
                "source": source,
                "object": number,
                "species": KINDS[kind],
                "class": names[int(plants.semantic[k])],
                "trunkHeight": round(float(plants.base[k]), 2),
                "height": round(float(height), 2),
                "crownDiameter": round(float(plants.crown[k]), 2),
                "colour": hex_colour(plants.rgb[k]),
            },
            "geometry": [
                {
                    "type": "GeometryInstance",
                    "template": kind,
                    "boundaries": [place],
                    "transformationMatrix": matrix,
                }
            ],
        },
    )


def _templates() -> dict[str, Any]:
    """The four kinds of plants as closed solids of unit height and radius, in the order of their
    numbers."""
    templates: list[dict[str, Any]] = []
    vertices: list[list[float]] = []
    angle = 2 * np.pi * np.arange(SIDES) / SIDES
    for kind in sorted(PROFILES):
        base = len(vertices)
        profile = PROFILES[kind]
        for radius, height in profile:
            vertices += [
                [round(radius * float(np.cos(a)), 4), round(radius * float(np.sin(a)), 4), height]
                for a in angle
            ]
        top = len(vertices)
        vertices.append([0.0, 0.0, 1.0])
        faces = [[[base + k for k in range(SIDES)][::-1]]]
        for step in range(len(profile) - 1):
            low, high = base + step * SIDES, base + (step + 1) * SIDES
            for k in range(SIDES):
                n = (k + 1) % SIDES
                faces.append([[low + k, low + n, high + n, high + k]])
        last = base + (len(profile) - 1) * SIDES
        faces += [[[last + k, last + (k + 1) % SIDES, top]] for k in range(SIDES)]
        templates.append({"type": "Solid", "lod": "2.0", "boundaries": [faces]})
    return {"templates": templates, "vertices-templates": vertices}


def _relief(
    world: World, selection: Selection, step: int
) -> Iterator[tuple[str, NDArray, NDArray]]:
    """The terrain of each tile: name, points (n, 3) and triangles (m, 3).

    Points are the centres of cells at multiples of `step`, and of the first and the last cells of
    the selection; tiles share those on their borders.
    """
    whole, frame = world.level_frame(selection.level), selection.frame
    ground = world.layers(selection.level)["ground"]
    for tx, ty in selection.tiles:
        part = selection.tile(world, tx, ty)
        assert part is not None  # the selection has only tiles that it meets
        x = _grid(part.x, frame.x, step)
        y = _grid(part.y, frame.y, step)
        if len(x) < 2 or len(y) < 2:
            continue
        rows, columns = whole.y[1] - 1 - y, x - whole.x[0]
        box = ground[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].values
        heights = np.asarray(box, np.float64)[rows - rows.min()][:, columns - columns.min()]
        size = frame.voxel_size
        xx, yy = np.meshgrid((x + 0.5) * size, (y + 0.5) * size)
        points = np.stack([xx, yy, heights], axis=2).reshape(-1, 3)
        index = np.arange(len(points)).reshape(len(y), len(x))
        a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
        triangles = np.concatenate(
            [np.stack(corners, axis=-1).reshape(-1, 3) for corners in ((a, b, c), (a, c, d))]
        )
        triangles = triangles[np.isfinite(points[triangles, 2]).all(axis=1)]
        if len(triangles):
            used, inverse = np.unique(triangles, return_inverse=True)
            yield f"relief-{tx}-{ty}", points[used], inverse.reshape(-1, 3)


def _grid(part: tuple[int, int], whole: tuple[int, int], step: int) -> NDArray:
    """The points of a tile along one axis, with the first of the next tile."""
    every = np.arange(part[0] // step * step, part[1] + step, step)
    every = np.union1d(every, [whole[0], whole[1] - 1])
    every = every[(every >= whole[0]) & (every < whole[1])]
    low, high = np.searchsorted(every, part[0]), np.searchsorted(every, part[1])
    return np.asarray(every[low : high + 1])


def _relief_object(model: _Model, points: NDArray, triangles: NDArray) -> dict[str, Any]:
    index = np.array(model.place(points))
    surfaces = [[corners] for corners in index[triangles].tolist() if len(set(corners)) == 3]
    geometry = {"type": "CompositeSurface", "lod": "1.0", "boundaries": surfaces}
    return {"type": "TINRelief", "geometry": [geometry]}


def _head(world: World, selection: Selection, model: _Model) -> dict[str, Any]:
    frame = selection.frame
    metadata: dict[str, Any] = {"title": f"earthgen {__version__}"}
    code = _code(frame.crs, frame.vertical_crs)
    if code is not None:
        metadata["referenceSystem"] = code
    if model.count:
        corners = [(edge * SCALE + model.anchor).round(3) for edge in (model.low, model.high)]
        metadata["geographicalExtent"] = np.concatenate(corners).tolist()
    record = {**source_record(world), "vertical_crs": frame.vertical_crs, "crs": frame.crs}
    return {
        "type": "CityJSON",
        "version": "2.0",
        "transform": {"scale": [SCALE] * 3, "translate": list(model.anchor)},
        "metadata": metadata,
        "+earthgen": record,
        "geometry-templates": _templates(),
    }


def _code(crs: str, vertical: str) -> str | None:
    """The URL of a CRS, compound where EPSG has one; None if it has no code."""
    horizontal = pyproj.CRS.from_user_input(crs)
    if vertical != UNKNOWN_DATUM:
        whole = pyproj.crs.CompoundCRS(
            f"{horizontal.name} + {vertical}", [horizontal, pyproj.CRS.from_user_input(vertical)]
        )
        found = whole.to_authority(min_confidence=100)
        if found is not None:
            return "https://www.opengis.net/def/crs/{}/0/{}".format(*found)
    authority = horizontal.to_authority()
    return (
        None if authority is None else "https://www.opengis.net/def/crs/{}/0/{}".format(*authority)
    )


def _put_together(file: IO[str], parts: Sequence[Path], head: dict[str, Any]) -> None:
    file.write(_compact(head)[:-1])
    brackets = (("CityObjects", "{", "}"), ("vertices", "[", "]"))
    for (name, start, end), part in zip(brackets, parts, strict=True):
        file.write(f',\n"{name}":{start}')
        with part.open(encoding="utf-8") as source:
            shutil.copyfileobj(source, file)
        file.write(end)
    file.write("}\n")


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
