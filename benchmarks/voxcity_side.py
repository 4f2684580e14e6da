"""VoxCity's half of `benchmarks.voxcity`, for the interpreter that has VoxCity: nothing of earthgen
is imported.

The steps are those of voxcity.generator.pipeline with every input a file: grids of heights, ground
and trees, the voxelizer, and the HDF5 file.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import geopandas as gpd
import numpy as np
from pyproj import Transformer
from voxcity.generator.io import save_voxcity
from voxcity.generator.pipeline import VoxCityPipeline
from voxcity.generator.voxelizer import BUILDING_CODE, Voxelizer
from voxcity.geoprocessor.raster import (
    create_building_height_grid_from_gdf_polygon,
    create_dem_grid_from_geotiff_polygon,
    create_height_grid_from_geotiff_polygon,
)
from voxcity.geoprocessor.raster.core import compute_grid_geometry

TRUNK = 11.76 / 19.98
"""VoxCity's own share of a tree below its crown."""

DEVELOPED = 10
"""VoxCity's class "Developed space" in its OpenStreetMap scheme."""


def main(
    data: Path, out: Path, crs: str, west: float, south: float, east: float, north: float
) -> None:
    """Make a city of the files in `data`, and write voxcity.npz: arrays on cells of 1 m of the box,
    from north to south."""
    to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    corners = [(west, south), (west, north), (east, north), (east, south)]
    vertices = [to_degrees.transform(*corner) for corner in corners]
    footprints = gpd.read_file(data / "buildings.shp").to_crs("EPSG:4326")
    footprints = footprints.explode(ignore_index=True)[["geometry"]]
    footprints = footprints.assign(height=np.nan, min_height=0.0, id=range(1, len(footprints) + 1))
    heights, lows, ids, _ = create_building_height_grid_from_gdf_polygon(
        footprints, 1.0, vertices, geotiff_path_comp=str(out / "above.tif"), complement_height=10.0
    )
    dem = create_dem_grid_from_geotiff_polygon(str(data / "dem.tif"), 1.0, vertices, True)
    dem = np.where(np.isnan(dem), np.nanmin(dem), dem)
    trees = create_height_grid_from_geotiff_polygon(str(data / "cdsm.tif"), 1.0, vertices)
    trees = np.where(np.isfinite(trees) & (trees > 0) & (heights == 0), trees, 0.0)
    cover = np.full(heights.shape, DEVELOPED)
    voxels = Voxelizer(1.0, "OpenStreetMap").generate_combined(
        heights, lows, ids, cover, dem, trees, trees * TRUNK, print_class_info=False
    )
    city = VoxCityPipeline(meshsize=1.0, rectangle_vertices=vertices).assemble_voxcity(
        voxels, heights, lows, ids, cover, dem, trees, trees * TRUNK
    )
    save_voxcity(str(out / "voxcity.h5"), city)
    built = voxels == BUILDING_CODE
    tall = built.sum(axis=2).astype(float)

    # The cells of the box in VoxCity's grid, whose axes are the first and the last edge.
    x, y = np.meshgrid(np.arange(west, east) + 0.5, np.arange(south, north)[::-1] + 0.5)
    lon, lat = to_degrees.transform(x, y)
    grid = compute_grid_geometry(vertices, 1.0)
    axes = np.array([grid["adj_mesh"][0] * grid["u_vec"], grid["adj_mesh"][1] * grid["v_vec"]]).T
    places = np.stack([lon.ravel(), lat.ravel()]) - np.array(grid["origin"])[:, None]
    i, j = np.floor(np.linalg.solve(axes, places)).astype(int)
    i, j = (np.clip(k, 0, size - 1) for k, size in zip((i, j), tall.shape, strict=True))
    np.savez(
        out / "voxcity.npz",
        built=built.any(axis=2)[i, j].reshape(x.shape),
        height=tall[i, j].reshape(x.shape),
    )
    (out / "version.txt").write_text(version("voxcity"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *json.loads(sys.argv[3]))
