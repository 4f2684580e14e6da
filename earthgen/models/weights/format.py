"""Weights on disk: safetensors with a header that says what they are. Nothing here unpickles.

A *set* of weights is a folder with a file a part, `card.json`, and a model card for people,
README.md (`earthgen.models.weights.card`). Tensors can be stored in bfloat16, at half the size;
they are float32 again when loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from earthgen.errors import MissingWeightsError, ModelError
from earthgen.files import replace_file
from earthgen.models.build import empty
from earthgen.models.presets import PARTS, Config

VERSION = 1
"""Of the networks: raised when weights of before no longer mean the same."""

KEY = "earthgen"
"""Where the header stands in a file's metadata."""


class Header(Config):
    """What a file of weights says of itself.

    Attributes
    ----------
    part : of `earthgen.models.presets.PARTS`
    preset : the name of the preset that `config` is of, or "" for one of its own
    config : of the part, as JSON
    version : of the networks
    voxel_size : that it was trained at, metres
    digest : SHA-256 of the tensors, see `digest`
    latents : digest of the autoencoder whose latents a flow was trained on, "" for a part that
        needs none
    licence : of the weights
    data : what they were trained on: name, licence and source of each
    metrics : measured with exactly these weights
    settings : of the training
    """

    part: str
    preset: str = ""
    config: dict[str, Any]
    version: int = VERSION
    voxel_size: float = 1.0
    digest: str
    latents: str = ""
    licence: str = ""
    data: tuple[dict[str, str], ...] = ()
    metrics: dict[str, Any] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors: of the name, dtype, shape and bytes of each, in the order of the
    names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        total.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        total.update(
            value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
        )
    return total.hexdigest()


def save_weights(
    path: Path | str,
    part: str,
    model: nn.Module,
    *,
    preset_name: str = "",
    voxel_size: float = 1.0,
    latents: str = "",
    licence: str = "",
    data: tuple[dict[str, str], ...] = (),
    metrics: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    tensors: Mapping[str, Tensor] | None = None,
) -> Header:
    """Write the weights of one part, in one step: a reader sees the old file or the new one.

    tensors : instead of the model's own, such as their average over time; of the model's names and
        shapes
    dtype : that floating tensors are stored in; those of latents' statistics stay float32

    Returns the header. Raises ModelError where `tensors` are not the model's.
    """
    config: Config = model.config  # type: ignore[assignment]
    given = dict(model.state_dict() if tensors is None else tensors)
    _check_shapes(str(path), model, given)
    kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    stored = {
        name: value.detach()
        .cpu()
        .to(torch.float32 if name.startswith("statistics.") else kind)
        .contiguous()
        for name, value in given.items()
    }
    header = Header(
        part=part,
        preset=preset_name,
        config=config.model_dump(mode="json"),
        voxel_size=voxel_size,
        digest=digest(stored),
        latents=latents,
        licence=licence,
        data=data,
        metrics=dict(metrics or {}),
        settings=dict(settings or {}),
    )
    where = Path(path)
    where.parent.mkdir(parents=True, exist_ok=True)
    replace_file(
        where.parent, where.name, to_bytes(stored, {KEY: header.model_dump_json()}), durable=True
    )
    return header


def read_header(path: Path | str) -> Header:
    """What a file of weights says of itself; its tensors are not read.

    Raises MissingWeightsError, ModelError, ModelError.
    """
    return _opened(Path(path))[0]


def load_weights(
    path: Path | str,
    part: str | None = None,
    *,
    preset_name: str | None = None,
    config: Config | None = None,
    voxel_size: float | None = None,
    device: torch.device | str = "cpu",
) -> tuple[nn.Module, Header]:
    """A network with the weights of a file, in float32 and in evaluation mode, and the file's
    header.

    part, preset_name, config, voxel_size : what they have to be; None takes what there is

    Raises
    ------
    MissingWeightsError
        where there is no file
    ModelError
        for a file that is no safetensors file, has no header, or a header that is damaged
    ModelError
        for weights of another version of the networks
    ModelError
        for another part, preset, configuration or voxel size than is asked for
    ModelError
        where tensors are missing, unknown, of another shape, or not finite
    ModelError
        where the tensors are not those that were saved
    """
    where = Path(path)
    header, tensors = _opened(where, tensors=True)
    wanted = [
        ("part", part, header.part),
        ("preset", preset_name, header.preset),
        (
            "configuration",
            None if config is None else config.model_dump(mode="json"),
            header.config,
        ),
        ("voxel size", voxel_size, header.voxel_size),
    ]
    for name, asked, found in wanted:
        if asked is not None and asked != found:
            shown = ("another one", "it") if name == "configuration" else (repr(found), repr(asked))
            raise ModelError(
                f"{where}: the weights are of {name} {shown[0]}, not {shown[1]}",
                f"give weights of that {name}",
            )
    try:
        given = PARTS[header.part].model_validate(header.config)
    except ValidationError as error:
        raise ModelError(
            f"{where}: the header's configuration is none of {header.part}: {error.errors()[0]['msg']}",
            "take a file that this version wrote",
        ) from error
    model = empty(header.part, given)
    _check_shapes(str(where), model, tensors)
    if digest(tensors) != header.digest:
        raise ModelError(
            f"{where}: the tensors are not those that were saved", "get the file again"
        )
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise ModelError(
                f"{where}: {name} is not finite", "train again, or take an earlier checkpoint"
            )
    model.load_state_dict(
        {name: value.float() for name, value in tensors.items()}, strict=True, assign=True
    )
    return model.to(device).eval(), header


def _opened(path: Path, *, tensors: bool = False) -> tuple[Header, dict[str, Tensor]]:
    if not path.is_file():
        raise MissingWeightsError(
            f"{path}: there are no weights", "give the folder or file of a set of weights"
        )
    found: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
            if tensors and text is not None:
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path}: no safetensors file, or a damaged one ({error})", "get it again"
        ) from error
    if text is None:
        raise ModelError(
            f"{path}: the file does not say what its weights are of", "save it with earthgen"
        )
    try:
        values = json.loads(text)
        version = values.get("version")
        if version != VERSION:
            raise ModelError(
                f"{path}: the weights are of version {version} of the networks, this is {VERSION}",
                "take the weights of this version of earthgen",
            )
        header = Header.model_validate(values)
    except (ValidationError, json.JSONDecodeError, AttributeError) as error:
        raise ModelError(
            f"{path}: the header of the weights is damaged", "get the file again"
        ) from error
    if header.part not in PARTS:
        raise ModelError(
            f"{path}: the weights are of {header.part!r}, which is no model", "update earthgen"
        )
    return header, found


def _check_shapes(where: str, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    missing, unknown = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    other = [name for name in wanted if name in found and wanted[name] != found[name]]
    if missing or unknown or other:
        first = (
            f"{other[0]} has shape {found[other[0]]}, not {wanted[other[0]]}"
            if other
            else f"{missing[0]} is missing"
            if missing
            else f"{unknown[0]} is unknown"
        )
        raise ModelError(
            f"{where}: {len(missing)} tensors are missing, {len(unknown)} unknown, {len(other)} of another shape; "
            f"{first}",
            "take weights of this model",
        )


def part_path(folder: Path | str, part: str) -> Path:
    """The file of a part in a set of weights."""
    return Path(folder) / f"{part}.safetensors"
