"""OpenStreetMap files (.osm, .osm.pbf, also packed): all features with all tags, as one layer.

GDAL's OSM driver reads them with a configuration of its own, made of osm.yaml, once for each file:
the features go to a GeoPackage with an index (see `geo_io.cache`). Tags that legends and attributes
know are columns; the others stand in `other_tags` as hstore, as GDAL writes them.
"""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import json
import mmap
import os
import re
import shutil
import tempfile
import warnings
import xml.sax
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from xml.sax.saxutils import XMLGenerator
from xml.sax.xmlreader import AttributesImpl

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import shapely
from numpy.typing import NDArray

from geo_io.cache import made_once
from geo_io.errors import InputError
from geo_io.packaged import packaged_yaml
from geo_io.vector.osm_whole import BrokenArea, NotWhole, comes_back, find_broken, said

VERSION = 4
"""Raised when the table that is made of a file changes."""

LAYER = "osm"
"""Layer of the GeoPackage."""

SUFFIXES = (".osm", ".pbf", ".o5m")

UNPACK: dict[str, Callable[[str], Any]] = {".gz": gzip.open, ".bz2": bz2.open}

MAPPED = ("multipolygons", "lines", "multilinestrings", "points")
"""GDAL's layers that are read. Members of other relations are features of their own."""

LINE_RELATIONS = {"multilinestring"}
"""Types of relations of lines that are features; routes and rivers repeat their members."""

STRUCTURE = {"boundary", "multilinestring", "multipolygon"}
"""Types of relations that say how they are built, and not what they are."""

OUTLINES = ("boundary", "place")
"""Keys of areas that say nothing about the ground: an island has a coastline too."""

DELETED = re.compile(rb"""(?:action=["']delete["']|visible=["']false["'])""")
"""What an element has that an editor (JOSM) deleted, or the history of the map."""

NOTES = "notes"
"""Metadata of the layer: what is odd about the file, a JSON list of texts."""


BATCH = 50_000
"""Features that are in memory at a time."""


@dataclass(frozen=True)
class TagTable:
    """What osm.yaml says about tags.

    Attributes
    ----------
    areas : tuple of str
        Keys, or keys with a value, of closed ways that are areas.
    lines : mapping of str to list of str
        Values of these keys whose closed ways are lines nevertheless.
    always : tuple of str
        Keys, or keys with a value, of ways that are areas although they are not closed.
    ways : tuple of str
        Keys of ways that are lines, whatever other key they have.
    columns : tuple of str
        Tags that are columns.
    """

    areas: tuple[str, ...]
    lines: Mapping[str, list[str]]
    always: tuple[str, ...]
    ways: tuple[str, ...]
    columns: tuple[str, ...]


@functools.cache
def tag_table() -> TagTable:
    """Return what osm.yaml says about tags."""
    values = packaged_yaml("vector", "osm.yaml")
    return TagTable(
        tuple(values["areas"]),
        values["lines"],
        tuple(values["always"]),
        tuple(values["ways"]),
        tuple(values["columns"]),
    )


def is_osm(path: str) -> bool:
    """Return whether a file is an OpenStreetMap extract, by its name."""
    return _unpacked_name(path).casefold().endswith(SUFFIXES)


def osm_table(path: str, layer: str | None = None) -> str:
    """Return the GeoPackage of an OpenStreetMap file, with one layer, `LAYER`.

    Parameters
    ----------
    path : str
        An .osm, .osm.pbf or .o5m file, as it is or packed with gzip or bzip2.
    layer : str, optional
        One of GDAL's layers; by default all features of `MAPPED`.

    Raises
    ------
    InputError
        If the file cannot be read, or has no such layer.
    """
    layers = MAPPED if layer is None else (layer,)
    if layer is not None and layer not in (*MAPPED, "other_relations"):
        raise InputError(
            f"layer {layer!r} of {path} does not exist; its layers are: {', '.join(MAPPED)}",
            f"give {Path(path).name} alone for all of them, or name one",
        )
    how = f"osm {VERSION} {pyogrio.__gdal_version__} {' '.join(layers)}"
    return str(made_once(path, how, ".gpkg", lambda out: _convert(path, layers, out)))


