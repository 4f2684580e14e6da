"""Encoders that open the inputs of a job and read them with geo_io."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from earthgen.stages.backends import Condition
from geo_io.elevation_mosaic import ElevationMosaic, Heights, open_heights
from geo_io.errors import InputError, nearest_name
from geo_io.frame import Frame
from geo_io.image_mosaic import Pictures, open_images
from geo_io.layers import Buildings, Raster, Semantics, Trees
from geo_io.legend import UNKNOWN, Crosswalk, load_crosswalk
from geo_io.raster.positions import coverage_mask
from geo_io.semantics.options import SemanticsOptions
from geo_io.semantics.prepare_features import TALLEST_TREE
from geo_io.semantics.reader import Gaps, SemanticsReader, open_semantics
from geo_io.semantics.survey import ValueArea

GAP_SHARE = 0.1
"""Share of a region without land cover from which it is told."""

UNMAPPED_SHOWN = 20
"""How many unmapped values are listed one by one."""

STATUS_FIELDS = {
    *("status", "lifecycle_status", "lifecyclestatus", "building_status", "bldg_status", "gstat"),
    *("bgt_status", "etat", "etat_de_l_objet", "feature_status", "zustand", "building"),
}
"""Attributes that say whether something is there, in lower case."""

LOWEST_CANOPY = 60.0
"""A canopy nowhere lower than this, in metres, has heights above the sea."""

RARELY, SAPLING = 60.0, 1.5
"""Metres: trees that are taller are rare, and a canopy is not all as low as the second."""

OUTSIDE_SHOWN = 5
"""How many files outside the region are listed one by one."""


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
            height_field=options["height_field"],
            height_unit=options["height_unit"],
        )
        return SemanticsCondition(open_semantics(sources, frame, reading))


@dataclass(frozen=True)
class SemanticsCondition:
    """Land cover, with warnings about values, geometries and extents."""

    reader: SemanticsReader

    def relate(self, conditions: Mapping[str, Condition]) -> None:
        """Take the levels of water from the heights of the job."""
        heights = conditions.get("dem", conditions.get("dsm"))
        if heights is not None:
            self.reader.use_heights(heights, ground="dem" in conditions)

    def read(self, window: Frame) -> Semantics:
        """Return the land cover on a window."""
        return self.reader.read(window)

    def objects(self, window: Frame) -> tuple[Buildings, Trees]:
        """Return the buildings that meet a window, and the trees in it."""
        return self.reader.objects(window)

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
                "features are underground or covered, and were omitted": source.underground,
                "points are not trees and were omitted": source.points,
            }
            warnings += [
                f"{source.source}: {count:,} {what}" for what, count in counts.items() if count
            ]
            warnings += [f"{source.source}: {text}" for text in source.warnings]
            if not source.meets:
                warnings.append(f"{source.source} does not meet the region{source.hint}")
        warnings += _status_warnings(report.values)
        gaps = self.reader.gaps(frame)
        warnings += _gap_warnings(gaps, frame)
        if gaps.turned_coasts:
            warnings.append(
                f"{gaps.turned_coasts:,} natural=coastline lines have the land on their right, by "
                "the heights or the land mapped beside them: they were turned round"
            )
        values = report.to_dict()
        layers = self.reader.summary()["sources"]
        for row, layer in zip(values["sources"], layers, strict=True):
            row.update({key: item for key, item in layer.items() if key != "path"})
        return {
            **values,
            "unmapped_share": round(gaps.land, 4),
            "warnings": warnings,
        }


def _status_warnings(values: Sequence[ValueArea]) -> list[str]:
    """Return what is left out because it is planned, or gone, by its status."""
    left_out = [
        value
        for value in values
        if value.code == UNKNOWN and value.value.partition("=")[0].casefold() in STATUS_FIELDS
    ]
    return [
        f"{value.source}: {value.features:,} features with {value.value!r} are planned or gone, "
        "and were left out"
        for value in left_out[:UNMAPPED_SHOWN]
    ]


def _gap_warnings(gaps: Gaps, frame: Frame) -> list[str]:
    """Return what becomes of the places that no source maps, if they are many."""
    area = frame.nx * frame.ny * frame.voxel_size**2
    warnings = []
    if gaps.land > GAP_SHARE:
        warnings.append(
            f"{gaps.land:.0%} of the region ({gaps.land * area / 1e4:,.1f} ha) has no land cover: "
            "it becomes grassland; give a layer that maps it, and natural=coastline lines or a "
            "polygon of water where it is sea"
        )
    if gaps.sea > GAP_SHARE:
        warnings.append(
            f"{gaps.sea:.0%} of the region ({gaps.sea * area / 1e4:,.1f} ha) has no land cover and "
            "heights at or below 0 m: it becomes sea; give a layer that maps it where it is land"
        )
    return warnings


@dataclass(frozen=True)
class RasterCondition:
    """Heights or an image, with warnings about the area that they do not cover.

    Attributes
    ----------
    name : str
        How warnings call it.
    reader : Heights or Pictures
    elsewhere : str
        What happens where there is no data.
    in_voids : str
        What happens at nodata within the files, if it is something else.
    """

    name: str
    reader: Heights | Pictures
    elsewhere: str
    in_voids: str = ""

    def read(self, window: Frame) -> Raster:
        """Return the raster on a window."""
        return self.reader.read(window)

    def lowest(self, window: Frame) -> float:
        """Return a height below which none on a window lies; -inf if that is not known cheaply."""
        lowest = getattr(self.reader, "lowest", None)
        return -math.inf if lowest is None else float(lowest(window))

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
                f"{self.in_voids or self.elsewhere}"
            )
        for value, share in report.get("undeclared", {}).items():
            what = (
                "means of nodata and heights" if value == "means" else f"{value} without declaring"
            )
            tail = "" if value == "means" else " it as nodata"
            warnings.append(
                f"{share:.1%} of the {self.name} in the region holds {what}{tail}: it was read as "
                "nodata"
            )
        warnings += report.pop("notes", [])
        outside = report.pop("outside", [])
        warnings += [f"{name} does not meet the region" for name in outside[:OUTSIDE_SHOWN]]
        if len(outside) > OUTSIDE_SHOWN:
            warnings.append(
                f"{len(outside) - OUTSIDE_SHOWN} more files of the {self.name} do not meet the "
                "region"
            )
        return {**self.reader.summary(), **report, "warnings": warnings}


@dataclass(frozen=True)
class MeasuredCondition:
    """Heights where the file has them, NaN elsewhere."""

    filled: RasterCondition
    reader: Heights

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
    title = ""
    version = "1"
    elsewhere = "the rest is filled"
    in_voids = ""

    def open(self, sources: Sequence[Any], frame: Frame, options: Mapping[str, Any]) -> Condition:
        """Open a raster of heights; see `ConditionEncoder`."""
        unit, crs = options[f"{self.name}_unit"], options["assume_crs"]
        what = self.title or self.name.upper()
        reader = open_heights(sources, unit=unit, assume_crs=crs, what=what)
        return RasterCondition(what, reader, self.elsewhere, self.in_voids)


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
        assert isinstance(filled, RasterCondition) and not isinstance(filled.reader, Pictures)
        return MeasuredCondition(filled, filled.reader)


@dataclass(frozen=True)
class CanopyCondition:
    """Heights of trees above the ground where the file has them, 0 at its nodata, NaN elsewhere."""

    measured: MeasuredCondition

    def read(self, window: Frame) -> Raster:
        """Return heights above the ground on a window."""
        heights, reader = self.measured.read(window).data, self.measured.reader
        covered = np.zeros(window.shape, bool)
        for each in reader.readers if isinstance(reader, ElevationMosaic) else (reader,):
            covered |= coverage_mask(each.source, window)
        return Raster(window, np.where(covered & np.isnan(heights), np.float32(0), heights))

    def survey(self, frame: Frame) -> Mapping[str, Any]:
        """Report on coverage and nodata.

        Raises
        ------
        InputError
            If heights cannot be those of trees above the ground.
        """
        report = self.measured.survey(frame)
        if report["min"] > LOWEST_CANOPY or report["max"] > TALLEST_TREE:
            raise InputError(
                f"the canopy {report['name']} has heights from {report['min']:.1f} to "
                f"{report['max']:.1f} m in the region: these are not heights of trees above the "
                "ground",
                "subtract the heights of the ground first, or give it as `dsm` if it is a surface "
                "model; `canopy_unit` says that it is in feet or centimetres; a value that means "
                "no data is declared with gdal_edit -a_nodata",
            )
        odd = f"the tallest tree of the canopy {report['name']} in the region is "
        odd += f"{report['max']:.1f} m: "
        warnings = [*report["warnings"]]
        if report["max"] > RARELY:
            warnings.append(
                f"{odd}if its values are percent of cover, or feet or decimetres (`canopy_unit`), "
                "it is not what it shows"
            )
        elif 0 < report["max"] <= SAPLING:
            warnings.append(f"{odd}a mask of trees, or shares of cover, are no heights")
        return {**report, "warnings": warnings}


class CanopyEncoder(DsmEncoder):
    """Heights of trees above the ground; its layers are those of `DsmEncoder`."""

    name = "canopy"
    title = "canopy"
    in_voids = "no tree stands there"

    def open(self, sources: Sequence[Any], frame: Frame, options: Mapping[str, Any]) -> Condition:
        """Open a raster of heights; see `ConditionEncoder`."""
        measured = super().open(sources, frame, options)
        assert isinstance(measured, MeasuredCondition)
        return CanopyCondition(measured)


class ImageEncoder:
    """An orthorectified image; its layers are `geo_io.layers.Raster` of uint8 RGBA."""

    name = "image"
    version = "1"

    def open(self, sources: Sequence[Any], frame: Frame, options: Mapping[str, Any]) -> Condition:
        """Open an image; see `ConditionEncoder`."""
        reader = open_images(sources, assume_crs=options["assume_crs"])
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
