"""The surface of a world as binary glTF 2.0: smooth (`earthgen.mesh`), or the cubes of its voxels.

Axes are those of glTF: x east, y up, z south, relative to the anchor in the scene's extras. Colours
(COLOR_0) are linear RGB, as the specification requires, in 16 bits, because 8 bits would show steps
in dark forests. Cubes are one node and mesh for each tile; they have no normals, so that viewers
shade each face flat, as the specification requires.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pygltflib as gltf
from numpy.typing import NDArray
from pydantic import BaseModel, Field

import earthgen
from earthgen.errors import JobError, StoreError
from earthgen.mesh.gltf import GlbScene
from earthgen.mesh.pieces import has_trees, make_piece, make_trees, piece_cells
from earthgen.mesh.reader import ColumnReader
from earthgen.mesh.tile import LINEAR, TileMesh
from earthgen.mesh.trees import Trees
from earthgen.progress import Progress
from earthgen.render.mesh import Mesh, pieces, surface_mesh
from earthgen.voxels.splat_math import base_colours
from earthgen.world.selection import Selection, anchor_of, credit_of, placement_record, select
from earthgen.world.world import World
from geo_io.frame import Bounds, extent

FACES_LIMIT = 4_000_000
"""A mesh of more quads is written as one file for each tile: larger files are too large for most
viewers."""


Piece = tuple[str, TileMesh, Trees | None]
"""Name and content of a piece of a smooth mesh."""

Tile = tuple[int, int]

P = TypeVar("P")
"""A piece of a smooth mesh, or a part of cubes."""


class GlbOptions(BaseModel):
    """What `earthgen export --format glb --set KEY=VALUE` can say."""

    style: Literal["smooth", "voxel"] = Field(
        default="smooth",
        description="smooth: exact roofs and terrain, upright walls; voxel: cubes",
    )
    trees: Literal["mesh", "instances"] = Field(
        default="mesh",
        description="instances: one model for all trees (EXT_mesh_gpu_instancing), at levels 1 and "
        "2 of the smooth style",
    )


@dataclass(frozen=True)
class Part:
    """The mesh of one tile in the form of glTF.

    Attributes
    ----------
    name : str
        Name of the node.
    position : NDArray (v, 3) float32
        x east, y up, z south, metres.
    colour : NDArray (v, 4) uint16
        Linear RGBA.
    triangle : NDArray (t, 3) uint32
        Vertices.
    """

    name: str
    position: NDArray
    colour: NDArray
    triangle: NDArray


class GlbExporter:
    """Write world.glb, or world_TX_TY.glb for each tile of a world of more than `faces_limit`
    faces.

    All files of one export share their anchor, so that they fit together. A coarser `level` makes
    smaller files.

    Parameters
    ----------
    options : GlbOptions, optional
    faces_limit : int
        Largest number of quads of a single file; half the number of triangles of a smooth one.
    """

    name = "glb"

    def __init__(self, options: GlbOptions | None = None, faces_limit: int = FACES_LIMIT) -> None:
        self.options = options or GlbOptions()
        self.faces_limit = faces_limit

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
        extras = placement_record(world, selection, anchor, up="y")
        if self.options.trees == "instances" and not (
            self.options.style == "smooth" and has_trees(level)
        ):
            raise JobError(
                f"level {level} in the style {self.options.style} does not tell trees apart",
                "give level 1 or 2 and the style smooth, or `trees` as mesh",
            )
        out.mkdir(parents=True, exist_ok=True)
        progress.start("export glb", len(selection.tiles))
        make = self._smooth if self.options.style == "smooth" else self._cubes
        written = make(world, selection, out, anchor, extras, progress)
        if not written:
            raise StoreError(
                f"world {world.path} has no voxels within {extent(selection.frame.bounds)}",
                "give bounds where it has data",
            )
        return written

    def _smooth(
        self,
        world: World,
        selection: Selection,
        out: Path,
        anchor: tuple[float, float, float],
        extras: dict[str, Any],
        progress: Progress,
    ) -> list[Path]:
        credit = credit_of(world)
        with tempfile.TemporaryDirectory(prefix=".columns", dir=out) as folder:
            reader = ColumnReader(world, Path(folder))
            tiles = self._meshes(world, selection, reader, progress)
            written = []
            for name, parts in _files(tiles, 2 * self.faces_limit):
                written.append(out / name)
                written[-1].write_bytes(_scene(parts, anchor, credit, extras))
            return written

    def _meshes(
        self, world: World, selection: Selection, reader: ColumnReader, progress: Progress
    ) -> Iterator[tuple[Tile, list[Piece], int]]:
        """Yield the meshes of each tile, and their triangles."""
        level, instanced = selection.level, self.options.trees == "instances"
        n = piece_cells(world.frame.voxel_size, level)
        for tile in selection.tiles:
            part = selection.tile(world, *tile)
            assert part is not None  # the selection has only tiles that it meets
            meshes: list[Piece] = []
            triangles = 0
            for x, y in part.tiles(n):
                at = (reader, part, level, x, y, n)
                mesh = make_piece(*at, trees=not instanced)
                if mesh is not None:
                    name = f"tile_{level}_{x}_{y}"
                    meshes.append((name, mesh, make_trees(*at) if instanced else None))
                    triangles += mesh.triangles
            yield tile, meshes, triangles
            progress.step("tile {}, {}".format(*tile))

    def _cubes(
        self,
        world: World,
        selection: Selection,
        out: Path,
        anchor: tuple[float, float, float],
        extras: dict[str, Any],
        progress: Progress,
    ) -> list[Path]:
        tiles = _cubes_of(world, selection, anchor, progress)
        return [
            write_glb(out / name, parts, extras) for name, parts in _files(tiles, self.faces_limit)
        ]


def _cubes_of(
    world: World, selection: Selection, anchor: tuple[float, float, float], progress: Progress
) -> Iterator[tuple[Tile, list[Part], int]]:
    """Yield the part of each tile, if it has any, and its quads."""
    for piece in pieces(world, selection):
        mesh = surface_mesh(piece, anchor)
        parts = []
        if len(mesh.quads):
            name = "tile_{}_{}".format(*piece.tile)
            parts = [make_part(name, mesh, base_colours(piece.splats.sh))]
        yield piece.tile, parts, len(mesh.quads)
        progress.step("tile {}, {}".format(*piece.tile))


def _files(tiles: Iterable[tuple[Tile, list[P], int]], limit: int) -> Iterator[tuple[str, list[P]]]:
    """Yield the name of each file and its parts: one for all tiles if their faces are within a
    limit, else one for each tile."""
    held: list[tuple[Tile, list[P]]] = []
    faces = 0
    for tile, parts, count in tiles:
        faces += count
        if parts:
            held.append((tile, parts))
        if faces > limit:
            for place, some in held:
                yield "world_{}_{}.glb".format(*place), some
            held = []
    if faces and held:
        yield "world.glb", [part for _, some in held for part in some]


def _scene(
    parts: list[Piece],
    anchor: tuple[float, float, float],
    credit: str,
    extras: dict[str, Any],
) -> bytes:
    scene = GlbScene(anchor, copyright_text=credit, extras=extras)
    for name, mesh, trees in parts:
        scene.add_mesh(name, mesh)
        if trees is not None:
            scene.add_trees(f"trees_{name}", trees)
    return scene.pack()


def make_part(name: str, mesh: Mesh, rgb: NDArray) -> Part:
    """A mesh with the colours (n, 3) uint8 sRGB of its voxels, in glTF's axes and primitives."""
    east, north, up = mesh.vertices.T
    colour = np.full((len(mesh.vertices), 4), 65535, np.uint16)
    colour[:, :3] = LINEAR[rgb[mesh.owner]]
    triangle = np.ascontiguousarray(mesh.quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3), np.uint32)
    return Part(name, np.stack([east, up, -north], axis=1), colour, triangle)


