"""The page in a real browser: what it draws, what it says, and that it asks nobody."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from earthgen.progress import Progress
from earthgen.splats import Gaussians, Rendering, look_at, render
from earthgen.world.world import World
from earthgen_cli.commands.view import make_tile
from earthgen_cli.serving import open_server
from earthgen_viewer.exporter import HtmlExporter, HtmlOptions
from geo_io.crs import WGS84, transformer
from tests.helpers import synthetic
from tests.helpers.chromium import Page, chromium_page, find_chromium

pytestmark = pytest.mark.slow

WIDTH, HEIGHT = 1200, 800
HARMLESS = "TilesRenderer: tiles versions at 1.1 or higher have limited support"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    find_chromium()
    return synthetic.make(tmp_path_factory.mktemp("browser") / "hills.zarr", (0, 240), (300, 540))


@pytest.fixture(scope="module")
def one_file(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one")
    return export(world, out)[0]


@pytest.fixture(scope="module")
def page(one_file: Path) -> Iterator[Page]:
    with chromium_page(WIDTH, HEIGHT) as page:
        page.open(one_file.as_uri(), 180)
        page.wait("earthgen.settled", 120)
        yield page


def export(world: World, out: Path, **options: Any) -> list[Path]:
    exporter = HtmlExporter(HtmlOptions(**options))
    return exporter.export(world, out, bounds=None, level=1, progress=Progress())


def settle(page: Page) -> None:
    time.sleep(0.3)
    page.wait("earthgen.settled", 120)


def pick(page: Page, x: float, y: float) -> Any:
    """What the page says is under a point of the window."""
    return json.loads(
        page.run(
            f"JSON.stringify((h => h && {{lon: h.lon, lat: h.lat, height: h.height, code: h.code,"
            f" side: earthgen.view.sides.indexOf(h.side)}})(earthgen.view.pick({x}, {y})))"
        )
    )


def numbers(page: Page, element: str) -> str:
    return str(page.run(f"document.getElementById('{element}').innerText"))


def test_it_opens_from_disk_and_asks_nobody(page: Page, one_file: Path) -> None:
    assert page.run("earthgen.error ?? ''") == ""
    assert [url for url in page.requests if not url.startswith("blob:")] == [one_file.as_uri()]
    assert [text for text in page.errors if not text.startswith(HARMLESS)] == []
    (drawn,) = json.loads(page.run("JSON.stringify(earthgen.drawn())"))
    assert drawn["tiles"] > 0 and drawn["triangles"] > 500
    assert numbers(page, "title").startswith("hills")


def test_the_view_settles_on_finer_tiles_nearby(page: Page) -> None:
    tiles = "earthgen.view.sides[0].tiles.tiles"
    finest = f"Math.min(...[...{tiles}.visibleTiles].map(tile => tile.geometricError))"
    page.run("earthgen.view.home(false)")
    settle(page)
    far = page.run(finest)
    for _ in range(3):
        page.run("earthgen.view.step(0, 0, 0.5)")
        settle(page)
    assert page.run(finest) < far
    page.run("earthgen.view.home(false)")
    settle(page)


def test_what_is_under_the_pointer_is_what_the_world_says(page: Page, world: World) -> None:
    page.run("earthgen.view.home(false); earthgen.view.step(0, 0, 0.6)")
    settle(page)
    layers = world.layers()
    right = 0
    places = [(x, y) for x in range(200, 900, 100) for y in range(250, 700, 90)]
    for x, y in places:
        hit = pick(page, x, y)
        if hit is None:
            continue
        east, north = transformer(WGS84, world.frame.crs).transform(hit["lon"], hit["lat"])
        cell = layers.sel(x=east, y=north, method="nearest")
        # The page looks at an angle: it may hit the wall of what stands in the next cell.
        ground, surface = float(cell["ground"]), float(cell["surface"])
        assert ground - 2 <= hit["height"] <= surface + 9
        if abs(hit["height"] - surface) < 0.6:
            right += 1
    assert right > len(places) / 3
    x, y = places[len(places) // 2]
    page.mouse("mouseMoved", x, y)
    page.wait("document.getElementById('where').innerText.includes('EPSG:32632')", 30)
    hit = pick(page, x, y)
    east, north = transformer(WGS84, world.frame.crs).transform(hit["lon"], hit["lat"])
    said = numbers(page, "where")
    assert f"{east:.1f}" in said and f"{north:.1f}" in said and f"{hit['height']:.1f} m" in said


def test_keys_layers_and_the_legend(page: Page) -> None:
    page.press("2")
    assert page.run("earthgen.state().layer") == "class"
    settle(page)
    before = picture(page)
    code = page.run("earthgen.scene.worlds[0].classes[0].code")
    page.run("document.querySelector('#legend input').click()")
    settle(page)
    assert page.run("JSON.stringify(earthgen.state().hidden)") == f"[{code}]"
    assert np.abs(before.astype(int) - picture(page)).mean() > 0.2  # something has gone
    page.run("document.getElementById('all').click()")
    settle(page)
    assert np.abs(before.astype(int) - picture(page)).mean() < 0.2
    page.press("3")
    assert page.run("earthgen.state().layer") == "height"
    assert page.run("document.getElementById('ramp').hidden") is False
    page.press("1")
    page.press("?")
    assert page.run("document.getElementById('keysheet').open") is True
    page.run("document.getElementById('keysheet').close()")


def test_a_link_brings_the_view_back(page: Page, one_file: Path) -> None:
    page.run("earthgen.setLayer('class'); earthgen.setHidden([]); earthgen.setSun({day:80,hour:9})")
    page.run("earthgen.view.turn(60, 50, false)")
    settle(page)
    page.press("s")
    page.wait("location.hash.length > 10", 20)
    link, state = (
        page.run("location.href"),
        json.loads(page.run("JSON.stringify(earthgen.state())")),
    )
    assert link.startswith(one_file.as_uri() + "#at=")
    page.run("earthgen.view.home(false); earthgen.setLayer('colour'); location.hash = ''")
    page.run(f"location.hash = {json.dumps(link.split('#')[1])}")
    page.wait("earthgen.state().layer === 'class'", 20)
    again = json.loads(page.run("JSON.stringify(earthgen.state())"))
    assert again["sun"] == state["sun"] == {"day": 80, "hour": 9}
    for name, value in state["pose"].items():
        tolerance = 1e-6 if name in ("lon", "lat") else 0.06
        assert again["pose"][name] == pytest.approx(value, abs=tolerance), name
    # A link with nonsense changes nothing, and raises nothing.
    page.run("location.hash = '#at=1,2,x&layer=none&sun=5&hide=a,b&split=q'")
    time.sleep(0.5)
    assert json.loads(page.run("JSON.stringify(earthgen.state())"))["layer"] == "class"
    assert [text for text in page.errors if not text.startswith(HARMLESS)] == []


def test_measuring(page: Page, world: World) -> None:
    page.run("earthgen.setLayer('colour'); earthgen.view.home(false)")
    settle(page)
    page.run("document.getElementById('measure').click()")
    row = [(x, y) for y in (400, 460, 520) for x in range(300, 880, 20) if pick(page, x, y)]
    hits = []
    for x, y in (row[0], row[len(row) // 2], row[-1]):
        hits.append(pick(page, x, y))
        page.click(x, y)
        page.wait(f"earthgen.measure.points.length === {len(hits)}", 30)
    x, y = transformer(WGS84, world.frame.crs).transform(
        [hit["lon"] for hit in hits], [hit["lat"] for hit in hits]
    )
    along = float(np.hypot(np.diff(x), np.diff(y)).sum())
    area = abs(sum(x[i] * y[i - 1] - x[i - 1] * y[i] for i in range(3))) / 2
    rows = dict(
        zip(
            *[iter(numbers(page, "result").split("Measure")[1].strip().split("\n"))] * 2,
            strict=False,
        )
    )
    # UTM's scale is within 0.1 % of the ground's here.
    assert float(rows["Horizontal"].split()[0]) == pytest.approx(along, rel=0.004)
    said, unit = rows["Area"].split()
    assert float(said) * {"m²": 1, "ha": 1e4}[unit] == pytest.approx(area, rel=0.01)
    page.press("Backspace", 8)
    assert page.run("earthgen.measure.points.length") == 2
    page.press("Escape", 27)
    assert page.run("document.getElementById('result').hidden") is True


def test_a_picture_is_saved(page: Page, tmp_path: Path) -> None:
    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.press("p")
    end = time.monotonic() + 60
    while not (found := list(tmp_path.glob("*.png"))) and time.monotonic() < end:
        page.run("1")
        time.sleep(0.2)
    with Image.open(found[0]) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] == WIDTH and HEIGHT < pixels.shape[0] < HEIGHT + 80
    assert pixels[:HEIGHT].std() > 10  # the world, not an empty buffer


def test_light_and_dark(page: Page) -> None:
    light = picture(page).mean()
    page.press("d")
    settle(page)
    assert picture(page).mean() < light - 30
    page.press("d")


def test_two_worlds_from_a_server(
    world: World, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = synthetic.make(tmp_path / "later.zarr", (0, 240), (300, 540))
    out = tmp_path_factory.mktemp("two")
    export(world, out, one_file=False, beside=str(other.path))
    server = open_server(out)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
    thread.start()
    try:
        with chromium_page(WIDTH, HEIGHT, dark=True) as page:
            page.open(server.url, 180)
            page.wait("earthgen.settled", 120)
            assert page.run("document.documentElement.dataset.theme") == "dark"
            sent = [url for url in page.requests if not url.startswith("blob:")]
            assert len(sent) > 3 and all(url.startswith(server.url) for url in sent), sent
            assert [text for text in page.errors if not text.startswith(HARMLESS)] == []
            assert pick(page, 450, 450)["side"] == 0 and pick(page, 750, 450)["side"] == 1
            page.run("earthgen.setSplit(0.2)")
            assert pick(page, 450, 450)["side"] == 1
            assert "hills" in numbers(page, "divider") and "later" in numbers(page, "divider")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_tiles_are_made_as_the_page_asks(world: World, tmp_path: Path) -> None:
    """Only those in view are, and the finest appear where the camera is near."""
    live = HtmlExporter(HtmlOptions(one_file=False)).open_live(
        world, tmp_path, bounds=None, level=1
    )
    (folder, tiles) = next(iter(live.items()))
    server = open_server(tmp_path, make=partial(make_tile, live))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
    thread.start()
    try:
        with chromium_page(WIDTH, HEIGHT) as page:
            page.open(server.url, 180)
            settle(page)
            hit = pick(page, 600, 450)
            x, y = transformer(WGS84, world.frame.crs).transform(hit["lon"], hit["lat"])
            left, bottom, right, top = world.frame.bounds
            assert left < x < right and bottom < y < top
            page.run("earthgen.view.step(0, 0, 0.8)")
            settle(page)
            made = {path.parent.name for path in (tmp_path / folder / "tiles").rglob("*.glb")}
            assert "1" in made
            finest = len(list((tmp_path / folder / "tiles" / "1").glob("*.glb")))
            assert finest < len(tiles._records(1)), "what is out of view is not made"
            assert [text for text in page.errors if not text.startswith(HARMLESS)] == []
            assert pick(page, 600, 450)["code"] > 0
            assert not (tmp_path / "splats/0/tiles").exists(), "nobody has looked at Gaussians"
            page.press("5")
            settle(page)
            assert json.loads(page.run("JSON.stringify(earthgen.drawn())"))[0]["splats"] > 100
            assert list((tmp_path / "splats/0/tiles").rglob("*.glb"))
            assert all(url.startswith((server.url, "blob:")) for url in page.requests)
            assert [text for text in page.errors if not text.startswith(HARMLESS)] == []
            assert pick(page, 600, 450)["code"] > 0  # of the mesh, which is there but not drawn
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_gaussians_look_as_our_rasterizer_draws_them(world: World, tmp_path: Path) -> None:
    left, _, _, top = world.frame.bounds
    bounds = (left + 130, top - 140, left + 190, top - 80)
    (file,) = HtmlExporter(HtmlOptions()).export(
        world, tmp_path, bounds=bounds, level=1, progress=Progress()
    )
    gaussians = world.gaussians(bounds)
    size = (500, 400)
    with chromium_page(*size) as page:
        page.open(file.as_uri(), 180)
        page.run(
            "document.querySelectorAll('.card').forEach(card => { card.style.display = 'none'; });"
            "earthgen.setLayer('splats'); const splats = earthgen.view.sides[0].splats;"
            "splats.base = splats.tiles.errorTarget = 0.1; splats.most = 1e7"
        )
        # Seen from two sides, so that an order that was kept would show.
        for heading in (20, 200):
            # At first the world is as small as the cards around it ask for.
            page.run(f"earthgen.view.home(false, {heading}, 35); earthgen.view.step(0, 0, 0.5)")
            settle(page)
            drawn = json.loads(page.run("JSON.stringify(earthgen.drawn())"))[0]["splats"]
            assert drawn == len(gaussians)
            found = picture(page)
            page.run("earthgen.setHidden(earthgen.scene.worlds[0].classes.map(one => one.code))")
            settle(page)
            sky = picture(page)
            page.run("earthgen.setHidden([])")
            ours = rendered(page, gaussians, size)
            through = 1 - ours.alpha.numpy().reshape(*sky.shape[:2], 1)
            assert 0.1 < (through < 0.1).mean() < 0.9 and sky.std(axis=(0, 1)).max() < 20
            wanted = np.clip(ours.rgb.numpy() * 255 + through * sky, 0, 255)
            error = np.square(found - wanted).mean()
            assert 10 * np.log10(255**2 / error) > 38  # it is packed into bytes
        assert [url for url in page.requests if not url.startswith("blob:")] == [file.as_uri()]
        assert [text for text in page.errors if not text.startswith(HARMLESS)] == []


def rendered(page: Page, gaussians: Gaussians, size: tuple[int, int]) -> Rendering:
    """What the CPU rasteriser draws for the page's camera."""
    eye, target = json.loads(
        page.run(
            "JSON.stringify((view => [view.pose, view.frame.lonLat(view.focus())])(earthgen.view))"
        )
    )
    to = transformer(WGS84, gaussians.crs)
    places = [
        (*to.transform(point["lon"], point["lat"]), point["height"]) for point in (eye, target)
    ]
    upwards = np.tan(np.radians(page.run("earthgen.view.camera.fov")) / 2)
    across = 2 * float(np.degrees(np.arctan(upwards * size[0] / size[1])))
    camera = look_at(
        *places, width=size[0], height=size[1], field_of_view=across, crs=gaussians.crs
    )
    return render(gaussians, camera)


def picture(page: Page) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(page.picture())).convert("RGB"))
