"""Counter-based random numbers: each is a function of the seed, the stream's name and the place.

The generator is Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC
2011). Ten rounds of multiplication turn a 128-bit counter and a 64-bit key into 128 random bits.
There is no state and no order of drawing, so any part of a world can be made alone.

Normal numbers are computed from these bits by + - * / and integer operations in a fixed order. The
last bits of log, cos and sqrt differ between libraries; those of the basic operations do not.
`earthgen.noise.torch_philox` draws the same numbers, bit for bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from geo_io.frame import Frame

NOISE_VERSION = 2
"""Part of every world's identity; raised whenever a change here changes the numbers."""

# These constants stay in this file: numba's cache notices changes of the kernel's own file only.

_LOG_2 = 0.6931471805599453
_TURN = 6.283185307179586 * 2.0**-32  # radians of one step of a 32-bit angle
_SQRT_HALF_BITS = 0x3FE6A09E667F3BCD  # sqrt(1/2), its float64 read as an integer
_ROOT_BITS = 0x5FE6EB50C7B537A9  # minus half of x's bits: the bits of 1 / sqrt(x) within 3.5 %


def make_box_muller(
    to_float: Callable[[Any], Any],
    float_bits: Callable[[Any], Any],
    bits_float: Callable[[Any], Any],
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Return the Box-Muller transform for one array library (numpy, torch) or numba scalars.

    Apart from the three arguments it uses Python's operators only. They must run as written,
    without fused multiply-adds. The error is below 1e-12.

    Parameters
    ----------
    to_float : callable
        Converts int64 to float64.
    float_bits : callable
        Reinterprets the bits of a float64 as int64.
    bits_float : callable
        Reinterprets the bits of an int64 as float64.

    Returns
    -------
    callable
        (word0, word1), int64 from 0 to 2**32 - 1, to two independent standard normals, float64
        below 6.77 in size.
    """

    def box_muller(word0: Any, word1: Any) -> tuple[Any, Any]:
        # u = (2 word0 + 1) / 2**33 lies inside (0, 1). With 2 word0 + 1 = 2**exponent * fraction,
        # the fraction in [sqrt 1/2, sqrt 2): log fraction = 2 atanh((fraction - 1) / (fraction +
        # 1)), by its series.
        bits = float_bits(to_float(2 * word0 + 1))
        exponent = (bits - _SQRT_HALF_BITS) >> 52
        fraction = bits_float(bits - (exponent << 52))
        t = (fraction - 1.0) / (fraction + 1.0)
        tt = t * t
        series = tt * (1 / 15) + 1 / 13
        series = series * tt + 1 / 11
        series = series * tt + 1 / 9
        series = series * tt + 1 / 7
        series = series * tt + 1 / 5
        series = series * tt + 1 / 3
        series = series * tt + 1.0
        log_u = to_float(exponent - 33) * _LOG_2 + (t + t) * series

        # The radius is sqrt x, x = -2 log u, by Newton's iteration for 1 / sqrt x. torch.sqrt would
        # not do: on CPUs it may be MKL's, which is off by one bit about once in a hundred.
        x = log_u * -2.0
        half = x * 0.5
        root = bits_float(_ROOT_BITS - (float_bits(x) >> 1))
        root = root * (1.5 - half * root * root)
        root = root * (1.5 - half * root * root)
        root = root * (1.5 - half * root * root)
        root = root * (1.5 - half * root * root)
        radius = x * root

        # The angle, word1 / 2**32 turns, is a number of quarter turns plus at most an eighth.
        quarter = (word1 + 0x20000000) >> 30
        rest = to_float(word1 - (quarter << 30)) * _TURN
        rr = rest * rest
        sine = rr * (1 / 6227020800) - 1 / 39916800  # 13! and 11!
        sine = sine * rr + 1 / 362880
        sine = sine * rr - 1 / 5040
        sine = sine * rr + 1 / 120
        sine = sine * rr - 1 / 6
        sine = sine * rr + 1.0
        sine = sine * rest
        cosine = rr * (-1 / 87178291200) + 1 / 479001600  # 14! and 12!
        cosine = cosine * rr - 1 / 3628800
        cosine = cosine * rr + 1 / 40320
        cosine = cosine * rr - 1 / 720
        cosine = cosine * rr + 1 / 24
        cosine = cosine * rr - 0.5
        cosine = cosine * rr + 1.0
        sign = 1 - (quarter & 2)
        # Sine and cosine of the quarter turns are -1, 0 or 1: no rounding.
        quarter_sine = to_float((quarter & 1) * sign)
        quarter_cosine = to_float((1 - (quarter & 1)) * sign)
        return (
            radius * (quarter_cosine * cosine - quarter_sine * sine),
            radius * (quarter_cosine * sine + quarter_sine * cosine),
        )

    return box_muller


def _to_float(value):  # type: ignore[no-untyped-def]
    return np.float64(value)


def _float_bits(value):  # type: ignore[no-untyped-def]
    return np.float64(value).view(np.int64)


def _bits_float(value):  # type: ignore[no-untyped-def]
    return np.int64(value).view(np.float64)


box_muller = make_box_muller(_to_float, _float_bits, _bits_float)
"""The Box-Muller transform on numpy arrays: the reference of the kernels below."""

_box_muller = numba.njit(error_model="numpy")(  # no fastmath: it would fuse and reorder
    make_box_muller(numba.njit(_to_float), numba.njit(_float_bits), numba.njit(_bits_float))
)


_MULTIPLIER_0 = np.uint64(0xD2511F53)
_MULTIPLIER_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = np.uint32(0x9E3779B9)
_WEYL_1 = np.uint32(0xBB67AE85)


@numba.njit(inline="always")
def _round(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    product0 = _MULTIPLIER_0 * np.uint64(c0)
    product1 = _MULTIPLIER_1 * np.uint64(c2)
    high0, low0 = np.uint32(product0 >> np.uint64(32)), np.uint32(product0)
    high1, low1 = np.uint32(product1 >> np.uint64(32)), np.uint32(product1)
    return high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0


@numba.njit
def _block(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    for _ in range(10):
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1)
        k0 = np.uint32(k0 + _WEYL_0)
        k1 = np.uint32(k1 + _WEYL_1)
    return c0, c1, c2, c3


@numba.njit(cache=True, nogil=True)
def _philox(counters, k0, k1, out):  # type: ignore[no-untyped-def]
    for i in range(counters.shape[0]):
        words = _block(counters[i, 0], counters[i, 1], counters[i, 2], counters[i, 3], k0, k1)
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = words


@numba.njit(cache=True, nogil=True)
def _normal(counters, k0, k1, out):  # type: ignore[no-untyped-def]
    for i in range(counters.shape[0]):
        words = _block(counters[i, 0], counters[i, 1], counters[i, 2], counters[i, 3], k0, k1)
        out[i] = _box_muller(np.int64(words[0]), np.int64(words[1]))[0]


@numba.njit
def _channels(x, y, z, k0, k1, gaussian, out):  # type: ignore[no-untyped-def]
    count = out.shape[0]
    for block in range((count + 3) // 4):
        w0, w1, w2, w3 = _block(np.uint32(x), np.uint32(y), np.uint32(z), np.uint32(block), k0, k1)
        if gaussian:
            a, b = _box_muller(np.int64(w0), np.int64(w1))
            c, d = _box_muller(np.int64(w2), np.int64(w3))
        else:
            a, b, c, d = (
                (w0 >> 8) * 2.0**-24,
                (w1 >> 8) * 2.0**-24,
                (w2 >> 8) * 2.0**-24,
                (w3 >> 8) * 2.0**-24,
            )
        first = 4 * block
        out[first] = a
        if first + 1 < count:
            out[first + 1] = b
        if first + 2 < count:
            out[first + 2] = c
        if first + 3 < count:
            out[first + 3] = d


@numba.njit(cache=True, nogil=True)
def _channels_of_places(xyz, k0, k1, gaussian, out):  # type: ignore[no-untyped-def]
    for i in range(xyz.shape[0]):
        _channels(xyz[i, 0], xyz[i, 1], xyz[i, 2], k0, k1, gaussian, out[i])


@numba.njit(cache=True, nogil=True)
def _channels_of_frame(x0, y1, k0, k1, gaussian, out):  # type: ignore[no-untyped-def]
    for row in range(out.shape[0]):
        for col in range(out.shape[1]):
            _channels(x0 + col, y1 - 1 - row, 0, k0, k1, gaussian, out[row, col])


def philox4x32(counters: NDArray, key: tuple[int, int]) -> NDArray:
    """Apply the Philox 4x32-10 bijection.

    Parameters
    ----------
    counters : NDArray (n, 4) uint32
        128-bit counters as four words.
    key : tuple of int
        64-bit key as two words.

    Returns
    -------
    NDArray (n, 4) uint32
        128 random bits per counter.
    """
    counters = np.ascontiguousarray(counters, np.uint32)
    out = np.empty_like(counters)
    _philox(counters, np.uint32(key[0]), np.uint32(key[1]), out)
    return out


@dataclass(frozen=True)
class Stream:
    """The random numbers of one purpose in one world. Each draw is a function of its place.

    A place is three int32 lattice indices, or the uint64 key of an object. Draws at different
    channels are independent. Draws at the same place and channel are not: `bits`, `uniform` and
    `normal` use the same words, and channels 4 c to 4 c + 3 of `normals` and `uniforms` use the
    four words of channel c. So use a separate stream for each method.
    `earthgen.noise.torch_philox` has the same draws for torch.

    Attributes
    ----------
    key : tuple of int
        Two 32-bit words; see `Noise.stream`.
    """

    key: tuple[int, int]

    def bits(self, x: ArrayLike, y: ArrayLike, z: ArrayLike = 0, channel: int = 0) -> NDArray:
        """Return four random 32-bit words per place.

        Parameters
        ----------
        x, y, z : array_like of int
            Lattice indices, broadcast against each other.
        channel : int
            Draws of different channels are independent.

        Returns
        -------
        NDArray (..., 4) uint32
            The leading axes have the broadcast shape.
        """
        counters, shape = _counters(x, y, z, channel)
        return philox4x32(counters, self.key).reshape(*shape, 4)

    def uniform(self, x: ArrayLike, y: ArrayLike, z: ArrayLike = 0, channel: int = 0) -> NDArray:
        """Return float64 in [0, 1) with 32 random bits, one per place; arguments as for `bits`."""
        return self.bits(x, y, z, channel)[..., 0] * 2.0**-32

    def normal(self, x: ArrayLike, y: ArrayLike, z: ArrayLike = 0, channel: int = 0) -> NDArray:
        """Return float64 standard normals, one per place; arguments as for `bits`.

        They are made from two words by the Box-Muller transform, and stay below 6.77 in size.
        """
        counters, shape = _counters(x, y, z, channel)
        out = np.empty(len(counters))
        _normal(counters, np.uint32(self.key[0]), np.uint32(self.key[1]), out)
        return out.reshape(shape)[()]

    def normals(self, places: Frame | ArrayLike, channels: int) -> NDArray:
        """Return standard normals, `channels` per place: the initial noise of a diffusion model.

        A number depends on its lattice indices and its channel. It depends neither on the window
        nor on the number of channels, nor on the voxel size: use one stream per level of a world.

        Parameters
        ----------
        places : Frame or array_like (n, 3) of int
            The cells of a frame, drawn at z = 0, or voxel indices x, y, z.
        channels : int
            Numbers per place.

        Returns
        -------
        NDArray (ny, nx, channels) or (n, channels) float32
            Rows of a frame run from north to south.

        Raises
        ------
        ValueError
            If an array of places is not (n, 3) integers.
        """
        return self._channels(places, channels, True)

    def uniforms(self, places: Frame | ArrayLike, channels: int) -> NDArray:
        """Return float32 in [0, 1) with 24 random bits, `channels` per place; as `normals`."""
        return self._channels(places, channels, False)

    def of_objects(self, keys: NDArray, channel: int = 0) -> NDArray:
        """Return one uniform number per object.

        Parameters
        ----------
        keys : NDArray (n,) uint64
            Keys of objects.
        channel : int
            Draws of different channels are independent.

        Returns
        -------
        NDArray (n,) float64
            In [0, 1), 32 random bits.
        """
        keys = np.asarray(keys, np.uint64)
        counters = np.empty((keys.size, 4), np.uint32)
        counters[:, 0] = (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        counters[:, 1] = (keys >> np.uint64(32)).astype(np.uint32)
        counters[:, 2] = np.uint32(0x6F626A)  # keeps objects apart from places at z = 0
        counters[:, 3] = np.uint32(channel)
        return philox4x32(counters, self.key)[:, 0] * 2.0**-32

    def _channels(self, places: Frame | ArrayLike, channels: int, gaussian: bool) -> NDArray:
        k0, k1 = np.uint32(self.key[0]), np.uint32(self.key[1])
        if isinstance(places, Frame):
            out = np.empty((*places.shape, channels), np.float32)
            _channels_of_frame(places.x[0], places.y[1], k0, k1, gaussian, out)
            return out
        xyz = np.ascontiguousarray(places)
        require_places(xyz.shape, np.issubdtype(xyz.dtype, np.integer))
        out = np.empty((len(xyz), channels), np.float32)
        _channels_of_places(xyz, k0, k1, gaussian, out)
        return out


@dataclass(frozen=True)
class Noise:
    """The source of all random draws of a world, or of one stage of it.

    A stage's compute function gets it and draws from named streams::

        heights = noise.stream("heights").uniform(x, y)

    Attributes
    ----------
    seed : int
        Any integer.
    stage : str
        The stage that draws; "" for draws that stages share.
    """

    seed: int
    stage: str = ""

    def stream(self, name: str) -> Stream:
        """Return the stream with this name, keyed by noise version, seed, stage and name."""
        # JSON keeps the four parts apart, whatever characters a name contains.
        text = json.dumps([NOISE_VERSION, int(self.seed), self.stage, name])
        digest = hashlib.blake2b(text.encode(), digest_size=8, person=b"earthgen noise").digest()
        return Stream((int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")))

    def of_stage(self, stage: str) -> Noise:
        """Return the noise of the stage with this name; no other stage shares its streams."""
        return replace(self, stage=stage)

    def shared(self) -> Noise:
        """Return the noise that all stages share, for values on which two stages must agree."""
        return replace(self, stage="")


def require_places(shape: tuple[int, ...], integer: bool) -> None:
    """Raise ValueError unless an array of places is (n, 3) integers.

    Parameters
    ----------
    shape : tuple of int
        Of the array.
    integer : bool
        Whether its dtype is an integer type.
    """
    if len(shape) != 2 or shape[1] != 3 or not integer:
        raise ValueError(
            "places must be (n, 3) integer voxel indices, "
            f"not {'' if integer else 'non-integer '}{shape}"
        )


def _counters(
    x: ArrayLike, y: ArrayLike, z: ArrayLike, channel: int
) -> tuple[NDArray, tuple[int, ...]]:
    """Return (n, 4) uint32 counters of the places, and the places' broadcast shape."""
    x, y, z = np.broadcast_arrays(x, y, z)
    counters = np.empty((x.size, 4), np.uint32)
    for column, part in enumerate((x, y, z)):
        # Negative indices become their two's complement.
        counters[:, column] = part.ravel().astype(np.int64).astype(np.uint32)
    counters[:, 3] = np.uint32(channel)
    return counters, x.shape
