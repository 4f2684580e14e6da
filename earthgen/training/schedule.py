"""Progress of a training, and the learning rate that follows it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from earthgen.training.settings import PartSettings

Length = tuple[int | None, float | None]
"""Steps and seconds of a training; None for no limit."""


@dataclass(frozen=True)
class LearningSchedule:
    """A training by steps, by time, or by what ends first.

    The rate rises, stays constant, and falls to 0 at the end (a warm-up, a constant rate and a
    cool-down: Hägele et al. 2024, "Scaling Laws and Compute-Optimal Training Beyond Fixed Training
    Durations"). So a run can be extended: it continues from the end of its constant part.

    By time, the learning rate follows the clock: it reaches 0 when the time is over, however fast
    the machine is, and two runs differ by as much as their clocks do. By steps, a run is a function
    of its settings alone.

    Attributes
    ----------
    peak : float
        Highest learning rate.
    warmup_ratio : float
        Share of the training in which the rate rises to it; of a continued training, share of the
        length with which it was started, `first_steps` and `first_seconds`.
    cooldown_ratio : float
        Share of the training, at its end, in which the rate falls to 0; before, it is constant.
    decay_power : float
        Power of the polynomial by which it falls.
    steps, seconds : int, float
        Length of the training; None for no limit.
    first_steps, first_seconds : int, float
        Length with which the training was started, if that is another one.
    """

    peak: float
    warmup_ratio: float
    cooldown_ratio: float
    decay_power: float
    steps: int | None
    seconds: float | None
    first_steps: int | None = None
    first_seconds: float | None = None

    @property
    def length(self) -> Length:
        """Steps and seconds of the training."""
        return self.steps, self.seconds

    def extended_from(self, first: Length) -> LearningSchedule:
        """Return the schedule with the warm-up of a training that was started with a length."""
        return replace(self, first_steps=first[0], first_seconds=first[1])

    def is_longer(self, before: Length) -> bool:
        """Whether a training of that length would not be at its end."""
        steps, seconds = before
        return self.share(steps or 0, seconds or 0.0) < 1

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
        return _share(self.length, step, seconds)

    def is_cooling(self, share: float) -> bool:
        """Whether the rate has begun to fall."""
        return share > 1 - self._cooldown + 1e-9

    def rate(self, step: int, seconds: float) -> float:
        """Return the learning rate: up from a little above 0, constant, then (1 - x)^power down."""
        share = self.share(step, seconds)
        started = (self.first_steps, self.first_seconds)
        warm = share if started == (None, None) else _share(started, step, seconds)
        if warm < self.warmup_ratio and not self.is_cooling(share):
            return self.peak * max(warm / self.warmup_ratio, 0.05)
        rest = min((1 - min(share, 1.0)) / max(self._cooldown, 1e-9), 1.0)
        return float(self.peak * rest**self.decay_power)

    @property
    def _cooldown(self) -> float:
        return min(self.cooldown_ratio, 1 - self.warmup_ratio)


def _share(length: Length, step: int, seconds: float) -> float:
    by_steps = 0.0 if length[0] is None else step / length[0]
    by_time = 0.0 if length[1] is None else seconds / length[1]
    return max(by_steps, by_time)
