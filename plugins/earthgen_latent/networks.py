"""Networks from a set of weights, loaded once in each process that computes."""

from __future__ import annotations

import functools
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from earthgen.errors import MissingWeightsError, ModelError
from earthgen.models.presets import MAPS, PARTS, PRESETS, STYLES, Config, Preset, preset
from earthgen.models.weights.bundled import bundled_weights
from earthgen.models.weights.card import WeightSet, open_weights
from earthgen.models.weights.format import VERSION, load_weights, part_path
from earthgen.sparse.backends import pick_backend
from earthgen.sparse.layers import Convolution, TransposedConvolution
from earthgen.sparse.products import product_dtype
from earthgen.stages.backends import Backend
from earthgen_latent import LATENT_VERSION
from earthgen_latent.classes import substitute_classes
from earthgen_latent.sampling import Sampling
from geo_io.errors import InputError
from geo_io.frame import Frame

PRECISIONS = ("auto", "fp32", "bf16")
"""Precisions of products. bf16 gives a slightly different world; "auto" is bf16 where it is faster
(`fast_bfloat16`), and a world keeps what was chosen where it was begun."""

MAP_KIND = "gaps"
"""Kind of map that users have, if they do not say: most leave out trees and sheds."""

BAND = (-16, 112)
"""Heights, voxels from the ground, of weights without a preset."""


@dataclass(frozen=True)
class Networks:
    """Some parts of a set of weights. It is pickled for workers and has no tensors.

    Attributes
    ----------
    folder : str
        Folder of the set; workers on other machines need it at the same path.
    digests, configs : tuple of (str, value)
        Digest and configuration of each part that is used.
    title, licence : str
        From the model card.
    preset : str
        Name of the preset, "" for none.
    voxel_size : float
        Voxel size of the training, metres.
    device : str
        Device of torch.
    sparse_backend : str, optional
        Backend of sparse convolutions; None is the default of the device.
    precision : str
        Of products, in `PRECISIONS`.
    classes : tuple of (str, tuple of str)
        Names of the land classes of the training, by "structure" and "texture"; empty if unknown.
    styles : tuple of (str, tuple of str)
        Names of the styles of the training, by part; empty if unknown.
    """

    folder: str
    digests: tuple[tuple[str, str], ...]
    configs: tuple[tuple[str, Config], ...]
    title: str
    licence: str
    preset: str
    voxel_size: float
    device: str = "cpu"
    sparse_backend: str | None = None
    precision: str = "fp32"
    classes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    styles: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __call__(self, part: str) -> Any:
        """Return the network of a part, in evaluation mode. It is loaded once per process.

        Raises
        ------
        ModelError
            If the file changed since the backend was created, or as of `load_weights`.
        """
        return _load(
            str(part_path(self.folder, part)),
            part,
            dict(self.digests)[part],
            self.device,
            self.sparse_backend,
        )

    def config(self, part: str) -> Any:
        """Return the configuration of a part."""
        return dict(self.configs)[part]

    @property
    def digest(self) -> str:
        """Digest of the used parts and of their classes, which enters a world's identity."""
        parts = [f"{part}=sha256:{digest}" for part, digest in self.digests]
        if self.classes:
            text = json.dumps(self.classes)
            parts.append(f"classes=sha256:{hashlib.sha256(text.encode()).hexdigest()}")
        return ",".join(parts)

    def trained_classes(self, part: str) -> tuple[str, ...]:
        """Return the names of the classes that a part was trained on, empty if unknown."""
        return dict(self.classes).get(_class_group(part), ())

    def class_codes(self, part: str, codes: NDArray) -> NDArray:
        """Return class codes for a part: similar classes replace those it was not trained on."""
        return substitute_classes(self.trained_classes(part))[codes]

    def trained_styles(self, part: str) -> tuple[str, ...]:
        """Return the names of the styles that a flow can be asked for."""
        known = STYLES[: self.config(part).styles]
        trained = dict(self.styles).get(part, ())
        return tuple(name for name in known if not trained or name in trained)

    def style_number(self, part: str, style: str) -> torch.Tensor | None:
        """Return the number of a style for a flow as a batch of one; None for one without styles.

        Parameters
        ----------
        part : str
            The flow.
        style : str
            A name in `earthgen.models.presets.STYLES`; "any"; "" is the first that the weights
            know, "rules" before "real".

        Raises
        ------
        ModelError
            If the weights were not trained with the style.
        """
        known = self.trained_styles(part)
        style = style or (known[0] if known else "any")
        if style == "any":
            return torch.zeros(1, device=self.device) if self.config(part).styles else None
        if style not in known:
            raise ModelError(
                f"{self.folder}: {part} was not trained with the style {style!r}",
                f"choose from {', '.join((*known, 'any'))}" if known else "leave the style out",
            )
        return torch.tensor([1.0 + STYLES.index(style)], device=self.device)

    def map_number(self, part: str, kind: str) -> torch.Tensor | None:
        """Return the number of a kind of map as a batch of one; None for a flow that knows none.

        Parameters
        ----------
        part : str
            The flow.
        kind : str
            A name in `earthgen.models.presets.MAPS`; "any"; "" is `MAP_KIND`.

        Raises
        ------
        ModelError
            If there is no such kind, or the weights were not trained with kinds.
        """
        known = bool(getattr(self.config(part), "map_kinds", False))
        if kind and kind not in (*MAPS, "any"):
            raise ModelError(
                f"there is no kind of map {kind!r}", f"choose from {', '.join((*MAPS, 'any'))}"
            )
        if kind not in ("", "any") and not known:
            raise ModelError(
                f"{self.folder}: {part} was not trained with kinds of maps",
                "leave `map_kind` out, or train the part again",
            )
        if not known:
            return None
        kind = kind or MAP_KIND
        number = 0 if kind == "any" else 1 + MAPS.index(kind)
        return torch.full((1,), number, device=self.device)

    @property
    def card(self) -> dict[str, Any]:
        """Description of the weights for a world's provenance."""
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
        sizes = self._preset()
        return BAND if sizes is None else sizes.band

    @property
    def window(self) -> int:
        """Default number of columns along an edge of a window."""
        sizes = self._preset()
        return 128 if sizes is None else sizes.tile

    def _preset(self) -> Preset | None:
        return preset(self.preset) if self.preset in PRESETS else None

    def check(self, frame: Frame) -> None:
        """Raise ModelError if a world has another voxel size than the weights."""
        if frame.voxel_size != self.voxel_size:
            raise ModelError(
                f"{self.folder}: the weights are for voxels of {self.voxel_size:g} m, "
                f"not of {frame.voxel_size:g} m",
                f"give --voxel-size {self.voxel_size:g}, "
                f"or weights that were trained at {frame.voxel_size:g} m",
            )


