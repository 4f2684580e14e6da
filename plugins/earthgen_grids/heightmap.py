"""Heights as 16-bit PNG, with classes and colours, for game engines.

Engines read heights from 0 to 65535 and stretch them by a scale that the user types in;
heightmap.json says which.
"""

from __future__ import annotations

import contextlib
import errno
import json
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from rasterio.enums import Resampling
from rasterio.transform import from_bounds
from rasterio.vrt import WarpedVRT

from earthgen.errors import StoreError
from earthgen.progress import Progress
from earthgen.world.selection import Selection, select, source_record
from earthgen.world.world import World
from geo_io.frame import Bounds, extent
from geo_io.layers import Raster
from geo_io.legend import classes
from geo_io.raster.geotiff import CogWriter

UNREAL = (127, 253, 505, 1009, 2017, 4033, 8129)
"""Sizes of landscapes that Unreal Engine recommends (components of 2 x 2 sections of 63, 127 or 255
quads)."""

UNITY = (33, 65, 129, 257, 513, 1025, 2049, 4097)
"""Sizes of Unity's terrains: a power of two, and one."""

FULL = 65535


END = b"IEND\xaeB`\x82"
"""The last eight bytes of a PNG."""


class HeightmapOptions(BaseModel):
    """Options of height maps.

    Attributes
    ----------
    engine : str
    heights : str
    size : int or None
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["none", "unreal", "unity", "godot"] = Field(
        default="none",
        description="Resample to the nearest size that the engine takes, and say its scales; "
        "none keeps the cells",
    )
    heights: Literal["ground", "surface"] = Field(
        default="ground", description="Heights of the bare ground, or with buildings and trees"
    )
    size: int | None = Field(
        default=None, ge=2, le=65535, description="Pixels along the longer edge"
    )


class HeightmapExporter:
    """Write heightmap.png (16 bits), classes.png, colours.png and heightmap.json.

    Parameters
    ----------
    options : HeightmapOptions
    """

    name = "heightmap"

    def __init__(self, options: HeightmapOptions | None = None) -> None:
        self.options = options or HeightmapOptions()

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
        progress.start("export heightmap", 2 * len(selection.tiles) + 3)
        low, high = _range(world, selection, self.options.heights, progress)
        frame = selection.frame
        width, height = sizes_of((frame.nx, frame.ny), self.options)
        written = []
        with tempfile.TemporaryDirectory(dir=out, prefix=".layers.") as folder:
            layers = {
                name: Path(folder) / f"{name}.tif" for name in ("heightmap", "classes", "colours")
            }
            _write_layers(world, selection, layers, self.options.heights, (low, high), progress)
            for name, path in layers.items():
                final = out / f"{name}.png"
                _png(path, final, width, height, nearest=name == "classes")
                written.append(final)
                progress.step(name)
        record = description(world, selection, self.options, (low, high), (width, height))
        note = out / "heightmap.json"
        note.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")
        return [*written, note]


def sizes_of(cells: tuple[int, int], options: HeightmapOptions) -> tuple[int, int]:
    """Return width and height in pixels of a map of so many cells.

    Maps for Unreal and Unity are square, of the nearest size that the engine takes.
    """
    longer = options.size or max(cells)
    tables = {"unreal": UNREAL, "unity": UNITY}
    if options.engine in tables:
        size = min(tables[options.engine], key=lambda one: (abs(one - longer), -one))
        return size, size
    if options.size is None:
        return cells
    scale = options.size / max(cells)
    width, height = (max(1, round(cell * scale)) for cell in cells)
    return width, height


def description(
    world: World,
    selection: Selection,
    options: HeightmapOptions,
    heights: tuple[float, float],
    pixels: tuple[int, int],
) -> dict[str, Any]:
    """Return what a map's numbers mean, and what to type into the engine."""
    low, high = heights
    west, south, east, north = selection.frame.bounds
    pitch = [(east - west) / pixels[0], (north - south) / pixels[1]]
    record: dict[str, Any] = {
        "heights": options.heights,
        "lowest": low,
        "highest": high,
        "height": "lowest + value / 65535 * (highest - lowest), metres; 0 where there is no data",
        "pixels": list(pixels),
        "metres_per_pixel": pitch,
        "bounds": list(selection.frame.bounds),
        "crs": selection.frame.crs,
        "vertical_crs": selection.frame.vertical_crs,
        "classes": {str(land.code): land.name for land in classes()},
        **source_record(world),
    }
    if options.engine == "unreal":
        # A landscape is 512 units of its z scale high (from -256 to 256), and its units are cm.
        record["unreal"] = {
            "scale_x": pitch[0] * 100,
            "scale_y": pitch[1] * 100,
            "scale_z": (high - low) * 100 / 512,
            "location_z": (high + low) / 2 * 100,
        }
    if options.engine == "unity":
        record["unity"] = {
            "terrain_width": east - west,
            "terrain_length": north - south,
            "terrain_height": high - low,
            "flip_vertically": True,
        }
    return record


