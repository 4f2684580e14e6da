"""`earthgen generate --dry-run`, and regions that are layers of buildings."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import pytest
import shapely

from earthgen_cli.main import main

CRS, X, Y = "EPSG:32632", 500_000, 5_500_000


@pytest.fixture
def layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with houses in feet, and the outline of a district."""
    monkeypatch.chdir(tmp_path)
    boxes = [shapely.box(X + 40 * i, Y + 10, X + 40 * i + 20, Y + 30) for i in range(4)]
    houses = gpd.GeoDataFrame(
        {"type": ["Residential", "School", "Garage", "Shop"], "hgt_ft": [40.0, 33.0, 10.0, None]},
        geometry=boxes,
        crs=CRS,
    )
    houses.to_file("buildings.gpkg")
    ring = shapely.Point(X + 80, Y + 80).buffer(60)
    gpd.GeoDataFrame({"name": ["district"]}, geometry=[ring], crs=CRS).to_file("district.gpkg")
    return tmp_path


def test_a_dry_run_says_how_each_layer_is_understood(
    layers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", "--region", "buildings.gpkg", "--semantics", "buildings.gpkg", "--dry-run"]
    assert main(words) == 0
    said = capsys.readouterr()
    for expected in (
        "140 m x 20 m",
        "its areas are footprints of buildings",
        "building 100%",
        "hgt_ft in ft, to the top (unit by its name)",
        "3 of 4 have a height",
        "nothing was written",
    ):
        assert expected in said.out
    assert "warning: region buildings.gpkg is a layer of 4 buildings" in said.err
    assert "no height is known of 1 of 4 buildings" in said.err
    assert main([*words, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    (source,) = values["survey"]["semantics"]["sources"]
    assert source["footprints"] is True and source["legend"] == "osm"
    assert source["heights"]["top"] == [{"field": "hgt_ft", "unit": "ft", "unit_from": "name"}]
    assert {path.name for path in layers.iterdir()} == {"buildings.gpkg", "district.gpkg"}


def test_a_dry_run_reports_bad_input(layers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", "--region", "district.gpkg", "--semantics", "buildings.gpkg", "--dry-run"]
    assert main([*words, "--height-field", "hgt"]) == 3
    assert "did you mean 'hgt_ft'" in capsys.readouterr().err


def test_other_polygons_are_cut_out(layers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from earthgen.jobs.job import make_job
    from earthgen.jobs.prepare import place

    district = place(make_job({"region": "district.gpkg", "out": "w.zarr", "crs": CRS}))
    assert district.mask is not None and district.warnings == ()
    assert 0.7 < district.mask(district.frame).mean() < 0.85
    houses = place(make_job({"region": "buildings.gpkg", "out": "w.zarr", "crs": CRS}))
    assert houses.mask is None and len(houses.warnings) == 1
