"""The hooks: everything a plugin can add to earthgen.

A plugin is a module with functions of these names, decorated with `earthgen.hookimpl`. It is found
through the entry-point group "earthgen" or in a file of a plugin folder (`--plugin-dir`). The
built-in plugins use the same hooks. docs/plugins/hooks.md has an example of each, which the tests
run. What is offered is imported when it is first used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from geo_io.legend import Crosswalk

hookspec = pluggy.HookspecMarker("earthgen")
hookimpl = pluggy.HookimplMarker("earthgen")


@dataclass(frozen=True)
class PluginInfo:
    """What a plugin says about itself in `earthgen plugins`.

    Attributes
    ----------
    name, version : str
    licence : str
        Of the code, as an SPDX expression.
    summary : str
        One line.
    weights_licence : str
        Of the weights that the plugin brings, if any.
    """

    name: str
    version: str
    licence: str
    summary: str = ""
    weights_licence: str = "no weights"


@dataclass(frozen=True)
class Offer:
    """One thing that a plugin offers.

    Attributes
    ----------
    name : str
        What users ask for it by.
    create : str or callable
        What makes it: the import string of a class or function, such as "my_plugin.backend:Plain",
        or the callable itself. Called with the user's options as keyword arguments. An import
        string keeps the plugin's own module cheap to import.
    summary : str
        One line for `earthgen plugins` and for completion.
    takes : tuple of str
        Settings of the job that are passed to `create` under their own name if the user gives
        them: "weights", "sparse_backend".
    options : str or type
        The pydantic model of the user's options, or its import string. `create` is then called
        with one keyword argument, `options`: an instance of the model. Exporters use it: `earthgen
        export --set KEY=VALUE` fills the model, and `--help-options` lists its fields.
    suffixes : tuple of str
        Of an exporter whose output can be one file: the endings of that file, such as (".glb",).
        `earthgen export --out town.glb` then names the files that the exporter calls "world..."
        "town...".
    """

    name: str
    create: str | Callable[..., Any]
    summary: str = ""
    takes: tuple[str, ...] = ()
    options: str | type = ""
    suffixes: tuple[str, ...] = ()


@hookspec
def earthgen_info() -> PluginInfo:  # type: ignore[empty-body]
    """Return the plugin's own name, version and licences, for `earthgen plugins`."""


@hookspec
def earthgen_geometry_backends() -> Iterable[Offer]:  # type: ignore[empty-body]
    """Offer subclasses of `earthgen.GeometryBackend` for `--geometry NAME`.

    They turn conditions into surface voxels.
    """


@hookspec
def earthgen_texture_backends() -> Iterable[Offer]:  # type: ignore[empty-body]
    """Offer subclasses of `earthgen.TextureBackend` for `--texture NAME`.

    They give each voxel its 2D Gaussian.
    """


@hookspec
def earthgen_condition_encoders() -> Iterable[Offer]:  # type: ignore[empty-body]
    """Offer an `earthgen.ConditionEncoder` per kind of input.

    It reads a source onto any window of the frame, as a named condition layer.
    """


@hookspec
def earthgen_exporters() -> Iterable[Offer]:  # type: ignore[empty-body]
    """Offer an `earthgen.Exporter` per format of `earthgen export --format NAME`.

    `Offer.options` names a pydantic model of what `--set KEY=VALUE` can say.
    """


@hookspec
def earthgen_legends() -> Iterable[Crosswalk]:  # type: ignore[empty-body]
    """Give crosswalks from other schemes of land classes to earthgen's 25."""


@hookspec
def earthgen_renderers() -> Iterable[Offer]:  # type: ignore[empty-body]
    """Offer an `earthgen.Renderer` per name of `earthgen preview --renderer NAME`."""


@hookspec
def earthgen_sparse_backends() -> Iterable[Offer]:  # type: ignore[empty-body]
    """Offer subclasses of `earthgen.SparseBackend`: implementations of sparse convolution.

    `earthgen doctor` says which of them can run here.
    """


@hookspec
def earthgen_rasterizers() -> Iterable[Offer]:  # type: ignore[empty-body]
    """Offer subclasses of `earthgen.Rasterizer`, which draw 2D Gaussians on some devices.

    `earthgen doctor` says which of them can run here.
    """


@hookspec
def earthgen_commands(app: Any) -> None:
    """Add commands to the `earthgen` Typer application."""
