"""Sparse convolution by spconv 2.3 (https://github.com/traveller59/spconv, Apache-2.0).

On the CPU it computes the same as torch's, forward only, which is tested. The CUDA part is written
against its API and has never been run on a GPU by this project;
`earthgen.sparse.backends.pick_backend` compares it with torch's before it is used by default.

spconv's own functions find the pairs of voxels, and multiply: on CUDA by masked implicit GEMM,
otherwise by gathering and scattering. Its weights are (out, x, y, z, in). Submanifold convolutions
use its own kind. All others are its "regular" convolution from the fine sites, whose output is all
cells that the kernel reaches; the requested ones are selected from these. A convolution to finer
sites is its "inverse" one over the same pairs, for any sites.

On the CPU its product runs on one thread. With more, version 2.3.8 sometimes computes wrong sums,
in one call of fifty on a few hundred voxels, because the threads of its `scatter_add` share
pointers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from earthgen.errors import SparseError
from earthgen.sparse.convolution import TORCH
from earthgen.sparse.interface import SparseBackend
from earthgen.sparse.kernel_map import Kernel, reached_sites
from earthgen.sparse.sites import Sites
from earthgen.sparse.tensor import take_rows
from earthgen_sparse.bounded import around, check_cells, invert

INSTALL = (
    "install its wheel: `pip install spconv` for the CPU, or spconv-cu124 or similar for your CUDA "
    "version"
)

MASK_BITS = 32
"""Largest number of offsets of a kernel for spconv's masked implicit GEMM."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of voxels in spconv's form.

    Attributes
    ----------
    data : tuple
        Arguments of its functions, which depend on `masked`.
    masked : bool
        Whether they are for masked implicit GEMM.
    submanifold : bool
        Whether outputs are the inputs.
    fine, cells : int
        Numbers of its inputs and outputs.
    rows : Tensor (cells,) int64
        Row of each of its outputs in our coarse sites, -1 for outputs that are not requested.
    at : Tensor (coarse sites,) int64
        The inverse of `rows`.
    """

    data: tuple[Any, ...]
    masked: bool
    submanifold: bool
    fine: int
    cells: int
    rows: Tensor | None = None
    at: Tensor | None = None


class SpconvBackend(SparseBackend):
    """spconv's convolution: float32 without gradients on the CPU; float32 and float16, with
    gradients, on CUDA."""

    name = "spconv"
    devices = ("cpu", "cuda")
    deterministic = False  # on CUDA the order of its hash tables depends on timing
    note = "its CUDA side was never run on a GPU by this project"

    def unavailable(self) -> str:
        try:
            import spconv.pytorch  # noqa: F401
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] == "spconv":
                return f"spconv is not installed; {INSTALL}"
            return f"spconv's import fails: {error}; {INSTALL}"
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            return (
                f"spconv's import fails: {type(error).__name__}: {error}".splitlines()[0]
                + f"; {INSTALL}"
            )
        return ""

    def refuses(self, device: torch.device, dtype: torch.dtype, gradients: bool) -> str:
        if device.type == "cpu":
            if dtype != torch.float32:
                return f"spconv has no {dtype} on the CPU"
            return "spconv has no gradients on the CPU" if gradients else ""
        if device.type != "cuda":
            return f"spconv does not run on {device.type}"
        if dtype not in (torch.float32, torch.float16):
            return f"spconv has no {dtype}"
        from spconv.cppconstants import CPU_ONLY_BUILD

        return "this spconv was built for the CPU" if CPU_ONLY_BUILD else ""

    def convolve(
        self,
        features: Tensor,
        weight: Tensor,
        source: Sites,
        target: Sites,
        kernel: Kernel,
        transposed: bool = False,
    ) -> Tensor:
        gradients = torch.is_grad_enabled() and (features.requires_grad or weight.requires_grad)
        reason = self.refuses(features.device, features.dtype, gradients)
        if reason:
            raise SparseError(reason, "use --sparse-backend torch")
        same = source is target and kernel.symmetric
        fine, coarse = (target, source) if transposed and not same else (source, target)
        nothing = not len(source) or not len(target)
        if (
            nothing
            or (same and kernel.volume == 1)
            or (not same and not len(reached_sites(fine, kernel)))
        ):
            # spconv does not support these.
            return TORCH.convolve(features, weight, source, target, kernel, transposed)
        back = transposed and not same
        if transposed and same:
            weight = weight.flip(0)  # in reverse order offsets are replaced by their opposites
        pairs = _pairs(fine, coarse, kernel)
        filters = (
            weight.reshape(*kernel.size, *weight.shape[1:]).permute(4, 0, 1, 2, 3).contiguous()
        )
        with torch.autocast(features.device.type, enabled=False):  # which would cast to float16
            if pairs.rows is None or pairs.at is None:
                return _product(features.contiguous(), filters, pairs, False)
            if back:
                return _product(take_rows(features, pairs.rows), filters, pairs, True)
            return take_rows(_product(features.contiguous(), filters, pairs, False), pairs.at)


def _pairs(fine: Sites, coarse: Sites, kernel: Kernel) -> Pairs:
    """The pairs of a kernel, computed once for each pair of sites."""
    # As in `earthgen.sparse.kernel_map`, an object stands for the other sites.
    key = ("earthgen_sparse.spconv", kernel, coarse.cached("name", object))
    return fine.cached(key, lambda: _find_pairs(fine, coarse, kernel))


def _find_pairs(fine: Sites, coarse: Sites, kernel: Kernel) -> Pairs:
    from spconv.core import ConvAlgo
    from spconv.pytorch import ops

    box = around(fine, kernel)
    cuda = fine.device.type == "cuda"
    check_cells(box, 2**62 if cuda else 2**31, "spconv")  # on CUDA its keys may have 64 bits
    submanifold = fine is coarse and kernel.symmetric
    masked = cuda and kernel.volume <= MASK_BITS
    padding = [
        (size - 1) // 2 * step for size, step in zip(kernel.size, kernel.dilation, strict=True)
    ]
    geometry = (list(kernel.size), list(kernel.stride), padding, list(kernel.dilation), [0, 0, 0])
    moved, shape = box.moved(fine), list(box.shape)
    if masked:
        algorithm = ConvAlgo.MaskImplicitGemm
        cells, _, *data = ops.get_indice_pairs_implicit_gemm(
            moved, box.samples, shape, algorithm, *geometry, subm=submanifold, is_train=True
        )
    else:
        cells, *data = ops.get_indice_pairs(
            moved, box.samples, shape, ConvAlgo.Native, *geometry, submanifold
        )
    if submanifold:
        return Pairs(tuple(data), masked, True, len(fine), len(fine))
    rows = box.rows(cells, coarse)
    return Pairs(tuple(data), masked, False, len(fine), len(cells), rows, invert(rows, len(coarse)))


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """On the CPU, limit torch, and spconv, which shares its OpenMP, to one thread."""
    if device.type != "cpu":
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _product(features: Tensor, filters: Tensor, found: Pairs, back: bool) -> Tensor:
    """spconv's product over pairs, from its inputs to its outputs, or in the other direction if
    `back` is set."""
    from spconv.core import ConvAlgo
    from spconv.pytorch import functional

    outputs = found.fine if back else found.cells
    if not found.masked:
        pairs, counts = found.data
        if found.submanifold:
            product = functional.indice_subm_conv
        else:
            product = functional.indice_inverse_conv if back else functional.indice_conv
        with _one_thread(features.device):
            return product(features, filters, pairs, counts, outputs, ConvAlgo.Native)
    forward, backward, forward_masks, backward_masks, forward_order, backward_order, masks = (
        found.data
    )
    if back:
        forward, backward = backward, forward
        forward_masks, backward_masks = backward_masks, forward_masks
        forward_order, backward_order = backward_order, forward_order
    return functional.implicit_gemm(
        features,
        filters,
        forward,
        backward,
        forward_masks,
        backward_masks,
        forward_order,
        backward_order,
        outputs,
        masks,
        True,
        found.submanifold,
    )
