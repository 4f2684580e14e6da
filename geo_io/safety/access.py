"""What an input may reach: files beside it, unless the user allows more.

A VRT, a glTF or a line of XML that is called .tif can name other files, and addresses. Reading them
is refused unless the user says `allow_linked` (files outside the folder of the input) or
`allow_network` (addresses). Nothing in a file can say so.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from geo_io.errors import InputError, UnsafePathError

ALLOW_NETWORK = "download it, or allow addresses with `allow_network`"
ALLOW_LINKED = "move that file beside it, or allow files elsewhere with `allow_linked`"

REMOTE = re.compile(
    r"""/vsi(curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs|kerchunk|sparse|stdin)\w*
    | [a-z][a-z0-9+.-]*:// (?<! file:// )
    | \b(WMS|WMTS|WCS|WFS\d*|OAPIF|OGCAPI|CSW|NGW|PG|MYSQL|MSSQL|OCI|ADBC|ES|CARTO|AMIGOCLOUD
         |EEDA|EEDAI|DAAS|PLMOSAIC|PLSCENES|STACIT|STACTA|HTTP|GEONODE|MONGODB\w*|GPSBABEL) :
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""Names that GDAL opens over a network, or by running another program."""

PART = re.compile(r'^([A-Z][A-Z0-9_]+):(?:\d+:|off:\d+:)?"?(.+?)"?(?::[^:/\\"]*)?$')
"""GDAL's name of a part of a file, such as NETCDF:file.nc:variable."""

ARCHIVE = re.compile(r"^/vsi(zip|tar|gzip|7z|rar)/")


@dataclass(frozen=True)
class Access:
    """What inputs may reach beyond the files beside them.

    Attributes
    ----------
    network : bool
        Addresses.
    linked : bool
        Files outside the folder of the file that names them.
    """

    network: bool = False
    linked: bool = False


_current: list[Access] = [Access()]


def current_access() -> Access:
    """Return what inputs may reach now, in this process."""
    return _current[-1]


def set_access(access: Access) -> None:
    """Say what inputs may reach from now on, in a worker process."""
    _current[-1] = access


@contextmanager
def allowing(network: bool = False, linked: bool = False) -> Iterator[None]:
    """Let inputs reach addresses, or files elsewhere, within a `with` block."""
    _current.append(Access(network, linked))
    try:
        yield
    finally:
        _current.pop()


def is_remote(name: str) -> bool:
    """Return whether GDAL would open a name over a network, or by running another program."""
    return not _exists(name) and REMOTE.search(name) is not None


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):
        return False


def local_part(name: str) -> str:
    """Return the file that a name for GDAL lies in: of a part of a file, or of an archive."""
    part = PART.match(name)
    if part and not _exists(name) and _exists(part[2]):
        return part[2]
    return name


def require_local(name: str) -> None:
    """Check that a name that a user gave for an input is not an address, unless allowed.

    Raises
    ------
    UnsafePathError
        If it is one.
    InputError
        If it is a pipe or a device.
    """
    if name.lstrip().startswith(("<", "{")) and not _exists(name):
        raise UnsafePathError(f"{name[:80]!r} is not a path", "give the path of a file")
    if not current_access().network and is_remote(name):
        raise UnsafePathError(f"{name} is an address on a network", ALLOW_NETWORK)
    require_plain_file(Path(local_part(name)))


def require_plain_file(path: Path, where: str = "") -> None:
    """Check that what lies at a path, if anything, is a file or a folder, links followed: a pipe or
    a device would be read for ever.

    Parameters
    ----------
    path : Path
    where : str
        The file that names it, for messages.

    Raises
    ------
    InputError
        If it is not.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return  # who opens it says so
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        names = f"{where} names {path}, which" if where else f"{path}"
        raise InputError(f"{names} is no file, but a pipe or a device", "give a file")


def require_inside(path: Path, folder: Path, where: str) -> None:
    """Check that a file that another file names lies in a folder, links followed, unless allowed.

    Parameters
    ----------
    path : Path
        The file.
    folder : Path
        The folder of the input.
    where : str
        The file that names it, for messages.

    Raises
    ------
    UnsafePathError
        If it does not.
    InputError
        If the name cannot be one of a file.
    """
    if current_access().linked:
        return
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as error:
        text = str(path)[:80]
        raise InputError(
            f"{where} refers to {text!r}, which is not a path to a file", "correct it"
        ) from error
    if not inside:
        raise UnsafePathError(
            f"{where} refers to {path}, which lies outside the folder {folder}", ALLOW_LINKED
        )
