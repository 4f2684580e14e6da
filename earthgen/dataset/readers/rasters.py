"""Rasters and vectors of a scene on its frame, through the readers of geo_io."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geo_io.elevation import METRES, ElevationReader, open_elevation
from geo_io.errors import InputError, nearest_name
from geo_io.frame import Frame
from geo_io.image import open_image
from geo_io.layers import Buildings
from geo_io.legend import Crosswalk, builtin_crosswalks, load_crosswalk, parse_crosswalk
from geo_io.raster.resample import read_on
from geo_io.raster.source import open_raster
from geo_io.semantics.options import SemanticsOptions
from geo_io.semantics.reader import open_semantics

FINEST = 4
"""At most this many samples along each edge of a voxel are read from a finer height raster."""


def read_heights(reader: ElevationReader, frame: Frame) -> NDArray:
    """Read heights without smoothing, so that walls stay steep.

    If the raster is finer than the voxels, a voxel gets the upper median of the samples in it.

    Parameters
    ----------
    reader : ElevationReader
        The raster.
    frame : Frame
        Where to read.

    Returns
    -------
    NDArray (ny, nx) float32
        Heights in metres as in the file, NaN for missing ones.
    """
    k = min(max(math.ceil(frame.voxel_size / max(reader.source.pixel_metres) - 0.25), 1), FINEST)
    fine = replace(
        frame, voxel_size=frame.voxel_size / k, x=_times(frame.x, k), y=_times(frame.y, k)
    )
    source, band = reader.source, reader.band
    stored, valid = read_on(source, fine, bands=(band,), resampling="nearest")
    metres = (
        stored[0].astype(np.float64) * source.scales[band - 1] + source.offsets[band - 1]
    ) * METRES[reader.unit]
    good = valid & reader.measured(fine).data
    values = np.where(good, metres, np.nan).astype(np.float32)
    if k == 1:
        return values
    blocks = (
        values.reshape(frame.ny, k, frame.nx, k).transpose(0, 2, 1, 3).reshape(*frame.shape, k * k)
    )
    ordered = np.sort(blocks, axis=2)  # NaN last
    count = np.isfinite(ordered).sum(axis=2)
    middle = np.take_along_axis(
        ordered, np.maximum(count // 2, 0)[..., None].clip(0, k * k - 1), axis=2
    )[..., 0]
    return np.where(2 * count >= k * k, middle, np.float32(np.nan)).astype(np.float32)


def _times(ends: tuple[int, int], k: int) -> tuple[int, int]:
    return ends[0] * k, ends[1] * k


@dataclass(frozen=True)
class Heights:
    """Heights of a scene from rasters.

    Attributes
    ----------
    ground : NDArray (ny, nx) float32
        Height of the terrain without gaps, metres.
    above : NDArray (ny, nx) float32
        Height of the surface above the ground, metres, NaN for missing ones.
    measured : NDArray (ny, nx) bool
        Columns in which the terrain model has data.
    vertical_crs : str
        Vertical CRS of the terrain model, or "unknown".
    """

    ground: NDArray
    above: NDArray
    measured: NDArray
    vertical_crs: str


def ground_and_height(
    dtm: str | Path,
    dsm: str | Path | None,
    frame: Frame,
    unit: str | None,
    crs: str | None,
    missing: float | None = None,
) -> Heights:
    """Read the ground, smooth, and the heights above it from a surface model.

    If both rasters have about one resolution, heights are the differences of their pixels.

    Parameters
    ----------
    dtm, dsm : str | Path
        Terrain model and surface model; without a DSM all heights are 0.
    frame : Frame
        Where to read.
    unit : str | None
        Unit of heights, if the files do not give it.
    crs : str | None
        CRS of files that have none.
    missing : float | None
        Value of cells without data in files that declare none.
    """
    terrain = open_elevation(_without(dtm, crs, missing), unit=unit, assume_crs=crs, what="DTM")
    ground = terrain.read(frame).data.astype(np.float32)
    bare = read_heights(terrain, frame)
    measured = np.isfinite(bare)
    if dsm is None:
        return Heights(ground, np.zeros(frame.shape, np.float32), measured, terrain.vertical_crs)
    surface = open_elevation(_without(dsm, crs, missing), unit=unit, assume_crs=crs, what="DSM")
    top = read_heights(surface, frame)
    alike = max(terrain.source.pixel_metres) < 1.5 * max(surface.source.pixel_metres)
    below = np.where(measured, bare, ground) if alike else ground
    return Heights(ground, top - below, measured, terrain.vertical_crs)


def _without(path: str | Path, crs: str | None, missing: float | None) -> Any:
    """Return a raster whose cells with a value have no data, unless it says itself which have."""
    source = open_raster(path, assume_crs=crs)
    if missing is None or source.nodata[0] is not None:
        return source
    return replace(source, nodata=(float(missing),) * source.count)


def read_numbers(path: str | Path, frame: Frame, crs: str | None) -> NDArray:
    """Read a raster of whole numbers, such as those of buildings.

    Returns
    -------
    NDArray (ny, nx) uint32
        From the nearest cells; 0 without data.

    Raises
    ------
    InputError
        if its values are not whole numbers of 32 bits
    """
    source = open_raster(path, assume_crs=crs)
    values, valid = read_on(source, frame, resampling="nearest")
    values = np.where(valid, values[0], 0)
    if (
        not np.isfinite(values).all()
        or (values != np.floor(values)).any()
        or not (values.min(initial=0) >= 0 and values.max(initial=0) < 2**32)
    ):
        raise InputError(f"{path} holds no whole numbers", "give a raster of building numbers")
    return values.astype(np.uint32)


def above_ground(
    path: str | Path, frame: Frame, unit: str | None, crs: str | None, what: str
) -> NDArray:
    """Read a raster of heights above the ground.

    Parameters
    ----------
    path : str | Path
        The raster.
    frame : Frame
        Where to read.
    unit, crs : str | None
        Unit of heights, and CRS, if the file does not give them.
    what : str
        Name of the raster in error messages.

    Returns
    -------
    NDArray (ny, nx) float32
        Metres above the ground; 0 where the raster has no data.
    """
    values = read_heights(open_elevation(path, unit=unit, assume_crs=crs, what=what), frame)
    return np.maximum(np.nan_to_num(values, nan=0.0), 0.0).astype(np.float32)


def semantics_options(
    legend: str | None, values: Mapping[str, str], class_field: str | None, crs: str | None
) -> Any:
    """Make options of `geo_io.semantics.reader.open_semantics` from the keys of a recipe.

    Raises
    ------
    InputError
        if there is no such legend, or it names a class that does not exist
    """
    builtin = builtin_crosswalks()
    legends: tuple[Crosswalk, ...] = ()
    if values:
        rules = [{"field": "value", "values": dict(values)}]
        legends = (parse_crosswalk({"name": "recipe", "rules": rules}, "legend_values"),)
    elif legend is not None:
        by_name = {crosswalk.name: crosswalk for crosswalk in builtin}
        if legend in by_name:
            legends = (by_name[legend],)
        elif legend.endswith((".yaml", ".yml")):
            legends = (load_crosswalk(legend),)
        else:
            raise InputError(
                f"there is no legend {legend!r}{nearest_name(legend, by_name)}",
                "`earthgen legend` lists them",
            )
    return SemanticsOptions(
        class_field=class_field,
        legends=legends,
        crosswalks=builtin,
        assume_crs=crs,
        allow_unmapped=True,
    )


def read_cover(
    sources: Sequence[str | Path],
    frame: Frame,
    options: SemanticsOptions,
    shift: tuple[int, int] = (0, 0),
) -> tuple[NDArray, Buildings]:
    """Read land cover.

    Parameters
    ----------
    sources : Sequence[str | Path]
        Rasters and vectors.
    frame : Frame
        Where to read.
    options : SemanticsOptions
        From `semantics_options`.
    shift : tuple[int, int]
        Whole voxels east and north to move the land cover by.

    Returns
    -------
    tuple[NDArray, Buildings]
        (ny, nx) uint8 class codes, and the footprints among the sources.
    """
    moved = replace(
        frame,
        x=(frame.x[0] - shift[0], frame.x[1] - shift[0]),
        y=(frame.y[0] - shift[1], frame.y[1] - shift[1]),
    )
    semantics = open_semantics([str(source) for source in sources], moved, options).read(moved)
    return semantics.cover, semantics.buildings


def read_image(
    path: str | Path, frame: Frame, crs: str | None, shift: tuple[float, float] = (0.0, 0.0)
) -> tuple[NDArray, NDArray]:
    """Read a picture.

    Parameters
    ----------
    path : str | Path
        The raster.
    frame : Frame
        Where to read.
    crs : str | None
        CRS of a file that has none.
    shift : tuple[float, float]
        Metres east and north to move the picture by.

    Returns
    -------
    tuple[NDArray, NDArray]
        (ny, nx, 3) uint8 sRGB, and (ny, nx) bool, where the picture has data.
    """
    reader = open_image(path, assume_crs=crs)
    if shift != (0.0, 0.0):
        moved = replace(
            reader.source, transform=Affine.translation(*shift) * reader.source.transform
        )
        reader = replace(reader, source=moved)
    rgba = reader.read(frame).data
    return np.ascontiguousarray(rgba[..., :3]), rgba[..., 3] > 0
