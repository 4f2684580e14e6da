"""Crops as tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from earthgen.dataset.crop import Crop
from earthgen.models.conditions import Conditions
from earthgen.models.height_state import object_maps
from earthgen.models.presets import STYLES
from earthgen.sparse.sites import Place, Sites, make_sites

GUESSED = 0.1
"""Weight of a colour that was not seen itself: it must not teach much, but walls need some
colour."""


STYLE_OF_KIND = {"simulated": "rules", "real": "real"}
"""The style that the crops of a kind of scene teach."""


@dataclass(frozen=True)
class Batch:
    """Crops as samples of a batch. They may come from several CRSs, so their lattice has none.

    Attributes
    ----------
    crops : tuple of Crop
        The samples.
    sites : Sites
        All n surface voxels.
    semantic : Tensor (n,) uint8
        Class codes.
    normal : Tensor (n, 3) float32
        Unit normals.
    rgb : Tensor (n, 3) float32
        Colours in [0, 1].
    trust : Tensor (n,) float32
        Weight of a colour: 1 if it was seen, `GUESSED` if it is the colour seen from above of its
        column, such as a wall's, or was seen where a real building ends, and 0 if nothing was seen.
    ground, height : Tensor (batch, ny, nx) float32
        Metres; heights are above the ground.
    cover : Tensor (batch, ny, nx) uint8
        Class codes seen from above.
    valid : Tensor (batch, ny, nx) bool
        Where the scene has data.
    image : Tensor (batch, 3, ny, nx) float32
        Colours in [0, 1] seen from above, NaN where unknown.
    map : Tensor (batch, ny, nx) uint8
        Class codes as a map has them.
    told : Tensor (batch, ny, nx) float32
        Heights of buildings as a map has them, metres; 0 for none.
    building : Tensor (batch, ny, nx) int64
        Number of the building, 0 for none.
    axes : Tensor (batch, ny, nx, 4) float32
        Place along the axes of the building, as of `earthgen.models.height_state.object_maps`.
    style : Tensor (batch,) int64
        Number of the style (`earthgen.models.presets.STYLES`), from 1.
    object : Tensor (n,) int64
        Number of the building or plant that a voxel belongs to, 0 for none.
    """

    crops: tuple[Crop, ...]
    sites: Sites
    semantic: Tensor
    normal: Tensor
    rgb: Tensor
    trust: Tensor
    ground: Tensor
    height: Tensor
    cover: Tensor
    valid: Tensor
    image: Tensor
    map: Tensor
    told: Tensor
    building: Tensor
    axes: Tensor
    style: Tensor
    object: Tensor

    def __len__(self) -> int:
        return len(self.crops)

    @property
    def seen(self) -> Tensor:
        """Voxels whose colour was seen, (n,) bool."""
        return self.trust == 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels (nx, ny, nz) of a sample."""
        frame = self.crops[0].frame
        return frame.nx, frame.ny, frame.z[1] - frame.z[0]

    @property
    def classes(self) -> Tensor:
        """Class codes seen from above, 0 where the scene has no data, (batch, ny, nx) uint8."""
        return torch.where(self.valid, self.cover, 0)

    @property
    def objects(self) -> Tensor:
        """Shape of the buildings, (batch, OBJECT_MAPS, ny, nx) float32, see `object_maps`."""
        return object_maps(self.building, self.axes, self.sites.place.voxel_size)

    @property
    def conditions(self) -> Conditions:
        """Conditions on the columns: class and height where the scene has data, and the image."""
        height = torch.where(self.valid, self.height, torch.nan)
        nx, ny, _ = self.shape
        return Conditions(
            self.sites.place, (ny, nx), semantics=self.classes, height=height, image=self.image
        )

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on another device."""
        if torch.device(device) == self.sites.device:
            return self
        names = (
            "sites",
            "semantic",
            "normal",
            "rgb",
            "trust",
            "ground",
            "height",
            "cover",
            "valid",
            "image",
            "map",
            "told",
            "building",
            "axes",
            "style",
            "object",
        )
        # From pinned memory, a copy to a GPU does not wait; one to the CPU has to.
        waits = torch.device(device).type == "cpu"
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=not waits)
            if isinstance(value := getattr(self, name), Tensor)
            else value.to(device)
            for name in names
        }
        return replace(self, **moved)

    def pinned(self) -> Batch:
        """Return the batch in memory from which a GPU copies by itself."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        pinned: dict[str, Any] = {
            name: value.pin_memory() for name, value in values.items() if isinstance(value, Tensor)
        }
        return replace(self, **pinned)


