"""Sparse convolution in torch, and by two libraries that are installed separately: spconv and
TorchSparse."""

from __future__ import annotations

import earthgen
from earthgen import Offer, PluginInfo, hookimpl


@hookimpl
def earthgen_info() -> PluginInfo:
    return PluginInfo(
        "sparse",
        earthgen.__version__,
        "Apache-2.0",
        "sparse convolution by torch, spconv (Apache-2.0) or TorchSparse (MIT), which are "
        "installed separately",
    )


@hookimpl
def earthgen_sparse_backends() -> list[Offer]:
    return [
        Offer(
            "torch",
            "earthgen.sparse.convolution:TorchBackend",
            "on any device, with gradients",
        ),
        Offer(
            "spconv",
            "earthgen_sparse.spconv_backend:SpconvBackend",
            "spconv 2.3 (Apache-2.0): forward on the CPU; CUDA never run by this project",
        ),
        Offer(
            "torchsparse",
            "earthgen_sparse.torchsparse_backend:TorchsparseBackend",
            "TorchSparse 2.1 (MIT): CUDA, never run by this project",
        ),
    ]
