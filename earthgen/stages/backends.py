"""What plugins implement: the protocols behind the hooks, and the values that pass through them.

`earthgen.testing.backends` has a conformance kit for geometry and texture backends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # every plugin imports this module, and `earthgen --help` imports every plugin
    from earthgen.stages.stage import Stage
    from geo_io.frame import Frame
from geo_io.frame import Frame

Conditions = Mapping[str, Any]
"""Condition layers by name, each with a `.frame` and a `.crop(frame)`: "semantics" is a
`geo_io.layers.Semantics`, "dem" and "dsm" are `geo_io.layers.Raster` of float32 metres, "image"
is a Raster of uint8 RGBA. A name is absent where the job has no such input. Stages get them
beside the blocks that they read."""


class GeometryBackend(Protocol):
    """Makes the surface voxels of a world, as a chain of stages.

    Attributes
    ----------
    name, version : enter the identity of the worlds made with it
    requires : names of conditions it cannot do without

    A learned backend also has `weights`, the digest of the weights it was created with, which
    enters the identity too; docs/plugins/hooks.md lists what else it may have.
    """

    name: str
    version: str
    requires: tuple[str, ...]

    def stages(self) -> Sequence[Stage]:
        """The stages, each after those it reads. The last gives
        `earthgen.voxels.voxels.GEOMETRY_FIELDS`.

        A margin of 16 voxels or more on the last stage lets the levels of detail be made without
        its neighbours.
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

        The last gives `earthgen.voxels.voxels.texture_fields(sh_degree)`, a row for each voxel of
        "geometry" in its core.
        """


class Condition(Protocol):
    """An opened input that can be read on any window of the lattice."""

    def survey(self, frame: Frame) -> Mapping[str, Any]:
        """Check the input against the job's frame, and report on it; the report enters the
        provenance.

        Raises a `geo_io.errors.EarthgenError` where the input cannot serve: no overlap, no data, no
        legend.
        """

    def read(self, window: Frame) -> Any:
        """The layer on `window`, a function of the input and the window alone."""


class ConditionEncoder(Protocol):
    """Opens the sources of one named condition (`--semantics`, `--dem`, `--dsm`, `--image`,
    `--condition NAME=FILE`).

    Attributes
    ----------
    name : the condition's name
    version : enters the identity of worlds
    """

    name: str
    version: str

    def open(self, sources: Sequence[Any], frame: Frame, options: Mapping[str, Any]) -> Condition:
        """Open paths or in-memory layers for a job on `frame`; `options` are the job's reading
        options."""


@dataclass(frozen=True)
class Cost:
    """What a learned backend takes beside what rules take: what its optional method `cost()` gives.

    Attributes
    ----------
    seconds : a column of voxels, on one core
    memory : bytes of a worker
    basis : what the figures rest on
    """

    seconds: float
    memory: int
    basis: str
