"""Choosing a sparse backend, and comparing it with torch's.

Plugins offer backends through the hook `earthgen_sparse_backends`. This project has not run those
that need a GPU on one. So before such a backend is chosen by default, it is compared with torch's
on a few voxels in the same process.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from earthgen import plugins
from earthgen.errors import SparseError
from earthgen.sparse.convolution import TORCH
from earthgen.sparse.interface import SparseBackend
from earthgen.sparse.kernel_map import Kernel
from earthgen.sparse.sites import Sites, make_sites

FASTER = ("spconv", "torchsparse")
"""Backends that are tried on CUDA before torch's, in this order."""

REMEDY = "omit --sparse-backend, or give --sparse-backend torch"

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""Largest error for each dtype, relative to the largest value: about 30 roundings of a sum over
the offsets of a kernel."""

TF32_TOLERANCE = 5e-3
"""Largest relative error of float32 on CUDA, where libraries round the factors to 11 bits."""


def pick_backend(
    device: torch.device | str,
    dtype: torch.dtype,
    *,
    gradients: bool = False,
    name: str | None = None,
) -> SparseBackend:
    """Choose the backend for a device and a dtype.

    The choice is made once in a process for each device type, dtype, need of gradients, and name.

    Parameters
    ----------
    device : torch.device or str
        Device of the tensors.
    dtype : torch.dtype
        Floating dtype of the tensors.
    gradients : bool
        Whether gradients are needed.
    name : str, optional
        Name of the backend. By default torch's on the CPU; on CUDA the first of `FASTER` that is
        installed, supports the dtype, and agrees with torch's on a few voxels, otherwise torch's.

    Raises
    ------
    UnknownNameError
        If no plugin offers the name.
    SparseError
        If the named backend cannot run on this machine, or does not support the device, the dtype
        or gradients.
    """
    return _choose(torch.device(device).type, dtype, gradients, name)


def create_backend(name: str) -> SparseBackend:
    """Create the backend with a name, if it can run on this machine.

    Raises
    ------
    UnknownNameError
        If no plugin offers the name.
    SparseError
        If the backend cannot run on this machine.
    """
    backend: SparseBackend = plugins.load().create("sparse", name)
    reason = backend.unavailable()
    if reason:
        raise SparseError(f"sparse backend {name!r} cannot run here: {reason}", REMEDY)
    return backend


@functools.cache
def _choose(kind: str, dtype: torch.dtype, gradients: bool, name: str | None) -> SparseBackend:
    device = torch.device(kind)
    if name is not None:
        backend = create_backend(name)
        reason = backend.refuses(device, dtype, gradients)
        if reason:
            request = f"{dtype} on {kind}" + (" with gradients" if gradients else "")
            raise SparseError(f"sparse backend {name!r} refuses {request}: {reason}", REMEDY)
        return backend
    for faster in FASTER if kind == "cuda" else ():
        if faster not in plugins.load().offers("sparse"):
            continue
        backend = plugins.load().create("sparse", faster)
        if backend.unavailable() or backend.refuses(device, dtype, gradients):
            continue
        problem = self_check(backend, device, dtype, gradients)
        if not problem:
            return backend
        warnings.warn(
            f"sparse backend {faster!r} is not used for {dtype} on {kind}, it failed its "
            f"self-check: {problem}",
            RuntimeWarning,
            stacklevel=3,
        )
    return TORCH


def self_check(
    backend: SparseBackend, device: torch.device, dtype: torch.dtype, gradients: bool
) -> str:
    """Describe how a backend differs from torch's on a few voxels; "" if it does not."""
    try:
        for case in cases(scattered(60, 4, device)):
            problem = difference(backend, case, dtype, gradients)
            if problem:
                return problem
    except Exception as error:  # noqa: BLE001 - native code may raise anything on a new GPU
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


@dataclass(frozen=True)
class Case:
    """A named convolution; the fields are the arguments of `SparseBackend.convolve`."""

    name: str
    source: Sites
    target: Sites
    kernel: Kernel
    transposed: bool = False


def cases(sites: Sites) -> list[Case]:
    """The convolutions that every backend has to support: submanifold, strided, and inverse."""
    coarse = sites.parents(2)
    sub, halving, wide = Kernel.of(3), Kernel.of(2, 2), Kernel.of(3, 2)
    return [
        Case("submanifold, size 3", sites, sites, sub),
        Case("strided, size 2", sites, coarse, halving),
        Case("inverse, size 2", coarse, sites, halving, transposed=True),
        Case("strided, size 3", sites, coarse, wide),
        Case("inverse, size 3", coarse, sites, wide, transposed=True),
    ]


def difference(
    backend: SparseBackend,
    case: Case,
    dtype: torch.dtype,
    gradients: bool,
    channels: Sequence[int] = (8, 16),
) -> str:
    """Describe how a backend differs from torch's in float64; "" if it does not.

    Parameters
    ----------
    backend : SparseBackend
        The backend to check. The errors that it raises are not caught.
    case : Case
        The convolution to compute.
    dtype : torch.dtype
        Dtype in which the backend computes.
    gradients : bool
        Whether to compare gradients too.
    channels : sequence of int
        Numbers of input and output channels.
    """
    expected = _compute(TORCH, case, dtype, torch.float64, gradients, channels)
    computed = _compute(backend, case, dtype, dtype, gradients, channels)
    tolerance = TOLERANCES[dtype]
    if dtype == torch.float32 and case.source.device.type == "cuda":
        tolerance = TF32_TOLERANCE
    for what, one, other in zip(
        ("the result", "the features' gradient", "the weight's gradient"),
        expected,
        computed,
        strict=False,
    ):
        where = f"{case.name}: {what}"
        if other.shape != one.shape or other.dtype != dtype or other.device != one.device:
            return (
                f"{where} is {other.dtype} {tuple(other.shape)} on {other.device}, "
                f"not {dtype} {tuple(one.shape)} on {one.device}"
            )
        if not one.numel():
            continue
        largest, error = float(one.abs().max()), float((other.double() - one).abs().max())
        if not error <= tolerance * max(largest, 1e-30):  # NaN is not within it
            return f"{where} is up to {error:.3g} off, the largest value is {largest:.3g}"
    return ""


def _compute(
    backend: SparseBackend,
    case: Case,
    drawn: torch.dtype,
    dtype: torch.dtype,
    gradients: bool,
    channels: Sequence[int],
) -> list[Tensor]:
    """The result and, with `gradients`, those of features and weight. The input is random numbers
    that the dtype `drawn` represents exactly."""
    random, device = torch.Generator().manual_seed(7), case.source.device

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(drawn).to(dtype).to(device)

    features = draw(len(case.source), channels[0]).requires_grad_(gradients)
    weight = draw(case.kernel.volume, *channels).requires_grad_(gradients)
    with torch.set_grad_enabled(gradients):
        result = backend.convolve(
            features, weight, case.source, case.target, case.kernel, case.transposed
        )
    if not gradients:
        return [result]
    pulled = draw(len(case.target), channels[1])
    return [result.detach(), *torch.autograd.grad(result, (features, weight), pulled)]


def scattered(
    count: int, reach: int, device: torch.device | str = "cpu", samples: int = 2
) -> Sites:
    """Draw up to `count` random voxels in each sample, in a cube of edge `2 * reach` around the
    origin."""
    random = torch.Generator().manual_seed(1)
    xyz = torch.randint(-reach, reach, (samples * count, 3), generator=random)
    sample = torch.arange(samples).repeat_interleave(count)[:, None]
    return make_sites(torch.unique(torch.cat([sample, xyz], 1), dim=0).to(device))[0]
