"""Where things lie, and that a cheap import stays cheap. `make lint` checks what imports what."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = [
    ROOT / "geo_io",
    ROOT / "earthgen",
    *sorted((ROOT / "plugins").glob("earthgen_*")),
    ROOT / "cli" / "earthgen_cli",
]
MODULES = [file for folder in FOLDERS for file in sorted(folder.rglob("*.py"))]
MOST_FILES = 20
"""Modules in a folder, so that a reader can take it in."""


def imports(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names.add((node.module or "").split(".")[0])
    return names


def test_no_folder_is_too_large_to_take_in() -> None:
    folders = {file.parent for file in MODULES}
    crowded = {
        str(folder.relative_to(ROOT)): count
        for folder in folders
        if (count := len([file for file in folder.glob("*.py") if file.name != "__init__.py"]))
        > MOST_FILES
    }
    assert not crowded


def test_tests_mirror_the_packages() -> None:
    """A folder of tests/earthgen and tests/geo_io is a folder of the package."""
    for package in ("earthgen", "geo_io"):
        for file in (ROOT / "tests" / package).rglob("test_*.py"):
            folder = file.parent.relative_to(ROOT / "tests")
            assert (ROOT / folder).is_dir(), f"{file}: there is no {folder}"


def test_tests_import_no_benchmark() -> None:
    files = [file for file in (ROOT / "tests").rglob("*.py") if "benchmarks" in imports(file)]
    assert not files


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


def test_the_top_level_is_there() -> None:
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
