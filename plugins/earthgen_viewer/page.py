"""The page: the template, the program that viewer/ builds, a description, and files within it."""

from __future__ import annotations

import base64
import functools
import gzip
import html
import json
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from earthgen._version import __version__

PLACE = re.compile(r"%([A-Z]+)%")
"""A place in the template that a value is written to."""


@functools.cache
def part(name: str) -> str:
    """Return a file that viewer/build.mjs wrote: page.html, viewer.js, viewer.css, licences.txt."""
    return resources.files("earthgen_viewer").joinpath("page", name).read_text("utf-8")


def pack(data: bytes) -> str:
    """Return bytes as the page embeds them: gzip in base64. Equal bytes give equal text."""
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode("ascii")


def write_page(path: Path, scene: Mapping[str, Any], files: Iterable[tuple[str, str]] = ()) -> None:
    """Write a page.

    Parameters
    ----------
    path : Path
        The file.
    scene : mapping
        JSON values: "title", "origin", and "worlds" of `description.describe_world`.
    files : iterable of (path, packed)
        Embedded files by the path in their tileset's address, packed by `pack`. They are written
        one by one, so that only one is in memory.
    """
    text = json.dumps(scene, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    values = {
        "TITLE": html.escape(str(scene["title"])),
        "GENERATOR": html.escape(f"earthgen {__version__}"),
        # The program may read its own folder on a web server; an embedded world needs nothing.
        "CONNECT": "'self'" if any_served(scene) else "",
        "STYLE": part("viewer.css"),
        "SCENE": text,
        "LICENCES": html.escape(part("licences.txt"), quote=False).replace("&lt;", "<"),
        "SCRIPT": part("viewer.js"),
    }
    template = part("page.html")
    with path.open("w", encoding="utf-8", newline="\n") as out:
        end = 0
        for place in PLACE.finditer(template):
            out.write(template[end : place.start()])
            end = place.end()
            if place[1] == "FILES":
                for name, packed in files:
                    out.write(f'<script type="text/plain" id="file:{html.escape(name)}">')
                    out.write(packed)
                    out.write("</script>\n")
            else:
                out.write(values[place[1]])
        out.write(template[end:])


def any_served(scene: Mapping[str, Any]) -> bool:
    """Return whether the page reads tiles from files beside it."""
    return any(not str(world["tileset"]).startswith("embedded:") for world in scene["worlds"])