class LearnedBackend(Backend):
    """The base of backends with networks: it describes and checks their weights."""

    version = LATENT_VERSION
    sampling: Sampling

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self.weights = networks.digest
        self.weights_card = networks.card
        self.chosen = {"precision": networks.precision}

    def check(self, frame: Frame) -> None:
        """Raise ModelError if a world on `frame` cannot be made with these weights."""
        self.networks.check(frame)

    def check_inputs(self, surveys: Mapping[str, Mapping[str, Any]]) -> None:
        """Raise InputError if the networks take the image of a job, and it has no colours."""
        if "image" in self.sampling.use and surveys.get("image", {}).get("grey"):
            raise InputError(
                "the image has one band, and the networks were trained on red, green and blue",
                "give an image with colours, or `use` without image, such as "
                "--set geometry.use=semantics,height",
            )


def open_networks(
    weights: str | Path | None,
    parts: tuple[str, ...],
    device: str = "cpu",
    sparse_backend: str | None = None,
    precision: str = "fp32",
) -> Networks:
    """Return the parts of a set of weights that a backend uses, without reading tensors.

    Parameters
    ----------
    weights : str or Path, optional
        Folder of the set; None is the set that the package comes with.
    parts : tuple of str
        Parts that are used.
    device, sparse_backend, precision
        As of `Networks`.

    Raises
    ------
    MissingWeightsError
        If there is no set, or it lacks a part.
    ModelError
        If this machine has no instructions for the precision, or as of `open_weights`.
    """
    folder = bundled_weights() if weights is None else Path(weights)
    if folder is None:
        raise MissingWeightsError(
            "this installation has no weights",
            "train a set (`earthgen train all`) and give --weights DIR, "
            "or use the procedural backends",
        )
    weight_set = open_weights(folder.resolve())
    for part in parts:
        if part not in weight_set.parts:
            raise MissingWeightsError(
                f"{weight_set.folder}: the set has no {part}, only {', '.join(weight_set.parts)}",
                f"train it (`earthgen train {part}`), or give a set that has it",
            )
    _check_precision(precision, device)
    if precision == "auto":
        precision = "bf16" if fast_bfloat16(device) else "fp32"
    return replace(
        _describe(weight_set, parts),
        device=device,
        sparse_backend=sparse_backend,
        precision=precision,
    )


