"""Places a world can lie at: a folder, fsspec's memory, and a local server that speaks S3."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

EVERYWHERE = ["local", "memory", "s3"]
"""Kinds of places."""

KINDS = ["local", "memory", pytest.param("s3", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URL of an empty bucket."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    server_module = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    import s3fs

    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        name = uuid.uuid4().hex
        s3fs.S3FileSystem().mkdir(name)
        yield f"s3://{name}"
    server.stop()


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where no world is yet."""
    if request.param == "local":
        return tmp_path / "w.zarr"
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/w.zarr"
    return f"{request.getfixturevalue('bucket')}/{uuid.uuid4().hex}/w.zarr"
