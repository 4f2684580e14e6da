"""Terrain as a triangle mesh that is fine where the ground bends, from a grid of corner heights.

The mesh is a right-triangulated irregular network (Evans, Kirkpatrick and Townsend 2001,
"Right-triangulated irregular networks", Algorithmica 30): triangles are halved at the middle of
their longest edge until the heights between their corners are within a tolerance. All vertices at
the rim of the grid are kept, so that the meshes of neighbouring tiles fit together exactly, unless
they hang skirts there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Terrain:
    """The mesh of a square grid of cells.

    Attributes
    ----------
    column, row : NDArray (v,) int32
        Corner of each vertex, from the south-west.
    triangles : NDArray (t, 3) int32
        Vertices, counter-clockwise from above.
    """

    column: NDArray
    row: NDArray
    triangles: NDArray


def triangulate(
    height: NDArray, known: NDArray, tolerance: float, *, whole_rim: bool = True
) -> Terrain:
    """Return the mesh of a grid of corner heights.

    Parameters
    ----------
    height : NDArray (n + 1, n + 1) float
        Heights of the corners, metres, rows from the south; n is a power of two.
    known : NDArray (n, n) bool
        Cells that have ground; the others get no triangles.
    tolerance : float
        Largest distance of a corner's height from the mesh, metres.
    whole_rim : bool
        Keep every corner at the rim of the grid.
    """
    n = len(known)
    height = np.where(np.isfinite(height), height, 0.0).astype(np.float64)
    error = _errors(height, n)
    around = np.pad(known, 1, mode="edge")
    corners = (around[:-1, :-1], around[:-1, 1:], around[1:, :-1], around[1:, 1:])
    error[np.logical_or.reduce(corners) & ~np.logical_and.reduce(corners)] = np.inf
    if whole_rim:
        error[[0, -1], :] = np.inf
        error[:, [0, -1]] = np.inf
    _raise_parents(error, n)
    number = np.full(height.shape, -1, np.int32)
    triangles = np.empty((2 * n * n, 3), np.int32)
    vertices, count = _triangles(error, known, n, tolerance, number, triangles)
    column, row = np.empty(vertices, np.int32), np.empty(vertices, np.int32)
    rows, columns = np.nonzero(number >= 0)
    column[number[rows, columns]], row[number[rows, columns]] = columns, rows
    return Terrain(column, row, triangles[:count].copy())


@numba.njit(cache=True, nogil=True)
def _errors(height, n):  # type: ignore[no-untyped-def]
    """The difference between each corner's height and the middle of the edge that it halves.

    A corner halves a diagonal edge (both coordinates odd multiples of a step) or a straight one.
    """
    error = np.zeros((n + 1, n + 1))
    step = n
    while step > 1:
        half = step // 2
        for row in range(half, n, step):  # the middle of squares: their diagonals
            for col in range(half, n, step):
                # Diagonals alternate so that every longest edge is shared by two triangles.
                turn = ((row // step) + (col // step)) & 1
                if turn == 0:
                    middle = height[row - half, col - half] + height[row + half, col + half]
                else:
                    middle = height[row - half, col + half] + height[row + half, col - half]
                error[row, col] = abs(height[row, col] - 0.5 * middle)
        for row in range(0, n + 1, half):  # the middle of the squares' sides
            for col in range(0, n + 1, half):
                r, c = (row // half) & 1, (col // half) & 1
                if r == c:
                    continue
                if c == 1:
                    middle = height[row, col - half] + height[row, col + half]
                else:
                    middle = height[row - half, col] + height[row + half, col]
                error[row, col] = abs(height[row, col] - 0.5 * middle)
        step = half
    return error


@numba.njit(cache=True, nogil=True)
def _raise_parents(error, n):  # type: ignore[no-untyped-def]
    """Make no corner's error smaller than those of the corners that need it."""
    half = 1
    while half < n:
        step = 2 * half
        if half > 1:  # the middle of sides need the middles of the smaller squares beside them
            quarter = half // 2
            for row in range(0, n + 1, half):
                for col in range(0, n + 1, half):
                    if ((row // half) & 1) == ((col // half) & 1):
                        continue
                    for dr in (-quarter, quarter):
                        for dc in (-quarter, quarter):
                            r, c = row + dr, col + dc
                            if 0 <= r <= n and 0 <= c <= n:
                                error[row, col] = max(error[row, col], error[r, c])
        for row in range(half, n, step):  # the middle of squares need those of their sides
            for col in range(half, n, step):
                for r, c in (
                    (row - half, col),
                    (row + half, col),
                    (row, col - half),
                    (row, col + half),
                ):
                    error[row, col] = max(error[row, col], error[r, c])
        half = step


@numba.njit(cache=True, nogil=True)
def _triangles(error, known, n, tolerance, number, out):  # type: ignore[no-untyped-def]
    """Fill `out` and the vertex numbers of the corners in use; return how many of both."""
    stack = np.zeros((256, 6), np.int32)  # row, column of the apex and of the longest edge's ends
    # First the triangles beside the square's diagonal from the south-west to the north-east.
    stack[0, 1] = stack[0, 4] = stack[0, 5] = n
    stack[1, 0] = stack[1, 2] = stack[1, 3] = n
    depth, vertices, count = 2, 0, 0
    while depth > 0:
        depth -= 1
        ar, ac, br, bc, cr, cc = stack[depth]
        mr, mc = (br + cr) // 2, (bc + cc) // 2
        long = abs(br - cr) + abs(bc - cc) > 2 or (br == cr or bc == cc)
        if long and error[mr, mc] > tolerance:
            for child in range(2):
                stack[depth, 0], stack[depth, 1] = mr, mc
                stack[depth, 2] = ar if child == 0 else cr
                stack[depth, 3] = ac if child == 0 else cc
                stack[depth, 4] = br if child == 0 else ar
                stack[depth, 5] = bc if child == 0 else ac
                depth += 1
            continue
        r, c = (2 * ar + br + cr) / 4.0, (2 * ac + bc + cc) / 4.0
        if not known[min(int(r), n - 1), min(int(c), n - 1)]:
            continue
        # Counter-clockwise from above: the order is that of the signed area.
        turn = (bc - ac) * (cr - ar) - (br - ar) * (cc - ac)
        for k in range(3):
            which = k if turn > 0 else (0, 2, 1)[k]
            row = ar if which == 0 else (br if which == 1 else cr)
            col = ac if which == 0 else (bc if which == 1 else cc)
            if number[row, col] < 0:
                number[row, col] = vertices
                vertices += 1
            out[count, k] = number[row, col]
        count += 1
    return vertices, count
