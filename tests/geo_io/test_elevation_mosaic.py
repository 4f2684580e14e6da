"""Several rasters of heights or colours, their bands, and nodata that is not declared."""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import Resampling

from geo_io.elevation import ElevationReader
from geo_io.elevation_mosaic import ElevationMosaic, open_heights
from geo_io.errors import InputError
from geo_io.frame import Frame
from geo_io.image_mosaic import ImageMosaic, open_images

UTM = "EPSG:32632"
X, Y = 500000, 5500000
FRAME = Frame(UTM, 1.0, (X, X + 200), (Y, Y + 200))


def write(
    path: Path,
    values: np.ndarray,
    left: float = X,
    top: float = Y + 200,
    size: float = 2.0,
    crs: str = UTM,
    names: tuple[str, ...] = (),
    **options: Any,
) -> Path:
    bands = values if values.ndim == 3 else values[None]
    count, height, width = bands.shape
    transform = Affine(size, 0, left, 0, -size, top)
    shape = {"height": height, "width": width, "count": count, "dtype": bands.dtype}
    with rasterio.open(path, "w", "GTiff", crs=crs, transform=transform, **shape, **options) as out:
        out.write(bands)
        for band, name in enumerate(names, 1):
            out.set_band_description(band, name)
    return path


def plane(left: float, top: float, shape: tuple[int, int], size: float = 2.0) -> np.ndarray:
    x = left + (np.arange(shape[1]) + 0.5) * size - X
    y = top - (np.arange(shape[0]) + 0.5) * size - Y
    return (100 + 0.05 * x[None, :] + 0.02 * y[:, None]).astype(np.float32)


def right(frame: Frame = FRAME) -> np.ndarray:
    return plane(frame.bounds[0], frame.bounds[3], frame.shape, frame.voxel_size)


def tile(path: Path, column: int, row: int, size: float = 2.0, **options: Any) -> Path:
    """One of 2 x 2 tiles of 100 m, with 20 m more to all sides."""
    left, top = X + 100 * column - 20, Y + 200 - 100 * row + 20
    cells = round(140 / size)
    return write(path, plane(left, top, (cells, cells), size), left, top, size, **options)


def test_tiles_of_one_lattice_are_one_raster(tmp_path: Path) -> None:
    tiles = [tile(tmp_path / f"{c}{r}.tif", c, r) for c in (0, 1) for r in (0, 1)]
    reader = open_heights(tiles)
    assert isinstance(reader, ElevationReader) and reader.source.shape == (120, 120)
    np.testing.assert_allclose(reader.read(FRAME).data, right(), atol=1e-3)
    assert reader.survey(FRAME)["coverage"] == 1
    assert reader.survey(FRAME)["voids"] == 0
    part = replace(FRAME, x=(X + 70, X + 133), y=(Y + 90, Y + 107))
    whole = pickle.loads(pickle.dumps(reader)).read(FRAME).data[FRAME.slices(part)]
    assert (reader.read(part).data == whole).all()
    folder = open_heights(tmp_path)
    assert (folder.read(FRAME).data == reader.read(FRAME).data).all()
    with zipfile.ZipFile(tmp_path / "tiles.zip", "w") as archive:
        for each in tiles:
            archive.write(each, each.name)
    packed = open_heights(str(tmp_path / "tiles.zip"))
    assert (packed.read(FRAME).data == reader.read(FRAME).data).all()


def test_later_tiles_lie_over_earlier_ones_where_they_have_data(tmp_path: Path) -> None:
    low = write(tmp_path / "low.tif", np.full((100, 100), 10.25, np.float32))
    high = np.full((100, 100), 20.25, np.float32)
    for missing, options in ((-9999, {}), (-5, {"nodata": -5}), (np.nan, {})):
        high[:50] = missing
        top = write(tmp_path / "top.tif", high, **options)
        inner = (slice(8, -8), slice(8, -8))  # beyond are fillings of the rim
        data = open_heights([low, top]).read(FRAME).data[inner]
        assert (data[:88] == 10.25).all() and (data[96:] == 20.25).all()
        assert (open_heights([top, low]).read(FRAME).data[inner] == 10.25).all()


