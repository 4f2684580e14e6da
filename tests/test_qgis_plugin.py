"""The plugin in a real QGIS: its algorithms without a window, its layers, and its dialog."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from earthgen.world.world import open_world
from earthgen_cli.main import main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
DATA = ROOT / "examples" / "data"
QGIS_PYTHON = "/usr/bin/python3"
"""The Python that a distribution's QGIS is built for."""

DIALOG = """
import sys
sys.path[:0] = ["/usr/share/qgis/python", "/usr/share/qgis/python/plugins", sys.argv[1]]
from qgis.core import QgsApplication, QgsProject, QgsRasterLayer, QgsVectorLayer
from qgis.PyQt.QtCore import QTimer
app = QgsApplication([], True)
app.initQgis()
from processing.core.Processing import Processing
Processing.initialize()
import earthgen_qgis
plugin = earthgen_qgis.classFactory(None)
plugin.initProcessing()
from processing.gui.AlgorithmDialog import AlgorithmDialog
algorithm = QgsApplication.processingRegistry().createAlgorithmById("earthgen:generate")
dialog = AlgorithmDialog(algorithm, False, None)
dialog.resize(980, 760)
dialog.show()
def end():
    dialog.grab().save(sys.argv[2])
    app.quit()
QTimer.singleShot(1500, end)
app.exec_()
"""

LAYERS = """
import json, sys
sys.path[:0] = ["/usr/share/qgis/python", "/usr/share/qgis/python/plugins", sys.argv[1]]
from pathlib import Path
from qgis.core import QgsApplication, QgsRasterLayer
app = QgsApplication([], False)
app.initQgis()
from earthgen_qgis.layers import NAMES, style_raster
said = {}
for name in NAMES:
    layer = QgsRasterLayer(str(Path(sys.argv[2]) / f"{name}.tif"), name)
    style_raster(layer, name)
    items = [text for text, _ in layer.legendSymbologyItems()]
    said[name] = [type(layer.renderer()).__name__, items, layer.crs().authid()]
print(json.dumps(said))
"""


def find_qgis_process() -> str:
    """The program without a window. Debian 12's `qgis_process` is a broken wrapper of the other."""
    for name in ("qgis_process.bin", "qgis_process"):
        if path := shutil.which(name):
            return path
    pytest.skip("needs QGIS (looked for qgis_process)")


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile of QGIS with the plugin, installed from its zip and enabled."""
    find_qgis_process()
    folder = tmp_path_factory.mktemp("qgis")
    plugins = folder / "profiles" / "default" / "python" / "plugins"
    plugins.mkdir(parents=True)
    (folder / "run").mkdir(mode=0o700)
    assert main(["qgis", "package", "--out", str(folder / "plugin.zip"), "--quiet"]) == 0
    with zipfile.ZipFile(folder / "plugin.zip") as archive:
        archive.extractall(plugins)
    assert "earthgen_qgis" in process(folder, "plugins", "enable", "earthgen_qgis")
    return folder


def environment(profile: Path, **more: str) -> dict[str, str]:
    return {
        **os.environ,
        "QT_QPA_PLATFORM": "offscreen",
        "XDG_RUNTIME_DIR": str(profile / "run"),
        "QGIS_CUSTOM_CONFIG_PATH": str(profile),
        "EARTHGEN": "",
        **more,
    }


def process(profile: Path, *words: str, fails: bool = False) -> str:
    done = subprocess.run(
        [find_qgis_process(), *words],
        env=environment(profile),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def plugins_of(profile: Path) -> str:
    return str(profile / "profiles" / "default" / "python" / "plugins")


@pytest.fixture(scope="module")
def made(profile: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world that QGIS has made."""
    world = tmp_path_factory.mktemp("made") / "my world.zarr"
    said = process(
        profile,
        "run",
        "earthgen:generate",
        "--EXTENT=685700,685800,5542500,5542600 [EPSG:32632]",
        f"--LAYERS={DATA / 'landuse.shp'}",
        f"--DEM={DATA / 'srtm3.tif'}",
        "--VOXEL_SIZE=4",
        "--SEED=7",
        f"--WORLD={world}",
    )
    assert "tiles made" in said and "ResourceWarning" not in said
    return world


