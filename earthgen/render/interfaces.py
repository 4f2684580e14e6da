"""The interfaces of exporters and renderers, which plugins offer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # `earthgen plugins` imports this module without numpy
    from numpy.typing import NDArray

    from earthgen.progress import Progress
    from earthgen.splats.cameras.camera import Camera
    from earthgen.world.world import World
    from geo_io.frame import Bounds


class Exporter(Protocol):
    """Writes a world, or a part of it, in another format.

    Attributes
    ----------
    name : str
        Name by which users choose the format.

    An exporter whose work is long may have an attribute `resumes`, True: the folder that it writes
    into then survives an interruption, and the next export of the same world, part and options
    gives it again with all its content.
    """

    name: str

    def export(
        self, world: World, out: Path, *, bounds: Bounds | None, level: int, progress: Progress
    ) -> list[Path]:
        """Write files into a folder.

        `earthgen.render.export.export_world` gives a new folder and moves its content to where the
        user wants it after the return, so nothing appears half-written under its final name.

        Parameters
        ----------
        world : World
            The world.
        out : Path
            The folder.
        bounds : tuple of float or None
            Left, bottom, right, top in metres of the CRS; None for the whole world.
        level : int
            Level of detail: 1, 2, 4 or 8 times the voxel size.
        progress : Progress
            Is told of each step.

        Returns
        -------
        list of Path
            The files written.
        """


@dataclass(frozen=True)
class View:
    """What a picture of a world shows.

    Attributes
    ----------
    kind : str
        "top" (orthographic, from above, north up), "oblique" (orthographic, from `azimuth` and
        `elevation`), or "camera" (what `camera` sees; not every renderer draws it).
    size : int
        Longer edge of the picture, pixels; a camera has its own size.
    bounds : tuple of float or None
        Left, bottom, right, top in metres of the CRS; None for the whole world.
    azimuth, elevation : float
        Direction from which an oblique view looks, degrees clockwise from north and above the
        horizon.
    camera : Camera or None
        Camera of a view of kind "camera", in the CRS of the world.
    """

    kind: str = "top"
    size: int = 1600
    bounds: Bounds | None = None
    azimuth: float = 200.0
    elevation: float = 40.0
    camera: Camera | None = None


class Renderer(Protocol):
    """Draws a world.

    Attributes
    ----------
    name : str
        Name by which users choose the renderer.
    """

    name: str

    def render(self, world: World, view: View, progress: Progress) -> NDArray:
        """Draw a view of a world.

        Returns
        -------
        NDArray (height, width, 3) uint8
            sRGB.
        """
