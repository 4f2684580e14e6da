"""Runs the notebooks of docs/notebooks without Jupyter: their code is plain Python, whose last
expressions are shown.

    python -m tests.helpers.notebooks [NAME ...]     runs them, and keeps what they show

Pictures are kept as JPEG and text is shortened, so that a notebook stays small.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
NAMES = ("first-world", "own-data", "fine-tuning")
QUALITY = 80
LONGEST = 2500
"""Characters of text that are kept of a cell."""


@dataclass(frozen=True)
class Shown:
    """What a cell shows: what it prints, the value of its last expression or None, and its text."""

    text: str
    value: Any
    words: str


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.ipynb"


def read(name: str) -> dict[str, Any]:
    """Read a notebook."""
    return dict(json.loads(path_of(name).read_text("utf-8")))


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def links(text: str) -> list[str]:
    """The files that a cell of text links to."""
    found = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text)
    return [target for target in found if "://" not in target]


def code_cells(book: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in book["cells"] if cell["cell_type"] == "code"]


def run(name: str, folder: Path) -> list[Shown]:
    """Run the cells of a notebook in one namespace, in a folder."""
    before = Path.cwd()
    os.chdir(folder)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    try:
        for number, cell in enumerate(code_cells(read(name))):
            shown.append(_run_cell(source(cell), f"{name}, cell {number}", namespace))
    finally:
        os.chdir(before)
    return shown


def _run_cell(text: str, where: str, namespace: dict[str, Any]) -> Shown:
    quiet = text.rstrip().endswith(";")
    body = ast.parse(text, where).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    printed = io.StringIO()
    value = None
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), where, "exec"), namespace)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), where, "eval"), namespace)
    return Shown(printed.getvalue(), None if quiet else value, repr(value))


def outputs(shown: Shown) -> list[dict[str, Any]]:
    """The outputs of a cell as a notebook keeps them."""
    out: list[dict[str, Any]] = []
    if shown.text:
        out.append({"output_type": "stream", "name": "stdout", "text": _lines(shown.text)})
    if shown.value is None:
        return out
    data: dict[str, Any] = {"text/plain": _lines(shown.words)}
    if isinstance(shown.value, Image.Image):
        file = io.BytesIO()
        shown.value.save(file, "JPEG", quality=QUALITY)
        data = {
            "image/jpeg": base64.b64encode(file.getvalue()).decode(),
            "text/plain": [f"<picture of {shown.value.width} x {shown.value.height} pixels>"],
        }
    out.append({"output_type": "display_data", "metadata": {}, "data": data})
    return out


def _lines(text: str) -> list[str]:
    return text[:LONGEST].splitlines(keepends=True)


def save(name: str, results: list[Shown]) -> None:
    """Keep what the cells have shown in the notebook."""
    book = read(name)
    for number, (cell, shown) in enumerate(zip(code_cells(book), results, strict=True), 1):
        cell["execution_count"], cell["outputs"] = number, outputs(shown)
    text = json.dumps(book, indent=1, ensure_ascii=False) + "\n"
    path_of(name).write_text(text, "utf-8")


if __name__ == "__main__":
    for each in sys.argv[1:] or NAMES:
        with tempfile.TemporaryDirectory() as scratch:
            save(each, run(each, Path(scratch)))
