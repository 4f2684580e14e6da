"""Folders as stores of Zarr, which trust nobody who made them."""

from __future__ import annotations

import asyncio
from typing import Any

from zarr.storage import LocalStore

from earthgen.files import replace_file, require_file


class GuardedStore(LocalStore):
    """A local Zarr store that reads neither pipes nor devices, and does not create its folder again
    after it was deleted or moved."""

    durable = False

    async def get(self, key: str, *rest: Any, **more: Any) -> Any:
        require_file(self.root / key)
        return await super().get(key, *rest, **more)

    def get_sync(self, key: str, *rest: Any, **more: Any) -> Any:
        require_file(self.root / key)
        return super().get_sync(key, *rest, **more)

    async def set(self, key: str, value: Any) -> None:
        await asyncio.to_thread(self.set_sync, key, value)

    def set_sync(self, key: str, value: Any) -> None:
        self._check_writable()
        replace_file(self.root, key, value.as_buffer_like(), self.durable)


class DurableStore(GuardedStore):
    """A local Zarr store whose writes survive a power cut."""

    durable = True
