"""Files that GDAL opens: drivers that are allowed, and what a file names beside itself.

GDAL looks at the content of a file, not at its suffix, and some formats are only a list of other
files, addresses or programs. So inputs are opened with the drivers of this module, and a VRT is
read here before GDAL sees it.
"""

from __future__ import annotations

import functools
import re
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geo_io.errors import InputError, MissingFileError, UnsafePathError
from geo_io.safety.access import (
    ALLOW_LINKED,
    ALLOW_NETWORK,
    ARCHIVE,
    current_access,
    is_remote,
    local_part,
    require_inside,
    require_local,
    require_plain_file,
)
from geo_io.safety.damage import damaged_file
from geo_io.safety.limits import VRT_BYTES, VRT_DEPTH
from geo_io.safety.sql_views import require_bounded_views

RASTER_DRIVERS = (
    "GTiff",
    "COG",
    "VRT",
    "AAIGrid",
    "AIG",
    "BAG",
    "BMP",
    "BT",
    "DTED",
    "EHdr",
    "ENVI",
    "GIF",
    "GPKG",
    "GRASSASCIIGrid",
    "GRIB",
    "GS7BG",
    "GSAG",
    "GSBG",
    "GTX",
    "GXF",
    "HDF5",
    "HDF5Image",
    "HF2",
    "HFA",
    "JP2ECW",
    "JP2KAK",
    "JP2Lura",
    "JP2MrSID",
    "JP2OpenJPEG",
    "JPEG",
    "LCP",
    "MBTiles",
    "MEM",
    "NGSGEOID",
    "NITF",
    "NTv2",
    "NWT_GRC",
    "NWT_GRD",
    "OpenFileGDB",
    "PCRaster",
    "PNG",
    "PNM",
    "RMF",
    "RST",
    "S102",
    "SAGA",
    "SIGDEM",
    "SNODAS",
    "SRTMHGT",
    "Terragen",
    "USGSDEM",
    "WEBP",
    "XYZ",
    "ZMap",
    "Zarr",
    "netCDF",
    "ECW",
    "MrSID",
)
"""Drivers for rasters. They read one file and the files beside it; a VRT is checked."""

VECTOR_DRIVERS = (
    "AVCBin",
    "AVCE00",
    "CSV",
    "DGN",
    "DXF",
    "EDIGEO",
    "ESRI Shapefile",
    "ESRIJSON",
    "FlatGeobuf",
    "GML",
    "GPKG",
    "GPX",
    "GeoJSON",
    "GeoJSONSeq",
    "GeoRSS",
    "Idrisi",
    "JML",
    "JSONFG",
    "KML",
    "LIBKML",
    "LVBAG",
    "MBTiles",
    "MEM",
    "MVT",
    "MapInfo File",
    "MapML",
    "MiraMonVector",
    "ODS",
    "OGR_GMT",
    "OSM",
    "OpenFileGDB",
    "PGDUMP",
    "PMTiles",
    "Parquet",
    "Arrow",
    "S57",
    "SQLite",
    "SXF",
    "Selafin",
    "TopoJSON",
    "VDV",
    "VFK",
    "WAsP",
    "XLSX",
)
"""Drivers for vector layers."""

HEAD = 2**14
"""Bytes at the beginning of a file in which GDAL looks for the words of `DESCRIPTIONS`."""

DESCRIPTIONS = re.compile(
    rb"<(OGRVRTDataSource|OGRWFSDataSource|OGRVRTLayer|GDAL_WMS|GDAL_WMTS|WCS_GDAL|WMS_Tileset"
    rb"|GDALTileIndexDataset|VRTDataset|WMT_MS_Capabilities|WMS_Capabilities|WFS_Capabilities"
    rb"|Capabilities)|gdal_streamed_alg",
    re.IGNORECASE,
)
"""Words of files that hold no data, but say where GDAL shall fetch or compute it."""

SIDES = (".ovr", ".OVR", ".msk", ".MSK")
"""Endings of the files beside a raster that GDAL opens as rasters too: overviews, and a mask."""

VRT = re.compile(rb"<VRTDataset", re.IGNORECASE)

NAMES = re.compile(r"(filename|sourcedataset|maindataset|dataset)$", re.IGNORECASE)
"""Elements of a VRT with the name of a file."""


@functools.cache
def raster_drivers() -> list[str]:
    """Return those of `RASTER_DRIVERS` that GDAL has here."""
    import rasterio

    with rasterio.Env() as environment:
        present = environment.drivers()
    return [name for name in RASTER_DRIVERS if name in present]


