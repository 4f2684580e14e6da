"""Sparse tensors: features of active voxels, and differentiable operations on them, on the CPU and
CUDA.

docs/background/sparse.md is the tour. `tests.helpers.sparse_reference` has the operations once
more, in dense torch. Importing this loads torch.
"""

from earthgen.errors import OutOfMemoryError, SparseError
from earthgen.sparse.attention import (
    CrossAttention,
    FullAttention,
    SwinBlock,
    WindowAttention,
    cross_attention,
    ragged_attention,
)
from earthgen.sparse.backends import pick
from earthgen.sparse.convolution import convolve, convolve_transposed
from earthgen.sparse.encoding import rotary, sinusoidal
from earthgen.sparse.kernel_map import Kernel
from earthgen.sparse.layers import Convolution, Linear, Pointwise, TransposedConvolution
from earthgen.sparse.norm import GroupNorm, LayerNorm, RMSNorm
from earthgen.sparse.sampling import interpolate, pool, shuffle_up, up
from earthgen.sparse.sites import Place, Sites, make_sites
from earthgen.sparse.tensor import SparseTensor, batch, from_dense, merged, sparse_tensor, union
from earthgen.sparse.windows import Partition, whole, windows

__all__ = [
    "Convolution",
    "CrossAttention",
    "FullAttention",
    "GroupNorm",
    "Kernel",
    "LayerNorm",
    "Linear",
    "OutOfMemoryError",
    "Partition",
    "Place",
    "Pointwise",
    "RMSNorm",
    "Sites",
    "SparseError",
    "SparseTensor",
    "SwinBlock",
    "TransposedConvolution",
    "WindowAttention",
    "batch",
    "convolve",
    "convolve_transposed",
    "cross_attention",
    "from_dense",
    "interpolate",
    "make_sites",
    "merged",
    "pick",
    "pool",
    "ragged_attention",
    "rotary",
    "shuffle_up",
    "sinusoidal",
    "sparse_tensor",
    "union",
    "up",
    "whole",
    "windows",
]
