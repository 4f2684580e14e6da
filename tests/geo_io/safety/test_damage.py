"""Errors of parsers become errors about their file."""

from __future__ import annotations

import gzip
import json
import zlib

import pyarrow as pa
import pytest
import shapely

from earthgen.errors import StoreError
from geo_io.errors import InputError, MissingFileError
from geo_io.safety.damage import damaged_file, describe

KINDS = (
    AssertionError,
    OverflowError,
    RecursionError,
    UnboundLocalError,
    ZeroDivisionError,
    gzip.BadGzipFile,
    pa.ArrowException,
    shapely.errors.GEOSException,
    zlib.error,
)


@pytest.mark.parametrize("kind", KINDS)
def test_each_error_names_the_file(kind: type[Exception]) -> None:
    with (
        pytest.raises(InputError, match=r"a\.json is damaged \(.*why.*\). fetch it") as caught,
        damaged_file("a.json is damaged", "fetch it again"),
    ):
        raise kind("why")
    assert isinstance(caught.value.__cause__, kind)


def test_the_class_of_the_error_can_be_chosen() -> None:
    with (
        pytest.raises(StoreError, match="w is damaged"),
        damaged_file("w is damaged", "generate it again", StoreError),
    ):
        raise RecursionError


def test_interrupts_pass() -> None:
    with pytest.raises(KeyboardInterrupt), damaged_file("a.json is damaged", "fetch it again"):
        raise KeyboardInterrupt


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
