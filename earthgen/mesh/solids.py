"""Closed solids of buildings and of the ground, for simulations of wind, sound and light.

A building is the union of prisms, one for each of its roofs, from the roof down to a level base
below the ground. Unions are made by manifold3d (Apache-2.0), which keeps them closed. The ground is
a block with the terrain on top.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from earthgen.errors import JobError
from earthgen.mesh.columns import Columns
from earthgen.mesh.shells import HALO, ROOF, Shells, corner_ground, shells
from earthgen.mesh.terrain import triangulate
from earthgen.mesh.tile import TOLERANCE
from geo_io.legend import classes

MERGED = 1e-3
"""Metres within which vertices are one: the precision that STL and OBJ files of a few kilometres
keep."""

INSTALL = "pip install 'earthgen[solids]'"


@dataclass(frozen=True)
class Solid:
    """A closed mesh.

    Attributes
    ----------
    name : str
        Such as "building_4711".
    vertices : NDArray (v, 3) float64
        East, north, up, metres from an anchor.
    triangles : NDArray (t, 3) int
        Vertices, counter-clockwise from outside.
    """

    name: str
    vertices: NDArray
    triangles: NDArray

    def volume(self) -> float:
        """Return the volume, cubic metres."""
        a, b, c = (self.vertices[self.triangles[:, k]] for k in range(3))
        return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def open_edges(vertices: NDArray, triangles: NDArray) -> int:
    """Return the number of edges that have not exactly two triangles, one each way.

    Vertices within `MERGED` of each other count as one, as for programs that read STL files.
    """
    keys = np.rint(vertices / MERGED).astype(np.int64)
    _, index = np.unique(keys, axis=0, return_inverse=True)
    corners = index.reshape(-1)[triangles]
    edges = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    n = int(index.max()) + 1 if len(index) else 1
    there = edges[:, 0].astype(np.int64) * n + edges[:, 1]
    back = edges[:, 1].astype(np.int64) * n + edges[:, 0]
    unique, count = np.unique(there, return_counts=True)
    flat = int((edges[:, 0] == edges[:, 1]).sum())
    return int((count != 1).sum()) + int((~np.isin(unique, back)).sum()) + flat


def building_solids(
    columns: Columns,
    level: int,
    anchor: tuple[float, float, float],
    *,
    depth: float,
    names: frozenset[str] = frozenset({"building"}),
) -> Iterator[Solid]:
    """Yield the solids of the buildings in the inner columns.

    Parameters
    ----------
    columns : Columns
        With a margin of HALO cells.
    level : int
        Of the columns.
    anchor : tuple of float
        Origin of the results: CRS metres.
    depth : float
        Metres of the base below the lowest ground under the building.
    names : frozenset of str
        Names of the classes that count as buildings.

    Raises
    ------
    JobError
        If manifold3d is not installed.
    """
    manifold = _manifold()
    codes = [land.code for land in classes() if land.name in names]
    slabs = columns.slabs
    wanted = ~slabs.crown & np.isin(slabs.semantic, codes)
    if not wanted.any():
        return
    stepped = _roofs(columns, level, anchor, wanted, steps=True)
    sloped = None
    ground = columns.ground.ravel()[_cells(columns)]
    order = np.argsort(slabs.object, kind="stable")
    order = order[wanted[order]]
    numbers, first = np.unique(slabs.object[order], return_index=True)
    for number, rows in zip(numbers, np.split(order, first[1:]), strict=True):
        base = float(np.nanmin(ground[rows])) - depth - anchor[2]
        solid = _solid(manifold, stepped, rows, base, slabs.bottom, ground - anchor[2])
        if solid is None:  # roofs that touch in a line or in themselves: slopes instead of steps
            sloped = sloped or _roofs(columns, level, anchor, wanted, steps=False)
            solid = _solid(manifold, sloped, rows, base, slabs.bottom, ground - anchor[2])
        if solid is not None:
            name = f"building_{number}" if number else "other_buildings"
            yield Solid(name, *solid)


def _manifold() -> Any:
    try:
        import manifold3d
    except ImportError as error:
        raise JobError(
            "closed solids are made with manifold3d, which is not installed", INSTALL
        ) from error
    return manifold3d


def _cells(columns: Columns) -> NDArray:
    start = columns.slabs.start
    return np.repeat(np.arange(len(start) - 1), np.diff(start))


@dataclass(frozen=True)
class _Roofs:
    """Roofs by connected part.

    position : NDArray (v, 3) metres from the anchor
    triangles : NDArray (t, 3), sorted by slab
    slab : NDArray (t,) slab of each triangle
    label : NDArray (v,) part of each vertex
    """

    position: NDArray
    triangles: NDArray
    slab: NDArray
    label: NDArray


def _roofs(
    columns: Columns, level: int, anchor: tuple[float, float, float], wanted: NDArray, steps: bool
) -> _Roofs:
    made: Shells = shells(columns, level, closed=True, steps=steps)
    inner = columns.frame.pad(-HALO)
    size = inner.voxel_size
    position = made.position * np.array([size, size, 1.0])
    position += np.array([inner.x[0] * size, inner.y[0] * size, 0.0]) - np.asarray(anchor)
    slab = made.slab[made.triangles[:, 0]]
    keep = (made.part == ROOF) & wanted[slab]
    # A shared vertex belongs to one of its slabs, but the triangles of a cell follow each other.
    triangles = made.triangles[keep]
    ends = triangles[:, [0, 1, 1, 2]].reshape(-1, 2)
    graph = coo_matrix((np.ones(len(ends), bool), ends.T), shape=(len(position),) * 2)
    _, label = connected_components(graph, directed=False)
    return _Roofs(position, triangles, slab[keep], label)


def _solid(
    manifold: Any,
    roofs: _Roofs,
    rows: NDArray,
    base: float,
    bottom: NDArray,
    ground: NDArray,
) -> tuple[NDArray, NDArray] | None:
    """Return the union of an object's prisms; None if it would not be closed."""
    mine = np.isin(roofs.slab, rows)
    triangles = roofs.triangles[mine]
    if not len(triangles):
        return None
    slab, label = roofs.slab[mine], roofs.label[triangles[:, 0]]
    prisms = []
    for part in np.unique(label):
        here = label == part
        owners = np.unique(slab[here])
        low = base
        if (bottom[owners] > 0).all():  # it floats
            low = float((ground[owners] + bottom[owners]).min())
        vertices, faces = _prism(roofs.position, triangles[here], low)
        mesh = manifold.Mesh64(
            np.ascontiguousarray(vertices), np.ascontiguousarray(faces, np.uint64)
        )
        prism = manifold.Manifold(mesh)
        if prism.status() != manifold.Error.NoError:
            return None
        prisms.append(prism)
    whole = prisms[0]
    if len(prisms) > 1:
        whole = manifold.Manifold.batch_boolean(prisms, manifold.OpType.Add)
    whole = whole.simplify(10 * MERGED)
    mesh = whole.to_mesh64()
    # On the grid on which vertices are compared, here and by others.
    vertices = np.rint(np.asarray(mesh.vert_properties)[:, :3] / MERGED) * MERGED
    faces = np.asarray(mesh.tri_verts).astype(np.int64)
    if not len(faces) or open_edges(vertices, faces):
        return None
    return vertices, faces


