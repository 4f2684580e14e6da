"""Which classification a raster has: as the file says, or as its values alone allow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from geo_io.errors import InputError
from geo_io.legend import builtin_crosswalks, classes
from geo_io.raster.source import open_raster
from geo_io.semantics.choose_legend import choose_raster_legend
from geo_io.semantics.options import SemanticsOptions

OPTIONS = SemanticsOptions(crosswalks=builtin_crosswalks())
WORLDCOVER = {10: (0, 100, 0), 30: (255, 255, 76), 50: (250, 0, 0), 80: (0, 100, 200)}


def write(path: Path, *values: int, **tags: str) -> Path:
    cells = np.array([values] * 2, np.uint8)
    shape: dict[str, Any] = {"height": 2, "width": len(values), "count": 1, "dtype": "uint8"}
    transform = Affine(10, 0, 500000, 0, -10, 5500000)
    with rasterio.open(path, "w", "GTiff", crs="EPSG:32632", transform=transform, **shape) as out:
        out.write(cells, 1)
        out.update_tags(**tags)
    return path


def legend_of(path: Path) -> str:
    return choose_raster_legend(open_raster(path), OPTIONS)[0].name


def coloured(path: Path, colours: dict[int, tuple[int, int, int]]) -> Path:
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {code: (*rgb, 255) for code, rgb in colours.items()})
    return path


@pytest.mark.parametrize(
    ("name", "values", "legend"),
    [
        ("n32_50_2020lc030.tif", (10, 20, 60, 80, 90), "globeland30"),
        ("ESA_WorldCover_10m_2021_v200_N48E009_Map.tif", (10, 30, 50, 80), "worldcover"),
        ("PROBAV_LC100_global_v3.0.1.tif", (20, 40, 50, 80), "copernicus_lc100"),
        ("MCD12Q1.A2020001.tif", (1, 12, 13), "modis_igbp"),
        ("U2018_CLC2018_V2020_20u1.tif", (1, 2, 12, 23), "corine"),
        ("32U_20230101-20240101.tif", (1, 2, 5, 7, 11), "esri_lulc"),
        ("my_earthgen_classes.tif", (5, 6, 7, 10, 18), "earthgen"),
        ("cover.tif", (20, 114, 126), "copernicus_lc100"),  # no other has them
        ("cover.tif", (95, 10), "worldcover"),
    ],
)
def test_a_file_that_says_what_it_is(
    tmp_path: Path, name: str, values: tuple[int, ...], legend: str
) -> None:
    assert legend_of(write(tmp_path / name, *values)) == legend


def test_codes_of_several_schemes_are_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "cover.tif", 10, 20, 60, 80, 90)
    with pytest.raises(InputError, match=r"fit several legends .*globeland30.*`legend`"):
        legend_of(path)
    assert legend_of(write(path, 10, 60, 80, title="ESA WorldCover 2021")) == "worldcover"


def test_colour_tables(tmp_path: Path) -> None:
    path = write(tmp_path / "cover.tif", *WORLDCOVER)
    assert legend_of(coloured(path, WORLDCOVER)) == "worldcover"
    own = coloured(write(tmp_path / "own.tif", 1, 2, 5), {c.code: c.rgb for c in classes()})
    assert legend_of(own) == "earthgen"
    other = write(tmp_path / "other.tif", *WORLDCOVER)
    with pytest.raises(InputError, match="several legends"):
        legend_of(coloured(other, dict.fromkeys(WORLDCOVER, (1, 2, 3))))
