"""The hooks: everything a plugin can add to earthgen. Each returns offers; nothing heavy is
imported until used.

A plugin is a module with functions of these names, decorated with `earthgen.hookimpl`, found
through the entry point group "earthgen" or in a file under `--plugin-dir`. The built-in plugins use
the same hooks. docs/plugins/hooks.md has a page for each, with an example that the tests run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from earthgen.render.interfaces import Exporter, Renderer
    from earthgen.sparse.interface import SparseBackend
    from earthgen.splats.raster.model import Rasterizer
    from earthgen.stages.backends import ConditionEncoder, GeometryBackend, TextureBackend
    from geo_io.legend import Crosswalk
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:  # every plugin imports this module, and `earthgen --help` imports every plugin
    pass

hookspec = pluggy.HookspecMarker("earthgen")
hookimpl = pluggy.HookimplMarker("earthgen")


@hookspec
def earthgen_info() -> PluginInfo:  # type: ignore[empty-body]
    """The plugin's own name, version and licences, for `earthgen plugins`."""


@hookspec
def earthgen_geometry_backends() -> Iterable[Offer[GeometryBackend]]:  # type: ignore[empty-body]
    """Backends for `--geometry NAME`: they turn conditions into surface voxels."""


@hookspec
def earthgen_texture_backends() -> Iterable[Offer[TextureBackend]]:  # type: ignore[empty-body]
    """Backends for `--texture NAME`: they give each voxel its 2D Gaussian."""


@hookspec
def earthgen_condition_encoders() -> Iterable[Offer[ConditionEncoder]]:  # type: ignore[empty-body]
    """Encoders of inputs: they read a source onto any window of the frame, as a named condition
    layer."""


@hookspec
def earthgen_exporters() -> Iterable[Offer[Exporter]]:  # type: ignore[empty-body]
    """Formats for `earthgen export --format NAME`."""


@hookspec
def earthgen_legends() -> Iterable[Crosswalk]:  # type: ignore[empty-body]
    """Crosswalks from other schemes of land classes to the 25."""


@hookspec
def earthgen_renderers() -> Iterable[Offer[Renderer]]:  # type: ignore[empty-body]
    """Renderers for `earthgen preview --renderer NAME`."""


@hookspec
def earthgen_sparse_backends() -> Iterable[Offer[SparseBackend]]:  # type: ignore[empty-body]
    """Implementations of sparse operations; `earthgen doctor` says which can run here."""


@hookspec
def earthgen_rasterizers() -> Iterable[Offer[Rasterizer]]:  # type: ignore[empty-body]
    """What draws 2D Gaussians on some devices; `earthgen doctor` says which can run here."""


@hookspec
def earthgen_commands(app: Any) -> None:
    """Add commands to the `earthgen` Typer application."""


T = TypeVar("T", covariant=True)


@dataclass(frozen=True)
class PluginInfo:
    """What a plugin says of itself in `earthgen plugins`."""

    name: str
    version: str
    licence: str
    summary: str = ""
    weights_licence: str = "no weights"


@dataclass(frozen=True)
class Offer(Generic[T]):
    """One thing a plugin offers: its name, and how to make it.

    `create` is called with the options the user gave it, as keywords, when the thing is first
    needed; it is the place to import what is heavy. An unknown option should raise TypeError, as a
    Python signature does.
    """

    name: str
    create: Callable[..., T]
    summary: str = ""
