"""The grids that UMEP and SOLWEIG read (umep-docs.readthedocs.io): heights of buildings, crowns and
trunks, and land cover."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earthgen.progress import Progress
from earthgen.world.selection import select
from earthgen.world.world import World
from earthgen_grids.columns import Columns, class_table, columns_of
from geo_io.frame import Bounds
from geo_io.layers import Raster
from geo_io.raster.geotiff import CogWriter

PAVED, BUILDING, EVERGREEN, DECIDUOUS, GRASS, BARE, WATER = range(1, 8)
"""Land cover of UMEP and SUEWS."""

COVER = class_table(
    {
        "bare_ground": BARE,
        "rock": BARE,
        "sand": BARE,
        "snow_ice": BARE,
        "grass": GRASS,
        "grassland": GRASS,
        "cropland": GRASS,
        "orchard": DECIDUOUS,
        "shrub": DECIDUOUS,
        "broadleaf_forest": DECIDUOUS,
        "needleleaf_forest": EVERGREEN,
        "mixed_forest": DECIDUOUS,
        "tree": DECIDUOUS,
        "wetland": GRASS,
        "river": WATER,
        "lake": WATER,
        "sea": WATER,
        "building": BUILDING,
        "residential": GRASS,
        "commercial": PAVED,
        "road": PAVED,
        "rail": BARE,
        "paved": PAVED,
        "sports": GRASS,
        "extraction": BARE,
    },
    GRASS,
)
"""Land cover by class code."""

NO_HEIGHT, NO_COVER = -9999.0, 0

LOWEST_CROWN = 1.0
"""Metres: lower plants are grass for SOLWEIG, which has no shade below a pedestrian's height."""

GRIDS = {
    "DSM": "ground and buildings, metres",
    "DEM": "ground, metres",
    "CDSM": "crowns above the ground, metres",
    "TDSM": "undersides of crowns above the ground, metres",
    "landcover": "land cover of UMEP seen from above, 1 to 7",
    "landcover_ground": "land cover of UMEP on the ground, below crowns too",
}


class UmepExporter:
    """Write DSM.tif, DEM.tif, CDSM.tif, TDSM.tif, landcover.tif and landcover_ground.tif.

    - DSM: ground and roofs, absolute metres; DEM: the ground
    - CDSM, TDSM: top and underside of crowns of at least a metre, above the ground; 0 without any
    - landcover: 1 paved, 2 building, 3 evergreen, 4 deciduous, 5 grass, 6 bare soil, 7 water, as
      SUEWS wants it; landcover_ground has what lies below crowns, as SOLWEIG wants it
    """

    name = "umep"

    def export(
        self, world: World, out: Path, *, bounds: Bounds | None, level: int, progress: Progress
    ) -> list[Path]:
        """Write into the folder `out`; see `earthgen.Exporter`.

        Raises
        ------
        StoreError, RegionError
            If the world has no such level, no finished tile, or nothing within `bounds`.
        InputError
            If the files cannot be written.
        """
        selection = select(world, bounds, level)
        out.mkdir(parents=True, exist_ok=True)
        progress.start("export umep", len(selection.tiles) + 1)
        with contextlib.ExitStack() as stack:
            writers = {}
            for name, title in GRIDS.items():
                cover = name.startswith("landcover")
                writer = CogWriter(
                    out / f"{name}.tif",
                    selection.frame,
                    np.uint8 if cover else np.float32,
                    nodata=NO_COVER if cover else NO_HEIGHT,
                    band_names=[title],
                    tags={"VERTICAL_CRS": selection.frame.vertical_crs},
                    overview_resampling="mode" if cover else "average",
                )
                writers[name] = stack.enter_context(writer)
            for tx, ty in selection.tiles:
                part = selection.tile(world, tx, ty)
                if part is None:
                    continue
                columns = columns_of(world, tx, ty, level).crop(part)
                for name, data in umep_grids(columns).items():
                    writers[name].write(Raster(part, data))
                progress.step(f"tile {tx}, {ty}")
        progress.step("overviews")
        return [writer.path for writer in writers.values()]


def umep_grids(columns: Columns) -> dict[str, NDArray]:
    """Return the grids of UMEP by name, from the columns of a tile."""
    known = np.isfinite(columns.ground)
    tall = (columns.crown >= LOWEST_CROWN) & (columns.crown > columns.roof)
    crown = np.where(tall, columns.crown, 0)
    built = columns.building != 0
    ground_class = np.where(built, BUILDING, COVER[columns.cover])
    # What grows is crowns in CDSM; the ground below them is grass.
    ground_class = np.where(np.isin(ground_class, (EVERGREEN, DECIDUOUS)), GRASS, ground_class)
    above = COVER[columns.above]
    above = np.where(built & ~tall, BUILDING, above)
    heights = {
        "DSM": columns.ground + columns.roof,
        "DEM": columns.ground,
        "CDSM": crown,
        "TDSM": np.where(tall, columns.trunk, 0),
    }
    covers = {"landcover": above, "landcover_ground": ground_class}
    return {
        **{
            name: np.where(known, data, NO_HEIGHT).astype(np.float32)
            for name, data in heights.items()
        },
        **{
            name: np.where(known & (columns.above > 0), data, NO_COVER).astype(np.uint8)
            for name, data in covers.items()
        },
    }
