"""From a box, polygons or a raster to a frame; and the regions that are refused."""

from __future__ import annotations

import math

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geo_io.errors import FrameError, RegionError
from geo_io.frame import Frame
from geo_io.raster.source import open_raster
from geo_io.region.region import (
    describe,
    frame_from_bbox,
    frame_from_polygons,
    frame_from_raster,
    lonlat_bounds,
    no_overlap,
    swap_hint,
    utm_crs,
)

BAYREUTH = (11.55, 49.94, 11.60, 49.97)


def contains(frame: Frame, lon: float, lat: float) -> bool:
    x, y = pyproj.Transformer.from_crs(4326, frame.crs, always_xy=True).transform(lon, lat)
    left, bottom, right, top = frame.bounds
    return left <= x <= right and bottom <= y <= top


def test_lonlat_box_gets_the_utm_zone_of_its_centre() -> None:
    frame = frame_from_bbox(BAYREUTH)
    assert frame.crs == "EPSG:32632"
    assert frame.vertical_crs == "unknown"
    assert frame.z == (-16, 496)
    west, south, east, north = BAYREUTH
    for lon in np.linspace(west, east, 9):
        for lat in np.linspace(south, north, 9):
            assert contains(frame, lon, lat)
    # Outwards to the lattice, and no farther than the corners need.
    x, y = pyproj.Transformer.from_crs(4326, 32632, always_xy=True).transform(
        [west, east] * 2, [south] * 2 + [north] * 2
    )
    assert frame.x == (math.floor(min(x)), math.ceil(max(x)))
    assert abs(frame.y[0] - min(y)) < 2 and abs(frame.y[1] - max(y)) < 2


def test_band_in_metres_becomes_voxels() -> None:
    frame = frame_from_bbox(BAYREUTH, voxel_size=2.5, band=(-10.0, 101.0), vertical_crs="EPSG:7837")
    assert frame.z == (-4, 41)
    assert frame.vertical_crs == "EPSG:7837"


def test_projected_box_is_kept_to_the_number() -> None:
    frame = frame_from_bbox(
        (683476, 5538883, 685476, 5540883), bbox_crs="EPSG:32632", crs="EPSG:32632"
    )
    assert frame.bounds == (683476, 5538883, 685476, 5540883)


def test_compound_crs_gives_its_vertical_part() -> None:
    frame = frame_from_bbox((11.9, 57.6, 12.0, 57.7), crs="EPSG:3006+5613")
    assert (frame.crs, frame.vertical_crs) == ("EPSG:3006", "EPSG:5613")


def test_edges_are_densified_not_only_corners() -> None:
    """The southern parallel of a wide box bends away from its corners."""
    frame = frame_from_bbox((5.5, 59.9, 12.5, 60.0), crs="EPSG:32632", voxel_size=10)
    assert contains(frame, 9.0, 59.9)
    corner_y = pyproj.Transformer.from_crs(4326, 32632, always_xy=True).transform(5.5, 59.9)[1]
    assert frame.bounds[1] < corner_y - 1000


@pytest.mark.parametrize("west", [-200.0, 160.0])
def test_longitudes_beyond_180_are_the_same_place(west: float) -> None:
    frame = frame_from_bbox((west, 10.0, west + 0.1, 10.1), voxel_size=10)
    assert frame == frame_from_bbox((160.0, 10.0, 160.1, 10.1), voxel_size=10)


def test_antimeridian_box_is_right() -> None:
    frame = frame_from_bbox((179.95, -16.8, -179.95, -16.7), voxel_size=10)  # Taveuni, Fiji
    assert frame.crs in ("EPSG:32760", "EPSG:32701")
    width = 0.1 * 111_320 * math.cos(math.radians(16.75))  # and what a turned box needs more
    assert width < frame.nx * 10 < 1.03 * width
    for lon in (179.96, 180.0, -180.0, -179.96):
        assert contains(frame, lon, -16.75)


def test_antimeridian_polygons_are_right() -> None:
    parts = [shapely.box(179.95, -16.8, 180, -16.7), shapely.box(-180, -16.8, -179.95, -16.7)]
    frame, region = frame_from_polygons(shapely.MultiPolygon(parts), "EPSG:4326", voxel_size=10)
    assert frame == frame_from_bbox((179.95, -16.8, -179.95, -16.7), voxel_size=10)
    area = pyproj.Geod(ellps="WGS84").geometry_area_perimeter(
        shapely.box(179.95, -16.8, 180.05, -16.7)
    )[0]
    assert region.area == pytest.approx(area, rel=2e-3)


