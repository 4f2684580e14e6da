"""What is not whole in an OpenStreetMap file: extracts cut areas and ways, mappers leave gaps.

GDAL leaves out an area that lacks one of its ways, or whose outline has a gap, and does not say so.
Here such areas are counted, and made of the rings that are whole. An outline with a gap is closed
by a straight line if it comes back to where it began (`RETURN`); where ways are missing, it is not,
since the line may leave the wrong side.
"""

from __future__ import annotations

import xml.parsers.expat
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from geo_io.errors import InputError

RETURN = 0.5
"""A line comes back to where it began if its ends lie nearer to each other than this share of its
length."""

MOST_REFS = 9_999
"""Nodes of a way that GDAL reads; OpenStreetMap has at most 2,000."""

UNDERSTOOD = "multipolygon"
"""Type of the relations that are areas."""

Members = list[tuple[str, int, str]]
"""Members of a relation: type ("way", "node", "relation"), id and role."""


@dataclass(frozen=True)
class BrokenArea:
    """An area that is not whole.

    Attributes
    ----------
    number : int
        Id of the relation.
    tags : dict
        Its tags, without its type.
    lacks : bool
        Whether it lacks ways, and not just a part of its outline.
    shape : shapely geometry or None
        What is whole of it, in longitude and latitude; None if nothing is.
    """

    number: int
    tags: dict[str, str]
    lacks: bool
    shape: shapely.Geometry | None

    @property
    def name(self) -> str:
        """What it is called in messages: "relation 6 (natural=water)"."""
        return f"relation {self.number}{said(self.tags)}"


@dataclass(frozen=True)
class NotWhole:
    """What is not whole in a file.

    Attributes
    ----------
    ways : int
        Ways that lack nodes.
    areas : tuple of BrokenArea
        Areas that lack ways, or whose outline has a gap.
    """

    ways: int = 0
    areas: tuple[BrokenArea, ...] = ()


def comes_back(line: shapely.LineString) -> bool:
    """Return whether a line comes back to where it began, so that it encloses an area."""
    ends = shapely.get_coordinates(line)[[0, -1]]
    gap = float(np.hypot(*(ends[1] - ends[0])))
    return len(line.coords) > 2 and gap <= RETURN * line.length


def said(tags: dict[str, str]) -> str:
    """Return the first tag that says what something is, in brackets after a space; "" without."""
    plain = ("area", "name", "source", "type")
    return next((f" ({k}={v})" for k, v in tags.items() if k not in plain), "")


def find_broken(file: Path, name: str, remedy: str) -> NotWhole:
    """Find what is not whole in an .osm, .osm.pbf or .o5m file.

    Parameters
    ----------
    file : Path
        The file, not packed.
    name, remedy : str
        How messages call it, and the next step if it is damaged.

    Raises
    ------
    InputError
        If it is cut off or damaged, or has a way of more than `MOST_REFS` nodes.
    """
    found = _Elements()
    _read(file, name, remedy, found)
    way, count = found.longest_way()
    if count > MOST_REFS:
        raise InputError(
            f"way {way} of {name} has {count:,} nodes; at most {MOST_REFS:,} are read, and "
            "OpenStreetMap allows 2,000",
            "split it, or make an area of several ways",
        )
    broken = found.broken()
    wanted = {
        node
        for area in broken
        for kind, way, _ in area[1]
        if kind == "way"
        for node in found.nodes_of(way)
    }
    places = _Places(wanted)
    if wanted:
        _read(file, name, remedy, places)
    return NotWhole(
        found.cut_ways(),
        tuple(
            BrokenArea(number, tags, lacks, _shape(members, lacks, found.nodes_of, places.at))
            for number, members, tags, lacks in broken
        ),
    )


