"""How flows are sampled: settings that users give, and cells whose data are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from earthgen.errors import ModelError, UnknownNameError
from earthgen.models.flow import METHODS, Flow, Method, Predict, sample
from earthgen.stages.blending import DEFAULT_RULE, RULES, Sampler, agree, blended
from earthgen.stages.stage import Stage

USE = ("semantics", "height", "image")
"""Conditions that networks can be told."""


@dataclass(frozen=True)
class Sampling:
    """Options of a flow.

    Attributes
    ----------
    steps : evaluations from noise to data
    method : of `earthgen.models.flow.METHODS`; "" for shortcuts where the weights were trained to
        take them. Euler's is
        the default since it measured best in few steps (docs/background/benchmarks.md)
    guidance : what the conditions change, times this (classifier-free guidance); 1 is the network
        as it is
    shift : above 1, steps are shorter near the noise
    use : conditions that the network is told, of those that the job has
    rule : how neighbouring windows agree, of `earthgen.stages.blending.RULES`
    phases : of the rule "blended": more agree better on what reaches far, and read further
    """

    steps: int = 4
    method: str = "euler"
    guidance: float = 1.0
    shift: float = 1.0
    use: tuple[str, ...] = USE
    rule: str = DEFAULT_RULE
    phases: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or not 1 <= self.steps <= 1000:
            raise ModelError(
                f"{self.steps!r} steps cannot be taken", "give a whole number from 1 to 1000"
            )
        if self.method and self.method not in METHODS:
            raise ModelError(
                f"there is no method {self.method!r}", f"there are {', '.join(METHODS)}"
            )
        if not self.guidance >= 0 or not self.shift > 0:
            raise ModelError(
                f"a guidance of {self.guidance} with a shift of {self.shift} leads nowhere",
                "give a guidance of at least 0 and a shift above 0",
            )
        unknown = sorted(set(self.use) - set(USE))
        if unknown:
            raise ModelError(
                f"there is no condition {unknown[0]!r} to use", f"there are {', '.join(USE)}"
            )
        if not isinstance(self.phases, int) or not 1 <= self.phases <= 8:
            raise ModelError(
                f"windows cannot be blended in {self.phases!r} phases", "give 1 to 8, such as 2"
            )
        if self.rule not in RULES:
            raise UnknownNameError(
                f"there is no rule {self.rule!r} for neighbouring windows",
                f"choose of {', '.join(RULES)}",
            )

    def stages(self, sampler: Sampler) -> list[Stage]:
        """The stages of a sampler under the rule."""
        return (
            blended(sampler, self.phases) if self.rule == "blended" else agree(sampler, self.rule)
        )

    def method_of(self, few_steps: bool) -> Method:
        """The method for a network that was trained for few steps, or was not."""
        if self.method:
            return self.method  # type: ignore[return-value]
        return "shortcut" if few_steps else "euler"

    def follow(
        self,
        flow: Flow,
        predict: Predict,
        state: Tensor,
        start: float,
        stop: float,
        few_steps: bool,
    ) -> Tensor:
        """The state at time `stop`, from that at `start`."""
        return sample(
            flow,
            predict,
            state,
            steps=self.steps,
            method=self.method_of(few_steps),
            shift=self.shift,
            start=start,
            stop=stop,
        )


def names(use: str | Sequence[str]) -> tuple[str, ...]:
    """Names of conditions from a list or a text such as "semantics,image"; "" and "none" are no
    names."""
    given = use.split(",") if isinstance(use, str) else list(use)
    return tuple(name.strip() for name in given if name.strip() not in ("", "none"))


def pinned(predict: Predict, flow: Flow, mask: Tensor | None, data: Tensor) -> Predict:
    """Predictions that know some of the data: there, the state goes straight to what is known.

    mask : of the state's shape; None where nothing is known
    """
    if mask is None or not bool(mask.any()):
        return predict

    def known(state: Tensor, time: float, step: float) -> Tensor:
        truth = (
            data
            if flow.predicts == "data"
            else flow.as_prediction((data - state) / max(1 - time, 1e-6), state, time)
        )
        return torch.where(mask, truth, predict(state, time, step))

    return known


def lattice(window: int | None, stride: int | None, default: int, unit: int) -> tuple[int, int]:
    """Window and stride of a sampler, voxels; three quarters of the window by default.

    unit : windows have to begin and end at multiples of this many voxels, so that cells lie on the
        world's lattice

    Raises ModelError where they do not.
    """
    wide = default if window is None else window
    step = wide * 3 // 4 if stride is None else stride
    if step < 1 or wide <= step or wide % unit or step % unit or (wide - step) // 2 % unit:
        raise ModelError(
            f"windows of {wide} voxels at a stride of {step} do not lie on cells of {unit}",
            f"give a window and a smaller stride that are multiples of {unit}, as is half of their difference",
        )
    return wide, step


def variant_name(variant: int) -> str:
    """What a variant adds to the name that keys a sampler's noise; nothing for the first."""
    return f"#{variant}" if variant else ""
