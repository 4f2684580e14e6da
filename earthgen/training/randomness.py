"""Random numbers of a training: functions of the seed, the part, the step and the use.

Nothing is drawn in an order, so there is no state to keep, and a resumed run draws what the
interrupted one would have drawn.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def derive_seed(seed: int, *names: int | str) -> int:
    """Return an integer in [0, 2^63) that depends on a seed and names."""
    text = "/".join(str(name) for name in (seed, *names)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def torch_generator(
    seed: int, *names: int | str, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a torch generator that depends on a seed and names."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *names))


def numpy_generator(seed: int, *names: int | str) -> np.random.Generator:
    """Return a numpy generator that depends on a seed and names."""
    return np.random.default_rng(derive_seed(seed, *names))
