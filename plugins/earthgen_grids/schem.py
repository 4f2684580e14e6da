"""A world in blocks: a Minecraft schematic, Sponge version 2 (github.com/SpongePowered/
Schematic-Specification), which WorldEdit, Litematica and Amulet open.

A block is a voxel. x is east, y up, z south. Ground is filled for some blocks below its surface.
"""

from __future__ import annotations

import gzip
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from earthgen.errors import StoreError
from earthgen.progress import Progress
from earthgen.voxels.splat_math import base_colours
from earthgen.voxels.voxels import WALL
from earthgen.world.selection import Selection, select
from earthgen.world.world import World
from earthgen_grids.nbt import NbtWriter
from geo_io.frame import Bounds, extent
from geo_io.legend import classes

DATA_VERSION = 3465
"""Minecraft 1.20.1: the version whose names of blocks are used."""

LARGEST = 65_535
"""Blocks along an edge: sizes have 16 bits."""

MOST = 2**31 - 1
"""Blocks in all: lengths of arrays have 31 bits."""

AIR = "minecraft:air"

GROUND = {
    "bare_ground": "minecraft:coarse_dirt",
    "rock": "minecraft:stone",
    "sand": "minecraft:sand",
    "snow_ice": "minecraft:snow_block",
    "cropland": "minecraft:farmland[moisture=7]",
    "wetland": "minecraft:mud",
    "river": "minecraft:water[level=0]",
    "lake": "minecraft:water[level=0]",
    "sea": "minecraft:water[level=0]",
    "building": "minecraft:stone_bricks",
    "commercial": "minecraft:andesite",
    "road": "minecraft:gray_concrete",
    "rail": "minecraft:gravel",
    "paved": "minecraft:smooth_stone",
    "sports": "minecraft:green_concrete",
    "extraction": "minecraft:gravel",
}
"""Blocks of the ground by class; others are grass."""

GRASS, BELOW = "minecraft:grass_block[snowy=false]", "minecraft:dirt"

LEAVES = {
    "needleleaf_forest": "minecraft:spruce_leaves[distance=7,persistent=true,waterlogged=false]",
    "": "minecraft:oak_leaves[distance=7,persistent=true,waterlogged=false]",
}
"""Leaves by class; "" for all others. They are persistent, or they would decay."""

WALLS = {
    "minecraft:white_concrete": (207, 213, 214),
    "minecraft:light_gray_concrete": (125, 125, 115),
    "minecraft:gray_concrete": (55, 58, 62),
    "minecraft:brown_concrete": (96, 60, 32),
    "minecraft:terracotta": (152, 94, 68),
    "minecraft:white_terracotta": (210, 178, 161),
    "minecraft:light_gray_terracotta": (135, 107, 98),
    "minecraft:brown_terracotta": (77, 51, 36),
    "minecraft:red_terracotta": (143, 61, 47),
    "minecraft:orange_terracotta": (162, 84, 38),
    "minecraft:yellow_terracotta": (186, 133, 35),
    "minecraft:gray_terracotta": (58, 42, 36),
    "minecraft:cyan_terracotta": (87, 91, 91),
    "minecraft:bricks": (151, 98, 83),
    "minecraft:stone_bricks": (122, 122, 122),
    "minecraft:smooth_sandstone": (224, 214, 170),
    "minecraft:smooth_stone": (159, 159, 159),
    "minecraft:quartz_block": (236, 230, 223),
    "minecraft:oak_planks": (162, 131, 79),
    "minecraft:spruce_planks": (115, 85, 49),
}
"""Blocks of buildings, with the mean colour of their textures."""


