"""The `zbuffer` renderer: a shaded map, or an oblique view of the voxels' surface."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from earthgen.progress import Progress
from earthgen.render.interfaces import View
from earthgen.render.mesh import NORMALS, Piece, corner_heights, pieces, surface_mesh
from earthgen.voxels.splat_math import normals
from earthgen.voxels.tile import colours
from earthgen.world.selection import Selection, select
from earthgen.world.world import World
from earthgen_preview import light
from earthgen_preview.camera import Camera, camera, plinth
from earthgen_preview.picture import with_marks
from earthgen_preview.raster import Canvas, Scene, draw
from earthgen_preview.relief import WATER, Relief, read_relief
from geo_io.legend import codes

PAPER = np.array([247, 245, 240], np.uint8)
HORIZON = np.array([214, 226, 236], np.uint8)
"""Background colours, at the bottom and the top of an oblique view."""

SAMPLES = 2
"""Samples of an oblique view along each edge of a pixel."""

MAP_SUN = (315.0, 45.0)
"""Azimuth and elevation of the sun on maps: by custom in the north-west, whence no sun shines."""

STRATA = ((0.05, (98, 80, 60)), (0.38, (186, 160, 126)), (1.0, (160, 142, 122)))
"""The block under an oblique view: down to this share of its depth, this colour."""

SECTION = (150, 142, 136)
"""Colour of buildings cut by the edge of the picture's region."""


class ZBuffer:
    """Draws on the CPU. Memory: some tiles, the picture, and a grid of heights as fine as the
    picture.

    Parameters
    ----------
    marks : put a scale bar and an arrow to the north into the lower left corner of pictures of 200
        pixels or more
    """

    name = "zbuffer"

    def __init__(self, marks: bool = True) -> None:
        self.marks = marks

    def render(self, world: World, view: View, progress: Progress) -> NDArray:
        """(height, width, 3) uint8 sRGB; see `earthgen.render.interfaces.View`.

        Raises
        ------
        JobError
            if the view is impossible
        StoreError, RegionError
            if the world has no finished tile, or none within the view's bounds
        """
        eye = camera(world, view)
        selection = select(world, view.bounds, level_for(world, eye.metres_per_pixel))
        if view.kind == "top":
            image = _top(world, selection, eye, progress)
        else:
            image = light.to_srgb(paint(world, selection, eye, view.azimuth, progress).resolve())
        return with_marks(image, eye) if self.marks else image


def level_for(world: World, metres_per_pixel: float) -> int:
    """The coarsest level whose voxels are no larger than a pixel, else the finest."""
    fitting = [
        level for level in world.levels if level * world.frame.voxel_size <= metres_per_pixel
    ]
    return max(fitting, default=min(world.levels))


def _top(world: World, selection: Selection, eye: Camera, progress: Progress) -> NDArray:
    progress.start("preview", 2)
    relief = read_relief(world, selection, eye.metres_per_pixel)
    progress.step("layers")
    picture = Image.fromarray(light.to_srgb(_shade_map(relief)))
    height, width = eye.shape
    # Enlarged voxels stay squares; everything else is resampled smoothly.
    smooth = Image.Resampling.LANCZOS if width < 3 * picture.width else Image.Resampling.BOX
    # Cells of a coarse level may reach beyond the region.
    left = max((eye.anchor[0] + eye.left - relief.left) / relief.cell, 0.0)
    top = max((relief.top - eye.anchor[1] - eye.top) / relief.cell, 0.0)
    scale = eye.metres_per_pixel / relief.cell
    box = (
        left,
        top,
        min(left + width * scale, picture.width),
        min(top + height * scale, picture.height),
    )
    image = np.asarray(picture.resize((width, height), smooth, box=box))
    progress.step("shading")
    return image


def _shade_map(relief: Relief) -> NDArray:
    """(ny, nx, 3) float32 linear colours of the map, the background where there is no data."""
    surface, cell = relief.surface, relief.cell
    known = np.isfinite(surface)
    sun = light.sun_vector(*MAP_SUN)
    flat = np.where(known, surface, np.nanmin(surface) if known.any() else 0).astype(np.float32)
    south, east = (
        np.gradient(flat, cell)
        if min(flat.shape) > 1
        else (np.zeros_like(flat), np.zeros_like(flat))
    )
    edge = ~known
    edge[1:], edge[:-1] = edge[1:] | ~known[:-1], edge[:-1] | ~known[1:]
    edge[:, 1:], edge[:, :-1] = edge[:, 1:] | ~known[:, :-1], edge[:, :-1] | ~known[:, 1:]
    steep = 0.6 / np.maximum(
        np.hypot(east, south) * 0.6, 1
    )  # walls and crowns would drown the hills
    east, south = np.where(edge, 0, east * steep), np.where(edge, 0, south * steep)
    facing = (-east * sun[0] + south * sun[1] + sun[2]) / np.sqrt(east**2 + south**2 + 1)
    shadow = np.clip(
        (light.shadow_heights(surface, cell, *MAP_SUN) - flat) / (1.5 * cell + 0.5), 0, 1
    )
    dim = 1 - 0.35 * np.clip((light.surroundings(surface, cell, 6.0) - flat) / 9, 0, 1)
    direct = np.maximum(facing, 0) / sun[2] * (1 - 0.5 * shadow)
    # Water lies level, shines a little of the sky, and takes shadows more faintly.
    water = relief.water
    direct = direct * (1 - water) + (1 - 0.3 * shadow) * water
    lit = 0.70 * direct[..., None] * light.SUN + 0.40 * dim[..., None] * light.SKY
    colour = relief.rgb * lit.astype(np.float32)
    colour += (0.06 * water)[..., None] * light.SKY
    return np.where(known[..., None], light.roll_off(colour), light.to_linear(PAPER)).astype(
        np.float32
    )


