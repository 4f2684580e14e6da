"""Rules for neighbouring windows on a synthetic sampler (tests/helpers/diffusion.py): seams,
quality, cost.

Every rule makes the same place from the same noise; "at once" is that place sampled as a single
window, which no rule can reach and every measure is to be read against.
docs/background/benchmarks.md has the table.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

PERIODS = 10
"""Edge of the place, in pairs of windows."""

EXAMPLE_WINDOW, EXAMPLE_STRIDE = 256, 192
"""What costs are counted for, at 1 m a cell."""


def run(periods: int = PERIODS) -> dict[str, object]:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from earthgen.stages.blending import blended, four_colour, independent
    from geo_io.frame import Frame
    from tests.helpers.diffusion import Cover, at_once, sample, sampler, target

    source = sampler()
    edge = 2 * source.stride * periods
    frame = Frame("EPSG:32632", 1.0, (-edge // 2, edge // 2), (-edge // 2, edge // 2))
    aim = target(frame, {"semantics": Cover().read(frame)})
    rules: dict[str, tuple[Any, int]] = {
        "independent": (independent, 1),
        "four_colour": (four_colour, 1),
        "four_colour_repeats_4": (four_colour, 4),
        "blended_1_phase": (partial(blended, phases=1), 1),
        "blended_2_phases": (blended, 1),
        "blended_2_phases_at_0.2": (partial(blended, times=(0.0, 0.2, 1.0)), 1),
        "blended_3_phases": (partial(blended, phases=3), 1),
    }
    found: dict[str, object] = {"at_once": figures(at_once(source, frame), frame, aim)}
    for name, (rule, repeats) in rules.items():
        began = time.process_time()
        values = sample(rule(sampler(repeats=repeats)), frame)
        spent = time.process_time() - began
        found[name] = (
            figures(values, frame, aim) | costs(rule, repeats) | {"cpu_s": round(spent, 1)}
        )
    found["variance_at_the_switch"] = variance_at_the_switch(frame)
    return found


def figures(values: NDArray, frame: Any, aim: NDArray) -> dict[str, float]:
    """Seams and quality of one (ny, nx, 3) field."""
    import numpy as np

    from tests.helpers.diffusion import sampler, seam_ratio

    level, relief, logit = np.moveaxis(values.astype(np.float64), -1, 0)

    def alike(apart: int) -> float:
        return round(
            float(np.corrcoef(relief[:, :-apart].ravel(), relief[:, apart:].ravel())[0, 1]), 2
        )

    return {
        "seam_relief": round(seam_ratio(relief, frame, sampler()), 2),
        "seam_level": round(seam_ratio(level, frame, sampler()), 2),
        "std_relief": round(float(relief.std()), 3),
        "alike_at_8": alike(8),
        "alike_at_24": alike(24),
        "between_levels_%": round(100 * float(np.mean(np.abs(level) < 0.5)), 2),
        "wrong_cells_%": round(100 * float(np.mean((logit > 0) != (aim > 0))), 2),
    }


def costs(rule: Any, repeats: int) -> dict[str, float]:
    """Trajectories sampled for a km2 of an endless world, for one of 1 km2 and for one core;
    reach in windows."""
    from geo_io.frame import Frame
    from tests.helpers.diffusion import Counted, radius, sample

    window, stride = EXAMPLE_WINDOW, EXAMPLE_STRIDE
    crs = "EPSG:32632"
    out: dict[str, float] = {"reach": radius(rule(Counted(window, stride)))}
    # Away from the origin, and cut as any box is. A core of each colour: some need less than
    # others.
    km = [Frame(crs, 1.0, (10_000, 11_000), (20_000, 21_000))]
    cores = [
        Frame(crs, 1.0, (0, stride), (0, stride)).tile(x, y, stride)
        for x in (50, 51)
        for y in (50, 51)
    ]
    for name, frames in (("km2_alone", km), ("core_alone", cores)):
        total = 0.0
        for frame in frames:
            counted = Counted(window, stride)
            sample(rule(counted), frame, conditions={})
            total += sum((stop - start) for _, start, stop in counted.asked)
        out[name] = round(total / len(frames), 1)
    endless = 1e6 / stride**2
    out["km2_endless"] = round(endless, 1)
    out["model_evaluations"] = round(endless * 25 * (1 + 0.75 * (repeats - 1)))
    return out


def variance_at_the_switch(frame: Any) -> dict[str, float]:
    """Of "relief" where the first of two phases ends: its variance in the middle of overlaps
    over that in cores, and the share of the place's noise that is left there: 0.5 where none was
    lost."""
    import numpy as np

    from earthgen.noise.philox import Noise
    from earthgen.stages.blending import STATE, blended, initial_noise
    from tests.helpers.diffusion import Cover, Plain, sampler

    source = sampler()
    plain = Plain(blended(source), frame, {"semantics": Cover()}, Noise(0))
    state = plain.field("hills/0", frame).dense[STATE][..., 1].astype(np.float64)
    noise = initial_noise(source, frame, Noise(0))[..., 1].astype(np.float64)
    away = np.abs(np.arange(frame.nx) % source.stride - (source.stride - 1) / 2)
    overlap, core = (
        away > source.stride / 2 - 2,
        away < source.stride / 2 - (source.window - source.stride) / 2,
    )

    def rough(field: NDArray) -> NDArray:
        """What differs from cell to cell northwards: nearly all of it is noise."""
        return np.diff(field, axis=0)

    share = [
        float((rough(state[:, c]) * rough(noise[:, c])).sum() / (rough(noise[:, c]) ** 2).sum())
        for c in (overlap, core)
    ]
    return {
        "variance_ratio": round(float(state[:, overlap].var() / state[:, core].var()), 3),
        "noise_in_overlaps": round(share[0], 3),
        "noise_in_cores": round(share[1], 3),
    }
