"""Georeferenced 3D worlds from GIS layers.

    world = earthgen.generate(
        bbox=(11.59, 50.00, 11.60, 50.01), semantics="landuse.shp", out="world.zarr"
    )
    world = earthgen.open_world("world.zarr")

This module has every name that users and most plugins need; `__init__.pyi` lists them. Each is
imported on first use, so `import earthgen` loads neither torch nor GDAL.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