def paint(
    world: World, selection: Selection, eye: Camera, azimuth: float, progress: Progress
) -> Canvas:
    """An oblique view of a selection; `azimuth` of the view places the sun."""
    relief = read_relief(world, selection, eye.metres_per_pixel, colours=False)
    scene = sunlit(relief, side_sun(azimuth), tuple(eye.anchor))
    canvas, base = _table(world, selection, eye)
    open_sky = _open_sky(azimuth)
    progress.start("preview", len(selection.tiles))
    for piece in pieces(world, selection):
        mesh = surface_mesh(piece, tuple(eye.anchor))
        rim = _rim(piece, selection)
        colour = light.to_linear(colours(piece.splats.sh))
        water = WATER[piece.voxels.semantic]
        draw(
            canvas,
            scene,
            mesh.vertices,
            mesh.quads,
            mesh.voxel,
            mesh.side,
            colour,
            normals(piece.splats.rotation),
            water,
            two_sided=any(side.any() for side in rim),
        )
        _draw_block(canvas, open_sky, piece, rim, eye, base)
        progress.step("tile {}, {}".format(*piece.tile))
    return canvas


def paint_block(world: World, selection: Selection, eye: Camera, azimuth: float) -> Canvas:
    """The block of earth that an oblique view shows where the world ends, and nothing of the
    world on it."""
    canvas, base = _table(world, selection, eye)
    scene = _open_sky(azimuth)
    for piece in pieces(world, selection):
        _draw_block(canvas, scene, piece, _rim(piece, selection), eye, base)
    return canvas


def side_sun(azimuth: float) -> tuple[float, float]:
    """Azimuth and elevation of the sun for a view from `azimuth`, degrees.

    It stands to the left of the view and a little behind it, so that walls that are seen are lit.
    """
    return azimuth + 48.0, 40.0


def sunlit(
    relief: Relief, sun: tuple[float, float], anchor: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> Scene:
    """Where the light of a sun (azimuth and elevation) and of the sky reaches, relative to an
    anchor."""
    return Scene(
        left=relief.left - anchor[0],
        top=relief.top - anchor[1],
        cell=relief.cell,
        shadow=light.shadow_heights(relief.surface, relief.cell, *sun) - np.float32(anchor[2]),
        around=light.surroundings(relief.surface, relief.cell, 7.0) - np.float32(anchor[2]),
        sun=light.sun_vector(*sun),
        softness=1.2 * relief.cell + 0.6,
    )


def _open_sky(azimuth: float) -> Scene:
    """The sun of a view from `azimuth`, and nothing that keeps it off: grids of one cell, which
    is everywhere."""
    nothing = np.full((1, 1), light.FAR_BELOW, np.float32)
    return Scene(0.0, 0.0, 1.0, nothing, nothing, light.sun_vector(*side_sun(azimuth)), 1.0)


def _table(world: World, selection: Selection, eye: Camera) -> tuple[Canvas, float]:
    """An empty canvas with the shadow of the block on it, and the height of the block's base."""
    base = eye.low - plinth(selection.frame.bounds)
    sky = background(eye.shape[0] * SAMPLES)
    return Canvas.of(eye, SAMPLES, sky, _table_shadow(world, selection, eye, base)), base


def background(height: int) -> NDArray:
    """(height, 3) float32 linear colours of the rows, from the sky down."""
    t = np.linspace(0, 1, height)[:, None]
    return (light.to_linear(HORIZON) * (1 - t) + light.to_linear(PAPER) * t).astype(np.float32)


def _table_shadow(world: World, selection: Selection, eye: Camera, base: float) -> NDArray:
    """(height, width) float32: how much of the light reaches the table that the block stands on."""
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


def _rim(piece: Piece, selection: Selection) -> list[NDArray]:
    """For the four sides in the order of `NORMALS`: (ny, nx) bool, columns beside which the
    picture's world ends.

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


def _draw_block(
    canvas: Canvas, scene: Scene, piece: Piece, rim: list[NDArray], eye: Camera, base: float
) -> None:
    """Draw the earth, and the cut buildings, that the edge of the world lays open."""
    frame = piece.frame
    s = frame.voxel_size
    corner = corner_heights(piece.ground)
    top = _building_tops(piece)
    vertices: list[NDArray] = []
    colour: list[NDArray] = []
    sides: list[NDArray] = []
    # Of each side, the two corners of a column that bound it, the left one first as seen from
    # outside.
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
            [corner[rows + end[1], columns + end[0]] for end in (left, right)], axis=1
        )
        every = np.arange(len(rows))
        above = 0.0
        for share, rgb in STRATA:
            wall(ground + (base - ground) * share, ground + (base - ground) * above, rgb, every)
            above = share
        height = top[rows, columns]
        cut = np.flatnonzero(height > 0)
        # A little inside: where a building ends with the world, its own wall is to be seen.
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
    """(ny, nx) float32, rows from the south: height above ground of columns with a building on
    top, else 0."""
    frame, voxels = piece.frame, piece.voxels
    out = np.zeros(frame.shape, np.float32)
    x, y, z = voxels.xyz.T
    last = np.append((x[1:] != x[:-1]) | (y[1:] != y[:-1]), True)[: len(x)]
    chosen = last & (voxels.semantic == codes()["building"])
    height = (z + np.float32(0.5)) * np.float32(frame.voxel_size) + piece.splats.offset[:, 2]
    out[y[chosen] - frame.y[0], x[chosen] - frame.x[0]] = height[chosen]
    return out
