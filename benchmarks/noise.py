"""Counter-based noise: voxels a second on one thread, in numpy and in torch, beside generators that
run in sequence.

The peers are numpy's own Philox and torch's default generator. They give the next number, not the
number of a place: what they do is less, and the ratio says what the place costs. Normals are
checked to be the same in numpy and torch.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

VOXELS = 1 << 20
CHANNELS = 8
TARGET_PER_S = 1e6


def rate(draw: Callable[[], object], rounds: int) -> float:
    """Voxels a CPU second: the median of some rounds, after one that compiles and touches the
    memory."""
    draw()
    seconds = []
    for _ in range(rounds):
        began = time.process_time()
        draw()
        seconds.append(time.process_time() - began)
    return VOXELS / statistics.median(seconds)


def run(rounds: int = 5) -> dict[str, object]:
    import numpy as np
    import torch

    from earthgen.noise import torch_philox as noise_torch
    from earthgen.noise.philox import Noise

    stream = Noise(0).stream("benchmark")
    rng = np.random.Generator(np.random.Philox(0))
    places = rng.integers(-(2**31), 2**31, (VOXELS, 3)).astype(np.int32)
    tensor = torch.from_numpy(places)
    x, y, z = places.T
    tx, ty, tz = tensor.unbind(1)
    many = f"normals_{CHANNELS}"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ours = {
            "numpy_bits": rate(lambda: stream.bits(x, y, z), rounds),
            "numpy_uniform": rate(lambda: stream.uniform(x, y, z), rounds),
            "numpy_normal": rate(lambda: stream.normal(x, y, z), rounds),
            f"numpy_{many}": rate(lambda: stream.normals(places, CHANNELS), rounds),
            "torch_bits": rate(lambda: noise_torch.bits(stream, tx, ty, tz), rounds),
            "torch_uniform": rate(lambda: noise_torch.uniform(stream, tx, ty, tz), rounds),
            "torch_normal": rate(lambda: noise_torch.normal(stream, tx, ty, tz), rounds),
            f"torch_{many}": rate(lambda: noise_torch.normals(stream, tensor, CHANNELS), rounds),
        }
        double = {"dtype": torch.float64}
        peers = {
            "numpy_bits": rate(lambda: rng.integers(0, 2**32, (VOXELS, 4), np.uint32), rounds),
            "numpy_uniform": rate(lambda: rng.random(VOXELS), rounds),
            "numpy_normal": rate(lambda: rng.standard_normal(VOXELS), rounds),
            f"numpy_{many}": rate(
                lambda: rng.standard_normal((VOXELS, CHANNELS), np.float32), rounds
            ),
            "torch_uniform": rate(lambda: torch.rand(VOXELS, **double), rounds),
            "torch_normal": rate(lambda: torch.randn(VOXELS, **double), rounds),
            f"torch_{many}": rate(lambda: torch.randn(VOXELS, CHANNELS), rounds),
        }
        same = np.array_equal(
            stream.normal(x, y, z), noise_torch.normal(stream, tx, ty, tz).numpy()
        )
    finally:
        torch.set_num_threads(threads)
    return {
        "voxels": VOXELS,
        **{f"{name}_per_s": f"{value:.3g}" for name, value in ours.items()},
        **{f"peer_{name}_per_s": f"{value:.3g}" for name, value in peers.items()},
        **{f"{name}_vs_peer": round(ours[name] / value, 2) for name, value in peers.items()},
        "numpy_equals_torch": same,
        "target_per_s": TARGET_PER_S,
        "met": same and min(ours.values()) > TARGET_PER_S,
    }
