"""TODO docstring of earthgen.render.interfaces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # every plugin imports this module, and `earthgen --help` imports every plugin
    from numpy.typing import NDArray

    from earthgen.progress import Progress
    from earthgen.splats.cameras.camera import Camera
    from earthgen.world.world import World
    from geo_io.frame import Bounds


class Exporter(Protocol):
    """Writes a world, or a part of it, in another format."""

    name: str

    def export(
        self, world: World, out: Path, *, bounds: Bounds | None, level: int, progress: Progress
    ) -> list[Path]:
        """Write into the folder `out` and return the files written.

        bounds : CRS metres, None for all of the world; level : 1, 2, 4 or 8 times the voxel size
        """


@dataclass(frozen=True)
class View:
    """What a picture of a world shows.

    Attributes
    ----------
    kind : "top" (orthographic, from above, north up), "oblique" (orthographic, from `azimuth` and
        `elevation`), or
        "camera": what `camera` sees, which not every renderer draws
    size : the longer edge of the picture, pixels; a camera has its own
    bounds : CRS metres, None for all of the world
    azimuth, elevation : direction from which an oblique view looks, degrees clockwise from north
        and above the horizon
    camera : of a view of kind "camera", in the world's CRS
    """

    kind: str = "top"
    size: int = 1600
    bounds: Bounds | None = None
    azimuth: float = 200.0
    elevation: float = 40.0
    camera: Camera | None = None


class Renderer(Protocol):
    """Draws a world."""

    name: str

    def render(self, world: World, view: View, progress: Progress) -> NDArray:
        """(height, width, 3) uint8 sRGB."""
