"""Classes and crosswalks: what the format promises, and that each shipped table covers its
scheme's documented list."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import yaml

from geo_io import legend
from geo_io.errors import EarthgenError, InputError, MissingFileError
from geo_io.legend import UNKNOWN, UNMAPPED, Crosswalk, codes, parse_crosswalk

LEGENDS = Path(legend.__file__).parent / "legends"
SHIPPED = {
    "asprs",
    "bdtopo",
    "bgt",
    "copernicus_lc100",
    "corine",
    "dynamic_world",
    "earthgen",
    "esa_cci",
    "esri_lulc",
    "generic",
    "geofabrik",
    "globeland30",
    "modis_igbp",
    "nlcd",
    "osm",
    "umep",
    "urban_atlas",
    "worldcover",
}


def shipped(name: str) -> Crosswalk:
    return next(crosswalk for crosswalk in legend.builtin_crosswalks() if crosswalk.name == name)


def name_of(code: int) -> str:
    special = {UNMAPPED: "UNMAPPED", UNKNOWN: "unknown"}
    return special.get(code) or legend.classes()[code - 1].name


def classify(name: str, layer: str = "x", /, **tags: object) -> str:
    """The class that a shipped crosswalk gives one feature with these attributes."""
    columns = {field: [value] for field, value in tags.items()}
    return name_of(int(shipped(name).classify(columns, layer, 1)[0][0]))


def width(name: str, /, **tags: object) -> float:
    columns = {field: [value] for field, value in tags.items()}
    return float(shipped(name).classify(columns, "x", 1)[1][0])


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, "utf-8")
    return path


def test_there_are_25_classes_with_codes_in_order() -> None:
    classes = legend.classes()
    assert [land.code for land in classes] == list(range(1, 26))
    assert len({land.name for land in classes}) == len({land.color for land in classes}) == 25
    assert legend.codes()["building"] == 18
    assert legend.palette().shape == (26, 3)
    assert tuple(legend.palette()[18]) == legend.classes()[17].rgb
    assert legend.priorities()[0] == 0 and (legend.priorities()[1:] > 0).all()


def test_what_stands_on_the_ground_is_seen_before_what_the_land_is_for() -> None:
    rank = {land.name: land.priority for land in legend.classes()}
    assert rank["building"] > rank["road"] > rank["paved"] > rank["river"] > rank["mixed_forest"]
    assert (
        rank["mixed_forest"]
        > rank["grass"]
        > rank["cropland"]
        > rank["commercial"]
        > rank["residential"]
    )


def test_all_shipped_files_load_and_generic_is_the_last_resort() -> None:
    names = [crosswalk.name for crosswalk in legend.builtin_crosswalks()]
    assert set(names) == SHIPPED
    assert names == [*sorted(SHIPPED - {"generic"}), "generic"]


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_file_says_where_it_comes_from_and_maps_to_classes(name: str) -> None:
    crosswalk = shipped(name)
    assert crosswalk.title != name and crosswalk.licence != "not stated"
    assert crosswalk.source.startswith("https://") or crosswalk.source == "docs/guides/legends.md"
    known = {UNKNOWN, UNMAPPED, *legend.codes().values()}  # of "later"
    for rule in crosswalk.rules:
        assert rule.fields and rule.values
        assert set(rule.values.values()) <= known
        assert all(0 < metres <= 60 for metres in rule.widths.values())
        # A width for a value that is not mapped would never be used: a slip of the pen.
        assert set(rule.widths) <= set(rule.values)
    assert {code for _, code in crosswalk.layers} <= known


class _Strict(yaml.SafeLoader):
    """Refuses what PyYAML lets pass: a key given twice, of which the first is silently lost."""


def _no_twins(loader: _Strict, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: dict[str, str] = {}
    for key_node, value_node in node.value:
        key, value = (
            loader.construct_object(key_node, deep=True),
            str(getattr(value_node, "value", "")),
        )
        assert isinstance(key, str | int) and not isinstance(key, bool), (
            f"{key!r} is not text or a number: quote it"
        )
        twin = legend.normalise(key)
        assert twin not in seen, (
            f"{key!r} is given twice, {seen[twin]} and {value}: {key_node.start_mark}"
        )
        seen[twin] = value
    return yaml.SafeLoader.construct_mapping(loader, node, deep)


_Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _no_twins)


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_no_value_of_a_shipped_file_is_given_twice_or_read_as_a_boolean(name: str) -> None:
    document = yaml.load((LEGENDS / f"{name}.yaml").read_text("utf-8"), Loader=_Strict)
    assert document["name"] == name


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_no_layer_pattern_is_hidden_by_an_earlier_one(name: str) -> None:
    """A pattern, its stars read as text, that an earlier one matches could never be reached."""
    crosswalk = shipped(name)
    for number, (pattern, _) in enumerate(crosswalk.layers):
        first = next(
            i for i, (earlier, _) in enumerate(crosswalk.layers) if _covers(earlier, pattern)
        )
        assert first == number, f"{pattern} is never reached, {crosswalk.layers[first][0]} takes it"


def _covers(earlier: str, later: str) -> bool:
    return fnmatch.fnmatchcase(later.replace("*", "\x00"), earlier)


CLC = """
111 112 121 122 123 124 131 132 133 141 142 211 212 213 221 222 223 231 241 242 243 244 311 312 313
321 322 323 324 331 332 333 334 335 411 412 421 422 423 511 512 521 522 523
"""


def test_corine_covers_its_44_classes_as_text_number_and_raster_value() -> None:
    codes = CLC.split()
    assert len(codes) == 44
    table = shipped("corine").raster_table()
    for number, code in enumerate(codes, 1):
        by_text = classify("corine", CODE_18=code)
        assert by_text not in {"UNMAPPED", "unknown"}
        assert (
            by_text
            == classify("corine", code_12=int(code))
            == classify("corine", Code_06=float(code))
        )
        # The running number of the raster is the place in the list.
        assert name_of(table[number]) == name_of(table[int(code)]) == by_text
    assert table[48] == UNKNOWN and classify("corine", code_18="999") == "unknown"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("111", "residential"),
        ("121", "commercial"),
        ("122", "road"),
        ("131", "extraction"),
        ("141", "grass"),
        ("142", "sports"),
        ("211", "cropland"),
        ("221", "orchard"),
        ("231", "grassland"),
        ("311", "broadleaf_forest"),
        ("312", "needleleaf_forest"),
        ("313", "mixed_forest"),
        ("322", "shrub"),
        ("331", "sand"),
        ("332", "rock"),
        ("335", "snow_ice"),
        ("411", "wetland"),
        ("511", "river"),
        ("512", "lake"),
        ("523", "sea"),
    ],
)
def test_corine_classes(code: str, expected: str) -> None:
    assert classify("corine", CODE_18=code) == expected


def test_corine_labels_agree_with_the_codes() -> None:
    assert classify("corine", LABEL3="Transitional woodland-shrub") == classify(
        "corine", CODE_18="324"
    )
    assert classify("corine", LABEL3="Sea and ocean") == "sea"
    assert len(set(shipped("corine").rules[1].values)) >= 44
    # Levels 1 and 2 only by the field's name: as numbers they could be a raster's.
    assert classify("corine", CODE_18="31") == "UNMAPPED"
    assert classify("corine", clc_level2="31") == classify("corine", clc_level1=3) == "mixed_forest"


RASTERS: Mapping[str, Mapping[int, str]] = {
    "worldcover": {
        10: "mixed_forest",
        20: "shrub",
        30: "grassland",
        40: "cropland",
        50: "residential",
        60: "bare_ground",
        70: "snow_ice",
        80: "lake",
        90: "wetland",
        95: "broadleaf_forest",
        100: "grassland",
    },
    "nlcd": {
        11: "lake",
        12: "snow_ice",
        21: "grass",
        22: "residential",
        23: "residential",
        24: "commercial",
        31: "bare_ground",
        41: "broadleaf_forest",
        42: "needleleaf_forest",
        43: "mixed_forest",
        51: "shrub",
        52: "shrub",
        71: "grassland",
        72: "grassland",
        73: "grassland",
        74: "grassland",
        81: "grassland",
        82: "cropland",
        90: "mixed_forest",
        95: "wetland",
    },
    "umep": {
        1: "paved",
        2: "building",
        3: "needleleaf_forest",
        4: "broadleaf_forest",
        5: "grass",
        6: "bare_ground",
        7: "lake",
    },
    "asprs": {
        0: "unknown",
        1: "unknown",
        2: "bare_ground",
        3: "grassland",
        4: "shrub",
        5: "tree",
        6: "building",
        7: "unknown",
        9: "lake",
        10: "rail",
        11: "road",
        13: "unknown",
        14: "unknown",
        15: "unknown",
        16: "unknown",
        17: "road",
        18: "unknown",
        19: "unknown",
        20: "bare_ground",
        21: "snow_ice",
        22: "unknown",
    },
    "urban_atlas": {
        11100: "residential",
        11210: "residential",
        11220: "residential",
        11230: "residential",
        11240: "residential",
        11300: "residential",
        12100: "commercial",
        12210: "road",
        12220: "road",
        12230: "rail",
        12300: "commercial",
        12400: "paved",
        13100: "extraction",
        13300: "extraction",
        13400: "bare_ground",
        14100: "grass",
        14200: "sports",
        20000: "cropland",
        21000: "cropland",
        22000: "orchard",
        23000: "grassland",
        24000: "cropland",
        25000: "orchard",
        30000: "mixed_forest",
        31000: "mixed_forest",
        32000: "grassland",
        33000: "bare_ground",
        40000: "wetland",
        50000: "lake",
        91000: "unknown",
        92000: "unknown",
    },
    "earthgen": {0: "unknown", **{land.code: land.name for land in legend.classes()}},
}


@pytest.mark.parametrize("name", sorted(RASTERS))
def test_raster_schemes_cover_their_codes(name: str) -> None:
    table = shipped(name).raster_table()
    assert {code: name_of(table[code]) for code in RASTERS[name]} == RASTERS[name]


def test_schemes_without_rasters_say_nothing_of_them() -> None:
    for name in ("osm", "geofabrik", "bgt", "bdtopo", "generic"):
        assert shipped(name).raster_table() == {}


def test_urban_atlas_reads_every_year() -> None:
    for field in ("CODE2006", "code_2012", "code_2018", "code_2021"):
        assert classify("urban_atlas", **{field: "11210"}) == "residential"
    assert classify("urban_atlas", code_2021="14120") == "grass"
    assert classify("urban_atlas", "DE001L1_BERLIN_UA2018_STL") == "tree"


def test_asprs_reads_polygons_and_the_classes_of_mapping_agencies() -> None:
    assert (
        classify("asprs", Classification=6) == classify("asprs", classification=67.0) == "building"
    )
    assert classify("asprs", Classification="High Vegetation") == "tree"
    assert {64, 65, 66, 67, 26} <= set(shipped("asprs").raster_table())


# (code, fclass) of Geofabrik's document, the themes that cover ground.
GEOFABRIK = """
7201 forest 7202 park 7203 residential 7204 industrial 7206 cemetery 7207 allotments 7208 meadow
7209 commercial
7210 nature_reserve 7211 recreation_ground 7212 retail 7213 military 7214 quarry 7215 orchard 7216
vineyard 7217 scrub
7218 grass 7219 heath 7220 national_park 7228 farmland 7229 farmyard
8200 water 8201 reservoir 8202 river 8203 dock 8211 glacier 8221 wetland 8102 stream 8103 canal
8104 drain
5111 motorway 5112 trunk 5113 primary 5114 secondary 5115 tertiary 5121 unclassified 5123
living_street
5124 pedestrian 5125 busway 5131 motorway_link 5132 trunk_link 5133 primary_link 5134 secondary_link
5135 tertiary_link 5141 service 5142 track 5143 track_grade1 5144 track_grade2 5145 track_grade3
5146 track_grade4
5147 track_grade5 5151 bridleway 5152 cycleway 5153 footway 5154 path 5155 steps
6101 rail 6102 light_rail 6103 subway 6104 tram 6105 monorail 6106 narrow_gauge 6107 miniature
6108 funicular 6109 rack
6111 drag_lift 6112 chair_lift 6113 cable_car 6114 gondola 6115 goods 6119 other_lift
4101 spring 4103 glacier 4111 peak 4112 cliff 4113 volcano 4121 tree 4131 mine 4132 cave_entrance
4141 beach
5201 traffic_signals 5202 mini_roundabout 5203 stop 5204 crossing 5206 motorway_junction 5207
turning_circle
5209 street_lamp 5250 fuel 5260 parking 5261 parking_site 5262 parking_multistorey 5263
parking_underground
5270 parking_bicycle 5301 slipway 5302 marina 5303 pier 5311 dam 5321 waterfall 5331 lock_gate
5332 weir
5601 railway_station 5602 railway_halt 5603 tram_stop 5621 bus_stop 5622 bus_station 5641 taxi
5651 airport
5652 airfield 5655 helipad 5656 apron 5661 ferry_terminal 5671 aerialway_station
1500 building 2082 school 2110 hospital 2204 park 2205 playground 2252 pitch 2253 swimming_pool
2255 golf_course
2256 stadium 2422 camp_site 2501 supermarket 2743 zoo 3100 christian 3200 jewish 3300 muslim
"""


def test_geofabrik_codes_and_fclasses_are_covered_and_agree() -> None:
    words = GEOFABRIK.split()
    pairs = list(zip(words[::2], words[1::2], strict=True))
    assert len(pairs) > 110
    for code, fclass in pairs:
        by_name = classify("geofabrik", fclass=fclass)
        assert by_name != "UNMAPPED", fclass
        assert by_name == classify("geofabrik", code=int(code)), (code, fclass)
        if code < "8200":  # above are areas; `river` is one and a line
            assert width("geofabrik", fclass=fclass) == pytest.approx(
                width("geofabrik", code=code), nan_ok=True
            )


def test_geofabrik_tells_a_residential_street_from_a_residential_area() -> None:
    assert classify("geofabrik", "gis_osm_roads_free_1", code=5122, fclass="residential") == "road"
    assert (
        classify("geofabrik", "gis_osm_landuse_a_free_1", code=7203, fclass="residential")
        == "residential"
    )
    assert classify("geofabrik", code=5113, fclass="primary", tunnel="T") == "unknown"
    assert classify("geofabrik", code=5113, fclass="primary", tunnel="F") == "road"


BGT = """
loofbos; griend en hakhout; gemengd bos; naaldbos; heide; struiken; houtwal; duin; open
duinvegetatie;
gesloten duinvegetatie; grasland overig; moeras; rietland; kwelder; fruitteelt; laagstam
boomgaarden;
hoogstam boomgaarden; wijngaarden; klein fruit; boomteelt; bouwland; akkerbouw; braakliggend;
vollegrondsteelt; bollenteelt; grasland agrarisch; groenvoorziening; bosplantsoen;
gras- en kruidachtigen; planten; struikrozen; heesters; bodembedekkers; erf; gesloten verharding;
asfalt;
cementbeton; kunststof; open verharding; betonstraatstenen; gebakken klinkers; tegels;
sierbestrating;
beton element; half verhard; grasklinkers; schelpen; puin; grind; gravel; onverhard; boomschors;
zand;
strand en strandwal; zandverstuiving; OV-baan; overweg; spoorbaan; baan voor vliegverkeer;
rijbaan autosnelweg; rijbaan autoweg; rijbaan regionale weg; rijbaan lokale weg; fietspad; voetpad;
voetpad op trap; ruiterpad; parkeervlak; voetgangersgebied; inrit; woonerf; berm; verkeerseiland;
zee;
waterloop; rivier; sloot; kanaal; beek; gracht; bron; watervlakte; haven; meer, plas, ven, vijver;
greppel, droge sloot; oever, slootkant; slik; dek; landhoofd; pijler; sloof; pyloon;
hoogspanningsmast;
gemaal; perron; sluis; strekdam; steiger; stuw; keermuur; overkluizing; duiker; faunavoorziening;
vispassage; bodemval; coupure; ponton; voorde; overkapping; open loods; opslagtank; bezinkbak;
windturbine; lage trafo; bassin; schuur; bunker; voedersilo; muur; kademuur; geluidsscherm; damwand;
walbescherming; hek; draadraster; faunaraster; trein; sneltram; tram; (haven)kraan; boom; haag
"""


def test_bgt_covers_the_lists_of_the_catalogue() -> None:
    values = [value.strip() for value in BGT.replace("\n", " ").split(";")]
    assert len(values) > 115
    assert [value for value in values if classify("bgt", landuse=value) == "UNMAPPED"] == []


def test_bgt_reads_the_fields_of_downloads_and_of_citygml() -> None:
    road = {"bgt_functie": "rijbaan lokale weg", "bgt_fysiekvoorkomen": "gesloten verharding"}
    assert classify("bgt", **road) == "road"
    assert classify("bgt", function="voetpad", surfacematerial="open verharding") == "paved"
    assert classify("bgt", **{"class": "waterloop", "plus_type": "waardeOnbekend"}) == "river"
    # The finer value goes first, and an unknown one is passed over.
    assert (
        classify("bgt", **{"class": "groenvoorziening", "plus_fysiekvoorkomen": "heesters"})
        == "shrub"
    )
    assert (
        classify("bgt", **{"class": "groenvoorziening", "plus_fysiekvoorkomen": "waardeOnbekend"})
        == "grass"
    )
    # A verge is what covers it.
    assert classify("bgt", bgt_functie="berm", bgt_fysiekvoorkomen="gesloten verharding") == "paved"
    assert classify("bgt", bgt_functie="berm", bgt_fysiekvoorkomen=None) == "grass"


def test_bgt_leaves_out_history_plans_and_what_is_underground() -> None:
    road = {"bgt_functie": "fietspad"}
    assert (
        classify(
            "bgt", **road, relatievehoogteligging=0, eindregistratie=None, bgt_status="bestaand"
        )
        == "paved"
    )
    assert classify("bgt", **road, relatievehoogteligging=-1) == "unknown"
    assert classify("bgt", **road, eindregistratie="2019-05-01T10:00:00") == "unknown"
    assert classify("bgt", **road, bgt_status="plan") == "unknown"


BDTOPO = """
Haie; Bois; Forêt fermée de feuillus; Forêt fermée de conifères; Forêt fermée mixte; Forêt ouverte;
Lande ligneuse; Peupleraie; Verger; Vigne; Bananeraie; Canne à sucre; Houblonnière; Rizière;
Mangrove;
Marais; Canal; Aqueduc; Conduit buse; Conduit forcé; Delta; Ecoulement canalisé; Ecoulement
endoréique;
Ecoulement naturel; Ecoulement phréatique; Estuaire; Glacier, névé; Lac; Lagune; Mare;
Plan d'eau de gravière; Plan d'eau de mine; Ravine; Réservoir-bassin; Réservoir-bassin d'orage;
Réservoir-bassin piscicole; Retenue; Retenue-barrage; Retenue-bassin portuaire; Retenue-digue;
Type autoroutier; Route à 2 chaussées; Route à 1 chaussée; Route empierrée; Bretelle; Rond-point;
Chemin;
Sentier; Escalier; Piste cyclable; Bac ou liaison maritime; Voie ferrée principale; LGV; Voie de
service;
Tramway; Métro; Funiculaire ou crémaillère; Piste en dur; Piste en herbe; Aérodrome; Altiport;
Héliport;
Bassin de natation; Grand terrain de sport; Petit terrain multi-sports; Piste de sport;
Terrain de tennis; Barrage; Dalle; Ecluse; Pont; Château d'eau; Réservoir d'eau ou château d'eau
au sol;
Réservoir industriel; Indifférenciée; Serre; Silo; Eglise; Industriel, agricole ou commercial;
Enseignement primaire; Hôpital; Zone industrielle; Camping; Carrière; Golf; Stade
"""


def test_bdtopo_covers_the_natures_of_its_themes_with_or_without_accents() -> None:
    for value in (text.strip() for text in BDTOPO.replace("\n", " ").split(";")):
        mapped = classify("bdtopo", NATURE=value)
        assert mapped != "UNMAPPED", value
        assert mapped == classify("bdtopo", nature=value.upper())
        # What a .dbf without a .cpg makes of it.
        assert mapped == classify("bdtopo", NATURE=value.encode("utf-8").decode("latin-1"))


@pytest.mark.parametrize(
    ("layer", "attributes", "expected"),
    [
        ("BATIMENT", {"NATURE": "Indifférenciée", "USAGE1": "Résidentiel"}, "building"),
        ("BATIMENT", {"NATURE": "Château", "USAGE1": "Indifférencié"}, "building"),
        ("batiment", {"usage_1": None, "origine_du_batiment": "Lidar HD"}, "building"),
        ("ZONE_DE_VEGETATION", {"NATURE": "Forêt fermée de conifères"}, "needleleaf_forest"),
        ("ZONE_DE_VEGETATION", {"NATURE": "Haie"}, "tree"),
        ("SURFACE_HYDROGRAPHIQUE", {"NATURE": "Ecoulement naturel", "POS_SOL": "0"}, "river"),
        ("SURFACE_HYDROGRAPHIQUE", {"NATURE": "Inconnue"}, "lake"),
        (
            "TRONCON_HYDROGRAPHIQUE",
            {"NATURE": "Conduit buse", "CLASSE_DE_LARGEUR": "Entre 5 et 15 m"},
            "unknown",
        ),
        ("TRONCON_DE_ROUTE", {}, "road"),
        ("TRONCON_DE_ROUTE", {"NATURE": "Route à 1 chaussée", "POS_SOL": "-1"}, "unknown"),
        ("TRONCON_DE_ROUTE", {"NATURE": "Route à 1 chaussée", "ETAT": "En projet"}, "unknown"),
        ("TRONCON_DE_VOIE_FERREE", {"NATURE": "Sans objet"}, "rail"),
        ("CIMETIERE", {}, "grass"),
        ("RESERVOIR", {"NATURE": "Château d'eau"}, "building"),
        ("ZONE_D_ACTIVITE_OU_D_INTERET", {"NATURE": "Hôpital", "FICTIF": "Oui"}, "unknown"),
        ("ZONE_D_ACTIVITE_OU_D_INTERET", {"NATURE": "Hôpital", "FICTIF": "Non"}, "commercial"),
        ("COMMUNE", {"NOM": "Olemps"}, "unknown"),
    ],
)
def test_bdtopo_layers(layer: str, attributes: dict[str, object], expected: str) -> None:
    assert classify("bdtopo", layer, **attributes) == expected


OSM = {
    "landuse": """
        residential commercial industrial retail construction education institutional religious
        allotments farmland farmyard flowerbed forest meadow orchard vineyard plant_nursery
        greenhouse_horticulture aquaculture salt_pond basin reservoir brownfield greenfield cemetery
        depot garages grass landfill military port quarry railway recreation_ground village_green
        winter_sports fairground animal_keeping paddy logging
    """,
    "natural": """
        wood tree tree_row scrub shrubbery heath moor grassland fell tundra bare_rock scree
        shingle sand
        rock stone mud glacier beach dune shoal reef water wetland bay strait coastline cliff peak
        ridge
        arete saddle valley volcano spring hot_spring geyser cave_entrance sinkhole cape peninsula
        earth_bank crevasse tree_stump
    """,
    "leisure": """
        park garden pitch playground track golf_course sports_centre stadium swimming_pool
        nature_reserve marina common dog_park ice_rink miniature_golf water_park slipway
        horse_riding
        beach_resort fitness_station resort summer_camp bandstand bird_hide firepit fishing
        outdoor_seating schoolyard bathing_place swimming_area
    """,
    "highway": """
        motorway trunk primary secondary tertiary unclassified residential motorway_link trunk_link
        primary_link secondary_link tertiary_link living_street service pedestrian track
        bus_guideway
        escape raceway road busway footway bridleway steps corridor path via_ferrata cycleway
        construction proposed rest_area services platform crossing bus_stop street_lamp
        traffic_signals
        turning_circle
    """,
    "railway": """
        rail light_rail narrow_gauge tram subway monorail funicular miniature preserved disused
        abandoned construction proposed platform station halt turntable level_crossing switch signal
        buffer_stop
    """,
    "waterway": """
        river canal stream ditch drain tidal_channel riverbank fish_pass dam weir waterfall
        lock_gate
        dock boatyard rapids brook fairway pressurised
    """,
    "aeroway": """
        aerodrome runway taxiway apron helipad terminal hangar gate windsock parking_position
    """,
    "water": "river canal stream ditch lake pond reservoir basin oxbow lagoon moat wastewater",
    "wetland": "bog fen marsh reedbed saltmarsh swamp mangrove tidalflat wet_meadow string_bog",
    "barrier": "hedge fence wall city_wall retaining_wall gate bollard kerb",
    "man_made": """
        pier breakwater groyne bridge storage_tank silo water_tower tower chimney wastewater_plant
        water_works works dyke embankment cutline reservoir_covered pipeline tailings_pond
    """,
    "power": "plant substation generator line tower pole cable transformer",
    "amenity": """
        parking school university college kindergarten hospital place_of_worship grave_yard fuel
        marketplace bus_station fountain bench restaurant townhall prison fire_station police
        shelter
    """,
    "leaf_type": "broadleaved needleleaved mixed",
}


@pytest.mark.parametrize("key", sorted(OSM))
def test_osm_covers_the_documented_values_of_a_key(key: str) -> None:
    assert [
        value for value in OSM[key].split() if classify("osm", **{key: value}) == "UNMAPPED"
    ] == []


def test_osm_merged_columns_know_the_values_of_area_keys() -> None:
    for column in ("class", "type", "subclass"):
        for key in ("landuse", "natural"):
            for value in OSM[key].split():
                by_key = classify("osm", **{key: value})
                if by_key not in {"unknown", "shrub"}:
                    assert classify("osm", **{column: value}) in {by_key, "UNMAPPED"}, value
        assert classify("osm", **{column: "forest"}) == "mixed_forest"
    # Values of two keys mean the area, and a line of it has no width to draw it with.
    assert classify("osm", **{"class": "residential"}) == "residential"
    assert np.isnan(width("osm", **{"class": "residential"}))


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"building": "yes", "landuse": "residential", "amenity": "school"}, "building"),
        ({"building": "no", "landuse": "retail"}, "commercial"),
        ({"building": "", "amenity": "parking"}, "paved"),
        ({"building": None, "building:part": "tower"}, "building"),
        ({"natural": "wood"}, "mixed_forest"),
        ({"natural": "wood", "leaf_type": "needleleaved"}, "needleleaf_forest"),
        ({"landuse": "forest", "leaf_type": "broadleaved"}, "broadleaf_forest"),
        ({"landuse": "forest", "leaf_type": "mixed"}, "mixed_forest"),
        ({"natural": "tree", "leaf_type": "needleleaved"}, "tree"),
        ({"natural": "tree_row", "leaf_type": "broadleaved"}, "tree"),
        ({"landuse": "orchard", "leaf_type": "broadleaved"}, "orchard"),
        ({"natural": "scrub", "leaf_type": "broadleaved"}, "shrub"),
        ({"natural": "water"}, "lake"),
        ({"natural": "water", "water": "river"}, "river"),
        ({"natural": "water", "water": "lagoon"}, "sea"),
        ({"natural": "wetland", "wetland": "tidalflat"}, "sand"),
        ({"landuse": "grass", "leisure": "pitch"}, "sports"),
        ({"landuse": "residential", "leisure": "park"}, "residential"),
        ({"leisure": "garden", "barrier": "hedge"}, "grass"),
        ({"barrier": "hedge"}, "tree"),
        ({"barrier": "fence"}, "unknown"),
        ({"highway": "primary"}, "road"),
        ({"highway": "primary", "tunnel": "yes"}, "unknown"),
        ({"highway": "primary", "tunnel": "no"}, "road"),
        ({"highway": "service", "tunnel": "building_passage"}, "road"),
        ({"waterway": "stream", "tunnel": "culvert"}, "unknown"),
        ({"highway": "footway", "area": "yes"}, "paved"),
        ({"amenity": "parking", "parking": "underground"}, "unknown"),
        ({"amenity": "parking", "parking": "surface"}, "paved"),
        ({"place": "island", "natural": "coastline"}, "unknown"),
        ({"class": "forest", "landuse": None, "natural": "wood"}, "mixed_forest"),
        ({"class": "track", "leisure": "track"}, "sports"),
        ({"class": "track"}, "paved"),
        ({"landuse": "something_new"}, "UNMAPPED"),
    ],
)
def test_osm_features_with_several_tags(tags: dict[str, object], expected: str) -> None:
    assert classify("osm", **tags) == expected


def test_osm_lines_have_widths_and_areas_have_none() -> None:
    assert (
        width("osm", highway="motorway")
        > width("osm", highway="residential")
        > width("osm", highway="path")
        > 0
    )
    assert width("osm", waterway="river") > width("osm", waterway="stream") > 0
    assert width("osm", barrier="hedge") == 1.5
    assert np.isnan(width("osm", landuse="residential"))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("buildings", "building"),
        ("OSM_Buildings_2020", "building"),
        ("Gebäude", "building"),
        ("bâtiments", "building"),
        ("hausumringe", "building"),
        ("edificios", "building"),
        ("pand", "building"),
        ("byggnader", "building"),
        ("footprints", "building"),
        ("household_survey", "unknown"),
        ("roads", "road"),
        ("Straßen", "road"),
        ("streets", "road"),
        ("street_trees", "tree"),
        ("streetlights", "unknown"),
        ("broadleaf_forest", "broadleaf_forest"),
        ("trees", "tree"),
        ("arbres", "tree"),
        ("haies", "tree"),
        ("railways", "rail"),
        ("hiking_trails", "paved"),
        ("guard_rails", "unknown"),
        ("waterways", "river"),
        ("rivers", "river"),
        ("water", "lake"),
        ("groundwater_wells", "unknown"),
        ("lakes", "lake"),
        ("parking_lots", "paved"),
        ("parks", "grass"),
        ("transport", "road"),
        ("sports_fields", "sports"),
        ("admin_boundaries", "unknown"),
        ("contours_5m", "unknown"),
        ("grassland", "grassland"),
        ("grass", "grass"),
        ("construction_sites", "extraction"),
        ("unpaved", "bare_ground"),
        ("paved", "paved"),
        ("whatever", "UNMAPPED"),
    ],
)
def test_generic_layer_names(layer: str, expected: str) -> None:
    assert classify("generic", layer) == expected


def test_generic_and_earthgen_know_the_25_classes() -> None:
    for land in legend.classes():
        for field in ("class", "landcover", "semantic", "landuse", "type"):
            assert classify("generic", **{field: land.name}) == land.name
            assert classify("generic", **{field: land.title}) == land.name
        for name in ("generic", "earthgen"):
            assert (
                classify(name, semantic=land.code)
                == classify(name, earthgen=float(land.code))
                == land.name
            )
        for field in ("class", "landcover", "semantic", "code"):
            assert classify("earthgen", **{field: land.name}) == land.name
    assert (
        classify("generic", **{"class": "Wald"})
        == classify("generic", **{"class": "FORÊT"})
        == "mixed_forest"
    )
    # A number in a column that could mean anything is not guessed at.
    for name in ("generic", "earthgen", "asprs"):
        assert (
            classify(name, **{"class": 6})
            == classify(name, code=6)
            == classify(name, gridcode=6)
            == "UNMAPPED"
        )


def histogram(path: Path, crosswalk: str, layer: str | None = None) -> dict[str, int]:
    name = layer or path.stem
    table = pyogrio.read_dataframe(path, layer=layer, read_geometry=False)
    columns = {field: table[field].tolist() for field in table.columns}
    codes, counts = np.unique(
        shipped(crosswalk).classify(columns, name, len(table))[0], return_counts=True
    )
    return {name_of(int(code)): int(count) for code, count in zip(codes, counts, strict=True)}


def test_every_class_of_the_bayreuth_land_use_is_mapped(shared: Path) -> None:
    path = shared / "osm_bayreuth_srtm" / "landuse_4326.shp"
    found = histogram(path, "osm")
    assert "UNMAPPED" not in found and "unknown" not in found
    assert sum(found.values()) == 1107
    assert found["residential"] == 168 + 36  # residential and farmyards
    assert found["orchard"] == found["wetland"] == 1
    # The merged column alone says as much.
    merged = pyogrio.read_dataframe(path, columns=["class"], read_geometry=False)["class"].tolist()
    codes, _ = shipped("osm").classify({"class": merged}, "landuse_4326", len(merged))
    assert not np.isin(codes, [UNMAPPED, UNKNOWN]).any()


def test_bayreuth_lines_and_buildings_are_mapped(shared: Path) -> None:
    path = shared / "osm_bayreuth_srtm" / "osm_4326.gpkg"
    assert histogram(path, "osm", "buildings") == {"building": 4267}
    lines = histogram(path, "osm", "lines")
    assert set(lines) == {"road", "paved", "river"} and lines["river"] == 228


def test_delft_is_mapped_raw_and_merged(shared: Path) -> None:
    folder = shared / "delft_ahn3_bgt"
    merged = histogram(folder / "delft_landuse_merged.gpkg", "bgt", "landuse")
    assert merged == {
        "building": 160,
        "grass": 168,
        "paved": 157,
        "road": 32,
        "bare_ground": 4,
        "river": 3,
    }
    for path in sorted(folder.glob("*.sqlite")):
        layer = str(pyogrio.list_layers(path)[0][0])
        assert "UNMAPPED" not in histogram(path, "bgt", layer), path.name
    assert histogram(folder / "bgt_pand.sqlite", "bgt", "buildingpart") == {"building": 160}
    assert histogram(folder / "bgt_wegdeel.sqlite", "bgt", "trafficarea") == {
        "road": 32,
        "paved": 119,
    }


def test_bdtopo_of_olemps_is_mapped_in_spite_of_its_encoding(shared: Path) -> None:
    folder = shared / "bdtopo_olemps_vectors"
    found = {
        path.stem: histogram(path, "bdtopo")
        for path in sorted(folder.glob("*.shp"))
        if path.with_suffix(".dbf").exists()
    }
    assert len(found) == 7
    assert all("UNMAPPED" not in counts for counts in found.values())
    assert found["BATIMENT"] == {"building": 2273}
    assert found["ZONE_DE_VEGETATION"]["tree"] == 423
    assert found["ZONE_DE_VEGETATION"]["needleleaf_forest"] == 2
    assert found["COMMUNE"] == {"unknown": 1}


def test_umep_rasters_are_mapped(shared: Path) -> None:
    table = shipped("umep").raster_table()
    for name in (
        "umep_goteborg_annedal/groundcover.tif",
        "umep_goteborg_kr/landcover.tif",
        "umep_goteborg_torgg/torgg_lc.tif",
    ):
        with rasterio.open(shared / name) as source:
            values = np.unique(source.read(1, masked=True).compressed()).astype(int)
        assert set(values.tolist()) <= set(table), name


def test_a_users_legend_is_read_and_its_first_rule_wins(tmp_path: Path) -> None:
    mine = legend.load_crosswalk(
        write(
            tmp_path,
            """