def make_batch(crops: Sequence[Crop]) -> Batch:
    """Return crops of one shape as a batch, at least one."""

    def columns(name: str) -> Tensor:
        values = np.stack([getattr(crop, name) for crop in crops])
        # Torch computes little with unsigned integers.
        return torch.from_numpy(values.astype(np.int64) if values.dtype == np.uint32 else values)

    return batch_of_columns(crops, columns)


def batch_of_columns(crops: Sequence[Crop], columns: Callable[[str], Tensor]) -> Batch:
    """Return the voxels of crops as a batch, with columns from elsewhere.

    Parameters
    ----------
    crops : sequence of Crop
        At least one, of one shape.
    columns : callable
        Returns the values of a field of `earthgen.dataset.crop.COLUMNS` in all crops,
        (batch, ny, nx) or (batch, ny, nx, k).
    """
    origins = tuple((c.frame.x[0], c.frame.y[0], c.frame.z[0]) for c in crops)
    place = Place(origins, crops[0].frame.voxel_size)
    rows = [np.pad(crop.local, ((0, 0), (1, 0)), constant_values=n) for n, crop in enumerate(crops)]
    sites, order = make_sites(torch.from_numpy(np.concatenate(rows)), place=place)

    def voxels(name: str) -> Tensor:
        return torch.from_numpy(np.concatenate([getattr(crop, name) for crop in crops]))[order]

    trust = torch.from_numpy(np.concatenate([_trust(crop) for crop in crops]))[order]
    seen = columns("image_known")
    image = (
        torch.where(seen[..., None], columns("image").float() / 255, torch.nan)
        .permute(0, 3, 1, 2)
        .contiguous()
    )
    device = seen.device
    return Batch(
        tuple(crops),
        sites.to(device),
        voxels("semantic").to(device),
        voxels("normal").float().to(device),
        (voxels("rgb").float() / 255).to(device),
        trust.to(device),
        columns("ground").float(),
        columns("height").float(),
        columns("cover"),
        columns("valid"),
        image,
        columns("map"),
        columns("building_height").float(),
        columns("building").long() & 0xFFFFFFFF,
        columns("building_axes").float(),
        torch.tensor([1 + STYLES.index(STYLE_OF_KIND[crop.kind]) for crop in crops], device=device),
        torch.from_numpy(np.concatenate([crop.object for crop in crops]).astype(np.int64))[
            order
        ].to(device),
    )


def _trust(crop: Crop) -> NDArray:
    row, column = crop.frame.y[1] - 1 - crop.xyz[:, 1], crop.xyz[:, 0] - crop.frame.x[0]
    above = np.where(crop.image_known[row, column], GUESSED, 0.0)
    seen = crop.rgb_known
    if crop.kind == "real":
        highest = np.full(crop.frame.shape, -(2**31), np.int64)
        np.maximum.at(highest, (row, column), crop.xyz[:, 2])
        from_above = crop.xyz[:, 2] == highest[row, column]
        seen = seen & ~(from_above & _at_building_edges(crop.building)[row, column])
    return np.where(seen, 1.0, above).astype(np.float32)


def _at_building_edges(building: NDArray) -> NDArray:
    """Columns beside another building, or beside none, (ny, nx) bool.

    Pictures and heights of real places are seldom of one survey and lie a cell or two apart: there
    a roof has the colour of the yard, and the yard that of the roof.
    """
    return np.asarray(
        ndimage.maximum_filter(building, 3, mode="nearest")
        != ndimage.minimum_filter(building, 3, mode="nearest")
    )
