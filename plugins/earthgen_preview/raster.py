"""Quads into a picture: projection, depth buffer and light, one quad after the other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen.render.mesh import NORMALS
from earthgen_preview.camera import Camera
from earthgen_preview.light import SHOULDER, SKY, SKY_STRENGTH, SUN, SUN_STRENGTH

HAZE = 0.10
"""Share of the background's colour in what lies farthest away."""


@dataclass(frozen=True)
class Canvas:
    """The picture while it is drawn, in samples.

    Attributes
    ----------
    eye : the camera
    samples : along each edge of a pixel
    colour : (h, w, 3) float32 linear
    depth : (h, w) float32 metres along the view, infinite where nothing is drawn
    sky : (h, 3) float32 linear background colours of the rows
    """

    eye: Camera
    samples: int
    colour: NDArray
    depth: NDArray
    sky: NDArray

    @classmethod
    def of(cls, eye: Camera, samples: int, sky: NDArray, lit: NDArray) -> Canvas:
        """An empty canvas; `lit` (height, width) float32 dims the background."""
        h, w = eye.shape[0] * samples, eye.shape[1] * samples
        dimmed = np.repeat(np.repeat(lit, samples, axis=0), samples, axis=1)
        colour = sky[:, None, :] * dimmed[..., None]
        return cls(
            eye, samples, np.ascontiguousarray(colour), np.full((h, w), np.inf, np.float32), sky
        )

    def resolve(self) -> NDArray:
        """(height, width, 3) float32: the mean of each pixel's samples."""
        h, w = self.eye.shape
        n = self.samples
        return self.colour.reshape(h, n, w, n, 3).mean(axis=(1, 3))


@dataclass(frozen=True)
class Scene:
    """What lights the quads; all relative to the camera's anchor.

    Attributes
    ----------
    left, top, cell : of the two grids, metres
    shadow, around : (ny, nx) float32 metres, as of `light.shadow_heights` and `light.surroundings`
    sun : (3,) float32 unit vector towards the sun
    softness : metres below the shadow's height at which it is full
    """

    left: float
    top: float
    cell: float
    shadow: NDArray
    around: NDArray
    sun: NDArray
    softness: float


def draw(
    canvas: Canvas,
    scene: Scene,
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
    """Draw quads; see `earthgen.render.mesh.Mesh` for the geometry.

    colour : (n, 3) float32 linear; normal : (n, 3) float32; water : (n,) bool, by voxel
    two_sided : draw the inner sides as well, which are seen only where the world is cut open
    """
    eye = canvas.eye
    pixel = eye.metres_per_pixel / canvas.samples
    # The deepest and the nearest thing of the whole scene bound the haze.
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


@numba.njit(cache=True, nogil=True, inline="always")
def _roll_off(value):  # type: ignore[no-untyped-def]
    """`light.roll_off` of one value."""
    if value <= SHOULDER:
        return max(value, 0.0)
    return SHOULDER + (1 - SHOULDER) * math.tanh((value - SHOULDER) / (1 - SHOULDER))


@numba.njit(cache=True, nogil=True, inline="always")
def _sample(grid, x, y):  # type: ignore[no-untyped-def]
    """Bilinear, in cells from the centre of the first, held at the border."""
    ny, nx = grid.shape
    x = min(max(x, 0.0), nx - 1.0)
    y = min(max(y, 0.0), ny - 1.0)
    i, j = min(int(y), max(ny - 2, 0)), min(int(x), max(nx - 2, 0))
    t, u = y - i, x - j
    i1, j1 = min(i + 1, ny - 1), min(j + 1, nx - 1)
    return (grid[i, j] * (1 - u) + grid[i, j1] * u) * (1 - t) + (
        grid[i1, j] * (1 - u) + grid[i1, j1] * u
    ) * t


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
                        light_one(
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


@numba.njit(cache=True, nogil=True)
def light_one(  # type: ignore[no-untyped-def]
    x,
    y,
    z,
    colour,
    normal,
    water,
    outward,
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
):
    """Writes to `shade` (3,) the linear light of one place; x, y, z, and the grids, as in
    `Scene`."""
    # The splat's normal is smoother than the voxel's side, but tells nothing of a side that faces
    # elsewhere.
    nx, ny, nz = normal[0], normal[1], normal[2]
    if nx * outward[0] + ny * outward[1] + nz * outward[2] < 0.25:
        nx, ny, nz = 0.5 * nx + outward[0], 0.5 * ny + outward[1], 0.5 * nz + outward[2]
        length = math.sqrt(nx * nx + ny * ny + nz * nz)
        if length > 1e-6:
            nx, ny, nz = nx / length, ny / length, nz / length
    # Looked up half a cell in front of the side: its own column does not shade it.
    gx = (x + outward[0] * cell * 0.5 - grid_left) / cell - 0.5
    gy = (grid_top - y - outward[1] * cell * 0.5) / cell - 0.5
    shaded = (_sample(shadow, gx, gy) - z) / softness
    shaded = min(max(shaded, 0.0), 1.0)
    below = min(max((_sample(around, gx, gy) - z) / 10.0, 0.0), 1.0)
    facing = max(nx * sun[0] + ny * sun[1] + nz * sun[2], 0.0) / sun[2]
    if water:
        facing = 1.0
        shaded *= 0.5
    direct = SUN_STRENGTH * min(facing, 1.5) * (1 - 0.85 * shaded)
    ambient = SKY_STRENGTH * (1 - 0.5 * below) * (0.65 + 0.35 * nz)
    for band in range(3):
        value = colour[band] * (direct * sun_colour[band] + ambient * sky_colour[band])
        if water:
            value = 0.88 * value + 0.12 * sky_colour[band] * 0.8
        shade[band] = _roll_off(value)
