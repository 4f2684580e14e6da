"""The rasters of all scenes on the device of the training, from which crops are cut there.

For the flow on heights, which needs no voxels: 25 million columns take about 700 MB. A batch is one
gather per raster, turned and mirrored by its indices, so nothing is read or copied in a step. The
crops are those of `TrainingData.crop`, whose windows, turns and mirrors are functions of a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from earthgen.dataset.crop import COLUMNS, Crop
from earthgen.dataset.crop_sampler import Placed, window_at
from earthgen.dataset.scene import Scene
from earthgen.training.batches import Batch, batch_of_columns
from earthgen.training.data import TrainingData
from earthgen.training.task import StepBatch


@dataclass(frozen=True)
class DeviceColumns:
    """Rasters of the scenes of a training, one after the other in a row, on a device.

    Attributes
    ----------
    data : TrainingData
        The crops.
    device : torch.device
        Where the rasters lie.
    rasters : dict of str to Tensor (columns, ...)
        Fields of `earthgen.dataset.crop.COLUMNS`.
    starts : tuple of int
        First column of each scene.
    """

    data: TrainingData
    device: torch.device
    rasters: dict[str, Tensor] = field(repr=False)
    starts: tuple[int, ...]

    def batch(self, places: Sequence[Placed]) -> Batch:
        """Return crops at these places, without voxels."""
        index, inside = self._index(places)

        def columns(name: str) -> Tensor:
            values = self.rasters[name][index]
            return values.masked_fill(~inside.view(*inside.shape, *[1] * (values.ndim - 3)), 0)

        train = self.data.train
        crops = [
            _empty_crop(train.scenes[each.scene], each, train.size, train.band) for each in places
        ]
        return batch_of_columns(crops, columns)

    def _index(self, places: Sequence[Placed]) -> tuple[Tensor, Tensor]:
        """(batch, ny, nx) int64 columns of the rasters, and whether they lie in the scene."""
        size, frames = self.data.train.size, [s.frame for s in self.data.train.scenes]
        values = torch.tensor(
            [
                (
                    each.turns,
                    each.flip,
                    frames[each.scene].y[1] - each.y - size,
                    each.x - frames[each.scene].x[0],
                    frames[each.scene].ny,
                    frames[each.scene].nx,
                    self.starts[each.scene],
                )
                for each in places
            ],
            device=self.device,
        )
        turns, flip, top, left, ny, nx, start = values.view(len(places), 7, 1, 1).unbind(1)
        along = torch.arange(size, device=self.device)
        row, column = (each.expand(len(places), size, size) for each in (along[:, None], along))
        for turn in range(3):
            # One quarter turn of an array: out[i, j] = values[j, last - i].
            turned = turns > turn
            row, column = (
                torch.where(turned, column, row),
                torch.where(turned, size - 1 - row, column),
            )
        column = torch.where(flip > 0, size - 1 - column, column)
        row, column = row + top, column + left
        inside = (row >= 0) & (row < ny) & (column >= 0) & (column < nx)
        return torch.where(inside, start + row * nx + column, 0), inside


def device_columns(data: TrainingData, device: torch.device) -> DeviceColumns:
    """Copy the rasters of the scenes that are trained on to a device."""
    rasters: dict[str, Tensor] = {}
    for name in COLUMNS:
        layers = [scene.layer(name) for scene in data.train.scenes]
        flat = np.concatenate([layer.reshape(-1, *layer.shape[2:]) for layer in layers])
        # Torch cannot gather unsigned integers of 32 bits.
        flat = flat.astype(np.int32) if flat.dtype == np.uint32 else flat
        rasters[name] = torch.from_numpy(flat).to(device)
    sizes = [scene.frame.ny * scene.frame.nx for scene in data.train.scenes]
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    return DeviceColumns(data, device, rasters, tuple(starts))


def step_batch_of_columns(
    columns: DeviceColumns, seed: int, numbers: Sequence[int], micro_batch: int | None
) -> StepBatch:
    """Return the crops of a step without voxels, in micro-batches."""
    places = [columns.data.place(seed, number) for number in numbers]
    most = micro_batch or len(places)
    groups = [places[first : first + most] for first in range(0, len(places), most)]
    return StepBatch(
        tuple(columns.batch(group) for group in groups),
        tuple(len(group) / len(places) for group in groups),
    )


def _empty_crop(scene: Scene, place: Placed, size: int, band: tuple[int, int]) -> Crop:
    """A crop without arrays: its place, for messages and for the lattice of a batch."""
    frame = replace(
        window_at(scene.frame, place.x, place.y, size, band),
        vertical_crs=scene.frame.vertical_crs,
    )
    none = np.zeros((0, 0), np.float32)
    rows: dict[str, Any] = {
        "xyz": np.zeros((0, 3), np.int32),
        "semantic": np.zeros(0, np.uint8),
        "normal": np.zeros((0, 3), np.float32),
        "rgb": np.zeros((0, 3), np.uint8),
        "rgb_known": np.zeros(0, bool),
        "object": np.zeros(0, np.uint32),
    }
    # `image_known` is looked up at the voxels, of which there are none.
    return Crop(frame, **rows, **dict.fromkeys(COLUMNS, none), kind=scene.info.kind)
