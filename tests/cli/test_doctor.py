"""`earthgen doctor`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from earthgen_cli.commands import doctor
from earthgen_cli.main import main


@pytest.mark.slow
def test_doctor(plugin_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "--plugin-dir", str(plugin_dir)]) == 0
    values = json.loads(capsys.readouterr().out)
    checks = {(check["area"], check["name"]): check for check in values["checks"]}
    assert values["ok"]
    for name in ("Python", "operating system", "earthgen"):
        assert checks["system", name]["status"] == "ok"
    for name in ("numpy", "numba", "GDAL", "PROJ"):
        assert re.match(r"\d+\.\d+", checks["packages", name]["detail"])
    for name in ("PROJ of pyproj", "PROJ of rasterio"):
        assert checks["coordinates", name]["status"] == "ok"
    for name in ("ESRI Shapefile", "GPKG", "GTiff"):
        assert checks["formats", name]["status"] == "ok"
    assert checks["rasterizers", "cpu"]["detail"] == "runs on cpu"
    gsplat = checks["rasterizers", "gsplat"]
    assert "never run on a GPU" in gsplat["detail"] and (
        gsplat["status"] == "ok" or "use 'cpu'" in gsplat["remedy"]
    )
    assert checks["sparse backends", "nosparse"]["remedy"] == "it never can; this is an example"
    assert "terraces" in checks["plugins", "geometry backends"]["detail"]
    assert "csv" in checks["plugins", "export formats"]["detail"]
    assert (
        "another" in checks["plugins", "broken"]["detail"]
        and checks["plugins", "broken"]["status"] == "note"
    )
    for check in values["checks"]:
        assert check["status"] == "ok" or check["remedy"], f"{check['name']}: no remedy"


def test_doctor_finds_what_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_python(code: str, *arguments: str) -> doctor.Probe:
        if "GDAL" in code:
            return doctor.Probe(
                "numpy|ok|2.0\nscipy|no|ImportError: libfoo\nnumba|", "it crashed with signal 11"
            )
        if "Transformer" in code:
            return doctor.Probe("[714984.2, 5542944.0]\n", "")
        return doctor.Probe("", "OSError: no such library")

    monkeypatch.setattr(doctor, "run_python", run_python)
    monkeypatch.setenv("PROJ_LIB", "/elsewhere/proj")
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert re.search(r"ok +numpy: 2.0", text)
    assert re.search(r"broken +scipy: ImportError: libfoo", text)
    assert re.search(r"broken +numba: it crashed with signal 11", text)
    assert "0.0367 m off the known point" in text and "unset PROJ_LIB=/elsewhere/proj" in text
    assert re.search(r"broken +GPKG: OSError", text)
    assert re.search(r"note +torch: OSError", text), "the main path does not need torch"


def test_probes_survive_what_they_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.run_python("print(6 * 7)").output == "42\n"
    assert (
        doctor.run_python("import no_such_thing").error
        == "ModuleNotFoundError: No module named 'no_such_thing'"
    )
    assert "crashed" in doctor.run_python("import os; os.abort()").error
    monkeypatch.setattr(doctor, "PROBE_SECONDS", 0.2)
    assert "no answer" in doctor.run_python("while True: pass").error


def test_optional_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(
        doctor, "run_python", lambda code: doctor.Probe("", "RuntimeError: no CUDA")
    )
    check = doctor.optional_package("torchsparse")
    assert (
        check.status is doctor.Status.NOTE
        and "its import fails: RuntimeError: no CUDA" in check.detail
    )
    assert check.remedy.startswith("optional")
