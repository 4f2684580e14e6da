"""The options of a job, its job file, and the settings of the world at `--out`."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from earthgen_cli.main import main
from tests.helpers.command_line import (
    BBOX,
    Core,
    areas,
)


@pytest.mark.parametrize(
    "words", [["--bbox", "-0.1,51.5,-0.09,51.51"], ["--bbox=-0.1,51.5,-0.09,51.51"]]
)
def test_negative_numbers_in_bbox(words: list[str], core: Core, tmp_path: Path) -> None:
    main(["generate", *words, "--out", str(tmp_path / "w.zarr")])
    assert core.jobs[0].bbox == (-0.1, 51.5, -0.09, 51.51)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--bbox", "11.5,49.9,11.6"], "3 numbers, not 4"),
        (["--bbox", "11.5", "49.9"], "2 numbers, not 4"),
        (["--bbox", "11.5,49.9,11.6,north"], "not four numbers"),
        (["--bbox", "11.5,49.9,11.6,nan"], "finite"),
    ],
)
def test_a_wrong_bbox_is_a_usage_error(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str], core: Core
) -> None:
    assert main(["generate", "--out", "w.zarr", *words]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1
    assert complaint in line and "--bbox" in line and "11.585,49.992,11.595,49.998" in line
    assert not core.jobs


@pytest.mark.parametrize(
    "words",
    [
        ["--bbox", "-0.1,51.5,-0.09,51.51"],
        ["--bbox", "-0.1, 51.5, -0.09, 51.51"],
        ["--bbox", "-0.1 51.5 -0.09 51.51"],
        ["--bbox", "-0.1", "51.5", "-0.09", "51.51"],
        ["--bbox", "-0.1,", "51.5,", "-0.09,", "51.51"],
        ["--bbox", "-0.1,51.5,", "-0.09,51.51", "--seed", "3"],
        ["--bbox", "-0,1", "51,5", "-0,09", "51,51"],
        ["--bbox", "[-0.1, 51.5, -0.09, 51.51]"],
    ],
)
def test_spellings_of_a_bbox(words: list[str], core: Core) -> None:
    main(["generate", "--out", "w.zarr", *words])
    assert core.jobs[0].bbox == (-0.1, 51.5, -0.09, 51.51)


@pytest.mark.parametrize("words", [["export", "w.zarr", "--format", "cog"], ["preview", "w.zarr"]])
def test_a_wrong_bbox_elsewhere(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--out", "p.png", "--bbox", "1,2,3"]) == 2
    assert "3 numbers, not 4" in capsys.readouterr().err


def test_options_override_the_job_file(
    core: Core, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.shp", "c.shp"):
        Path(name).touch()
    (tmp_path / "job.toml").write_text(
        'bbox = [1, 2, 3, 4]\nseed = 3\nvoxel_size = 2.0\nsemantics = "a.shp"\n'
        'out = "w.zarr"\nresume = true\n'
        'geometry_options = { roof = "flat", depth = 1 }\n'
        'conditions = { rain = "r.tif", wind = "w.tif" }\n'
    )
    (tmp_path / "more").mkdir()
    main(
        [
            "generate",
            str(tmp_path / "job.toml"),
            "--seed",
            "0",
            "--semantics",
            "b.shp:roads",
            "--semantics",
            "c.shp",
            "--set",
            "geometry.depth=2.5",
            "--set",
            "geometry.names=['a', 'b']",
            "--set",
            "texture.look=dry summer",
            "--set",
            "texture.sharp=true",
            "--condition",
            "rain=x.tif",
            "--condition",
            "rain=y.tif",
            "--overwrite",
            "--dem-unit",
            "us-ft",
            "--legend",
            "osm",
            "--legend",
            "mine.yaml",
            "--plugin-dir",
            str(tmp_path / "more"),
        ]
    )
    job = core.jobs[0]
    assert (job.bbox, job.seed, job.voxel_size) == ((1, 2, 3, 4), 0, 2.0)
    assert job.semantics == ("b.shp:roads", "c.shp")
    assert job.geometry_options == {"roof": "flat", "depth": 2.5, "names": ["a", "b"]}
    assert job.texture_options == {"look": "dry summer", "sharp": True}
    assert job.conditions == {"rain": ["x.tif", "y.tif"], "wind": str(tmp_path / "w.tif")}
    assert job.overwrite and not job.resume, "they exclude each other, and the command line wins"
    assert job.dem_unit == "us-ft" and job.legend == ("osm", "mine.yaml")
    assert job.plugin_dir == (tmp_path / "more",)
    assert job.out == tmp_path / "w.zarr"


@pytest.mark.parametrize("line", ["plugin_dir = 'mine'", "allow_network = true"])
def test_a_job_file_allows_nothing(
    line: str, core: Core, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.toml").write_text(f'bbox = [1, 2, 3, 4]\nout = "w.zarr"\n{line}\n')
    assert main(["generate", str(tmp_path / "job.toml")]) == 2 and not core.jobs
    name = line.partition(" ")[0].replace("_", "-")
    assert f"give --{name} on the command line" in capsys.readouterr().err


def test_bbox_on_the_command_line_replaces_the_region_of_the_job_file(
    core: Core, tmp_path: Path
) -> None:
    (tmp_path / "town.gpkg").touch()
    (tmp_path / "job.toml").write_text('region = "town.gpkg"\nout = "w.zarr"\n')
    main(["generate", str(tmp_path / "job.toml"), "--bbox", "1,2,3,4"])
    assert core.jobs[0].bbox == (1, 2, 3, 4) and core.jobs[0].region is None


def test_a_table_of_the_job_file_that_is_a_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.toml").write_text('geometry_options = 3\nout = "w.zarr"\n')
    assert main(["generate", str(tmp_path / "job.toml"), "--set", "geometry.depth=2"]) == 2
    assert "geometry_options" in capsys.readouterr().err


def test_options_of_a_run(core: Core) -> None:
    main(
        [
            "generate",
            "--bbox",
            "1,2,3,4",
            "--out",
            "s3://b/w.zarr",
            "--workers",
            "3",
            "--scheduler",
            "tcp://host:8786",
        ]
    )
    job = core.jobs[0]
    assert (job.workers, job.scheduler, job.out) == (3, "tcp://host:8786", "s3://b/w.zarr")


def test_resume_takes_the_settings_of_the_world(
    core: Core, made: Path, plugin_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["generate", "--out", str(made), "--resume"])
    (job,) = core.jobs
    assert job.bbox == tuple(map(float, BBOX.split(","))) and job.resume
    assert (job.seed, job.tile_size, job.geometry) == (5, 64, "terraces")
    assert job.plugin_dir == (), "no code is loaded because a world names it"
    words = ["generate", "--out", str(made), "--resume", "--plugin-dir", str(plugin_dir)]
    main([*words, "--seed", "6", "--set", "geometry.step=3.0"])
    assert (core.jobs[1].seed, core.jobs[1].geometry_options) == (6, {"step": 3.0})
    (tmp_path / "town.gpkg").touch()
    (tmp_path / "job.toml").write_text(
        f"tile_size = 128\nresume = true\nout = {str(made)!r}\nregion = 'town.gpkg'\n"
    )
    main(["generate", str(tmp_path / "job.toml")])
    assert (core.jobs[2].tile_size, core.jobs[2].seed) == (128, 5)
    assert core.jobs[2].region == str(tmp_path / "town.gpkg") and core.jobs[2].bbox is None
    capsys.readouterr()
    assert main(["generate", "--out", str(tmp_path / "none.zarr"), "--resume", "--bbox", BBOX]) == 2
    assert "the test stops here" in capsys.readouterr().err, "it is a new world"
    assert core.jobs[3].seed == 0


def test_extend_takes_the_settings_of_the_world_but_its_place(
    core: Core, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["generate", "--out", str(made), "--extend", "--bbox", "11.5,49.9,11.6,50.0"])
    (job,) = core.jobs
    assert job.extend and job.bbox == (11.5, 49.9, 11.6, 50.0)
    assert (job.seed, job.geometry, job.crs, job.bbox_crs) == (5, "terraces", None, "EPSG:4326")
    capsys.readouterr()
    assert main(["generate", "--out", str(made), "--extend"]) == 2
    assert "how far to extend" in capsys.readouterr().err and len(core.jobs) == 1


def test_what_was_given_in_memory_has_to_be_given_again(
    plugin_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import earthgen

    out = tmp_path / "w.zarr"
    box = tuple(map(float, BBOX.split(",")))
    meadow = areas(tmp_path / "meadow.gpkg", [BBOX], landuse=["meadow"])
    options = {
        "bbox": box,
        "geometry": "terraces",
        "texture": "stripes",
        "plugin_dir": [plugin_dir],
        "legend": "osm",
    }
    earthgen.generate(out=out, semantics=meadow, tile_size=64, **options)
    for words in (
        ["generate", "--out", str(out), "--resume"],
        ["verify", str(out), "--sample", "1"],
    ):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert "semantics" in said and "came from memory" in said and "--semantics FILE" in said
    fake = Core()
    monkeypatch.setattr(importlib.import_module("earthgen.jobs.generate"), "run", fake.run)
    main(["generate", "--out", str(out), "--resume", "--semantics", str(tmp_path / "meadow.gpkg")])
    assert fake.jobs[0].semantics == (str(tmp_path / "meadow.gpkg"),)


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (["--semantics", "data/landuse.shp"], "landuse.zarr"),
        (["--dem", "hills.tif", "--semantics", "town.gpkg:buildings"], "town.zarr"),
        (["--dem", "hills.tif"], "hills.zarr"),
        (["--points", "a.copc.laz"], "a.zarr"),
        (["--region", "town.gpkg"], "town.zarr"),
        ([], "world.zarr"),
        (["job.toml"], "job.zarr"),
    ],
)
def test_a_world_without_a_name_is_named_after_its_input(
    words: list[str], out: str, core: Core, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for name in ("data/landuse.shp", "town.gpkg", "hills.tif", "a.copc.laz"):
        Path(name).touch()
    Path("job.toml").write_text('semantics = "data/landuse.shp"\n')
    box = [] if "--region" in words else ["--bbox", "1,2,3,4"]
    main(["generate", *words, *box])
    assert core.jobs[0].out == Path(out)


def test_a_world_to_resume_has_a_name(core: Core, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--resume"]) == 2
    assert "no output is given" in capsys.readouterr().err and not core.jobs


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("landuse.shp", "--semantics landuse.shp --bbox"),
        ("dem.tif", "--dem dem.tif --bbox"),
        ("a.laz", "--points a.laz --bbox"),
    ],
)
def test_data_in_place_of_a_job_file(
    name: str, expected: str, core: Core, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", name]) == 2
    line = capsys.readouterr().err
    assert f"{name} is data, not a job file" in line and expected in line and not core.jobs


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--semantics", "landus.shp"], "--semantics: landus.shp does not exist; did you mean"),
        (["--semantics", "landus.shp:roads"], "'landuse.shp'?"),
        (["--dem", "nowhere/dem.tif"], "dem.tif does not exist. Check the path."),
        (["--region", "none.gpkg"], "--region: none.gpkg does not exist"),
    ],
)
def test_a_mistyped_path_is_told_before_anything_is_imported(
    words: list[str],
    expected: str,
    core: Core,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("landuse.shp").touch()
    assert main(["generate", *words]) == 3
    line = capsys.readouterr().err
    assert expected in line and line.count("\n") == 1 and not core.jobs


@pytest.mark.parametrize("source", ["s3://bucket/a.gpkg", 'NETCDF:"a.nc":cover', "/vsizip/a.zip"])
def test_other_sources_are_left_to_their_readers(source: str, core: Core) -> None:
    main(["generate", "--bbox", "1,2,3,4", "--semantics", source])
    assert core.jobs[0].semantics == (source,)


def test_the_environment_gives_options(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARTHGEN_GENERATE_SEED", "7")
    monkeypatch.setenv("EARTHGEN_GENERATE_VOXEL_SIZE", "2")
    main(["generate", "--bbox", "1,2,3,4", "--voxel-size", "0.5"])
    assert (core.jobs[0].seed, core.jobs[0].voxel_size) == (7, 0.5), "what is typed wins"
