"""What plugins implement: the protocols behind the hooks, and the values that pass through them.

`earthgen.testing` has a conformance kit for geometry and texture backends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:  # every plugin imports this module, and `earthgen --help` imports every plugin
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from earthgen.progress import Progress
    from earthgen.sparse.kernel_map import Kernel
    from earthgen.sparse.sites import Sites
    from earthgen.splats.cameras import Camera
    from earthgen.splats.rendering import Rendering
    from earthgen.splats.tensors import SplatTensors
    from earthgen.stages import Stage
    from earthgen.world import World
    from geo_io.frame import Bounds, Frame

T = TypeVar("T", covariant=True)

Conditions = Mapping[str, Any]
"""Condition layers by name, each with a `.frame` and a `.crop(frame)`: "semantics" is a
`geo_io.layers.Semantics`, "dem" and "dsm" are `geo_io.layers.Raster` of float32 metres, "image" is a Raster of
uint8 RGBA. A name is absent where the job has no such input. Stages get them beside the blocks that they read."""


@dataclass(frozen=True)
class PluginInfo:
    """What a plugin says of itself in `earthgen plugins`."""

    name: str
    version: str
    licence: str
    summary: str = ""
    weights_licence: str = "no weights"


@dataclass(frozen=True)
class Offer(Generic[T]):
    """One thing a plugin offers: its name, and how to make it.

    `create` is called with the options the user gave it, as keywords, when the thing is first needed; it is the
    place to import what is heavy. An unknown option should raise TypeError, as a Python signature does.
    """

    name: str
    create: Callable[..., T]
    summary: str = ""


class GeometryBackend(Protocol):
    """Makes the surface voxels of a world, as a chain of stages.

    Attributes
    ----------
    name, version : enter the identity of the worlds made with it
    requires : names of conditions it cannot do without

    A learned backend also has `weights`, the digest of the weights it was created with, which enters the identity too;
    docs/plugins.md lists what else it may have.
    """

    name: str
    version: str
    requires: tuple[str, ...]

    def stages(self) -> Sequence[Stage]:
        """The stages, each after those it reads. The last gives `earthgen.voxels.GEOMETRY_FIELDS`.

        A margin of 16 voxels or more on the last stage lets the levels of detail be made without its neighbours.
        """


class TextureBackend(Protocol):
    """Makes one 2D Gaussian for each voxel, as a chain of stages.

    Attributes
    ----------
    name, version, requires : as of GeometryBackend
    sh_degree : degree of the spherical harmonics of its colours, 0 to 3
    """

    name: str
    version: str
    sh_degree: int
    requires: tuple[str, ...]

    def stages(self, geometry: Stage) -> Sequence[Stage]:
        """The stages for a geometry, given its last one, whose stride the last of these takes.

        The last gives `earthgen.voxels.texture_fields(sh_degree)`, a row for each voxel of "geometry" in its core.
        """


class Condition(Protocol):
    """An opened input that can be read on any window of the lattice."""

    def survey(self, frame: Frame) -> Mapping[str, Any]:
        """Check the input against the job's frame, and report on it; the report enters the provenance.

        Raises a `geo_io.errors.EarthgenError` where the input cannot serve: no overlap, no data, no legend.
        """

    def read(self, window: Frame) -> Any:
        """The layer on `window`, a function of the input and the window alone."""


class ConditionEncoder(Protocol):
    """Opens the sources of one named condition (`--semantics`, `--dem`, `--dsm`, `--image`, `--condition NAME=FILE`).

    Attributes
    ----------
    name : the condition's name
    version : enters the identity of worlds
    """

    name: str
    version: str

    def open(self, sources: Sequence[Any], frame: Frame, options: Mapping[str, Any]) -> Condition:
        """Open paths or in-memory layers for a job on `frame`; `options` are the job's reading options."""


class Exporter(Protocol):
    """Writes a world, or a part of it, in another format."""

    name: str

    def export(self, world: World, out: Path, *, bounds: Bounds | None, level: int, progress: Progress) -> list[Path]:
        """Write into the folder `out` and return the files written.

        bounds : CRS metres, None for all of the world; level : 1, 2, 4 or 8 times the voxel size
        """


@dataclass(frozen=True)
class View:
    """What a picture of a world shows.

    Attributes
    ----------
    kind : "top" (orthographic, from above, north up), "oblique" (orthographic, from `azimuth` and `elevation`), or
        "camera": what `camera` sees, which not every renderer draws
    size : the longer edge of the picture, pixels; a camera has its own
    bounds : CRS metres, None for all of the world
    azimuth, elevation : direction from which an oblique view looks, degrees clockwise from north and above the horizon
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


class SparseBackend(Protocol):
    """An implementation of sparse convolution for some devices and dtypes. `earthgen.testing.check_sparse_backend`
    compares one with the reference.

    Attributes
    ----------
    name : what it is asked for by
    devices : torch device types it runs on
    deterministic : whether the same input gives the same bits

    A text attribute `note`, where there is one, is shown by `earthgen doctor`.
    """

    name: str
    devices: tuple[str, ...]
    deterministic: bool

    def unavailable(self) -> str:
        """Why it cannot run here and what to do about it, "" where it can."""

    def refuses(self, device: torch.device, dtype: torch.dtype, gradients: bool) -> str:
        """Why it cannot work on tensors of a device and dtype, or give gradients of them; "" where it can."""

    def convolve(
        self, features: Tensor, weight: Tensor, source: Sites, target: Sites, kernel: Kernel, transposed: bool = False
    ) -> Tensor:
        """(target voxels, out) from features (source voxels, in) and weight (volume, in, out).

        The offsets are those of `earthgen.sparse.Kernel.offsets`; a backend brings the weight into its own layout.
        Rows are those of the sites. With `transposed`, the target is finer than the source, else coarser or the same.
        """


class Rasterizer(Protocol):
    """What draws 2D Gaussians on some devices. `earthgen.testing.check_rasterizer` compares one with the reference.

    Attributes
    ----------
    name : what it is asked for by
    devices : torch device types it draws on
    differs : fields of `earthgen.splats.rendering.Rendering` that are not what is promised there

    A text attribute `note`, where there is one, is shown by `earthgen doctor`.
    """

    name: str
    devices: tuple[str, ...]
    differs: tuple[str, ...]

    def unavailable(self) -> str:
        """Why it cannot run here and what to do about it, "" where it can."""

    def rasterize(self, splats: SplatTensors, camera: Camera, background: Tensor) -> Rendering:
        """The picture of Gaussians whose values have been checked, over a background (3,) on their device.

        Raises an `earthgen.splats.errors.SplatError` where it cannot be drawn.
        """
