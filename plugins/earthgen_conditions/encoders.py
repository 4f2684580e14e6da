"""Encoders that open what the command line names and read it with geo_io."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from geo_io.semantics import SemanticsOptions, open_semantics

from earthgen.backends import Condition, ConditionEncoder
from geo_io.elevation import open_elevation
from geo_io.errors import InputError, LegendError
from geo_io.frame import Frame
from geo_io.image import open_image
from geo_io.legend import Crosswalk, load_crosswalk


class SemanticsEncoder:
    """Vector and raster land cover; layers are `geo_io.layers.Semantics`."""

    name = "semantics"
    version = "1"

    def open(self, sources: Sequence[Any], frame: Frame, options: Mapping[str, Any]) -> Condition:
        known: tuple[Crosswalk, ...] = options["crosswalks"]
        return open_semantics(
            sources,
            frame,
            SemanticsOptions(
                class_field=options["class_field"],
                legends=tuple(find_legend(name, known) for name in options["legends"]),
                crosswalks=known,
                assume_crs=options["assume_crs"],
                allow_unmapped=options["allow_unmapped"],
            ),
        )


class DemEncoder:
    """Height of the ground; layers are `geo_io.layers.Raster` of float32 metres."""

    name = "dem"
    version = "1"

    def open(self, sources: Sequence[Any], frame: Frame, options: Mapping[str, Any]) -> Condition:
        source = _only(sources, self.name)
        unit, crs = options[f"{self.name}_unit"], options["assume_crs"]
        return open_elevation(source, unit=unit, assume_crs=crs, what=self.name.upper())


class DsmEncoder(DemEncoder):
    """Height of the topmost surface; layers as of DemEncoder."""

    name = "dsm"


class ImageEncoder:
    """An orthorectified image; layers are `geo_io.layers.Raster` of uint8 RGBA."""

    name = "image"
    version = "1"

    def open(self, sources: Sequence[Any], frame: Frame, options: Mapping[str, Any]) -> Condition:
        return open_image(_only(sources, self.name), assume_crs=options["assume_crs"])


ENCODERS: Mapping[str, Callable[[], ConditionEncoder]] = {
    encoder.name: encoder for encoder in (SemanticsEncoder, DemEncoder, DsmEncoder, ImageEncoder)
}


def find_legend(name: str, known: Sequence[Crosswalk]) -> Crosswalk:
    """The crosswalk with this name, or in the file of this name.

    Raises
    ------
    LegendError, MissingFileError
    """
    for crosswalk in known:
        if crosswalk.name == name:
            return crosswalk
    if "." in name or "/" in name:
        return load_crosswalk(name)
    raise LegendError(
        f"there is no legend {name!r}", f"name a .yaml file or one of {', '.join(sorted(c.name for c in known))}"
    )


def _only(sources: Sequence[Any], name: str) -> Any:
    if len(sources) != 1:
        raise InputError(f"{len(sources)} sources were given for {name}", "give one; mosaic several into a VRT first")
    return sources[0]
