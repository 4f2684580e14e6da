"""Digests of inputs, so that a world can record the state of the files it was made from."""

from __future__ import annotations

import hashlib
import os
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from geo_io.errors import InputError, MissingFileError
from geo_io.redaction import redacted
from geo_io.safety.access import require_plain_file
from geo_io.safety.gdal_files import VRT, head_of, vrt_sources

WHOLE = 64 * 2**20
"""Files up to this many bytes are read whole."""

BLOCK, BLOCKS = 2**20, 64
"""Larger files are sampled: bytes of a block, and number of blocks."""

BESIDE = {
    ".shp": (".shx", ".dbf", ".prj", ".cpg", ".qix", ".sbn", ".sbx"),
    ".tab": (".dat", ".map", ".id", ".ind"),
    ".mif": (".mid",),
    ".csv": (".csvt", ".prj"),
    ".gml": (".xsd",),
}
"""Files that are read with a vector file, which have its name and another ending."""

RASTERS = (
    *(".adf", ".asc", ".bil", ".bip", ".bmp", ".bsq", ".dem", ".flt", ".gif", ".grd", ".hgt"),
    *(".img", ".jp2", ".jpeg", ".jpg", ".nc", ".png", ".rst", ".sdat", ".tif", ".tiff", ".vrt"),
    *(".xyz",),
)
"""Endings of rasters."""

BESIDE_RASTER = (
    *(".aux", ".clr", ".hdr", ".ige", ".imd", ".prj", ".rde", ".rpb", ".rrd", ".rdc", ".sgrd"),
    *(".stx", ".tab", ".wld"),
)
"""Files that GDAL reads with a raster, which have its name and another ending; a world file has the
first and last letter of the raster's, and a w."""

APPENDED = (".aux.xml", ".ovr", ".msk", ".msk.ovr", "-wal")
"""Endings of files that GDAL reads with a file of the whole name."""

OCTREES = ("ept.json", "cloud.js", "metadata.json")
"""Files that stand for the folder of an octree of points."""

PAM_BYTES = 2**22
"""Largest .aux.xml that is looked into."""


def digest_file(path: str | Path) -> str:
    """Return the digest of a file's content; its name and times do not count.

    What GDAL reads with it counts too: side files such as .prj, .ovr and .aux.xml, and the files
    that a VRT is made of (`digest_parts`).

    The digest is "sha256:<hex>" for files up to 64 MiB. For larger ones it is
    "sampled-sha256:<hex>", made from the size and 64 evenly spaced blocks of 1 MiB, including the
    first and the last; an edit outside these blocks that keeps the size goes unnoticed. The digest
    of a directory (a FileGDB, a Zarr store) is that of its files and their names.

    Raises
    ------
    MissingFileError
        If the path does not exist.
    UnsafePathError
        If it is a VRT of files that it may not name.
    InputError
        If it cannot be read.
    """
    path = Path(path)
    return digest_of_parts(path, digest_parts(path))


def digest_of_parts(path: Path, parts: Mapping[str, str]) -> str:
    """Return the digest of a file (`digest_file`) from those of its parts (`digest_parts`)."""
    if len(parts) == 1 and path.is_file() and path.suffix.casefold() != ".shp":
        return next(iter(parts.values()))
    lines = [f"{name} {digest}" for name, digest in sorted(parts.items())]
    method = "sampled-sha256" if any(" sampled-" in line for line in lines) else "sha256"
    text = "\n".join(lines)
    return f"{method}:{hashlib.sha256(text.encode()).hexdigest()}"


def digest_parts(path: str | Path) -> dict[str, str]:
    """Return the digests of a file and of all files that are read with it.

    An .aux.xml with statistics alone does not count: programs write it when they show a raster.

    Returns
    -------
    dict of str to str
        By the ending of the file and of side files, in lower case; by the name relative to the
        folder for files of a directory and of a VRT.

    Raises
    ------
    MissingFileError, UnsafePathError, InputError
        As `digest_file`.
    """
    path = Path(path)
    if not path.exists():
        raise MissingFileError(f"{path} does not exist", "check the path")
    try:
        digests = {}
        for name, file in _parts_of(path).items():
            digest = _digest_pam(file) if name.endswith(".aux.xml") else _digest_one(file)
            if digest is not None:
                digests[name] = digest
        return digests
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}", "check its permissions") from error


