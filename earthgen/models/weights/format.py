"""Weights on disk: safetensors files with a header. Nothing is unpickled.

A *set* of weights is a folder with one file per part, card.json, and a model card, README.md
(`earthgen.models.weights.card`). Tensors can be stored in bfloat16, at half the size; they are
float32 again when loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from earthgen.errors import MissingWeightsError, ModelError
from earthgen.files import replace_file
from earthgen.models.blocks import Embedding
from earthgen.models.build import make_empty_model
from earthgen.models.presets import PARTS, Config
from geo_io.safety.damage import damaged_file

VERSION = 1
"""Version of the networks, raised when the same weights would have another meaning."""

MISSING = "not there"

KEY = "earthgen"
"""Key of the header in a file's metadata."""


class Header(Config):
    """The description of a file of weights.

    Attributes
    ----------
    part : str
        A name in `earthgen.models.presets.PARTS`.
    preset : str
        Name of the preset of `config`, "" for none.
    config : dict
        Configuration of the part, as JSON.
    version : int
        Version of the networks.
    voxel_size : float
        Voxel size of the training data, metres.
    digest : str
        SHA-256 of the tensors, see `tensor_digest`.
    latents : str
        Digest of the autoencoder whose latents a flow was trained on, "" for none.
    parent : str
        Digest of the weights that the training started from, "" for new ones.
    licence : str
        Licence of the weights.
    data : tuple of dict
        Name, licence and source of the training data.
    metrics : dict
        Figures measured with exactly these weights.
    settings : dict
        Settings of the training that the part uses.
    styles : tuple of str
        Names of the styles (`earthgen.models.presets.STYLES`) that the training data had, empty if
        unknown.
    """

    part: str
    preset: str = ""
    config: dict[str, Any]
    version: int = VERSION
    voxel_size: float = 1.0
    digest: str
    latents: str = ""
    parent: str = ""
    licence: str = ""
    data: tuple[dict[str, str], ...] = ()
    metrics: dict[str, Any] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    styles: tuple[str, ...] = ()


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of name, dtype, shape and bytes of tensors, in the order of the names."""
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
    parent: str = "",
    licence: str = "",
    data: tuple[dict[str, str], ...] = (),
    metrics: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    styles: tuple[str, ...] = (),
    dtype: Literal["float32", "bfloat16"] = "float32",
    tensors: Mapping[str, Tensor] | None = None,
) -> Header:
    """Write the weights of one part in one step, and return their header.

    Parameters
    ----------
    path : Path or str
        The file.
    part : str
        Name of the part.
    model : nn.Module
        The network, which has a `config`.
    preset_name, voxel_size, latents, licence, data, metrics, settings, styles
        As of `Header`.
    dtype : str
        Dtype of the stored tensors, "float32" or "bfloat16"; statistics of latents stay float32.
    tensors : mapping of str to Tensor, optional
        Tensors instead of the model's, such as averages over time, with its names and shapes.

    Raises
    ------
    ModelError
        If `tensors` do not fit the model.
    """
    config: Config = model.config  # type: ignore[assignment]
    state = dict(model.state_dict() if tensors is None else tensors)
    _check_shapes(str(path), model, state)
    kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    stored = {
        name: value.detach()
        .cpu()
        .to(torch.float32 if name.startswith("statistics.") else kind)
        .contiguous()
        for name, value in state.items()
    }
    header = Header(
        part=part,
        preset=preset_name,
        config=config.model_dump(mode="json"),
        voxel_size=voxel_size,
        digest=tensor_digest(stored),
        latents=latents,
        parent=parent,
        licence=licence,
        data=data,
        metrics=dict(metrics or {}),
        settings=dict(settings or {}),
        styles=styles,
    )
    where = Path(path)
    where.parent.mkdir(parents=True, exist_ok=True)
    replace_file(
        where.parent, where.name, to_bytes(stored, {KEY: header.model_dump_json()}), durable=True
    )
    return header


def read_header(path: Path | str) -> Header:
    """Return the header of a file of weights, without reading the tensors.

    Raises
    ------
    MissingWeightsError
        If there is no file.
    ModelError
        If the file is damaged or of another version.
    """
    return _read(Path(path))[0]


def load_weights(
    path: Path | str,
    part: str | None = None,
    *,
    preset_name: str | None = None,
    config: Config | None = None,
    voxel_size: float | None = None,
    device: torch.device | str = "cpu",
) -> tuple[nn.Module, Header]:
    """Return a network with the weights of a file, and the file's header.

    The network is in float32 and in evaluation mode.

    Parameters
    ----------
    path : Path or str
        The file.
    part, preset_name, config, voxel_size
        Values that the header must have; None accepts any.
    device : torch.device or str
        Where the network lies.

    Raises
    ------
    MissingWeightsError
        If there is no file.
    ModelError
        If the file or its header is damaged, of another version, or has another part, preset,
        configuration or voxel size; if tensors are missing, unknown, of another shape, not finite,
        or not those that were saved.
    """
    where = Path(path)
    header, tensors = _read(where, tensors=True)
    stored_config = _config(where, header)
    expected = [
        ("part", part, header.part),
        ("preset", preset_name, header.preset),
        ("voxel size", voxel_size, header.voxel_size),
    ]
    for name, required, stored in expected:
        if required is not None and required != stored:
            raise ModelError(
                f"{where}: the weights are of {name} {stored!r}, not {required!r}",
                f"give weights of that {name}",
            )
    if config is not None:
        check_config(where, header, config)
    problem = f"{where}: no network can be made of the configuration in the header"
    with damaged_file(problem, "use a file that this version wrote", ModelError):
        model = make_empty_model(header.part, stored_config)
    if tensor_digest(tensors) != header.digest:
        raise ModelError(
            f"{where}: the tensors are not those that were saved",
            "download or copy the file again",
        )
    current = Embedding.without_step(tensors)
    _check_shapes(str(where), model, current)
    for name, value in current.items():
        if not bool(torch.isfinite(value).all()):
            raise ModelError(
                f"{where}: {name} is not finite", "train again, or use an earlier checkpoint"
            )
    model.load_state_dict(current, strict=True, assign=True)
    return model.to(device).eval(), header


def check_config(path: Path | str, header: Header, config: Config) -> None:
    """Check that weights have a configuration.

    Raises
    ------
    ModelError
        If they have another one; the message names the first difference.
    """
    stored = _config(Path(path), header).model_dump(mode="json")
    difference = _first_difference(stored, config.model_dump(mode="json"), "")
    if difference is not None:
        name, one, other = difference
        raise ModelError(
            f"{path}: the weights of {header.part} have another configuration: {name} is {one}, "
            f"not {other}",
            "give weights that this version trained, or train from new ones",
        )


def _config(path: Path, header: Header) -> Config:
    try:
        return PARTS[header.part].model_validate(header.config)
    except ValidationError as error:
        raise ModelError(
            f"{path}: the configuration of {header.part} in the header is wrong: "
            f"{error.errors()[0]['msg']}",
            "use a file that this version wrote",
        ) from error


def _first_difference(one: Any, other: Any, name: str) -> tuple[str, str, str] | None:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*other, *(key for key in one if key not in other)]:
            found = _first_difference(
                one.get(key, MISSING), other.get(key, MISSING), f"{name}.{key}".lstrip(".")
            )
            if found is not None:
                return found
        return None
    return None if one == other else (name, repr(one), repr(other))


def _read(path: Path, *, tensors: bool = False) -> tuple[Header, dict[str, Tensor]]:
    if not path.is_file():
        raise MissingWeightsError(
            f"{path}: there are no weights", "give the folder or file of a set of weights"
        )
    loaded: dict[str, Tensor] = {}
    again = "download or copy it again"
    with (
        damaged_file(f"{path}: not a safetensors file, or a damaged one", again, ModelError),
        safe_open(path, framework="pt") as file,
    ):
        text = (file.metadata() or {}).get(KEY)
        if tensors and text is not None:
            names = file.keys()
            loaded = {name: file.get_tensor(name) for name in names}
    if text is None:
        raise ModelError(
            f"{path}: the file has no header of earthgen", "use a file that earthgen wrote"
        )
    with damaged_file(f"{path}: the header of the weights is damaged", again, ModelError):
        values = json.loads(text)
        version = values.get("version")
        if version != VERSION:
            raise ModelError(
                f"{path}: the weights are of version {version} of the networks, this is {VERSION}",
                "use weights of this version of earthgen",
            )
        header = Header.model_validate(values)
    if header.part not in PARTS:
        raise ModelError(
            f"{path}: the weights are of the unknown part {header.part!r}", "update earthgen"
        )
    return header, loaded


def _check_shapes(where: str, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    missing, unknown = sorted(set(expected) - set(shapes)), sorted(set(shapes) - set(expected))
    other = [name for name in expected if name in shapes and expected[name] != shapes[name]]
    if missing or unknown or other:
        first = (
            f"{other[0]} has shape {shapes[other[0]]}, not {expected[other[0]]}"
            if other
            else f"{missing[0]} is missing"
            if missing
            else f"{unknown[0]} is unknown"
        )
        raise ModelError(
            f"{where}: {len(missing)} tensors are missing, {len(unknown)} unknown, "
            f"{len(other)} of another shape; {first}",
            "use weights of this model",
        )


def part_path(folder: Path | str, part: str) -> Path:
    """Return the file of a part in a set of weights."""
    return Path(folder) / f"{part}.safetensors"
