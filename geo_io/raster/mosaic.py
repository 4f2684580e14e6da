"""Several rasters as one: tiles of one lattice become a GDAL VRT, in the order given.

A later raster lies over an earlier one where it has data. Rasters of another CRS or resolution are
not resampled here: `geo_io.elevation_mosaic` and `geo_io.image_mosaic` read each
of them on the frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from affine import Affine

from geo_io.errors import InputError
from geo_io.raster.source import RasterSource
from geo_io.vector.container import RASTER_SUFFIXES, zip_members

FOLDER_SUFFIXES = (*RASTER_SUFFIXES, ".bip", ".bsq", ".jpeg", ".jpg", ".png")
"""Files of a folder that are read as its rasters."""

ON_LATTICE = 0.01
"""Pixels by which a tile may miss the lattice of another."""

SAME_SIZE = 1e-7
"""Relative difference of pixel sizes that are the same."""

GDAL_TYPES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "uint64": "UInt64",
    "int64": "Int64",
    "float32": "Float32",
    "float64": "Float64",
}


def listed(sources: Any) -> list[Any]:
    """Return one or several sources as a list; folders and ZIPs become their rasters, by name.

    Raises
    ------
    InputError
        If a folder or a ZIP holds no raster.
    """
    several = list(sources) if isinstance(sources, list | tuple) else [sources]
    return [file for source in several for file in _files(source)]


def _files(source: Any) -> list[Any]:
    if not isinstance(source, str | Path):
        return [source]
    path = Path(source)
    if path.is_dir() and not _is_dataset(path):
        found = sorted(
            str(file)
            for file in path.iterdir()
            if file.suffix.casefold() in FOLDER_SUFFIXES and file.is_file()
        )
        if not found:
            raise InputError(
                f"the folder {source} holds no raster",
                f"give a folder with files such as {', '.join(FOLDER_SUFFIXES[:6])}",
            )
        return found
    if path.suffix.casefold() == ".zip" and path.is_file():
        inside = zip_members(str(source), FOLDER_SUFFIXES)
        if inside:
            return [f"/vsizip/{source}/{name}" for name in inside]
    return [source]


def _is_dataset(folder: Path) -> bool:
    """Return whether a folder is one raster itself, such as a Zarr store or an Esri grid."""
    return folder.suffix.casefold() in (".zarr", ".gdb", ".safe") or any(
        (folder / name).exists() for name in ("zarr.json", ".zgroup", "hdr.adf")
    )


def joined(
    rasters: Sequence[RasterSource],
    missing: Callable[[RasterSource], float | None] | None = None,
) -> list[RasterSource]:
    """Join neighbours in the order that share a lattice; the others stay as they are.

    Parameters
    ----------
    rasters : sequence of RasterSource
        In their order; later ones lie over earlier ones.
    missing : callable, optional
        Gives a value of a raster that is nodata without being declared so, or None.

    Returns
    -------
    list of RasterSource
        In the same order.
    """
    groups: list[list[RasterSource]] = []
    for raster in rasters:
        if groups and _fit(groups[-1][0], raster):
            groups[-1].append(raster)
        else:
            groups.append([raster])
    return [group[0] if len(group) == 1 else _virtual(group, missing) for group in groups]


def _fit(first: RasterSource, other: RasterSource) -> bool:
    """Return whether two rasters are tiles of one lattice, with the same bands."""
    if not (first.path and other.path) or "palette" in first.colorinterp:
        return False
    if set(first.dtypes) - set(GDAL_TYPES):
        return False
    same = ("dtypes", "units", "descriptions", "colorinterp", "scales", "offsets")
    if any(getattr(first, name) != getattr(other, name) for name in same):
        return False
    if not first.crs.equals(other.crs, ignore_axis_order=True) or first.vertical != other.vertical:
        return False
    a, b = first.transform, other.transform
    if any(each.b or each.d or each.a <= 0 or each.e >= 0 for each in (a, b)):
        return False
    if not all(math.isclose(p, q, rel_tol=SAME_SIZE) for p, q in ((a.a, b.a), (a.e, b.e))):
        return False
    steps = (b.c - a.c) / a.a, (b.f - a.f) / a.e
    return all(abs(step - round(step)) <= ON_LATTICE for step in steps)


def _virtual(
    group: list[RasterSource], missing: Callable[[RasterSource], float | None] | None
) -> RasterSource:
    """Return the VRT of tiles of one lattice; its text is its path."""
    first = group[0]
    a, e = first.transform.a, first.transform.e
    lefts = [round((each.transform.c - first.transform.c) / a) for each in group]
    tops = [round((each.transform.f - first.transform.f) / e) for each in group]
    left, top = min(lefts), min(tops)
    width = max(at + each.shape[1] for at, each in zip(lefts, group, strict=True)) - left
    height = max(at + each.shape[0] for at, each in zip(tops, group, strict=True)) - top
    x, y = first.transform.c + left * a, first.transform.f + top * e
    places = [(at - left, up - top) for at, up in zip(lefts, tops, strict=True)]
    hidden = [None if missing is None else missing(each) for each in group]
    bands = "".join(
        _band(first, band, list(zip(group, places, hidden, strict=True)))
        for band in range(1, first.count + 1)
    )
    mask = "".join(
        _source(each, "mask,1", place, "<NODATA>0</NODATA>")
        for each, place in zip(group, places, strict=True)
    )
    text = (
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">'
        f"<SRS>{escape(first.crs.to_wkt())}</SRS>"
        f"<GeoTransform>{x!r}, {a!r}, 0, {y!r}, 0, {e!r}</GeoTransform>{bands}"
        f'<MaskBand><VRTRasterBand dataType="Byte">{mask}</VRTRasterBand></MaskBand></VRTDataset>'
    )
    same = all(each.nodata == first.nodata for each in group)
    return replace(
        first,
        name=f"{first.name} and {len(group) - 1} more",
        path=text,
        transform=Affine(a, 0.0, x, 0.0, e, y),
        shape=(height, width),
        nodata=first.nodata if same else (None,) * first.count,
        overviews=(),
        base_only=False,
        mosaic=True,
    )


def _band(
    first: RasterSource,
    band: int,
    tiles: list[tuple[RasterSource, tuple[int, int], float | None]],
) -> str:
    colour = first.colorinterp[band - 1]
    parts = [f'<VRTRasterBand dataType="{GDAL_TYPES[first.dtypes[band - 1]]}" band="{band}">']
    if colour not in ("undefined", "gray"):
        parts.append(f"<ColorInterp>{colour.capitalize()}</ColorInterp>")
    for tile, place, hidden in tiles:
        rule = "<UseMaskBand>true</UseMaskBand>"
        if hidden is not None:  # no mask knows of it
            rule = f"<NODATA>{hidden!r}</NODATA>"
        elif first.dtypes[band - 1].startswith("float"):
            rule += "<NODATA>nan</NODATA>"
        parts.append(_source(tile, str(band), place, rule))
    return "".join([*parts, "</VRTRasterBand>"])


def _source(tile: RasterSource, band: str, place: tuple[int, int], rule: str) -> str:
    """Write where a tile lies. Its overviews are not used, since blocks are averaged by us."""
    path = tile.path if tile.path.startswith("/vsi") else _absolute(tile.path)
    height, width = tile.shape
    size = f'xSize="{width}" ySize="{height}"'
    return (
        "<ComplexSource>"
        f'<SourceFilename relativeToVRT="0">{escape(path)}</SourceFilename>'
        '<OpenOptions><OOI key="OVERVIEW_LEVEL">NONE</OOI></OpenOptions>'
        f"<SourceBand>{band}</SourceBand>"
        f'<SrcRect xOff="0" yOff="0" {size}/>'
        f"<DstRect xOff={quoteattr(str(place[0]))} yOff={quoteattr(str(place[1]))} {size}/>"
        f"{rule}</ComplexSource>"
    )


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).resolve())


def require_one_datum(names: Sequence[str], datums: Sequence[str], what: str, unknown: str) -> str:
    """Return the vertical CRS of several rasters; InputError if two name different ones."""
    named = [(name, datum) for name, datum in zip(names, datums, strict=True) if datum != unknown]
    for (name, datum), (other, different) in pairwise(named):
        if datum != different:
            raise InputError(
                f"the {what} {name} has heights in {datum}, and {other} in {different}",
                "bring them to one vertical CRS first, for example with gdalwarp -t_srs",
            )
    return named[0][1] if named else unknown


def over(below: np.ndarray, above: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Return `above` where `shown` (h, w) bool, else `below`; arrays (h, w) or (h, w, bands)."""
    return np.where(shown if below.ndim == 2 else shown[..., None], above, below)
