"""Preparation of vector features: classified, split into simple parts, sorted for painting.

Lines are widened to polygons.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from geo_io.frame import Bounds, Frame
from geo_io.layers import unknown_form
from geo_io.legend import UNKNOWN, UNMAPPED, classes, codes
from geo_io.semantics.attributes import (
    CROWN_FIELDS,
    TUNNEL_FIELDS,
    WIDEST,
    expand_tags,
    first_metres,
    line_widths,
    present_columns,
    under_a_cover,
    underground,
)
from geo_io.semantics.building_tags import (
    Unread,
    building_forms,
    fit_to_height,
    is_ridge,
    is_roof_edge,
)
from geo_io.semantics.classify import FeatureClasses, LegendChoice, classify, is_outline
from geo_io.semantics.footprints import as_buildings
from geo_io.semantics.heights import HeightReading, Heights
from geo_io.semantics.lengths import METRES_PER_LEVEL
from geo_io.semantics.packed_features import PackedFeatures, WindowFeatures, pack, painting_order
from geo_io.semantics.structures.rows import trees_along
from geo_io.semantics.structures.tags import (
    GENUS_COLUMNS,
    LEAF_COLUMNS,
    Found,
    find_structures,
    structure_fields,
    tree_leaves,
)
from geo_io.semantics.structures.things import Things, make_things
from geo_io.structures import KIND
from geo_io.vector.repair import simple_parts
from geo_io.vector.source import VectorSource
from geo_io.water.coastlines import says_coastline

HARBOURS = ("leisure=marina", "water=harbour", "water=marina", "class=marina", "fclass=marina")
"""Values of harbours, which lie in the sea, in lakes and in rivers."""

HARBOUR_REACH = 100.0
"""Metres from a harbour within which the sea is looked for."""

TALLEST = 400.0
"""Heights above this, in metres, are errors of the source."""

TIP = 0.01
"""Half the length of the line that stands for the tip of a roof, metres."""

TALLEST_TREE = 130.0
"""Tree heights above this, in metres, are errors of the source; the tallest living tree has 116."""

_MIX = np.uint64(0x9E3779B97F4A7C15)

WIDEST_CROWN = 60.0
"""Crown diameters above this, in metres, are errors of the source."""


@dataclass(frozen=True)
class Block:
    """All n features that intersect an area, prepared.

    Attributes
    ----------
    fid : NDArray (n,) int64
        Feature ids.
    geometry : NDArray (n,) object
        Valid 2D geometries in the CRS of the area.
    classified : FeatureClasses
        Their classes.
    width : NDArray (n,) float64
        Width of lines in metres, NaN where it is unknown.
    heights : Heights
        Their heights.
    unread : dict
        Tags of buildings that are not understood, by attribute and row.
    hidden, repaired : NDArray (n,) bool
        Features that are underground, and that had an invalid geometry.
    outlines : NDArray (n,) bool
        Lines of a class of areas whose width nothing says.
    dropped : NDArray (m,) int64
        Ids of features whose geometry is beyond repair.
    dropped_bounds : NDArray (m, 4) float64
        Their bounds in the source's CRS.
    structures : Found
        What they are as structures.
    packed : PackedFeatures
        What windows show. Trees are those within the area, which is half-open, so that neighbouring
        areas share none.
    """

    fid: NDArray
    geometry: NDArray
    classified: FeatureClasses
    width: NDArray
    heights: Heights
    unread: Unread
    hidden: NDArray
    repaired: NDArray
    outlines: NDArray
    dropped: NDArray
    dropped_bounds: NDArray
    structures: Found
    packed: PackedFeatures


def prepare(
    source: VectorSource,
    choice: LegendChoice,
    reading: HeightReading,
    columns: list[str],
    ground: Callable[[NDArray], NDArray] | None,
    area: Frame,
) -> Block:
    """Read, classify and prepare all features that intersect an area.

    `ground` gives the heights of the ground at places (n, 2), metres: with it, heights of roofs
    above sea say how tall a building is.
    """
    features = source.features(area.crs, area.bounds, columns)
    table = expand_tags(features.table, (*structure_fields(), *LEAF_COLUMNS, *GENUS_COLUMNS))
    geometry = np.asarray(features.table.geometry.values, object)
    classified = classify(features.table, choice)
    if choice.footprints:
        classified = as_buildings(classified, geometry)
    land = {land.name: land.code for land in classes()}
    code = classified.code
    code[_at_sea(source, choice, columns, geometry, classified, area.crs)] = land["sea"]
    water = np.isin(code, [land[name] for name in ("river", "lake", "sea")])
    hidden = underground(table) | (
        water & (shapely.get_dimensions(geometry) == 2) & under_a_cover(table)
    )
    known = reading.read(table)
    if ground is not None:
        known = known.over(_ground_of(geometry, known.at_sea, code == land["building"], ground))
    tall = reading.tops(table, TALLEST)
    width = line_widths(table, code == land["road"])
    outlines = is_outline(classified, geometry) & np.isnan(width)
    for other in (classified.width, _class_widths()[np.where(code == UNMAPPED, UNKNOWN, code)]):
        width = np.where(np.isnan(width), np.minimum(other, WIDEST), width)
    structures = find_structures(
        table, shapely.get_dimensions(geometry), code, width, tall, source.layer or source.name
    )
    structures.form["kind"][hidden] = 0
    structures.name[hidden] = ""
    _keep_tunnels(structures, features.table, geometry, hidden, width, choice)
    shown = ~hidden & (code != UNMAPPED) & (code != UNKNOWN)
    form, unread = _forms(table, code, known)
    if reading.publisher in ("osm", "common"):  # others count the floors under the roof too
        known = with_roofs(known, form)
    return Block(
        features.fid,
        geometry,
        classified,
        width,
        known,
        unread,
        hidden,
        features.repaired,
        outlines,
        features.dropped,
        features.dropped_bounds,
        structures,
        _shapes_and_trees(
            table,
            features.fid,
            geometry,
            code,
            width,
            known,
            form,
            np.where(tall <= TALLEST_TREE, tall, np.nan),
            structures,
            np.flatnonzero(shown),
            area.bounds,
        ),
    )


def _at_sea(
    source: VectorSource,
    choice: LegendChoice,
    columns: list[str],
    geometry: NDArray,
    classified: FeatureClasses,
    crs: str,
) -> NDArray:
    """Return which features are harbours at the sea, whose water is that of the sea, (n,) bool.

    The sea or its coast lies within `HARBOUR_REACH` of their bounds, in the same layer.
    """
    out = np.isin(classified.value, HARBOURS) & (shapely.get_dimensions(geometry) == 2)
    out &= classified.code == codes()["lake"]
    for row in np.flatnonzero(out).tolist():
        left, bottom, right, top = geometry[row].bounds
        reach = HARBOUR_REACH
        around = (left - reach, bottom - reach, right + reach, top + reach)
        near = source.features(crs, around, columns).table
        sea = classify(near, choice).code == codes()["sea"]
        out[row] = bool(sea.any() or says_coastline(near).any())
    return out


def _ground_of(
    geometry: NDArray, at_sea: NDArray, building: NDArray, ground: Callable[[NDArray], NDArray]
) -> NDArray:
    """Return the ground of the buildings whose roof is known above sea, (n,) metres; NaN of others.

    It is the mean height at the corners.
    """
    out = np.full(len(geometry), np.nan)
    rows = np.flatnonzero(building & np.isfinite(at_sea) & (shapely.get_dimensions(geometry) == 2))
    for row in rows.tolist():
        heights = ground(shapely.get_coordinates(geometry[row]))
        heights = heights[np.isfinite(heights)]
        if len(heights):
            out[row] = heights.mean()
    return out


def _keep_tunnels(
    structures: Found,
    table: pd.DataFrame,
    geometry: NDArray,
    hidden: NDArray,
    width: NDArray,
    choice: LegendChoice,
) -> None:
    """Keep lines under the ground with what they carry: they may come out of it."""
    row = np.flatnonzero(hidden & (shapely.get_dimensions(geometry) == 1))
    if not len(row):
        return
    # A legend may leave out tunnels by the attribute that says so: what it says without it.
    below = table.iloc[row].reset_index(drop=True)
    below = below.assign(**dict.fromkeys(present_columns(below, TUNNEL_FIELDS)))
    bare = classify(below, choice)
    land = codes()
    ways = np.isin(bare.code, [land[name] for name in ("road", "rail", "paved", "river")])
    known = _class_widths()[np.where(bare.code == UNMAPPED, UNKNOWN, bare.code)]
    wide = np.where(np.isnan(width[row]), np.minimum(bare.width, WIDEST), width[row])
    wide = np.where(np.isnan(wide), known, wide)
    ways &= wide > 0
    structures.form["kind"][row[ways]] = KIND["tunnel"]
    structures.form["cover"][row[ways]] = bare.code[ways]
    structures.form["width"][row[ways]] = wide[ways]


def _shapes_and_trees(
    table: pd.DataFrame,
    fid: NDArray,
    geometry: NDArray,
    code: NDArray,
    width: NDArray,
    known: Heights,
    form: NDArray,
    tree_height: NDArray,
    structures: Found,
    shown: NDArray,
    area: Bounds,
) -> PackedFeatures:
    parts, row = simple_parts(geometry[shown])
    row = shown[row]
    dimension = shapely.get_dimensions(parts)
    wide = (dimension == 1) & ~np.isnan(width[row])
    strips, strip_of = simple_parts(
        shapely.buffer(
            parts[wide], width[row[wide]] / 2, cap_style="flat", join_style="round", quad_segs=4
        )
    )
    shapes = np.concatenate([parts[dimension == 2], strips])
    of_areas, of_strips = row[dimension == 2], row[wide][strip_of]
    of = np.concatenate([of_areas, of_strips])
    part = np.concatenate(
        [np.arange(len(rows)) - np.searchsorted(rows, rows) for rows in (of_areas, of_strips)]
    )
    is_area = np.arange(len(shapes)) < len(of_areas)
    kept = ~shapely.is_empty(shapes)
    shapes, of, part, is_area = shapes[kept], of[kept], part[kept], is_area[kept]
    size = shapely.area(shapes)
    key = place_keys(
        shapely.get_x(shapely.centroid(shapes)),
        shapely.get_y(shapely.centroid(shapes)),
        np.sqrt(size),
    )

    tree = (dimension == 0) & (code[row] == codes()["tree"])
    xy = shapely.get_coordinates(parts[tree]).reshape(-1, 2)
    crowns = first_metres(table, CROWN_FIELDS, WIDEST_CROWN)
    in_row = (dimension == 1) & structures.row[row]
    stand, line = trees_along(parts[in_row], crowns[row[in_row]])
    xy, of_tree = np.concatenate([xy, stand]), np.concatenate([row[tree], row[in_row][line]])
    within = (
        (xy[:, 0] >= area[0]) & (xy[:, 0] < area[2]) & (xy[:, 1] >= area[1]) & (xy[:, 1] < area[3])
    )
    xy, of_tree = xy[within], of_tree[within]
    form = form[of]
    form["eaves"] = known.eaves[of]
    hangs = form["base"] > 0
    # Parts above each other on one footprint are different things.
    key[hangs] ^= np.rint(100 * form["base"][hangs]).astype(np.uint64) * _MIX
    seen = WindowFeatures(
        shapes=shapes,
        code=code[of],
        key=key,
        height=known.top[of],
        is_area=is_area,
        form=form,
        xy=xy,
        tree_height=tree_height[of_tree],
        crown=crowns[of_tree],
        tree_key=place_keys(xy[:, 0], xy[:, 1], np.zeros(len(xy))),
        ridges=_ridges(geometry[is_ridge(table)], geometry[is_roof_edge(table)]),
        lifted=structures.lifted[of],
        tree_leaf=tree_leaves(table)[of_tree],
        things=_things(fid, geometry, structures),
    )
    order = painting_order(seen, fid[of], part)
    return pack(seen.take(order, np.arange(len(xy))), fid[of][order], part[order])


def _things(fid: NDArray, geometry: NDArray, structures: Found) -> Things:
    """Return the structures among n features, in simple parts."""
    chosen = np.flatnonzero(structures.form["kind"] > 0)
    parts, row = simple_parts(geometry[chosen])
    row = chosen[row]
    form = structures.form[row]
    outline = structures.outline[row] & (shapely.get_dimensions(parts) == 2)
    parts[outline] = shapely.get_exterior_ring(parts[outline])
    centre = shapely.centroid(parts)
    size = shapely.length(parts)
    key = place_keys(shapely.get_x(centre), shapely.get_y(centre), size)
    key ^= form["kind"].astype(np.uint64) * _MIX
    part = np.arange(len(row)) - np.searchsorted(row, row)
    return make_things(parts, form, key, fid[row], part)


def _forms(table: pd.DataFrame, code: NDArray, known: Heights) -> tuple[NDArray, Unread]:
    """Return the shape of the features of class building, (n,) BUILDING_FORM; else unknown.

    And the values that are not understood, by attribute and row of the table.
    """
    form = unknown_form(len(table))
    building = np.flatnonzero(code == codes()["building"])
    own = known.take(building)
    read, odd = building_forms(table.iloc[building], own)
    by_levels = with_roofs(own, read).top
    odd |= fit_to_height(read, np.where(own.measured, own.top, np.nan), by_levels)
    form[building] = read
    unread = {
        name: {int(building[row]): value for row, value in values.items()}
        for name, values in odd.items()
    }
    return form, unread


def with_roofs(known: Heights, form: NDArray) -> Heights:
    """Return heights in which levels do not count a roof that is known itself.

    OpenStreetMap's building:levels are those below the roof.
    """
    roof = form["roof_height"].astype(float)
    beside = ~known.measured & (known.levels >= 0) & (roof > 0)
    eaves = np.where(beside, known.levels * METRES_PER_LEVEL, known.eaves)
    return replace(known, eaves=eaves, top=np.where(beside, eaves + roof, known.top))


def _ridges(ridge: NDArray, edge: NDArray) -> NDArray:
    """Return lines of roofs as 3D LineStrings, z 1 for ridges and 0 for edges: (k,) object.

    A tip is a very short ridge.
    """
    out: list[shapely.LineString] = []
    for geometry, z in ((ridge, 1.0), (edge, 0.0)):
        for part in shapely.get_parts(geometry):
            xy = shapely.get_coordinates(part)
            if part.geom_type == "Point" and z > 0:
                xy = xy + np.array([[-TIP, 0.0], [TIP, 0.0]])
            elif part.geom_type not in ("LineString", "LinearRing"):
                continue
            out.append(shapely.LineString(np.column_stack([xy, np.full(len(xy), z)])))
    found = np.empty(len(out), object)
    found[:] = out
    return found


@functools.cache
def _class_widths() -> NDArray:
    """Return the width of lines by class code, (26,), NaN for classes without lines."""
    return np.array([np.nan] + [np.nan if land.width is None else land.width for land in classes()])


def place_keys(x: NDArray, y: NDArray, size: NDArray) -> NDArray:
    """Make keys of objects from their places.

    Places are rounded to the metre, so that the same footprint has the same key in any file and
    source CRS, except for the few that lie near the limit of rounding.

    Parameters
    ----------
    x, y : NDArray (n,) float64
        Position, CRS metres.
    size : NDArray (n,) float64
        Size, metres.

    Returns
    -------
    NDArray (n,) uint64
        Keys (BLAKE2b digests).
    """
    rows = np.column_stack([np.rint(x), np.rint(y), np.rint(size)]).astype("<i8")
    digests = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)
