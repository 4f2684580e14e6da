"""PSNR, SSIM, LPIPS, errors of depth and normals: against torchmetrics, direct sums, known values
and gradients."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from earthgen.errors import SplatError
from earthgen.splats import metrics
from earthgen.splats.metrics import (
    angles,
    depth_errors,
    lpips,
    lpips_missing,
    normal_errors,
    psnr,
    ssim,
    ssim_map,
)


def pictures(
    shape: tuple[int, ...] = (14, 17, 3), dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, ...]:
    make = torch.Generator().manual_seed(3)
    truth = torch.rand(shape, generator=make, dtype=dtype)
    return (truth + 0.2 * torch.randn(shape, generator=make, dtype=dtype)).clamp(0, 1), truth


def test_psnr_of_known_errors() -> None:
    truth = torch.zeros(4, 5, 3)
    assert psnr(truth + 0.1, truth).item() == pytest.approx(20, abs=1e-4)
    assert psnr(truth + 25.5, truth, data_range=255.0).item() == pytest.approx(20, abs=1e-4)
    assert psnr(truth, truth).item() == math.inf
    half = truth.clone()
    half[:2] = 1
    mask = torch.zeros(4, 5, dtype=torch.bool)
    mask[1:3] = True
    assert psnr(half, truth, mask=mask).item() == pytest.approx(10 * math.log10(2), abs=1e-4)


def ssim_by_sums(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Wang et al. 2004, eq. 13, window by window."""
    away = np.arange(11) - 5
    weights = np.exp(-(away[:, None] ** 2 + away[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    rows, cols = x.shape[0] - 10, x.shape[1] - 10
    out = np.empty((rows, cols, x.shape[2]))
    for i in range(rows):
        for j in range(cols):
            for c in range(x.shape[2]):
                a, b = x[i : i + 11, j : j + 11, c], y[i : i + 11, j : j + 11, c]
                ma, mb = (weights * a).sum(), (weights * b).sum()
                va, vb = (weights * (a - ma) ** 2).sum(), (weights * (b - mb) ** 2).sum()
                cov = (weights * (a - ma) * (b - mb)).sum()
                out[i, j, c] = (
                    (2 * ma * mb + 1e-4)
                    * (2 * cov + 9e-4)
                    / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
                )
    return out


def test_ssim_is_the_sum_over_windows() -> None:
    picture, truth = pictures()
    expected = ssim_by_sums(picture.numpy(), truth.numpy())
    # Variances here are differences of means, there sums of squares: rounding in float64.
    np.testing.assert_allclose(ssim_map(picture, truth).numpy(), expected, atol=1e-12)
    assert ssim(picture, truth).item() == pytest.approx(expected.mean(), abs=1e-12)
    assert ssim(255 * picture, 255 * truth, data_range=255.0).item() == pytest.approx(
        expected.mean(), abs=1e-10
    )
    np.testing.assert_allclose(
        ssim_map(picture.float(), truth.float()).numpy(), expected, atol=2e-5
    )  # float32


def test_ssim_of_equal_and_of_many_pictures() -> None:
    picture, truth = pictures((2, 3, 12, 13, 1))
    assert ssim_map(picture, truth).shape == (2, 3, 2, 3, 1)
    torch.testing.assert_close(ssim_map(picture, truth)[1, 2], ssim_map(picture[1, 2], truth[1, 2]))
    assert ssim(truth, truth).item() == pytest.approx(1)
    assert ssim(picture, truth) == pytest.approx(ssim(truth, picture).item())
    with pytest.raises(SplatError, match=r"13 x 10 pixels is smaller"):
        ssim(picture[..., :10, :, :], truth[..., :10, :, :])


@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_psnr_and_ssim_are_those_of_torchmetrics(data_range: float) -> None:
    picture, truth = (data_range * one for one in pictures((40, 33, 3)))
    ours = psnr(picture, truth, data_range=data_range)
    theirs = peak_signal_noise_ratio(picture, truth, data_range=data_range)
    # torchmetrics takes the logarithm of the data range in float32.
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    # torchmetrics pads pictures by reflection and averages over all pixels. Those whose window lies
    # within the picture are the same.
    _, whole = structural_similarity_index_measure(
        picture.permute(2, 0, 1)[None],
        truth.permute(2, 0, 1)[None],
        data_range=data_range,
        return_full_image=True,
    )
    inner = whole[0, :, 5:-5, 5:-5].permute(1, 2, 0)
    assert ssim(picture, truth, data_range=data_range).item() == pytest.approx(inner.mean().item())
    torch.testing.assert_close(ssim_map(picture, truth, data_range=data_range), inner)


def test_pictures_are_losses() -> None:
    picture, truth = pictures((12, 12, 1))
    picture = (picture * 0.8 + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ssim(x, truth), picture)
    assert torch.autograd.gradcheck(lambda x: psnr(x, truth), picture)


def test_depth_errors_of_known_depths() -> None:
    truth = torch.tensor([[2.0, 4.0, 8.0, 10.0, 0.0, math.nan, 5.0]])
    depth = torch.tensor([[2.0, 5.0, 6.0, 25.0, 3.0, 3.0, 0.0]])
    found = depth_errors(depth, truth)
    assert found.abs_rel.item() == pytest.approx((0 + 0.25 + 0.25 + 1.5) / 4)
    assert found.sq_rel.item() == pytest.approx((0 + 1 / 4 + 4 / 8 + 225 / 10) / 4)
    assert found.rmse.item() == pytest.approx(math.sqrt((1 + 4 + 225) / 4))
    logs = [math.log(r) ** 2 for r in (1, 1.25, 0.75, 2.5)]
    assert found.rmse_log.item() == pytest.approx(math.sqrt(sum(logs) / 4))
    assert (found.delta1, found.delta2, found.delta3) == (
        0.25,
        0.75,
        0.75,
    )  # 1.25 itself is not below 1.25
    assert found.coverage.item() == pytest.approx(4 / 5)
    near = depth_errors(depth, truth, torch.tensor([[True, True, False, False, True, True, False]]))
    assert near.abs_rel.item() == pytest.approx(0.125) and near.coverage == 1


def test_depth_errors_have_gradients_also_at_no_error() -> None:
    truth = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 1
    depth = (truth * 1.1 + 0.05).requires_grad_()
    for name in ("abs_rel", "sq_rel", "rmse", "rmse_log"):
        assert torch.autograd.gradcheck(
            lambda x, name=name: getattr(depth_errors(x, truth), name), depth
        )
    same = truth.clone().requires_grad_()
    errors = depth_errors(same, truth)
    (errors.rmse + errors.rmse_log).backward()
    assert same.grad is not None and bool((same.grad == 0).all())


def test_normal_errors_of_known_angles() -> None:
    turned = [0.0, 10.0, 20.0, 90.0, 180.0]
    normal = torch.tensor(
        [[[math.sin(math.radians(a)), 0.0, math.cos(math.radians(a))] for a in turned]]
    )
    truth = torch.tensor([0.0, 0.0, 3.0]).expand(1, 5, 3).clone()  # of any length
    found = normal_errors(normal, truth)
    assert found.mean.item() == pytest.approx(
        60, abs=1e-3
    ) and found.median.item() == pytest.approx(20, abs=1e-4)
    assert [round(v.item(), 6) for v in (found.within_11, found.within_22, found.within_30)] == [
        0.4,
        0.6,
        0.6,
    ]
    normal[0, 4], truth[0, 3] = 0, 0
    part = normal_errors(normal, truth)
    assert part.mean.item() == pytest.approx(
        10, abs=1e-4
    ) and part.coverage.item() == pytest.approx(3 / 4)
    only = normal_errors(normal, truth, torch.tensor([[False, True, False, False, False]]))
    assert only.mean.item() == pytest.approx(10, abs=1e-4)


def test_small_angles_keep_their_digits_and_gradients_are_finite() -> None:
    tiny = torch.tensor([1e-6, 0.0, 1.0], dtype=torch.float64)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    assert math.radians(angles(tiny, up).item()) == pytest.approx(1e-6, rel=1e-9)
    same = up.clone().requires_grad_()
    normal_errors(same[None, None], up[None, None]).mean.backward()
    assert same.grad is not None and bool(torch.isfinite(same.grad).all())
    some = torch.randn(
        3, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    ).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: normal_errors(x, up.expand(3, 4, 3)).mean, some)


def test_what_cannot_be_compared() -> None:
    one = torch.rand(12, 12, 3)
    for measure in (psnr, ssim, lpips, normal_errors):
        with pytest.raises(SplatError, match="cannot be compared"):
            measure(one, one[:11])
        with pytest.raises(SplatError, match="float64"):
            measure(one, one.double())
    with pytest.raises(SplatError, match="cannot be compared"):
        psnr(one.byte(), one.byte())
    with pytest.raises(SplatError, match="selects no pixel"):
        psnr(one, one, mask=torch.zeros(12, 12, dtype=torch.bool))
    with pytest.raises(SplatError, match="are empty"):
        psnr(one[:0], one[:0])
    with pytest.raises(SplatError, match="no pixel has a depth"):
        depth_errors(one[..., 0], torch.zeros(12, 12))
    with pytest.raises(SplatError, match="mask does not match"):
        depth_errors(one[..., 0], one[..., 0], torch.ones(3, 3, dtype=torch.bool))
    with pytest.raises(SplatError, match="no pixel has a normal"):
        normal_errors(one, torch.zeros(12, 12, 3))
    with pytest.raises(SplatError, match="three components"):
        normal_errors(one[..., :2], one[..., :2])
    with pytest.raises(SplatError, match="three channels"):
        lpips(one[..., :2], one[..., :2])


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """lpips and torchvision as stand-ins; returns where torch keeps weights."""

    class Network(torch.nn.Module):
        def __init__(self, net: str, verbose: bool) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(2.0))
            made.append(net)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return self.weight * (a - b).abs().mean((1, 2, 3), keepdim=True)

    made: list[str] = []
    stand_in, vision, models = (
        ModuleType("lpips"),
        ModuleType("torchvision"),
        ModuleType("torchvision.models"),
    )
    stand_in.LPIPS, stand_in.made = Network, made
    models.AlexNet_Weights = SimpleNamespace(
        IMAGENET1K_V1=SimpleNamespace(url="https://host/models/alexnet-1.pth")
    )
    for module in (stand_in, vision, models):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    metrics._lpips_network.cache_clear()
    yield tmp_path / "checkpoints"
    metrics._lpips_network.cache_clear()


def test_lpips_never_downloads(packages: Path) -> None:
    one = torch.rand(16, 16, 3)
    with pytest.raises(SplatError, match=r"no weights at .*alexnet-1\.pth"):
        lpips(one, one)
    assert sys.modules["lpips"].made == []  # its constructor is what would download


def test_lpips_with_weights_at_hand(packages: Path) -> None:
    packages.mkdir()
    (packages / "alexnet-1.pth").write_bytes(b"")
    assert lpips_missing("alex") == ""
    one = torch.rand(2, 16, 16, 3).requires_grad_()
    found = lpips(one, one.detach() * 0 + 0.5)
    assert found.shape == () and found.item() == pytest.approx(
        4 * (one - 0.5).abs().mean().item(), rel=1e-5
    )  # [-1, 1]
    found.backward()
    assert one.grad is not None
    lpips(one, one)
    assert sys.modules["lpips"].made == ["alex"]  # made once


def test_lpips_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    one = torch.rand(16, 16, 3)
    assert "package lpips is not installed" in lpips_missing()
    with pytest.raises(SplatError, match="not installed"):
        lpips(one, one)
    with pytest.raises(SplatError, match="'resnet'"):
        lpips(one, one, net="resnet")
