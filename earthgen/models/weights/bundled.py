"""The weights that the package comes with, where it does; loads no torch."""

from __future__ import annotations

from pathlib import Path

SHIPPED = Path(__file__).parent / "weights" / "tiny"
"""Where the package keeps its set of weights."""


def shipped_weights() -> Path | None:
    """The folder of the set that the package comes with; None where it comes without."""
    return SHIPPED if SHIPPED.is_dir() else None