def osm_notes(table: str) -> tuple[str, ...]:
    """Return what is odd about an OpenStreetMap file, for warnings.

    Parameters
    ----------
    table : str
        The GeoPackage that `osm_table` made of it.
    """
    metadata = pyogrio.read_info(table, layer=LAYER)["layer_metadata"] or {}
    return tuple(json.loads(metadata.get(NOTES, "[]")))


def _convert(path: str, layers: tuple[str, ...], out: Path) -> None:
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".") as scratch:
        file = _unpacked(path, Path(scratch))
        broken = _check_whole(file, path)
        closed: list[str] = []
        file = _without_deleted(file, Path(scratch))
        with _settings(scratch):
            with _outlines_ignored():
                written = _write_features(file, path, layers, out, broken, closed)
            notes = [*_gap_notes(closed, "way", "ways"), *_broken_notes(broken)]
            pyogrio.write_dataframe(
                _table([], np.empty(0, object)),
                out,
                layer=LAYER,
                geometry_type="Unknown",
                append=written,
                layer_metadata={NOTES: json.dumps(notes)},
            )
    with out.open("rb") as whole:
        os.fsync(whole.fileno())


def _write_features(
    file: Path,
    path: str,
    layers: tuple[str, ...],
    out: Path,
    broken: NotWhole,
    closed: list[str],
) -> bool:
    """Write the features of a file named `path`; return whether there are any.

    The names of ways that were closed are added to `closed`.
    """
    written = False

    def write(table: gpd.GeoDataFrame) -> None:
        nonlocal written
        if len(table):
            pyogrio.write_dataframe(
                table, out, layer=LAYER, geometry_type="Unknown", append=written
            )
            written = True

    own = {str(area.number) for area in broken.areas}
    for name in layers:
        for batch in _batches(file, name, path):
            write(_features(batch, name, own, closed, all_layers=len(layers) > 1))
    if "multipolygons" in layers:
        write(_whole_parts(broken.areas))
    return written


def _whole_parts(areas: Iterable[BrokenArea]) -> gpd.GeoDataFrame:
    """Return what is whole of areas that are not."""
    shown = [area for area in areas if area.shape is not None and area.tags]
    shapes = np.empty(len(shown), object)
    shapes[:] = [area.shape for area in shown]
    return _table([area.tags for area in shown], shapes)


def _gap_notes(names: Sequence[str], one: str, several: str) -> list[str]:
    """Return what to say of areas whose outline has a gap that was closed."""
    if not names:
        return []
    what = f"1 {one} of an area is" if len(names) == 1 else f"{len(names):,} {several} of areas are"
    return [
        f"{what} not closed, such as {names[0]}, and {'is' if len(names) == 1 else 'are'} closed "
        "by a straight line; JOSM's validator shows where"
    ]


def _broken_notes(broken: NotWhole) -> list[str]:
    """Return what to say of areas and ways that are not whole."""
    whole = (
        'load the place again with whole ways and relations (in Overpass "(._;>;);" before "out")'
    )
    notes = _gap_notes(
        [area.name for area in broken.areas if not area.lacks and area.shape is not None],
        "outline",
        "outlines",
    )
    lacking = [area for area in broken.areas if area.lacks]
    lost = [area for area in broken.areas if not area.lacks and area.shape is None]
    if lacking:
        lacks = (
            "area lacks ways of its outline"
            if len(lacking) == 1
            else "areas lack ways of their outlines"
        )
        parts = sum(area.shape is not None for area in lacking)
        shown = (
            "is left out"
            if len(lacking) == 1
            else "are left out"
            if not parts
            else f"are left out but for the whole rings of {parts:,}"
        )
        if len(lacking) == parts == 1:
            shown = "is left out but for its whole rings"
        notes.append(
            f"{len(lacking):,} {lacks} in the file, such as {lacking[0].name}, and {shown}: {whole}"
        )
    if lost:
        what = "area has no closed outline" if len(lost) == 1 else "areas have no closed outline"
        notes.append(
            f"{len(lost):,} {what}, such as {lost[0].name}, and "
            f"{'is' if len(lost) == 1 else 'are'} left out; JOSM's validator shows where"
        )
    if broken.ways:
        notes.append(
            f"{broken.ways:,} {'way lacks' if broken.ways == 1 else 'ways lack'} nodes that the "
            f"file does not have: its shape may be wrong, or it is left out; {whole}"
        )
    return notes


