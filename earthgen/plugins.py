"""Find plugins and make what they offer. A broken plugin is reported and skipped.

The plugins of a process are loaded once: `load(folders)` reads the environment and the plugin
folders of the command line or of a job, and code further down asks `load()` for the same set.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy

from earthgen import hookspecs
from earthgen.errors import JobError, PluginError, UnknownNameError
from earthgen.hookspecs import Offer, PluginInfo
from geo_io.errors import EarthgenError, nearest_name

if TYPE_CHECKING:
    from pydantic import BaseModel

    from geo_io.legend import Crosswalk

GROUP = "earthgen"
"""The entry-point group in which plugins are found."""

DISTRIBUTION = "earthgen"
"""The distribution whose plugins are the built-in ones."""

KINDS = {
    "geometry": "earthgen_geometry_backends",
    "texture": "earthgen_texture_backends",
    "condition": "earthgen_condition_encoders",
    "exporter": "earthgen_exporters",
    "renderer": "earthgen_renderers",
    "sparse": "earthgen_sparse_backends",
    "rasterizer": "earthgen_rasterizers",
}
"""The hook that offers each kind of thing."""

MOVED = {
    "earthgen.backends": "earthgen",
    "earthgen.hooks": "earthgen",
    "earthgen.blocks": "earthgen",
    "earthgen.stages": "earthgen",
    "earthgen.noise": "earthgen",
    "earthgen.voxels": "earthgen",
    "earthgen.generation": "earthgen",
    "earthgen.job": "earthgen",
    "earthgen.surface": "earthgen.voxels",
    "earthgen.columns": "earthgen.voxels",
    "earthgen.levels": "earthgen.voxels",
    "earthgen.agreement": "earthgen.stages",
    "earthgen.voxel_agreement": "earthgen.stages",
    "earthgen.selection": "earthgen.world.selection",
    "earthgen.mesh": "earthgen.render.mesh",
    "geo_io.semantics": "geo_io",
    "geo_io.raster": "geo_io",
    "geo_io.vector": "geo_io",
    "geo_io.region": "geo_io",
    "geo_io.geotiff": "geo_io",
}
"""Modules that plugins for version 0.1 imported from, and where the same names are now."""


@dataclass(frozen=True)
class PluginRow:
    """A plugin as `earthgen plugins` lists it; `error` says why a broken one was skipped."""

    info: PluginInfo
    hooks: tuple[str, ...]
    source: str
    error: str = ""


class Plugins:
    """A set of loaded plugins."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager("earthgen")
        self._manager.add_hookspecs(hookspecs)
        self._sources: dict[str, str] = {}
        self._broken: list[PluginRow] = []
        self._infos: dict[str, PluginInfo] = {}

    def register(
        self, module: ModuleType | object, name: str, source: str, info: PluginInfo | None = None
    ) -> None:
        """Add one plugin; one that does not fit the hooks is recorded as broken."""
        try:
            self._manager.register(module, name)
            self._manager.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            self._report(name, source, error)
            return
        self._sources[name] = source
        described = getattr(module, "earthgen_info", None)
        if described is not None:
            try:
                info = described()
            except Exception as error:  # noqa: BLE001 - other people's code may raise anything
                self._drop(name, error)
                return
        self._infos[name] = info or PluginInfo(name, "unknown", "not stated")

    def load_entry_points(self, only: str | None) -> None:
        """Import the plugins of the entry-point group.

        Parameters
        ----------
        only : str or None
            Names of third-party plugins or distributions, separated by commas; None for all.
        """
        names = None if only is None else {name.strip() for name in only.split(",")} - {""}
        entries = importlib.metadata.entry_points(group=GROUP)
        for entry in sorted(entries, key=lambda entry: entry.name):
            distribution = entry.dist.name if entry.dist is not None else "unknown"
            foreign = distribution != DISTRIBUTION
            if foreign and names is not None and not names & {entry.name, distribution}:
                continue
            if self._manager.has_plugin(entry.name):
                continue  # an editable install can list an entry point twice
            source = f"entry point {entry.name} of {distribution}"
            try:
                module = entry.load()
            except Exception as error:  # noqa: BLE001 - other people's imports may raise anything
                self._report(entry.name, source, error)
                continue
            self.register(module, entry.name, source, _info_of(entry))

    def load_folder(self, folder: Path) -> None:
        """Import every .py file of a folder as a plugin of its own.

        Raises
        ------
        PluginError
            If the folder does not exist.
        """
        if not folder.is_dir():
            raise PluginError(
                f"plugin folder {folder} does not exist", "name a folder of .py files: `plugin_dir`"
            )
        for path in sorted(folder.glob("*.py")):
            try:
                module = _module_of(path.resolve())
            except Exception as error:  # noqa: BLE001 - other people's imports may raise anything
                self._report(path.stem, str(path), error)
                continue
            self.register(module, path.stem, str(path))

    @functools.cache  # noqa: B019 - one set of plugins lives as long as its process
    def offers(self, kind: str) -> Mapping[str, Offer]:
        """Return what all plugins offer of one of `KINDS`, by name.

        If two plugins offer one name, a built-in plugin wins, else the first by the plugin's name.
        """
        offers: dict[str, Offer] = {}
        for plugin, items in self._ask(KINDS[kind]):
            for offer in items or ():
                if offer.name in offers:
                    clash = PluginError(f"offers {kind} {offer.name!r}, as another plugin does")
                    self._report(plugin, self._sources[plugin], clash)
                else:
                    offers[offer.name] = offer
        return offers

    def offer(self, kind: str, name: str) -> Offer:
        """Return the offer with this name.

        Raises
        ------
        UnknownNameError
            Naming the nearest offer.
        """
        offers = self.offers(kind)
        if name not in offers:
            near = difflib.get_close_matches(name, offers, 1, 0.4)
            hint = f"did you mean {near[0]!r}; " if near else ""
            names = ", ".join(sorted(offers)) or "no plugin offers one"
            raise UnknownNameError(
                f"unknown {kind} {name!r}",
                f"{hint}known: {names}; install the plugin that has it, or give its folder as "
                "`plugin_dir`",
            )
        return offers[name]

    def create(self, kind: str, name: str, **options: Any) -> Any:
        """Make the thing with this name.

        Raises
        ------
        UnknownNameError
            Naming the nearest offer.
        JobError
            If an option does not fit the model of the offer's options.
        PluginError
            If the thing cannot be imported, does not take an option, or fails while it is made.
        """
        offer = self.offer(kind, name)
        called = f"{kind} {name!r}"
        model = self.options_of(kind, name)
        if model is not None:
            options = {"options": _filled(model, options, called)}
        factory = _imported(offer.create, called)
        _check_options(factory, options, called)
        try:
            return factory(**options)
        except EarthgenError:
            raise
        except Exception as error:
            raise PluginError(
                f"{called} failed while it was made: {_reason(error)}",
                "report it to the plugin's author",
            ) from error

    def options_of(self, kind: str, name: str) -> type[BaseModel] | None:
        """Return the pydantic model of the options that an offer takes; None if it names none.

        Raises
        ------
        UnknownNameError
            Naming the nearest offer.
        PluginError
            If the model cannot be imported, or is none.
        """
        import pydantic

        offer = self.offer(kind, name)
        if not offer.options:
            return None
        called = f"the model of the options of {kind} {name!r}"
        model = _imported(offer.options, called)
        if not (isinstance(model, type) and issubclass(model, pydantic.BaseModel)):
            raise PluginError(
                f"{called} is a {type(model).__name__}, not a pydantic.BaseModel",
                "report it to the plugin's author",
            )
        return model

    @functools.cache  # noqa: B019
    def crosswalks(self) -> tuple[Crosswalk, ...]:
        """Return the crosswalks of all plugins: third-party first, the built-in "generic" last."""
        answers = self._ask("earthgen_legends")
        crosswalks = [crosswalk for _, items in answers for crosswalk in items or ()]
        return tuple(sorted(crosswalks, key=lambda crosswalk: crosswalk.name == "generic"))

    def add_commands(self, app: Any) -> None:
        """Let every plugin add its commands to the Typer application."""
        self._ask("earthgen_commands", app=app)

    def listing(self) -> list[PluginRow]:
        """Return all plugins, the broken ones last."""
        rows = []
        for name in sorted(self._sources):
            callers = self._manager.get_hookcallers(self._manager.get_plugin(name)) or []
            hooks = tuple(sorted(caller.name for caller in callers))
            rows.append(PluginRow(self._infos[name], hooks, self._sources[name]))
        return rows + self._broken

    @property
    def broken(self) -> list[PluginRow]:
        """The plugins that were skipped, with the reason."""
        return list(self._broken)

    def _ask(self, hook: str, **arguments: Any) -> list[tuple[str, Any]]:
        """(plugin, answer) of each plugin that has the hook; one that raises is dropped."""
        implementations = getattr(self._manager.hook, hook).get_hookimpls()
        answers = []
        for one in sorted(implementations, key=lambda one: self._rank(one.plugin_name)):
            try:
                given = {name: arguments[name] for name in one.argnames}
                answers.append((one.plugin_name, one.function(**given)))
            except Exception as error:  # noqa: BLE001 - other people's hooks may raise anything
                self._drop(one.plugin_name, error)
        return answers

    def _rank(self, name: str) -> tuple[bool, str]:
        """Built-in plugins come first."""
        return not self._sources[name].endswith(f" of {DISTRIBUTION}"), name

    def _drop(self, name: str, error: Exception) -> None:
        self._manager.unregister(name=name)
        self._report(name, self._sources.pop(name), error)

    def _report(self, name: str, source: str, error: Exception) -> None:
        info = self._infos.get(name) or PluginInfo(name, "unknown", "not stated")
        self._broken.append(PluginRow(info, (), source, _reason(error)))


