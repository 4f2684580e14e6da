"""A world in a notebook: a small picture from above, and what it is, as HTML."""

from __future__ import annotations

import base64
import html
import io
from typing import Any

import numpy as np

from earthgen.errors import StoreError
from geo_io.safety.damage import damaged_file

World = Any
"""An `earthgen.world.world.World`, which imports this module."""

LARGEST = 4_000_000
"""Most cells that are read for the picture; larger worlds have none."""

EDGE = 240
"""Longest edge of the picture, pixels."""


def summary_html(world: World) -> str:
    """Return a table of what a world is, with a picture from above.

    Parameters
    ----------
    world : World
        May be unfinished or damaged: what cannot be read is left out.

    Returns
    -------
    str
        HTML without scripts or addresses; the picture is inside.
    """
    frame = world.frame
    left, bottom, right, top = frame.bounds
    rows = {
        "path": str(world.path),
        "CRS": frame.crs,
        "heights": frame.vertical_crs,
        "extent": f"{left:.2f}, {bottom:.2f}, {right:.2f}, {top:.2f}",
        "size": f"{right - left:,.0f} m × {top - bottom:,.0f} m",
        "voxel size": f"{frame.voxel_size:g} m, levels {', '.join(map(str, world.levels))}",
    }
    try:
        made = len(world.tiles())
        rows["tiles"] = f"{made:,} of {made + world.missing:,}, {world.tile_size} voxels wide"
        rows["voxels"] = f"{world.counts['voxels']:,}"
    except StoreError as error:
        rows["tiles"] = error.problem
    cells = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
        for name, value in rows.items()
    )
    return (
        "<div style='display:flex;gap:1em;align-items:flex-start'>"
        f"{_picture(world)}<table><caption>earthgen world</caption>{cells}</table></div>"
    )


def _picture(world: World) -> str:
    """The colours from above as an image; nothing for a large or damaged world."""
    from PIL import Image

    level = max(world.levels)
    frame = world.level_frame(level)
    if frame.nx * frame.ny > LARGEST:
        return ""
    # The finest level whose picture is not larger than shown, so that small worlds are sharp.
    while level > 1 and max(frame.nx, frame.ny) * 2 <= EDGE:
        level //= 2
        frame = world.level_frame(level)
    try:
        with damaged_file(f"the colours of {world.path} are damaged", "verify it", StoreError):
            rgb = np.asarray(world.layers(level)["rgb"].values)
    except StoreError:
        return ""
    picture = Image.fromarray(rgb)
    picture.thumbnail((EDGE, EDGE))
    file = io.BytesIO()
    picture.save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    return f"<img alt='the world from above' src='data:image/png;base64,{data}'>"
