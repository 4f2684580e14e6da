"""A picture of a world, as an array."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from numpy.typing import NDArray

from earthgen.errors import JobError
from earthgen.plugins import Plugins, load
from earthgen.progress import Progress
from earthgen.render.interfaces import View
from geo_io.frame import Bounds

if TYPE_CHECKING:
    from earthgen.world.world import World

RENDERERS = ("splats", "zbuffer")
"""The renderers of a picture for which none is named: the second where torch is not installed."""

VIEWS = ("top", "oblique")


def default_renderer() -> str:
    """Return the renderer of a picture for which none is named."""
    return RENDERERS[importlib.util.find_spec("torch") is None]


def preview_world(
    world: World,
    view: str = "oblique",
    *,
    size: int = 800,
    bounds: Bounds | None = None,
    azimuth: float = 200.0,
    elevation: float = 40.0,
    renderer: str | None = None,
    progress: Progress | None = None,
    plugins: Plugins | None = None,
) -> NDArray:
    """Draw a world, or a part of it.

    Parameters
    ----------
    world : World
    view : str
        "oblique", or "top": from above with north up.
    size : int
        The picture's longer edge, pixels.
    bounds : tuple of float, optional
        Left, bottom, right, top in metres of the CRS; by default the whole world.
    azimuth : float
        Direction that an oblique view is seen from, degrees clockwise from north.
    elevation : float
        Height of the viewpoint above the horizon, degrees.
    renderer : str, optional
        Of `earthgen doctor`'s list; by default "splats", or "zbuffer" where torch is not installed.
    progress : Progress, optional
        Told of each step.
    plugins : Plugins, optional
        Those of this process by default.

    Returns
    -------
    NDArray (height, width, 3) uint8
        sRGB. `PIL.Image.fromarray` makes a picture of it, which notebooks show.

    Raises
    ------
    JobError
        If the view is neither.
    UnknownNameError
        If no plugin offers the renderer.
    StoreError, RegionError
        If the world has no finished tile, or nothing within the bounds.

    Examples
    --------
    >>> Image.fromarray(earthgen.preview_world(world)).save("world.png")
    """
    if view not in VIEWS:
        raise JobError(f"unknown view {view!r}", f"give one of {', '.join(VIEWS)}")
    chosen = (plugins or load()).create("renderer", renderer or default_renderer())
    pixels: NDArray = chosen.render(
        world, View(view, size, bounds, azimuth, elevation), progress or Progress()
    )
    return pixels
