"""The static driver of PALM (palm-model.org, PALM Input Data Standard 1.14): terrain, buildings,
surface types and resolved trees, as netCDF.

PALM wants one file of the whole domain: about 50 bytes a column, and 4 bytes for each layer of
trees. Heights are relative to `origin_z`, the lowest terrain.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyproj
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.io import netcdf_file

from earthgen._version import __version__
from earthgen.errors import StoreError
from earthgen.progress import Progress
from earthgen.world.selection import Selection, select, source_record
from earthgen.world.world import World
from earthgen_grids.columns import class_table, columns_of
from geo_io.frame import Bounds, extent

NO_FLOAT, NO_INT, NO_BYTE = -9999.0, -9999, -127
"""Fill values of the standard."""

LARGEST = 2**31 - 4
"""Bytes of one variable of a classic netCDF file."""

VEGETATION = class_table(
    {
        "bare_ground": 1,
        "rock": 9,
        "sand": 9,
        "snow_ice": 13,
        "grass": 3,
        "grassland": 8,
        "cropland": 2,
        "orchard": 18,
        "shrub": 16,
        "broadleaf_forest": 3,
        "needleleaf_forest": 3,
        "mixed_forest": 3,
        "tree": 3,
        "wetland": 14,
        "residential": 3,
        "sports": 3,
        "extraction": 1,
    },
    NO_BYTE,
)
"""vegetation_type by class code. Forests are grass below trees that are resolved."""

FOREST = class_table(
    {"broadleaf_forest": 7, "needleleaf_forest": 4, "mixed_forest": 17, "tree": 7, "orchard": 18},
    NO_BYTE,
)
"""vegetation_type of trees that are not resolved."""

PAVEMENT = class_table({"road": 2, "commercial": 1, "rail": 9, "paved": 5}, NO_BYTE)
WATER = class_table({"lake": 1, "river": 2, "sea": 3}, NO_BYTE)

SOIL, BUILDING = 2, 2
"""soil_type medium; building_type residential, 1951 to 2000: a world does not know better."""


class PalmOptions(BaseModel):
    """Options of PALM's static driver.

    Attributes
    ----------
    trees : bool
    lai : float
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    trees: bool = Field(
        default=True, description="Resolve trees (lad); otherwise forests are a surface"
    )
    lai: float = Field(default=3.0, gt=0, le=20, description="Leaf area index of a crown, m2/m2")


class PalmExporter:
    """Write world_static.nc.

    Parameters
    ----------
    options : PalmOptions
    """

    name = "palm"

    def __init__(self, options: PalmOptions | None = None) -> None:
        self.options = options or PalmOptions()

    def export(
        self, world: World, out: Path, *, bounds: Bounds | None, level: int, progress: Progress
    ) -> list[Path]:
        """Write into the folder `out`; see `earthgen.Exporter`.

        Raises
        ------
        StoreError, RegionError
            If the world has no such level, no finished tile, or nothing within `bounds`; if a cell
            has no data, or there are more cells than the format allows.
        """
        selection = select(world, bounds, level)
        out.mkdir(parents=True, exist_ok=True)
        path = out / "world_static.nc"
        progress.start("export palm", len(selection.tiles) + 1)
        grids = read_grids(world, selection, progress)
        layers = static_layers(grids, self.options, selection.frame.voxel_size)
        if layers["lad"].nbytes > LARGEST:
            raise StoreError(
                f"the trees within {extent(selection.frame.bounds)} take more bytes than a "
                "variable of netCDF can have",
                "give smaller bounds, a coarser level, or `trees` no",
            )
        _write(path, world, selection, layers, float(np.floor(grids["ground"].min())))
        progress.step("file")
        return [path]


def read_grids(world: World, selection: Selection, progress: Progress) -> dict[str, NDArray]:
    """Return the columns of a selection by name, (ny, nx), rows from south to north.

    Raises
    ------
    StoreError
        If a cell has no data.
    """
    frame = selection.frame
    kinds: dict[str, Any] = {
        "ground": np.float32,
        "roof": np.float32,
        "building": np.uint32,
        "crown": np.float32,
        "trunk": np.float32,
        "cover": np.uint8,
    }
    grids = {name: np.zeros(frame.shape, kind) for name, kind in kinds.items()}
    grids["ground"][:] = np.nan
    for tx, ty in selection.tiles:
        part = selection.tile(world, tx, ty)
        assert part is not None  # the selection has only tiles that it meets
        columns = columns_of(world, tx, ty, selection.level).crop(part)
        for name in kinds:
            grids[name][frame.slices(part)] = getattr(columns, name)
        progress.step(f"tile {tx}, {ty}")
    holes = int(np.isnan(grids["ground"]).sum())
    if holes:
        raise StoreError(
            f"{holes:,} of {grids['ground'].size:,} cells within {extent(frame.bounds)} have no "
            "data; PALM needs a full rectangle",
            "give bounds inside the world's region",
        )
    return {name: data[::-1] for name, data in grids.items()}


