"""What a surface model shows above ground: roofs, unmapped buildings, and canopies.

A surface model is often coarser than the voxels, or was smoothed on the way: its walls are ramps
some cells wide. A cell is taken for a ramp where the surface is steep both above and below it;
roofs end in ramps, not in crisp steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthgen.noise.fields import cells, seeds
from earthgen.noise.philox import Noise
from earthgen.terrain.cover import CODES, code, is_class, on_surface, surface_table
from earthgen.terrain.filters import box_mean, box_share, cells_of, nearest
from earthgen.terrain.reach import Reach
from earthgen_procedural.objects import BROADLEAF, FLAT_ROOF, NEEDLELEAF, object_number
from geo_io.frame import Frame

TALL = 2.0  # metres above ground that count as a thing and not as rough ground
# Rise over run: no roof but a spire is steeper, and no tree is steep above and below for long
STEEP = 1.4
SHARPEN = 4.0  # metres: a ramp takes the height of the nearest roof this near
BESIDE = 2.5  # metres: what is tall this near to a building is its wall's ramp
JOIN, LEVEL = (
    4.0,
    3.0,
)  # metres: what is this near to a roof, and differs this little, belongs to it
# Metres: where this near there is no measured roof, the surface model is older than the building
PRESENT = 10.0
# A canopy's surface departs this much from its neighbours' mean, a roof's less; per metre of voxel
ROUGH = 0.28
CROWN, PLOT = (
    6.0,
    26.0,
)  # metres: measured canopies and blocks are divided into objects about this wide
SEEN, SEEN_SHARE = (
    32.0,
    0.1,
)  # a surface model sees trees where this share of the woods around is tall
ROOFS_REACH = Reach(max(JOIN, SHARPEN, PRESENT), 3)
THINGS_REACH = Reach(BESIDE + 2.0 + 2.0, 4)
SEEN_REACH = Reach(SEEN)


def ramps(surface: NDArray, voxel_size: float) -> NDArray:
    """(ny, nx) bool: cells on a slope steeper than STEEP that goes on below and above, and the
    cells at its foot.

    The outermost cells are never ramps.
    """
    filled = np.where(np.isfinite(surface), surface, np.float32(-1e4)).astype(np.float32)
    step = np.float32(STEEP * voxel_size)
    inner = (slice(1, -1), slice(1, -1))
    here = filled[inner]
    neighbours = [
        filled[1:-1, 2:],
        filled[1:-1, :-2],
        filled[:-2, 1:-1],
        filled[2:, 1:-1],
    ]  # east, west, north, south
    up = [side - here > step for side in neighbours]
    down = [here - side > step for side in neighbours]
    slope = np.zeros(filled.shape, bool)
    # Opposite sides: a low roof between a high one and the ground in a corner is no ramp.
    slope[inner] = (up[0] & down[1]) | (up[1] & down[0]) | (up[2] & down[3]) | (up[3] & down[2])
    beside = [slope[1:-1, 2:], slope[1:-1, :-2], slope[:-2, 1:-1], slope[2:, 1:-1]]
    foot = np.zeros(filled.shape, bool)
    foot[inner] = np.logical_or.reduce(
        [rises & ramp for rises, ramp in zip(up, beside, strict=True)]
    )
    return slope | foot


def measured_roofs(
    frame: Frame, cover: NDArray, terrain: NDArray, surface: NDArray, top: NDArray, number: NDArray
) -> tuple[NDArray, NDArray]:
    """Absolute roof heights (NaN: no building) and object numbers, both (ny, nx), after a surface
    model.

    terrain, surface : (ny, nx) float32 metres, surface NaN where unknown; top, number : roofs by
        the rules, which hold where the surface model has none
    """
    size = frame.voxel_size
    known = np.isfinite(surface)
    above = np.where(known, surface - terrain, 0.0).astype(np.float32)
    ramp = ramps(surface, size)
    built = is_class(cover, "building")
    sound = built & (above > TALL) & ~ramp
    out = np.where(sound, surface, np.float32(np.nan))

    # What leans on a roof belongs to it, though the land cover, often coarser, does not say so.
    solid = ~on_surface(cover, "wood", "tree", "shrub", "water", "road") & known & ~built
    _, index = nearest(sound, max(cells_of(JOIN, size), 1))
    roof = surface.ravel()[np.maximum(index, 0)]
    joins = solid & (index >= 0) & (above > TALL) & ~ramp & (np.abs(surface - roof) < LEVEL)
    out = np.where(joins, surface, out)
    number = np.where(joins, number.ravel()[np.maximum(index, 0)], number)

    missing = built & np.isnan(out) & (ramp | (above > TALL) | ~known)
    _, index = nearest(sound, max(cells_of(SHARPEN, size), 1))
    out = np.where(missing & (index >= 0), surface.ravel()[np.maximum(index, 0)], out)
    spire = built & np.isnan(out) & (above > TALL)
    out = np.where(spire, surface, out)
    # A building that the surface model does not show at all is built by the rules; a yard of one
    # that it shows is open.
    shown, _ = nearest(sound, max(cells_of(PRESENT, size), 1))
    absent = built & np.isnan(out) & (np.isinf(shown) | ~known)
    return np.where(absent, top, out).astype(np.float32), number


@dataclass(frozen=True)
class Measured:
    """Things that a surface model shows on a window besides the roofs of mapped buildings, all (ny,
    nx).

    Attributes
    ----------
    block : bool, smooth-topped things where the land cover allows for a building
    block_object : uint32
    canopy : bool, trees
    seen : bool, where the surface model shows trees at all, so that none are to be made up
    known : bool, where it has data
    """

    block: NDArray
    block_object: NDArray
    canopy: NDArray
    seen: NDArray
    known: NDArray


def measure(
    frame: Frame, cover: NDArray, terrain: NDArray, surface: NDArray, built: NDArray, noise: Noise
) -> Measured:
    """Tell trees from buildings in a surface model.

    cover : (ny, nx) uint8; terrain, surface : (ny, nx) float32 metres, surface NaN where unknown;
        built : (ny, nx) bool, where a building stands already

    What is tall is tall above the terrain, and not above the ground, which water and roads have
    shaped: their rules reach far.
    """
    size = frame.voxel_size
    known = np.isfinite(surface)
    above = np.where(known, surface - terrain, 0.0).astype(np.float32)
    wood = on_surface(cover, "wood", "tree", "shrub")
    # Beside a wall, what is tall is the wall's ramp, unless the land cover says tree.
    distance, _ = nearest(built, max(cells_of(BESIDE, size), 1))
    wall = np.isfinite(distance) & ~wood
    tall = (
        (above > TALL) & ~built & ~wall & ~is_class(cover, "building") & ~on_surface(cover, "water")
    )

    around = box_mean(above, tall, 1)
    departure = np.abs(above - np.where(tall, around, above))
    rough = box_mean(departure, tall, max(cells_of(2.0, size), 1))
    smooth = tall & (rough < ROUGH * max(size, 0.5))
    dense = box_share(smooth, max(cells_of(2.0, size), 1)) > 0.55
    allows = on_surface(cover, "grow", "flat") | (cover == 0)
    block = smooth & dense & allows
    radius = cells_of(SEEN, size)
    trees = wood & (above > TALL)
    seen = known & (box_share(trees, radius) > SEEN_SHARE * box_share(wood, radius))
    plots = seeds(noise.stream("measured.blocks"), frame, max(PLOT, 3.0 * size), 0.8)
    plot_key = plots.key.ravel()[cells(plots, frame)]
    return Measured(
        block=block,
        block_object=object_number(plot_key, FLAT_ROOF),
        canopy=tall & ~block,
        seen=seen,
        known=known,
    )


def crown_objects(frame: Frame, cover: NDArray, noise: Noise) -> NDArray:
    """(ny, nx) uint32 object numbers that divide measured canopies into crowns."""
    points = seeds(noise.stream("measured.crowns"), frame, max(CROWN, frame.voxel_size), 0.8)
    kind = np.where(is_class(cover, "needleleaf_forest"), NEEDLELEAF, BROADLEAF)
    return object_number(points.key.ravel()[cells(points, frame)], kind)


def canopy_class(cover: NDArray) -> NDArray:
    """Class of the voxels of a measured canopy over `cover`: the wood it stands in, else single
    trees."""
    table = np.full(CODES, code("tree"), np.uint8)
    wood = surface_table("wood", "tree", "shrub")
    table[wood] = np.flatnonzero(wood)
    return np.asarray(table[cover])