@contextlib.contextmanager
def _outlines_ignored() -> Iterator[None]:
    """Leave out GDAL's warnings of outlines, of which `find_broken` tells; others go on."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        text = str(warning.message)
        if "Non closed ring" not in text and "organizePolygons" not in text:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


@contextlib.contextmanager
def _settings(folder: str) -> Iterator[None]:
    """Make GDAL use the configuration of `_config`, for this conversion alone."""
    config = Path(folder) / "osmconf.ini"
    config.write_text(_config(), "utf-8")
    options = {
        "OSM_CONFIG_FILE": str(config),
        "CPL_TMPDIR": folder,
        # GDAL's own index of nodes is faster. Where ids do not rise it ends without an error, also
        # in files that say that they are sorted.
        "OSM_USE_CUSTOM_INDEXING": "NO",
        # The table is new and flushed once, at the end.
        "OGR_SQLITE_SYNCHRONOUS": "OFF",
    }
    before = {name: pyogrio.get_gdal_config_option(name) for name in options}
    pyogrio.set_gdal_config_options(options)
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options(before)


def _config() -> str:
    """Write the configuration of GDAL's OSM driver."""
    general = [] if pyogrio.__gdal_version__ < (3, 10) else ["[general]"]
    general += [
        f"closed_ways_are_polygons={','.join(tag_table().areas)}",
        "report_all_tags=yes",
        "tags_format=json",
    ]
    layer = ["osm_id=yes", "other_tags=no", "all_tags=yes", "attributes="]
    sections = [line for name in (*MAPPED, "other_relations") for line in (f"[{name}]", *layer)]
    return "\n".join([*general, *sections, ""])


def _batches(file: Path, layer: str, name: str) -> Iterator[pd.DataFrame]:
    from pyogrio.raw import open_arrow

    try:
        with open_arrow(file, layer=layer, batch_size=BATCH, use_pyarrow=True) as (_, reader):
            for batch in reader:
                yield batch.to_pandas()
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, OSError) as error:
        raise InputError(
            f"{name} cannot be read as an OpenStreetMap file: {str(error).split(';')[0]}",
            "check that it is whole, for example with osmium fileinfo, or load it again",
        ) from error


def _features(
    batch: pd.DataFrame, layer: str, broken: set[str], closed: list[str], *, all_layers: bool
) -> gpd.GeoDataFrame:
    """Make columns of tags, lines of closed ways that are none, and areas of open ways: (n,).

    Relations that are `broken` are left out. The names of ways that become areas are added to
    `closed`.
    """
    geometry = shapely.from_wkb(batch["wkb_geometry"].to_numpy(object), on_invalid="ignore")
    tags = [
        json.loads(text) if isinstance(text, str) and text else {} for text in batch["all_tags"]
    ]
    kept = np.array([shape is not None and not shape.is_empty for shape in geometry], bool)
    if layer == "multilinestrings" and all_layers:
        kept &= np.array([row.get("type") in LINE_RELATIONS for row in tags], bool)
    if layer == "multipolygons":
        ways = batch["osm_way_id"].notna().to_numpy()
        outlines = np.array([_is_line(row) for row in tags], bool) & ways
        rings = shapely.get_exterior_ring(shapely.get_geometry(geometry[outlines], 0))
        geometry[outlines] = [shapely.LineString(ring.coords) for ring in rings]
        kept &= ways | ~batch["osm_id"].isin(broken).to_numpy()
    if layer == "lines":
        for row in np.flatnonzero([_is_area(row) for row in tags]):
            if kept[row] and comes_back(geometry[row]):
                geometry[row] = shapely.Polygon(geometry[row].coords)
                closed.append(f"way {batch['osm_id'].iloc[row]}{said(tags[row])}")
    # Points without tags are the corners of ways.
    kept &= np.array([bool(row) for row in tags], bool)
    for row in tags:
        if row.get("type") in STRUCTURE:
            del row["type"]
    return _table([row for row, keep in zip(tags, kept, strict=True) if keep], geometry[kept])


