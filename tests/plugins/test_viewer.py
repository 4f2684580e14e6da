"""The page of a world without a browser: what it contains, its size, and where coordinates are."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earthgen.errors import JobError, StoreError
from earthgen.progress import Progress
from earthgen.world.world import World
from earthgen_viewer.description import fit_projection
from earthgen_viewer.exporter import Embedded, HtmlExporter, HtmlOptions, empty_page_bytes
from earthgen_viewer.page import write_page
from earthgen_viewer.tilesets import contents, prune, walk
from geo_io.crs import WGS84, transformer
from geo_io.frame import Frame
from tests.helpers import synthetic

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "plugins" / "earthgen_viewer" / "page"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    place = tmp_path_factory.mktemp("viewer") / "hills & houses.zarr"
    return synthetic.make(place, (-20, 20), (400, 440))


@pytest.fixture(scope="module")
def page(world: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("page")
    files = export(world, out)
    assert files == [out / "world.html"]
    assert [path.name for path in out.iterdir()] == ["world.html"]  # nothing of the work is left
    return files[0].read_text("utf-8")


def export(world: World, out: Path, level: int = 1, **options: Any) -> list[Path]:
    exporter = HtmlExporter(HtmlOptions(**options))
    return exporter.export(world, out, bounds=None, level=level, progress=Progress())


def scene_of(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="scene">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


def files_of(page: str) -> dict[str, bytes]:
    found = re.findall(r'<script type="text/plain" id="file:([^"]*)">([^<]*)</script>', page)
    return {name: gzip.decompress(base64.b64decode(text)) for name, text in found}


@pytest.mark.parametrize("name", ["0", "splats-0"])
def test_the_page_embeds_a_whole_tileset(world: World, page: str, name: str) -> None:
    files = {path: data for path, data in files_of(page).items() if path.startswith(f"{name}/")}
    tileset = json.loads(files[f"{name}/tileset.json"])
    named = {f"{name}/{uri}" for node in walk(tileset["root"]) for uri in contents(node)}
    assert named == set(files) - {f"{name}/tileset.json"} and named
    assert all(files[path][:4] == b"glTF" for path in named)


def test_gaussians_are_in_the_page_where_they_fit(
    world: World, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (described,) = scene_of(page)["worlds"]
    assert described["splats"] == "embedded:splats-0/tileset.json" and not described["note"]
    # A page with no room for all of them says so.
    monkeypatch.setattr("earthgen_viewer.exporter.SPLAT_BYTES", 10**9)
    without = export(world, tmp_path / "auto", level=8)[0].read_text("utf-8")
    (described,) = scene_of(without)["worlds"]
    assert not described["splats"] and "earthgen view" in described["note"]
    assert not any(name.startswith("splats") for name in files_of(without))
    # Half of it is theirs where they are asked for.
    given = export(world, tmp_path / "yes", level=8, splats="yes")[0].read_text("utf-8")
    assert any(name.startswith("splats-0/tiles/8/") for name in files_of(given))
    refused = export(world, tmp_path / "no", level=8, splats="no")[0].read_text("utf-8")
    (described,) = scene_of(refused)["worlds"]
    assert not described["splats"] and not described["note"]


def test_the_page_can_ask_nobody(page: str) -> None:
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert "default-src 'none'" in policy[1] and "connect-src  blob:" in policy[1]
    assert not re.search(r"https?:|'self'|\*", policy[1])
    head = page[: page.index('id="licences"')]
    assert not re.search(r"(src|href)=[\"'](?!data:,)", head)


def test_the_page_says_what_the_world_is(world: World, page: str) -> None:
    scene = scene_of(page)
    (described,) = scene["worlds"]
    assert scene["title"] == "hills & houses"
    assert "<title>hills &amp; houses</title>" in page
    assert described["summary"].replace("\N{NO-BREAK SPACE}", " ") == (
        "Generated 3D model, 40 × 40 m (1600 m²), cells of 1 m"
    )
    assert any(name == "What it is" and "invented" in text for name, text in described["facts"])
    assert described["crs"] == "EPSG:32632" and described["tileset"] == "embedded:0/tileset.json"
    codes = np.asarray(world.layers()["semantics"].values)
    for one in described["classes"]:
        assert one["share"] == pytest.approx((codes == one["code"]).sum() / (codes > 0).sum())
    surface = np.asarray(world.layers()["surface"].values)
    assert described["heights"][1] == pytest.approx(np.nanmax(surface))
    # The middle of the world, and the scene's origin, lie in the world.
    left, bottom, right, top = world.frame.bounds
    x, y = transformer(WGS84, world.frame.crs).transform(
        scene["origin"]["lon"], scene["origin"]["lat"]
    )
    assert (x, y) == pytest.approx(((left + right) / 2, (bottom + top) / 2), abs=0.05)


def test_equal_worlds_give_equal_pages(world: World, page: str, tmp_path: Path) -> None:
    assert export(world, tmp_path)[0].read_text("utf-8") == page


def test_text_cannot_end_a_script(tmp_path: Path) -> None:
    title = "</script><script>alert('%SCRIPT%')"
    scene = {"title": title, "worlds": [{"tileset": "embedded:0/tileset.json", "name": title}]}
    write_page(tmp_path / "p.html", scene)
    page = (tmp_path / "p.html").read_text("utf-8")
    assert scene_of(page)["title"] == title
    assert "<script>alert" not in page
    program = (PAGE / "viewer.js").read_text("utf-8")
    assert "</script" not in program and page.count(program) == 1


def test_a_page_keeps_to_its_size(world: World, page: str, tmp_path: Path) -> None:
    embedded = re.findall(r'<script type="text/plain" id="file:([^"]*)">([^<]*)', page)
    assert len(page.encode()) - sum(len(text) for _, text in embedded) < empty_page_bytes()
    files = [text for name, text in embedded if name.startswith("0/")]
    export(world, tmp_path, one_file=False)
    everything = Embedded(tmp_path / "tiles" / "0", "0", 10**9)
    assert everything.whole and everything.size == pytest.approx(sum(map(len, files)), rel=0.02)
    half = Embedded(tmp_path / "tiles" / "0", "0", everything.size // 2)
    assert not half.whole and half.size <= everything.size // 2
    kept = dict(half.files())
    assert sum(map(len, kept.values())) <= half.size
    root = json.loads(gzip.decompress(base64.b64decode(kept["0/tileset.json"])))["root"]
    named = {f"0/{uri}" for node in walk(root) for uri in contents(node)}
    assert named == set(kept) - {"0/tileset.json"} and len(named) > 1


def test_a_folder_for_a_web_server(world: World, tmp_path: Path) -> None:
    options = {"one_file": False, "beside": str(world.path), "splats": "yes"}
    written = export(world, tmp_path, level=4, title="Two", **options)
    assert written == [tmp_path / name for name in ("index.html", "tiles", "splats")]
    page = (tmp_path / "index.html").read_text("utf-8")
    scene = scene_of(page)
    assert "connect-src 'self' blob:" in page and not files_of(page) and scene["title"] == "Two"
    names = [one["name"] for one in scene["worlds"]]
    assert len(set(names)) == 2  # a slider needs to tell two worlds of one name apart
    for address in (one[kind] for one in scene["worlds"] for kind in ("tileset", "splats")):
        tileset = tmp_path / address
        document = json.loads(tileset.read_text("utf-8"))
        for node in walk(document["root"]):
            assert all((tileset.parent / uri).is_file() for uri in contents(node))


def test_worlds_apart_are_not_compared(world: World, tmp_path: Path) -> None:
    other = synthetic.make(tmp_path / "far.zarr", (900, 920), (400, 420))
    with pytest.raises(JobError, match="lie apart"):
        export(world, tmp_path / "out", beside=str(other.path))


@pytest.mark.parametrize(
    ("crs", "x", "y", "size"),
    [
        ("EPSG:32632", 685_000, 5_540_000, 2000),
        ("EPSG:28992", 84_000, 446_000, 30_000),
        ("EPSG:3035", 4_400_000, 5_000_000, 100_000),
        ("EPSG:3857", -8_000_000, 5_000_000, 10_000),
        ("EPSG:32601", 300_000, 7_000_000, 60_000),
        ("EPSG:3031", -1000, -1_200_000, 5000),
    ],
)
def test_coordinates_are_those_of_the_crs(crs: str, x: int, y: int, size: int) -> None:
    frame = Frame(crs, 1.0, (x, x + size), (y, y + size))
    fit = fit_projection(frame)
    assert fit.error < 0.005
    # Evaluated as viewer/src/geo.js does.
    rng = np.random.default_rng(5)
    east, north = x + size * rng.random(50), y + size * rng.random(50)
    lon, lat = transformer(crs, WGS84).transform(east, north)
    u = ((np.asarray(lon) - fit.centre[0] + 180) % 360 - 180) / fit.scale[0]
    v = (np.asarray(lat) - fit.centre[1]) / fit.scale[1]
    powers = [(i, j) for i in range(fit.degree + 1) for j in range(fit.degree + 1 - i)]
    for values, given in ((fit.east, east), (fit.north, north)):
        made = sum(c * u**i * v**j for c, (i, j) in zip(values, powers, strict=True))
        assert np.abs(made - given).max() < 0.005


def tree(depth: int, error: float = 16.0, name: str = "t") -> dict[str, Any]:
    node: dict[str, Any] = {"geometricError": error, "content": {"uri": f"{name}.glb"}}
    if depth:
        node["children"] = [tree(depth - 1, error / 2, f"{name}{i}") for i in range(4)]
    return node


def test_what_fits_is_kept_level_by_level() -> None:
    root = tree(3)

    def size(uri: str) -> int:
        return 10

    whole, complete = prune(root, size, 10 * 85)
    assert complete and len(list(walk(whole))) == 85
    for budget in (9, 10, 49, 50, 209, 210, 400):
        part, complete = prune(root, size, budget)
        nodes = list(walk(part))
        assert not complete and 10 * len(nodes) <= max(budget, 10)
        # A tile has all of its children or none, and no tile is split before a coarser one.
        assert {len(node.get("children", [])) for node in nodes} <= {0, 4}
        leaves = {node["geometricError"] for node in nodes if "children" not in node}
        assert max(leaves) <= 2 * min(leaves)
    assert len(list(walk(root))) == 85  # the tree that was given is as it was


def test_of_equal_tiles_the_middle_ones_are_kept() -> None:
    def at(x: float, parts: int) -> dict[str, Any]:
        shift = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, x, 0, 0, 1]
        node: dict[str, Any] = {
            "geometricError": float(parts),
            "transform": shift,
            "boundingVolume": {"box": [5, 0, 0, 5, 0, 0, 0, 5, 0, 0, 0, 5]},
            "content": {"uri": f"{parts}-{x}.glb"},
        }
        if parts:
            node["children"] = [at(0.0, 0)]
        return node

    root = {
        "geometricError": 9.0,
        "boundingVolume": {"sphere": [0, 0, 0, 50]},
        "children": [at(x, 1) for x in (-45.0, 25.0, -5.0, 35.0, -25.0)],
    }
    kept, _ = prune(root, lambda uri: 1, 8)
    split = [node["transform"][12] for node in kept["children"] if "children" in node]
    assert sorted(split) == [-25.0, -5.0, 25.0]


def test_a_page_that_is_too_small_says_so(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("earthgen_viewer.exporter.pack", lambda data: "A" * 2_000_000)
    with pytest.raises(StoreError, match="too small"):
        export(world, tmp_path, max_mb=2)


def test_the_program_is_built_from_its_source() -> None:
    built = json.loads((PAGE / "build.json").read_text("utf-8"))
    source = ROOT / "viewer"
    found = {
        str(path.relative_to(source).as_posix()): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in [
            source / "build.mjs",
            source / "package-lock.json",
            *(source / "src").iterdir(),
        ]
    }
    assert built == found, "run: cd viewer && npm ci && npm run build"


def test_the_program_is_small_and_names_its_licences() -> None:
    data = b"".join((PAGE / name).read_bytes() for name in ("viewer.js", "viewer.css"))
    assert len(gzip.compress(data)) < 300_000
    notices = (PAGE / "licences.txt").read_text("utf-8")
    locked = json.loads((ROOT / "viewer" / "package-lock.json").read_text("utf-8"))["packages"]
    for name in locked[""]["dependencies"]:
        version = locked[f"node_modules/{name}"]["version"]
        licence = locked[f"node_modules/{name}"]["license"]
        assert f"{name} {version} ({licence})" in notices