def static_layers(
    grids: dict[str, NDArray], options: PalmOptions, size: float
) -> dict[str, NDArray]:
    """Return the variables of the driver, with fill values where they do not apply."""
    built = grids["building"] != 0
    cover = grids["cover"]
    _, number = np.unique(grids["building"], return_inverse=True)
    number = number.reshape(built.shape) + (0 if (~built).any() else 1)
    water, pavement = WATER[cover], PAVEMENT[cover]
    vegetation = VEGETATION[cover]
    if not options.trees:
        vegetation = np.where(FOREST[cover] != NO_BYTE, FOREST[cover], vegetation)
    # Each cell has one surface; what no table knows is bare.
    nothing = (water == NO_BYTE) & (pavement == NO_BYTE) & (vegetation == NO_BYTE)
    vegetation = np.where(nothing, 1, vegetation)
    water, pavement, vegetation = (
        np.where(built, NO_BYTE, kind) for kind in (water, pavement, vegetation)
    )
    land = (vegetation != NO_BYTE) | (pavement != NO_BYTE)
    fractions = np.stack([kind != NO_BYTE for kind in (vegetation, pavement, water)])
    return {
        "zt": grids["ground"] - np.floor(grids["ground"].min()),
        "buildings_2d": np.where(built, grids["roof"], NO_FLOAT),
        "building_id": np.where(built, number, NO_INT),
        "building_type": np.where(built, BUILDING, NO_BYTE),
        "vegetation_type": vegetation,
        "pavement_type": pavement,
        "water_type": water,
        "soil_type": np.where(land, SOIL, NO_BYTE),
        "surface_fraction": np.where(built, NO_FLOAT, fractions.astype(np.float32)),
        "lad": leaf_areas(grids, options, size),
    }


def leaf_areas(grids: dict[str, NDArray], options: PalmOptions, size: float) -> NDArray:
    """Return the leaf area density of trees, m2/m3: (nz, ny, nx) float32.

    The leaf area index of a crown is spread evenly over its depth. PALM has its values at zlad = 0
    and at the middles of the layers above.
    """
    crown, trunk = grids["crown"], grids["trunk"]
    tall = (crown >= size) & (grids["building"] == 0)
    if not (options.trees and tall.any()):
        return np.zeros((0, *crown.shape), np.float32)
    layers = int(np.ceil(crown[tall].max() / size))
    lad = np.full((layers + 1, *crown.shape), NO_FLOAT, np.float32)
    lad[:, tall] = 0
    density = options.lai / np.maximum(crown - trunk, size)
    for layer in range(layers):
        middle = (layer + 0.5) * size
        here = tall & (middle > trunk) & (middle < crown)
        lad[layer + 1][here] = density[here]
    return lad


def _write(
    path: Path, world: World, selection: Selection, layers: dict[str, NDArray], origin_z: float
) -> None:
    frame, size = selection.frame, selection.frame.voxel_size
    west, south, _, _ = frame.bounds
    to_lonlat = pyproj.Transformer.from_crs(frame.crs, "EPSG:4326", always_xy=True)
    lon, lat = to_lonlat.transform(west, south)
    with netcdf_file(str(path), "w", version=2) as file:
        record = source_record(world)
        made = str(world.provenance.get("made", ""))[:10] or "2000-01-01"
        attributes = {
            "Conventions": "CF-1.7",
            "title": "PALM static driver of an earthgen world",
            "source": f"earthgen {__version__}, seed {record['seed']}",
            "creation_time": f"{made} 00:00:00 +00",
            "origin_time": f"{made} 12:00:00 +00",
            "origin_x": west,
            "origin_y": south,
            "origin_z": origin_z,
            "origin_lon": lon,
            "origin_lat": lat,
            "rotation_angle": 0.0,
            "palm_version": 6.0,
        }
        for name, value in attributes.items():
            # Python's own floats would be written with 32 bits.
            setattr(file, name, np.float64(value) if isinstance(value, float) else value)
        for axis, count in (("x", frame.nx), ("y", frame.ny)):
            file.createDimension(axis, count)
            variable = _variable(file, axis, "f4", (axis,), None)
            variable[:] = (np.arange(count) + 0.5) * size
            variable.units, variable.axis = "m", axis.upper()
        file.createDimension("nsurface_fraction", 3)
        _variable(file, "nsurface_fraction", "i4", ("nsurface_fraction",), None)[:] = np.arange(3)
        kinds = {
            "zt": ("f4", "terrain height above origin_z", "m"),
            "buildings_2d": ("f4", "building height above the terrain", "m"),
            "building_id": ("i4", "building number", ""),
            "building_type": ("i1", "building type", "1"),
            "vegetation_type": ("i1", "vegetation type", "1"),
            "pavement_type": ("i1", "pavement type", "1"),
            "water_type": ("i1", "water type", "1"),
            "soil_type": ("i1", "soil type", "1"),
            "surface_fraction": ("f4", "surface fraction", "1"),
            "lad": ("f4", "leaf area density", "m2 m-3"),
        }
        if len(layers["lad"]):
            count = len(layers["lad"])
            file.createDimension("zlad", count)
            heights = np.concatenate([[0.0], (np.arange(count - 1) + 0.5) * size])
            variable = _variable(file, "zlad", "f4", ("zlad",), None)
            variable[:] = heights
            variable.units, variable.axis = "m", "Z"
        first = {"lad": ("zlad",), "surface_fraction": ("nsurface_fraction",)}
        fills = {"f4": NO_FLOAT, "i4": NO_INT, "i1": NO_BYTE}
        for name, (kind, title, unit) in kinds.items():
            if name == "lad" and not len(layers["lad"]):
                continue
            data = layers[name].astype(kind)
            variable = _variable(file, name, kind, (*first.get(name, ()), "y", "x"), fills[kind])
            variable[:] = data
            variable.long_name = title
            variable.units = unit


def _variable(file: Any, name: str, kind: str, dimensions: tuple[str, ...], fill: Any) -> Any:
    variable = file.createVariable(name, np.dtype(kind), dimensions)
    if fill is not None:
        variable._FillValue = np.dtype(kind).type(fill)
    return variable
