"""Sliding crops of the scenes of a dataset, as a training loop reads them: by number, and
reproducibly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earthgen.dataset.crop import CELL, Crop, transform_crop
from earthgen.dataset.scene import Scene, scenes_in
from earthgen.dataset.split import Part, Split, read_split, split_by_name
from earthgen.errors import CropError, StoreError
from geo_io.errors import FrameError
from geo_io.frame import Frame

GRADES = ("A", "B")
"""Licence grades that may be used to train weights for publication."""


@dataclass(frozen=True)
class Placed:
    """Where a crop lies: number of the scene, x and y of the south-west corner in voxels, quarter
    turns, and whether it is mirrored first.
    """

    scene: int
    x: int
    y: int
    turns: int = 0
    flip: bool = False


@dataclass(frozen=True)
class Crops:
    """Crops of scenes as a sequence, which torch's `DataLoader` accepts; it needs numpy only.

    Crop i of an epoch is a function of (i, seed, epoch): the window with number i, with `jitter`
    moved by whole cells within half a stride if the moved window belongs to the part too, then
    with `augment` flipped and turned. Made by `open_crops`.

    Attributes
    ----------
    scenes : tuple[Scene, ...]
        In the order of their names.
    windows : NDArray (m, 3) int64
        Number of the scene, and x and y of the south-west corner, voxels.
    size, stride : int
        Edge of a window and distance of windows, voxels, multiples of 8.
    band : tuple[int, int]
        z range of the crops.
    allowed : tuple[NDArray, ...]
        For each scene (3, ny / 8 + 1, nx / 8 + 1): running sums over the cells that windows may
        cover, from the north-west.
    seed, epoch : int
        Keys of the random draws.
    jitter, augment : bool
        Whether windows are moved, and crops flipped and turned.
    cell : int
        Crops begin at multiples of so many voxels.
    turn_real : bool
        Whether `augment` holds for real scenes too. Their colours have shadows of one sun, so that
        turned ones teach light from all sides.
    """

    scenes: tuple[Scene, ...]
    windows: NDArray
    size: int
    stride: int
    band: tuple[int, int]
    allowed: tuple[NDArray, ...]
    seed: int = 0
    epoch: int = 0
    jitter: bool = False
    augment: bool = False
    cell: int = CELL
    turn_real: bool = True

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Crop:
        """Read a crop.

        Raises
        ------
        IndexError
            outside [-len, len), so that a loop over the crops ends
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"crop {index} of {len(self)}")
        place = self.place(index % len(self))
        scene = self.scenes[place.scene]
        crop = scene.crop(window_at(scene.frame, place.x, place.y, self.size, self.band))
        return transform_crop(crop, place.turns, place.flip)

    def place(self, index: int) -> Placed:
        """Return where a crop lies, and how it is turned; reads nothing."""
        number, x, y = (int(value) for value in self.windows[index])
        random = np.random.default_rng([self.seed, self.epoch, index])
        steps = max(self.stride // self.cell // 2, 0)
        move = random.integers(-steps, steps + 1, 2)
        turns, flip = int(random.integers(4)), bool(random.integers(2))
        if self.jitter:
            moved = x + self.cell * int(move[0]), y + self.cell * int(move[1])
            if _covered(self.allowed[number], self.scenes[number].frame, *moved, self.size):
                x, y = moved
        real = self.scenes[number].info.kind == "real"
        turned = self.augment and (self.turn_real or not real)
        return Placed(number, x, y, turns if turned else 0, flip and turned)

    def __iter__(self) -> Iterator[Crop]:
        return (self[index] for index in range(len(self)))

    def at_epoch(self, epoch: int) -> Crops:
        """Return the same windows with the random draws of another epoch."""
        return replace(self, epoch=epoch)

    def where(self, index: int) -> tuple[Scene, Frame]:
        """Return the scene of a crop, and its window before it is moved or turned."""
        number, x, y = (int(value) for value in self.windows[index])
        return self.scenes[number], window_at(self.scenes[number].frame, x, y, self.size, self.band)


def window_at(frame: Frame, x: int, y: int, size: int, band: tuple[int, int]) -> Frame:
    """Return the square window of `size` voxels with its south-west corner at index (x, y)."""
    return replace(frame, x=(x, x + size), y=(y, y + size), z=band)


def open_crops(
    dataset: str | Path | Sequence[Scene],
    *,
    size: int = 64,
    overlap: float = 0.0,
    part: Part | None = "train",
    split: Split | None = None,
    grades: Sequence[str] = GRADES,
    names: Sequence[str] | None = None,
    band: tuple[int, int] | None = None,
    voxel_size: float | None = None,
    least_valid: float = 0.9,
    least_coloured: float = 0.0,
    seed: int = 0,
    jitter: bool = False,
    augment: bool = False,
    in_memory: bool = False,
    cell: int = CELL,
    turn_real: bool = True,
) -> Crops:
    """Open the crops of a part of a dataset.

    Parameters
    ----------
    dataset : str | Path | Sequence[Scene]
        A folder of scenes, or scenes.
    size : int
        Edge of a crop, voxels, a multiple of 8.
    overlap : float
        Overlap of neighbouring windows, a share of their edge in [0, 1). The stride is rounded to
        a multiple of 8.
    part : {"train", "held_out"} | None
        Part of the dataset, None for all of it.
    split : Split | None
        The parts; by default the dataset's own.
    grades : Sequence[str]
        Licence grades to use.
    names : Sequence[str] | None
        Names of the scenes to use, by default all.
    band : tuple[int, int] | None
        z range, by default that of the first scene.
    voxel_size : float | None
        Voxel size that the scenes must have, metres; by default that of the first.
    least_valid, least_coloured : float
        Least share of a window's columns with data, and with known colour.
    seed : int
        Key of the random draws.
    jitter, augment : bool
        See `Crops`.
    in_memory : bool
        Whether all scenes are read now, which is faster and takes some hundred bytes per column.
    cell : int
        Crops begin and end at multiples of so many voxels, itself a multiple of 8.
    turn_real : bool
        As of `Crops`.

    Raises
    ------
    StoreError
        if there is no scene, or none of these grades and names
    FrameError
        if a scene has another voxel size
    CropError
        if the size or the overlap is out of range, or no window fits
    """
    every: list[Scene] = scenes_in(dataset) if isinstance(dataset, str | Path) else list(dataset)
    if split is None:
        split = (
            read_split(dataset, every) if isinstance(dataset, str | Path) else split_by_name(every)
        )
    chosen = [
        s for s in every if s.info.grade in grades and (names is None or s.info.name in names)
    ]
    if not chosen:
        raise StoreError(
            f"none of {len(every)} scenes has grade {' or '.join(grades)}"
            + (f" and is one of {', '.join(names)}" if names else ""),
            "give other grades or scenes",
        )
    if size < cell or size % cell or cell % CELL or not 0 <= overlap < 1:
        raise CropError(
            f"a crop size of {size} voxels with an overlap of {overlap} is out of range",
            f"give a multiple of {cell}, and an overlap in [0, 1)",
        )
    metres = voxel_size if voxel_size is not None else chosen[0].frame.voxel_size
    other = [s for s in chosen if s.frame.voxel_size != metres]
    if other:
        raise FrameError(
            f"scene {other[0].info.name} has voxels of {other[0].frame.voxel_size:g} m, "
            f"not {metres:g} m",
            f"build it with --voxel-size {metres:g}, or keep each size in its own dataset",
        )
    stride = max(round(size * (1 - overlap) / cell), 1) * cell
    z = band or chosen[0].frame.z
    windows, allowed = [], []
    for number, scene in enumerate(chosen):
        cells = _allowed_cells(scene, split, part, size, least_valid, least_coloured)
        allowed.append(cells)
        frame = scene.frame
        # Windows lie on a lattice from the CRS's origin; one more ends with the scene.
        for y in _starts(frame.y, size, stride, cell):
            for x in _starts(frame.x, size, stride, cell):
                if _covered(cells, frame, x, y, size):
                    windows.append((number, x, y))
    if not windows:
        raise CropError(
            f"no window of {size} voxels lies in the part {part!r} of {len(chosen)} scenes",
            "use smaller crops, a smaller buffer or a lower least_valid",
        )
    scenes = tuple(scene.loaded() for scene in chosen) if in_memory else tuple(chosen)
    return Crops(
        scenes,
        np.array(windows, np.int64),
        size,
        stride,
        z,
        tuple(allowed),
        seed,
        0,
        jitter,
        augment,
        cell,
        turn_real,
    )


def _starts(ends: tuple[int, int], size: int, stride: int, cell: int) -> list[int]:
    low, high = -(-ends[0] // cell) * cell, ends[1] // cell * cell
    if high - low < size:
        # A scene smaller than a crop: the rest of the crop is not valid.
        return [ends[0] // cell * cell]
    first = -(-low // stride) * stride
    return sorted({low, *range(first, high - size + 1, stride), high - size})


def _allowed_cells(
    scene: Scene,
    split: Split,
    part: Part | None,
    size: int,
    least_valid: float,
    least_coloured: float,
) -> NDArray:
    """Return (3, ny / 8 + 1, nx / 8 + 1) running sums: of cells in the part, of columns with data,
    and of columns with colour.

    The last two are scaled so that a window is good if each sum reaches its number of columns.
    """
    frame = scene.frame
    mine = (
        np.ones((frame.ny // CELL, frame.nx // CELL), bool)
        if part is None
        else split.cells(frame, part)
    )
    layers = [mine.astype(np.float64) * CELL * CELL]
    for name, least in (("valid", least_valid), ("image_known", least_coloured)):
        if least <= 0:
            layers.append(np.full(mine.shape, float(size * size)))
            continue
        count = (
            scene.layer(name)
            .reshape(frame.ny // CELL, CELL, frame.nx // CELL, CELL)
            .sum(axis=(1, 3))
        )
        layers.append(count / least)
    sums = np.zeros((3, frame.ny // CELL + 1, frame.nx // CELL + 1))
    sums[:, 1:, 1:] = np.stack(layers).cumsum(axis=1).cumsum(axis=2)
    return sums


def _covered(sums: NDArray, frame: Frame, x: int, y: int, size: int) -> bool:
    """Whether the cells of a window belong to the part, with enough data and colour."""
    r0, r1 = (frame.y[1] - y - size) // CELL, (frame.y[1] - y) // CELL
    c0, c1 = (x - frame.x[0]) // CELL, (x - frame.x[0] + size) // CELL
    rows, cols = sums.shape[1] - 1, sums.shape[2] - 1
    inner = max(r0, 0), min(r1, rows), max(c0, 0), min(c1, cols)
    if inner[0] >= inner[1] or inner[2] >= inner[3]:
        return False
    total = (
        sums[:, inner[1], inner[3]]
        - sums[:, inner[0], inner[3]]
        - sums[:, inner[1], inner[2]]
        + sums[:, inner[0], inner[2]]
    )
    in_scene = (inner[1] - inner[0]) * (inner[3] - inner[2]) * CELL * CELL
    needed = size * size
    return bool(
        total[0] >= in_scene - 0.5 and total[1] >= needed - 1e-6 and total[2] >= needed - 1e-6
    )
