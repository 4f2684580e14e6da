"""A made-up place with buildings of every shape of roof, parts, and things that hang in the air."""

from __future__ import annotations

import geopandas as gpd
import shapely

from geo_io.layers import ROOF_SHAPES

CRS = "EPSG:32632"
X, Y = 500000.0, 5500000.0
STEP = 36.0
COLOURS = ("#b5523c", "slategrey", "seagreen", "#c9a227", "white", "firebrick")


def roof_gallery() -> gpd.GeoDataFrame:
    """Four rows: each roof on a turned rectangle, on an angle, and on a disc; then parts."""
    shapes = [name for name in ROOF_SHAPES if name != "unknown"]
    rows = []
    for n, name in enumerate(shapes):
        x = X + STEP * (n + 0.5)
        angle = shapely.Polygon([(-10, -8), (10, -8), (10, 0), (0, 0), (0, 8), (-10, 8)])
        outlines = (
            shapely.affinity.rotate(shapely.box(-10, -6, 10, 6), 20),
            shapely.affinity.rotate(angle, -10, origin=(0, 0)),
            shapely.Point(0, 0).buffer(9),
        )
        for row, outline in enumerate(outlines):
            rows.append(
                {
                    "building": "yes",
                    "height": 14.0,
                    "roof:shape": name,
                    "roof:height": 9.0 if name in ("dome", "onion", "cone") else 5.0,
                    "roof:colour": COLOURS[n % len(COLOURS)],
                    "building:colour": COLOURS[(n + 4) % len(COLOURS)],
                    "geometry": shapely.affinity.translate(outline, x, Y + STEP * (row + 0.5)),
                }
            )
    ridge = shapely.LineString([(-4, 0), (4, 0)])
    place = X + STEP * (len(shapes) - 0.5), Y + STEP * 0.5
    ridge = shapely.affinity.translate(shapely.affinity.rotate(ridge, 20), *place)
    rows.append({"roof:ridge": "yes", "geometry": ridge})
    return gpd.GeoDataFrame(rows + castle(X + 40, Y + STEP * 3.5), geometry="geometry", crs=CRS)


def castle(x: float, y: float) -> list[dict[str, object]]:
    """An outline with four towers, walls, a keep, a bridge in the air, and a roof on posts."""

    def part(box: shapely.Geometry, **tags: object) -> dict[str, object]:
        shape = shapely.affinity.translate(box, x, y)
        return {"geometry": shape, **{key.replace("_of_", ":"): tag for key, tag in tags.items()}}

    outline = shapely.box(-22, -14, 22, 14)
    rows = [part(outline, building="castle", height=28.0)]
    yard = outline.difference(shapely.box(-6, -5, 6, 5))
    for east in (-1, 1):
        for north in (-1, 1):
            tower = shapely.Point(18 * east, 10 * north).buffer(4)
            rows.append(part(tower, **{"building:part": "yes", "height": 26.0,
                "roof:shape": "cone", "roof:height": 9.0, "roof:colour": "#7a3b2e",
                "building:material": "sandstone"}))  # fmt: skip
    rows.append(part(yard, **{"building:part": "yes", "height": 4.0}))
    for low, high, colour in ((0, 10, "brick"), (10, 18, "wood"), (18, 28, "stone")):
        inset = low / 9
        keep = shapely.box(-6 + inset, -5 + inset, 6 - inset, 5 - inset)
        tags = {"building:part": "yes", "height": high, "building:material": colour}
        top = {"roof:shape": "hipped", "roof:height": 4} if high == 28 else {}
        rows.append(part(keep, min_height=low or None, **tags, **top))
    rows.append(part(shapely.box(5, -1.5, 16, 1.5), min_height=12, height=15,
        **{"building:part": "yes"}))  # fmt: skip
    rows.append(part(shapely.box(50, -8, 66, 4), building="roof", height=6.0))
    rows += [
        part(shapely.box(90, -8, 102, 8), building="yes", height=30.0),
        part(shapely.box(126, -8, 138, 8), building="yes", height=30.0),
        part(shapely.box(102, -3, 126, 3), building="bridge", height=24.0, min_height=18.0),
    ]
    return rows
