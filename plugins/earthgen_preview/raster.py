"""Drawing quads: projection, depth buffer and light, one quad after the other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen.render.mesh import NORMALS
from earthgen_preview.light import SKY, SUN
from earthgen_preview.views import HAZE, Light, Projection, average_samples, shade_point


@dataclass(frozen=True)
class Canvas:
    """A picture that is being drawn, in samples.

    Attributes
    ----------
    eye : Projection
        Where samples lie.
    samples : int
        Samples along each edge of a pixel.
    colour : NDArray (h, w, 3) float32
        Linear colours.
    depth : NDArray (h, w) float32
        Metres along the view, infinite where nothing is drawn.
    sky : NDArray (h, 3) float32
        Linear background colours of the rows.
    """

    eye: Projection
    samples: int
    colour: NDArray
    depth: NDArray
    sky: NDArray

    @classmethod
    def blank(cls, eye: Projection, samples: int, sky: NDArray, lit: NDArray) -> Canvas:
        """An empty canvas; `lit` (height, width) float32 dims the background."""
        h, w = eye.shape[0] * samples, eye.shape[1] * samples
        dimmed = np.repeat(np.repeat(lit, samples, axis=0), samples, axis=1)
        colour = sky[:, None, :] * dimmed[..., None]
        return cls(
            eye, samples, np.ascontiguousarray(colour), np.full((h, w), np.inf, np.float32), sky
        )

    def resolve(self) -> NDArray:
        """(height, width, 3) float32 means of the samples of each pixel."""
        return average_samples(self.colour, self.samples)


def draw(
    canvas: Canvas,
    scene: Light,
    vertices: NDArray,
    quads: NDArray,
    voxel: NDArray,
    side: NDArray,
    colour: NDArray,
    normal: NDArray,
    water: NDArray,
    *,
    two_sided: bool,
) -> None:
    """Draw quads on a canvas.

    Parameters
    ----------
    canvas : Canvas
        Is drawn on.
    scene : Light
        Relative to the anchor of the canvas's projection.
    vertices, quads, voxel, side : NDArray
        The geometry, see `earthgen.render.mesh.Mesh`.
    colour : NDArray (n, 3) float32
        Linear colour of each voxel.
    normal : NDArray (n, 3) float32
        Normal of each voxel.
    water : NDArray (n,) bool
        Which voxels are water.
    two_sided : bool
        Draw the inner sides as well, which are visible only where the world is cut.
    """
    eye = canvas.eye
    pixel = eye.metres_per_pixel / canvas.samples
    # The haze spans the depths of the whole scene.
    reach = eye.shape[0] * eye.metres_per_pixel
    _draw(
        vertices,
        quads,
        voxel,
        side,
        colour,
        normal.astype(np.float32),
        water,
        two_sided,
        eye.right,
        eye.up,
        eye.toward,
        eye.left,
        eye.top,
        pixel,
        reach,
        NORMALS,
        scene.left,
        scene.top,
        scene.cell,
        scene.shadow,
        scene.around,
        scene.sun,
        scene.softness,
        SUN,
        SKY,
        canvas.colour,
        canvas.depth,
        canvas.sky,
    )


@numba.njit(cache=True, nogil=True, fastmath=False)
def _draw(  # type: ignore[no-untyped-def]
    vertices,
    quads,
    voxel,
    side,
    colour,
    normal,
    water,
    two_sided,
    right,
    up,
    toward,
    left,
    top,
    pixel,
    reach,
    side_normals,
    grid_left,
    grid_top,
    cell,
    shadow,
    around,
    sun,
    softness,
    sun_colour,
    sky_colour,
    out,
    depth,
    sky,
):
    h, w = depth.shape
    px = np.empty(4, np.float64)
    py = np.empty(4, np.float64)
    pz = np.empty(4, np.float64)
    shade = np.empty(3, np.float32)
    for q in range(quads.shape[0]):
        low_x, high_x, low_y, high_y = 1e18, -1e18, 1e18, -1e18
        mx, my, mz = 0.0, 0.0, 0.0
        for n in range(4):
            v = quads[q, n]
            x, y, z = vertices[v, 0], vertices[v, 1], vertices[v, 2]
            px[n] = (x * right[0] + y * right[1] + z * right[2] - left) / pixel
            py[n] = (top - x * up[0] - y * up[1] - z * up[2]) / pixel
            pz[n] = x * toward[0] + y * toward[1] + z * toward[2]
            low_x, high_x = min(low_x, px[n]), max(high_x, px[n])
            low_y, high_y = min(low_y, py[n]), max(high_y, py[n])
            mx += x
            my += y
            mz += z
        if high_x < 0 or high_y < 0 or low_x > w or low_y > h:
            continue
        lit = False
        for half in range(2):
            a, b, c = 0, 1 + half, 2 + half
            # The picture's y points down: a side seen from outside turns clockwise there.
            area = (px[b] - px[a]) * (py[c] - py[a]) - (px[c] - px[a]) * (py[b] - py[a])
            back = area > 0
            if area == 0 or (back and not two_sided):
                continue
            c0 = max(math.ceil(min(px[a], px[b], px[c]) - 0.5), 0)
            c1 = min(math.floor(max(px[a], px[b], px[c]) - 0.5), w - 1)
            r0 = max(math.ceil(min(py[a], py[b], py[c]) - 0.5), 0)
            r1 = min(math.floor(max(py[a], py[b], py[c]) - 0.5), h - 1)
            for r in range(r0, r1 + 1):
                for col in range(c0, c1 + 1):
                    x, y = col + 0.5, r + 0.5
                    wa = ((px[b] - x) * (py[c] - y) - (px[c] - x) * (py[b] - y)) / area
                    wb = ((px[c] - x) * (py[a] - y) - (px[a] - x) * (py[c] - y)) / area
                    wc = 1 - wa - wb
                    if wa < -1e-6 or wb < -1e-6 or wc < -1e-6:
                        continue
                    d = wa * pz[a] + wb * pz[b] + wc * pz[c]
                    if d >= depth[r, col]:
                        continue
                    if not lit:
                        shade_point(
                            mx / 4,
                            my / 4,
                            mz / 4,
                            colour[voxel[q]],
                            normal[voxel[q]],
                            water[voxel[q]],
                            side_normals[side[q]],
                            grid_left,
                            grid_top,
                            cell,
                            shadow,
                            around,
                            sun,
                            softness,
                            sun_colour,
                            sky_colour,
                            shade,
                        )
                        lit = True
                    depth[r, col] = d
                    haze = min(max(d / reach + 0.5, 0.0), 1.0) * HAZE
                    for band in range(3):
                        value = shade[band] * (0.75 if back else 1.0)
                        out[r, col, band] = value * (1 - haze) + sky[0, band] * haze
