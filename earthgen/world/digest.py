"""Digests of the content of a world, which do not depend on how it is stored.

Each record, a cell of a dense layer or a voxel with its Gaussian, is hashed with its level and
position, and the hashes are summed. So a digest does not depend on tile size, order of tiles,
chunks or compression, and the digests of disjoint parts add up to that of the whole.

The hash is a chain of Philox 4x32-10 blocks (Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", SC 2011), each fed forward with its input. It detects accidents: lost, swapped, damaged or
differently computed records. It does not protect against forgery.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen.voxels.tile import LEVELS, Tile

Digest = tuple[int, int, int, int]
"""Four sums modulo 2^64."""

EMPTY_DIGEST: Digest = (0, 0, 0, 0)
"""The digest of a world without records."""

_CELL, _VOXEL = 1, 2  # types of records
_KEY = (0x65617274, 0x6867656E)
_KEY_LAST = (0x636F6E74, 0x656E7473)


def tile_digest(levels: Sequence[Tile]) -> Digest:
    """Return the digest of a tile.

    A cell counts if any of its values differs from no data. Values of a Gaussian count in float16,
    the stored dtype. All NaN are equal, and -0 equals 0.

    Parameters
    ----------
    levels : sequence of Tile
        The tile at level 1, 2, 4 and 8.
    """
    return add_digests(
        *(_level_digest(level, tile) for level, tile in zip(LEVELS, levels, strict=True))
    )


def add_digests(*digests: Digest) -> Digest:
    """Return the digest of disjoint parts together."""
    lanes = [sum(digest[lane] for digest in digests) % 2**64 for lane in range(4)]
    return lanes[0], lanes[1], lanes[2], lanes[3]


def digest_text(identity: Mapping[str, Any], digest: Digest) -> str:
    """Return 64 hex digits of a world's identity and content."""
    return hashlib.blake2b(
        _canonical([identity, list(digest)]), digest_size=32, person=b"earthgen world"
    ).hexdigest()


def identity_key(identity: Mapping[str, Any]) -> str:
    """Return 16 hex digits of a world's identity."""
    return hashlib.blake2b(
        _canonical(identity), digest_size=8, person=b"earthgen ident"
    ).hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _level_digest(level: int, tile: Tile) -> Digest:
    lanes = np.zeros(4, np.uint64)
    _sum_cells(
        np.uint64(level),
        tile.frame.x[0],
        tile.frame.y[1],
        _bits(tile.ground, np.float32),
        _bits(tile.surface, np.float32),
        np.ascontiguousarray(tile.semantics, np.uint8),
        np.ascontiguousarray(tile.rgb, np.uint8),
        lanes,
    )
    voxels, splats = tile.voxels, tile.splats
    _sum_voxels(
        np.uint64(level),
        np.ascontiguousarray(voxels.xyz, np.int32),
        np.ascontiguousarray(voxels.semantic, np.uint8),
        np.ascontiguousarray(voxels.faces, np.uint8),
        np.ascontiguousarray(voxels.object, np.uint32),
        _half_rows(splats.offset),
        _half_rows(splats.scale),
        _half_rows(splats.rotation),
        _half_rows(splats.opacity),
        _half_rows(splats.sh),
        lanes,
    )
    return int(lanes[0]), int(lanes[1]), int(lanes[2]), int(lanes[3])


def _bits(values: NDArray, dtype: type[np.floating]) -> NDArray:
    return np.ascontiguousarray(values, dtype).view(f"uint{8 * np.dtype(dtype).itemsize}")


def _half_rows(values: NDArray) -> NDArray:
    """The bits of float16 values, one row per record: (n, values) uint16."""
    return _bits(values, np.float16).reshape(len(values), math.prod(values.shape[1:]))


_BATCH = 64
"""Records that are hashed together, so that the compiler can vectorize the loops over them."""

_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
_HIGH = np.uint64(32)


@numba.njit(error_model="numpy")
def _philox(counters, k0, k1):  # type: ignore[no-untyped-def]
    """Philox 4x32-10 of (4, _BATCH) uint32 counters, in place; see `earthgen.noise.philox`."""
    c0, c1, c2, c3 = counters[0], counters[1], counters[2], counters[3]
    for _ in range(10):
        for i in range(_BATCH):
            product0, product1 = _MULTIPLIER_0 * np.uint64(c0[i]), _MULTIPLIER_1 * np.uint64(c2[i])
            c0[i] = np.uint32(product1 >> _HIGH ^ np.uint64(c1[i]) ^ np.uint64(k0))
            c2[i] = np.uint32(product0 >> _HIGH ^ np.uint64(c3[i]) ^ np.uint64(k1))
            c1[i], c3[i] = np.uint32(product1), np.uint32(product0)
        k0, k1 = np.uint32(k0 + _WEYL_0), np.uint32(k1 + _WEYL_1)


