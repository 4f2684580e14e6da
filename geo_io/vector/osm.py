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
import xml.parsers.expat
import xml.sax
from array import array
from collections.abc import Callable, Iterator, Mapping
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

VERSION = 3
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

UNCLOSED = "unclosed_rings"
"""Metadata of the layer: how many rings of areas are not closed."""

CUT_WAYS, CUT_AREAS, CUT_EXAMPLE = "cut_ways", "cut_areas", "cut_example"
"""Metadata of the layer: how many ways lack nodes, how many relations of areas lack members, and
one of these."""


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
    columns : tuple of str
        Tags that are columns.
    """

    areas: tuple[str, ...]
    lines: Mapping[str, list[str]]
    columns: tuple[str, ...]


@functools.cache
def tag_table() -> TagTable:
    """Return what osm.yaml says about tags."""
    values = packaged_yaml("vector", "osm.yaml")
    return TagTable(tuple(values["areas"]), values["lines"], tuple(values["columns"]))


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
    unclosed, ways, areas = (int(metadata.get(name, 0)) for name in (UNCLOSED, CUT_WAYS, CUT_AREAS))
    notes = []
    if unclosed:
        rings = "ring of a multipolygon is" if unclosed == 1 else "rings of multipolygons are"
        notes.append(
            f"{unclosed:,} {rings} not closed, and {'is' if unclosed == 1 else 'are'} closed by a "
            "straight line; JOSM's validator shows where"
        )
    whole = (
        'load the place again with whole ways and relations (in Overpass "(._;>;);" before "out")'
    )
    if areas:
        lack = (
            "area lacks ways of its outline" if areas == 1 else "areas lack ways of their outlines"
        )
        notes.append(
            f"{areas:,} {lack} in the file, such as {metadata[CUT_EXAMPLE]}, and "
            f"{'is' if areas == 1 else 'are'} left out: {whole}"
        )
    if ways:
        notes.append(
            f"{ways:,} {'way lacks' if ways == 1 else 'ways lack'} nodes that the file does not "
            f"have: its shape may be wrong, or it is left out; {whole}"
        )
    return tuple(notes)


def _convert(path: str, layers: tuple[str, ...], out: Path) -> None:
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".") as scratch:
        file = _unpacked(path, Path(scratch))
        cut = _check_whole(file, path)
        file = _without_deleted(file, Path(scratch))
        with _settings(scratch):
            with _unclosed_rings() as unclosed:
                written = _write_features(file, path, layers, out)
            pyogrio.write_dataframe(
                _table([], np.empty(0, object)),
                out,
                layer=LAYER,
                geometry_type="Unknown",
                append=written,
                layer_metadata={UNCLOSED: str(len(unclosed)), **cut},
            )
    with out.open("rb") as whole:
        os.fsync(whole.fileno())


def _write_features(file: Path, path: str, layers: tuple[str, ...], out: Path) -> bool:
    """Write the features of a file named `path`; return whether there are any."""
    written = False
    for name in layers:
        for batch in _batches(file, name, path):
            table = _features(batch, name, all_layers=len(layers) > 1)
            if len(table):
                pyogrio.write_dataframe(
                    table, out, layer=LAYER, geometry_type="Unknown", append=written
                )
                written = True
    return written


@contextlib.contextmanager
def _unclosed_rings() -> Iterator[list[str]]:
    """Collect what GDAL says of rings that it closed; its other warnings go on."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    for warning in caught:
        text = str(warning.message)
        if "Non closed ring" in text:
            found.append(text)
        elif "organizePolygons" not in text:  # a ring of such a polygon, which is repaired later
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


def _features(batch: pd.DataFrame, layer: str, *, all_layers: bool) -> gpd.GeoDataFrame:
    """Make columns of tags, and lines of closed ways that are none; (n,) features."""
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


def _check_whole(file: Path, name: str) -> dict[str, str]:
    """Raise InputError if an extract is cut off or damaged: GDAL reads what comes before.

    Returns
    -------
    dict
        `CUT_WAYS`, `CUT_AREAS` and `CUT_EXAMPLE`, of an .osm file.
    """
    remedy = "load it again, or check it with osmium fileinfo -e"
    if file.suffix.casefold() == ".osm":
        parser, found = xml.parsers.expat.ParserCreate(), _Members()
        parser.StartElementHandler, parser.EndElementHandler = found.start, found.end
        try:
            with file.open("rb") as source:
                parser.ParseFile(source)
        except xml.parsers.expat.ExpatError as error:
            raise InputError(
                f"{name} cannot be read as an OpenStreetMap file: {error}", remedy
            ) from error
        return found.missing()
    if file.suffix.casefold() == ".pbf" and not _whole_blocks(file):
        raise InputError(
            f"{name} cannot be read as an OpenStreetMap file: it is cut off, or not a PBF", remedy
        )
    return {}


class _Members:
    """Collects what ways and areas of an .osm file are made of, and what there is of it."""

    def __init__(self) -> None:
        self._nodes, self._refs, self._way_of_ref = array("q"), array("q"), array("q")
        self._ways: set[str] = set()
        self._areas: list[tuple[str, list[str], dict[str, str]]] = []
        self._within = self._id = ""
        self._members: list[str] = []
        self._tags: dict[str, str] = {}
        self._count = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "nd" and self._within == "way":
            if (ref := _whole_number(attributes.get("ref"))) is not None:
                self._refs.append(ref)
                self._way_of_ref.append(self._count)
        elif tag == "tag" and self._within == "relation":
            self._tags[attributes.get("k", "")] = attributes.get("v", "")
        elif tag == "member" and self._within == "relation" and attributes.get("type") == "way":
            self._members.append(attributes.get("ref", ""))
        elif tag in ("node", "way", "relation"):
            gone = attributes.get("action") == "delete" or attributes.get("visible") == "false"
            self._within, self._id = "" if gone else tag, attributes.get("id", "")
            self._members, self._tags = [], {}
            if gone:
                return
            if tag == "node" and (number := _whole_number(self._id)) is not None:
                self._nodes.append(number)
            if tag == "way":
                self._count += 1
                self._ways.add(self._id)

    def end(self, tag: str) -> None:
        if tag in ("node", "way", "relation"):
            if self._within == "relation" and self._tags.get("type") == "multipolygon":
                self._areas.append((self._id, self._members, self._tags))
            self._within = ""

    def missing(self) -> dict[str, str]:
        """Return the counts of what lacks nodes or ways, as metadata."""
        nodes, refs = (np.frombuffer(ids, np.int64) for ids in (self._nodes, self._refs))
        lacks = ~np.isin(refs, nodes)
        ways = len(np.unique(np.frombuffer(self._way_of_ref, np.int64)[lacks]))
        cut = [
            (number, tags)
            for number, members, tags in self._areas
            if not self._ways.issuperset(members)
        ]
        example = ""
        if cut:
            number, tags = cut[0]
            said = next((f" ({k}={v})" for k, v in tags.items() if k not in ("type", "name")), "")
            example = f"relation {number}{said}"
        return {CUT_WAYS: str(ways), CUT_AREAS: str(len(cut)), CUT_EXAMPLE: example}


def _whole_number(text: str | None) -> int | None:
    """Return a number of 64 bits from a text; None if it is not one."""
    try:
        number = int(text or "")
    except ValueError:
        return None
    return number if -(2**63) <= number < 2**63 else None


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
