"""What makes a step faster or smaller on a device, and leaves its results as they are."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from earthgen.models.blocks import AttentionBlock, ConvBlock
from earthgen.models.height_flow import HeightFlow, MapBlock
from earthgen.sparse.backends import pick_backend
from earthgen.sparse.layers import Convolution, TransposedConvolution
from earthgen.training.settings import LoopSettings


def prepare_model(model: nn.Module, settings: LoopSettings, device: torch.device) -> None:
    """Choose the sparse backend, gradient checkpointing and compilation of a network, in place.

    Raises
    ------
    UnknownNameError, SparseError
        If the named sparse backend does not exist or cannot train here.
    """
    half = settings.precision == "bf16"
    choose_backend(
        model, device, torch.bfloat16 if half else torch.float32, settings.sparse_backend
    )
    if settings.recompute:
        recompute_blocks(model)
    if settings.compile == "on" or (settings.compile == "auto" and device.type == "cuda"):
        compile_model(model)


def choose_backend(
    model: nn.Module, device: torch.device, dtype: torch.dtype, name: str | None = None
) -> None:
    """Choose the sparse backend of all convolutions, one with gradients, in place.

    Parameters
    ----------
    dtype : torch.dtype
        Of the products.
    name : str, optional
        The backend; if not given, `earthgen.sparse.backends.pick_backend` chooses.
    """
    layers = [
        layer for layer in model.modules() if isinstance(layer, Convolution | TransposedConvolution)
    ]
    if not layers or (name is None and device.type == "cpu"):
        return  # torch's is the default of the layers
    backend = pick_backend(device, dtype, gradients=True, name=name)
    for layer in layers:
        layer.backend = backend


def recompute_blocks(model: nn.Module) -> None:
    """Keep only the inputs of blocks for the backward pass, in place.

    Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost". Blocks draw no random
    numbers, so the results are the same.
    """
    for block in model.modules():
        if isinstance(block, ConvBlock | AttentionBlock | MapBlock):
            block.forward = partial(_recomputed, block.forward)  # type: ignore[method-assign]


def _recomputed(forward: Any, *inputs: Any) -> Any:
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False)


def compile_model(model: nn.Module) -> None:
    """Compile the flow on heights, in place; the sparse networks do not gain from it.

    Their shapes differ from step to step, and their products run in libraries of their own.
    """
    if isinstance(model, HeightFlow):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        model.compile(dynamic=False)
