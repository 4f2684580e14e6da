"""Buildings as the flow of heights is told about them: numbers, heights and axes, by object."""

from __future__ import annotations

import numpy as np
import shapely
import torch
from numpy.typing import NDArray

from earthgen.models.height_state import EDGE_UNIT, OBJECT_MAPS, object_maps
from earthgen.models.roofs import roof_drop
from earthgen.noise.fields import nearest_cells
from earthgen.noise.philox import Noise
from earthgen.terrain.cover import is_class
from earthgen.terrain.town import house_heights, town_share
from earthgen_latent.roofs import told_roofs
from earthgen_latent.solid import building_objects, house_plots, painted_footprints
from earthgen_latent.usual_heights import building_heights, neighbourhood
from geo_io.frame import Frame
from geo_io.layers import Buildings, Semantics

EAVES_SHARE, MOST_ROOF = 0.2, 4.0
"""Height of a roof above known eaves: a share of the edge of a square footprint, at most so many
metres."""

LOWEST_HOUSE = 6.0
"""Least height of a building without a footprint, with its roof, metres."""

TOWNS_DIFFER = 0.4
"""How much the logarithm of heights of buildings without footprints differs from the usual, at
most, from one neighbourhood to another. With less, the towns of two seeds are more alike than each
is the truth (docs/guides/evaluation.md)."""

LARGEST, TYPICAL = 70.0, 0.5
"""Metres from its middle that a footprint reaches, up to which it is looked how deep in a town it
stands; of a larger one, whose middle may be out of reach, this is taken."""


def told_buildings(
    frame: Frame, layer: Semantics, cover: NDArray, noise: Noise
) -> tuple[NDArray, NDArray, NDArray]:
    """Return what the flow of heights is told about the buildings of a frame.

    A height and a roof that the map tells are taken; else they are drawn for the whole building,
    from its area, its neighbourhood and its key.

    Parameters
    ----------
    frame : Frame
        The columns.
    layer : Semantics
        The land cover, with whole footprints.
    cover : NDArray (ny, nx) uint8
        Class codes; 0 unknown.
    noise : Noise
        Keys what is drawn.

    Returns
    -------
    told : NDArray (ny, nx) float32
        Height of the building, metres; 0 where there is none.
    objects : NDArray (ny, nx, OBJECT_MAPS) float32
        Of `earthgen.models.height_state.object_maps`. Axes are known for footprints alone.
    roof : NDArray (ny, nx) float32
        How far the roof lies below the height of its building, metres; NaN where none is told, as
        where there is no footprint.
    """
    built = is_class(cover, "building")
    if not built.any():
        nothing = np.zeros(frame.shape, np.float32)
        return nothing, np.zeros((*frame.shape, OBJECT_MAPS), np.float32), nothing + np.nan
    index = painted_footprints(frame, layer.buildings)
    mapped = built & (index >= 0)
    number = np.where(built, building_objects(frame, layer, noise, index), np.uint32(0))
    told = np.zeros(frame.shape)
    axes = np.zeros((*frame.shape, 4), np.float32)
    roof = np.full(frame.shape, np.nan, np.float32)
    plots = built & ~mapped
    if plots.any():
        told[plots] = plot_heights(frame, built, noise)[plots]
    if mapped.any():
        used, inverse = np.unique(index[mapped], return_inverse=True)
        every = layer.buildings
        buildings = every.take(used)
        town = _town_shares(frame, buildings, built)
        heights = footprint_heights(buildings, town, noise)
        told[mapped] = heights[inverse]
        axes[mapped] = _axes(frame, buildings.footprint, mapped, inverse)
    maps = object_maps(
        torch.from_numpy(number.astype(np.int64))[None],
        torch.from_numpy(axes)[None],
        frame.voxel_size,
    )
    if mapped.any():
        edge = EDGE_UNIT * maps[0, 0].numpy()[mapped]
        roof[mapped] = _roofs(buildings, heights, inverse, axes[mapped], edge, noise)
    return told.astype(np.float32), np.moveaxis(maps[0].numpy(), 0, -1), roof


def _roofs(
    buildings: Buildings,
    heights: NDArray,
    index: NDArray,
    axes: NDArray,
    edge: NDArray,
    noise: Noise,
) -> NDArray:
    """Return how far roofs lie below the heights of their buildings, (n,) metres, for n columns."""
    half = np.zeros((len(buildings), 2))
    half[index] = axes[:, 2:]  # all columns of a building have the same
    district = neighbourhood(*_centres(buildings), noise.stream("roof districts"))
    roofs = told_roofs(buildings, heights, half, district, noise)
    across = np.where(roofs["turned"][index], axes[:, 0], axes[:, 1])
    drop = roof_drop(
        torch.from_numpy(roofs["kind"][index]),
        torch.from_numpy(roofs["slope"][index]),
        torch.from_numpy(roofs["depth"][index]),
        torch.from_numpy(across.astype(np.float64)),
        torch.from_numpy(edge.astype(np.float64)),
    ).numpy()
    return np.where(roofs["kind"][index] >= 0, drop, np.nan).astype(np.float32)


