"""What the header of a LAS file says, held against the size of the file before a library believes
it.

Libraries allocate what counts say. The fields are those of LAS 1.4 R15, tables 3 and 4, which older
versions share; the chunk table is that of the LASzip specification.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

from geo_io.errors import InputError

SIGNATURE = b"LASF"
COMPRESSED = 0x80
"""Bit of the point format that LASzip sets."""

VLR, EVLR = 54, 60
"""Bytes of the header of a record, before and after the points."""

SMALLEST_HEADER, HEADER_1_4 = 227, 375

LAYERS = {10: 9, 11: 1, 12: 2, 13: 1}
"""Layers of an item of LASzip by its type: point, RGB, RGB and NIR, wave packet of LAS 1.4."""

EXTRA_BYTES = 14
"""Type of an item of LASzip with a layer for each of its bytes."""

DECODED = 2**28
"""Bytes of points that are decoded at a time, at most."""


def check_counts(path: Path) -> None:
    """Check that the records and chunks that a LAS or LAZ file counts have room in it.

    A file that is no LAS file passes: its reader says so.

    Raises
    ------
    InputError
        If they do not, or the file ends within its header.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEADER_1_4)
        if head[:4] != SIGNATURE:
            return
        if len(head) < SMALLEST_HEADER:
            raise InputError(f"{path} ends within its header", "fetch it again")
        header, points, records = struct.unpack_from("<HII", head, 94)
        record = struct.unpack_from("<H", head, 105)[0]
        if header < SMALLEST_HEADER or points > size:
            raise _too_many(path, "a header", header, size)
        if header + records * VLR > points:
            raise _too_many(path, "records before its points", records, size)
        if record == 0:
            raise InputError(f"{path} is damaged: its points have no bytes", "fetch it again")
        if head[25] >= 4 and len(head) >= HEADER_1_4 and header >= HEADER_1_4:
            first, extended = struct.unpack_from("<QI", head, 235)
            if extended and first + extended * EVLR > size:
                raise _too_many(path, "records after its points", extended, size)
            _check_extended(path, file, first, extended, size)
        if head[104] & COMPRESSED:
            _check_chunks(path, file, points, size)


def _check_extended(path: Path, file: BinaryIO, first: int, count: int, size: int) -> None:
    """Check the lengths of the records after the points."""
    for _ in range(count):
        file.seek(first)
        raw = file.read(EVLR)
        length = struct.unpack_from("<Q", raw, 20)[0] if len(raw) == EVLR else size
        first += EVLR + length
        if first > size:
            raise _too_many(path, "a record after its points", length, size)


def points_at_once(record: int, most: int) -> int:
    """Return how many points of `record` bytes to decode at a time: `most`, or fewer."""
    return max(1, min(most, DECODED // max(record, 1)))


def _check_chunks(path: Path, file: BinaryIO, points: int, size: int) -> None:
    """Check the number of chunks and their sizes: lazrs allocates what their table says."""
    file.seek(points)
    raw = file.read(8)
    if len(raw) < 8:
        return
    (table,) = struct.unpack("<q", raw)
    if table == -1:  # written as a stream: its place is at the end
        file.seek(-8, os.SEEK_END)
        (table,) = struct.unpack("<q", file.read(8))
    if not points <= table <= size - 8:
        raise InputError(
            f"{path} is cut off or damaged: its chunk table would lie at byte {table:,} of "
            f"{size:,}",
            "fetch it again",
        )
    file.seek(table)
    _, chunks = struct.unpack("<II", file.read(8))
    if chunks > size:
        raise _too_many(path, "chunks", chunks, size)


def check_layers(path: Path, laszip: bytes, points: int, record: int) -> None:
    """Check the sizes of the layers of all chunks against the sizes of the chunks.

    Chunks of the newer point formats hold each attribute as a layer of its own, whose size stands
    before all of them (LASzip, "compressing the new LAS 1.4 point types", 2017). lazrs allocates
    it, and where memory is short that ends the process.

    Parameters
    ----------
    path : Path
    laszip : bytes
        Data of the record of LASzip.
    points : int
        Byte at which the points begin.
    record : int
        Bytes of a point.

    Raises
    ------
    InputError
        If layers do not fill their chunk, or chunks are larger than the file.
    """
    import lazrs  # type: ignore[import-untyped]

    size, count = path.stat().st_size, struct.unpack_from("<H", laszip, 32)[0]
    items = [struct.unpack_from("<HH", laszip, 34 + 6 * number) for number in range(count)]
    layers = sum(LAYERS.get(kind, width if kind == EXTRA_BYTES else 0) for kind, width in items)
    with path.open("rb") as file:
        file.seek(points)
        chunks = lazrs.read_chunk_table(file, lazrs.LazVlr(laszip))
        start = points + 8
        for _, length in chunks or ():
            if start + length > size:
                raise _too_many(path, "a chunk of bytes", length, size)
            if layers and length:
                file.seek(start + record + 4)  # after the first point and the number of points
                raw = file.read(4 * layers)
                total = sum(struct.unpack(f"<{len(raw) // 4}I", raw[: len(raw) // 4 * 4]))
                # A chunk of other layers would end elsewhere, and the sizes of the next be anything
                if record + 4 + 4 * layers + total != length:
                    raise InputError(
                        f"{path} is damaged: the layers of the chunk at byte {start:,} have "
                        f"{total:,} bytes, the chunk has {length:,}",
                        "fetch it again",
                    )
            start += length


def _too_many(path: Path, what: str, count: int, size: int) -> InputError:
    return InputError(
        f"{path} is cut off or damaged: {size:,} bytes have no room for {what} ({count:,})",
        "fetch it again",
    )
