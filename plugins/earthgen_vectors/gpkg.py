"""What stands in a world as layers of a GeoPackage."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyogrio
import pyogrio.errors
import pyproj

from earthgen.errors import StoreError
from earthgen.progress import Progress
from earthgen.world.selection import select, source_texts
from earthgen.world.world import World
from earthgen_vectors.options import VectorOptions
from earthgen_vectors.origins import origins_of
from earthgen_vectors.tables import GEOMETRIES, GEOMETRY, batches
from geo_io.frame import Bounds

VERSION = "1.2"
"""Of GeoPackage: the one that programs of the last years open without a warning."""


class GpkgExporter:
    """Write world.gpkg.

    Layers are buildings, trees, roads, water and contours (docs/guides/exports.md has their
    columns). Objects in several tiles come once and whole, also beyond the bounds.

    Parameters
    ----------
    options : VectorOptions
    """

    name = "gpkg"

    def __init__(self, options: VectorOptions | None = None) -> None:
        self.options = options or VectorOptions()

    def export(
        self, world: World, out: Path, *, bounds: Bounds | None, level: int, progress: Progress
    ) -> list[Path]:
        """Write into the folder `out`; see `earthgen.Exporter`.

        Raises
        ------
        StoreError, RegionError
            If the world has no such level, no finished tile, or nothing within `bounds`; if the
            sources are not in the folder that the options name; if the file cannot be written.
        """
        selection = select(world, bounds, level)
        progress.start("export gpkg", len(self.options.layers))
        origins = origins_of(world, self.options.inputs, progress)
        path = out / "world.gpkg"
        path.unlink(missing_ok=True)
        crs = pyproj.CRS.from_user_input(selection.frame.crs).to_wkt()
        written: set[str] = set()
        metadata = source_texts(world)
        metadata["vertical_crs"] = selection.frame.vertical_crs
        with _dated(str(world.provenance.get("made", ""))):
            for layer, table in batches(world, selection, self.options, origins, progress):
                try:
                    pyogrio.write_arrow(
                        table,
                        path,
                        layer=layer,
                        driver="GPKG",
                        geometry_name=GEOMETRY,
                        geometry_type=GEOMETRIES[layer],
                        crs=crs,
                        append=layer in written,
                        dataset_options=None if written else {"VERSION": VERSION},
                        layer_metadata=None if layer in written else metadata,
                    )
                except pyogrio.errors.DataSourceError as error:
                    raise StoreError(
                        f"{path.name} cannot be written: {error}", "check the folder and its disk"
                    ) from error
                written.add(layer)
        return [path]


@contextlib.contextmanager
def _dated(made: str) -> Iterator[None]:
    """Let GeoPackages carry the date of the world, so that two exports are the same bytes."""
    date = made.replace("+00:00", "Z") if made else "2000-01-01T00:00:00Z"
    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": date})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})
