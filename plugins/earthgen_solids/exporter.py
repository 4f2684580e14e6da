"""Closed solids as STL and OBJ: a block of the ground, and a solid for each building."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from earthgen._version import __version__
from earthgen.errors import SizeError, StoreError
from earthgen.mesh.reader import ColumnReader
from earthgen.mesh.shells import HALO
from earthgen.mesh.solids import Solid, building_solids, ground_solid
from earthgen.progress import Progress
from earthgen.world.selection import anchor_of, placement_record, select
from earthgen.world.world import World
from geo_io.frame import Bounds, Frame, extent

MOST_CELLS = 16_000_000
"""Largest region, cells of the level: all of it is in memory (about 200 bytes a cell)."""

FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
"""A triangle of a binary STL."""


class SolidOptions(BaseModel):
    """What `--set KEY=VALUE` of the formats stl and obj can say."""

    depth: float = Field(
        default=10.0,
        gt=0,
        le=10_000,
        description="metres from the lowest ground to the underside of the ground",
    )
    sunk: float = Field(
        default=1.0,
        gt=0,
        le=10_000,
        description="metres of a building's base below the lowest ground under it",
    )


class StlOptions(SolidOptions):
    """What `earthgen export --format stl --set KEY=VALUE` can say."""

    binary: bool = Field(
        default=False,
        description="binary files, a fifth as large; they have no names of solids, which OpenFOAM "
        "makes patches of",
    )


class _SolidExporter:
    """What both formats share."""

    name = ""
    options: SolidOptions

    def _solids(
        self, world: World, out: Path, bounds: Bounds | None, level: int, progress: Progress
    ) -> tuple[Iterator[Solid], dict[str, Any]]:
        """Return the solids, the ground first, and the record for the sidecar."""
        selection = select(world, bounds, level)
        frame = selection.frame
        if frame.nx * frame.ny > MOST_CELLS:
            raise SizeError(
                f"{frame.nx * frame.ny:,} cells are too many for solids, which are made in memory: "
                f"at most {MOST_CELLS:,}",
                "give a smaller `bounds`, or a coarser `level`",
            )
        anchor = anchor_of(world, selection)
        record = placement_record(world, selection, anchor, up="z")
        return self._made(world, out, frame, level, anchor, progress), record

    def _made(
        self,
        world: World,
        out: Path,
        frame: Frame,
        level: int,
        anchor: tuple[float, float, float],
        progress: Progress,
    ) -> Iterator[Solid]:
        progress.start(f"export {self.name}", 2)
        with tempfile.TemporaryDirectory(prefix=".columns", dir=out) as folder:
            reader = ColumnReader(world, Path(folder))
            columns = reader.columns(frame, level).padded(HALO)
        if not np.isfinite(columns.ground).any():
            raise StoreError(
                f"world {world.path} has nothing within {extent(frame.bounds)}",
                "give bounds where it has data",
            )
        yield ground_solid(columns, anchor, depth=self.options.depth)
        progress.step("ground")
        yield from building_solids(columns, level, anchor, depth=self.options.sunk)
        progress.step("buildings")


class StlExporter(_SolidExporter):
    """Write world_terrain.stl, world_buildings.stl and world.stl.json.

    Coordinates are east, north and up in metres from the anchor in the JSON file. Text files name
    each solid ("building_4711").

    Parameters
    ----------
    options : StlOptions, optional
    """

    name = "stl"

    def __init__(self, options: StlOptions | None = None) -> None:
        self.options: StlOptions = options or StlOptions()

    def export(
        self, world: World, out: Path, *, bounds: Bounds | None, level: int, progress: Progress
    ) -> list[Path]:
        """Write into the folder `out`; see `earthgen.Exporter`.

        Raises
        ------
        StoreError, RegionError
            If the world has no such level, no finished tile, or nothing within `bounds`.
        SizeError
            If the region is too large.
        JobError
            If manifold3d is not installed.
        """
        solids, record = self._solids(world, out, bounds, level, progress)
        paths = [out / "world_terrain.stl", out / "world_buildings.stl"]
        names = []
        with paths[0].open("wb") as terrain, paths[1].open("wb") as buildings:
            files = [_StlFile(file, self.options.binary) for file in (terrain, buildings)]
            for solid in solids:
                files[0 if solid.name == "terrain" else 1].write(solid)
                names.append(solid.name)
            for file in files:
                file.close()
        return [*paths, _sidecar(out / "world.stl.json", record, names)]


class _StlFile:
    """Writes solids one after the other."""

    def __init__(self, file: IO[bytes], binary: bool) -> None:
        self.file, self.binary, self.count = file, binary, 0
        if binary:
            file.write(bytes(84))

    def write(self, solid: Solid) -> None:
        corners = solid.vertices[solid.triangles]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        self.count += len(corners)
        if self.binary:
            facets = np.zeros(len(corners), FACET)
            facets["normal"], facets["corners"] = normal, corners
            self.file.write(facets.tobytes())
            return
        rows = np.concatenate([normal, corners.reshape(-1, 9)], axis=1)
        facet = (
            "facet normal %.6g %.6g %.6g\n outer loop\n  vertex %.4f %.4f %.4f\n"
            "  vertex %.4f %.4f %.4f\n  vertex %.4f %.4f %.4f\n endloop\nendfacet\n"
        )
        text = "".join([facet % tuple(row) for row in rows.tolist()])
        self.file.write(f"solid {solid.name}\n{text}endsolid {solid.name}\n".encode("ascii"))

    def close(self) -> None:
        """Write the header of a binary file."""
        if self.binary:
            self.file.seek(0)
            header = f"earthgen {__version__}".encode().ljust(80, b" ")
            self.file.write(header + np.uint32(self.count).tobytes())


class ObjExporter(_SolidExporter):
    """Write world.obj, an object for the terrain and for each building, and world.obj.json.

    Coordinates are east, north and up in metres from the anchor in the JSON file.

    Parameters
    ----------
    options : SolidOptions, optional
    """

    name = "obj"

    def __init__(self, options: SolidOptions | None = None) -> None:
        self.options: SolidOptions = options or SolidOptions()

    def export(
        self, world: World, out: Path, *, bounds: Bounds | None, level: int, progress: Progress
    ) -> list[Path]:
        """Write into the folder `out`; see `earthgen.Exporter`.

        Raises
        ------
        StoreError, RegionError
            If the world has no such level, no finished tile, or nothing within `bounds`.
        SizeError
            If the region is too large.
        JobError
            If manifold3d is not installed.
        """
        solids, record = self._solids(world, out, bounds, level, progress)
        path = out / "world.obj"
        names, first = [], 1
        with path.open("w", encoding="ascii", newline="\n") as file:
            file.write(f"# earthgen {__version__}: metres, x east, y north, z up\n")
            file.write("# anchor {!r} {!r} {!r}\n".format(*record["anchor"]))
            for solid in solids:
                file.write(f"o {solid.name}\n")
                file.write(_lines("v %.4f %.4f %.4f\n", solid.vertices))
                file.write(_lines("f %d %d %d\n", solid.triangles + first))
                first += len(solid.vertices)
                names.append(solid.name)
        return [path, _sidecar(out / "world.obj.json", record, names)]


def _lines(form: str, rows: NDArray) -> str:
    return "".join([form % tuple(row) for row in rows.tolist()])


def _sidecar(path: Path, record: dict[str, Any], names: list[str]) -> Path:
    text = json.dumps({**record, "solids": names}, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", "utf-8")
    return path
