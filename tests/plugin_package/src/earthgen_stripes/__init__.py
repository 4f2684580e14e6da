"""A stranger's plugin, as docs/plugins/first-plugin.md teaches it: every hook, in one light
module."""

from __future__ import annotations

from earthgen import hookimpl
from earthgen.hookspecs import Offer, PluginInfo


@hookimpl
def earthgen_info():
    return PluginInfo(
        "stripes", "0.3.0", "MIT", "terraced ground with stripes", weights_licence="CC0-1.0"
    )


@hookimpl
def earthgen_geometry_backends():
    def create(step=2.0):
        from earthgen_stripes.backends import Terraces

        return Terraces(step)

    return [Offer("terraces", create, "bare ground in steps")]


@hookimpl
def earthgen_texture_backends():
    def create(width=8):
        from earthgen_stripes.backends import Stripes

        return Stripes(width)

    return [Offer("stripes", create, "stripes of a random colour")]


@hookimpl
def earthgen_condition_encoders():
    def create():
        from earthgen_stripes.backends import ConstantEncoder

        return ConstantEncoder()

    return [Offer("rainfall", create, "a number in a text file")]


@hookimpl
def earthgen_exporters():
    def create():
        from earthgen_stripes.backends import CsvExporter

        return CsvExporter()

    return [Offer("csv", create, "voxels as text")]


@hookimpl
def earthgen_renderers():
    def create():
        from earthgen_stripes.backends import FlatRenderer

        return FlatRenderer()

    return [Offer("flat", create, "the class map")]


@hookimpl
def earthgen_sparse_backends():
    def create():
        from earthgen_stripes.backends import NoSparse

        return NoSparse()

    return [Offer("nosparse", create, "cannot run anywhere")]


@hookimpl
def earthgen_rasterizers():
    def create():
        from earthgen_stripes.backends import Nothing

        return Nothing()

    return [Offer("nothing", create, "draws the background")]


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
