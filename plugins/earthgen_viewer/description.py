"""What the page knows about a world besides its tiles: where it is, its classes and its sources."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earthgen.world.selection import (
    Selection,
    credits_text,
    input_names,
    select,
    source_record,
)
from geo_io.crs import WGS84, parse_crs, transformer
from geo_io.frame import Bounds, Frame
from geo_io.legend import classes

if TYPE_CHECKING:
    from earthgen.world.world import World

CELLS = 4_000_000
"""Cells of the level at which areas of classes are counted, at most."""

FIT_ERROR = 0.001
"""Largest error of a fitted projection, metres, if a polynomial of degree 8 reaches it."""

WHAT_IT_IS = (
    "A model that a program made. It keeps to what the sources below say; where they say nothing, "
    "shapes, heights and colours are invented."
)

LONGEST = 300
"""Letters of a text about sources that a page shows."""


@dataclass(frozen=True)
class Fit:
    """A projection from longitude and latitude, as polynomials over a region.

    With u = (longitude - centre[0]) / scale[0], v = (latitude - centre[1]) / scale[1], both from -1
    to 1, each coordinate is the sum of c[n] u^i v^j over i from 0 to degree and j from 0 to
    degree - i, n counting these terms. So a page knows coordinates without a library for
    projections.

    Attributes
    ----------
    centre, scale : tuple of float
        Degrees.
    degree : int
    east, north : list of float
        Coefficients, metres.
    error : float
        Largest distance from the projection at points between those of the fit, metres.
    """

    centre: tuple[float, float]
    scale: tuple[float, float]
    degree: int
    east: list[float]
    north: list[float]
    error: float


def fit_projection(frame: Frame) -> Fit:
    """Fit polynomials to the projection of a frame's CRS over the frame.

    The lowest degree is taken that is exact to `FIT_ERROR`.
    """
    lon, lat, x, y = _lattice(frame, 13)
    centre = (_middle(lon), _middle(lat))
    scale = (_reach(lon - centre[0]), _reach(lat - centre[1]))
    between = _lattice(frame, 20)
    fit = None
    for degree in range(1, 9):
        terms = _terms((lon - centre[0]) / scale[0], (lat - centre[1]) / scale[1], degree)
        east, north = (
            np.linalg.lstsq(terms, values - offset, rcond=None)[0]
            for values, offset in ((x, _middle(x)), (y, _middle(y)))
        )
        east[0] += _middle(x)
        north[0] += _middle(y)
        tested = _terms(
            (between[0] - centre[0]) / scale[0], (between[1] - centre[1]) / scale[1], degree
        )
        error = float(np.hypot(tested @ east - between[2], tested @ north - between[3]).max())
        if fit is None or error < fit.error:
            fit = Fit(centre, scale, degree, east.tolist(), north.tolist(), error)
        if fit.error <= FIT_ERROR:
            break
    assert fit is not None  # the loop runs
    return fit


def describe_world(
    world: World,
    bounds: Bounds | None,
    name: str,
    tileset: str,
    finest: int,
    *,
    whole: bool = True,
    splats: str = "",
    note: str = "",
) -> dict[str, Any]:
    """Describe a world, or a part of it, as JSON values for the page.

    Parameters
    ----------
    world : World
    bounds : tuple of float or None
        Left, bottom, right, top in metres of the CRS; None for the whole world.
    name : str
        What the page calls the world.
    tileset : str
        Address of its tileset, relative to the page, or "embedded:PATH".
    finest : int
        The finest level of detail in the tileset.
    whole : bool
        Whether it covers all of the world at that level.
    splats : str
        Address of the tileset of its Gaussians, if there is one.
    note : str
        What the page says below the legend.

    Raises
    ------
    StoreError, RegionError
        If there is no finished tile within the bounds, or they do not meet the world.
    """
    frame = world.part(1, bounds)
    counted = _counting_level(world, frame)
    cells, low, high = _survey(world, select(world, bounds, counted))
    total = max(int(cells[1:].sum()), 1)
    fit = fit_projection(frame)
    crs = parse_crs(frame.crs)
    code = frame.crs if len(frame.crs) <= 20 else crs.name
    record = source_record(world)
    middle = (low + high) / 2
    return {
        "name": name,
        "tileset": tileset,
        "splats": splats,
        "note": note,
        "crs": code,
        "projection": {
            "centre": fit.centre,
            "scale": fit.scale,
            "degree": fit.degree,
            "east": fit.east,
            "north": fit.north,
            "error": fit.error,
        },
        "middle": {"lon": fit.centre[0], "lat": fit.centre[1], "height": middle},
        "radius": math.hypot(_width(frame), _depth(frame), high - low) / 2,
        "heights": [low, high],
        "classes": [
            {
                "code": one.code,
                "title": one.title,
                "color": one.color,
                "share": int(cells[one.code]) / total,
            }
            for one in classes()
            if cells[one.code]
        ],
        "summary": _summary(frame),
        "credits": _shortened(credits_text(record)),
        "facts": [
            *_facts(world, record, frame, crs.name, fit, name),
            ("Finest detail here", _detail(frame.voxel_size * finest, whole)),
        ],
    }


def _survey(world: World, selection: Selection) -> tuple[NDArray, float, float]:
    """Cells by class code (256,), and the lowest and highest surface, metres."""
    cells = np.zeros(256, np.int64)
    low, high = np.inf, -np.inf
    for tx, ty in selection.tiles:
        part = selection.tile(world, tx, ty)
        if part is None:
            continue
        layers = world.tile_layers(tx, ty, selection.level)
        rows, columns = world.tile_frame(tx, ty, selection.level).slices(part)
        cells += np.bincount(layers["semantics"][rows, columns].ravel(), minlength=256)[:256]
        for name in ("ground", "surface"):
            values = layers[name][rows, columns]
            values = values[np.isfinite(values)]
            if values.size:
                low, high = min(low, float(values.min())), max(high, float(values.max()))
    if not low <= high:
        return cells, 0.0, 1.0
    return cells, low, max(high, low + 1.0)


def _counting_level(world: World, frame: Frame) -> int:
    shape = (_width(frame) / frame.voxel_size) * (_depth(frame) / frame.voxel_size)
    fitting = [level for level in world.levels if shape / level**2 <= CELLS]
    return min(fitting, default=max(world.levels))


def _facts(
    world: World,
    record: dict[str, Any],
    frame: Frame,
    crs: str,
    fit: Fit,
    name: str,
) -> list[tuple[str, str]]:
    provenance = world.provenance
    facts = [
        ("World", name),
        ("What it is", WHAT_IT_IS),
        ("Made", f"{str(provenance.get('made', 'unknown'))[:10]} by {record['generator']}"),
        ("Seed", str(world.seed)),
        ("Region", f"{_width(frame):.0f} x {_depth(frame):.0f} m in {crs}"),
        ("Heights", _vertical(world)),
        (
            "Coordinates",
            f"fitted to the projection, exact to {max(fit.error, 0.001) * 1000:.0f} mm",
        ),
    ]
    if record.get("ground"):
        facts.append(("Ground", str(record["ground"])))
    for kind, names in input_names(record).items():
        facts.append((kind.capitalize(), _shortened(", ".join(names))))
    if credits := _attribution(record):
        facts.append(("Sources", _shortened(credits)))
    return facts


def _detail(size: float, whole: bool) -> str:
    return f"{size:g} m" if whole else f"{size:g} m in some places, coarser in others"


def _vertical(world: World) -> str:
    vertical = world.frame.vertical_crs
    if not vertical or vertical == "unknown":
        return "metres; the vertical datum is not known"
    return f"metres in {vertical}"


def _attribution(record: dict[str, Any]) -> str:
    given = record.get("attribution") or []
    return "; ".join(str(item) for item in ([given] if isinstance(given, str) else given))


def _summary(frame: Frame) -> str:
    size = f"{_width(frame):,.0f} × {_depth(frame):,.0f} m ({_area_text(_area(frame))})"
    parts = ["Generated 3D model", size, f"cells of {frame.voxel_size:g} m"]
    # Lines break between the parts only.
    return ", ".join(part.replace(" ", "\N{NO-BREAK SPACE}") for part in parts)


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1].rstrip() + "…"


def _lattice(frame: Frame, count: int) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Longitude, latitude, x and y of points on a frame; longitudes do not jump at 180 degrees."""
    left, bottom, right, top = frame.bounds
    x, y = (
        values.ravel()
        for values in np.meshgrid(np.linspace(left, right, count), np.linspace(bottom, top, count))
    )
    lon, lat = (np.asarray(v) for v in transformer(frame.crs, WGS84).transform(x, y))
    lon = lon[0] + (lon - lon[0] + 180) % 360 - 180
    return lon, lat, x, y


def _terms(u: NDArray, v: NDArray, degree: int) -> NDArray:
    return np.stack([u**i * v**j for i in range(degree + 1) for j in range(degree + 1 - i)], axis=1)


def _middle(values: NDArray) -> float:
    return float((values.min() + values.max()) / 2)


def _reach(values: NDArray) -> float:
    return float(np.abs(values).max()) or 1.0


def _width(frame: Frame) -> float:
    return frame.bounds[2] - frame.bounds[0]


def _depth(frame: Frame) -> float:
    return frame.bounds[3] - frame.bounds[1]


def _area(frame: Frame) -> float:
    return _width(frame) * _depth(frame)


def _area_text(area: float) -> str:
    if area < 10_000:
        return f"{area:.0f} m²"
    return f"{area / 1e4:.1f} ha" if area < 1e6 else f"{area / 1e6:.2f} km²"
