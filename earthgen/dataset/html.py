"""HTML reports: Jinja templates of a package, over the page frame, style and macros of this one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

SHARED = "earthgen.dataset"
"""The package whose `templates/` holds the base page, the style and the macros."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table in a report.

    Attributes
    ----------
    text : str
        What it says.
    small : str
        A remark behind the text, in small print.
    link : str
        Where the text links to, nowhere if empty.
    best : bool
        Whether it is marked as the best of its column.
    """

    text: str
    small: str = ""
    link: str = ""
    best: bool = False


def render_page(package: str, template: str, **values: Any) -> str:
    """Render a template of a package as an HTML page. All values are escaped.

    Parameters
    ----------
    package : str
        Import name of the package whose `templates/` folder holds the template.
    template : str
        File name of the template.
    **values : Any
        What the template shows.

    Returns
    -------
    str
        The page, with its style inside.
    """
    packages = dict.fromkeys((package, SHARED))
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**values)