@pytest.mark.parametrize(
    ("bbox", "says"),
    [
        ((11.6, 49.9, 11.5, 50.0), "west is not below east"),
        ((11.5, 50.0, 11.6, 49.9), "south is not below north"),
        ((11.5, 49.9, 11.5, 50.0), "west is not below east"),
        ((11.5, math.nan, 11.6, 50.0), "not finite numbers"),
        ((11.5, 49.9, math.inf, 50.0), "not finite numbers"),
        ((11.5, 49.9, 11.6), "3 numbers"),
        ((49.9, 111.5, 50.0, 111.6), "seem swapped"),
        ((683476, 5538883, 685476, 5540883), "latitude beyond 90"),
        ((683476, 50, 685476, 51), "longitude beyond 360"),
        ((-10.0, 40.0, 20.0, 50.0), "several UTM zones"),
        ((20.0, 84.5, 21.0, 85.0), "EPSG:3413"),
        ((20.0, -85.0, 21.0, -84.0), "EPSG:3031"),
    ],
)
def test_bad_boxes_are_named(bbox: tuple[float, ...], says: str) -> None:
    with pytest.raises(RegionError, match=says) as caught:
        frame_from_bbox(bbox)
    assert caught.value.remedy


def test_swapped_box_is_given_back_in_the_right_order() -> None:
    with pytest.raises(RegionError) as caught:
        frame_from_bbox((-33.9, 151.1, -33.8, 151.2))  # Sydney as S,W,N,E
    assert "151.1,-33.9,151.2,-33.8" in str(caught.value)


def test_projected_box_west_of_east() -> None:
    with pytest.raises(RegionError, match="west is not below east"):
        frame_from_bbox((685476, 5538883, 683476, 5540883), bbox_crs="EPSG:32632")


def test_polar_crs_holds_the_pole() -> None:
    frame = frame_from_bbox((-180, 89.9, 179.9, 90), crs="EPSG:3413", voxel_size=10)
    left, bottom, right, top = frame.bounds
    assert left < -10_000 and right > 10_000 and bottom < -10_000 and top > 10_000


@pytest.mark.parametrize("crs", ["EPSG:27700", "EPSG:2154", "EPSG:32733", "EPSG:3031"])
def test_crs_that_is_not_made_for_the_place(crs: str) -> None:
    with pytest.raises(RegionError, match="lies outside") as caught:
        frame_from_bbox((16.0, 49.0, 16.1, 49.1), crs=crs)
    assert crs in str(caught.value) and "16,49,16.1,49.1" in str(caught.value)


def test_a_little_outside_the_area_of_use_is_fine() -> None:
    frame = frame_from_bbox((12.5, 50.0, 12.6, 50.1), crs="EPSG:32632", voxel_size=10)
    assert contains(frame, 12.55, 50.05)


def test_crs_without_area_of_use_is_checked_by_its_scale() -> None:
    local = (
        "+proj=tmerc +lat_0=0 +lon_0=10.3 +k=0.9996 +x_0=500000 +ellps=WGS84 +approx +units=m "
        "+type=crs"
    )
    assert contains(frame_from_bbox((9.0, 50.0, 9.1, 50.1), crs=local, voxel_size=10), 9.05, 50.05)
    with pytest.raises(RegionError, match=r"is 0\.\d\d m on the ground"):
        frame_from_bbox((96.0, 50.0, 96.1, 50.1), crs=local)


def test_projection_that_loses_the_place() -> None:
    half = "+proj=ortho +lat_0=0 +lon_0=0.123 +ellps=WGS84 +units=m +type=crs"
    with pytest.raises(RegionError, match="cannot be projected"):
        frame_from_bbox((120.0, 0.0, 120.1, 0.1), crs=half)


def test_web_mercator_metres_are_metres_at_the_equator_only() -> None:
    assert contains(
        frame_from_bbox((36.8, -1.3, 36.9, -1.2), crs="EPSG:3857", voxel_size=10), 36.85, -1.25
    )
    with pytest.raises(RegionError, match=r"EPSG:3857 .* is 0\.64 m on the ground"):
        frame_from_bbox(BAYREUTH, crs="EPSG:3857")


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:2229", "nonsense"])
def test_frame_crs_must_be_projected_in_metres(crs: str) -> None:
    with pytest.raises(FrameError):
        frame_from_bbox(BAYREUTH, crs=crs)


def test_unknown_bbox_crs() -> None:
    with pytest.raises(RegionError, match="not understood"):
        frame_from_bbox(BAYREUTH, bbox_crs="EPSG:999999")


def test_utm_zones() -> None:
    assert utm_crs((0.1, 50, 0.2, 51)) == "EPSG:32631"
    assert utm_crs((-0.2, -10, -0.1, -9)) == "EPSG:32730"
    assert utm_crs((179.9, -17, 180.2, -16)) == "EPSG:32701"
    assert (
        utm_crs((5.5, 60, 6.5, 61)) == "EPSG:32632"
    )  # also in south-west Norway, where map sheets use 32


