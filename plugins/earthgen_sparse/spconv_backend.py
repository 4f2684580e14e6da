"""Sparse convolution by spconv 2.3 (https://github.com/traveller59/spconv, Apache-2.0).

On the CPU it gives the same as torch's, forward only, which is tested. On CUDA this is written
against its API and was never run on a GPU by this project; `earthgen.sparse.backends.pick` compares
it with torch's before it uses it unasked.

spconv's own functions find which voxels meet, and multiply: on CUDA by masked implicit GEMM, else
by gathering and scattering. Its weights are (out, x, y, z, in). All but submanifold convolution is
its "regular" one from the fine sites, whose output cells are all that the kernel reaches; what was
asked for is taken from these. The way back to finer sites is its "inverse" one over the same
meetings, whatever the sites are.

On the CPU its product runs on one thread. With more, 2.3.8 gives wrong sums now and then, one call
in fifty on a few hundred voxels: the threads of its `scatter_add` share the pointers that they walk
along.
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
from earthgen.sparse.kernel_map import Kernel, reached
from earthgen.sparse.sites import Sites
from earthgen.sparse.tensor import taken
from earthgen_sparse.bounded import around, check_cells, inverted

INSTALL = "install its wheel: `pip install spconv` for the CPU, spconv-cu124 or the like for your CUDA release"

MASK_BITS = 32
"""Offsets of a kernel that spconv's masked implicit GEMM can take."""


@dataclass(frozen=True)
class Meetings:
    """Which voxels meet, as spconv keeps it.

    Attributes
    ----------
    data : what its functions take; their kind depends on `masked`
    masked : whether it is for masked implicit GEMM
    submanifold : whether outputs are the inputs
    fine, cells : number of its inputs and outputs
    rows : (cells,) int64, the row of each of its outputs in our coarse sites, -1 where that was not
        asked for
    at : (coarse sites,) int64, the other way round
    """

    data: tuple[Any, ...]
    masked: bool
    submanifold: bool
    fine: int
    cells: int
    rows: Tensor | None = None
    at: Tensor | None = None


class SpconvBackend:
    """spconv's convolution: float32 without gradients on the CPU; float32 and float16, with
    gradients, on CUDA."""

    name = "spconv"
    devices: tuple[str, ...] = ("cpu", "cuda")
    deterministic = False  # on CUDA its hash tables are filled in the order of arrival
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
        wanted = torch.is_grad_enabled() and (features.requires_grad or weight.requires_grad)
        reason = self.refuses(features.device, features.dtype, wanted)
        if reason:
            raise SparseError(reason, "use --sparse-backend torch")
        same = source is target and kernel.symmetric
        fine, coarse = (target, source) if transposed and not same else (source, target)
        nothing = not len(source) or not len(target)
        if (
            nothing
            or (same and kernel.volume == 1)
            or (not same and not len(reached(fine, kernel)))
        ):
            return TORCH.convolve(
                features, weight, source, target, kernel, transposed
            )  # spconv refuses these
        back = transposed and not same
        if transposed and same:
            weight = weight.flip(
                0
            )  # the opposite of an offset is the one as far from the other end
        found = _meetings(fine, coarse, kernel)
        filters = (
            weight.reshape(*kernel.size, *weight.shape[1:]).permute(4, 0, 1, 2, 3).contiguous()
        )
        with torch.autocast(
            features.device.type, enabled=False
        ):  # else its functions cast to float16
            if found.rows is None or found.at is None:
                return _product(features.contiguous(), filters, found, False)
            if back:
                return _product(taken(features, found.rows), filters, found, True)
            return taken(_product(features.contiguous(), filters, found, False), found.at)


def _meetings(fine: Sites, coarse: Sites, kernel: Kernel) -> Meetings:
    """Those of a kernel from coarse sites to the fine ones it looks at, made once for the two."""

    # As in `earthgen.sparse.kernel_map`: the other sites are named by an object of their own.
    key = ("earthgen_sparse.spconv", kernel, coarse.cached("name", object))
    return fine.cached(key, lambda: _found(fine, coarse, kernel))


def _found(fine: Sites, coarse: Sites, kernel: Kernel) -> Meetings:
    from spconv.core import ConvAlgo
    from spconv.pytorch import ops

    box = around(fine, kernel)
    cuda = fine.device.type == "cuda"
    check_cells(
        box, 2**62 if cuda else 2**31, "spconv"
    )  # on CUDA its keys are 64 bits where they must be
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
        return Meetings(tuple(data), masked, True, len(fine), len(fine))
    rows = box.rows(cells, coarse)
    return Meetings(
        tuple(data), masked, False, len(fine), len(cells), rows, inverted(rows, len(coarse))
    )


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """On the CPU, one thread for torch and for what shares its OpenMP, which spconv does."""
    if device.type != "cpu":
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _product(features: Tensor, filters: Tensor, found: Meetings, back: bool) -> Tensor:
    """spconv's product over meetings, from its inputs to its outputs or `back`."""
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
