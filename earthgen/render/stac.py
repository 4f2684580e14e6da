"""The STAC item of an export (https://stacspec.org, version 1.1): where it is, from what and when
it was made, and its files."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyproj
import shapely
from shapely.geometry.polygon import orient

from earthgen._version import __version__
from earthgen.world.selection import source_record
from geo_io.frame import Frame

if TYPE_CHECKING:
    from earthgen.world.world import World

MEDIA_TYPES = {
    ".copc.laz": "application/vnd.laszip+copc",
    ".geojson": "application/geo+json",
    ".glb": "model/gltf-binary",
    ".gltf": "model/gltf+json",
    ".gpkg": "application/geopackage+sqlite3",
    ".html": "text/html",
    ".json": "application/json",
    ".las": "application/vnd.las",
    ".laz": "application/vnd.laszip",
    ".nc": "application/netcdf",
    ".obj": "model/obj",
    ".parquet": "application/vnd.apache.parquet",
    ".png": "image/png",
    ".stl": "model/stl",
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".xml": "application/xml",
    ".zip": "application/zip",
}
"""Media types by the ending of a name, as STAC recommends them where it does."""

PIECES = 16
"""Parts into which the longer edge of a footprint is divided: the edges of a frame are curves in
longitude and latitude."""


def stac_item(
    world: World,
    frame: Frame,
    level: int,
    name: str,
    format_name: str,
    files: Mapping[str, Path],
) -> dict[str, Any]:
    """Describe an export as a STAC item with the projection extension.

    Parameters
    ----------
    world : World
    frame : Frame
        What was exported, on the lattice of `level`.
    level : int
        1, 2, 4 or 8.
    name : str
        Of the item.
    format_name : str
        Of the exporter.
    files : mapping of str to Path
        Where each file or folder is now, by its path relative to the item.

    Returns
    -------
    dict
        JSON values.
    """
    import pystac

    outline = footprint(frame)
    properties = {
        "title": f"{Path(str(world.path)).stem}, {format_name}",
        "gsd": frame.voxel_size,
        "processing:software": {"earthgen": __version__},
        "earthgen:format": format_name,
        "earthgen:level": level,
        "earthgen:vertical_crs": frame.vertical_crs,
        "earthgen:digest": world.digest(),
        "earthgen:complete": world.complete,
        **{f"earthgen:{key}": value for key, value in source_record(world).items()},
        **projection(frame),
    }
    item = pystac.Item(
        name,
        shapely.geometry.mapping(outline),
        list(outline.bounds),
        made_at(world),
        properties,
        stac_extensions=[
            "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
            "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
            "https://stac-extensions.github.io/file/v2.1.0/schema.json",
        ],
    )
    for relative, path in files.items():
        if path.is_dir():
            continue  # an asset is a file; a folder is reached from the file that refers to it
        item.add_asset(
            relative,
            pystac.Asset(
                f"./{relative}",
                media_type=media_type(path.name),
                roles=["metadata" if path.name.endswith((".xml", ".json", ".qml")) else "data"],
                extra_fields={"file:size": path.stat().st_size},
            ),
        )
    return dict(item.to_dict(include_self_link=False, transform_hrefs=False))


def footprint(frame: Frame) -> shapely.Polygon:
    """Return the outline of a frame in longitude and latitude (WGS 84), counter-clockwise."""
    left, bottom, right, top = frame.bounds
    box = shapely.box(left, bottom, right, top)
    corners = shapely.get_coordinates(
        shapely.segmentize(box, max(right - left, top - bottom) / PIECES)
    )
    transformer = pyproj.Transformer.from_crs(frame.crs, "EPSG:4326", always_xy=True)
    lon, lat = transformer.transform(*corners.T)
    return orient(shapely.Polygon(list(zip(lon, lat, strict=True))))


def projection(frame: Frame) -> dict[str, Any]:
    """Return the fields of STAC's projection extension."""
    code = pyproj.CRS.from_user_input(frame.crs).to_authority()
    left, bottom, right, top = frame.bounds
    size = frame.voxel_size
    fields: dict[str, Any] = {
        "proj:code": None if code is None else ":".join(code),
        "proj:bbox": [left, bottom, right, top],
        "proj:shape": [frame.ny, frame.nx],
        "proj:transform": [size, 0.0, left, 0.0, -size, top],
    }
    if code is None:
        fields["proj:wkt2"] = pyproj.CRS.from_user_input(frame.crs).to_wkt()
    return fields


def made_at(world: World) -> datetime:
    """Return when a world was made."""
    text = world.provenance.get("made")
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC)
    except ValueError:
        return datetime.now(UTC)


def media_type(name: str) -> str:
    """Return the media type of a file by the ending of its name."""
    for suffix, kind in MEDIA_TYPES.items():
        if name.lower().endswith(suffix):
            return kind
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