@numba.njit(error_model="numpy")
def _add_records(words, count, state, fed, lanes):  # type: ignore[no-untyped-def]
    """Hash the first `count` columns of words (4 n, _BATCH) uint32, and add their 256 bits to the
    lanes.

    state and fed are buffers, (4, _BATCH) uint32.
    """
    state[:] = 0
    for first in range(0, words.shape[0], 4):
        for part in range(4):
            for i in range(_BATCH):
                state[part, i] ^= words[first + part, i]
                fed[part, i] = state[part, i]
        _philox(state, np.uint32(_KEY[0]), np.uint32(_KEY[1]))
        for part in range(4):
            for i in range(_BATCH):
                state[part, i] ^= fed[part, i]
    fed[:] = state
    _philox(state, np.uint32(_KEY_LAST[0]), np.uint32(_KEY_LAST[1]))
    for part in range(4):
        total = np.uint64(0)
        for i in range(count):
            total += np.uint64(state[part, i]) << _HIGH | np.uint64(fed[part, i])
        lanes[part] += total


@numba.njit(inline="always")
def _single(bits):  # type: ignore[no-untyped-def]
    """The bits of a float32 with one NaN and one zero."""
    if (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000):
        return np.uint32(0x7FC00000)
    return np.uint32(0) if bits == np.uint32(0x80000000) else np.uint32(bits)


@numba.njit(inline="always")
def _half(bits):  # type: ignore[no-untyped-def]
    """The bits of a float16 with one NaN and one zero."""
    if (bits & np.uint32(0x7FFF)) > np.uint32(0x7C00):
        return np.uint32(0x7E00)
    return np.uint32(0) if bits == np.uint32(0x8000) else np.uint32(bits)


@numba.njit(cache=True, nogil=True)
def _sum_cells(level, x0, y1, ground, surface, semantics, rgb, lanes):  # type: ignore[no-untyped-def]
    words, count = np.zeros((8, _BATCH), np.uint32), 0
    state, fed = np.empty((4, _BATCH), np.uint32), np.empty((4, _BATCH), np.uint32)
    nan = np.uint32(0x7FC00000)
    for row in range(ground.shape[0]):
        for col in range(ground.shape[1]):
            low, high = _single(ground[row, col]), _single(surface[row, col])
            colour = (
                np.uint32(rgb[row, col, 0])
                | np.uint32(rgb[row, col, 1]) << 8
                | np.uint32(rgb[row, col, 2]) << 16
            )
            if semantics[row, col] == 0 and low == nan and high == nan and colour == 0:
                continue
            words[0, count] = level | np.uint32(semantics[row, col]) << 8 | np.uint32(_CELL) << 24
            words[1, count], words[2, count] = np.uint32(x0 + col), np.uint32(y1 - 1 - row)
            words[3, count], words[4, count], words[5, count] = low, high, colour
            count += 1
            if count == _BATCH:
                _add_records(words, count, state, fed, lanes)
                count = 0
    _add_records(words, count, state, fed, lanes)


@numba.njit(inline="always")
def _put_halves(values, row, words, count, at):  # type: ignore[no-untyped-def]
    """Append a row of float16 bits to a column of words, from half word `at` on; return the next
    position."""
    for column in range(values.shape[1]):
        half = _half(np.uint32(values[row, column]))
        if at & 1:
            words[at >> 1, count] |= half << np.uint32(16)
        else:
            words[at >> 1, count] = half
        at += 1
    return at


@numba.njit(cache=True, nogil=True)
def _sum_voxels(  # type: ignore[no-untyped-def]
    level, xyz, semantic, faces, object_, offset, scale, rotation, opacity, sh, lanes
):
    halves = offset.shape[1] + scale.shape[1] + rotation.shape[1] + opacity.shape[1] + sh.shape[1]
    words = np.zeros(((5 + (halves + 1) // 2 + 3) // 4 * 4, _BATCH), np.uint32)
    state, fed = np.empty((4, _BATCH), np.uint32), np.empty((4, _BATCH), np.uint32)
    for first in range(0, xyz.shape[0], _BATCH):
        count = min(_BATCH, xyz.shape[0] - first)
        for i in range(count):
            n = first + i
            words[0, i] = (
                level
                | np.uint32(semantic[n]) << 8
                | np.uint32(faces[n]) << 16
                | np.uint32(_VOXEL) << 24
            )
            words[1, i], words[2, i], words[3, i] = (
                np.uint32(xyz[n, 0]),
                np.uint32(xyz[n, 1]),
                np.uint32(xyz[n, 2]),
            )
            words[4, i] = object_[n]
            at = _put_halves(offset, n, words, i, 10)
            at = _put_halves(scale, n, words, i, at)
            at = _put_halves(rotation, n, words, i, at)
            at = _put_halves(opacity, n, words, i, at)
            _put_halves(sh, n, words, i, at)
        _add_records(words, count, state, fed, lanes)
