"""How far a picture is from the one it should be: PSNR, SSIM, LPIPS, errors of depth and normals.

Pictures are torch tensors (..., height, width, channels), as renderings are; all measures but the
depth's shares are differentiable and serve as losses. Sums run in the pictures' own floating-point
type.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from earthgen.errors import SplatError

WINDOW = 11
"""Pixels an edge of SSIM's Gaussian window."""

SIGMA = 1.5
"""Standard deviation of SSIM's window, pixels."""

K1, K2 = 0.01, 0.03
"""SSIM's two constants, in parts of the data range."""

DELTA = 1.25
"""Depths within this factor of the truth count as right; also its square and cube."""

Network: TypeAlias = Literal["alex", "vgg", "squeeze"]

_BACKBONES = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights", "squeeze": "SqueezeNet1_1_Weights"}


def psnr(
    picture: Tensor, truth: Tensor, *, data_range: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """Peak signal-to-noise ratio, dB, one number over all pixels; infinite where the pictures are
    equal.

    picture, truth : (..., h, w, c) in [0, data_range]
    mask : (..., h, w) bool, the pixels that count

    Raises
    ------
    SplatError
        if shapes or types differ, or no pixel counts
    """
    _require_same(picture, truth)
    error = (picture - truth).square()
    if mask is not None:
        if mask.shape != picture.shape[:-1] or not bool(mask.any()):
            raise SplatError(
                f"a mask of shape {tuple(mask.shape)} leaves no pixel of {tuple(picture.shape)}"
            )
        error = error[mask]
    return 10 * torch.log10(data_range**2 / error.mean())


def ssim(picture: Tensor, truth: Tensor, *, data_range: float = 1.0) -> Tensor:
    """Structural similarity, one number in [-1, 1]: the mean of `ssim_map` over pixels and
    channels."""
    return ssim_map(picture, truth, data_range=data_range).mean()


def ssim_map(picture: Tensor, truth: Tensor, *, data_range: float = 1.0) -> Tensor:
    """(..., h - 10, w - 10, c) structural similarity of each pixel whose window lies within the
    picture.

    picture, truth : (..., h, w, c) in [0, data_range]

    Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity",
    eq. 13, with their constants: a Gaussian window of 11 x 11 pixels and sigma 1.5, K1 = 0.01, K2 =
    0.03, variances divided by n. Pixels near the edges are left out and nothing is padded, as in
    the authors' own program.

    Raises
    ------
    SplatError
        if shapes or types differ, or a picture is smaller than the window
    """
    _require_same(picture, truth)
    height, width, channels = picture.shape[-3:]
    if height < WINDOW or width < WINDOW:
        raise SplatError(
            f"a picture of {width} x {height} pixels is smaller than the {WINDOW} x {WINDOW} window",
            "take a larger one",
        )
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    x, y = (p.reshape(-1, height, width, channels).permute(0, 3, 1, 2) for p in (picture, truth))
    five = torch.cat([x, y, x * x, y * y, x * y])
    mx, my, xx, yy, xy = _windowed(five.reshape(-1, 1, height, width)).reshape(
        5, *x.shape[:2], *_inner(height, width)
    )
    covariance = xy - mx * my
    spread = (xx - mx * mx) + (yy - my * my)
    found = (2 * mx * my + c1) * (2 * covariance + c2) / ((mx * mx + my * my + c1) * (spread + c2))
    return found.permute(0, 2, 3, 1).reshape(*picture.shape[:-3], *_inner(height, width), channels)


def _inner(height: int, width: int) -> tuple[int, int]:
    return height - WINDOW + 1, width - WINDOW + 1


def _windowed(pictures: Tensor) -> Tensor:
    """Means (n, 1, h - 10, w - 10) under the window, along rows and then along columns."""
    away = torch.arange(WINDOW, dtype=pictures.dtype, device=pictures.device) - WINDOW // 2
    weights = torch.exp(-(away**2) / (2 * SIGMA**2))
    weights = weights / weights.sum()
    return F.conv2d(F.conv2d(pictures, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))


def lpips(picture: Tensor, truth: Tensor, *, net: Network = "alex") -> Tensor:
    """Learned perceptual similarity (Zhang et al. 2018), one number, the mean over pictures; 0 for
    equal ones.

    picture, truth : (..., h, w, 3) in [0, 1]
    net : "alex", "vgg" or "squeeze"

    It needs the packages lpips and torchvision, and torchvision's weights of the network in torch's
    cache. Nothing is ever downloaded: without the weights this is an error. `lpips_missing` tells
    beforehand.

    Raises
    ------
    SplatError
        if shapes or types differ, or a package or its weights are not there
    """
    _require_same(picture, truth)
    if picture.shape[-1] != 3:
        raise SplatError(
            f"LPIPS compares pictures of three channels, not {picture.shape[-1]}", "give RGB"
        )
    missing = lpips_missing(net)
    if missing:
        raise SplatError(
            f"LPIPS with {net} cannot be computed: {missing}",
            "leave it out, or install what is missing",
        )
    network = _lpips_network(net).to(picture.device)
    a, b = (
        p.reshape(-1, *p.shape[-3:]).permute(0, 3, 1, 2).float() * 2 - 1 for p in (picture, truth)
    )
    return network(a, b).mean()


def lpips_missing(net: Network = "alex") -> str:
    """What `lpips` lacks on this machine, "" if nothing. Loads the packages and downloads
    nothing."""
    if net not in _BACKBONES:
        raise SplatError(
            f"no LPIPS network is called {net!r}", f"take one of {', '.join(_BACKBONES)}"
        )
    try:
        importlib.import_module("lpips")
        models = importlib.import_module("torchvision.models")
    except ImportError as error:
        return f"the package {error.name} is not installed"
    # The file that torchvision would otherwise fetch; the linear weights are part of the package
    # lpips.
    url = getattr(models, _BACKBONES[net]).IMAGENET1K_V1.url
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    return "" if file.is_file() else f"there are no weights at {file}"


@lru_cache(maxsize=3)
def _lpips_network(net: Network) -> Any:
    network = importlib.import_module("lpips").LPIPS(net=net, verbose=False).eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network


@dataclass(frozen=True)
class DepthErrors:
    """Errors of depth over the pixels that both pictures have (Eigen et al. 2014, section 4.2); 0-d
    tensors.

    Attributes
    ----------
    abs_rel : mean of |d - t| / t
    sq_rel : mean of (d - t)^2 / t, metres
    rmse : root of the mean of (d - t)^2, metres
    rmse_log : the same of log d - log t
    delta1, delta2, delta3 : shares of pixels with max(d / t, t / d) below 1.25, 1.25^2, 1.25^3; no
        gradient
    coverage : share of the truth's pixels that have a depth at all; no gradient
    """

    abs_rel: Tensor
    sq_rel: Tensor
    rmse: Tensor
    rmse_log: Tensor
    delta1: Tensor
    delta2: Tensor
    delta3: Tensor
    coverage: Tensor


def depth_errors(depth: Tensor, truth: Tensor, mask: Tensor | None = None) -> DepthErrors:
    """Errors of depths, metres along the camera's axis.

    depth, truth : (..., h, w); 0, negative or not finite for none, as renderings have it where
        nothing is
    mask : (..., h, w) bool, the pixels that count

    A picture that leaves out what is difficult has small errors, and a small `coverage`.

    Raises
    ------
    SplatError
        if shapes or types differ, or no pixel has both depths
    """
    _require_same(depth, truth, mask)
    known = torch.isfinite(truth) & (truth > 0)
    if mask is not None:
        known = known & mask
    both = known & torch.isfinite(depth) & (depth > 0)
    if not bool(both.any()):
        raise SplatError(
            "no pixel has a depth in both pictures",
            "compare pictures of the same place, or another mask",
        )
    d, t = depth[both], truth[both]
    error = d - t
    ratio = torch.maximum(d / t, t / d).detach()
    delta1, delta2, delta3 = ((ratio < DELTA**n).to(d.dtype).mean() for n in (1, 2, 3))
    return DepthErrors(
        abs_rel=(error.abs() / t).mean(),
        sq_rel=(error.square() / t).mean(),
        rmse=_root(error.square().mean()),
        rmse_log=_root((d.log() - t.log()).square().mean()),
        delta1=delta1,
        delta2=delta2,
        delta3=delta3,
        coverage=both.sum().to(d.dtype) / known.sum(),
    )


@dataclass(frozen=True)
class NormalErrors:
    """Angles between normals over the pixels that both pictures have; 0-d tensors.

    Attributes
    ----------
    mean, median : degrees
    within_11, within_22, within_30 : shares of pixels below 11.25, 22.5 and 30 degrees; no gradient
    coverage : share of the truth's pixels that have a normal at all; no gradient
    """

    mean: Tensor
    median: Tensor
    within_11: Tensor
    within_22: Tensor
    within_30: Tensor
    coverage: Tensor


def normal_errors(normal: Tensor, truth: Tensor, mask: Tensor | None = None) -> NormalErrors:
    """Errors of normals (the measures of Fouhey et al. 2013).

    normal, truth : (..., h, w, 3) of any length; of length 0 or not finite for none
    mask : (..., h, w) bool, the pixels that count

    Raises
    ------
    SplatError
        if shapes or types differ, there are not three components, or no pixel has both normals
    """
    _require_same(normal, truth)
    if normal.shape[-1] != 3 or (mask is not None and mask.shape != normal.shape[:-1]):
        raise SplatError(
            f"normals of shape {tuple(normal.shape)} have not three components, or the mask does not fit them",
            "give (..., h, w, 3), and a mask (..., h, w)",
        )
    known = _is_direction(truth) if mask is None else _is_direction(truth) & mask
    both = known & _is_direction(normal)
    if not bool(both.any()):
        raise SplatError(
            "no pixel has a normal in both pictures", "compare pictures of the same place"
        )
    angle = angles(normal[both], truth[both])
    flat = angle.detach()
    within_11, within_22, within_30 = (
        (flat < limit).to(angle.dtype).mean() for limit in (11.25, 22.5, 30.0)
    )
    return NormalErrors(
        mean=angle.mean(),
        median=angle.median(),
        within_11=within_11,
        within_22=within_22,
        within_30=within_30,
        coverage=both.sum().to(angle.dtype) / known.sum(),
    )


def angles(a: Tensor, b: Tensor) -> Tensor:
    """(...) degrees between directions (..., 3) of any length.

    By the arc tangent of sine and cosine: the arc cosine loses all digits of small angles, and its
    gradient is infinite where directions agree.
    """
    sine = torch.linalg.vector_norm(torch.linalg.cross(a, b), dim=-1)
    return torch.atan2(sine, (a * b).sum(-1)) * (180 / math.pi)


def _is_direction(vectors: Tensor) -> Tensor:
    return torch.isfinite(vectors).all(-1) & (vectors != 0).any(-1)


def _root(value: Tensor) -> Tensor:
    """The root, whose gradient at 0 is 0 and not infinite."""
    return torch.where(value > 0, value, 1).sqrt() * (value > 0)


def _require_same(one: Tensor, other: Tensor, mask: Tensor | None = None) -> None:
    if one.shape != other.shape or one.dtype != other.dtype or not one.is_floating_point():
        raise SplatError(
            f"pictures of shapes {tuple(one.shape)} and {tuple(other.shape)}, {one.dtype} and {other.dtype}, cannot be "
            "compared",
            "give two of one shape and one floating-point type",
        )
    if one.numel() == 0 or (mask is not None and mask.shape != one.shape):
        raise SplatError(
            f"pictures of shape {tuple(one.shape)} are empty, or their mask does not fit",
            "give others",
        )
