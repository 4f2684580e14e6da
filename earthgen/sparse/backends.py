"""Which sparse backend computes, and whether one gives what torch's does.

Backends come through the hook `earthgen_sparse_backends`. Those that only a GPU can run were never
run on one by this project, so each is compared with torch's in the process that wants it, on a few
voxels, before it is picked unasked.
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

REMEDY = "leave --sparse-backend away, or give --sparse-backend torch"

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""Largest error by dtype, as a share of the largest value: some 30 roundings of a sum over a
kernel's offsets."""

TF32_TOLERANCE = 5e-3
"""That of float32 on CUDA, where libraries round the factors to 11 bits."""


def pick(
    device: torch.device | str,
    dtype: torch.dtype,
    *,
    gradients: bool = False,
    name: str | None = None,
) -> SparseBackend:
    """The backend that computes on a device and dtype.

    gradients : whether they are wanted
    name : of the one to use. None picks: on the CPU torch's, on CUDA the first of `FASTER` that is
        installed, takes
        the dtype, and agrees with torch's on a few voxels; else torch's

    The choice is made once for each kind of device, dtype and name in a process.

    Raises
    ------
    UnknownNameError
        where no installed plugin offers the name; names the nearest
    SparseError
        where the one that was named cannot run here, or refuses the device, the dtype or gradients
    """
    return _picked(torch.device(device).type, dtype, gradients, name)


def named(name: str) -> SparseBackend:
    """The backend with this name; raises as `pick` does where there is none, or it cannot run
    here."""
    backend: SparseBackend = offered().create("sparse", name)
    reason = backend.unavailable()
    if reason:
        raise SparseError(f"sparse backend {name!r} cannot run here: {reason}", REMEDY)
    return backend


@functools.cache
def offered() -> plugins.Plugins:
    """The installed plugins. A worker knows no others, so neither does the choice of a backend."""
    return plugins.load()


@functools.cache
def _picked(kind: str, dtype: torch.dtype, gradients: bool, name: str | None) -> SparseBackend:
    device = torch.device(kind)
    if name is not None:
        backend = named(name)
        reason = backend.refuses(device, dtype, gradients)
        if reason:
            wanted = f"{dtype} on {kind}" + (" with gradients" if gradients else "")
            raise SparseError(f"sparse backend {name!r} refuses {wanted}: {reason}", REMEDY)
        return backend
    for faster in FASTER if kind == "cuda" else ():
        if faster not in offered().offers("sparse"):
            continue
        backend = offered().create("sparse", faster)
        if backend.unavailable() or backend.refuses(device, dtype, gradients):
            continue
        wrong = self_check(backend, device, dtype, gradients)
        if not wrong:
            return backend
        warnings.warn(
            f"sparse backend {faster!r} is not used for {dtype} on {kind}, it failed its self-check: {wrong}",
            RuntimeWarning,
            stacklevel=3,
        )
    return TORCH


def self_check(
    backend: SparseBackend, device: torch.device, dtype: torch.dtype, gradients: bool
) -> str:
    """What a backend does other than torch's on a few voxels, "" where nothing."""
    try:
        for case in cases(scattered(60, 4, device)):
            wrong = difference(backend, case, dtype, gradients)
            if wrong:
                return wrong
    except Exception as error:  # noqa: BLE001 - native code that meets a GPU for the first time may raise anything
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


@dataclass(frozen=True)
class Case:
    """A convolution from sites to sites; the fields are the arguments of
    `SparseBackend.convolve`."""

    name: str
    source: Sites
    target: Sites
    kernel: Kernel
    transposed: bool = False


def cases(sites: Sites) -> list[Case]:
    """The convolutions that every backend has to know: submanifold, strided, and back."""
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
    """What a backend does other than torch's in float64, "" where nothing. Its own errors pass."""
    expected = _computed(TORCH, case, dtype, torch.float64, gradients, channels)
    found = _computed(backend, case, dtype, dtype, gradients, channels)
    tolerance = TOLERANCES[dtype]
    if dtype == torch.float32 and case.source.device.type == "cuda":
        tolerance = TF32_TOLERANCE
    for what, one, other in zip(
        ("the result", "the features' gradient", "the weight's gradient"),
        expected,
        found,
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
        largest, off = float(one.abs().max()), float((other.double() - one).abs().max())
        if not off <= tolerance * max(largest, 1e-30):  # NaN is not within it
            return f"{where} is up to {off:.3g} off, where the largest value is {largest:.3g}"
    return ""


def _computed(
    backend: SparseBackend,
    case: Case,
    drawn: torch.dtype,
    dtype: torch.dtype,
    gradients: bool,
    channels: Sequence[int],
) -> list[Tensor]:
    """The result and, with `gradients`, those of features and weight; of random numbers that
    `drawn` can hold."""
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
    """Up to `count` random voxels in each sample, in a cube of `2 * reach` around the origin."""
    random = torch.Generator().manual_seed(1)
    xyz = torch.randint(-reach, reach, (samples * count, 3), generator=random)
    sample = torch.arange(samples).repeat_interleave(count)[:, None]
    return make_sites(torch.unique(torch.cat([sample, xyz], 1), dim=0).to(device))[0]
