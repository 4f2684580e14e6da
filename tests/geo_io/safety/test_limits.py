"""Bounds, names and credentials."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from geo_io.errors import InputError
from geo_io.redaction import redacted
from geo_io.safety.limits import load_yaml, require_unpacked_size, too_far
from geo_io.safety.names import require_name


def test_far_features() -> None:
    bounds = np.array([[0, 0, 1, 1], [0, 0, 1e12, 1], [np.nan] * 4, [0, 0, np.inf, 1]])
    assert too_far(bounds, geographic=False).tolist() == [False, True, True, True]
    assert too_far(np.array([[0, 0, 2e4, 1.0]]), geographic=True).all()


def test_aliases_are_counted_before_they_are_built() -> None:
    lines = ["- &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"- &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(InputError, match=r"w has more than 200,000 values"):
        load_yaml("\n".join(lines), yaml.SafeLoader, "w", "shorten it")
    few = load_yaml("a: &a [1, 2]\nb: [*a, *a]", yaml.SafeLoader, "w", "shorten it")
    assert few == {"a": [1, 2], "b": [[1, 2], [1, 2]]}


def test_archives() -> None:
    require_unpacked_size("a.zip", 10**6, 10**9)
    with pytest.raises(InputError, match=r"a\.zip would unpack from 1,000 to"):
        require_unpacked_size("a.zip", 1000, 10**11)


@pytest.mark.parametrize("name", ["a", "tex-vae", "Straße 3", "v1.2", "a_b"])
def test_names(name: str) -> None:
    assert require_name(name, "scene", "w") == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../a", "a/b", "a\\b", ".hidden", "a\n", "a\x1b", "nul", "a.", 3, None]
)
def test_no_names(name: object) -> None:
    with pytest.raises(InputError, match="is no name for a scene"):
        require_name(name, "scene", "w")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://key:secret@host/x", "s3://***@host/x"),
        ("https://h/x.tif?sig=ab%2Fc&x=1", "https://h/x.tif?sig=***&x=1"),
        ("/vsicurl/https://h/x?X-Amz-Signature=1a&token=9 is", None),
        ("PG:host=a user=b password=c dbname=d", "PG:host=a user=b password=*** dbname=d"),
        ("https://h/world.zarr", "https://h/world.zarr"),
        ("class key=3 of town.gpkg", "class key=3 of town.gpkg"),
    ],
)
def test_credentials(text: str, expected: str | None) -> None:
    wanted = expected or "/vsicurl/https://h/x?X-Amz-Signature=***&token=*** is"
    assert redacted(text) == wanted
    assert str(InputError(text)) == f"{wanted}."
