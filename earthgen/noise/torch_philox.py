"""The draws of `earthgen.noise.philox` on torch tensors: the same numbers, bit for bit.

They run on any device with int64 and float64. Words are int64 from 0 to 2**32 - 1, because torch
has little arithmetic on uint32. Do not compile this module: a compiler that fuses multiplications
with additions (torch.compile on CUDA) changes the last bits of normals.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from earthgen.noise.philox import Stream, make_box_muller, require_places
from geo_io.frame import Frame

CPU_CHUNK = 16384
"""Places drawn at a time on a CPU, so that intermediate results stay in its cache."""

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF

Words = tuple[Tensor, Tensor, Tensor, Tensor]

box_muller = make_box_muller(
    lambda value: value.double(),
    lambda value: value.view(torch.int64),
    lambda value: value.view(torch.float64),
)
"""`earthgen.noise.philox.box_muller` on tensors.

It divides no tensor by a number: CUDA would multiply by the reciprocal instead.
"""


def philox4x32(counters: Words, key: tuple[int, int]) -> Words:
    """Apply the Philox 4x32-10 bijection.

    Parameters
    ----------
    counters : tuple of four Tensor int64
        Words of the counters, all of one shape.
    key : tuple of int
        64-bit key as two words.

    Returns
    -------
    tuple of four Tensor int64
        Random words of the same shape.
    """
    c0, c1, c2, c3 = counters
    k0, k1 = key
    for _ in range(10):
        (high0, low0), (high1, low1) = _product(c0, _MULTIPLIERS[0]), _product(c2, _MULTIPLIERS[1])
        c0, c1 = high1.bitwise_xor_(c1).bitwise_xor_(k0), low1
        c2, c3 = high0.bitwise_xor_(c3).bitwise_xor_(k1), low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def bits(
    stream: Stream, x: Tensor | int, y: Tensor | int, z: Tensor | int = 0, channel: int = 0
) -> Tensor:
    """Return four random words per place, as `Stream.bits`.

    Parameters
    ----------
    stream : Stream
        Source of the draws.
    x, y, z : Tensor of integers, or int
        Lattice indices on one device, broadcast against each other.
    channel : int
        Draws of different channels are independent.

    Returns
    -------
    Tensor (..., 4) int64
        The leading axes have the broadcast shape.
    """
    return _at(stream, (x, y, z), channel, 4, torch.int64, lambda words: words)


def uniform(
    stream: Stream, x: Tensor | int, y: Tensor | int, z: Tensor | int = 0, channel: int = 0
) -> Tensor:
    """Return float64 in [0, 1) with 32 random bits, as `Stream.uniform`; arguments as `bits`."""
    return _at(
        stream, (x, y, z), channel, 1, torch.float64, lambda words: (words[0].double() * 2.0**-32,)
    )[..., 0]


def normal(
    stream: Stream, x: Tensor | int, y: Tensor | int, z: Tensor | int = 0, channel: int = 0
) -> Tensor:
    """Return float64 standard normals, as `Stream.normal`; arguments as `bits`."""
    return _at(
        stream,
        (x, y, z),
        channel,
        1,
        torch.float64,
        lambda words: box_muller(words[0], words[1])[:1],
    )[..., 0]


def normals(
    stream: Stream, places: Frame | Tensor, channels: int, device: torch.device | str | None = None
) -> Tensor:
    """Return standard normals, `channels` per place, as `Stream.normals`.

    Parameters
    ----------
    stream : Stream
        Source of the draws.
    places : Frame or Tensor (n, 3) of integers
        The cells of a frame, drawn at z = 0, or voxel indices x, y, z.
    channels : int
        Numbers per place.
    device : torch.device or str, optional
        Of the result. Default: the device of a tensor of places, the CPU for a frame.

    Returns
    -------
    Tensor (ny, nx, channels) or (n, channels) float32
        Rows of a frame run from north to south.

    Raises
    ------
    ValueError
        If a tensor of places is not (n, 3) integers.
    """
    return _channels(stream, places, channels, device, _normals)


def uniforms(
    stream: Stream, places: Frame | Tensor, channels: int, device: torch.device | str | None = None
) -> Tensor:
    """Return float32 in [0, 1) with 24 random bits, as `Stream.uniforms`; as `normals`."""
    return _channels(stream, places, channels, device, _uniforms)


def _normals(words: Words) -> tuple[Tensor, ...]:
    return (*box_muller(words[0], words[1]), *box_muller(words[2], words[3]))


def _uniforms(words: Words) -> tuple[Tensor, ...]:
    return tuple((word >> 8).double() * 2.0**-24 for word in words)


def _channels(
    stream: Stream,
    places: Frame | Tensor,
    channels: int,
    device: torch.device | str | None,
    convert: Callable[[Words], tuple[Tensor, ...]],
) -> Tensor:
    if isinstance(places, Frame):
        x = torch.arange(places.x[0], places.x[1], device=device)
        y = torch.arange(places.y[1] - 1, places.y[0] - 1, -1, device=device)[:, None]
        return _at(stream, (x, y, 0), 0, channels, torch.float32, convert)
    require_places(tuple(places.shape), not places.is_floating_point())
    x, y, z = places.to(device or places.device).unbind(1)
    return _at(stream, (x, y, z), 0, channels, torch.float32, convert)


def _at(
    stream: Stream,
    places: tuple[Tensor | int, ...],
    first: int,
    count: int,
    dtype: torch.dtype,
    convert: Callable[[Words], tuple[Tensor, ...]],
) -> Tensor:
    """Return `count` draws per place.

    `convert` turns the words of one Philox channel into at most four draws; the channels used
    begin at `first`.
    """
    device = next((part.device for part in places if isinstance(part, Tensor)), None)
    parts = torch.broadcast_tensors(*(torch.as_tensor(part, device=device) for part in places))  # type: ignore[no-untyped-call]
    x, y, z = (part.reshape(-1).long() for part in parts)
    out = torch.empty((len(x), count), dtype=dtype, device=device)
    step = CPU_CHUNK if out.device.type == "cpu" else max(len(x), 1)
    for low in range(0, len(x), step):
        here = slice(low, low + step)
        # Negative indices become their two's complement.
        cx, cy, cz = x[here] & _MASK, y[here] & _MASK, z[here] & _MASK
        for block in range(-(-count // 4)):
            words = philox4x32((cx, cy, cz, torch.full_like(cx, first + block)), stream.key)
            for channel, value in enumerate(convert(words)[: count - 4 * block], 4 * block):
                out[here, channel] = value
    return out.reshape(*parts[0].shape, count)


def _product(word: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """Return the high and low 32 bits of a 64-bit product.

    The multiplier is above 2**31. Minus 2**32 it is negative, and its product with a word fits
    int64. That leaves the low half unchanged and the high half too small by one word.
    """
    product = word * (multiplier - 2**32)
    return ((product >> 32).add_(word)).bitwise_and_(_MASK), product & _MASK