def write_glb(path: Path, parts: list[Part], extras: dict[str, Any]) -> Path:
    """Write parts as the nodes of one scene, which carries `extras`. Returns the path."""
    document = gltf.GLTF2(
        asset=gltf.Asset(version="2.0", generator=f"earthgen {earthgen.__version__}"),
        scene=0,
        scenes=[gltf.Scene(name="earthgen", nodes=list(range(len(parts))), extras=extras)],
        materials=[
            gltf.Material(
                name="surface",
                doubleSided=False,
                pbrMetallicRoughness=gltf.PbrMetallicRoughness(
                    baseColorFactor=[1.0, 1.0, 1.0, 1.0], metallicFactor=0.0, roughnessFactor=1.0
                ),
            )
        ],
    )
    chunks: list[bytes] = []
    size = 0

    def add(data: NDArray, component: int, kind: str, target: int, **more: Any) -> int:
        """Append an array, whose rows are multiples of four bytes, as an accessor. Returns its
        index."""
        nonlocal size
        raw = data.tobytes()
        stride = data.itemsize * data.shape[1] if target == gltf.ARRAY_BUFFER else None
        document.bufferViews.append(
            gltf.BufferView(
                buffer=0, byteOffset=size, byteLength=len(raw), byteStride=stride, target=target
            )
        )
        count = len(data) if target == gltf.ARRAY_BUFFER else data.size
        document.accessors.append(
            gltf.Accessor(
                bufferView=len(document.bufferViews) - 1,
                byteOffset=0,
                componentType=component,
                count=count,
                type=kind,
                **more,
            )
        )
        chunks.append(raw)
        size += len(raw)
        return len(document.accessors) - 1

    for number, part in enumerate(parts):
        low, high = part.position.min(axis=0), part.position.max(axis=0)
        position = add(
            part.position,
            gltf.FLOAT,
            gltf.VEC3,
            gltf.ARRAY_BUFFER,
            min=[float(value) for value in low],
            max=[float(value) for value in high],
        )
        colour = add(
            part.colour, gltf.UNSIGNED_SHORT, gltf.VEC4, gltf.ARRAY_BUFFER, normalized=True
        )
        index = add(part.triangle, gltf.UNSIGNED_INT, gltf.SCALAR, gltf.ELEMENT_ARRAY_BUFFER)
        attributes = gltf.Attributes(POSITION=position, COLOR_0=colour)
        primitive = gltf.Primitive(
            attributes=attributes, indices=index, material=0, mode=gltf.TRIANGLES
        )
        document.meshes.append(gltf.Mesh(name=part.name, primitives=[primitive]))
        document.nodes.append(gltf.Node(name=part.name, mesh=number))
    document.buffers = [gltf.Buffer(byteLength=size)]
    document.set_binary_blob(b"".join(chunks))
    document.save_binary(str(path))
    return path
