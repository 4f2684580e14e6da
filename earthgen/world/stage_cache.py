"""Outputs of stages on disk, until the tiles that need them are done: for other workers and for a
restart.

A block is a file of `earthgen.stages.block.pack`. Writes do not wait for the disk; the checksum
reveals an incomplete file. The folder is named by the world's identity, so blocks of another world
are never read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, unquote

from earthgen.errors import StoreError
from earthgen.files import PARTIAL, disk_error, failures, missing_world
from earthgen.stages.block import Block, pack, unpack
from earthgen.world.layout import STAGES
from earthgen.world.store import Store


@dataclass(frozen=True)
class StageCache:
    """The outputs of stages of one world, by stage and window index. Any process may use it."""

    store: Store

    def save(self, stage: str, x: int, y: int, block: Block) -> None:
        """Store the block of window (x, y) of a stage.

        Raises
        ------
        StoreError
            If it cannot be written, or the world was deleted or moved.
        """
        try:
            # On an object store, the write would succeed although the world was deleted.
            if not self.store.folder.exists("zarr.json"):
                raise missing_world(self.store.path)
            self.store.folder.write(self._name(stage, x, y), pack(block))
        except failures() as error:
            raise disk_error(error, self.store.path) from error

    def load(self, stage: str, x: int, y: int) -> Block | None:
        """Return a stored block; None if there is none or it is incomplete.

        Raises
        ------
        StoreError
            If the disk or network fails.
        """
        try:
            data = self.store.folder.read(self._name(stage, x, y))
        except failures() as error:
            raise StoreError(
                f"the stage cache of {self.store.path} cannot be read: {error}",
                "check the disk or network",
            ) from error
        return None if data is None else unpack(data)

    def has(self, stage: str, x: int, y: int) -> bool:
        """Return whether a block is stored; only `load` says whether it is complete."""
        return self.store.folder.exists(self._name(stage, x, y))

    def remove(self, stage: str, x: int, y: int) -> None:
        """Remove a block, if it is stored."""
        try:
            self.store.folder.remove([self._name(stage, x, y)])
        except failures() as error:
            raise disk_error(error, self.store.path) from error

    def clear(self) -> None:
        """Remove all blocks of this world's identity."""
        try:
            self.store.folder.remove_folder(self._base)
        except failures() as error:
            raise disk_error(error, self.store.path) from error

    def listing(self) -> Iterator[tuple[str, int, int]]:
        """Yield (stage, x, y) of all stored blocks, in arbitrary order."""
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
