"""Columns of a world, at any level, for any window: read tile by tile, kept on disk in between."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from cachetools import LRUCache

from earthgen.mesh.columns import (
    BLOCK_LEVEL,
    CANOPY_LEVEL,
    Columns,
    Slabs,
    coarsen,
    columns_of_voxels,
    flattened,
    paste,
    shown,
    without_objects,
)
from earthgen.voxels.tile import LEVELS
from geo_io.frame import Frame

if TYPE_CHECKING:
    from earthgen.world.world import World

CACHED_CELLS = 3_000_000
"""Cells of the tiles that are held in memory (about 30 bytes each)."""


class ColumnReader:
    """Reads the columns of windows of a world.

    The voxels of a tile are read once; its columns at all levels are then files in a folder, where
    several processes find them.

    Parameters
    ----------
    world : World
        The world.
    folder : Path
        Exists; its owner deletes it. The names of the files are those of tiles.
    """

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder
        self._finished = set(world.tiles())
        self._held: LRUCache[tuple[int, int, int], Columns] = LRUCache(
            CACHED_CELLS, getsizeof=lambda columns: min(columns.ground.size, CACHED_CELLS)
        )

    def columns(self, frame: Frame, level: int) -> Columns:
        """Return what is drawn of the columns in a window of a level; outside it is no data."""
        inside = frame.intersection(self.world.level_frame(level))
        tiles = list(inside.tiles(self.world.tile_size // level)) if inside is not None else []
        parts = [self._tile(tx, ty, level) for tx, ty in tiles if (tx, ty) in self._finished]
        return paste(frame, parts)

    def prepare(self, tx: int, ty: int) -> None:
        """Read a tile and write its columns at all levels, unless that has been done."""
        if all(self._path(tx, ty, level).exists() for level in LEVELS):
            return
        voxels, splats = self.world.tile_voxels(tx, ty, 1)
        ground = self.world.tile_layers(tx, ty, 1)["ground"]
        columns = columns_of_voxels(ground, voxels, splats)
        for level in LEVELS:
            if level > 1:
                columns = coarsen(columns)
            if level in (CANOPY_LEVEL, BLOCK_LEVEL):
                columns = without_objects(columns, crowns_only=level < BLOCK_LEVEL)
            drawn = columns if level == 1 else flattened(columns)
            _write(self._path(tx, ty, level), shown(drawn))

    def _path(self, tx: int, ty: int, level: int) -> Path:
        return self.folder / f"{level}_{tx}_{ty}.npz"

    def _tile(self, tx: int, ty: int, level: int) -> Columns:
        key = (level, tx, ty)
        if key not in self._held:
            path = self._path(tx, ty, level)
            if not path.exists():
                self.prepare(tx, ty)
            self._held[key] = _read(path, self.world.tile_frame(tx, ty, level))
        return self._held[key]


def _write(path: Path, columns: Columns) -> None:
    partial = path.with_name(f"{uuid.uuid4().hex}.npz.part")
    arrays: dict[str, Any] = {
        "ground": columns.ground,
        "cells": columns.semantic,
        "rgb": columns.rgb,
        "start": columns.slabs.start,
        **columns.slabs.rows(),
    }
    with partial.open("wb") as file:
        np.savez(file, **arrays)
    partial.replace(path)


def _read(path: Path, frame: Frame) -> Columns:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    ground, cells, rgb = (arrays.pop(name) for name in ("ground", "cells", "rgb"))
    return Columns(frame, ground, cells, rgb, Slabs(**arrays))
