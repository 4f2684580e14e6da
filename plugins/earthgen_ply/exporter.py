"""Gaussians of a world as world.ply or world.spz, tile by tile, with a JSON file beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from earthgen.progress import Progress
from earthgen.splats.gaussians import Gaussians, from_voxels
from earthgen.splats.ply import Y_UP, PlyWriter, sidecar
from earthgen.splats.spz import SpzWriter
from earthgen.splats.transform import transform
from earthgen.world.selection import (
    UP_AXES,
    Selection,
    anchor_of,
    placement_record,
    select,
    source_record,
)
from earthgen.world.world import World
from geo_io.frame import Bounds

THICKNESS = 1e-3
"""Third standard deviation of a disc, in voxels: thin, but still a Gaussian for viewers of 3D
Gaussians."""


Y_AXES = dict(zip(("axes", "position"), UP_AXES["y"], strict=True))
"""What the file beside says about axes if y points up."""


class PlyOptions(BaseModel):
    """What `earthgen export --format ply --set KEY=VALUE` can say."""

    layout: Literal["plain", "inria", "exact"] = Field(
        default="plain",
        description="plain: the usual fields; inria: with 45 coefficients of colour always, 248 "
        "bytes a Gaussian, for programs that read no other; exact: plain, and fields of one byte "
        "with classes and last bits, from which earthgen reads back what it wrote",
    )
    up: Literal["z", "y"] = Field(
        default="z", description="axis that points up; y for SuperSplat and other viewers"
    )


class PlyExporter:
    """Write world.ply and world.ply.json.

    Gaussians are in the order of the tiles (row by row from the south-west), and within a tile in
    that of its voxels (by y, x, z). Positions are relative to an anchor in the middle of the
    region: east, north and up.

    Parameters
    ----------
    options : PlyOptions, optional
    """

    name = "ply"

    def __init__(self, options: PlyOptions | None = None) -> None:
        self.options = options or PlyOptions()

    def export(
        self, world: World, out: Path, *, bounds: Bounds | None, level: int, progress: Progress
    ) -> list[Path]:
        """Write into the folder `out`; see `earthgen.Exporter`.

        Raises
        ------
        StoreError, RegionError
            If the world has no such level, no finished tile, or nothing within `bounds`.
        """
        selection = select(world, bounds, level)
        anchor = anchor_of(world, selection)
        frame = selection.frame
        out.mkdir(parents=True, exist_ok=True)
        path = out / "world.ply"
        degree = _degree(world, selection.tiles[0])
        comments = [
            f"earthgen world, {frame.crs}, vertical CRS {frame.vertical_crs}"[:200],
            "anchor {!r} {!r} {!r}".format(*anchor),
        ]
        turned = self.options.up == "y"
        progress.start("export ply", len(selection.tiles))
        thickness = THICKNESS * frame.voxel_size
        with PlyWriter(path, degree, thickness, comments, self.options.layout) as writer:
            for tile, gaussians in _tiles(world, selection, bounds, anchor):
                writer.write(transform(gaussians, rotation=Y_UP) if turned else gaussians)
                progress.step("tile {}, {}".format(*tile))
        empty = Gaussians.empty(anchor, frame.crs, frame.vertical_crs, degree)
        extra = _record(world, selection, writer.count) | (Y_AXES if turned else {})
        return [path, sidecar(path, empty, extra, layout=self.options.layout)]


class SpzExporter:
    """Write world.spz and world.spz.json: base colours, at about a tenth of the size of PLY.

    Positions are relative to the anchor in the JSON file: x east, y up, z south.
    """

    name = "spz"

    def export(
        self, world: World, out: Path, *, bounds: Bounds | None, level: int, progress: Progress
    ) -> list[Path]:
        """Write into the folder `out`; see `earthgen.Exporter`.

        Raises
        ------
        StoreError, RegionError
            If the world has no such level, no finished tile, or nothing within `bounds`.
        """
        selection = select(world, bounds, level)
        anchor = anchor_of(world, selection)
        out.mkdir(parents=True, exist_ok=True)
        path = out / "world.spz"
        progress.start("export spz", len(selection.tiles))
        with SpzWriter(path, anchor, _reach(world, selection, anchor)) as writer:
            for tile, gaussians in _tiles(world, selection, bounds, anchor):
                writer.write(gaussians)
                progress.step("tile {}, {}".format(*tile))
        side = out / "world.spz.json"
        record = {
            **placement_record(world, selection, anchor, up="y"),
            "position_step": 2.0**-writer.bits,
            "count": writer.count,
        }
        side.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", "utf-8")
        return [path, side]


def _tiles(
    world: World,
    selection: Selection,
    bounds: Bounds | None,
    anchor: tuple[float, float, float],
) -> Iterator[tuple[tuple[int, int], Gaussians]]:
    for tx, ty in selection.tiles:
        voxels, splats = world.tile_voxels(tx, ty, selection.level)
        ground = world.tile_layers(tx, ty, selection.level)["ground"]
        gaussians = from_voxels(voxels, splats, ground, anchor)
        if bounds is not None:
            gaussians = gaussians.take(voxels.inside(selection.frame))
        yield (tx, ty), gaussians


def _record(world: World, selection: Selection, count: int) -> dict[str, Any]:
    frame = selection.frame
    return {
        "bounds": list(frame.bounds),
        "voxel_size": frame.voxel_size,
        "level": selection.level,
        "count": count,
        **source_record(world),
    }


def _reach(world: World, selection: Selection, anchor: tuple[float, float, float]) -> float:
    """The largest distance along an axis from the anchor to anything in a selection, metres."""
    left, bottom, right, top = selection.frame.bounds
    reach = max(anchor[0] - left, right - anchor[0], anchor[1] - bottom, top - anchor[1])
    coarsest = max(world.levels)
    for tile in selection.tiles:
        layers = world.tile_layers(*tile, coarsest)
        for name in ("ground", "surface"):
            known = layers[name][np.isfinite(layers[name])]
            if known.size:
                reach = max(reach, float(np.abs(known - anchor[2]).max()))
    return reach + 16 * world.frame.voxel_size * coarsest


def _degree(world: World, tile: tuple[int, int]) -> int:
    """Degree of the colours' spherical harmonics, the same in all tiles and levels."""
    _, splats = world.tile_voxels(*tile, max(world.levels))
    return round(splats.sh.shape[1] ** 0.5) - 1
