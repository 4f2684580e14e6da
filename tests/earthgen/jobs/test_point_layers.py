"""Point clouds and canopies as inputs of a world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import laspy
import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine

from earthgen.jobs.generate import run
from earthgen.jobs.job import make_job
from earthgen.jobs.point_layers import point_layers
from geo_io.elevation_mosaic import open_heights
from geo_io.errors import InputError, MissingFileError
from geo_io.frame import Frame
from geo_io.image_mosaic import open_images
from geo_io.legend import codes

UTM = "EPSG:32632"
X, Y = 500000, 5500000
FRAME = Frame(UTM, 1.0, (X, X + 60), (Y, Y + 60))


def cloud(
    path: Path, left: float = X, width: float = 60.0, *, classes: bool = True, colour: bool = True
) -> Path:
    """Ground at 100 m rising to the east, a house of 8 m and a tree of 12 m; 4 points a m2."""
    x, y = np.meshgrid(np.arange(left, left + width, 0.5) + 0.25, np.arange(Y, Y + 60, 0.5) + 0.25)
    x, y = x.ravel(), y.ravel()
    z = 100 + 0.05 * (x - X)
    kind = np.full(len(x), 2)
    house = (np.abs(x - X - 20) < 6) & (np.abs(y - Y - 20) < 6)
    tree = np.hypot(x - X - 45, y - Y - 45) < 4
    z, kind = z + 8 * house + 12 * tree, np.where(house, 6, np.where(tree, 5, kind))
    header = laspy.LasHeader(point_format=3, version="1.4")
    header.scales, header.offsets = [0.001] * 3, [X, Y, 0]
    header.add_crs(pyproj.CRS(UTM))
    points = laspy.LasData(header)
    points.x, points.y, points.z = x, y, z
    points.classification = kind if classes else np.zeros(len(x), int)
    if colour:
        points.red, points.green, points.blue = (np.where(house, 180, 60 + n) for n in range(3))
    points.write(path)
    return path


def test_ground_surface_classes_and_colours(tmp_path: Path) -> None:
    layers = point_layers([cloud(tmp_path / "all.laz")])
    assert {name: len(rasters) for name, rasters in layers.items()} == dict.fromkeys(
        ("dem", "dsm", "semantics", "image"), 1
    )
    ground = open_heights(layers["dem"]).read(FRAME).data
    surface = open_heights(layers["dsm"]).read(FRAME).data
    plane = 100 + 0.05 * (np.arange(60) + 0.5)
    np.testing.assert_allclose(ground, np.tile(plane, (60, 1)), atol=0.35)
    above = surface - ground
    assert abs(above[39, 20] - 8) < 0.4 and abs(above[14, 45] - 12) < 0.4
    assert abs(above[5, 5]) < 0.1
    assert (open_images(layers["image"]).read(FRAME).data[39, 20, :3] == 180).all()


def test_files_beside_each_other_equal_one(tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    folder.mkdir()
    for n in range(2):
        cloud(folder / f"{n}.las", X + 30 * n, 30)
    whole = point_layers([cloud(tmp_path / "all.laz")])
    tiles = point_layers([folder])
    for name in ("dem", "dsm"):
        one = open_heights(whole[name]).read(FRAME).data
        two = open_heights(tiles[name]).read(FRAME).data
        assert np.median(np.abs(one - two)) < 0.01 and (np.abs(one - two) > 0.5).mean() < 0.02


def test_clouds_without_classes_or_colours(tmp_path: Path) -> None:
    layers = point_layers([cloud(tmp_path / "bare.laz", classes=False, colour=False)])
    assert layers.keys() == {"dem", "dsm"}
    ground = open_heights(layers["dem"]).read(FRAME).data
    assert abs(ground[39, 20] - 101) < 0.5  # the ground under the house, by its shape


def test_paths_that_are_no_clouds(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        point_layers([tmp_path / "absent.laz"])
    with pytest.raises(InputError, match="holds no point cloud"):
        point_layers([tmp_path])
    (tmp_path / "text.laz").write_text("text")
    with pytest.raises(InputError, match="is not a LAS or LAZ file"):
        point_layers([tmp_path / "text.laz"])


def make(tmp_path: Path, **settings: Any) -> Any:
    return run(make_job({"out": tmp_path / "w.zarr", "crs": UTM, **settings})).world


def test_a_world_of_points_alone(tmp_path: Path) -> None:
    file = cloud(tmp_path / "all.laz")
    world = make(tmp_path, points=[str(file)])
    assert world.frame.crs == UTM and world.frame.x[0] == X and world.frame.nx in (60, 61)
    layers = world.layers(1)
    above = (layers["surface"] - layers["ground"]).sel(x=X + 20.5, y=Y + 20.5).item()
    assert abs(above - 8) < 0.6
    assert layers["semantics"].sel(x=X + 20.5, y=Y + 20.5).item() == codes()["building"]
    tree = (layers["surface"] - layers["ground"]).sel(x=X + 45.5, y=Y + 45.5).item()
    assert abs(tree - 12) < 1.2
    assert world.provenance["inputs"].keys() == {"points"}
    assert world.provenance["ground"] == "measured (dem)"


def canopy(path: Path, top: float = 14.3, low: float = 0.0) -> Path:
    heights = np.full((60, 60), low, np.float32)
    heights[10:20, 30:50] = top
    transform = Affine(1, 0, X, 0, -1, Y + 60)
    shape = {"height": 60, "width": 60, "count": 1, "dtype": "float32"}
    with rasterio.open(path, "w", "GTiff", crs=UTM, transform=transform, **shape) as dataset:
        dataset.write(heights, 1)
    return path


def test_trees_stand_where_the_canopy_says(tmp_path: Path) -> None:
    import geopandas as gpd
    from shapely.geometry import box

    wood = gpd.GeoDataFrame(
        {"landuse": ["forest"]}, geometry=[box(X - 9, Y - 9, X + 69, Y + 69)], crs=UTM
    )
    box_of_world = {"bbox": (X, Y, X + 60, Y + 60), "bbox_crs": UTM}
    world = make(
        tmp_path, semantics=[wood], canopy=str(canopy(tmp_path / "chm.tif")), **box_of_world
    )
    layers = world.layers(1)
    above = (layers["surface"] - layers["ground"]).values
    assert abs(np.median(above[12:18, 32:48]) - 14.3) < 0.6
    assert np.percentile(above[25:48, 12:48], 99) < 3  # no wood is invented beside it


def test_a_canopy_above_the_sea_is_refused(tmp_path: Path) -> None:
    settings = {"bbox": (X, Y, X + 60, Y + 60), "bbox_crs": UTM}
    for name, top, low in (("high.tif", 314.3, 300.0), ("hills.tif", 90.0, 70.0)):
        path = canopy(tmp_path / name, top, low)
        with pytest.raises(InputError, match="not heights of trees above the ground"):
            make(tmp_path, canopy=str(path), **settings)


def test_pulses_with_several_returns_are_of_crowns(tmp_path: Path) -> None:
    """A house and a crown of the same shape and height, without classes."""
    x, y = (side.ravel() for side in np.meshgrid(np.arange(0, 60, 0.5), np.arange(0, 60, 0.5)))
    house = (np.abs(x - 15) < 6) & (np.abs(y - 30) < 6)
    crown = (np.abs(x - 45) < 6) & (np.abs(y - 30) < 6)
    header = laspy.LasHeader(point_format=6, version="1.4")
    header.scales, header.offsets = [0.001] * 3, [X, Y, 0]
    header.add_crs(pyproj.CRS(UTM))
    points = laspy.LasData(header)
    points.x, points.y, points.z = X + x + 0.25, Y + y + 0.25, 100 + 9.0 * (house | crown)
    points.number_of_returns = np.where(crown, 1 + np.arange(len(x)) % 3, 1)
    points.return_number = np.ones(len(x), int)
    points.write(tmp_path / "c.laz")
    (classes,) = point_layers([tmp_path / "c.laz"])["semantics"]
    with rasterio.open(classes.path) as dataset:
        read = {
            name: dataset.read(1)[dataset.index(X + east, Y + 30)]
            for name, east in (("house", 15), ("crown", 45), ("ground", 30))
        }
    assert read == {"house": 0, "crown": codes()["tree"], "ground": 0}


def test_an_octree_is_a_cloud(tmp_path: Path) -> None:
    """EPT: https://entwine.io/entwine-point-tile.html."""
    folder = tmp_path / "ept"
    (folder / "ept-data").mkdir(parents=True)
    (folder / "ept-hierarchy").mkdir()
    file = cloud(folder / "ept-data" / "0-0-0-0.laz")
    with laspy.open(file) as reader:
        count = reader.header.point_count
    (folder / "ept-hierarchy" / "0-0-0-0.json").write_text(json.dumps({"0-0-0-0": count}))
    schema = [{"name": axis, "type": "signed", "size": 4, "scale": 0.001} for axis in "XYZ"]
    document = {"dataType": "laszip", "points": count, "schema": schema, "version": "1.0.0"}
    srs = {"authority": "EPSG", "horizontal": UTM.removeprefix("EPSG:")}
    (folder / "ept.json").write_text(json.dumps({**document, "srs": srs}))
    (plain,) = point_layers([file])["dsm"]
    right = open_heights([plain]).read(FRAME).data
    for path in (folder, folder / "ept.json"):
        layers = point_layers([path])
        assert layers.keys() == {"dem", "dsm", "semantics", "image"}
        assert np.array_equal(open_heights(layers["dsm"]).read(FRAME).data, right)
