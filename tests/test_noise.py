"""Counter-based noise: the published answers, and a number that depends on its place alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthgen.noise import Noise, philox4x32

# Known-answer vectors of philox4x32-10 from the Random123 distribution (kat_vectors).
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(counter, key, answer) -> None:
    assert tuple(philox4x32(np.array([counter], np.uint32), key)[0]) == answer


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**40))
def test_a_number_depends_on_its_place_alone(x: int, y: int, seed: int) -> None:
    stream = Noise(seed).stream("a")
    alone = stream.uniform(x, y)
    among = stream.uniform(np.array([5, x, 7]), np.array([6, y, 8]))[1]
    assert alone == among and 0 <= alone < 1


def test_seeds_stages_and_channels_share_nothing() -> None:
    x = np.arange(4000)
    draws = [
        Noise(0).stream("a").uniform(x, 0),
        Noise(1).stream("a").uniform(x, 0),
        Noise(0).stream("b").uniform(x, 0),
        Noise(0).stream("a").uniform(x, 0, channel=1),
        Noise(0).stream("a").uniform(x, 1),
        Noise(0).stream("a").of_objects(x.astype(np.uint64)),
    ]
    for i, left in enumerate(draws):
        for right in draws[:i]:
            assert abs(np.corrcoef(left, right)[0, 1]) < 0.06


def test_distributions() -> None:
    x, y = np.meshgrid(np.arange(-300, 300), np.arange(300))
    stream = Noise(0).stream("moments")
    uniform, normal = stream.uniform(x, y), stream.normal(x, y)
    assert abs(uniform.mean() - 0.5) < 0.003 and abs(uniform.var() - 1 / 12) < 0.001
    assert abs(normal.mean()) < 0.01 and abs(normal.var() - 1) < 0.02
    assert np.isfinite(normal).all()