def test_polygons_in_any_crs() -> None:
    ring = shapely.box(683476, 5538883, 685476, 5540883)
    frame, region = frame_from_polygons(ring, "EPSG:32632")
    assert frame.bounds == ring.bounds
    to_lonlat = pyproj.Transformer.from_crs(32632, 3035, always_xy=True)
    turned = shapely.transform(
        shapely.segmentize(ring, 20), lambda p: np.column_stack(to_lonlat.transform(*p.T))
    )
    frame2, region2 = frame_from_polygons(np.array([turned]), "EPSG:3035")
    assert frame2.crs == "EPSG:32632"
    assert np.abs(np.subtract(frame2.bounds, frame.bounds)).max() <= 1
    assert region2.symmetric_difference(region).area < 1e-4 * region.area


def test_polygons_are_united_and_lines_left_out() -> None:
    shapes = [
        shapely.box(500_000, 5_500_000, 500_010, 5_500_010),
        shapely.box(500_005, 5_500_000, 500_020, 5_500_010),
        shapely.LineString([(0, 0), (1, 1)]),
    ]
    frame, region = frame_from_polygons(np.array(shapes, object), "EPSG:32632")
    assert frame.bounds == (500_000, 5_500_000, 500_020, 5_500_010)
    assert region.area == pytest.approx(200)


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ([], "no polygons"),
        ([shapely.Point(1, 1)], "no polygons"),
        ([shapely.Polygon()], "no polygons"),
        ([shapely.Polygon([(0, 0), (1, 1), (0, 0)])], "no area"),
    ],
)
def test_polygons_without_area(shapes: list, says: str) -> None:
    with pytest.raises(RegionError, match=says):
        frame_from_polygons(np.array(shapes, object), "EPSG:32632", name="park.gpkg")


def write_raster(path, crs="EPSG:32632", transform=None) -> None:
    transform = transform or rasterio.Affine(10, 0, 500_000, 0, -10, 5_500_000)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=30,
        height=20,
        count=1,
        dtype="float32",
        crs=crs,
        transform=transform,
    ) as dataset:
        dataset.write(np.ones((1, 20, 30), np.float32))


def test_extent_of_a_raster(tmp_path) -> None:
    write_raster(tmp_path / "a.tif")
    frame = frame_from_raster(open_raster(tmp_path / "a.tif"), voxel_size=2.0)
    assert frame.crs == "EPSG:32632"
    assert frame.bounds == (500_000, 5_499_800, 500_300, 5_500_000)


def test_extent_of_a_rotated_raster(tmp_path) -> None:
    turn = rasterio.Affine(8, 6, 500_000, 6, -8, 5_500_000)  # by atan(3/4)
    write_raster(tmp_path / "a.tif", transform=turn)
    frame = frame_from_raster(open_raster(tmp_path / "a.tif"))
    assert frame.bounds == (500_000, 5_499_840, 500_360, 5_500_180)


def test_messages_give_both_extents_in_degrees(tmp_path) -> None:
    write_raster(tmp_path / "a.tif")
    source = open_raster(tmp_path / "a.tif")
    text = str(no_overlap(source, frame_from_bbox(BAYREUTH), "DEM"))
    assert "a.tif" in text and "9.0000,49.6" in text and "11.5484,49.9389,11.6016,49.9711" in text
    assert describe(source.bounds, "EPSG:32632").startswith("W,S,E,N = 9.0000,")


def test_swapped_region_is_noticed_by_the_layer() -> None:
    layer = (11.0, 49.0, 12.0, 50.0)
    assert "swapped" in swap_hint((49.4, 11.4, 49.5, 11.5), "EPSG:4326", layer, "EPSG:4326")
    assert swap_hint((20.4, 11.4, 20.5, 11.5), "EPSG:4326", layer, "EPSG:4326") == ""


def test_lonlat_bounds_do_not_jump_at_the_antimeridian() -> None:
    west, _, east, _ = lonlat_bounds((177_000, 8_140_000, 190_000, 8_150_000), "EPSG:32701")
    assert 0 < east - west < 1


@settings(max_examples=25, deadline=None)
@given(
    st.floats(-180, 180),
    st.floats(-79, 82),
    st.floats(0.001, 2.0),
    st.floats(0.001, 1.0),
    st.sampled_from([1.0, 2.5, 30.0]),
)
def test_every_place_of_a_box_lies_in_its_frame(
    lon: float, lat: float, width: float, height: float, size: float
) -> None:
    east = lon + width if lon + width <= 180 else lon + width - 360
    frame = frame_from_bbox((lon, lat, east, lat + height), voxel_size=size)
    for s in (0.0, 0.37, 1.0):
        for t in (0.0, 0.5, 1.0):
            x, y = pyproj.Transformer.from_crs(4326, frame.crs, always_xy=True).transform(
                lon + s * width, lat + t * height
            )
            left, bottom, right, top = frame.bounds
            slack = 1e-3 + 2e-4 * (right - left) ** 2 / 6.4e6  # between densified points
            assert left - slack <= x <= right + slack and bottom - slack <= y <= top + slack
    assert frame_from_bbox((lon, lat, east, lat + height), voxel_size=size) == frame
