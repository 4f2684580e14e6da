"""Checkpoints: folders with tensors.safetensors and state.json, named after the step.

A checkpoint is written beside its place, flushed to the disk, and moved there in one step, so it
is complete or absent; older ones are removed only after that. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from earthgen.errors import StoreFullError, TrainingError
from earthgen.files import PARTIAL
from earthgen.staging import staging_folder
from earthgen.training.schedule import Length
from geo_io.safety.access import require_plain_file
from geo_io.safety.damage import damaged_file

VERSION = 2
"""Of checkpoints; 1 had settings of other names."""

REMOVE = "remove its folder: the run continues from the one before"

PREFIX = "step-"
TENSORS, STATE = "tensors.safetensors", "state.json"


class _About(BaseModel):
    """What a state.json holds, beside what only people read."""

    model_config = ConfigDict(extra="allow")

    step: Annotated[int, Field(ge=0, le=10**12)]
    seconds: Annotated[float, Field(ge=0, le=1e12)]
    sums: dict[str, tuple[float, int]]
    identity: dict[str, Any]
    digest: str
    steady: bool = False
    length: tuple[int | None, float | None] = (None, None)
    first_length: tuple[int | None, float | None] | None = None


@dataclass
class State:
    """What a training continues from, apart from its settings and data.

    Random numbers have no state, see `earthgen.training.randomness`.

    Attributes
    ----------
    model : nn.Module
        The network in training.
    optimizer : torch.optim.Optimizer
        Holds the moments of the parameters.
    average : dict of str to Tensor
        Moving averages of the model's floating parameters, by name.
    step, seconds : int, float
        Steps done and the time they took, over all continuations.
    sums : dict
        Sum and number of the values of each figure since the last row of the log.
    steady : bool
        Whether the learning rate has not begun to fall: a longer training can continue from here.
    first_length : (int, float), optional
        Steps and seconds that the training was started with, of which its warm-up is a share.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor]
    step: int = 0
    seconds: float = 0.0
    sums: dict[str, tuple[float, int]] = field(default_factory=dict)
    steady: bool = True
    first_length: Length | None = None


def averaged(state: State) -> dict[str, Tensor]:
    """Return the model's tensors with averaged parameters, for `load_state_dict`."""
    return {**state.model.state_dict(), **state.average}


def save_checkpoint(
    folder: Path,
    state: State,
    identity: Mapping[str, Any],
    keep: int = 2,
    length: Length = (None, None),
) -> Path:
    """Write a checkpoint below `folder`, and remove all but the newest `keep`.

    The newest one before the learning rate falls stays too, for a longer training.

    Parameters
    ----------
    folder : Path
        Folder of the part in the run.
    state : State
        What to write.
    identity : mapping
        Settings and digests that a continuation has to share, JSON values.
    keep : int
        Checkpoints that stay.
    length : (int, float)
        Steps and seconds of the training; None for no limit.

    Returns
    -------
    Path
        Folder of the checkpoint.

    Raises
    ------
    StoreError, StoreFullError
        If it cannot be written.
    """
    name = f"{PREFIX}{state.step:09d}"
    final = folder / name
    tensors = _tensors(state)
    about = {
        "version": VERSION,
        "step": state.step,
        "seconds": state.seconds,
        "sums": state.sums,
        "steady": state.steady,
        "length": length,
        "first_length": state.first_length,
        "torch": torch.__version__,
        "config": _config(state.model),
        "identity": dict(identity),
        "digest": _digest(tensors),
    }
    try:
        with staging_folder(final, beside=True) as staging:
            part = staging / name
            part.mkdir()
            save_file(tensors, part / TENSORS)
            (part / STATE).write_text(json.dumps(about, indent=1), "utf-8")
            for path in (part / TENSORS, part / STATE, part):
                _sync(path)
            if not final.exists():  # a continuation that begins at its end writes nothing new
                part.rename(final)
                _sync(folder)
    except StoreFullError as error:
        raise StoreFullError(
            f"the disk of {folder} is full; the checkpoints written so far are valid",
            "free some space, then `resume`",
        ) from error
    every = checkpoints(folder)
    steady = steady_checkpoint(folder)
    for old in every[:-keep]:
        if old != steady:
            shutil.rmtree(old, ignore_errors=True)
    return final


def checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints below a folder, oldest first."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if (path / STATE).is_file())


