"""Worlds that backends make of a scene's condition, window by window in memory: what `earthgen
generate` would make."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen import plugins as plugin_module
from earthgen.dataset.scene import Scene
from earthgen.engine.compute import Engine
from earthgen.engine.graph import TILE, Graph, Task
from earthgen.errors import JobError
from earthgen.evaluation.patch import Patch, patch_of_geometry
from earthgen.noise.philox import Noise
from earthgen.stages.backends import GeometryBackend, TextureBackend
from earthgen.stages.block import Block, join
from earthgen.voxels.voxels import Geometry, Splats
from geo_io.frame import Frame
from geo_io.layers import Raster, Semantics

KEPT_BYTES = 2**29
"""Windows that are kept for the next crop, together."""


@dataclass(frozen=True)
class SceneCover:
    """A scene's land cover as the condition "semantics": classes seen from above, no footprints,
    0 around it."""

    frame: Frame
    cover: NDArray

    def survey(self, frame: Frame) -> Mapping[str, Any]:
        return {}

    def read(self, window: Frame) -> Semantics:
        cover = np.zeros(window.shape, np.uint8)
        inner = self.frame.intersection(window)
        if inner is not None:
            cover[window.slices(inner)] = self.cover[self.frame.slices(inner)]
        return Semantics(window, cover, np.zeros(window.shape, np.uint32))


@dataclass(frozen=True)
class SceneGround:
    """A scene's terrain as the condition "dem": metres; beyond the scene it goes on as it ends."""

    frame: Frame
    ground: NDArray

    def survey(self, frame: Frame) -> Mapping[str, Any]:
        return {}

    def read(self, window: Frame) -> Raster:
        rows = np.clip(
            np.arange(self.frame.y[1] - window.y[1], self.frame.y[1] - window.y[0]),
            0,
            self.frame.ny - 1,
        )
        cols = np.clip(np.arange(window.x[0], window.x[1]) - self.frame.x[0], 0, self.frame.nx - 1)
        return Raster(window, np.ascontiguousarray(self.ground[np.ix_(rows, cols)], np.float32))


@dataclass(frozen=True)
class SceneImage:
    """A scene's picture from above as the condition "image": RGBA, alpha 0 where it is not
    known."""

    frame: Frame
    image: NDArray
    known: NDArray

    def survey(self, frame: Frame) -> Mapping[str, Any]:
        return {}

    def read(self, window: Frame) -> Raster:
        rgba = np.zeros((*window.shape, 4), np.uint8)
        inner = self.frame.intersection(window)
        if inner is not None:
            part = self.frame.slices(inner)
            known = self.known[part][..., None]
            rgba[window.slices(inner)] = np.concatenate(
                [np.where(known, self.image[part], 0), np.where(known, 255, 0)], axis=2
            ).astype(np.uint8)
        return Raster(window, rgba)


def conditions_of(scene: Scene, names: tuple[str, ...] = ("semantics", "dem")) -> dict[str, Any]:
    """Conditions that a scene gives: "semantics" and "dem" as a rule; "image" and "dsm" where
    they are named."""
    frame = scene.frame
    ground = scene.layer("ground")
    found: dict[str, Any] = {}
    if "semantics" in names:
        found["semantics"] = SceneCover(frame, scene.layer("cover"))
    if "dem" in names:
        found["dem"] = SceneGround(frame, ground)
    if "dsm" in names:
        found["dsm"] = SceneGround(frame, ground + scene.layer("height"))
    if "image" in names and scene.layer("image_known").any():
        found["image"] = SceneImage(frame, scene.layer("image"), scene.layer("image_known"))
    return found


@dataclass(frozen=True)
class BackendChoice:
    """A geometry and a texture of plugins.

    Attributes
    ----------
    name : as the report calls it
    geometry, texture : names of offers
    options : of both, by "geometry" and "texture"
    """

    name: str
    geometry: str
    texture: str
    options: Mapping[str, Mapping[str, Any]]


