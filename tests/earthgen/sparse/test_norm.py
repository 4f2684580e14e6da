"""Norms of sparse features equal their dense references, and samples do not see each other."""

import pytest
import torch

from earthgen.errors import SparseError
from earthgen.sparse.norm import GroupNorm, LayerNorm, RMSNorm, group_norm, layer_norm, rms_norm
from earthgen.sparse.sites import Place
from earthgen.sparse.tensor import SparseTensor, sparse_tensor
from tests.helpers.sparse_reference import norm as reference

FAR = 2**31 - 50


def made(
    counts: list[int], channels: int = 6, dtype: torch.dtype = torch.float64, seed: int = 0
) -> SparseTensor:
    """Voxels of several samples, some without any, given in no order; at large and at negative
    coordinates."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for sample, count in enumerate(counts):
        cells = torch.randperm(8 * 8 * 8, generator=generator)[:count]
        xyz = torch.stack([cells // 64 + FAR, cells // 8 % 8 - 4, cells % 8], 1)
        rows.append(torch.cat([torch.full((count, 1), sample), xyz], 1))
    coordinates = torch.cat(rows)
    # Away from 0, as features of a network are: a variance from mean squares would lose digits.
    features = (
        torch.randn(len(coordinates), channels, generator=generator, dtype=torch.float64) * 2 + 5
    )
    return sparse_tensor(coordinates, features.to(dtype), place=Place(((0, 0, 0),) * len(counts)))


def weights(
    channels: int = 6, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    weight, bias = torch.randn(2, channels, generator=generator, dtype=torch.float64).to(dtype)
    return weight, bias


def fast(name: str, x: SparseTensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    if name == "group":
        return group_norm(x, 3, weight, bias).features
    return (layer_norm(x, weight, bias) if name == "layer" else rms_norm(x, weight)).features


def slow(name: str, x: SparseTensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    if name == "group":
        return reference.group_norm(x.features, x.coordinates[:, 0], 3, weight, bias)
    if name == "layer":
        return reference.layer_norm(x.features, weight, bias)
    return reference.rms_norm(x.features, weight)


NAMES = ["group", "layer", "rms"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("counts", [[40], [20, 0, 1, 33], [1], [0], [0, 0]])
def test_equals_the_reference_forward_and_backward(name, counts):
    x, (weight, bias) = made(counts), weights()
    found, gradients = [], []
    for way in (fast, slow):
        features, w, b = (one.clone().requires_grad_() for one in (x.features, weight, bias))
        result = way(name, x.with_features(features), w, b)
        pattern = torch.linspace(-1, 2, result.numel(), dtype=torch.float64).reshape(result.shape)
        used = [features, w, b] if name != "rms" else [features, w]
        found.append(result)
        gradients.append(
            torch.autograd.grad(
                (result * pattern).sum(), used, allow_unused=True, materialize_grads=True
            )
        )
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name):
    x, (weight, bias) = made([4, 0, 5]), weights()
    if name == "rms":
        bias = bias.detach()
    inputs = [one.clone().requires_grad_() for one in (x.features, weight, bias)]
    inputs[2].requires_grad_(name != "rms")
    assert torch.autograd.gradcheck(lambda f, w, b: fast(name, x.with_features(f), w, b), inputs)


def test_statistics_are_those_of_a_sample_and_group():
    result = group_norm(made([50, 60]), 3)
    for one in result.samples():
        grouped = one.features.reshape(-1, 3, 2)
        torch.testing.assert_close(grouped.mean((0, 2)), torch.zeros(3, dtype=torch.float64))
        # eps of 1e-5 against a variance of 4 takes 3e-6
        torch.testing.assert_close(
            grouped.var((0, 2), correction=0), torch.ones(3, dtype=torch.float64), rtol=1e-5, atol=0
        )


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_does_not_see_the_others(name):
    x, (weight, bias) = made([20, 30]), weights()
    alone = x.samples()[1]
    assert torch.equal(fast(name, x, weight, bias)[20:], fast(name, alone, weight, bias))


@pytest.mark.parametrize("name", NAMES)
def test_the_order_in_which_voxels_are_given_changes_no_bit(name):
    x, (weight, bias) = made([300, 20], dtype=torch.float32), weights(dtype=torch.float32)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    again = sparse_tensor(x.coordinates[order], x.features[order], place=x.place)
    assert torch.equal(fast(name, x, weight, bias), fast(name, again, weight, bias))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_dtypes_differ_from_the_reference_by_their_last_rounding(name, dtype):
    x, (weight, bias) = made([40, 50], dtype=dtype), weights(dtype=torch.float32)
    found = fast(name, x, weight, bias)
    assert found.dtype == dtype
    expected = slow(name, x.with_features(x.features.double()), weight.double(), bias.double())
    # One rounding of the result in its dtype; what comes before is float32, which is a few of its
    # own steps.
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(found.double(), expected, rtol=step, atol=1e-5)


def test_values_that_overflow_halves_when_squared():
    x = made([30], dtype=torch.float16)
    large = x.with_features(x.features * 1000)
    for name in NAMES:
        found = fast(name, large, *weights(dtype=torch.float16))
        assert torch.isfinite(found).all()
        # A norm does not see the scale: what differs is float16's rounding of features and result
        # (2^-11 each).
        torch.testing.assert_close(
            found, fast(name, x, *weights(dtype=torch.float16)), rtol=5e-3, atol=2e-2
        )


def test_modules_begin_as_plain_norms_and_take_autocast():
    x = made([20, 10], channels=8, dtype=torch.float32)
    for module in (GroupNorm(2, 8), LayerNorm(8), RMSNorm(8)):
        plain = module(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(
                module(x).features, plain.features
            )  # a norm stays in the features' dtype
            assert module(x.to(torch.bfloat16)).features.dtype == torch.bfloat16
        plain.features.sum().backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())
    state = torch.nn.GroupNorm(2, 8).state_dict()
    GroupNorm(2, 8).load_state_dict(state)  # torch's own names
    LayerNorm(8).load_state_dict(state)


def test_a_sample_without_voxels_makes_no_gradient_wrong():
    x = made([0, 5, 0], dtype=torch.float32)
    module = GroupNorm(3, 6)
    module(x).features.square().sum().backward()
    assert torch.isfinite(module.weight.grad).all()


def test_errors_name_shapes():
    x = made([5])
    with pytest.raises(SparseError, match=r"6 channels are not divisible into 4 groups"):
        group_norm(x, 4)
    with pytest.raises(SparseError, match="not divisible"):
        GroupNorm(0, 6)
    for module in (GroupNorm(2, 8), LayerNorm(8), RMSNorm(8)):
        with pytest.raises(SparseError, match=r"\(8,\), features \(5, 6\)"):
            module(x)
    with pytest.raises(SparseError, match="meta"):
        rms_norm(x, torch.ones(6, device="meta"))
