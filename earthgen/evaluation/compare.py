"""Two worlds of one place beside each other: areas by class, buildings, trees, heights.

Worlds are read block by block, so that memory does not grow with them.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling

from earthgen.dataset.html import Cell, render_page
from earthgen.errors import StoreError
from earthgen.progress import Progress
from earthgen.render.features.buildings import RIDGE
from earthgen.render.features.objects import world_objects
from earthgen.render.features.plants import plants_of
from earthgen.render.interfaces import Renderer, View
from earthgen.voxels.objects import BROADLEAF, NEEDLELEAF
from earthgen.world.selection import credits_text, select, source_record
from earthgen.world.world import World
from geo_io.errors import FrameError, RegionError
from geo_io.frame import Bounds, Frame, extent
from geo_io.layers import Raster
from geo_io.legend import classes
from geo_io.raster.geotiff import CogWriter

BLOCK = 512
"""Cells along the edge of a block that is compared at a time."""

CLEAR = 1.0
"""Metres by which heights have to differ to count as different."""

HECTARE = 10_000.0
"""Square metres; smaller areas are given in square metres."""

PICTURE = 1200
"""Longer edge of the pictures of a report, pixels."""

STRONG = 5.0
"""Metres of a difference that has the full colour in the picture, at least."""

NAMES = ("difference.tif", "a.png", "b.png", "difference.png", "report.html", "report.json")
"""The files of a comparison."""


@dataclass(frozen=True)
class Heights:
    """How the heights of a second world differ from those of a first, metres.

    Attributes
    ----------
    mean : float
        Of the differences, second minus first.
    mean_absolute, largest : float
        Of their absolute values.
    different : float
        Share of cells that differ by more than `CLEAR`.
    """

    mean: float
    mean_absolute: float
    largest: float
    different: float


@dataclass(frozen=True)
class Stock:
    """Buildings and trees of a world within the compared bounds.

    Attributes
    ----------
    buildings : int
    footprint, volume : float
        m2 and m3.
    building_height : float or None
        Mean of the buildings' ridges above the ground, metres; None without buildings.
    trees : int
        Broad-leaved and needle-leaved trees, without bushes and hedges.
    tree_height : float or None
        Mean, metres.
    crowns : float
        Area below the crowns of these trees, m2; where two overlap, twice.
    """

    buildings: int
    footprint: float
    volume: float
    building_height: float | None
    trees: int
    tree_height: float | None
    crowns: float


@dataclass(frozen=True)
class Comparison:
    """Two worlds where both have data.

    Attributes
    ----------
    worlds : (str, str)
        Their names.
    seeds : (int, int)
    crs : str
    bounds : tuple of float
        Left, bottom, right, top of what is compared, metres of the CRS.
    cell : float
        Edge of a cell, metres.
    area : float
        m2 where both worlds have data.
    changed : float
        Share of it with another class, seen from above.
    areas : mapping of str to (float, float)
        m2 of each class that one of them has, seen from above.
    stocks : (Stock, Stock)
    ground, surface : Heights
    """

    worlds: tuple[str, str]
    seeds: tuple[int, int]
    crs: str
    bounds: Bounds
    cell: float
    area: float
    changed: float
    areas: dict[str, tuple[float, float]]
    stocks: tuple[Stock, Stock]
    ground: Heights
    surface: Heights

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return asdict(self)


def common_frame(a: World, b: World, bounds: Bounds | None, level: int) -> Frame:
    """Return the frame that two worlds share.

    Raises
    ------
    FrameError
        If their CRS or voxel sizes differ.
    RegionError
        If they do not overlap, or neither do the bounds.
    """
    first, second = a.part(level, bounds), b.level_frame(level)
    if (first.crs, first.voxel_size) != (second.crs, second.voxel_size):
        raise FrameError(
            f"{a.path} has voxels of {first.voxel_size:g} m in {first.crs}, {b.path} of "
            f"{second.voxel_size:g} m in {second.crs}",
            "compare worlds with one CRS and one voxel size",
        )
    both = first.intersection(second)
    if both is None:
        raise RegionError(
            f"{b.path} covers {extent(second.bounds)}, which does not meet "
            f"{extent(first.bounds)} of {a.path}",
            "compare worlds that overlap",
        )
    return both


def compare(
    a: World,
    b: World,
    *,
    bounds: Bounds | None = None,
    level: int = 1,
    difference: Path | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare two worlds on the part that both cover.

    Parameters
    ----------
    a, b : World
        With one CRS and one voxel size.
    bounds : tuple of float, optional
        Left, bottom, right, top in metres of the CRS.
    level : int
        1, 2, 4 or 8.
    difference : Path, optional
        A cloud-optimised GeoTIFF to write: band 1 the surface of the second minus that of the
        first, band 2 the same of the ground, metres; NaN where one has no data.
    progress : Progress, optional

    Raises
    ------
    FrameError, RegionError
        If the worlds have no lattice or no place in common.
    StoreError
        If there is no cell where both have data.
    InputError
        If the GeoTIFF cannot be written.
    """
    frame = common_frame(a, b, bounds, level)
    progress = progress or Progress()
    blocks = list(_blocks(frame))
    progress.start("compare", len(blocks) + 2)
    sums = _Sums()
    writer = None
    if difference is not None:
        writer = CogWriter(
            difference,
            frame,
            np.float32,
            2,
            nodata=float("nan"),
            band_names=["surface, second minus first", "ground, second minus first"],
            unit="metre",
            statistics=True,
        )
        writer.__enter__()
    try:
        layers = [world.layers(level) for world in (a, b)]
        frames = [world.level_frame(level) for world in (a, b)]
        for block in blocks:
            read = [
                {
                    name: np.asarray(data[name][whole.slices(block)].values)
                    for name in ("ground", "surface", "semantics")
                }
                for data, whole in zip(layers, frames, strict=True)
            ]
            change = sums.add(*read)
            if writer is not None:
                writer.write(Raster(block, change))
            progress.step("block")
    except BaseException as error:
        if writer is not None:
            writer.__exit__(type(error), error, error.__traceback__)
        raise
    if writer is not None:
        writer.__exit__(None, None, None)
    if not sums.count:
        raise StoreError(
            f"{a.path} and {b.path} have no cell with data in common within {extent(frame.bounds)}",
            "finish them with `earthgen generate --resume`",
        )
    stocks = []
    for world in (a, b):
        stocks.append(stock_of(world, frame, level))
        progress.step(str(world.path))
    cell = frame.voxel_size**2
    present = np.flatnonzero(sums.areas.sum(axis=0))
    titles = {0: "unknown"} | {land.code: land.name for land in classes()}
    return Comparison(
        worlds=world_names(str(a.path), str(b.path)),
        seeds=(a.seed, b.seed),
        crs=frame.crs,
        bounds=frame.bounds,
        cell=frame.voxel_size,
        area=sums.count * cell,
        changed=sums.changed / sums.count,
        areas={
            titles[int(code)]: (
                float(sums.areas[0, code]) * cell,
                float(sums.areas[1, code]) * cell,
            )
            for code in present
        },
        stocks=(stocks[0], stocks[1]),
        ground=sums.heights("ground"),
        surface=sums.heights("surface"),
    )


