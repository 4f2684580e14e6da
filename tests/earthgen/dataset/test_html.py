"""The pages of reports: one style, escaped values, and nothing fetched from elsewhere."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import pytest

from earthgen.dataset import write_report
from earthgen.dataset.html import Cell, render_page
from tests.helpers.dataset_places import village_scene


class Page(HTMLParser):
    """The tags, links, anchors and texts of a page; tags must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.anchors: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        self.anchors += [value or "" for name, value in attrs if name == "id"]
        if tag not in ("img", "meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(" ".join(data.split()))


def test_the_page_of_a_dataset(tmp_path: Path) -> None:
    place = "<script>alert('1')</script> & \"more\""
    scenes = [village_scene(tmp_path, name) for name in ("one", "two")]
    scenes = [replace(scene, info=replace(scene.info, place=place)) for scene in scenes]
    path = write_report(tmp_path, scenes)
    page = Page(path.read_text("utf-8"))
    assert "script" not in page.tags
    assert page.anchors == ["one", "two"]
    assert page.links == ["#one", "#two", "one.png", "two.png"]
    assert all((path.parent / link).exists() for link in page.links if not link.startswith("#"))
    assert sum(text.startswith(f"{place}.") for text in page.texts) == 2, "escaped once, not twice"


def test_cells_are_escaped_and_marked() -> None:
    rows = [[Cell("<b>", link="#<b>"), Cell("1", small="<i>"), Cell("2", best=True)]]
    text = render_page(
        "earthgen.dataset", "dataset.html", title="<u>", heads=["<a>", "", ""], rows=rows, scenes=[]
    )
    page = Page(text)
    assert not {"b", "i", "u"} & set(page.tags)
    assert page.links == ["#<b>"] and {"<u>", "<a>", "<b>", "<i>"} <= set(page.texts)
    assert text.count('class="best"') == 1 and "http" not in text


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="heads"):
        render_page("earthgen.dataset", "dataset.html", title="Dataset", rows=[], scenes=[])
