"""Plugins: every hook has a use, a stranger's package works from the command line, a broken one
is skipped."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import typer

import earthgen_stripes
from earthgen import hookspecs as hooks
from earthgen import plugins
from earthgen.errors import PluginError, UnknownNameError

ROOT = Path(__file__).parents[2]
HOOKS = sorted(
    name for name, value in vars(hooks).items() if name.startswith("earthgen_") and callable(value)
)


def loaded() -> plugins.Plugins:
    found = plugins.load()
    found.register(earthgen_stripes, "stripes", "the tests")
    return found


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented_with_its_signature_and_used_by_the_example(hook: str) -> None:
    function = getattr(hooks, hook)
    page = (ROOT / "docs" / "plugins" / "hooks.md").read_text("utf-8")
    parameters = ", ".join(inspect.signature(function).parameters)
    assert f"`{hook}({parameters})`" in page
    assert inspect.getdoc(function)
    assert hasattr(earthgen_stripes, hook), "the example plugin has every hook"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("geometry", "terraces"),
        ("texture", "stripes"),
        ("condition", "rainfall"),
        ("exporter", "csv"),
        ("renderer", "flat"),
        ("sparse", "nosparse"),
        ("rasterizer", "nothing"),
    ],
)
def test_each_kind_is_offered_and_made(kind: str, name: str) -> None:
    assert loaded().create(kind, name).name == name


def test_built_ins_use_the_same_hooks() -> None:
    found = plugins.load()
    assert {"procedural"} <= set(found.offers("geometry")) & set(found.offers("texture"))
    assert {"semantics", "dem", "dsm", "image"} <= set(found.offers("condition"))
    assert {"cog", "ply", "glb"} <= set(found.offers("exporter"))
    assert found.offers("renderer")
    for row in found.listing():
        if row.source.endswith("of earthgen"):
            assert not row.error and row.info.licence == "Apache-2.0" and row.hooks


def test_legends_and_commands() -> None:
    found = loaded()
    names = [crosswalk.name for crosswalk in found.crosswalks()]
    assert "stripes" in names and names[-1] == "generic"
    app = typer.Typer()
    found.add_commands(app)
    assert [command.name for command in app.registered_commands] == ["stripes-hello"]


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'terraces'"):
        loaded().create("geometry", "terrace")
    with pytest.raises(UnknownNameError, match="there are:"):
        loaded().create("exporter", "qqqq")


def test_refused_options_are_named() -> None:
    assert loaded().create("geometry", "terraces", step=3.0).step == 3.0
    with pytest.raises(PluginError, match="refused its options"):
        loaded().create("geometry", "terraces", hight=3.0)


BROKEN = {
    "syntax.py": "def (",
    "raises.py": "raise RuntimeError('at import')",
    "hook_raises.py": "from earthgen import hookimpl\n@hookimpl\ndef earthgen_exporters():\n    raise KeyError('x')\n",
    "wrong_hook.py": "from earthgen import hookimpl\n@hookimpl\ndef earthgen_exportes():\n    return []\n",
    "wrong_argument.py": "from earthgen import hookimpl\n@hookimpl\ndef earthgen_exporters(nothing):\n    return []\n",
    "info_raises.py": "from earthgen import hookimpl\n@hookimpl\ndef earthgen_info():\n    return 1 / 0\n",
}
GOOD = """
from earthgen import hookimpl
from earthgen.stages.backends import Offer

@hookimpl
def earthgen_exporters():
    return [Offer("nothing", lambda: None)]
"""


def test_broken_plugins_are_reported_and_skipped(tmp_path: Path) -> None:
    for name, text in {**BROKEN, "good.py": GOOD}.items():
        (tmp_path / name).write_text(text)
    found = plugins.load([tmp_path])
    assert {"nothing", "cog"} <= set(found.offers("exporter"))
    rows = {
        Path(row.source).name: row.error
        for row in found.listing()
        if row.source.startswith(str(tmp_path))
    }
    assert rows.pop("good.py") == ""
    assert set(rows) == set(BROKEN) and all(rows.values())
    with pytest.raises(PluginError, match="does not exist"):
        plugins.load([tmp_path / "none"])


def test_a_clash_of_names_is_reported(tmp_path: Path) -> None:
    (tmp_path / "clash.py").write_text(GOOD.replace('"nothing"', '"cog"'))
    found = plugins.load([tmp_path])
    assert found.offers("exporter")["cog"].create().name == "cog"
    assert any("another plugin offers" in row.error for row in found.broken)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the stranger's package installed, and earthgen seen from this
    one."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    here = sysconfig.get_path("purelib")
    (Path(site) / "earthgen_under_test.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(python),
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--no-build-isolation",
            str(ROOT / "tests" / "plugin_package"),
        ],
        check=True,
    )
    return python


def earthgen(python: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-m", "earthgen_cli", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
    )


def test_an_installed_plugin_works_from_the_command_line(environment: Path, tmp_path: Path) -> None:
    rows = json.loads(earthgen(environment, "plugins", "--json").stdout)["plugins"]
    row = next(row for row in rows if row["name"] == "stripes")
    assert (
        row["version"] == "0.3.0"
        and row["licence"] == "MIT"
        and row["weights_licence"] == "CC0-1.0"
    )
    assert "earthgen_geometry_backends" in row["hooks"] and "stripes" in row["source"]
    assert earthgen(environment, "stripes-hello").stdout.strip() == "hello from stripes"

    (tmp_path / "rain.txt").write_text("3.5")
    made = earthgen(
        environment,
        "generate",
        "--bbox",
        "11.560,49.990,11.562,49.991",
        "--geometry",
        "terraces",
        "--texture",
        "stripes",
        "--condition",
        f"rainfall={tmp_path / 'rain.txt'}",
        "--set",
        "geometry.step=3",
        "--tile-size",
        "64",
        "--out",
        str(tmp_path / "w.zarr"),
        "--json",
    )
    assert made.returncode == 0, made.stderr
    exported = earthgen(
        environment,
        "export",
        str(tmp_path / "w.zarr"),
        "--format",
        "csv",
        "--out",
        str(tmp_path / "o"),
    )
    assert exported.returncode == 0, exported.stderr
    lines = (tmp_path / "o" / "voxels.csv").read_text().splitlines()
    assert len(lines) > 1000 and re.fullmatch(r"-?\d+,-?\d+,-1", lines[0])


def test_plugins_can_be_switched_off(environment: Path) -> None:
    def names(value: str) -> set[str]:
        said = earthgen(environment, "plugins", "--json", EARTHGEN_LOAD_PLUGINS=value).stdout
        return {row["name"] for row in json.loads(said)["plugins"]}

    assert "stripes" not in names("") and "procedural" in names("")
    assert "stripes" in names("stripes") and "stripes" in names("earthgen-stripes,other")
    assert "stripes" not in names("other")