@pytest.mark.parametrize("size", [3.0, 0.5])
def test_rasters_of_other_lattices_are_blended_on_the_frame(tmp_path: Path, size: float) -> None:
    west = write(tmp_path / "w.tif", plane(X, Y + 200, (100, 50)), X)
    cells = round(100 / size)
    east = write(
        tmp_path / "e.tif", plane(X + 100, Y + 200, (cells * 2, cells), size), X + 100, size=size
    )
    reader = open_heights([west, east])
    assert isinstance(reader, ElevationMosaic)
    data = reader.read(FRAME).data
    assert abs(data - right()).max() < 0.2  # a pixel's half at the edges
    part = replace(FRAME, x=(X + 70, X + 133), y=(Y + 90, Y + 107))
    assert (reader.read(part).data == data[FRAME.slices(part)]).all()
    wide = FRAME.pad(60)
    beyond = reader.read(wide).data
    assert (beyond[wide.slices(FRAME)] == data).all()
    steps = np.abs(np.diff(beyond, axis=1))
    assert steps.max() < 1.0  # no step where fillings meet
    report = reader.survey(wide)
    assert 0.35 < report["coverage"] < 0.42 and report["voids"] < 0.01
    np.testing.assert_array_equal(reader.measured(FRAME).data.mean() > 0.98, True)


def test_a_dem_that_is_not_in_the_region_is_named(tmp_path: Path) -> None:
    near = write(tmp_path / "near.tif", plane(X, Y + 200, (100, 100)))
    far = write(tmp_path / "far.tif", plane(X, Y, (100, 100), 3.0), X + 90000, size=3.0)
    assert open_heights([near, far]).survey(FRAME)["outside"] == [str(far)]


def test_different_vertical_crs_are_refused(tmp_path: Path) -> None:
    a = write(tmp_path / "a.tif", plane(X, Y + 200, (100, 100)), crs="EPSG:32632+5773")
    b = write(tmp_path / "b.tif", plane(X, Y + 200, (50, 50), 4.0), size=4.0, crs="EPSG:32632+3855")
    with pytest.raises(InputError, match=r"has heights in EPSG:5773, and .*b\.tif in EPSG:3855"):
        open_heights([a, b])


def test_the_band_with_heights(tmp_path: Path) -> None:
    bands = np.stack([np.full((100, 100), 3), np.full((100, 100), 250)]).astype(np.float32)
    named = write(tmp_path / "named.tif", bands, names=("slope", "Elevation (m)"))
    reader = open_heights(named)
    assert (reader.read(FRAME).data == 250).all() and reader.survey(FRAME)["max"] == 250
    assert (open_heights(f"{named}:slope").read(FRAME).data == 3).all()
    plain = write(tmp_path / "plain.tif", bands)
    with pytest.raises(InputError, match=r"has 2 bands: 1, 2.*plain\.tif:2"):
        open_heights(plain)
    assert (open_heights(f"{plain}:2").read(FRAME).data == 250).all()
    with pytest.raises(InputError, match="has no band 'height'; its bands are slope, Elevation"):
        open_heights(f"{named}:height")


