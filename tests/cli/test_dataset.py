"""`earthgen dataset`: whole commands, what they print, and errors as one line with an exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from earthgen_cli.main import main
from tests.helpers.dataset_places import SIZE, village_points, write_points, write_village

RECIPE = """\
voxel_size = 1.0

[[scene]]
name = "north"
place = "Made up, north"
licence = "CC0-1.0"
grade = "A"
dsm = "dsm.tif"
dtm = "dtm.tif"
canopy = "canopy.tif"
cover = "cover.tif"
legend = "earthgen"
image = "image.tif"
held_out = "south"

[[scene]]
name = "cloud"
folder = "points"
licence = "CC-BY-4.0"
grade = "C"
points = "*.laz"
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_village(tmp_path_factory.mktemp("data"))
    (folder / "points").mkdir()
    points = village_points(1)
    write_points(folder / "points" / "p.laz", points["xyz"], points["class"], points["rgb"])
    write_points(folder / "no_crs.laz", points["xyz"], points["class"], crs=None)
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def dataset(data: Path) -> Path:
    assert (
        main(
            ["dataset", "build", str(data / "recipe.toml"), "--out", str(data / "made"), "--quiet"]
        )
        == 0
    )
    return data / "made"


def error_of(capsys: pytest.CaptureFixture[str], words: list[str], code: int) -> str:
    assert main(["dataset", *words]) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ")
    return lines[-1]


def test_build_prints_a_table_and_a_report(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "dataset",
        "build",
        str(data / "recipe.toml"),
        "--out",
        str(tmp_path),
        "--progress",
        "json",
        "--frames",
        "2",
    ]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "north" in out and "cloud" in out and "built 2 scenes" in out and "index.html" in out
    events = [json.loads(line) for line in err.splitlines()]
    assert [(e["done"], e["total"]) for e in events if e["event"] == "progress"] == [
        (0, 2),
        (1, 2),
        (2, 2),
    ]
    assert (tmp_path / "report" / "north.png").exists()
    assert (
        len(json.loads((tmp_path / "frames" / "north" / "transforms.json").read_text())["frames"])
        == 2
    )
    assert main([*words[:5], "--no-report", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == ["north", "cloud"]


def test_one_scene_from_options(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "dataset",
        "build",
        "--dsm",
        str(data / "dsm.tif"),
        "--dtm",
        str(data / "dtm.tif"),
        "--cover",
        str(data / "cover.tif"),
        "--legend",
        "earthgen",
        "--name",
        "mine",
        "--licence",
        "CC0-1.0",
        "--grade",
        "B",
        "--out",
        str(tmp_path),
        "--json",
        "--no-report",
        "--voxel-size",
        "2",
    ]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["built"] == ["mine"]
    assert main(["dataset", "inspect", str(tmp_path), "--json", "--no-pictures"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (
        found["scenes"][0]["voxel_size"] == 2
        and found["scenes"][0]["grade"] == "B"
        and found["report"] is None
    )


def test_inspect(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dataset", "inspect", str(dataset), "--scene", "north"]) == 0
    out = capsys.readouterr().out
    assert "north" in out and "cloud" not in out and "index.html" in out
    assert "no scene 'nroth'; did you mean 'north'" in error_of(
        capsys, ["inspect", str(dataset), "--scene", "nroth"], 5
    )


def test_split(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dataset", "split", str(dataset), "--json", "--buffer", "16"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["scene"]: row for row in found["scenes"]}
    # the cloud is of the same place, so the same quarter is held out of it
    for name in ("north", "cloud"):
        assert rows[name]["held_out_km2"] == pytest.approx(SIZE * SIZE / 4 / 1e6)
        assert rows[name]["train_km2"] == pytest.approx(SIZE * (SIZE * 3 / 4 - 16) / 1e6)
    assert (
        main(
            [
                "dataset",
                "split",
                str(dataset),
                "--blocks",
                "0.3",
                "--block-size",
                "32",
                "--hold-out",
                "cloud",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "neither" in out and "split.json" in out
    assert "there is no scene 'x'" in error_of(
        capsys, ["split", str(dataset), "--hold-out", "x"], 2
    )
    assert main(["dataset", "split", str(dataset), "--quiet"]) == 0


def test_errors_are_one_line_with_an_exit_code(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "d")]
    about = ["--licence", "CC0-1.0", "--grade", "A"]
    assert "--out" in error_of(capsys, ["build", str(data / "recipe.toml")], 2)
    assert "either a recipe" in error_of(capsys, ["build", *out], 2)
    assert "does not exist" in error_of(capsys, ["build", "none.toml", *out], 3)
    assert "has no licence" in error_of(
        capsys, ["build", "--points", str(data / "no_crs.laz"), *out], 2
    )
    line = error_of(capsys, ["build", "--points", str(data / "no_crs.laz"), *about, *out], 3)
    assert "has no CRS record" in line and "--crs" in line
    assert "no scene 'nort'; did you mean 'north'" in error_of(
        capsys, ["build", str(data / "recipe.toml"), "--only", "nort", *out], 2
    )
    assert "no scene in" in error_of(capsys, ["inspect", str(tmp_path)], 5)
    (tmp_path / "r.toml").write_text(RECIPE.replace("dsm.tif", "none.tif"))
    code = main(
        [
            "dataset",
            "build",
            str(tmp_path / "r.toml"),
            "--data-root",
            str(data),
            *out,
            "--keep-going",
            "--quiet",
        ]
    )
    assert (
        code == 3
        and (tmp_path / "d" / "cloud.zarr").exists()
        and not (tmp_path / "d" / "north.zarr").exists()
    )


def test_help_is_light() -> None:
    code = (
        "import sys\nfrom earthgen_cli.main import main\nmain(['dataset', '--help'])\n"
        "print('MARK', *sys.modules, sep='\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    text, _, modules = done.stdout.partition("MARK")
    assert all(word in text for word in ("build", "inspect", "split"))
    assert not {"torch", "numba", "numpy", "rasterio", "laspy", "zarr"} & set(modules.split())


def test_building_scenes_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from earthgen.dataset import build_scene, open_crops, write_report\n"
        "import earthgen.evaluation\n"
        "assert not {'torch', 'laspy', 'trimesh'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
