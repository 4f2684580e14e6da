"""The surface of a world as world.laz, tile by tile."""

from __future__ import annotations

from pathlib import Path

from earthgen.progress import Progress
from earthgen.world.selection import select
from earthgen.world.world import World
from earthgen_points.records import (
    PointOptions,
    clouds,
    header_of,
    laspy_module,
    record_of,
    require_points,
)
from geo_io.frame import Bounds


class LazExporter:
    """Write world.laz: points in the order of the tiles, and within a tile by y, x, z.

    Parameters
    ----------
    options : PointOptions
    """

    name = "laz"

    def __init__(self, options: PointOptions | None = None) -> None:
        self.options = options or PointOptions()

    def export(
        self, world: World, out: Path, *, bounds: Bounds | None, level: int, progress: Progress
    ) -> list[Path]:
        """Write into the folder `out`; see `earthgen.Exporter`.

        Raises
        ------
        StoreError, RegionError
            If the world has no such level, no finished tile, or nothing within `bounds`.
        PluginError
            If laspy or lazrs is not installed.
        """
        laspy = laspy_module()
        selection = select(world, bounds, level)
        out.mkdir(parents=True, exist_ok=True)
        path = out / "world.laz"
        progress.start("export laz", len(selection.tiles))
        header = header_of(world, selection)
        count = 0
        # One thread: the chunks of several come in any order.
        backend = laspy.LazBackend.Lazrs
        with laspy.open(path, mode="w", header=header, laz_backend=backend) as file:
            for cloud in clouds(world, selection, bounds, self.options.walls, progress):
                if len(cloud):
                    file.write_points(record_of(cloud, header))
                    count += len(cloud)
        require_points(count, world, selection.frame)
        return [path]
