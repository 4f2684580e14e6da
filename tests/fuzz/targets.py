"""What is done with a file of each format: that part of a command which reads it.

A target ends without an error, or with one of earthgen that names the file.
"""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from geo_io.frame import Frame
from tests.fuzz import world_targets

BBOX = (11.592, 50.005, 11.594, 50.006)


@functools.cache
def frame() -> Frame:
    """The place of all cases with vectors and rasters."""
    from geo_io.region.region import frame_from_bbox

    return frame_from_bbox(BBOX, voxel_size=4.0)


def vector(path: Path) -> None:
    """Land use, as `earthgen generate --semantics` reads it."""
    from geo_io.legend import builtin_crosswalks
    from geo_io.semantics.options import SemanticsOptions
    from geo_io.semantics.reader import open_semantics

    options = SemanticsOptions(crosswalks=builtin_crosswalks(), assume_crs="EPSG:32632")
    reader = open_semantics([str(path)], frame(), options)
    reader.survey(frame())
    reader.read(frame())


def heights(path: Path) -> None:
    """A DEM."""
    from geo_io.elevation_mosaic import open_heights

    reader = open_heights([str(path)], unit=None, assume_crs="EPSG:32632", what="DEM")
    reader.survey(frame())
    reader.read(frame())


def region(path: Path) -> None:
    """Regions, of `earthgen plan --region` and `earthgen batch`."""
    from geo_io.region.features import read_regions
    from geo_io.region.file import frame_from_file

    lattice = {"crs": None, "voxel_size": 4.0, "band": (-16.0, 496.0), "vertical_crs": "unknown"}
    frame_from_file(str(path), assume_crs="EPSG:32632", **lattice)
    read_regions(str(path), settings=frozenset({"seed"}), assume_crs="EPSG:32632")


def job(path: Path) -> None:
    """A job file."""
    from earthgen.jobs.forecast import estimate
    from earthgen.jobs.job import load_job, make_job, stored_settings
    from earthgen.jobs.prepare import place

    settings = make_job({"out": "w.zarr", **load_job(path)})
    json.dumps(stored_settings(settings))
    if settings.bbox is not None:
        estimate(settings, place(settings.model_copy(update={"dem": None, "dsm": None})).frame)


def recipe(path: Path) -> None:
    """A recipe of a dataset."""
    from earthgen.dataset.builders.sources import find_sources
    from earthgen.dataset.recipe import read_recipe

    for scene in read_recipe(path).scene:
        find_sources(scene, path.parent)


def legend(path: Path) -> None:
    """A legend."""
    from geo_io.legend import load_crosswalk

    crosswalk = load_crosswalk(path)
    crosswalk.raster_table()
    crosswalk.layer_class("a")


def cameras(path: Path) -> None:
    """Cameras in either format."""
    from earthgen.splats.cameras.paths import read_cameras
    from earthgen.splats.cameras.transforms_json import read_transforms

    if '"frames"' in path.read_text("utf-8", errors="replace"):
        read_transforms(path, size=(64, 48))
    else:
        read_cameras(path)


def splats(path: Path) -> None:
    """Gaussians, with the file beside them."""
    from earthgen.splats.ply import read_ply

    beside = path.with_name(f"{path.name}.json").exists()
    read_ply(path) if beside else read_ply(path, crs="", flatten=True)


def mesh(path: Path) -> None:
    """Triangles and their samples, as `earthgen dataset build --mesh` makes them."""
    from earthgen.dataset.builders.meshes import scene_of_meshes
    from earthgen.dataset.builders.sources import find_sources
    from earthgen.dataset.recipe import parse_recipe

    crs = None if path.suffix in (".json", ".jsonl") else "EPSG:32632"
    values = {"name": "a", "licence": "CC0-1.0", "grade": "A", "mesh": path.name, "crs": crs}
    values = {key: value for key, value in values.items() if value is not None}
    chosen = parse_recipe({"scene": [values]}).scene[0]
    scene_of_meshes(chosen, find_sources(chosen, path.parent), 1.0, (-16, 112))


