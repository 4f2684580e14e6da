"""Scale bar and north arrow."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from earthgen_preview.views import Projection

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

INK = (58, 62, 68, 255)
PANEL = (252, 251, 248, 205)
DETAIL = 4
"""The marks are drawn this many times larger and scaled down, which smooths their edges."""


def bar_length(metres: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is at most `metres`."""
    power = 10.0 ** math.floor(math.log10(metres))
    return max(step * power for step in (1, 2, 5) if step * power <= metres * (1 + 1e-9))


def with_marks(pixels: NDArray, eye: Projection) -> NDArray:
    """Add a scale bar and a north arrow in the lower left corner of a picture of 200 pixels or
    more.

    The scale is that of the picture's lower edge; depths of an oblique view appear shorter.

    Parameters
    ----------
    pixels : NDArray (height, width, 3) uint8
        The picture, which stays unchanged.
    eye : Projection
        How it was made.
    """
    height, width = pixels.shape[:2]
    if min(width, height) < 200:
        return pixels
    unit = max(width, height) / 1600 * 24 * DETAIL  # height of a line of text
    length = bar_length(0.16 * width * eye.metres_per_pixel)
    bar = length / eye.metres_per_pixel * DETAIL
    text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    font = ImageFont.load_default(size=unit * 0.8)
    panel = (int(bar + unit * 4.2), int(unit * 3))
    image = Image.new("RGBA", panel, (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((0, 0, panel[0] - 1, panel[1] - 1), radius=unit * 0.5, fill=PANEL)
    left, base = unit * 0.8, unit * 2.15
    thick = unit * 0.14
    draw.rectangle((left, base - thick / 2, left + bar, base + thick / 2), fill=INK)
    for x in (left, left + bar / 2, left + bar):
        tick = unit * (0.35 if x != left + bar / 2 else 0.22)
        draw.rectangle((x - thick / 2, base - tick, x + thick / 2, base + tick), fill=INK)
    draw.text((left + bar / 2, base - unit * 0.5), text, font=font, fill=INK, anchor="ms")
    _arrow(draw, left + bar + unit * 1.9, unit * 1.5, unit, eye.north, font)
    panel_small = image.resize((panel[0] // DETAIL, panel[1] // DETAIL), Image.Resampling.LANCZOS)
    if panel_small.width > width or panel_small.height > height:
        return pixels
    margin = round(max(width, height) * 0.012)
    out = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGBA")
    out.alpha_composite(panel_small, (margin, max(height - margin - panel_small.height, 0)))
    return np.asarray(out.convert("RGB"))


def _arrow(
    draw: ImageDraw.ImageDraw,
    x: float,
    y: float,
    unit: float,
    north: tuple[float, float],
    font: Font,
) -> None:
    """Draw a needle towards `north` (right, up) with an N at its tip."""
    norm = math.hypot(*north) or 1.0
    dx, dy = north[0] / norm, -north[1] / norm
    long, wide = unit * 0.95, unit * 0.34
    tip, tail = (x + dx * long * 0.55, y + dy * long * 0.55), (x - dx * long, y - dy * long)
    notch = (x - dx * long * 0.62, y - dy * long * 0.62)
    for turn, colour in ((1, INK), (-1, (140, 144, 150, 255))):
        draw.polygon(
            [tip, (tail[0] - dy * wide * turn, tail[1] + dx * wide * turn), notch], fill=colour
        )
    draw.text((x + dx * long * 1.1, y + dy * long * 1.1), "N", font=font, fill=INK, anchor="mm")
