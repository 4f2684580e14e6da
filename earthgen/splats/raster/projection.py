"""Projection of discs to a camera, compiled, and its gradients.

Everything is computed in float64 and rounded once, so that no precision is lost where large numbers
cancel. A disc is a function of a pixel's offset (dx, dy) from the projection of its mean
(`earthgen.splats.raster.reference` has the form of the paper; multiplied out, the terms in dx dy
cancel):

    h = 1 / (1 + P0 dx + P1 dy)
    u = (U0 dx + U1 dy) h
    v = (V0 dx + V1 dy) h
    depth = (z + r dx + s dy) h

with r = s = 0 for pinhole and P = 0 for orthographic cameras.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from earthgen.splats.cameras.camera import Camera

COLUMNS = 24
"""Columns of `records`, float32; the names below and one that is unused."""

(
    X,
    Y,
    LOW_X,
    LOW_Y,
    U0,
    U1,
    V0,
    V1,
    P0,
    P1,
    Z,
    R,
    S,
    OPACITY,
    RED,
    GREEN,
    BLUE,
    EAST,
    NORTH,
    UP,
    TOP,
    BOTTOM,
    CLASS,
) = range(23)
"""Projection of the mean (pixels); centre of the low-pass filter relative to it; the coefficients
of u, v and h; z, r, s; opacity, colour; normal in world axes; first and last row of pixels (as
floats); index of the class."""

GRADIENTS = 20
"""Columns that have gradients, the first 20."""

COUNT = GRADIENTS
"""Column with the number of tiles in rows of sums over tiles."""

FETCHED = 64
"""Gaussians whose sums are computed together, so that memory latencies overlap."""

FLAT = 1e-12
"""Visible area of a disc relative to its length times its breadth, below which the disc is edge-on
and only the low-pass filter is drawn."""

STEEP = 1e15
"""U and V of such a disc, instead of infinity: its square is a float32."""

MARGIN = 0.01
"""Pixels by which a box is wider than the disc, so that rounding does not remove pixels at the
edge."""


def numbers(camera: Camera, anchor: tuple[float, float, float]) -> NDArray:
    """(20,) float64 parameters of a camera: rotation and shift of `Camera.world_to_camera`, fx, fy,
    cx, cy, near, far, width, height."""
    turn, shift = camera.world_to_camera(anchor)
    rest = (
        camera.fx,
        camera.fy,
        camera.cx,
        camera.cy,
        camera.near,
        camera.far,
        camera.width,
        camera.height,
    )
    return np.concatenate([turn.ravel(), shift, np.array(rest, np.float64)])


@njit(error_model="numpy", nogil=True, cache=True)
def turned(q0, q1, q2, q3):  # type: ignore[no-untyped-def]
    """The rotation matrix of a quaternion, row by row, and the quaternion's length."""
    length = math.sqrt(q0 * q0 + q1 * q1 + q2 * q2 + q3 * q3)
    w, x, y, z = q0 / length, q1 / length, q2 / length, q3 / length
    return (
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
        length,
    )


@njit(error_model="numpy", nogil=True, cache=True)
def columns(mean, scale, m, cam, orthographic):  # type: ignore[no-untyped-def]
    """The mean in camera axes, and the disc's two axes in the picture (pixels from the mean) and in
    depth."""
    x = cam[0] * mean[0] + cam[1] * mean[1] + cam[2] * mean[2] + cam[9]
    y = cam[3] * mean[0] + cam[4] * mean[1] + cam[5] * mean[2] + cam[10]
    z = cam[6] * mean[0] + cam[7] * mean[1] + cam[8] * mean[2] + cam[11]
    s0, s1 = np.float64(scale[0]), np.float64(scale[1])
    ax = s0 * (cam[0] * m[0] + cam[1] * m[3] + cam[2] * m[6])
    ay = s0 * (cam[3] * m[0] + cam[4] * m[3] + cam[5] * m[6])
    a2 = s0 * (cam[6] * m[0] + cam[7] * m[3] + cam[8] * m[6])
    bx = s1 * (cam[0] * m[1] + cam[1] * m[4] + cam[2] * m[7])
    by = s1 * (cam[3] * m[1] + cam[4] * m[4] + cam[5] * m[7])
    b2 = s1 * (cam[6] * m[1] + cam[7] * m[4] + cam[8] * m[7])
    if orthographic:
        return x, y, z, cam[12] * ax, cam[13] * ay, a2, cam[12] * bx, cam[13] * by, b2
    a0, a1 = cam[12] * (ax - x / z * a2), cam[13] * (ay - y / z * a2)
    b0, b1 = cam[12] * (bx - x / z * b2), cam[13] * (by - y / z * b2)
    return x, y, z, a0, a1, a2, b0, b1, b2


