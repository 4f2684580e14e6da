"""Drawing, compiled: each tile draws its Gaussians front to back, one row of pixels at a time.

The state of a tile is one array, channel after channel, so that LLVM knows that channels do not
overlap.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from earthgen.splats.raster.binning import TILE
from earthgen.splats.raster.lanes import (
    ONE,
    F,
    fma,
    gaussian,
    load,
    store,
)
from earthgen.splats.raster.model import LEAST_ALPHA, LEAST_LIGHT, MOST_ALPHA, PIXEL_WEIGHT
from earthgen.splats.raster.projection import (
    BLUE,
    BOTTOM,
    CLASS,
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

CHANNELS = 13
"""Channels of a canvas (CHANNELS, h, w) float32, which are named below."""

LIGHT, COLOUR, NORMAL, DEPTH, DEPTH2, NEAREST, MEDIAN, MEDIAN_AT, LAST_AT = (
    0,
    1,
    4,
    7,
    8,
    9,
    10,
    11,
    12,
)
"""Remaining light, negative when drawing has ended; sums of w c (3), w n (3), w (d - nearest) and
w (d - nearest)^2; depth of the first Gaussian drawn; the median depth; positions in the tile's
list, from 1, of the median and of the last Gaussian drawn.

Depths are summed relative to the first one of the pixel, because their differences are small even
where the depths are large, so that float32 is precise enough."""

AREA = TILE * TILE
WEIGHT = CHANNELS * AREA
CLASSES = WEIGHT + AREA
"""Positions in the state of the last Gaussian's weights, and of the sums of weights of each
class."""

STAGED = 128
"""Gaussians whose records are copied before they are drawn, so that memory latencies overlap."""

LOOK = 16
"""Gaussians after which rows are checked for pixels with remaining light."""

LOW, HIGH, DARK, MIDDLE = F(LEAST_ALPHA), F(MOST_ALPHA), F(LEAST_LIGHT), F(0.5)
PER_PIXEL = F(PIXEL_WEIGHT)
NONE = F(0)

O_COLOUR, O_NORMAL, O_DEPTH, O_DEPTH2 = COLOUR * AREA, NORMAL * AREA, DEPTH * AREA, DEPTH2 * AREA
O_NEAREST, O_MEDIAN, O_MEDIAN_AT, O_LAST_AT = (
    NEAREST * AREA,
    MEDIAN * AREA,
    MEDIAN_AT * AREA,
    LAST_AT * AREA,
)


@njit(error_model="numpy", nogil=True, cache=True)
def draw_row(  # type: ignore[no-untyped-def]
    state,
    at,
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
    """Draw a Gaussian on the row of pixels whose state begins at `at`; (x, y) is the offset of the
    first pixel from the Gaussian."""
    k = fma(p0, x, fma(p1, y, ONE))
    a = fma(u0, x, u1 * y)
    b = fma(v0, x, v1 * y)
    c = fma(r, x, fma(s, y, z))
    ex, ey = x - low_x, y - low_y
    ey2 = ey * ey
    for i in range(TILE):
        lane = F(np.int32(i))
        h = ONE / fma(p0, lane, k)
        u = fma(u0, lane, a) * h
        v = fma(v0, lane, b) * h
        on_disc = fma(u, u, v * v)
        dx = lane + ex
        on_pixel = PER_PIXEL * fma(dx, dx, ey2)
        hits = on_disc <= on_pixel  # false if h is infinite
        depth = fma(r, lane, c) * h if hits else z
        alpha = opacity * gaussian(on_disc if hits else on_pixel)
        alpha = alpha if alpha < HIGH else HIGH
        light = load(state, at + i)
        rest = light * (ONE - alpha)
        drawn = (alpha >= LOW) & (depth > near) & (light > NONE)
        lit = drawn & (rest > DARK)
        w = alpha * light if lit else NONE
        store(state, at + i, rest if lit else (-light if drawn else light))
        store(state, at + i + O_COLOUR, fma(w, red, load(state, at + i + O_COLOUR)))
        store(
            state,
            at + i + (O_COLOUR + AREA),
            fma(w, green, load(state, at + i + (O_COLOUR + AREA))),
        )
        store(
            state,
            at + i + (O_COLOUR + 2 * AREA),
            fma(w, blue, load(state, at + i + (O_COLOUR + 2 * AREA))),
        )
        store(state, at + i + O_NORMAL, fma(w, east, load(state, at + i + O_NORMAL)))
        store(
            state,
            at + i + (O_NORMAL + AREA),
            fma(w, north, load(state, at + i + (O_NORMAL + AREA))),
        )
        store(
            state,
            at + i + (O_NORMAL + 2 * AREA),
            fma(w, up, load(state, at + i + (O_NORMAL + 2 * AREA))),
        )
        nearest = load(state, at + i + O_NEAREST)
        nearest = depth if lit & (light == ONE) else nearest
        store(state, at + i + O_NEAREST, nearest)
        behind = (depth if lit else nearest) - nearest
        store(state, at + i + O_DEPTH, fma(w, behind, load(state, at + i + O_DEPTH)))
        store(state, at + i + O_DEPTH2, fma(w * behind, behind, load(state, at + i + O_DEPTH2)))
        half = lit & (light > MIDDLE) & (rest <= MIDDLE)
        store(state, at + i + O_MEDIAN, depth if half else load(state, at + i + O_MEDIAN))
        store(state, at + i + O_MEDIAN_AT, number if half else load(state, at + i + O_MEDIAN_AT))
        store(state, at + i + O_LAST_AT, number if lit else load(state, at + i + O_LAST_AT))
        store(state, at + i + WEIGHT, w)


@njit(error_model="numpy", nogil=True, cache=True)
def add_row(state, to, at):  # type: ignore[no-untyped-def]
    """Add the last Gaussian's weights to the sums of its class."""
    for i in range(TILE):
        store(state, to + i, load(state, to + i) + load(state, at + i))


