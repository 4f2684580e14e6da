"""Small sound files of the formats, for the fuzzer to damage."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import shapely

from tests.helpers import dataset_places, synthetic

WEST, NORTH = 685740, 5542540
"""Corner of the place of `targets.frame`, EPSG:32632."""

JOB = """
bbox = [11.592, 50.005, 11.594, 50.006]
seed = 3
voxel_size = 2.0
band = [-16, 112]
geometry_options = { a = 1, b = [1, 2] }
"""

RECIPE = """
voxel_size = 1.0
[[scene]]
name = "a"
licence = "CC0-1.0"
grade = "A"
mesh = "a.obj"
crs = "EPSG:32632"
mesh_offset = [640000, 5560000, 0]
"""

LEGEND = """
name: a
rules:
  - field: [landuse, use]
    values: {meadow: grassland, forest: mixed_forest, 3: lake, '*': unknown}
    widths: {road: 3.5}
layers: {'water*': lake}
colors: {1: '#aabbcc'}
"""

OBJ = "v 0 0 0\nv 20 0 0\nv 20 20 0\nv 0 20 5\nvt 0 0\nvt 1 1\nf 1/1 2/2 3/1\nf 1 3 4\n"

CAMERAS = {
    "camera_model": "PINHOLE",
    "fl_x": 50.0,
    "w": 64,
    "h": 48,
    "frames": [
        {
            "file_path": "a.png",
            "transform_matrix": [[1, 0, 0, 5], [0, 1, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]],
        }
    ],
}


def land() -> gpd.GeoDataFrame:
    """Two areas, a building and a line."""
    boxes = [shapely.box(WEST + 20 * n, NORTH - 60, WEST + 20 * n + 30, NORTH - 10) for n in (0, 2)]
    line = shapely.LineString([(WEST, NORTH - 5), (WEST + 90, NORTH - 80)])
    house = shapely.box(WEST + 10, NORTH - 40, WEST + 22, NORTH - 30)
    values = {"landuse": ["meadow", "forest", None, None], "building": [None, None, "yes", None]}
    values |= {"highway": [None, None, None, "track"], "height": [None, None, "7.5", None]}
    return gpd.GeoDataFrame(values, geometry=[*boxes, house, line], crs="EPSG:32632")


def write_seeds(folder: Path) -> None:
    """Write a folder for each format, with the file and its about.json."""

    def place(fmt: str, file: str) -> Path:
        home = folder / fmt
        home.mkdir(parents=True, exist_ok=True)
        (home / "about.json").write_text(json.dumps({"fmt": fmt, "file": file}))
        return home / file

    table = land()
    areas = table[table.geom_type == "Polygon"]
    areas.to_file(place("gpkg", "a.gpkg"), engine="pyogrio")
    areas.to_file(place("shp", "a.shp"), engine="pyogrio")
    areas.to_file(place("fgb", "a.fgb"), engine="pyogrio", driver="FlatGeobuf")
    table.to_file(place("geojson", "a.geojson"), engine="pyogrio", driver="GeoJSON")
    areas[:2].to_file(place("region", "a.geojson"), engine="pyogrio", driver="GeoJSON")
    table.to_parquet(place("parquet", "a.parquet"))
    transform = rasterio.transform.from_origin(WEST - 30, NORTH + 30, 10, 10)
    profile = {"driver": "GTiff", "width": 24, "height": 24, "count": 1, "crs": "EPSG:32632"}
    profile |= {"transform": transform, "tiled": True, "blockxsize": 16, "blockysize": 16}
    rows, columns = np.mgrid[0:24, 0:24]
    for fmt, values in (
        ("dem", (300 + rows + 0.5 * columns).astype(np.float32)),
        ("classes", (rows // 8 * 10 + 10).astype(np.uint8)),
    ):
        path = place(fmt, "ESA_WorldCover.tif" if fmt == "classes" else "a.tif")
        with rasterio.open(path, "w", **profile, dtype=values.dtype, compress="deflate") as file:
            file.write(values, 1)
    for fmt, name, text in (
        ("job", "a.toml", JOB),
        ("recipe", "a.toml", RECIPE),
        ("legend", "a.yaml", LEGEND),
        ("obj", "a.obj", OBJ),
        ("cameras", "a.json", json.dumps(CAMERAS)),
    ):
        path = place(fmt, name)
        path.write_text(text)
        if fmt == "recipe":
            path.with_name("a.obj").write_text(OBJ)
    synthetic.make(place("world", "a.zarr"), (0, 24), (64, 88), tile_size=64)
    scene = dataset_places.village_scene(folder / "scene").path
    place("scene", scene.name)
