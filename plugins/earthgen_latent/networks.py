"""Networks from a set of weights: named where a backend is created, loaded once in each process
that computes."""

from __future__ import annotations

import functools
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from earthgen.errors import MissingWeightsError, ModelError
from earthgen.models.presets import PRESETS, Config, Preset, preset
from earthgen.models.weights.bundled import shipped_weights
from earthgen.models.weights.card import WeightSet, open_weights
from earthgen.models.weights.format import VERSION, Header, load_weights, part_path
from earthgen.sparse.backends import pick
from earthgen.sparse.layers import Convolution, TransposedConvolution
from earthgen.sparse.products import product_dtype
from earthgen_latent import LATENT_VERSION
from earthgen_latent.classes import stand_ins
from geo_io.frame import Frame

PRECISIONS = ("fp32", "bf16")
"""Of products. bf16 takes half the time where a CPU has instructions for it, and makes slightly
another world."""

BAND = (-16, 112)
"""Voxels above and below the ground that weights of no named preset were trained on."""


@dataclass(frozen=True)
class Networks:
    """Some parts of a set of weights. It goes to workers pickled: it holds no tensor.

    Attributes
    ----------
    folder : of the set; workers on other machines need it at the same place
    digests : of each part that is used
    configs : of those parts
    title, licence : what the set's card says
    preset : the preset's name, "" for none
    voxel_size : that the weights were trained at, metres
    few_steps : parts that were trained to take long steps
    device : of torch
    sparse_backend : what computes sparse convolutions, by name; None for what suits the device
    precision : of products, of `PRECISIONS`
    classes : names of the land classes that parts were trained on, by "structure" and "texture";
        none where unknown
    """

    folder: str
    digests: tuple[tuple[str, str], ...]
    configs: tuple[tuple[str, Config], ...]
    title: str
    licence: str
    preset: str
    voxel_size: float
    few_steps: tuple[str, ...]
    device: str = "cpu"
    sparse_backend: str | None = None
    precision: str = "fp32"
    classes: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __call__(self, part: str) -> Any:
        """The network of a part, in evaluation mode: loaded the first time in a process.

        Raises ModelError where the file changed since the backend was created, else as
        `load_weights`.
        """
        return _loaded(
            str(part_path(self.folder, part)),
            part,
            dict(self.digests)[part],
            self.device,
            self.sparse_backend,
        )

    def config(self, part: str) -> Any:
        return dict(self.configs)[part]

    @property
    def digest(self) -> str:
        """Of all parts that are used, and of what they are told of classes: what enters a
        world's identity."""
        parts = [f"{part}=sha256:{digest}" for part, digest in self.digests]
        if self.classes:
            text = json.dumps(self.classes)
            parts.append(f"classes=sha256:{hashlib.sha256(text.encode()).hexdigest()}")
        return ",".join(parts)

    def known(self, part: str) -> tuple[str, ...]:
        """Names of the classes that a part was trained on; empty where the set does not say."""
        return dict(self.classes).get(_kind(part), ())

    def told(self, part: str, codes: NDArray) -> NDArray:
        """What a part is told of class codes: a relative in place of a class that it does not
        know."""
        return stand_ins(self.known(part))[codes]

    @property
    def card(self) -> dict[str, Any]:
        """What enters a world's provenance."""
        return {
            "title": self.title,
            "licence": self.licence,
            "preset": self.preset,
            "version": VERSION,
            "voxel_size": self.voxel_size,
            "parts": dict(self.digests),
            "folder": self.folder,
        }

    @property
    def band(self) -> tuple[int, int]:
        """Heights that the sparse networks work on, voxels from the ground."""
        known = self._preset()
        return BAND if known is None else known.band

    @property
    def window(self) -> int:
        """Columns along an edge of a window that suits the weights."""
        known = self._preset()
        return 128 if known is None else known.tile

    def _preset(self) -> Preset | None:
        return preset(self.preset) if self.preset in PRESETS else None

    def check(self, frame: Frame) -> None:
        """Raise ModelError where a world has other voxels than the weights were trained at."""
        if frame.voxel_size != self.voxel_size:
            raise ModelError(
                f"{self.folder}: the weights are for voxels of {self.voxel_size:g} m, not of {frame.voxel_size:g} m",
                f"give --voxel-size {self.voxel_size:g}, or weights that were trained at {frame.voxel_size:g} m",
            )


