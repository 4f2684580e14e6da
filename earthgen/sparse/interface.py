"""TODO docstring of earthgen.sparse.interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # every plugin imports this module, and `earthgen --help` imports every plugin
    import torch
    from torch import Tensor

    from earthgen.sparse.kernel_map import Kernel
    from earthgen.sparse.sites import Sites


class SparseBackend(Protocol):
    """An implementation of sparse convolution for some devices and dtypes.
    `earthgen.testing.sparse.check_sparse_backend` compares one with the reference.

    Attributes
    ----------
    name : what it is asked for by
    devices : torch device types it runs on
    deterministic : whether the same input gives the same bits

    A text attribute `note`, where there is one, is shown by `earthgen doctor`.
    """

    name: str
    devices: tuple[str, ...]
    deterministic: bool

    def unavailable(self) -> str:
        """Why it cannot run here and what to do about it, "" where it can."""

    def refuses(self, device: torch.device, dtype: torch.dtype, gradients: bool) -> str:
        """Why it cannot work on tensors of a device and dtype, or give gradients of them; ""
        where it can."""

    def convolve(
        self,
        features: Tensor,
        weight: Tensor,
        source: Sites,
        target: Sites,
        kernel: Kernel,
        transposed: bool = False,
    ) -> Tensor:
        """(target voxels, out) from features (source voxels, in) and weight (volume, in, out).

        The offsets are those of `earthgen.sparse.Kernel.offsets`; a backend brings the weight into
        its own layout. Rows are those of the sites. With `transposed`, the target is finer than the
        source, else coarser or the same.
        """
