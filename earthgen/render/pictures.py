"""Pictures of worlds that are larger than memory, window by window.

A window of the picture is drawn at once from every Gaussian that may touch it, in the order of the
world. So its pixels are those of the whole picture: neither windows nor borders of tiles are
visible. Memory holds one window, the Gaussians that touch it, and the tiles used last.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from cachetools import LRUCache
from numpy.typing import NDArray

from earthgen.errors import SplatError
from earthgen.progress import Progress
from earthgen.splats.cameras.camera import Camera
from earthgen.splats.gaussians import Anchor, Gaussians, from_voxels
from earthgen.splats.raster.model import LEAST_ALPHA, Rendering
from earthgen.splats.raster.rendering import rasterize
from earthgen.splats.tensors import SplatTensors
from earthgen.world.selection import Selection, select
from earthgen.world.world import World
from geo_io.frame import Bounds

WINDOW = 512
"""Edge of a window, pixels."""

LEAST_WINDOW = 64
"""Smallest edge to which a window with too many Gaussians is divided, pixels."""

CELL = 32
"""Voxels along the edge of the squares of a tile that are drawn or omitted together."""

TILES = 400_000_000
"""Bytes of Gaussians of tiles that are cached for the next windows."""

MOST = 4_000_000
"""Gaussians above which a window is divided."""

ANCHORS = 4096.0
"""Metres between anchors, so that the cameras of a path share one."""

REACH = math.sqrt(2 * math.log(1 / LEAST_ALPHA))
"""Standard deviations from the mean beyond which an opaque Gaussian covers less than `LEAST_ALPHA`
of a pixel."""

SPREAD = 4.0
"""Reach of the low-pass filter in pixels, `REACH` * sqrt(1/2), rounded up with a margin."""


@dataclass(frozen=True)
class Boxes:
    """Axis-aligned boxes: (m, 3) float64 low and high corners, metres relative to an anchor."""

    low: NDArray
    high: NDArray


@dataclass(frozen=True)
class Part:
    """A tile of the world, (tx, ty), and the level of detail at which it is drawn."""

    tile: tuple[int, int]
    level: int


@dataclass(frozen=True)
class Cells:
    """The Gaussians of a tile, square by square of `CELL` voxels.

    Attributes
    ----------
    gaussians : Gaussians
        n Gaussians, sorted by square.
    starts : NDArray (m + 1,) int64
        Where the Gaussians of each square begin, and n.
    boxes : Boxes
        m boxes around the reach of the squares' Gaussians.
    """

    gaussians: Gaussians
    starts: NDArray
    boxes: Boxes

    @property
    def nbytes(self) -> int:
        """Size of the Gaussians, bytes."""
        g = self.gaussians
        return sum(
            a.nbytes for a in (g.means, g.scales, g.rotations, g.opacities, g.sh, g.semantic)
        )


@dataclass(frozen=True)
class Window:
    """Rows [row, row + h) and columns [column, column + w) of a picture, and their rendering."""

    row: int
    column: int
    rendering: Rendering

    @property
    def place(self) -> tuple[slice, slice]:
        """Index of the window in an array of the whole picture."""
        h, w = self.rendering.alpha.shape
        return slice(self.row, self.row + h), slice(self.column, self.column + w)


def draw(
    world: World,
    camera: Camera,
    *,
    bounds: Bounds | None = None,
    level: int | None = None,
    background: Sequence[float] = (0.0, 0.0, 0.0),
    window: int = WINDOW,
    detail: float = 1.0,
    tiles: Tiles | None = None,
    rasterizer: str | None = None,
    progress: Progress | None = None,
) -> Iterator[Window]:
    """Draw a world, and yield the windows of the picture row by row from the upper left.

    Parameters
    ----------
    world : World
        The world.
    camera : Camera
        The camera, in the CRS of the world.
    bounds : tuple of float, optional
        Left, bottom, right, top in metres of the CRS: the part to draw; by default all of it.
    level : int, optional
        Level of detail. By default each tile has the coarsest level whose voxels are, at the tile's
        nearest point, not larger than `detail` pixels, otherwise the finest.
    background : sequence of float
        sRGB colour.
    window : int
        Edge of a window, pixels. Windows with too many Gaussians are divided further.
    detail : float
        Largest size of voxels, pixels.
    tiles : Tiles, optional
        Tiles of this world and these bounds, so that several pictures read them once.
    rasterizer : str, optional
        Name of the rasterizer, see `earthgen.splats.rasterize`.
    progress : Progress, optional
        Is told of each finished row of windows, as task "render".

    Raises
    ------
    SplatError
        If the camera is in another CRS than the world.
    StoreError, RegionError
        If the world has no such level, or no finished tile within the bounds.
    """
    if camera.crs and camera.crs != world.frame.crs:
        raise SplatError(
            f"the camera is in {camera.crs}, world {world.path} is in {world.frame.crs}",
            "give the camera in the world's CRS",
        )
    if level is not None:
        world.level_frame(level)  # raises StoreError if there is none
    tiles = tiles or Tiles(world, bounds)
    eye = anchor_near(camera)
    parts, boxes = _seen(tiles, camera, eye, level, detail)
    progress = progress or Progress()
    rows = range(0, camera.height, window)
    progress.start("render", len(rows))
    for number, row in enumerate(rows):
        for column in range(0, camera.width, window):
            size = (min(window, camera.height - row), min(window, camera.width - column))
            yield from _window(
                camera, row, column, size, parts, boxes, tiles, eye, background, rasterizer
            )
        progress.step(
            f"rows {row} to {min(row + window, camera.height)}, {number + 1} of {len(rows)}"
        )


def _window(
    camera: Camera,
    row: int,
    column: int,
    size: tuple[int, int],
    parts: Sequence[Part],
    boxes: Boxes,
    tiles: Tiles,
    anchor: Anchor,
    background: Sequence[float],
    rasterizer: str | None,
) -> Iterator[Window]:
    view = camera.crop(row, row + size[0], column, column + size[1])
    near = touches(view, boxes, anchor)
    chosen = [part for part, visible in zip(parts, near, strict=True) if visible]
    visible_parts, total, halves = [], 0, _halves(size)
    for part in chosen:
        cells = tiles.cells(part, anchor)
        rows = np.flatnonzero(touches(view, cells.boxes, anchor))
        total += int((cells.starts[rows + 1] - cells.starts[rows]).sum())
        if total > MOST and halves:
            # Nothing has been drawn yet: the parts of the window need fewer tiles and Gaussians.
            for top, left, height, width in halves:
                yield from _window(
                    camera,
                    row + top,
                    column + left,
                    (height, width),
                    parts,
                    boxes,
                    tiles,
                    anchor,
                    background,
                    rasterizer,
                )
            return
        if len(rows):
            visible_parts.append(cells.gaussians.take(_runs(cells.starts, rows)))
    gaussians = (
        Gaussians.concatenate(visible_parts)
        if visible_parts
        else Gaussians.empty(anchor, camera.crs, camera.vertical_crs)
    )
    with torch.no_grad():
        splats = SplatTensors.of(gaussians)
        yield Window(
            row, column, rasterize(splats, view, background=background, rasterizer=rasterizer)
        )


def _halves(size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """(row, column, height, width) of the quarters of a window; empty if they would be too
    small."""
    if max(size) <= LEAST_WINDOW:
        return []
    # Even numbers of rows and columns stay even, for pictures with two samples along each edge of a
    # pixel.
    cuts = [length // 4 * 2 if length > LEAST_WINDOW else 0 for length in size]
    spans = [
        [(0, n)] if not cut else [(0, cut), (cut, n - cut)]
        for n, cut in zip(size, cuts, strict=True)
    ]
    return [
        (top, left, height, width) for (top, height), (left, width) in itertools.product(*spans)
    ]


def anchor_near(camera: Camera) -> Anchor:
    """A point less than `ANCHORS` metres from the camera on each axis, which nearby cameras share.

    Near the camera, float32 positions relative to it are precise to half a millimetre.
    """
    x, y, z = (math.floor(value / ANCHORS) * ANCHORS for value in camera.position)
    return x, y, z


def touches(camera: Camera, boxes: Boxes, anchor: Anchor) -> NDArray:
    """(m,) bool: which boxes may be visible; never False for a visible one.

    A box counts as visible unless all its corners are outside one side of the view, extended by
    `SPREAD` pixels.
    """
    turn, shift = camera.world_to_camera(anchor)
    corners = [
        np.where(choice, boxes.high, boxes.low)
        for choice in itertools.product((False, True), repeat=3)
    ]
    seen = np.stack([corner @ turn.T + shift for corner in corners])  # (8, m, 3)
    x, y, z = seen[..., 0], seen[..., 1], seen[..., 2]
    # The edge of a pinhole camera's picture is a plane through the eye: u = fx x / z + cx becomes
    # fx x + (cx - u) z = 0.
    depth = z if camera.kind == "pinhole" else np.ones_like(z)
    inside = (z.max(0) > camera.near) & (z.min(0) < camera.far)
    for f, centre, along, size in (
        (camera.fx, camera.cx, x, camera.width),
        (camera.fy, camera.cy, y, camera.height),
    ):
        inside &= (f * along + (centre + SPREAD) * depth >= 0).any(0)
        inside &= (f * along + (centre - size - SPREAD) * depth <= 0).any(0)
    return inside


def _seen(
    tiles: Tiles, camera: Camera, anchor: Anchor, level: int | None, detail: float
) -> tuple[list[Part], Boxes]:
    """The tiles that may be visible, in the order of the world, and boxes around them."""
    world, selection = tiles.world, tiles.selection
    frame = world.frame
    # Offsets and reach of the coarsest Gaussians, which bound how far a tile extends.
    margin = (REACH + 2) * max(world.levels) * frame.voxel_size
    parts, low, high = [], [], []
    for tile in selection.tiles:
        part = selection.tile(world, *tile)
        if part is None:
            continue
        left, bottom, right, top = part.bounds
        box = Boxes(
            np.array([[left - margin, bottom - margin, -np.inf]]) - anchor,
            np.array([[right + margin, top + margin, np.inf]]) - anchor,
        )
        if not _touches_column(camera, box, anchor):
            continue  # before its heights are read
        heights = tiles.heights(tile)
        if heights is None:
            continue
        box.low[0, 2] = heights[0] + frame.z[0] * frame.voxel_size - margin - anchor[2]
        box.high[0, 2] = heights[1] + margin - anchor[2]
        if not touches(camera, box, anchor)[0]:
            continue
        bare = Boxes(box.low + margin, box.high - margin)
        parts.append(Part(tile, level or _level(world, camera, bare, anchor, detail)))
        low.append(box.low[0])
        high.append(box.high[0])
    shape = (len(parts), 3)
    return parts, Boxes(np.reshape(low, shape), np.reshape(high, shape))


def _touches_column(camera: Camera, box: Boxes, anchor: Anchor) -> bool:
    """Whether a box may be visible for any heights within 10 km of the anchor's."""
    tall = Boxes(box.low.copy(), box.high.copy())
    tall.low[:, 2], tall.high[:, 2] = -10_000.0, 10_000.0
    return bool(touches(camera, tall, anchor)[0])


