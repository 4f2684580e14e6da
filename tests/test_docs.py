"""Every code block of the docs runs, or says why it does not; commands have the options that the
docs give them; every link of the docs leads somewhere."""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml

import earthgen

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "examples" / "data" / "README.md",
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
EXCUSED = {
    "": "plain text: layouts and formulas",
    "console": "commands; their options are checked here, and tests/cli runs each command",
    "text": "output",
    "json": "output",
}


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (page.name, text)
        for page in PAGES
        for found, text in BLOCK.findall(page.read_text("utf-8"))
        if found == language
    ]


def test_no_block_is_of_an_unknown_kind() -> None:
    kinds = {
        (page.name, found) for page in PAGES for found, _ in BLOCK.findall(page.read_text("utf-8"))
    }
    assert {kind for _, kind in kinds} <= {"python", "toml", "yaml", *EXCUSED}, kinds


WITH_PYTHON = [page for page in PAGES if "```python" in page.read_text("utf-8")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world of the demo's data; not to be changed."""
    return earthgen.generate(
        bbox=(11.592, 50.005, 11.5935, 50.006),
        semantics=ROOT / "examples" / "data" / "landuse.shp",
        voxel_size=2,
        out=tmp_path_factory.mktemp("world") / "world.zarr",
    ).path


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_python_blocks_run(
    page: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of a page run in one namespace, in a folder with the demo's data and a small
    world."""
    for file in (ROOT / "examples" / "data").iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "dem.tif").symlink_to(ROOT / "examples" / "data" / "srtm3.tif")
    monkeypatch.chdir(tmp_path)
    if "world.zarr" in page.read_text("utf-8"):
        shutil.copytree(world, "world.zarr")
    namespace: dict[str, object] = {"__name__": "docs"}
    for language, text in BLOCK.findall(page.read_text("utf-8")):
        if language == "python":
            exec(compile(text, str(page), "exec"), namespace)


COMMANDS = {
    tuple(name.split()): set(re.findall(r"--?\w[\w-]*", section))
    for name, section in re.findall(
        r"^### earthgen ([\w ]+)\n(.*?)(?=^##|\Z)",
        (ROOT / "docs" / "reference" / "cli.md").read_text("utf-8"),
        re.M | re.S,
    )
}
"""The options of each command, as the generated page lists them."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_have_the_options_that_the_docs_give_them(page: Path) -> None:
    for language, text in BLOCK.findall(page.read_text("utf-8")):
        lines = text.replace("\\\n", " ").splitlines() if language == "console" else []
        assert all(line.startswith("$ ") for line in lines), f"{page.name}: {text}"
        for line in lines:
            program, *words = shlex.split(line[2:], comments=True)
            if program != "earthgen":
                continue
            name = next(key for n in (2, 1) if (key := tuple(words[:n])) in COMMANDS)
            options = {word.partition("=")[0] for word in words if re.match("--?[a-z]", word)}
            assert options <= COMMANDS[name] | {"--plugin-dir"}, line


def test_toml_and_yaml_blocks_parse() -> None:
    for _, text in blocks("toml"):
        tomllib.loads(text)
    for _, text in blocks("yaml"):
        assert yaml.safe_load(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
