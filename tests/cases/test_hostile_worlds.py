"""Worlds, rasters and CRSs of strangers: what they claim is held against what there is, before
memory is spent or a file is opened."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import zarr

from earthgen.errors import StoreError
from earthgen.voxels.tile import LEVELS
from earthgen.world.bounded_codecs import has_bounded_codecs
from earthgen.world.layout import RAGGED
from earthgen.world.store import open_store
from earthgen.world.world import World, open_world
from earthgen_cli.main import main
from geo_io.crs import require_plain_crs
from geo_io.errors import EarthgenError, InputError, UnsafePathError
from geo_io.redaction import redacted
from geo_io.safety.access import allowing
from geo_io.safety.gdal_files import require_safe_raster
from tests.fuzz import targets
from tests.helpers import synthetic

posix = pytest.mark.skipif(os.name != "posix", reason="pipes and devices of POSIX")

MOST = 200_000_000
"""Bytes that a hostile world may cost."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(
        synthetic.make(tmp_path_factory.mktemp("worlds") / "a.zarr", (0, 16), (64, 80)).path
    )


@pytest.fixture
def world(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "a.zarr"))


def about(array: Path, **values: Any) -> None:
    """Change what a zarr.json says."""
    document = json.loads((array / "zarr.json").read_text())
    (array / "zarr.json").write_text(json.dumps(document | values))


def chunk(array: Path) -> Path:
    return next(
        path for path in sorted(array.rglob("*")) if path.is_file() and path.name != "zarr.json"
    )


def read_all(opened: World) -> None:
    for tile in opened.tiles():
        opened.tile_layers(*tile)
        opened.tile_voxels(*tile)
    opened.layers().load()


def refused(path: Path) -> StoreError:
    """The error that a world ends with; soon, and without much memory."""
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(StoreError) as caught:
            read_all(open_world(path))
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 10
    return caught.value


def bomb(path: Path) -> None:
    """64 MB in a chunk of 16 KB."""
    chunk(path / "level_1/ground").write_bytes(gzip.compress(bytes(2**26), 1) * 8)


