"""Encoders that open the inputs of a job and read them with geo_io."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from earthgen.stages.backends import Condition
from geo_io.elevation import ElevationReader, open_elevation
from geo_io.errors import InputError, nearest_name
from geo_io.frame import Frame
from geo_io.image import ImageReader, open_image
from geo_io.layers import Raster, Semantics
from geo_io.legend import Crosswalk, load_crosswalk
from geo_io.semantics.options import SemanticsOptions
from geo_io.semantics.reader import SemanticsReader, open_semantics

UNMAPPED_SHOWN = 20
"""How many unmapped values are listed one by one."""


class SemanticsEncoder:
    """Vector and raster land cover; its layers are `geo_io.layers.Semantics`."""

    name = "semantics"
    version = "1"

    def open(self, sources: Sequence[Any], frame: Frame, options: Mapping[str, Any]) -> Condition:
        """Open vector and raster files; see `ConditionEncoder`."""
        crosswalks: tuple[Crosswalk, ...] = options["crosswalks"]
        reading = SemanticsOptions(
            class_field=options["class_field"],
            legends=tuple(find_legend(name, crosswalks) for name in options["legends"]),
            crosswalks=crosswalks,
            assume_crs=options["assume_crs"],
            allow_unmapped=options["allow_unmapped"],
        )
        return SemanticsCondition(open_semantics(sources, frame, reading))


@dataclass(frozen=True)
class SemanticsCondition:
    """Land cover, with warnings about values, geometries and extents."""

    reader: SemanticsReader

    def read(self, window: Frame) -> Semantics:
        """Return the land cover on a window."""
        return self.reader.read(window)

    def survey(self, frame: Frame) -> Mapping[str, Any]:
        """Report on the sources and on values that map to no class."""
        report = self.reader.survey(frame)
        warnings = [
            f"{value.source}: {value.value!r} maps to no class ({value.area:,.0f} m2, "
            f"{value.features} features); give a `legend` that has it"
            for value in report.unmapped[:UNMAPPED_SHOWN]
        ]
        rest = report.unmapped[UNMAPPED_SHOWN:]
        if rest:
            warnings.append(
                f"{len(rest)} more values map to no class ({sum(v.area for v in rest):,.0f} m2)"
            )
        for source in report.sources:
            counts = {
                "geometries were repaired": source.repaired,
                "geometries could not be repaired and were omitted": source.dropped,
                "features have no geometry": source.empty,
                "lines are underground and were omitted": source.underground,
                "lines of a class without a width were omitted": source.no_width,
                "points are not trees and were omitted": source.points,
            }
            warnings += [
                f"{source.source}: {count:,} {what}" for what, count in counts.items() if count
            ]
            if not source.meets:
                warnings.append(f"{source.source} does not meet the region")
        return {**self.reader.summary(), **report.to_dict(), "warnings": warnings}


@dataclass(frozen=True)
class RasterCondition:
    """Heights or an image, with warnings about the area that they do not cover.

    Attributes
    ----------
    name : str
        How warnings call it.
    reader : ElevationReader or ImageReader
    elsewhere : str
        What happens where there is no data.
    """

    name: str
    reader: ElevationReader | ImageReader
    elsewhere: str

    def read(self, window: Frame) -> Raster:
        """Return the raster on a window."""
        return self.reader.read(window)

    def survey(self, frame: Frame) -> Mapping[str, Any]:
        """Report on coverage and nodata."""
        report = self.reader.survey(frame)
        warnings = []
        if report["coverage"] < 0.999:
            warnings.append(
                f"the {self.name} covers {report['coverage']:.1%} of the region; {self.elsewhere}"
            )
        if report["voids"] > 0:
            warnings.append(
                f"{report['voids']:.1%} of the {self.name} in the region is nodata; "
                f"{self.elsewhere}"
            )
        return {**self.reader.summary(), **report, "warnings": warnings}


@dataclass(frozen=True)
class MeasuredCondition:
    """Heights where the file has them, NaN elsewhere."""

    filled: RasterCondition
    reader: ElevationReader

    def read(self, window: Frame) -> Raster:
        """Return the measured heights on a window."""
        heights, measured = self.reader.read(window), self.reader.measured(window)
        return Raster(window, np.where(measured.data, heights.data, np.float32(np.nan)))

    def survey(self, frame: Frame) -> Mapping[str, Any]:
        """Report on coverage and nodata."""
        return self.filled.survey(frame)


class DemEncoder:
    """Height of the ground; its layers are `geo_io.layers.Raster` of float32 metres."""

    name = "dem"
    version = "1"
    elsewhere = "the rest is filled"

    def open(self, sources: Sequence[Any], frame: Frame, options: Mapping[str, Any]) -> Condition:
        """Open a raster of heights; see `ConditionEncoder`."""
        unit, crs = options[f"{self.name}_unit"], options["assume_crs"]
        reader = open_elevation(
            _only(sources, self.name), unit=unit, assume_crs=crs, what=self.name.upper()
        )
        return RasterCondition(self.name.upper(), reader, self.elsewhere)


class DsmEncoder(DemEncoder):
    """Height of the surface; its layers are those of `DemEncoder`, with NaN in gaps.

    Gaps in the ground are filled. Gaps in the surface are not, because a filled surface would stand
    above the ground like a building.
    """

    name = "dsm"
    elsewhere = "the rest is left to the rules"

    def open(self, sources: Sequence[Any], frame: Frame, options: Mapping[str, Any]) -> Condition:
        """Open a raster of heights; see `ConditionEncoder`."""
        filled = super().open(sources, frame, options)
        assert isinstance(filled, RasterCondition) and isinstance(filled.reader, ElevationReader)
        return MeasuredCondition(filled, filled.reader)


class ImageEncoder:
    """An orthorectified image; its layers are `geo_io.layers.Raster` of uint8 RGBA."""

    name = "image"
    version = "1"

    def open(self, sources: Sequence[Any], frame: Frame, options: Mapping[str, Any]) -> Condition:
        """Open an image; see `ConditionEncoder`."""
        reader = open_image(_only(sources, self.name), assume_crs=options["assume_crs"])
        return RasterCondition(self.name, reader, "the rest keeps the colours of the rules")


def find_legend(name: str, crosswalks: Sequence[Crosswalk]) -> Crosswalk:
    """Return the crosswalk with this name, or the one in the file with this name.

    Raises
    ------
    InputError, MissingFileError
        If there is none.
    """
    for crosswalk in crosswalks:
        if crosswalk.name == name:
            return crosswalk
    if "." in name or "/" in name:
        return load_crosswalk(name)
    raise InputError(
        f"unknown legend {name!r}{nearest_name(name, (each.name for each in crosswalks))}",
        f"name a .yaml file or one of: {', '.join(sorted(each.name for each in crosswalks))}",
    )


def _only(sources: Sequence[Any], name: str) -> Any:
    if len(sources) != 1:
        raise InputError(
            f"`{name}` has {len(sources)} sources",
            "give one; combine several into a VRT first",
        )
    return sources[0]
