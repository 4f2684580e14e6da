"""CityJSON as scenes, compared with a hand-made house: voxels, classes, levels of detail, textures,
and bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from earthgen.dataset.crop import Crop
from earthgen.dataset.readers.city_json import (
    CLASSES,
    GROUND_TYPES,
    PARTS,
    UNDERGROUND,
    is_city_json,
    open_city,
)
from earthgen.dataset.readers.city_looks import Appearance, patches_of
from earthgen.dataset.readers.city_surfaces import Surface, surfaces_of
from earthgen.dataset.readers.local_files import local_file
from earthgen.dataset.readers.polygons import triangulate
from earthgen.dataset.readers.triangles import FOOT, SURFACE, TERRAIN, plain_patch, sample
from earthgen.errors import JobError
from geo_io.errors import InputError, MissingCrsError, MissingFileError
from geo_io.legend import codes
from tests.helpers.dataset_places import CRS, EAST, NORTH, village, write_raster
from tests.helpers.mesh_places import (
    BASE,
    COURT,
    EAVES,
    GROUND,
    OUTER,
    ROOF,
    WALL,
    City,
    build,
    house,
    house_city,
    ring,
    walls,
    whole,
    write_obj,
)

CODE = codes()


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Crop:
    folder = tmp_path_factory.mktemp("obj")
    write_obj(folder / "house.obj")
    return whole(build(folder, mesh="house.obj", crs=CRS, mesh_offset=(EAST, NORTH, BASE)))


def coloured() -> dict[str, Any]:
    return {
        "materials": [
            {"name": str(n), "diffuseColor": [c / 255 for c in rgb]}
            for n, rgb in enumerate((ROOF, WALL, GROUND))
        ]
    }


def test_a_house_with_a_court_is_the_same_as_by_hand(tmp_path: Path, by_hand: Crop) -> None:
    city = house_city(appearance=coloured())
    kinds = [kind for kind, _ in house()]
    look = ["RoofSurface", "WallSurface", "GroundSurface"]
    city.objects["house"]["geometry"][0]["material"] = {
        "theme": {"values": [[look.index(kind) for kind in kinds]]}
    }
    city.objects["ground"]["geometry"][0]["material"] = {"theme": {"value": 2}}
    city.write(tmp_path / "house.city.json")
    scene = build(tmp_path, mesh="house.city.json")
    found = whole(scene)
    assert scene.frame.crs == CRS and scene.frame.bounds == (EAST, NORTH, EAST + 40, NORTH + 40)
    assert np.array_equal(found.xyz, by_hand.xyz) and np.array_equal(found.normal, by_hand.normal)
    # Both are float64 sums of the same few numbers, and float32 in the end.
    assert np.allclose(found.ground, by_hand.ground, atol=1e-4) and np.allclose(
        found.height, by_hand.height, atol=1e-4
    )
    # Where a wall meets the roof or the ground, samples of both are mixed in other shares.
    alike = (np.abs(found.rgb.astype(int) - by_hand.rgb) <= 2).all(axis=1)
    assert alike.mean() > 0.9 and np.array_equal(found.rgb_known, by_hand.rgb_known)
    court = (found.cover[18:23, 15:21], found.height[18:23, 15:21])
    assert (court[0] != CODE["building"]).all() and (court[1] == 0).all()
    assert (found.cover[22:29, 9:14] == CODE["building"]).all() and np.allclose(
        found.height[22:29, 9:14], EAVES
    )
    assert set(found.semantic[found.xyz[:, 2] > 0]) == {CODE["building"]}


@pytest.mark.parametrize(
    "change",
    [
        {"version": "1.0", "metadata": {"referenceSystem": "urn:ogc:def:crs:EPSG::32632"}},
        {"version": "1.1"},
        {"version": "2.0.1"},
    ],
)
def test_versions(tmp_path: Path, by_hand: Crop, change: dict) -> None:
    city = house_city(**change)
    if change["version"] == "1.0":  # numbers as levels, and no integers
        city.header.pop("transform")
        city.points = (np.array(city.points) / 1000 + (EAST, NORTH, BASE)).tolist()
        for item in city.objects.values():
            item["geometry"][0]["lod"] = float(item["geometry"][0]["lod"])
    city.write(tmp_path / "house.json")
    assert np.array_equal(whole(build(tmp_path, mesh="house.json")).xyz, by_hand.xyz)


def test_a_sequence_of_features(tmp_path: Path, by_hand: Crop) -> None:
    header = City().document() | {"CityObjects": {}, "vertices": []}
    parts = []
    for name in ("ground", "house"):
        city = City()
        city.ground() if name == "ground" else city.add("house", "Building", city.solid(house()))
        parts.append(
            {
                "type": "CityJSONFeature",
                "id": name,
                "CityObjects": city.objects,
                "vertices": city.points,
            }
        )
    lines = "\n".join(json.dumps(each) for each in (header, *parts)) + "\n"
    (tmp_path / "house.city.jsonl").write_text(lines)
    assert np.array_equal(whole(build(tmp_path, mesh="house.city.jsonl")).xyz, by_hand.xyz)
    (tmp_path / "bad.jsonl").write_text(lines.replace("CityJSONFeature", "Feature"))
    with pytest.raises(InputError, match=r"line 2 of .*'Feature'"):
        open_city(tmp_path / "bad.jsonl")
    (tmp_path / "cut.jsonl").write_text(lines[:-50])
    with pytest.raises(InputError, match=r"line 3 of .*damaged"):
        open_city(tmp_path / "cut.jsonl")


@pytest.mark.parametrize(
    "kind", ["MultiSurface", "CompositeSurface", "MultiSolid", "CompositeSolid"]
)
def test_other_geometries(tmp_path: Path, by_hand: Crop, kind: str) -> None:
    city = City()
    city.ground()
    solid = city.solid(house())
    inner, values = solid["boundaries"], solid["semantics"]["values"]
    surface = kind.endswith("Surface")
    solid |= {"type": kind, "boundaries": inner[0] if surface else [inner]}
    solid["semantics"]["values"] = values[0] if surface else [values]
    city.add("house", "Building", solid)
    city.write(tmp_path / "house.city.json")
    assert np.array_equal(whole(build(tmp_path, mesh="house.city.json")).xyz, by_hand.xyz)


def test_the_highest_level_of_detail_is_taken(tmp_path: Path, by_hand: Crop) -> None:
    city = City()
    city.ground()
    block = [
        ("", [ring(OUTER, 30.0)]),
        *[("", [quad * (1, 1, 30 / EAVES)]) for quad in walls(OUTER)],
    ]
    points = {"type": "MultiPoint", "lod": "3", "boundaries": [0]}
    city.add(
        "house", "Building", city.solid(block, lod="1.2"), city.solid(house(), lod="2.2"), points
    )
    city.write(tmp_path / "a.city.json")
    assert np.array_equal(whole(build(tmp_path, mesh="a.city.json")).xyz, by_hand.xyz)
    # A block whose parts say more is not taken; one whose chimney says more is.
    city.add("house", "Building", city.solid(block, lod="1.2"), children=["part"])
    city.add("part", "BuildingPart", city.solid(house(), lod="2.2"), parents=["house"])
    city.write(tmp_path / "b.city.json")
    assert np.array_equal(whole(build(tmp_path, mesh="b.city.json")).xyz, by_hand.xyz)
    city.objects["part"]["type"] = "BuildingInstallation"
    city.write(tmp_path / "c.city.json")
    assert whole(build(tmp_path, mesh="c.city.json")).height.max() == pytest.approx(30)


@pytest.mark.parametrize("named", [True, False])
def test_without_terrain_the_feet_of_buildings_are_the_ground(tmp_path: Path, named: bool) -> None:
    city = City()
    city.add(
        "house", "Building", city.solid([(kind if named else "", rings) for kind, rings in house()])
    )
    city.write(tmp_path / "house.city.json")
    crop = whole(build(tmp_path, mesh="house.city.json"))
    assert np.allclose(crop.ground[crop.valid], BASE, atol=1e-3)
    assert crop.height.max() == pytest.approx(EAVES, abs=1e-3) and not crop.valid[0, 0]
    # With a dtm what lies between is ground, and the scene is whole.
    write_raster(tmp_path / "dtm.tif", village()["ground"] * 0 + np.float32(BASE))
    bounds = (EAST, NORTH, EAST + 64, NORTH + 64)
    crop = whole(build(tmp_path, mesh="house.city.json", dtm="dtm.tif", bounds=bounds))
    assert (
        crop.valid.all()
        and (crop.height[:20] == 0).all()
        and (crop.cover == CODE["building"]).sum() > 300
    )


def test_types_become_classes(tmp_path: Path) -> None:
    assert set(CLASSES.values()) <= set(CODE) and set(PARTS) <= set(CLASSES)
    assert "LandUse" in GROUND_TYPES and "Tunnel" in UNDERGROUND
    city = City()
    strips = {"Road": 0, "Railway": 8, "WaterBody": 16, "PlantCover": 24, "LandUse": 32}
    for kind, south in strips.items():
        city.add(kind, kind, city.sheet([[ring((0, south, 40, south + 8), 0.0)]]))
    city.add(
        "hedge",
        "PlantCover",
        city.solid([("", [r]) for r in (ring((2, 2, 6, 6), 3.0), *box_walls(2, 2, 6, 6, 3))]),
    )
    deck = city.sheet([[ring((20, 0, 24, 40), 8.0)], [ring((20, 0, 24, 40), 7.0, down=True)]])
    city.add("bridge", "Bridge", deck)
    city.add("tube", "Tunnel", city.sheet([[ring((0, 0, 40, 40), 50.0)]]))
    city.write(tmp_path / "town.city.json")
    crop = whole(build(tmp_path, mesh="town.city.json"))
    for kind, name in (
        ("Road", "road"),
        ("Railway", "rail"),
        ("WaterBody", "lake"),
        ("PlantCover", "grassland"),
        ("LandUse", "bare_ground"),
    ):
        assert (
            crop.cover[40 - strips[kind] - 7 : 40 - strips[kind] - 1, 8:19] == CODE[name]
        ).all(), kind
    assert crop.cover[36, 4] == CODE["shrub"] and crop.height.max() == pytest.approx(8)
    assert (crop.cover[:, 21] == CODE["road"]).all()  # a deck stays a road, whatever it crosses
    under = (crop.local[:, 0] == 26) & (crop.local[:, 2] - 16 == -1) & (crop.local[:, 1] == 18)
    assert crop.semantic[under] == CODE["lake"]
    below = (crop.local[:, 0] == 21) & (crop.local[:, 2] - 16 == -1) & (crop.local[:, 1] == 18)
    assert crop.semantic[below] == CODE["lake"]  # and beneath it is what is there


def box_walls(
    west: float, south: float, east: float, north: float, high: float
) -> list[np.ndarray]:
    return [quad * (1, 1, high / EAVES) for quad in walls((west, south, east, north))]


def test_virtual_surfaces_are_open(tmp_path: Path) -> None:
    """A carport whose sides are ClosureSurfaces: air comes in below its roof."""
    city = City()
    city.ground()
    sides = [("ClosureSurface", [quad]) for quad in box_walls(10, 10, 20, 20, 3)]
    under = ("OuterCeilingSurface", [ring((10, 10, 20, 20), 2.9, down=True)])
    city.add(
        "carport",
        "Building",
        city.solid([("RoofSurface", [ring((10, 10, 20, 20), 4.0)]), under, *sides]),
    )
    city.write(tmp_path / "a.city.json")
    crop = whole(build(tmp_path, mesh="a.city.json"))
    level = crop.local[(crop.local[:, 0] == 15) & (crop.local[:, 1] == 15), 2] - 16
    assert sorted(level.tolist()) == [-1, 3]


def test_templates_stand_where_they_are_told(tmp_path: Path) -> None:
    crown = {"type": "MultiSurface", "lod": "2", "boundaries": [[[0, 1, 2, 3]], [[4, 5, 6, 7]]]}
    square = [[-1.9, -1.9, 6.2], [1.9, -1.9, 6.2], [1.9, 1.9, 6.2], [-1.9, 1.9, 6.2]]
    points = square + [[x, y, 3.2] for x, y, _ in square[::-1]]
    city = City(**{"geometry-templates": {"templates": [crown], "vertices-templates": points}})
    city.ground()
    (place,) = city.rings([np.array([[30.0, 12.0, 0.0]])])
    mirror = [[-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    instance = {
        "type": "GeometryInstance",
        "template": 0,
        "boundaries": place,
        "transformationMatrix": np.array(mirror).ravel().tolist(),
    }
    city.add("tree", "SolitaryVegetationObject", instance)
    city.write(tmp_path / "a.city.json")
    crop = whole(build(tmp_path, mesh="a.city.json"))
    tall = crop.height > 1
    assert (
        crop.height.max() == pytest.approx(6.2, abs=1e-3)
        and (crop.cover[tall] == CODE["tree"]).all()
    )
    assert tall[28, 30] and tall.sum() == 16
    up = (crop.local == (30, 12, 16 + 5)).all(
        axis=1
    )  # a mirror has not turned the crown inside out
    assert crop.normal[up][0, 2] > 0.7


def test_pictures_are_laid_on_roofs(tmp_path: Path) -> None:
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[:] = [[(255, 0, 0), (0, 255, 0)], [(0, 0, 255), (255, 255, 0)]]
    (tmp_path / "looks").mkdir()
    Image.fromarray(picture).save(tmp_path / "looks" / "p.png")
    looks = {
        "textures": [{"type": "PNG", "image": "looks/p.png"}],
        "vertices-texture": [[0, 0], [1, 0], [1, 1], [0, 1]],
    }
    city = City(appearance=looks)
    sheet = city.sheet([[ring((0, 0, 32, 32), 0.0)], [ring((32, 0, 40, 40), 0.0)]])
    sheet["texture"] = {"theme": {"values": [[[0, 0, 1, 2, 3]], [[None]]]}}
    city.add("square", "TransportSquare", sheet)
    city.write(tmp_path / "a.city.json")
    crop = whole(build(tmp_path, mesh="a.city.json"))
    assert crop.image[12, 4].tolist() == [255, 0, 0] and crop.image[12, 28].tolist() == [0, 255, 0]
    assert crop.image[36, 4].tolist() == [0, 0, 255] and crop.image[36, 28].tolist() == [
        255,
        255,
        0,
    ]
    assert (
        not crop.image_known[:, 34:].any()
        and (crop.cover[:, :32][crop.valid[:, :32]] == CODE["paved"]).all()
    )
    for name, error, said in (
        ("../p.png", InputError, "outside the folder"),
        (
            "p.png",
            MissingFileError,
            "p.png, which does not exist. fetch it, or remove the textures",
        ),
        ("https://a.org/p.png", InputError, "network"),
        ("/etc/p.png", InputError, "outside"),
        ("a.city.json", InputError, "cannot be read"),
    ):
        city.header["appearance"]["textures"][0]["image"] = name
        city.write(tmp_path / "a.city.json")
        with pytest.raises(error, match=said):
            build(tmp_path, mesh="a.city.json")


def test_places_in_pictures_turn_with_their_ring() -> None:
    upside_down = ring((0, 0, 2, 2), 0.0, down=True)
    surface = Surface((upside_down,), texture=(0, (3, 2, 1, 0))).facing_up()
    assert np.array_equal(surface.rings[0], ring((0, 0, 2, 2), 0.0)) and surface.texture == (
        0,
        (0, 1, 2, 3),
    )
    assert Surface((upside_down,)).looks_down_below(0.1) and not surface.looks_down_below(0.1)
    assert surface.of_class(18, FOOT).role == FOOT


def damaged(**change: Any) -> City:
    city = house_city()
    for key, value in change.items():
        city.header[key.replace("_", "-")] = value
    return city


@pytest.mark.parametrize(
    ("header", "error", "said"),
    [
        ({"version": "0.9"}, InputError, "CityJSON 0.9; 1.0, 1.1, 2.0 are read"),
        ({"version": "3.0"}, InputError, "upgrade"),
        ({"type": "CityJSONX"}, InputError, "not CityJSON"),
        ({"metadata": {}}, MissingCrsError, "referenceSystem"),
        ({"metadata": {"referenceSystem": "EPSG:4979"}}, InputError, "geographic"),
        ({"metadata": {"referenceSystem": "EPSG:2263"}}, InputError, "not in metres"),
        ({"metadata": {"referenceSystem": "EPSG:32632+8228"}}, InputError, "heights of .* in foot"),
        ({"metadata": {"referenceSystem": "EPSG:nothing"}}, InputError, "not understood"),
        ({"transform": {"scale": [1, 1, 1]}}, InputError, "no scale and translate"),
        ({"transform": {"scale": [1, 1], "translate": [0, 0, 0]}}, InputError, "triples"),
        (
            {"appearance": {"materials": [{"diffuseColor": ["red"]}]}},
            InputError,
            "appearance .* damaged",
        ),
    ],
)
def test_bad_headers_have_a_name(tmp_path: Path, header: dict, error: type, said: str) -> None:
    damaged(**header).write(tmp_path / "a.cityjson")
    with pytest.raises(error, match=said) as caught:
        build(tmp_path, mesh="a.cityjson")
    assert "a.cityjson" in str(caught.value) and "\n" not in str(caught.value)


def test_bad_bodies_have_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a.city.json"

    def refused(said: str, error: type = InputError) -> None:
        with pytest.raises(error, match=said) as caught:
            build(tmp_path, mesh=path.name)
        assert "\n" not in str(caught.value)

    document = house_city().document()
    text = json.dumps(document)
    path.write_text(text[:-100])
    refused("damaged")
    path.write_text("[1, 2]")
    refused("neither CityJSON nor a tileset", InputError)
    path.write_text(json.dumps({**document, "vertices": document["vertices"][:-1]}))
    refused(r"object house of .*names vertex \d+ of \d+")
    path.write_text(json.dumps({**document, "vertices": None}))
    refused("no `vertices`")
    path.write_text(json.dumps({**document, "vertices": [[1, 2, "x"]]}))
    refused("triples")
    path.write_text(json.dumps({**document, "CityObjects": {"house": 5}}))
    refused("an object")
    path.write_text(json.dumps({**document, "CityObjects": {}}))
    refused("holds no surfaces")
    for change in (
        {"type": "Pyramid"},
        {"boundaries": [[[["a", "b", "c"]]]]},
        {"boundaries": None},
        {"lod": "x"},
    ):
        bad = json.loads(text)
        bad["CityObjects"]["house"]["geometry"][0] |= change
        path.write_text(json.dumps(bad))
        refused("object house of .* is damaged")
    bad = json.loads(text)
    bad["CityObjects"]["house"]["geometry"][0]["material"] = {"t": {"value": 3}}
    path.write_text(json.dumps(bad))
    refused("no material 3")
    bad["CityObjects"]["house"]["geometry"][0] = {
        "type": "GeometryInstance",
        "template": 0,
        "boundaries": [0],
    }
    path.write_text(json.dumps(bad))
    refused("object house of .* is damaged")


def test_crs_of_file_and_recipe(tmp_path: Path, by_hand: Crop) -> None:
    house_city().write(tmp_path / "a.city.json")
    with pytest.raises(InputError, match=r"the CRS of .* is EPSG:32632, but the recipe"):
        build(tmp_path, mesh="a.city.json", crs="EPSG:25832")
    house_city(metadata={}).write(tmp_path / "bare.city.json")
    assert np.array_equal(whole(build(tmp_path, mesh="bare.city.json", crs=CRS)).xyz, by_hand.xyz)
    moved = build(tmp_path, mesh="a.city.json", target="EPSG:3035")
    assert moved.frame.crs == "EPSG:3035" and (whole(moved).cover == CODE["building"]).sum() > 300
    write_obj(tmp_path / "a.obj")
    plain = build(
        tmp_path, mesh="a.obj", crs=CRS, mesh_offset=(EAST, NORTH, BASE), target="EPSG:3035"
    )
    # Plain meshes too go to the CRS of the scene. Where the turned rim of the ground only touches a
    # column, the pattern of the triangles decides whether it has a sample.
    one, other = ({tuple(voxel) for voxel in whole(each).xyz.tolist()} for each in (plain, moved))
    assert len(one ^ other) <= 4 < 2000 < len(one & other)


def test_heights_keep_their_datum(tmp_path: Path) -> None:
    place = {"scale": [0.001] * 3, "translate": [120_000, 480_000, 5]}
    dutch = {"referenceSystem": "https://www.opengis.net/def/crs/EPSG/0/7415"}
    house_city(metadata=dutch, transform=place).write(tmp_path / "a.city.json")
    scene = build(tmp_path, mesh="a.city.json")
    assert scene.frame.crs == "EPSG:28992" and scene.frame.vertical_crs == "EPSG:5709"
    assert (
        build(tmp_path, mesh="a.city.json", mesh_offset=(0, 0, 1.0)).frame.vertical_crs == "unknown"
    )
    house_city(metadata={"referenceSystem": "EPSG:32632+3855"}).write(tmp_path / "b.city.json")
    write_raster(tmp_path / "dtm.tif", village()["ground"], crs="EPSG:32632+5773")
    with pytest.raises(JobError, match=r"in EPSG:3855, those of its dtm in EPSG:5773.*mesh_offset"):
        build(tmp_path, mesh="b.city.json", dtm="dtm.tif")
    house_city().write(tmp_path / "c.city.json")
    with pytest.raises(JobError, match="EPSG:3855, unknown"):
        build(tmp_path, mesh=["b.city.json", "c.city.json"])


def area(corners: np.ndarray) -> np.ndarray:
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).sum(axis=0) / 2


def test_polygons_become_triangles() -> None:
    far = np.array([6e5, 5e6, 100.0])
    roof = [ring(OUTER, EAVES) + far, ring(COURT, EAVES, down=True) + far]
    steep = [
        points[:, [2, 0, 1]]
        for points in (ring((0, 0, 4, 4), 1.0), ring((1, 1, 2, 2), 1.0, down=True))
    ]
    ell = np.array([[0, 0, 0], [4, 0, 0], [4, 1, 0], [1, 1, 0], [1, 4, 0], [0, 4, 0]], float)
    tilted = ell + ell[:, :1] * (0, 0, 0.5)
    bow = np.array(
        [[0, 0, 0], [4, 0, 4], [4, 4, 4], [1, -1, 1]], float
    )  # crosses itself, in the plane z = x
    flat = np.zeros((4, 3))
    found = triangulate(
        [roof, steep, [tilted], [bow], [flat], [ring(OUTER, 0.0, down=True)], [ell[:3]]]
    )
    part = [found.corners[found.owner == n] for n in range(7)]
    assert np.allclose(area(part[0]), (0, 0, 22 * 18 - 8 * 7)) and np.allclose(
        area(part[1]), (15, 0, 0)
    )
    assert np.allclose(area(part[2]), (-3.5, 0, 7)) and len(part[2]) == 4
    assert np.allclose(part[3][..., 2], part[3][..., 0]) and len(part[3]) >= 2
    assert len(part[4]) == 0 and np.allclose(area(part[5]), (0, 0, -22 * 18)) and len(part[6]) == 1
    corner = np.concatenate(roof)[found.source[found.owner == 0]]
    assert np.array_equal(corner, part[0])  # corners keep their places, to the bit
    assert len(triangulate([]).corners) == 0 and len(triangulate([[flat]]).owner) == 0


def test_many_points_find_their_corners() -> None:
    turn = np.linspace(0, 2 * np.pi, 900, endpoint=False)
    star = np.stack(
        [
            (5 + (np.arange(900) % 2)) * np.cos(turn),
            (5 + (np.arange(900) % 2)) * np.sin(turn),
            0 * turn,
        ],
        1,
    )
    found = triangulate([[star]])
    assert len(found.corners) == 898 and np.array_equal(star[found.source], found.corners)


def test_surfaces_of_geometries() -> None:
    points = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
    sheet = {
        "type": "MultiSurface",
        "boundaries": [[[0, 1, 2, 3], [0, 1]], [[0, 1]]],
        "semantics": {"surfaces": [{"type": "RoofSurface"}], "values": [0, None]},
    }
    (only,) = surfaces_of(sheet, points)  # rings of two points are none
    assert only.kind == "RoofSurface" and len(only.rings) == 1
    assert np.array_equal(surfaces_of(sheet, points, mirrored=True)[0].rings[0], points[::-1])
    with pytest.raises(IndexError, match="vertex 9 of 4"):
        surfaces_of({**sheet, "boundaries": [[[0, 1, 9]], [[0, 1, 2]]]}, points)
    looks = Appearance.of({}, Path("a"))
    (patch,) = patches_of([only], looks, Path("a"))
    assert len(patch) == 2 and not patch.seen.any() and (patch.role == SURFACE).all()


def test_patches_are_cropped_and_sampled() -> None:
    patch = plain_patch(
        np.array([[[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[9, 9, 0], [10, 9, 0], [9, 10, 0]]], float),
        role=np.array([TERRAIN, FOOT], np.uint8),
    )
    assert len(patch.within(None, 0)) == 2 and patch.within((5, 5, 20, 20), 1.0).role.tolist() == [
        FOOT
    ]
    assert len(patch.within((5, 5, 20, 20), 4.0)) == 2
    samples = sample([patch, patch.select(np.zeros(2, bool))], 1.0)
    assert (
        np.allclose(samples.normal, (0, 0, 1))
        and len(samples) == 42
        and len(samples.select(samples.at[:, 0] > 5)) == 21
    )
    assert len(sample([], 1.0)) == 0
    with pytest.raises(JobError, match="larger voxels"):
        sample(
            [patch.select(np.zeros(9, int)).moved(np.repeat(patch.corners[:1] * 1e5, 9, axis=0))],
            0.1,
        )


def test_slivers_are_cut_before_they_are_sampled() -> None:
    sliver = plain_patch(
        np.array([[[0, 0, 0], [300, 0, 0], [300, 1, 3]]], float), np.array([18], np.uint8)
    )
    sliver = replace(
        sliver, uv=sliver.corners[..., :2] / 300, rgb=sliver.corners, seen=np.ones(1, bool)
    )
    cut = sliver.cut(24.0)
    sides = np.linalg.norm(cut.corners - np.roll(cut.corners, 1, axis=1), axis=2)
    assert sides.max() <= 24 and len(cut) > 10 and (cut.code == 18).all() and cut.seen.all()
    assert np.allclose(area(cut.corners), area(sliver.corners))
    # What is linear over the triangle is so over its parts, and they look the same way.
    assert (
        cut.uv is not None
        and np.allclose(cut.uv, cut.corners[..., :2] / 300)
        and np.allclose(cut.rgb, cut.corners)
    )
    assert all(
        np.allclose(np.cross(area(part[None]), area(sliver.corners)), 0) for part in cut.corners
    )
    assert len(sample([sliver], 1.0)) < 150_000 < 901 * 902 / 2 and sliver.cut(500.0) is sliver


def test_files_are_named_inside_their_folder(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a b.png").write_text("x")
    (tmp_path / "secret").write_text("x")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "in" / "circle").symlink_to(tmp_path / "in" / "circle")
    root = tmp_path / "in"
    assert local_file("../a%20b.png?v=1", root / "deep", root, "w") == (root / "a b.png").resolve()
    for name in (
        "../secret",
        "link",
        "/etc/passwd",
        "..%2Fsecret",
        "file:///etc/passwd",
        "http://x/y",
        "",
        None,
        "a\0b",
        "http://[",
        "circle",
        "n" * 5000,
    ):
        with pytest.raises(InputError):
            local_file(name, root, root, "w")
    with pytest.raises(MissingFileError, match="w refers to none"):
        local_file("none", root, root, "w")
    assert is_city_json({"type": "CityJSON"}) and not is_city_json([])