_DESCRIBED = ("License-Expression", "License", "Summary")
"""Metadata of a distribution that describe its plugins."""


def _info_of(entry: importlib.metadata.EntryPoint) -> PluginInfo | None:
    """What the metadata of its distribution say about a plugin that has no `earthgen_info`."""
    if entry.dist is None:
        return None
    metadata = entry.dist.metadata  # not its `json`, which reads all of the description too
    known = {name: str(metadata[name]) for name in _DESCRIBED if name in metadata}
    licence = known.get("License-Expression") or known.get("License") or "not stated"
    summary = known.get("Summary", "")
    return PluginInfo(entry.name, entry.dist.version, licence.splitlines()[0], summary)


@functools.cache
def _module_of(path: Path) -> ModuleType:
    """The module of a plugin's file; it runs once per process, whoever names its folder again."""
    spec = importlib.util.spec_from_file_location(f"earthgen_plugin_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look it up there
    spec.loader.exec_module(module)
    return module


def _imported(named: str | Callable[..., Any], called: str) -> Callable[..., Any]:
    """What an import string of an offer names; anything else is what it is."""
    if not isinstance(named, str):
        return named
    module, _, name = named.partition(":")
    try:
        thing: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise PluginError(
            f"{called} cannot be imported from {named!r}: {_reason(error)}",
            "report it to the plugin's author",
        ) from error
    return thing


def _filled(model: type[BaseModel], options: Mapping[str, Any], called: str) -> BaseModel:
    """The model with the user's options.

    Raises
    ------
    JobError
        Naming the first option that is unknown or wrong.
    """
    import pydantic

    names = sorted(model.model_fields)
    for name in options:
        if name not in names:
            raise JobError(
                f"{called} has no option {name!r}{nearest_name(name, names)}",
                f"its options: {', '.join(names)}" if names else "it takes no options",
            )
    try:
        return model(**options)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        problem = first["msg"].removeprefix("Value error, ")
        given = "" if first["type"] == "missing" else f" ({first['input']!r} was given)"
        raise JobError(
            f"{called}: {f'option {name!r}: ' if name else ''}{problem}{given if name else ''}",
            f"its options: {', '.join(names)}",
        ) from error


def _check_options(factory: Callable[..., Any], options: Mapping[str, Any], called: str) -> None:
    """Raise PluginError if `factory` does not take the options.

    So a TypeError inside a constructor cannot be mistaken for a wrong option.
    """
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # some callables of C do not tell
        return
    try:
        signature.bind(**options)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "none"
        raise PluginError(
            f"{called} refused its options {sorted(options)}: {error}", f"its options: {takes}"
        ) from error


def _reason(error: Exception) -> str:
    """One line for an error in a plugin; names the new place of what has moved."""
    text = str(error) if isinstance(error, EarthgenError) else f"{type(error).__name__}: {error}"
    line = text.splitlines()[0] if text else "unknown error"
    if isinstance(error, ImportError) and error.name in MOVED:
        line += f"; names of {error.name} are now imported from {MOVED[error.name]}"
    return line


_loaded: dict[tuple[str | None, tuple[Path, ...]], Plugins] = {}
_current: list[Plugins] = []


def load(folders: Iterable[str | Path] | None = None) -> Plugins:
    """Return the plugins of this process, loaded on first use.

    The environment variable EARTHGEN_LOAD_PLUGINS restricts third-party entry points: unset, all
    are loaded; "" loads none; "a,b" loads the plugins or distributions named. Built-in plugins are
    always loaded.

    Parameters
    ----------
    folders : iterable of path, optional
        Plugin folders beside the environment. None takes those of the latest call in this process
        that named some, so that what computes deep inside a job sees the job's plugins.

    Raises
    ------
    PluginError
        If a folder does not exist.
    """
    if folders is None and _current:
        return _current[-1]
    paths = tuple(Path(folder).resolve() for folder in folders or ())
    only = os.environ.get("EARTHGEN_LOAD_PLUGINS")
    if (only, paths) not in _loaded:
        plugins = Plugins()
        plugins.load_entry_points(only)
        for path in paths:
            plugins.load_folder(path)
        _loaded[only, paths] = plugins
    _current[:] = [_loaded[only, paths]]
    return _loaded[only, paths]
