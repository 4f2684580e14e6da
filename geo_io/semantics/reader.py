"""Land cover, buildings and trees of any window, from vector and raster sources.

`SemanticsReader.read` is a pure function of the sources and the window. Overlaps are resolved in
this order:

1. A polygon that lies inside a larger one, of the same source or an earlier one, is painted over
   it, whatever their classes (`nesting`).
2. Otherwise a feature is painted over those of lower class priority (`legend.priorities`); of equal
   priority lines over areas, and the smaller over the larger, so that it stays visible; then by
   `key` and by place in the file. Of two sources, the later is painted over the earlier where its
   priority is not lower.
3. A voxel takes the class with the largest share of its 4 x 4 fine cells (`rasterize.majority`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from geo_io.errors import InputError, RegionError
from geo_io.frame import Bounds, Frame
from geo_io.layers import Buildings, Semantics, Trees, no_buildings, no_trees
from geo_io.legend import codes, normalise
from geo_io.raster.source import RasterSource, holds_raster, open_raster
from geo_io.region.region import describe, swap_hint
from geo_io.semantics.choose_legend import choose_raster_legend, require_class_field
from geo_io.semantics.classify import with_areas
from geo_io.semantics.footprints import interpret
from geo_io.semantics.heights import require_height_field
from geo_io.semantics.nesting import class_ranks, rank_of
from geo_io.semantics.options import SemanticsOptions
from geo_io.semantics.overlaps import (
    CONTEXT,
    Candidates,
    left_out,
    rank_buildings,
    with_ridges,
    with_sites,
)
from geo_io.semantics.packed_features import BlockCache, WindowFeatures, trees_within
from geo_io.semantics.painting import Painted, collect, parcels, rank_shapes
from geo_io.semantics.raster_layer import RasterLayer
from geo_io.semantics.rasterize import (
    SUPERSAMPLE,
    class_of,
    composite,
    majority,
    paint,
    ranked,
)
from geo_io.semantics.structures.decks import Decks
from geo_io.semantics.structures.reach import AROUND
from geo_io.semantics.structures.things import Things
from geo_io.semantics.structures.tunnels import Tunnels
from geo_io.semantics.structures.window import structures_in
from geo_io.semantics.survey import SourceSurvey, Survey, ValueArea
from geo_io.semantics.vector_layer import MARGIN_VOXELS, VectorLayer
from geo_io.structures import KIND
from geo_io.vector.encoding import with_encoding
from geo_io.vector.source import (
    VectorSource,
    holds_features,
    open_vector,
    require_file,
    split_layer,
)
from geo_io.water.coastlines import FARTHEST, LAND, SEA, UNSAID, Coast, read_coastlines
from geo_io.water.levels import SEA_LEVEL, WaterLevels
from geo_io.water.rivers import FLOW_REACH, RiverLevels

Source = Any
"""A path, "file.gpkg:layer", a GeoDataFrame, or an xarray.DataArray with a CRS (see rioxarray)."""

RASTER_SUFFIXES = {
    ".asc",
    ".bil",
    ".bip",
    ".bsq",
    ".flt",
    ".grd",
    ".hdr",
    ".img",
    ".jp2",
    ".map",
    ".nc",
    ".png",
    ".rst",
    ".sdat",
    ".tif",
    ".tiff",
    ".vrt",
}
"""Files with these suffixes are tried as rasters first, all others as vector files."""

STRIP_VOXELS = 2**21
"""Voxels whose fine cells are in memory at a time."""

SEA_RANK = rank_of(15)
"""The sea of a coastline lies above the zones of a town, which are drawn across the water's edge,
and below all that has a cover of its own: beaches, marshes, piers."""

ROUNDING = 0.01
"""Metres: heights of 0 may come out of a reader a little above it."""

GAP_CELLS, GAP_TILE, GAP_TILES = 8, 512, 64
"""Places without land cover are counted on cells of so many voxels, in tiles of so many, and in at
most so many tiles of a region."""

COAST_CELL = 8.0
"""Metres: heights beside a coastline are looked up on cells of this size."""

HEAD_FEATURES = 5000
"""Features of each layer that tell whether it maps buildings."""

UNMAPPED_SHARE = 0.5
"""Largest share of the area with values that may map to no class."""


def open_semantics(
    sources: Sequence[Source], frame: Frame, options: SemanticsOptions
) -> SemanticsReader:
    """Open sources of land cover, buildings and trees, and choose the legend of each.

    Parameters
    ----------
    sources : sequence
        Paths, "file.gpkg:layer", GeoDataFrames or DataArrays with a CRS; later ones are laid over
        earlier ones.
    frame : Frame
        The job's frame. It bounds what is cached, and does not change what is read.
    options : SemanticsOptions
        How the sources are interpreted.

    Raises
    ------
    MissingFileError, MissingCrsError
        If a source does not exist, or has no CRS.
    InputError
        If a source cannot be read, or has several layers and none is named; if no layer has the
        class field; if no legend fits a source, or several fit a raster and differ.
    """
    if not sources:
        raise InputError(
            "no semantics are given", "name a vector file or a class raster as `semantics`"
        )
    opened_sources = [_open(source, options.assume_crs) for source in sources]
    require_class_field(
        [s for s in opened_sources if isinstance(s, VectorSource)], options.class_field
    )
    require_height_field(
        [(s.name, s.fields) for s in opened_sources if isinstance(s, VectorSource)],
        options.height_field,
    )
    layers: list[VectorLayer | RasterLayer] = []
    cache = BlockCache()
    for source in opened_sources:
        if isinstance(source, RasterSource):
            layers.append(RasterLayer(source, *choose_raster_legend(source, options)))
        else:
            layers.append(_vector_layer(source, options, frame, cache))
    return SemanticsReader(tuple(sources), frame, options, tuple(layers))


def _vector_layer(
    source: VectorSource, options: SemanticsOptions, frame: Frame, cache: BlockCache
) -> VectorLayer:
    """Interpret a layer; its texts are decoded anew if their encoding is not the one it claims."""
    source, doubt = with_encoding(source, lambda text: _is_known(text, options))
    try:
        choice, heights = interpret(source, options)
        return VectorLayer(with_areas(source, choice), choice, heights, frame, cache)
    except InputError as error:
        if doubt is not None:
            raise doubt from error
        raise


def _is_known(text: str, options: SemanticsOptions) -> bool:
    """Return whether any legend maps a text."""
    value = normalise(text)
    return any(
        value in rule.values
        for legend in (*options.legends, *options.crosswalks)
        for rule in legend.rules
    )


class SemanticsReader:
    """Reader of semantics on any window of a lattice.

    Made by `open_semantics`. Threads may share it, and it can be sent to another process.
    """

    def __init__(
        self,
        sources: tuple[Source, ...],
        frame: Frame,
        options: SemanticsOptions,
        layers: tuple[VectorLayer | RasterLayer, ...],
    ) -> None:
        self.frame = frame
        self._opened_with = (sources, frame, options)
        self._layers = layers
        self._heights: Any = None
        self._of_ground = False
        self._levels: WaterLevels | None = None
        self._river_levels: RiverLevels | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process opens the sources again: locks and caches are not sent.
        return _open_again, (*self._opened_with, self._heights, self._of_ground)

    def read(self, window: Frame) -> Semantics:
        """Read semantics on a window of the lattice, also outside the job's frame.

        Raises
        ------
        FrameError
            If the window lies on another lattice.
        InputError
            If a file cannot be read.
        """
        self.frame.require_lattice(window)
        structures = structures_in(window, self._things, self._decks, self._heights_at)
        wide = [
            layer.features(window, CONTEXT) if isinstance(layer, VectorLayer) else None
            for layer in self._layers
        ]
        buildings, shown = _buildings(window, wide)
        by_layer = [
            None if each is None else each.take(mask, trees_within(each.xy, window.bounds))
            for each, mask in zip(wide, shown, strict=True)
        ]
        features = [each for each in by_layer if each is not None]
        painted = rank_shapes(wide, shown)
        cover, ashore = self._cover(window, painted)
        lifted = [None if each is None else each.lifted for each in wide]
        beneath = None
        if any(
            mask is not None and (mask & seen).any()
            for mask, seen in zip(lifted, shown, strict=True)
        ):
            lies = [
                seen if mask is None else seen & ~mask
                for mask, seen in zip(lifted, shown, strict=True)
            ]
            painted = rank_shapes(wide, lies)
            beneath, _ = self._cover(window, painted)
        for seen_as in (cover, beneath):
            if seen_as is not None:
                self._paint_open_tunnels(window, seen_as)
        ground = cover if beneath is None else beneath
        return Semantics(
            frame=window,
            cover=cover,
            parcel=parcels(window, [each for each in painted if each is not None]),
            buildings=buildings,
            trees=_trees(features),
            water=self._water(window, ground, [each for each in painted if each is not None]),
            ashore=ashore,
            footprints=self.has_footprints,
            beneath=beneath,
            structures=structures,
        )

    def _things(self, bounds: Bounds) -> Things:
        """Return the structures of all sources whose bounds meet others."""
        layers = [each for each in self._layers if isinstance(each, VectorLayer)]
        return Things.of_sources([layer.things(bounds) for layer in layers])

    def _water_shapes(self, bounds: Bounds) -> NDArray:
        """Return the polygons of water that meet bounds, (n,) object."""
        size = self.frame.voxel_size
        left, bottom, right, top = bounds
        area = replace(
            self.frame,
            x=(math.floor(left / size), math.floor(right / size) + 1),
            y=(math.floor(bottom / size), math.floor(top / size) + 1),
        )
        water = [codes()[name] for name in ("river", "lake", "sea")]
        found = [np.empty(0, object)]
        for layer in self._layers:
            if isinstance(layer, VectorLayer):
                seen = layer.features(area)
                found.append(seen.shapes[seen.is_area & np.isin(seen.code, water)])
        return np.concatenate(found)

    @property
    def _heights_at(self) -> Callable[[NDArray], NDArray] | None:
        if self._levels is None:
            return None
        return functools.partial(self._levels.at, cell=self.frame.voxel_size)

    @functools.cached_property
    def _decks(self) -> Decks:
        """The heights of bridges."""
        return Decks(self._things, self._water_shapes, self._heights_at)

    @functools.cached_property
    def _tunnels(self) -> Tunnels:
        """The parts of tunnels that run in the open."""
        chain = functools.partial(self._decks.chain, kind=KIND["tunnel"])
        return Tunnels(chain, self._heights_at)

    def _open_tunnels(self, things: Things) -> list[tuple[shapely.LineString, NDArray]]:
        """Return the parts of tunnels that run in the open, each with its form."""
        found = things.take(things.form["kind"] == KIND["tunnel"])
        return [
            (part, form)
            for shape, form in zip(found.shape, found.form, strict=True)
            for part in self._tunnels.open(shape, form)
        ]

    def _paint_open_tunnels(self, window: Frame, cover: NDArray) -> None:
        """Paint tunnels where they run in the open over land, in place: not over other ways,
        buildings and water."""
        left, bottom, right, top = window.bounds
        around = (left - AROUND, bottom - AROUND, right + AROUND, top + AROUND)
        found = self._open_tunnels(self._things(around))
        if not found:
            return
        form = np.array([each for _, each in found])
        order = np.lexsort((-form["width"], form["cover"] != codes()["river"]))
        strips = shapely.buffer(
            np.array([part for part, _ in found], object),
            form["width"].astype(float) / 2,
            cap_style="flat",
            join_style="round",
            quad_segs=4,
        )
        code = paint(window, strips[order], form["cover"][order].astype(np.uint8), 1)
        ways = ("road", "rail", "paved", "building", "river", "lake", "sea")
        kept = [codes()[name] for name in ways]
        free = (code > 0) & ~np.isin(cover, kept)
        cover[free] = code[free]

    def objects(self, window: Frame) -> tuple[Buildings, Trees]:
        """Read the buildings that meet a window and the trees in it, without the land cover.

        They are those of `read`, which also says what is raised.
        """
        self.frame.require_lattice(window)
        wide = [
            layer.features(window, CONTEXT) if isinstance(layer, VectorLayer) else None
            for layer in self._layers
        ]
        buildings, shown = _buildings(window, wide)
        trees = [
            each.take(mask, trees_within(each.xy, window.bounds))
            for each, mask in zip(wide, shown, strict=True)
            if each is not None
        ]
        return buildings, _trees(trees)

    def _cover(
        self, window: Frame, painted: list[Painted | None]
    ) -> tuple[NDArray, NDArray | None]:
        """Paint class codes (ny, nx) uint8, strip by strip so that the fine grid stays small.

        Also return where a coastline says that there is land, (ny, nx) bool; None without coasts.
        """
        cover = np.zeros(window.shape, np.uint8)
        ashore = None if self.coast is None else np.zeros(window.shape, bool)
        height = max(1, STRIP_VOXELS // window.nx)
        for south in range(window.y[0], window.y[1], height):
            strip = replace(window, y=(south, min(south + height, window.y[1])))
            fine = np.zeros((strip.ny * SUPERSAMPLE, strip.nx * SUPERSAMPLE), np.uint16)
            for layer, features in zip(self._layers, painted, strict=True):
                top = None
                if isinstance(layer, RasterLayer):
                    classes = layer.classes(strip, SUPERSAMPLE)
                    if classes is not None:
                        top = ranked(classes, class_ranks()[classes])
                elif features is not None and len(features.shapes):
                    values = ranked(features.code, features.rank)
                    top = paint(strip, features.shapes, values, SUPERSAMPLE)
                if top is not None:
                    composite(fine, top)
            if ashore is not None and self.coast is not None:
                side = self.coast.sides(strip, SUPERSAMPLE)
                sea = np.where(side == SEA, np.uint8(codes()["sea"]), np.uint8(0))
                composite(fine, ranked(sea, np.full(sea.shape, SEA_RANK)))
                centre = SUPERSAMPLE // 2
                ashore[window.slices(strip)] = (
                    side[centre::SUPERSAMPLE, centre::SUPERSAMPLE] == LAND
                )
            cover[window.slices(strip)] = majority(class_of(fine), SUPERSAMPLE)
        unknown = cover == 0
        if self._levels is not None and unknown.any() and self._may_be_sea(window):
            # What no source maps is sea where the ground is not above it, unless a coast denies it.
            low = self._levels.read(window) <= SEA_LEVEL + ROUNDING
            sea = unknown & low if ashore is None else unknown & low & ~ashore
            cover[sea] = codes()["sea"]
        return cover, ashore

    def _may_be_sea(self, window: Frame) -> bool:
        """Return whether a height on a window may be as low as the sea."""
        lowest = getattr(self._heights, "lowest", None)
        return lowest is None or bool(lowest(window) <= SEA_LEVEL + 2 * ROUNDING)

    def use_heights(self, heights: Any, *, ground: bool = False) -> None:
        """Take the levels of water, and the side of a coast on which the land lies, from heights.

        Parameters
        ----------
        heights : object
            With `read(frame)`, which returns a Raster of metres; it can be sent to another process.
            If it has `lowest(frame)`, which returns a height below which none lies there, windows
            that lie above the sea are not read to look for it.
        ground : bool
            Whether they are those of the ground, and not of a surface: then roofs whose height
            above sea is mapped stand so much above it.
        """
        self._heights, self._of_ground = heights, ground
        self._levels = WaterLevels(_read_of(heights), self.frame)
        self._river_levels = RiverLevels(self._levels, self.frame.voxel_size)
        for layer in self._layers:
            if isinstance(layer, VectorLayer):
                layer.ground = self._heights_at if ground else None
        self.__dict__.pop("coast", None)
        self.__dict__.pop("_decks", None)
        self.__dict__.pop("_tunnels", None)

    @functools.cached_property
    def coast(self) -> Coast | None:
        """The coastlines around the job; None if there are none."""
        around = self.frame.pad(math.ceil(FARTHEST / self.frame.voxel_size) + MARGIN_VOXELS)
        sources = [layer.source for layer in self._layers if isinstance(layer, VectorLayer)]
        lines = read_coastlines(sources, self.frame.crs, around.bounds)
        if not len(lines):
            return None
        levels = self._levels
        cell = max(self.frame.voxel_size, COAST_CELL)
        return Coast(
            lines,
            None if levels is None else functools.partial(levels.at, cell=cell),
            self._land_is_mapped,
        )

    def _land_is_mapped(self, places: NDArray) -> NDArray:
        """Return whether vector layers map land at places (n, 2): (n,) float64, 0 or 1."""
        size = self.frame.voxel_size
        water = [codes()[name] for name in ("river", "lake", "sea")]
        out = np.zeros(len(places))
        for n, (x, y) in enumerate(np.floor(places / size).astype(np.int64).tolist()):
            cell = replace(self.frame, x=(x, x + 1), y=(y, y + 1))
            for layer in self._layers:
                if isinstance(layer, VectorLayer):
                    seen = layer.features(cell)
                    out[n] = max(out[n], float((seen.is_area & ~np.isin(seen.code, water)).any()))
        return out

    def _rivers(self, window: Frame, river: NDArray) -> NDArray:
        """Return the level of the cells of rivers beside lines, (ny, nx) float32."""
        found = [
            layer.river_lines(window, FLOW_REACH)
            for layer in self._layers
            if isinstance(layer, VectorLayer)
        ]
        lines = np.concatenate(found) if found else np.empty(0, object)
        # A line in several blocks counts once.
        unique = np.unique(shapely.to_wkb(lines).astype("O"), return_index=True)[1]
        if self._river_levels is None:
            return np.full(window.shape, np.nan, np.float32)
        return self._river_levels.at(lines[unique], window, river)

    def gaps(self, frame: Frame) -> Gaps:
        """Measure what no source maps in a region, at cells of `GAP_CELLS` voxels."""
        tiles = list(frame.tiles(GAP_TILE))
        step = -(-len(tiles) // GAP_TILES)
        places, land, sea = 0, 0, 0
        for tx, ty in tiles[::step]:
            window = frame.tile(tx, ty, GAP_TILE).intersection(frame)
            assert window is not None  # tiles() yields tiles that overlap the frame.
            cells = window.coarsen(GAP_CELLS)
            unknown = np.ones(cells.shape, bool)
            for layer in self._layers:
                if isinstance(layer, RasterLayer):
                    classes = layer.classes(cells, 1)
                    unknown &= True if classes is None else classes == 0
                    continue
                shapes = layer.features(window).shapes
                unknown &= paint(cells, shapes, np.ones(len(shapes), np.uint8), 1) == 0
            ashore = np.zeros(cells.shape, bool)
            if self.coast is not None:
                side = self.coast.sides(cells, 1)
                unknown &= side != SEA
                ashore = side == LAND
            low = np.zeros(cells.shape, bool)
            if self._levels is not None and unknown.any():
                low = (self._levels.read(cells) <= SEA_LEVEL + ROUNDING) & ~ashore
            places += unknown.size
            land += int((unknown & ~low).sum())
            sea += int((unknown & low).sum())
        turned = 0 if self.coast is None else self.coast.count_turned(frame.bounds)
        return Gaps(land / max(places, 1), sea / max(places, 1), turned)

    @functools.cached_property
    def has_footprints(self) -> bool:
        """Whether a source maps buildings, by the first `HEAD_FEATURES` of each layer."""
        return any(
            layer.maps_buildings(HEAD_FEATURES)
            for layer in self._layers
            if isinstance(layer, VectorLayer)
        )

    def _water(self, window: Frame, cover: NDArray, painted: list[Painted]) -> NDArray | None:
        """Return the level of mapped water, (ny, nx) float32; None without heights."""
        if self._levels is None:
            return None
        river = cover == codes()["river"]
        still = (cover == codes()["lake"]) | (cover == codes()["sea"])
        level = np.full(window.shape, np.nan, np.float32)
        if river.any():
            level = self._rivers(window, river)
        if not still.any():
            return level if river.any() else None
        sea = cover == codes()["sea"]
        if sea.any():
            stands = SEA_LEVEL if self.coast is None else self.coast.levels(window)
            level = np.where(sea, stands, level)
        shapes, code, rank = collect(painted, areas=True)
        chosen = np.isin(code, [codes()["lake"], codes()["sea"]])
        shapes, code, rank = shapes[chosen], code[chosen], rank[chosen]
        order = np.argsort(rank, kind="stable")
        shapes, code = shapes[order], code[order]
        number = paint(window, shapes, np.arange(1, len(shapes) + 1), 1)
        # A cell belongs to a lake by the largest share of it, and its centre may lie outside: then
        # it has the lowest level of the lakes that reach into it.
        fine = paint(window, shapes, np.ones(len(shapes), np.uint8), SUPERSAMPLE)
        reached = fine.reshape(window.ny, SUPERSAMPLE, window.nx, SUPERSAMPLE).any(axis=(1, 3))
        row, column = np.nonzero(still & (number == 0) & reached)
        size = window.voxel_size
        west, south = (window.x[0] + column) * size, (window.y[1] - 1 - row) * size
        cells = shapely.box(west, south, west + size, south + size)
        at, near = shapely.STRtree(shapes).query(cells, predicate="intersects")
        table = np.full(len(shapes) + 1, np.nan)
        for n in np.unique(np.concatenate([number[still], near + 1])).tolist():
            if n > 0:
                is_sea = code[n - 1] == codes()["sea"]
                table[n] = self._levels.of(shapes[n - 1], sea=bool(is_sea))
        mapped = table[number]
        lowest = np.full(len(row), np.nan)
        np.fmin.at(lowest, at, table[near + 1])
        mapped[row, column] = lowest
        return np.where(still & np.isfinite(mapped), mapped, level).astype(np.float32)

    def summary(self) -> dict[str, Any]:
        """Describe the sources and their legends; `survey` measures their content."""
        return {"sources": [layer.summary() for layer in self._layers]}

    def survey(self, frame: Frame | None = None) -> Survey:
        """Measure areas by value, and count features, in a region (the job's by default).

        Raises
        ------
        RegionError
            If no source has data there.
        InputError
            If more than half of the area with values maps to no class, unless `allow_unmapped`.
        """
        frame = self.frame if frame is None else frame
        self.frame.require_lattice(frame)
        values: list[ValueArea] = []
        counts: list[SourceSurvey] = []
        for layer in self._layers:
            areas, count = layer.survey(frame)
            values.extend(areas)
            counts.append(self._with_tunnels(layer, count, frame))
        values.sort(key=lambda value: (-value.area, value.source, value.value))
        result = Survey(tuple(values), tuple(counts))
        if not values and not self._coast_tells(frame):
            raise self._no_data(frame, counts)
        total = result.mapped_area + result.unmapped_area
        if (
            result.unmapped_area > UNMAPPED_SHARE * total
            and not self._opened_with[2].allow_unmapped
        ):
            raise _too_much_unmapped(result)
        return result

    def _with_tunnels(
        self, layer: VectorLayer | RasterLayer, count: SourceSurvey, frame: Frame
    ) -> SourceSurvey:
        """Return the counts of a source with a warning of the tunnels that it shows."""
        if not isinstance(layer, VectorLayer) or not count.underground or not count.meets:
            return count
        area = shapely.box(*frame.bounds)
        parts = self._open_tunnels(layer.things(frame.bounds))
        lengths = np.array([shapely.length(shapely.intersection(part, area)) for part, _ in parts])
        if not (lengths > 0).any():
            return count
        first = parts[int(np.argmax(lengths > 0))][0]
        x, y = shapely.get_coordinates(first)[0]
        text = (
            f"{count.source}: tunnels or culverts run in the open, by the heights, over "
            f"{lengths.sum():.0f} m in {int((lengths > 0).sum())} places, and are shown there; "
            f"one begins at {x:.0f} east, {y:.0f} north"
        )
        return replace(count, warnings=(*count.warnings, text))

    def _coast_tells(self, frame: Frame) -> bool:
        """Return whether a coastline tells land from sea in a region, although none meets it."""
        if self.coast is None:
            return False
        row, column = (sum(ends) // 2 for ends in (frame.y, frame.x))
        middle = replace(frame, x=(column, column + 1), y=(row, row + 1))
        return bool(self.coast.sides(middle, 1)[0, 0] != UNSAID)

    def _no_data(self, frame: Frame, counts: list[SourceSurvey]) -> RegionError:
        region = describe(frame.bounds, frame.crs)
        if any(count.meets for count in counts):
            names = ", ".join(count.source for count in counts if count.meets)
            return RegionError(
                f"no feature of {names} lies in the region {region}, although the extents overlap",
                "choose a region where the layer has features",
            )
        lines, hint = [], ""
        for layer in self._layers[:5]:
            bounds = layer.source.bounds
            if bounds is None:
                notes = layer.source.notes
                lines.append(" ".join([f"{layer.name} is empty", *(f"({note})" for note in notes)]))
            else:
                crs = layer.source.crs
                lines.append(f"{layer.name} covers {describe(bounds, crs)}")
                hint = hint or swap_hint(frame.bounds, frame.crs, bounds, crs)
        return RegionError(
            f"the semantics do not overlap the region: {', '.join(lines)}; the region is "
            f"{region}{hint}",
            "choose a region inside, or check the CRS of the file",
        )


@dataclass(frozen=True)
class Gaps:
    """What no source maps in a region.

    Attributes
    ----------
    land, sea : float
        Share of the region without land cover that becomes grassland, and sea.
    turned_coasts : int
        Coastlines in the region that ran the wrong way.
    """

    land: float
    sea: float
    turned_coasts: int


def _too_much_unmapped(survey: Survey) -> InputError:
    share = survey.unmapped_area / (survey.mapped_area + survey.unmapped_area)
    worst = "; ".join(
        f"{value.value} in {Path(value.source).name} "
        f"({value.area:.0f} m2, {value.area / 1e4:.2f} ha)"
        for value in survey.unmapped[:10]
    )
    return InputError(
        f"{share:.0%} of the area has values that map to no class, the largest: {worst}",
        "map them in a legend file, named with `legend`; name the right attribute with "
        "`class_field`; or accept it with `allow_unmapped`",
    )


def _open(source: Source, assume_crs: str | None) -> VectorSource | RasterSource:
    if isinstance(source, gpd.GeoDataFrame):
        return open_vector(source, assume_crs=assume_crs)
    if isinstance(source, RasterSource):
        return source
    if not isinstance(source, (str, Path)):
        return _open_array(source, assume_crs)
    path, layer = split_layer(source)
    # GDAL's name of a part of a file, such as NETCDF:file:variable, is not a path.
    if not Path(path).exists() and holds_raster(str(source)):
        return open_raster(source, assume_crs=assume_crs)
    require_file(path)
    if layer is None and _is_raster(path):
        return open_raster(source, assume_crs=assume_crs)
    return open_vector(source, assume_crs=assume_crs)


def _is_raster(path: str) -> bool:
    """Return whether to open a file as a raster; by its suffix if it is neither of both."""
    if Path(path).suffix.casefold() in RASTER_SUFFIXES:
        return holds_raster(path) or not holds_features(path)
    return not holds_features(path) and holds_raster(path)


def _open_array(source: Source, assume_crs: str | None) -> RasterSource:
    import xarray as xr

    if not isinstance(source, xr.DataArray):
        raise InputError(
            f"semantics cannot be a {type(source).__name__}",
            "give a path, a GeoDataFrame or an xarray.DataArray",
        )
    return open_raster(source, assume_crs=assume_crs)


def _read_of(heights: Any) -> Callable[[Frame], NDArray]:
    """Return a function that reads measured heights on a frame."""
    measured = getattr(getattr(heights, "reader", None), "measured", None)

    def read(frame: Frame) -> NDArray:
        values = np.asarray(heights.read(frame).data, float)
        if measured is not None:
            known = measured(frame).data
            if known.any():
                values = np.where(known, values, np.nan)
        return values

    return read


def _open_again(
    sources: tuple[Source, ...],
    frame: Frame,
    options: SemanticsOptions,
    heights: Any,
    of_ground: bool,
) -> SemanticsReader:
    reader = open_semantics(sources, frame, options)
    if heights is not None:
        reader.use_heights(heights, ground=of_ground)
    return reader


def _buildings(window: Frame, wide: list[WindowFeatures | None]) -> tuple[Buildings, list[NDArray]]:
    """Return the buildings of a window, and which shapes of each source are land cover in it.

    Land cover is what lies on the ground: neither what hangs above it, nor footprints that others
    replace.

    Parameters
    ----------
    window : Frame
        The window.
    wide : list of WindowFeatures or None
        The features of each source within CONTEXT of the window.
    """
    building = codes()["building"]
    box = shapely.box(*window.bounds)
    shapely.prepare(box)
    inside = [
        np.empty(0, bool) if each is None else shapely.intersects(box, each.shapes) for each in wide
    ]
    rows = [
        np.empty(0, np.int64)
        if each is None
        else np.flatnonzero(each.is_area & (each.code == building))
        for each in wide
    ]
    if not any(len(each) for each in rows):
        return no_buildings(), inside
    parts = [
        each.take(chosen, np.empty(0, np.int64))
        for each, chosen in zip(wide, rows, strict=True)
        if each is not None
    ]
    every = Buildings(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("shapes", "height", "key", "form")
        )
    )
    source = np.repeat(np.arange(len(rows)), [len(chosen) for chosen in rows])
    found = Candidates(with_sites(every), source)
    rank = rank_buildings(found)
    gone = left_out(found, rank)
    near = np.concatenate([mask[chosen] for mask, chosen in zip(inside, rows, strict=True)])
    lies = ~gone & ~every.hangs
    for number, (mask, chosen) in enumerate(zip(inside, rows, strict=True)):
        mask[chosen] &= lies[source == number]
    order = np.argsort(rank)
    standing = found.buildings.take(order[(near & ~gone)[order]])
    return with_ridges(standing, np.concatenate([part.ridges for part in parts])), inside


def _trees(features: list[WindowFeatures]) -> Trees:
    """Collect the trees, sorted by key and place."""
    if not any(len(each.xy) for each in features):
        return no_trees()
    xy = np.concatenate([each.xy for each in features])
    key = np.concatenate([each.tree_key for each in features])
    height = np.concatenate([each.tree_height for each in features])
    crown = np.concatenate([each.crown for each in features])
    leaf = np.concatenate([each.tree_leaf for each in features])
    order = np.lexsort((leaf, crown, height, xy[:, 1], xy[:, 0], key))
    return Trees(xy[order], height[order], crown[order], key[order], leaf[order])
