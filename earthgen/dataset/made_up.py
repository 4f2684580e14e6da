"""Made-up places: land use, footprints, roads and terrain of towns and countryside that do not
exist.

They feed the rule-based backends, whose worlds then serve as training data: clean, with true walls
and crowns, free of licences, and as large as needed. A place is a function of its seed and kind.

A place is drawn on a straight street grid. Blocks between the streets are filled by one of the
layouts below, and everything is then bent by a smooth warp, so that streets curve and rows of
houses follow them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import geopandas as gpd
import numpy as np
import rioxarray  # noqa: F401 - it adds `.rio` to arrays
import shapely
import xarray as xr
from numpy.typing import NDArray
from scipy import ndimage
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box
from shapely.geometry.base import BaseGeometry

from earthgen.errors import UnknownNameError

CRS = "EPSG:32632"
"""UTM zone 32 north; the places lie nowhere in particular in it."""

DEM_CELL = 5.0
"""Cell of the terrain model, metres."""

PITCH = 2048.0
"""Distance between the corners of places of consecutive seeds, metres, so that no two
overlap; a multiple of the windows of backends."""

BEND = (12.0, 260.0)
"""Amplitude and wavelength of the warp, metres."""


@dataclass(frozen=True)
class Kind:
    """How a kind of place is built up.

    Attributes
    ----------
    layouts : mapping of str to float
        Relative frequency of the layouts of blocks (`LAYOUTS`).
    depth, width : tuple of float
        Range of a block's size, metres.
    relief : tuple of float
        Range of the terrain's relief, metres.
    open_land : tuple of str
        Classes of the land between blocks.
    """

    layouts: dict[str, float]
    depth: tuple[float, float] = (45, 110)
    width: tuple[float, float] = (60, 170)
    relief: tuple[float, float] = (0, 25)
    open_land: tuple[str, ...] = ("grass",)


KINDS = {
    "town": Kind(
        {
            "perimeter": 6,
            "terraces": 2,
            "slabs": 1,
            "hall": 1,
            "park": 1,
            "square": 0.5,
            "detached": 0.5,
        }
    ),
    "suburb": Kind(
        {"detached": 6, "terraces": 3, "hall": 0.7, "park": 1, "sports": 0.5, "wood": 0.5},
        relief=(0, 50),
    ),
    "estate": Kind(
        {"slabs": 5, "towers": 2, "hall": 1, "park": 1.5, "parking": 0.7},
        depth=(80, 160),
        width=(100, 200),
    ),
    "industry": Kind(
        {"hall": 6, "parking": 1.5, "yard": 1, "slabs": 0.3},
        depth=(90, 180),
        width=(110, 240),
        open_land=("grass", "paved"),
    ),
    "village": Kind(
        {"detached": 4, "farm": 2, "field": 6, "orchard": 1, "wood": 2, "meadow": 4},
        depth=(70, 160),
        width=(80, 220),
        relief=(5, 70),
        open_land=("grassland",),
    ),
    "fields": Kind(
        {"field": 8, "meadow": 3, "wood": 1.5, "farm": 0.4, "orchard": 0.5},
        depth=(90, 240),
        width=(120, 380),
        relief=(0, 60),
        open_land=("grassland", "cropland"),
    ),
    "woods": Kind(
        {"wood": 8, "meadow": 1.5, "heath": 1, "farm": 0.1},
        depth=(120, 260),
        width=(140, 380),
        relief=(20, 160),
        open_land=("mixed_forest", "broadleaf_forest", "needleleaf_forest"),
    ),
}
"""The kinds of places by name."""


@dataclass
class MadeUpPlace:
    """Layers of a place, as `earthgen.generate` takes them.

    Attributes
    ----------
    name : str
    bounds : tuple of float
        Left, bottom, right, top in metres of `CRS`.
    land, buildings, roads : GeoDataFrame
        Columns "class"; "height" and "building"; "highway". In `CRS`.
    ground : DataArray
        Heights in metres, with the CRS.
    """

    name: str
    bounds: tuple[float, float, float, float]
    land: gpd.GeoDataFrame
    buildings: gpd.GeoDataFrame
    roads: gpd.GeoDataFrame
    ground: xr.DataArray


@dataclass
class Block:
    """A block between streets while it is filled, in its own coordinates from (0, 0).

    Attributes
    ----------
    width, depth : float
        Metres.
    random : Generator
    land : list of (polygon, class)
    houses : list of (polygon, height)
        The height in metres; NaN leaves it to the rules.
    """

    width: float
    depth: float
    random: np.random.Generator
    land: list[tuple[Polygon, str]] = field(default_factory=list)
    houses: list[tuple[BaseGeometry, float]] = field(default_factory=list)

    def cover(self, name: str) -> None:
        """Give the whole block a land class."""
        self.land.append((box(0, 0, self.width, self.depth), name))

    def house(
        self, x: float, y: float, width: float, depth: float, height: float = float("nan")
    ) -> None:
        """Put a rectangular house, cut to the block; nothing if too little of it is left."""
        shape = box(x, y, x + width, y + depth).intersection(box(0, 0, self.width, self.depth))
        if shape.area > 8:
            self.houses.append((shape, height))


def perimeter(block: Block) -> None:
    """Closed rows of houses around a courtyard, some with a building in it."""
    r = block.random
    block.cover("residential")
    deep, step, tall = r.uniform(9, 13), r.uniform(6, 15), r.uniform(9, 22)
    for y in (0.0, block.depth - deep):
        for x, wide in _row(r, 0, block.width, step, gap=0.04):
            block.house(x, y, wide, deep, tall * r.uniform(0.85, 1.15))
            if y == 0 and r.random() < 0.2 and block.depth > 45:
                block.house(x, deep + 8, r.uniform(3, 7), r.uniform(3, 7))
    if block.depth > 3 * deep:
        for x in (0.0, block.width - deep):
            for y, wide in _row(r, deep, block.depth - deep, step, gap=0.1):
                block.house(x, y, deep, wide, tall * r.uniform(0.85, 1.15))
    if block.width > 70 and block.depth > 70 and r.random() < 0.4:
        block.house(block.width * 0.35, block.depth * 0.4, block.width * 0.3, block.depth * 0.2)


def terraces(block: Block) -> None:
    """Rows of houses wall to wall, with gardens between the rows."""
    r = block.random
    block.cover("residential")
    y = 4.0
    while y < block.depth - 10:
        x, deep, step = 2.0, r.uniform(8, 11), r.uniform(5, 7)
        while x < block.width - step:
            for _ in range(r.integers(3, 9)):
                if x < block.width - step:
                    block.house(x, y, step, deep)
                    x += step
            x += r.uniform(4, 9)
        y += deep + r.uniform(16, 26)


def detached(block: Block) -> None:
    """Houses apart from each other, some with a garage."""
    r = block.random
    block.cover("residential")
    y = 5.0
    while y < block.depth - 10:
        x = 4.0
        while x < block.width - 12:
            wide, deep = r.uniform(8, 14), r.uniform(7, 11)
            front = y + r.uniform(0, 4)
            if r.random() < 0.9:
                block.house(x, front, wide, deep)
                if r.random() < 0.25:  # an L
                    block.house(x, front, wide * 0.45, deep + r.uniform(3, 6))
            if r.random() < 0.35:
                block.house(x + wide + 1, y, 3.2, 6)
            x += wide + r.uniform(7, 14)
        y += 26


def slabs(block: Block) -> None:
    """Long blocks of flats on lawns."""
    r = block.random
    block.cover("grass")
    deep, gap = r.uniform(11, 15), r.uniform(24, 40)
    along = r.random() < 0.5
    length, across = (block.width, block.depth) if along else (block.depth, block.width)
    at = r.uniform(4, 14)
    while at < across - deep:
        start, long = r.uniform(3, 12), length * r.uniform(0.5, 0.85)
        tall = r.choice([12.0, 15.0, 18.0, 24.0, 32.0])
        if along:
            block.house(start, at, long, deep, tall)
        else:
            block.house(at, start, deep, long, tall)
        at += deep + gap


def towers(block: Block) -> None:
    """Point blocks on lawns."""
    r = block.random
    block.cover("grass")
    step = r.uniform(38, 55)
    for y in np.arange(10, block.depth - 26, step):
        for x in np.arange(10, block.width - 26, step):
            wide, tall = r.uniform(18, 25), r.uniform(24, 62)
            block.house(x + r.uniform(0, 6), y + r.uniform(0, 6), wide, 20, tall)


def hall(block: Block) -> None:
    """A hall or two with yards and parking."""
    r = block.random
    block.cover("commercial")
    wide, deep = block.width - 16, block.depth - 16
    if wide < 20 or deep < 20:
        return
    first = r.uniform(0.35, 0.7)
    block.house(8, 8, wide * first, deep * r.uniform(0.5, 0.95), r.uniform(6, 15))
    if r.random() < 0.6:
        block.house(12 + wide * first, 8, wide * (0.9 - first), deep * r.uniform(0.3, 0.8))
    block.land.append((box(8, deep * 0.75, 8 + wide * 0.9, 8 + deep), "paved"))


def farm(block: Block) -> None:
    """A house, barns and a yard amid grass."""
    r = block.random
    block.cover("grassland")
    x, y = r.uniform(5, max(6, block.width - 60)), r.uniform(5, max(6, block.depth - 50))
    block.land.append((box(x, y, x + 50, y + 40), "paved"))
    block.house(x + 2, y + 2, r.uniform(10, 15), 9)
    block.house(x + 22, y + 3, r.uniform(18, 28), r.uniform(10, 14))
    if r.random() < 0.7:
        block.house(x + 4, y + 22, 10, r.uniform(12, 18))
    block.land.append((box(x - 4, y + 40, x + 54, y + 44), "tree"))


def park(block: Block) -> None:
    """Lawn with groves, sometimes a pond."""
    block.cover("grass")
    for _ in range(block.random.integers(2, 6)):
        block.land.append((_blob(block, 6, 22), "broadleaf_forest"))
    if block.random.random() < 0.35:
        block.land.append((_blob(block, 8, 20), "lake"))


def square(block: Block) -> None:
    """A paved square with a few trees."""
    block.cover("paved")
    for _ in range(block.random.integers(3, 9)):
        block.land.append((_blob(block, 2, 4), "tree"))


def field_(block: Block) -> None:
    """Strips of cropland, some with a hedge between."""
    r = block.random
    block.cover("cropland")
    if r.random() < 0.4:
        at = r.uniform(0.3, 0.7) * block.depth
        block.land.append((box(0, at, block.width, at + r.uniform(3, 5)), "tree"))


def wood(block: Block) -> None:
    """A wood of one kind of trees, with ragged clearings."""
    r = block.random
    block.cover(str(r.choice(["broadleaf_forest", "needleleaf_forest", "mixed_forest"])))
    for _ in range(r.integers(0, 3)):
        block.land.append((_blob(block, 8, 25), "grassland"))


def plain(name: str, patch: str = "", patches: int = 0) -> Callable[[Block], None]:
    """Return a layout of one land class with some patches of another."""

    def fill(block: Block) -> None:
        block.cover(name)
        for _ in range(patches):
            block.land.append((_blob(block, 4, 14), patch))

    return fill


LAYOUTS: dict[str, Callable[[Block], None]] = {
    "perimeter": perimeter,
    "terraces": terraces,
    "detached": detached,
    "slabs": slabs,
    "towers": towers,
    "hall": hall,
    "farm": farm,
    "park": park,
    "square": square,
    "field": field_,
    "wood": wood,
    "meadow": plain("grassland", "tree", 2),
    "orchard": plain("orchard"),
    "heath": plain("shrub", "tree", 3),
    "sports": plain("sports", "tree", 2),
    "parking": plain("paved", "tree", 3),
    "yard": plain("bare_ground", "paved", 2),
}
"""What fills a block, by name."""


def make_place(seed: int, kind: str, edge: float = 1024.0) -> MadeUpPlace:
    """Make up a place.

    Parameters
    ----------
    seed : int
        Places of different seeds differ and lie apart.
    kind : str
        A key of `KINDS`.
    edge : float
        Metres, at most `PITCH`.

    Raises
    ------
    UnknownNameError
        If there is no such kind.
    """
    if kind not in KINDS:
        raise UnknownNameError(f"unknown kind of place {kind!r}", f"known: {', '.join(KINDS)}")
    style, random = KINDS[kind], np.random.default_rng([seed, list(KINDS).index(kind)])
    corner = PITCH * np.array([244.0 + seed % 64, 2637.0 + seed // 64])
    warp = _Warp(random, edge, corner)
    land: list[tuple[BaseGeometry, str]] = []
    houses: list[tuple[BaseGeometry, float]] = []
    streets: list[tuple[BaseGeometry, str]] = []
    whole = box(-300, -300, edge + 300, edge + 300)
    land.append((warp.shape(whole), str(random.choice(style.open_land))))
    names = list(style.layouts)
    odds = np.array([style.layouts[name] for name in names])
    rural = kind in ("fields", "woods")
    for x, y, wide, deep, road in _grid(random, style, edge):
        if not rural or random.random() < 0.35:
            highway = "track" if rural else "tertiary" if road > 10 else "residential"
            streets.append((warp.line(x, y, x + wide, y), highway))
            streets.append((warp.line(x, y, x, y + deep), highway))
        block = Block(wide - road, deep - road, random)
        if min(block.width, block.depth) < 20:
            continue
        LAYOUTS[str(random.choice(names, p=odds / odds.sum()))](block)
        at = np.array([x + road / 2, y + road / 2])
        land += [(warp.shape(shape, at), name) for shape, name in block.land]
        houses += [(warp.rectangle(shape, at), height) for shape, height in block.houses]
    if rural or random.random() < 0.3:
        land.append(warp.stream(random))
    area = box(*corner, *(corner + edge))
    return MadeUpPlace(
        name=f"{kind}-{seed}",
        bounds=area.bounds,
        land=_frame("class", land, area),
        buildings=_frame("height", houses, area).assign(building="yes"),
        roads=_frame("highway", streets, area),
        ground=_terrain(random, style, edge, corner),
    )


def _row(
    random: np.random.Generator, start: float, end: float, step: float, gap: float
) -> Iterator[tuple[float, float]]:
    """Begin and width of the houses of a row; `gap` is the odds that one is missing."""
    at = start
    while at < end - 3:
        wide = min(step * random.uniform(0.85, 1.15), end - at)
        if random.random() >= gap:
            yield at, wide
        at += wide


def _blob(block: Block, low: float, high: float) -> Polygon:
    """A rounded patch of a radius within [low, high] metres somewhere in a block."""
    r = block.random
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    radius = r.uniform(low, high) * (1 + 0.25 * r.normal(size=16).clip(-2, 2))
    x, y = r.uniform(0, block.width), r.uniform(0, block.depth)
    ring = np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)
    shape = Polygon(ring).buffer(0).intersection(box(0, 0, block.width, block.depth))
    if isinstance(shape, MultiPolygon):
        shape = max(shape.geoms, key=lambda part: part.area)
    return shape if isinstance(shape, Polygon) and not shape.is_empty else Point(x, y).buffer(low)


def _grid(
    random: np.random.Generator, style: Kind, edge: float
) -> Iterator[tuple[float, float, float, float, float]]:
    """x, y, width, depth of the cells of the street grid, and the width of the street, metres."""
    y = -250.0
    while y < edge + 250:
        deep, x = random.uniform(*style.depth), -250.0
        while x < edge + 250:
            wide = random.uniform(*style.width)
            yield x, y, wide, deep, float(random.choice([10, 12, 16], p=[0.5, 0.35, 0.15]))
            x += wide
        y += deep


@dataclass
class _Warp:
    """Turns and bends the grid of a place, and moves it to where the place lies."""

    random: np.random.Generator
    edge: float
    corner: NDArray

    def __post_init__(self) -> None:
        r = self.random
        self.turn = r.uniform(0, np.pi / 2)
        self.phase = r.uniform(0, 2 * np.pi, 4)
        self.bend = BEND[0] * r.uniform(0.2, 1.0)

    def points(self, xy: NDArray) -> NDArray:
        """(n, 2) metres in the CRS of (n, 2) metres on the grid."""
        x, y = xy.T
        k = 2 * np.pi / BEND[1]
        p = self.phase
        u = x + self.bend * (np.sin(k * y + p[0]) + 0.5 * np.sin(0.43 * k * y + p[1]))
        v = y + self.bend * (np.sin(k * x + p[2]) + 0.5 * np.sin(0.43 * k * x + p[3]))
        cos, sin, half = np.cos(self.turn), np.sin(self.turn), self.edge / 2
        u, v = u - half, v - half
        return np.stack([cos * u - sin * v + half, sin * u + cos * v + half], axis=1) + self.corner

    def shape(self, shape: BaseGeometry, at: NDArray | None = None) -> BaseGeometry:
        """A polygon with bent edges."""
        offset = np.zeros(2) if at is None else at
        fine = shapely.segmentize(shape, 8.0)
        return shapely.transform(fine, lambda xy: self.points(xy + offset)).buffer(0)

    def line(self, x0: float, y0: float, x1: float, y1: float) -> BaseGeometry:
        """A bent street."""
        fine = shapely.segmentize(LineString([(x0, y0), (x1, y1)]), 8.0)
        return shapely.transform(fine, self.points)

    def rectangle(self, shape: BaseGeometry, at: NDArray) -> BaseGeometry:
        """A house that is moved and turned with its surroundings and keeps its right angles."""
        centre = np.array(shape.centroid.coords[0])
        near = self.points(np.stack([centre, centre + np.array([1e-3, 0.0])]) + at)
        along = (near[1] - near[0]) / np.linalg.norm(near[1] - near[0])
        turn = np.array([along, [-along[1], along[0]]])
        return shapely.transform(shape, lambda xy: (xy - centre) @ turn + near[0])

    def stream(self, random: np.random.Generator) -> tuple[BaseGeometry, str]:
        """A stream or river across the place."""
        y = random.uniform(0.2, 0.8) * self.edge
        x = np.linspace(-200, self.edge + 200, 60)
        bends = 30 * np.sin(x / random.uniform(60, 140) + random.uniform(0, 6))
        line = LineString(self.points(np.stack([x, y + bends], axis=1)))
        return line.buffer(random.uniform(1.5, 9)), "river"


def _terrain(
    random: np.random.Generator, style: Kind, edge: float, corner: NDArray
) -> xr.DataArray:
    """Smooth hills: Gaussian noise of three wavelengths."""
    around, n = 200.0, int((edge + 400) / DEM_CELL)
    relief = random.uniform(*style.relief)
    heights = np.zeros((n, n))
    for metres, share in ((320.0, 1.0), (120.0, 0.3), (45.0, 0.06)):
        noise = ndimage.gaussian_filter(random.normal(size=(n, n)), metres / 2 / DEM_CELL)
        heights += share * noise / noise.std()
    heights = 120 + relief * heights / 4
    x = corner[0] - around + (np.arange(n) + 0.5) * DEM_CELL
    y = corner[1] - around + (np.arange(n)[::-1] + 0.5) * DEM_CELL
    layer = xr.DataArray(heights.astype(np.float32), {"y": y, "x": x}, ("y", "x"))
    layer.attrs["units"] = "m"
    return layer.rio.write_crs(CRS)


def _frame(
    column: str, rows: Sequence[tuple[BaseGeometry, str | float]], area: BaseGeometry
) -> gpd.GeoDataFrame:
    """The features that meet an area, in the order drawn."""
    near = area.buffer(60)
    kept = [(shape, name) for shape, name in rows if shape.intersects(near)]
    return gpd.GeoDataFrame(
        {column: [name for _, name in kept]}, geometry=[shape for shape, _ in kept], crs=CRS
    )