def _prism(position: NDArray, triangles: NDArray, low: float) -> tuple[NDArray, NDArray]:
    """Return the solid between some triangles and a level."""
    used, index = np.unique(triangles, return_inverse=True)
    top = index.reshape(-1, 3)
    n = len(used)
    upper = position[used]
    upper[:, 2] = np.maximum(upper[:, 2], low + 0.1)
    lower = upper.copy()
    lower[:, 2] = low
    edges = np.concatenate([top[:, [0, 1]], top[:, [1, 2]], top[:, [2, 0]]])
    there = edges[:, 0] * n + edges[:, 1]
    rim = edges[~np.isin(there, edges[:, 1] * n + edges[:, 0])]
    a, b = rim.T
    walls = [np.stack([b, a, a + n], axis=1), np.stack([b, a + n, b + n], axis=1)]
    faces = np.concatenate([top, top[:, ::-1] + n, *walls])
    return np.concatenate([upper, lower]), faces


def ground_solid(columns: Columns, anchor: tuple[float, float, float], *, depth: float) -> Solid:
    """Return the block below the terrain of the inner columns that have ground.

    Parameters
    ----------
    columns : Columns
        With a margin of HALO cells.
    anchor : tuple of float
        Origin of the result: CRS metres.
    depth : float
        Metres from the lowest ground to the level underside.
    """
    inner = columns.frame.pad(-HALO)
    size = inner.voxel_size
    corners = corner_ground(columns.ground)[HALO - 1 : -HALO + 1, HALO - 1 : -HALO + 1]
    known = np.isfinite(columns.ground[HALO:-HALO, HALO:-HALO])
    n = 2 ** int(np.ceil(np.log2(max(inner.nx, inner.ny, 2))))
    height = np.full((n + 1, n + 1), np.nan)
    height[: inner.ny + 1, : inner.nx + 1] = corners
    cells = np.zeros((n, n), bool)
    cells[: inner.ny, : inner.nx] = known
    surface = triangulate(height, cells, TOLERANCE * size)
    position = np.stack(
        [
            (inner.x[0] + surface.column) * size - anchor[0],
            (inner.y[0] + surface.row) * size - anchor[1],
            height[surface.row, surface.column] - anchor[2],
        ],
        axis=1,
    )
    used = np.unique(surface.triangles)
    low = float(position[used, 2].min()) - depth
    vertices, faces = _prism(position, surface.triangles, low)
    return Solid("terrain", vertices, faces)