def stock_of(world: World, frame: Frame, level: int) -> Stock:
    """Count and measure the buildings and trees of a world that stand within a frame."""
    selection = select(world, frame.bounds, level)
    selection = replace(selection, frame=frame)
    size = frame.voxel_size
    buildings, cells, volume, ridges = 0, 0, 0.0, 0.0
    for objects in world_objects(world, selection, buildings=True):
        for each in objects:
            own = each[_inside(each, frame)]
            buildings += 1
            cells += len(own)
            thickness = own["top"] - own["ground"] - own["low"]
            volume += float(np.maximum(thickness, 0).sum()) * size**2
            ridges += float(np.percentile(each["top"], RIDGE) - each["ground"].mean())
    trees, tall, crowns = 0, 0.0, 0.0
    for objects in world_objects(world, selection, buildings=False):
        plants = plants_of(objects, size)
        chosen = np.isin(plants.kind, (BROADLEAF, NEEDLELEAF))
        trees += int(chosen.sum())
        tall += float(plants.height[chosen].sum())
        crowns += float((plants.crown[chosen] ** 2).sum() * np.pi / 4)
    return Stock(
        buildings=buildings,
        footprint=cells * size**2,
        volume=volume,
        building_height=ridges / buildings if buildings else None,
        trees=trees,
        tree_height=tall / trees if trees else None,
        crowns=crowns,
    )


