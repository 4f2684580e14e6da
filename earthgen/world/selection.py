"""The part of a world that an export or a picture covers, and what its files record about the
world."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from earthgen._version import __version__
from earthgen.errors import StoreError
from geo_io.frame import Bounds, Frame, extent

if TYPE_CHECKING:
    from earthgen.world.world import World


@dataclass(frozen=True)
class Selection:
    """A part of a world at one level.

    Attributes
    ----------
    frame : Frame
        Of the part, on the lattice of the level.
    level : int
        1, 2, 4 or 8: the size of a cell in voxels.
    tiles : tuple of (tx, ty)
        The finished tiles that the part meets, row by row from the south-west; never empty.
    """

    frame: Frame
    level: int
    tiles: tuple[tuple[int, int], ...]

    def tile(self, world: World, tx: int, ty: int) -> Frame | None:
        """Return the frame of one tile's share of the part; None if they do not meet."""
        return self.frame.intersection(world.tile_frame(tx, ty, self.level))


def select(world: World, bounds: Bounds | None, level: int) -> Selection:
    """Select the part of a world whose voxels meet bounds.

    Parameters
    ----------
    world : World
    bounds : tuple of float or None
        Left, bottom, right, top in metres of the CRS; None for the whole world.
    level : int
        1, 2, 4 or 8.

    Raises
    ------
    StoreError
        If the world has no such level, or no finished tile there.
    RegionError
        If the bounds are empty or do not meet the world.
    """
    frame = world.part(level, bounds)
    finished = sorted(world.tiles(), key=lambda tile: (tile[1], tile[0]))
    if not finished:
        raise world.no_tiles()
    everywhere = Selection(frame, level, tuple(finished))
    tiles = tuple(tile for tile in finished if everywhere.tile(world, *tile) is not None)
    if not tiles:
        raise StoreError(
            f"no tile of world {world.path} is finished within {extent(frame.bounds)}",
            "finish it with `earthgen generate --resume`",
        )
    return Selection(frame, level, tiles)


def anchor_of(world: World, selection: Selection) -> tuple[float, float, float]:
    """Return the point to which the coordinates of an exported file are relative.

    It is the middle of the selection at the height of its lowest ground, in whole metres. Relative
    to it, float32 coordinates are exact to a millimetre within a region of 8 km, and a viewer that
    turns about its origin turns about the world.

    Returns
    -------
    x, y, z : float
        CRS metres, and height in metres.
    """
    frame, coarsest = selection.frame, max(world.levels)
    s = frame.voxel_size
    lowest = np.inf
    for tx, ty in selection.tiles:
        ground = world.tile_layers(tx, ty, coarsest)["ground"]
        if np.isfinite(ground).any():
            lowest = min(lowest, float(np.nanmin(ground)))
    x, y = (sum(frame.x) // 2) * s, (sum(frame.y) // 2) * s
    return x, y, float(np.floor(lowest)) if np.isfinite(lowest) else 0.0


def source_record(world: World) -> dict[str, Any]:
    """Return the origin of a world, as JSON values for the files made from it.

    Inputs are given by their file names, without folders, which may be private.
    """
    provenance = world.provenance
    out: dict[str, Any] = {"generator": f"earthgen {__version__}", "seed": world.seed}
    for name in ("ground", "inputs", "licences", "attribution"):
        if name in provenance:
            out[name] = provenance[name]
    if isinstance(out.get("inputs"), dict):
        out["inputs"] = {
            name: [_without_folder(item) for item in items] for name, items in out["inputs"].items()
        }
    return out


def input_names(record: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the names of the files in a `source_record` by kind, each once."""
    return {
        kind: list(
            dict.fromkeys(
                name
                for item in items
                if (name := re.split(r"[\\/]", str(item.get("source", "")))[-1].split(":")[0])
            )
        )
        for kind, items in (record.get("inputs") or {}).items()
    }


def credits_text(record: Mapping[str, Any]) -> str:
    """Return what a picture or page of a world has to say of its data, from its `source_record`.

    These are the credits that its user gave; without any, the names of its inputs; "" of none.
    """
    given = record.get("attribution") or []
    texts = [given] if isinstance(given, str) else [str(item) for item in given]
    if texts:
        return f"Made from: {'; '.join(texts)}"
    names = dict.fromkeys(name for names in input_names(record).values() for name in names)
    return f"Made from {', '.join(names)}; no credits were given" if names else ""


UP_AXES = {
    "y": (
        {"x": "east", "y": "up", "z": "south"},
        "east = anchor[0] + x, north = anchor[1] - z, height = anchor[2] + y",
    ),
    "z": ({"x": "east", "y": "north", "z": "up"}, "CRS coordinate = anchor + (x, y, z)"),
}
"""By the axis that points up: what the axes are, and where a point is."""


def placement_record(
    world: World, selection: Selection, anchor: tuple[float, float, float], up: str
) -> dict[str, Any]:
    """Return where the coordinates of an exported file are, and its origin, as JSON values.

    Parameters
    ----------
    world : World
    selection : Selection
        What the file holds.
    anchor : tuple of float
        Of `anchor_of`.
    up : str
        The file's axis that points up: "y" or "z".
    """
    frame, (axes, position) = selection.frame, UP_AXES[up]
    return {
        "anchor": list(anchor),
        "crs": frame.crs,
        "vertical_crs": frame.vertical_crs,
        "axes": axes,
        "units": "metre",
        "position": position,
        "bounds": list(frame.bounds),
        "voxel_size": frame.voxel_size,
        "level": selection.level,
        **source_record(world),
    }


def source_texts(world: World) -> dict[str, str]:
    """Return `source_record` for formats whose metadata are texts: other values as JSON."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in source_record(world).items()
    }


def credit_of(world: World) -> str:
    """Return the attributions of a world in one line, "" if it has none."""
    given = world.provenance.get("attribution") or ()
    return "; ".join([given] if isinstance(given, str) else map(str, given))


def _without_folder(item: Any) -> Any:
    if not isinstance(item, dict) or "source" not in item:
        return item
    return {**item, "source": re.split(r"[\\/]", str(item["source"]))[-1]}
