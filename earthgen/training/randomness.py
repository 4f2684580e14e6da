"""Random numbers of a training: functions of the seed, the part, the step and the use, with no
state to be kept.

A resumed run draws what the interrupted one would have drawn, because nothing is drawn in an order.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def number(seed: int, *names: int | str) -> int:
    """An integer in [0, 2^63) by a seed and names."""
    text = "/".join(str(name) for name in (seed, *names)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def torch_generator(
    seed: int, *names: int | str, device: torch.device | str = "cpu"
) -> torch.Generator:
    return torch.Generator(device=device).manual_seed(number(seed, *names))


def numpy_generator(seed: int, *names: int | str) -> np.random.Generator:
    return np.random.default_rng(number(seed, *names))
