"""Ctrl-C while training: the current step is finished first, so that it can be kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts(enabled: bool = True) -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether Ctrl-C was pressed.

    Pressed twice, Ctrl-C raises KeyboardInterrupt at once.

    Parameters
    ----------
    enabled : bool
        False leaves Ctrl-C unchanged. So does any thread but the main one, which alone receives
        signals.
    """
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    pressed = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)
