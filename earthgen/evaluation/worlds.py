"""Worlds that backends make from the conditions of a scene, window by window in memory.

They equal those of `earthgen generate`.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import shapely
from cachetools import LRUCache
from numpy.typing import NDArray

from earthgen.dataset.scene import Scene
from earthgen.engine.compute import Engine
from earthgen.engine.graph import Task
from earthgen.errors import JobError
from earthgen.evaluation.patch import Patch, patch_of_geometry
from earthgen.noise.philox import Noise
from earthgen.plugins import Plugins
from earthgen.stages.backends import GeometryBackend, TextureBackend
from earthgen.stages.block import Block
from earthgen.voxels.voxels import Geometry, Splats
from geo_io.frame import Frame
from geo_io.layers import Buildings, Raster, Semantics

CACHE_BYTES = 2**29
"""Size of the cache of windows for the next crops, bytes."""


@dataclass(frozen=True)
class SceneCover:
    """The land cover of a scene as the condition "semantics": classes seen from above, 0 outside,
    and the buildings, if they are given."""

    frame: Frame
    cover: NDArray
    buildings: Buildings | None = None

    def survey(self, frame: Frame) -> Mapping[str, Any]:
        """Return nothing to report."""
        return {}

    def read(self, window: Frame) -> Semantics:
        """Return the layer on a window."""
        cover = np.zeros(window.shape, np.uint8)
        inner = self.frame.intersection(window)
        if inner is not None:
            cover[window.slices(inner)] = self.cover[self.frame.slices(inner)]
        layer = Semantics(window, cover, np.zeros(window.shape, np.uint32))
        if self.buildings is None:
            return layer
        near = shapely.intersects(self.buildings.footprint, shapely.box(*window.bounds))
        return replace(layer, buildings=self.buildings.take(near))


def scene_buildings(scene: Scene) -> Buildings:
    """Return the footprints of a scene along the edges of its columns, with their heights.

    A building in several pieces is a footprint a piece.

    Parameters
    ----------
    scene : Scene
        The scene.

    Returns
    -------
    Buildings
        With the heights, metres, that a map tells (`building_height`).
    """
    import rasterio.features
    from rasterio.transform import from_origin

    number = np.where(scene.layer("valid"), scene.layer("building"), 0).astype(np.int32)
    west, _, _, north = scene.frame.bounds
    size = scene.frame.voxel_size
    pieces = rasterio.features.shapes(
        number, mask=number > 0, connectivity=4, transform=from_origin(west, north, size, size)
    )
    found = [(shapely.geometry.shape(piece), int(value)) for piece, value in pieces]
    tall = np.zeros(int(number.max()) + 1)
    heights = np.nan_to_num(scene.layer("building_height")[number > 0].astype(np.float64))
    np.maximum.at(tall, number[number > 0], heights)
    footprint = np.empty(len(found), object)
    footprint[:] = [piece for piece, _ in found]
    owner = np.array([value for _, value in found], np.int64)
    height = np.where(tall[owner] > 0, tall[owner], np.nan) if len(owner) else np.zeros(0)
    return Buildings(footprint, height, np.arange(1, len(found) + 1, dtype=np.uint64))


@dataclass(frozen=True)
class SceneGround:
    """The terrain of a scene as the condition "dem", metres. Its edge values continue outside."""

    frame: Frame
    ground: NDArray

    def survey(self, frame: Frame) -> Mapping[str, Any]:
        """Return nothing to report."""
        return {}

    def read(self, window: Frame) -> Raster:
        """Return the layer on a window."""
        rows = np.clip(
            np.arange(self.frame.y[1] - window.y[1], self.frame.y[1] - window.y[0]),
            0,
            self.frame.ny - 1,
        )
        cols = np.clip(np.arange(window.x[0], window.x[1]) - self.frame.x[0], 0, self.frame.nx - 1)
        return Raster(window, np.ascontiguousarray(self.ground[np.ix_(rows, cols)], np.float32))


@dataclass(frozen=True)
class SceneImage:
    """The picture of a scene from above as the condition "image": RGBA, alpha 0 where unknown."""

    frame: Frame
    image: NDArray
    known: NDArray

    def survey(self, frame: Frame) -> Mapping[str, Any]:
        """Return nothing to report."""
        return {}

    def read(self, window: Frame) -> Raster:
        """Return the layer on a window."""
        rgba = np.zeros((*window.shape, 4), np.uint8)
        inner = self.frame.intersection(window)
        if inner is not None:
            part = self.frame.slices(inner)
            known = self.known[part][..., None]
            rgba[window.slices(inner)] = np.concatenate(
                [np.where(known, self.image[part], 0), np.where(known, 255, 0)], axis=2
            ).astype(np.uint8)
        return Raster(window, rgba)


def conditions_of(
    scene: Scene,
    names: tuple[str, ...] = ("semantics", "dem"),
    cover: NDArray | None = None,
    *,
    footprints: bool = False,
) -> dict[str, Any]:
    """Make conditions of a scene.

    Parameters
    ----------
    scene : Scene
        The scene.
    names : tuple[str, ...]
        Any of "semantics", "dem", "dsm" and "image".
    cover : NDArray (ny, nx) uint8 | None
        Land cover instead of the scene's own, such as a map's.
    footprints : bool
        Whether the semantics have the buildings of the scene.

    Returns
    -------
    dict[str, Any]
        Conditions by name; without "image" if the scene has no known colours.
    """
    frame = scene.frame
    ground = scene.layer("ground")
    conditions: dict[str, Any] = {}
    if "semantics" in names:
        own = scene.layer("cover") if cover is None else cover
        buildings = scene_buildings(scene) if footprints else None
        conditions["semantics"] = SceneCover(frame, own, buildings)
    if "dem" in names:
        conditions["dem"] = SceneGround(frame, ground)
    if "dsm" in names:
        conditions["dsm"] = SceneGround(frame, ground + scene.layer("height"))
    if "image" in names and scene.layer("image_known").any():
        conditions["image"] = SceneImage(frame, scene.layer("image"), scene.layer("image_known"))
    return conditions


@dataclass(frozen=True)
class BackendChoice:
    """A geometry and a texture backend.

    Attributes
    ----------
    name : str
        Name in the report.
    geometry, texture : str
        Names of offers.
    options : Mapping[str, mapping]
        Options of both, by "geometry" and "texture".
    """

    name: str
    geometry: str
    texture: str
    options: Mapping[str, Mapping[str, Any]]


def choose(
    spec: str,
    plugins: Plugins,
    weights: Path | None,
    given: Mapping[str, Mapping[str, Any]] | None = None,
    common: Mapping[str, Any] | None = None,
) -> BackendChoice:
    """Choose the backends of a specification.

    Parameters
    ----------
    spec : str
        GEOMETRY or GEOMETRY+TEXTURE. The texture is by default that with the name of the geometry,
        else `procedural`.
    plugins : Plugins
        Plugins that offer backends.
    weights : Path | None
        Option of backends that take weights.
    given : Mapping[str, mapping] | None
        Other options of backends that take weights, by "geometry" and "texture".
    common : Mapping[str, Any] | None
        Options for those of them that know these, such as "steps" and "device".

    Raises
    ------
    JobError
        if there is more than one texture
    """
    geometry, _, texture = spec.partition("+")
    if "+" in texture:
        raise JobError(f"{spec!r} has more than a geometry and a texture", "give GEOMETRY+TEXTURE")
    texture = texture or (geometry if geometry in plugins.offers("texture") else "procedural")
    options: dict[str, dict[str, Any]] = {}
    for kind, name in (("geometry", geometry), ("texture", texture)):
        offer = plugins.offers(kind).get(name)  # `create` reports an unknown name
        options[kind] = {}
        if offer is None or "weights" not in offer.takes:
            continue
        options[kind] |= (given or {}).get(kind, {})
        if weights is not None:
            options[kind].setdefault("weights", str(weights))
        if common:
            known = _parameters(offer.create)
            options[kind] = {key: v for key, v in common.items() if key in known} | options[kind]
    return BackendChoice(spec, geometry, texture, options)


def _parameters(factory: Any) -> set[str]:
    """Return the names of the options that a backend takes."""
    made = pkgutil.resolve_name(factory) if isinstance(factory, str) else factory
    return set(inspect.signature(made).parameters)


class FlowSampling(Protocol):
    """How a learned backend samples its flows."""

    steps: int
    method: str
    guidance: float
    shift: float

    def integrate(self, flow: Any, predict: Any, state: Any, start: float, stop: float) -> Any:
        """Return the state of a flow at time `stop`, from the state at `start`."""


def sampling_settings(backend: Any) -> dict[str, Any] | None:
    """Return how a backend samples its flows, None for one without flows that says so.

    Returns
    -------
    dict[str, Any] | None
        "steps", "method", "guidance", "shift", and "use", the conditions it takes.
    """
    sampling, networks = (getattr(backend, name, None) for name in ("sampling", "networks"))
    if sampling is None or networks is None:
        return None
    return {
        "steps": sampling.steps,
        "method": sampling.method,
        "guidance": sampling.guidance,
        "shift": sampling.shift,
        "use": list(sampling.use),
    }


def create(choice: BackendChoice, plugins: Plugins) -> tuple[GeometryBackend, TextureBackend]:
    """Make the backends of a choice.

    Raises
    ------
    UnknownNameError
        if no plugin offers one
    PluginError
        if one cannot be made
    EarthgenError
        what the backends raise, for example about their weights
    """
    return (
        plugins.create("geometry", choice.geometry, **choice.options["geometry"]),
        plugins.create("texture", choice.texture, **choice.options["texture"]),
    )


def _window_cache() -> LRUCache[Task, Block]:
    return LRUCache(CACHE_BYTES, getsizeof=lambda block: block.nbytes)


@dataclass
class SceneWorld:
    """The world that backends make of one scene. Windows are computed on demand.

    Attributes
    ----------
    engine : Engine
        Computes the windows.
    outputs : LRUCache[Task, Block]
        The last windows.
    """

    engine: Engine
    outputs: LRUCache[Task, Block] = field(default_factory=_window_cache)

    def patch(self, frame: Frame, valid: NDArray, *, textured: bool = True) -> Patch:
        """Compute a part of the world.

        Parameters
        ----------
        frame : Frame
            The part.
        valid : NDArray (ny, nx) bool
            Columns that are measured.
        textured : bool
            Whether the patch gets Gaussians.
        """
        chain = self.engine.chain
        geometry = Geometry.of(self.engine.window(chain.geometry, frame, self.outputs))
        splats = None
        if textured:
            splats = Splats.of(self.engine.window(chain.texture, frame, self.outputs))
        return patch_of_geometry(geometry, splats, frame, valid)

    @property
    def pitches(self) -> list[int]:
        """Sorted distances between the windows of all stages, voxels."""
        return sorted({stage.pitch for stage in self.engine.chain.stages})


def make_world(
    scene: Scene,
    choice: BackendChoice,
    plugins: Plugins,
    seed: int,
    band: tuple[int, int],
    names: tuple[str, ...] = ("semantics", "dem"),
    cover: NDArray | None = None,
    *,
    footprints: bool = False,
) -> SceneWorld:
    """Make the world of a scene's conditions. Nothing is computed yet.

    Parameters
    ----------
    scene : Scene
        Gives the conditions.
    choice : BackendChoice
        The backends.
    plugins : Plugins
        Plugins that offer them.
    seed : int
        Seed of the world.
    band : tuple[int, int]
        z range of its voxels.
    names : tuple[str, ...]
        Names of the conditions, see `conditions_of`.
    cover : NDArray (ny, nx) uint8 | None
        Land cover instead of the scene's own.
    footprints : bool
        Whether the buildings of the scene are given, with their heights.

    Raises
    ------
    UnknownNameError
        if no plugin offers the geometry or the texture
    JobError
        if a backend needs another condition
    EarthgenError
        what the backends raise, for example about missing weights
    """
    geometry, texture = create(choice, plugins)
    conditions = conditions_of(scene, names, cover, footprints=footprints)
    frame = replace(scene.frame, z=band)
    for backend in (geometry, texture):
        missing = [name for name in backend.requires if name not in conditions]
        if missing:
            raise JobError(
                f"backend {backend.name!r} needs {', '.join(missing)}, which scene "
                f"{scene.info.name} does not have",
                "leave the backend out",
            )
        backend.check(frame)
    return SceneWorld(Engine(frame, geometry, texture, conditions, Noise(seed)))
