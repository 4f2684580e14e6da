"""Sparse convolution and window attention on a CPU, beside spconv and ocnn in the same process and
in turn.

    python -m benchmarks.sparse --json [--quick]

A terrain's shell of 131 k voxels (256 x 256 columns, two deep, about 13 neighbours a voxel), as
many threads as cores. spconv has no gradients and no bfloat16 on the CPU, so it is the peer of the
forward in float32; ocnn, octrees in torch, has both. Where bfloat16 is slower than float32, ours
takes such products in float32, and cannot be faster than in float32. Without
instructions for bfloat16 ocnn would take 70 times as long, so that it is timed in float32 there.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from benchmarks.machine import show

COLUMNS = 256
CHANNELS = (32, 64, 128)
ROUNDS = 7
WINDOW = 8
HEADS, DIM = 4, 16

SIZES = (71, 100, 224, 316, 707)
"""Columns along an edge of the shells of 10 k to 1 M voxels."""

TARGETS = {
    "subm_fwd_fp32_vs_spconv": 1.0,
    "subm_fwd_bf16_vs_spconv": 2.0,
    "fwd_bwd_over_fwd": 3.2,
    "fwd_bwd_bf16_vs_ocnn": 3.0,
    "kernel_map_vs_spconv": 1.5,
    "peak_share_at_64": 0.5,
    "attention_exponent": 1.0,
}


def shell(columns: int) -> Any:
    """(2 * columns^2, 4) coordinates of a relief of smooth waves, two voxels deep."""
    import numpy as np
    import torch

    random = np.random.default_rng(0)
    y, x = np.mgrid[0:columns, 0:columns]
    height = np.zeros((columns, columns))
    for wave in range(1, 8):
        for _ in range(3):
            fx, fy = random.normal(0, wave, 2)
            height += (
                14
                / wave
                * np.cos(2 * np.pi * (fx * x + fy * y) / COLUMNS + random.uniform(0, 2 * np.pi))
            )
    top = np.stack([np.zeros_like(x), x, y, np.floor(height).astype(np.int64)], -1).reshape(-1, 4)
    return torch.from_numpy(np.concatenate([top, top - np.array([0, 0, 0, 1])]))


def in_turn(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each call, after a first one that is not counted; a round has each once."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if number:
                taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in taken.items()}


def slope(sizes: list[int], seconds: list[float]) -> float:
    """Exponent by which seconds grow with sizes: the slope of their logarithms."""
    x, y = [math.log(value) for value in sizes], [math.log(value) for value in seconds]
    mx, my = statistics.mean(x), statistics.mean(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / sum(
        (a - mx) ** 2 for a in x
    )


def peak(dtype: Any) -> float:
    """Operations a second of the best matrix product here: squares, and the shape of a gathered
    group."""
    import torch

    best = 0.0
    for m, k, n in ((2048, 2048, 2048), (512, 1728, 64), (1024, 1152, 128)):
        a, b = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
        made = torch.empty(m, n, dtype=dtype)
        best = max(
            best, 2 * m * k * n / in_turn({"mm": partial(torch.mm, a, b, out=made)}, 9)["mm"]
        )
    return best


def kernel_maps(coordinates: Any, rounds: int) -> dict[str, float]:
    """Seconds for all that a convolution needs of the coordinates: ours, spconv's; and ours by
    binary search."""
    from spconv.core import ConvAlgo
    from spconv.pytorch import ops

    from earthgen.sparse.grouping import spans
    from earthgen.sparse.kernel_map import Kernel, kernel_map, search_table
    from earthgen.sparse.sites import Sites, make_sites

    sites, _ = make_sites(coordinates)
    shifted = (sites.coordinates - sites.coordinates.amin(0)).contiguous()
    extent = (shifted.amax(0) + 1)[1:].tolist()
    kernel = Kernel.of(3)

    def ours() -> None:
        fresh = Sites(sites.coordinates)
        spans(kernel_map(fresh, fresh, kernel))

    def theirs() -> None:
        ops.get_indice_pairs(
            shifted,
            1,
            extent,
            ConvAlgo.Native,
            [3] * 3,
            [1] * 3,
            [1] * 3,
            [1] * 3,
            [0] * 3,
            subm=True,
        )

    def by_search() -> None:
        fresh = Sites(sites.coordinates)
        search_table(fresh, fresh, kernel)

    return in_turn({"ours": ours, "spconv": theirs, "binary_search": by_search}, rounds)


def convolutions(coordinates: Any, channels: int, rounds: int) -> dict[str, float]:
    """Median seconds of a 3 x 3 x 3 submanifold convolution: ours forward and with backward,
    spconv's, ocnn's."""
    import spconv.pytorch as spconv
    import torch
    from spconv.core import ConvAlgo

    from earthgen.sparse.convolution import convolve
    from earthgen.sparse.kernel_map import Kernel
    from earthgen.sparse.tensor import sparse_tensor

    torch.manual_seed(0)
    kernel = Kernel.of(3)
    features = torch.randn(len(coordinates), channels)
    weight = torch.randn(kernel.volume, channels, channels) / channels
    calls: dict[str, Callable[[], Any]] = {}
    whole = sparse_tensor(coordinates, features)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        x, w = whole.to(dtype), weight.to(dtype)  # at the same sites: one kernel map serves both
        leaf, parameter = x.features.clone().requires_grad_(), w.clone().requires_grad_()
        ones = torch.ones_like(x.features)

        def forward(x: Any = x, w: Any = w) -> None:
            with torch.no_grad():
                convolve(x, w, kernel)

        def both(x: Any = x, leaf: Any = leaf, w: Any = parameter, ones: Any = ones) -> None:
            leaf.grad = w.grad = None
            convolve(x.with_features(leaf), w, kernel).features.backward(ones)

        calls[f"{name}_fwd"], calls[f"{name}_fwd_bwd"] = forward, both

    shifted = (whole.coordinates - whole.coordinates.amin(0)).contiguous()
    extent = (shifted.amax(0) + 1)[1:].tolist()
    layer = spconv.SubMConv3d(
        channels, channels, 3, bias=False, indice_key="map", algo=ConvAlgo.Native
    )
    tensor = spconv.SparseConvTensor(features, shifted, extent, 1)
    with torch.no_grad():
        tensor.indice_dict = layer(tensor).indice_dict  # its map is made once, as ours

    def theirs() -> None:
        with torch.no_grad():
            layer(tensor)

    calls["spconv_fp32_fwd"] = theirs
    calls["ocnn_fwd_bwd"] = octree(
        shifted[:, 1:], channels, torch.bfloat16 if has_bfloat16() else torch.float32
    )
    return in_turn(calls, rounds)


def has_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16, be they fast or not."""
    import torch

    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and bool(supported())


