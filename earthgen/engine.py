"""From conditions to tiles. Windows lie on a lattice fixed by the frame; a tile is put together from windows.

That is what makes a world a function of the place: whatever box or tile size is asked for, a window is always
computed whole, from the same conditions and the same noise, and then cropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen.backends import Condition, Conditions, GeometryBackend, TextureBackend
from earthgen.errors import PluginError
from earthgen.levels import Tile, tile_of
from earthgen.noise import Noise
from earthgen.voxels import Geometry, Splats, concatenate_voxels
from geo_io.frame import Frame

KEPT_WINDOWS = 4
"""Windows kept for the next tile, for tile sizes that do not fall on the window lattice."""


@dataclass
class Engine:
    """Computes windows and tiles of one world.

    `mask` gives, for a frame, the (ny, nx) bool of the cells inside the region; None where all are.
    """

    frame: Frame
    geometry: GeometryBackend
    texture: TextureBackend
    conditions: Mapping[str, Condition]
    noise: Noise
    mask: Callable[[Frame], NDArray] | None = None
    clipped: int = 0  # voxels above or below the band
    _windows: dict[tuple[int, int], tuple[Geometry, Splats]] = field(default_factory=dict)

    def tile(self, tx: int, ty: int, size: int) -> Tile:
        """One tile of the world, cropped to the world's frame and region."""
        frame = self.frame.tile(tx, ty, size).intersection(self.frame)
        if frame is None:
            raise ValueError(f"tile ({tx}, {ty}) lies outside {self.frame}")
        inside = self.mask(frame) if self.mask is not None else None
        ground = np.full(frame.shape, np.nan, np.float32)
        voxels, splats = [], []
        for wx, wy in frame.tiles(self.geometry.window):
            part, gaussians = self.window(wx, wy)
            meet = part.frame.intersection(frame)
            if meet is None:  # cannot be: the lattice says that they meet
                continue
            ground[frame.slices(meet)] = part.ground[part.frame.slices(meet)]
            keep = part.voxels.inside(meet)
            if inside is not None:
                x, y = part.voxels.xyz[:, 0], part.voxels.xyz[:, 1]
                keep &= inside[np.clip(frame.y[1] - 1 - y, 0, frame.ny - 1), np.clip(x - frame.x[0], 0, frame.nx - 1)]
            voxels.append(part.voxels.take(keep, meet))
            splats.append(gaussians.take(keep))
        whole = concatenate_voxels(frame, voxels)
        order = whole.order()
        return tile_of(frame, ground, whole.take(order), Splats.concatenate(splats).take(order))

    def window(self, wx: int, wy: int) -> tuple[Geometry, Splats]:
        """Geometry and Gaussians of one window of the lattice, whole."""
        if (wx, wy) not in self._windows:
            while len(self._windows) >= KEPT_WINDOWS:
                del self._windows[next(iter(self._windows))]
            self._windows[wx, wy] = self._compute(self.frame.tile(wx, wy, self.geometry.window))
        return self._windows[wx, wy]

    def _compute(self, window: Frame) -> tuple[Geometry, Splats]:
        conditions = self._read(window)
        padded = padding(window, self.geometry.halo)
        geometry = self.geometry.generate(window, _crop(conditions, padded), self.noise)
        geometry = self._checked(geometry, window)
        padded = padding(window, self.texture.halo)
        splats = self.texture.generate(geometry, _crop(conditions, padded), self.noise)
        if len(splats) != len(geometry.voxels):
            raise PluginError(
                f"texture {self.texture.name!r} gave {len(splats)} Gaussians for {len(geometry.voxels)} voxels",
                "report it to the plugin's author",
            )
        return geometry, splats

    def _read(self, window: Frame) -> Conditions:
        frame = padding(window, max(self.geometry.halo, self.texture.halo))
        return {name: condition.read(frame) for name, condition in self.conditions.items()}

    def _checked(self, geometry: Geometry, window: Frame) -> Geometry:
        """The geometry without what lies outside the band; an error where it lies outside the window."""
        geometry.frame.require_lattice(window)
        if not geometry.voxels.inside(window).all() or geometry.frame != window:
            raise PluginError(
                f"geometry {self.geometry.name!r} put voxels outside its window", "report it to the plugin's author"
            )
        z = geometry.voxels.xyz[:, 2]
        keep = (z >= window.z[0]) & (z < window.z[1])
        if keep.all():
            return geometry
        self.clipped += int((~keep).sum())
        return Geometry(
            window, geometry.ground, geometry.voxels.take(keep), geometry.offset[keep], geometry.normal[keep]
        )


def padding(window: Frame, halo: float) -> Frame:
    """The window with `halo` metres more on each side, rounded up to whole voxels."""
    return window.pad(math.ceil(halo / window.voxel_size - 1e-9))


def _crop(conditions: Conditions, frame: Frame) -> dict[str, Any]:
    return {name: layer if layer.frame == frame else layer.crop(frame) for name, layer in conditions.items()}
