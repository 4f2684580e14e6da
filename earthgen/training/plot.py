"""Curves of a training as a picture: a panel per figure, drawn by matplotlib.

The figure is made without pyplot, whose state is global.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from earthgen.files import replace_file
from earthgen.training.log import series

HIDDEN = ("step", "seconds", "crops_per_s", "voxels_per_s", "gflops", "flop_share")
"""Columns of metrics.csv without a panel."""

TRAINING, RAW, HELD_OUT = "#1f62a8", "#bacee4", "#c85414"

ACROSS = 3
"""Panels in a row."""

MANY = 40
"""From this number of points on, a curve is smoothed and its points are not marked."""

LOG_RATIO = 10
"""From this ratio of the largest to the smallest value on, an axis is logarithmic."""


def draw_curves(rows: list[dict[str, str]], title: str, path: Path) -> None:
    """Write curves of all columns of a metrics.csv as a PNG; do nothing without rows.

    A figure of held-out crops is drawn in the panel of the training figure of its name, if there
    is one.

    Parameters
    ----------
    rows : list of dict
        Rows of `earthgen.training.log.read_log`.
    title : str
        Title of the picture.
    path : Path
        File to write, replaced in one step.
    """
    names = list(dict.fromkeys(name for row in rows for name in row if name not in HIDDEN))
    held_out = [name for name in names if name.startswith("held_out.")]
    training = [name for name in names if name not in held_out]
    panels = training + [
        name for name in held_out if name.removeprefix("held_out.") not in training
    ]
    panels = [name for name in panels if series(rows, name)[0]]
    if not panels:
        return
    figure, places = _grid(len(panels), title)
    for axes, name in zip(places, panels, strict=True):
        _draw_panel(axes, name, series(rows, name), series(rows, f"held_out.{name}"))
    file = io.BytesIO()
    figure.savefig(file, format="png")
    replace_file(path.parent, path.name, file.getvalue())


def comparison_picture(runs: Mapping[str, list[dict[str, str]]], title: str) -> bytes:
    """Return the curves of several runs in common panels, as a PNG.

    Parameters
    ----------
    runs : mapping of str to list of dict
        Rows of `earthgen.training.log.read_log`, by the name of the run.
    title : str
        Title of the picture.
    """
    names = dict.fromkeys(name for rows in runs.values() for row in rows for name in row)
    panels = [
        name
        for name in names
        if name not in HIDDEN and any(series(rows, name)[0] for rows in runs.values())
    ]
    figure, places = _grid(len(panels), title)
    for number, (axes, name) in enumerate(zip(places, panels, strict=True)):
        curves = {run: series(rows, name) for run, rows in runs.items()}
        _set_up(axes, name, [value for _, curve in curves.values() for value in curve])
        for run, (steps, curve) in curves.items():
            many = len(steps) > MANY
            shown = running_mean(curve) if many else curve
            axes.plot(steps, shown, linewidth=1.6, marker="" if many else ".", label=run)
        if number == 0:
            axes.legend(fontsize=8, frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _grid(count: int, title: str) -> tuple[Figure, list[Axes]]:
    """Return a figure and the axes of its panels.

    Margins are fixed: matplotlib's layouts measure every label first, which takes longer than the
    drawing, and a run draws its curves at every checkpoint.
    """
    across = max(min(ACROSS, count), 1)
    down = max(-(-count // across), 1)
    width, height = 4.4 * across, 2.6 * down + 0.4
    figure = Figure(figsize=(width, height), dpi=100)
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, y=1 - 0.1 / height, ha="left", va="top")
    figure.subplots_adjust(
        left=0.6 / width,
        right=1 - 0.15 / width,
        bottom=0.35 / height,
        top=1 - 0.65 / height,
        wspace=0.2,
        hspace=0.3,
    )
    return figure, [figure.add_subplot(down, across, number + 1) for number in range(count)]


def _set_up(axes: Axes, title: str, values: Sequence[float], colour: str = "black") -> None:
    """Give a panel its title, scale and grid, for the values that it is to show."""
    axes.set_title(title, loc="left", fontsize=10, color=colour)
    if min(values) > 0 and max(values) > LOG_RATIO * min(values):
        axes.set_yscale("log")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(color="#e0e0e0")
    axes.tick_params(labelsize=8)


def _draw_panel(
    axes: Axes,
    name: str,
    own: tuple[list[float], list[float]],
    held_out: tuple[list[float], list[float]],
) -> None:
    colour = HELD_OUT if name.startswith("held_out.") else TRAINING
    _set_up(axes, name.removeprefix("held_out."), [*own[1], *held_out[1]], colour)
    axes.set_xlim(0, max(*own[0], *held_out[0], 1.0))
    for (steps, curve), shade, label in (
        (own, colour, None),
        (held_out, HELD_OUT, "held-out crops"),
    ):
        if not steps:
            continue
        if len(steps) > MANY and curve is own[1]:
            axes.plot(steps, curve, color=RAW, linewidth=1)
            axes.plot(steps, running_mean(curve), color=shade, linewidth=1.6, label=label)
        else:
            marker = "." if len(steps) < MANY else ""
            axes.plot(steps, curve, color=shade, linewidth=1.6, marker=marker, label=label)
    if held_out[0]:
        axes.legend(fontsize=8, frameon=False)


def running_mean(values: Sequence[float], share: float = 0.03) -> NDArray:
    """Return the centred running mean over a share of the values, (n,) float64.

    Towards the ends the window shrinks, so that it stays centred.
    """
    count = len(values)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(count)
    half = np.minimum(max(int(count * share / 2), 1), np.minimum(index, count - 1 - index))
    result: NDArray = (sums[index + half + 1] - sums[index - half]) / (2 * half + 1)
    return result
