"""Sparse tensors: features of active voxels, and differentiable operations on them, on the CPU and
CUDA.

docs/background/sparse.md is the introduction. The names load, with torch, on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
