"""Gradients, compiled: each tile traverses its Gaussians from the last to the first, one row of
pixels at a time.

The loss is linear in the sums of a pixel: dL = sum_i w_i V_i + light g, where V_i is the product of
the Gaussian's colour, normal, depth and squared depth with the gradients of their sums, and g the
gradient of the remaining light. With B_i = alpha_(i+1) V_(i+1) + (1 - alpha_(i+1)) B_(i+1), what is
visible behind the i-th, and B_last = g,

    dL / d alpha_i = light_i (V_i - B_i).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from earthgen.splats.raster.binning import TILE
from earthgen.splats.raster.forward import (
    AREA,
    HIGH,
    LAST_AT,
    LIGHT,
    LOW,
    MEDIAN_AT,
    MIDDLE,
    NEAREST,
    NONE,
    PER_PIXEL,
    STAGED,
)
from earthgen.splats.raster.lanes import (
    ONE,
    F,
    fma,
    gaussian,
    load,
    moment,
    store,
    total,
)
from earthgen.splats.raster.projection import (
    BLUE,
    BOTTOM,
    COLUMNS,
    EAST,
    GREEN,
    LOW_X,
    LOW_Y,
    NORTH,
    OPACITY,
    P0,
    P1,
    RED,
    TOP,
    U0,
    U1,
    UP,
    V0,
    V1,
    R,
    S,
    X,
    Y,
    Z,
)

G_LIGHT, G_COLOUR, G_NORMAL, G_DEPTH, G_DEPTH2, G_MEDIAN = 0, 1, 4, 7, 8, 9
GIVEN = 10
"""Channels of the gradients (GIVEN, h, w) float32 of the canvas's light, colour, normal, depths and
median."""

# The state: the light in front, what is visible behind (first the gradient of the light), the other
# gradients, and three channels of the canvas.
BEHIND, OF_COLOUR, OF_NORMAL, OF_DEPTH, OF_DEPTH2, OF_MEDIAN = (
    (1 + channel) * AREA for channel in (G_LIGHT, G_COLOUR, G_NORMAL, G_DEPTH, G_DEPTH2, G_MEDIAN)
)
FROM, HALF_AT, END_AT = (1 + GIVEN) * AREA, (2 + GIVEN) * AREA, (3 + GIVEN) * AREA
STATE = (4 + GIVEN) * AREA

# Sums over rows, one vector for each: of the gradients of u / h, v / h, 1 / h, depth / h and the
# low-pass filter, each also times dy; and of the depth of the mean, opacity, colour and normal.
S_U, S_V, S_H, S_D, S_LOW, S_Z, S_OPACITY, S_RED, S_EAST = 0, 2, 4, 6, 8, 10, 11, 12, 15
SUMS = 18
MOMENTS = 5
TWO = F(2)


@njit(error_model="numpy", nogil=True, cache=True)
def back_row(  # type: ignore[no-untyped-def]
    state,
    at,
    sums,
    x,
    y,
    low_x,
    low_y,
    u0,
    u1,
    v0,
    v1,
    p0,
    p1,
    z,
    r,
    s,
    opacity,
    red,
    green,
    blue,
    east,
    north,
    up,
    near,
    number,
):
    """Remove a Gaussian from the row of pixels whose state begins at `at`, and add its gradients to
    `sums`.

    The first part repeats `earthgen.splats.raster.forward.draw_row` bit for bit.
    """
    k = fma(p0, x, fma(p1, y, ONE))
    a = fma(u0, x, u1 * y)
    b = fma(v0, x, v1 * y)
    c = fma(r, x, fma(s, y, z))
    ex, ey = x - low_x, y - low_y
    ey2 = ey * ey
    for i in range(TILE):
        lane = F(np.int32(i))
        h = ONE / fma(p0, lane, k)
        un = fma(u0, lane, a)
        vn = fma(v0, lane, b)
        dn = fma(r, lane, c)
        u = un * h
        v = vn * h
        on_disc = fma(u, u, v * v)
        dx = lane + ex
        on_pixel = PER_PIXEL * fma(dx, dx, ey2)
        hits = on_disc <= on_pixel
        depth = dn * h if hits else z
        covered = gaussian(on_disc if hits else on_pixel)
        alpha = opacity * covered
        cut = alpha >= HIGH
        alpha = alpha if alpha < HIGH else HIGH
        after = load(state, at + i)
        drawn = (alpha >= LOW) & (depth > near) & (number <= load(state, at + i + END_AT))
        light = after / (ONE - alpha) if drawn else after
        store(state, at + i, light)
        w = alpha * light if drawn else NONE
        g_red = load(state, at + i + OF_COLOUR)
        g_green = load(state, at + i + (OF_COLOUR + AREA))
        g_blue = load(state, at + i + (OF_COLOUR + 2 * AREA))
        g_east = load(state, at + i + OF_NORMAL)
        g_north = load(state, at + i + (OF_NORMAL + AREA))
        g_up = load(state, at + i + (OF_NORMAL + 2 * AREA))
        g_depth = load(state, at + i + OF_DEPTH)
        g_depth2 = load(state, at + i + OF_DEPTH2)
        beyond = (depth if drawn else NONE) - (load(state, at + i + FROM) if drawn else NONE)
        value = fma(red, g_red, fma(green, g_green, blue * g_blue))
        value = fma(east, g_east, fma(north, g_north, fma(up, g_up, value)))
        value = fma(beyond, fma(beyond, g_depth2, g_depth), value)
        behind = load(state, at + i + BEHIND)
        to_alpha = light * (value - behind) if drawn else NONE
        store(state, at + i + BEHIND, fma(alpha, value - behind, behind) if drawn else behind)
        to_alpha = NONE if cut else to_alpha
        half = number == load(state, at + i + HALF_AT)
        to_depth = fma(
            w,
            fma(TWO * beyond, g_depth2, g_depth),
            load(state, at + i + OF_MEDIAN) if half else NONE,
        )

        # alpha = opacity exp(-square / 2), square = u^2 + v^2 or that of the low-pass filter
        to_square = -MIDDLE * alpha * to_alpha
        on = hits & drawn
        inner = TWO * to_square if on else NONE
        h = h if on else NONE
        un = un if on else NONE
        vn = vn if on else NONE
        to_u = inner * u * h if on else NONE
        to_v = inner * v * h if on else NONE
        to_d = to_depth * h if on else NONE
        # d h = -h^2 d(1 / h): the sum over the factors of h
        to_h = -h * fma(to_u, un, fma(to_v, vn, to_d * dn)) if on else NONE
        to_low = NONE if hits else to_square
        store(sums, i + S_U * TILE, load(sums, i + S_U * TILE) + to_u)
        store(sums, i + (S_U + 1) * TILE, fma(to_u, y, load(sums, i + (S_U + 1) * TILE)))
        store(sums, i + S_V * TILE, load(sums, i + S_V * TILE) + to_v)
        store(sums, i + (S_V + 1) * TILE, fma(to_v, y, load(sums, i + (S_V + 1) * TILE)))
        store(sums, i + S_H * TILE, load(sums, i + S_H * TILE) + to_h)
        store(sums, i + (S_H + 1) * TILE, fma(to_h, y, load(sums, i + (S_H + 1) * TILE)))
        store(sums, i + S_D * TILE, load(sums, i + S_D * TILE) + to_d)
        store(sums, i + (S_D + 1) * TILE, fma(to_d, y, load(sums, i + (S_D + 1) * TILE)))
        store(sums, i + S_LOW * TILE, load(sums, i + S_LOW * TILE) + to_low)
        store(sums, i + (S_LOW + 1) * TILE, fma(to_low, ey, load(sums, i + (S_LOW + 1) * TILE)))
        store(sums, i + S_Z * TILE, load(sums, i + S_Z * TILE) + (NONE if hits else to_depth))
        store(sums, i + S_OPACITY * TILE, fma(covered, to_alpha, load(sums, i + S_OPACITY * TILE)))
        store(sums, i + S_RED * TILE, fma(w, g_red, load(sums, i + S_RED * TILE)))
        store(sums, i + (S_RED + 1) * TILE, fma(w, g_green, load(sums, i + (S_RED + 1) * TILE)))
        store(sums, i + (S_RED + 2) * TILE, fma(w, g_blue, load(sums, i + (S_RED + 2) * TILE)))
        store(sums, i + S_EAST * TILE, fma(w, g_east, load(sums, i + S_EAST * TILE)))
        store(sums, i + (S_EAST + 1) * TILE, fma(w, g_north, load(sums, i + (S_EAST + 1) * TILE)))
        store(sums, i + (S_EAST + 2) * TILE, fma(w, g_up, load(sums, i + (S_EAST + 2) * TILE)))


@njit(error_model="numpy", nogil=True, cache=True)
def add_up(sums, x, totals):  # type: ignore[no-untyped-def]
    """Sum over the pixels of a row; after the sums, those of the first five without dy times dx.
    `sums` is reset to 0."""
    for k in range(SUMS):
        totals[k] = total(sums, k * TILE)
    for k in range(MOMENTS):
        totals[SUMS + k] = moment(sums, 2 * k * TILE) + x * totals[2 * k]
    for i in range(SUMS * TILE):
        store(sums, i, NONE)


@njit(error_model="numpy", nogil=True, cache=True)
def write(of, totals, to):  # type: ignore[no-untyped-def]
    """Compute the gradients of a record from the sums over a tile."""
    to[U0], to[U1] = totals[SUMS + S_U // 2], totals[S_U + 1]
    to[V0], to[V1] = totals[SUMS + S_V // 2], totals[S_V + 1]
    to[P0], to[P1] = totals[SUMS + S_H // 2], totals[S_H + 1]
    to[R], to[S] = totals[SUMS + S_D // 2], totals[S_D + 1]
    to[Z] = totals[S_D] + totals[S_Z]
    low_x = TWO * PER_PIXEL * (totals[SUMS + S_LOW // 2] - of[LOW_X] * totals[S_LOW])
    low_y = TWO * PER_PIXEL * totals[S_LOW + 1]
    to[LOW_X], to[LOW_Y] = -low_x, -low_y
    u, v, h, d = totals[S_U], totals[S_V], totals[S_H], totals[S_D]
    to[X] = -(of[U0] * u + of[V0] * v + of[P0] * h + of[R] * d + low_x)
    to[Y] = -(of[U1] * u + of[V1] * v + of[P1] * h + of[S] * d + low_y)
    to[OPACITY] = totals[S_OPACITY]
    to[RED], to[GREEN], to[BLUE] = totals[S_RED], totals[S_RED + 1], totals[S_RED + 2]
    to[EAST], to[NORTH], to[UP] = totals[S_EAST], totals[S_EAST + 1], totals[S_EAST + 2]


@njit(error_model="numpy", nogil=True, cache=True)
def back_tiles(  # type: ignore[no-untyped-def]
    first, last, starts, rows, across, records, near, canvas, given, boxes, slots, places, parts
):
    """Compute the gradients of tiles [first, last), which were drawn on an empty canvas.

    Parameters
    ----------
    starts, rows, across, records, near, canvas
        As after `earthgen.splats.raster.forward.draw_tiles`.
    given : NDArray (GIVEN, h, w) float32
        Gradients of the canvas.
    boxes : NDArray (n, 4) int32
        Of `earthgen.splats.raster.projection.project`.
    slots : NDArray (n,) int64
        Where the tiles of each Gaussian's box begin in `places`.
    places : NDArray (pairs,) int32
        All -1; is written: the row in `parts` of each pair of a Gaussian and a tile that has one.
    parts : NDArray (pairs, GRADIENTS) float32
        Is written, one row for each pair, so that the sum over the tiles of a Gaussian can be
        computed in a fixed order.
    """
    height, width = canvas.shape[1], canvas.shape[2]
    state = np.empty(STATE, np.float32)
    sums = np.zeros(SUMS * TILE, np.float32)
    totals = np.empty(SUMS + MOMENTS, np.float32)
    staged = np.empty((STAGED, COLUMNS), np.float32)
    to = np.empty(STAGED, np.int64)
    ends = np.empty(TILE, np.int64)
    for tile in range(first, last):
        begin = starts[tile]
        if begin == starts[tile + 1]:
            continue
        top, left = tile // across * TILE, tile % across * TILE
        down, wide = min(TILE, height - top), min(TILE, width - left)
        state[:] = 0
        end = np.int64(0)
        for row in range(down):
            ends[row] = 0
            for i in range(wide):
                at, y, x = row * TILE + i, top + row, left + i
                state[at] = abs(canvas[LIGHT, y, x])
                for channel in range(GIVEN):
                    state[BEHIND + channel * AREA + at] = given[channel, y, x]
                state[FROM + at] = canvas[NEAREST, y, x]
                state[HALF_AT + at] = canvas[MEDIAN_AT, y, x]
                state[END_AT + at] = canvas[LAST_AT, y, x]
                ends[row] = max(ends[row], np.int64(canvas[LAST_AT, y, x]))
            end = max(end, ends[row])
        for chunk in range(
            begin + (end + STAGED - 1) // STAGED * STAGED - STAGED, begin - 1, -STAGED
        ):
            there = min(STAGED, begin + end - chunk)
            for t in range(there):
                i = rows[chunk + t]
                for column in range(COLUMNS):
                    staged[t, column] = records[i, column]
                breadth = (boxes[i, 1] + TILE - 1) // TILE - boxes[i, 0] // TILE
                y, x = tile // across - boxes[i, 2] // TILE, tile % across - boxes[i, 0] // TILE
                to[t] = slots[i] + y * breadth + x
            for t in range(there - 1, -1, -1):
                of = staged[t]
                low, high = max(int(of[TOP]) - top, 0), min(int(of[BOTTOM]) - top, down)
                offset = F(left) + MIDDLE - of[X]
                place = chunk - begin + t + 1
                number = F(place)
                touched = False
                for row in range(low, high):
                    if place <= ends[row]:
                        touched = True
                        back_row(
                            state,
                            row * TILE,
                            sums,
                            offset,
                            F(top + row) + MIDDLE - of[Y],
                            of[LOW_X],
                            of[LOW_Y],
                            of[U0],
                            of[U1],
                            of[V0],
                            of[V1],
                            of[P0],
                            of[P1],
                            of[Z],
                            of[R],
                            of[S],
                            of[OPACITY],
                            of[RED],
                            of[GREEN],
                            of[BLUE],
                            of[EAST],
                            of[NORTH],
                            of[UP],
                            near,
                            number,
                        )
                if touched:
                    add_up(sums, offset, totals)
                    write(of, totals, parts[chunk + t])
                    places[to[t]] = chunk + t
