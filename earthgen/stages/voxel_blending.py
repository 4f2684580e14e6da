"""Blending rules for values on voxels; `earthgen.stages.blending` has those for values on cells.

The voxels themselves come from another stage, or from blending occupancy logits of all voxels that
any window lists. Weighted means run over the windows that cover a voxel, in the order of the window
index, in float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from earthgen.errors import PluginError, UnknownNameError
from earthgen.stages.blending import STATE, WindowSampler, WindowWeights, raised_cosine
from earthgen.stages.block import Block, Field, column_order
from earthgen.stages.stage import Read, Stage

if TYPE_CHECKING:
    from earthgen.noise.philox import Noise
    from geo_io.frame import Frame

VOXEL_BLENDING_RULES = ("blended", "independent")
"""The names of blending rules that exist for voxels."""


class VoxelSampler(WindowSampler, Protocol):
    """Samples values on the given voxels of one window; its cells are the voxels.

    Attributes
    ----------
    voxels : str
        The source of the voxels, such as "geometry": one of `reads`, without a halo.
    """

    @property
    def voxels(self) -> str: ...

    def advance(
        self,
        state: NDArray,
        xyz: NDArray,
        window: Frame,
        inputs: Mapping[str, Any],
        start: float,
        stop: float,
    ) -> NDArray:
        """Return the state at time `stop`: a function of the arguments alone.

        Parameters
        ----------
        state : NDArray (n, channels) float32
            The state of the voxels at time `start`.
        xyz : NDArray (n, 3) int32
            The voxels.
        window : Frame
            Their frame.
        inputs : mapping of str to Block or layer
            What `reads` names.
        start, stop : float
            Time runs from 0, noise, to 1, data.

        Returns
        -------
        NDArray (n, channels) float32
        """


def voxel_blending_stages(
    sampler: VoxelSampler, rule: str = "blended", phases: int = 2
) -> list[Stage]:
    """Return the stages of a voxel sampler under a blending rule.

    The last one has the sampler's name and gives the sparse field `STATE`.

    Parameters
    ----------
    sampler : VoxelSampler
        Samples the voxels of one window.
    rule : str
        One of `VOXEL_BLENDING_RULES`.
    phases : int
        Of "blended": each phase starts from the weighted mean at the end of the one before.

    Raises
    ------
    UnknownNameError
        If there is no such rule for voxels.
    PluginError
        If blended windows do not overlap, or there is no phase.
    """
    if rule not in VOXEL_BLENDING_RULES:
        raise UnknownNameError(
            f"unknown blending rule {rule!r} for voxels",
            f"choose one of {', '.join(VOXEL_BLENDING_RULES)}",
        )
    if rule == "independent":
        return [_stage(sampler, sampler.name, (0.0, 1.0), None, None)]
    if phases < 1 or sampler.stride >= sampler.window:
        raise PluginError(
            f"sampler {sampler.name!r}: windows of {sampler.window} voxels at a stride of "
            f"{sampler.stride} cannot be blended in {phases} phases",
            "choose a stride below the window, and at least one phase",
        )
    merge = partial(blend_voxels, sampler.window, sampler.stride, raised_cosine, {}, ())
    stages: list[Stage] = []
    for n, times in enumerate(pairwise(n / phases for n in range(phases + 1))):
        name = sampler.name if n == phases - 1 else f"{sampler.name}/{n}"
        stages.append(_stage(sampler, name, times, stages[-1].name if stages else None, merge))
    return stages


def _stage(
    sampler: VoxelSampler, name: str, times: tuple[float, float], before: str | None, merge: Any
) -> Stage:
    return Stage(
        name=name,
        window=sampler.window,
        stride=sampler.stride,
        merge=merge,
        fields={STATE: Field("float32", (sampler.channels,), sparse=True)},
        compute=partial(_sample_phase, sampler, times, before),
        reads=(*sampler.reads, *(() if before is None else (Read(before),))),
    )


def _sample_phase(
    sampler: VoxelSampler,
    times: tuple[float, float],
    before: str | None,
    window: Frame,
    inputs: Mapping[str, Any],
    noise: Noise,
) -> Block:
    xyz = inputs[sampler.voxels].xyz
    if before is None:
        stream = noise.shared().stream(f"{sampler.name}: initial noise")
        state = stream.normals(xyz, sampler.channels)
    else:
        state = inputs[before].sparse[STATE]
    own = {name: value for name, value in inputs.items() if name != before}
    return Block(window, {}, xyz, {STATE: sampler.advance(state, xyz, window, own, *times)})


def blend_voxels(
    window: int,
    stride: int,
    weights: WindowWeights,
    absent: Mapping[str, float],
    best: Sequence[str],
    frame: Frame,
    parts: Sequence[tuple[tuple[int, int], Block]],
) -> Block:
    """Blend the voxels of several windows on a frame: the merge of a stage with sparse fields.

    Parameters
    ----------
    window, stride : int
        Of the stage, voxels.
    weights : callable
        WindowWeights.
    absent : mapping of str to float
        By field, the value that counts for a window that covers a voxel's column without listing
        the voxel. Other fields are means over the windows that list it.
    best : sequence of str
        Fields that are not averaged, such as classes. They take the non-zero value of the window
        with the greatest weight, of equal weights that of the first; 0 where all are 0.
    frame : Frame
        Of the result.
    parts : sequence of (tuple of int, Block)
        Index of each window and the part of it that lies in the frame, in the order of summation.

    Raises
    ------
    PluginError
        If there are no windows.
    """
    if not parts:
        raise PluginError(f"no window covers {frame}", "pass every window that meets it")
    along = np.asarray(weights(window), np.float64)
    margin = (window - stride) // 2
    cover = np.zeros(frame.shape)
    shares = []
    for (x, y), block in parts:
        part = block.frame
        west, south = x * stride - margin, y * stride - margin
        of_columns = along[part.x[0] - west : part.x[1] - west]
        of_rows = along[part.y[0] - south : part.y[1] - south]
        cover[frame.slices(part)] += of_rows[::-1, None] * of_columns
        xyz = _xyz(block)
        shares.append(of_rows[xyz[:, 1] - part.y[0]] * of_columns[xyz[:, 0] - part.x[0]])
    xyz, share = np.concatenate([_xyz(block) for _, block in parts]), np.concatenate(shares)
    order = column_order(xyz)  # stable: a voxel's windows stay in their order
    xyz, share = xyz[order], share[order]
    first = np.ones(len(xyz), bool)
    first[1:] = (xyz[1:] != xyz[:-1]).any(axis=1)
    start = np.flatnonzero(first)
    once = xyz[start]
    listed = _sums(share, start)
    everywhere = cover[frame.y[1] - 1 - once[:, 1], once[:, 0] - frame.x[0]]
    sparse = {}
    for name in parts[0][1].sparse:
        values = np.concatenate([block.sparse[name] for _, block in parts])[order]
        if name in best:
            sparse[name] = _best(values, share, start)
            continue
        wide = share.reshape(-1, *(1,) * (values.ndim - 1))
        missing = absent.get(name, 0.0)
        total = _sums(wide * (values - missing), start)
        weight = everywhere if name in absent else listed
        mean = total / weight.reshape(-1, *(1,) * (values.ndim - 1)) + missing
        sparse[name] = mean.astype(values.dtype)
    return Block(frame, {}, np.ascontiguousarray(once), sparse)


def _xyz(block: Block) -> NDArray:
    return np.empty((0, 3), np.int32) if block.xyz is None else block.xyz


def _sums(values: NDArray, start: NDArray) -> NDArray:
    """Return the sums of the rows from each of `start` to the next."""
    return np.add.reduceat(values, start, axis=0) if len(start) else values[:0]


def _best(values: NDArray, share: NDArray, start: NDArray) -> NDArray:
    """Return the value with the greatest share in each group of rows, of equals the first.

    It is 0 only where all values of the group are.
    """
    if not len(start):
        return values[:0]
    group = np.zeros(len(values), np.int64)
    group[start[1:]] = 1
    group = np.cumsum(group)
    rank = np.lexsort((-np.where(values != 0, share, -1.0), group))
    return values[rank[start]]
