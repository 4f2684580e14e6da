"""Geodata on frames: land classes and legends, readers of GIS data, and GeoTIFF output.

`__init__.pyi` lists the public names. Each is imported on first use, so `import geo_io` loads
neither GDAL nor geopandas. This package does not import `earthgen`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
