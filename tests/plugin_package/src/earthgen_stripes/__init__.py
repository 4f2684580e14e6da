"""An example of an outside plugin, which uses every hook (see docs/plugins/first-plugin.md).

Every command imports this module, so the backends are named by import strings.
"""

from __future__ import annotations

from earthgen import Offer, PluginInfo, hookimpl


@hookimpl
def earthgen_info():
    return PluginInfo(
        "stripes", "0.3.0", "MIT", "terraced ground with stripes", weights_licence="CC0-1.0"
    )


@hookimpl
def earthgen_geometry_backends():
    return [Offer("terraces", "earthgen_stripes.backends:Terraces", "bare ground in steps")]


@hookimpl
def earthgen_texture_backends():
    return [Offer("stripes", "earthgen_stripes.backends:Stripes", "stripes of a random colour")]


@hookimpl
def earthgen_condition_encoders():
    return [
        Offer("rainfall", "earthgen_stripes.backends:ConstantEncoder", "a number in a text file")
    ]


@hookimpl
def earthgen_exporters():
    return [
        Offer(
            "csv",
            "earthgen_stripes.backends:CsvExporter",
            "voxels as text",
            options="earthgen_stripes.backends:CsvOptions",
            suffixes=(".csv",),
        )
    ]


@hookimpl
def earthgen_renderers():
    return [Offer("flat", "earthgen_stripes.backends:FlatRenderer", "the class map")]


@hookimpl
def earthgen_sparse_backends():
    return [Offer("nosparse", "earthgen_stripes.backends:NoSparse", "cannot run anywhere")]


@hookimpl
def earthgen_rasterizers():
    return [Offer("nothing", "earthgen_stripes.backends:Nothing", "draws the background")]


@hookimpl
def earthgen_legends():
    from geo_io.legend import parse_crosswalk

    return [
        parse_crosswalk(
            {"name": "stripes", "rules": [{"field": "zone", "values": {"w": "lake"}}]},
            "earthgen_stripes",
        )
    ]


@hookimpl
def earthgen_commands(app):
    @app.command("stripes-hello")
    def hello() -> None:
        """Say hello from a plugin."""
        import typer

        typer.echo("hello from stripes")