def _table(tags: list[dict[str, str]], geometry: NDArray) -> gpd.GeoDataFrame:
    known = tag_table().columns
    columns = {name: pd.Series([row.get(name) for row in tags], dtype=object) for name in known}
    rest = [
        ",".join(
            f'"{_escaped(key)}"=>"{_escaped(str(value))}"'
            for key, value in row.items()
            if key not in known
        )
        or None
        for row in tags
    ]
    columns["other_tags"] = pd.Series(rest, dtype=object)
    return gpd.GeoDataFrame(columns, geometry=list(geometry), crs="EPSG:4326")


def _is_line(tags: dict[str, str]) -> bool:
    """Return whether a closed way is a line although it has a key of areas."""
    if tags.get("area") == "yes":
        return False
    table = tag_table()
    areal = [
        key
        for key, value in tags.items()
        if (key in table.areas or f"{key}={value}" in table.areas) and key not in OUTLINES
    ]
    return bool(areal) and all(tags[key] in table.lines.get(key, ()) for key in areal)


def _is_area(tags: dict[str, str]) -> bool:
    """Return whether an open way is meant as an area."""
    table = tag_table()
    if tags.get("area") == "no" or any(key in table.ways for key in tags):
        return False
    return tags.get("area") == "yes" or any(
        (key in table.always or f"{key}={value}" in table.always)
        and value not in table.lines.get(key, ())
        for key, value in tags.items()
    )


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _unpacked_name(path: str) -> str:
    return next(
        (path[: -len(suffix)] for suffix in UNPACK if path.casefold().endswith(suffix)), path
    )


def _unpacked(path: str, folder: Path) -> Path:
    name = _unpacked_name(path)
    if name == path:
        return Path(path)
    out = folder / f"map{Path(name).suffix}"
    unpack = UNPACK[path[len(name) :].casefold()]
    try:
        with unpack(path) as packed, out.open("wb") as file:
            _copy(packed, file)
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be unpacked: {error}", "load it again") from error
    return out


def _check_whole(file: Path, name: str) -> NotWhole:
    """Return what is not whole in an extract.

    Raises
    ------
    InputError
        If the file itself is cut off or damaged: GDAL reads what comes before.
    """
    remedy = "load it again, or check it with osmium fileinfo -e"
    if file.suffix.casefold() == ".pbf" and not _whole_blocks(file):
        raise InputError(
            f"{name} cannot be read as an OpenStreetMap file: it is cut off, or not a PBF", remedy
        )
    return find_broken(file, name, remedy)


def _whole_blocks(file: Path) -> bool:
    """Return whether a PBF consists of whole blocks.

    A block is the length of its header (4 bytes), the header with the size of the data as its
    field 3, and the data (https://wiki.openstreetmap.org/wiki/PBF_Format).
    """
    size, place = file.stat().st_size, 0
    with file.open("rb") as source:
        while place < size:
            source.seek(place)
            length = int.from_bytes(source.read(4), "big")
            header = source.read(length) if length <= 65536 else b""
            data = _size_of_data(header)
            if data is None:
                return False
            place += 4 + length + data
    return size > 0 and place == size


def _size_of_data(header: bytes) -> int | None:
    """Return field 3 of a BlobHeader, an integer; None if it has none."""
    place = 0

    def number() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = header[place]
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    try:
        while place < len(header):
            key = number()
            if key == 3 << 3:
                return number()
            skipped = number()  # other integers, or the length of bytes
            place += skipped if key & 7 == 2 else 0
    except IndexError:
        pass
    return None


def _without_deleted(file: Path, folder: Path) -> Path:
    """Return an .osm file without the elements that an editor marked as deleted."""
    if file.suffix.casefold() != ".osm":
        return file
    with file.open("rb") as source, mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as text:
        if DELETED.search(text) is None:
            return file
    out = folder / "kept.osm"
    with out.open("wb") as target:
        xml.sax.parse(str(file), _Kept(target))
    return out


class _Kept(XMLGenerator):
    """Writes the elements that are not deleted."""

    def __init__(self, target: BinaryIO) -> None:
        super().__init__(target, "utf-8")
        self._within = 0

    def startElement(self, name: str, attrs: AttributesImpl) -> None:
        gone = attrs.get("action") == "delete" or attrs.get("visible") == "false"
        if self._within or gone:
            self._within += 1
        else:
            super().startElement(name, attrs)

    def endElement(self, name: str) -> None:
        if self._within:
            self._within -= 1
        else:
            super().endElement(name)


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    shutil.copyfileobj(source, target, 2**20)
