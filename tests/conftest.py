"""Shared by all tests: the stranger's plugin is importable, and real data is found beside the
checkout."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from earthgen.world.world import World

sys.path.insert(0, str(Path(__file__).parent / "plugin_package" / "src"))

# A first call compiles, and shared machines stall: how long an example takes says nothing here.
settings.register_profile("earthgen", deadline=None)
settings.load_profile("earthgen")

SHARED = Path(__file__).parents[1].parent / "shared" / "data"


FIRST = ("tests/test_golden.py", "tests/geo_io/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with worlds of all kinds, whose code is compiled once by one worker while the other
    reads files; two that began with worlds would both compile all of it."""

    def turn(item: pytest.Item) -> int:
        starts = [n for n, place in enumerate(FIRST) if item.nodeid.startswith(place)]
        return starts[0] if starts else len(FIRST)

    items.sort(key=turn)


@pytest.fixture
def shared() -> Path:
    """The folder of real data; the test is skipped where a clone stands alone."""
    if not SHARED.is_dir():
        pytest.skip("the real data is not beside this checkout")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep files that are made of inputs out of the user's cache."""
    before = os.environ.get("EARTHGEN_CACHE")
    os.environ["EARTHGEN_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("EARTHGEN_CACHE")
    if before is not None:
        os.environ["EARTHGEN_CACHE"] = before


@pytest.fixture(scope="session")
def mapped_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The place of tests/helpers/mapped_place.py; tests only read it."""
    from tests.helpers.mapped_place import make

    return make(tmp_path_factory.mktemp("mapped"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread: tensors of tests are tiny, and threads would only wait for each
    other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