@njit(error_model="numpy", nogil=True, cache=True)
def first_pixel(low):  # type: ignore[no-untyped-def]
    """The first pixel whose centre is at or after `low`."""
    return math.ceil(min(max(low - MARGIN, -1e9), 1e9) - 0.5)


@njit(error_model="numpy", nogil=True, cache=True)
def box(square, x, y, z, a0, a1, a2, b0, b1, b2, low_x, low_y, width, height, orthographic):  # type: ignore[no-untyped-def]
    """Columns [left, right) and rows [top, bottom) that may be within `square` of (u, v) or of the
    low-pass filter.

    (x, y) is the projection of the mean. For a disc that reaches the camera's plane the box is the
    whole picture.
    """
    reach = math.sqrt(square / 2)
    left, right, top, bottom = (
        x + low_x - reach,
        x + low_x + reach,
        y + low_y - reach,
        y + low_y + reach,
    )
    if orthographic:
        span, middle_x, middle_y = -1.0, 0.0, 0.0
    else:
        span = square * (a2 * a2 + b2 * b2) - z * z
        if not span < -1e-9 * z * z:
            return 0, width, 0, height
        middle_x, middle_y = (
            square * (a0 * a2 + b0 * b2) / span,
            square * (a1 * a2 + b1 * b2) / span,
        )
    half_x = math.sqrt(max(middle_x * middle_x - square * (a0 * a0 + b0 * b0) / span, 0.0))
    half_y = math.sqrt(max(middle_y * middle_y - square * (a1 * a1 + b1 * b1) / span, 0.0))
    left, right = min(left, x + middle_x - half_x), max(right, x + middle_x + half_x)
    top, bottom = min(top, y + middle_y - half_y), max(bottom, y + middle_y + half_y)
    return (
        max(first_pixel(left), 0),
        min(first_pixel(right + 2 * MARGIN), width),
        max(first_pixel(top), 0),
        min(first_pixel(bottom + 2 * MARGIN), height),
    )


