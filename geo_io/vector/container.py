"""Where the features of a file lie: within a ZIP, in a table made of an OSM extract, in a GML."""

from __future__ import annotations

import gzip
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from geo_io.cache import made_once
from geo_io.errors import InputError
from geo_io.safety.limits import require_unpacked_size
from geo_io.vector.osm import is_osm, osm_table

VECTOR_SUFFIXES = (
    ".fgb",
    ".gdb",
    ".geojson",
    ".geojsonl",
    ".gml",
    ".gpkg",
    ".json",
    ".kml",
    ".mif",
    ".shp",
    ".sqlite",
    ".tab",
)
"""Files in a ZIP that may hold features."""

RASTER_SUFFIXES = (".asc", ".bil", ".dem", ".flt", ".hgt", ".img", ".jp2", ".tif", ".tiff", ".vrt")
"""Files in a ZIP that may hold rasters."""

GML_URL = re.compile(rb"http://(?:www\.)?opengis\.net/gml/srs/epsg\.xml#(\d+)")
"""A CRS as WFS 1.0 and 1.1 servers name it: longitude comes first, as in "EPSG:4326"."""

PACKED = tuple(f"{suffix}.gz" for suffix in VECTOR_SUFFIXES if suffix not in (".gdb", ".shp"))
"""Ends of the names of files with features that are packed with gzip."""

GML_HEAD = 2**16
"""Bytes of a GML file within which its CRS is named."""


@dataclass(frozen=True)
class Opened:
    """What GDAL opens for a file.

    Attributes
    ----------
    path : str
        Path for GDAL.
    layer : str or None
        Layer to read, None if none is named.
    """

    path: str
    layer: str | None


def opened(path: str, layer: str | None = None) -> Opened:
    """Return what GDAL opens for a vector file and a layer.

    Raises
    ------
    InputError
        If a ZIP holds no features, or several files and none is named; if an OSM file cannot be
        read.
    """
    if not Path(path).is_file():
        return Opened(path, layer)
    if is_osm(path):
        return Opened(osm_table(path, layer), None)
    if is_zip(path) and not path.casefold().endswith((".shp.zip", ".gdb.zip")):
        return _in_zip(path, layer)
    if path.casefold().endswith(PACKED):
        return Opened(_unpacked(path), layer)
    if path.casefold().endswith((".gml", ".xml")):
        return Opened(_plain_gml(path), layer)
    return Opened(path, layer)


def is_zip(path: str) -> bool:
    """Return whether a file is a ZIP of files, by its name; a KMZ is one."""
    return path.casefold().endswith((".zip", ".kmz"))


def _unpacked(path: str) -> str:
    """Return the file that is packed with gzip."""

    def unpack(out: Path) -> None:
        try:
            with gzip.open(path) as packed, out.open("wb") as file:
                size = 0
                while block := packed.read(2**20):
                    size += len(block)
                    require_unpacked_size(path, Path(path).stat().st_size, size)
                    file.write(block)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path} cannot be unpacked: {error}", "load it again") from error

    suffix = PurePosixPath(path.casefold().removesuffix(".gz")).suffix
    return str(made_once(path, "gunzip 1", suffix, unpack))


def zip_members(path: str, suffixes: tuple[str, ...]) -> list[str]:
    """Return the files of a ZIP with these suffixes, and folders such as a.gdb, sorted.

    Raises
    ------
    InputError
        If it is not a ZIP file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path} is not a ZIP file: {error}", "load it again") from error
    require_unpacked_size(path, Path(path).stat().st_size, unpacked)
    found = set()
    for name in names:
        place = PurePosixPath(name)
        if "__MACOSX" in place.parts:
            continue
        geodatabase = next(
            (each for each in (place, *place.parents) if each.suffix.casefold() == ".gdb"), None
        )
        if geodatabase is not None and ".gdb" in suffixes:
            found.add(str(geodatabase))
        elif place.suffix.casefold() in suffixes and not name.endswith("/"):
            found.add(name)
    return sorted(found)


def _in_zip(path: str, layer: str | None) -> Opened:
    inside = zip_members(path, VECTOR_SUFFIXES)
    base = f"/vsizip/{path}"
    if not inside:
        raise InputError(
            f"{path} holds no vector file", f"give a ZIP with one of {', '.join(VECTOR_SUFFIXES)}"
        )
    if len(inside) == 1:
        return Opened(f"{base}/{inside[0]}", layer)
    named = [name for name in inside if layer in (PurePosixPath(name).stem, name)]
    if len(named) == 1:
        single = PurePosixPath(named[0]).suffix.casefold() == ".shp"
        return Opened(f"{base}/{named[0]}", layer if single else None)
    listed = ", ".join(PurePosixPath(name).stem for name in inside)
    raise InputError(
        f"{path} holds several layers: {listed}",
        f"name one as {Path(path).name}:{PurePosixPath(inside[0]).stem}; give the file once for "
        "each layer that is wanted",
    )


def _plain_gml(path: str) -> str:
    """Return a GML file whose CRS is named by a code; that itself, if it does not use a URL."""
    with Path(path).open("rb") as file:
        if not GML_URL.search(file.read(GML_HEAD)):
            return path

    def rewrite(out: Path) -> None:
        with Path(path).open("rb") as source, out.open("wb") as target:
            target.writelines(GML_URL.sub(rb"EPSG:\1", line) for line in source)

    return str(made_once(path, "gml without URLs 1", ".gml", rewrite))
