"""Point clouds as the inputs of a world: ground, surface, classes and colours, a raster each.

Each file is binned once, whole, to cells of a lattice that starts at the origin of its CRS, and the
rasters are kept (`geo_io.cache`); so a world stays a function of its inputs and the place. Files of
one survey lie side by side, and a later file lies over an earlier one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geo_io.cache import made_once
from geo_io.elevation import METRES
from geo_io.errors import InputError, MissingCrsError, MissingFileError
from geo_io.frame import UNKNOWN_DATUM, Frame, snap
from geo_io.raster.source import RasterSource, open_raster

VERSION = 4
"""Raised when the rasters that are made of a file change."""

if TYPE_CHECKING:
    from earthgen.dataset.builders.binning import PointColumns
    from earthgen.dataset.readers.points import Points

CELLS = (0.5, 1.0, 2.0, 4.0)
"""Edges of cells, metres; the finest that holds `LEAST` points in the mean is used."""

LEAST = 2.0

MOST_CELLS = 16_000_000
MOST_A_POINT, FEW_CELLS = 100, 1_000_000
"""Files with more cells than `MOST_CELLS`, or than so many a point where that is more than
`FEW_CELLS`, get the next coarser cells: one point far away must not cost what a large file does."""

GROUND_SHARE = 0.02
"""Least share of points with a class of the ground for these to be the ground."""

TALL = 2.0
"""Metres above the ground from which a point may be of a crown or a roof."""

TALLEST_SHARE = 99.9
"""Percentile of heights above the ground that stands for the tallest objects."""

SPLIT_REACH, SPLIT_SHARE = 1.5, 0.3
"""Share of the tall points within so many metres that must be of pulses with several returns, so
that they are a crown."""

DOUBT = "unit_doubt"
"""Tag of the raster of the surface: what `_unit_doubt` says."""

PRODUCTS = {"dem": "ground", "dsm": "surface", "semantics": "classes", "image": "colours"}
"""The raster of points for each condition."""


@dataclass(frozen=True)
class Binned:
    """The arrays of a point cloud on its frame, by product; None where it has no such data.

    `doubt` is what a user should know where the file does not tell the unit of its heights.
    """

    frame: Frame
    layers: dict[str, NDArray | None]
    doubt: str = ""


def point_layers(
    paths: Sequence[Any], *, assume_crs: str | None = None, unit: str | None = None
) -> dict[str, list[RasterSource]]:
    """Return the rasters of point clouds by condition, in the order of the files.

    Parameters
    ----------
    paths : sequence
        LAS, LAZ or COPC files, ept.json or the folder of an octree; a folder of LAS or LAZ files
        stands for these.
    assume_crs : str, optional
        CRS of files that have none.
    unit : {"m", "ft", "us-ft"}, optional
        Unit of heights, if the files do not give it.

    Returns
    -------
    dict of str to list of RasterSource
        "dem" and "dsm" always; "semantics" and "image" if a file has classes or colours.

    Raises
    ------
    MissingFileError, MissingCrsError, InputError
        As `earthgen.dataset.readers.points.read_points`.
    """
    found: dict[str, list[RasterSource]] = {}
    for path in _files(paths):
        binned = functools.cache(functools.partial(_bin, path, assume_crs, unit))
        for condition, product in PRODUCTS.items():
            how = f"points {VERSION} {product} {assume_crs} {unit}"
            write = functools.partial(_write, binned, product)
            raster = made_once(_whole(path), how, ".tif", write)
            if raster.stat().st_size:
                opened = replace(
                    open_raster(raster),
                    name=f"{path} ({product})",
                    height_unit="m",
                    notes=tuple(f"{path}: {text}" for text in _notes(raster)),
                )
                found.setdefault(condition, []).append(opened)
    return found


def _notes(raster: Path) -> list[str]:
    """Return what is odd about the points that a raster was made of."""
    import rasterio

    with rasterio.open(raster) as dataset:
        text = dataset.tags().get(DOUBT, "")
    return [text] if text else []


def _files(paths: Sequence[Any]) -> list[Path]:
    """Return the point clouds that paths stand for, folders in the order of names."""
    from earthgen.dataset.readers.point_octrees import find_octree

    files: list[Path] = []
    for each in paths:
        path = Path(str(each))
        if not path.exists():
            raise MissingFileError(f"{path} does not exist", "check the path")
        if path.is_dir() and find_octree(path) is None:
            inside = sorted(
                file for file in path.iterdir() if file.suffix.casefold() in (".las", ".laz")
            )
            if not inside:
                raise InputError(
                    f"the folder {path} holds no point cloud", "give .las or .laz files, or an EPT"
                )
            files += inside
        else:
            files.append(path)
    return files


def _whole(path: Path) -> Path:
    """Return what the digest of a point cloud is made of: of an octree, its whole folder."""
    return path.parent if path.suffix.casefold() in (".json", ".js") else path


def _bin(path: Path, crs: str | None, unit: str | None) -> Binned:
    from earthgen.dataset.builders.binning import bin_points
    from earthgen.dataset.readers.points import GROUND, NO_SURFACE, read_points
    from geo_io.legend import UNKNOWN, builtin_crosswalks, codes

    try:
        points = read_points([path], crs=crs, unit=unit)
    except MissingCrsError as error:
        raise MissingCrsError(
            error.problem, "give it as `assume_crs`, such as EPSG:25832"
        ) from error
    except InputError as error:  # the reader's own words are those of `dataset build`
        if "--unit" not in error.remedy:
            raise
        raise InputError(error.problem, "give it as `points_unit`: m, ft or us-ft") from error
    frame = _frame(points.xyz, points.crs, points.vertical_crs)
    legend = next(legend for legend in builtin_crosswalks() if legend.name == "asprs")
    # "Ground" only means that nothing stands there: what covers it is left to other inputs.
    table = {
        value: UNKNOWN if value in GROUND else code for value, code in legend.raster_table().items()
    }
    share = float(np.isin(points.classification, GROUND).mean())
    columns = bin_points(
        points,
        frame,
        table,
        ground="class" if share >= GROUND_SHARE else "filter",
        dropped=NO_SURFACE,
    )
    near = columns.valid
    code = np.where(_woody(points, columns, frame), codes()["tree"], columns.code).astype(np.uint8)
    missing = np.float32(np.nan)
    colours = np.dstack([columns.image, np.where(columns.image_known, 255, 0)]).astype(np.uint8)
    return Binned(
        frame,
        {
            "ground": np.where(near, columns.ground, missing).astype(np.float32),
            "surface": np.where(near, columns.top, missing).astype(np.float32),
            "classes": np.where(near, code, UNKNOWN) if code.any() else None,
            "colours": colours if columns.image_known.any() else None,
        },
        "" if points.unit_told else _unit_doubt(np.where(near, columns.top - columns.ground, 0)),
    )


def _unit_doubt(height: NDArray) -> str:
    """Say how tall the tallest objects of a cloud are in metres and in feet, (ny, nx) metres."""
    tall = float(np.percentile(height, TALLEST_SHARE))
    return (
        "the unit of its heights is not given, so metres are assumed: the tallest objects are "
        f"{tall:.1f} m, or {tall * METRES['ft']:.1f} m if they are feet; `points_unit` says which"
    )


def _woody(points: Points, columns: PointColumns, frame: Frame) -> NDArray:
    """Return where tall points without a class are of crowns, (ny, nx) bool.

    A pulse comes back several times from leaves and branches, and once from a roof but for its
    edges.
    """
    from scipy.ndimage import uniform_filter

    size = frame.voxel_size
    told = points.returns is not None and int(points.returns.max(initial=0)) > 1
    known = columns.code > 0
    if not told or known.all():
        return np.zeros(frame.shape, bool)
    assert points.returns is not None
    col = np.floor(points.xyz[:, 0] / size).astype(np.int64) - frame.x[0]
    row = frame.y[1] - 1 - np.floor(points.xyz[:, 1] / size).astype(np.int64)
    col, row = col.clip(0, frame.nx - 1), row.clip(0, frame.ny - 1)
    tall = points.xyz[:, 2] - columns.ground[row, col] > TALL
    tall &= points.returns > 0
    cell = row[tall] * frame.nx + col[tall]
    several = (points.returns[tall] > 1).astype(float)
    cells = frame.nx * frame.ny
    count, split = (
        np.bincount(cell, weights, cells).reshape(frame.shape)
        for weights in (np.ones(len(cell)), several)
    )
    width = 2 * max(1, round(SPLIT_REACH / size)) + 1
    around, parted = (uniform_filter(values, width, mode="constant") for values in (count, split))
    woody = (count > 0) & (parted > SPLIT_SHARE * around)
    return np.asarray(woody & (columns.top - columns.ground > TALL) & ~known)


def _frame(xyz: NDArray, crs: str, vertical: str) -> Frame:
    left, bottom = xyz[:, :2].min(axis=0)
    right, top = xyz[:, :2].max(axis=0)
    area = max((right - left) * (top - bottom), 1.0)
    cell = next((size for size in CELLS if len(xyz) * size**2 / area >= LEAST), CELLS[-1])
    most = min(MOST_CELLS, max(FEW_CELLS, MOST_A_POINT * len(xyz)))
    while area / cell**2 > most:
        cell *= 2
    # The last row and column of cells may hold points on their far edges.
    ranges = snap((left, bottom, right + cell / 1024, top + cell / 1024), cell, tolerance=0.0)
    return Frame(crs, cell, **ranges, vertical_crs=vertical)


def _write(binned: Callable[[], Binned], product: str, out: Path) -> None:
    """Write a product as a GeoTIFF; an empty file if the cloud has no such data."""
    import rasterio

    from geo_io.legend import classes

    result = binned()
    data, frame = result.layers[product], result.frame
    if data is None:
        out.touch()
        return
    bands = np.moveaxis(data, -1, 0) if data.ndim == 3 else data[None]
    kind = {"photometric": "RGB", "alpha": "YES"} if product == "colours" else {}
    with rasterio.open(
        out,
        "w",
        driver="GTiff",
        height=frame.ny,
        width=frame.nx,
        count=len(bands),
        dtype=bands.dtype,
        crs=_crs(frame),
        transform=frame.transform,
        nodata=math.nan if bands.dtype.kind == "f" else None,
        tiled=True,
        compress="deflate",
        **kind,
    ) as dataset:
        dataset.write(bands)
        if product == "classes":
            dataset.write_colormap(1, {land.code: (*land.rgb, 255) for land in classes()})
            dataset.update_tags(title="earthgen classes")
        if product == "surface" and result.doubt:
            dataset.update_tags(**{DOUBT: result.doubt})


def _crs(frame: Frame) -> str:
    """Return the CRS of the rasters, with the vertical CRS of the points if it is a code."""
    import pyproj

    if frame.vertical_crs == UNKNOWN_DATUM:
        return frame.crs
    vertical = pyproj.CRS.from_user_input(frame.vertical_crs)
    if not vertical.is_vertical:
        return frame.crs
    values = vertical.to_json_dict()
    values["coordinate_system"]["axis"][-1]["unit"] = "metre"  # as heights were read
    if values != vertical.to_json_dict():
        values.pop("id", None)
        values["name"] = values["name"].split(" (")[0]
    metric = pyproj.CRS.from_json_dict(values)
    horizontal = pyproj.CRS.from_user_input(frame.crs)
    name = f"{horizontal.name} + {metric.name}"
    return str(pyproj.crs.CompoundCRS(name, [horizontal, metric]).to_wkt())
