"""`make gallery`: the worlds of docs/gallery, made with the commands a user would type, measured
and pictured.

Real places need the real data beside the checkout (../shared/data); the small made-up maps of
maps.py need nothing. Writes pictures and results.json into this folder; README.md tells what was
found.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import maps
import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.features import geometry_mask

import earthgen
from earthgen import Frame, World
from geo_io import codes

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DATA = ROOT.parent / "shared" / "data"
OUT = ROOT / "gallery-output"
MADE_UP = OUT / "maps"


@dataclass(frozen=True)
class Place:
    """A world of the gallery: its command, the building mask of its input (if any), read without
    earthgen, and its pictures with the words for each."""

    name: str
    arguments: tuple[str, ...]
    truth: Callable[[Frame], NDArray] | None
    views: tuple[tuple[str, ...], ...] = (("top",), ("oblique",))


def footprints(
    path: Path, layer: str | None = None, where: str | None = None
) -> Callable[[Frame], NDArray]:
    def mask(frame: Frame) -> NDArray:
        shapes = gpd.read_file(path, layer=layer, where=where).to_crs(frame.crs).make_valid()
        shapes = shapes[
            ~shapes.is_empty
            & shapes.geom_type.isin(["Polygon", "MultiPolygon", "GeometryCollection"])
        ]
        return np.asarray(geometry_mask(shapes, frame.shape, frame.transform, invert=True))

    return mask


def raster_class(
    path: Path, value: int, also: Callable[[Frame], NDArray]
) -> Callable[[Frame], NDArray]:
    def mask(frame: Frame) -> NDArray:
        from rasterio.warp import Resampling, reproject

        with rasterio.open(path) as source:
            there = np.zeros(frame.shape, np.float32)
            reproject(
                rasterio.band(source, 1),
                there,
                dst_transform=frame.transform,
                dst_crs=frame.crs,
                resampling=Resampling.nearest,
            )
        return (there == value) | also(frame)

    return mask


def places() -> list[Place]:
    autzen = DATA / "autzen_full_rgb_lidar"
    bayreuth, annedal = DATA / "osm_bayreuth_srtm", DATA / "umep_goteborg_annedal"
    delft, olemps = DATA / "delft_ahn3_bgt", DATA / "bdtopo_olemps_vectors"
    box = "--bbox=685283,5542058,686683,5543458"
    place = (box, "--bbox-crs", "EPSG:32632")
    srtm = ("--dem", str(bayreuth / "srtm3_4326.tif"))
    truth = footprints(bayreuth / "osm_4326.gpkg", "buildings")
    layers = (
        "BATIMENT",
        "ZONE_DE_VEGETATION",
        "SURFACE_HYDROGRAPHIQUE",
        "TRONCON_DE_ROUTE",
        "TERRAIN_DE_SPORT",
        "CIMETIERE",
    )
    return [
        Place(
            "bayreuth-landuse",
            (*place, "--semantics", str(bayreuth / "landuse_4326.shp"), *srtm),
            truth,
        ),
        Place(
            "bayreuth-buildings",
            (
                *place,
                "--semantics",
                str(bayreuth / "landuse_4326.shp"),
                "--semantics",
                f"{bayreuth / 'osm_4326.gpkg'}:lines",
                "--semantics",
                f"{bayreuth / 'osm_4326.gpkg'}:buildings",
                *srtm,
            ),
            truth,
        ),
        Place(
            "annedal",
            (
                "--region",
                str(annedal / "dem.tif"),
                "--semantics",
                str(annedal / "groundcover.tif"),
                "--legend",
                "umep",
                "--semantics",
                str(annedal / "buildings.shp"),
                "--dem",
                str(annedal / "dem.tif"),
                "--dsm",
                str(annedal / "dsm.tif"),
                "--crs",
                "EPSG:3006",
            ),
            raster_class(annedal / "groundcover.tif", 2, footprints(annedal / "buildings.shp")),
        ),
        Place(
            "delft",
            (
                "--bbox=84820,447500,85080,447700",
                "--bbox-crs",
                "EPSG:28992",
                "--crs",
                "EPSG:28992",
                "--voxel-size",
                "0.5",
                "--semantics",
                f"{delft / 'delft_landuse_merged.gpkg'}:landuse",
            ),
            footprints(delft / "delft_landuse_merged.gpkg", "landuse", "layer = 'pand'"),
        ),
        Place(
            "autzen",
            (
                "--region",
                str(autzen / "dsm.tif"),
                "--dem",
                str(autzen / "dtm_derived.tif"),
                "--dsm",
                str(autzen / "dsm.tif"),
                "--image",
                str(autzen / "ortho.tif"),
            ),
            None,
        ),
        Place(
            "olemps",
            (
                "--bbox=663900,6359800,665300,6361200",
                "--bbox-crs",
                "EPSG:2154",
                "--crs",
                "EPSG:2154",
                *(
                    word
                    for layer in layers
                    for word in ("--semantics", str(olemps / f"{layer}.shp"))
                ),
            ),
            footprints(olemps / "BATIMENT.shp"),
        ),
    ]


TOWARDS = {"coast": "185", "bridge": "205", "castle": "205", "lake": "200", "cliff": "215"}
"""Where the pictures of made-up maps are seen from, degrees from north."""


def made_up() -> list[Place]:
    """The places of maps.py."""
    found = []
    for name, (_, size) in maps.MAPS.items():
        file = MADE_UP / name
        box = ",".join(f"{value:g}" for value in (maps.X, maps.Y, maps.X + size, maps.Y + size))
        words = ["--bbox", box, "--bbox-crs", maps.CRS, "--crs", maps.CRS, "--dem", f"{file}.tif"]
        for layer in ("areas", "lines"):
            words += ["--semantics", f"{file}.gpkg:{layer}"]
        view = ("oblique", "--azimuth", TOWARDS[name], "--elevation", "30")
        found.append(Place(name, tuple(words), None, (view,)))
    return found


def command(*words: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "earthgen_cli", *map(str, words)], check=True)


def shown(words: tuple[str, ...]) -> str:
    return "earthgen generate " + shlex.join(without_folders(word) for word in words)


def without_folders(text: str) -> str:
    return text.replace(f"{DATA}/", "").replace(f"{MADE_UP}/", "")


def agreement(world: World, truth: NDArray) -> dict[str, float]:
    layers = world.layers()
    made = layers["semantics"].values == codes()["building"]
    height = (layers["surface"] - layers["ground"]).values
    return {
        "building_iou": round(float((made & truth).sum() / max((made | truth).sum(), 1)), 3),
        "input_building_share": round(float(truth.mean()), 4),
        "world_building_share": round(float(made.mean()), 4),
        "median_building_height_m": round(float(np.median(height[made])) if made.any() else 0.0, 2),
    }


def main(names: list[str]) -> None:
    """Make the worlds with these names, or all; figures of the others stay as they are."""
    OUT.mkdir(exist_ok=True)
    results: dict[str, object] = {}
    chosen = [place for place in (*places(), *made_up()) if place.name in names or not names]
    MADE_UP.mkdir(exist_ok=True)
    for name in maps.MAPS.keys() & {place.name for place in chosen}:
        maps.MAPS[name][0](MADE_UP)
    for place in chosen:
        path = OUT / f"{place.name}.zarr"
        began = time.perf_counter()
        command("generate", *place.arguments, "--out", path, "--overwrite")
        seconds = time.perf_counter() - began
        world = earthgen.open_world(path)
        for view, *words in place.views:
            picture = OUT / f"{place.name}-{view}.png"
            words = ["--view", view, "--size", "1000", "--overwrite", *words]
            command("preview", path, *words, "--out", picture)
            Image.open(picture).convert("RGB").save(HERE / f"{place.name}-{view}.jpg", quality=82)
        results[place.name] = {
            "command": shown(place.arguments),
            "km2": round(world.frame.area_km2, 3),
            "seconds": round(seconds, 1),
            "voxels": world.counts["voxels"],
            "disk_mb": round(world.bytes_on_disk() / 1e6, 1),
            **(agreement(world, place.truth(world.frame)) if place.truth is not None else {}),
            "warnings": world.provenance["warnings"],
        }
    if not names:
        results["bayreuth: shapefile and GeoPackage agree"] = same_classes()
    kept = HERE / "results.json"
    if names and kept.exists():  # read last: another run may have written
        results = {**json.loads(kept.read_text()), **results}
    kept.write_text(without_folders(json.dumps(results, indent=2, ensure_ascii=False)) + "\n")


def same_classes() -> dict[str, float]:
    """The share of cells with the same class, from landuse_4326.shp and from landuse_utm.gpkg."""
    folder = DATA / "osm_bayreuth_srtm"
    covers = []
    for name, source in (
        ("shp", str(folder / "landuse_4326.shp")),
        ("gpkg", f"{folder / 'landuse_utm.gpkg'}:landuse"),
    ):
        path = OUT / f"same-{name}.zarr"
        command(
            "generate",
            "--bbox=683476,5538883,685476,5540883",
            "--bbox-crs",
            "EPSG:32632",
            "--semantics",
            source,
            "--voxel-size",
            "2",
            "--out",
            path,
            "--overwrite",
        )
        covers.append(earthgen.open_world(path).layers()["semantics"].values)
    return {"equal_cells": round(float((covers[0] == covers[1]).mean()), 5)}


if __name__ == "__main__":
    if not DATA.is_dir() and not sys.argv[1:]:
        raise SystemExit(f"all of the gallery needs the real data in {DATA}; name made-up places")
    main(sys.argv[1:])
