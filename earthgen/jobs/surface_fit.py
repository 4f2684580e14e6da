"""Whether a surface model fits the ground model of a job, and the shift that makes it fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from earthgen.stages.backends import Condition
from geo_io.errors import InputError
from geo_io.frame import UNKNOWN_DATUM, Frame
from geo_io.layers import Raster
from geo_io.legend import codes

if TYPE_CHECKING:
    from geo_io.vertical import VerticalShift

MODELS = ("dsm", "dem")

WINDOWS, WINDOW_VOXELS = 5, 48
"""Windows along each side of a region in which the models are compared, and voxels along each."""

JUMP_ERROR, JUMP_WARNING = 3.0, 1.0
"""Metres between the models over open ground that are an error, and that are worth a warning."""

FEWEST = 200
"""Voxels of open ground from which its median says something."""

MEASURED = 0.75
"""Share of the region of which the DEM must hold heights of its own for a jump to be an error."""

CANOPY, BELOW = 30.0, 2.0
"""Where no open ground is mapped, nearly all of the surface must lie this far above the ground,
more than any closed wood, or this far below it."""

FEET = 3.2808
"""Feet in a metre."""

OPEN_GROUND = (
    "bare_ground",
    "sand",
    "grass",
    "grassland",
    "cropland",
    "river",
    "lake",
    "sea",
    "road",
    "rail",
    "paved",
    "sports",
)
"""Classes on which a surface model shows the ground."""


@dataclass(frozen=True)
class ShiftedSurface:
    """A surface model with something added to its heights.

    Attributes
    ----------
    surface : Condition
        The model as it is read.
    constant : float
        Metres to add.
    by_place : VerticalShift or None
        Further metres to add, by place.
    """

    surface: Condition
    constant: float
    by_place: VerticalShift | None = None

    def read(self, window: Frame) -> Raster:
        """Return the heights on a window."""
        heights = self.surface.read(window).data + np.float32(self.constant)
        if self.by_place is not None:
            heights = heights + self.by_place.at(window)
        return Raster(window, heights)

    def survey(self, frame: Frame) -> Mapping[str, Any]:
        """Report on the model as it is read."""
        return self.surface.survey(frame)


def fit_surface(
    conditions: Mapping[str, Condition],
    surveys: Mapping[str, Mapping[str, Any]],
    frame: Frame,
    asked: float | None,
) -> tuple[Condition, list[str]]:
    """Return the surface model of a job in the vertical CRS of its ground model, and warnings.

    Parameters
    ----------
    conditions : mapping
        The opened inputs: "dsm", with the shift that is asked for, and "dem" and "semantics" where
        they are given.
    surveys : mapping
        What they say of themselves on the frame.
    frame : Frame
        The job's frame.
    asked : float, optional
        The shift in metres that the job asks for.

    Raises
    ------
    InputError
        If no shift is asked for, and the models do not fit over open ground.
    """
    surface = conditions["dsm"]
    if "dem" not in conditions:
        return surface, []
    datums = {name: str(surveys[name].get("vertical_crs", UNKNOWN_DATUM)) for name in MODELS}
    said = []
    if asked is None and (by_place := _shift_between(datums["dsm"], datums["dem"], frame)):
        surface = ShiftedSurface(surface, 0.0, by_place)
        mean = float(by_place.at(_windows(frame)[0]).mean())
        said.append(
            f"the DSM is brought from {_short(datums['dsm'])} to the DEM's {_short(datums['dem'])}:"
            f" {mean:+.2f} m"
        )
    jump = open_ground_jump({**conditions, "dsm": surface}, frame)
    if jump is None or abs(jump.metres) < JUMP_WARNING:
        return surface, said
    problem = (
        f"the DSM lies {abs(jump.metres):.2f} m {'above' if jump.metres > 0 else 'below'} the DEM "
        f"over {jump.where} (median), so they do not fit{_datum_text(datums)}"
    )
    ground = surveys["dem"]
    measured = ground.get("coverage", 1.0) * (1 - ground.get("voids", 0.0))
    if asked is not None or abs(jump.metres) < JUMP_ERROR or measured < MEASURED:
        return surface, [*said, problem]
    names = [str(surveys[name].get("name", name)) for name in MODELS]
    raise InputError(f"{problem} ({' and '.join(names)})", _remedy(jump))


@dataclass(frozen=True)
class Jump:
    """The step between two models.

    Attributes
    ----------
    metres : float
        Median of surface minus ground.
    ratio : float
        Median surface by median ground.
    where : str
        Where it was measured.
    """

    metres: float
    ratio: float
    where: str


def open_ground_jump(conditions: Mapping[str, Condition], frame: Frame) -> Jump | None:
    """Measure how far the surface lies above the ground, where nothing stands on it.

    Half of the open ground must lie on one side, so that crowns over meadows are no jump. None if
    the models fit, or nothing can be measured.
    """
    windows = _windows(frame)
    heights = [
        [conditions[name].read(window).data.astype(float) for name in MODELS] for window in windows
    ]
    surface, ground = (
        np.concatenate([part.ravel() for part in parts]) for parts in zip(*heights, strict=True)
    )
    measured = np.isfinite(surface) & np.isfinite(ground)
    above = (surface - ground)[measured]
    if len(above) < FEWEST or abs(np.median(above)) < JUMP_WARNING:
        return None  # Where most of a region fits, its land cover need not be read.
    is_open = np.zeros(len(above), bool)
    if "semantics" in conditions:
        covers = [conditions["semantics"].read(window).cover.ravel() for window in windows]
        open_codes = [codes()[name] for name in OPEN_GROUND]
        is_open = np.isin(np.concatenate(covers)[measured], open_codes)
    chosen, where = is_open, "open ground"
    if is_open.sum() < FEWEST:
        chosen, where = np.ones(len(above), bool), "the whole region"
        low, high = np.percentile(above, [2, 98])
        jumps = low > CANOPY or high < -BELOW
    else:
        low, high = np.percentile(above[is_open], [25, 75])
        jumps = low > JUMP_WARNING or high < -JUMP_WARNING
    if not jumps:
        return None
    surface, ground = surface[measured][chosen], ground[measured][chosen]
    ratio = float(np.median(surface)) / (float(np.median(ground)) or 1.0)
    return Jump(float(np.median(above[chosen])), ratio, where)


def _windows(frame: Frame) -> list[Frame]:
    """Return windows that are spread evenly over a frame and do not overlap."""
    spans = []
    for low, high in (frame.y, frame.x):
        count = min(WINDOWS, -(-(high - low) // WINDOW_VOXELS))
        size = min(WINDOW_VOXELS, (high - low) // count)
        starts = np.linspace(low, high - size, count).astype(int)
        spans.append([(int(start), int(start) + size) for start in starts])
    return [replace(frame, x=x, y=y) for y in spans[0] for x in spans[1]]


def _shift_between(source: str, target: str, frame: Frame) -> VerticalShift | None:
    from geo_io.vertical import vertical_shift

    return vertical_shift(source, target, frame)


def _short(crs: str) -> str:
    """Return a CRS by its code, else by its name."""
    if crs == UNKNOWN_DATUM or len(crs) < 40:
        return crs
    import pyproj

    return pyproj.CRS.from_user_input(crs).name


def _datum_text(datums: Mapping[str, str]) -> str:
    if datums["dsm"] == datums["dem"]:
        return ""
    return (
        f": the DSM's heights are in {_short(datums['dsm'])}, the DEM's in {_short(datums['dem'])}"
    )


def _remedy(jump: Jump) -> str:
    for name, factor in (("dsm_unit", FEET), ("dem_unit", 1 / FEET)):
        if abs(jump.ratio / factor - 1) < 0.03:
            return f"the heights of one may be in feet: give `{name}` ft"
    return (
        f"give `vertical_shift` {-jump.metres:.2f}, which is added to the DSM, or transform one of "
        "them (gdalwarp -s_srs -t_srs, with the grid of the geoid); `vertical_shift` 0 takes them "
        "as they are"
    )
