"""What geometry and texture backends and condition encoders implement.

`earthgen.testing` has a conformance kit for backends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from earthgen.stages.stage import Stage
    from geo_io.frame import Frame

Conditions = Mapping[str, Any]
"""Condition layers by name, each with a `.frame` and a `.crop(frame)`.

"semantics" is a `geo_io.layers.Semantics`; "dem" and "dsm" are `geo_io.layers.Raster` of float32
metres, "canopy" one of metres above the ground; "image" is a Raster of uint8 RGBA. A name is absent
where the job has no such input. Stages get conditions beside the blocks that they read.
"""


@dataclass(frozen=True)
class Cost:
    """What a backend takes beyond what the rule-based backends take.

    Attributes
    ----------
    seconds : float
        Per column of voxels, on one core.
    memory : int
        Bytes per worker.
    basis : str
        Where the figures come from, for people.
    """

    seconds: float
    memory: int
    basis: str


class Backend(ABC):
    """What geometry and texture backends share: a name, a version, and defaults.

    Attributes
    ----------
    name, version : str
        Enter the identity of the worlds made with the backend.
    requires : tuple of str
        Conditions that it cannot do without.
    weights : str or None
        The digest of its weights, for a learned backend. Enters the identity.
    weights_card : mapping or None
        What a world records about the weights: name, licence, sources, as JSON values.
    chosen : mapping
        Options whose default depends on the machine, as chosen on this one. They enter the
        identity, and a world that is resumed or extended elsewhere keeps them.
    """

    name: str
    version: str
    requires: tuple[str, ...] = ()
    weights: str | None = None
    weights_card: Mapping[str, Any] | None = None
    chosen: Mapping[str, Any] = MappingProxyType({})

    def check(self, frame: Frame) -> None:  # noqa: B027 - doing nothing is the default
        """Raise an `EarthgenError` if the backend cannot make a world on `frame`.

        Called before any input is read. The default accepts every frame.
        """

    def check_inputs(self, surveys: Mapping[str, Mapping[str, Any]]) -> None:  # noqa: B027
        """Raise an `EarthgenError` if the backend cannot use an input of the job.

        Called before anything is made. The default accepts every input.

        Parameters
        ----------
        surveys : mapping
            By the name of the condition, what `Condition.survey` found.
        """

    def cost(self) -> Cost | None:
        """Return what the backend takes beyond rules; None if nothing worth counting."""
        return None


class GeometryBackend(Backend):
    """Makes the surface voxels of a world, as a chain of stages. Subclass it."""

    @abstractmethod
    def stages(self) -> Sequence[Stage]:
        """Return the stages, each after those it reads.

        The last one gives `earthgen.GEOMETRY_FIELDS`. With a margin of at least 16 voxels on the
        last stage, the levels of detail need no neighbouring window.
        """


class TextureBackend(Backend):
    """Makes one 2D Gaussian per voxel, as a chain of stages. Subclass it.

    Attributes
    ----------
    sh_degree : int
        Degree of the spherical harmonics of its colours, 0 to 3.
    """

    sh_degree: int = 0

    @abstractmethod
    def stages(self, geometry: Stage) -> Sequence[Stage]:
        """Return the stages for a geometry.

        Parameters
        ----------
        geometry : Stage
            The last stage of the geometry; the last texture stage takes its stride.

        Returns
        -------
        sequence of Stage
            The last one gives `earthgen.texture_fields(sh_degree)`, one row per voxel of "geometry"
            in its core.
        """


class Condition(Protocol):
    """An opened input that can be read on any window of the lattice.

    One that depends on others, as the level of a lake does on the heights, also has
    `relate(conditions)`: it is called once, with all conditions of the job by name, before any is
    surveyed or read.
    """

    def survey(self, frame: Frame) -> Mapping[str, Any]:
        """Check the input against the job's frame and report on it.

        The report enters the world's provenance; its entry "warnings", a list of str, is shown.

        Raises
        ------
        EarthgenError
            If the input cannot serve: no overlap, no data, no legend.
        """

    def read(self, window: Frame) -> Any:
        """Return the layer on `window`: a function of the input and the window alone."""


class ConditionEncoder(Protocol):
    """Opens the sources of one condition, such as "semantics", "dem", "dsm" or "image".

    Attributes
    ----------
    name : str
        The condition's name.
    version : str
        Enters the identity of worlds.
    """

    name: str
    version: str

    def open(self, sources: Sequence[Any], frame: Frame, options: Mapping[str, Any]) -> Condition:
        """Open the sources of a job.

        Parameters
        ----------
        sources : sequence
            Paths or in-memory layers.
        frame : Frame
            Of the job.
        options : mapping
            The job's reading options: `class_field`, `legends`, `crosswalks`, `assume_crs`,
            `allow_unmapped`, `dem_unit`, `dsm_unit`.
        """
