"""Ground and land cover: building blocks for any geometry backend.

Sets of land classes, filters of bounded reach that give the same bits in any window, the reach of
rules, and the ground from a DEM, a DSM or noise.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