class _Elements:
    """The ids of nodes and ways, the nodes of ways, and the areas."""

    def __init__(self) -> None:
        self._nodes, self._ways, self._refs = array("q"), array("q"), array("q")
        self._ends = array("q", [0])
        self._areas: list[tuple[int, Members, dict[str, str]]] = []
        self._of: dict[int, int] = {}

    def node(self, number: int, lon: float, lat: float) -> None:
        self._nodes.append(number)

    def way(self, number: int, refs: Iterable[int]) -> None:
        self._ways.append(number)
        self._refs.extend(refs)
        self._ends.append(len(self._refs))

    def relation(self, number: int, members: Members, tags: dict[str, str]) -> None:
        if tags.get("type") == UNDERSTOOD:
            self._areas.append((number, members, tags))

    def cut_ways(self) -> int:
        """Return the number of ways that lack nodes."""
        refs, nodes = (np.frombuffer(ids, np.int64) for ids in (self._refs, self._nodes))
        lacks = np.flatnonzero(~np.isin(refs, nodes))
        return len(np.unique(np.searchsorted(np.frombuffer(self._ends, np.int64), lacks, "right")))

    def longest_way(self) -> tuple[int, int]:
        """Return id and number of nodes of the way with the most nodes; 0, 0 without one."""
        counts = np.diff(np.frombuffer(self._ends, np.int64))
        if not len(counts):
            return 0, 0
        place = int(counts.argmax())
        return self._ways[place], int(counts[place])

    def nodes_of(self, way: int) -> list[int]:
        """Return the nodes of a way, none of one that is missing."""
        place = self._of.get(way)
        return (
            [] if place is None else self._refs[self._ends[place] : self._ends[place + 1]].tolist()
        )

    def broken(self) -> list[tuple[int, Members, dict[str, str], bool]]:
        """Return the areas that are not whole, each with its tags, and whether it lacks ways."""
        wanted = {ref for _, members, _ in self._areas for kind, ref, _ in members if kind == "way"}
        self._of = {way: place for place, way in enumerate(self._ways) if way in wanted}
        refs_of = {way: self.nodes_of(way) for way in self._of}
        used = np.array(sorted({node for refs in refs_of.values() for node in refs}), np.int64)
        missing = set(used[~np.isin(used, np.frombuffer(self._nodes, np.int64))].tolist())
        result = []
        for number, members, tags in self._areas:
            ways = [ref for kind, ref, _ in members if kind == "way"]
            lacks = any(kind == "relation" for kind, _, _ in members)
            lacks |= any(way not in refs_of for way in ways)
            refs = [refs_of[way] for way in ways if refs_of.get(way)]
            ends = Counter(end for each in refs for end in (each[0], each[-1]))
            gap = any(count % 2 for count in ends.values())
            if lacks or gap or not missing.isdisjoint(node for each in refs for node in each):
                own = {key: value for key, value in tags.items() if key != "type"}
                result.append((number, members, own, lacks))
        return result


class _Places:
    """The places of some nodes."""

    def __init__(self, wanted: set[int]) -> None:
        self.at: dict[int, tuple[float, float]] = {}
        self._wanted = wanted

    def node(self, number: int, lon: float, lat: float) -> None:
        if number in self._wanted:
            self.at[number] = (lon, lat)

    def way(self, number: int, refs: Iterable[int]) -> None:
        pass

    def relation(self, number: int, members: Members, tags: dict[str, str]) -> None:
        pass


def _shape(
    members: Members,
    lacks: bool,
    nodes_of: Callable[[int], list[int]],
    places: dict[int, tuple[float, float]],
) -> shapely.Geometry | None:
    """Return the area within the rings of an area that are whole, None if there is none.

    What lies within an even number of rings is a hole.
    """
    area: shapely.Geometry = shapely.Polygon()
    for inner in (False, True):
        lines = []
        for kind, way, role in members:
            refs = nodes_of(way) if kind == "way" and (role == "inner") == inner else []
            line = [places[ref] for ref in refs if ref in places]
            if len(refs) > 1 and refs[0] == refs[-1] and len(line) > 2:
                line.append(line[0])  # a ring, also without the node at which it is closed
            if len(line) > 1:
                lines.append(shapely.LineString(line))
        chains = shapely.get_parts(shapely.line_merge(shapely.MultiLineString(lines)))
        if not lacks:
            closing = [
                shapely.LineString([chain.coords[-1], chain.coords[0]])
                for chain in chains
                if not chain.is_closed and comes_back(chain)
            ]
            chains = np.array([*chains, *closing], object)
        for face in shapely.get_parts(shapely.polygonize(chains)):
            area = shapely.symmetric_difference(area, shapely.Polygon(face.exterior))
    return None if shapely.is_empty(area) else area


