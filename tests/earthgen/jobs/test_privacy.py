"""What a world says of its inputs: paths from its folder, and nothing of who made it."""

from __future__ import annotations

from pathlib import Path

import pytest

from earthgen.jobs.job import make_job
from earthgen.jobs.privacy import public


@pytest.mark.parametrize(
    ("out", "source", "said"),
    [
        ("/srv/worlds/w.zarr", "/srv/maps/town.gpkg", "../maps/town.gpkg"),
        # The folder's own path is a part of what stands for the file.
        ("/tmp/w.zarr", "/data/maps/town.gpkg", "../data/maps/town.gpkg"),
        ("/tmp/made/today/w.zarr", "/data/town.gpkg", "../../../data/town.gpkg"),
        ("/w.zarr", "/data/town.gpkg", "data/town.gpkg"),
        ("/data/w.zarr", "/data/town.gpkg", "town.gpkg"),
        ("/tmp/w.zarr", "/home/ada/maps/town.gpkg", "town.gpkg"),
        ("/home/ada/w.zarr", "/home/ada/maps/town.gpkg", "maps/town.gpkg"),
    ],
)
def test_paths_start_at_the_folder_of_the_world(out: str, source: str, said: str) -> None:
    job = make_job(
        {
            "bbox": [0.0, 0.0, 100.0, 100.0],
            "bbox_crs": "EPSG:32632",
            "semantics": [f"{source}:landuse", f"{source}:roads"],
            "out": out,
        }
    )
    given = {
        "settings": [f"{source}:landuse", f"{source}:roads"],
        "warning": f"{source}:landuse: 3 features are empty",
        "beside": str(Path(source).with_suffix(".qml")),
    }
    assert public(given, job) == {
        "settings": [f"{said}:landuse", f"{said}:roads"],
        "warning": f"{said}:landuse: 3 features are empty",
        "beside": str(Path(said).with_suffix(".qml")),
    }
