"""Networks from configurations."""

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


def make(
    part: str,
    config: Config | str = "tiny",
    *,
    seed: int | torch.Generator = 0,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """A network with fresh weights, drawn from a seed alone.

    part : of `earthgen.models.presets.PARTS`
    config : of that part, or the name of a preset

    Raises ModelError for another part, preset or configuration.
    """
    model = empty(part, config).to_empty(device="cpu")
    initialise(
        model, seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    )
    return model.to(device)


def empty(part: str, config: Config | str = "tiny") -> nn.Module:
    """A network whose weights take no memory (torch's meta device): to count, or to be given
    weights."""
    if part not in PARTS:
        raise ModelError(f"there is no model {part!r}", f"there are {', '.join(PARTS)}")
    given = preset(config).part(part) if isinstance(config, str) else config
    if not isinstance(given, PARTS[part]):
        raise ModelError(
            f"a {type(given).__name__} does not configure {part}", f"give a {PARTS[part].__name__}"
        )
    with torch.device("meta"):
        return MODELS[part](given)
