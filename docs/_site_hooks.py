"""Hook of mkdocs: GitHub needs `\\|` for a bar in code in a table, Python-Markdown would show
the backslash."""

from __future__ import annotations

import re
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    return re.sub(r"`[^`\n]*`", lambda code: code[0].replace("\\|", "|"), markdown)