def _level(world: World, camera: Camera, box: Boxes, anchor: Anchor, detail: float) -> int:
    """The coarsest level with voxels of at most `detail` pixels at the box's nearest point,
    otherwise the finest."""
    pixel = 1 / max(camera.fx, camera.fy)
    if camera.kind == "pinhole":
        eye = np.asarray(camera.position) - np.asarray(anchor)
        gap = np.maximum(np.maximum(box.low[0] - eye, eye - box.high[0]), 0)
        pixel *= max(float(np.linalg.norm(gap)), camera.near)
    fitting = [level for level in world.levels if level * world.frame.voxel_size <= detail * pixel]
    return max(fitting, default=min(world.levels))


class Tiles:
    """The tiles of a world, or of a part of it, for pictures; those used last are cached.

    Parameters
    ----------
    world : World
        The world.
    bounds : tuple of float, optional
        Left, bottom, right, top in metres of the CRS; by default the whole world.
    most : int
        Size of the cache, bytes.
    """

    def __init__(self, world: World, bounds: Bounds | None = None, most: int = TILES) -> None:
        self.world = world
        self.bounds = bounds
        self.selection = select(world, bounds, 1)
        self._layers = world.layers()  # lazy: only the layers used below are read
        self._heights: dict[tuple[int, int], tuple[float, float] | None] = {}
        # A larger tile fills the cache alone.
        self._cells: LRUCache[tuple[Part, Anchor], Cells] = LRUCache(
            most, getsizeof=lambda cells: min(cells.nbytes, most)
        )

    def heights(self, tile: tuple[int, int]) -> tuple[float, float] | None:
        """Lowest ground and highest surface of a tile, metres; None if it has no ground."""
        if tile not in self._heights:
            place = self.world.frame.slices(self.world.tile_frame(*tile))
            ground, surface = (
                np.asarray(self._layers[name][place].values) for name in ("ground", "surface")
            )
            known = np.isfinite(ground).any()
            self._heights[tile] = (
                (float(np.nanmin(ground)), float(max(np.nanmax(ground), np.nanmax(surface))))
                if known
                else None
            )
        return self._heights[tile]

    def cells(self, part: Part, anchor: Anchor) -> Cells:
        """The Gaussians of a tile relative to an anchor."""
        key = part, anchor
        if key not in self._cells:
            self._cells[key] = read_cells(self.world, self.selection, part, anchor)
        return self._cells[key]