@njit(error_model="numpy", nogil=True, cache=True)
def project(  # type: ignore[no-untyped-def]
    means,
    scales,
    rotations,
    opacities,
    colours,
    classes,
    cam,
    orthographic,
    least,
    first,
    last,
    records,
    boxes,
    depths,
):
    """Project Gaussians [first, last).

    Parameters
    ----------
    means, scales, rotations, opacities, colours
        Arrays of the Gaussians.
    classes : NDArray (n,) uint8
        Indices of classes.
    cam : NDArray (20,) float64
        Of `numbers`.
    orthographic : bool
        Whether the camera is orthographic.
    least : float
        Alpha below which nothing is drawn.
    records : NDArray (n, COLUMNS) float32
        Is written for visible Gaussians.
    boxes : NDArray (n, 4) int32
        Is written: left, right, top, bottom; all 0 for invisible Gaussians.
    depths : NDArray (n,) float32
        Is written: depths of the means, metres.
    """
    width, height = int(cam[18]), int(cam[19])
    for i in range(first, last):
        boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3] = 0, 0, 0, 0
        mean = (np.float64(means[i, 0]), np.float64(means[i, 1]), np.float64(means[i, 2]))
        z = cam[6] * mean[0] + cam[7] * mean[1] + cam[8] * mean[2] + cam[11]
        depths[i] = z
        opacity = np.float64(opacities[i])
        if not (cam[16] < z < cam[17]) or opacity < least:
            continue
        m = turned(
            np.float64(rotations[i, 0]),
            np.float64(rotations[i, 1]),
            np.float64(rotations[i, 2]),
            np.float64(rotations[i, 3]),
        )
        x, y, z, a0, a1, a2, b0, b1, b2 = columns(
            mean, (scales[i, 0], scales[i, 1]), m, cam, orthographic
        )
        if orthographic:
            seen_x, seen_y, low_x, low_y = cam[12] * x + cam[14], cam[13] * y + cam[15], 0.0, 0.0
        else:
            seen_x, seen_y = cam[12] * x / z + cam[14], cam[13] * y / z + cam[15]
            low_x, low_y, span = 0.0, 0.0, a2 * a2 + b2 * b2 - z * z
            if span < 0:
                low_x, low_y = (a0 * a2 + b0 * b2) / span, (a1 * a2 + b1 * b2) / span
        square = 2 * math.log(opacity / least)
        left, right, top, bottom = box(
            square,
            seen_x,
            seen_y,
            z,
            a0,
            a1,
            a2,
            b0,
            b1,
            b2,
            low_x,
            low_y,
            width,
            height,
            orthographic,
        )
        if left >= right or top >= bottom:
            continue
        boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3] = left, right, top, bottom
        to = records[i]
        to[X], to[Y], to[LOW_X], to[LOW_Y] = seen_x, seen_y, low_x, low_y
        det = a0 * b1 - a1 * b0
        if abs(det) <= FLAT * (math.sqrt(a0 * a0 + a1 * a1) * math.sqrt(b0 * b0 + b1 * b1)):
            to[U0], to[U1], to[V0], to[V1], to[P0], to[P1], to[R], to[S] = (
                STEEP,
                0,
                0,
                STEEP,
                0,
                0,
                0,
                0,
            )
        else:
            by = (1.0 if orthographic else z) / det
            to[U0], to[U1], to[V0], to[V1] = b1 * by, -b0 * by, -a1 * by, a0 * by
            if orthographic:
                to[P0], to[P1] = 0, 0
                to[R], to[S] = (a2 * b1 - b2 * a1) * by, (b2 * a0 - a2 * b0) * by
            else:
                to[P0], to[P1] = (a1 * b2 - a2 * b1) / det, (a2 * b0 - a0 * b2) / det
                to[R], to[S] = 0, 0
        to[Z], to[OPACITY] = z, opacity
        to[RED], to[GREEN], to[BLUE] = colours[i, 0], colours[i, 1], colours[i, 2]
        side = facing(x, y, z, m, cam, orthographic)
        to[EAST], to[NORTH], to[UP] = side * m[2], side * m[5], side * m[8]
        to[TOP], to[BOTTOM], to[CLASS] = top, bottom, classes[i]


@njit(error_model="numpy", nogil=True, cache=True)
def facing(x, y, z, m, cam, orthographic):  # type: ignore[no-untyped-def]
    """1 if the normal faces the camera, -1 if it faces away or the disc is edge-on."""
    along = cam[6] * m[2] + cam[7] * m[5] + cam[8] * m[8]
    if not orthographic:
        along *= z
        along += x * (cam[0] * m[2] + cam[1] * m[5] + cam[2] * m[8])
        along += y * (cam[3] * m[2] + cam[4] * m[5] + cam[5] * m[8])
    return 1.0 if along < 0 else -1.0


@njit(nogil=True, cache=True)
def fetch(slots, places, parts, first, last, sums):  # type: ignore[no-untyped-def]
    """Sum the gradients of Gaussians [first, last) over their tiles, in the order of the tiles; the
    last column is the number of tiles."""
    for i in range(first, last):
        to = sums[i - first]
        to[:] = 0
        for slot in range(slots[i], slots[i + 1]):
            place = places[slot]
            if place >= 0:
                to[COUNT] += 1
                for column in range(GRADIENTS):
                    to[column] += parts[place, column]


