"""The public names: the faces of the packages, and that docs and examples use nothing else."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FACES = [
    "earthgen",
    "geo_io",
    *(
        f"earthgen.{name}"
        for name in (
            "dataset",
            "evaluation",
            "models",
            "sparse",
            "splats",
            "stages",
            "terrain",
            "testing",
            "training",
            "voxels",
        )
    ),
]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted([*(ROOT / "examples").rglob("*.py"), *(ROOT / "docs").rglob("*.py")])


@pytest.mark.parametrize("name", FACES)
def test_every_name_of_a_face_is_there_and_documented(name: str) -> None:
    face = importlib.import_module(name)
    assert face.__all__, name
    for public in face.__all__:
        thing = getattr(face, public)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), f"{name}.{public} has no docstring"


def test_the_api_page_lists_the_face() -> None:
    page = (ROOT / "docs" / "reference" / "api.md").read_text("utf-8")
    listed = set(re.findall(r"^::: earthgen\.(\w+)$", page, re.M))
    face = set(importlib.import_module("earthgen").__all__) - {"__version__"}
    assert listed == face


def modules_imported(source: str) -> set[str]:
    """The modules of earthgen, of its plugins and of geo_io that a text imports names from."""
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                modules.add(whole if whole in FACES else node.module)
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    return {name for name in modules if name.startswith(("earthgen", "geo_io"))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_docs_import_from_faces_alone(page: Path) -> None:
    for block in BLOCK.findall(page.read_text("utf-8")):
        assert modules_imported(block) <= set(FACES), page


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    first, *rest = dotted.split(".")
    thing = importlib.import_module(first)
    for name in rest:
        if not hasattr(thing, name):
            try:
                importlib.import_module(f"{thing.__name__}.{name}")
            except ImportError:
                return False
        thing = getattr(thing, name)
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_dotted_names_in_the_text_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    names = re.findall(r"`((?:earthgen|geo_io)(?:\.\w+)+)", text)
    names += re.findall(r"^::: (\S+)$", text, re.M)
    for name in set(names):
        assert exists(name), f"{page.name} speaks of {name}"


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_examples_import_from_faces_alone(file: Path) -> None:
    assert modules_imported(file.read_text("utf-8")) <= set(FACES)
