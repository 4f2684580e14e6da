"""Pictures on a frame: which bands, how values become 8 bits, and the same from any window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling

from geo_io.errors import InputError, MissingCrsError, RegionError
from geo_io.frame import Frame
from geo_io.image import open_image
from geo_io.raster import survey as raster_survey
from geo_io.region.region import frame_from_bbox, frame_from_raster

UTM = "EPSG:32632"
CORNER = (500_000.0, 5_500_000.0)
RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
SHAPE = (30, 40)
FRAME = Frame(UTM, 1.0, (500_000, 500_040), (5_499_970, 5_500_000))


def write(
    path: Path,
    data: NDArray,
    *,
    size: float = 1.0,
    colours: tuple[ColorInterp, ...] | None = None,
    mask: NDArray | None = None,
    palette: dict | None = None,
    crs: Any = UTM,
    names: tuple[str, ...] = (),
    overviews: tuple[int, ...] = (),
    transform: Affine | None = None,
    **profile: Any,
) -> Path:
    """A GeoTIFF of (bands, h, w)."""
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=data.shape[2],
            height=data.shape[1],
            count=data.shape[0],
            dtype=data.dtype,
            crs=crs,
            transform=transform or Affine(size, 0, CORNER[0], 0, -size, CORNER[1]),
            **profile,
        ) as dataset,
    ):
        if colours:
            dataset.colorinterp = colours
        if palette:
            dataset.write_colormap(1, palette)
        dataset.write(data)
        if mask is not None:
            dataset.write_mask(mask)
        for n, name in enumerate(names, 1):
            dataset.set_band_description(n, name)
        if overviews:
            dataset.build_overviews(list(overviews), Resampling.average)
    return path


def noise(
    bands: int, shape: tuple[int, int] = SHAPE, high: int = 256, dtype: str = "uint8"
) -> NDArray:
    return np.random.default_rng(0).integers(0, high, (bands, *shape)).astype(dtype)


def picture(path: Path) -> NDArray:
    return open_image(path).read(FRAME).data


def test_rgb(tmp_path: Path) -> None:
    data = noise(3)
    image = picture(write(tmp_path / "a.tif", data, photometric="RGB"))
    assert image.shape == (*SHAPE, 4) and image.dtype == np.uint8
    np.testing.assert_array_equal(image[..., :3], data.transpose(1, 2, 0))
    assert (image[..., 3] == 255).all()


def test_grey_and_grey_with_alpha(tmp_path: Path) -> None:
    grey = noise(1)
    image = picture(write(tmp_path / "a.tif", grey))
    np.testing.assert_array_equal(image[..., :3], grey[0][..., None].repeat(3, axis=2))
    alpha = np.full(SHAPE, 255, np.uint8)
    alpha[:10] = 0
    both = write(
        tmp_path / "b.tif",
        np.stack([grey[0], alpha]),
        colours=(ColorInterp.gray, ColorInterp.alpha),
    )
    image = picture(both)
    np.testing.assert_array_equal(image[..., 3], alpha)
    assert (image[:10] == 0).all()
    np.testing.assert_array_equal(image[10:, :, 0], grey[0, 10:])
    assert open_image(both).summary()["ignored_bands"] == []


def test_two_bands_without_names_are_grey_and_alpha(tmp_path: Path) -> None:
    data = noise(2)
    data[1] = 255
    data[1, :, :5] = 0
    image = picture(write(tmp_path / "a.tif", data, photometric="MINISBLACK", alpha="NO"))
    assert (image[:, :5, 3] == 0).all() and (image[:, 5:, 3] == 255).all()


def test_rgba(tmp_path: Path) -> None:
    data = noise(4)
    data[3] = np.where(np.arange(40) < 20, 255, 0)
    image = picture(write(tmp_path / "a.tif", data, colours=(*RGB, ColorInterp.alpha)))
    np.testing.assert_array_equal(image[..., 3], data[3])
    np.testing.assert_array_equal(image[:, :20, :3], data[:3, :, :20].transpose(1, 2, 0))


def test_fourth_band_is_infrared_unless_it_says_alpha(tmp_path: Path) -> None:
    data = noise(4)
    data[3] = 0
    path = write(
        tmp_path / "a.tif",
        data,
        colours=(*RGB, ColorInterp.undefined),
        names=("R", "G", "B", "NIR"),
    )
    image = picture(path)
    assert (image[..., 3] == 255).all()
    assert open_image(path).summary()["ignored_bands"] == ["NIR"]


def test_colours_are_found_by_name(tmp_path: Path) -> None:
    data = noise(5)
    order = (
        ColorInterp.blue,
        ColorInterp.green,
        ColorInterp.red,
        ColorInterp.undefined,
        ColorInterp.undefined,
    )
    reader = open_image(write(tmp_path / "a.tif", data, colours=order))
    assert reader.bands == (3, 2, 1)
    np.testing.assert_array_equal(reader.read(FRAME).data[..., 0], data[2])


def test_palette_becomes_colour_before_it_is_resampled(tmp_path: Path) -> None:
    index = np.zeros((1, *SHAPE), np.uint8)
    index[:, :, ::2] = 200
    palette = {0: (255, 0, 0, 255), 200: (0, 0, 255, 255), 100: (0, 255, 0, 255)}
    reader = open_image(write(tmp_path / "a.tif", index, palette=palette))
    image = reader.read(FRAME).data
    assert (image[:, ::2] == (0, 0, 255, 255)).all() and (image[:, 1::2] == (255, 0, 0, 255)).all()
    coarse = reader.read(Frame(UTM, 2.0, (250_000, 250_020), (2_749_985, 2_750_000))).data
    assert (coarse == (128, 0, 128, 255)).all()  # and not the green of index 100


def test_nodata_masks_and_borders(tmp_path: Path) -> None:
    data = noise(3).clip(1, 254)
    data[:, :, :8] = 0
    data[1, 20, 20] = 0  # black in one band only is a colour
    image = picture(write(tmp_path / "a.tif", data, nodata=0))
    assert (image[:, :8] == 0).all() and (image[:, 8:, 3] == 255).all()
    mask = np.full(SHAPE, 255, np.uint8)
    mask[5:9] = 0
    image = picture(write(tmp_path / "b.tif", data, mask=mask))
    np.testing.assert_array_equal(image[..., 3], mask)
    assert (
        picture(write(tmp_path / "c.tif", data))[:, :8, 3] == 255
    ).all()  # nothing declared: black


def test_no_colour_leaks_from_no_data(tmp_path: Path) -> None:
    data = np.full((3, *SHAPE), 200, np.uint8)
    data[:, :, :21] = 0
    reader = open_image(write(tmp_path / "a.tif", data, nodata=0))
    for size in (0.5, 2.0, 4.0, 0.7):
        image = reader.read(frame_from_raster(reader.source, crs=UTM, voxel_size=size)).data
        assert set(np.unique(image[image[..., 3] == 255][:, :3])) <= {199, 200, 201}
        assert 0.4 < (image[..., 3] == 255).mean() < 0.55


def test_outside_is_transparent(tmp_path: Path) -> None:
    image = open_image(write(tmp_path / "a.tif", noise(3))).read(FRAME.pad(6)).data
    assert (image[6:-6, 6:-6, 3] == 255).all()
    assert image[..., 3].sum() == 255 * 30 * 40


def test_12_bit_counts_are_stretched_alike_in_all_bands(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    data = np.stack([rng.integers(200, top, (100, 120)) for top in (1200, 900, 700)]).astype(
        np.uint16
    )
    reader = open_image(write(tmp_path / "a.tif", data))
    low, high = reader.scaling
    assert (low, high) == pytest.approx(tuple(np.percentile(data, (2, 98))), rel=0.02)
    image = reader.read(frame_from_raster(reader.source, crs=UTM)).data
    expected = np.clip((data - low) / (high - low) * 255, 0, 255)
    assert np.abs(image[..., :3] - expected.transpose(1, 2, 0)).max() <= 0.51


@pytest.mark.parametrize(
    ("top", "dtype", "scaling"),
    [
        (65_000, "uint16", (0, 65535)),
        (250, "uint16", (0, 255)),
        (1, "float32", (0, 1)),
        (255, "float32", (0, 255)),
    ],
)
def test_values_that_say_what_they_are(
    tmp_path: Path, top: int, dtype: str, scaling: tuple[float, float]
) -> None:
    data = (np.random.default_rng(2).random((3, 60, 70)) * top).astype(dtype)
    reader = open_image(write(tmp_path / "a.tif", data))
    assert reader.scaling == scaling
    image = reader.read(frame_from_raster(reader.source, crs=UTM)).data
    assert np.abs(image[..., :3] - data.transpose(1, 2, 0) / scaling[1] * 255.0).max() <= 0.51


def test_nan_is_no_data(tmp_path: Path) -> None:
    data = np.full((3, *SHAPE), 0.5, np.float32)
    data[:, :10] = np.nan
    image = picture(write(tmp_path / "a.tif", data))
    assert (image[:10] == 0).all() and (image[10:] == (128, 128, 128, 255)).all()


@pytest.fixture(scope="module")
def ortho(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coloured noise at 0.25 m in another projection, partly masked, with overviews."""
    shape = (400, 500)
    mask = np.full(shape, 255, np.uint8)
    mask[100:180, 50:300] = 0
    path = tmp_path_factory.mktemp("ortho") / "a.tif"
    return write(
        path,
        noise(3, shape),
        size=0.25,
        crs="EPSG:3035",
        mask=mask,
        overviews=(2, 4, 8),
        tiled=True,
        blockxsize=64,
        blockysize=64,
        transform=Affine(0.25, 0, 4_321_000, 0, -0.25, 2_950_000),
    )


