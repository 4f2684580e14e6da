"""How far a training is, and the learning rate there."""

from __future__ import annotations

from dataclasses import dataclass

from earthgen.training.settings import PartSettings


@dataclass(frozen=True)
class Schedule:
    """A training by steps, by time, or by what ends first.

    By time, the learning rate follows the clock: it reaches 0 when the time is over, however fast
    the machine is, and two runs differ by as much as their clocks do. By steps, a run is a function
    of its settings alone.

    Attributes
    ----------
    steps, seconds : in all; None for no limit
    """

    peak: float
    warm_up: float
    power: float
    steps: int | None
    seconds: float | None

    @classmethod
    def of(cls, settings: PartSettings) -> Schedule:
        seconds = None if settings.minutes is None else 60 * settings.minutes
        return cls(
            settings.learning_rate, settings.warm_up, settings.power, settings.steps, seconds
        )

    def share(self, step: int, seconds: float) -> float:
        """How much of the training is done after so many steps and seconds; 1 or more at the
        end."""
        by_steps = 0.0 if self.steps is None else step / self.steps
        by_time = 0.0 if self.seconds is None else seconds / self.seconds
        return max(by_steps, by_time)

    def rate(self, share: float) -> float:
        """The learning rate: a line up, then (1 - x)^power down. It begins a little above 0."""
        if share < self.warm_up:
            return self.peak * max(share / self.warm_up, 0.05)
        rest = (1 - min(share, 1.0)) / (1 - self.warm_up)
        return float(self.peak * rest**self.power)
