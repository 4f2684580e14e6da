"""Files that were made, or damaged, to break a reader: each ends with one clear line, or is read.

tests/fuzz/corpus holds what a fuzzer found, one folder per case: about.json names the format and
the file that was changed. The folders that begin with 0- were made by hand.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

import earthgen
from earthgen.errors import (
    EarthgenError,
    InputError,
    JobError,
    ModelError,
    StoreError,
    UnsafePathError,
)
from earthgen_cli.main import main
from geo_io.digest import digest_file
from geo_io.safety.access import allowing
from tests.fuzz import targets
from tests.helpers.command_line import areas

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"

CASES = sorted(path.parent.name for path in CORPUS.glob("*/about.json"))

LONGEST = 10.0
"""CPU seconds that a reader may take on a small file."""


def about(name: str) -> dict[str, str]:
    return dict(json.loads((CORPUS / name / "about.json").read_text()))


def ends(target: Callable[[Path], None], path: Path) -> EarthgenError | None:
    """The clear error that a reader ends with, None if it reads the file; others pass."""
    began = time.process_time()
    try:
        target(path)
    except EarthgenError as error:
        assert error.exit_code not in (0, 1) and error.remedy, error
        found: EarthgenError | None = error
    else:
        found = None
    assert time.process_time() - began < LONGEST
    return found


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made where an empty `index` lies, which a crash may leave."""
    path = tmp_path_factory.mktemp("worlds") / "a.zarr"
    (path / "index").mkdir(parents=True)
    bbox = (11.592, 50.005, 11.5926, 50.0054)
    earthgen.generate(bbox=bbox, voxel_size=2.0, tile_size=64, out=path, resume=True)
    return path


@pytest.fixture(scope="module")
def small_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.helpers import dataset_places

    return dataset_places.village_scene(tmp_path_factory.mktemp("scenes")).path


def plain() -> list[Any]:
    """All cases but worlds and scenes; of vector formats, whose reading takes longest, one each in
    the daily run."""
    names = [name for name in CASES if about(name)["fmt"] not in ("world", "scene")]
    heavy: set[str] = set()
    cases: list[Any] = []
    for name in names:
        fmt = about(name)["fmt"]
        again = fmt in heavy
        heavy |= {fmt} & {"fgb", "shp", "parquet"}
        cases.append(pytest.param(name, marks=pytest.mark.slow if again else ()))
    return cases


@pytest.mark.parametrize("name", plain())
def test_a_file(name: str, tmp_path: Path) -> None:
    case = about(name)
    copy = tmp_path / "case"
    shutil.copytree(CORPUS / name, copy)
    if case["fmt"] == "checkpoint":  # of this version, so that more than the version is read
        state = copy / case["file"]
        state.write_text(state.read_text().replace('"version": 1', '"version": 2', 1))
    ends(targets.TARGETS[case["fmt"]], targets.main_file(case["fmt"], copy, case["file"]))


@pytest.mark.parametrize("name", [name for name in CASES if about(name)["fmt"] == "world"])
def test_a_world(
    name: str, small_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(*Path(about(name)["file"]).parts[1:])
    world = tmp_path / "a.zarr"
    shutil.copytree(small_world, world)
    if (world / "level_1" / file).exists():
        file = "level_1" / file  # the cases are of format 2, whose layers lie in the root
    if (world / file).exists() or file.name != "zarr.json":
        shutil.copyfile(CORPUS / name / file.name, world / file)
    ends(targets.world, world)
    for words in (["info", str(world)], ["verify", str(world), "--quiet"]):
        assert main(words) in (0, 5), capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in CASES if about(name)["fmt"] == "scene"])
def test_a_scene(name: str, small_scene: Path, tmp_path: Path) -> None:
    file = Path(*Path(about(name)["file"]).parts[1:])
    scene = tmp_path / small_scene.name
    shutil.copytree(small_scene, scene)
    shutil.copyfile(CORPUS / name / file.name, scene / file)
    assert ends(targets.scene, scene) is not None


