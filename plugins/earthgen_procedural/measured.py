"""What a surface model shows above ground beyond the buildings of the source: canopies, and unmapped buildings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthgen.noise import Noise
from earthgen_procedural.cover import CODES, code, is_class, on_surface, surface_table
from earthgen_procedural.filters import box_mean, box_share, cells_of
from earthgen_procedural.noise_fields import cells, seeds
from earthgen_procedural.objects import BROADLEAF, FLAT_ROOF, NEEDLELEAF, object_number
from geo_io.frame import Frame

TALL = 2.0  # metres above ground that count as a thing and not as rough ground
ROUGH = 0.28  # a canopy's surface departs this much from its neighbours' mean, a roof's less; per metre of voxel
CROWN, PLOT = 6.0, 26.0  # metres: measured canopies and blocks are divided into objects about this wide
SEEN, SEEN_SHARE = 32.0, 0.1  # a surface model sees trees where this share of the woods around is tall
REACH = SEEN


@dataclass(frozen=True)
class Measured:
    """Things that a surface model shows on a window, all (ny, nx).

    Attributes
    ----------
    block : bool, smooth-topped things where the land cover allows for a building
    block_object : uint32
    canopy : float32 metres above ground, 0 for none
    canopy_object : uint32
    seen : bool, where the surface model shows trees at all, so that none are to be made up
    known : bool, where it has data
    """

    block: NDArray
    block_object: NDArray
    canopy: NDArray
    canopy_object: NDArray
    seen: NDArray
    known: NDArray


def measure(frame: Frame, cover: NDArray, ground: NDArray, surface: NDArray, noise: Noise) -> Measured:
    """Tell trees from buildings in a surface model.

    cover : (ny, nx) uint8; ground, surface : (ny, nx) float32 metres, surface NaN where unknown
    """
    size = frame.voxel_size
    known = np.isfinite(surface)
    above = np.where(known, surface - ground, 0.0).astype(np.float32)
    tall = (above > TALL) & ~is_class(cover, "building") & ~on_surface(cover, "water")
    wood = on_surface(cover, "wood", "tree", "shrub")

    around = box_mean(above, tall, 1)
    departure = np.abs(above - np.where(tall, around, above))
    rough = box_mean(departure, tall, max(cells_of(2.0, size), 1))
    smooth = tall & (rough < ROUGH * max(size, 0.5))
    dense = box_share(smooth, max(cells_of(2.0, size), 1)) > 0.55
    allows = on_surface(cover, "grow", "flat") | (cover == 0)
    block = smooth & dense & allows
    canopy = np.where(tall & ~block, above, np.float32(0.0))

    radius = cells_of(SEEN, size)
    seen = known & (box_share(wood & tall, radius) > SEEN_SHARE * box_share(wood, radius))
    crowns = seeds(noise.stream("procedural.measured.crowns"), frame, max(CROWN, size), 0.8)
    plots = seeds(noise.stream("procedural.measured.blocks"), frame, max(PLOT, 3.0 * size), 0.8)
    needle = is_class(cover, "needleleaf_forest")
    crown_key, plot_key = crowns.key.ravel()[cells(crowns, frame)], plots.key.ravel()[cells(plots, frame)]
    return Measured(
        block=block,
        block_object=object_number(plot_key, FLAT_ROOF),
        canopy=canopy,
        canopy_object=object_number(crown_key, np.where(needle, NEEDLELEAF, BROADLEAF)),
        seen=seen,
        known=known,
    )


def canopy_class(cover: NDArray) -> NDArray:
    """Class of the voxels of a measured canopy over `cover`: the wood it stands in, else single trees."""
    table = np.full(CODES, code("tree"), np.uint8)
    wood = surface_table("wood", "tree", "shrub")
    table[wood] = np.flatnonzero(wood)
    return np.asarray(table[cover])
