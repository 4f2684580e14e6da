"""Export of a page that shows one world, or two beside each other.

The tiles come from the exporter "3dtiles". A page in one file embeds as many of them as fit, the
coarse ones first; a page in a folder has them beside it, and a web server is needed because
browsers do not let a page from disk read its neighbours.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from earthgen.errors import JobError, StoreError
from earthgen.plugins import load
from earthgen.progress import Progress
from earthgen.world.world import World, open_world
from earthgen_viewer.description import describe_world
from earthgen_viewer.page import pack, part, write_page
from earthgen_viewer.tilesets import contents, prune, read_tileset, walk
from geo_io.frame import Bounds, Frame

TILES = "3dtiles"
"""The exporter that makes the tiles."""

EMBEDDED_MB = {1: 18.0, 2: 5.0, 4: 1.6, 8: 0.45}
"""Megabytes that a square kilometre takes in a page, by its finest level, coarser ones included;
an estimate for choosing a level, from tiles of towns."""

SPLAT_BYTES = 11
"""That a Gaussian takes in a page, about: 8 as SPZ, and a third more in base64."""

NO_ROOM = (
    "The Gaussians of this world do not fit into this page. `earthgen view` shows them, and so "
    "does a page exported with --set splats=yes."
)

DESCRIPTION_BYTES = 60_000
"""Of two worlds in a page, and of the elements around files; more than either takes."""


class HtmlOptions(BaseModel):
    """Options of `earthgen export --format html`."""

    model_config = ConfigDict(extra="forbid")

    one_file: bool = Field(
        default=True,
        description="one page with all in it; no: a folder for a web server, with all tiles",
    )
    max_mb: float = Field(default=10.0, gt=1.5, le=500, description="size of the one page, MB")
    title: str = Field(
        default="", description="title of the page; by default the name of the world"
    )
    beside: str = Field(default="", description="a second world, on the other side of a slider")
    splats: Literal["auto", "yes", "no"] = Field(
        default="auto",
        description="the world's Gaussians as a layer: auto puts them into a page where all of "
        "them fit beside the meshes; yes gives them half of it, or writes them into the folder",
    )
    workers: int = Field(default=1, ge=1, le=256, description="processes that make tiles")


class HtmlExporter:
    """Write world.html, or a folder with index.html and the tiles.

    Parameters
    ----------
    options : HtmlOptions
    """

    name = "html"
    resumes = True

    def __init__(self, options: HtmlOptions | None = None) -> None:
        self.options = options or HtmlOptions()

    @property
    def page_version(self) -> str:
        """Another text for each other program of the page."""
        return hashlib.sha256(part("build.json").encode()).hexdigest()[:16]

    def export(
        self, world: World, out: Path, *, bounds: Bounds | None, level: int, progress: Progress
    ) -> list[Path]:
        """Write into the folder `out`; see `earthgen.Exporter`.

        `level` is the finest level of detail. A page in one file may have to be coarser, and says
        so.

        Raises
        ------
        StoreError, RegionError
            If a world has no such level, no finished tile, or nothing within `bounds`; if not even
            the coarsest tiles fit into the page.
        JobError
            If the second world is elsewhere.
        """
        worlds = self._shown(world)
        out.mkdir(parents=True, exist_ok=True)
        names = _names(worlds)
        title = self.options.title or " and ".join(dict.fromkeys(names))
        if self.options.one_file:
            return self._one_file(worlds, names, title, out, bounds, level, progress)
        return self._folder(worlds, names, title, out, bounds, level, progress)

    def open_live(
        self, world: World, out: Path, *, bounds: Bounds | None, level: int
    ) -> dict[str, Any]:
        """Write a page into the folder `out` whose tiles are made when they are asked for.

        Parameters
        ----------
        world : World
        out : Path
            A folder. A page that an earlier call wrote there, and its tiles, are kept.
        bounds : tuple of float or None
            CRS metres.
        level : int
            The finest level of detail.

        Returns
        -------
        dict of str to TilesOnDemand
            By the folder of the tiles, relative to `out`: `make(address)` makes one. A world has
            tiles of meshes, and of Gaussians unless the option `splats` is no.

        Raises
        ------
        StoreError, RegionError
            If a world has no finished tile, or nothing within `bounds`.
        JobError
            If the second world is elsewhere.
        """
        worlds = self._shown(world)
        names = _names(worlds)
        workers = self.options.workers
        shown = {"tiles": "mesh", "splats": "splats"}
        if self.options.splats == "no":
            del shown["splats"]
        makers = {
            kind: load().create("exporter", TILES, workers=workers, content=content)
            for kind, content in shown.items()
        }
        live, described = {}, []
        page = out / "index.html"
        for number, (one, name) in enumerate(zip(worlds, names, strict=True)):
            part_of = _bounds_on(one, world, bounds)
            address = {}
            for kind, tiles in makers.items():
                folder = f"{kind}/{number}"
                live[folder] = tiles.on_demand(one, out / folder, bounds=part_of, level=level)
                address[kind] = f"{folder}/tileset.json"
            if not page.is_file():
                described.append(
                    describe_world(
                        one,
                        part_of,
                        name,
                        address["tiles"],
                        level,
                        splats=address.get("splats", ""),
                    )
                )
        if described:
            title = self.options.title or " and ".join(dict.fromkeys(names))
            write_page(page, _scene(title, described))
        return live

    def _shown(self, world: World) -> list[World]:
        """Return the world, and the one that it is compared with, if any."""
        if not self.options.beside:
            return [world]
        other = open_world(self.options.beside)
        _require_overlap(world, other)
        return [world, other]

    def _folder(
        self,
        worlds: list[World],
        names: list[str],
        title: str,
        out: Path,
        bounds: Bounds | None,
        level: int,
        progress: Progress,
    ) -> list[Path]:
        described = []
        written = [out / "index.html"]
        for number, (world, name) in enumerate(zip(worlds, names, strict=True)):
            folder = out / "tiles" / str(number)
            part_of = _bounds_on(world, worlds[0], bounds)
            make_tiles(world, folder, part_of, level, progress, self.options.workers)
            splats = ""
            if self.options.splats == "yes":
                beside = out / "splats" / str(number)
                make_tiles(world, beside, part_of, level, progress, self.options.workers, "splats")
                splats = f"splats/{number}/tileset.json"
            described.append(
                describe_world(
                    world, part_of, name, f"tiles/{number}/tileset.json", level, splats=splats
                )
            )
        written.append(out / "tiles")
        if self.options.splats == "yes":
            written.append(out / "splats")
        write_page(out / "index.html", _scene(title, described))
        return written

    def _one_file(
        self,
        worlds: list[World],
        names: list[str],
        title: str,
        out: Path,
        bounds: Bounds | None,
        level: int,
        progress: Progress,
    ) -> list[Path]:
        page = out / "world.html"
        budget = (int(self.options.max_mb * 1e6) - empty_page_bytes()) // len(worlds)
        scratch = out / ".tiles"
        described, embedded = [], []
        for number, (world, name) in enumerate(zip(worlds, names, strict=True)):
            part_of = _bounds_on(world, worlds[0], bounds)
            finest = _affordable(world, part_of, level, budget)
            folder = scratch / str(number)
            make_tiles(world, folder, part_of, finest, progress, self.options.workers)
            share = budget // 2 if self.options.splats == "yes" else budget
            chosen = Embedded(folder, str(number), share)
            if chosen.size > share:
                raise StoreError(
                    f"the coarsest tiles of {world.path} take {chosen.size / 1e6:.1f} MB, "
                    f"a page of {self.options.max_mb:g} MB is too small for them",
                    "give bounds, a larger `max_mb`, or write a folder: `one_file` = no",
                )
            if finest > level or not chosen.whole:
                progress.say(
                    f"the page shows {name} less finely than its voxels, so that it has at "
                    f"most {self.options.max_mb:g} MB; more: --set max_mb=40, or a folder for "
                    "a web server: --set one_file=no"
                )
            embedded.append(chosen)
            splats = self._splats(
                world, scratch, number, part_of, finest, budget - chosen.size, progress
            )
            if splats is not None:
                embedded.append(splats)
            described.append(
                describe_world(
                    world,
                    part_of,
                    name,
                    chosen.address,
                    finest,
                    whole=chosen.whole,
                    splats=splats.address if splats is not None else "",
                    note="" if splats is not None or self.options.splats == "no" else NO_ROOM,
                )
            )
        write_page(
            page, _scene(title, described), (file for one in embedded for file in one.files())
        )
        shutil.rmtree(scratch)
        return [page]

    def _splats(
        self,
        world: World,
        scratch: Path,
        number: int,
        bounds: Bounds | None,
        level: int,
        room: int,
        progress: Progress,
    ) -> Embedded | None:
        """The Gaussians that a page has room for; None if it has none for them."""
        wanted = self.options.splats
        if wanted == "no" or (
            wanted == "auto" and _count(world, bounds, level) * SPLAT_BYTES > room
        ):
            return None
        folder = scratch / f"splats-{number}"
        make_tiles(world, folder, bounds, level, progress, self.options.workers, "splats")
        chosen = Embedded(folder, f"splats-{number}", room)
        if chosen.size > room or (wanted == "auto" and not chosen.whole):
            return None
        return chosen


def empty_page_bytes() -> int:
    """Return the bytes of a page without tiles, at most."""
    fixed = ("viewer.js", "viewer.css", "licences.txt", "page.html")
    return sum(len(part(name).encode()) for name in fixed) + DESCRIPTION_BYTES


class Embedded:
    """The part of a tileset that a page embeds.

    Attributes
    ----------
    address : str
        Of the tileset, for the page.
    size : int
        Bytes in the page.
    whole : bool
        Whether it is all of the tileset.
    """

    def __init__(self, folder: Path, name: str, budget: int) -> None:
        self._folder, self._name = folder, name
        self.address = f"embedded:{name}/tileset.json"
        self._packed: dict[str, str] = {}
        self._tileset = read_tileset(folder)
        tree = len(pack(_json(self._tileset)))
        root, self.whole = prune(self._tileset["root"], self._size_of, budget - tree)
        self._tileset["root"] = root
        self._uris = dict.fromkeys(uri for node in walk(root) for uri in contents(node))
        self._packed = {uri: self._packed[uri] for uri in self._uris}
        self.size = tree + sum(map(len, self._packed.values()))

    def files(self) -> Iterator[tuple[str, str]]:
        """Yield (path, packed) of its files."""
        yield f"{self._name}/tileset.json", pack(_json(self._tileset))
        for uri, packed in self._packed.items():
            yield f"{self._name}/{uri}", packed

    def _size_of(self, uri: str) -> int:
        if uri not in self._packed:
            self._packed[uri] = pack((self._folder / uri).read_bytes())
        return len(self._packed[uri])


def make_tiles(
    world: World,
    folder: Path,
    bounds: Bounds | None,
    level: int,
    progress: Progress,
    workers: int,
    content: str = "mesh",
) -> None:
    """Write the 3D Tiles of a world down to a level, with the plugin that makes them."""
    exporter = load().create("exporter", TILES, workers=workers, content=content, splats="spz")
    folder.mkdir(parents=True, exist_ok=True)
    exporter.export(world, folder, bounds=bounds, level=level, progress=progress)


def _affordable(world: World, bounds: Bounds | None, level: int, budget: int) -> int:
    """The finest level, not finer than `level`, of which a good part should fit into a page."""
    km2 = _area(world.part(1, bounds)) / 1e6 / world.frame.voxel_size**2
    coarsest = max(world.levels)
    for one in sorted(world.levels):
        if one >= level and km2 * EMBEDDED_MB[min(2 * one, coarsest)] * 1e6 <= budget:
            return one
    return coarsest


def _count(world: World, bounds: Bounds | None, level: int) -> float:
    """About as many Gaussians as a part of a world has at a level and those coarser."""
    counts = world.counts
    every = sum(
        counts["voxels" if one == 1 else f"voxels_level_{one}"]
        for one in world.levels
        if one >= level
    )
    return every * _area(world.part(1, bounds)) / _area(world.frame)


def _area(frame: Frame) -> float:
    left, bottom, right, top = frame.bounds
    return (right - left) * (top - bottom)


def _scene(title: str, described: list[dict[str, Any]]) -> dict[str, Any]:
    first = described[0]
    low = first["heights"][0]
    return {
        "title": title,
        "origin": {**first["middle"], "height": low},
        "worlds": described,
    }


def _names(worlds: list[World]) -> list[str]:
    names = [str(world.path).rstrip("/\\").replace("\\", "/").split("/")[-1] for world in worlds]
    names = [name.removesuffix(".zarr") or "world" for name in names]
    if len(names) == 2 and names[0] == names[1]:
        return [f"{names[0]} (left)", f"{names[1]} (right)"]
    return names


def _bounds_on(world: World, first: World, bounds: Bounds | None) -> Bounds | None:
    """Bounds of the first world in the CRS of another."""
    from geo_io.crs import transform_bounds

    if bounds is None or world.frame.crs == first.frame.crs:
        return bounds
    return transform_bounds(bounds, first.frame.crs, world.frame.crs)


def _require_overlap(first: World, second: World) -> None:
    from geo_io.crs import transform_bounds

    moved = transform_bounds(second.frame.bounds, second.frame.crs, first.frame.crs)
    a, b = first.frame.bounds, moved
    if b is None or a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]:
        raise JobError(
            f"worlds {first.path} and {second.path} lie apart, a page cannot compare them",
            "give two worlds of the same place: `beside`",
        )


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
