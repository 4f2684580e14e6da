"""What is written as cloud-optimised GeoTIFF comes back, and rio-cogeo accepts it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rio_cogeo import cog_validate

from geo_io.elevation import open_elevation
from geo_io.errors import FrameError, InputError
from geo_io.frame import Frame, vertical_crs
from geo_io.layers import Raster
from geo_io.raster.geotiff import CogWriter, write_cog

FRAME = Frame("EPSG:3006", 2.0, (159_200, 159_900), (3_199_000, 3_200_100))


def heights(frame: Frame = FRAME) -> Raster:
    """A height that names its place, with a hole."""
    x, y = np.meshgrid(np.arange(*frame.x) % 1000, np.arange(*frame.y)[::-1] % 1000)
    data = (x + y / 1000).astype(np.float32)
    data[:5, :5] = np.nan
    return Raster(frame, data)


def assert_valid(path: Path) -> None:
    valid, errors, warnings = cog_validate(path, strict=True, quiet=True)
    assert valid, (errors, warnings)
    assert not list(path.parent.glob(".*")), "temporary files are left"


def test_heights_come_back(tmp_path: Path) -> None:
    path = tmp_path / "ground.tif"
    raster = heights()
    write_cog(
        path,
        raster,
        nodata=np.nan,
        vertical_crs="EPSG:5613",
        band_names=["height"],
        tags={"SEED": "7"},
    )
    assert_valid(path)
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(1), raster.data)
        assert dataset.transform == FRAME.transform
        assert dataset.bounds == FRAME.bounds
        assert np.isnan(dataset.nodata)
        assert dataset.descriptions == ("height",)
        assert dataset.tags()["SEED"] == "7"
        assert dataset.block_shapes == [(512, 512)]
        assert dataset.compression.name == "deflate"
        assert dataset.overviews(1)
        crs = pyproj.CRS.from_wkt(dataset.crs.to_wkt(version="WKT2_2019"))
    assert crs.is_compound and crs.sub_crs_list[0].to_epsg() == 3006
    assert vertical_crs(crs) == "EPSG:5613"
    reader = open_elevation(path)
    assert (reader.unit, reader.vertical_crs) == ("m", "EPSG:5613")
    inner = FRAME.pad(-20)
    np.testing.assert_array_equal(reader.read(inner).data, raster.crop(inner).data)


@pytest.mark.parametrize(
    "vertical", ["EPSG:3855", "EPSG:5773", "EPSG:5709", "EPSG:5703", "EPSG:7837", "EPSG:5701"]
)
def test_vertical_crs_comes_back(tmp_path: Path, vertical: str) -> None:
    write_cog(tmp_path / "a.tif", heights(), nodata=np.nan, vertical_crs=vertical)
    assert open_elevation(tmp_path / "a.tif").vertical_crs == vertical


@pytest.mark.parametrize("vertical", [None, "unknown"])
def test_without_vertical_crs_the_crs_is_plain(tmp_path: Path, vertical: str | None) -> None:
    write_cog(tmp_path / "a.tif", heights(), nodata=np.nan, vertical_crs=vertical)
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.crs.to_epsg() == 3006


def test_ellipsoidal_heights_are_said_in_a_tag(tmp_path: Path) -> None:
    write_cog(tmp_path / "a.tif", heights(), nodata=np.nan, vertical_crs="EPSG:4979")
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.crs.to_epsg() == 3006 and dataset.tags()["VERTICAL_CRS"] == "EPSG:4979"


def test_unknown_vertical_crs_is_named() -> None:
    with pytest.raises(FrameError, match="EPSG:nope"):
        write_cog("a.tif", heights(), vertical_crs="EPSG:nope")


def test_classes_with_colours(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 26, FRAME.shape).astype(np.uint8)
    colours = {code: (code * 9, 255 - code, code, 255) for code in range(26)}
    path = tmp_path / "classes.tif"
    write_cog(path, Raster(FRAME, codes), nodata=0, colormap=colours, overview_resampling="nearest")
    assert_valid(path)
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(1), codes)
        assert dataset.nodata == 0 and dataset.colorinterp[0] == ColorInterp.palette
        read = dataset.colormap(1)
        assert {code: read[code] for code in range(1, 26)} == {
            code: colours[code] for code in range(1, 26)
        }
    with rasterio.open(path, overview_level=0) as dataset:  # no code that is not in the data
        assert set(np.unique(dataset.read(1))) <= set(range(26))


def test_rgba(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*FRAME.shape, 4)).astype(np.uint8)
    image[..., 3] = np.where(np.arange(FRAME.nx) < 100, 0, 255)
    path = tmp_path / "rgb.tif"
    write_cog(path, Raster(FRAME, image), nodata=None)
    assert_valid(path)
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(), image.transpose(2, 0, 1))
        names = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
        assert dataset.colorinterp == names


def test_small_rasters_are_valid_too(tmp_path: Path) -> None:
    frame = Frame("EPSG:32632", 1.0, (500_000, 500_007), (5_500_000, 5_500_003))
    write_cog(tmp_path / "a.tif", Raster(frame, np.ones(frame.shape, np.uint16)), nodata=0)
    assert_valid(tmp_path / "a.tif")


def test_windows_in_any_order_make_the_same_file(tmp_path: Path) -> None:
    whole = heights()
    write_cog(tmp_path / "whole.tif", whole, nodata=np.nan)
    tiles = [FRAME.tile(tx, ty, 256) for tx, ty in FRAME.tiles(256)]
    np.random.default_rng(3).shuffle(tiles)  # type: ignore[arg-type]
    with CogWriter(tmp_path / "tiles.tif", FRAME, "float32", nodata=np.nan) as writer:
        for tile in tiles:
            inner = FRAME.intersection(tile)
            assert inner is not None
            data = np.zeros(
                tile.shape, np.float32
            )  # a whole tile, of which a part lies in the frame
            data[tile.slices(inner)] = whole.crop(inner).data
            writer.write(Raster(tile, data))
    assert_valid(tmp_path / "tiles.tif")
    with (
        rasterio.open(tmp_path / "whole.tif") as one,
        rasterio.open(tmp_path / "tiles.tif") as other,
    ):
        for level in range(len(one.overviews(1)) + 1):
            factor = 2**level
            shape = (FRAME.ny // factor, FRAME.nx // factor)
            np.testing.assert_array_equal(
                one.read(1, out_shape=shape), other.read(1, out_shape=shape)
            )


def test_what_is_not_written_is_nodata(tmp_path: Path) -> None:
    with CogWriter(tmp_path / "a.tif", FRAME, np.float32, nodata=-9999) as writer:
        writer.write(Raster(FRAME.tile(622, 12_497, 256), np.ones((256, 256), np.float32)))
        writer.write(
            Raster(FRAME.tile(0, 0, 256), np.ones((256, 256), np.float32))
        )  # elsewhere: left out
    with rasterio.open(tmp_path / "a.tif") as dataset:
        data = dataset.read(1)
    assert set(np.unique(data)) == {-9999, 1} and (data == 1).sum() == 256 * 256


def test_an_error_leaves_nothing_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write_cog(path, heights(), nodata=np.nan)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="midway"), CogWriter(path, FRAME, "float32") as writer:
        writer.write(heights())
        raise RuntimeError("midway")
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        write_cog(tmp_path / "missing" / "a.tif", heights())
    with (
        pytest.raises(FrameError, match="2 bands"),
        CogWriter(tmp_path / "a.tif", FRAME, "float32") as writer,
    ):
        writer.write(Raster(FRAME, np.zeros((*FRAME.shape, 2), np.float32)))
    with (
        pytest.raises(FrameError, match="lattice"),
        CogWriter(tmp_path / "a.tif", FRAME, "float32") as writer,
    ):
        writer.write(heights(Frame("EPSG:3006", 1.0, FRAME.x, FRAME.y)))
    with pytest.raises(InputError, match="names"):
        write_cog(tmp_path / "a.tif", heights(), band_names=["a", "b"])
    assert not list(tmp_path.iterdir())
