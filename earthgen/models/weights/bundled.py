"""The weights that the package comes with, if any. Loads no torch."""

from __future__ import annotations

from pathlib import Path

BUNDLED = Path(__file__).parent / "tiny"
"""Where the package keeps its set of weights."""


def bundled_weights() -> Path | None:
    """Return the folder of the set that the package comes with, None if it comes without."""
    return BUNDLED if BUNDLED.is_dir() else None