def _parts_of(path: Path) -> dict[str, Path]:
    """Return the files that are read with a path, by the names of `digest_parts`."""
    if path.name in OCTREES and (path.name != OCTREES[2] or (path.parent / "octree.bin").exists()):
        path = path.parent
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.is_file())
        return {each.relative_to(path).as_posix(): each for each in files}
    parts = _with_side_files(path)
    if VRT.search(head_of(str(path))):
        for source in vrt_sources(path):
            if source.is_dir():
                continue
            name = os.path.relpath(source, path.parent).replace(os.sep, "/")
            for ending, file in _with_side_files(source).items():
                appended = ending if file != source else ""
                parts[f"{name}{appended}"] = file
    return parts


def _with_side_files(path: Path) -> dict[str, Path]:
    """Return a file and its side files, by their endings."""
    suffix = path.suffix.casefold()
    parts = {suffix or path.name: path}
    endings: tuple[str, ...] = BESIDE.get(suffix, ())
    if suffix in RASTERS:
        endings = (*BESIDE_RASTER, f"{suffix}w", f".{suffix[1]}{suffix[-1]}w")
    if endings:
        wanted = {f"{path.stem}{ending}".casefold(): ending for ending in endings}
        for file in path.parent.iterdir():
            ending = wanted.get(file.name.casefold())
            if ending is not None and ending != suffix and file.is_file():
                parts[ending] = file
    for ending in APPENDED:
        file = path.with_name(f"{path.name}{ending}")
        if file.is_file() and suffix != ".shp":
            parts[f"{suffix}{ending}"] = file
    return parts


def _digest_pam(path: Path) -> str | None:
    """Return the digest of an .aux.xml without its statistics, None if nothing else is in it."""
    if path.stat().st_size > PAM_BYTES:
        return _digest_one(path)
    try:
        root = ET.fromstring(path.read_bytes())
    except ET.ParseError:
        return _digest_one(path)
    for element in root.iter():
        for child in list(element):
            statistic = child.tag == "MDI" and child.get("key", "").startswith("STATISTICS_")
            if statistic or child.tag == "Histograms":
                element.remove(child)
    for element in root.iter():
        for child in list(element):
            if child.tag in ("Metadata", "PAMRasterBand") and not len(child):
                element.remove(child)
    # A band whose metadata are gone may be empty now.
    for child in list(root):
        if child.tag == "PAMRasterBand" and not len(child):
            root.remove(child)
    if not len(root):
        return None
    text = ET.canonicalize(ET.tostring(root, "unicode"), strip_text=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def digest_source(source: Any) -> str:
    """Return the digest of a source: a path, a GeoDataFrame, or a DataArray with a CRS.

    The digest of a path that is not a local file (a URL, a part of a container) is "name:<path>".

    Raises
    ------
    InputError
        If the source is of another type, or cannot be read.
    """
    if isinstance(source, (str, Path)):
        local = Path(source)
        return (
            f"name:{redacted(str(source))}"
            if not local.exists() and _is_remote(str(source))
            else digest_file(local)
        )
    if hasattr(source, "geometry") and hasattr(source, "to_wkb"):
        return _digest_frame(source)
    if hasattr(source, "dims") and hasattr(source, "values"):
        return _digest_array(source)
    raise InputError(
        f"a {type(source).__name__} cannot be an input",
        "give a path, a GeoDataFrame or a DataArray",
    )


def _is_remote(text: str) -> bool:
    return "://" in text or text.startswith("/vsi") or ":" in text[2:]


def _digest_one(path: Path) -> str:
    require_plain_file(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        digest = hashlib.sha256(str(size).encode())
        for n in range(BLOCKS):
            file.seek((size - BLOCK) * n // (BLOCKS - 1))
            digest.update(file.read(BLOCK))
    return f"sampled-sha256:{digest.hexdigest()}"


def _digest_frame(frame: Any) -> str:
    """Digest of CRS, geometry as WKB, and attributes as text, in their order."""
    digest = hashlib.sha256(str(frame.crs.to_wkt() if frame.crs is not None else None).encode())
    for wkb in frame.geometry.to_wkb():
        digest.update(b"\0" if wkb is None else wkb)
    for name in frame.columns:
        if name != frame.geometry.name:
            digest.update(f"\0{name}\0".encode())
            digest.update("\0".join(map(repr, frame[name].tolist())).encode())
    return f"sha256:{digest.hexdigest()}"


def _digest_array(array: Any) -> str:
    """Digest of CRS, transform, nodata, shape, dtype and values."""
    import rioxarray  # noqa: F401

    place = array.rio.crs, tuple(array.rio.transform(recalc=True))
    digest = hashlib.sha256(
        repr((*place, array.rio.nodata, array.shape, str(array.dtype))).encode()
    )
    digest.update(np.ascontiguousarray(array.values).tobytes())
    return f"sha256:{digest.hexdigest()}"