def allowed_drivers(name: str = "") -> list[str] | None:
    """Return the drivers that may open a raster; None for all, where addresses are allowed.

    In an archive, a VRT is not: what it names cannot be looked at before.
    """
    if current_access().network:
        return None
    unseen = ARCHIVE.match(name) and not current_access().linked
    return [driver for driver in raster_drivers() if not (unseen and driver == "VRT")]


def archive_options(name: str) -> dict[str, str]:
    """Return GDAL's options for a raster in an archive that cannot be looked into here: GDAL then
    opens nothing beside it."""
    if not ARCHIVE.match(name) or name.startswith("/vsizip/") or current_access().linked:
        return {}
    return {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}


def require_safe_raster(name: str) -> None:
    """Check that a raster reaches no file and no address that it may not, before GDAL opens it.

    Parameters
    ----------
    name : str
        A path, or a name for GDAL.

    Raises
    ------
    UnsafePathError
        If the name is an address, or the file is a VRT that names an address, or a file outside
        its folder.
    InputError
        If it is a VRT with Python code, or a damaged one.
    """
    require_local(name)
    require_plain_sides(name)
    path = Path(local_part(name))
    if path.is_file() and VRT.search(head_of(str(path))):
        for _ in vrt_sources(path):
            pass
    elif ARCHIVE.match(name) and not current_access().linked and VRT.search(head_of(name)):
        raise UnsafePathError(f"{name} is a VRT in an archive", "unpack it first")


def require_plain_sides(name: str, depth: int = 0) -> None:
    """Check that the overviews and masks beside a raster hold data themselves.

    GDAL opens these with all of its drivers, so that one could be a list of other files, or of
    addresses. Each may have such files of its own.

    Parameters
    ----------
    name : str
        A path, or a name for GDAL.
    depth : int
        How many files this one lies beside.

    Raises
    ------
    UnsafePathError
        If one names a source.
    """
    if current_access().linked or depth > VRT_DEPTH:
        return
    plain = name if ARCHIVE.match(name) else local_part(name)
    for suffix in SIDES:
        side = f"{plain}{suffix}"
        head = head_of(side)
        if not head:
            continue
        if _describes(head):
            raise UnsafePathError(
                f"{side} holds no data, but names a source",
                "remove it, or allow files elsewhere with `allow_linked`",
            )
        require_plain_sides(side, depth + 1)


def _describes(head: bytes) -> bool:
    """Return whether a file begins as one that says where data is: rasters are no JSON, no XML."""
    begin = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    return begin[:1] in (b"{", b"<") or DESCRIPTIONS.search(head) is not None


def require_safe_vector(name: str) -> None:
    """Check that a vector file reaches no other file and no address, before GDAL opens it.

    Parameters
    ----------
    name : str
        A path, or a name for GDAL, such as one of a file in a ZIP.

    Raises
    ------
    UnsafePathError
        If the name is an address, or the file is only a description of data elsewhere.
    InputError
        If it is a database with a view that knows no end.
    """
    require_local(name)
    require_bounded_views(Path(local_part(name)))
    if current_access().network:
        return
    found = DESCRIPTIONS.search(head_of(name))
    if found:
        raise UnsafePathError(
            f"{name} holds no data, but names a source ({found[0].decode('ascii', 'replace')})",
            "give the file that it names, or allow addresses with `allow_network`",
        )


def require_vector_driver(name: str, driver: Any) -> None:
    """Check that GDAL opened a vector file with one of `VECTOR_DRIVERS`.

    Raises
    ------
    UnsafePathError
        If it did not.
    """
    if driver and driver not in VECTOR_DRIVERS and not current_access().network:
        raise UnsafePathError(
            f"{name} is read with GDAL's driver {driver}, which reaches beyond the file",
            "convert it, for example to .gpkg with ogr2ogr, or allow it with `allow_network`",
        )


def require_safe_dataset(name: str, dataset: Any) -> None:
    """Check the files that an open raster is made of, which GDAL found in its side files.

    Parameters
    ----------
    name : str
        The raster.
    dataset : rasterio dataset
        Open; its overviews have not been looked at.

    Raises
    ------
    UnsafePathError
        If one lies outside its folder, or is an address.
    """
    path = Path(local_part(name))
    if not path.exists():
        return  # an address that is allowed, or a file within an archive
    overviews = dataset.tags(ns="OVERVIEWS").get("OVERVIEW_FILE", "")
    if overviews and not overviews.startswith(":::BASE:::"):
        require_named(overviews, path.parent, path.parent, str(path))
    elif overviews:
        require_named(overviews.removeprefix(":::BASE:::"), path.parent, path.parent, str(path))


