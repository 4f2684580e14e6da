"""Heights on a frame: the same from any window, in metres, without holes, without terraces, in
the right place."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.warp
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geo_io.elevation import METRES, open_elevation
from geo_io.errors import InputError, MissingCrsError, MissingFileError, RegionError
from geo_io.frame import Frame
from geo_io.raster import survey as raster_survey
from geo_io.raster.resample import read_on
from geo_io.raster.source import open_raster
from geo_io.region.region import frame_from_bbox, frame_from_raster
from tests.helpers.rasters import CORNER, UTM, hills, window, write


@pytest.fixture(scope="module")
def patchy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hills with voids small and wide, in longitude and latitude."""
    z = hills((260, 300))
    z[60:75, 80:110] = z[0:30, 200:] = -9999
    z[120:260, 0:140] = -9999  # wider than the search
    path = tmp_path_factory.mktemp("dem") / "patchy.tif"
    return write(
        path,
        z,
        crs="EPSG:4326",
        transform=Affine(1 / 3600, 0, 9.0, 0, -1 / 3600, 49.7),
        nodata=-9999,
    )


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whole metres at 90 m with voids, in another projection."""
    z = np.round(hills((90, 120), 1, 9.0)).astype(np.int16)
    z[40:48, 50:70] = -32768
    path = tmp_path_factory.mktemp("dem") / "steps.tif"
    return write(path, z, size=90, crs="EPSG:3035", corner=(4_320_000, 2_960_000), nodata=-32768)


@settings(max_examples=12, deadline=None)
@given(st.data(), st.sampled_from(["patchy", "steps"]), st.sampled_from([5.0, 20.0, 70.0, 200.0]))
def test_overlapping_windows_agree_to_the_bit(
    patchy: Path, steps: Path, data: st.DataObject, name: str, size: float
) -> None:
    reader = open_elevation({"patchy": patchy, "steps": steps}[name])
    extent = frame_from_raster(reader.source, crs=UTM, voxel_size=size)
    n = data.draw(st.integers(20, 90))
    x = data.draw(st.integers(extent.x[0] - 40, extent.x[1]))
    y = data.draw(st.integers(extent.y[0] - 40, extent.y[1]))
    dx, dy = data.draw(st.integers(-n + 1, n - 1)), data.draw(st.integers(-n + 1, n - 1))
    one = reader.read(Frame(UTM, size, (x, x + n), (y, y + n)))
    other = reader.read(Frame(UTM, size, (x + dx, x + dx + n), (y + dy, y + dy + 2 * n)))
    common = one.frame.intersection(other.frame)
    assert common is not None
    assert np.isfinite(one.data).all() and one.data.dtype == np.float32
    np.testing.assert_array_equal(one.crop(common).data, other.crop(common).data)


def test_readers_survive_the_way_to_another_process(patchy: Path) -> None:
    reader = open_elevation(patchy)
    frame = frame_from_raster(reader.source, crs=UTM, voxel_size=50)
    again = pickle.loads(pickle.dumps(reader))
    np.testing.assert_array_equal(again.read(frame).data, reader.read(frame).data)


@pytest.mark.parametrize(("name", "size"), [("patchy", 70.0), ("steps", 70.0), ("steps", 5.0)])
def test_what_a_reader_read_before_changes_nothing(
    patchy: Path, steps: Path, name: str, size: float
) -> None:
    """Filled and smoothed heights are kept, and shared by windows near each other."""
    path = {"patchy": patchy, "steps": steps}[name]
    used, fresh = open_elevation(path), open_elevation(path)
    extent = frame_from_raster(used.source, crs=UTM, voxel_size=size)
    x, y = sum(extent.x) // 2, sum(extent.y) // 2  # at voids of both
    area = Frame(UTM, size, (x - 40, x + 20), (y - 20, y + 40))
    for by in (30, 7):
        used.read(area.pad(by))
        used.measured(area.pad(by))
    np.testing.assert_array_equal(used.read(area).data, fresh.read(area).data)
    np.testing.assert_array_equal(used.measured(area).data, fresh.measured(area).data)


@pytest.mark.parametrize(("name", "size"), [("patchy", 5.0), ("patchy", 70.0), ("steps", 5.0)])
def test_no_height_lies_below_the_lowest(patchy: Path, steps: Path, name: str, size: float) -> None:
    reader = open_elevation({"patchy": patchy, "steps": steps}[name])
    extent = frame_from_raster(reader.source, crs=UTM, voxel_size=size)
    x, y = sum(extent.x) // 2, sum(extent.y) // 2
    heights = reader.read(area := Frame(UTM, size, (x, x + 60), (y, y + 60))).data
    assert heights.min() - 60 < reader.lowest(area) <= heights.min() + 1e-3


def test_rotated_and_south_up_rasters(tmp_path: Path) -> None:
    y, x = np.mgrid[0:60, 0:80]
    for transform in (
        Affine(8, 6, CORNER[0], 6, -8, CORNER[1]),  # turned by atan(3/4)
        Affine(10, 0, CORNER[0], 0, 10, CORNER[1]),
    ):
        # Height is the easting of the pixel centre, so that a misplaced pixel shows.
        z = (transform.a * (x + 0.5) + transform.b * (y + 0.5)).astype(np.float32)
        reader = open_elevation(write(tmp_path / "a.tif", z, transform=transform))
        left, bottom, right, top = reader.source.bounds
        middle = window(10, (left + right) / 2 - 50, (bottom + top) / 2 - 50, 10, 10)
        expected = (np.arange(*middle.x) + 0.5) * 10 - CORNER[0]
        assert np.abs(reader.read(middle).data - expected).max() < 1e-2


def test_world_raster_across_the_antimeridian(tmp_path: Path) -> None:
    lon = np.arange(-180, 180, 0.25) + 0.125
    z = np.broadcast_to(np.abs(lon), (60, lon.size)).astype(
        np.float32
    )  # 180 at the seam from both sides
    reader = open_elevation(
        write(
            tmp_path / "a.tif", z, crs="EPSG:4326", transform=Affine(0.25, 0, -180, 0, -0.25, -10)
        )
    )
    frame = frame_from_bbox((179, -17.5, -179, -16.5), voxel_size=1000)
    reader.survey(frame)
    heights = reader.read(frame).data
    x, y = np.meshgrid((np.arange(*frame.x) + 0.5) * 1000, (np.arange(*frame.y)[::-1] + 0.5) * 1000)
    expected = np.abs(
        pyproj.Transformer.from_crs(frame.crs, 4326, always_xy=True).transform(x, y)[0]
    )
    away = expected < 179.4  # the kernel rounds off the ridge itself
    assert np.abs(heights - expected)[away].max() < 1e-2
    assert heights.max() > 179.7 and reader.measured(frame).data.all()


def test_longitudes_from_0_to_360(tmp_path: Path) -> None:
    z = np.broadcast_to(np.arange(0, 360, 0.5) + 0.25, (40, 720)).astype(np.float32)
    reader = open_elevation(
        write(tmp_path / "a.tif", z, crs="EPSG:4326", transform=Affine(0.5, 0, 0, 0, -0.5, 60))
    )
    heights = reader.read(frame_from_bbox((-75.2, 45.0, -74.8, 45.2), voxel_size=1000)).data
    assert abs(heights.mean() - 285) < 0.1


def test_voids_of_a_slope_are_closed_along_it(tmp_path: Path) -> None:
    y, x = np.mgrid[0:200, 0:300]
    slope = (100 + 0.5 * x + 0.3 * y).astype(np.float32)
    z = slope.copy()
    z[60:100, 80:150] = -9999
    reader = open_elevation(write(tmp_path / "a.tif", z, nodata=-9999))
    frame = frame_from_raster(reader.source, crs=UTM, voxel_size=10)
    heights = reader.read(frame).data
    assert np.abs(heights - slope).max() < 1.5  # of 35 m across
    assert (
        np.abs(np.diff(heights, axis=1)).max() < 0.9
        and np.abs(np.diff(heights, axis=0)).max() < 0.9
    )
    np.testing.assert_array_equal(reader.measured(frame).data, z != -9999)
    assert reader.survey(frame)["voids"] == pytest.approx(40 * 70 / 60_000)


def test_beyond_the_raster_there_is_no_step(tmp_path: Path) -> None:
    z = hills((150, 150))
    reader = open_elevation(write(tmp_path / "a.tif", z))
    frame = frame_from_raster(reader.source, crs=UTM, voxel_size=10).pad(200)
    heights = reader.read(frame).data
    assert np.isfinite(heights).all()
    inside = max(np.abs(np.diff(z, axis=axis)).max() for axis in (0, 1))
    outside = max(np.abs(np.diff(heights, axis=axis)).max() for axis in (0, 1))
    assert outside <= 1.5 * inside
    assert z.min() - 1 <= heights.min() and heights.max() <= z.max() + 1


@pytest.mark.parametrize(
    ("value", "dtype", "nodata"),
    [
        (-32768, "int16", None),
        (-9999, "float32", None),
        (np.nan, "float32", None),
        (-3.4028235e38, "float32", None),
        (-1.7e308, "float64", -1.7e308),
        (0, "int32", 0),
        (np.inf, "float64", None),
        (65535, "uint16", None),
    ],
)
def test_what_means_no_data(tmp_path: Path, value: float, dtype: str, nodata: float | None) -> None:
    z = np.round(hills((60, 60))).astype(dtype)
    z[20:30, 20:30] = value
    reader = open_elevation(write(tmp_path / "a.tif", z, nodata=nodata))
    frame = frame_from_raster(reader.source, crs=UTM, voxel_size=10)
    measured = reader.measured(frame).data
    assert not measured[20:30, 20:30].any() and measured.sum() == 3500
    good = z[measured]
    assert (
        good.min() - 5 < reader.read(frame).data.min()
        and reader.read(frame).data.max() < good.max() + 5
    )


def test_zero_is_sea_level_unless_declared(tmp_path: Path) -> None:
    reader = open_elevation(write(tmp_path / "a.tif", np.zeros((30, 30), np.float32)))
    frame = frame_from_raster(reader.source, crs=UTM, voxel_size=10)
    assert (reader.read(frame).data == 0).all() and reader.survey(frame)["voids"] == 0


@pytest.mark.parametrize("fall", [0.3, 0.05])
def test_whole_metres_become_a_slope_again(tmp_path: Path, fall: float) -> None:
    """`fall` metres a pixel of 90 m, stored as int16: the finer it is, the wider the terraces (3
    and 20 pixels)."""
    y, x = np.mgrid[0:120, 0:260]
    z = np.round(500 + fall * x + 0.3 * fall * y).astype(np.int16)
    source = open_raster(write(tmp_path / "a.tif", z, size=90))
    frame = window(10, CORNER[0] + 7_200, CORNER[1] - 7_200, 900, 300)
    truth = fall / 90

    def flat(heights: NDArray) -> tuple[float, float]:
        """Share of cells without a slope, and the largest change of slope from cell to cell."""
        gradient = np.diff(heights.astype(np.float64), axis=1) / 10
        return float((gradient < 0.1 * truth).mean()), float(
            np.abs(np.diff(gradient, axis=1)).max() / truth
        )

    ours = open_elevation(source).read(frame).data
    share, bend = flat(ours)
    assert share == 0 and bend < 0.02
    for name in ("nearest", "bilinear", "cubic_spline"):
        other_share, other_bend = flat(read_on(source, frame, resampling=name)[0][0])
        assert other_share > 0.1 and other_bend > 10 * bend
    east = ((np.arange(*frame.x) + 0.5) * 10 - CORNER[0]) / 90 - 0.5
    south = (CORNER[1] - (np.arange(*frame.y)[::-1] + 0.5) * 10) / 90 - 0.5
    assert np.abs(ours - (500 + fall * east + 0.3 * fall * south[:, None])).max() < 0.1


def test_smoothing_stays_within_the_rounding(tmp_path: Path) -> None:
    z = np.round(hills((80, 80), amplitude=3.0)).astype(np.int16)
    reader = open_elevation(write(tmp_path / "a.tif", z, size=30))
    assert reader.step == 1.0
    heights = reader.read(frame_from_raster(reader.source, crs=UTM, voxel_size=10)).data
    frame = frame_from_raster(reader.source, crs=UTM, voxel_size=10)
    smooth, _ = read_on(reader.source, frame, resampling="cubic_spline")
    assert (
        np.abs(heights - smooth[0])[10:-10, 10:-10].max() <= 0.5 + 1e-4
    )  # away from the raster's edge


def test_continuous_heights_are_not_smoothed(tmp_path: Path) -> None:
    whole = np.round(hills((40, 40)))
    assert open_elevation(write(tmp_path / "a.tif", hills((40, 40)))).step == 0
    assert open_elevation(write(tmp_path / "b.tif", whole)).step == 1
    assert (
        open_elevation(
            write(tmp_path / "o.tif", np.round(hills((400, 400))), overviews=(2, 4, 8), tiled=True)
        ).step
        == 1
    )
    assert open_elevation(
        write(tmp_path / "c.tif", whole.astype(np.int16), scale=0.01)
    ).step == pytest.approx(0.01)


@pytest.mark.parametrize("overviews", [(), (2, 4, 8, 16)])
def test_coarse_voxels_hold_means(tmp_path: Path, overviews: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    z = (hills((640, 640)) + rng.normal(size=(640, 640)) * 20).astype(np.float32)
    reader = open_elevation(write(tmp_path / "a.tif", z, size=1, overviews=overviews, tiled=True))
    frame = frame_from_raster(reader.source, crs=UTM, voxel_size=20)
    means = z.reshape(32, 20, 32, 20).mean(axis=(1, 3))
    rest = np.abs(reader.read(frame).data - means)[2:-2, 2:-2]
    assert (
        rest.mean() < 3 and rest.max() < 12
    )  # single pixels differ from the mean by 16 in the mean


def test_memory_follows_the_window_not_the_file(tmp_path: Path) -> None:
    side = 30_000  # 3.6 GB of heights, written sparse
    path = tmp_path / "a.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=side,
        height=side,
        count=1,
        dtype="float32",
        crs=UTM,
        nodata=-9999,
        transform=Affine(1, 0, CORNER[0], 0, -1, CORNER[1]),
        tiled=True,
        compress="deflate",
        sparse_ok=True,
    ) as dataset:
        dataset.write(
            hills((1024, 1024))[None], window=rasterio.windows.Window(15_360, 15_360, 1024, 1024)
        )
    reader = open_elevation(path)
    near = window(1, CORNER[0] + 16_000, CORNER[1] - 16_000, 512, 512)  # partly void
    tracemalloc.start()
    heights = reader.read(near).data
    survey = reader.survey(near)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.isfinite(heights).all() and survey["voids"] == pytest.approx(0.25)
    assert peak < 150e6


@pytest.mark.slow
def test_a_survey_takes_no_more_memory_for_a_larger_region(tmp_path: Path) -> None:
    path = write(tmp_path / "fine.tif", hills((3000, 3000)), size=1, tiled=True)
    reader = open_elevation(path)
    assert reader.step == 0
    peaks = []
    for side in (700, 2900):
        tracemalloc.start()
        reader.survey(window(1, CORNER[0], CORNER[1] - side, side, side))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] + 30e6  # read whole, 8 million pixels take 300 MB


def test_a_survey_does_not_depend_on_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heights = hills((400, 300))
    heights[50:120, 30:200] = -9999
    reader = open_elevation(write(tmp_path / "a.tif", heights, size=1, nodata=-9999))
    for frame in (
        window(1, CORNER[0] - 40, CORNER[1] - 300, 200, 250),
        window(0.5, CORNER[0], CORNER[1] - 400, 600, 700),
    ):
        whole = reader.survey(frame)
        with monkeypatch.context() as patch:
            patch.setattr(raster_survey, "PART_CELLS", (16, 32))
            assert reader.survey(frame) == whole


@pytest.mark.parametrize(
    ("kwargs", "unit", "vertical"),
    [
        ({}, "m", "unknown"),
        ({"unit": "metre"}, "m", "unknown"),
        ({"unit": "Feet"}, "ft", "unknown"),
        ({"unit": "US survey foot"}, "us-ft", "unknown"),
        ({"unit": "us_survey_feet"}, "us-ft", "unknown"),
        ({"crs": "EPSG:3006+5613"}, "m", "EPSG:5613"),
        ({"crs": "EPSG:26910+6360"}, "us-ft", "EPSG:5703"),
        ({"crs": "EPSG:26910+8228"}, "ft", "EPSG:5703"),
        ({"crs": "EPSG:7415"}, "m", "EPSG:5709"),
        ({"crs": "EPSG:2229", "unit": "m"}, "m", "unknown"),
    ],
)
def test_unit_and_vertical_crs_are_the_files(
    tmp_path: Path, kwargs: dict, unit: str, vertical: str
) -> None:
    corners = {"EPSG:7415": (150_000.0, 450_000.0), "EPSG:2229": (6_400_000.0, 1_900_000.0)}
    corner = corners.get(kwargs.get("crs", ""), CORNER)
    reader = open_elevation(write(tmp_path / "a.tif", hills((30, 30)), corner=corner, **kwargs))
    assert (reader.unit, reader.vertical_crs) == (unit, vertical)
    frame = frame_from_raster(reader.source, voxel_size=2)
    assert reader.survey(frame)["max"] == pytest.approx(hills((30, 30)).max() * METRES[unit], abs=2)


def test_unit_that_is_asked_for_wins(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", hills((30, 30)), unit="m")
    assert open_elevation(path, unit="ft").unit == "ft"
    with pytest.raises(InputError, match="furlong"):
        open_elevation(path, unit="furlong")


def test_feet_on_the_map_and_nothing_said_of_heights(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.tif", hills((30, 30)), crs="EPSG:2229", corner=(6_400_000, 1_900_000)
    )
    with pytest.raises(InputError, match="`dem_unit`: m, dm, cm, ft or us-ft"):
        open_elevation(path)
    assert open_elevation(path, unit="us-ft").unit == "us-ft"


def test_unknown_band_unit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="degC"):
        open_elevation(write(tmp_path / "a.tif", hills((30, 30)), unit="degC"))


def test_depths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="depth"):
        open_elevation(write(tmp_path / "a.tif", hills((30, 30)), crs="EPSG:32632+5715"))


def test_scale_and_offset(tmp_path: Path) -> None:
    z = (hills((30, 30)) * 10).astype(np.int16)
    reader = open_elevation(write(tmp_path / "a.tif", z, scale=0.1, offset=1000.0))
    heights = reader.read(frame_from_raster(reader.source, crs=UTM, voxel_size=10)).data
    assert np.abs(heights - (z * 0.1 + 1000)).max() < 0.2


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"nope\.tif does not exist"):
        open_elevation(tmp_path / "nope.tif")
    (tmp_path / "text.tif").write_text("not a raster")
    with pytest.raises(InputError, match=r"text\.tif cannot be read"):
        open_elevation(tmp_path / "text.tif")
    with pytest.raises(MissingCrsError, match="`assume_crs`"):
        open_elevation(write(tmp_path / "a.tif", hills((20, 20)), crs=None))
    assert open_elevation(tmp_path / "a.tif", assume_crs="EPSG:32633").source.crs.to_epsg() == 32633
    with pytest.raises(MissingCrsError, match="not understood"):
        open_elevation(tmp_path / "a.tif", assume_crs="EPSG:nope")
    with pytest.raises(MissingCrsError, match="local"):
        open_elevation(
            write(tmp_path / "l.tif", hills((20, 20)), crs='LOCAL_CS["site",UNIT["metre",1]]')
        )
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        write(tmp_path / "b.tif", hills((20, 20)), transform=Affine.identity())
    with pytest.raises(InputError, match="no geotransform"):
        open_elevation(tmp_path / "b.tif")


def test_truncated_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", hills((300, 300)))
    reader = open_elevation(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"a\.tif cannot be read"):
        reader.read(frame_from_raster(reader.source, crs=UTM, voxel_size=10))


def test_picture_instead_of_heights(tmp_path: Path) -> None:
    with rasterio.open(
        tmp_path / "p.tif",
        "w",
        driver="GTiff",
        width=20,
        height=20,
        count=3,
        dtype="uint8",
        crs=UTM,
        transform=Affine(1, 0, CORNER[0], 0, -1, CORNER[1]),
        photometric="RGB",
    ) as dataset:
        dataset.write(np.zeros((3, 20, 20), np.uint8))
    with pytest.raises(InputError, match="picture"):
        open_elevation(tmp_path / "p.tif")


def test_region_elsewhere(tmp_path: Path) -> None:
    reader = open_elevation(write(tmp_path / "a.tif", hills((50, 50))))
    with pytest.raises(RegionError, match="does not overlap") as caught:
        reader.survey(frame_from_bbox((16.0, 48.0, 16.1, 48.1), voxel_size=10))
    assert "9.0000,49.6" in str(caught.value) and "16.1" in str(caught.value)
    with pytest.raises(RegionError, match="swapped"):
        reader.survey(frame_from_bbox((49.62, 8.99, 49.66, 9.01), voxel_size=10))


def test_region_of_nodata(tmp_path: Path) -> None:
    z = hills((300, 300))
    z[:, :150] = np.nan
    reader = open_elevation(write(tmp_path / "a.tif", z))
    with pytest.raises(InputError, match="nothing but nodata in the region"):
        reader.survey(window(10, CORNER[0] + 100, CORNER[1] - 1000, 50, 50))
    survey = reader.survey(frame_from_raster(reader.source, crs=UTM, voxel_size=10))
    assert survey["voids"] == pytest.approx(0.5) and survey["coverage"] == 1.0
    nothing = open_elevation(write(tmp_path / "b.tif", np.full((40, 40), np.nan, np.float32)))
    with pytest.raises(InputError, match="nothing but nodata"):
        nothing.read(frame_from_raster(nothing.source, crs=UTM, voxel_size=10))


def test_part_of_the_region_is_covered(tmp_path: Path) -> None:
    reader = open_elevation(write(tmp_path / "a.tif", hills((50, 50))))
    survey = reader.survey(window(10, CORNER[0] - 500, CORNER[1] - 500, 100, 50))
    assert survey["coverage"] == pytest.approx(0.5)


def test_data_arrays_read_like_files(tmp_path: Path) -> None:
    import rioxarray

    z = hills((120, 130))
    z[10:20, 10:30] = -9999
    path = write(tmp_path / "a.tif", z, nodata=-9999)
    array = rioxarray.open_rasterio(path)
    assert isinstance(array, xr.DataArray)
    for size in (4.0, 10.0, 75.0):
        for candidate in (array, array.squeeze("band"), rioxarray.open_rasterio(path, masked=True)):
            assert isinstance(candidate, xr.DataArray)
            frame = frame_from_raster(open_raster(path), crs=UTM, voxel_size=size)
            expected, heights = (
                open_elevation(path).read(frame),
                open_elevation(candidate).read(frame),
            )
            np.testing.assert_array_equal(heights.data, expected.data)
    with pytest.raises(MissingCrsError, match="DataArray 'heights'"):
        open_elevation(
            xr.DataArray(
                z,
                dims=("y", "x"),
                coords={"y": np.arange(120.0), "x": np.arange(130.0)},
                name="heights",
            )
        )


def test_srtm_at_one_metre(shared: Path) -> None:
    reader = open_elevation(shared / "osm_bayreuth_srtm" / "srtm3_4326.tif")
    frame = Frame(UTM, 2.0, (683476 // 2, 685476 // 2), (5538883 // 2, 5540883 // 2))
    heights = reader.read(frame).data
    gradient = np.hypot(*np.gradient(heights.astype(np.float64), 2.0))
    stored, _ = read_on(reader.source, frame, resampling="bilinear")
    assert np.abs(heights - stored[0]).max() < 8  # the kernel rounds off tops
    assert (gradient < 1e-4).mean() < 1e-3
    assert reader.vertical_crs == "unknown" and reader.survey(frame)["voids"] == 0


def test_files_with_traps(shared: Path) -> None:
    folder = shared / "terrain_dems"
    with pytest.raises(MissingCrsError):
        open_elevation(folder / "rockies_srtm3_4326.asc")
    reader = open_elevation(folder / "rockies_srtm3_4326.asc", assume_crs="EPSG:4326")
    heights = reader.read(frame_from_raster(reader.source, voxel_size=30)).data
    assert 2100 < heights.min() < heights.max() < 3400
    assert open_elevation(folder / "Copernicus_DSM_10_N45_00_E005_00_DEM.tif").step == 1.0


@pytest.mark.parametrize(
    ("names", "what", "band"),
    [
        (("DSM", "DTM", "CHM"), "DEM", 2),
        (("DSM", "DTM", "CHM"), "DSM", 1),
        (("DSM", "DTM", "CHM"), "canopy", 3),
        (("Elevation", "elevation_std", "count"), "DEM", 1),
    ],
)
def test_the_band_that_is_meant(
    tmp_path: Path, names: tuple[str, ...], what: str, band: int
) -> None:
    path = tmp_path / "bands.tif"
    shape = {"width": 20, "height": 20, "count": 3, "dtype": "float32", "crs": UTM}
    with rasterio.open(path, "w", "GTiff", transform=Affine(10, 0, 0, 0, -10, 0), **shape) as file:
        file.write(np.ones((3, 20, 20), np.float32))
        file.descriptions = names
    assert open_elevation(path, what=what).band == band


@pytest.mark.parametrize(("value", "odd"), [(0.0, True), (-100.0, True), (110.0, False)])
def test_a_single_value_far_from_all_others_is_told(
    tmp_path: Path, value: float, odd: bool
) -> None:
    data = (100 + 0.1 * np.arange(64 * 64).reshape(64, 64) / 64).astype(np.float32)
    data[:16] = value
    path = write(tmp_path / "dem.tif", data)
    notes = open_elevation(path).survey(window(10.0, CORNER[0], CORNER[1] - 640, 64, 64))["notes"]
    assert any(f"is exactly {value:g}" in note for note in notes) == odd
