"""One device, or a team of processes with one each, through Lightning Fabric.

Fabric is imported for more than one device alone; it is the extra `train`. A team has been run with
two processes on a CPU, never on GPUs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from earthgen.errors import JobError


@dataclass(frozen=True)
class Team:
    """The processes that train together.

    Attributes
    ----------
    device : of this process
    rank : number of this process; fabric : None for one process alone
    """

    device: torch.device
    rank: int = 0
    fabric: Any = None

    @property
    def first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def average_gradients(self, model: nn.Module) -> None:
        """Gradients become their means over the processes, in one message.

        Parameters without a gradient in any process count as 0: which ones have one depends on the
        voxels of a batch.
        """
        if self.fabric is None:
            return
        gradients = []
        for parameter in model.parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = gradient
            gradients.append(gradient)
        flat = self.fabric.all_reduce(
            torch.cat([each.flatten() for each in gradients]), reduce_op="mean"
        )
        for each, part in zip(
            gradients, flat.split([each.numel() for each in gradients]), strict=True
        ):
            each.copy_(part.view_as(each))

    def agree(self, decision: bool) -> bool:
        """What the first process decides: clocks differ, and all have to stop at one step."""
        if self.fabric is None:
            return decision
        return bool(self.fabric.broadcast(decision))

    def wait(self) -> None:
        """Until all processes are here."""
        if self.fabric is not None:
            self.fabric.barrier()


def alone(device: str) -> Team:
    """One process on a device. Raises JobError for one that is not there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError) as error:
        raise JobError(
            f"device {device!r} cannot be used: {str(error).splitlines()[0]}", "give --device cpu"
        ) from error
    return Team(found)


def launch(work: Callable[[Team], Any], device: str, devices: int) -> Any:
    """Do work in one process, or in a team of them; returns what the first one's gives.

    Raises JobError where Fabric is wanted and not installed.
    """
    if devices == 1:
        return work(alone(device))
    try:
        fabric = importlib.import_module("lightning_fabric")
    except ImportError as error:
        raise JobError(
            f"{devices} devices need the package lightning-fabric",
            "install earthgen[train], or give --devices 1",
        ) from error
    strategy = "ddp_fork" if device == "cpu" else "ddp"
    kind = "gpu" if device.startswith("cuda") else device
    made = fabric.Fabric(accelerator=kind, devices=devices, strategy=strategy)

    def member(each: Any) -> Any:
        return work(Team(each.device, each.global_rank, each))

    return made.launch(member)
