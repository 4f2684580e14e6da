"""Tiles in feet beside tiles in metres, and of another datum, are refused with the jump."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.warp

from geo_io.elevation_mosaic import open_heights
from geo_io.errors import InputError
from geo_io.frame import Frame

X, Y = 500_000, 5_500_000
FRAME = Frame("EPSG:32632", 1.0, (X + 40, X + 160), (Y + 20, Y + 80))


def tile(
    path: Path, column: int, factor: float = 1.0, shift: float = 0.0, unit: str = "", more: int = 0
) -> Path:
    """One of two tiles of 100 m beside each other, on a slope, with `more` metres of overlap."""
    cells = 100 + more
    x = 100 * column - more * column + np.arange(cells) + 0.5
    y = np.arange(100)[::-1, None] + 0.5
    heights = (120 + 0.1 * x + 0.05 * y) * factor + shift
    left = X + 100 * column - more * column
    with rasterio.open(
        path, "w", driver="GTiff", width=cells, height=100, count=1, dtype="float32",
        crs="EPSG:32632", transform=rasterio.transform.from_origin(left, Y + 100, 1, 1),
    ) as out:  # fmt: skip
        out.write(heights.astype(np.float32), 1)
        if unit:
            out.set_band_unit(1, unit)
    return path


@pytest.mark.parametrize("more", [0, 20])
def test_declared_feet_beside_metres_are_converted(tmp_path: Path, more: int) -> None:
    files = [
        tile(tmp_path / "a.tif", 0, unit="m", more=more),
        tile(tmp_path / "b.tif", 1, 1 / 0.3048, unit="ft", more=more),
    ]
    data = open_heights(files).read(FRAME).data
    assert 120 < data.min() < data.max() < 150 and np.abs(np.diff(data, axis=1)).max() < 0.3


@pytest.mark.parametrize("more", [0, 20])
@pytest.mark.parametrize("feet", [0, 1])
def test_undeclared_feet_beside_metres_are_refused(tmp_path: Path, more: int, feet: int) -> None:
    names = ("a.tif", "b.tif")
    files = [
        tile(tmp_path / name, n, 1 / 0.3048 if n == feet else 1.0, more=more)
        for n, name in enumerate(names)
    ]
    with pytest.raises(InputError, match=rf"{names[feet]} seems to be in feet"):
        open_heights(files)


@pytest.mark.parametrize("more", [0, 20])
def test_another_datum_is_refused_with_the_shift(tmp_path: Path, more: int) -> None:
    files = [
        tile(tmp_path / "a.tif", 0, more=more),
        tile(tmp_path / "b.tif", 1, 1.0, 47.3, more=more),
    ]
    with pytest.raises(InputError, match=r"\+47\.[0-9] m from those of .*a\.tif"):
        open_heights(files)


def elsewhere(path: Path, crs: str) -> Path:
    """The same raster in another CRS."""
    out = path.with_name(f"{crs[5:]}{path.name}")
    with rasterio.open(path) as tile:
        place, width, height = rasterio.warp.calculate_default_transform(
            tile.crs, crs, tile.width, tile.height, *tile.bounds
        )
        profile = {**tile.profile, "crs": crs, "transform": place, "nodata": -9999.0}
        with rasterio.open(out, "w", **{**profile, "width": width, "height": height}) as file:
            rasterio.warp.reproject(
                rasterio.band(tile, 1), rasterio.band(file, 1), dst_nodata=-9999.0
            )
    return out


@pytest.mark.parametrize("crs", [("EPSG:4326", "EPSG:4326"), ("EPSG:32632", "EPSG:25833")])
@pytest.mark.parametrize(
    ("factor", "shift", "said"),
    [(1, 47.3, r"\+47\.[0-9] m from"), (1 / 0.3048, 0, "in feet"), (1, 1, "")],
)
def test_tiles_in_degrees_and_of_other_crs(
    crs: tuple[str, str], factor: float, shift: float, said: str, tmp_path: Path
) -> None:
    plain = [tile(tmp_path / "a.tif", 0), tile(tmp_path / "b.tif", 1, factor, shift)]
    files = [elsewhere(file, there) for file, there in zip(plain, crs, strict=True)]
    if said:
        with pytest.raises(InputError, match=said):
            open_heights(files)
    else:
        assert open_heights(files).read(FRAME).data.min() > 120


@pytest.mark.slow
def test_every_file_is_compared(tmp_path: Path) -> None:
    count = 70
    files = [
        tile(tmp_path / f"{n:02}.tif", n, 1.0, 30.0 if n == count - 1 else 0.0)
        for n in range(count)
    ]
    with pytest.raises(InputError, match=r"69\.tif are \+30\.[0-9] m from those of .*68\.tif"):
        open_heights(files)


def test_tiles_that_fit_are_read(tmp_path: Path) -> None:
    files = [tile(tmp_path / "a.tif", 0), tile(tmp_path / "b.tif", 1, shift=1.5)]
    assert open_heights(files).read(FRAME).data.min() > 120
