"""The surface of a world as points of LAS 1.4, point format 7.

One point is the mean of a voxel's Gaussian. Its class is that of ASPRS (LAS 1.4 R15, table 17); the
class of earthgen is kept in `user_data`, and the number of the building or tree in the extra bytes
`object`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyproj
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from earthgen._version import __version__
from earthgen.errors import PluginError, StoreError
from earthgen.progress import Progress
from earthgen.splats.gaussians import from_voxels
from earthgen.voxels.splat_math import base_colours
from earthgen.world.selection import Selection, anchor_of
from earthgen.world.world import World
from geo_io.frame import UNKNOWN_DATUM, Bounds, Frame
from geo_io.legend import classes

POINT_FORMAT = 7
"""With colour, without infrared."""

SCALE = 0.001
"""Metres of a unit of the coordinates."""

UNCLASSIFIED, GROUND, LOW, MEDIUM, HIGH, BUILDING, WATER, RAIL, ROAD, SNOW = (
    1,
    2,
    3,
    4,
    5,
    6,
    9,
    10,
    11,
    21,
)
"""Codes of ASPRS."""

LOW_BELOW, HIGH_ABOVE = 0.5, 2.0
"""Metres above the ground: vegetation below is low, above is high, and medium between."""

OBJECT = "object"
"""Name of the extra bytes with object numbers."""


class PointOptions(BaseModel):
    """Options of the point formats.

    Attributes
    ----------
    walls : bool
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    walls: bool = Field(
        default=True, description="Write points of vertical faces too, not only of tops"
    )


class CopcOptions(PointOptions):
    """Options of COPC.

    Attributes
    ----------
    points_per_node : int
    """

    points_per_node: int = Field(
        default=60_000, ge=1000, le=10_000_000, description="Points in a node of the octree, about"
    )


@functools.cache
def asprs_codes() -> NDArray:
    """Return the ASPRS code of each class for what lies on the ground: (256,) uint8.

    Vegetation gets `HIGH`, which stands for its three codes by height.
    """
    table = np.full(256, GROUND, np.uint8)
    table[0] = UNCLASSIFIED
    named = {"building": BUILDING, "road": ROAD, "rail": RAIL, "snow_ice": SNOW}
    for land in classes():
        if land.group == "water":
            table[land.code] = WATER
        elif land.name in named:
            table[land.code] = named[land.name]
        elif land.material in ("leaf", "needle"):
            table[land.code] = HIGH
    return table


def asprs_classes(semantic: NDArray, number: NDArray, height: NDArray) -> NDArray:
    """Return the ASPRS codes of voxels.

    Parameters
    ----------
    semantic : NDArray (n,) uint8
        Classes of earthgen.
    number : NDArray (n,) uint32
        Object numbers; 0 for the ground.
    height : NDArray (n,)
        Metres above the ground.

    Returns
    -------
    NDArray (n,) uint8
        Plants by their height; the ground below them, and of all land without a code of its own, is
        ground.
    """
    code = asprs_codes()[semantic]
    plant = (number != 0) & (code != BUILDING)
    bins = np.digitize(height, [LOW_BELOW, HIGH_ABOVE])
    code = np.where(plant, np.array([LOW, MEDIUM, HIGH], np.uint8)[bins], code)
    return np.where(~plant & (code == HIGH), np.uint8(GROUND), code).astype(np.uint8)


@dataclass(frozen=True)
class Cloud:
    """Points of one tile.

    Attributes
    ----------
    xyz : NDArray (n, 3) float64
        CRS metres, and absolute heights.
    rgb : NDArray (n, 3) uint8
        sRGB.
    code, semantic : NDArray (n,) uint8
        ASPRS code, and class of earthgen.
    number : NDArray (n,) uint32
        Object numbers.
    """

    xyz: NDArray
    rgb: NDArray
    code: NDArray
    semantic: NDArray
    number: NDArray

    def __len__(self) -> int:
        return len(self.xyz)


