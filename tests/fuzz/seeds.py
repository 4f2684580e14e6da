"""Small sound files of the formats, for the fuzzer to damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyproj
import rasterio
import shapely
import trimesh

import earthgen
from earthgen.splats.cameras.camera import look_at
from earthgen.splats.cameras.paths import write_cameras
from tests.fuzz.world_targets import FORMATS, SOUND
from tests.helpers import dataset_places, latent_weights, mesh_places

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


TRAINING = """
preset = "tiny"
minutes = 5
grades = ["A", "B"]
[parts.struct-vae]
batch_size = 2
learning_rate = 1e-3
"""

VRT = """<VRTDataset rasterXSize="24" rasterYSize="24"><SRS>EPSG:32632</SRS>
<GeoTransform>685710, 10, 0, 5542570, 0, -10</GeoTransform>
<VRTRasterBand dataType="Float32" band="1"><NoDataValue>-9999</NoDataValue>
<SimpleSource><SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>1</SourceBand>
<SrcRect xOff="0" yOff="0" xSize="24" ySize="24"/><DstRect xOff="0" yOff="0" xSize="24" ySize="24"/>
</SimpleSource></VRTRasterBand></VRTDataset>
"""

PAM = """<PAMDataset><SRS>EPSG:32632</SRS>
<GeoTransform>685710, 10, 0, 5542570, 0, -10</GeoTransform>
<PAMRasterBand band="1"><NoDataValue>-9999</NoDataValue><Scale>1</Scale><Offset>0</Offset>
<UnitType>m</UnitType><Metadata><MDI key="STATISTICS_MAXIMUM">330</MDI></Metadata></PAMRasterBand>
</PAMDataset>
"""

OSM = """<osm version="0.6">
<bounds minlat="50.005" minlon="11.592" maxlat="50.006" maxlon="11.594"/>
<node id="1" lat="50.0052" lon="11.5922"/><node id="2" lat="50.0058" lon="11.5922"/>
<node id="3" lat="50.0058" lon="11.5932"/><node id="4" lat="50.0052" lon="11.5932">
<tag k="natural" v="tree"/></node>
<way id="5"><nd ref="1"/><nd ref="2"/><nd ref="3"/><nd ref="4"/><nd ref="1"/>
<tag k="landuse" v="meadow"/></way>
<way id="6"><nd ref="1"/><nd ref="3"/><tag k="highway" v="track"/></way>
<relation id="7"><member type="way" ref="5" role="outer"/><tag k="type" v="multipolygon"/>
<tag k="natural" v="wood"/></relation></osm>
"""

STL = """solid a
facet normal 0 0 1
outer loop
vertex 640000 5560000 0
vertex 640020 5560000 0
vertex 640020 5560020 5
endloop
endfacet
endsolid a
"""


def write_seeds(folder: Path, only: str | None = None) -> None:
    """Write a folder for each format, with the file and its about.json.

    Parameters
    ----------
    folder : Path
    only : str, optional
        One format; all by default.
    """

    def place(fmt: str, file: str) -> Path:
        home = folder / fmt
        home.mkdir(parents=True, exist_ok=True)
        (home / "about.json").write_text(json.dumps({"fmt": fmt, "file": file}))
        return home / file

    for formats, write in WRITERS.items():
        if only is None or only in formats.split():
            write(place)


Place = Callable[[str, str], Path]
"""Gives the path of a format's file."""


def _vectors(place: Place) -> None:
    table = land()
    areas = table[table.geom_type == "Polygon"]
    areas.to_file(place("gpkg", "a.gpkg"), engine="pyogrio")
    areas.to_file(place("shp", "a.shp"), engine="pyogrio")
    areas.to_file(place("fgb", "a.fgb"), engine="pyogrio", driver="FlatGeobuf")
    table.to_file(place("geojson", "a.geojson"), engine="pyogrio", driver="GeoJSON")
    areas[:2].to_file(place("region", "a.geojson"), engine="pyogrio", driver="GeoJSON")
    areas.to_file(place("gml", "a.gml"), engine="pyogrio", driver="GML")
    table.to_crs(4326).to_file(place("kml", "a.kml"), engine="pyogrio", driver="KML")
    areas.to_file(
        place("csv", "a.csv"), engine="pyogrio", driver="CSV", layer_options={"GEOMETRY": "AS_WKT"}
    )
    table.to_parquet(place("parquet", "a.parquet"))


