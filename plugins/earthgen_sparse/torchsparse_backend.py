"""Sparse convolution by TorchSparse 2.1 (https://github.com/mit-han-lab/torchsparse, MIT).

It can be imported only with CUDA. This module is written against its API and has never been run on
a GPU by this project: the tests replace the library. `earthgen.sparse.backends.pick_backend`
compares it with torch's before it is used by default.

How its conventions differ from ours: coordinates (sample, x, y, z) count strides and begin at 0;
weights have shape (volume, in, out) with x fastest where the volume is odd, z fastest where it is
even; strided output cells are either those that hold voxels ("minkowski") or all that the kernel
reaches ("spconv"); the way back goes over the map of the way there. Dilation is taken as an
argument and left out of its maps, so it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from earthgen.errors import SparseError
from earthgen.sparse.convolution import TORCH
from earthgen.sparse.interface import SparseBackend
from earthgen.sparse.kernel_map import Kernel
from earthgen.sparse.sites import Sites, Triple
from earthgen.sparse.tensor import take_rows
from earthgen_sparse.bounded import Box, around, check_cells, invert

INSTALL = "it needs CUDA and has no wheel on the package index: build it from its source"

MASK_BITS = 32
"""Offsets of a kernel whose gradients TorchSparse sorts by a mask."""

MOST_EDGE = 2**22
"""Cells an axis may have: it divides coordinates as float32."""

ONE: Triple = (1, 1, 1)


@dataclass(frozen=True)
class Pairs:
    """Pairs of voxels in TorchSparse's form.

    Attributes
    ----------
    coordinates : Tensor (fine, 4) int32
        Fine voxels, from 0 on.
    cells : Tensor (m, 4) int32
        Its output cells.
    spatial_range : tuple of int
        (samples, x, y, z): the box of the fine sites.
    cache : TensorCache
        Holds its kernel map.
    rows : Tensor (m,) int64
        Row of each of its outputs in our coarse sites, -1 for outputs that are not requested.
    at : Tensor (coarse sites,) int64
        The inverse of `rows`.
    """

    coordinates: Tensor
    cells: Tensor
    spatial_range: tuple[int, ...]
    cache: Any
    rows: Tensor
    at: Tensor


class TorchsparseBackend(SparseBackend):
    """TorchSparse's convolution: float32 and float16 on CUDA, with gradients."""

    name = "torchsparse"
    devices = ("cuda",)
    deterministic = False  # the order of its hash tables depends on timing
    note = "never run on a GPU by this project"

    def unavailable(self) -> str:
        try:
            import torchsparse  # noqa: F401
        except ModuleNotFoundError as error:
            if error.name == "torchsparse":
                return f"torchsparse is not installed; {INSTALL}"
            return f"torchsparse's import fails: {error}; {INSTALL}"
        except (
            ImportError,
            OSError,
            RuntimeError,
            AssertionError,
            AttributeError,
        ) as error:  # torch without CUDA
            return (
                f"torchsparse's import fails: {type(error).__name__}: {error}".splitlines()[0]
                + f"; {INSTALL}"
            )
        return ""

    def refuses(self, device: torch.device, dtype: torch.dtype, gradients: bool) -> str:
        if device.type not in self.devices:
            return f"TorchSparse does not run on {device.type}"
        return "" if dtype in (torch.float32, torch.float16) else f"TorchSparse has no {dtype}"

    def convolve(
        self,
        features: Tensor,
        weight: Tensor,
        source: Sites,
        target: Sites,
        kernel: Kernel,
        transposed: bool = False,
    ) -> Tensor:
        training = torch.is_grad_enabled() and (features.requires_grad or weight.requires_grad)
        same = source is target and kernel.stride == ONE
        reason = self.refuses(features.device, features.dtype, training) or _unknown(
            kernel, same, same and transposed, training
        )
        if reason:
            raise SparseError(reason, "use --sparse-backend torch")
        if not len(source) or not len(target) or (same and kernel.volume == 1):
            return TORCH.convolve(features, weight, source, target, kernel, transposed)
        if transposed and same:
            weight = weight.flip(0)  # in reverse order offsets are replaced by their opposites
        back = transposed and not same
        fine, coarse = (target, source) if back else (source, target)

        # As in `earthgen.sparse.kernel_map`, an object stands for the other sites.
        key = ("earthgen_sparse.torchsparse", kernel, coarse.cached("name", object), training)
        found = fine.cached(key, lambda: _find_pairs(fine, coarse, kernel, training))
        filters = _filters(weight, kernel)
        with torch.autocast(features.device.type, enabled=False):
            if back:
                return _product(
                    take_rows(features, found.rows), filters, found, kernel, training, True
                )
            return take_rows(
                _product(features.contiguous(), filters, found, kernel, training, False), found.at
            )


