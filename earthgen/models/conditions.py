"""Conditions on the columns of a batch, and how training hides parts of them.

Maps are (batch, ny, nx) with the northernmost row first; voxels count from the south. Only
`CondNet` converts one to the other.
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
from earthgen.sparse.sites import Place
from geo_io.frame import Frame

CONDITIONS = ("semantics", "height", "image")
"""Names of the conditions, in the order of `Conditions.present`."""


@dataclass(frozen=True)
class Conditions:
    """Conditions on the columns of a batch; each may be None or hidden from some samples.

    Attributes
    ----------
    place : Place
        Where the samples lie.
    shape : (int, int)
        Rows and columns (ny, nx) of a sample.
    semantics : Tensor (batch, ny, nx) int, optional
        Class codes seen from above, 0 unmapped. Where it is None or hidden, networks with
        `hidden_token` see the class `earthgen.models.presets.HIDDEN`.
    height : Tensor (batch, ny, nx) float32, optional
        Top of what is solid above the ground, metres, NaN unknown.
    image : Tensor (batch, 3, ny, nx) float32, optional
        sRGB in [0, 1] seen from above, NaN unknown.
    present : Tensor (batch, 3) bool, optional
        In the order of `CONDITIONS`; False hides a condition from a sample.
    """

    place: Place
    shape: tuple[int, int]
    semantics: Tensor | None = None
    height: Tensor | None = None
    image: Tensor | None = None
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
                    f"condition {name} has shape {tuple(value.shape)} "
                    f"on {batch} samples of {ny} x {nx} columns",
                    f"give {shape}",
                )
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
        device: torch.device | str = "cpu",
    ) -> Conditions:
        """Return conditions from arrays, one per frame and all of one shape.

        Parameters
        ----------
        frames : sequence of Frame
            Frames of the samples.
        semantics : sequence of NDArray (ny, nx) uint8, optional
            Class codes.
        height : sequence of NDArray (ny, nx) float32, optional
            Metres above the ground, NaN unknown.
        image : sequence of NDArray (ny, nx, 3) uint8, optional
            sRGB.
        image_known : sequence of NDArray (ny, nx) bool, optional
            Where the image is known, by default everywhere.
        device : torch.device or str
            Where the tensors lie.

        Raises
        ------
        ModelError
            If frames or arrays have several shapes.
        SparseError
            If frames have several lattices.
        """
        shapes = {frame.shape for frame in frames}
        if len(shapes) != 1:
            raise ModelError(
                f"frames of a batch have shapes {sorted(shapes)}", "give frames of one shape"
            )
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
        )

    def shown(self, device: torch.device) -> Tensor:
        """Return which conditions are given and not hidden, (batch, 3) bool."""
        given = [getattr(self, name) is not None for name in CONDITIONS]
        mask = torch.tensor(given, device=device).repeat(len(self.place.origins), 1)
        return mask if self.present is None else mask & self.present.to(device)

    def hidden(self) -> Conditions:
        """Return the same place without conditions, for classifier-free guidance."""
        return Conditions(self.place, self.shape)

    def to(self, device: torch.device | str) -> Conditions:
        """Return the conditions on another device."""
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
        raise ModelError(f"maps of a batch have shapes {sorted(shapes)}", "give maps of one shape")
    return torch.from_numpy(np.stack(list(arrays)).astype(dtype)).to(device)


def drop_conditions(
    conditions: Conditions,
    probability: Mapping[str, float] | float,
    generator: torch.Generator,
) -> Conditions:
    """Hide each condition from each sample with a probability.

    For classifier-free guidance (Ho & Salimans 2022).

    Parameters
    ----------
    conditions : Conditions
        Conditions of a batch.
    probability : mapping of str to float, or float
        By the names of `CONDITIONS`, 0 for others; or one for all.
    generator : torch.Generator
        Draws what is hidden.
    """
    by_name = (
        probability if isinstance(probability, Mapping) else dict.fromkeys(CONDITIONS, probability)
    )
    _check_names(by_name)
    limit = torch.tensor([float(by_name.get(name, 0.0)) for name in CONDITIONS])
    random = torch.rand(
        len(conditions.place.origins), len(CONDITIONS), generator=generator, device=generator.device
    )
    return _hide(conditions, random.cpu() >= limit)


def mix_conditions(
    conditions: Conditions,
    mixture: Sequence[tuple[Sequence[str], float]],
    generator: torch.Generator,
) -> Conditions:
    """Draw one set of conditions for each sample and hide the others, as in the paper.

    Parameters
    ----------
    conditions : Conditions
        Conditions of a batch.
    mixture : sequence of (sequence of str, float)
        Sets of names of `CONDITIONS` with weights, such as [(["semantics"], 5), ([], 2)].
    generator : torch.Generator
        Draws the sets.

    Raises
    ------
    ModelError
        If the weights are not above 0, or a name is unknown.
    """
    return _hide(conditions, draw_sets(mixture, len(conditions.place.origins), generator))


def draw_sets(
    mixture: Sequence[tuple[Sequence[str], float]], count: int, generator: torch.Generator
) -> Tensor:
    """Draw one set of conditions for each of `count` samples, (count, 3) bool on the CPU.

    Parameters and errors are those of `mix_conditions`.
    """
    if not mixture or sum(weight for _, weight in mixture) <= 0:
        raise ModelError(
            "the mixture has no conditions", "name sets of conditions with weights above 0"
        )
    for names, _ in mixture:
        _check_names(names)
    table = torch.tensor([[name in names for name in CONDITIONS] for names, _ in mixture])
    weights = torch.tensor([float(weight) for _, weight in mixture], device=generator.device)
    return table[torch.multinomial(weights, count, True, generator=generator).cpu()]


def _hide(conditions: Conditions, present: Tensor) -> Conditions:
    if conditions.present is not None:
        present = present.to(conditions.present.device) & conditions.present
    return replace(conditions, present=present)


def _check_names(names: Sequence[str] | Mapping[str, float]) -> None:
    unknown = set(names) - set(CONDITIONS)
    if unknown:
        raise ModelError(
            f"unknown condition {', '.join(sorted(unknown))}",
            f"choose from {', '.join(CONDITIONS)}",
        )