def choose(
    spec: str,
    plugins: plugin_module.Plugins,
    weights: Path | None,
    given: Mapping[str, Mapping[str, Any]] | None = None,
) -> BackendChoice:
    """The backends of GEOMETRY or GEOMETRY+TEXTURE; the texture is that of the same name, else
    `procedural`.

    weights : given to those that take weights
    given : options by "geometry" and "texture", for those that take weights

    Raises JobError where a texture is named twice; an unknown name raises when it is made.
    """
    geometry, _, texture = spec.partition("+")
    if "+" in texture:
        raise JobError(
            f"{spec!r} names more than a geometry and a texture", "give GEOMETRY+TEXTURE"
        )
    texture = texture or (geometry if geometry in plugins.offers("texture") else "procedural")
    options: dict[str, dict[str, Any]] = {}
    for kind, name in (("geometry", geometry), ("texture", texture)):
        options[kind] = (
            dict((given or {}).get(kind, {})) if takes_weights(plugins, kind, name) else {}
        )
        if weights is not None and takes_weights(plugins, kind, name):
            options[kind].setdefault("weights", str(weights))
    return BackendChoice(spec, geometry, texture, options)


def takes_weights(plugins: plugin_module.Plugins, kind: str, name: str) -> bool:
    """Whether a backend of plugins is a learned one: its `create` names the parameter `weights`."""
    offer = plugins.offers(kind).get(name)
    return offer is not None and "weights" in inspect.signature(offer.create).parameters


def create(
    choice: BackendChoice, plugins: plugin_module.Plugins
) -> tuple[GeometryBackend, TextureBackend]:
    """The backends of a choice. Raises UnknownNameError, PluginError, and what they raise of
    their weights."""
    return (
        plugins.create("geometry", choice.geometry, **choice.options["geometry"]),
        plugins.create("texture", choice.texture, **choice.options["texture"]),
    )


@dataclass
class SceneWorld:
    """The world that backends make of one scene; windows are computed where they are asked for,
    and the last kept."""

    engine: Engine
    graph: Graph
    kept: OrderedDict[Task, Block] = field(default_factory=OrderedDict)

    def patch(self, frame: Frame, valid: NDArray, *, textured: bool = True) -> Patch:
        """A window of the world. textured : whether it has Gaussians."""
        chain = self.engine.chain
        geometry = Geometry.of(self.block(chain.geometry, frame))
        splats = Splats.of(self.block(chain.texture, frame)) if textured else None
        return patch_of_geometry(geometry, splats, frame, valid)

    def block(self, stage: str, frame: Frame) -> Block:
        """The last output of geometry or texture on a frame."""
        found = self.engine.chain[stage]
        parts = []
        for x, y in frame.tiles(found.step):
            meet = frame.tile(x, y, found.step).intersection(frame)
            if meet is not None:
                parts.append(self.fetch(Task(found.name, x, y)).crop(meet))
        return join(frame, parts)

    def fetch(self, task: Task) -> Block:
        if task not in self.kept:
            self.kept[task] = self.engine.block(task, self.graph, self.fetch)
            while (
                len(self.kept) > 1
                and sum(block.nbytes for block in self.kept.values()) > KEPT_BYTES
            ):
                self.kept.popitem(last=False)
        self.kept.move_to_end(task)
        return self.kept[task]

    @property
    def pitches(self) -> list[int]:
        """Distances between windows of the stages, voxels, each once."""
        return sorted({stage.pitch for stage in self.engine.chain.stages})


def make_world(
    scene: Scene,
    choice: BackendChoice,
    plugins: plugin_module.Plugins,
    seed: int,
    band: tuple[int, int],
    names: tuple[str, ...] = ("semantics", "dem"),
) -> SceneWorld:
    """The world that backends make of a scene's conditions.

    band : z range of its voxels; names : of the conditions

    Raises
    ------
    UnknownNameError
        if no plugin offers the geometry or the texture
    JobError
        if a backend needs another condition
    EarthgenError
        what the backends raise, such as of weights that are not there
    """
    geometry, texture = create(choice, plugins)
    conditions = conditions_of(scene, names)
    for backend in (geometry, texture):
        lacking = [name for name in backend.requires if name not in conditions]
        if lacking:
            raise JobError(
                f"backend {backend.name!r} needs {', '.join(lacking)}, which scene {scene.info.name} has not",
                "leave it out",
            )
    frame = replace(scene.frame, z=band)
    for backend in (geometry, texture):
        if hasattr(backend, "check"):
            backend.check(frame)
    engine = Engine(frame, geometry, texture, conditions, Noise(seed))
    graph = engine.graph(max(stage.pitch for stage in engine.chain.stages))
    # A task for every window, and none that ends in a tile: crops are no tiles.
    graph.groups = {TILE: (), **{stage.name: (stage.name,) for stage in engine.chain.stages}}
    return SceneWorld(engine, graph)
