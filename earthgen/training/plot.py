"""Curves of a training as a picture, drawn with Pillow: a panel a figure, steps along, values
up."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from earthgen.files import replace_file
from earthgen.training.log import series

WIDTH, HEIGHT, EDGE = 420, 240, 14
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 30, 26
INK, GRID, PALE, STRONG, HELD = (
    (40, 40, 40),
    (224, 224, 224),
    (186, 206, 228),
    (31, 98, 168),
    (200, 84, 20),
)
TICKS = 5
SKIPPED = ("step", "seconds", "crops_per_s", "voxels_per_s", "gflops", "flop_share")


def draw_curves(rows: list[dict[str, str]], title: str, path: Path) -> None:
    """Write curves of all columns of a metrics.csv as a PNG, in one step; nothing where there are
    no rows.

    A figure of held-out crops stands in the panel of the training figure of its name, where there
    is one.
    """
    names = list(dict.fromkeys(name for row in rows for name in row if name not in SKIPPED))
    held = [name for name in names if name.startswith("held_out.")]
    own = [name for name in names if name not in held]
    panels = own + [name for name in held if name.removeprefix("held_out.") not in own]
    panels = [name for name in panels if series(rows, name)[0]]
    if not panels:
        return
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    picture = Image.new(
        "RGB", (across * (WIDTH + EDGE) + EDGE, down * (HEIGHT + EDGE) + EDGE + 24), "white"
    )
    draw = ImageDraw.Draw(picture)
    draw.text((EDGE, 8), title, INK, _font(16))
    for number, name in enumerate(panels):
        x = EDGE + number % across * (WIDTH + EDGE)
        y = 24 + EDGE + number // across * (HEIGHT + EDGE)
        beside = f"held_out.{name}"
        _panel(
            draw,
            (x, y),
            name,
            series(rows, name),
            series(rows, beside) if beside in held else ([], []),
        )
    file = io.BytesIO()
    picture.save(file, "PNG")
    replace_file(path.parent, path.name, file.getvalue())


def _panel(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    name: str,
    own: tuple[list[float], list[float]],
    held: tuple[list[float], list[float]],
) -> None:
    x0, y0 = corner[0] + LEFT, corner[1] + TOP
    x1, y1 = corner[0] + WIDTH - RIGHT, corner[1] + HEIGHT - BOTTOM
    values = sorted([*own[1], *held[1]])
    low, high = values[0], values[-1]
    # A loss that falls by more than a factor of ten is seen in equal ratios.
    log = low > 0 and high > 10 * low
    if not log and high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    last = max([*own[0], *held[0], 1.0])

    def place(step: float, value: float) -> tuple[float, float]:
        if log:
            up = math.log(max(value, low) / low) / math.log(high / low)
        else:
            up = (value - low) / (high - low)
        return x0 + step / last * (x1 - x0), y1 - up * (y1 - y0)

    only_held = name.startswith("held_out.")
    draw.text(
        (corner[0] + LEFT, corner[1] + 8),
        name.removeprefix("held_out."),
        HELD if only_held else INK,
        _font(13),
    )
    if held[0]:
        draw.text((x1 - 92, corner[1] + 8), "held-out crops", HELD, _font(11))
    for value in log_ticks(low, high) if log else ticks(low, high):
        _, y = place(0, value)
        draw.line([(x0, y), (x1, y)], GRID)
        draw.text((corner[0] + LEFT - 6, y - 6), f"{value:.4g}", INK, _font(11), anchor="ra")
    for value in ticks(0, last):
        x, _ = place(value, low)
        draw.line([(x, y0), (x, y1)], GRID)
        draw.text((x, y1 + 6), f"{value:,.0f}", INK, _font(11), anchor="ma")
    for (steps, found), colour, smooth in (
        (own, HELD if only_held else STRONG, True),
        (held, HELD, False),
    ):
        points = [place(*pair) for pair in zip(steps, found, strict=True)]
        if smooth and len(points) > 40:
            draw.line(points, PALE, 1)
            points = [place(s, v) for s, v in zip(steps, smoothed(found), strict=True)]
        if len(points) > 1:
            draw.line(points, colour, 2)
        if len(points) < 40:
            for x, y in points:
                draw.ellipse([x - 2, y - 2, x + 2, y + 2], colour)
    draw.rectangle([x0, y0, x1, y1], outline=INK)


def ticks(low: float, high: float, count: int = TICKS) -> list[float]:
    """Round numbers within [low, high], about `count` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within [low, high], powers alone where these are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(powers) <= 4 else (1,)
    found = [factor * 10.0**power for power in powers for factor in factors]
    return [value for value in found if low <= value <= high]


def smoothed(values: Sequence[float], share: float = 0.03) -> list[float]:
    """A running mean over a share of the values, centred."""
    half = max(int(len(values) * share / 2), 1)
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    found = []
    for number in range(len(values)):
        reach = min(half, number, len(values) - 1 - number)
        found.append((sums[number + reach + 1] - sums[number - reach]) / (2 * reach + 1))
    return found


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
