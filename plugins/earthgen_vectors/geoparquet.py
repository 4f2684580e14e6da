"""What stands in a world as GeoParquet files, one for each layer."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyproj

from earthgen.progress import Progress
from earthgen.world.selection import Selection, select, source_record
from earthgen.world.world import World
from earthgen_vectors.options import VectorOptions
from earthgen_vectors.origins import origins_of
from earthgen_vectors.tables import GEOMETRIES, GEOMETRY, batches, schema_of
from geo_io.frame import Bounds


class GeoParquetExporter:
    """Write buildings.parquet, trees.parquet, roads.parquet, water.parquet and contours.parquet.

    They have the columns of `GpkgExporter`'s layers, geometry as WKB, and the metadata of
    GeoParquet 1.1.

    Parameters
    ----------
    options : VectorOptions
    """

    name = "geoparquet"

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
            sources are not in the folder that the options name.
        """
        selection = select(world, bounds, level)
        progress.start("export geoparquet", len(self.options.layers))
        origins = origins_of(world, self.options.inputs, progress)
        out.mkdir(parents=True, exist_ok=True)
        writers: dict[str, pq.ParquetWriter] = {}
        with contextlib.ExitStack() as stack:
            for layer, table in batches(world, selection, self.options, origins, progress):
                if layer not in writers:
                    schema = _schema(layer, world, selection)
                    writer = pq.ParquetWriter(
                        out / f"{layer}.parquet", schema, compression="zstd", write_statistics=True
                    )
                    writers[layer] = stack.enter_context(writer)
                writers[layer].write_table(table.cast(writers[layer].schema))
        return [out / f"{layer}.parquet" for layer in writers]


def _schema(layer: str, world: World, selection: Selection) -> pa.Schema:
    """The schema of a file, with the metadata of GeoParquet 1.1 and the origin of the world."""
    crs = pyproj.CRS.from_user_input(selection.frame.crs)
    column = {
        "encoding": "WKB",
        "geometry_types": [GEOMETRIES[layer]],
        "crs": crs.to_json_dict(),
        "edges": "planar",
        "orientation": "counterclockwise",
    }
    geo = {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}
    record = {**source_record(world), "vertical_crs": selection.frame.vertical_crs}
    return schema_of(layer).with_metadata(
        {"geo": json.dumps(geo), "earthgen": json.dumps(record, ensure_ascii=False)}
    )