def _inside(cells: NDArray, frame: Frame) -> NDArray:
    (west, east), (south, north) = frame.x, frame.y
    x, y = cells["x"], cells["y"]
    return (x >= west) & (x < east) & (y >= south) & (y < north)


def _blocks(frame: Frame) -> Iterator[Frame]:
    for south in range(frame.y[0], frame.y[1], BLOCK):
        for west in range(frame.x[0], frame.x[1], BLOCK):
            yield replace(
                frame,
                x=(west, min(west + BLOCK, frame.x[1])),
                y=(south, min(south + BLOCK, frame.y[1])),
            )


class _Sums:
    """What is added up over blocks."""

    def __init__(self) -> None:
        self.count = self.changed = 0
        self.areas = np.zeros((2, 256), np.int64)
        self.totals = {name: np.zeros(4) for name in ("ground", "surface")}

    def add(self, first: dict[str, NDArray], second: dict[str, NDArray]) -> NDArray:
        """Add a block; the differences of surface and ground (ny, nx, 2) float32."""
        both = np.isfinite(first["ground"]) & np.isfinite(second["ground"])
        both &= np.isfinite(first["surface"]) & np.isfinite(second["surface"])
        self.count += int(both.sum())
        self.changed += int((both & (first["semantics"] != second["semantics"])).sum())
        for row, world in enumerate((first, second)):
            self.areas[row] += np.bincount(world["semantics"][both], minlength=256)
        change = np.full((*both.shape, 2), np.nan, np.float32)
        for band, name in enumerate(("surface", "ground")):
            off = second[name].astype(np.float64) - first[name]
            change[both, band] = off[both]
            far = np.abs(off[both])
            total = self.totals[name]
            total[0] += off[both].sum()
            total[1] += far.sum()
            total[2] = max(total[2], far.max(initial=0))
            total[3] += (far > CLEAR).sum()
        return change

    def heights(self, name: str) -> Heights:
        mean, absolute, largest, different = self.totals[name].tolist()
        return Heights(mean / self.count, absolute / self.count, largest, different / self.count)


def world_names(a: str, b: str) -> tuple[str, str]:
    """Return the shortest ends of two paths or addresses that tell them apart."""
    first, second = (
        [part for part in re.split(r"[\\/]+", path) if part] or [path] for path in (a, b)
    )
    for count in range(1, max(len(first), len(second)) + 1):
        names = "/".join(first[-count:]), "/".join(second[-count:])
        if names[0] != names[1]:
            return names
    return first[-1], second[-1]


def write_comparison(
    a: World,
    b: World,
    out: Path,
    *,
    renderer: Renderer,
    bounds: Bounds | None = None,
    level: int = 1,
    progress: Progress | None = None,
) -> Comparison:
    """Compare two worlds and write `NAMES` into a folder.

    Parameters
    ----------
    a, b : World
    out : Path
        The folder; it exists.
    renderer : Renderer
        Draws the pictures.
    bounds, level, progress
        See `compare`, which also says what is raised.
    """
    progress = progress or Progress()
    made = compare(
        a, b, bounds=bounds, level=level, difference=out / "difference.tif", progress=progress
    )
    pictures = {}
    for name, world in (("a", a), ("b", b)):
        pixels = renderer.render(world, View("top", PICTURE, made.bounds), progress)
        pictures[name] = Image.fromarray(pixels)
    pictures["difference"] = Image.fromarray(difference_picture(out / "difference.tif"))
    for name, picture in pictures.items():
        picture.save(out / f"{name}.png")
    text = json.dumps(made.to_dict(), indent=1, ensure_ascii=False)
    (out / "report.json").write_text(text + "\n", "utf-8")
    credits = list(dict.fromkeys(credits_text(source_record(world)) for world in (a, b)))
    page = comparison_page(made, pictures, [text for text in credits if text])
    (out / "report.html").write_text(page, "utf-8")
    return made


