"""Gaussians of a world as world.ply, tile by tile, with world.ply.json beside it."""

from __future__ import annotations

from pathlib import Path

from earthgen.progress import Progress
from earthgen.splats.gaussians import Gaussians, from_voxels
from earthgen.splats.ply import PlyWriter, sidecar
from earthgen.world.selection import anchor_of, select, source_record
from earthgen.world.world import World
from geo_io.frame import Bounds

THICKNESS = 1e-3
"""Third standard deviation of a disc, in voxels: thin, but still a Gaussian for viewers of 3D
Gaussians."""


class PlyExporter:
    """Write world.ply and world.ply.json.

    Gaussians are in the order of the tiles (row by row from the south-west), and within a tile in
    that of its voxels (by y, x, z). Positions are relative to an anchor in the middle of the
    region: east, north and up.
    """

    name = "ply"

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
        progress.start("export ply", len(selection.tiles))
        with PlyWriter(path, degree, THICKNESS * frame.voxel_size, comments) as writer:
            for tx, ty in selection.tiles:
                voxels, splats = world.tile_voxels(tx, ty, level)
                ground = world.tile_layers(tx, ty, level)["ground"]
                gaussians = from_voxels(voxels, splats, ground, anchor)
                if bounds is not None:
                    gaussians = gaussians.take(voxels.inside(frame))
                writer.write(gaussians)
                progress.step(f"tile {tx}, {ty}")
        extra = {
            "bounds": list(frame.bounds),
            "voxel_size": frame.voxel_size,
            "level": level,
            "count": writer.count,
            **source_record(world),
        }
        empty = Gaussians.empty(anchor, frame.crs, frame.vertical_crs, degree)
        return [path, sidecar(path, empty, extra)]


def _degree(world: World, tile: tuple[int, int]) -> int:
    """Degree of the colours' spherical harmonics, the same in all tiles and levels."""
    _, splats = world.tile_voxels(*tile, max(world.levels))
    return round(splats.sh.shape[1] ** 0.5) - 1
