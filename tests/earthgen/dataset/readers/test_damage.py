"""Errors of parsers become errors about their file."""

from __future__ import annotations

import json

import pytest

from earthgen.dataset.readers.damage import PARSE_ERRORS, damaged_file, describe
from geo_io.errors import InputError, MissingFileError


@pytest.mark.parametrize("kind", PARSE_ERRORS)
def test_each_error_names_the_file(kind: type[Exception]) -> None:
    with (
        pytest.raises(InputError, match=r"a\.json is damaged \(.*why.*\). fetch it") as caught,
        damaged_file("a.json is damaged", "fetch it again"),
    ):
        raise kind("why")
    assert isinstance(caught.value.__cause__, kind)


def test_errors_that_name_the_file_already_stay() -> None:
    error = MissingFileError("b.bin does not exist", "fetch the missing file")
    with (
        pytest.raises(MissingFileError) as caught,
        damaged_file("a.json is damaged", "fetch it again"),
    ):
        raise error
    assert caught.value is error


def test_descriptions_are_one_short_line() -> None:
    assert describe(KeyError("boundaries")) == "KeyError: 'boundaries'"
    assert describe(ValueError()) == "ValueError"
    assert describe(ValueError("a\n  b")) == "a b"
    assert len(describe(ValueError("x" * 999))) == 200
    with (
        pytest.raises(InputError, match=r"line 1 column 2"),
        damaged_file("a.json is damaged", "fetch it again"),
    ):
        json.loads("{")
