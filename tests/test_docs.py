"""Every code block of the docs runs, or says why it does not; every link of the docs leads
somewhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "examples" / "data" / "README.md",
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
EXCUSED = {
    "": "plain text: layouts and formulas",
    "console": "commands; tests/cli/test_reference.py runs the same ones",
    "sh": "commands; tests/cli/test_reference.py runs the same ones",
    "bash": "commands; tests/cli/test_reference.py runs the same ones",
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


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page run in one namespace, in a folder with the demo's data and a small
    world."""
    import earthgen

    for file in (ROOT / "examples" / "data").iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "dem.tif").symlink_to(ROOT / "examples" / "data" / "srtm3.tif")
    monkeypatch.chdir(tmp_path)
    if "world.zarr" in page.read_text("utf-8"):
        earthgen.generate(
            bbox=(11.592, 50.005, 11.5935, 50.006),
            semantics="landuse.shp",
            voxel_size=2,
            out="world.zarr",
        )
    namespace: dict[str, object] = {"__name__": "docs"}
    for language, text in BLOCK.findall(page.read_text("utf-8")):
        if language == "python":
            exec(compile(text, str(page), "exec"), namespace)


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
