"""A web server for one folder, which only this computer can reach."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from earthgen.errors import EarthgenError, JobError

Make = Callable[[str], object]

LOOPBACK = "127.0.0.1"
NAMES = {LOOPBACK, "localhost", "[::1]"}
"""Names under which a browser may ask. Another name is that of a page that has pointed its own
address here, to read what lies here (DNS rebinding)."""

TYPES = {
    ".glb": "model/gltf-binary",
    ".json": "application/json",
    ".html": "text/html; charset=utf-8",
    ".subtree": "application/octet-stream",
}


class Handler(SimpleHTTPRequestHandler):
    """Answers GET and HEAD for the files of a folder; lists no folders, and logs nothing."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments: Any, make: Make | None = None, **more: Any) -> None:
        self._make = make
        super().__init__(*arguments, **more)

    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, **TYPES}  # noqa: RUF012

    def send_head(self) -> Any:
        """Refuse other names of this computer, and hidden files."""
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0].lower()
        if host not in NAMES:
            self.send_error(HTTPStatus.FORBIDDEN)
            return None
        if any(part.startswith(".") for part in self.path.split("?")[0].split("/")):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        if self._make is not None:
            try:
                self._make(unquote(self.path.split("?")[0]).lstrip("/"))
            except (EarthgenError, OSError) as error:
                self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, explain=str(error))
                return None
        return super().send_head()

    def list_directory(self, path: Any) -> None:
        """Do not list."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        """Add headers: browsers ask again whether a file has changed, and do not guess its type."""
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Serves a folder at `url`, until `shutdown`."""

    daemon_threads = True

    @property
    def url(self) -> str:
        """The address of the folder."""
        return f"http://{LOOPBACK}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that closes a connection is no error."""


def open_server(folder: Path, port: int = 0, make: Make | None = None) -> Server:
    """Open a server for a folder on this computer's loopback address.

    Parameters
    ----------
    folder : Path
    port : int
        0 takes a free one.
    make : callable, optional
        Called with each path that is asked for, relative to the folder, before its file is looked
        for, from several threads.

    Raises
    ------
    JobError
        If the port is taken or must not be used.
    """
    try:
        return Server((LOOPBACK, port), partial(Handler, directory=str(folder), make=make))
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        why = "is taken" if error.errno == errno.EADDRINUSE else "needs the rights of a superuser"
        raise JobError(
            f"port {port} of this computer {why}", "give another `port`, or none for a free one"
        ) from error
