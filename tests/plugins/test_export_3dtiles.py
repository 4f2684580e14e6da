"""3D Tiles: read back by our own reader, whole, in place, in small files; resumed; by workers."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import zarr

from earthgen.dataset.readers.tiles_3d import open_tileset, tileset_crs, tileset_patches
from earthgen.errors import JobError
from earthgen.mesh import gltf
from earthgen.progress import Progress
from earthgen.splats.gaussians import Gaussians
from earthgen.splats.spz import encode_spz
from earthgen.world.world import World, open_world
from earthgen_3dtiles import pieces
from earthgen_3dtiles.exporter import TilesExporter, TilesOptions
from earthgen_3dtiles.pieces import Piece, PieceMaker
from earthgen_3dtiles.placing import earth_centred, fitted_transform
from geo_io.errors import RegionError
from tests.helpers import synthetic


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    path = tmp_path_factory.mktemp("tiles") / "world.zarr"
    synthetic.make(path, (0, 96), (64, 160), tile_size=128)
    root = zarr.open_group(path, mode="r+")
    about = dict(root.attrs["earthgen"])
    about["provenance"]["attribution"] = ["© Town of A", "© B contributors"]
    root.attrs["earthgen"] = about
    return open_world(path)


def export(world: World, out: Path, bounds=None, level: int = 1, **options) -> dict:
    exporter = TilesExporter(TilesOptions(**options))
    files = exporter.export(world, out, bounds=bounds, level=level, progress=Progress())
    assert files == [out / "tileset.json", out / "tiles"]
    assert {path.name for path in out.iterdir()} == {"tileset.json", "tiles"}
    return json.loads(files[0].read_text("utf-8"))


@pytest.fixture(scope="module")
def meshes(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("out")
    return out, export(world, out)


def nodes(tile: dict) -> list[dict]:
    return [tile, *(node for child in tile.get("children", []) for node in nodes(child))]


def glb(path: Path) -> tuple[dict, bytes]:
    data = path.read_bytes()
    length = struct.unpack("<I", data[12:16])[0]
    return json.loads(data[20 : 20 + length]), data[20 + length + 8 :]


def test_our_reader_finds_the_world_where_it_was(world: World, meshes: tuple[Path, dict]) -> None:
    out, document = meshes
    tileset = open_tileset(out / "tileset.json")
    assert tileset_crs(tileset) == "EPSG:32632"
    patches = list(tileset_patches(tileset, "EPSG:32632", 1.0, None))
    assert all(patch.seen.all() for patch in patches)
    ground = [patch for patch in patches if patch.texels is not None]
    corners = np.concatenate([patch.corners for patch in ground])
    left, bottom, right, top = world.frame.bounds
    np.testing.assert_allclose(corners.min(axis=(0, 1))[:2], [left, bottom], atol=0.01)
    np.testing.assert_allclose(corners.max(axis=(0, 1))[:2], [right, top], atol=0.01)
    # The corners lie between the ground of the cells around them.
    layer = world.layers()["ground"].load()
    inner = corners.reshape(-1, 3)
    inner = inner[
        (inner[:, 0] > left + 1)
        & (inner[:, 0] < right - 1)
        & (inner[:, 1] > bottom + 1)
        & (inner[:, 1] < top - 1)
    ]
    col, row = np.rint(inner[:, 0] - left).astype(int), np.rint(top - inner[:, 1]).astype(int)
    values = layer.values
    mean = (
        values[row - 1, col - 1] + values[row - 1, col] + values[row, col - 1] + values[row, col]
    ) / 4
    above = inner[:, 2] - mean
    assert np.percentile(above, 60) == pytest.approx(0, abs=0.01)  # the rest are skirts
    assert above.max() < 0.01
    assert document["extras"]["placing_error"] < 0.01
    assert 0 < document["extras"]["triangles"]["8"] < document["extras"]["triangles"]["1"]


def test_tiles_are_small_and_refine_each_other(meshes: tuple[Path, dict]) -> None:
    out, document = meshes
    assert document["asset"]["version"] == "1.1"
    every = nodes(document["root"])
    uris = [node["content"]["uri"] for node in every if "content" in node]
    assert len(uris) == len(set(uris)) == len(list(out.rglob("*.glb")))
    assert {uri.split("/")[1] for uri in uris} == {"1", "2", "4", "8"}
    assert all((out / uri).stat().st_size < 1_000_000 for uri in uris)
    for node in every:
        for child in node.get("children", []):
            assert child["geometricError"] < node["geometricError"]
        if "content" in node:
            level = int(node["content"]["uri"].split("/")[1])
            assert node["geometricError"] == (level if "children" in node else 0)
            assert node["refine"] == "REPLACE"
    assert document["geometricError"] > document["root"]["geometricError"]


def test_the_volumes_hold_what_they_should(meshes: tuple[Path, dict]) -> None:
    """Every vertex of a tile lies in its own box, and in those of all tiles above it."""
    out, document = meshes

    def check(node: dict, above: np.ndarray, boxes: list) -> None:
        own = above
        if "transform" in node:
            own = above @ np.array(node["transform"]).reshape(4, 4).T
        if "content" in node:
            box = np.array(node["boundingVolume"]["box"])
            boxes = [*boxes, (own, box[:3], np.array([box[3], box[7], box[11]]))]
            document, blob = glb(out / node["content"]["uri"])
            for scene_node in document["nodes"]:
                for primitive in document["meshes"][scene_node["mesh"]]["primitives"]:
                    accessor = document["accessors"][primitive["attributes"]["POSITION"]]
                    view = document["bufferViews"][accessor["bufferView"]]
                    raw = np.frombuffer(
                        blob, np.uint16, view["byteLength"] // 2, view["byteOffset"]
                    )
                    points = raw.reshape(-1, 4)[:, :3] * scene_node["scale"][0]
                    x, y, z = (points + scene_node["translation"]).T
                    earth = np.stack([x, -z, y, np.ones(len(x))]).T @ own.T
                    for placed, centre, half in boxes:
                        local = np.linalg.solve(placed, earth.T).T[:, :3]
                        assert (np.abs(local - centre) <= half + 0.05).all()
        for child in node.get("children", []):
            check(child, own, boxes)

    check(document["root"], np.eye(4), [])


def test_a_point_says_what_it_is(world: World, meshes: tuple[Path, dict]) -> None:
    out, document = meshes
    uri = next(
        node["content"]["uri"]
        for node in nodes(document["root"])
        if node.get("content", {}).get("uri", "").startswith("tiles/1/")
    )
    content, blob = glb(out / uri)
    assert content["asset"]["copyright"] == "© Town of A; © B contributors"
    assert "; ".join(document["extras"]["attribution"]) == content["asset"]["copyright"]
    metadata = content["extensions"]["EXT_structural_metadata"]
    (table,) = metadata["propertyTables"]
    types = {"class": np.uint8, "object": np.uint32, "height": np.float32}
    columns = {}
    for name, kind in types.items():
        view = content["bufferViews"][table["properties"][name]["values"]]
        columns[name] = np.frombuffer(blob, kind, table["count"], view["byteOffset"])
    names = {e["value"]: e["name"] for e in metadata["schema"]["enums"]["landClass"]["values"]}
    primitives = content["meshes"][0]["primitives"]
    ids = primitives[1]["extensions"]["EXT_mesh_features"]["featureIds"][0]
    assert ids["featureCount"] == table["count"] and ids["propertyTable"] == 0
    accessor = content["accessors"][primitives[1]["attributes"]["_FEATURE_ID_0"]]
    view = content["bufferViews"][accessor["bufferView"]]
    raw = np.frombuffer(blob, np.uint16, view["byteLength"] // 2, view["byteOffset"])[::2]
    kinds = {names[code] for code in np.unique(columns["class"][raw])}
    assert kinds and kinds <= {"building", "tree", "broadleaf_forest", "shrub"}
    houses = columns["class"][raw] == 18
    assert (columns["object"][raw][houses] > 0).all() and (columns["height"][raw] > 0.5).all()
    # The ground: a picture of classes.
    (ground,) = primitives[0]["extensions"]["EXT_mesh_features"]["featureIds"]
    assert ground["texture"]["channels"] == [0] and ground["nullFeatureId"] == 0


def test_splats_as_spz_come_back(world: World, tmp_path: Path) -> None:
    gsply = pytest.importorskip("gsply")
    bounds = (640010.0, 5560080.0, 640050.0, 5560120.0)
    document = export(world, tmp_path, bounds, level=8, content="splats", splats="spz")
    (node,) = (node for node in nodes(document["root"]) if "content" in node)
    content, blob = glb(tmp_path / node["content"]["uri"])
    (primitive,) = content["meshes"][0]["primitives"]
    extension = primitive["extensions"]["KHR_gaussian_splatting"]
    assert extension["kernel"] == "ellipse" and extension["colorSpace"] == "srgb_rec709_display"
    packed = extension["extensions"]["KHR_gaussian_splatting_compression_spz_2"]["bufferView"]
    view = content["bufferViews"][packed]
    data = blob[view["byteOffset"] :][: view["byteLength"]]
    assert struct.unpack("<2I", gzip.decompress(data)[:8]) == (0x5053474E, 2)
    (tmp_path / "a.spz").write_bytes(data)
    found = gsply.read_spz(tmp_path / "a.spz")
    expected = world.gaussians(bounds, level=8)
    assert len(found.means) == len(expected) == document["extras"]["splats"]["8"]
    own = np.array(node["transform"]).reshape(4, 4).T
    x, y, z = found.means.T.astype(np.float64)
    earth = np.stack([x, -z, y, np.ones(len(x))]).T @ own.T
    east, north, up = expected.positions.T
    at = earth_centred("EPSG:32632", east, north, up)
    assert np.linalg.norm(earth[:, :3] - at, axis=1).max() < 0.02
    # Cesium finds out from the tileset that there are Gaussians, and our page their classes.
    declared = document["extensions"]["3DTILES_content_gltf"]
    assert set(declared["extensionsRequired"]) == set(content["extensionsRequired"])
    view = content["bufferViews"][primitive["extras"]["classes"]]
    codes = gzip.decompress(blob[view["byteOffset"] :][: view["byteLength"]])
    np.testing.assert_array_equal(np.frombuffer(codes, np.uint8), expected.semantic)


def test_positions_far_from_the_anchor_are_packed_too(tmp_path: Path) -> None:
    gsply = pytest.importorskip("gsply")
    one = np.ones(2, np.float32)
    gaussians = Gaussians(
        anchor=(0.0, 0.0, 0.0),
        crs="EPSG:32632",
        vertical_crs="unknown",
        means=np.array([[10, 20, 4809], [-3000, 5, 1]], np.float32),
        scales=np.stack([one, one], axis=1),
        rotations=np.tile(np.float32([1, 0, 0, 0]), (2, 1)),
        opacities=one,
        sh=np.zeros((2, 1, 3), np.float32),
        semantic=np.full(2, 3, np.uint8),
    )
    (tmp_path / "a.spz").write_bytes(encode_spz(gaussians, gaussians.anchor))
    found = gsply.read_spz(tmp_path / "a.spz").means
    np.testing.assert_allclose(found, [[10, 4809, -20], [-3000, 1, -5]], atol=0.002)


def test_plain_splats_and_a_mesh_in_one_file(world: World, tmp_path: Path) -> None:
    document = export(world, tmp_path, level=8, content="both")
    (node,) = (node for node in nodes(document["root"]) if "content" in node)
    content, _ = glb(tmp_path / node["content"]["uri"])
    modes = [mesh["primitives"][0].get("mode", 4) for mesh in content["meshes"]]
    assert modes == [4, 0]
    attributes = content["meshes"][1]["primitives"][0]["attributes"]
    assert {f"KHR_gaussian_splatting:{name}" for name in ("SCALE", "ROTATION", "OPACITY")} <= set(
        attributes
    )
    assert "KHR_gaussian_splatting" not in content["extensionsRequired"]


def test_meshopt_is_smaller_and_the_same(world: World, meshes: tuple[Path, dict], tmp_path) -> None:
    pytest.importorskip("meshoptimizer")
    out, document = meshes
    small = export(world, tmp_path, level=4, compression="meshopt")
    assert small["extras"]["bytes"]["4"] < 0.75 * document["extras"]["bytes"]["4"]
    for name, folder in (("plain", out), ("packed", tmp_path)):
        tileset = open_tileset(folder / "tileset.json")
        patches = list(tileset_patches(tileset, "EPSG:32632", 64.0, None))
        corners = np.sort(np.concatenate([patch.corners for patch in patches]).reshape(-1, 3), 0)
        if name == "plain":
            before = corners
    np.testing.assert_allclose(corners, before, atol=1e-3)


def test_without_meshoptimizer_the_option_is_refused(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "meshoptimizer", None)
    with pytest.raises(JobError, match=r"meshopt"):
        export(world, tmp_path, level=8, compression="meshopt")
    assert not (tmp_path / "tileset.json").exists()


def test_a_run_that_was_stopped_continues(
    world: World, meshes: tuple[Path, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Piece] = []
    real = PieceMaker.make

    def make(self: PieceMaker, piece: Piece) -> list:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(piece)
        return real(self, piece)

    monkeypatch.setattr(PieceMaker, "make", make)
    with pytest.raises(KeyboardInterrupt):
        export(world, tmp_path)
    assert not (tmp_path / "tileset.json").exists()
    first = list(made)
    made.clear()
    monkeypatch.setattr(PieceMaker, "make", lambda self, p: (made.append(p), real(self, p))[1])
    export(world, tmp_path)
    assert len(first) == 3 and not set(first) & set(made)
    out, _ = meshes
    for path in out.rglob("*"):
        if path.is_file():
            assert (tmp_path / path.relative_to(out)).read_bytes() == path.read_bytes(), path


def test_a_large_piece_is_split(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "MOST_TRIANGLES", 1000)
    document = export(world, tmp_path, level=2)
    counts = document["extras"]["triangles"]
    assert any(path.stem.count("_") == 2 for path in tmp_path.rglob("*.glb"))
    assert counts["2"] > 1000
    tileset = open_tileset(tmp_path / "tileset.json")
    patches = list(tileset_patches(tileset, "EPSG:32632", 2.0, None))
    assert sum(map(len, patches)) == counts["2"]


@pytest.mark.slow
def test_workers_make_the_same_files(
    world: World, meshes: tuple[Path, dict], tmp_path: Path
) -> None:
    export(world, tmp_path, workers=2)
    out, _ = meshes
    for path in out.rglob("*"):
        if path.is_file():
            assert (tmp_path / path.relative_to(out)).read_bytes() == path.read_bytes(), path


def test_a_transform_places_to_the_millimetre() -> None:
    bounds = (685_000.0, 5_540_000.0, 685_512.0, 5_540_512.0)
    transform, error = fitted_transform("EPSG:32632", bounds, (300.0, 420.0), (685e3, 554e4, 300.0))
    rng = np.random.default_rng(0)
    local = rng.uniform([0, 0, 0], [512, 512, 120], (200, 3))
    earth = np.column_stack([local, np.ones(200)]) @ transform.T
    expected = earth_centred(
        "EPSG:32632", local[:, 0] + 685e3, local[:, 1] + 554e4, local[:, 2] + 300
    )
    off = np.linalg.norm(earth[:, :3] - expected, axis=1).max()
    assert off <= error + 1e-4 and error < 0.01


def test_what_the_user_is_told(world: World, tmp_path: Path) -> None:
    with pytest.raises(RegionError, match="does not meet"):
        export(world, tmp_path, bounds=(0.0, 0.0, 10.0, 10.0))
    assert gltf.schema()["enums"]["landClass"]["values"][18]["name"] == "building"