def _range(
    world: World, selection: Selection, name: str, progress: Progress
) -> tuple[float, float]:
    low, high = np.inf, -np.inf
    for tx, ty in selection.tiles:
        heights = _heights(world, selection, (tx, ty), name)[1]
        known = heights[np.isfinite(heights)]
        if len(known):
            low, high = min(low, float(known.min())), max(high, float(known.max()))
        progress.step(f"tile {tx}, {ty}")
    if low > high:
        raise StoreError(
            f"world {world.path} has no heights within {extent(selection.frame.bounds)}",
            "give bounds where it has data",
        )
    return float(np.floor(low)), float(max(np.ceil(high), np.floor(low) + 1))


def _heights(
    world: World, selection: Selection, tile: tuple[int, int], name: str
) -> tuple[Any, NDArray, dict[str, NDArray]]:
    part = selection.tile(world, *tile)
    assert part is not None  # the selection has only tiles that it meets
    inside = world.tile_frame(*tile, selection.level).slices(part)
    layers = {key: data[inside] for key, data in world.tile_layers(*tile, selection.level).items()}
    return part, layers[name], layers


def _write_layers(
    world: World,
    selection: Selection,
    paths: dict[str, Path],
    name: str,
    heights: tuple[float, float],
    progress: Progress,
) -> None:
    low, high = heights
    with contextlib.ExitStack() as stack:
        maps = stack.enter_context(CogWriter(paths["heightmap"], selection.frame, np.uint16))
        colormap = {0: (0, 0, 0)} | {land.code: land.rgb for land in classes()}
        codes = stack.enter_context(
            CogWriter(
                paths["classes"],
                selection.frame,
                np.uint8,
                colormap=colormap,
                overview_resampling="mode",
            )
        )
        colours = stack.enter_context(CogWriter(paths["colours"], selection.frame, np.uint8, 3))
        for tile in selection.tiles:
            part, metres, layers = _heights(world, selection, tile, name)
            share = np.clip((metres.astype(np.float64) - low) / (high - low), 0, 1)
            values = np.where(np.isfinite(share), np.rint(share * FULL), 0).astype(np.uint16)
            maps.write(Raster(part, values))
            codes.write(Raster(part, layers["semantics"]))
            colours.write(Raster(part, np.ascontiguousarray(layers["rgb"][..., :3])))
            progress.step("tile {}, {}".format(*tile))


def _png(source: Path, target: Path, width: int, height: int, nearest: bool) -> None:
    """Copy a raster to a PNG of another size; GDAL reads and writes it line by line."""
    method = Resampling.nearest if nearest else Resampling.bilinear
    with rasterio.open(source) as file:
        place = from_bounds(*file.bounds, width, height)
        same = (width, height) == (file.width, file.height)
        if same:
            rasterio.shutil.copy(file, target, driver="PNG", ZLEVEL=6)
        else:
            options = {"transform": place, "width": width, "height": height, "resampling": method}
            with WarpedVRT(file, crs=file.crs, **options) as resampled:
                rasterio.shutil.copy(resampled, target, driver="PNG", ZLEVEL=6)
    target.with_name(target.name + ".aux.xml").unlink(missing_ok=True)
    # GDAL does not say that the end of a PNG could not be written.
    with target.open("rb") as written:
        written.seek(max(target.stat().st_size - len(END), 0))
        if written.read() != END:
            raise OSError(errno.EIO, "the picture was cut off", str(target))