def require_named(text: str, base: Path, folder: Path, where: str) -> Path:
    """Return the file that another file names, if it may be read.

    Parameters
    ----------
    text : str
        The name as it stands in the file.
    base : Path
        Folder that the name is relative to.
    folder : Path
        Folder that the file must lie in.
    where : str
        The file that names it.

    Raises
    ------
    UnsafePathError
        If it is an address, or lies outside the folder.
    MissingFileError
        If it does not exist.
    InputError
        If it is no name of a file.
    """
    shown = text if len(text) <= 200 else f"{text[:200]}..."
    if is_remote(text):
        raise UnsafePathError(f"{where} names the address {shown}", ALLOW_NETWORK)
    archive = ARCHIVE.match(text)
    plain = local_part(text[archive.end() :] if archive else text)
    path = base / plain
    with damaged_file(f"{where} names {shown!r}, which is no path", "correct it"):
        if archive:  # the part of the path that is a file is the archive
            path = next((each for each in (path, *path.parents) if each.is_file()), path)
        exists = path.exists()
    if "<" in text or plain.startswith("/vsi") or text.startswith("vrt:"):
        if not current_access().linked:
            raise UnsafePathError(
                f"{where} names {shown!r}, which is not a plain path", ALLOW_LINKED
            )
        return path
    require_inside(path, folder, where)
    require_plain_file(path, where)
    if not exists:
        raise MissingFileError(f"{where} names {path}, which does not exist", "fetch that file")
    return path


def vrt_sources(path: Path, folder: Path | None = None, depth: int = 0) -> Iterator[Path]:
    """Yield the files that a VRT is made of, nested ones too, each checked before.

    Addresses that are allowed are left out.

    Parameters
    ----------
    path : Path
        The VRT.
    folder : Path, optional
        Folder that its sources must lie in; by default its own.
    depth : int
        Of nesting.

    Raises
    ------
    UnsafePathError
        If a source is an address, or lies outside the folder, and that is not allowed.
    MissingFileError
        If a source does not exist.
    InputError
        If it is no VRT, is too large, holds Python code, or nests too deep.
    """
    folder = folder or path.parent
    if depth > VRT_DEPTH:
        raise InputError(
            f"{path} is a VRT of VRTs, more than {VRT_DEPTH} deep",
            "look for one that names itself",
        )
    if path.stat().st_size > VRT_BYTES:
        raise InputError(
            f"{path} is a VRT of {path.stat().st_size:,} bytes, more than {VRT_BYTES:,}",
            "build one of fewer tiles with gdalbuildvrt, or give the folder of tiles",
        )
    seen = set()
    with damaged_file(f"{path} is a damaged VRT", "build it again with gdalbuildvrt"):
        document = ET.fromstring(path.read_bytes())
    for element in document.iter():
        tag = element.tag.rpartition("}")[2].casefold()
        text = (element.text or "").strip()
        if (tag == "pixelfunctionlanguage" and text.casefold() == "python") or (
            tag == "pixelfunctioncode"
        ):
            raise UnsafePathError(
                f"{path} holds Python code, which is never run",
                "compute the raster with gdal_calc or gdal_translate, and give the result",
            )
        named = NAMES.search(tag) or (
            tag == "argument" and "filename" in element.get("name", "").casefold()
        )
        if tag in ("vrtdataset", "vrtrasterband") or not named or not text or text in seen:
            continue
        seen.add(text)
        relative = next(
            (value for key, value in element.attrib.items() if key.casefold() == "relativetovrt"),
            "0",
        )
        if is_remote(text) and current_access().network:
            continue
        base = path.parent if relative == "1" else Path()
        source = require_named(text, base, folder, str(path))
        if source.is_file() and VRT.search(head_of(str(source))):
            yield source
            yield from vrt_sources(source, folder, depth + 1)
            continue
        # A VRT opens its sources with all drivers.
        if source.is_file() and not current_access().network and _describes(head_of(str(source))):
            raise UnsafePathError(
                f"{path} names {source}, which holds no data, but names a source", ALLOW_NETWORK
            )
        require_plain_sides(str(source))
        yield source


def head_of(name: str) -> bytes:
    """Return the beginning of a file, also of one in a ZIP; empty if there is none."""
    archive = ARCHIVE.match(name)
    try:
        if archive is None:
            path = Path(local_part(name))
            if not path.is_file():
                return b""
            with path.open("rb") as file:
                return file.read(HEAD)
        inner = Path(name[archive.end() :])
        whole = next((each for each in (inner, *inner.parents) if each.is_file()), None)
        if whole is None or not zipfile.is_zipfile(whole):
            return b""
        with zipfile.ZipFile(whole) as packed, packed.open(str(inner.relative_to(whole))) as member:
            return member.read(HEAD)
    except (OSError, KeyError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile):
        return b""  # GDAL says what is wrong with it
