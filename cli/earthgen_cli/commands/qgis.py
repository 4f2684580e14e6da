"""`earthgen qgis package`: the plugin that brings earthgen into QGIS's Processing Toolbox."""

from __future__ import annotations

import json
import re
import sys
import zipfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer

from earthgen_cli.options import JsonOutput, Overwrite, Quiet
from earthgen_cli.output import say, say_json

PLUGIN = "earthgen_qgis"
"""The package that is the plugin, and its folder in the zip."""

FILES = (".py", ".txt", ".svg")
EPOCH = (2020, 1, 1, 0, 0, 0)
"""Time of all files in the zip, so that the same version gives the same bytes."""


def qgis() -> None:
    """Use earthgen in QGIS."""


def package(
    ctx: typer.Context,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE.zip", help="The zip to write.")
    ] = Path("earthgen_qgis.zip"),
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    json_output: JsonOutput = False,
) -> None:
    """Write the QGIS plugin as a zip.

    In QGIS: Plugins > Manage and Install Plugins > Install from ZIP. The plugin runs this very
    installation of earthgen; its options of Processing can name another one.
    """
    from earthgen.errors import JobError
    from earthgen.staging import staged_file

    if out.suffix.lower() != ".zip":
        raise JobError(f"--out {out} is not the name of a zip", "give a name that ends with .zip")
    files = plugin_files(ctx.obj.plugins)
    with (
        staged_file(out, overwrite=overwrite) as part,
        zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, data in files.items():
            entry = zipfile.ZipInfo(f"{PLUGIN}/{name}", EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    if json_output:
        say_json({"zip": out, "files": len(files)})
    elif not quiet:
        say(f"{out}  install it in QGIS: Plugins > Manage and Install Plugins > Install from ZIP")


def plugin_files(plugins: Any) -> dict[str, bytes]:
    """Return the files of the plugin by name, with what it knows about this installation."""
    from earthgen._version import __version__
    from geo_io.legend import classes

    folder = resources.files(PLUGIN)
    files = {
        item.name: item.read_bytes()
        for item in sorted(folder.iterdir(), key=lambda item: item.name)
        if item.name.endswith(FILES)
    }
    text = files["metadata.txt"].decode()
    files["metadata.txt"] = re.sub(r"(?m)^version=.*$", f"version={__version__}", text).encode()
    product = {
        "version": __version__,
        # -I keeps QGIS's folders out of the search path of this Python.
        "command": [sys.executable, "-I", "-m", "earthgen_cli"],
        "formats": [
            {"name": name, "summary": offer.summary}
            for name, offer in sorted(plugins.offers("exporter").items())
        ],
        "classes": [
            {"code": one.code, "title": one.title, "color": one.color} for one in classes()
        ],
    }
    files["product.json"] = json.dumps(product, indent=1, ensure_ascii=False).encode()
    licence = Path(__file__).parents[3] / "LICENSE"
    if licence.is_file():
        files["LICENSE"] = licence.read_bytes()
    return files


COMMANDS: dict[str, Callable[..., None]] = {"package": package}
