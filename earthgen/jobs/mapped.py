"""Which objects of a world were on its maps: its vector sources, read again.

A world holds no footprints, but the number of an object comes from the key of its footprint or
tree (`earthgen.voxels.objects`), and keys depend on the place alone. So the sources tell, if they
are still what the world was made from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from shapely.geometry.base import BaseGeometry

from earthgen import plugins as plugin_sets
from earthgen.errors import StoreError
from earthgen.jobs.job import make_job, recalled_settings
from earthgen.jobs.prepare import reading_options
from earthgen.voxels.objects import object_number
from earthgen.world.world import World
from geo_io.digest import digest_source
from geo_io.frame import Frame
from geo_io.layers import Buildings, Trees
from geo_io.vector.source import split_layer

BESIDE = 4.0
"""Metres, and voxels, that an object may lie outside the bounds of its footprint."""


@dataclass(frozen=True)
class Mapped:
    """Mapped objects around some objects of a world.

    Attributes
    ----------
    footprint : mapping of int to BaseGeometry
        Footprints, by the object number without its type.
    roof : mapping of int to int
        Roof shapes of the map, as in `geo_io.layers.ROOF_SHAPES`.
    tree : mapping of int to (float, float)
        Places of trees.
    """

    footprint: Mapping[int, BaseGeometry]
    roof: Mapping[int, int]
    tree: Mapping[int, tuple[float, float]]

    def building(self, number: int, x: float, y: float, size: float) -> BaseGeometry | None:
        """Return the footprint of a building that has a cell at x, y; None if it is not mapped."""
        found = self.footprint.get(number & ~3)
        if found is None:
            return None
        west, south, east, north = found.bounds
        far = BESIDE * max(size, 1.0)
        near = west - far < x < east + far and south - far < y < north + far
        return found if near else None


class MappedObjects:
    """The vector sources of a world.

    Parameters
    ----------
    read : callable or None
        Gives the buildings and trees of a window; None if the world has no such sources: nothing in
        it is mapped.
    """

    def __init__(self, read: Callable[[Frame], tuple[Buildings, Trees]] | None) -> None:
        self._read = read

    def around(self, window: Frame) -> Mapped:
        """Return what is mapped on a window of the world's lattice."""
        if self._read is None:
            return Mapped({}, {}, {})
        buildings, trees = self._read(window)
        keys = object_number(buildings.key, 0).tolist()
        names = object_number(trees.key, 0).tolist()
        return Mapped(
            dict(zip(keys, buildings.footprint, strict=True)),
            dict(zip(keys, buildings.form["roof"].tolist(), strict=True)),
            dict(zip(names, map(tuple, trees.xy.tolist()), strict=True)),
        )


def mapped_objects(world: World, folder: Path | None = None) -> MappedObjects:
    """Open the vector sources of a world again.

    Parameters
    ----------
    world : World
    folder : Path, optional
        Where the sources lie. By default where they were, else beside the world.

    Raises
    ------
    StoreError
        If a source is not there, or not what the world was made from; says which.
    """
    digests = world.identity.get("inputs", {}).get("semantics", [])
    if not digests:
        return MappedObjects(None)
    settings = recalled_settings(world.settings, world.path)
    sources = [
        _same(str(source), digest, world, folder)
        for source, digest in zip(settings["semantics"], digests, strict=True)
    ]
    job = make_job({**settings, "semantics": sources, "out": "world.zarr"})
    plugins = plugin_sets.load([])
    options = {**reading_options(job, plugins), "allow_unmapped": True}
    condition = plugins.create("condition", "semantics").open(sources, world.frame, options)
    return MappedObjects(getattr(condition, "objects", None))


def _same(source: str, digest: str, world: World, folder: Path | None) -> str:
    """The path of a source, with its layer, if it has its digest."""
    path, layer = split_layer(source)
    name = re.split(r"[\\/]", str(path))[-1]
    beside = Path(str(world.path)).parent if "://" not in str(world.path) else Path()
    places = [folder / name] if folder is not None else [Path(path), beside / path, beside / name]
    place = next((place for place in places if place.exists()), None)
    if place is None:
        raise StoreError(
            f"the source {name} of world {world.path} is not at {places[0]}",
            "give the folder where it lies as `inputs`",
        )
    found = digest_source(place) + (f" layer {layer}" if layer else "")
    if found != digest:
        raise StoreError(
            f"{place} is not what world {world.path} was made from: it has changed",
            "give the folder of the old file as `inputs`, or generate the world again",
        )
    return f"{place}:{layer}" if layer else str(place)
