"""A small town to try models on: boxes on level ground, its surface closed, its walls filled."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earthgen.models.conditions import Conditions
from earthgen.sparse.sites import Place, Sites, make_sites
from geo_io.frame import Frame
from geo_io.legend import codes

X0, Y0 = 684032, 5539840
"""South-west corner of the first frame, multiples of 64."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Town:
    """A batch of crops: `frames`, the voxels of all (sorted), and maps (batch, ny, nx), the
    northernmost row first."""

    frames: tuple[Frame, ...]
    sites: Sites
    semantic: Tensor
    normal: Tensor
    rgb: Tensor
    cover: Tensor
    height: Tensor
    ground: Tensor

    @property
    def conditions(self) -> Conditions:
        image = self.cover[:, None].float().expand(-1, 3, -1, -1) / 25
        return Conditions(self.sites.place, self.frames[0].shape, self.cover, self.height, image)

    @property
    def shape(self) -> tuple[int, int, int]:
        frame = self.frames[0]
        return frame.nx, frame.ny, frame.z[1] - frame.z[0]

    def moved(self, east: int, north: int) -> Town:
        """The same scene elsewhere."""
        frames = tuple(
            replace(f, x=(f.x[0] + east, f.x[1] + east), y=(f.y[0] + north, f.y[1] + north))
            for f in self.frames
        )
        return replace(
            self,
            frames=frames,
            sites=Sites(self.sites.coordinates, self.sites.stride, Place.of(*frames)),
        )


def frame(size: int, east: int = 0, north: int = 0, z: tuple[int, int] = (-16, 32)) -> Frame:
    return Frame(
        "EPSG:32632", 1.0, (X0 + east, X0 + east + size), (Y0 + north, Y0 + north + size), z
    )


def fields(where: Frame, seed: int = 0) -> tuple[NDArray, NDArray]:
    """(ny, nx) height in voxels and class of each column, by the place alone up to the seed."""
    x = np.arange(where.x[0], where.x[1]) - X0 + 5 * seed
    y = np.arange(where.y[1] - 1, where.y[0] - 1, -1)[:, None] - Y0 + 3 * seed
    block = (np.mod(x, 16) >= 5) & (np.mod(y, 16) >= 6)
    storeys = 4 + 3 * np.mod(x // 16 + 2 * (y // 16), 3)
    height = np.where(block, storeys, 0)
    code = codes()
    return height, np.where(block, code["building"], code["grassland"]).astype(np.uint8)


def town(size: int = 32, seeds: tuple[int, ...] = (0,), east: int = 0, north: int = 0) -> Town:
    frames = tuple(frame(size, east, north) for _ in seeds)
    rows, classes, normals, covers, heights = [], [], [], [], []
    for sample, (where, seed) in enumerate(zip(frames, seeds, strict=True)):
        height, cover = fields(where, seed)
        covers.append(cover)
        heights.append(height)
        around = np.pad(height, 1, mode="edge")
        sides = np.stack([around[1:-1, :-2], around[1:-1, 2:], around[:-2, 1:-1], around[2:, 1:-1]])
        low = np.minimum(sides.min(0), height - 1)
        for row in range(size):
            for col in range(size):
                for k in range(low[row, col], height[row, col]):
                    top = k == height[row, col] - 1
                    rows.append((sample, col, size - 1 - row, k - where.z[0]))
                    classes.append(cover[row, col])
                    wall = (
                        np.array([1.0, 0, 0]) if sides[1, row, col] <= k else np.array([0, 1.0, 0])
                    )
                    normals.append(np.array([0, 0, 1.0]) if top else wall)
    sites, order = make_sites(torch.tensor(rows), place=Place.of(*frames))
    semantic = torch.tensor(np.array(classes))[order]
    normal = torch.tensor(np.array(normals), dtype=torch.float32)[order]
    rgb = torch.stack(
        [semantic / 25.0, 0.5 + 0.3 * normal[:, 2], (sites.coordinates[:, 3] % 4) / 4.0], 1
    )
    height = torch.from_numpy(np.stack(heights)).float()
    x = torch.arange(size) * 0.05
    ground = (100 + x).expand(len(seeds), size, size).contiguous()
    return Town(
        frames, sites, semantic, normal, rgb, torch.from_numpy(np.stack(covers)), height, ground
    )
