"""Fixed jobs make the worlds that were recorded.

In numbers they do on every machine, and to the bit where digests were recorded on one like it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.golden import (
    GOLDEN,
    SAME,
    describe,
    digests_that_differ,
    load,
    make_inputs,
    make_world,
    numbers_that_differ,
    recorded_digests,
)

RECORD = load()


OFTEN = ("generated-1m", "vector-2m", "dsm", "height-flow", "latent")
"""Jobs that are run every time; `make test-slow` runs the others."""

GOLDEN_NAMES = [
    name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in GOLDEN
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make_inputs(tmp_path_factory.mktemp("golden-inputs"))


@pytest.fixture(scope="module", params=GOLDEN_NAMES)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, inputs: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The name of a job and what its world is like; made once for the tests of both halves."""
    folder: Path = tmp_path_factory.mktemp("golden")
    return request.param, describe(make_world(request.param, folder, inputs))


def test_numbers_are_as_recorded(made: tuple[str, dict[str, Any]]) -> None:
    name, found = made
    assert not numbers_that_differ(name, found, RECORD["jobs"][name])


def test_every_bit_is_as_recorded(made: tuple[str, dict[str, Any]]) -> None:
    name, found = made
    digests, why = recorded_digests(RECORD)
    if digests is None:
        pytest.skip(f"digests were recorded elsewhere: {why}")
    assert not digests_that_differ(found, digests[name], RECORD["jobs"][name]["identity"])


def test_the_record_is_of_these_jobs() -> None:
    assert list(RECORD["jobs"]) == list(GOLDEN)
    for entry in RECORD["digests"]:
        assert list(entry["jobs"]) == list(GOLDEN)


def test_tiles_workers_and_extension_do_not_show_in_the_record() -> None:
    for entry in RECORD["digests"]:
        for one, other in SAME.items():
            assert entry["jobs"][one] == entry["jobs"][other], f"{one} is not the world of {other}"
