"""The frame: snapping, cropping, conversion to and from GeoBoxes, and errors."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pyproj
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geo_io.errors import FrameError
from geo_io.frame import Frame, projected_crs, snap

FRAME = Frame("EPSG:32632", 2.0, (100, 164), (-20, 30))


def test_places() -> None:
    assert FRAME.shape == (50, 64)
    assert FRAME.bounds == (200.0, -40.0, 328.0, 60.0)
    assert FRAME.transform @ (0, 0) == (200.0, 60.0)
    assert FRAME.area_km2 == pytest.approx(0.0128)
    assert Frame.from_dict(FRAME.to_dict()) == FRAME
    assert hash(FRAME) == hash(Frame.from_dict(FRAME.to_dict()))
    with pytest.raises(FrozenInstanceError):
        FRAME.voxel_size = 1.0  # type: ignore[misc]


def test_slices_are_north_up() -> None:
    rows, columns = FRAME.slices(Frame("EPSG:32632", 2.0, (101, 103), (28, 30)))
    assert (rows, columns) == (slice(0, 2), slice(1, 3))
    with pytest.raises(FrameError, match="does not lie inside"):
        FRAME.slices(FRAME.pad(1))


numbers = st.integers(-(10**6), 10**6)
sizes = st.integers(1, 500)


@given(numbers, numbers, sizes, sizes, st.sampled_from([64, 96, 512]))
def test_tiles_cover_a_frame_once(x: int, y: int, nx: int, ny: int, size: int) -> None:
    frame = Frame("EPSG:32632", 1.0, (x, x + nx), (y, y + ny))
    parts = [frame.tile(tx, ty, size).intersection(frame) for tx, ty in frame.tiles(size)]
    assert all(part is not None for part in parts)
    assert sum(part.nx * part.ny for part in parts if part) == nx * ny


@given(numbers, sizes, st.integers(1, 3))
def test_coarsening_twice_is_coarsening_once(x: int, nx: int, steps: int) -> None:
    frame = step = Frame("EPSG:32632", 0.5, (x, x + nx), (x - 7, x + nx))
    for _ in range(steps):
        step = step.coarsen(2)
    assert step == frame.coarsen(2**steps)


@given(st.floats(-1e7, 1e7), st.floats(0.5, 1e4), st.sampled_from([0.25, 0.5, 1.0, 2.5, 10.0]))
def test_snapping_goes_outwards_by_less_than_a_voxel(
    left: float, width: float, size: float
) -> None:
    x = snap((left, 0.0, left + width, 1.0), size)["x"]
    low, high = (value * size for value in x)
    assert low <= left + 1e-6 * size and high >= left + width - 1e-5 * size
    assert left - low < size * (1 + 1e-6) and high - left - width < size * (1 + 1e-5)


def test_snapping_keeps_an_edge_that_is_on_the_lattice() -> None:
    assert snap((0.3, 0.0, 0.9, 0.6), 0.1) == {"x": (3, 9), "y": (0, 6)}


@pytest.mark.parametrize(
    ("crs", "words"),
    [
        ("EPSG:4326", "is geographic"),
        ("EPSG:2229", "not in metres"),
        ("EPSG:4978", "not a projected"),
        ("EPSG:99999999", "not understood"),
        ("nonsense", "not understood"),
    ],
)
def test_unsuitable_crs_is_refused(crs: str, words: str) -> None:
    with pytest.raises(FrameError, match=words):
        projected_crs(crs)


@pytest.mark.parametrize(
    ("crs", "words"),
    [
        ("EPSG:2053", "point west and south"),
        ("EPSG:5513", r"point south and west.*give EPSG:5514 as `crs`"),
        ("EPSG:2065", "EPSG:5221"),
        ("+proj=tmerc +lon_0=29 +axis=wsu +units=m", "point west and south"),
    ],
)
def test_axes_that_do_not_point_east_and_north_are_refused(crs: str, words: str) -> None:
    with pytest.raises(FrameError, match=words):
        projected_crs(crs)


@pytest.mark.parametrize("code", [5514, 2193, 31467, 3031, 3413, 32661])
def test_northing_before_easting_and_polar_axes_are_taken(code: int) -> None:
    assert projected_crs(f"EPSG:{code}") == f"EPSG:{code}"


def test_projected_crs_keeps_the_code() -> None:
    assert projected_crs("epsg:3006") == "EPSG:3006"
    assert projected_crs("EPSG:5972") == "EPSG:25832"  # compound: the horizontal part


def test_bad_frames_are_refused() -> None:
    with pytest.raises(FrameError, match="x range"):
        Frame("EPSG:32632", 1.0, (5, 5), (0, 1))
    with pytest.raises(FrameError, match="32-bit"):
        Frame("EPSG:32632", 0.001, (0, 10), (2**31 - 2, 2**31 + 5))
    with pytest.raises(FrameError, match="voxel size"):
        Frame("EPSG:32632", float("nan"), (0, 1), (0, 1))
    with pytest.raises(FrameError, match="share a lattice"):
        FRAME.intersection(Frame("EPSG:32633", 2.0, (0, 1), (0, 1)))


@given(numbers, numbers, sizes, sizes, st.sampled_from([0.1, 0.25, 0.3, 1.0, 2.5, 10.0]))
def test_a_geobox_comes_back(x: int, y: int, nx: int, ny: int, size: float) -> None:
    frame = Frame("EPSG:32632", size, (x, x + nx), (y, y + ny), (-4, 40), "EPSG:5773")
    box = frame.geobox
    assert box.shape == frame.shape and box.boundingbox.bbox == pytest.approx(frame.bounds)
    assert Frame.from_geobox(box, z=frame.z, vertical_crs=frame.vertical_crs) == frame


def test_a_frame_of_a_geobox() -> None:
    box = GeoBox.from_bbox((200.5, -40.0, 327.9, 60.0), "EPSG:32632", resolution=2.0)
    assert Frame.from_geobox(box) == FRAME
    compound = GeoBox.from_bbox((200, -40, 328, 60), "EPSG:5972", resolution=2.0)
    frame = Frame.from_geobox(compound)
    assert (frame.crs, frame.vertical_crs) == ("EPSG:25832", "EPSG:5941")
    local = pyproj.CRS("+proj=tmerc +lat_0=49 +lon_0=11 +ellps=GRS80").to_wkt()
    frame = Frame(projected_crs(local), 1.0, (0, 4), (0, 4))
    assert Frame.from_geobox(frame.geobox) == frame


@pytest.mark.parametrize(
    ("transform", "crs", "words"),
    [
        (Affine(2, 0, 200, 0, -2, 60), None, "no CRS"),
        (Affine(2, 0, 200, 0, -2, 60), "EPSG:4326", "is geographic"),
        (Affine(2, 0, 200, 0, -2, 60), "EPSG:2229", "not in metres"),
        (Affine(2, 0, 200, 0, -2, 60) @ Affine.rotation(1), "EPSG:32632", "rotated"),
        (Affine(2, 0.1, 200, 0, -2, 60), "EPSG:32632", "sheared"),
        (Affine(0, 2, 200, 2, 0, 60), "EPSG:32632", "rotated"),
        (Affine(2, 0, 200, 0, 2, 60), "EPSG:32632", "not north up"),
        (Affine(-2, 0, 200, 0, -2, 60), "EPSG:32632", "not north up"),
        (Affine(2, 0, 200, 0, -3, 60), "EPSG:32632", "not square"),
        (Affine(2, 0, 201, 0, -2, 60), "EPSG:32632", "not a multiple"),
    ],
)
def test_geoboxes_that_are_not_frames(transform: Affine, crs: str | None, words: str) -> None:
    with pytest.raises(FrameError, match=words) as caught:
        Frame.from_geobox(GeoBox((50, 64), transform, crs))
    assert caught.value.remedy


def test_the_tolerance_of_a_geobox_is_in_pixels() -> None:
    box = GeoBox((50, 64), Affine(2, 0, 200.2, 0, -2, 60), "EPSG:32632")
    assert Frame.from_geobox(box, tolerance=0.11) == FRAME
    with pytest.raises(FrameError, match="not a multiple"):
        Frame.from_geobox(box, tolerance=0.09)


def test_crop_takes_every_voxel_that_meets_the_box() -> None:
    part = FRAME.crop((203.0, -3.0, 206.0, 1.0))
    assert part is not None and part.x == (101, 103) and part.y == (-2, 1)
    assert FRAME.crop((1000.0, 1000.0, 1001.0, 1001.0)) is None
    assert np.array(part.shape).tolist() == [3, 2]
