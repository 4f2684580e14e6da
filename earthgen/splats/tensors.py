"""Gaussians as torch tensors, so that pictures of them have gradients, and what is checked
before they are drawn."""

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
"""How far a quaternion's length may be from 1: some steps of an optimiser, but no quaternion of
another convention."""

FLOATS = ("means", "scales", "rotations", "opacities", "sh")


@dataclass(frozen=True)
class SplatTensors:
    """2D Gaussians as `Gaussians` has them, on a torch device; any of the float tensors may want
    gradients.

    Attributes
    ----------
    means : (n, 3) float, metres from the anchor, axes east, north, up
    scales : (n, 2) float, standard deviations along the disc's two axes, metres
    rotations : (n, 4) float, quaternions (w, x, y, z) that turn the z axis into the disc's normal.
        Their length is
        divided out, also in gradients, and has to be 1 within `UNIT`
    opacities : (n,) float in [0, 1]
    sh : (n, k, 3) float, coefficients of the sRGB colour, k = (degree + 1)^2, degree 0 to 3
    semantics : (n,) uint8, class codes, or None where there are none
    anchor, crs, vertical_crs : as of `Gaussians`

    All floats are of one dtype, and all tensors on one device.
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
        _check_kinds(self)

    def __len__(self) -> int:
        return len(self.means)

    @property
    def degree(self) -> int:
        """Degree of the spherical harmonics."""
        return round(self.sh.shape[1] ** 0.5) - 1

    @property
    def device(self) -> torch.device:
        return self.means.device

    @property
    def dtype(self) -> torch.dtype:
        return self.means.dtype

    @classmethod
    def of(
        cls,
        gaussians: Gaussians,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> SplatTensors:
        """The tensors of `gaussians`; on the CPU in float32 they share its memory."""
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
        """The same as numpy arrays in float32, without gradients; no class is class 0."""
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
        """The Gaussians at `index` (a mask or integers)."""
        names = (*FLOATS, *(("semantics",) if self.semantics is not None else ()))
        taken: dict[str, Any] = {name: getattr(self, name)[index] for name in names}
        return replace(self, **taken)

    def to(self, target: torch.dtype | torch.device | str) -> SplatTensors:
        """The same in another float dtype or on another device."""
        moved: dict[str, Any] = {name: getattr(self, name).to(target) for name in FLOATS}
        if self.semantics is not None and not isinstance(target, torch.dtype):
            moved["semantics"] = self.semantics.to(target)
        return replace(self, **moved)


def check_values(splats: SplatTensors) -> None:
    """Raise SplatError, naming the first Gaussian that is none.

    That is one with a value that is not finite, a scale that is not positive, an opacity outside
    [0, 1], or a quaternion whose length is not 1.
    """
    with torch.no_grad():
        for name in FLOATS:
            # A sum is finite unless an addend is not, or it overflows; only then is it worth a look
            # at each.
            if not torch.isfinite(getattr(splats, name).sum()):
                _refuse(
                    ~torch.isfinite(getattr(splats, name)).reshape(len(splats), -1).all(1),
                    splats,
                    name,
                    "is not finite",
                    "leave such Gaussians out",
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
                "is no unit quaternion",
                "divide quaternions by their length",
            )


def _refuse(wrong: Tensor, splats: SplatTensors, name: str, what: str, remedy: str) -> None:
    if not wrong.any():
        return
    row = int(wrong.nonzero()[0, 0])
    value = getattr(splats, name)[row].detach().flatten().tolist()
    shown = ", ".join(f"{number:.6g}" for number in value[:4])
    raise SplatError(
        f"{name} of Gaussian {row} ({shown}) {what}; so of {int(wrong.sum()):,} of {len(splats):,}",
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
        found = tuple(getattr(splats, name).shape)
        if found != shape:
            raise SplatError(f"{name} has shape {found}", f"give {shape} for {n} Gaussians")
    sh = tuple(splats.sh.shape)
    if (
        len(sh) != 3
        or sh[0] != n
        or sh[2] != 3
        or sh[1] not in [(k + 1) ** 2 for k in range(MOST_DEGREE + 1)]
    ):
        raise SplatError(
            f"sh has shape {sh}", f"give ({n}, k, 3) with k = 1, 4, 9 or 16 coefficients a colour"
        )
    if splats.semantics is not None and tuple(splats.semantics.shape) != (n,):
        raise SplatError(f"semantics has shape {tuple(splats.semantics.shape)}", f"give ({n},)")


def _check_kinds(splats: SplatTensors) -> None:
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
                f"means lie on {splats.device}, {name} on {value.device}", "move them to one device"
            )
    if splats.semantics is not None:
        if splats.semantics.dtype != torch.uint8:
            raise SplatError(f"semantics are {splats.semantics.dtype}", "give class codes as uint8")
        if splats.semantics.device != splats.device:
            raise SplatError(
                f"means lie on {splats.device}, semantics on {splats.semantics.device}",
                "move them to one device",
            )


def _writable(array: np.ndarray) -> np.ndarray:
    """torch warns of arrays that it could write to and must not."""
    return array if array.flags.writeable and array.flags.c_contiguous else np.array(array)
