"""The samples of a step, divided so that they fit into memory.

The paper bounds the voxels of a sample (250,000) and has 64 samples per step. Here a crop with more
voxels is divided into quarters, all of which are trained on, and the samples of a step are computed
in micro-batches whose gradients are accumulated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from earthgen.dataset.crop import COLUMNS, ROWS, Crop
from earthgen.errors import TrainingError
from earthgen.training.task import StepBatch

Item = TypeVar("Item")


def quarters(crop: Crop) -> list[Crop]:
    """Return the four quarters of a square crop, in the order south-west, south-east, ... ."""
    frame, half = crop.frame, crop.frame.nx // 2
    east, south = crop.xyz[:, 0] - frame.x[0], frame.y[1] - 1 - crop.xyz[:, 1]
    result = []
    for row in (1, 0):
        for column in (0, 1):
            inside = (south // half == row) & (east // half == column)
            rows = slice(row * half, (row + 1) * half)
            columns = slice(column * half, (column + 1) * half)
            place = replace(
                frame,
                x=(frame.x[0] + column * half, frame.x[0] + (column + 1) * half),
                y=(frame.y[1] - (row + 1) * half, frame.y[1] - row * half),
            )
            values: dict[str, Any] = {name: getattr(crop, name)[inside] for name in ROWS}
            values |= {
                name: np.ascontiguousarray(getattr(crop, name)[rows, columns]) for name in COLUMNS
            }
            result.append(replace(crop, frame=place, xyz=crop.xyz[inside], **values))
    return result


def bounded(crop: Crop, max_voxels: int, cell: int) -> list[Crop]:
    """Return a crop, or its quarters that have voxels if it has more than `max_voxels`.

    Parameters
    ----------
    crop : Crop
        A square crop.
    max_voxels : int
        Largest number of voxels.
    cell : int
        Crops begin and end at multiples of so many voxels.

    Raises
    ------
    TrainingError
        If a crop that cannot be divided further has more voxels.
    """
    if len(crop) <= max_voxels:
        return [crop]
    if crop.frame.nx != crop.frame.ny or crop.frame.nx % (2 * cell):
        raise TrainingError(
            f"a crop of {crop.frame.nx} x {crop.frame.ny} columns has {len(crop):,} voxels, more "
            f"than max_voxels = {max_voxels:,}, and cannot be divided",
            "raise max_voxels, or take smaller crops with --columns",
        )
    parts = [quarter for quarter in quarters(crop) if len(quarter)]
    return [each for part in parts for each in bounded(part, max_voxels, cell)]


def step_batch(
    items: Sequence[Item],
    make: Callable[[list[Item]], Any],
    *,
    micro_batch: int | None = None,
    micro_voxels: int | None = None,
    crop_of: Callable[[Any], Crop] = lambda item: item,
    divided: int = 0,
) -> StepBatch:
    """Return samples as micro-batches.

    Parameters
    ----------
    items : sequence
        The samples of the step.
    make : callable
        Makes a batch of samples of one shape.
    micro_batch, micro_voxels : int, optional
        Largest number of samples and of voxels of a micro-batch; one sample is always taken.
    crop_of : callable
        Returns the crop of a sample.
    divided : int
        Crops that were divided.

    Returns
    -------
    StepBatch
        Weighted by the voxels of each micro-batch, or by the columns if no sample has voxels: so
        the accumulated gradient of a mean over voxels is that of the whole batch.
    """
    groups: list[list[Item]] = []
    for alike in _same_shape(items, crop_of):
        current: list[Item] = []
        for item in alike:
            voxels = sum(len(crop_of(each)) for each in [*current, item])
            full = micro_batch is not None and len(current) >= micro_batch
            if current and (full or (micro_voxels is not None and voxels > micro_voxels)):
                groups.append(current)
                current = []
            current.append(item)
        groups.append(current)
    sizes = [sum(len(crop_of(each)) for each in group) for group in groups]
    if not any(sizes):
        sizes = [sum(crop_of(each).valid.size for each in group) for group in groups]
    total = sum(sizes)
    return StepBatch(
        tuple(make(group) for group in groups), tuple(size / total for size in sizes), divided
    )


def _same_shape(items: Sequence[Item], crop_of: Callable[[Any], Crop]) -> Iterable[list[Item]]:
    """The items in groups of one shape, the largest first, in their order."""
    shapes: dict[tuple[int, int], list[Item]] = {}
    for item in items:
        frame = crop_of(item).frame
        shapes.setdefault((frame.nx, frame.ny), []).append(item)
    return [shapes[shape] for shape in sorted(shapes, reverse=True)]
