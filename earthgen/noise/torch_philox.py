"""The draws of `earthgen.noise.philox` on torch tensors, on any device with int64 and float64: the
same numbers.

Words are int64 from 0 to 2**32 - 1, because torch has little arithmetic on uint32. Run it as it is:
a compiler that fuses multiplications with additions (torch.compile on CUDA) would change the last
bits of normals.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from earthgen.noise.philox import Stream, box_muller_of, require_places
from geo_io.frame import Frame

CPU_CHUNK = 16384
"""Places drawn at a time on a CPU, so that what lies between two operations stays in the cache."""

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF

Words = tuple[Tensor, Tensor, Tensor, Tensor]

box_muller = box_muller_of(
    lambda value: value.double(),
    lambda value: value.view(torch.int64),
    lambda value: value.view(torch.float64),
)
"""`earthgen.noise.philox.box_muller` over tensors. No tensor there is divided by a number: CUDA
would multiply instead."""


def philox4x32(counters: Words, key: tuple[int, int]) -> Words:
    """The Philox 4x32-10 bijection of words: four tensors of one shape in, four out."""
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
    """Four random words a place, int64: the broadcast shape of x, y, z, and 4. As `Stream.bits`.

    x, y, z : integer tensors on one device, or ints.
    """
    return _at(stream, (x, y, z), channel, 4, torch.int64, lambda words: words)


def uniform(
    stream: Stream, x: Tensor | int, y: Tensor | int, z: Tensor | int = 0, channel: int = 0
) -> Tensor:
    """float64 in [0, 1), 32 random bits each. As `Stream.uniform`."""
    return _at(
        stream, (x, y, z), channel, 1, torch.float64, lambda words: (words[0].double() * 2.0**-32,)
    )[..., 0]


def normal(
    stream: Stream, x: Tensor | int, y: Tensor | int, z: Tensor | int = 0, channel: int = 0
) -> Tensor:
    """float64 standard normal. As `Stream.normal`."""
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
    """float32 standard normals, `channels` a place. As `Stream.normals`.

    places : a Frame, for (ny, nx, channels) on `device` (None for the CPU), the first row
        northernmost; or (n, 3) integer voxel indices x, y, z, for (n, channels), on their own
        device where `device` is None.
    """
    return _channels(stream, places, channels, device, _normals)


def uniforms(
    stream: Stream, places: Frame | Tensor, channels: int, device: torch.device | str | None = None
) -> Tensor:
    """float32 in [0, 1), 24 random bits each, `channels` a place. As `Stream.uniforms`;
    arguments as `normals`."""
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
    """`count` draws a place: what `convert` makes of the words of the channels from `first` on,
    four or fewer each."""
    device = next((part.device for part in places if isinstance(part, Tensor)), None)
    parts = torch.broadcast_tensors(*(torch.as_tensor(part, device=device) for part in places))  # type: ignore[no-untyped-call]
    x, y, z = (part.reshape(-1).long() for part in parts)
    out = torch.empty((len(x), count), dtype=dtype, device=device)
    step = CPU_CHUNK if out.device.type == "cpu" else max(len(x), 1)
    for low in range(0, len(x), step):
        here = slice(low, low + step)
        cx, cy, cz = (
            x[here] & _MASK,
            y[here] & _MASK,
            z[here] & _MASK,
        )  # two's complement of negatives
        for block in range(-(-count // 4)):
            words = philox4x32((cx, cy, cz, torch.full_like(cx, first + block)), stream.key)
            for channel, value in enumerate(convert(words)[: count - 4 * block], 4 * block):
                out[here, channel] = value
    return out.reshape(*parts[0].shape, count)


def _product(word: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """The high and low 32 bits of a 64-bit product.

    The multiplier is above 2**31; less 2**32 it is a negative number whose product with a word does
    not leave int64. The low half stays what it was, and the high half is short by one word.
    """
    product = word * (multiplier - 2**32)
    return ((product >> 32).add_(word)).bitwise_and_(_MASK), product & _MASK