def test_the_algorithms_are_listed(profile: Path) -> None:
    listed = process(profile, "list")
    for name in ("generate", "batch", "export", "preview"):
        assert f"earthgen:{name}" in listed


def test_generate(made: Path) -> None:
    world = open_world(made)
    assert world.complete and world.seed == 7 and world.frame.voxel_size == 4
    assert world.frame.crs == "EPSG:32632"
    rasters = made.with_name("my world-rasters")
    assert {path.stem for path in rasters.glob("*.tif")} >= {"ground", "height", "semantics", "rgb"}


def test_an_error_is_a_sentence(profile: Path, made: Path) -> None:
    said = process(
        profile,
        "run",
        "earthgen:generate",
        "--EXTENT=685700,685800,5542500,5542600 [EPSG:32632]",
        f"--LAYERS={DATA / 'landuse.shp'}",
        f"--WORLD={made}",
        fails=True,
    )
    assert f"{made} exists already." in said and '"error"' not in said


def test_a_filtered_layer_is_copied(profile: Path, tmp_path: Path) -> None:
    said = process(
        profile,
        "run",
        "earthgen:batch",
        f"--REGIONS={DATA / 'landuse.shp'}|subset=\"fclass\" = 'nothing'",
        f"--LAYERS={DATA / 'landuse.shp'}",
        f"--WORLDS={tmp_path / 'worlds'}",
        fails=True,
    )
    assert str(DATA / "landuse.shp:") not in said and "{" not in said.split("ERROR")[-1]


def test_preview_and_export(profile: Path, made: Path, tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    words = [f"--WORLD={made}", f"--OUTPUT={picture}", "--SIZE=64", "--VIEW=1"]
    process(profile, "run", "earthgen:preview", *words)
    assert max(Image.open(picture).size) == 64
    product = json.loads((Path(plugins_of(profile)) / "earthgen_qgis" / "product.json").read_text())
    glb = [one["name"] for one in product["formats"]].index("glb")
    words = [f"--WORLD={made}", f"--OUTPUT={tmp_path / 'glb'}", f"--FORMAT={glb}", "--LEVEL=3"]
    process(profile, "run", "earthgen:export", *words)
    assert (tmp_path / "glb" / "world.glb").read_bytes()[:4] == b"glTF"


def run_python(
    profile: Path, code: str, *words: str, wrap: tuple[str, ...] = (), **more: str
) -> str:
    if not Path(QGIS_PYTHON).exists() or sys.platform != "linux":
        pytest.skip("needs the Python of a distribution's QGIS")
    done = subprocess.run(
        [*wrap, QGIS_PYTHON, "-c", code, plugins_of(profile), *words],
        env=environment(profile, **more),
        capture_output=True,
        text=True,
        timeout=300,
    )
    if "No module named 'qgis'" in done.stderr:
        pytest.skip("needs the Python of a distribution's QGIS")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("own_styles", [True, False])
def test_layers_have_the_colours_of_the_legend(
    profile: Path, made: Path, tmp_path: Path, own_styles: bool
) -> None:
    """With the style files beside the rasters, and for rasters that came without them."""
    rasters = tmp_path / "rasters"
    shutil.copytree(made.with_name("my world-rasters"), rasters)
    if not own_styles:
        for style in rasters.glob("*.qml"):
            style.unlink()
    said = json.loads(run_python(profile, LAYERS, str(rasters)))
    assert {crs for _, _, crs in said.values()} == {"EPSG:32632"}
    renderer, items, _ = said["semantics"]
    assert renderer == "QgsPalettedRasterRenderer" and "Residential built-up" in items
    assert said["rgb"][0] == "QgsMultiBandColorRenderer"
    assert said["height"][0] == "QgsSingleBandPseudoColorRenderer"


def test_the_dialog(profile: Path, tmp_path: Path) -> None:
    if not shutil.which("xvfb-run"):
        pytest.skip("needs Xvfb (looked for xvfb-run)")
    out = tmp_path / "dialog.png"
    wrap = ("xvfb-run", "-a", "-s", "-screen 0 1280x1000x24")
    run_python(profile, DIALOG, str(out), wrap=wrap, QT_QPA_PLATFORM="xcb")
    pixels = np.asarray(Image.open(out).convert("L"))
    assert pixels.shape == (760, 980) and pixels.std() > 20  # fields and words
