"""A world as a 3D Tiles 1.1 tileset (OGC 22-025r4): tileset.json, and a GLB for each tile."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from earthgen.errors import JobError, StoreError
from earthgen.files import replace_file
from earthgen.mesh.gltf import SPLATS, SPZ
from earthgen.mesh.pieces import levels_down_to, piece_cells
from earthgen.progress import Progress
from earthgen.world.selection import credit_of, select, source_record
from earthgen.world.world import World
from earthgen_3dtiles import pieces
from earthgen_3dtiles.on_demand import TilesOnDemand
from earthgen_3dtiles.pieces import Piece, PieceMaker, Record, Work
from earthgen_3dtiles.tree import Tree, tileset_document
from geo_io.frame import Bounds, Frame, extent

AHEAD = 4
"""Pieces per worker that are given out before their results are taken."""


CROWN = 16.0
"""Largest radius of a crown, voxels."""


class TilesOptions(BaseModel):
    """What `earthgen export --format 3dtiles --set KEY=VALUE` can say."""

    content: Literal["mesh", "splats", "both"] = Field(
        default="mesh", description="what the tiles hold; both: a mesh and splats in one file"
    )
    splats: Literal["plain", "spz"] = Field(
        default="plain",
        description="encoding of splats: plain attributes (KHR_gaussian_splatting), or SPZ version "
        "2, which Cesium reads and which is a sixth as large",
    )
    trees: Literal["mesh", "instances"] = Field(
        default="mesh",
        description="instances: one model for the trees of levels 1 and 2 "
        "(EXT_mesh_gpu_instancing)",
    )
    compression: Literal["none", "meshopt"] = Field(
        default="none",
        description="meshopt: two fifths as large, but trimesh, Blender and QGIS do not read it",
    )
    height_offset: float = Field(
        default=0.0,
        ge=-10_000,
        le=10_000,
        description="metres added to all heights. 3D Tiles count from the ellipsoid; give the "
        "height of the geoid above it there if yours count from sea level",
    )
    workers: int = Field(default=1, ge=1, le=256, description="processes that make tiles")


class TilesExporter:
    """Write tileset.json and tiles/LEVEL/X_Y.glb.

    All levels from 8 to the given one are written. Tiles are made one by one; a run that was
    interrupted continues with those that are missing.

    Parameters
    ----------
    options : TilesOptions, optional
    """

    name = "3dtiles"
    resumes = True

    def __init__(self, options: TilesOptions | None = None) -> None:
        self.options = options or TilesOptions()

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
        levels = levels_down_to(level)
        scratch = out / ".work"
        scratch.mkdir(parents=True, exist_ok=True)
        options = self.options
        work = Work(
            str(world.path),
            out,
            scratch,
            bounds,
            options.content,
            options.splats,
            options.compression,
            options.trees == "instances",
            options.height_offset,
        )
        size = world.frame.voxel_size
        todo = [
            Piece(each, x, y, piece_cells(size, each))
            for each in levels
            for x, y in _in_order(select(world, bounds, each).frame, piece_cells(size, each))
        ]
        records: list[Record] = []
        waiting: list[Piece] = []
        for piece in todo:
            earlier = pieces.read_records(scratch, piece)
            if earlier is None:
                waiting.append(piece)
            else:
                records += earlier
        tiles = sorted(set(select(world, bounds, level).tiles)) if waiting else []
        progress.start("export 3dtiles", len(tiles) + len(todo), done=len(todo) - len(waiting))
        with _runner(work, options.workers) as run:
            for _ in run("prepare", tiles):
                progress.step()
            for made in run("make", waiting):
                records += made
                progress.step()
        if not records:
            raise StoreError(
                f"world {world.path} has nothing within {extent(selection.frame.bounds)}",
                "give bounds where it has data",
            )
        document = self._tileset(world, selection.frame, levels, records)
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
        replace_file(out, "tileset.json", text.encode())
        shutil.rmtree(scratch)
        return [out / "tileset.json", out / "tiles"]

    def _tileset(
        self, world: World, frame: Frame, levels: Iterable[int], records: list[Record]
    ) -> dict[str, Any]:
        records = sorted(records, key=lambda one: (-one.level, one.y, one.x, one.n))
        size = world.frame.voxel_size
        # Crowns of instances are whole, and reach into the next tile.
        overhang = CROWN if self.options.trees == "instances" else 0.0
        tree = Tree(
            frame.crs, size, self.options.height_offset, list(levels), records, overhang * size
        )
        root = tree.root()
        return tileset_document(
            root,
            2 * max(root["geometricError"], world.frame.voxel_size * 16),
            {
                "crs": frame.crs,
                "vertical_crs": frame.vertical_crs,
                "height_offset": self.options.height_offset,
                "bounds": list(frame.bounds),
                "attribution": credit_of(world),
                "placing_error": round(max(one.error for one in records), 5),
                "triangles": _per_level(records, "triangles"),
                "splats": _per_level(records, "splats"),
                "bytes": _per_level(records, "bytes"),
                **source_record(world),
            },
            splat_extensions(self.options.content, self.options.splats),
        )

    def on_demand(
        self, world: World, folder: Path, *, bounds: Bounds | None, level: int
    ) -> TilesOnDemand:
        """Return tiles that are made when they are asked for, in a folder; see `TilesOnDemand`.

        Of the options, `workers` and `content` count.

        Raises
        ------
        JobError
            If `content` is both.
        """
        content, workers = self.options.content, self.options.workers
        if content == "both":
            raise JobError("tiles on demand hold one thing", "give `content` = mesh or splats")
        return TilesOnDemand(world, folder, bounds, level, workers, content)


def splat_extensions(content: str, encoding: str) -> dict[str, list[str]] | None:
    """Return the glTF extensions that tiles of Gaussians alone use, and those that they require.

    None for other contents: where a tile may have a mesh, Cesium would draw nothing else of it.
    """
    if content != "splats":
        return None
    if encoding == "plain":
        return {"extensionsUsed": [SPLATS]}
    return {"extensionsUsed": [SPLATS, SPZ], "extensionsRequired": [SPLATS, SPZ]}


def _per_level(records: list[Record], what: str) -> dict[str, int]:
    out: dict[str, int] = {}
    for record in records:
        out[str(record.level)] = out.get(str(record.level), 0) + getattr(record, what)
    return out


def _in_order(frame: Frame, n: int) -> Iterator[tuple[int, int]]:
    """The pieces of a frame by squares of four times four, so that neighbours share tiles."""
    return iter(sorted(frame.tiles(n), key=lambda at: (at[1] >> 2, at[0] >> 2, at[1], at[0])))


class _runner:
    """Runs a method of `PieceMaker` for many arguments, here or in processes."""

    def __init__(self, work: Work, workers: int) -> None:
        self.work, self.workers = work, workers
        self._pool: ProcessPoolExecutor | None = None
        self._maker: PieceMaker | None = None

    def __enter__(self) -> Callable[[str, list], Iterator[Any]]:
        if self.workers > 1:
            self._pool = ProcessPoolExecutor(
                self.workers,
                multiprocessing.get_context("spawn"),
                pieces.begin,
                (self.work,),
            )
        else:
            self._maker = PieceMaker(self.work)
        return self._run

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, method: str, arguments: list) -> Iterator[Any]:
        if self._pool is None:
            assert self._maker is not None
            for argument in arguments:
                yield getattr(self._maker, method)(argument)
            return
        waiting: set[Future] = set()
        for argument in arguments:
            waiting.add(self._pool.submit(pieces.call, method, argument))
            if len(waiting) >= AHEAD * self.workers:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        for future in waiting:
            yield future.result()
