"""Plugins: every hook has a use, an installed package works from the command line, a broken plugin
is skipped, and errors say whose fault they are."""

from __future__ import annotations

import contextlib
import inspect
import json
import math
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Annotated, Any, get_args

import pytest
import typer
from pydantic import BaseModel, TypeAdapter, ValidationError

import earthgen_stripes
from earthgen import hookspecs as hooks
from earthgen import plugins
from earthgen.errors import JobError, PluginError, UnknownNameError
from earthgen.jobs.job import Job, make_job
from earthgen.jobs.prepare import prepare
from earthgen.training.settings import PART_SETTINGS, TrainingSettings

ROOT = Path(__file__).parents[2]
HOOKS = sorted(
    name for name, value in vars(hooks).items() if name.startswith("earthgen_") and callable(value)
)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test loads its own plugins, as a process does."""
    monkeypatch.setattr(plugins, "_loaded", {})
    monkeypatch.setattr(plugins, "_current", [])


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


def test_no_option_or_setting_is_infinite() -> None:
    """A number without bound becomes a loop without end, or an OverflowError far from its name."""
    models: list[type[BaseModel]] = [TrainingSettings, *PART_SETTINGS.values()]
    for kind in plugins.KINDS:
        offered = [loaded().options_of(kind, name) for name in loaded().offers(kind)]
        models += [model for model in offered if model is not None]
    taken = []
    for model in models:
        for name, about in model.model_fields.items():
            if float in {about.annotation, *get_args(about.annotation)}:
                field = TypeAdapter(Annotated[(about.annotation, *about.metadata, "")])
                with contextlib.suppress(ValidationError):
                    field.validate_python(math.inf)
                    taken.append(f"{model.__name__}.{name}")
    assert len(models) > 20 and not taken


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
    with pytest.raises(UnknownNameError, match="known: "):
        loaded().create("exporter", "qqqq")


def test_refused_options_are_named() -> None:
    assert loaded().create("geometry", "terraces", step=3.0).step == 3.0
    with pytest.raises(PluginError, match="refused its options"):
        loaded().create("geometry", "terraces", hight=3.0)


HOOK = "from earthgen import Offer, hookimpl\n@hookimpl\n"
BROKEN = {
    "syntax.py": "def (",
    "raises.py": "raise RuntimeError('at import')",
    "hook_raises.py": f"{HOOK}def earthgen_exporters():\n    raise KeyError('x')\n",
    "wrong_hook.py": f"{HOOK}def earthgen_exportes():\n    return []\n",
    "wrong_argument.py": f"{HOOK}def earthgen_exporters(nothing):\n    return []\n",
    "info_raises.py": f"{HOOK}def earthgen_info():\n    return 1 / 0\n",
}
GOOD = f"{HOOK}def earthgen_exporters():\n    return [Offer('nothing', lambda: None)]\n"


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
    (tmp_path / "clash.py").write_text(GOOD.replace("'nothing'", "'cog'"))
    found = plugins.load([tmp_path])
    assert found.create("exporter", "cog").name == "cog"
    assert any("as another plugin does" in row.error for row in found.broken)


def plugin(folder: Path, name: str, text: str) -> plugins.Plugins:
    """Write a plugin to a folder and load it."""
    (folder / f"{name}.py").write_text(text)
    return plugins.load([folder])


OFFERS = (
    HOOK
    + """def earthgen_geometry_backends():
    return [
        Offer("named", "earthgen_stripes.backends:Terraces", takes=("weights",)),
        Offer("own", Own),
        Offer("no-module", "earthgen_nowhere.backends:Terraces"),
        Offer("no-name", "earthgen_stripes.backends:Terrasses"),
        Offer("old", late),
        Offer("no-backend", NoBackend),
    ]


def late():
    from old_place import Anything


class Own:
    def __init__(self, size=1):
        self.size = size + "metres"


class NoBackend:
    name, version = "no-backend", "1"

    def stages(self):
        return []
