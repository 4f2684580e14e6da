"""The house keeps its four floors, and a cheap import stays cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = {
    "geo_io": 1,
    "earthgen": 2,
    **{folder.name: 3 for folder in (ROOT / "plugins").iterdir() if folder.is_dir()},
    "earthgen_cli": 4,
}
FOLDERS = [
    ROOT / "geo_io",
    ROOT / "earthgen",
    *sorted((ROOT / "plugins").glob("earthgen_*")),
    ROOT / "cli" / "earthgen_cli",
]
MODULES = [file for folder in FOLDERS for file in sorted(folder.rglob("*.py"))]


def imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_each_floor_imports_only_floors_below(file: Path) -> None:
    package = next(folder.name for folder in FOLDERS if folder in file.parents)
    above = {name for name in imports(file) if FLOORS.get(name, 0) > FLOORS[package]}
    beside = {
        name
        for name in imports(file)
        if FLOORS.get(name) == 3 and FLOORS[package] == 3 and name != package
    }
    assert not above, f"{file.relative_to(ROOT)} imports a floor above: {above}"
    assert not beside, f"{file.relative_to(ROOT)} imports another plugin: {beside}"


def loaded_by(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint('\\n'.join(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {line.split(".")[0] for line in out.stdout.splitlines()}


HEAVY = {
    "torch",
    "rasterio",
    "osgeo",
    "pyogrio",
    "geopandas",
    "pandas",
    "numba",
    "shapely",
    "zarr",
    "xarray",
    "scipy",
}


def test_import_earthgen_is_light() -> None:
    loaded = loaded_by("import earthgen")
    assert "earthgen" in loaded
    assert not loaded & (HEAVY | {"numpy"})


def test_help_is_light() -> None:
    code = """
from earthgen_cli.main import main
sys.argv = ["earthgen", "--help"]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""
    loaded = loaded_by(code)
    assert "earthgen_cli" in loaded
    assert not loaded & (HEAVY | {"numpy"})


def test_the_card_s_top_level_is_there() -> None:
    for name in (
        "earthgen",
        "plugins",
        "geo_io",
        "cli",
        "tests",
        "docs",
        "pyproject.toml",
        "README.md",
    ):
        assert (ROOT / name).exists(), name


def test_rule_based_generation_never_loads_torch() -> None:
    assert "torch" not in loaded_by(
        "import earthgen.jobs.generate, earthgen_procedural.geometry, earthgen_procedural.texture"
    )


def test_no_file_unpickles() -> None:
    """But for `earthgen.engine.worker`, which hands a job to the processes that it starts
    itself."""
    for file in MODULES:
        if file != ROOT / "earthgen" / "engine" / "worker.py":
            assert not imports(file) & {"pickle", "dill", "joblib", "cloudpickle", "shelve"}, file