Reader = _Elements | _Places


def _read(file: Path, name: str, remedy: str, reader: Reader) -> None:
    """Tell a reader of all elements of a file."""
    if file.suffix.casefold() == ".osm":
        _read_xml(file, name, remedy, reader)
    else:
        _read_binary(file, name, remedy, reader)


def _read_binary(file: Path, name: str, remedy: str, reader: Reader) -> None:
    import osmium

    kinds = {"n": "node", "w": "way", "r": "relation"}
    try:
        for each in osmium.FileProcessor(str(file)):
            if isinstance(each, osmium.osm.Changeset) or each.deleted:
                continue
            if isinstance(each, osmium.osm.Node):
                here = each.location.valid()
                reader.node(each.id, *((each.lon, each.lat) if here else (np.nan, np.nan)))
            elif isinstance(each, osmium.osm.Way):
                reader.way(each.id, [node.ref for node in each.nodes])
            elif isinstance(each, osmium.osm.Relation):
                members = [(kinds[one.type], one.ref, one.role) for one in each.members]
                reader.relation(each.id, members, dict(each.tags))
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"{name} cannot be read as an OpenStreetMap file: {error}", remedy
        ) from error


def _read_xml(file: Path, name: str, remedy: str, reader: Reader) -> None:
    parser, handler = xml.parsers.expat.ParserCreate(), _Xml(reader)
    parser.StartElementHandler, parser.EndElementHandler = handler.start, handler.end

    def no_entities(*_: object) -> None:
        raise InputError(
            f"{name} cannot be read as an OpenStreetMap file: it declares entities of XML, which "
            "such files do not have",
            remedy,
        )

    parser.EntityDeclHandler = no_entities
    try:
        with file.open("rb") as source:
            parser.ParseFile(source)
    except xml.parsers.expat.ExpatError as error:
        raise InputError(
            f"{name} cannot be read as an OpenStreetMap file: {error}", remedy
        ) from error


class _Xml:
    """Tells a reader of the elements of an .osm file, but for those that are deleted."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._within = ""
        self._number: int | None = None
        self._refs = array("q")
        self._members: Members = []
        self._tags: dict[str, str] = {}

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "nd" and self._within == "way":
            if (ref := _whole_number(attributes.get("ref"))) is not None:
                self._refs.append(ref)
        elif tag == "tag" and self._within == "relation":
            self._tags[attributes.get("k", "")] = attributes.get("v", "")
        elif tag == "member" and self._within == "relation":
            if (ref := _whole_number(attributes.get("ref"))) is not None:
                kind, role = attributes.get("type", ""), attributes.get("role", "")
                self._members.append((kind, ref, role))
        elif tag in ("node", "way", "relation"):
            gone = attributes.get("action") == "delete" or attributes.get("visible") == "false"
            self._within = "" if gone else tag
            self._number = _whole_number(attributes.get("id"))
            self._refs, self._members, self._tags = array("q"), [], {}
            if self._within == "node" and self._number is not None:
                self._reader.node(self._number, *_place(attributes))

    def end(self, tag: str) -> None:
        if tag not in ("node", "way", "relation"):
            return
        if self._number is not None and self._within == "way":
            self._reader.way(self._number, self._refs)
        elif self._number is not None and self._within == "relation":
            self._reader.relation(self._number, self._members, self._tags)
        self._within = ""


def _place(attributes: dict[str, str]) -> tuple[float, float]:
    try:
        return float(attributes.get("lon", "nan")), float(attributes.get("lat", "nan"))
    except ValueError:
        return np.nan, np.nan


def _whole_number(text: str | None) -> int | None:
    """Return a number of 64 bits from a text; None if it is not one."""
    try:
        number = int(text or "")
    except ValueError:
        return None
    return number if -(2**63) <= number < 2**63 else None
