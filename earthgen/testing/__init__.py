"""A conformance kit for plugin authors, and small synthetic inputs; docs/plugins/testing.md.

Geometry and texture backends are checked by subclassing `GeometryConformance` and
`TextureConformance`, sparse backends and rasterizers by calling `check_sparse_backend` and
`check_rasterizer`. The names load on first use, so only the last two need torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