@pytest.mark.parametrize("level", [0, 3])
def test_a_header_of_weights(level: int, tmp_path: Path) -> None:
    """Nested JSON, and a configuration of no network."""
    import torch
    from safetensors.torch import save_file

    from earthgen.models.weights.format import KEY, VERSION

    deep = "[" * 100_000 + "]" * 100_000
    config = {"width": -16, "depth": -1, "channels": [-16]}
    header = {"version": VERSION, "part": "tex-vae", "preset": "a", "config": config}
    header |= {"voxel_size": 1.0, "digest": "0"}
    text = deep if level == 0 else json.dumps(header)
    save_file({"a": torch.zeros(1)}, tmp_path / "tex-vae.safetensors", {KEY: text})
    assert isinstance(ends(targets.weights, tmp_path / "tex-vae.safetensors"), ModelError)


def test_code_of_a_world_is_not_run(
    small_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`plugin_dir` in the settings of a world: verify, resume and extend do not load it."""
    world, evil = tmp_path / "a.zarr", tmp_path / "evil"
    shutil.copytree(small_world, world)
    evil.mkdir()
    (evil / "plugin.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    document = json.loads((world / "zarr.json").read_text())
    own = document["attributes"]["earthgen"]
    own["settings"] |= {"plugin_dir": [str(evil)], "allow_network": True}
    own["identity"]["geometry"]["name"] = own["settings"]["geometry"] = "evil-terrain"
    (world / "zarr.json").write_text(json.dumps(document))
    box = ["--bbox", "11.592,50.005,11.593,50.0054"]
    for words in (
        ["verify", str(world), "--sample", "1"],
        ["generate", "--out", str(world), "--resume"],
        ["generate", "--out", str(world), "--extend", *box],
        ["plan", "--out", str(world), "--resume"],
    ):
        assert main(words) not in (0, 1)
        assert "evil-terrain" in capsys.readouterr().err, words
    assert not (tmp_path / "ran").exists()


def test_an_empty_folder_is_a_place_for_a_world(small_world: Path) -> None:
    assert earthgen.open_world(small_world).complete


@pytest.mark.parametrize("file", ["c/0/0", "zarr.json"])
@pytest.mark.parametrize("damage", [b"", b"\x1f\x8b\x08\x00", b"{"])
def test_a_damaged_note_of_decisions(
    file: str, damage: bytes, small_world: Path, tmp_path: Path
) -> None:
    world = tmp_path / "a.zarr"
    shutil.copytree(small_world, world)
    note = world / "level_1" / "decisions" / file
    whole = note.read_bytes()
    note.write_bytes(damage + whole[: len(whole) // 2])
    opened = earthgen.open_world(world)
    with pytest.raises(StoreError, match=r"decisions.* damaged|is damaged: level_1/decisions/"):
        opened.tile_decisions(*opened.tiles()[0])
    if file != "zarr.json":
        assert opened.digest(recompute=True)  # a note is no content


@pytest.mark.parametrize("name", ["raw.tif", "net.tif"])
def test_a_raster_names_no_other_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shutil.copy(CORPUS / "0-raw-vrt" / name, tmp_path / name)
    error = ends(targets.heights, Path(path))
    assert isinstance(error, UnsafePathError) and str(path) in error.problem
    assert "`allow_" in error.remedy


def grid(path: Path, height: float) -> None:
    profile: dict[str, Any] = {"driver": "GTiff", "width": 8, "height": 8, "count": 1}
    place = rasterio.transform.from_origin(685700, 5542600, 30, 30)
    profile |= {"dtype": "float32", "crs": "EPSG:32632", "transform": place}
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(np.full((1, 8, 8), height, np.float32))


def vrt(source: str, inside: str = "") -> str:
    return (
        '<VRTDataset rasterXSize="8" rasterYSize="8"><SRS>EPSG:32632</SRS><GeoTransform>685700, '
        '30, 0, 5542600, 0, -30</GeoTransform><VRTRasterBand dataType="Float32" band="1">'
        f'{inside}<SimpleSource><SourceFilename relativeToVRT="1">{source}</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )


def test_sources_of_a_vrt(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    grid(folder / "a.tif", 300)
    grid(tmp_path / "outside.tif", 300)
    (folder / "link.tif").symlink_to(tmp_path / "outside.tif")
    (folder / "inner.vrt").write_text(vrt("../outside.tif"))
    python = "<PixelFunctionLanguage>Python</PixelFunctionLanguage>"
    path = folder / "a.vrt"
    path.write_text(vrt("a.tif"))
    assert ends(targets.heights, path) is None
    for text in (
        vrt("../outside.tif"),
        vrt("link.tif"),
        vrt("inner.vrt"),
        vrt(str(tmp_path / "outside.tif")),
        vrt("/vsicurl/http://127.0.0.1:9/a.tif"),
        vrt("&lt;VRTDataset/&gt;"),
        vrt("a.tif", python),
    ):
        path.write_text(text)
        assert isinstance(ends(targets.heights, path), UnsafePathError), text
    path.write_text(vrt("../outside.tif"))
    with allowing(linked=True):
        assert ends(targets.heights, path) is None
    path.write_text(vrt("a.vrt"))
    assert "deep" in str(ends(targets.heights, path))


@pytest.mark.parametrize(
    "text",
    [
        '<OGRVRTDataSource><OGRVRTLayer name="a"><SrcDataSource>/etc/passwd</SrcDataSource>'
        "</OGRVRTLayer></OGRVRTDataSource>",
        "<OGRWFSDataSource><URL>http://127.0.0.1:9/wfs</URL></OGRWFSDataSource>",
        '<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:9/</ServerUrl></Service>'
        "</GDAL_WMS>",
        '{"type": "gdal_streamed_alg", "command_line": "gdal vector pipeline ! read a.gpkg"}',
    ],
)
@pytest.mark.parametrize("name", ["a.gpkg", "a.geojson", "a.tif"])
def test_a_description_of_other_data(text: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    for target in (targets.vector, targets.region):
        assert isinstance(ends(target, tmp_path / name), InputError)


@pytest.mark.parametrize("name", ["WFS:http://127.0.0.1:9/", "/vsicurl/http://127.0.0.1:9/a.tif"])
def test_an_address_needs_a_yes(name: str) -> None:
    for target in (targets.vector, targets.heights):
        error = ends(lambda path, target=target: target(name), Path())  # type: ignore[misc]
        assert isinstance(error, UnsafePathError) and "`allow_network`" in error.remedy


@pytest.mark.parametrize("beside", ["s.tif", "s.tif.ovr", "a.vrt.aux.xml"])
def test_digests_cover_what_is_read(beside: str, tmp_path: Path) -> None:
    grid(tmp_path / "s.tif", 300)
    (tmp_path / "a.vrt").write_text(vrt("s.tif"))
    before = digest_file(tmp_path / "a.vrt")
    (tmp_path / "s.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><Metadata><MDI key="STATISTICS_MEAN">3</MDI>'
        "</Metadata></PAMRasterBand></PAMDataset>"
    )
    assert digest_file(tmp_path / "a.vrt") == before, "statistics change nothing that is read"
    if beside == "s.tif":
        grid(tmp_path / "s.tif", 350)
    else:
        known = beside.endswith(".xml")  # an overview that is XML would be refused
        text = "<PAMDataset><SRS>EPSG:4326</SRS></PAMDataset>" if known else "II*"
        (tmp_path / beside).write_text(text)
    assert digest_file(tmp_path / "a.vrt") != before


@pytest.mark.slow
def test_a_changed_source_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid(tmp_path / "s.tif", 300)
    (tmp_path / "a.vrt").write_text(vrt("s.tif"))
    out = tmp_path / "w.zarr"
    words = ["--dem", str(tmp_path / "a.vrt"), "--voxel-size", "4", "--tile-size", "64", "--quiet"]
    box = ["generate", "--bbox-crs", "EPSG:32632", "--crs", "EPSG:32632"]
    assert main([*box, "--bbox", "685740,5542400,685800,5542460", *words, "--out", str(out)]) == 0
    assert main(["verify", str(out), "--sample", "1", "--quiet"]) == 0
    grid(tmp_path / "s.tif", 350)
    capsys.readouterr()
    for again in (
        [*box, "--bbox", "685740,5542400,685900,5542460", *words, "--out", str(out), "--extend"],
        ["generate", "--out", str(out), "--resume", "--quiet"],
        ["verify", str(out), "--sample", "1", "--quiet"],
    ):
        assert main(again) == 5, again
        assert "s.tif of" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["far11", "far12", "far", "open-ring"])
def test_a_vertex_far_away(name: str) -> None:
    assert ends(targets.vector, CORPUS / "0-far-vertex" / f"{name}.geojson") is None


@pytest.mark.parametrize("name", ["far", "nan"])
def test_a_mesh_far_away(name: str) -> None:
    assert isinstance(ends(targets.mesh, CORPUS / "0-far-vertex" / f"{name}.obj"), InputError)


@pytest.mark.parametrize("path", sorted((CORPUS / "0-yaml-bomb").iterdir()), ids=lambda p: p.name)
def test_yaml(path: Path) -> None:
    error = ends(targets.legend, path)
    assert error is None if path.name == "sup.yaml" else isinstance(error, InputError)


@pytest.mark.parametrize("path", sorted((CORPUS / "0-parquet").iterdir()), ids=lambda p: p.name)
def test_parquet(path: Path) -> None:
    error = ends(targets.vector, path)
    assert isinstance(error, InputError) and str(path) in error.problem


def test_numbers_without_end() -> None:
    folder = CORPUS / "0-big-int"
    assert isinstance(ends(targets.job, folder / "job.toml"), JobError)
    assert ends(targets.cameras, folder / "transforms.json") is not None


def test_a_gltf_whose_indices_lead_away() -> None:
    assert isinstance(ends(targets.mesh, CORPUS / "0-gltf" / "a.gltf"), InputError)


MESHES = sorted(
    path
    for path in (CORPUS / "0-trimesh4-escape" / "in").iterdir()
    if path.suffix in (".gltf", ".obj") and path.stem != "a"
)


@pytest.mark.parametrize("path", MESHES, ids=lambda path: path.name)
def test_a_mesh_names_files_beside_it_alone(path: Path) -> None:
    assert isinstance(ends(targets.mesh, path), InputError), path


@pytest.mark.slow
def test_control_characters_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = shutil.copy(CORPUS / "0-terminal-escape" / "esc2.gpkg", tmp_path / "esc2.gpkg")
    box = ["--bbox", "11.592,50.005,11.594,50.006", "--voxel-size", "8", "--tile-size", "64"]
    out = str(tmp_path / "e.zarr")
    code = main(["generate", *box, "--semantics", str(path), "--allow-unmapped", "--out", out])
    said = capsys.readouterr()
    assert code in (0, 3), said.err
    if code == 0:
        assert main(["info", out, "--all"]) == 0
        more = capsys.readouterr()
        said = type(said)(said.out + more.out, said.err + more.err)
    assert not set("\x1b\x07\x9b") & set(said.out + said.err)
    assert "\\x1b" in said.out + said.err


def test_a_world_tells_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absolute paths become relative to the world, from where they are found again."""
    (tmp_path / "data").mkdir()
    (tmp_path / "worlds").mkdir()
    (tmp_path / "elsewhere").mkdir()
    land = tmp_path / "data" / "land.gpkg"
    areas(land, ["11.592,50.005,11.5926,50.0054"], landuse=["meadow"])
    out = tmp_path / "worlds" / "w.zarr"
    bbox = (11.592, 50.005, 11.5924, 50.0052)
    common = {"bbox": bbox, "voxel_size": 4.0, "tile_size": 64, "legend": "osm"}
    world = earthgen.generate(out=out, semantics=str(land), **common)
    text = (out / "zarr.json").read_text()
    assert str(tmp_path) not in text and "../data/land.gpkg" in text
    assert world.settings["semantics"] == ["../data/land.gpkg"]
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["verify", str(out), "--sample", "1", "--quiet"]) == 0
