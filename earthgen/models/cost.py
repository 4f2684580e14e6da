"""The cost of a model on one tile: parameters, operations and memory.

Voxels and products are counted, nothing is computed: networks are built on torch's meta device, and
the tile is a formula. Tests compare the counts with torch's own counter in a forward pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from earthgen.models.build import make_empty_model
from earthgen.models.conditions import Conditions
from earthgen.models.presets import PARTS, preset
from earthgen.models.struct_flow import cells_near_heights
from earthgen.sparse.sites import Place, Sites, make_sites

LIVE = 16
"""Tensors of a level's voxels and channels that a block has in memory at once. A transformer's MLP
has 4 + 4 hidden ones, its input and norm; attention packs its heads, and not all freed memory is
reused. With 16 the estimate is within a third of the measurements at the paper's sizes
(docs/background/benchmarks.md)."""

LIVE_MAP = 8
"""The same for a dense map, whose blocks gather nothing."""

TABLE = 220
"""Bytes per voxel for kernel maps, see docs/background/sparse.md."""


@dataclass(frozen=True)
class PartCost:
    """The cost of one part on one tile.

    Attributes
    ----------
    preset, part : str
        Names.
    parameters : int
        Learned numbers.
    tile : int
        Columns along an edge.
    voxels : int
        Voxels at the part's finest level.
    flops : int
        Floating-point operations of products: of encoding and decoding for an autoencoder, of one
        step for a flow.
    condition_flops : int
        Of a flow's conditions, once per tile.
    memory : int
        Estimated bytes of the weights in float32 and the activations of a forward pass without
        gradients.
    """

    preset: str
    part: str
    parameters: int
    tile: int
    voxels: int
    flops: int
    condition_flops: int
    memory: int


def preset_costs(names: Iterable[str]) -> list[PartCost]:
    """Return the cost of every part of presets."""
    return [part_cost(name, part) for name in names for part in PARTS]


def part_cost(
    preset_name: str, part: str, tile: int | None = None, heights: bool = False
) -> PartCost:
    """Return the cost of a part of a preset.

    Parameters
    ----------
    preset_name, part : str
        Names.
    tile : int, optional
        Columns along an edge, by default the preset's.
    heights : bool
        Whether heights limit the cells of struct-coarse, as in worlds with a height map.

    Raises
    ------
    ModelError
        If the preset or part is unknown.
    """
    sizes = preset(preset_name)
    columns = sizes.tile if tile is None else tile
    model: Any = make_empty_model(part, preset_name)
    parameters = sum(value.numel() for value in model.parameters())
    if part == "height-flow":
        flops, conditions = model.flops(columns, columns), 0
        extents = [
            ((columns >> level) ** 2, width) for level, width in enumerate(model.config.channels)
        ]
        voxels, tables = columns**2, 0
    else:
        sites, levels = _sites(part, model, columns, sizes.band, heights)
        flops = model.flops(sites)
        conditions = 0
        if hasattr(model, "cond_net"):
            conditions = model.cond_net.flops((columns, columns), levels)
        extents = _extents(part, model, levels)
        if conditions:
            extents += [
                ((columns >> level) ** 2, width)
                for level, width in enumerate(model.cond_net.config.channels)
            ]
        voxels, tables = len(sites), TABLE * max(count for count, _ in extents)
    numbers = [count * width for count, width in extents]
    live = 4 * ((LIVE_MAP if part == "height-flow" else LIVE) * max(numbers) + sum(numbers))
    return PartCost(
        preset_name,
        part,
        parameters,
        columns,
        voxels,
        flops,
        conditions,
        4 * parameters + live + tables,
    )


def _sites(
    part: str, model: Any, columns: int, band: tuple[int, int], heights: bool = False
) -> tuple[Sites, list[Sites]]:
    """Return the finest sites of a part, and those of all levels."""
    shell = terrain_shell(columns, band)
    if part == "struct-coarse":
        grid = model.grid(shell.place, (columns, columns, band[1] - band[0]))
        if heights:
            top = torch.from_numpy(_town_tops(columns)[None].astype(np.float32))
            known = Conditions(shell.place, (columns, columns), height=top)
            grid = grid.select(cells_near_heights(grid, known, model.config.patch))
        return grid, [grid if model.config.patch == 1 else grid.parents(2)]
    if part == "struct-fine":
        for _ in range(model.config.stride.bit_length() - 1):
            shell = shell.parents(2)
    if part == "tex-vae":
        return shell, [shell]
    return shell, model.levels(shell) if part == "struct-vae" else model.unet.levels(shell)


def _extents(part: str, model: nn.Module, levels: list[Sites]) -> list[tuple[int, int]]:
    """Return (voxels, channels) of each level."""
    config: Any = model.config
    if part == "struct-vae":
        extents = [
            (len(there), width) for there, width in zip(levels, config.channels, strict=True)
        ]
        if not config.early:
            extents += [
                (8 * len(there), width)
                for there, width in zip(levels[1:], config.channels, strict=False)
            ]
        return extents
    if part == "tex-vae":
        return [(len(levels[0]), config.channels)]
    widths = (config.channels,) if part == "struct-coarse" else config.unet.channels
    return [(len(there), width) for there, width in zip(levels, widths, strict=True)]


def terrain_shell(columns: int, band: tuple[int, int]) -> Sites:
    """Return the surface voxels of a schematic town, which stands for a typical tile.

    Every 32 voxels stands a block of 14 x 14 columns, 6 to 15 voxels high: 1.5 voxels per column,
    near the 1.7 of the paper's scenes (220,000 of 360 x 360 columns). Heights are relative to the
    ground, so the ground is level.

    Parameters
    ----------
    columns : int
        Columns along an edge.
    band : (int, int)
        Heights, voxels from the ground.
    """
    x, y = np.meshgrid(np.arange(columns), np.arange(columns), indexing="ij")
    top = _town_tops(columns)
    around = np.pad(top, 1, mode="edge")
    low = np.minimum.reduce(
        [around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:], top - 1]
    )
    count = (top - low).ravel()
    first = np.repeat(low.ravel(), count)
    step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    rows = np.column_stack(
        [
            np.zeros(len(first), np.int64),
            np.repeat(x.ravel(), count),
            np.repeat(y.ravel(), count),
            first + step - band[0],
        ]
    )
    return make_sites(torch.from_numpy(rows), place=Place(((0, 0, band[0]),)))[0]


def _town_tops(columns: int) -> NDArray:
    """Return the heights of the schematic town by (x, y), voxels; it is the same by (y, x)."""
    x, y = np.meshgrid(np.arange(columns), np.arange(columns), indexing="ij")
    inside = (x % 32 < 14) & (y % 32 < 14)
    return np.where(inside, 6 + 3 * ((x // 32 + 2 * (y // 32)) % 4), 0)


def markdown(costs: Iterable[PartCost]) -> str:
    """Return a Markdown table of costs, for docs/background/models.md."""
    columns = (
        "preset",
        "model",
        "parameters",
        "tile",
        "voxels",
        "GFLOP",
        "of conditions",
        "memory",
    )
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for one in costs:
        of_conditions = f"{one.condition_flops / 1e9:,.1f}" if one.condition_flops else ""
        lines.append(
            f"| {one.preset} | {one.part} | {one.parameters / 1e6:,.2f} M | {one.tile}² "
            f"| {one.voxels:,} | "
            f"{one.flops / 1e9:,.1f} | {of_conditions} | {one.memory / 1e6:,.0f} MB |"
        )
    return "\n".join(lines) + "\n"