@settings(max_examples=15, deadline=None)
@given(st.data(), st.sampled_from([0.1, 0.3, 1.0, 2.0, 7.0]))
def test_overlapping_windows_agree_to_the_bit(
    ortho: Path, data: st.DataObject, size: float
) -> None:
    reader = open_image(ortho)
    extent = frame_from_raster(reader.source, crs=UTM, voxel_size=size)
    n = data.draw(st.integers(5, 50))
    x = data.draw(st.integers(extent.x[0] - 4, extent.x[1]))
    y = data.draw(st.integers(extent.y[0] - 4, extent.y[1]))
    dx, dy = data.draw(st.integers(-n + 1, n - 1)), data.draw(st.integers(-n + 1, n - 1))
    one = reader.read(Frame(UTM, size, (x, x + n), (y, y + n)))
    other = reader.read(Frame(UTM, size, (x + dx, x + dx + n), (y + dy, y + dy + 2 * n)))
    common = one.frame.intersection(other.frame)
    assert common is not None
    np.testing.assert_array_equal(one.crop(common).data, other.crop(common).data)


def test_coarse_voxels_hold_means(tmp_path: Path) -> None:
    data = noise(3, (256, 256))
    frame = Frame(UTM, 8.0, (62_500, 62_532), (687_468, 687_500))
    means = data.reshape(3, 32, 8, 32, 8).mean(axis=(2, 4)).transpose(1, 2, 0)
    for overviews in ((), (2, 4)):
        image = (
            open_image(write(tmp_path / "a.tif", data, overviews=overviews, tiled=True))
            .read(frame)
            .data
        )
        assert np.abs(image[..., :3] - means).max() <= 2


