"""Where the objects of a world come from: its map, or its rules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from earthgen.errors import StoreError
from earthgen.jobs.mapped import Mapped, MappedObjects, mapped_objects
from earthgen.progress import Progress
from earthgen.render.features.buildings import Building
from earthgen.render.features.objects import Objects
from earthgen.stages.stage import rescale
from earthgen.world.world import World
from geo_io.frame import Frame
from geo_io.layers import ROOF_SHAPES

MAP, GENERATED, UNKNOWN = "map", "generated", "unknown"
"""Sources of an object; unknown where the inputs of the world are not at hand."""

SAME = 0.5
"""A footprint of the map is the outline of a building whose cells share this part of their union
with it."""


@dataclass(frozen=True)
class Origins:
    """What the map says of the objects of a world.

    Attributes
    ----------
    mapped : MappedObjects or None
        None if the inputs are not at hand.
    bounds : tuple of float
        Of the world.
    """

    mapped: MappedObjects | None
    bounds: tuple[float, float, float, float]

    def around(self, objects: Objects, frame: Frame, level: int) -> Mapped | None:
        """Return what is mapped where objects lie; None if that is not known."""
        if self.mapped is None or not len(objects):
            return None
        x, y = objects.cells["x"], objects.cells["y"]
        window = replace(
            frame, x=(int(x.min()) - 1, int(x.max()) + 2), y=(int(y.min()) - 1, int(y.max()) + 2)
        )
        return self.mapped.around(rescale(window, level, 1) if level > 1 else window)

    def building(
        self, building: Building, mapped: Mapped | None, size: float
    ) -> tuple[str, Building]:
        """Return the source of a building, and the building with what the map says of it."""
        if mapped is None:
            return (UNKNOWN if self.mapped is None else GENERATED), building
        cell = building.cells[0]
        found = mapped.building(
            building.number, (cell["x"] + 0.5) * size, (cell["y"] + 0.5) * size, size
        )
        if found is None:
            return GENERATED, building
        shape = ROOF_SHAPES[mapped.roof[building.number & ~3]]
        if shape != "unknown":
            building = replace(building, roof=shape)
        part = _areas(found.intersection(shapely.box(*self.bounds)))
        if part is None:
            return MAP, building
        both = part.intersection(building.outline).area
        if both < SAME * (part.area + building.outline.area - both):
            return MAP, building
        return MAP, replace(building, outline=part)


def _areas(shape: BaseGeometry) -> BaseGeometry | None:
    """The polygons of a geometry, exteriors counter-clockwise; None without any."""
    parts = [
        shapely.geometry.polygon.orient(part)
        for part in getattr(shape, "geoms", [shape])
        if isinstance(part, Polygon) and part.area > 0
    ]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)


def origins_of(world: World, folder: Path | None, progress: Progress) -> Origins:
    """Open the sources of a world again.

    Without a folder from the user, missing sources are a warning.

    Raises
    ------
    StoreError
        If a folder is given and the sources are not there, or have changed.
    """
    bounds = world.frame.bounds
    try:
        return Origins(mapped_objects(world, folder), bounds)
    except StoreError as error:
        if folder is not None:
            raise
        progress.warn(f"{error.problem}: `source` of objects is unknown ({error.remedy})")
        return Origins(None, bounds)


def tree_sources(
    origins: Origins, mapped: Mapped | None, number: NDArray, xy: NDArray
) -> tuple[list[str], NDArray]:
    """Return the sources of trees, and their places: those of the map where they are mapped.

    Parameters
    ----------
    origins : Origins
    mapped : Mapped or None
    number : NDArray (n,) uint32
        Object numbers.
    xy : NDArray (n, 2) float64
        Places of their crowns, CRS metres.
    """
    if mapped is None:
        return [UNKNOWN if origins.mapped is None else GENERATED] * len(number), xy
    sources, places = [], xy.copy()
    for k, name in enumerate((number.astype(np.int64) & ~3).tolist()):
        place = mapped.tree.get(name)
        near = place is not None and np.hypot(*(np.asarray(place) - xy[k])) < TREE_FAR
        sources.append(MAP if near else GENERATED)
        if near:
            places[k] = place
    return sources, places


TREE_FAR = 12.0
"""Metres from the middle of a crown to the place of its tree on the map, at most."""
