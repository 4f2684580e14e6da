"""Finding plugins and asking them for what they offer. A broken plugin is reported and skipped."""

from __future__ import annotations

import difflib
import functools
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy

from earthgen import hookspecs as hooks
from earthgen.errors import PluginError, UnknownNameError
from earthgen.hookspecs import Offer, PluginInfo

if TYPE_CHECKING:
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


@dataclass(frozen=True)
class PluginRow:
    """A plugin as `earthgen plugins` lists it; `error` says why a broken one was skipped."""

    info: PluginInfo
    hooks: tuple[str, ...]
    source: str
    error: str = ""


class Plugins:
    """The plugins of this process."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager("earthgen")
        self._manager.add_hookspecs(hooks)
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
            self._report(name, source, f"{type(error).__name__}: {error}")
            return
        self._sources[name] = source
        described = getattr(module, "earthgen_info", None)
        if described is not None:
            try:
                info = described()
            except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything
                self._drop(name, error)
                return
        self._infos[name] = info or PluginInfo(name, "unknown", "not stated")

    def load_entry_points(self, only: str | None) -> None:
        """Import the plugins of the entry-point group; `only` names the third-party ones wanted,
        None for all."""
        wanted = (
            None if only is None else {name.strip() for name in only.split(",") if name.strip()}
        )
        for entry in sorted(
            importlib.metadata.entry_points(group=GROUP), key=lambda entry: entry.name
        ):
            dist = entry.dist
            distribution = dist.name if dist is not None else "unknown"
            if (
                distribution != DISTRIBUTION
                and wanted is not None
                and not wanted & {entry.name, distribution}
            ):
                continue
            if self._manager.has_plugin(entry.name):
                continue  # an editable install can list an entry point twice
            source = f"entry point {entry.name} of {distribution}"
            try:
                module = entry.load()
            except Exception as error:  # noqa: BLE001 - a stranger's import may raise anything
                self._report(entry.name, source, f"{type(error).__name__}: {error}")
                continue
            info = None
            if dist is not None:
                said = dist.metadata.json
                licence = str(said.get("license_expression") or said.get("license") or "not stated")
                info = PluginInfo(
                    entry.name, dist.version, licence.splitlines()[0], str(said.get("summary", ""))
                )
            self.register(module, entry.name, source, info)

    def load_folder(self, folder: Path) -> None:
        """Import every .py file of a folder as a plugin of its own."""
        if not folder.is_dir():
            raise PluginError(
                f"plugin folder {folder} does not exist", "give --plugin-dir a folder of .py files"
            )
        for path in sorted(folder.glob("*.py")):
            name = path.stem
            try:
                spec = importlib.util.spec_from_file_location(f"earthgen_plugin_{name}", path)
                if spec is None or spec.loader is None:
                    raise ImportError(f"{path} cannot be imported")
                module = importlib.util.module_from_spec(spec)
                sys.modules[spec.name] = module  # dataclasses and pickling look it up there
                spec.loader.exec_module(module)
            except Exception as error:  # noqa: BLE001 - a stranger's import may raise anything
                self._report(name, str(path), f"{type(error).__name__}: {error}")
                continue
            self.register(module, name, str(path))

    @functools.cache  # noqa: B019 - one manager lives as long as its process
    def offers(self, kind: str) -> Mapping[str, Offer[Any]]:
        """What all plugins offer of one of `KINDS`, by name.

        Of two offers with one name that of a built-in plugin stays, else that of the first plugin
        by name.
        """
        found: dict[str, Offer[Any]] = {}
        for name, items in self._ask(KINDS[kind]):
            for offer in items or ():
                if offer.name in found:
                    self._report(
                        name,
                        self._sources[name],
                        f"offers {kind} {offer.name!r}, which another plugin offers",
                    )
                else:
                    found[offer.name] = offer
        return found

    def create(self, kind: str, name: str, **options: Any) -> Any:
        """Make the thing with this name.

        Raises
        ------
        UnknownNameError
            naming the nearest offer
        PluginError
            if the thing refuses its options
        """
        offers = self.offers(kind)
        if name not in offers:
            near = difflib.get_close_matches(name, offers, 1, 0.4)
            hint = f"did you mean {near[0]!r}; " if near else ""
            raise UnknownNameError(
                f"there is no {kind} {name!r}",
                f"{hint}there are: {', '.join(sorted(offers)) or 'none'}",
            )
        try:
            return offers[name].create(**options)
        except TypeError as error:
            raise PluginError(
                f"{kind} {name!r} refused its options {sorted(options)}: {error}",
                "see its plugin's documentation",
            ) from error

    @functools.cache  # noqa: B019
    def crosswalks(self) -> tuple[Crosswalk, ...]:
        """The crosswalks of all plugins: third-party ones first, the built-in "generic" last."""
        found = [
            crosswalk for _, items in self._ask("earthgen_legends") for crosswalk in items or ()
        ]
        return tuple(sorted(found, key=lambda crosswalk: crosswalk.name == "generic"))

    def add_commands(self, app: Any) -> None:
        """Let every plugin add its commands to the Typer application."""
        list(self._ask("earthgen_commands", app=app))

    def listing(self) -> list[PluginRow]:
        """All plugins, the broken ones last."""
        rows = []
        for name in sorted(self._sources):
            callers = self._manager.get_hookcallers(self._manager.get_plugin(name)) or []
            rows.append(
                PluginRow(
                    self._infos[name], tuple(sorted(c.name for c in callers)), self._sources[name]
                )
            )
        return rows + self._broken

    @property
    def broken(self) -> list[PluginRow]:
        return list(self._broken)

    def _ask(self, hook: str, **arguments: Any) -> list[tuple[str, Any]]:
        """(plugin name, answer) of each plugin that has the hook; one that raises is dropped."""
        answers = []
        found = getattr(self._manager.hook, hook).get_hookimpls()
        for implementation in sorted(
            found, key=lambda each: (self._is_foreign(each.plugin_name), each.plugin_name)
        ):
            try:
                given = {name: arguments[name] for name in implementation.argnames}
                answers.append((implementation.plugin_name, implementation.function(**given)))
            except Exception as error:  # noqa: BLE001 - a stranger's hook may raise anything
                self._drop(implementation.plugin_name, error)
        return answers

    def _is_foreign(self, name: str) -> bool:
        return not self._sources[name].endswith(f" of {DISTRIBUTION}")

    def _drop(self, name: str, error: Exception) -> None:
        self._manager.unregister(name=name)
        self._report(name, self._sources.pop(name), f"{type(error).__name__}: {error}")

    def _report(self, name: str, source: str, error: str) -> None:
        info = self._infos.get(name) or PluginInfo(name, "unknown", "not stated")
        self._broken.append(
            PluginRow(info, (), source, error.splitlines()[0] if error else "unknown error")
        )


def load(plugin_dirs: Sequence[str | Path] = ()) -> Plugins:
    """The plugins of the environment and of `plugin_dirs`.

    The environment variable EARTHGEN_LOAD_PLUGINS restricts third-party entry points: unset, all
    are loaded; "" loads none; "a,b" loads the plugins or distributions named. Built-in plugins are
    always loaded.
    """
    plugins = Plugins()
    plugins.load_entry_points(os.environ.get("EARTHGEN_LOAD_PLUGINS"))
    for folder in plugin_dirs:
        plugins.load_folder(Path(folder))
    return plugins
