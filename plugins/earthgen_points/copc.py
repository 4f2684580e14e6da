"""The surface of a world as a cloud-optimised point cloud (COPC 1.0, copc.io).

Every point lies in one node of an octree. Nodes have about the same number of points on every
level, drawn from all points of their cubes, so that a viewer sees an even sample from afar. Which
level a point belongs to depends on a hash of its place. Points go to a temporary file for each node
first: memory holds one tile, or one node.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen.errors import PluginError
from earthgen.progress import Progress
from earthgen.world.selection import select
from earthgen.world.world import World
from earthgen_points.records import (
    POINT_FORMAT,
    SCALE,
    CopcOptions,
    clouds,
    header_of,
    laspy_module,
    record_of,
    require_points,
    whole_crs,
)
from geo_io.frame import Bounds

DEEPEST = 12
"""Levels of the octree below its root, at most."""

Node = tuple[int, int, int, int]
"""Level, x, y, z of a node."""


class CopcExporter:
    """Write world.copc.laz.

    Parameters
    ----------
    options : CopcOptions
    """

    name = "copc"

    def __init__(self, options: CopcOptions | None = None) -> None:
        self.options = options or CopcOptions()

    def export(
        self, world: World, out: Path, *, bounds: Bounds | None, level: int, progress: Progress
    ) -> list[Path]:
        """Write into the folder `out`; see `earthgen.Exporter`.

        Raises
        ------
        StoreError, RegionError
            If the world has no such level, no finished tile, or nothing within `bounds`.
        PluginError
            If copclib, laspy or lazrs is not installed.
        """
        copclib = _copclib()
        selection = select(world, bounds, level)
        out.mkdir(parents=True, exist_ok=True)
        path = out / "world.copc.laz"
        progress.start("export copc", 2 * len(selection.tiles))
        header = header_of(world, selection)
        low, high, count = np.full(3, np.inf), np.full(3, -np.inf), 0
        for cloud in clouds(world, selection, bounds, self.options.walls, progress):
            if len(cloud):
                low = np.minimum(low, cloud.xyz.min(axis=0))
                high = np.maximum(high, cloud.xyz.max(axis=0))
                count += len(cloud)
        require_points(count, world, selection.frame)
        half = float(np.ceil((high - low).max() / 2 + 1))
        corner = np.floor((low + high) / 2) - half
        depth = depth_of(count, self.options.points_per_node)
        with tempfile.TemporaryDirectory(dir=out, prefix=".nodes.") as folder:
            spool = _Spool(Path(folder))
            returns = 0
            for cloud in clouds(world, selection, bounds, self.options.walls, progress):
                if not len(cloud):
                    continue
                record = record_of(cloud, header)
                levels = levels_of(cloud.xyz, count, depth, self.options.points_per_node)
                cell = np.floor((cloud.xyz - corner) / (2 * half) * 2.0 ** levels[:, None])
                cell = np.clip(cell, 0, 2.0 ** levels[:, None] - 1).astype(np.int64)
                spool.add(levels, cell, record.array)
                returns += len(cloud)
            extra = _extra_bytes(copclib, header, Path(folder) / "one.laz")
            config = _config(
                copclib, header, selection.frame, low, high, corner, half, returns, extra
            )
            writer = copclib.FileWriter(str(path), config)
            for node, data in spool.nodes():
                writer.AddNode(
                    copclib.VoxelKey(*node), copclib.VectorChar(np.frombuffer(data, np.int8))
                )
            writer.Close()
        return [path]


def depth_of(count: int, per_node: int) -> int:
    """Return the deepest level of an octree whose nodes have about so many points.

    A surface has four children a node, not eight.
    """
    total = 0
    for depth in range(DEEPEST + 1):
        total += per_node * 4**depth
        if total >= count:
            return depth
    return DEEPEST


def levels_of(xyz: NDArray, count: int, depth: int, per_node: int) -> NDArray:
    """Return the level of each point (n, 3), (n,) int: a function of its place."""
    shares = np.array([per_node * 4**level for level in range(depth)]) / count
    units = np.rint(xyz / SCALE).astype(np.int64).astype(np.uint64)
    state = np.full(len(xyz), 0x9E3779B97F4A7C15, np.uint64)
    for axis in range(3):  # the finaliser of splitmix64, once for each coordinate
        state = (state ^ units[:, axis]) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    draw = (state >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return np.searchsorted(np.cumsum(shares), draw, side="right").astype(np.int64)


class _Spool:
    """Points of each node in a file of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: set[Node] = set()

    def add(self, levels: NDArray, cell: NDArray, records: NDArray) -> None:
        keys = np.concatenate([levels[:, None], cell], axis=1)
        order = np.lexsort(keys.T[::-1])
        keys, records = keys[order], records[order]
        new = np.append(True, (keys[1:] != keys[:-1]).any(axis=1))
        starts = np.append(np.flatnonzero(new), len(keys))
        for low, high in itertools.pairwise(starts):
            level, x, y, z = keys[low].tolist()
            self.names.add((level, x, y, z))
            with (self.folder / f"{level}-{x}-{y}-{z}").open("ab") as file:
                file.write(records[low:high].tobytes())

    def nodes(self) -> Iterator[tuple[Node, bytes]]:
        """The nodes with their points, parents first; parents without points of their own are
        empty."""
        every = set(self.names)
        for level, x, y, z in self.names:
            every |= {(level - up, x >> up, y >> up, z >> up) for up in range(1, level + 1)}
        for node in sorted(every):
            name = self.folder / "-".join(map(str, node))
            if name.exists():
                yield node, name.read_bytes()


def _config(
    copclib: Any,
    header: Any,
    frame: Any,
    low: NDArray,
    high: NDArray,
    corner: NDArray,
    half: float,
    count: int,
    extra: Any,
) -> Any:
    """The header of a COPC file."""
    vector = copclib.Vector3
    config = copclib.CopcConfigWriter(
        POINT_FORMAT, vector(SCALE, SCALE, SCALE), vector(*header.offsets), _wkt(frame), extra
    )
    las = config.las_header
    las.min, las.max = vector(*low), vector(*high)
    las.generating_software, las.system_identifier = (
        header.generating_software,
        header.system_identifier,
    )
    made = header.creation_date
    las.creation_day, las.creation_year = made.timetuple().tm_yday, made.year
    las.points_by_return = [count, *([0] * 14)]
    info = config.copc_info
    info.center_x, info.center_y, info.center_z = (corner + half).tolist()
    info.halfsize, info.spacing = half, 2 * half / 128
    return config


def _extra_bytes(copclib: Any, header: Any, path: Path) -> Any:
    """The description of the extra bytes, which copclib can read from a file, but not make."""
    laspy = laspy_module()
    backend = laspy.LazBackend.Lazrs
    with laspy.open(path, mode="w", header=header, laz_backend=backend) as file:
        file.write_points(laspy.ScaleAwarePointRecord.zeros(1, header=header))
    return copclib.LazReader(str(path)).laz_config.extra_bytes_vlr


def _wkt(frame: Any) -> str:
    return str(whole_crs(frame).to_wkt("WKT1_GDAL"))


def _copclib() -> Any:
    try:
        import copclib
    except ImportError as error:
        raise PluginError(
            "COPC is written with copclib, which is not installed", "pip install 'earthgen[points]'"
        ) from error
    return copclib
