"""`earthgen info`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from earthgen_cli.main import main
from tests.helpers.command_line import (
    BBOX,
    NEAR,
    generate_words,
)


def test_info(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(made)]) == 0
    short = capsys.readouterr().out
    assert "software:" not in short and "--all` prints the settings" in short
    assert len(short.splitlines()) < 40
    assert main(["info", str(made), "--all"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(short.partition("`earthgen info")[0])
    for expected in (
        "EPSG:32632",
        "lon/lat",
        "complete",
        "voxels",
        "provenance",
        "seed",
        "software:",
        "vertical CRS",
    ):
        assert expected in text
    assert main(["info", str(made), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["identity"]["geometry"]["name"] == "terraces"
    assert main(["digest", str(made)]) == 0
    assert capsys.readouterr().out == values["digest"] + "\n" and f"{values['digest']}\n" in text
    assert (
        values["frame"]["crs"] == "EPSG:32632"
        and values["complete"]
        and values["tiles_missing"] == 0
    )
    assert values["provenance"]["ground"] == "generated, not measured"
    assert values["bounds_lon_lat"] == pytest.approx(
        [float(part) for part in BBOX.split(",")], abs=NEAR
    )


def test_info_lists_what_no_legend_knows(
    tmp_path: Path, plugin_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import geopandas
    import shapely

    west, south, east, north = map(float, BBOX.split(","))
    middle = (west + east) / 2
    halves = [shapely.box(west, south, middle, north), shapely.box(middle, south, east, north)]
    frame = geopandas.GeoDataFrame(
        {"landuse": ["meadow", "moonbase"]}, geometry=halves, crs="EPSG:4326"
    )
    frame.to_file(tmp_path / "landuse.gpkg")
    words = [
        "--semantics",
        str(tmp_path / "landuse.gpkg"),
        "--legend",
        "osm",
        "--allow-unmapped",
        "--quiet",
    ]
    assert main([*generate_words(tmp_path / "w.zarr", plugin_dir), *words]) == 0
    assert main(["info", str(tmp_path / "w.zarr"), "--json"]) == 0
    unmapped = json.loads(capsys.readouterr().out)["unmapped"]
    assert len(unmapped) == 1 and "moonbase" in unmapped[0]["value"] and unmapped[0]["area"] > 0
    assert main(["info", str(tmp_path / "w.zarr")]) == 0
    assert re.search(r"moonbase +unmapped +[\d,]+ +1\n", capsys.readouterr().out)
