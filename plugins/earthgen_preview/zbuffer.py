"""The `zbuffer` renderer: a shaded map, or an oblique view of the voxels' surface."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from earthgen.progress import Progress
from earthgen.render.interfaces import View
from earthgen.render.mesh import pieces, surface_mesh
from earthgen.voxels.splat_math import base_colours, disc_normals
from earthgen.world.selection import Selection, select
from earthgen.world.world import World
from earthgen_preview import light
from earthgen_preview.block import blank_canvas, draw_block, rim_of
from earthgen_preview.marks import with_marks
from earthgen_preview.raster import Canvas, draw
from earthgen_preview.relief import WATER, Relief, read_relief
from earthgen_preview.views import (
    MAP_SUN,
    PAPER,
    Projection,
    level_for,
    project_view,
    side_sun,
    sunlight,
    unshaded,
)


class ZBufferRenderer:
    """Draw the surface of a world on the CPU, without torch.

    Memory holds a few tiles, the picture, and a grid of heights as fine as the picture.

    Parameters
    ----------
    marks : bool
        Draw a scale bar and a north arrow into the lower left corner of pictures of 200 pixels or
        more.
    """

    name = "zbuffer"

    def __init__(self, marks: bool = True) -> None:
        self.marks = marks

    def render(self, world: World, view: View, progress: Progress) -> NDArray:
        """Draw a view from above or an oblique one.

        Returns
        -------
        NDArray (height, width, 3) uint8
            sRGB.

        Raises
        ------
        JobError
            If the view is not supported.
        StoreError, RegionError
            If the world has no finished tile, or none within the view's bounds.
        """
        eye = project_view(world, view)
        selection = select(world, view.bounds, level_for(world, eye.metres_per_pixel))
        if view.kind == "top":
            image = _top(world, selection, eye, progress)
        else:
            image = light.to_srgb(paint(world, selection, eye, view.azimuth, progress).resolve())
        return with_marks(image, eye) if self.marks else image


def _top(world: World, selection: Selection, eye: Projection, progress: Progress) -> NDArray:
    progress.start("preview", 2)
    relief = read_relief(world, selection, eye.metres_per_pixel)
    progress.step("layers")
    picture = Image.fromarray(light.to_srgb(_shade_map(relief)))
    height, width = eye.shape
    # Enlarged voxels remain squares; other pictures are resampled smoothly.
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
    """(ny, nx, 3) float32 linear colours of the map, with the background where there is no
    data."""
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
    # Slopes are limited: walls and tree crowns would hide the hills.
    steep = 0.6 / np.maximum(np.hypot(east, south) * 0.6, 1)
    east, south = np.where(edge, 0, east * steep), np.where(edge, 0, south * steep)
    facing = (-east * sun[0] + south * sun[1] + sun[2]) / np.sqrt(east**2 + south**2 + 1)
    shadow = np.clip(
        (light.shadow_heights(surface, cell, *MAP_SUN) - flat) / (1.5 * cell + 0.5), 0, 1
    )
    dim = 1 - 0.35 * np.clip((light.surroundings(surface, cell, 6.0) - flat) / 9, 0, 1)
    direct = np.maximum(facing, 0) / sun[2] * (1 - 0.5 * shadow)
    # Water is level, reflects a little of the sky, and shows weaker shadows.
    water = relief.water
    direct = direct * (1 - water) + (1 - 0.3 * shadow) * water
    lit = 0.70 * direct[..., None] * light.SUN + 0.40 * dim[..., None] * light.SKY
    colour = relief.rgb * lit.astype(np.float32)
    colour += (0.06 * water)[..., None] * light.SKY
    return np.where(known[..., None], light.roll_off(colour), light.to_linear(PAPER)).astype(
        np.float32
    )


def paint(
    world: World, selection: Selection, eye: Projection, azimuth: float, progress: Progress
) -> Canvas:
    """Draw an oblique view of a selection; the azimuth of the view places the sun."""
    relief = read_relief(world, selection, eye.metres_per_pixel, colours=False)
    scene = sunlight(relief, side_sun(azimuth), tuple(eye.anchor))
    canvas, base = blank_canvas(world, selection, eye)
    open_sky = unshaded(azimuth)
    progress.start("preview", len(selection.tiles))
    for piece in pieces(world, selection):
        mesh = surface_mesh(piece, tuple(eye.anchor))
        rim = rim_of(piece, selection)
        colour = light.to_linear(base_colours(piece.splats.sh))
        water = WATER[piece.voxels.semantic]
        draw(
            canvas,
            scene,
            mesh.vertices,
            mesh.quads,
            mesh.voxel,
            mesh.side,
            colour,
            disc_normals(piece.splats.rotation),
            water,
            two_sided=any(side.any() for side in rim),
        )
        draw_block(canvas, open_sky, piece, rim, eye, base)
        progress.step("tile {}, {}".format(*piece.tile))
    return canvas
