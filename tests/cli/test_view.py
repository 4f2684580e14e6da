"""`earthgen view`, and the server that it opens."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
import webbrowser
from collections.abc import Iterator
from pathlib import Path

import pytest

from earthgen.errors import JobError, StoreError
from earthgen_3dtiles.pieces import PieceMaker
from earthgen_cli import serving
from earthgen_cli.commands import view
from earthgen_cli.main import main
from earthgen_cli.serving import Server, open_server


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that were served; serving ends at once, as by Ctrl-C."""
    urls: list[str] = []

    def serve(self: Server, poll_interval: float = 0.5) -> None:
        urls.append(self.url)
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", serve)
    return urls


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EARTHGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "earthgen" / "views"


def test_a_world_is_made_into_a_page_once(
    made: Path,
    cache: Path,
    served: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    assert main(["view", str(made)]) == 0
    assert served[0] in capsys.readouterr().out and opened == served
    (page,) = cache.glob("*/index.html")
    assert (page.parent / "tiles" / "0" / "tileset.json").is_file()
    # Again: the tiles are those of before. A page that nobody opened for long goes.
    tileset = page.parent / "tiles" / "0" / "tileset.json"
    before = tileset.stat().st_mtime_ns
    unused = cache / "unused"
    unused.mkdir()
    (unused / "index.html").touch()
    os.utime(unused / "index.html", (0, time.time() - 86400 * (view.KEPT_DAYS + 1)))
    assert main(["view", str(made), "--no-browser", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["folder"] == str(page.parent)
    assert tileset.stat().st_mtime_ns == before and opened == served[:1]
    assert main(["view", str(made), "--no-browser", "--level", "8", "--quiet"]) == 0
    assert len(list(cache.glob("*/index.html"))) == 2 and not unused.exists()


def test_a_folder_is_served_as_it_is(
    tmp_path: Path, served: list[str], capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    (tmp_path / "index.html").write_text("x")
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    assert main(["view", str(tmp_path)]) == 0
    assert "open it yourself" in capsys.readouterr().err.replace(served[0], "it")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["none.zarr"], 5, "none.zarr does not exist"),
        (["WORLD", "WORLD", "WORLD"], 2, "3 worlds are given"),
        (["WORLD", "--level", "3"], 2, "--level 3 is not one of"),
        (["WORLD", "--bbox", "0,0,1,1"], 4, "The world covers"),
    ],
)
def test_what_is_wrong(
    made: Path,
    cache: Path,
    served: list[str],
    words: list[str],
    code: int,
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [str(made) if word == "WORLD" else word for word in words]
    assert main(["view", *given, "--no-browser"]) == code
    assert says in capsys.readouterr().err and not served
    assert not list(cache.glob("*/index.html"))


def test_a_taken_port(tmp_path: Path) -> None:
    first = open_server(tmp_path)
    try:
        with pytest.raises(JobError, match="is taken"):
            open_server(tmp_path, first.server_address[1])
    finally:
        first.server_close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served") / "page"
    (folder / "tiles").mkdir(parents=True)
    (folder / "index.html").write_text("the page")
    (folder / "tiles" / "a.glb").write_bytes(b"glTF")
    (folder / ".hidden").write_text("x")
    (folder.parent / "secret.txt").write_text("x")
    server = open_server(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_tiles_are_made_when_they_are_asked_for(
    made: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the size of the world, the page is there at once."""
    answers: dict[str, tuple[int, str, bytes]] = {}

    def serve(self: Server, poll_interval: float = 0.5) -> None:
        thread = threading.Thread(target=super(Server, self).serve_forever, args=(0.05,))
        thread.start()
        answers["page"] = ask(self, "/")
        (page,) = cache.glob("*/index.html")
        answers["before"] = (len(list(page.parent.rglob("*.glb"))), "", b"")
        tileset = json.loads(ask(self, "/tiles/0/tileset.json")[2])
        tile = tileset["root"]
        while "content" not in tile:  # an empty tile around others
            tile = tile["children"][0]
        uri = tile["content"]["uri"]
        (finer,) = tile["children"]
        answers["tile"] = ask(self, f"/tiles/0/{uri}")
        answers["finer"] = ask(self, f"/tiles/0/{finer['content']['uri']}")
        answers["none"] = ask(self, "/tiles/0/tiles/8/77_77.glb")
        (page.parent / "tiles" / "0" / uri).unlink()
        monkeypatch.setattr(PieceMaker, "make", broken)
        answers["broken"] = ask(self, f"/tiles/0/{uri}")
        self.shutdown()
        thread.join()

    def broken(self: PieceMaker, piece: object) -> None:
        raise StoreError("tile 0,0 is damaged", "verify the world")

    monkeypatch.setattr(Server, "serve_forever", serve)
    assert main(["view", str(made), "--no-browser", "--quiet"]) == 0, capsys.readouterr().err
    assert answers["page"][0] == 200 and answers["before"][0] == 0
    assert answers["tile"][:2] == (200, "model/gltf-binary")
    assert answers["tile"][2][:4] == b"glTF"
    assert json.loads(answers["finer"][2])["root"]
    assert answers["none"][0] == 404
    assert answers["broken"][0] == 500 and b"tile 0,0 is damaged" in answers["broken"][2]


def ask(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Content-Type", ""), answer.read()
    finally:
        connection.close()


def test_the_server_gives_the_folder(server: Server) -> None:
    assert server.server_address[0] == serving.LOOPBACK
    assert ask(server, "/")[::2] == (200, b"the page")
    assert ask(server, "/tiles/a.glb?x=1") == (200, "model/gltf-binary", b"glTF")
    host = f"localhost:{server.server_address[1]}"
    assert ask(server, "/index.html", Host=host)[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/tiles/", "/tiles", "/.hidden", "/../secret.txt", "/%2e%2e/secret.txt", "/none", "//.hidden"],
)
def test_the_server_gives_nothing_else(server: Server, path: str) -> None:
    status, _, body = ask(server, path)
    assert status in (301, 404) and b"secret" not in body and b"a.glb" not in body
    assert body != b"x"


def test_other_pages_cannot_read_it(server: Server) -> None:
    assert ask(server, "/", Host="evil.example:80")[0] == 403
    assert ask(server, "/", Host="127.0.0.1.evil.example")[0] == 403
    assert ask(server, "/", method="POST")[0] == 501