def _centres(buildings: Buildings) -> tuple[NDArray, NDArray]:
    """Return the centres of footprints, CRS metres, (n,) each."""
    centre = shapely.centroid(buildings.footprint)
    return shapely.get_x(centre), shapely.get_y(centre)


def footprint_heights(buildings: Buildings, town: NDArray, noise: Noise) -> NDArray:
    """Return the height that the map tells of each footprint, else one that is drawn, (n,) metres.

    Buildings near each other have similar heights.

    Parameters
    ----------
    buildings : Buildings
        n footprints.
    town : NDArray (n,) float64
        How deep in a town each stands, from 0 to 1.
    noise : Noise
        Keys the draw.
    """
    area = shapely.area(buildings.footprint)
    near = neighbourhood(*_centres(buildings), noise.stream("neighbourhoods"))
    drawn = building_heights(area, town, buildings.key, near, noise)
    # Of a height to the eaves alone the roof is still to come.
    eaves = buildings.form["eaves"] + np.minimum(EAVES_SHARE * np.sqrt(area), MOST_ROOF)
    drawn = np.where(np.isfinite(eaves), eaves, buildings.form["base"] + drawn)
    return np.where(np.isfinite(buildings.height), buildings.height, drawn)


def _town_shares(frame: Frame, buildings: Buildings, built: NDArray) -> NDArray:
    """How deep in a town footprints stand, (n,) float64 from 0 to 1."""
    x, y = _centres(buildings)
    west, south, east, north = shapely.bounds(buildings.footprint).T
    far = np.hypot(np.maximum(x - west, east - x), np.maximum(y - south, north - y))
    town = town_share(built, nearest_cells(frame, x, y), frame.voxel_size)
    return np.where(far > LARGEST, TYPICAL, town)


def plot_heights(frame: Frame, built: NDArray, noise: Noise) -> NDArray:
    """Draw heights of buildings without footprints, one a plot, (ny, nx) float64 metres.

    They are higher where more of the land around is built on.

    Parameters
    ----------
    frame : Frame
        The columns; those within 1.5 plots and `TOWN_REACH` of its edges are not exact.
    built : NDArray (ny, nx) bool
        Where buildings stand.
    noise : Noise
        Keys the draw.
    """
    points, plot = house_plots(frame, noise)
    own = noise.stream("building heights").of_objects(points.key.ravel().astype(np.uint64))
    middle, size = points.cells(frame), frame.voxel_size
    near = neighbourhood(points.x.ravel(), points.y.ravel(), noise.stream("neighbourhoods"))
    heights = house_heights(LOWEST_HOUSE, own, built, middle, size)
    return (heights * np.exp(TOWNS_DIFFER * (2 * near - 1)))[plot]


def _axes(frame: Frame, footprints: NDArray, mapped: NDArray, index: NDArray) -> NDArray:
    """Place along the axes of footprints, (n, 4) float32, for the mapped columns of a frame."""
    used, inverse = np.unique(index, return_inverse=True)
    boxes = shapely.minimum_rotated_rectangle(footprints[used])
    corners = np.array([np.array(box.exterior.coords)[:3] for box in boxes])
    centre = (corners[:, 0] + corners[:, 2]) / 2
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 1]
    lengths = np.stack([np.hypot(*first.T), np.hypot(*second.T)], axis=1)
    longer = lengths[:, 0] >= lengths[:, 1]
    along = np.where(longer[:, None], first, second)
    along = along / np.maximum(np.hypot(*along.T), 1e-9)[:, None]
    half = np.sort(lengths, axis=1)[:, ::-1] / 2
    row, col = np.nonzero(mapped)
    size = frame.voxel_size
    x = (frame.x[0] + col + 0.5) * size - centre[inverse, 0]
    y = (frame.y[1] - row - 0.5) * size - centre[inverse, 1]
    u = np.abs(along[inverse, 0] * x + along[inverse, 1] * y)
    v = np.abs(along[inverse, 0] * y - along[inverse, 1] * x)
    return np.stack([u, v, half[inverse, 0], half[inverse, 1]], axis=1).astype(np.float32)
