"""3D Tiles as scenes, compared with a hand-made house: voxels, which tiles are opened, and bad
input."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest

from earthgen.dataset.crop import Crop
from earthgen.dataset.readers.mesh_files import check_extensions, read_gltf, turn
from earthgen.dataset.readers.tile_volumes import (
    Place,
    centre_of,
    largest_scale,
    lon_lat_height,
    project,
)
from earthgen.dataset.readers.tiles_3d import is_tileset, open_tileset, tileset_crs, tileset_patches
from earthgen.errors import JobError
from geo_io.errors import InputError, MissingFileError, RegionError
from tests.helpers.dataset_places import CRS, EAST, NORTH
from tests.helpers.mesh_places import (
    BASE,
    build,
    local_frame,
    region,
    tile,
    tileset,
    to_earth,
    triangles,
    whole,
    write_b3dm,
    write_glb,
    write_house_tiles,
    write_json,
    write_obj,
)

BOUNDS = (EAST, NORTH, EAST + 40, NORTH + 40)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_house_tiles(tmp_path_factory.mktemp("tiles") / "t").parent


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Crop:
    folder = tmp_path_factory.mktemp("obj")
    write_obj(folder / "house.obj")
    return whole(build(folder, mesh="house.obj", crs=CRS, mesh_offset=(EAST, NORTH, BASE)))


@pytest.mark.parametrize("keys", [{}, {"target": CRS}, {"crs": CRS, "bounds": BOUNDS}])
def test_glb_b3dm_and_external_tilesets_are_the_house_by_hand(
    tiles: Path, tmp_path: Path, by_hand: Crop, keys: dict
) -> None:
    shutil.copytree(tiles, tmp_path / "t")
    scene = build(tmp_path, mesh="t/tileset.json", **keys)
    found = whole(scene)
    assert (
        scene.frame.crs == CRS
        and scene.frame.vertical_crs == "EPSG:4979"
        and scene.frame.bounds == BOUNDS
    )
    assert np.array_equal(found.xyz, by_hand.xyz) and np.array_equal(
        found.semantic, by_hand.semantic
    )
    assert np.array_equal(found.normal, by_hand.normal) and np.array_equal(
        found.cover, by_hand.cover
    )
    # Vertices are float32 within 50 m of their tile's origin, 4 micrometres; heights of a scene
    # too, 15 at 200 m.
    assert np.allclose(found.ground, by_hand.ground, atol=1e-4) and np.allclose(
        found.height, by_hand.height, atol=1e-4
    )
    # A sample on the edge of two voxels may be counted by either: their mean colours differ, no
    # voxel does.
    alike = (np.abs(found.rgb.astype(int) - by_hand.rgb) <= 2).all(axis=1)
    assert alike.mean() > 0.9 and np.array_equal(found.rgb_known, by_hand.rgb_known)


def test_another_crs_and_heights_above_the_ellipsoid(tiles: Path) -> None:
    points = to_earth(np.array([[5.0, 7.0, 3.0]]))
    assert np.allclose(
        project(points, CRS), [[EAST + 5, NORTH + 7, BASE + 3]], atol=1e-3
    )  # PROJ's UTM is good to that
    # Bessel's ellipsoid lies far from WGS 84: heights do not follow it.
    assert project(points, "EPSG:31467")[0, 2] == pytest.approx(BASE + 3, abs=1e-3)
    found = list(tileset_patches(open_tileset(tiles / "tileset.json"), "EPSG:3035", 1.0, None))
    corners = np.concatenate([patch.corners.reshape(-1, 3) for patch in found])
    way = pyproj.Transformer.from_crs(CRS, "EPSG:3035", always_xy=True)
    every = np.concatenate([part.reshape(-1, 3) for part in triangles().values()])
    wanted = np.column_stack(
        [*way.transform(EAST + every[:, 0], NORTH + every[:, 1]), every[:, 2] + BASE]
    )
    assert len(corners) == len(wanted)
    assert np.allclose(np.sort(corners, axis=0), np.sort(wanted, axis=0), atol=1e-3)


def simple(folder: Path, root: dict[str, Any], **more: Any) -> Path:
    frame = local_frame().T.ravel().tolist()
    folder.mkdir(parents=True, exist_ok=True)
    return write_json(folder / "tileset.json", tileset({"transform": frame, **root}, **more))


def count(path: Path, size: float = 1.0, bounds: Any = None) -> int:
    """Triangles that are read."""
    return sum(len(patch) for patch in tileset_patches(open_tileset(path), CRS, size, bounds))


def test_tiles_replace_or_add_down_to_what_a_voxel_shows(tmp_path: Path) -> None:
    for name in ("roof", "walls", "ground"):
        write_glb(tmp_path / f"{name}.glb", [name])
    roof, walls, ground = (len(triangles()[name]) for name in ("roof", "walls", "ground"))

    def tree(refine: str, error: float) -> Path:
        deep = tile(0.0, content={"uri": "ground.glb"})
        child = tile(error, content={"uri": "walls.glb"}, children=[deep])
        return simple(
            tmp_path, tile(20.0, refine=refine, content={"uri": "roof.glb"}, children=[child])
        )

    assert count(tree("REPLACE", 2.0)) == ground
    assert count(tree("ADD", 2.0)) == roof + walls + ground
    assert count(tree("REPLACE", 0.2)) == walls and count(tree("ADD", 0.2)) == roof + walls
    assert count(tree("REPLACE", 2.0), size=8.0) == walls
    scaled = np.diag([10.0, 10.0, 10.0, 1.0])  # errors grow with the tile: 0.2 is 2 m here
    path = tree("REPLACE", 0.2)
    document = json.loads(path.read_text())
    document["root"]["transform"] = (local_frame() @ scaled).T.ravel().tolist()
    assert count(write_json(path, document)) == ground


def test_tiles_without_content_and_two_contents(tmp_path: Path) -> None:
    for name in ("roof", "walls"):
        write_glb(tmp_path / f"{name}.glb", [name])
    both = {"contents": [{"uri": "roof.glb"}, {"uri": "walls.glb"}]}
    path = simple(tmp_path, tile(0.0, children=[tile(0.0, **both)]))
    assert count(path) == len(triangles()["roof"]) + len(triangles()["walls"])
    old = {
        "asset": {"version": "1.0"},
        "geometricError": 1,
        "root": {
            **tile(0.0, content={"url": "roof.glb"}),
            "transform": local_frame().T.ravel().tolist(),
        },
    }
    assert count(write_json(path, old)) == len(triangles()["roof"])


@pytest.mark.parametrize("kind", ["region", "box", "sphere"])
def test_only_tiles_that_meet_the_scene_are_opened(tmp_path: Path, kind: str) -> None:
    write_glb(tmp_path / "roof.glb", ["roof"])
    volumes = {
        "region": (region(), region((100, 0, 140, 40))),
        "box": (
            {"box": [0, 0, 5, 15, 15, 0, -15, 15, 0, 0, 0, 9]},
            {"box": [100, 0, 5, 15, 15, 0, -15, 15, 0, 0, 0, 9]},
        ),
        "sphere": ({"sphere": [0, 0, 5, 20]}, {"sphere": [100, 0, 5, 20]}),
    }[kind]
    near, far = (
        tile(0.0, content={"uri": name}) | {"boundingVolume": volume}
        for name, volume in zip(("roof.glb", "roof.glb"), volumes, strict=True)
    )
    far["content"] = {"uri": "missing.glb"}
    path = simple(
        tmp_path, tile(9.0, children=[near, far]) | {"boundingVolume": {"sphere": [0, 0, 0, 300]}}
    )
    assert count(path, bounds=BOUNDS) == len(triangles()["roof"])
    with pytest.raises((MissingFileError, InputError)):
        count(path)
    # A content may have a volume of its own.
    near["content"] |= {"boundingVolume": volumes[1]}
    path = simple(
        tmp_path, tile(9.0, children=[near]) | {"boundingVolume": {"sphere": [0, 0, 0, 300]}}
    )
    assert count(path, bounds=BOUNDS) == 0
    with pytest.raises(RegionError, match="nothing on"):
        build(tmp_path, mesh="tileset.json", target=CRS, bounds=BOUNDS)


def test_no_volume_that_meets_a_place_is_left_out() -> None:
    place = Place.of(BOUNDS, CRS)
    assert place is not None
    rng = np.random.default_rng(3)
    frame = local_frame()
    for _ in range(200):
        middle, axes = rng.uniform(-80, 80, 3), rng.normal(size=(3, 3)) * 20
        inside = middle + rng.uniform(-1, 1, (400, 3)) @ axes
        met = (np.abs(inside[:, :2]) < 19.9).all(axis=1).any()
        volume = {"box": [*middle, *axes.ravel()]}
        assert place.meets(volume, frame) or not met
        ball = {"sphere": [*middle, float(np.linalg.norm(axes, axis=0).max())]}
        away = np.maximum(np.abs(middle[:2]) - 20, 0)
        assert place.meets(ball, frame) or np.linalg.norm(away) > ball["sphere"][3] - 0.5
    assert place.meets({"other": 1}, frame) and not place.meets({"sphere": [300, 0, 0, 100]}, frame)
    scaled = frame.copy()
    scaled[:3, :3] *= 3
    assert place.meets({"sphere": [100, 0, 0, 100]}, scaled) and largest_scale(
        scaled
    ) == pytest.approx(3)
    with pytest.raises(ValueError, match="12 numbers"):
        place.meets({"box": [1, 2]}, frame)


def test_regions_across_the_antimeridian() -> None:
    place = Place.of((300_000, 8_000_000, 301_000, 8_001_000), "EPSG:32701")  # 177 degrees west
    assert place is not None
    lon, lat = np.radians(place.degrees[0]), np.radians(place.degrees[1])
    eye = np.eye(4)
    assert place.meets({"region": [np.radians(179), lat - 0.1, lon + 0.1, lat + 0.1, 0, 1]}, eye)
    assert not place.meets(
        {"region": [np.radians(179), lat - 0.1, np.radians(-179.5), lat + 0.1, 0, 1]}, eye
    )
    assert place.meets({"region": [-np.pi, -1.5, np.pi, 1.5, 0, 1]}, eye)
    assert centre_of({"region": [np.radians(179), 0, np.radians(-177), 0.2, 0, 1]}, eye)[
        0
    ] == pytest.approx(-179)
    assert Place.of((1e9, 1e9, 2e9, 2e9), "EPSG:3035") is None


def test_the_crs_is_the_utm_zone_of_the_place(tiles: Path, tmp_path: Path) -> None:
    assert tileset_crs(open_tileset(tiles / "tileset.json")) == CRS
    write_glb(tmp_path / "roof.glb", ["roof"])
    box = {"boundingVolume": {"box": [0, 0, 5, 25, 0, 0, 0, 25, 0, 0, 0, 10]}}
    path = simple(tmp_path, tile(0.0, content={"uri": "roof.glb"}) | box)
    assert tileset_crs(open_tileset(path)) == CRS
    with pytest.raises(JobError, match="have no CRS"):
        build(tmp_path, mesh="tileset.json", bounds=BOUNDS)


def test_axes_and_mirrors(tmp_path: Path, by_hand: Crop) -> None:
    """Old tilesets say that z is up; a mirror in a transform turns no surface inside out."""
    write_house = ("roof", "walls", "ground")
    data = write_glb(tmp_path / "a.glb", write_house)
    y_up, z_up = (
        np.concatenate([patch.corners for patch in read_gltf(data, "a", up, lambda uri: b"")])
        for up in "yz"
    )
    assert np.array_equal(z_up, np.stack([y_up[..., 0], y_up[..., 2], -y_up[..., 1]], axis=-1))
    root = tile(0.0, content={"uri": "a.glb"})
    turned = np.eye(4)
    turned[:3, :3] = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]  # what the reader does where y is up
    path = simple(tmp_path, root, asset={"version": "1.0", "gltfUpAxis": "Z"})
    document = json.loads(path.read_text())
    document["root"]["transform"] = (local_frame() @ turned).T.ravel().tolist()
    write_json(path, document)
    assert np.array_equal(whole(build(tmp_path, mesh="tileset.json")).xyz, by_hand.xyz)
    with pytest.raises(InputError, match="gltfUpAxis"):
        count(write_json(path, {**document, "asset": {"version": "1.0", "gltfUpAxis": "X"}}))
    write_glb(tmp_path / "roof.glb", ["roof"])
    document = json.loads(simple(tmp_path, tile(0.0, content={"uri": "roof.glb"})).read_text())
    document["root"]["transform"] = (local_frame() @ np.diag([-1.0, 1, 1, 1])).T.ravel().tolist()
    (patch,) = tileset_patches(open_tileset(write_json(path, document)), CRS, 1.0, None)
    one, other = (
        patch.corners[:, 1] - patch.corners[:, 0],
        patch.corners[:, 2] - patch.corners[:, 0],
    )
    assert (np.cross(one, other)[:, 2] > 0).all()


def test_centres_in_gltf_and_in_the_binary_of_a_feature_table(
    tmp_path: Path, by_hand: Crop
) -> None:
    whole_house = ("roof", "walls", "ground")
    centre = np.array([3.0, -2.0, 1.0])
    in_gltf = {
        "extensions": {"CESIUM_RTC": {"center": [3.0, 1.0, 2.0]}},
        "extensionsRequired": ["CESIUM_RTC"],
    }
    (tmp_path / "a.glb").write_bytes(
        with_json(write_glb(tmp_path / "a.glb", whole_house, centre), in_gltf)
    )
    simple(tmp_path, tile(0.0, content={"uri": "a.glb"}))
    assert np.array_equal(whole(build(tmp_path, mesh="tileset.json")).xyz, by_hand.xyz)
    glb = write_glb(tmp_path / "b.glb", whole_house, centre)
    table = json.dumps({"RTC_CENTER": {"byteOffset": 4}}).encode().ljust(36)
    binary = struct.pack("<4f", 0, *centre)
    size = 28 + len(table) + len(binary) + len(glb)
    head = struct.pack("<4s6I", b"b3dm", 1, size, len(table), len(binary), 0, 0)
    (tmp_path / "b.b3dm").write_bytes(head + table + binary + glb)
    simple(tmp_path, tile(0.0, content={"uri": "b.b3dm"}))
    assert np.array_equal(whole(build(tmp_path, mesh="tileset.json")).xyz, by_hand.xyz)
    assert np.array_equal(turn(np.array([1.0, 2.0, 3.0]), "y"), [1, -3, 2])


def with_json(glb: bytes, more: dict[str, Any]) -> bytes:
    """A .glb with more in its JSON."""
    length = struct.unpack("<I", glb[12:16])[0]
    text = json.dumps({**json.loads(glb[20 : 20 + length]), **more}).encode()
    text += b" " * (-len(text) % 4)
    rest = glb[20 + length :]
    return (
        struct.pack("<4s4I", b"glTF", 2, 20 + len(text) + len(rest), len(text), 0x4E4F534A)
        + text
        + rest
    )


def as_gltf(folder: Path, buffer: str) -> None:
    """a.glb as a.gltf, whose buffer stands in a file that it calls `buffer`."""
    glb = (folder / "a.glb").read_bytes()
    length = struct.unpack("<I", glb[12:16])[0]
    document = json.loads(glb[20 : 20 + length])
    document["buffers"][0]["uri"] = buffer
    (folder / "a.gltf").write_text(json.dumps(document))
    (folder / "a part.bin").write_bytes(glb[20 + length + 8 :])


def test_gltf_with_buffers_beside_it(tmp_path: Path) -> None:
    write_glb(tmp_path / "a.glb", ["roof"])
    as_gltf(tmp_path, "a%20part.bin")
    path = simple(tmp_path, tile(0.0, content={"uri": "a.gltf"}))
    assert count(path) == len(triangles()["roof"])
    shutil.copy(tmp_path / "a part.bin", tmp_path.parent / "outside.bin")
    for name, error in (
        ("../outside.bin", InputError),
        ("https://a.org/b.bin", InputError),
        ("none.bin", MissingFileError),
    ):
        as_gltf(tmp_path, name)
        with pytest.raises(error):
            count(path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("KHR_texture_transform", "needs the glTF extension KHR_texture_transform"),
        ("EXT_mesh_gpu_instancing", "needs the glTF extension EXT_mesh_gpu_instancing"),
    ],
)
def test_unknown_gltf_extensions_are_named(tmp_path: Path, name: str, said: str) -> None:
    data = with_json(write_glb(tmp_path / "a.glb", ["roof"]), {"extensionsRequired": [name]})
    (tmp_path / "a.glb").write_bytes(data)
    with pytest.raises(InputError, match=said):
        count(simple(tmp_path, tile(0.0, content={"uri": "a.glb"})))
    with pytest.raises(InputError, match=said):  # and where it is a mesh by itself
        build(tmp_path, mesh="a.glb", crs=CRS)
    check_extensions({"extensionsRequired": ["KHR_materials_unlit"]}, "a")


def refused(path: Path, error: type, said: str, **keys: Any) -> None:
    with pytest.raises(error, match=said) as caught:
        build(path.parent, mesh=path.name, **keys)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"asset": {"version": "0.0"}}, InputError, "3D Tiles 0.0; 1.0 and 1.1 are read"),
        (
            {"extensionsRequired": ["3DTILES_implicit_tiling"]},
            InputError,
            "the extension 3DTILES_implicit_tiling",
        ),
        ({"root": []}, InputError, "not a tileset"),
        ({"root": {}}, InputError, "bounding volume of the root"),
        ({"root": tile("x")}, InputError, "damaged"),
        ({"root": tile(0.0, transform=[1, 2])}, InputError, "not 16 numbers"),
        ({"root": tile(0.0, transform=[1] * 16)}, InputError, "not affine"),
        ({"root": tile(0.0, children=[5])}, InputError, "a tile .* is not a JSON object"),
        ({"root": tile(0.0, contents=[5])}, InputError, "content .* is not a JSON object"),
        ({"root": tile(0.0, implicitTiling={})}, InputError, "implicit tiling"),
        ({"root": tile(0.0, content={"uri": "https://a.org/b.glb"})}, InputError, "network"),
        ({"root": tile(0.0, content={"uri": "../x.glb"})}, InputError, "outside the folder"),
        ({"root": tile(0.0, content={})}, InputError, "no surfaces"),
        ({"root": tile(0.0, content={"uri": "none.glb"})}, MissingFileError, "none.glb"),
        ({"root": tile(0.0, content={"uri": "tileset.json"})}, InputError, "refers to itself"),
    ],
)
def test_bad_tilesets_have_a_name(tmp_path: Path, change: dict, error: type, said: str) -> None:
    refused(write_json(tmp_path / "tileset.json", {**tileset(tile()), **change}), error, said)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.i3dm", b"i3dm" + b"\0" * 40, r"instanced models \(i3dm\)"),
        ("a.pnts", b"pnts" + b"\0" * 40, "point clouds"),
        ("a.cmpt", b"cmpt" + b"\0" * 40, "composite"),
        ("a.subtree", b"subt" + b"\0" * 40, "implicit"),
        ("a.b3dm", b"b3dm" + b"\0" * 10, "damaged b3dm"),
        ("a.b3dm", struct.pack("<4s6I", b"b3dm", 1, 28, 0, 0, 0, 0), "without a glTF"),
        ("a.b3dm", struct.pack("<4s6I", b"b3dm", 2, 28, 0, 0, 0, 0), "version 2"),
        ("a.glb", b"\x1f\x8b" + b"\0" * 40, "gzip"),
        ("a.glb", b"glTF" + b"\0" * 10, "not glTF, or is damaged"),
        ("a.glb", struct.pack("<4s4I", b"glTF", 1, 28, 0, 0), "glTF 1, not 2.0"),
        ("a.gltf", b'{"asset": 5}', "no `asset`"),
        ("a.gltf", b'{"asset": {"version": "2.0"}}', "cannot be read|no triangles"),
    ],
)
def test_bad_tiles_have_a_name(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    path = simple(tmp_path, tile(0.0, content={"uri": name}))
    refused(path, InputError, said)
    refused(path, InputError, name)


def test_cut_tiles_have_a_name(tmp_path: Path) -> None:
    cuts: tuple[tuple[Callable[[], bytes], str], ...] = (
        (lambda: write_glb(tmp_path / "a.glb", ["roof"]), "a.glb"),
        (lambda: write_b3dm(tmp_path / "a.b3dm", ["roof"], np.zeros(3)), "a.b3dm"),
    )
    for write, name in cuts:
        data = write()
        path = simple(tmp_path, tile(0.0, content={"uri": name}))
        for end in (3, 30, 200, len(data) - 40):
            (tmp_path / name).write_bytes(data[:end])
            refused(path, InputError, name)
    path.write_text(path.read_text()[:-20])
    refused(path, InputError, "damaged")
    path.write_text('{"asset": {"version": "1.1"}}')
    refused(path, InputError, "not a tileset")
    assert is_tileset({"asset": {}, "root": {}}) and not is_tileset({"root": {}})


def test_tiles_off_the_earth_have_a_name(tmp_path: Path) -> None:
    write_glb(tmp_path / "a.glb", ["roof"])
    path = write_json(tmp_path / "tileset.json", tileset(tile(0.0, content={"uri": "a.glb"})))
    refused(path, InputError, "does not lie on the earth's surface", target=CRS)
    box = {"boundingVolume": {"box": [0, 0, 5, 25, 0, 0, 0, 25, 0, 0, 0, 10]}}
    write_json(path, tileset(tile(0.0, content={"uri": "a.glb"}) | box))
    refused(path, InputError, "EPSG:4978")
    assert lon_lat_height(to_earth(np.zeros((1, 3))))[0, 2] == pytest.approx(BASE, abs=1e-6)
    refused(tmp_path / "a.glb", JobError, "say no CRS")
