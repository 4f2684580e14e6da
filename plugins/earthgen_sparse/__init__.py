"""Sparse convolution in torch, and by two libraries that may be installed beside it: spconv and
TorchSparse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import earthgen
from earthgen.hookspecs import Offer, PluginInfo, hookimpl

if TYPE_CHECKING:
    from earthgen.sparse.interface import SparseBackend


@hookimpl
def earthgen_info() -> PluginInfo:
    return PluginInfo(
        "sparse",
        earthgen.__version__,
        "Apache-2.0",
        "sparse convolution by torch, spconv (Apache-2.0) or TorchSparse (MIT), which are installed apart",
    )


@hookimpl
def earthgen_sparse_backends() -> list[Offer[SparseBackend]]:
    return [
        Offer("torch", _torch, "on any device, with gradients"),
        Offer(
            "spconv",
            _spconv,
            "spconv 2.3 (Apache-2.0): forward on the CPU; CUDA never run by this project",
        ),
        Offer(
            "torchsparse", _torchsparse, "TorchSparse 2.1 (MIT): CUDA, never run by this project"
        ),
    ]


def _torch() -> SparseBackend:
    from earthgen.sparse.convolution import TORCH

    return TORCH


def _spconv(**options: Any) -> SparseBackend:
    from earthgen_sparse.spconv_backend import SpconvBackend

    return SpconvBackend(**options)


def _torchsparse(**options: Any) -> SparseBackend:
    from earthgen_sparse.torchsparse_backend import TorchsparseBackend

    return TorchsparseBackend(**options)
