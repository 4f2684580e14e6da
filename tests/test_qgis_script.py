"""The script for QGIS's Python console does its work through the command; only its last function
needs a QGIS."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import rasterio

ROOT = Path(__file__).parents[1]
DATA = ROOT / "examples" / "data"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("EARTHGEN", str(Path(sys.executable).parent / "earthgen"))
    spec = importlib.util.spec_from_file_location(
        "qgis_console", ROOT / "examples" / "qgis_console.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_it_generates_and_exports(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box = (685_700.0, 5_542_500.0, 685_850.0, 5_542_600.0)
    said = script.generate(
        str(DATA / "landuse.shp"),
        box,
        "EPSG:32632",
        tmp_path / "w.zarr",
        dem=str(DATA / "srtm3.tif"),
        voxel_size="2",
    )
    assert said and "tiles" in capsys.readouterr().out
    rasters = script.export(tmp_path / "w.zarr", tmp_path / "rasters")
    assert {path.stem for path in rasters} >= {"ground", "surface", "semantics", "rgb"}
    with rasterio.open(tmp_path / "rasters" / "semantics.tif") as data:
        assert data.crs.to_epsg() == 32632 and (data.read(1) > 0).all()


def test_it_passes_on_what_is_wrong(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(script.EarthgenFailed, match="does not exist") as caught:
        script.generate(
            str(tmp_path / "none.shp"), (0.0, 0.0, 1.0, 1.0), "EPSG:32632", tmp_path / "w.zarr"
        )
    said = str(caught.value)  # sentences, with the next step, not the JSON of the command
    assert "{" not in said and said.endswith(".") and len(said.split(". ")) > 1


def test_words_that_are_no_json_are_passed_on(script: ModuleType) -> None:
    assert script.sentence("Killed") == "Killed"
    assert script.sentence('{"error": "no voxels.", "remedy": ""}') == "No voxels."
