"""The data that come with earthgen: land use, roads, footprints and heights of a small place."""

from __future__ import annotations

from pathlib import Path

from geo_io.errors import InputError

SAMPLE_CREDIT = "© OpenStreetMap contributors (ODbL 1.0); SRTM, NASA/USGS (public domain)"
"""What a world made of them must name."""


def sample_data() -> Path:
    """Return the folder of the sample data: a few square kilometres near Bayreuth.

    landuse.shp (OpenStreetMap land use), osm.gpkg (layers lines and buildings) and srtm3.tif
    (heights), with their licence in README.md.

    Returns
    -------
    Path
        Inside the installed package, or examples/data of a checkout; only to be read.

    Raises
    ------
    InputError
        If the package was installed without them.
    """
    here = Path(__file__).resolve()
    for folder in (here.parents[1] / "sample", here.parents[2] / "examples" / "data"):
        if (folder / "landuse.shp").exists():
            return folder
    raise InputError(
        "this installation of earthgen has no sample data", "install its wheel, or use a checkout"
    )
