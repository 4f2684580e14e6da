"""The block of earth below an oblique view: its sides, cut buildings, and its shadow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from earthgen.render.corners import ground_corners
from earthgen.render.mesh import NORMALS, Piece, piece_columns, pieces
from earthgen.world.selection import Selection
from earthgen.world.world import World
from earthgen_preview import light
from earthgen_preview.raster import Canvas, draw
from earthgen_preview.views import (
    SAMPLES,
    Light,
    Projection,
    background,
    block_depth,
    unshaded,
)
from geo_io.legend import codes

STRATA = ((0.05, (98, 80, 60)), (0.38, (186, 160, 126)), (1.0, (160, 142, 122)))
"""Layers of the block: down to this share of its depth, this colour."""

SECTION = (150, 142, 136)
"""Colour of buildings that the edge of the region cuts."""


def paint_block(world: World, selection: Selection, eye: Projection, azimuth: float) -> Canvas:
    """Draw the block of earth without the world on it."""
    canvas, base = blank_canvas(world, selection, eye)
    scene = unshaded(azimuth)
    for piece in pieces(world, selection):
        draw_block(canvas, scene, piece, rim_of(piece, selection), eye, base)
    return canvas


def blank_canvas(world: World, selection: Selection, eye: Projection) -> tuple[Canvas, float]:
    """An empty canvas with the shadow of the block, and the height of the block's base, metres."""
    base = eye.low - block_depth(selection.frame.bounds)
    sky = background(eye.shape[0] * SAMPLES)
    return Canvas.blank(eye, SAMPLES, sky, _block_shadow(world, selection, eye, base)), base


def _block_shadow(world: World, selection: Selection, eye: Projection, base: float) -> NDArray:
    """(height, width) float32 share of the light that reaches the ground around the block."""
    height, width = eye.shape
    image = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(image)
    for tile in selection.tiles:
        part = selection.tile(world, *tile)
        if part is None:
            continue
        left, bottom, right, top = part.bounds
        corners = np.array(
            [(x, y, base) for x, y in ((left, bottom), (right, bottom), (right, top), (left, top))]
        )
        across = ((corners - eye.anchor) @ eye.right - eye.left) / eye.metres_per_pixel
        down = (eye.top - (corners - eye.anchor) @ eye.up) / eye.metres_per_pixel
        # The light comes from the left: the shadow lies a little to the right.
        draw.polygon(list(zip(across + 0.006 * width, down + 0.004 * width, strict=True)), fill=255)
    blurred = image.filter(ImageFilter.GaussianBlur(0.009 * max(height, width)))
    return (1 - 0.42 * np.asarray(blurred, np.float32) / 255).astype(np.float32)


def rim_of(piece: Piece, selection: Selection) -> list[NDArray]:
    """Columns beside which the selection ends: (ny, nx) bool for the first four sides of `NORMALS`.

    Rows run from the south, as in the piece's ground.
    """
    known = np.isfinite(piece.ground)
    whole, frame = selection.frame, piece.frame
    x = np.arange(frame.x[0] - 1, frame.x[1] + 1)
    y = np.arange(frame.y[0] - 1, frame.y[1] + 1)
    known &= ((x >= whole.x[0]) & (x < whole.x[1]))[None, :] & (
        (y >= whole.y[0]) & (y < whole.y[1])
    )[:, None]
    here = known[1:-1, 1:-1]
    return [
        here & ~known[1:-1, :-2],
        here & ~known[1:-1, 2:],
        here & ~known[:-2, 1:-1],
        here & ~known[2:, 1:-1],
    ]


def draw_block(
    canvas: Canvas, scene: Light, piece: Piece, rim: list[NDArray], eye: Projection, base: float
) -> None:
    """Draw the earth and the cut buildings at the edge of the world."""
    frame = piece.frame
    s = frame.voxel_size
    corner = ground_corners(piece_columns(piece))
    top = _building_tops(piece)
    vertices: list[NDArray] = []
    colour: list[NDArray] = []
    sides: list[NDArray] = []
    # The two corners of a column that bound each side, the left one first as seen from outside.
    ends = [((0, 1), (0, 0)), ((1, 0), (1, 1)), ((0, 0), (1, 0)), ((1, 1), (0, 1))]
    for side, (left, right) in enumerate(ends):
        if float(NORMALS[side] @ eye.toward) >= 0:
            continue
        rows, columns = np.nonzero(rim[side])
        if not len(rows):
            continue

        def wall(
            low: NDArray,
            high: NDArray,
            rgb: tuple[int, int, int],
            chosen: NDArray,
            inset: float = 0.0,
            rows: NDArray = rows,
            columns: NDArray = columns,
            left: tuple[int, int] = left,
            right: tuple[int, int] = right,
            side: int = side,
        ) -> None:
            quad = np.empty((len(chosen), 4, 3))
            for n, (end, z) in enumerate(((left, low), (right, low), (right, high), (left, high))):
                quad[:, n, 0] = (frame.x[0] + columns[chosen] + end[0]) * s - eye.anchor[0]
                quad[:, n, 1] = (frame.y[0] + rows[chosen] + end[1]) * s - eye.anchor[1]
                quad[:, n, 2] = z[chosen, 0 if end is left else 1] - eye.anchor[2]
            quad -= NORMALS[side] * inset
            vertices.append(quad.reshape(-1, 3).astype(np.float32))
            colour.append(np.tile(light.to_linear(np.array(rgb, np.uint8)), (len(chosen), 1)))
            sides.append(np.full(len(chosen), side, np.uint8))

        ground = np.stack(
            [corner[end[0] + 2 * end[1], rows, columns] for end in (left, right)], axis=1
        )
        every = np.arange(len(rows))
        above = 0.0
        for share, rgb in STRATA:
            wall(ground + (base - ground) * share, ground + (base - ground) * above, rgb, every)
            above = share
        height = top[rows, columns]
        cut = np.flatnonzero(height > 0)
        # Slightly inside, so that a building's own wall shows where it ends with the world.
        wall(ground, ground + height[:, None], SECTION, cut, 0.05 * s)
    if vertices:
        points = np.concatenate(vertices)
        count = len(points) // 4
        own = np.arange(count, dtype=np.int32)
        outward = np.concatenate(sides)
        draw(
            canvas,
            scene,
            points,
            np.arange(4 * count, dtype=np.int32).reshape(-1, 4),
            own,
            outward,
            np.concatenate(colour),
            NORMALS[outward],
            np.zeros(count, bool),
            two_sided=False,
        )


def _building_tops(piece: Piece) -> NDArray:
    """(ny, nx) float32 height above ground of columns whose top is a building, otherwise 0; rows
    from the south."""
    frame, voxels = piece.frame, piece.voxels
    out = np.zeros(frame.shape, np.float32)
    x, y, z = voxels.xyz.T
    last = np.append((x[1:] != x[:-1]) | (y[1:] != y[:-1]), True)[: len(x)]
    chosen = last & (voxels.semantic == codes()["building"])
    height = (z + np.float32(0.5)) * np.float32(frame.voxel_size) + piece.splats.offset[:, 2]
    out[y[chosen] - frame.y[0], x[chosen] - frame.x[0]] = height[chosen]
    return out