def clouds(
    world: World, selection: Selection, bounds: Bounds | None, walls: bool, progress: Progress
) -> Iterator[Cloud]:
    """Yield the points of each tile of a selection."""
    frame = selection.frame
    for tx, ty in selection.tiles:
        voxels, splats = world.tile_voxels(tx, ty, selection.level)
        keep = np.ones(len(voxels), bool) if bounds is None else voxels.inside(frame)
        if not walls:
            keep &= voxels.faces & 32 > 0
        voxels, splats = voxels.take(keep), splats.take(keep)
        ground = world.tile_layers(tx, ty, selection.level)["ground"]
        gaussians = from_voxels(voxels, splats, ground)
        above = (voxels.xyz[:, 2] + 0.5) * frame.voxel_size + splats.offset[:, 2]
        yield Cloud(
            gaussians.positions,
            base_colours(splats.sh),
            asprs_classes(voxels.semantic, voxels.object, above),
            voxels.semantic,
            voxels.object,
        )
        progress.step(f"tile {tx}, {ty}")


def header_of(world: World, selection: Selection) -> Any:
    """Return the laspy header of a file with these points.

    Raises
    ------
    PluginError
        If laspy is not installed.
    """
    laspy = laspy_module()
    header = laspy.LasHeader(point_format=POINT_FORMAT, version="1.4")
    header.add_extra_dim(
        laspy.ExtraBytesParams(OBJECT, np.uint32, description="building or tree, 0 ground")
    )
    header.scales = np.full(3, SCALE)
    header.offsets = np.array(anchor_of(world, selection))
    header.system_identifier = "earthgen"
    header.generating_software = f"earthgen {__version__}"[:32]
    made = str(world.provenance.get("made", ""))[:10]
    header.creation_date = date.fromisoformat(made) if made else date(2000, 1, 1)
    header.add_crs(whole_crs(selection.frame), keep_compatibility=False)
    return header


def whole_crs(frame: Frame) -> pyproj.CRS:
    """Return the CRS of a frame with its heights, if they have a datum of their own."""
    horizontal = pyproj.CRS.from_user_input(frame.crs)
    if frame.vertical_crs == UNKNOWN_DATUM:
        return horizontal
    vertical = pyproj.CRS.from_user_input(frame.vertical_crs)
    if not vertical.is_vertical or vertical.is_compound:
        return horizontal
    return pyproj.crs.CompoundCRS(f"{horizontal.name} + {vertical.name}", [horizontal, vertical])


def record_of(cloud: Cloud, header: Any) -> Any:
    """Return points as laspy's records."""
    laspy = laspy_module()
    record = laspy.ScaleAwarePointRecord.zeros(len(cloud), header=header)
    record.x, record.y, record.z = cloud.xyz.T
    record.red, record.green, record.blue = cloud.rgb.T.astype(np.uint16) * 257
    record.classification, record.user_data = cloud.code, cloud.semantic
    record[OBJECT] = cloud.number
    record.return_number[:] = 1
    record.number_of_returns[:] = 1
    return record


def laspy_module() -> Any:
    """Return laspy, with a backend for LAZ.

    Raises
    ------
    PluginError
        If one of them is not installed.
    """
    try:
        import laspy
    except ImportError as error:
        raise PluginError(
            "point clouds are written with laspy, which is not installed",
            "pip install 'earthgen[points]'",
        ) from error
    if not laspy.LazBackend.detect_available():
        raise PluginError(
            "LAZ is written with lazrs, which is not installed", "pip install 'earthgen[points]'"
        )
    return laspy


def require_points(count: int, world: World, frame: Frame) -> None:
    """Raise StoreError if nothing was written."""
    if not count:
        raise StoreError(
            f"world {world.path} has no voxels within {frame.bounds}",
            "give bounds where it has data",
        )
