"""Differences between pictures: PSNR, SSIM, LPIPS, errors of depth and normals.

Pictures are torch tensors (..., height, width, channels), as in renderings. All measures but the
shares of pixels are differentiable and can serve as losses. Sums are computed in the dtype of the
pictures.
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
"""Edge of SSIM's Gaussian window, pixels."""

SIGMA = 1.5
"""Standard deviation of SSIM's window, pixels."""

K1, K2 = 0.01, 0.03
"""SSIM's two constants, relative to the data range."""

DELTA = 1.25
"""Largest ratio of a depth to the truth for the share delta1; its square and cube for delta2 and
delta3."""

Network: TypeAlias = Literal["alex", "vgg", "squeeze"]

_BACKBONES = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights", "squeeze": "SqueezeNet1_1_Weights"}


def psnr(
    picture: Tensor, truth: Tensor, *, data_range: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """Peak signal-to-noise ratio over all pixels, dB.

    Parameters
    ----------
    picture, truth : Tensor (..., h, w, c)
        Values in [0, data_range].
    data_range : float
        Largest value.
    mask : Tensor (..., h, w) bool, optional
        Pixels to compare.

    Returns
    -------
    Tensor ()
        One number, infinite for equal pictures.

    Raises
    ------
    SplatError
        If shapes or dtypes differ, or the mask selects no pixel.
    """
    _require_same(picture, truth)
    error = (picture - truth).square()
    if mask is not None:
        if mask.shape != picture.shape[:-1] or not bool(mask.any()):
            raise SplatError(
                f"a mask of shape {tuple(mask.shape)} selects no pixel of {tuple(picture.shape)}",
                "give a mask (..., h, w) with true values",
            )
        error = error[mask]
    return 10 * torch.log10(data_range**2 / error.mean())


def ssim(picture: Tensor, truth: Tensor, *, data_range: float = 1.0) -> Tensor:
    """Structural similarity in [-1, 1]: the mean of `ssim_map` over pixels and channels."""
    return ssim_map(picture, truth, data_range=data_range).mean()


def ssim_map(picture: Tensor, truth: Tensor, *, data_range: float = 1.0) -> Tensor:
    """Structural similarity of each pixel whose window lies within the picture.

    Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity",
    eq. 13, with their constants: a Gaussian window of 11 x 11 pixels and sigma 1.5, K1 = 0.01, K2 =
    0.03, variances divided by n. As in the authors' program, pixels near the edges are omitted and
    nothing is padded.

    Parameters
    ----------
    picture, truth : Tensor (..., h, w, c)
        Values in [0, data_range].
    data_range : float
        Largest value.

    Returns
    -------
    Tensor (..., h - 10, w - 10, c)
        Values in [-1, 1].

    Raises
    ------
    SplatError
        If shapes or dtypes differ, or a picture is smaller than the window.
    """
    _require_same(picture, truth)
    height, width, channels = picture.shape[-3:]
    if height < WINDOW or width < WINDOW:
        raise SplatError(
            f"a picture of {width} x {height} pixels is smaller than the window of {WINDOW} x "
            f"{WINDOW}",
            "give a larger picture",
        )
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    x, y = (p.reshape(-1, height, width, channels).permute(0, 3, 1, 2) for p in (picture, truth))
    five = torch.cat([x, y, x * x, y * y, x * y])
    mx, my, xx, yy, xy = _window_means(five.reshape(-1, 1, height, width)).reshape(
        5, *x.shape[:2], *_inner(height, width)
    )
    covariance = xy - mx * my
    spread = (xx - mx * mx) + (yy - my * my)
    values = (2 * mx * my + c1) * (2 * covariance + c2) / ((mx * mx + my * my + c1) * (spread + c2))
    return values.permute(0, 2, 3, 1).reshape(*picture.shape[:-3], *_inner(height, width), channels)


def _inner(height: int, width: int) -> tuple[int, int]:
    return height - WINDOW + 1, width - WINDOW + 1


def _window_means(pictures: Tensor) -> Tensor:
    """(n, 1, h - 10, w - 10) weighted means over the window, along rows and then columns."""
    away = torch.arange(WINDOW, dtype=pictures.dtype, device=pictures.device) - WINDOW // 2
    weights = torch.exp(-(away**2) / (2 * SIGMA**2))
    weights = weights / weights.sum()
    return F.conv2d(F.conv2d(pictures, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))


def lpips(picture: Tensor, truth: Tensor, *, net: Network = "alex") -> Tensor:
    """Learned perceptual distance (Zhang et al. 2018, "The Unreasonable Effectiveness of Deep
    Features as a Perceptual Metric"), averaged over pictures.

    The packages lpips and torchvision have to be installed, and torchvision's weights of the
    network have to be in torch's cache. Nothing is downloaded. `lpips_missing` says what is
    missing.

    Parameters
    ----------
    picture, truth : Tensor (..., h, w, 3)
        Values in [0, 1].
    net : str
        "alex", "vgg" or "squeeze".

    Returns
    -------
    Tensor ()
        One number, 0 for equal pictures.

    Raises
    ------
    SplatError
        If shapes or dtypes differ, or a package or the weights are missing.
    """
    _require_same(picture, truth)
    if picture.shape[-1] != 3:
        raise SplatError(
            f"LPIPS compares pictures of three channels, not {picture.shape[-1]}",
            "give RGB pictures",
        )
    missing = lpips_missing(net)
    if missing:
        raise SplatError(
            f"LPIPS with {net} cannot be computed: {missing}",
            "omit it, or install what is missing",
        )
    network = _lpips_network(net).to(picture.device)
    a, b = (
        p.reshape(-1, *p.shape[-3:]).permute(0, 3, 1, 2).float() * 2 - 1 for p in (picture, truth)
    )
    return network(a, b).mean()


def lpips_missing(net: Network = "alex") -> str:
    """Say what `lpips` needs and this machine does not have; "" if nothing is missing. Nothing is
    downloaded."""
    if net not in _BACKBONES:
        raise SplatError(f"unknown LPIPS network {net!r}", f"choose {', '.join(_BACKBONES)}")
    try:
        importlib.import_module("lpips")
        models = importlib.import_module("torchvision.models")
    except ImportError as error:
        return f"the package {error.name} is not installed"
    # The file that torchvision would download; the linear weights are part of the package lpips.
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
    """Errors of depths d with truth t (Eigen et al. 2014, "Depth Map Prediction from a Single Image
    using a Multi-Scale Deep Network", section 4.2), over pixels with both.

    All are scalar tensors; `delta1`, `delta2`, `delta3` and `coverage` have no gradient.

    Attributes
    ----------
    abs_rel : Tensor
        Mean of |d - t| / t.
    sq_rel : Tensor
        Mean of (d - t)^2 / t, metres.
    rmse : Tensor
        Root of the mean of (d - t)^2, metres.
    rmse_log : Tensor
        Root of the mean of (log d - log t)^2.
    delta1, delta2, delta3 : Tensor
        Shares of pixels with max(d / t, t / d) below 1.25, 1.25^2 and 1.25^3.
    coverage : Tensor
        Share of pixels with a depth among those with a true depth.
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
    """Compute errors of depths.

    A picture without its difficult pixels has small errors, and a small `coverage`.

    Parameters
    ----------
    depth, truth : Tensor (..., h, w)
        Metres along the camera's axis; 0, negative or not finite where there is no surface.
    mask : Tensor (..., h, w) bool, optional
        Pixels to compare.

    Raises
    ------
    SplatError
        If shapes or dtypes differ, or no pixel has both depths.
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
    """Angles between normals, over pixels with both.

    All are scalar tensors; the shares and `coverage` have no gradient.

    Attributes
    ----------
    mean, median : Tensor
        Degrees.
    within_11, within_22, within_30 : Tensor
        Shares of pixels below 11.25, 22.5 and 30 degrees.
    coverage : Tensor
        Share of pixels with a normal among those with a true normal.
    """

    mean: Tensor
    median: Tensor
    within_11: Tensor
    within_22: Tensor
    within_30: Tensor
    coverage: Tensor


def normal_errors(normal: Tensor, truth: Tensor, mask: Tensor | None = None) -> NormalErrors:
    """Compute errors of normals (the measures of Fouhey et al. 2013, "Data-Driven 3D Primitives for
    Single Image Understanding").

    Parameters
    ----------
    normal, truth : Tensor (..., h, w, 3)
        Vectors of any length; 0 or not finite where there is no surface.
    mask : Tensor (..., h, w) bool, optional
        Pixels to compare.

    Raises
    ------
    SplatError
        If shapes or dtypes differ, there are not three components, or no pixel has both normals.
    """
    _require_same(normal, truth)
    if normal.shape[-1] != 3 or (mask is not None and mask.shape != normal.shape[:-1]):
        raise SplatError(
            f"normals of shape {tuple(normal.shape)} do not have three components, or the mask "
            "does not match",
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
    """(...) angles in degrees between directions (..., 3) of any length.

    They are computed by the arc tangent. The arc cosine loses all digits of small angles, and its
    gradient is infinite for equal directions.
    """
    sine = torch.linalg.vector_norm(torch.linalg.cross(a, b), dim=-1)
    return torch.atan2(sine, (a * b).sum(-1)) * (180 / math.pi)


def _is_direction(vectors: Tensor) -> Tensor:
    return torch.isfinite(vectors).all(-1) & (vectors != 0).any(-1)


def _root(value: Tensor) -> Tensor:
    """The square root with a gradient of 0 at 0, not infinity."""
    return torch.where(value > 0, value, 1).sqrt() * (value > 0)


def _require_same(one: Tensor, other: Tensor, mask: Tensor | None = None) -> None:
    if one.shape != other.shape or one.dtype != other.dtype or not one.is_floating_point():
        raise SplatError(
            f"pictures of shapes {tuple(one.shape)} and {tuple(other.shape)}, {one.dtype} and "
            f"{other.dtype}, cannot be compared",
            "give two of one shape and one floating-point dtype",
        )
    if one.numel() == 0 or (mask is not None and mask.shape != one.shape):
        raise SplatError(
            f"pictures of shape {tuple(one.shape)} are empty, or their mask does not match",
            "give pictures with pixels, and a mask of their shape",
        )
