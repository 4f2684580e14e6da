"""Places a world can lie at: a folder, fsspec's memory, and a local server that speaks S3."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.object_store import object_store

EVERYWHERE = ["local", "memory", "s3"]
"""Kinds of places."""

KINDS = ["local", "memory", pytest.param("s3", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URL of an empty bucket."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    pytest.importorskip("moto.server", reason="moto[server] is not installed")
    with object_store() as url:
        yield url


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where no world is yet."""
    if request.param == "local":
        return tmp_path / "w.zarr"
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/w.zarr"
    return f"{request.getfixturevalue('bucket')}/{uuid.uuid4().hex}/w.zarr"
