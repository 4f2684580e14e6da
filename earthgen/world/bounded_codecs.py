"""Codecs of Zarr that unpack no more than a chunk holds.

A chunk of a kilobyte may say that it unpacks to gigabytes, and the codecs of Zarr believe it. What
a chunk must have is known before: the size of its array. Arrays of worlds are opened with these.
"""

from __future__ import annotations

import asyncio
import math
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec
from zarr.registry import register_codec

from earthgen.errors import StoreError

REMEDY = "`earthgen verify` finds and mends damaged tiles"

BLOSC_HEADER = 16
"""Bytes of the header of Blosc; four of them, from the fifth on, are the size of what is packed."""


class DamagedChunkError(StoreError, ValueError):
    """A chunk unpacks to something else than its array says."""


class BoundedGzip(GzipCodec):
    """The codec "gzip" of Zarr."""

    def _decode_sync(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        size = _size(chunk_spec)
        data, out = chunk_bytes.to_bytes(), b""
        try:
            while data and len(out) <= size:  # of each member of the file
                member = zlib.decompressobj(16 + zlib.MAX_WBITS)
                out += member.decompress(data, size + 1 - len(out))
                if not member.eof:
                    break
                data = member.unused_data
        except zlib.error as error:
            raise DamagedChunkError(f"a chunk is damaged: {error}", REMEDY) from error
        if len(out) != size or data:
            problem = f"a chunk of {size:,} bytes unpacks to another size, or is cut off"
            raise DamagedChunkError(problem, REMEDY)
        return chunk_spec.prototype.buffer.from_bytes(out)

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        return await asyncio.to_thread(self._decode_sync, chunk_bytes, chunk_spec)


class BoundedBlosc(BloscCodec):
    """The codec "blosc" of Zarr."""

    def _decode_sync(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        head = chunk_bytes[:BLOSC_HEADER].to_bytes()
        size, stated = _size(chunk_spec), int.from_bytes(head[4:8], "little")
        if len(head) < BLOSC_HEADER or stated != size:
            problem = f"a chunk of {size:,} bytes says that it unpacks to {stated:,}"
            raise DamagedChunkError(problem, REMEDY)
        return super()._decode_sync(chunk_bytes, chunk_spec)

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        return await asyncio.to_thread(self._decode_sync, chunk_bytes, chunk_spec)


def _size(chunk_spec: Any) -> int:
    """Bytes of a chunk."""
    dtype = chunk_spec.dtype
    native = dtype.to_native_dtype() if hasattr(dtype, "to_native_dtype") else dtype
    return math.prod(chunk_spec.shape) * int(native.itemsize)


CODECS = {"gzip": BoundedGzip, "blosc": BoundedBlosc}

for _name, _codec in CODECS.items():
    register_codec(_name, _codec)


_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def bounded_codecs() -> Iterator[None]:
    """Let arrays that are opened in a `with` block use these codecs, then and later.

    Zarr chooses codecs by settings of the process, so that threads take turns.
    """
    names = {name: f"{codec.__module__}.{codec.__qualname__}" for name, codec in CODECS.items()}
    with _ONE_AT_A_TIME, zarr.config.set({f"codecs.{name}": path for name, path in names.items()}):
        yield


def has_bounded_codecs(array: Any) -> bool:
    """Return whether an array uses no codecs but those that worlds are written with."""
    waiting = list(array.metadata.codecs)
    while waiting:
        codec = waiting.pop()
        if isinstance(codec, ShardingCodec):
            waiting += [*codec.codecs, *codec.index_codecs]
        elif not isinstance(codec, BytesCodec | Crc32cCodec | BoundedGzip | BoundedBlosc):
            return False
    return True