def without_models(name: str) -> Any:
    """ocnn's octrees and layers, without its models, which need packages that earthgen has no
    use for."""
    if name not in sys.modules:
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise SystemExit("ocnn is not installed: `make setup` does it")
        package = ModuleType(name)
        package.__path__ = list(spec.submodule_search_locations or ())
        sys.modules[name] = package
        for part in ("octree", "nn"):
            setattr(package, part, importlib.import_module(f"{name}.{part}"))
    return sys.modules[name]


def octree(xyz: Any, channels: int, dtype: Any) -> Callable[[], Any]:
    """The same convolution in ocnn, forward and backward."""
    import torch

    ocnn = without_models("ocnn")
    depth = 8
    if int(xyz.max()) >= 2**depth:
        raise SystemExit("the shell does not fit into ocnn's octree")
    tree = ocnn.octree.Octree(depth, 2)
    tree.build_octree(ocnn.octree.Points((xyz.float() + 0.5) / 2 ** (depth - 1) - 1))
    tree.construct_all_neigh()
    if int(tree.nnum_nempty[depth]) != len(xyz):
        raise SystemExit(f"ocnn's octree has {int(tree.nnum_nempty[depth])} voxels, not {len(xyz)}")
    layer = ocnn.nn.OctreeConv(channels, channels, [3], nempty=True).to(dtype)
    leaf = torch.randn(len(xyz), channels).to(dtype).requires_grad_()
    ones = torch.ones(len(xyz), channels, dtype=dtype)

    def both() -> None:
        leaf.grad = layer.weights.grad = None
        layer(leaf, tree, depth).backward(ones)

    return both


def attention(sizes: tuple[int, ...]) -> dict[str, Any]:
    """How the time of window attention grows with the voxels: ours, and with every window filled
    up to its cells."""
    import torch

    from earthgen.sparse.attention import ragged_attention
    from earthgen.sparse.sites import make_sites
    from earthgen.sparse.windows import windows

    voxels, ours, dense = [], [], []
    for columns in sizes:
        sites, _ = make_sites(shell(columns))
        torch.manual_seed(0)
        q, k, v = (torch.randn(len(sites), HEADS, DIM) for _ in range(3))
        part = windows(sites, WINDOW)
        with torch.no_grad():
            found = in_turn(
                {
                    "ours": partial(ragged_attention, q, k, v, part),
                    "dense": partial(filled, q, k, v, sites),
                },
                1 if columns > 400 else 3,
            )
        voxels.append(len(sites))
        ours.append(found["ours"])
        dense.append(found["dense"])
    return {
        "voxels": voxels,
        "ours_s": [round(value, 4) for value in ours],
        "dense_s": [round(value, 4) for value in dense],
        "exponent": slope(voxels, ours),
        "dense_exponent": slope(voxels, dense),
        "speed_over_dense": [round(b / a, 2) for a, b in zip(ours, dense, strict=True)],
    }


