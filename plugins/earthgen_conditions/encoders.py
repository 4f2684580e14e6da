"""Encoders that open what the command line names and read it with geo_io."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from earthgen.stages.backends import Condition, ConditionEncoder
from geo_io.elevation import ElevationReader, open_elevation
from geo_io.errors import InputError
from geo_io.frame import Frame
from geo_io.image import ImageReader, open_image
from geo_io.layers import Raster, Semantics
from geo_io.legend import Crosswalk, load_crosswalk
from geo_io.semantics.options import SemanticsOptions
from geo_io.semantics.reader import SemanticsReader, open_semantics

UNMAPPED_SHOWN = 20
"""Unmapped values that are listed one by one."""


class SemanticsEncoder:
    """Vector and raster land cover; layers are `geo_io.layers.Semantics`."""

    name = "semantics"
    version = "1"

    def open(self, sources: Sequence[Any], frame: Frame, options: Mapping[str, Any]) -> Condition:
        known: tuple[Crosswalk, ...] = options["crosswalks"]
        reading = SemanticsOptions(
            class_field=options["class_field"],
            legends=tuple(find_legend(name, known) for name in options["legends"]),
            crosswalks=known,
            assume_crs=options["assume_crs"],
            allow_unmapped=options["allow_unmapped"],
        )
        return SemanticsCondition(open_semantics(sources, frame, reading))


@dataclass(frozen=True)
class SemanticsCondition:
    """Land cover, with a report that a user can read."""

    reader: SemanticsReader

    def read(self, window: Frame) -> Semantics:
        return self.reader.read(window)

    def survey(self, frame: Frame) -> Mapping[str, Any]:
        found = self.reader.survey(frame)
        warnings = [
            f"{value.source}: {value.value!r} maps to no class ({value.area:,.0f} m2, {value.features} features); "
            "give a --legend that knows it"
            for value in found.unmapped[:UNMAPPED_SHOWN]
        ]
        rest = found.unmapped[UNMAPPED_SHOWN:]
        if rest:
            warnings.append(
                f"{len(rest)} more values map to no class ({sum(v.area for v in rest):,.0f} m2)"
            )
        for source in found.sources:
            counts = {
                "geometries were repaired": source.repaired,
                "geometries could not be repaired and were left out": source.dropped,
                "features have no geometry": source.empty,
                "lines lie underground and were left out": source.underground,
                "lines of a class without a width were left out": source.no_width,
                "points are no trees and were left out": source.points,
            }
            warnings += [
                f"{source.source}: {count:,} {what}" for what, count in counts.items() if count
            ]
            if not source.meets:
                warnings.append(f"{source.source} does not meet the region")
        return {**self.reader.summary(), **found.to_dict(), "warnings": warnings}


@dataclass(frozen=True)
class RasterCondition:
    """Heights or an image, with warnings about what they do not cover."""

    name: str
    reader: ElevationReader | ImageReader
    elsewhere: str  # what happens where it has no data

    def read(self, window: Frame) -> Raster:
        return self.reader.read(window)

    def survey(self, frame: Frame) -> Mapping[str, Any]:
        found = self.reader.survey(frame)
        warnings = []
        if found["coverage"] < 0.999:
            warnings.append(
                f"the {self.name} covers {found['coverage']:.1%} of the region; {self.elsewhere}"
            )
        if found["voids"] > 0:
            warnings.append(
                f"{found['voids']:.1%} of the {self.name} in the region is nodata; {self.elsewhere}"
            )
        return {**self.reader.summary(), **found, "warnings": warnings}


@dataclass(frozen=True)
class MeasuredCondition:
    """Heights where the file holds them, NaN elsewhere."""

    filled: RasterCondition
    reader: ElevationReader

    def read(self, window: Frame) -> Raster:
        heights, measured = self.reader.read(window), self.reader.measured(window)
        return Raster(window, np.where(measured.data, heights.data, np.float32(np.nan)))

    def survey(self, frame: Frame) -> Mapping[str, Any]:
        return self.filled.survey(frame)


class DemEncoder:
    """Height of the ground; layers are `geo_io.layers.Raster` of float32 metres."""

    name = "dem"
    version = "1"
    elsewhere = "the rest is filled"

    def open(self, sources: Sequence[Any], frame: Frame, options: Mapping[str, Any]) -> Condition:
        unit, crs = options[f"{self.name}_unit"], options["assume_crs"]
        reader = open_elevation(
            _only(sources, self.name), unit=unit, assume_crs=crs, what=self.name.upper()
        )
        return RasterCondition(self.name.upper(), reader, self.elsewhere)


class DsmEncoder(DemEncoder):
    """Height of the topmost surface; layers as of DemEncoder, with NaN where the file holds no
    height.

    A filled ground is a fair guess; a filled surface would stand above it as a building that nobody
    measured.
    """

    name = "dsm"
    elsewhere = "the rest is left to the rules"

    def open(self, sources: Sequence[Any], frame: Frame, options: Mapping[str, Any]) -> Condition:
        filled = super().open(sources, frame, options)
        assert isinstance(filled, RasterCondition) and isinstance(filled.reader, ElevationReader)
        return MeasuredCondition(filled, filled.reader)


class ImageEncoder:
    """An orthorectified image; layers are `geo_io.layers.Raster` of uint8 RGBA."""

    name = "image"
    version = "1"

    def open(self, sources: Sequence[Any], frame: Frame, options: Mapping[str, Any]) -> Condition:
        reader = open_image(_only(sources, self.name), assume_crs=options["assume_crs"])
        return RasterCondition(self.name, reader, "the rest keeps the colours of the rules")


ENCODERS: Mapping[str, Callable[[], ConditionEncoder]] = {
    encoder.name: encoder for encoder in (SemanticsEncoder, DemEncoder, DsmEncoder, ImageEncoder)
}


def find_legend(name: str, known: Sequence[Crosswalk]) -> Crosswalk:
    """The crosswalk with this name, or in the file of this name.

    Raises
    ------
    InputError, MissingFileError
    """
    for crosswalk in known:
        if crosswalk.name == name:
            return crosswalk
    if "." in name or "/" in name:
        return load_crosswalk(name)
    raise InputError(
        f"there is no legend {name!r}",
        f"name a .yaml file or one of {', '.join(sorted(c.name for c in known))}",
    )


def _only(sources: Sequence[Any], name: str) -> Any:
    if len(sources) != 1:
        raise InputError(
            f"{len(sources)} sources were given for {name}",
            "give one; mosaic several into a VRT first",
        )
    return sources[0]
