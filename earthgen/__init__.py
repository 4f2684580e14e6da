"""earthgen: georeferenced 3D worlds from GIS layers.

    world = earthgen.generate(bbox=(11.55, 49.98, 11.57, 49.99), semantics="landuse.shp", out="world.zarr")
    world = earthgen.open_world("world.zarr")

The names below load on first use, so that `import earthgen` stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from earthgen.generate import generate as generate
    from earthgen.hooks import hookimpl as hookimpl
    from earthgen.world import World as World
    from earthgen.world import open_world as open_world

_HOME = {
    "generate": "earthgen.generate",
    "hookimpl": "earthgen.hooks",
    "World": "earthgen.world",
    "open_world": "earthgen.world",
}

__all__ = ["World", "__version__", "generate", "hookimpl", "open_world"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'earthgen' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value  # `earthgen.generate` is the function, though a module has that name too
    return value