@njit(error_model="numpy", nogil=True, cache=True)
def project_back(  # type: ignore[no-untyped-def]
    means,
    scales,
    rotations,
    cam,
    orthographic,
    slots,
    places,
    parts,
    first,
    last,
    to_means,
    to_scales,
    to_rotations,
    to_opacities,
    to_colours,
):
    """Compute the gradients of Gaussians [first, last) from those of their records in each tile.

    Parameters
    ----------
    means, scales, rotations, cam, orthographic
        As in `project`.
    slots : NDArray (n + 1,) int64
        Where the tiles of each Gaussian's box begin in `places`.
    places, parts
        Of `earthgen.splats.raster.backward.back_tiles`; tiles are summed in their order.
    to_means, to_scales, to_rotations, to_opacities, to_colours : NDArray float32
        Zeros; are written for Gaussians that were drawn.
    """
    sums = np.empty((FETCHED, GRADIENTS + 1), np.float32)
    for i in range(first, last):
        at = (i - first) % FETCHED
        if at == 0:
            fetch(slots, places, parts, i, min(i + FETCHED, last), sums)
        g = sums[at]
        if g[COUNT] == 0:
            continue
        to_opacities[i] = g[OPACITY]
        to_colours[i, 0], to_colours[i, 1], to_colours[i, 2] = g[RED], g[GREEN], g[BLUE]
        mean = (np.float64(means[i, 0]), np.float64(means[i, 1]), np.float64(means[i, 2]))
        q = (
            np.float64(rotations[i, 0]),
            np.float64(rotations[i, 1]),
            np.float64(rotations[i, 2]),
            np.float64(rotations[i, 3]),
        )
        m = turned(q[0], q[1], q[2], q[3])
        x, y, z, a0, a1, a2, b0, b1, b2 = columns(
            mean, (scales[i, 0], scales[i, 1]), m, cam, orthographic
        )
        ga0, ga1, ga2, gb0, gb1, gb2 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        gx, gy, gz = 0.0, 0.0, np.float64(g[Z])

        det = a0 * b1 - a1 * b0
        if abs(det) > FLAT * (math.sqrt(a0 * a0 + a1 * a1) * math.sqrt(b0 * b0 + b1 * b1)):
            by = (1.0 if orthographic else z) / det
            gu0, gu1, gv0, gv1 = (
                np.float64(g[U0]),
                np.float64(g[U1]),
                np.float64(g[V0]),
                np.float64(g[V1]),
            )
            u0, u1, v0, v1 = b1 * by, -b0 * by, -a1 * by, a0 * by
            of_det = 0.0
            if orthographic:  # r = a2 U0 + b2 V0, s = a2 U1 + b2 V1
                ga2 += g[R] * u0 + g[S] * u1
                gb2 += g[R] * v0 + g[S] * v1
                gu0 += g[R] * a2
                gu1 += g[S] * a2
                gv0 += g[R] * b2
                gv1 += g[S] * b2
            else:
                p0, p1 = np.float64(g[P0]) / det, np.float64(g[P1]) / det
                ga0 -= p1 * b2
                ga1 += p0 * b2
                ga2 += p1 * b0 - p0 * b1
                gb0 += p1 * a2
                gb1 -= p0 * a2
                gb2 += p0 * a1 - p1 * a0
                of_det -= p0 * (a1 * b2 - a2 * b1) + p1 * (a2 * b0 - a0 * b2)
            gb1 += gu0 * by
            gb0 -= gu1 * by
            ga1 -= gv0 * by
            ga0 += gv1 * by
            product = gu0 * u0 + gu1 * u1 + gv0 * v0 + gv1 * v1
            if not orthographic:
                gz += product / z
            of_det = (of_det - product) / det
            ga0 += of_det * b1
            ga1 -= of_det * b0
            gb0 -= of_det * a1
            gb1 += of_det * a0

        if orthographic:
            gx += g[X] * cam[12]
            gy += g[Y] * cam[13]
            gax, gay, gbx, gby = cam[12] * ga0, cam[13] * ga1, cam[12] * gb0, cam[13] * gb1
        else:
            span = a2 * a2 + b2 * b2 - z * z
            if span < 0:  # the centre of the low-pass filter
                low_x, low_y = (a0 * a2 + b0 * b2) / span, (a1 * a2 + b1 * b2) / span
                of_x, of_y = g[LOW_X] / span, g[LOW_Y] / span
                of_span = -(of_x * low_x + of_y * low_y)
                ga0 += of_x * a2
                gb0 += of_x * b2
                ga1 += of_y * a2
                gb1 += of_y * b2
                ga2 += of_x * a0 + of_y * a1 + 2 * of_span * a2
                gb2 += of_x * b0 + of_y * b1 + 2 * of_span * b2
                gz -= 2 * of_span * z
            xz, yz = x / z, y / z
            gax, gay, gbx, gby = cam[12] * ga0, cam[13] * ga1, cam[12] * gb0, cam[13] * gb1
            ga2 -= xz * gax + yz * gay
            gb2 -= xz * gbx + yz * gby
            of_xz = cam[12] * g[X] - (a2 * gax + b2 * gbx)
            of_yz = cam[13] * g[Y] - (a2 * gay + b2 * gby)
            gx += of_xz / z
            gy += of_yz / z
            gz -= (of_xz * xz + of_yz * yz) / z

        # From camera axes to world axes.
        to_means[i, 0] = cam[0] * gx + cam[3] * gy + cam[6] * gz
        to_means[i, 1] = cam[1] * gx + cam[4] * gy + cam[7] * gz
        to_means[i, 2] = cam[2] * gx + cam[5] * gy + cam[8] * gz
        s0, s1 = np.float64(scales[i, 0]), np.float64(scales[i, 1])
        t0 = cam[0] * gax + cam[3] * gay + cam[6] * ga2
        t1 = cam[1] * gax + cam[4] * gay + cam[7] * ga2
        t2 = cam[2] * gax + cam[5] * gay + cam[8] * ga2
        to_scales[i, 0] = t0 * m[0] + t1 * m[3] + t2 * m[6]
        w0 = cam[0] * gbx + cam[3] * gby + cam[6] * gb2
        w1 = cam[1] * gbx + cam[4] * gby + cam[7] * gb2
        w2 = cam[2] * gbx + cam[5] * gby + cam[8] * gb2
        to_scales[i, 1] = w0 * m[1] + w1 * m[4] + w2 * m[7]
        side = facing(x, y, z, m, cam, orthographic)
        turn_back(
            q,
            m[9],
            s0 * t0,
            s0 * t1,
            s0 * t2,
            s1 * w0,
            s1 * w1,
            s1 * w2,
            side * g[EAST],
            side * g[NORTH],
            side * g[UP],
            to_rotations[i],
        )


@njit(error_model="numpy", nogil=True, cache=True)
def turn_back(q, length, g00, g10, g20, g01, g11, g21, g02, g12, g22, to):  # type: ignore[no-untyped-def]
    """Compute the gradient of a quaternion from that of its rotation matrix, g<row><column>."""
    w, x, y, z = q[0] / length, q[1] / length, q[2] / length, q[3] / length
    gw = 2 * (x * (g21 - g12) + y * (g02 - g20) + z * (g10 - g01))
    gx = 2 * (w * (g21 - g12) + y * (g01 + g10) + z * (g02 + g20) - 2 * x * (g11 + g22))
    gy = 2 * (w * (g02 - g20) + x * (g01 + g10) + z * (g12 + g21) - 2 * y * (g00 + g22))
    gz = 2 * (w * (g10 - g01) + x * (g02 + g20) + y * (g12 + g21) - 2 * z * (g00 + g11))
    along = gw * w + gx * x + gy * y + gz * z  # from the normalisation
    to[0], to[1] = (gw - along * w) / length, (gx - along * x) / length
    to[2], to[3] = (gy - along * y) / length, (gz - along * z) / length
