"""Gaussians as torch tensors, for pictures with gradients, and the checks before drawing."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from earthgen.errors import SplatError
from earthgen.splats.gaussians import Anchor, Gaussians
from earthgen.splats.spherical_harmonics import MOST_DEGREE
from geo_io.frame import UNKNOWN_DATUM

UNIT = 1e-2
"""Largest difference between the length of a quaternion and 1: enough for some steps of an
optimiser, too little for quaternions of another convention."""

FLOATS = ("means", "scales", "rotations", "opacities", "sh")
"""Float tensors of `SplatTensors`."""


@dataclass(frozen=True)
class SplatTensors:
    """2D Gaussians on a torch device; any of the float tensors may require gradients.

    All float tensors have one dtype, and all tensors are on one device.

    Attributes
    ----------
    means : Tensor (n, 3)
        Metres from the anchor, axes east, north, up.
    scales : Tensor (n, 2)
        Standard deviations along the disc's two axes, metres.
    rotations : Tensor (n, 4)
        Quaternions (w, x, y, z) that rotate the z axis to the disc's normal. They are normalised,
        also in gradients; their length has to be 1 within `UNIT`.
    opacities : Tensor (n,)
        In [0, 1].
    sh : Tensor (n, k, 3)
        Coefficients of the sRGB colour, k = (degree + 1)^2, degree 0 to 3.
    semantics : Tensor (n,) uint8 or None
        Class codes.
    anchor, crs, vertical_crs
        See `Gaussians`.

    Raises
    ------
    SplatError
        If a shape, dtype or device does not match.
    """

    means: Tensor
    scales: Tensor
    rotations: Tensor
    opacities: Tensor
    sh: Tensor
    semantics: Tensor | None = None
    anchor: Anchor = (0.0, 0.0, 0.0)
    crs: str = ""
    vertical_crs: str = UNKNOWN_DATUM

    def __post_init__(self) -> None:
        _check_shapes(self)
        _check_types(self)

    def __len__(self) -> int:
        return len(self.means)

    @property
    def degree(self) -> int:
        """Degree of the spherical harmonics."""
        return round(self.sh.shape[1] ** 0.5) - 1

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.means.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the float tensors."""
        return self.means.dtype

    @classmethod
    def of(
        cls,
        gaussians: Gaussians,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> SplatTensors:
        """Convert Gaussians to tensors; on the CPU in float32 they share the memory."""
        arrays: dict[str, Any] = {
            name: torch.from_numpy(_writable(getattr(gaussians, name))).to(device, dtype)
            for name in FLOATS
        }
        return cls(
            **arrays,
            semantics=torch.from_numpy(_writable(gaussians.semantic)).to(device),
            anchor=gaussians.anchor,
            crs=gaussians.crs,
            vertical_crs=gaussians.vertical_crs,
        )

    def gaussians(self) -> Gaussians:
        """Convert to numpy arrays in float32, without gradients; without classes all are 0."""
        arrays = {name: getattr(self, name).detach().cpu().float().numpy() for name in FLOATS}
        classes = (
            torch.zeros(len(self), dtype=torch.uint8)
            if self.semantics is None
            else self.semantics.cpu()
        )
        return Gaussians(
            self.anchor, self.crs, self.vertical_crs, semantic=classes.numpy(), **arrays
        )

    def take(self, index: Tensor) -> SplatTensors:
        """Select Gaussians by a mask or by integers."""
        names = (*FLOATS, *(("semantics",) if self.semantics is not None else ()))
        taken: dict[str, Any] = {name: getattr(self, name)[index] for name in names}
        return replace(self, **taken)

    def to(self, target: torch.dtype | torch.device | str) -> SplatTensors:
        """Convert the float tensors to a dtype, or all tensors to a device."""
        moved: dict[str, Any] = {name: getattr(self, name).to(target) for name in FLOATS}
        if self.semantics is not None and not isinstance(target, torch.dtype):
            moved["semantics"] = self.semantics.to(target)
        return replace(self, **moved)


def check_values(splats: SplatTensors) -> None:
    """Check the values of Gaussians.

    Raises
    ------
    SplatError
        If a value is not finite, a scale is not positive, an opacity is outside [0, 1], or the
        length of a quaternion is not 1; the message names the first such Gaussian.
    """
    with torch.no_grad():
        for name in FLOATS:
            # A sum is finite unless an addend is not or it overflows. Only then are the addends
            # checked one by one.
            if not torch.isfinite(getattr(splats, name).sum()):
                _refuse(
                    ~torch.isfinite(getattr(splats, name)).reshape(len(splats), -1).all(1),
                    splats,
                    name,
                    "is not finite",
                    "remove such Gaussians",
                )
        if not len(splats):
            return
        if splats.scales.min() <= 0:
            _refuse(
                (splats.scales <= 0).any(1),
                splats,
                "scales",
                "is not positive",
                "give standard deviations in metres, not their logarithms",
            )
        if splats.opacities.min() < 0 or splats.opacities.max() > 1:
            _refuse(
                (splats.opacities < 0) | (splats.opacities > 1),
                splats,
                "opacities",
                "lies outside [0, 1]",
                "give opacities, not their logits",
            )
        off = (splats.rotations.square().sum(1) - 1).abs()
        if off.max() > 2 * UNIT:
            _refuse(
                off > 2 * UNIT,
                splats,
                "rotations",
                "is not a unit quaternion",
                "divide quaternions by their length",
            )


def _refuse(wrong: Tensor, splats: SplatTensors, name: str, what: str, remedy: str) -> None:
    if not wrong.any():
        return
    row = int(wrong.nonzero()[0, 0])
    value = getattr(splats, name)[row].detach().flatten().tolist()
    shown = ", ".join(f"{number:.6g}" for number in value[:4])
    raise SplatError(
        f"{name} of Gaussian {row} ({shown}) {what}; this is the case for {int(wrong.sum()):,} of "
        f"{len(splats):,}",
        remedy,
    )


def _check_shapes(splats: SplatTensors) -> None:
    for field in fields(splats)[:6]:
        value = getattr(splats, field.name)
        if not isinstance(value, Tensor) and not (field.name == "semantics" and value is None):
            raise SplatError(f"{field.name} is a {type(value).__name__}", "give a torch tensor")
    n = splats.means.shape[0] if splats.means.ndim else 0
    shapes = {"means": (n, 3), "scales": (n, 2), "rotations": (n, 4), "opacities": (n,)}
    for name, shape in shapes.items():
        actual = tuple(getattr(splats, name).shape)
        if actual != shape:
            raise SplatError(f"{name} has shape {actual}", f"give {shape} for {n} Gaussians")
    sh = tuple(splats.sh.shape)
    if (
        len(sh) != 3
        or sh[0] != n
        or sh[2] != 3
        or sh[1] not in [(k + 1) ** 2 for k in range(MOST_DEGREE + 1)]
    ):
        raise SplatError(
            f"sh has shape {sh}",
            f"give ({n}, k, 3) with k = 1, 4, 9 or 16 coefficients of each colour",
        )
    if splats.semantics is not None and tuple(splats.semantics.shape) != (n,):
        raise SplatError(f"semantics has shape {tuple(splats.semantics.shape)}", f"give ({n},)")


def _check_types(splats: SplatTensors) -> None:
    if not splats.means.is_floating_point():
        raise SplatError(f"means are {splats.means.dtype}", "give floats")
    for name in FLOATS:
        value = getattr(splats, name)
        if value.dtype != splats.dtype:
            raise SplatError(
                f"means are {splats.dtype}, {name} are {value.dtype}", "convert them to one dtype"
            )
        if value.device != splats.device:
            raise SplatError(
                f"means are on {splats.device}, {name} on {value.device}", "move them to one device"
            )
    if splats.semantics is not None:
        if splats.semantics.dtype != torch.uint8:
            raise SplatError(f"semantics are {splats.semantics.dtype}", "give class codes as uint8")
        if splats.semantics.device != splats.device:
            raise SplatError(
                f"means are on {splats.device}, semantics on {splats.semantics.device}",
                "move them to one device",
            )


def _writable(array: np.ndarray) -> np.ndarray:
    """A writable, contiguous array: torch warns of others."""
    return array if array.flags.writeable and array.flags.c_contiguous else np.array(array)
