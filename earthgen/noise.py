"""Counter-based noise: a random number is a function of the seed, the stage's name and the place.

The generator is Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): ten
rounds of multiplication that turn a 128-bit counter and a 64-bit key into 128 random bits. There is no state and
no order of drawing, so that any part of a world can be made alone and gets the same numbers.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

NOISE_VERSION = 1
"""Part of every world's identity; raised when a change here would change the numbers."""

_MULTIPLIER_0 = np.uint64(0xD2511F53)
_MULTIPLIER_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = np.uint32(0x9E3779B9)
_WEYL_1 = np.uint32(0xBB67AE85)


@numba.njit(cache=True, inline="always")
def _round(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    product0 = _MULTIPLIER_0 * np.uint64(c0)
    product1 = _MULTIPLIER_1 * np.uint64(c2)
    high0, low0 = np.uint32(product0 >> np.uint64(32)), np.uint32(product0)
    high1, low1 = np.uint32(product1 >> np.uint64(32)), np.uint32(product1)
    return high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0


@numba.njit(cache=True, nogil=True)
def _philox(counters, k0, k1, out):  # type: ignore[no-untyped-def]
    for i in range(counters.shape[0]):
        c0, c1, c2, c3 = counters[i, 0], counters[i, 1], counters[i, 2], counters[i, 3]
        a, b = k0, k1
        for _ in range(10):
            c0, c1, c2, c3 = _round(c0, c1, c2, c3, a, b)
            a = np.uint32(a + _WEYL_0)
            b = np.uint32(b + _WEYL_1)
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = c0, c1, c2, c3


def philox4x32(counters: NDArray, key: tuple[int, int]) -> NDArray:
    """The Philox 4x32-10 bijection.

    counters : (n, 4) uint32; key : two 32-bit ints. Returns (n, 4) uint32.
    """
    counters = np.ascontiguousarray(counters, np.uint32)
    out = np.empty_like(counters)
    _philox(counters, np.uint32(key[0]), np.uint32(key[1]), out)
    return out


@dataclass(frozen=True)
class Stream:
    """The random numbers of one stage of one world; every draw names its place.

    Draws at different `channel`s are independent. Places are int32 lattice indices, or a uint64 key of an object.
    """

    key: tuple[int, int]

    def bits(self, x: ArrayLike, y: ArrayLike, z: ArrayLike = 0, channel: int = 0) -> NDArray:
        """Four random uint32 a place: the broadcast shape of x, y, z, and 4."""
        x, y, z = np.broadcast_arrays(x, y, z)
        counters = np.empty((x.size, 4), np.uint32)
        for column, part in enumerate((x, y, z)):
            counters[:, column] = part.ravel().astype(np.int64).astype(np.uint32)  # two's complement of negatives
        counters[:, 3] = np.uint32(channel)
        return philox4x32(counters, self.key).reshape(*x.shape, 4)

    def uniform(self, x: ArrayLike, y: ArrayLike, z: ArrayLike = 0, channel: int = 0) -> NDArray:
        """float64 in [0, 1), 32 random bits each."""
        return self.bits(x, y, z, channel)[..., 0] * 2.0**-32

    def normal(self, x: ArrayLike, y: ArrayLike, z: ArrayLike = 0, channel: int = 0) -> NDArray:
        """float64 standard normal, by Box and Muller from two of the words."""
        words = self.bits(x, y, z, channel)
        radius = np.sqrt(-2.0 * np.log((words[..., 0] + 1.0) * 2.0**-32))
        return radius * np.cos(words[..., 1] * (2.0 * np.pi * 2.0**-32))

    def of_objects(self, keys: NDArray, channel: int = 0) -> NDArray:
        """float64 in [0, 1) for each uint64 object key."""
        keys = np.asarray(keys, np.uint64)
        counters = np.empty((keys.size, 4), np.uint32)
        counters[:, 0] = (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        counters[:, 1] = (keys >> np.uint64(32)).astype(np.uint32)
        counters[:, 2] = np.uint32(0x6F626A)  # keeps objects apart from places at z = 0
        counters[:, 3] = np.uint32(channel)
        return philox4x32(counters, self.key)[:, 0] * 2.0**-32


@dataclass(frozen=True)
class Noise:
    """The source of all random draws of a world."""

    seed: int

    def stream(self, stage: str) -> Stream:
        """The stream of the stage with this name; no two names or seeds share one."""
        text = f"earthgen noise {NOISE_VERSION}\0{self.seed}\0{stage}".encode()
        digest = hashlib.blake2b(text, digest_size=8).digest()
        return Stream((int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")))
