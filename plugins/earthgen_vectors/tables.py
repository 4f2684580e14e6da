"""The layers of the vector formats as Arrow tables, in batches.

Names of columns are those that earthgen itself reads, and OpenStreetMap and Overture Maps use with
underscores: a file that is exported can be the `semantics` of another world.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from shapely.geometry import MultiPolygon, Polygon

from earthgen.progress import Progress
from earthgen.render.features.areas import world_areas
from earthgen.render.features.buildings import Building, building_of
from earthgen.render.features.contours import world_contours
from earthgen.render.features.objects import world_objects
from earthgen.render.features.plants import KINDS, plants_of
from earthgen.world.selection import Selection
from earthgen.world.world import World
from earthgen_vectors.options import VectorOptions
from earthgen_vectors.origins import Origins, tree_sources
from geo_io.legend import classes, codes

BATCH = 20_000
"""Rows that are written at a time."""

BLOCK = 512.0
"""Metres: roads are cut along a lattice of this size from the origin of the CRS."""

ROADS = ("road", "rail", "paved")
WATER = ("river", "lake", "sea")

GEOMETRY = "geometry"

Columns = Sequence[tuple[str, pa.DataType]]

OBJECT: Columns = (("id", pa.string()), ("object", pa.int64()), ("class", pa.string()))

COLUMNS: dict[str, Columns] = {
    "buildings": (
        *OBJECT,
        ("source", pa.string()),
        ("height", pa.float64()),
        ("eaves_height", pa.float64()),
        ("min_height", pa.float64()),
        ("ground_elevation", pa.float64()),
        ("roof_shape", pa.string()),
        ("roof_height", pa.float64()),
        ("roof_direction", pa.float64()),
        ("building_material", pa.string()),
        ("roof_material", pa.string()),
        ("building_color", pa.string()),
        ("roof_color", pa.string()),
        ("area", pa.float64()),
        ("volume", pa.float64()),
    ),
    "trees": (
        *OBJECT,
        ("source", pa.string()),
        ("kind", pa.string()),
        ("height", pa.float64()),
        ("crown_diameter", pa.float64()),
        ("crown_base", pa.float64()),
        ("ground_elevation", pa.float64()),
        ("color", pa.string()),
    ),
    "roads": (("class", pa.string()), ("area", pa.float64()), ("width", pa.float64())),
    "water": (("class", pa.string()), ("area", pa.float64())),
    "contours": (("elevation", pa.float64()),),
}
"""Columns of each layer, before its geometry. Lengths are metres, areas m2, volumes m3."""

GEOMETRIES = {
    "buildings": "MultiPolygon",
    "trees": "Point",
    "roads": "Polygon",
    "water": "Polygon",
    "contours": "LineString",
}

Row = tuple[Any, ...]


def schema_of(layer: str) -> pa.Schema:
    """Return the Arrow schema of a layer: its columns, and `GEOMETRY` as WKB."""
    return pa.schema([*COLUMNS[layer], (GEOMETRY, pa.binary())])


def batches(
    world: World,
    selection: Selection,
    options: VectorOptions,
    origins: Origins,
    progress: Progress,
) -> Iterator[tuple[str, pa.Table]]:
    """Yield (layer, table) in the order of `options.layers`; each layer comes at least once.

    Parameters
    ----------
    world : World
    selection : Selection
    options : VectorOptions
    origins : Origins
    progress : Progress
        Told of each layer.
    """
    for layer in options.layers:
        rows: list[Row] = []
        count = 0
        for row in _rows(layer, world, selection, options, origins):
            rows.append(row)
            if len(rows) == BATCH:
                yield layer, _table(layer, rows)
                count, rows = count + len(rows), []
        if rows or not count:
            yield layer, _table(layer, rows)
        progress.step(f"{layer}: {count + len(rows):,}")


def _rows(
    layer: str, world: World, selection: Selection, options: VectorOptions, origins: Origins
) -> Iterator[Row]:
    if layer == "buildings":
        return _buildings(world, selection, origins)
    if layer == "trees":
        return _trees(world, selection, origins)
    if layer == "contours":
        return _contours(world, selection, options.interval)
    return _areas(world, selection, layer)


def buildings_of(
    world: World, selection: Selection, origins: Origins
) -> Iterator[tuple[str, Building]]:
    """Yield (source, building) of a selection; outlines are those of the map where they are."""
    size = selection.frame.voxel_size
    for objects in world_objects(world, selection, buildings=True):
        mapped = origins.around(objects, selection.frame, selection.level)
        for cells in objects:
            yield origins.building(building_of(cells, size), mapped, size)


def _buildings(world: World, selection: Selection, origins: Origins) -> Iterator[Row]:
    for source, each in buildings_of(world, selection, origins):
        outline = each.outline
        if isinstance(outline, Polygon):
            outline = MultiPolygon([outline])
        yield (
            each.name,
            each.number,
            "building",
            source,
            _cm(each.height),
            _cm(each.eaves),
            _cm(each.base),
            _cm(each.level_ground),
            each.roof,
            _cm(each.height - each.eaves),
            None if np.isnan(each.direction) else round(each.direction, 1),
            each.material,
            each.roof_material,
            None if each.wall_rgb is None else hex_colour(each.wall_rgb),
            hex_colour(each.roof_rgb),
            _cm(each.area),
            _cm(each.volume),
            outline,
        )


def _trees(world: World, selection: Selection, origins: Origins) -> Iterator[Row]:
    size = selection.frame.voxel_size
    names = class_names()
    for objects in world_objects(world, selection, buildings=False):
        mapped = origins.around(objects, selection.frame, selection.level)
        plants = plants_of(objects, size)
        sources, xy = tree_sources(origins, mapped, plants.number, plants.xy)
        points: Any = shapely.points(xy)
        first = objects.cells[objects.start[:-1]]
        for k in range(len(plants)):
            number = int(plants.number[k])
            yield (
                f"{number:08x}-{first['x'][k]}-{first['y'][k]}",
                number,
                names[int(plants.semantic[k])],
                sources[k],
                KINDS[int(plants.kind[k])],
                _cm(plants.height[k]),
                _cm(plants.crown[k]),
                _cm(plants.base[k]),
                _cm(plants.ground[k]),
                hex_colour(plants.rgb[k]),
                points[k],
            )


def _areas(world: World, selection: Selection, layer: str) -> Iterator[Row]:
    chosen = {codes()[name]: BLOCK for name in ROADS} if layer == "roads" else {}
    chosen_whole = {codes()[name]: None for name in WATER} if layer == "water" else {}
    names = class_names()
    for areas in world_areas(world, selection, {**chosen, **chosen_whole}):
        for each in areas:
            row: Row = (names[each.code], _cm(each.polygon.area))
            if layer == "roads":
                row += (_cm(2 * each.polygon.area / each.polygon.length),)
            yield (*row, each.polygon)


def _contours(world: World, selection: Selection, interval: float) -> Iterator[Row]:
    for lines in world_contours(world, selection, interval):
        for each in lines:
            yield each.height, shapely.linestrings(each.line)


def _table(layer: str, rows: Sequence[Row]) -> pa.Table:
    schema = schema_of(layer)
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    wkb = shapely.to_wkb(np.array(columns[-1], object), byte_order=1)
    arrays = [
        pa.array(values, field.type)
        for values, field in zip([*columns[:-1], wkb.tolist()], schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def class_names() -> dict[int, str]:
    """Return the names of the classes by code."""
    return {0: "unknown"} | {land.code: land.name for land in classes()}


def hex_colour(rgb: Sequence[int]) -> str:
    """Return "#rrggbb" of red, green and blue."""
    return "#{:02x}{:02x}{:02x}".format(*(int(value) for value in rgb))


def _cm(value: float) -> float:
    return round(float(value), 2)
