"""Digests of inputs, so that a world can record the state of the files it was made from."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from geo_io.errors import InputError, MissingFileError

WHOLE = 64 * 2**20
"""Files up to this many bytes are read whole."""

BLOCK, BLOCKS = 2**20, 64
"""Larger files are sampled: bytes of a block, and number of blocks."""

SHAPEFILE_PARTS = (".shp", ".shx", ".dbf", ".prj", ".cpg")
"""A shapefile is all of these."""


def digest_file(path: str | Path) -> str:
    """Return the digest of a file's content; its name and times do not count.

    The digest is "sha256:<hex>" for files up to 64 MiB. For larger ones it is
    "sampled-sha256:<hex>", made from the size and 64 evenly spaced blocks of 1 MiB, including the
    first and the last; an edit outside these blocks that keeps the size goes unnoticed. The side
    files of a shapefile count. The digest of a directory (a FileGDB, a Zarr store) is that of its
    files and their names.

    Raises
    ------
    MissingFileError
        If the path does not exist.
    InputError
        If it cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise MissingFileError(f"{path} does not exist", "check the path")
    try:
        if path.is_dir():
            return _digest_parts(
                {str(p.relative_to(path)): p for p in path.rglob("*") if p.is_file()}
            )
        if path.suffix.casefold() == ".shp":
            beside = {p.suffix.casefold(): p for p in path.parent.iterdir() if p.stem == path.stem}
            return _digest_parts({part: beside[part] for part in SHAPEFILE_PARTS if part in beside})
        return _digest_one(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}", "check its permissions") from error


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
            f"name:{source}"
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
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        digest = hashlib.sha256(str(size).encode())
        for n in range(BLOCKS):
            file.seek((size - BLOCK) * n // (BLOCKS - 1))
            digest.update(file.read(BLOCK))
    return f"sampled-sha256:{digest.hexdigest()}"


def _digest_parts(parts: dict[str, Path]) -> str:
    """Return one digest of several files; it is a sampled one if that of any file is."""
    lines = [f"{name} {_digest_one(path)}" for name, path in sorted(parts.items())]
    method = "sampled-sha256" if any(" sampled-" in line for line in lines) else "sha256"
    text = "\n".join(lines)
    return f"{method}:{hashlib.sha256(text.encode()).hexdigest()}"


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
