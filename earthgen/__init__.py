"""earthgen: georeferenced 3D worlds from GIS layers.

    world = earthgen.generate(bbox=(11.59, 50.00, 11.60, 50.01), semantics="landuse.shp",
    out="world.zarr") world = earthgen.open_world("world.zarr")

The names below load on first use, so that `import earthgen` stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from earthgen.hookspecs import hookimpl as hookimpl
    from earthgen.jobs.generate import generate as generate
    from earthgen.world.world import World as World
    from earthgen.world.world import open_world as open_world

_HOME = {
    "generate": "earthgen.jobs.generate",
    "hookimpl": "earthgen.hookspecs",
    "World": "earthgen.world.world",
    "open_world": "earthgen.world.world",
}

__all__ = ["World", "__version__", "generate", "hookimpl", "open_world"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'earthgen' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value