def steady_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint from before the learning rate falls, None if there is none."""
    for path in reversed(checkpoints(folder)):
        if read_state(path).get("steady"):
            return path
    return None


def remove_after(folder: Path, path: Path) -> None:
    """Remove the checkpoints that are newer than one."""
    for newer in checkpoints(folder):
        if newer.name > path.name:
            shutil.rmtree(newer, ignore_errors=True)


def clear_partial(folder: Path) -> None:
    """Remove the leftovers of writers that were killed."""
    for path in folder.glob(f".*{PARTIAL}"):
        shutil.rmtree(path, ignore_errors=True)


def read_state(path: Path) -> dict[str, Any]:
    """Return the contents of a checkpoint's state.json.

    Raises
    ------
    TrainingError
        If it is damaged or of another version.
    """
    with damaged_file(f"checkpoint {path} is damaged", REMOVE, TrainingError):
        require_plain_file(path / STATE)
        about = json.loads((path / STATE).read_text("utf-8"))
        version = about["version"]
    if version != VERSION:
        raise TrainingError(
            f"{path} was written by another version of earthgen "
            f"(checkpoint version {version}, this is {VERSION})",
            "train again with another --out; the finished weights of the run can still be used",
        )
    with damaged_file(f"checkpoint {path} is damaged", REMOVE, TrainingError):
        try:
            return _About.model_validate(about).model_dump()
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"{name}: {first['msg']}") from error


def _read_checked(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the state and the tensors of a checkpoint whose digest is right."""
    about = read_state(path)
    with damaged_file(f"checkpoint {path} is damaged", REMOVE, TrainingError):
        require_plain_file(path / TENSORS)
        tensors = load_file(path / TENSORS)
    if _digest(tensors) != about["digest"]:
        raise _damaged(path)
    return about, tensors


def read_average(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what a checkpoint says of itself, and the model's tensors with averaged parameters.

    Raises
    ------
    TrainingError
        If the checkpoint is damaged or of another version.
    """
    about, tensors = _read_checked(path)
    return about, {
        name.removeprefix(f"{kind}."): value
        for kind in ("model", "average")
        for name, value in tensors.items()
        if name.startswith(f"{kind}.")
    }


def load_checkpoint(path: Path, state: State) -> None:
    """Set a state to a checkpoint, in place.

    Raises
    ------
    TrainingError
        If the checkpoint is damaged, of another version, or of another model.
    """
    about, tensors = _read_checked(path)
    state.optimizer.state.clear()
    expected = {name: tuple(value.shape) for name, value in _tensors(state).items()}
    stored = {
        name: tuple(value.shape)
        for name, value in tensors.items()
        if not name.startswith("optimizer.")
    }
    if expected != stored:
        raise TrainingError(
            f"{path} has the tensors of another model",
            "continue with the preset that the run was started with",
        )
    state.model.load_state_dict(
        {n.removeprefix("model."): v for n, v in tensors.items() if n.startswith("model.")}
    )
    for name, value in state.average.items():
        value.copy_(tensors[f"average.{name}"])
    with damaged_file(f"checkpoint {path} is damaged", REMOVE, TrainingError):
        _restore_optimizer(state, tensors)
    state.step, state.seconds, state.sums = about["step"], about["seconds"], about["sums"]
    state.steady, state.first_length = about["steady"], about["first_length"]


def _config(model: nn.Module) -> dict[str, Any] | None:
    """Return the configuration of a network as JSON values, so that a checkpoint can be opened
    without its run."""
    config = getattr(model, "config", None)
    return None if config is None else config.model_dump(mode="json")


def _tensors(state: State) -> dict[str, Tensor]:
    tensors = {f"model.{name}": value for name, value in state.model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in state.average.items()}
    for name, parameter in state.model.named_parameters():
        for key, value in state.optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = value
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _restore_optimizer(state: State, tensors: Mapping[str, Tensor]) -> None:
    """Set the moments of each parameter by its name; `Optimizer.load_state_dict` would go by its
    position."""
    parameters = dict(state.model.named_parameters())
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, kind, name = key.split(".", 2)
            moments = state.optimizer.state.setdefault(parameters[name], {})
            # Also the number of steps: a fused optimiser has it on the device.
            moments[kind] = value.to(parameters[name].device, copy=True)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        if value.numel():
            total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _damaged(path: Path) -> TrainingError:
    return TrainingError(f"checkpoint {path} is damaged", REMOVE)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