"""
)


def test_an_import_string_is_imported_when_it_is_used(tmp_path: Path) -> None:
    found = plugin(tmp_path, "offers", OFFERS)
    assert found.offer("geometry", "named").takes == ("weights",)
    assert type(found.create("geometry", "named", step=3.0)).__name__ == "Terraces"
    for name, reason in (
        ("no-module", "ModuleNotFoundError: No module named 'earthgen_nowhere'"),
        ("no-name", "AttributeError: .* has no attribute 'Terrasses'"),
    ):
        with pytest.raises(PluginError, match=f"{name}' cannot be imported from .*{reason}"):
            found.create("geometry", name)


def test_a_type_error_in_a_constructor_is_not_a_wrong_option(tmp_path: Path) -> None:
    found = plugin(tmp_path, "offers", OFFERS)
    with pytest.raises(PluginError, match="'own' failed while it was made: TypeError: unsupported"):
        found.create("geometry", "own", size=2)
    with pytest.raises(PluginError, match=r"'own' refused its options \['sise'\]") as caught:
        found.create("geometry", "own", sise=2)
    assert "size" in caught.value.remedy


@pytest.mark.parametrize(("old", "new"), sorted(plugins.MOVED.items()))
def test_an_old_import_path_names_the_new_one(tmp_path: Path, old: str, new: str) -> None:
    """In a plugin that is skipped for it, and in one that imports when its offer is used."""
    text = OFFERS.replace("old_place", old)
    (tmp_path / "imports.py").write_text(f"from {old} import Anything\n")
    found = plugin(tmp_path, "offers", text)
    with pytest.raises(PluginError, match="'old' failed while it was made") as caught:
        found.create("geometry", "old")
    (row,) = (row for row in found.broken if row.source.endswith("imports.py"))
    for text in (row.error, str(caught.value)):
        assert old in text and f"imported from {new}" in text, text


def job(folder: Path, **settings: Any) -> Job:
    box = {"bbox": (700_000, 5_540_000, 700_064, 5_540_064), "bbox_crs": "EPSG:32632"}
    common = {"crs": "EPSG:32632", "out": folder / "w.zarr", "plugin_dir": [folder]}
    return make_job({**box, **common, **settings})


def test_what_subclasses_nothing_is_refused(tmp_path: Path) -> None:
    plugin(tmp_path, "offers", OFFERS)
    with pytest.raises(PluginError, match=r"'no-backend' is a NoBackend, not .*GeometryBackend"):
        prepare(job(tmp_path, geometry="no-backend"))


def test_weights_go_to_the_backends_that_take_them(tmp_path: Path) -> None:
    plugin(tmp_path, "offers", OFFERS)
    with pytest.raises(PluginError, match=r"'named' refused its options \['weights'\]"):
        prepare(job(tmp_path, geometry="named", weights=tmp_path / "a"))
    with pytest.raises(JobError, match=r"neither the procedural geometry nor .* takes `weights`"):
        prepare(job(tmp_path, weights=tmp_path / "a"))


def test_a_plugin_file_runs_once_a_process(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    count = "with open(__file__ + '.runs', 'a') as runs:\n    runs.write('x')\n"
    first = plugin(tmp_path, "counts", count + GOOD)
    assert plugins.load([tmp_path]) is first, "the same set"
    assert plugins.load([tmp_path, other]) is not first
    assert {"nothing"} <= set(plugins.load([tmp_path, other]).offers("exporter"))
    assert (tmp_path / "counts.py.runs").read_text() == "x"


def test_load_without_folders_gives_the_latest_set(tmp_path: Path) -> None:
    bare = plugins.load()
    assert plugins.load() is bare and "nothing" not in bare.offers("exporter")
    found = plugin(tmp_path, "good", GOOD)
    assert plugins.load() is found and "nothing" in plugins.load().offers("exporter")
    assert plugins.load(()) is bare, "a job without plugin folders"
    assert plugins.load() is bare


SPARSE = """
from earthgen import GeometryBackend, Offer, SparseBackend, hookimpl
from earthgen_stripes.backends import Terraces


class Mine(SparseBackend):
    name = "mine"
    devices = ("cpu",)

    def convolve(self, *given, **more):
        raise AssertionError("it is not used")


class Asking(Terraces):
    def __init__(self, sparse_backend=None):
        super().__init__()
        self.sparse_backend = sparse_backend

    def check(self, frame):
        from earthgen.sparse import pick_backend
        import torch

        assert pick_backend("cpu", torch.float32, name=self.sparse_backend).name == "mine"


@hookimpl
def earthgen_sparse_backends():
    return [Offer("mine", Mine)]


@hookimpl
def earthgen_geometry_backends():
    return [Offer("asking", Asking, takes=("sparse_backend",))]
"""


def test_a_sparse_backend_of_a_plugin_folder_is_found_in_a_job(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SPARSE)
    prepared = prepare(job(tmp_path, geometry="asking", sparse_backend="mine"))
    assert prepared.backends.geometry_options == {"sparse_backend": "mine"}
    assert prepared.backends.texture_options == {}
    with pytest.raises(UnknownNameError, match="did you mean 'mine'"):
        prepare(job(tmp_path, geometry="asking", sparse_backend="mime"))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the example package installed, and earthgen seen from this
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


@pytest.mark.slow
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
    lines = (tmp_path / "o" / "world.csv").read_text().splitlines()
    assert len(lines) > 1000 and re.fullmatch(r"-?\d+,-?\d+,-1", lines[0])


@pytest.mark.slow
def test_plugins_can_be_switched_off(environment: Path) -> None:
    def names(value: str) -> set[str]:
        said = earthgen(environment, "plugins", "--json", EARTHGEN_LOAD_PLUGINS=value).stdout
        return {row["name"] for row in json.loads(said)["plugins"]}

    assert "stripes" not in names("") and "procedural" in names("")
    assert "stripes" in names("stripes") and "stripes" in names("earthgen-stripes,other")
    assert "stripes" not in names("other")
