"""Resampling of rasters onto a frame, against GDAL's warper with its exact transformer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio.warp
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling

from geo_io.frame import Frame
from geo_io.raster.positions import overlaps, positions
from geo_io.raster.resample import read_on
from geo_io.raster.source import RasterSource, open_raster
from geo_io.region.region import frame_from_raster
from tests.helpers.rasters import CORNER, UTM, hills, window, write


def source_and_window(folder: Path, data: NDArray, crs: str) -> tuple[RasterSource, Frame]:
    """A raster of data in a CRS, and a window of 10 m voxels in the middle of it."""
    target, size, corner, transform = UTM, 30.0, CORNER, None
    if crs == "EPSG:2193":  # southern hemisphere
        target, corner = "EPSG:32760", (1_750_000.0, 5_430_000.0)
    elif crs == "EPSG:3035":
        corner = (4_321_000.0, 2_950_000.0)
    else:
        transform = Affine(1 / 3600, 0, 9.0, 0, -1 / 3600, 49.7)
    path = write(folder / "a.tif", data, size=size, corner=corner, transform=transform, crs=crs)
    source = open_raster(path)
    left, bottom, right, top = frame_from_raster(source, crs=target, voxel_size=10).bounds
    return source, window(10, (left + right) / 2, (bottom + top) / 2, 60, 50, target)


def warped(data: NDArray, source: RasterSource, frame: Frame, resampling: str) -> NDArray:
    """The data on a frame by GDAL's warper."""
    result = np.zeros(frame.shape, data.dtype)
    rasterio.warp.reproject(
        data,
        result,
        src_transform=source.transform,
        src_crs=source.crs,
        dst_transform=frame.transform,
        dst_crs=frame.crs,
        resampling=Resampling[resampling],
        tolerance=0,
    )
    return result


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3035", "EPSG:2193"])
@pytest.mark.parametrize("resampling", ["bilinear", "cubic_spline"])
def test_resampling_equals_gdal(tmp_path: Path, crs: str, resampling: str) -> None:
    data = hills((120, 140))
    source, frame = source_and_window(tmp_path, data, crs)
    values, valid = read_on(source, frame, resampling=resampling)
    assert valid.all()
    # GDAL has float32 weights. A shift by a hundredth of a pixel would change heights by 0.03 m.
    assert np.abs(values[0] - warped(data, source, frame, resampling)).max() < 5e-3


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3035", "EPSG:2193"])
def test_nearest_equals_gdal(tmp_path: Path, crs: str) -> None:
    data = np.random.default_rng(1).integers(1, 200, (120, 140)).astype(np.uint8)
    source, frame = source_and_window(tmp_path, data, crs)
    values, valid = read_on(source, frame, resampling="nearest")
    assert valid.all()
    # Positions are interpolated to a thousandth of a pixel: closer to an edge either side is right.
    off_edge = [np.abs(each - np.round(each)) > 2e-3 for each in positions(source, frame)]
    safe = off_edge[0] & off_edge[1]
    assert safe.mean() > 0.98
    np.testing.assert_array_equal(values[0][safe], warped(data, source, frame, "nearest")[safe])


def test_aligned_pixels_come_back_as_they_are(tmp_path: Path) -> None:
    z = hills((40, 50))
    source = open_raster(write(tmp_path / "a.tif", z))
    values, valid = read_on(
        source, frame_from_raster(source, crs=UTM, voxel_size=10), resampling="bilinear"
    )
    assert valid.all()
    np.testing.assert_array_equal(values[0], z)


def test_overlap_is_seen_however_small_the_raster(tmp_path: Path) -> None:
    source = open_raster(write(tmp_path / "a.tif", hills((5, 5)), size=1))
    assert overlaps(source, window(10, CORNER[0] - 50_000, CORNER[1] - 50_000, 10_000, 10_000))
    assert not overlaps(source, window(10, CORNER[0] + 5_000, CORNER[1], 10_000, 10_000))


def test_nearest_and_mode_keep_codes(tmp_path: Path) -> None:
    codes = np.full((40, 40), 3, np.uint8)
    codes[:, 20:] = 200
    codes[::4, ::4] = 7
    codes[30:, :10] = 0
    source = open_raster(write(tmp_path / "a.tif", codes, size=1, nodata=0))
    fine, _ = read_on(source, window(0.5, CORNER[0], CORNER[1] - 40, 80, 80), resampling="nearest")
    np.testing.assert_array_equal(fine[0], codes.repeat(2, axis=0).repeat(2, axis=1))
    coarse, valid = read_on(
        source, window(4, CORNER[0] + 0, CORNER[1] - 40, 10, 10), resampling="mode"
    )
    assert coarse.dtype == np.uint8
    assert (coarse[0, :7, :5] == 3).all() and (coarse[0, :, 5:] == 200).all()
    assert not valid[8:, :2].any()


def test_positions_are_interpolated_to_a_thousandth(tmp_path: Path) -> None:
    source = open_raster(
        write(
            tmp_path / "a.tif",
            hills((50, 50)),
            size=30,
            crs="EPSG:3035",
            corner=(4_321_000.0, 2_950_000.0),
        )
    )
    frame = frame_from_raster(source, crs=UTM, voxel_size=5)
    column, row = positions(source, frame)
    x, y = np.meshgrid((np.arange(*frame.x) + 0.5) * 5, (np.arange(*frame.y)[::-1] + 0.5) * 5)
    east, north = pyproj.Transformer.from_crs(UTM, "EPSG:3035", always_xy=True).transform(x, y)
    assert np.abs(column - (east - 4_321_000) / 30).max() < 1e-3
    assert np.abs(row - (2_950_000 - north) / 30).max() < 1e-3