rules:
  - field: [Use, zweck]
    values: {Straße: road, 3: rock, unknown thing: unknown}
    widths: {straße: 4.5}
  - field: cover
    values: {"*": grass, none of these: building}
layers:
  "TREES_*": tree
""",
        )
    )
    assert (mine.name, mine.title, mine.licence) == ("mine", "mine", "not stated")
    columns: dict[str, list[object]] = {
        "USE": ["STRASSE", 3.0, "3", "else", "unknown thing", None, float("nan")],
        "cover": ["x", "x", "x", "x", "x", "no", ""],
    }
    codes, widths = mine.classify(columns, "other", 7)
    expected = ["road", "rock", "rock", "grass", "unknown", "UNMAPPED", "UNMAPPED"]
    assert [name_of(int(code)) for code in codes] == expected
    assert codes.dtype == np.uint8 and widths.dtype == np.float64
    assert widths[0] == 4.5 and np.isnan(widths[1:]).all()
    # Only what no rule maps takes the layer's class, and a known nothing stays nothing.
    assert [name_of(int(code)) for code in mine.classify(columns, "trees_2020", 7)[0]] == [
        *expected[:5],
        "tree",
        "tree",
    ]
    assert mine.classify({}, "Trees_X", 2)[0].tolist() == [legend.codes()["tree"]] * 2


def test_a_rule_reads_the_first_of_its_fields_that_the_layer_has(tmp_path: Path) -> None:
    mine = legend.load_crosswalk(
        write(tmp_path, "rules: [{field: [a, b], values: {x: rock, y: sand}}]")
    )
    assert mine.classify({"B": ["x"], "A": ["y"]}, "l", 1)[0].tolist() == [legend.codes()["sand"]]
    assert mine.classify({"B": ["x"]}, "l", 1)[0].tolist() == [legend.codes()["rock"]]
    assert [field for field, _ in mine.matching_rules(["B", "c"])] == ["B"]


def test_the_star_means_present_and_not_listed(tmp_path: Path) -> None:
    mine = legend.load_crosswalk(
        write(tmp_path, 'rules: [{field: b, values: {"*": building, shed: tree}}]')
    )
    values = ["yes", "shed", 7, "no", "No ", "", " ", None, float("nan"), "null", "None"]
    codes = mine.classify({"b": values}, "l", len(values))[0]
    assert [name_of(int(code)) for code in codes] == ["building", "tree", "building"] + [
        "UNMAPPED"
    ] * 8


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Forêt", "foret"),
        ("ForÃªt", "foret"),
        ("  FORÊT ", "foret"),
        ("Straße", "strasse"),
        ("Łąka", "łaka"),
        (3, "3"),
        (3.0, "3"),
        (np.int16(3), "3"),
        (np.float64(3.0), "3"),
        ("03", "03"),
        (3.5, "3.5"),
        (True, "true"),
        (None, ""),
        ("лес", "лес"),
    ],
)
def test_values_are_compared_without_accents_case_and_mojibake(raw: object, expected: str) -> None:
    assert legend.normalise(raw) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rules: [{field: a, values: {x: forrest}}]", "forrest"),
        ("layers: {x: treees}", "treees"),
        ("rules: [{field: a, values: {x: 10}}]", "10"),
        ("rules: [\n", "not YAML"),
        ("a: b: c", "not YAML"),
        ("just words", "neither"),
        ("", "neither"),
        ("name: x", "neither"),
        ("rules: [{field: a}]", "rule 1"),
        ("rules: [{values: {x: rock}}]", "rule 1"),
        ("rules: [{field: a, values: [x]}]", "rule 1"),
        ("rules: []\nlayer: {x: rock}", "layer"),
    ],
)
def test_a_wrong_legend_is_an_error_that_names_the_file_and_the_fault(
    tmp_path: Path, text: str, says: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        legend.load_crosswalk(path)
    assert str(path) in caught.value.problem and says in caught.value.problem
    assert caught.value.remedy
    assert isinstance(caught.value, EarthgenError)


def test_a_missing_legend_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"absent\.yaml"):
        legend.load_crosswalk(tmp_path / "absent.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00rules")
    with pytest.raises(InputError, match=r"binary\.yaml"):
        legend.load_crosswalk(binary)


def test_a_raster_table_takes_whole_numbers_only(tmp_path: Path) -> None:
    mine = legend.load_crosswalk(
        write(tmp_path, "rules: [{field: [x, value], values: {1: rock, -2: sand, wood: tree}}]")
    )
    assert mine.raster_table() == {1: legend.codes()["rock"], -2: legend.codes()["sand"]}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"rules": 3}, "rules.*must be a list"),
        ({"layers": ["a"]}, "layers.*must be a mapping"),
        (
            {"rules": [{"field": "a", "values": {"x": "road"}, "widths": {"x": "wide"}}]},
            "'wide'.*metres",
        ),
        (
            {"rules": [{"field": "a", "values": {"x": "road"}, "widths": ["x"]}]},
            "widths.*must be a mapping",
        ),
        ({"rules": [{"field": "a"}]}, "needs `field` and `values`"),
        ({"rulez": []}, "neither `rules` nor `layers`"),
    ],
)
def test_a_malformed_legend_is_a_named_error(document: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_crosswalk(document, "mine.yaml")


def test_cell_values_are_no_attribute() -> None:
    crosswalk = parse_crosswalk({"rules": [{"field": "value", "values": {1: "road"}}]}, "mine.yaml")
    assert crosswalk.raster_table() == {1: codes()["road"]}
    assert crosswalk.matching_rules(["value", "VALUE"]) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [("311.0", "311"), ("311.00", "311"), ("-2.0", "-2"), ("3.10", "3.10"), ("1.0.0", "1.0.0")],
)
def test_whole_numbers_as_text(value: str, text: str) -> None:
    assert legend.normalise(value) == text


def test_codes_as_text_with_a_point() -> None:
    assert classify("corine", CODE_18="311.0") == "broadleaf_forest"


def test_colours_and_names_of_rasters_are_checked(tmp_path: Path) -> None:
    rules = "rules: [{field: value, values: {1: grass}}]"
    path = write(tmp_path, rules + "\ncolors: {1: '#00ff00'}\nrasters: ['*Mine*']")
    found = legend.load_crosswalk(path)
    assert found.colors == {1: (0, 255, 0)} and found.rasters == ("*mine*",)
    for wrong in ("colors: {1: green}", "colors: [1]", "rasters: mine", "colors: {a: '#00ff00'}"):
        with pytest.raises(InputError, match=r"legend .*mine\.yaml"):
            legend.load_crosswalk(write(tmp_path, f"{rules}\n{wrong}"))