def difference_picture(path: Path) -> NDArray:
    """Return a picture of the differences of surfaces, (height, width, 3) uint8.

    Red is higher in the second world, blue lower, white the same, grey without data.
    """
    with rasterio.open(path) as file:
        scale = min(1.0, PICTURE / max(file.width, file.height))
        shape = (max(1, round(file.height * scale)), max(1, round(file.width * scale)))
        data = file.read(1, out_shape=shape, resampling=Resampling.average)
    known = np.isfinite(data)
    strong = STRONG
    if known.any():
        strong = max(STRONG, float(np.percentile(np.abs(data[known]), 99)))
    share = np.clip(np.where(known, data, 0) / strong, -1, 1)[..., None]
    red, blue, white = (np.array(rgb, float) for rgb in ((178, 24, 43), (33, 102, 172), (250,) * 3))
    mixed = np.where(share > 0, white + share * (red - white), white - share * (blue - white))
    return np.where(known[..., None], np.rint(mixed), 200).astype(np.uint8)


def comparison_page(
    made: Comparison, pictures: dict[str, Image.Image], credits: Sequence[str] = ()
) -> str:
    """Return a comparison as one HTML page, with its pictures inside.

    Parameters
    ----------
    made : Comparison
    pictures : dict of str to PIL.Image.Image
        "a", "b" and "difference".
    credits : sequence of str
        What the page says of the data of the worlds.
    """
    a, b = made.worlds
    first, second = made.stocks
    titles = {land.name: land.title for land in classes()}

    def row(
        title: str, before: float | None, after: float | None, unit: str, digits: int
    ) -> list[Cell]:
        def text(value: float | None) -> str:
            return "none" if value is None else f"{value:,.{digits}f} {unit}".strip()

        change = small = ""
        if before is not None and after is not None:
            same = round(after - before, digits) == 0
            change = "same" if same else f"{after - before:+,.{digits}f} {unit}"
            small = "" if same or not before else f"{(after - before) / before:+.0%}"
        return [Cell(title), Cell(text(before)), Cell(text(after)), Cell(change.strip(), small)]

    heads = ["", a, b, "change"]
    areas = [
        row(titles.get(name, name), both[0], both[1], "m²", 0)
        if max(both) < HECTARE
        else row(titles.get(name, name), both[0] / HECTARE, both[1] / HECTARE, "ha", 2)
        for name, both in sorted(made.areas.items(), key=lambda item: -max(item[1]))
    ]
    stocks = [
        row("Buildings", first.buildings, second.buildings, "", 0),
        row("Footprints", first.footprint, second.footprint, "m²", 0),
        row("Volume of buildings", first.volume, second.volume, "m³", 0),
        row("Mean height of buildings", first.building_height, second.building_height, "m", 1),
        row("Trees", first.trees, second.trees, "", 0),
        row("Mean height of trees", first.tree_height, second.tree_height, "m", 1),
        row("Crowns", first.crowns, second.crowns, "m²", 0),
    ]
    heights = [
        [
            Cell(title),
            Cell(f"{each.mean:+.2f} m"),
            Cell(f"{each.mean_absolute:.2f} m"),
            Cell(f"{each.largest:.1f} m"),
            Cell(f"{each.different:.1%}"),
        ]
        for title, each in (("Surface", made.surface), ("Ground", made.ground))
    ]
    return render_page(
        "earthgen.evaluation",
        "comparison.html",
        title=f"{a} and {b}",
        made=made,
        credits=credits,
        areas=(heads, areas),
        stocks=(heads, stocks),
        heights=(
            ["second minus first", "mean", "mean, absolute", "largest", f"over {CLEAR:g} m"],
            heights,
        ),
        pictures=[
            (f"{a}, seed {made.seeds[0]}", _data_url(pictures["a"])),
            (f"{b}, seed {made.seeds[1]}", _data_url(pictures["b"])),
            ("Surface: red is higher in the second, blue lower", _data_url(pictures["difference"])),
        ],
    )


def _data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
