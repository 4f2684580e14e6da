"""Which features are structures, and what their attributes say of them.

`kinds.yaml` names the attributes and their values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geo_io.legend import DENIALS, UNKNOWN, UNMAPPED, codes, normalise
from geo_io.packaged import packaged_yaml
from geo_io.semantics.attributes import present_columns, values_of
from geo_io.semantics.lengths import parse_length
from geo_io.structures import KIND, MATERIALS, ORDERS, SPORTS, STRUCTURE_FORM

PASSAGES = {"building_passage", "avalanche_protector", "covered", "arcade", "colonnade", "passage"}
"""Values of tunnel attributes of ways that are not under the ground."""

OPENING = {"road": 4.5, "rail": 5.5, "paved": 3.0}
"""Metres: the height of a passage by what runs through it."""

TALLEST = 400.0
"""Heights of structures above this, in metres, are errors of the source."""

LEVEL_METRES = 3.5
"""Height of the level of a way that runs above the ground, metres."""

BAY_VOXEL, PITCH_VOXEL, POOL_VOXEL = 0.5, 0.5, 2.0
"""The largest voxels with marked bays, with marked pitches and with the rims of pools, metres."""


@functools.cache
def vocabulary() -> dict[str, Any]:
    """Return the content of `kinds.yaml`."""
    content: dict[str, Any] = packaged_yaml("semantics", "structures", "kinds.yaml")
    return content


@functools.cache
def structure_fields() -> tuple[str, ...]:
    """Return the names of the attributes that this module reads."""
    return tuple(name for names in vocabulary()["columns"].values() for name in names)


def structure_columns(fields: Sequence[str]) -> list[str]:
    """Return those of the fields that this module reads."""
    wanted = set(structure_fields())
    return [field for field in fields if field.casefold() in wanted]


@dataclass(frozen=True)
class Found:
    """What n features are as structures.

    Attributes
    ----------
    form : NDArray (n,) STRUCTURE_FORM
        Of kind 0 for features that are none.
    name : NDArray (n,) object
        What each is called in messages, "" for none.
    lifted : NDArray (n,) bool
        Features that are not land cover: what lies below them is.
    row : NDArray (n,) bool
        Rows of trees.
    outline : NDArray (n,) bool
        Areas of something else, whose outline is the structure.
    """

    form: NDArray
    name: NDArray
    lifted: NDArray
    row: NDArray
    outline: NDArray


def find_structures(
    table: pd.DataFrame,
    dimension: NDArray,
    code: NDArray,
    width: NDArray,
    height: NDArray,
    layer_name: str = "",
) -> Found:
    """Find out which features are structures.

    Parameters
    ----------
    table : DataFrame
        n features.
    dimension : NDArray (n,) int
        Of their geometries.
    code : NDArray (n,) uint8
        Their classes.
    width, height : NDArray (n,) float64
        Metres, NaN where the source gives none.
    layer_name : str
        Name of the layer, which may say what its features are.
    """
    n = len(table)
    form = np.zeros(n, STRUCTURE_FORM)
    for field in ("width", "height", "layer", "base"):
        form[field] = np.nan
    form["finest"] = np.inf
    name = np.full(n, "", object)
    result = Found(form, name, *(np.zeros(n, bool) for _ in range(3)))
    if n == 0:
        return result
    words = _Words(table)
    carries = _carried(code)
    _read_layers(form, words)
    given = np.where(height <= TALLEST, height, np.nan)
    _ways(result, words, dimension, code, carries, width, given)
    _surfaces(result, words, dimension)
    _barriers(result, words, dimension, code, given, layer_name)
    _masts(result, words, dimension, given)
    result.row[:] = (dimension == 1) & words.one_of("natural", {"tree_row"})
    result.row[:] |= (dimension == 1) & words.one_of(
        "merged", {"tree_row", "baumreihe", "alignement d'arbres", "bomenrij"}
    )
    return result


def says_structure(table: pd.DataFrame) -> bool:
    """Return whether any feature is a structure without land cover, by its attributes alone."""
    unknown, code = np.full(len(table), np.nan), np.zeros(len(table), np.uint8)
    return any(
        bool(
            (
                find_structures(table, np.full(len(table), dimension), code, unknown, unknown).form[
                    "kind"
                ]
                > 0
            ).any()
        )
        for dimension in (0, 1)
    )


class _Words:
    """The attributes of a table as normalised words: "" where a feature has none."""

    def __init__(self, table: pd.DataFrame) -> None:
        self._table = table
        self._kept: dict[str, NDArray] = {}

    def of(self, key: str) -> NDArray:
        """Return the words of an attribute of `kinds.yaml`, (n,) object."""
        if key not in self._kept:
            self._kept[key] = self.read(key, normalise, "")
        return self._kept[key]

    def read(self, key: str, parse: Callable[[Any], Any], default: Any) -> NDArray:
        """Return the first usable value of an attribute, (n,) object."""
        out = np.full(len(self._table), default, object)
        for column in present_columns(self._table, vocabulary()["columns"][key]):
            values = values_of(self._table[column])
            parsed = {value: parse(value) for value in set(values) if value is not None}
            found = np.array([parsed.get(value, default) for value in values], object)
            empty = np.array([value != value or value == default for value in out], bool)
            out[empty] = found[empty]
        return out

    def numbers(self, key: str, parse: Callable[[Any], float]) -> NDArray:
        """Return the first usable number of an attribute, (n,) float64."""
        return self.read(key, parse, np.nan).astype(float)

    def one_of(self, key: str, values: set[str]) -> NDArray:
        """Return which features have one of these words, (n,) bool."""
        words = self.of(key)
        return np.array([word in values for word in words], bool)

    def said(self, key: str) -> NDArray:
        """Return which features have the attribute, and not as a denial, (n,) bool."""
        return np.array([word not in DENIALS for word in self.of(key)], bool)


def _signed(value: Any) -> float:
    try:
        return float(str(value).split(";")[0])
    except ValueError:
        return np.nan


def _carried(code: NDArray) -> NDArray:
    """Return which features are ways that a bridge can carry, (n,) bool."""
    land = codes()
    return np.isin(code, [land[name] for name in ("road", "rail", "paved", "river")])


def _read_layers(form: NDArray, words: _Words) -> None:
    layer = words.numbers("layer", _signed)
    ground = words.numbers("ground_level", _signed)
    form["layer"] = np.where(np.isnan(layer), ground, layer)
    base = words.numbers("base", parse_length)
    form["base"] = np.where((base > 0) & (base < TALLEST), base, np.nan)


def is_bridge(words: _Words) -> NDArray:
    """Return which features run over a bridge, (n,) bool."""
    book = vocabulary()
    bridge = words.said("bridge") & ~words.one_of("bridge", set(book["no_bridge"]))
    spoken = set(book["bridge_words"])
    bridge |= words.one_of("work", spoken)
    bridge |= words.numbers("ground_level", _signed) > 0
    return np.asarray(bridge)


def _ways(
    result: Found,
    words: _Words,
    dimension: NDArray,
    code: NDArray,
    carries: NDArray,
    width: NDArray,
    height: NDArray,
) -> None:
    """Find ways on the ground, on bridges and through buildings, and piers."""
    form, land = result.form, codes()
    bridge = is_bridge(words)
    way = carries & (dimension == 1)
    form["kind"][way] = KIND["way"]
    form["cover"][way] = code[way]
    form["width"] = np.where(dimension == 1, width, np.nan)

    outline = words.one_of("man_made", {"bridge"}) & (dimension == 2)
    area = (bridge & carries & (dimension == 2)) | outline
    merged = words.one_of("merged", set(vocabulary()["bridge_words"]) - {"l"})
    area |= merged & (dimension == 2) & carries
    deck = (way & bridge) | (way & merged) | area
    form["kind"][deck] = KIND["deck"]
    form["cover"][deck] = np.where(outline, land["paved"], code)[deck]
    form["viaduct"] = words.one_of("bridge", set(vocabulary()["viaducts"]))
    level = words.numbers("level", _signed)
    above = deck & np.isnan(form["base"]) & (level > 0) & ~words.said("layer")
    form["base"][above] = LEVEL_METRES * level[above]
    result.name[deck] = "bridge"

    pier = (words.one_of("man_made", {"pier"}) | words.one_of("merged", {"pier"})) & (dimension > 0)
    form["kind"][pier] = KIND["pier"]
    form["cover"][pier] = land["paved"]
    floats = words.said("floating")
    form["base"][pier & floats] = 0.2
    result.name[pier] = "pier"
    result.lifted[deck | pier] = True

    covered = words.said("covered") | words.one_of("tunnel", PASSAGES)
    passage = covered & way & ~deck & (code != land["river"])
    form["kind"][passage] = KIND["passage"]
    form["covered"] = words.said("covered") & passage
    opening = np.full(256, 3.0)
    for name, metres in OPENING.items():
        opening[land[name]] = metres
    clearance = words.numbers("clearance", parse_length)
    usable = (clearance > 1.5) & (clearance < 20.0)
    form["height"][passage] = np.where(usable, clearance, opening[code])[passage]
    result.name[passage] = "covered way"


def _surfaces(result: Found, words: _Words, dimension: NDArray) -> None:
    """Find surfaces with markings or a rim."""
    form, area = result.form, dimension == 2
    sports = {
        word: SPORTS.index(name) for name, list_ in vocabulary()["sports"].items() for word in list_
    }
    pitch = area & (words.one_of("leisure", {"pitch"}) | words.one_of("merged", {"pitch"}))
    # Of several sports, the first that has markings.
    sport = words.read(
        "sport",
        lambda value: next(
            (sports[part] for part in normalise(value).split(";") if part in sports), 0
        ),
        0,
    ).astype(np.uint8)
    lined = pitch & (sport > 0)
    _mark(result, lined, "pitch", "marked pitch", PITCH_VOXEL)
    form["style"][lined] = sport[lined]
    kept = ~words.one_of("parking", {"underground", "multi-storey", "rooftop", "lane"})
    parking = (
        area & kept & (words.one_of("amenity", {"parking"}) | words.one_of("merged", {"parking"}))
    )
    _mark(result, parking, "parking", "car park with bays", BAY_VOXEL)
    orders = {order: n for n, order in enumerate(ORDERS)}
    order = words.read("orientation", lambda value: orders.get(normalise(value), 0), 0)
    form["style"][parking] = order.astype(np.uint8)[parking]
    bay = area & (
        words.one_of("amenity", {"parking_space"}) | words.one_of("merged", {"parking_space"})
    )
    _mark(result, bay, "bay", "parking bay", BAY_VOXEL)
    pools = {"swimming_pool", "pool", "schwimmbecken", "piscine"}
    pool = area & (
        words.one_of("leisure", {"swimming_pool"})
        | words.one_of("amenity", {"swimming_pool"})
        | words.one_of("merged", pools)
    )
    _mark(result, pool, "pool", "pool", POOL_VOXEL)


def _mark(result: Found, chosen: NDArray, kind: str, name: str, finest: float) -> None:
    result.form["kind"][chosen] = KIND[kind]
    result.form["finest"][chosen] = finest
    result.name[chosen] = name


def _barriers(
    result: Found,
    words: _Words,
    dimension: NDArray,
    code: NDArray,
    height: NDArray,
    layer_name: str,
) -> None:
    """Find walls, fences and hedges: lines, outlines of areas, and areas of thick walls."""
    book = vocabulary()
    table, same = book["barriers"], book["same_barrier"]
    kind = np.full(len(dimension), "", object)
    for key in ("barrier", "historic", "merged"):
        spoken = words.of(key)
        named = np.array([same.get(word, word if word in table else "") for word in spoken], object)
        kind = np.where(kind == "", named, kind)
    barrier = words.of("barrier")
    if not words.said("barrier").any() and (kind == "").all():
        # A layer of one kind, such as hedges.shp, whose attributes do not say so.
        stem = normalise(layer_name).rsplit("/", 1)[-1].split(".")[0].rstrip("s")
        of_layer = same.get(stem, stem if stem in table else "")
        if of_layer and (result.form["kind"] == 0).all():
            kind[:] = of_layer
    noise = words.one_of("wall", {"noise_barrier"}) & (kind == "wall")
    kind[noise] = "noise_barrier"
    kind[words.one_of("barrier", {"city_wall"})] = "city_wall"
    # Areas of other things with a fence around them keep their surface; the outline is the fence.
    usable = (kind != "") & (dimension > 0) & (result.form["kind"] != KIND["deck"])
    usable &= (result.form["kind"] == 0) | (barrier != "")
    if not usable.any():
        return
    materials = {name: number for number, name in enumerate(MATERIALS)}
    spoken_material = {
        "wood": "wood", "timber": "wood", "holz": "wood", "bois": "wood", "stone": "stone",
        "brick": "stone", "dry_stone": "stone", "masonry": "stone", "concrete": "concrete",
        "beton": "concrete", "metal": "metal", "steel": "metal", "chain_link": "metal",
        "wire": "metal", "railing": "metal", "bars": "metal", "metal_bars": "metal",
        "barbed_wire": "metal", "electric": "metal", "pole": "wood", "split_rail": "wood",
    }  # fmt: skip
    of_material, of_fence = words.of("material"), words.of("fence")
    form = result.form
    for row in np.flatnonzero(usable):
        entry = table[kind[row]]
        hedge = kind[row].startswith("hedge")
        form["kind"][row] = KIND["hedge" if hedge else "barrier"]
        form["height"][row] = height[row] if np.isfinite(height[row]) else entry["height"]
        # The width of a class of lines is that of its land cover: only a width of its own counts.
        form["finest"][row] = entry["finest"]
        said = spoken_material.get(of_material[row], spoken_material.get(of_fence[row], ""))
        form["style"][row] = materials[said or entry["material"]]
        form["cover"][row] = codes()["tree" if hedge else "paved"]
        result.name[row] = kind[row].replace("_", " ")
    own = words.numbers("width", parse_length)
    nominal = np.array([table[word]["width"] if word else np.nan for word in kind], float)
    good = (own > 0) & (own < 30.0)
    form["width"][usable] = np.where(good, own, nominal)[usable]
    solid = np.isin(code, [codes()["building"], codes()["tree"], UNKNOWN, UNMAPPED])
    result.outline[:] = usable & (dimension == 2) & ~solid
    # Thick walls mapped as class building would become houses.
    result.lifted[:] |= usable & np.isin(kind, ["city_wall", "castle_wall", "citywalls"])


def _masts(result: Found, words: _Words, dimension: NDArray, height: NDArray) -> None:
    """Find masts, and lines of power supply."""
    book = vocabulary()
    form = result.form
    which = np.full(len(dimension), "", object)
    for key in ("power", "man_made", "highway", "barrier", "generator"):
        which = np.where(
            which == "",
            np.array(
                [
                    f"{key}={word}" if f"{key}={word}" in book["masts"] else ""
                    for word in words.of(key)
                ],
                object,
            ),
            which,
        )
    same = book["same_mast"]
    which = np.where(
        which == "", np.array([same.get(word, "") for word in words.of("merged")], object), which
    )
    materials = {name: number for number, name in enumerate(MATERIALS)}
    for row in np.flatnonzero((which != "") & (dimension == 0)):
        entry = book["masts"][which[row]]
        form["kind"][row] = KIND["mast"]
        form["height"][row] = height[row] if np.isfinite(height[row]) else entry["height"]
        form["width"][row], form["finest"][row] = entry["width"], entry["finest"]
        form["style"][row] = materials[entry["material"]]
        form["cover"][row] = codes()["paved"]
        result.name[row] = entry["name"]
    cables = book["cables"]
    spoken = words.of("power")
    merged = words.of("merged")
    for row in np.flatnonzero(dimension == 1):
        word = spoken[row] if spoken[row] in cables else ""
        if not word and merged[row] in cables and merged[row] not in ("line", "minor_line"):
            word = merged[row]
        if not word or form["kind"][row] not in (0, KIND["cable"]):
            continue
        entry = cables[word]
        form["kind"][row] = KIND["cable"]
        form["height"][row] = height[row] if np.isfinite(height[row]) else entry["height"]
        form["width"][row], form["finest"][row] = entry["width"], entry["finest"]
        form["style"][row] = materials["metal"]
        form["cover"][row] = codes()["paved"]
        result.name[row] = "power line"


LEAVES = {
    "needleleaved": 2, "coniferous": 2, "needle": 2, "conifer": 2, "nadelbaum": 2, "evergreen": 0,
    "broadleaved": 1, "broad": 1, "deciduous": 1, "laubbaum": 1, "leafless": 1, "palm": 1,
}  # fmt: skip
"""Leaves by word: 1 broad leaves, 2 needles."""

LEAF_COLUMNS = ("leaf_type", "wood", "leaftype", "type_feuillage", "laubtyp", "baumtyp")
GENUS_COLUMNS = (
    "genus", "species", "taxon", "genus:en", "species:en", "gattung", "art", "baumart", "art_bot",
    "botanical_name", "scientific_name", "latin_name", "spc_latin", "spc_common", "spp",
    "common_name", "genre", "espece", "libellefrancais", "boomsoort", "tree_species",
)  # fmt: skip


def tree_leaves(table: pd.DataFrame) -> NDArray:
    """Return the leaves of trees: 1 broad, 2 needles, 0 unknown: (n,) uint8.

    The leaf type decides, else the genus, species or common name.
    """
    out = np.zeros(len(table), np.uint8)
    conifers = set(vocabulary()["needleleaved"])
    for column in present_columns(table, LEAF_COLUMNS):
        values = values_of(table[column])
        known = {value: LEAVES.get(normalise(value), 0) for value in set(values)}
        found = np.array([known[value] for value in values], np.uint8)
        out = np.where(out == 0, found, out)
    for column in present_columns(table, GENUS_COLUMNS):
        values = values_of(table[column])
        known = {value: _leaf_of_name(value, conifers) for value in set(values)}
        found = np.array([known[value] for value in values], np.uint8)
        out = np.where(out == 0, found, out)
    return out


def _leaf_of_name(value: Any, conifers: set[str]) -> int:
    words = normalise(value).replace("-", " ").replace(",", " ").split()
    if not words or words[0] in DENIALS:
        return 0
    # "horse-chestnut", "Pinus nigra", "Norway spruce": any word of the name.
    return 2 if any(word.rstrip("s") in conifers or word in conifers for word in words) else 1


def tree_columns(fields: Sequence[str]) -> list[str]:
    """Return those of the fields that `tree_leaves` reads."""
    wanted = {*LEAF_COLUMNS, *GENUS_COLUMNS}
    return [field for field in fields if field.casefold() in wanted]
