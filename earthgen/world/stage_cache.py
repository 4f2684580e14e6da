"""What stages made, kept until the tiles that need it are done: between workers, and for a restart.

A block is a file of `earthgen.stages.block.pack`, whose checksum tells a torn one; nothing is
waited for until it is on the disk for good. Blocks lie in a folder named by the world's identity,
so that none is taken for one of another world.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, unquote

from earthgen.errors import StoreError
from earthgen.files import PARTIAL, disk_error, failures, gone
from earthgen.stages.block import Block, pack, unpack
from earthgen.world.layout import STAGES
from earthgen.world.store import Store


@dataclass(frozen=True)
class StageCache:
    """Blocks of stages, by stage and window index. Any process may use it; failures to write are
    StoreErrors."""

    store: Store

    def save(self, stage: str, x: int, y: int, block: Block) -> None:
        """Keep the block of window (x, y) of a stage."""
        try:
            if not self.store.folder.exists("zarr.json"):  # on an object store a write would go on
                raise gone(self.store.path)
            self.store.folder.write(self._name(stage, x, y), pack(block))
        except failures() as error:
            raise disk_error(error, self.store.path) from error

    def load(self, stage: str, x: int, y: int) -> Block | None:
        """The block that was kept; None if there is none or it is not whole."""
        try:
            data = self.store.folder.read(self._name(stage, x, y))
        except failures() as error:
            raise StoreError(
                f"scratch of {self.store.path} cannot be read: {error}", "check the disk"
            ) from error
        return None if data is None else unpack(data)

    def has(self, stage: str, x: int, y: int) -> bool:
        """Whether a block was kept; `load` finds out whether it is whole."""
        return self.store.folder.exists(self._name(stage, x, y))

    def remove(self, stage: str, x: int, y: int) -> None:
        """Forget a block; one that was not kept is none to forget."""
        try:
            self.store.folder.remove([self._name(stage, x, y)])
        except failures() as error:
            raise disk_error(error, self.store.path) from error

    def clear(self) -> None:
        """Forget all blocks of this world's identity."""
        try:
            self.store.folder.remove_folder(self._base)
        except failures() as error:
            raise disk_error(error, self.store.path) from error

    def listing(self) -> Iterator[tuple[str, int, int]]:
        """(stage, x, y) of all blocks kept, in no order that means anything."""
        for name in self.store.folder.names(self._base):
            stage, _, window = name.removeprefix(f"{self._base}/").partition("/")
            if not window.endswith(PARTIAL):
                x, y = window.split("_")
                yield unquote(stage), int(x), int(y)

    @property
    def _base(self) -> str:
        return f"{STAGES}/{self.store.key}"

    def _name(self, stage: str, x: int, y: int) -> str:
        return f"{self._base}/{quote(stage, safe='').replace('.', '%2E')}/{x}_{y}"