def read_cells(world: World, selection: Selection, part: Part, anchor: Anchor) -> Cells:
    """Read the Gaussians of a tile within the selection, square by square."""
    frame = world.tile_frame(*part.tile, level=part.level)
    voxels, splats = world.tile_voxels(*part.tile, level=part.level)
    ground = world.tile_layers(*part.tile, level=part.level)["ground"]
    wanted = selection.frame.bounds
    s = frame.voxel_size
    centres = (voxels.xyz[:, :2].astype(np.float64) + 0.5) * s
    inside = np.all((centres >= wanted[:2]) & (centres < wanted[2:]), axis=1)
    if not inside.all():
        voxels, splats = voxels.take(inside), splats.take(inside)
    gaussians = from_voxels(voxels, splats, ground, anchor)
    square = voxels.xyz[:, :2] // CELL
    square -= (frame.x[0] // CELL, frame.y[0] // CELL)
    across = -(-frame.x[1] // CELL) - frame.x[0] // CELL
    number = square[:, 1].astype(np.int64) * across + square[:, 0]
    order = np.argsort(number, kind="stable")
    number = number[order]
    first = np.flatnonzero(np.diff(number, prepend=-1))
    gaussians = gaussians.take(order)
    if not len(gaussians):
        return Cells(gaussians, np.zeros(1, np.int64), Boxes(np.empty((0, 3)), np.empty((0, 3))))
    reach = (REACH * gaussians.scales.max(1))[:, None]
    low = np.minimum.reduceat(gaussians.means - reach, first).astype(np.float64)
    high = np.maximum.reduceat(gaussians.means + reach, first).astype(np.float64)
    return Cells(gaussians, np.append(first, len(gaussians)), Boxes(low, high))


def _runs(starts: NDArray, rows: NDArray) -> NDArray:
    """The numbers in [starts[row], starts[row + 1]) of each row, one range after the other."""
    lengths = starts[rows + 1] - starts[rows]
    ends = np.cumsum(lengths)
    return np.arange(ends[-1]) + np.repeat(starts[rows] - (ends - lengths), lengths)
