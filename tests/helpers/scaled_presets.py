"""Scaled-down copies of presets: the same strides, kinds of blocks, patches and inputs, with few
channels and one block of each kind."""

from __future__ import annotations

from typing import Any

from earthgen.models.presets import KINDS, PRESETS, Preset, preset

WIDTH, EMBEDDING, HEAD = 8, 16, 8
BAND = (-16, 32)
COLUMNS = 32


def scaled(name: str) -> str:
    """Register the small copy of a preset, and return its name."""
    small = f"small-{name}"
    whole = preset(name)
    values: dict[str, Any] = {
        key: _smaller(key, value) for key, value in whole.model_dump().items() if key != "name"
    }
    values |= {"voxel_size": 1.0, "columns": COLUMNS, "tile": COLUMNS, "band": BAND}
    PRESETS.setdefault(small, lambda: values)
    return small


def _smaller(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _smaller(name, each) for name, each in value.items()}
    if key == "channels":
        return WIDTH if isinstance(value, int) else tuple(WIDTH for _ in value)
    if key == "embedding":
        return EMBEDDING
    if key == "head":
        return HEAD
    if key == "blocks" and isinstance(value, tuple):
        return tuple(1 for _ in value)
    if isinstance(value, tuple) and value and isinstance(value[0], str):
        return tuple(_chain(each) for each in value)
    if isinstance(value, str):
        return _chain(value)
    return value


def _chain(text: str) -> str:
    """One block of each kind, in their order; other texts stay."""
    return "".join(dict.fromkeys(text)) if text and not set(text) - set(KINDS) else text


def structure(sizes: Preset) -> dict[str, Any]:
    """What a copy must share with its preset."""
    flow = sizes.tex_flow
    return {
        "stride": sizes.struct_vae.stride,
        "patch": sizes.struct_coarse.patch,
        "inputs": sizes.tex_vae.inputs,
        "latents": (sizes.struct_vae.latent, sizes.tex_vae.latent),
        "levels": [len(part.unet.channels) for part in (sizes.struct_fine, flow)],
        "kinds": [
            sorted(set(chain))
            for chain in (sizes.struct_vae.middle, sizes.tex_vae.encoder, flow.unet.middle)
        ],
        "flow": flow.flow.predicts,
    }
