"""Networks from their configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from earthgen.errors import ModelError
from earthgen.models.blocks import initialise
from earthgen.models.height_flow import HeightFlow
from earthgen.models.presets import PARTS, Config, preset
from earthgen.models.struct_flow import StructCoarse, StructFine
from earthgen.models.struct_vae import StructVAE
from earthgen.models.tex_flow import TexFlow
from earthgen.models.tex_vae import TexVAE

MODELS: dict[str, Callable[[Any], nn.Module]] = {
    "struct-vae": StructVAE,
    "tex-vae": TexVAE,
    "struct-coarse": StructCoarse,
    "struct-fine": StructFine,
    "tex-flow": TexFlow,
    "height-flow": HeightFlow,
}
"""The class of each of `PARTS`."""


def make_model(
    part: str,
    config: Config | str = "tiny",
    *,
    seed: int | torch.Generator = 0,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """Return a network with new weights, drawn from a seed.

    Parameters
    ----------
    part : str
        A name in `earthgen.models.presets.PARTS`.
    config : Config or str
        Configuration of that part, or the name of a preset.
    seed : int or torch.Generator
        Source of the weights.
    device : torch.device or str
        Where the network lies.

    Raises
    ------
    ModelError
        If the part, preset or configuration is unknown.
    """
    model = make_empty_model(part, config).to_empty(device="cpu")
    initialise(
        model, seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    )
    return model.to(device)


def make_empty_model(part: str, config: Config | str = "tiny") -> nn.Module:
    """Return a network on torch's meta device, whose weights take no memory.

    Parameters and exceptions are those of `make_model`.
    """
    if part not in PARTS:
        raise ModelError(f"unknown model {part!r}", f"choose from {', '.join(PARTS)}")
    given = preset(config).part(part) if isinstance(config, str) else config
    if not isinstance(given, PARTS[part]):
        raise ModelError(
            f"a {type(given).__name__} does not configure {part}", f"give a {PARTS[part].__name__}"
        )
    with torch.device("meta"):
        return MODELS[part](given)