def filled(q: Any, k: Any, v: Any, sites: Any) -> Any:
    """Window attention where each window has all its cells, those without a voxel masked."""
    import torch

    xyz = sites.coordinates[:, 1:].long()
    box = xyz.div(WINDOW, rounding_mode="floor")
    cell = xyz - box * WINDOW
    cell = (cell[:, 0] * WINDOW + cell[:, 1]) * WINDOW + cell[:, 2]
    _, window = torch.unique(box, dim=0, return_inverse=True)
    count, cells = int(window.max()) + 1, WINDOW**3
    place = torch.full((count * cells,), -1, dtype=torch.int64)
    place[window * cells + cell] = torch.arange(len(xyz))
    place = place.view(count, cells)
    result = torch.empty_like(q)
    for first in range(0, count, 256):
        rows = place[first : first + 256]
        there = rows >= 0
        one, two, three = (
            torch.where(there[..., None, None], t[rows.clamp(min=0)], 0).transpose(1, 2)
            for t in (q, k, v)
        )
        made = torch.nn.functional.scaled_dot_product_attention(
            one, two, three, attn_mask=there[:, None, None]
        )
        result[rows[there]] = made.transpose(1, 2)[there]
    return result


def run(quick: bool = False) -> dict[str, object]:
    """quick: a sixteenth of the voxels and few rounds, to see that it works; its figures mean
    little."""
    import torch

    from earthgen.sparse.kernel_map import Kernel, kernel_map
    from earthgen.sparse.products import product_dtype
    from earthgen.sparse.sites import make_sites

    torch.set_num_threads(os.cpu_count() or 1)
    coordinates, rounds = shell(COLUMNS // 4 if quick else COLUMNS), 2 if quick else ROUNDS
    sites, _ = make_sites(coordinates)
    pairs = kernel_map(sites, sites, Kernel.of(3)).pairs
    maps = kernel_maps(coordinates, rounds)
    taken = {channels: convolutions(coordinates, channels, rounds) for channels in CHANNELS}
    native = {"fp32": torch.float32, "bf16": product_dtype(torch.bfloat16, torch.device("cpu"))}
    peaks = {name: peak(dtype) for name, dtype in native.items()}
    found = attention(SIZES[:2] if quick else SIZES)

    def by_channels(ratio: Callable[[dict[str, float]], float]) -> dict[str, float]:
        return {str(channels): round(ratio(seconds), 3) for channels, seconds in taken.items()}

    shares = {
        name: {
            str(channels): round(2 * pairs * channels**2 / seconds[f"{name}_fwd"] / peaks[name], 3)
            for channels, seconds in taken.items()
        }
        for name in native
    }
    result: dict[str, Any] = {
        "subm_fwd_fp32_vs_spconv": by_channels(lambda s: s["spconv_fp32_fwd"] / s["fp32_fwd"]),
        "subm_fwd_bf16_vs_spconv": by_channels(lambda s: s["spconv_fp32_fwd"] / s["bf16_fwd"]),
        "fwd_bwd_over_fwd": by_channels(lambda s: s["fp32_fwd_bwd"] / s["fp32_fwd"]),
        "fwd_bwd_bf16_vs_ocnn": by_channels(lambda s: s["ocnn_fwd_bwd"] / s["bf16_fwd_bwd"]),
        "kernel_map_vs_spconv": round(maps["ours"] / maps["spconv"], 3),
        "peak_share": shares,
        "attention_exponent": round(found["exponent"], 3),
    }
    emulated = native["bf16"] != torch.bfloat16
    met = {
        "subm_fwd_fp32_vs_spconv": min(result["subm_fwd_fp32_vs_spconv"].values()) >= 1.0,
        "subm_fwd_bf16_vs_spconv": min(result["subm_fwd_bf16_vs_spconv"].values())
        >= TARGETS["subm_fwd_bf16_vs_spconv"],
        "fwd_bwd_over_fwd": max(result["fwd_bwd_over_fwd"].values()) <= 3.2,
        "fwd_bwd_bf16_vs_ocnn": min(result["fwd_bwd_bf16_vs_ocnn"].values()) >= 3.0,
        "kernel_map_vs_spconv": result["kernel_map_vs_spconv"] <= 1.5,
        "peak_share_at_64": shares["fp32"]["64"] >= 0.5,
        "attention_exponent": result["attention_exponent"] <= 1.1,
    }
    return {
        **result,
        "targets": TARGETS,
        "met": met,
        "bf16": "products are computed in float32, which is faster on this CPU; ocnn is timed in "
        + ("bfloat16" if has_bfloat16() else "float32")
        if emulated
        else "native",
        "voxels": len(sites),
        "neighbours": round(pairs / len(sites), 2),
        "threads": torch.get_num_threads(),
        "peak_gflops": {name: round(value / 1e9, 1) for name, value in peaks.items()},
        "seconds": {
            str(channels): {name: round(value, 4) for name, value in seconds.items()}
            for channels, seconds in taken.items()
        },
        "kernel_map_s": {name: round(value, 4) for name, value in maps.items()},
        "attention": {
            key: round(value, 3) if isinstance(value, float) else value
            for key, value in found.items()
        },
        "limit": "gathering reads each voxel's features once for each neighbour; see "
        "docs/background/sparse.md",
    }


if __name__ == "__main__":
    show("benchmarks.sparse", __doc__, run)
