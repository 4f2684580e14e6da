"""The interface of a sparse backend: what computes sparse convolutions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `earthgen plugins` imports this module without torch
    import torch
    from torch import Tensor

    from earthgen.sparse.kernel_map import Kernel
    from earthgen.sparse.sites import Sites


class SparseBackend(ABC):
    """Base class of implementations of sparse convolution.

    A subclass sets `name` and `devices` and overrides `convolve`.
    `earthgen.testing.check_sparse_backend` compares it with the reference.

    Attributes
    ----------
    name : str
        Name by which users choose the backend.
    devices : tuple of str
        torch device types on which it runs.
    deterministic : bool
        Whether equal inputs give bitwise equal results.
    note : str
        A remark that `earthgen doctor` shows.
    """

    name: str
    devices: tuple[str, ...]
    deterministic: bool = False
    note: str = ""

    def unavailable(self) -> str:
        """Say why the backend cannot run on this machine and what to do about it; "" if it can."""
        return ""

    def refuses(self, device: torch.device, dtype: torch.dtype, gradients: bool) -> str:
        """Say why the backend does not support a device and a dtype; "" if it does.

        Parameters
        ----------
        device : torch.device
            Device of the tensors.
        dtype : torch.dtype
            Floating dtype of the tensors.
        gradients : bool
            Whether gradients are needed.
        """
        return ""

    @abstractmethod
    def convolve(
        self,
        features: Tensor,
        weight: Tensor,
        source: Sites,
        target: Sites,
        kernel: Kernel,
        transposed: bool = False,
    ) -> Tensor:
        """Compute a sparse convolution.

        Parameters
        ----------
        features : Tensor (source voxels, in)
            Input features, in the order of `source`.
        weight : Tensor (volume, in, out)
            One matrix for each offset, in the order of `Kernel.offsets`.
        source, target : Sites
            Voxels of the input and of the output.
        kernel : Kernel
            Size, stride and dilation.
        transposed : bool
            If set, the target is finer than the source; otherwise it is coarser or the same.

        Returns
        -------
        Tensor (target voxels, out)
            Output features, in the order of `target`.
        """
