"""`earthgen export`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from earthgen_cli.main import main
from tests.helpers.command_line import BBOX


def test_export(
    made: Path, plugin_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from earthgen.world.world import open_world

    words = ["export", str(made), "--format", "csv", "--plugin-dir", str(plugin_dir)]
    assert main([*words, "--out", str(tmp_path / "all")]) == 0
    assert str(tmp_path / "all" / "world.csv") in capsys.readouterr().out
    world = open_world(made)
    every = (tmp_path / "all" / "world.csv").read_text().splitlines()
    assert len(every) == world.counts["voxels"]
    left, bottom, _, _ = world.frame.bounds
    box = f"{left},{bottom},{left + 10},{bottom + 6}"
    assert (
        main(
            [
                *words,
                "--out",
                str(tmp_path / "part"),
                "--bbox",
                box,
                "--bbox-crs",
                "EPSG:32632",
                "--json",
            ]
        )
        == 0
    )
    values = json.loads(capsys.readouterr().out)
    assert values["files"][0]["path"] == str(tmp_path / "part" / "world.csv")
    assert values["bounds"] == [left, bottom, left + 10, bottom + 6]
    assert len((tmp_path / "part" / "world.csv").read_text().splitlines()) == 60
    assert main([*words, "--out", str(tmp_path / "lonlat"), "--bbox", BBOX]) == 0
    assert (tmp_path / "lonlat" / "world.csv").read_text().splitlines() == every
    assert main([*words, "--out", str(tmp_path / "coarse"), "--level", "8"]) == 0
    assert 0 < len((tmp_path / "coarse" / "world.csv").read_text().splitlines()) < len(every) / 30


def test_export_where_the_world_is_not(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(made), "--format", "ply", "--out", str(tmp_path / "d")]
    for box in ("-1,51,0,52", "11.6,49.94,11.7,49.95", "11.55,49.94,11.55,49.95"):
        assert main([*words, "--bbox", box]) == 4
        line = capsys.readouterr().err
        assert box in line and "The world covers 11.54" in line and "--crs" not in line
    assert main([*words, "--bbox", "1,2,3,4", "--bbox-crs", "EPSG:0"]) == 4
    assert main(["export", str(made), "--format", "dwg", "--out", str(tmp_path / "d")]) == 6
    assert "unknown exporter 'dwg'" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_options_of_a_format(
    made: Path, plugin_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", "--plugin-dir", str(plugin_dir), "--format", "csv"]
    assert main([*words, "--help-options"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:3]] == [
        ["separator", "comma|space", "comma", "Between", "two", "numbers"],
        ["columns", "x|y|z,...", "x,y,z", "The", "lattice", "indices", "to", "write"],
    ]
    assert lines[3].split()[:5] == ["step", "integer", ">=", "1", "1"]
    assert main([*words, "--help-options", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["options"]
    assert [row["name"] for row in listed] == ["separator", "columns", "step"]

    out = tmp_path / "o"
    words += [str(made), "--out", str(out), "--level", "8"]
    assert main([*words, "--set", "columns=z,x", "--set", "separator=space"]) == 0
    rows = (out / "world.csv").read_text().splitlines()
    assert all(len(row.split(" ")) == 2 for row in rows)
    for pair, expected in (
        ("separator=dot", "option 'separator': Input should be 'comma' or 'space' ('dot' was give"),
        ("colums=x", "has no option 'colums'; did you mean 'columns'"),
        ("step=0", "option 'step': Input should be greater than or equal to 1"),
        ("step", "'step' is not KEY=VALUE"),
    ):
        capsys.readouterr()
        assert main([*words, "--overwrite", "--set", pair]) == 2
        errors = capsys.readouterr().err.splitlines()
        assert len(errors) == 1 and expected in errors[0]
    assert (out / "world.csv").read_text().splitlines() == rows
    assert main(["export", str(made), "-f", "cog", "-o", str(tmp_path / "c"), "--set", "a=1"]) == 2
    assert "takes no options" in capsys.readouterr().err


def test_one_file_has_the_name_that_is_given(
    made: Path, plugin_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(made), "--level", "8", "--plugin-dir", str(plugin_dir)]
    town = tmp_path / "deep" / "town.csv"
    assert main([*words, "-o", str(town)]) == 0
    assert sorted(file.name for file in town.parent.iterdir()) == ["town.csv", "town.csv.stac.json"]
    before = town.read_bytes()
    capsys.readouterr()
    assert main([*words, "-o", str(town), "--set", "step=3"]) == 5
    assert "town.csv exists already. Give --overwrite" in capsys.readouterr().err
    assert town.read_bytes() == before
    assert main([*words, "-o", str(town), "--set", "step=3", "--overwrite"]) == 0
    assert len(town.read_bytes()) < len(before)
    for out, expected in (
        (["-o", str(tmp_path / "town.tif"), "-f", "cog"], "format cog writes a folder of files"),
        (["-o", str(tmp_path / "town.tif"), "-f", "csv"], "format csv writes .csv files"),
        (["-o", str(tmp_path / "town")], "does not say which format to write. Give --format: "),
        (["-f", "csv"], "no output is given"),
    ):
        capsys.readouterr()
        assert main([*words, *out]) == 2
        assert expected in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["deep"]


def test_an_export_replaces_only_what_is_its_own(
    made: Path, plugin_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "town"
    words = ["export", str(made), "--level", "8", "--plugin-dir", str(plugin_dir), "-o", str(out)]
    assert main([*words, "-f", "csv"]) == 0
    assert main([*words, "-f", "cog"]) == 5
    assert "town exists already and is not empty" in capsys.readouterr().err
    assert main([*words, "-f", "cog", "--overwrite"]) == 0
    names = {file.name for file in out.iterdir()}
    assert {"world.csv", "csv.stac.json", "cog.stac.json", "ground.tif", "rgb.tif"} <= names
    (out / "ground.tif").unlink()
    (out / "world.csv").write_text("mine")
    assert main([*words, "-f", "cog", "--overwrite"]) == 0
    assert {file.name for file in out.iterdir()} == names
    assert (out / "world.csv").read_text() == "mine"


def test_an_export_that_fails_leaves_nothing(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "half.py").write_text(
        "from earthgen import Offer, hookimpl\n"
        "class Half:\n    name = 'half'\n"
        "    def export(self, world, out, *, bounds, level, progress):\n"
        "        (out / 'a.bin').write_bytes(b'half')\n"
        "        raise OSError(28, 'No space left on device')\n"
        "@hookimpl\ndef earthgen_exporters():\n    return [Offer('half', Half)]\n"
    )
    words = ["export", str(made), "--plugin-dir", str(folder), "-f", "half"]
    assert main([*words, "-o", str(tmp_path / "out")]) == 5
    line = capsys.readouterr().err
    assert "is full; nothing was written under that name. Free some space" in line
    assert [file.name for file in tmp_path.iterdir()] == ["plugins"]


def test_a_stac_item_lies_beside_an_export(made: Path, tmp_path: Path) -> None:
    import pystac

    from earthgen.world.world import open_world
    from earthgen_cli.bbox import lon_lat_bounds

    out = tmp_path / "rasters"
    world = open_world(made)
    left, bottom = (value + value % 2 for value in world.frame.bounds[:2])
    box = [str(value) for value in (left, bottom, left + 16, bottom + 8)]
    part = ["--bbox", ",".join(box), "--bbox-crs", world.frame.crs, "--level", "2"]
    assert main(["export", str(made), "-f", "cog", "-o", str(out), *part]) == 0
    item = pystac.Item.from_file(str(out / "cog.stac.json"))
    assert item.properties["proj:code"] == world.frame.crs
    assert item.properties["proj:bbox"] == [float(value) for value in box]
    assert item.properties["proj:shape"] == [4, 8] and item.properties["gsd"] == 2
    assert item.properties["earthgen:digest"] == world.digest()
    west, south, east, north = lon_lat_bounds(world.frame)
    assert west - 1e-6 < item.bbox[0] < item.bbox[2] < east
    assert south - 1e-6 < item.bbox[1] < item.bbox[3] < north
    assert sorted(item.assets) == sorted(
        file.name for file in out.iterdir() if not file.name.endswith(".stac.json")
    )
    for name, asset in item.assets.items():
        assert Path(asset.get_absolute_href() or "") == out / name
        assert asset.extra_fields["file:size"] == (out / name).stat().st_size
    assert "profile=cloud-optimized" in str(item.assets["ground.tif"].media_type)
