"""The dense layers of a world as cloud-optimised GeoTIFFs, written tile by tile."""

from __future__ import annotations

import contextlib
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from earthgen.progress import Progress
from earthgen.world.selection import Selection, select, source_texts
from earthgen.world.world import World
from earthgen_cog.styles import write_styles
from geo_io.frame import UNKNOWN_DATUM, Bounds
from geo_io.layers import Raster
from geo_io.legend import classes
from geo_io.raster.geotiff import CogWriter


class CogExporter:
    """Write ground.tif, surface.tif, height.tif, semantics.tif (with semantics.tif.aux.xml) and
    rgb.tif, and the styles ground.qml, surface.qml, height.qml and semantics.qml, which QGIS uses
    by itself.

    - ground, surface: float32 heights in metres of the vertical CRS; NaN is no data
    - height: float32 height of the surface above the ground, metres; NaN is no data
    - semantics: uint8 class codes with a colour table; 0 is no data. The names of the classes are
      in the .aux.xml, which GDAL and QGIS read, and in the tag CLASSES
    - rgb: uint8 red, green, blue, alpha; alpha 0 is no data
    """

    name = "cog"

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
        progress.start("export cog", len(selection.tiles) + 1)
        with contextlib.ExitStack() as stack:
            writers = {
                name: stack.enter_context(writer)
                for name, writer in _writers(world, selection, out).items()
            }
            for tx, ty in selection.tiles:
                part = selection.tile(world, tx, ty)
                if part is None:
                    continue
                inside = world.tile_frame(tx, ty, level).slices(part)
                layers = {
                    name: data[inside] for name, data in world.tile_layers(tx, ty, level).items()
                }
                for name, writer in writers.items():
                    writer.write(Raster(part, _layer(name, layers)))
                progress.step(f"tile {tx}, {ty}")
        names = out / "semantics.tif.aux.xml"
        names.write_text(category_names(), "utf-8")
        progress.step("overviews")
        return [*(writer.path for writer in writers.values()), names, *write_styles(out)]


def _writers(world: World, selection: Selection, out: Path) -> dict[str, CogWriter]:
    frame = selection.frame
    known = source_texts(world)
    tags = {name.upper(): text for name, text in known.items()}
    if known.get("ground") == "generated, not measured":
        tags["GROUND"] = "ground: generated, not measured"
    heights = tags | {"VERTICAL_CRS": frame.vertical_crs, "UNIT": "metre"}
    vertical = None if frame.vertical_crs == UNKNOWN_DATUM else frame.vertical_crs
    nan = float("nan")
    colours = {0: (0, 0, 0, 0)} | {land.code: (*land.rgb, 255) for land in classes()}
    legend = ";".join(f"{land.code}={land.name}" for land in classes())
    return {
        "ground": CogWriter(
            out / "ground.tif",
            frame,
            np.float32,
            nodata=nan,
            band_names=["terrain height"],
            vertical_crs=vertical,
            tags=heights,
            unit="metre",
            statistics=True,
        ),
        "surface": CogWriter(
            out / "surface.tif",
            frame,
            np.float32,
            nodata=nan,
            band_names=["surface height"],
            vertical_crs=vertical,
            tags=heights,
            unit="metre",
            statistics=True,
        ),
        "height": CogWriter(
            out / "height.tif",
            frame,
            np.float32,
            nodata=nan,
            band_names=["height above ground"],
            tags=tags | {"UNIT": "metre"},
            unit="metre",
            statistics=True,
        ),
        "semantics": CogWriter(
            out / "semantics.tif",
            frame,
            np.uint8,
            nodata=0,
            band_names=["land class"],
            colormap=colours,
            tags=tags | {"CLASSES": legend},
            overview_resampling="mode",
        ),
        "rgb": CogWriter(
            out / "rgb.tif",
            frame,
            np.uint8,
            4,
            band_names=["red", "green", "blue", "alpha"],
            tags=tags,
            statistics=True,
        ),
    }


def _layer(name: str, layers: dict[str, NDArray]) -> NDArray:
    if name == "height":
        return layers["surface"] - layers["ground"]
    if name == "rgb":
        alpha = np.where(layers["semantics"] > 0, 255, 0).astype(np.uint8)
        return np.dstack([layers["rgb"][..., :3], alpha])
    return layers[name]


def category_names() -> str:
    """GDAL's sidecar (.aux.xml) with the names of the classes by code."""
    titles = ["no data", *(land.title for land in classes())]
    rows = "\n".join(f"      <Category>{escape(title)}</Category>" for title in titles)
    return (
        '<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n'
        f"{rows}\n    </CategoryNames>\n  </PAMRasterBand>\n</PAMDataset>\n"
    )