class SchemOptions(BaseModel):
    """Options of schematics.

    Attributes
    ----------
    depth : int
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    depth: int = Field(default=4, ge=1, le=64, description="Blocks of ground below its surface")


class SchemExporter:
    """Write world.schem.

    Parameters
    ----------
    options : SchemOptions
    """

    name = "schem"

    def __init__(self, options: SchemOptions | None = None) -> None:
        self.options = options or SchemOptions()

    def export(
        self, world: World, out: Path, *, bounds: Bounds | None, level: int, progress: Progress
    ) -> list[Path]:
        """Write into the folder `out`; see `earthgen.Exporter`.

        Raises
        ------
        StoreError, RegionError
            If the world has no such level, no finished tile, or nothing within `bounds`; if it has
            more blocks than the format allows.
        """
        selection = select(world, bounds, level)
        out.mkdir(parents=True, exist_ok=True)
        path = out / "world.schem"
        progress.start("export schem", 2 * len(selection.tiles) + 1)
        low, high = heights_of(world, selection, progress)
        low -= self.options.depth
        shape = (high - low + 1, selection.frame.ny, selection.frame.nx)  # y, z, x
        require_size(shape, selection)
        names = palette()
        with tempfile.TemporaryDirectory(dir=out, prefix=".blocks.") as folder:
            # On disk, so that memory does not grow with the region; the names are fewer than 128,
            # so that each is one byte of a varint.
            blocks = np.memmap(Path(folder) / "blocks", np.uint8, "w+", shape=shape)
            for tile in selection.tiles:
                _fill(blocks, world, selection, tile, low, self.options.depth, names)
                progress.step("tile {}, {}".format(*tile))
            with gzip.GzipFile(path, "wb", compresslevel=6, mtime=0) as file:
                _write(NbtWriter(file), blocks, names, low)  # type: ignore[arg-type]
            del blocks
        progress.step("blocks")
        return [path]


def require_size(shape: tuple[int, int, int], selection: Selection) -> None:
    """Raise StoreError if a schematic cannot have so many blocks."""
    blocks = shape[0] * shape[1] * shape[2]
    if max(shape) <= LARGEST and blocks <= MOST:
        return
    what = f"{extent(selection.frame.bounds)} has {shape[2]:,} x {shape[1]:,} x {shape[0]:,} blocks"
    raise StoreError(
        f"{what}; a schematic has at most {LARGEST:,} along an edge and {MOST:,} in all",
        "give smaller bounds, or a coarser level",
    )


def palette() -> dict[str, int]:
    """Return the number of each block in the file; air is 0."""
    names = [
        AIR,
        BELOW,
        GRASS,
        *GROUND.values(),
        *LEAVES.values(),
        *WALLS,
        "minecraft:oak_log[axis=y]",
    ]
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def heights_of(world: World, selection: Selection, progress: Progress) -> tuple[int, int]:
    """Return the lowest and highest layer of a selection, in voxels above sea level."""
    low, high = 2**31, -(2**31)
    for tx, ty in selection.tiles:
        part = _part(world, selection, (tx, ty))
        for layer in (part.base, part.y):
            if len(layer):
                low, high = min(low, int(layer.min())), max(high, int(layer.max()))
        progress.step(f"tile {tx}, {ty}")
    if low > high:
        raise StoreError(
            f"world {world.path} has no voxels within {extent(selection.frame.bounds)}",
            "give bounds where it has data",
        )
    return low, high


@dataclass(frozen=True)
class _Part:
    """Voxels of a tile in a selection: column, row, layer; and layers of the ground."""

    x: NDArray
    row: NDArray
    y: NDArray
    semantic: NDArray
    number: NDArray
    rgb: NDArray
    base: NDArray


def _part(world: World, selection: Selection, tile: tuple[int, int]) -> _Part:
    voxels, splats = world.tile_voxels(*tile, selection.level)
    frame, whole = selection.frame, voxels.frame
    keep = voxels.inside(frame) & (voxels.faces & WALL == 0)
    voxels, splats = voxels.take(keep), splats.take(keep)
    ground = world.tile_layers(*tile, selection.level)["ground"]
    x, y, z = voxels.xyz.T
    # The ground's own voxel is z = -1: its block ends at the rounded height of the ground.
    base = np.rint(ground[whole.y[1] - 1 - y, x - whole.x[0]] / frame.voxel_size).astype(np.int64)
    return _Part(
        x - frame.x[0],
        frame.y[1] - 1 - y,
        base + z,
        voxels.semantic,
        voxels.object,
        base_colours(splats.sh),
        base - 1,
    )


def _fill(
    blocks: NDArray,
    world: World,
    selection: Selection,
    tile: tuple[int, int],
    low: int,
    depth: int,
    names: dict[str, int],
) -> None:
    part = _part(world, selection, tile)
    if not len(part.x):
        return
    number = _blocks_of(part, names)
    land = part.number == 0
    for down in range(depth, 0, -1):
        blocks[part.base[land] - low - down, part.row[land], part.x[land]] = names[BELOW]
    # Ground that drops between two columns is filled down to the lowest open side by its voxels.
    blocks[part.y - low, part.row, part.x] = number


def _blocks_of(part: _Part, names: dict[str, int]) -> NDArray:
    """The number of each voxel's block."""
    ground, leaves = np.full(256, names[GRASS]), np.full(256, names[LEAVES[""]])
    building = 0
    for land in classes():
        if land.name in GROUND:
            ground[land.code] = names[GROUND[land.name]]
        if land.name in LEAVES:
            leaves[land.code] = names[LEAVES[land.name]]
        if land.name == "building":
            building = land.code
    colours = np.array(list(WALLS.values()), np.int32)
    wall_names = np.array([names[name] for name in WALLS])
    number = ground[part.semantic]
    built = (part.semantic == building) & (part.number != 0)
    if built.any():
        unique, index = np.unique(part.rgb[built], axis=0, return_inverse=True)
        far = ((unique[:, None].astype(np.int32) - colours) ** 2).sum(axis=2)
        number[built] = wall_names[far.argmin(axis=1)][index.reshape(-1)]
    plant = (part.number != 0) & ~built
    number[plant] = leaves[part.semantic[plant]]
    return number.astype(np.uint8)


def _write(nbt: NbtWriter, blocks: NDArray, names: dict[str, int], low: int) -> None:
    height, length, width = blocks.shape
    nbt.open("Schematic")
    nbt.int("Version", 2)
    nbt.int("DataVersion", DATA_VERSION)
    nbt.open("Metadata")
    nbt.int("EarthgenLowestLayer", low)
    nbt.close()
    nbt.short("Width", width)
    nbt.short("Height", height)
    nbt.short("Length", length)
    nbt.ints("Offset", (0, 0, 0))
    nbt.int("PaletteMax", len(names))
    nbt.open("Palette")
    for name, number in names.items():
        nbt.int(name, number)
    nbt.close()
    nbt.bytes("BlockData", blocks.size, (layer.tobytes() for layer in blocks))
    nbt.empty_list("BlockEntities")
    nbt.close()