@njit(error_model="numpy", nogil=True, cache=True)
def look(state, open_rows):  # type: ignore[no-untyped-def]
    """Find the rows with remaining light, and return their number."""
    total = 0
    for row in range(TILE):
        lit = 0
        for i in range(TILE):
            lit += 1 if load(state, row * TILE + i) > NONE else 0
        open_rows[row] = lit > 0
        total += lit > 0
    return total


@njit(error_model="numpy", nogil=True, cache=True)
def draw_tiles(first, last, starts, rows, across, records, near, canvas, weights, codes, labels):  # type: ignore[no-untyped-def]
    """Draw tiles [first, last) on the canvas.

    Parameters
    ----------
    starts, rows, across
        Of `earthgen.splats.raster.binning.Bins`.
    records : NDArray (n, COLUMNS) float32
        Of `earthgen.splats.raster.projection.project`.
    near : float32
        Nearest depth that is drawn, metres.
    canvas : NDArray (CHANNELS, h, w) float32
        Is updated.
    weights : NDArray (classes, h, w) float32
        Sums of weights, which are updated; or (0, h, w), and the sums begin at 0.
    codes : NDArray (classes,) uint8
        Class codes.
    labels : NDArray (h, w) uint8
        Is written: the class with the largest sum.
    """
    height, width = canvas.shape[1], canvas.shape[2]
    known = len(codes)
    state = np.empty(CLASSES + max(known, 1) * AREA, np.float32)
    staged = np.empty((STAGED, COLUMNS), np.float32)
    open_rows = np.empty(TILE, np.bool_)
    for tile in range(first, last):
        begin, end = starts[tile], starts[tile + 1]
        if begin == end:
            continue
        top, left = tile // across * TILE, tile % across * TILE
        down, wide = min(TILE, height - top), min(TILE, width - left)
        state[:WEIGHT] = 0  # pixels outside the picture have no light
        for channel in range(CHANNELS):
            for row in range(down):
                for i in range(wide):
                    state[channel * AREA + row * TILE + i] = canvas[channel, top + row, left + i]
        state[CLASSES:] = 0
        for k in range(len(weights)):
            for row in range(down):
                for i in range(wide):
                    state[CLASSES + k * AREA + row * TILE + i] = weights[k, top + row, left + i]
        lit = look(state, open_rows)
        for chunk in range(begin, end, STAGED):
            if lit == 0:
                break
            there = min(STAGED, end - chunk)
            for t in range(there):
                i = rows[chunk + t]
                for column in range(COLUMNS):
                    staged[t, column] = records[i, column]
            for t in range(there):
                if t % LOOK == LOOK - 1:
                    lit = look(state, open_rows)
                    if lit == 0:
                        break
                of = staged[t]
                low, high = max(int(of[TOP]) - top, 0), min(int(of[BOTTOM]) - top, TILE)
                x = F(left) + MIDDLE - of[X]
                number = F(chunk - begin + t + 1)
                to = CLASSES + int(of[CLASS]) * AREA
                for row in range(low, high):
                    if open_rows[row]:
                        draw_row(
                            state,
                            row * TILE,
                            x,
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
                        if known:
                            add_row(state, to + row * TILE, WEIGHT + row * TILE)
        for channel in range(CHANNELS):
            for row in range(down):
                for i in range(wide):
                    canvas[channel, top + row, left + i] = state[channel * AREA + row * TILE + i]
        for k in range(len(weights)):
            for row in range(down):
                for i in range(wide):
                    weights[k, top + row, left + i] = state[CLASSES + k * AREA + row * TILE + i]
        for row in range(down):
            for i in range(wide):
                most, label = NONE, 0
                for k in range(known):
                    weight = state[CLASSES + k * AREA + row * TILE + i]
                    if weight > most:
                        most, label = weight, codes[k]
                labels[top + row, left + i] = label