def _unknown(kernel: Kernel, same: bool, turned: bool, training: bool) -> str:
    """Why TorchSparse cannot do a convolution, "" where it can."""
    if kernel.dilation != ONE:
        return f"TorchSparse knows no dilation, the kernel has {kernel.dilation}"
    if kernel.stride == ONE and not same:
        return "TorchSparse's convolution of stride 1 gives the input's voxels and no others"
    if turned and not kernel.symmetric:
        return f"TorchSparse cannot turn round a kernel of size {kernel.size} and stride 1"
    if training and kernel.volume >= MASK_BITS:
        return (
            f"TorchSparse's gradients take fewer than {MASK_BITS} offsets, the kernel has "
            f"{kernel.volume}"
        )
    return ""


def _filters(weight: Tensor, kernel: Kernel) -> Tensor:
    """(volume, in, out) with our order of offsets, z fastest, in that of TorchSparse."""
    if kernel.volume % 2 == 0:
        return weight.contiguous()
    return (
        weight.reshape(*kernel.size, *weight.shape[1:])
        .permute(2, 1, 0, 3, 4)
        .reshape(weight.shape)
        .contiguous()
    )


def _padding(kernel: Kernel) -> Triple:
    a, b, c = ((size - 1) // 2 for size in kernel.size)
    return a, b, c


def _config(training: bool) -> Any:
    """Its default settings, but for how maps are made: with a table of hashes of the coordinates
    themselves.

    The default, "hashmap_on_the_fly", numbers the cells of the box with 32 bits, and centres no
    even kernel.
    """
    from torchsparse.nn import functional

    config = functional.conv_config.get_default_conv_config(
        conv_mode=functional.get_conv_mode(), training=training
    ).copy()  # else all users of the library in this process get what is changed here
    config.kmap_mode = "hashmap"
    return config


def _find_pairs(fine: Sites, coarse: Sites, kernel: Kernel, training: bool) -> Pairs:
    from torchsparse.nn import functional
    from torchsparse.utils.tensor_cache import TensorCache

    box = around(fine, kernel)
    _check_edges(box)
    config = _config(training)
    held = fine.parents(kernel.stride).coordinates if fine is not coarse else coarse.coordinates
    only_held = len(held) == len(coarse) and torch.equal(held, coarse.coordinates)
    config.downsample_mode = "minkowski" if only_held else "spconv"
    moved, spatial_range = box.moved(fine), (box.samples, *box.shape)
    made = functional.build_kernel_map(
        moved,
        len(fine),
        kernel.size,
        kernel.stride,
        _padding(kernel),
        None,
        None,
        spatial_range,
        config.kmap_mode,
        config.dataflow,
        downsample_mode=config.downsample_mode,
        training=training,
        ifsort=config.ifsort,
        split_mask_num=config.split_mask_num,
        split_mask_num_bwd=config.split_mask_num_bwd,
    )
    cache = TensorCache()
    # `conv3d` looks for it here, in both directions.
    cache.kmaps[ONE, kernel.size, kernel.stride, ONE] = made
    cache.cmaps[ONE] = (moved, spatial_range)
    rows = box.rows(made["coords"], coarse)
    at = invert(rows, len(coarse))
    short = all(step in (1, size) for step, size in zip(kernel.stride, kernel.size, strict=True))
    if short and not only_held and bool((at < 0).any()):
        raise SparseError(
            "TorchSparse computes only cells that contain voxels for kernel "
            f"{kernel.size} and stride {kernel.stride}, others are needed",
            "use --sparse-backend torch",
        )
    return Pairs(moved, made["coords"], spatial_range, cache, rows, at)


def _check_edges(box: Box) -> None:
    check_cells(box, 2**62, "TorchSparse")
    if max(box.shape) > MOST_EDGE:
        size = " x ".join(f"{edge:,}" for edge in box.shape)
        raise SparseError(
            f"voxels lie in a box of {size} cells, TorchSparse takes {MOST_EDGE:,} along an axis",
            "crop, or use --sparse-backend torch",
        )


def _product(
    features: Tensor, filters: Tensor, found: Pairs, kernel: Kernel, training: bool, back: bool
) -> Tensor:
    """TorchSparse's product over pairs, from fine voxels to its output cells, or in the other
    direction if `back` is set."""
    import torchsparse
    from torchsparse.nn import functional

    given = torchsparse.SparseTensor(
        feats=features,
        coords=found.cells if back else found.coordinates,
        stride=kernel.stride if back else 1,
        spatial_range=found.spatial_range,
    )
    given._caches = found.cache
    made = functional.conv3d(
        given,
        filters,
        kernel.size,
        None,
        kernel.stride,
        _padding(kernel),
        ONE,
        _config(training),
        back,
        False,
        training,
    )
    return made.feats[: len(found.coordinates if back else found.cells)]