def blosc_bomb(path: Path) -> None:
    """A header that says 2 GB, with a checksum that fits."""
    import google_crc32c

    file = chunk(path / "voxels/level_1/xyz")
    data = bytearray(file.read_bytes())
    array = zarr.open_array(path / "voxels/level_1/xyz", mode="r")
    entries = np.frombuffer(bytes(data[-4 - 16 * (array.shards[2] // array.chunks[2]) : -4]), "<u8")
    start, size = int(entries[0]), int(entries[1])
    data[start + 4 : start + 8] = (2**31 - 1).to_bytes(4, "little")
    packed = bytes(data[start : start + size - 4])
    data[start + size - 4 : start + size] = google_crc32c.value(packed).to_bytes(4, "little")
    file.write_bytes(data)


def many_rows(path: Path) -> None:
    _index(path, 1, 2**26)


def negative_rows(path: Path) -> None:
    _index(path, 1, -5)


def _index(path: Path, field: int, value: int) -> None:
    array = zarr.open_group(path, mode="r+", use_consolidated=False)["index"]
    rows = np.array(array[...])  # type: ignore[index]
    rows[0, 0, field] = value
    array[...] = rows  # type: ignore[index]


def far_voxel(path: Path) -> None:
    _first_row(path, "xyz", 2**30)


def no_class(path: Path) -> None:
    _first_row(path, "semantic", 200)


def _first_row(path: Path, name: str, value: int) -> None:
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    array = group[f"voxels/level_1/{name}"]
    rows = np.array(array[0, 0, :16])  # type: ignore[index]
    rows[0] = value
    array[0, 0, :16] = rows  # type: ignore[index]


def other_codec(path: Path) -> None:
    about(path / "level_1/ground", codecs=[{"name": "bytes"}, {"name": "zstd"}])


def other_dtype(path: Path) -> None:
    about(path / "level_1/ground", data_type="float64")


def small_chunks(path: Path) -> None:
    grid = {"name": "regular", "configuration": {"chunk_shape": [1, 1]}}
    about(path / "level_1/ground", chunk_grid=grid)


def long_axis(path: Path) -> None:
    grid = {"name": "regular", "configuration": {"chunk_shape": [10**10]}}
    about(path / "level_1/x", shape=[10**10], chunk_grid=grid)


def tiny_voxels(path: Path) -> None:
    _frame(path, voxel_size=1e-9)


def other_crs(path: Path) -> None:
    _frame(path, crs="/etc/passwd")


def crs_with_a_grid(path: Path) -> None:
    _frame(path, crs="+proj=utm +zone=32 +nadgrids=/etc/passwd +type=crs")


def _frame(path: Path, **values: Any) -> None:
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["earthgen"]["frame"] |= values
    (path / "zarr.json").write_text(json.dumps(document))


def long_text(path: Path) -> None:
    with (path / "zarr.json").open("r+b") as file:
        file.truncate(2**27)


def pipe(path: Path) -> None:
    file = chunk(path / "level_1/ground")
    file.unlink()
    os.mkfifo(file)


def device(path: Path) -> None:
    (path / "zarr.json").unlink()
    (path / "zarr.json").symlink_to("/dev/zero")


@pytest.mark.parametrize(
    "harm",
    [
        bomb,
        blosc_bomb,
        many_rows,
        negative_rows,
        far_voxel,
        no_class,
        other_codec,
        other_dtype,
        small_chunks,
        long_axis,
        tiny_voxels,
        other_crs,
        crs_with_a_grid,
        long_text,
        pytest.param(pipe, marks=posix),
        pytest.param(device, marks=posix),
    ],
)
def test_a_world_that_claims_what_it_does_not_hold(
    harm: Callable[[Path], None], world: Path
) -> None:
    harm(world)
    assert str(world) in refused(world).problem


def test_threads_open_arrays_at_the_same_time(sound: Path) -> None:
    """As for an object store: Zarr's choice of codecs is one for the process."""
    names = [name.format(level=level) for level in LEVELS for name in RAGGED]
    for _ in range(3):
        store = open_store(sound)
        with ThreadPoolExecutor(8) as pool:
            assert all(map(has_bounded_codecs, pool.map(store._array, names)))


def test_what_else_lies_in_a_level_is_not_read(world: Path, sound: Path) -> None:
    shutil.copytree(world / "level_1/ground", world / "level_1/evil")
    grid = {"name": "regular", "configuration": {"chunk_shape": [10**7, 10**7]}}
    about(world / "level_1/evil", shape=[10**7, 10**7], chunk_grid=grid)
    layers = open_world(world).layers()
    assert "evil" not in layers and layers.equals(open_world(sound).layers())


def test_consolidated_metadata_of_a_stranger_do_not_count(world: Path, sound: Path) -> None:
    document = json.loads((world / "zarr.json").read_text())
    for each in document["consolidated_metadata"]["metadata"].values():
        each["shape"] = [10**12]
    (world / "zarr.json").write_text(json.dumps(document))
    assert open_world(world).digest(recompute=True) == open_world(sound).digest()


def test_a_world_shows_no_secret_and_no_control_character(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads((world / "zarr.json").read_text())
    own = document["attributes"]["earthgen"]
    source = {"source": "https://me:s3cr3t@host/a?token=s3cr3t", "licence": "\x1b]0;x\x07"}
    own["provenance"] = {"inputs": {"dem": [source]}, "warnings": ["\x1b[2J", "\x9b31m"]}
    (world / "zarr.json").write_text(json.dumps(document))
    for words in (["info", str(world), "--all"], ["info", str(world), "--json"]):
        assert main(words) == 0
        said = "".join(capsys.readouterr())
        assert not set("\x1b\x07\x9b") & set(said), words
        assert "--json" in words or "s3cr3t" not in said


def test_a_secret_that_a_library_repeats_is_not_shown() -> None:
    said = 's3://me:pw@b/a.zarr cannot be written: Invalid bucket name "me:pw@b": names must match'
    assert redacted(said).count("***@b") == 2 and "pw" not in redacted(said)
    layer = "https://host/a.gpkg:roads@2"
    assert redacted(layer) == layer


GRIDS = "+proj=longlat +datum=WGS84 +nadgrids={} +type=crs"


@pytest.mark.parametrize(
    "grid", ["/etc/passwd", "@/etc/passwd", "http://127.0.0.1:9/a", "../a.gsb"]
)
def test_a_crs_names_no_file(grid: str) -> None:
    text = GRIDS.format(grid)
    for crs in (text, rasterio.crs.CRS.from_string(text).to_wkt()):
        with pytest.raises(InputError, match="names the file"):
            require_plain_crs(crs, "a.tif")


def test_grids_that_proj_knows_are_no_files() -> None:
    for crs in (GRIDS.format("@null"), "+proj=utm +zone=32 +nadgrids=BETA2007.gsb", "EPSG:31468"):
        require_plain_crs(crs, "a.tif")


VRT = (
    '<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand dataType="Float32" band="1">'
    '<SimpleSource><SourceFilename relativeToVRT="0">{}</SourceFilename></SimpleSource>'
    "</VRTRasterBand></VRTDataset>"
)


def grid_file(path: Path) -> None:
    profile: dict[str, Any] = {"driver": "GTiff", "width": 8, "height": 8, "count": 1}
    place = rasterio.transform.from_origin(685700, 5542600, 30, 30)
    profile |= {"dtype": "float32", "crs": "EPSG:32632", "transform": place}
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(np.full((1, 8, 8), 300, np.float32))


@pytest.mark.parametrize("side", [".ovr", ".msk", ".OVR", ".ovr.msk"])
def test_what_lies_beside_a_raster_names_no_file(side: str, tmp_path: Path) -> None:
    """GDAL opens overviews and masks with all of its drivers."""
    grid_file(tmp_path / "a.tif")
    if side.count(".") > 1:
        grid_file(tmp_path / "a.tif.ovr")
    targets.heights(tmp_path / "a.tif")
    (tmp_path / f"a.tif{side}").write_text(VRT.format("/etc/passwd"))
    with pytest.raises(UnsafePathError, match="names a source"):
        targets.heights(tmp_path / "a.tif")
    with allowing(linked=True):
        require_safe_raster(str(tmp_path / "a.tif"))


@pytest.mark.parametrize("kind", ["zip", "tar", "gzip"])
def test_a_vrt_in_an_archive(kind: str, tmp_path: Path) -> None:
    inner = tmp_path / "a.vrt"
    inner.write_text(VRT.format("/etc/passwd"))
    archive = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            packed.write(inner, "a.vrt")
    elif kind == "tar":
        with tarfile.open(archive, "w") as tape:
            tape.add(inner, "a.vrt")
    else:
        archive.write_bytes(gzip.compress(inner.read_bytes()))
    name = f"/vsi{kind}/{archive}" + ("" if kind == "gzip" else "/a.vrt")
    with pytest.raises(EarthgenError) as caught:
        targets.heights(Path(name))
    assert isinstance(caught.value, InputError) and "passwd" not in caught.value.problem
