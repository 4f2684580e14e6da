"""Writing of NBT, the binary format of Minecraft (minecraft.wiki/w/NBT_format): big-endian, tags
with a type, a name and a payload."""

from __future__ import annotations

import builtins
import struct
from collections.abc import Iterable
from typing import IO

SHORT, INT, BYTES, LIST, COMPOUND, INTS, END = 2, 3, 7, 9, 10, 11, 0


class NbtWriter:
    """Writes tags into a stream, in order; compounds are opened and closed."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def _tag(self, kind: int, name: str) -> None:
        text = name.encode()
        self.file.write(struct.pack(f">BH{len(text)}s", kind, len(text), text))

    def open(self, name: str) -> None:
        """Begin a compound."""
        self._tag(COMPOUND, name)

    def close(self) -> None:
        """End the compound that was opened last."""
        self.file.write(b"\0")

    def short(self, name: str, value: builtins.int) -> None:
        """Write a 16-bit integer; above 32767 as readers of sizes expect it, unsigned."""
        self._tag(SHORT, name)
        self.file.write(struct.pack(">H", value))

    def int(self, name: str, value: builtins.int) -> None:
        """Write a 32-bit integer."""
        self._tag(INT, name)
        self.file.write(struct.pack(">i", value))

    def ints(self, name: str, values: Iterable[builtins.int]) -> None:
        """Write an array of 32-bit integers."""
        numbers = list(values)
        self._tag(INTS, name)
        self.file.write(struct.pack(f">i{len(numbers)}i", len(numbers), *numbers))

    def empty_list(self, name: str) -> None:
        """Write a list without elements."""
        self._tag(LIST, name)
        self.file.write(struct.pack(">Bi", END, 0))

    def bytes(self, name: str, size: builtins.int, parts: Iterable[builtins.bytes]) -> None:
        """Write an array of bytes in parts that have `size` bytes together."""
        self._tag(BYTES, name)
        self.file.write(struct.pack(">i", size))
        for part in parts:
            self.file.write(part)