def _rasters(place: Place) -> None:
    transform = rasterio.transform.from_origin(WEST - 30, NORTH + 30, 10, 10)
    profile = {"driver": "GTiff", "width": 24, "height": 24, "count": 1, "crs": "EPSG:32632"}
    profile |= {"transform": transform, "tiled": True, "blockxsize": 16, "blockysize": 16}
    rows, columns = np.mgrid[0:24, 0:24]
    heights = (300 + rows + 0.5 * columns).astype(np.float32)
    classes = (rows // 8 * 10 + 10).astype(np.uint8)
    for fmt, name, values in (
        ("dem", "a.tif", heights),
        ("sidecars", "a.tif", heights),
        ("vrt", "a.tif", heights),
        ("classes", "ESA_WorldCover.tif", classes),
        ("picture", "a.tif", np.stack([classes, classes + 40, classes + 80])),
    ):
        bands = values if values.ndim == 3 else values[None]
        about = {**profile, "count": len(bands), "dtype": values.dtype}
        if fmt not in ("dem", "classes"):  # values of these two can be damaged one by one
            about["compress"] = "deflate"
        with rasterio.open(place(fmt, name), "w", **about) as file:
            file.write(bands)
    sidecar = place("sidecars", "a.tif.aux.xml")
    sidecar.write_text(PAM)
    sidecar.with_name("a.tfw").write_text("10\n0\n0\n-10\n685715\n5542565\n")
    place("vrt", "a.vrt").write_text(VRT)
    grid = place("asc", "a.asc")
    head = "ncols 24\nnrows 24\nxllcorner 685710\nyllcorner 5542330\ncellsize 10\n"
    grid.write_text(head + "\n".join(" ".join(f"{v:.1f}" for v in row) for row in heights))
    grid.with_suffix(".prj").write_text(pyproj.CRS("EPSG:32632").to_wkt("WKT1_ESRI"))


def _texts(place: Place) -> None:
    for fmt, name, text in (
        ("job", "a.toml", JOB),
        ("recipe", "a.toml", RECIPE),
        ("legend", "a.yaml", LEGEND),
        ("obj", "a.obj", OBJ),
        ("stl", "a.stl", STL),
        ("osm", "a.osm", OSM),
        ("training", "a.toml", TRAINING),
        ("cameras", "a.json", json.dumps(CAMERAS)),
    ):
        path = place(fmt, name)
        path.write_text(text)
        if fmt == "recipe":
            path.with_name("a.obj").write_text(OBJ)
    eye = (WEST + 10.0, NORTH - 60.0, 350.0)
    camera = look_at(eye, (WEST, NORTH, 300.0), width=64, height=48, field_of_view=60)
    write_cameras(place("keys", "a.json"), [camera])


def _meshes(place: Place) -> None:
    mesh_places.house_city().write(place("cityjson", "a.city.json"))
    parts = [
        mesh_places.mesh_of(corners, mesh_places.colour_of(name))
        for name, corners in mesh_places.triangles().items()
    ]
    for fmt in ("glb", "gltf"):
        path = place(fmt, f"a.{fmt}")
        exported = trimesh.Scene(parts).export(file_type=fmt)
        files = exported if isinstance(exported, dict) else {path.name: exported}
        for name, content in files.items():
            path.with_name(name.replace("model.gltf", path.name)).write_bytes(content)


def _points(place: Place) -> None:
    made = dataset_places.village_points(per_metre=1)
    near = (made["xyz"][:, :2] < (dataset_places.EAST + 24, dataset_places.NORTH + 24)).all(axis=1)
    rows = [made[name][near] for name in ("xyz", "class", "rgb")]
    dataset_places.write_points(place("las", "a.las"), *rows)
    dataset_places.write_points(place("laz", "a.laz"), *rows)
    shutil.copy(
        Path(__file__).parents[1] / "data" / "village.copc.laz", place("copc", "a.copc.laz")
    )


def _worlds(place: Place) -> None:
    """A small world of the rules, in format 3 and 2; and what needs one beside it."""
    world = place("world", "a.zarr")
    source = world.with_name("land.geojson")
    land().to_file(source, engine="pyogrio", driver="GeoJSON")
    box = (WEST, NORTH - 60, WEST + 40, NORTH - 20)
    place_of = {"bbox": box, "bbox_crs": "EPSG:32632", "crs": "EPSG:32632"}
    earthgen.generate(
        **place_of, semantics=[str(source)], voxel_size=4.0, tile_size=64, workers=1, out=world
    )
    for fmt in ("xarray", "commands", "world2"):
        shutil.copytree(world, place(fmt, "a.zarr"))
        shutil.copy(source, place(fmt, "a.zarr").with_name(source.name))
    shutil.copytree(world, place("commands", "a.zarr").with_name(SOUND))
    as_format_2(place("world2", "a.zarr"))


def _options(place: Place) -> None:
    """Every option of every plugin, at its default."""
    world = earthgen.open_world(_sound(place))
    from earthgen.plugins import load

    plugins = load()
    known = [("exporter", name) for name in FORMATS]
    known += [("geometry", "procedural"), ("texture", "procedural")]
    for number, (kind, name) in enumerate(known):
        model = plugins.options_of(kind, name)
        given = model().model_dump(mode="json") if model is not None else {}
        path = place(f"options/{number}", "a.json")
        path.write_text(json.dumps({"kind": kind, "name": name, "level": 1, "options": given}))
        about = {"fmt": "options", "file": "a.json"}
        path.with_name("about.json").write_text(json.dumps(about))
        shutil.copytree(world.path, path.with_name(SOUND))


def _sound(place: Place) -> Path:
    """A world for the options of plugins."""
    path = place("options/world", SOUND)
    path.with_name("about.json").unlink()
    if not path.exists():
        box = (WEST, NORTH - 60, WEST + 16, NORTH - 44)
        place_of = {"bbox": box, "bbox_crs": "EPSG:32632", "crs": "EPSG:32632"}
        earthgen.generate(**place_of, voxel_size=4.0, tile_size=64, workers=1, out=path)
    return path


def as_format_2(path: Path) -> None:
    """Turn a world of format 3 into one as format 2 had it."""
    for child in (path / "level_1").iterdir():
        if child.is_dir():
            shutil.rmtree(path / child.name, ignore_errors=True)
            child.rename(path / child.name)
    shutil.rmtree(path / "level_1")
    said = json.loads((path / "zarr.json").read_text())
    values = {**said["attributes"]["earthgen"], "format_version": 2}
    root = {"zarr_format": 3, "node_type": "group", "attributes": {"earthgen": values}}
    (path / "zarr.json").write_text(json.dumps(root))


def _scenes(place: Place) -> None:
    for fmt in ("scene", "dataset"):
        home = place(fmt, "village.zarr").parent
        dataset_places.village_scene(home)
    area = {"crs": "EPSG:32632", "bounds": [640000, 5560000, 640040, 5560040]}
    split = {"rule": "by name", "held_out": [area], "buffer": 8.0}
    (home / "split.json").write_text(json.dumps(split))


def _learned(place: Place) -> None:
    """Weights, a checkpoint, and the folder of a training."""
    import torch
    from torch import nn

    from earthgen.training.checkpoint import State, save_checkpoint

    latent_weights.make_set(place("weights", "card.json").parent, parts=("struct-vae",))
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    average = {name: value.detach().clone() for name, value in model.named_parameters()}
    state = State(model, torch.optim.AdamW(model.parameters()), average, step=3)
    home = place("checkpoint", "step-000000003/state.json").parents[1]
    save_checkpoint(home, state, {"seed": 1})
    run = place("train-run", "run") / "struct-vae"
    run.mkdir(parents=True)
    save_checkpoint(run, state, {"seed": 1, "batch_size": 2, "dataset": "0"})
    rows = "step,seconds,loss,held_out.iou\n1,2.5,0.5,\n2,5.0,0.4,0.3\n3,7.5,0.35,0.4\n"
    (run / "metrics.csv").write_text(rows)


WRITERS: dict[str, Callable[[Place], None]] = {
    "csv fgb geojson gml gpkg kml parquet region shp": _vectors,
    "asc classes dem picture sidecars vrt": _rasters,
    "cameras job keys legend obj osm recipe stl training": _texts,
    "cityjson glb gltf": _meshes,
    "copc las laz": _points,
    "commands world world2 xarray": _worlds,
    "options": _options,
    "dataset scene": _scenes,
    "checkpoint train-run weights": _learned,
}
"""Who writes the seeds of which formats. Some formats have those of the corpus alone."""
