"""Hooks of mkdocs: GitHub needs `\\|` for a bar in code in a table, Python-Markdown would show the
backslash; notebooks become pages."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files


def on_page_markdown(markdown: str, **_: Any) -> str:
    return re.sub(r"`[^`\n]*`", lambda code: code[0].replace("\\|", "|"), markdown)


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add a page for each notebook; the notebook itself stays a file to download."""
    for file in list(files):
        path = PurePosixPath(file.src_uri)
        if path.suffix == ".ipynb" and file.abs_src_path:
            book = json.loads(Path(file.abs_src_path).read_text("utf-8"))
            page = File.generated(
                config, str(path.with_suffix(".md")), content=notebook_page(book, path.name)
            )
            files.append(page)
    return files


def notebook_page(book: dict[str, Any], name: str) -> str:
    """Return the cells of a notebook and what they show, as Markdown."""
    parts = []
    for cell in book["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(re.sub(r"\]\(([\w-]+)\.ipynb\)", r"](\1.md)", source))
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {"text/plain": output.get("text", [])})
            if "image/jpeg" in data:
                address = f"data:image/jpeg;base64,{data['image/jpeg']}"
                parts.append(f'<img alt="What the cell above shows" src="{address}">')
            else:
                parts.append("```text\n" + "".join(data["text/plain"]).rstrip("\n") + "\n```")
    title, *rest = parts
    return "\n\n".join([title, f"[The notebook]({name}) can be run as it is.", *rest])
