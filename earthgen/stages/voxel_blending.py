"""How windows that are sampled apart agree on voxels: `earthgen.stages.blending` for values a voxel
instead of a column.

Which voxels there are is settled before (they are another stage's), or by blending the logits of
those that any window has. Weighted means run over the windows that cover a voxel, in the order of
the window index, in float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from earthgen.errors import PluginError, UnknownNameError
from earthgen.stages.blending import STATE, Weights, Windowed, raised_cosine
from earthgen.stages.block import Block, Field
from earthgen.stages.stage import Read, Stage

if TYPE_CHECKING:
    from earthgen.noise.philox import Noise
    from geo_io.frame import Frame

VOXEL_RULES = ("blended", "independent")
"""The rules of `earthgen.stages.blending` that there are for voxels."""


class VoxelSampler(Windowed, Protocol):
    """Samples one window of given voxels; its cells are the voxels.

    Attributes
    ----------
    voxels : the source whose voxels are given, such as "geometry"; one of `reads`, without a halo
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
        """The state at time `stop`, from that at `start`; time runs from 0, noise, to 1, data.

        state : (n, channels) float32 of the voxels xyz, (n, 3) int32, and so is what is returned
        """


def agree_on_voxels(sampler: VoxelSampler, rule: str = "blended", phases: int = 2) -> list[Stage]:
    """The stages of a sampler under a rule; the last is called like the sampler and gives `STATE` a
    voxel.

    phases : of the rule "blended", each of which starts from the weighted mean of the one before

    Raises
    ------
    UnknownNameError
        if there is no such rule for voxels
    PluginError
        if blended windows do not overlap, or there is no phase
    """
    if rule not in VOXEL_RULES:
        raise UnknownNameError(
            f"there is no rule {rule!r} for voxels of neighbouring windows",
            f"choose of {', '.join(VOXEL_RULES)}",
        )
    if rule == "independent":
        return [_stage(sampler, sampler.name, (0.0, 1.0), None, None)]
    if phases < 1 or sampler.stride >= sampler.window:
        raise PluginError(
            f"sampler {sampler.name!r}: windows of {sampler.window} voxels at a stride of {sampler.stride} cannot be "
            f"blended in {phases} phases",
            "choose a stride below the window, and a phase or more",
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
        compute=partial(_phase, sampler, times, before),
        reads=(*sampler.reads, *(() if before is None else (Read(before),))),
    )


def _phase(
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
    weights: Weights,
    absent: Mapping[str, float],
    best: Sequence[str],
    frame: Frame,
    parts: Sequence[tuple[tuple[int, int], Block]],
) -> Block:
    """Voxels of several windows on a frame: the merge of a stage whose sparse fields are blended.

    absent : by field, what a window that covers a voxel's column and does not list the voxel counts
        as; fields without
        are means over the windows that list it
    best : fields that are no means, such as classes: the value, other than 0, of the window with
        the greatest weight,
        of equal ones that of the first; 0 where all have 0
    parts : (index, what of the window lies in the frame), in the order in which they are to be
        summed

    Raises PluginError where there are no windows.
    """
    if not parts:
        raise PluginError(f"no windows cover {frame}", "give all of them")
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
    order = np.lexsort(
        (xyz[:, 2], xyz[:, 0], xyz[:, 1])
    )  # stable: a voxel's windows stay in their order
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
    """Sums of the rows from each of `start` to the next."""
    return np.add.reduceat(values, start, axis=0) if len(start) else values[:0]


def _best(values: NDArray, share: NDArray, start: NDArray) -> NDArray:
    """The value of the greatest share in each group of rows, of equals the first; 0 only where
    there is no other."""
    if not len(start):
        return values[:0]
    group = np.zeros(len(values), np.int64)
    group[start[1:]] = 1
    group = np.cumsum(group)
    rank = np.lexsort((-np.where(values != 0, share, -1.0), group))
    return values[rank[start]]