def checkpoint(path: Path) -> None:
    """A checkpoint of a training, of a linear layer."""
    import torch
    from torch import nn

    from earthgen.training.checkpoint import State, load_checkpoint

    model = nn.Linear(3, 2)
    load_checkpoint(
        path,
        State(
            model,
            torch.optim.AdamW(model.parameters()),
            {name: value.detach().clone() for name, value in model.named_parameters()},
        ),
    )


def weights(path: Path) -> None:
    """A set of weights, or one part of it."""
    from earthgen.models.weights.card import open_weights
    from earthgen.models.weights.format import load_weights

    if path.is_dir():
        open_weights(path)
    else:
        load_weights(path)


def world(path: Path) -> None:
    """A world: everything that is printed, checked and exported."""
    from earthgen.world.world import open_world

    opened = open_world(path)
    repr(opened)
    for name in ("seed", "identity", "provenance", "settings", "counts", "complete", "missing"):
        getattr(opened, name)
    opened.digest(recompute=True)
    for tile in opened.tiles():
        opened.tile_decisions(*tile)
    for level in opened.levels:
        opened.layers(level)
        opened.gaussians(level=level)
        for tile in opened.tiles():
            opened.tile_layers(*tile, level)


def scene(path: Path) -> None:
    """A scene of a dataset."""
    from earthgen.dataset.scene import open_scene
    from geo_io.frame import Frame

    opened = open_scene(path)
    whole = opened.frame
    window = Frame(
        whole.crs,
        whole.voxel_size,
        (whole.x[0], whole.x[0] + 32),
        (whole.y[0], whole.y[0] + 32),
        whole.z,
    )
    opened.crop(window)
    np.asarray(opened.layer("ground"))


TARGETS: dict[str, Callable[[Path], None]] = {
    "asc": heights,
    "cameras": cameras,
    "checkpoint": checkpoint,
    "cityjson": mesh,
    "cityjsonl": mesh,
    "classes": vector,
    "commands": world_targets.commands,
    "copc": world_targets.points,
    "csv": vector,
    "dataset": world_targets.dataset,
    "dem": heights,
    "fgb": vector,
    "geojson": vector,
    "glb": mesh,
    "gltf": mesh,
    "gml": vector,
    "gpkg": vector,
    "job": job,
    "keys": cameras,
    "kml": vector,
    "las": world_targets.points,
    "laz": world_targets.points,
    "legend": legend,
    "meshother": mesh,
    "obj": mesh,
    "options": world_targets.options,
    "osm": vector,
    "parquet": vector,
    "picture": world_targets.picture,
    "ply": splats,
    "recipe": recipe,
    "region": region,
    "scene": scene,
    "shp": vector,
    "sidecars": heights,
    "stl": mesh,
    "tiles3d": mesh,
    "train-run": world_targets.train_run,
    "training": world_targets.training,
    "vrt": heights,
    "weights": weights,
    "world": world,
    "world2": world,
    "xarray": world_targets.xarray_engine,
}
"""Targets by format."""

WORLDS = ("commands", "world", "world2", "xarray")
"""Formats that are worlds."""

MAIN = {
    "cityjson": "a.city.json",
    "cityjsonl": "a.jsonl",
    "glb": "a.glb",
    "gltf": "a.gltf",
    "obj": "a.obj",
    "options": "a.json",
    "ply": "a.ply",
    "shp": "a.shp",
    "sidecars": "a.tif",
    "tiles3d": "tileset.json",
    "train-run": "run",
    "vrt": "a.vrt",
}
"""The file that a command names, where a format has several."""


def main_file(fmt: str, folder: Path, changed: str) -> Path:
    """Return the file of a case that a command names."""
    if fmt in MAIN:
        return folder / MAIN[fmt]
    if fmt == "checkpoint":
        return folder / Path(changed).parts[0]
    if fmt == "weights" and not (folder / changed).with_name("card.json").exists():
        return folder / changed
    if fmt in ("weights", "dataset"):
        return folder
    return folder / Path(changed).name


def copy_of(folder: Path) -> Path:
    """Return a temporary copy of a folder: some readers write side files."""
    copy = Path(tempfile.mkdtemp(prefix="earthgen-fuzz-")) / "case"
    shutil.copytree(folder, copy)
    return copy
