"""Bounds on what a file may make of its bytes, in one place.

Each is far beyond what real data has. A feature beyond them is dropped and counted, a file beyond
them is refused, before memory or time are spent.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from geo_io.errors import InputError
from geo_io.safety.access import require_plain_file

if TYPE_CHECKING:  # settings are checked without numpy
    from numpy.typing import NDArray

VRT_DEPTH = 8
"""VRTs within VRTs."""

VRT_BYTES = 256 * 2**20
"""Size of a VRT; one of 100,000 tiles has about 60 MB."""

BLOCK_BYTES = 2**30
"""Size of one block of a raster, which GDAL holds in memory whole."""

CACHE_BYTES = 32 * 2**20
"""Blocks of rasters that GDAL keeps in memory."""

FARTHEST = 1e8
"""Largest coordinate of a feature or a mesh, metres: twice around the earth is less."""

FARTHEST_DEGREES = 1e4
"""Largest coordinate of a feature in degrees; some data counts longitudes on beyond 180."""

LONGEST_EDGE = 20_000.0
"""Longest edge of a triangle of a mesh, metres."""

SCENE_CELLS = 2**30
"""Voxels of the box around a scene of meshes, at a byte each and more: 2.9 km square, 128 high."""

ADDED_POINTS = 1_000_000
"""Points that the long edges of one feature may get, so that they bend in another CRS. At 2 km
between points, that is fifty times around the earth."""

YAML_BYTES = 4 * 2**20
YAML_DEPTH = 50
YAML_NODES = 200_000
"""Size, nesting, and values of a YAML file, with those that its aliases stand for."""

TEXT_BYTES = 64 * 2**20
"""Size of a file of settings, cameras or JSON metadata."""

UNPACKED = 2**33
UNPACKED_RATIO = 200
"""Bytes that an archive may unpack to, in all, and for each of its own bytes where that is more."""


def too_far(bounds: NDArray, geographic: bool) -> NDArray:
    """Return which features lie beyond all data on Earth, (n,) bool; also NaN and infinity.

    Parameters
    ----------
    bounds : NDArray (n, 4) float64
        Of each feature, in CRS units.
    geographic : bool
        Whether these are degrees.
    """
    import numpy as np

    limit = FARTHEST_DEGREES if geographic else FARTHEST
    with np.errstate(invalid="ignore"):
        return ~(np.abs(bounds) <= limit).all(axis=1)


def bounded_text(path: Path) -> str:
    """Return the text of a file of settings or metadata, UTF-8, of at most `TEXT_BYTES`.

    Raises
    ------
    InputError
        If it is larger, or is a pipe or a device.
    OSError, UnicodeDecodeError
        If it cannot be read.
    """
    require_plain_file(path)
    size = path.stat().st_size
    if size > TEXT_BYTES:
        raise InputError(
            f"{path} has {size:,} bytes, more than {TEXT_BYTES:,}", "give another file"
        )
    return path.read_text("utf-8")


def load_yaml(text: str, loader: Any, where: str, remedy: str) -> Any:
    """Parse YAML within `YAML_DEPTH` and `YAML_NODES`.

    An alias stands for all values below its anchor: nine lines of nested aliases make a billion.
    They are counted before the document is built.

    Parameters
    ----------
    text : str
        The document.
    loader : type
        A safe loader of PyYAML.
    where : str
        Name of the file in messages.
    remedy : str
        The next step.

    Raises
    ------
    InputError
        If it exceeds the bounds.
    yaml.YAMLError
        If it is not YAML.
    """
    import yaml

    if len(text) > YAML_BYTES:
        raise InputError(f"{where} has {len(text):,} characters, more than {YAML_BYTES:,}", remedy)
    size: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, loader):
        if isinstance(event, yaml.AliasEvent):
            total += size.get(str(event.anchor), 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor is not None:
                size[event.anchor] = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor is not None:
                size[anchor] = total - before
        if len(open_nodes) > YAML_DEPTH:
            raise InputError(f"{where} is nested more than {YAML_DEPTH} deep", remedy)
        if total > YAML_NODES:
            raise InputError(
                f"{where} has more than {YAML_NODES:,} values, with those of its aliases", remedy
            )
    return yaml.load(text, loader)


def require_unpacked_size(where: str, packed: int, unpacked: int) -> None:
    """Check that an archive does not unpack to far more than it is.

    Parameters
    ----------
    where : str
        The archive.
    packed, unpacked : int
        Bytes of it, and of its content as it declares it.

    Raises
    ------
    InputError
        If it does.
    """
    if unpacked > max(UNPACKED, UNPACKED_RATIO * packed):
        raise InputError(
            f"{where} would unpack from {packed:,} to {unpacked:,} bytes", "unpack it first"
        )
