"""Buildings of a world as things: outline, heights, shape of the roof, colours.

All of it is measured on the voxels and Gaussians of the world, so it holds for worlds of any
backend. The shape of a roof follows from the directions of its normals, weighted by cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import rasterio.features
import shapely
import shapely.affinity
from affine import Affine
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from earthgen.voxels.objects import FLAT_ROOF, HALL_ROOF, PITCHED_ROOF, PLAIN_ROOF

LEVEL = 0.99
"""A normal with a larger upward part belongs to a flat roof: 8 degrees."""

FLAT_SHARE = 0.7
"""Roofs of which a larger share is level are flat."""

RECTANGLE = 0.84
"""An outline becomes a rectangle of its area if both share this part of their union."""

SLIVER = 0.04
"""Parts of an outline that are smaller than this share of it are left out, such as single cells
that touch the rest at a corner."""

RIDGE = 98.0
"""Percentile of the tops that counts as the ridge: chimneys are above it."""

EAVES = 10.0
"""Percentile of the tops along the outline that counts as the eaves."""

INNER = 9
"""Least number of cells inside the rim that decide on the shape of a roof alone."""

MATERIALS = {
    FLAT_ROOF: ("plaster", "gravel"),
    PITCHED_ROOF: ("plaster", "roof_tiles"),
    HALL_ROOF: ("metal", "metal"),
    PLAIN_ROOF: ("wood", "wood"),
}
"""What walls and roofs of each type of building are drawn as, in the words of OpenStreetMap's
building:material and roof:material."""


@dataclass(frozen=True)
class Building:
    """A building of a world.

    Attributes
    ----------
    name : str
        The object number in hexadecimal, and the lattice indices of the south-westmost cell: unique
        in a world, and the same in all of its exports.
    number : int
        Object number.
    outline : Polygon or MultiPolygon
        CRS metres, exterior counter-clockwise.
    ground : float
        Lowest ground within the outline, absolute, metres.
    level_ground : float
        Mean ground within the outline, absolute, metres: what the heights refer to.
    base : float
        Underside above the ground; 0 for what stands on it.
    height, eaves : float
        Ridge and eaves above `level_ground`, metres.
    roof : str
        flat, gabled, hipped, pyramidal, skillion or complex.
    direction : float
        Of a skillion roof: degrees clockwise from north towards which it falls; of a gabled or
        hipped roof that of its ridge, 0 to 180; else NaN.
    area, volume : float
        Of the cells, m2 and m3.
    material, roof_material : str
        See `MATERIALS`.
    wall_rgb, roof_rgb : tuple of int or None
        Mean sRGB; None without visible walls.
    cells : NDArray (m,) CELL
    """

    name: str
    number: int
    outline: BaseGeometry
    ground: float
    level_ground: float
    base: float
    height: float
    eaves: float
    roof: str
    direction: float
    area: float
    volume: float
    material: str
    roof_material: str
    wall_rgb: tuple[int, int, int] | None
    roof_rgb: tuple[int, int, int]
    cells: NDArray


def building_of(cells: NDArray, size: float) -> Building:
    """Return the building of some cells.

    Parameters
    ----------
    cells : NDArray (m,) CELL
        Of one object, sorted by (y, x).
    size : float
        Edge of a cell, metres.
    """
    number = int(cells["number"][0])
    ground = float(cells["ground"].mean(dtype=np.float64))
    ridge = float(np.percentile(cells["top"], RIDGE))
    rim = _at_rim(cells["x"], cells["y"])
    eaves = min(float(np.percentile(cells["top"][rim], EAVES)), ridge)
    # Gaussians at the rim lean towards the wall.
    roof, direction = roof_shape(cells["normal"][~rim if (~rim).sum() >= INNER else slice(None)])
    if roof == "flat":
        eaves = ridge = float(np.percentile(cells["top"], 50))
    walls = int(cells["walls"].sum())
    wall = cells["wall"].sum(axis=0, dtype=np.int64)
    thickness = cells["top"] - cells["ground"] - cells["low"]
    material, roof_material = MATERIALS[number & 3]
    return Building(
        name=f"{number:08x}-{cells['x'][0]}-{cells['y'][0]}",
        number=number,
        outline=outline_of(cells["x"], cells["y"], size),
        ground=float(cells["ground"].min()),
        level_ground=ground,
        base=float(np.median(cells["low"])),
        height=ridge - ground,
        eaves=eaves - ground,
        roof=roof,
        direction=direction,
        area=len(cells) * size**2,
        volume=float(np.maximum(thickness, 0).sum()) * size**2,
        material=material,
        roof_material=roof_material,
        wall_rgb=_rgb(wall / walls) if walls else None,
        roof_rgb=_rgb(cells["rgb"].mean(axis=0, dtype=np.float64)),
        cells=cells,
    )


def _rgb(mean: NDArray) -> tuple[int, int, int]:
    red, green, blue = np.rint(mean).astype(int).tolist()
    return red, green, blue


def roof_shape(normal: NDArray) -> tuple[str, float]:
    """Return the shape of a roof and its direction (see `Building`) from normals (n, 3).

    Slopes of a skillion roof have one direction, of a gabled roof two that are opposite, of a
    hipped or pyramidal roof four. Means of exp(i k angle) over the slopes tell them apart
    (Mardia and Jupp, Directional Statistics, section 2.3): k = 1, 2 and 4.
    """
    steep = (normal[:, 2] < LEVEL) & (normal[:, 2] > 0.1)
    if steep.sum() <= (1 - FLAT_SHARE) * len(normal):
        return "flat", np.nan
    angle = np.arctan2(normal[steep, 0], normal[steep, 1]).astype(np.float64)
    one, two, four = (complex(np.exp(1j * k * angle).mean()) for k in (1, 2, 4))
    if abs(one) > 0.85:
        return "skillion", float(np.degrees(np.angle(one)) % 360)
    ridge = float((np.degrees(np.angle(two)) / 2 + 90) % 180)
    if abs(two) > 0.8:
        return "gabled", ridge
    if abs(four) > 0.45:
        return ("hipped", ridge) if abs(two) > 0.15 else ("pyramidal", np.nan)
    return "complex", np.nan


def _at_rim(x: NDArray, y: NDArray) -> NDArray:
    """Which cells have a neighbour outside the object."""
    x, y = x - x.min() + 1, y - y.min() + 1
    inside = np.zeros((y.max() + 2, x.max() + 2), bool)
    inside[y, x] = True
    return ~(inside[y, x - 1] & inside[y, x + 1] & inside[y - 1, x] & inside[y + 1, x])


def cell_polygons(x: NDArray, y: NDArray, size: float) -> list[Polygon]:
    """Return the exact outlines of cells, the largest first, counter-clockwise."""
    west, north = int(x.min()), int(y.max()) + 1
    mask = np.zeros((north - int(y.min()), int(x.max()) - west + 1), np.uint8)
    mask[north - 1 - y, x - west] = 1
    place = Affine(size, 0.0, west * size, 0.0, -size, north * size)
    shapes = rasterio.features.shapes(mask, mask=mask > 0, connectivity=4, transform=place)
    polygons = [Polygon(shape["coordinates"][0], shape["coordinates"][1:]) for shape, _ in shapes]
    polygons = [shapely.geometry.polygon.orient(polygon) for polygon in polygons]
    return sorted(polygons, key=lambda polygon: (-polygon.area, *polygon.bounds))


def outline_of(x: NDArray, y: NDArray, size: float) -> BaseGeometry:
    """Return a clean outline of cells: a rectangle where that fits, else without stairs.

    Parameters
    ----------
    x, y : NDArray (m,) int
        Lattice indices of the cells.
    size : float
        Edge of a cell, metres.

    Returns
    -------
    Polygon or MultiPolygon
        CRS metres; valid, exteriors counter-clockwise.
    """
    polygons = cell_polygons(x, y, size)
    total = sum(polygon.area for polygon in polygons)
    kept = [straight(polygon, size) for polygon in polygons if polygon.area >= SLIVER * total]
    if len(kept) == 1:
        return kept[0]
    whole = shapely.union_all(kept)
    parts = [
        shapely.geometry.polygon.orient(part)
        for part in getattr(whole, "geoms", [whole])
        if isinstance(part, Polygon)
    ]
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)


def straight(polygon: Polygon, size: float) -> Polygon:
    """Return a polygon of cells with straight walls instead of stairs, of nearly the same area."""
    box = polygon.minimum_rotated_rectangle
    if isinstance(box, Polygon) and box.area > 0:
        share = (polygon.area / box.area) ** 0.5
        box = shapely.affinity.scale(box, share, share)
        if box.intersection(polygon).area >= RECTANGLE * box.union(polygon).area:
            return shapely.geometry.polygon.orient(box)
    plain = polygon.simplify(size)
    if not isinstance(plain, Polygon) or not plain.is_valid or plain.area < 0.5 * polygon.area:
        return polygon
    return shapely.geometry.polygon.orient(plain)
