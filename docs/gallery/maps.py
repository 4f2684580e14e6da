"""Small made-up maps of the gallery: OpenStreetMap's tags as columns, and a ground model, in metres.

Each function writes NAME.gpkg (layers areas and lines) and NAME.tif into a folder. What it draws is
what the picture must show; the numbers are in the code.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from shapely.geometry import LineString, Point, Polygon

CRS = "EPSG:32632"
X, Y = 500_240.0, 5_499_920.0
"""South-west corner of every map; coordinates below count from here. One tile holds a whole map."""

Rows = list[dict[str, object]]
Ground = Callable[[NDArray, NDArray], NDArray]


def feature(shape: shapely.Geometry, tags: str) -> dict[str, object]:
    """A feature of "key=value key=value"."""
    return {"geometry": shape, **dict(tag.split("=", 1) for tag in tags.split())}


def write(folder: Path, name: str, rows: Rows, ground: Ground, size: float) -> None:
    """Write a map of `size` x `size` metres, and a ground model with a margin."""
    for layer, dimension in (("areas", 2), ("lines", 1)):
        chosen = [row for row in rows if shapely.get_dimensions(row["geometry"]) == dimension]
        if chosen:
            table = gpd.GeoDataFrame(chosen, geometry="geometry", crs=CRS)
            table.geometry = table.translate(X, Y)
            table.to_file(folder / f"{name}.gpkg", layer=layer)
    edge = 100.0
    east, north = np.meshgrid(
        np.arange(-edge, size + edge) + 0.5, np.arange(size + edge, -edge, -1.0) - 0.5
    )
    heights = ground(east, north).astype(np.float32)
    with rasterio.open(
        folder / f"{name}.tif",
        "w",
        driver="GTiff",
        width=heights.shape[1],
        height=heights.shape[0],
        count=1,
        dtype="float32",
        crs=CRS,
        transform=rasterio.transform.from_origin(X - edge, Y + size + edge, 1.0, 1.0),
        compress="deflate",
    ) as out:
        out.write(heights, 1)


def steps(distance: NDArray, each: float, rise: float) -> NDArray:
    """Heights that rise by `rise` in `each` metres, half of it level."""
    part = distance / each
    return rise * (np.floor(part) + np.clip(2 * (part - np.floor(part)) - 1, 0, 1))


def coast(folder: Path) -> None:
    """A town on a steep coast: terraces that rise by 6 m every 24 m from a quay, a basin behind two
    moles, towers of 12 to 60 m, and an islet. Only coastlines say where the sea is."""
    size = 400.0
    shore = [
        (-90, 150), (60, 150), (110, 178), (110, 205), (250, 205), (250, 178), (300, 150),
        (360, 120), (490, 90),
    ]  # fmt: skip

    def ground(east: NDArray, north: NDArray) -> NDArray:
        edge = np.interp(east, [x for x, _ in shore], [y for _, y in shore])
        inland = north - np.maximum(edge, 150) - 14
        isle = 5.0 * np.clip(1 - np.hypot(east - 330, north - 50) / 30, 0, 1)
        return np.where(north > edge, 1.5 + steps(np.maximum(inland, 0), 24.0, 6.0), isle)

    # Land lies on the left: the shore runs eastwards, the islet's anticlockwise.
    islet = shapely.geometry.polygon.orient(Point(330, 50).buffer(24)).exterior
    rows = [feature(line, "natural=coastline") for line in (LineString(shore), islet)]
    rows.append(feature(Polygon([(110, 150), (175, 150), (175, 158), (110, 158)]), "man_made=pier"))
    rows.append(feature(Polygon([(195, 150), (250, 150), (250, 158), (195, 158)]), "man_made=pier"))
    rows.append(feature(shapely.box(-90, 140, 490, 500), "landuse=residential"))
    random = np.random.default_rng(6)
    for row in range(8):
        low = 226 + 24 * row
        line = LineString([(-80, low - 6), (480, low - 6)])
        rows.append(feature(line, "highway=residential width=6"))
        x = -60.0 + 9 * (row % 3)
        while x < 450:
            width = float(random.uniform(12, 26))
            tall = int(random.choice([12, 15, 18, 24, 30, 45, 60], p=[.2, .2, .2, .2, .1, .06, .04]))  # fmt: skip
            kind = "roof:shape=flat" if tall > 18 else "roof:shape=hipped roof:height=3"
            house = shapely.box(x, low - 1, x + width, low + 13)
            colour = random.choice(["#e8d9b8", "#e9c9a6", "#f0e6d2", "#d9b79a", "white"])
            tags = f"building=apartments height={tall} {kind} building:colour={colour}"
            rows.append(feature(house, tags + " roof:colour=#b5603c"))
            x += width + float(random.uniform(4, 9))
    write(folder, "coast", rows, ground, size)


def lake(folder: Path) -> None:
    """A lake at 820 m among woods, with an island, a beck out of it, and a ground model whose water
    is rough by 3 m."""
    size = 320.0
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    radius = 95 + 14 * np.sin(3 * angle) + 8 * np.cos(5 * angle)
    shore = Polygon(np.stack([160 + radius * np.cos(angle), 165 + radius * np.sin(angle)], axis=1))
    island = Point(135, 185).buffer(20)

    def ground(east: NDArray, north: NDArray) -> NDArray:
        outside = shapely.distance(shapely.points(east, north), shore)
        slope = 820.5 + 0.38 * outside + 3 * np.sin(east / 31) * np.cos(north / 27)
        valley = np.clip(1 - np.abs(east - 170) / 70, 0, 1) * (north < 80)
        banks = slope + (818 + 0.02 * (north - 80) - slope) * valley**2 * (3 - 2 * valley)
        rough = np.random.default_rng(2).uniform(-1.5, 1.5, east.shape)
        hump = 6 * np.clip(1 - np.hypot(east - 135, north - 185) / 20, 0, 1)
        return np.where(outside > 0, banks, 820 + rough + hump)

    rows = [
        feature(shapely.box(-90, -90, 410, 410).difference(shore), "natural=wood leaf_type=mixed"),
        feature(shore.difference(island), "natural=water water=lake"),
        feature(island, "natural=scrub"),
        feature(shore.buffer(9).difference(shore), "natural=grassland"),
        feature(LineString([(170, 78), (168, 30), (175, -80)]), "waterway=stream width=4"),
        feature(LineString([(-80, 60), (60, 40), (200, 60), (400, 30)]), "highway=track width=4"),
    ]
    write(folder, "lake", rows, ground, size)


def cliff(folder: Path) -> None:
    """A cliff of 80 m between a beach and a heath, with a lighthouse at its edge."""
    size = 260.0

    def edge(east: NDArray) -> NDArray:
        return 120 + 18 * np.sin(east / 40) + 7 * np.sin(east / 13)

    def ground(east: NDArray, north: NDArray) -> NDArray:
        behind = north - edge(east)
        return np.where(behind > 0, 84 + 0.06 * behind, np.clip(4 + 0.06 * (behind + 60), 0, 6))

    east = np.arange(-90.0, 360.0, 5.0)
    line = np.stack([east, edge(east)], axis=1)
    top = Polygon([*line, (355, 400), (-90, 400)])
    foot = Polygon([*line, (355, 75), (-90, 75)])
    rows = [
        feature(top, "natural=heath"),
        feature(foot, "natural=beach surface=sand"),
        feature(LineString([(-90, 75), (355, 75)]), "natural=coastline"),
        feature(LineString(line), "natural=cliff"),
        feature(Point(150, 150).buffer(4), "building=yes height=22 roof:shape=dome roof:height=4"),
        feature(LineString([(150, 146), (160, 220), (120, 350)]), "highway=track width=3"),
    ]
    write(folder, "cliff", rows, ground, size)


def castle(folder: Path) -> None:
    """A castle on a hill, all of building parts: curtain walls of 9 m, round towers of 22 m with
    cones, a gate with a passage of 5 m under it, a hall with a gabled roof, a keep of 34 m, a chapel
    with an onion on its tower."""
    size = 240.0
    outline = Polygon([(70, 75), (165, 70), (180, 120), (150, 170), (85, 165), (60, 120)])

    def ground(east: NDArray, north: NDArray) -> NDArray:
        away = shapely.distance(shapely.points(east, north), outline.buffer(8))
        return 310 + 32 * np.exp(-((away / 45) ** 2))

    rows = [
        feature(shapely.box(-90, -90, 330, 330), "landuse=meadow"),
        feature(outline.buffer(60).difference(outline.buffer(14)), "natural=scrub"),
        feature(outline.buffer(-3), "highway=pedestrian area=yes surface=cobblestone"),
        feature(LineString([(116, -80), (120, 20), (117, 100)]), "highway=service width=5"),
    ]

    def part(shape: shapely.Geometry, tags: str) -> None:
        stone = "" if "building:colour" in tags else " building:colour=#b9ad97"
        rows.append(feature(shape, f"building:part=yes {tags}{stone}"))

    gate = shapely.box(109, 64, 125, 78)
    wall = outline.exterior.buffer(2, join_style="mitre").difference(gate)
    part(wall, "height=9 roof:shape=flat roof:colour=#a59a86")
    for corner in outline.exterior.coords[:-1]:
        tower = Point(corner).buffer(6.5)
        part(tower, "height=22 roof:shape=cone roof:height=8 roof:colour=#4d5560")
    part(gate, "height=16 min_height=5 roof:shape=hipped roof:height=4 roof:colour=#4d5560")
    for x in (109, 121):
        part(shapely.box(x, 64, x + 4, 78), "height=5 roof:shape=flat")
    hall = shapely.affinity.rotate(shapely.box(80, 128, 132, 144), -4)
    part(hall, "height=17 roof:shape=gabled roof:height=7 roof:colour=#9c4a33")
    part(shapely.box(136, 104, 152, 120), "height=34 roof:shape=pyramidal roof:height=8 roof:colour=#4d5560")  # fmt: skip
    part(shapely.box(80, 98, 96, 107), "height=11 roof:shape=gabled roof:height=4 roof:colour=#9c4a33")  # fmt: skip
    part(Point(78, 102.5).buffer(3.5), "height=22 roof:shape=onion roof:height=8 roof:colour=#6fa08a")  # fmt: skip
    # The outline of a building with parts is their union: the yard is a hole in it.
    parts = shapely.union_all([row["geometry"] for row in rows if "building:part" in row])
    rows.append(feature(parts, "building=castle height=34"))
    write(folder, "castle", rows, ground, size)


def bridge(folder: Path) -> None:
    """A valley of 22 m with a river, crossed by a road on a bridge from bank to bank, and by a railway
    on a second one; a lane runs along the river below both."""
    size = 300.0

    def middle(north: NDArray) -> NDArray:
        return 150 + 20 * np.sin(north / 60)

    def ground(east: NDArray, north: NDArray) -> NDArray:
        away = np.abs(east - middle(north))
        return 178 + 22 * np.clip((away - 25) / 45, 0, 1) ** 1.3 + 0.6 * np.sin(east / 40)

    north = np.arange(-80.0, 390.0, 10.0)
    river = np.stack([middle(north), north], axis=1)
    lane = river + np.array([20.0, 0.0])
    rows = [
        feature(shapely.box(-90, -90, 390, 390), "landuse=meadow"),
        feature(LineString(river).buffer(14), "natural=water water=river"),
        feature(LineString(river), "waterway=river"),
        feature(LineString(lane), "highway=unclassified width=4"),
    ]
    for y, kind, width in ((110, "highway=primary", 9), (200, "railway=rail", 6)):
        for x0, x1, tags in (
            (-80, 78, ""),
            (78, 226, " bridge=yes layer=1"),
            (226, 390, ""),
        ):
            rows.append(feature(LineString([(x0, y), (x1, y)]), f"{kind} width={width}{tags}"))
    wood = LineString(river).buffer(70).difference(LineString(river).buffer(34))
    rows.append(feature(wood.difference(shapely.box(0, 92, 300, 216)), "natural=wood"))
    write(folder, "bridge", rows, ground, size)


MAPS: dict[str, tuple[Callable[[Path], None], float]] = {
    "coast": (coast, 400.0),
    "bridge": (bridge, 300.0),
    "castle": (castle, 240.0),
    "lake": (lake, 320.0),
    "cliff": (cliff, 260.0),
}
"""What writes a map, and its size in metres."""
