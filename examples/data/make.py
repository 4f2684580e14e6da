"""Cut the data of the demo from full extracts. The results are committed.

Run `python examples/data/make.py FOLDER` with a folder that has landuse_4326.shp, osm_4326.gpkg and
srtm3_4326.tif.
"""

from __future__ import annotations

import sys
from pathlib import Path

import geopandas as gpd
import rasterio
from rasterio.windows import from_bounds

HERE = Path(__file__).parent
BOX = (11.575, 49.995, 11.616, 50.021)
"""West, south, east, north in degrees: slightly larger than the world of the demo."""

DEM_BOX = (11.55, 49.975, 11.637, 50.04)


def main(source: Path) -> None:
    """Cut land use, buildings, lines and heights."""
    landuse = gpd.read_file(source / "landuse_4326.shp", bbox=BOX)[
        ["osm_id", "osm_way_id", "class", "geometry"]
    ]
    landuse.to_file(HERE / "landuse.shp", encoding="utf-8")
    for layer in ("buildings", "lines"):
        features = gpd.read_file(source / "osm_4326.gpkg", layer=layer, bbox=BOX).drop(
            columns="name"
        )
        features.to_file(HERE / "osm.gpkg", layer=layer)
    with rasterio.open(source / "srtm3_4326.tif") as dem:
        window = from_bounds(*DEM_BOX, dem.transform).round_offsets().round_lengths()
        profile = dem.profile | {
            "width": int(window.width),
            "height": int(window.height),
            "transform": dem.window_transform(window),
            "compress": "deflate",
            "tiled": False,
        }
        for key in ("blockxsize", "blockysize"):
            profile.pop(key, None)
        with rasterio.open(HERE / "srtm3.tif", "w", **profile) as out:
            out.write(dem.read(window=window))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