def holed(value: float, size: int = 100) -> np.ndarray:
    values = plane(X, Y + 200, (size, size), 200 / size)
    values[:, size // 2 : size // 2 + size // 10] = value
    return values


@pytest.mark.parametrize("value", [-9999, -10000, 32767, -32768, -999, -99999])
def test_nodata_that_is_not_declared(tmp_path: Path, value: float) -> None:
    reader = open_heights(write(tmp_path / "dem.tif", holed(value)))
    np.testing.assert_allclose(reader.read(FRAME).data, right(), atol=0.5)
    report = reader.survey(FRAME)
    assert report["undeclared"] == pytest.approx({f"{value:g}": 0.1}, abs=0.01)
    declared = open_heights(write(tmp_path / "declared.tif", holed(value), nodata=value))
    assert declared.survey(FRAME)["undeclared"] == {}


@pytest.mark.parametrize("value", [-9999, -10000])
@pytest.mark.parametrize("voxel", [1.0, 4.0])
def test_overviews_with_means_of_nodata_are_not_read(
    tmp_path: Path, value: float, voxel: float
) -> None:
    path = write(tmp_path / "dem.tif", holed(value, 800), size=0.25)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4, 8, 16], Resampling.average)
    reader = open_heights(path)
    frame = FRAME.coarsen(int(voxel))
    np.testing.assert_allclose(reader.read(frame).data, right(frame), atol=0.5)
    assert not reader.summary()["overviews"]


def test_sound_overviews_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "dem.tif", plane(X, Y + 200, (800, 800), 0.25), size=0.25)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4], Resampling.average)
    assert open_heights(path).summary()["overviews"]


def test_means_of_nodata_in_the_raster_itself(tmp_path: Path) -> None:
    values = holed(-9999)
    values[:, 49] = -2400  # a fourth of nodata
    reader = open_heights(write(tmp_path / "dem.tif", values))
    np.testing.assert_allclose(reader.read(FRAME).data, right(), atol=0.5)
    assert reader.survey(FRAME)["undeclared"]["means"] == pytest.approx(0.01, abs=0.005)


def test_a_deep_sea_is_no_nodata(tmp_path: Path) -> None:
    depth = np.linspace(-9000, -10900, 100, dtype=np.float32)[None].repeat(100, 0)
    depth[40, 40] = -10000
    reader = open_heights(write(tmp_path / "sea.tif", np.round(depth)))
    assert reader.survey(FRAME)["voids"] == 0 and reader.survey(FRAME)["undeclared"] == {}


def test_images_are_laid_over_each_other(tmp_path: Path) -> None:
    def picture(path: Path, colour: tuple[int, int, int], size: float, **options: Any) -> Path:
        cells = round(100 / size)
        pixels = np.empty((3, cells * 2, cells), np.uint8)
        pixels[:] = np.array(colour)[:, None, None]
        return write(path, pixels, size=size, photometric="RGB", **options)

    west = picture(tmp_path / "w.tif", (200, 60, 20), 2.0)
    east = picture(tmp_path / "e.tif", (10, 90, 30), 2.0, left=X + 100)
    joined = open_images([west, east])
    assert joined.summary()["shape"] == [100, 100]
    for reader in (joined, open_images([west, picture(east, (10, 90, 30), 1.0, left=X + 100)])):
        data = reader.read(FRAME).data
        assert (data[:, :98] == (200, 60, 20, 255)).all()
        assert (data[:, 102:] == (10, 90, 30, 255)).all()
        assert reader.survey(FRAME)["coverage"] == 1
    assert isinstance(reader, ImageMosaic)


@pytest.mark.parametrize(
    ("names", "bands"),
    [
        (("blue", "green", "red", "nir"), [3, 2, 1]),
        (("B", "G", "R"), [3, 2, 1]),
        (("NIR", "Red", "Green", "Blue"), [2, 3, 4]),
        (("B02", "B03", "B04", "B08"), [3, 2, 1]),
        (("nir", "", "", ""), [2, 3, 4]),
        (("", "", "", ""), [1, 2, 3]),
    ],
)
def test_bands_by_their_descriptions(
    tmp_path: Path, names: tuple[str, ...], bands: list[int]
) -> None:
    pixels = np.zeros((len(names), 10, 10), np.uint8)
    path = write(tmp_path / "image.tif", pixels, names=names, photometric="MINISBLACK", alpha="NO")
    assert open_images(path).summary()["bands"] == bands
