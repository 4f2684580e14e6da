"""The notebooks of docs/notebooks run from a clone alone, name public things only, and stay
small."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import notebooks
from tests.helpers.notebooks import NAMES, Shown
from tests.test_faces import FACES, modules_imported

MOST_BYTES = 150_000


def pictures(shown: list[Shown]) -> list[np.ndarray]:
    return [np.asarray(one.value) for one in shown if isinstance(one.value, Image.Image)]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_one_that_jupyter_opens(name: str) -> None:
    book = notebooks.read(name)
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    assert book["cells"][0]["cell_type"] == "markdown"
    assert notebooks.path_of(name).stat().st_size < MOST_BYTES
    code = "\n".join(map(notebooks.source, notebooks.code_cells(book)))
    imported = modules_imported(code)
    ours = {one for one in imported if one.split(".")[0].startswith(("earthgen", "geo_io"))}
    assert ours <= set(FACES), "a notebook names what is public only"
    assert "../shared" not in code and "/home" not in code
    kinds = [
        kind
        for cell in notebooks.code_cells(book)
        for output in cell["outputs"]
        for kind in output.get("data", {})
    ]
    assert "image/jpeg" in kinds, (
        "run `python -m tests.helpers.notebooks`, which keeps the pictures"
    )
    for cell in book["cells"]:
        if cell["cell_type"] == "markdown":
            for target in notebooks.links(notebooks.source(cell)):
                assert (notebooks.FOLDER / target).exists(), target


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs(name: str, tmp_path: Path) -> None:
    shown = notebooks.run(name, tmp_path)
    for picture in pictures(shown):
        assert max(picture.shape) > 300 and picture.std() > 10
    text = "".join(one.text for one in shown)
    says: Mapping[str, tuple[str, ...]] = {
        "first-world": ("mapped", "generated", "highest thing", "village.glb"),
        "own-data": ("orchard", "lake", "broadleaf_forest", "road", "building"),
        "fine-tuning": ("here", "weights", "height-flow"),
    }
    assert all(word in text for word in says[name]), text
    if name == "fine-tuning":
        card = json.loads((tmp_path / "run" / "weights" / "card.json").read_text())
        assert card["parts"]["height-flow"]["parent"]
