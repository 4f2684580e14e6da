"""What is known of the columns of a batch before it is generated, and how training hides parts of
it.

Maps are (batch, ny, nx) with the northernmost row first, as everywhere; voxels count from the
south. `CondNet` is the one place that turns one into the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earthgen.errors import ModelError
from earthgen.sparse import SparseTensor, merged
from earthgen.sparse.sites import Place
from earthgen.splats.cameras.camera import Camera
from geo_io.frame import Frame

CONDITIONS = ("semantics", "height", "image", "voxels")
"""The kinds of condition, in the order of `Conditions.present`."""


@dataclass(frozen=True)
class Conditions:
    """Conditions on the columns of a batch. Each may be None, and each may be hidden in some of the
    samples.

    Attributes
    ----------
    place : where the samples lie
    shape : (ny, nx), columns of a sample
    semantics : (batch, ny, nx) of an integer dtype, class codes seen from above, 0 unknown
    height : (batch, ny, nx) float32, top of the solid above the ground, metres; NaN is unknown
    image : (batch, 3, ny, nx) float32, sRGB in [0, 1] seen from above; NaN is unknown
    voxels : an image that was un-projected with its depth: colours in [0, 1] as 3 channels, at
        stride 1
    present : (batch, 4) bool, by the order of `CONDITIONS`: False hides a condition from a sample
    """

    place: Place
    shape: tuple[int, int]
    semantics: Tensor | None = None
    height: Tensor | None = None
    image: Tensor | None = None
    voxels: SparseTensor | None = None
    present: Tensor | None = None

    def __post_init__(self) -> None:
        batch, (ny, nx) = len(self.place.origins), self.shape
        shapes = {
            "semantics": (batch, ny, nx),
            "height": (batch, ny, nx),
            "image": (batch, 3, ny, nx),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise ModelError(
                    f"condition {name} has shape {tuple(value.shape)} on {batch} samples of {ny} x {nx} columns",
                    f"give {shape}",
                )
        if self.voxels is not None:
            if self.voxels.channels != 3 or self.voxels.stride != (1, 1, 1):
                raise ModelError(
                    "condition voxels are no colours of voxels", "give 3 channels at stride 1"
                )
            self.place.check_same(self.voxels.place)
        if self.present is not None and tuple(self.present.shape) != (batch, len(CONDITIONS)):
            raise ModelError(
                f"present has shape {tuple(self.present.shape)}",
                f"give ({batch}, {len(CONDITIONS)})",
            )

    @classmethod
    def of(
        cls,
        frames: Sequence[Frame],
        *,
        semantics: Sequence[NDArray] | None = None,
        height: Sequence[NDArray] | None = None,
        image: Sequence[NDArray] | None = None,
        image_known: Sequence[NDArray] | None = None,
        voxels: SparseTensor | None = None,
        device: torch.device | str = "cpu",
    ) -> Conditions:
        """Conditions from arrays, one a frame, all of one shape.

        semantics : (ny, nx) class codes; height : (ny, nx) metres, NaN unknown
        image : (ny, nx, 3) uint8 sRGB; image_known : (ny, nx) bool, by default known everywhere

        Raises ModelError where frames or arrays are of several shapes, SparseError for several
        lattices.
        """
        shapes = {frame.shape for frame in frames}
        if len(shapes) != 1:
            raise ModelError(f"frames of a batch have shapes {sorted(shapes)}", "crop them alike")
        picture = None
        if image is not None:
            known = (
                [np.ones(shapes.copy().pop(), bool)] * len(image)
                if image_known is None
                else list(image_known)
            )
            pairs = zip(image, known, strict=True)
            colours = np.stack(
                [np.where(k[..., None], i / np.float32(255), np.nan) for i, k in pairs]
            )
            picture = (
                torch.from_numpy(colours.astype(np.float32))
                .permute(0, 3, 1, 2)
                .contiguous()
                .to(device)
            )
        return cls(
            Place.of(*frames),
            shapes.pop(),
            _stacked(semantics, np.uint8, device),
            _stacked(height, np.float32, device),
            picture,
            voxels,
        )

    def shown(self, device: torch.device) -> Tensor:
        """(batch, 4) bool: which conditions there are, and are not hidden."""
        given = [getattr(self, name) is not None for name in CONDITIONS]
        mask = torch.tensor(given, device=device).repeat(len(self.place.origins), 1)
        return mask if self.present is None else mask & self.present.to(device)

    def hidden(self) -> Conditions:
        """The same place with nothing known: what guidance goes away from."""
        return Conditions(self.place, self.shape)

    def to(self, device: torch.device | str) -> Conditions:
        """The same on another device."""
        moved: dict[str, Any] = {
            name: None if value is None else value.to(device)
            for name in (*CONDITIONS, "present")
            for value in [getattr(self, name)]
        }
        return replace(self, **moved)


def _stacked(
    arrays: Sequence[NDArray] | None, dtype: Any, device: torch.device | str
) -> Tensor | None:
    if arrays is None:
        return None
    shapes = {array.shape for array in arrays}
    if len(shapes) != 1:
        raise ModelError(f"maps of a batch have shapes {sorted(shapes)}", "crop them alike")
    return torch.from_numpy(np.stack(list(arrays)).astype(dtype)).to(device)


def dropped(
    conditions: Conditions, odds: Mapping[str, float] | float, generator: torch.Generator
) -> Conditions:
    """Each condition hidden from each sample with its odds, for classifier-free guidance (Ho &
    Salimans 2022).

    odds : by the names of `CONDITIONS`, 0 where one is not named; or one number for all
    """
    given = odds if isinstance(odds, Mapping) else dict.fromkeys(CONDITIONS, odds)
    _check_names(given)
    limit = torch.tensor([float(given.get(name, 0.0)) for name in CONDITIONS])
    drawn = torch.rand(
        len(conditions.place.origins), len(CONDITIONS), generator=generator, device=generator.device
    )
    return _hiding(conditions, drawn.cpu() >= limit)


def mixed(
    conditions: Conditions,
    mixture: Sequence[tuple[Sequence[str], float]],
    generator: torch.Generator,
) -> Conditions:
    """One set of conditions for each sample, the others hidden: the paper's mixture of conditions.

    mixture : sets of names of `CONDITIONS` with weights, such as [(["semantics"], 5), (["image"],
        3), ([], 2)]
    """
    if not mixture or sum(weight for _, weight in mixture) <= 0:
        raise ModelError(
            "a mixture of no conditions", "name sets of conditions with weights above 0"
        )
    for names, _ in mixture:
        _check_names(names)
    table = torch.tensor([[name in names for name in CONDITIONS] for names, _ in mixture])
    weights = torch.tensor([float(weight) for _, weight in mixture], device=generator.device)
    count = len(conditions.place.origins)
    return _hiding(
        conditions, table[torch.multinomial(weights, count, True, generator=generator).cpu()]
    )


def _hiding(conditions: Conditions, present: Tensor) -> Conditions:
    if conditions.present is not None:
        present = present.to(conditions.present.device) & conditions.present
    return replace(conditions, present=present)


def _check_names(names: Sequence[str] | Mapping[str, float]) -> None:
    unknown = set(names) - set(CONDITIONS)
    if unknown:
        raise ModelError(
            f"there is no condition {', '.join(sorted(unknown))}",
            f"there are {', '.join(CONDITIONS)}",
        )


def drop_voxels(
    voxels: SparseTensor,
    normals: Tensor,
    direction: Tensor,
    odds: float,
    generator: torch.Generator,
) -> SparseTensor:
    """Voxels of an un-projected image without a random part of those that face away: what one view
    does not see.

    normals : (n, 3) of the voxels; direction : (3,) unit, towards the viewer
    odds : of hiding a voxel whose normal is at right angles to the view; none that face the viewer
        are hidden, and all
        that face away are (the paper hides condition voxels by their normals, for hole filling)
    """
    facing = (normals.float() @ direction.float().to(normals.device)).clamp(-1, 1)
    hide = torch.where(facing < 0, 1.0, odds * (1 - facing))
    drawn = torch.rand(len(voxels), generator=generator, device=generator.device).to(hide.device)
    return voxels.prune(drawn >= hide)


def unprojected(
    image: NDArray, depth: NDArray, camera: Camera, frame: Frame, ground: NDArray
) -> SparseTensor:
    """An image with depth, measured or estimated, as condition voxels of one sample.

    image : (h, w, 3) uint8 sRGB; depth : (h, w) metres along the camera's axis, 0 or not finite
        where it is unknown
    camera : in the frame's CRS

    Raises ModelError where image, depth and camera are of several sizes.
    """
    size = camera.height, camera.width
    if depth.shape != size or image.shape != (*size, 3):
        raise ModelError(
            f"an image {image.shape} with depth {depth.shape} is not what a camera of {size} sees",
            "give all of one size; `Camera.scaled` resizes a camera",
        )
    row, column = np.nonzero(np.isfinite(depth) & (depth > 0))
    points = camera.unproject(np.column_stack([column, row]) + 0.5, depth[row, column])
    # A surface is a face between voxels: half a voxel further along the ray lies the solid one.
    ray = np.broadcast_to(camera.forward, points.shape)
    if camera.kind == "pinhole":
        ray = points - np.asarray(camera.position)
        ray = ray / np.linalg.norm(ray, axis=1, keepdims=True)
    points = points + 0.5 * frame.voxel_size * ray
    return voxelised(points, image[row, column] / np.float32(255), frame, ground)


def voxelised(points: NDArray, colours: NDArray, frame: Frame, ground: NDArray) -> SparseTensor:
    """Coloured points, such as an un-projected image with depth, as condition voxels of one sample.

    points : (m, 3) float64, metres in the frame's CRS, absolute heights; inside of the voxels that
        they colour
    colours : (m, 3) float32, sRGB in [0, 1]
    ground : (ny, nx) float32 on the frame, metres

    Points outside of the frame are left out; a voxel's colour is the mean of its points.
    """
    size = frame.voxel_size
    column = np.floor(points[:, :2] / size).astype(np.int64)
    inside = (column[:, 0] >= frame.x[0]) & (column[:, 0] < frame.x[1])
    inside &= (column[:, 1] >= frame.y[0]) & (column[:, 1] < frame.y[1])
    column, points, colours = column[inside], points[inside], colours[inside]
    above = points[:, 2] - ground[frame.y[1] - 1 - column[:, 1], column[:, 0] - frame.x[0]]
    layer = np.floor(above / size).astype(np.int64)
    inside = (layer >= frame.z[0]) & (layer < frame.z[1])
    index = np.column_stack([column[inside], layer[inside]]) - [frame.x[0], frame.y[0], frame.z[0]]
    rows = torch.from_numpy(np.pad(index, ((0, 0), (1, 0))).astype(np.int32))
    return merged(rows, torch.from_numpy(colours[inside].astype(np.float32)), place=Place.of(frame))