class Learned:
    """What every backend made of networks says of its weights."""

    version = LATENT_VERSION
    requires: tuple[str, ...] = ()
    networks: Networks

    @property
    def weights(self) -> str:
        """The digest of the weights."""
        return self.networks.digest

    @property
    def weights_card(self) -> dict[str, Any]:
        """What a world's provenance says of the weights."""
        return self.networks.card

    def check(self, frame: Frame) -> None:
        """Raise where a world on `frame` cannot be made with these weights."""
        self.networks.check(frame)


def open_networks(
    weights: str | Path | None,
    parts: tuple[str, ...],
    device: str = "cpu",
    sparse_backend: str | None = None,
    precision: str = "fp32",
) -> Networks:
    """The parts of a set of weights that a backend uses; no tensor is read.

    weights : the folder of the set; None for the one that the package comes with

    Raises MissingWeightsError where there is no set, or a part is not in it, ModelError for a
    precision that this machine has no instructions for, else as `open_weights`.
    """
    folder = shipped_weights() if weights is None else Path(weights)
    if folder is None:
        raise MissingWeightsError(
            "this installation comes without weights",
            "train a set (`earthgen train all`) and give --weights DIR, or use the procedural backends",
        )
    found = open_weights(folder.resolve())
    for part in parts:
        if part not in found.parts:
            raise MissingWeightsError(
                f"{found.folder}: the set has no {part}, only {', '.join(found.parts)}",
                f"train it (`earthgen train {part}`), or give a set that has it",
            )
    _check_precision(precision, device)
    return replace(
        _described(found, parts), device=device, sparse_backend=sparse_backend, precision=precision
    )


def _check_precision(precision: str, device: str) -> None:
    if precision not in PRECISIONS:
        raise ModelError(
            f"there is no precision {precision!r}", f"choose of {', '.join(PRECISIONS)}"
        )
    if (
        precision == "bf16"
        and product_dtype(torch.bfloat16, torch.device(device)) != torch.bfloat16
    ):
        raise ModelError(
            "this CPU has no instructions for bfloat16, in which it would be slower", "take fp32"
        )


def _described(found: WeightSet, parts: tuple[str, ...]) -> Networks:
    from earthgen.models.presets import PARTS

    headers = [found.parts[part] for part in parts]
    kinds = {_kind(part) for part in parts}
    return Networks(
        folder=str(found.folder),
        digests=tuple((part, found.parts[part].digest) for part in parts),
        configs=tuple(
            (part, PARTS[part].model_validate(found.parts[part].config)) for part in parts
        ),
        title=str(found.card.get("title", "")),
        licence=str(found.card.get("licence") or "not given"),
        preset=headers[0].preset,
        voxel_size=headers[0].voxel_size,
        classes=tuple(
            (kind, tuple(names))
            for kind, names in sorted(found.card.get("classes", {}).items())
            if kind in kinds
        ),
        few_steps=tuple(part for part in parts if _takes_long_steps(found.parts[part])),
    )


def _kind(part: str) -> str:
    """Under which name a set's card lists the classes that a part was trained on."""
    return "texture" if part.startswith("tex-") else "structure"


def _takes_long_steps(header: Header) -> bool:
    """Whether a flow was trained to take long steps, by the settings that `earthgen train`
    keeps."""
    settings = header.settings.get("settings", {})
    return isinstance(settings, dict) and bool(settings.get("shortcut"))


@functools.lru_cache(maxsize=16)
def _loaded(
    path: str, part: str, digest: str, device: str, sparse_backend: str | None
) -> torch.nn.Module:
    model, header = load_weights(path, part, device=device)
    if header.digest != digest:
        raise ModelError(
            f"{path}: the weights changed while a world was made of them", "start again"
        )
    if sparse_backend is not None or torch.device(device).type != "cpu":
        backend = pick(device, torch.float32, name=sparse_backend)
        for layer in model.modules():
            if isinstance(layer, Convolution | TransposedConvolution):
                layer.backend = backend
    return model.requires_grad_(False)


_one_at_a_time = threading.RLock()


@contextmanager
def inference(networks: Networks) -> Iterator[None]:
    """Torch on one thread, without gradients, in the networks' precision.

    What a window's bits may not depend on is the number of threads.

    Torch keeps that number for the process, so threads of one process take turns.
    """
    with _one_at_a_time:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            half = networks.precision == "bf16"
            with (
                torch.no_grad(),
                torch.autocast(torch.device(networks.device).type, torch.bfloat16, enabled=half),
            ):
                yield
        finally:
            torch.set_num_threads(before)
