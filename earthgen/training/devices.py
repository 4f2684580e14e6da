"""One process on one device, or several processes through Lightning Fabric.

Fabric is imported only for more than one device; it is in the extra `train`. Several processes
were run on a CPU (two of them), never on GPUs.
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
class ProcessGroup:
    """The processes that train together, as one of them sees them.

    Attributes
    ----------
    device : torch.device
        Device of this process.
    rank : int
        Number of this process.
    fabric : lightning_fabric.Fabric, optional
        None for one process alone.
    """

    device: torch.device
    rank: int = 0
    fabric: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def average_gradients(self, model: nn.Module) -> None:
        """Replace gradients by their means over the processes, in one message.

        Parameters without a gradient in a process count as 0: which ones have one depends on the
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
        """Return the main process's decision: clocks differ, and all have to stop at one step."""
        if self.fabric is None:
            return decision
        return bool(self.fabric.broadcast(decision))

    def wait(self) -> None:
        """Wait for all processes to arrive here."""
        if self.fabric is not None:
            self.fabric.barrier()


def single_process(device: str) -> ProcessGroup:
    """Return one process on a device.

    Raises
    ------
    JobError
        If the machine has no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise JobError(
            f"device {device!r} cannot be used: {str(error).splitlines()[0]}", "give --device cpu"
        ) from error
    return ProcessGroup(chosen)


def launch(work: Callable[[ProcessGroup], Any], device: str, devices: int) -> Any:
    """Run a function in one process or several, and return the result of the main one.

    Raises
    ------
    JobError
        If several devices are given and Fabric is not installed.
    """
    if devices == 1:
        return work(single_process(device))
    try:
        fabric = importlib.import_module("lightning_fabric")
    except ImportError as error:
        raise JobError(
            f"{devices} devices need the package lightning-fabric",
            "install earthgen[train], or give --devices 1",
        ) from error
    strategy = "ddp_fork" if device == "cpu" else "ddp"
    accelerator = "gpu" if device.startswith("cuda") else device
    launcher = fabric.Fabric(accelerator=accelerator, devices=devices, strategy=strategy)

    def member(each: Any) -> Any:
        return work(ProcessGroup(each.device, each.global_rank, each))

    return launcher.launch(member)