def _check_precision(precision: str, device: str) -> None:
    if precision not in PRECISIONS:
        raise ModelError(f"unknown precision {precision!r}", f"choose from {', '.join(PRECISIONS)}")
    if (
        precision == "bf16"
        and product_dtype(torch.bfloat16, torch.device(device)) != torch.bfloat16
    ):
        raise ModelError(
            "this CPU is slower in bfloat16 than in float32, and would use float32 for products",
            "give fp32, or finish a world that was begun in bf16 on a CPU with AMX or one of AMD's "
            "with AVX512-BF16",
        )


def fast_bfloat16(device: str) -> bool:
    """Return whether products in bfloat16 are faster than in float32 on a device.

    On a CPU its kind says so and nothing is measured (`earthgen.sparse.products.product_dtype`), so
    that a machine always gives one answer: CPUs with AMX, and AMD's with AVX512-BF16, take a half
    to a quarter of the time. Intel's with AVX512-BF16 alone take twice as long, 83 against 157
    GFLOP/s, measured; those without such instructions 70 times.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported()
    return product_dtype(torch.bfloat16, torch.device(device)) == torch.bfloat16


def _describe(weight_set: WeightSet, parts: tuple[str, ...]) -> Networks:
    headers = [weight_set.parts[part] for part in parts]
    groups = {_class_group(part) for part in parts}
    return Networks(
        folder=str(weight_set.folder),
        digests=tuple((part, weight_set.parts[part].digest) for part in parts),
        configs=tuple(
            (part, PARTS[part].model_validate(weight_set.parts[part].config)) for part in parts
        ),
        title=str(weight_set.card.get("title", "")),
        licence=str(weight_set.card.get("licence") or "not given"),
        preset=headers[0].preset,
        voxel_size=headers[0].voxel_size,
        classes=tuple(
            (group, tuple(names))
            for group, names in sorted(weight_set.card.get("classes", {}).items())
            if group in groups
        ),
        styles=tuple((part, weight_set.parts[part].styles) for part in parts),
    )


def _class_group(part: str) -> str:
    """Return the name under which card.json lists the classes of a part."""
    return "texture" if part.startswith("tex-") else "structure"


@functools.lru_cache(maxsize=16)
def _load(
    path: str, part: str, digest: str, device: str, sparse_backend: str | None
) -> torch.nn.Module:
    model, header = load_weights(path, part, device=device)
    if header.digest != digest:
        raise ModelError(f"{path}: the weights changed while a world was made", "start again")
    if sparse_backend is not None or torch.device(device).type != "cpu":
        backend = pick_backend(device, torch.float32, name=sparse_backend)
        for layer in model.modules():
            if isinstance(layer, Convolution | TransposedConvolution):
                layer.backend = backend
    return model.requires_grad_(False)


_thread_lock = threading.RLock()


@contextmanager
def inference(networks: Networks) -> Iterator[None]:
    """Run torch on one thread, without gradients, in the networks' precision.

    The bits of a window must not depend on the number of threads. Torch has one such number per
    process, so threads of one process take turns.
    """
    with _thread_lock:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            half = networks.precision == "bf16"
            with (
                torch.inference_mode(),
                torch.autocast(torch.device(networks.device).type, torch.bfloat16, enabled=half),
            ):
                yield
        finally:
            torch.set_num_threads(before)
