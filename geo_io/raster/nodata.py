"""Values that stand for missing heights without being declared, found in a sample of the raster."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geo_io.raster.grid import Grid, read_grid, sparse_grid
from geo_io.raster.source import RasterSource, open_dataset

ALWAYS = (-32768.0, -32767.0, -9999.0, -99999.0, 32767.0)
"""Stored values that always mean nodata in rasters of heights."""

USUALLY = (-10000.0,)
"""Values that do so unless the raster has other values near them: an empty pixel of Terrain-RGB is
-10000, and so is a place in a deep-sea trench."""

SOMETIMES = (-9998.0, -1000.0, -999.0, 999.0, 9999.0)
"""Values that do so if the sample has them, alone, far from all others."""

NEAR = 500.0
"""Difference in stored units of values that are near each other."""

SAMPLE_CELLS = 64
"""Stored pixels along the longer side of the sample."""

OVERVIEW_PIXELS = 1_000_000
"""A coarsest overview of at most so many pixels is part of the sample."""

LOWEST_LAND = -500.0
"""Metres; the shore of the Dead Sea is at -430. Below are sea floors, and means of nodata."""

PERCENTILES = (1.0, 99.0)

ODD_COUNT, ODD_GAP, ODD_RANGES, ODD_ZERO = 8, 50.0, 3.0, 30.0
"""Pixels of the sample from which a single lowest or highest value is odd, if it lies so many
metres, and so many times the range of all others, away from them; zero, if nothing else is nearer
than the last number of metres."""


@dataclass(frozen=True)
class Undeclared:
    """Nodata that a raster of heights does not declare.

    Attributes
    ----------
    values : tuple of float
        Stored values that are nodata; declared ones need not be among them.
    floor, ceiling : float
        Stored values below and above these are means of nodata and heights.
    overviews : bool
        Whether the overviews may hold such means.
    found : tuple of float
        The values that are not declared and that the sample has.
    odd : float or None
        A stored value far from all others, which many pixels share, and which may be nodata too.
    """

    values: tuple[float, ...] = (*ALWAYS, *USUALLY)
    floor: float = -math.inf
    ceiling: float = math.inf
    overviews: bool = False
    found: tuple[float, ...] = ()
    odd: float | None = None


def undeclared_nodata(source: RasterSource, band: int, metres: float) -> Undeclared:
    """Look for nodata that is not declared. The result depends on the raster alone.

    Parameters
    ----------
    source : RasterSource
        The raster.
    band : int
        The band with the heights, counted from 1.
    metres : float
        A stored unit in metres.
    """
    sample = _sample(source, band)
    overview = _coarsest_overview(source, band)
    stored = np.concatenate([sample, overview])
    values = [*ALWAYS]
    values += [value for value in USUALLY if not _others_near(stored, value)]
    values += [
        value for value in SOMETIMES if (stored == value).any() and not _others_near(stored, value)
    ]
    declared = source.nodata[band - 1]
    hidden = [value for value in values if value != declared]
    found = [value for value in hidden if (stored == value).any()]
    land = sample[~np.isin(sample, values) & (sample * metres > LOWEST_LAND)]
    if not land.size:
        return Undeclared(tuple(values), overviews=bool(found), found=tuple(found))
    low, high = np.percentile(land, PERCENTILES)
    slack = max(300.0 / metres, 0.5 * (high - low))
    floor = low - slack if any(value < low - slack for value in found) else -math.inf
    ceiling = high + slack if any(value > high + slack for value in found) else math.inf
    depths = (sample * metres <= LOWEST_LAND) & ~np.isin(sample, values)
    if depths.sum() > len(sample) // 50:  # a sea floor, not a few means
        floor = -math.inf
    odd = overview[~np.isin(overview, values)] * metres < min(LOWEST_LAND, low * metres)
    tainted = bool(found) or bool(odd.any() and not depths.any())
    return Undeclared(
        tuple(values),
        float(floor),
        float(ceiling),
        tainted and bool(source.overviews),
        tuple(found),
        _odd_value(sample[~np.isin(sample, np.array([*values, declared], float))], metres),
    )


def _odd_value(stored: NDArray, metres: float) -> float | None:
    """Return the lowest or highest of stored values (n,), if many share it far from all others."""
    for value in (stored.min(), stored.max()) if stored.size else ():
        others = stored[stored != value]
        if not others.size or (stored == value).sum() < ODD_COUNT or (others == others[0]).all():
            continue
        gap = float(np.abs(others - value).min()) * metres
        extent = float(np.ptp(others)) * metres
        if gap > ODD_GAP + ODD_RANGES * extent or (value == 0 and gap > ODD_ZERO):
            return float(value)
    return None


def _others_near(stored: NDArray, value: float) -> bool:
    return bool(((np.abs(stored - value) < NEAR) & ~np.isin(stored, (*ALWAYS, value))).any())


def _sample(source: RasterSource, band: int) -> NDArray:
    """Return stored values of regular pixels, those that the file calls valid, (n,) float64."""
    return _cells(source, sparse_grid(source, SAMPLE_CELLS), band)


def _coarsest_overview(source: RasterSource, band: int) -> NDArray:
    if not source.overviews:
        return np.empty(0)
    level = len(source.overviews) - 1
    with open_dataset(source.path, level) as dataset:
        size = dataset.height, dataset.width
    if size[0] * size[1] > OVERVIEW_PIXELS:
        return np.empty(0)
    scale = source.shape[0] / size[0], source.shape[1] / size[1]
    return _cells(source, Grid(level, size, 1, 1, scale), band)


def _cells(source: RasterSource, grid: Grid, band: int) -> NDArray:
    cells, valid = read_grid(source, grid, (0, grid.shape[0]), (0, grid.shape[1]), bands=(band,))
    return cells[0][valid].astype(np.float64)
