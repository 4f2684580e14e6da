"""A page to look at a world: `earthgen export --format html` and `earthgen view`."""

from __future__ import annotations

import earthgen
from earthgen import Offer, PluginInfo, hookimpl


@hookimpl
def earthgen_info() -> PluginInfo:
    return PluginInfo(
        "viewer", earthgen.__version__, "Apache-2.0", "exports a page that shows a world in 3D"
    )


@hookimpl
def earthgen_exporters() -> list[Offer]:
    return [
        Offer(
            "html",
            "earthgen_viewer.exporter:HtmlExporter",
            "a page that shows the world in a browser, in one file or in a folder for a web server",
            options="earthgen_viewer.exporter:HtmlOptions",
            suffixes=(".html", ".htm"),
        )
    ]
