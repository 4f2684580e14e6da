"""Progress of a training, and the learning rate that follows it."""

from __future__ import annotations

from dataclasses import dataclass

from earthgen.training.settings import PartSettings


@dataclass(frozen=True)
class LearningSchedule:
    """A training by steps, by time, or by what ends first.

    By time, the learning rate follows the clock: it reaches 0 when the time is over, however fast
    the machine is, and two runs differ by as much as their clocks do. By steps, a run is a function
    of its settings alone.

    Attributes
    ----------
    peak : float
        Highest learning rate.
    warmup_ratio : float
        Share of the training in which the rate rises to it.
    cooldown_ratio : float
        Share of the training, at its end, in which the rate falls to 0; before, it is constant, so
        that a run can be extended.
    decay_power : float
        Power of the polynomial by which it falls.
    steps, seconds : int, float
        Length of the training; None for no limit.
    """

    peak: float
    warmup_ratio: float
    cooldown_ratio: float
    decay_power: float
    steps: int | None
    seconds: float | None

    @classmethod
    def of(cls, settings: PartSettings) -> LearningSchedule:
        """Return the schedule of a part's settings."""
        seconds = None if settings.minutes is None else 60 * settings.minutes
        return cls(
            settings.learning_rate,
            settings.warmup_ratio,
            settings.cooldown_ratio,
            settings.decay_power,
            settings.steps,
            seconds,
        )

    def share(self, step: int, seconds: float) -> float:
        """Return the share of the training that is done; 1 or more at the end."""
        by_steps = 0.0 if self.steps is None else step / self.steps
        by_time = 0.0 if self.seconds is None else seconds / self.seconds
        return max(by_steps, by_time)

    def rate(self, share: float) -> float:
        """Return the learning rate: up from a little above 0, constant, then (1 - x)^power down."""
        if share < self.warmup_ratio:
            return self.peak * max(share / self.warmup_ratio, 0.05)
        cooldown = min(self.cooldown_ratio, 1 - self.warmup_ratio)
        rest = min((1 - min(share, 1.0)) / max(cooldown, 1e-9), 1.0)
        return float(self.peak * rest**self.decay_power)
