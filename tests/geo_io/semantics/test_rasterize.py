"""Painting, compositing and majority classes, against GDAL and slow references."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest
import rasterio.features
import rioxarray  # noqa: F401  registers the .rio accessor
import shapely
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Polygon, box

from geo_io.frame import Frame
from geo_io.legend import classes, codes, priorities
from geo_io.raster.source import open_raster
from geo_io.semantics.nesting import class_ranks
from geo_io.semantics.rasterize import class_of, composite, majority, nearest, paint, ranked

UTM = "EPSG:32632"
X, Y = 683000.0, 5539000.0
ORIGIN = np.array([X, Y])

FRAME = Frame(UTM, 0.5, (1366000, 1366120), (11078000, 11078090))
"""60 m x 45 m from (X, Y)."""


def _blobs(seed: int, n: int = 30) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shapes = shapely.buffer(
        shapely.points(ORIGIN + rng.uniform(0, 60, (n, 2))), rng.uniform(0.2, 12, n)
    )
    return shapely.difference(shapes, shapely.buffer(shapely.centroid(shapes), 0.7))  # with holes


def test_paint_equals_gdal() -> None:
    shapes, values = _blobs(3), np.arange(1, 31, dtype=np.uint8)
    transform = FRAME.transform @ Affine.scale(1 / 4)
    expected = rasterio.features.rasterize(
        zip(shapes, values, strict=True), (360, 480), transform=transform
    )
    assert (paint(FRAME, shapes, values, 4) == expected).all()


@pytest.mark.parametrize("seed", range(5))
def test_paint_equals_gdal_on_the_lattice(seed: int) -> None:
    """Rectangles with holes, on the corners of cells, so that no centre lies on a border."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, [50, 35], (20, 2))
    size = rng.integers(4, 25, (20, 2))
    shapes = shapely.box(*(low + ORIGIN).T, *(low + size + ORIGIN).T)
    holes = shapely.box(*(low + 1 + ORIGIN).T, *(low + size - 2 + ORIGIN).T)
    shapes, values = shapely.difference(shapes, holes), np.arange(1, 21, dtype=np.uint8)
    expected = rasterio.features.rasterize(
        zip(shapes, values, strict=True), FRAME.shape, transform=FRAME.transform
    )
    assert (paint(FRAME, shapes, values, 1) == expected).all()
    assert len(np.unique(expected)) > 10


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 100),
    st.integers(0, 60),
    st.integers(0, 60),
    st.integers(1, 60),
    st.integers(1, 30),
)
def test_paint_does_not_depend_on_the_window(seed: int, x: int, y: int, nx: int, ny: int) -> None:
    shapes, values = _blobs(seed), np.arange(1, 31, dtype=np.uint32)
    x0, y0 = FRAME.x[0] + x, FRAME.y[0] + y
    crop = Frame(UTM, 0.5, (x0, x0 + nx), (y0, y0 + ny))
    whole = paint(FRAME.pad(100), shapes, values, 2)
    rows, columns = FRAME.pad(100).slices(crop)
    expected = whole[2 * rows.start : 2 * rows.stop, 2 * columns.start : 2 * columns.stop]
    assert (paint(crop, shapes, values, 2) == expected).all()


def test_neighbours_leave_no_gap_and_no_overlap() -> None:
    # A border through cell centres, in both directions of the ring.
    rng = np.random.default_rng(5)
    border = ORIGIN + np.column_stack([np.linspace(0, 60, 61), rng.integers(40, 160, 61) * 0.125])
    south = Polygon([*border, (X + 60, Y - 1), (X, Y - 1)])
    north = Polygon([*border[::-1], (X, Y + 50), (X + 60, Y + 50)])
    one = paint(FRAME, np.array([south], object), np.array([1], np.uint8), 2)
    two = paint(FRAME, np.array([north], object), np.array([1], np.uint8), 2)
    assert (one + two == 1).all()


def test_paint_of_nothing() -> None:
    nothing = paint(FRAME, np.empty(0, object), np.empty(0, np.uint8), 4)
    assert nothing.shape == (360, 480) and not nothing.any()
    far = np.array([box(0, 0, 1, 1), Polygon()], object)
    assert not paint(FRAME, far, np.array([1, 2], np.uint8), 4).any()


def _majority_slowly(fine: np.ndarray, factor: int) -> np.ndarray:
    out = np.zeros((fine.shape[0] // factor, fine.shape[1] // factor), np.uint8)
    for i, j in np.ndindex(out.shape):
        block = fine[i * factor : (i + 1) * factor, j * factor : (j + 1) * factor]
        share = np.bincount(block.ravel(), minlength=26)
        known = [code for code in range(1, 26) if share[code]]
        if 2 * share[0] <= factor**2:
            out[i, j] = max(known, key=lambda code: (share[code], priorities()[code], -code))
    return out


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 26))
def test_majority_is_the_largest_share(seed: int, factor: int, kinds: int) -> None:
    rng = np.random.default_rng(seed)
    palette = rng.choice(26, kinds, replace=False).astype(np.uint8)
    fine = rng.choice(palette, (6 * factor, 5 * factor))
    assert (majority(fine, factor) == _majority_slowly(fine, factor)).all()


def test_majority_of_unknown() -> None:
    road = codes()["road"]
    half = np.array([[0, 0], [road, road]], np.uint8)
    assert majority(half, 2)[0, 0] == road
    assert majority(np.array([[0, 0], [0, road]], np.uint8), 2)[0, 0] == 0


def test_composite_follows_priority() -> None:
    grass, road, field = codes()["grass"], codes()["road"], codes()["cropland"]
    base, top = (
        ranked(np.array([row], np.uint8), class_ranks()[[row]])
        for row in ([grass, road, 0, grass], [road, field, field, 0])
    )
    composite(base, top)
    assert class_of(base).tolist() == [[road, road, field, grass]]
    lifted = ranked(np.array([[field]], np.uint8), class_ranks()[[[road]]] + 1)
    composite(base[:, :1], lifted)
    assert class_of(base)[0, 0] == field
    assert {land.code for land in classes()} == set(range(1, 26))


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326", "EPSG:3035"])
def test_nearest_is_the_cell_under_the_centre(crs: str) -> None:
    rng = np.random.default_rng(2)
    change = pyproj.Transformer.from_crs(UTM, crs, always_xy=True)
    left, bottom, right, top = change.transform_bounds(X - 20, Y - 20, X + 50, Y + 30)
    step = (right - left) / 40
    transform = Affine(step, 0, left, 0, -step, top)
    x = left + (np.arange(40) + 0.5) * step
    y = top - (np.arange(int((top - bottom) / step)) + 0.5) * step
    values = rng.integers(1, 200, (len(y), len(x))).astype(np.uint8)
    array = xr.DataArray(values, {"y": y, "x": x}, ("y", "x")).rio.write_crs(crs)
    found = nearest(FRAME, 4, open_raster(array), lambda cells, valid: np.where(valid, cells, 0))
    i, j = np.meshgrid(np.arange(480) + 0.5, np.arange(360) + 0.5)
    px, py = change.transform(*(FRAME.transform @ Affine.scale(0.25) @ (i, j)))
    column, row = np.floor(~transform @ (px, py)).astype(int)
    inside = (column >= 0) & (column < len(x)) & (row >= 0) & (row < len(y))
    expected = np.where(inside, values[row.clip(0, len(y) - 1), column.clip(0, len(x) - 1)], 0)
    assert inside.any() and not inside.all()
    assert (
        found != expected
    ).mean() < 1e-3  # interpolated positions differ by less than a millimetre
