"""Rasters of a world as cloud-optimised GeoTIFF."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyproj
import pytest
import rasterio
from rio_cogeo.cogeo import cog_validate

from earthgen.errors import StoreError
from earthgen.progress import Event, Progress
from earthgen.voxels.tile import tile_from_voxels
from earthgen.world.world import World
from earthgen_cog.exporter import CogExporter, category_names
from geo_io.errors import RegionError
from geo_io.legend import classes, palette
from tests.helpers import synthetic

NAMES = [
    "ground.tif",
    "surface.tif",
    "height.tif",
    "semantics.tif",
    "rgb.tif",
    "semantics.tif.aux.xml",
    "ground.qml",
    "surface.qml",
    "height.qml",
    "semantics.qml",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return synthetic.make(
        tmp_path_factory.mktemp("cog") / "world.zarr", (-37, 620), (400, 480), tile_size=128
    )


def export(
    world: World, out: Path, bounds=None, level: int = 1, progress: Progress | None = None
) -> list[Path]:
    return CogExporter().export(
        world, out, bounds=bounds, level=level, progress=progress or Progress()
    )


@pytest.fixture(scope="module")
def files(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    assert [path.name for path in export(world, out)] == NAMES
    assert sorted(path.name for path in out.iterdir()) == sorted(NAMES)
    return out


@pytest.mark.parametrize("name", NAMES[:5])
def test_they_are_valid_cogs(files: Path, name: str) -> None:
    valid, errors, warnings = cog_validate(files / name)
    assert valid and not errors and not warnings


@pytest.mark.parametrize("name", ["ground", "surface", "semantics", "rgb"])
def test_layers_come_back(world: World, files: Path, name: str) -> None:
    layers = world.layers().load()
    with rasterio.open(files / f"{name}.tif") as file:
        data = file.read()
        assert file.transform == world.frame.transform and file.shape == world.frame.shape
    expected = layers[name].values
    if name == "rgb":
        np.testing.assert_array_equal(np.moveaxis(data[:3], 0, -1), expected)
        assert (data[3] == 255).all()
    else:
        np.testing.assert_array_equal(data[0], expected)
        assert data.dtype == expected.dtype


def test_height_is_above_ground(world: World, files: Path) -> None:
    layers = world.layers().load()
    with rasterio.open(files / "height.tif") as file:
        height = file.read(1)
    np.testing.assert_array_equal(height, layers["surface"].values - layers["ground"].values)
    assert height.max() > 8 and height.min() == pytest.approx(0, abs=1e-3)


def test_crs_is_compound_for_heights_alone(files: Path) -> None:
    for name in ("ground", "surface"):
        with rasterio.open(files / f"{name}.tif") as file:
            crs = pyproj.CRS.from_wkt(file.crs.to_wkt())
            assert crs.is_compound and [part.to_epsg() for part in crs.sub_crs_list] == [
                32632,
                7837,
            ]
            assert file.tags()["VERTICAL_CRS"] == "EPSG:7837"
    for name in ("height", "semantics", "rgb"):
        with rasterio.open(files / f"{name}.tif") as file:
            assert file.crs.to_epsg() == 32632


def test_classes_have_colours_and_names(files: Path) -> None:
    with rasterio.open(files / "semantics.tif") as file:
        assert file.nodata == 0 and file.colorinterp[0] == rasterio.enums.ColorInterp.palette
        colours = file.colormap(1)
        assert all(colours[land.code][:3] == tuple(palette()[land.code]) for land in classes())
        assert "18=building" in file.tags()["CLASSES"]
        # Overviews hold classes that exist, not means of codes.
        assert file.overviews(1)
        small = file.read(1, out_shape=(file.height // 2, file.width // 2))
        assert set(np.unique(small)) <= set(np.unique(file.read(1)))
    text = (files / "semantics.tif.aux.xml").read_text("utf-8")
    assert text == category_names() and text.count("<Category>") == 26
    assert "<Category>no data</Category>" in text and "Quarry, dump, building site" in text


def test_heights_have_units_and_statistics(files: Path) -> None:
    for name in ("ground", "surface", "height", "rgb"):
        with rasterio.open(files / f"{name}.tif") as file:
            data, tags = file.read(1).astype(np.float64), file.tags(1)
            assert file.units[0] == (None if name == "rgb" else "metre")
        said = [
            float(tags[f"STATISTICS_{key}"]) for key in ("MINIMUM", "MAXIMUM", "MEAN", "STDDEV")
        ]
        assert said == pytest.approx([data.min(), data.max(), data.mean(), data.std()], rel=1e-5)
    with rasterio.open(files / "semantics.tif") as file:
        assert "STATISTICS_MEAN" not in file.tags(1)  # of codes it would mean nothing


def test_styles_of_qgis(files: Path) -> None:
    """QGIS itself was seen to draw with them; here, that they are well-formed and complete."""
    kinds = {"ground": "hillshade", "surface": "hillshade", "height": "singlebandpseudocolor"}
    for name, kind in {**kinds, "semantics": "paletted"}.items():
        renderer = ElementTree.parse(files / f"{name}.qml").getroot().find("pipe/rasterrenderer")
        assert renderer is not None and renderer.get("type") == kind
    entries = renderer.findall("colorPalette/paletteEntry")
    said = [(int(e.get("value")), e.get("color"), e.get("label")) for e in entries]
    assert said == [(land.code, land.color, land.title) for land in classes()]


def test_provenance_stands_in_the_tags(files: Path) -> None:
    with rasterio.open(files / "ground.tif") as file:
        tags = file.tags()
    assert tags["SEED"] == "7" and tags["GENERATOR"].startswith("earthgen ")
    assert (
        tags["GROUND"] == "ground: generated, not measured"
        and '"made.gpkg"' in tags["INPUTS"]
        and "somebody" not in tags["INPUTS"]
    )


def test_rgb_has_alpha(files: Path) -> None:
    with rasterio.open(files / "rgb.tif") as file:
        assert file.colorinterp[3] == rasterio.enums.ColorInterp.alpha


def test_unfinished_tiles_are_no_data_and_an_unknown_datum_says_so(tmp_path: Path) -> None:
    store = synthetic.start(tmp_path / "w.zarr", (0, 128), (0, 100), vertical_crs="unknown")
    tile = list(store.frame.tiles(64))[1]
    frame = store.tile_frame(*tile)
    synthetic.put(store, tile, tile_from_voxels(frame, *synthetic.build(frame)))
    world = synthetic.open_world(tmp_path / "w.zarr")
    export(world, tmp_path / "out")
    rows, columns = world.frame.slices(frame)
    there = np.zeros(world.frame.shape, bool)
    there[rows, columns] = True
    for name in ("ground", "surface", "height"):
        with rasterio.open(tmp_path / "out" / f"{name}.tif") as file:
            np.testing.assert_array_equal(np.isfinite(file.read(1)), there)
            assert np.isnan(file.nodata)
            if name != "height":
                assert file.tags()["VERTICAL_CRS"] == "unknown" and file.crs.to_epsg() == 32632
    with rasterio.open(tmp_path / "out" / "semantics.tif") as file:
        np.testing.assert_array_equal(file.read(1) > 0, there)
    with rasterio.open(tmp_path / "out" / "rgb.tif") as file:
        np.testing.assert_array_equal(file.read(4) == 255, there)


def test_a_part_at_a_coarser_level(world: World, tmp_path: Path) -> None:
    left, bottom, _, _ = world.frame.bounds
    bounds = (left + 100, bottom + 10, left + 301, bottom + 60)
    export(world, tmp_path, bounds, 4)
    expected = world.layers(4, bounds).load()
    with rasterio.open(tmp_path / "surface.tif") as file:
        np.testing.assert_array_equal(file.read(1), expected["surface"].values)
        assert file.res == (4.0, 4.0)
        box = file.bounds
    assert box.left <= bounds[0] < box.left + 4 and bounds[2] <= box.right < bounds[2] + 4


def test_progress_ends_at_its_total(world: World, tmp_path: Path) -> None:
    events: list[Event] = []
    export(world, tmp_path, progress=Progress(events.append))
    assert events[-1].done == events[-1].total == len(world.tiles()) + 1


def test_what_the_user_is_told(world: World, tmp_path: Path) -> None:
    with pytest.raises(RegionError, match=r"0–1 east.*639963–640620 east"):
        export(world, tmp_path, (0.0, 0.0, 1.0, 1.0))
    with pytest.raises(StoreError, match="1, 2, 4, 8"):
        export(world, tmp_path, level=0)
    synthetic.start(tmp_path / "empty.zarr", (0, 64), (0, 64))
    with pytest.raises(StoreError, match="--resume"):
        export(synthetic.open_world(tmp_path / "empty.zarr"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