def test_bad_pictures_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingCrsError, match=r"a\.tif has no CRS"):
        open_image(write(tmp_path / "a.tif", noise(3), crs=None))
    reader = open_image(tmp_path / "a.tif", assume_crs=UTM)
    with pytest.raises(RegionError, match=r"the image .*a\.tif does not overlap"):
        reader.survey(frame_from_bbox((16.0, 48.0, 16.1, 48.1), voxel_size=10))
    empty = open_image(write(tmp_path / "b.tif", np.zeros((3, *SHAPE), np.uint8), nodata=0))
    with pytest.raises(InputError, match="nothing but nodata in the region"):
        empty.survey(FRAME)
    with pytest.raises(InputError, match="complex"):
        open_image(write(tmp_path / "c.tif", np.zeros((1, *SHAPE), np.complex64)))


def test_survey(tmp_path: Path) -> None:
    data = noise(3).clip(1, 255)
    data[:, :15] = 0
    survey = open_image(write(tmp_path / "a.tif", data, nodata=0)).survey(
        Frame(UTM, 1.0, (499_960, 500_040), FRAME.y)
    )
    assert survey["coverage"] == pytest.approx(0.5) and survey["voids"] == pytest.approx(0.5)


def test_real_orthos(shared: Path) -> None:
    autzen = open_image(shared / "autzen_full_rgb_lidar" / "ortho.tif")  # EPSG:2993, internal mask
    frame = frame_from_raster(autzen.source, voxel_size=4)
    image = autzen.read(frame).data
    assert frame.crs == "EPSG:32610"
    assert 60 < image[image[..., 3] == 255][:, :3].mean() < 200
    assert autzen.survey(frame)["voids"] < 0.1
    grey = open_image(
        shared / "neon_teak_rgb_lidar" / "OSBS_006_hyperRGB.tif"
    )  # float32 counts up to 2000
    assert (
        50
        < grey.read(frame_from_raster(grey.source, voxel_size=1)).data[20:-20, 20:-20, :3].mean()
        < 200
    )


def test_a_survey_does_not_depend_on_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.full((60, 90), 255, np.uint8)
    mask[10:30, 20:70] = 0
    reader = open_image(write(tmp_path / "a.tif", noise(3, (60, 90)), mask=mask))
    frame = FRAME.pad(45)
    whole = reader.survey(frame)
    assert 0 < whole["coverage"] < 1 and whole["voids"] > 0
    monkeypatch.setattr(raster_survey, "PART_CELLS", (16, 16))
    assert reader.survey(frame) == whole


@pytest.mark.parametrize(
    ("names", "bands"),
    [
        (("SR_B2", "SR_B3", "SR_B4"), (3, 2, 1)),
        (("B2", "B3", "B4", "B8"), (3, 2, 1)),
        (("b1", "b2", "b3", "b4"), (1, 2, 3)),
        (("SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B7"), (3, 2, 1)),
        (("band_0_blue (450-515nm)", "green (525-600nm)", "red (630-680nm)"), (3, 2, 1)),
        (("red edge", "red", "green", "blue"), (2, 3, 4)),
    ],
)
def test_bands_of_satellites(
    tmp_path: Path, names: tuple[str, ...], bands: tuple[int, ...]
) -> None:
    assert open_image(write(tmp_path / "i.tif", noise(len(names)), names=names)).bands == bands


def test_a_picture_without_a_blue_band_is_told(tmp_path: Path) -> None:
    names = ("nir", "red", "green")
    reader = open_image(write(tmp_path / "i.tif", noise(3), names=names))
    assert reader.bands == (2,) and "in the grey of red: with nir, green" in reader._grey_note()[0]
