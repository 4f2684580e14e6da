"""How flows are sampled: the options, and cells whose data are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from earthgen.errors import ModelError, UnknownNameError
from earthgen.models.flow import METHODS, Flow, Predict, sample
from earthgen.stages.blending import (
    BLENDING_RULES,
    Sampler,
    blended,
    blending_stages,
)
from earthgen.stages.stage import Stage

USE = ("semantics", "height", "image")
"""Conditions that networks take."""

STEPS = 3
"""Default steps of flows: of more, worlds are no better (docs/background/benchmarks.md)."""

WINDOW, CONTEXT = 192, 24
"""Voxels along a window of heights, and around its core as context. Heights of a window differ from
those of a much larger one by 0.1 m at 12 voxels from its edge, by 0.002 m at 24 and not at all at
32 (means on a real town with the shipped weights, in 4 and 8 steps)."""


@dataclass(frozen=True)
class Sampling:
    """Options of a flow.

    Attributes
    ----------
    steps : int
        Steps from noise to data.
    method : str
        A name in `earthgen.models.flow.METHODS`. Euler's method measured best in few steps.
    guidance : float
        Scale of classifier-free guidance; 1 is none.
    shift : float
        Above 1, steps are shorter near the noise.
    use : tuple of str
        Conditions that the network takes, of those that the job has.
    rule : str
        How neighbouring windows are blended, in `earthgen.stages.blending.BLENDING_RULES`.
        "crossfaded" reads least: these networks depend on what is near, and `CONTEXT` around a
        window's core is more than they feel (docs/background/architecture.md).
    phases : int
        Of the rule "blended": more phases agree better over long distances, and read further.
    """

    steps: int = STEPS
    method: str = "euler"
    guidance: float = 1.0
    shift: float = 1.0
    use: tuple[str, ...] = USE
    rule: str = "crossfaded"
    phases: int = 2

    def __post_init__(self) -> None:
        if not (isinstance(self.steps, int) and 1 <= self.steps <= 1000):
            raise ModelError(
                f"the number of steps is {self.steps!r}", "give a whole number from 1 to 1000"
            )
        if self.method not in METHODS:
            raise ModelError(f"unknown method {self.method!r}", f"choose from {', '.join(METHODS)}")
        if not self.guidance >= 0 or not self.shift > 0:
            raise ModelError(
                f"the guidance {self.guidance} or the shift {self.shift} is out of range",
                "give a guidance of at least 0 and a shift above 0",
            )
        unknown = sorted(set(self.use) - set(USE))
        if unknown:
            raise ModelError(
                f"unknown condition {unknown[0]!r} to use", f"choose from {', '.join(USE)}"
            )
        if not isinstance(self.phases, int) or not 1 <= self.phases <= 8:
            raise ModelError(
                f"the number of phases is {self.phases!r}", "give a whole number from 1 to 8"
            )
        if self.rule not in BLENDING_RULES:
            raise UnknownNameError(
                f"unknown rule {self.rule!r} for neighbouring windows",
                f"choose from {', '.join(BLENDING_RULES)}",
            )

    def stages(self, sampler: Sampler) -> list[Stage]:
        """Return the stages of a sampler under the rule."""
        return (
            blended(sampler, self.phases)
            if self.rule == "blended"
            else blending_stages(sampler, self.rule)
        )

    def integrate(
        self, flow: Flow, predict: Predict, state: Tensor, start: float, stop: float
    ) -> Tensor:
        """Return the state at time `stop`, from the state at `start`."""
        return sample(
            flow,
            predict,
            state,
            steps=self.steps,
            method=self.method,  # type: ignore[arg-type]
            shift=self.shift,
            start=start,
            stop=stop,
        )


def condition_names(use: str | Sequence[str]) -> tuple[str, ...]:
    """Return names from a list or a text such as "semantics,image"; "" and "none" are no names."""
    names = use.split(",") if isinstance(use, str) else list(use)
    return tuple(name.strip() for name in names if name.strip() not in ("", "none"))


def hold_known(predict: Predict, flow: Flow, mask: Tensor | None, data: Tensor) -> Predict:
    """Return predictions by which the state goes straight to known data.

    Parameters
    ----------
    predict : callable
        Predictions of the network.
    flow : Flow
        What the network predicts.
    mask : Tensor bool, optional
        Where data are known, of the state's shape; None for nowhere.
    data : Tensor
        The known data, of the state's shape.
    """
    if mask is None or not bool(mask.any()):
        return predict

    def held(state: Tensor, time: float) -> Tensor:
        truth = (
            data
            if flow.predicts == "data"
            else flow.as_prediction((data - state) / max(1 - time, 1e-6), state, time)
        )
        return torch.where(mask, truth, predict(state, time))

    return held


def window_lattice(
    window: int | None, stride: int | None, default: int, unit: int
) -> tuple[int, int]:
    """Return window and stride of a sampler, voxels.

    Parameters
    ----------
    window, stride : int, optional
        None is `default`, and the window without a margin of `CONTEXT`, at most an eighth, on
        either side.
    default : int
        Default window.
    unit : int
        Windows begin and end at multiples of it, so that cells lie on the world's lattice.

    Raises
    ------
    ModelError
        If windows do not lie on cells.
    """
    width = default if window is None else window
    margin = max(min(CONTEXT, width // 8) // unit, 1) * unit
    step = width - 2 * margin if stride is None else stride
    if step < 1 or width <= step or width % unit or step % unit or (width - step) // 2 % unit:
        raise ModelError(
            f"windows of {width} voxels at a stride of {step} do not lie on cells of {unit} voxels",
            f"give a window and a smaller stride such that both and half of their difference are "
            f"multiples of {unit}",
        )
    return width, step


def variant_suffix(variant: int) -> str:
    """Return the suffix of the name that keys a sampler's noise, "" for the first variant."""
    return f"#{variant}" if variant else ""
