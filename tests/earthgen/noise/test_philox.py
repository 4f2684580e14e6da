"""Counter-based noise in numpy and torch: known answers, and numbers that depend on the place."""

from __future__ import annotations

import itertools
import math
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earthgen.noise import philox as noise
from earthgen.noise import torch_philox as noise_torch
from earthgen.noise.philox import Noise, Stream, philox4x32
from geo_io.frame import Frame

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
EDGE_WORDS = np.array(
    [0, 1, 2, 2**29 - 1, 2**29, 2**30, 2**31 - 1, 2**31, 3 * 2**30, 2**32 - 2, 2**32 - 1]
)
VERSION_2_BITS = [3825530563, 2703123108, 2613516477, 2389016669]
VERSION_2_NORMALS = [
    "0x1.d38e8e0000000p-1",
    "-0x1.eb88120000000p-1",
    "-0x1.a7b9960000000p-7",
    "0x1.3038d80000000p+0",
]
FRAME = Frame("EPSG:32632", 1.0, (-40, 61), (-7, 30))


@pytest.fixture(scope="module")
def places() -> np.ndarray:
    """Return (2**20 + 3, 3) int32 random places over the full range; their number is odd."""
    return np.random.default_rng(0).integers(-(2**31), 2**31, (2**20 + 3, 3)).astype(np.int32)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(counter, key, answer) -> None:
    assert tuple(philox4x32(np.array([counter], np.uint32), key)[0]) == answer
    words = noise_torch.philox4x32(tuple(torch.tensor([word]) for word in counter), key)
    assert tuple(int(word[0]) for word in words) == answer


def test_the_counter_is_the_place_and_the_channel() -> None:
    stream = Stream((3, 4))
    expected = philox4x32(np.array([[2**32 - 1, 5, 2**32 - 7, 9]], np.uint32), (3, 4))[0]
    assert np.array_equal(stream.bits(-1, 5, -7, 9), expected)
    assert noise_torch.bits(stream, -1, 5, -7, 9).tolist() == expected.tolist()


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**40))
def test_a_number_depends_on_its_place_alone(x: int, y: int, seed: int) -> None:
    stream = Noise(seed).stream("a")
    among_x, among_y = np.array([5, x, 7]), np.array([6, y, 8])
    assert stream.uniform(x, y) == stream.uniform(among_x, among_y)[1]
    assert 0 <= stream.uniform(x, y) < 1
    assert stream.normal(x, y) == stream.normal(among_x, among_y)[1]
    alone = stream.normals([[x, y, 0]], 3)[0]
    assert np.array_equal(
        alone, stream.normals(np.stack([among_x, among_y, 0 * among_x], axis=1), 9)[1, :3]
    )


def test_seeds_stages_streams_and_channels_share_nothing() -> None:
    x = np.arange(4000)
    places = np.stack([x, 0 * x, 0 * x], axis=1)
    draws = [
        Noise(0).stream("a").uniform(x, 0),
        Noise(1).stream("a").uniform(x, 0),
        Noise(-1).stream("a").uniform(x, 0),
        Noise(0).stream("b").uniform(x, 0),
        Noise(0).of_stage("coarse").stream("a").uniform(x, 0),
        Noise(0).of_stage("fine").stream("a").uniform(x, 0),
        Noise(0).of_stage("a").stream("").uniform(x, 0),
        Noise(0).stream("a").uniform(x, 0, channel=1),
        Noise(0).stream("a").uniform(x, 1),
        Noise(0).stream("a").of_objects(x.astype(np.uint64)),
        *Noise(0).stream("c").normals(places, 9).T,
        *Noise(0).stream("d").uniforms(places, 5).T,
    ]
    correlation = np.corrcoef(draws) - np.eye(len(draws))
    assert abs(correlation).max() < 0.08  # five standard errors


def test_neighbours_are_independent() -> None:
    field = (
        Noise(0)
        .stream("a")
        .normals(replace(FRAME, x=(-300, 300), y=(-300, 300)), 2)
        .astype(np.float64)
    )
    for a, b in (
        (field[1:], field[:-1]),
        (field[:, 1:], field[:, :-1]),
        (field[1:, 1:, :1], field[:-1, :-1, 1:]),
    ):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.01


def test_scoped_noise() -> None:
    world = Noise(7)
    coarse, fine = world.of_stage("coarse"), world.of_stage("fine")
    keys = {
        each.stream(name).key
        for each in (world, coarse, fine)
        for name in ("", "a", "coarse", "fine")
    }
    assert len(keys) == 12
    assert coarse.shared() == fine.shared() == world.shared() == world
    assert coarse.of_stage("fine") == fine
    assert (
        pickle.loads(pickle.dumps(coarse)) == coarse and len({coarse, fine, Noise(7, "fine")}) == 2
    )
    assert Noise(0).stream("a") != Noise(1).stream("a")
    assert Noise(np.int64(7)).stream("a") == world.stream("a")  # type: ignore[arg-type]


def test_no_name_can_pose_as_a_stage() -> None:
    names = ["", "a", "\0", "a\0", "\0a", 'a", "', '", "a', "a, ", "ä", "[", "]"]
    keys = {Noise(0, stage).stream(name).key for stage, name in itertools.product(names, names)}
    assert len(keys) == len(names) ** 2


def test_the_numbers_of_this_version() -> None:
    """A change of these numbers requires a new NOISE_VERSION."""
    stream = Noise(0, "stage").stream("name")
    assert noise.NOISE_VERSION == 2
    assert stream.bits(1, -2, 3, 4).tolist() == VERSION_2_BITS
    assert [float(value).hex() for value in stream.normals([[1, -2, 3]], 4)[0]] == VERSION_2_NORMALS


def test_distributions(places: np.ndarray) -> None:
    x, y, z = places.T
    stream = Noise(0).stream("moments")
    n = len(places)
    uniform, normal = stream.uniform(x, y, z), stream.normal(x, y, z)
    channels = stream.normals(places, 4).astype(np.float64)
    assert (
        abs(uniform.mean() - 0.5) < 5 * math.sqrt(1 / 12 / n) and abs(uniform.var() - 1 / 12) < 5e-4
    )
    assert 0 <= uniform.min() < 1e-5 and 1 - 1e-5 < uniform.max() < 1
    for values in (normal, *channels.T):
        assert abs(values.mean()) < 5 / math.sqrt(n)
        assert abs(values.var() - 1) < 5 * math.sqrt(2 / n)
        assert abs((values**3).mean()) < 5 * math.sqrt(15 / n)
        assert abs((values**4).mean() - 3) < 5 * math.sqrt(96 / n)
        edges = np.linspace(-4, 4, 41)
        expected = n * np.diff([0.5 * math.erfc(-edge / math.sqrt(2)) for edge in edges])
        seen = np.histogram(values, edges)[0]
        assert ((seen - expected) ** 2 / expected).sum() < 40 + 5 * math.sqrt(
            80
        )  # chi squared of 40 bins


def test_tails(places: np.ndarray) -> None:
    values = Noise(0).stream("tails").normals(places, 8)
    assert np.isfinite(values).all()
    assert 4.5 < abs(values).max() < 6.77
    beyond, expected = (abs(values) > 4).sum(), values.size * math.erfc(4 / math.sqrt(2))
    assert abs(beyond - expected) < 5 * math.sqrt(expected)


def test_the_formulas_are_log_and_cos() -> None:
    word0, word1 = (part.ravel() for part in np.meshgrid(EDGE_WORDS, EDGE_WORDS))
    rng = np.random.default_rng(1)
    word0, word1 = (
        np.concatenate([part, rng.integers(0, 2**32, 200_000)]) for part in (word0, word1)
    )
    radius = np.sqrt(-2 * np.log1p((2 * word0 + 1 - 2**33) / 2**33))
    a, b = noise.box_muller(word0, word1)
    assert abs(a - radius * np.cos(word1 * (2 * np.pi / 2**32))).max() < 1e-12
    assert abs(b - radius * np.sin(word1 * (2 * np.pi / 2**32))).max() < 1e-12
    assert np.isfinite(a).all() and np.isfinite(b).all() and abs(a).max() < 6.77


@pytest.mark.parametrize("draw", ["normals", "uniforms"])
def test_a_crop_is_the_crop_of_the_whole(draw: str) -> None:
    stream = Noise(0).stream("crop")
    inner = replace(FRAME, x=(-3, 20), y=(-2, 11))
    whole, crop = getattr(stream, draw)(FRAME, 7), getattr(stream, draw)(inner, 3)
    assert whole.shape == (37, 101, 7) and whole.dtype == np.float32
    assert np.array_equal(crop, whole[FRAME.slices(inner)][..., :3])


@pytest.mark.parametrize("draw", ["normals", "uniforms"])
def test_a_frame_is_drawn_at_its_places(draw: str) -> None:
    stream = Noise(0).stream("frame")
    field = getattr(stream, draw)(FRAME, 5)
    x, y = np.meshgrid(np.arange(*FRAME.x), np.arange(*FRAME.y)[::-1])
    places = np.stack([x, y, 0 * x], axis=-1).reshape(-1, 3)
    assert np.array_equal(field, getattr(stream, draw)(places, 5).reshape(field.shape))
    north_west = getattr(stream, draw)([[-40, 29, 0]], 5)[0]
    assert np.array_equal(field[0, 0], north_west)


def test_channels_come_from_blocks_of_four_words() -> None:
    stream = Noise(0).stream("blocks")
    place = np.array([[-5, 6, -7]])
    normals, uniforms = stream.normals(place, 10)[0], stream.uniforms(place, 10)[0]
    words = np.stack([stream.bits(-5, 6, -7, block) for block in range(3)]).astype(np.int64)
    pairs = noise.box_muller(words[:, ::2], words[:, 1::2])
    assert np.array_equal(normals, np.stack(pairs, axis=-1).astype(np.float32).ravel()[:10])
    assert np.array_equal(uniforms, (words.ravel()[:10] >> 8) / 2**24)
    assert normals[4] == np.float32(stream.normal(-5, 6, -7, channel=1))
    assert uniforms.max() < 1


@pytest.mark.parametrize("wrong", [np.zeros((3, 2), int), np.zeros(3, int), np.zeros((2, 3))])
def test_what_is_not_places_is_refused(wrong: np.ndarray) -> None:
    stream = Noise(0).stream("a")
    with pytest.raises(ValueError, match=r"\(n, 3\) integer"):
        stream.normals(wrong, 4)
    with pytest.raises(ValueError, match=r"\(n, 3\) integer"):
        noise_torch.normals(stream, torch.from_numpy(wrong), 4)


def test_no_places() -> None:
    stream = Noise(0).stream("a")
    assert stream.normals(np.zeros((0, 3), np.int32), 4).shape == (0, 4)
    assert noise_torch.normals(stream, torch.zeros((0, 3), dtype=torch.int32), 4).shape == (0, 4)
    assert stream.normal(np.zeros(0, int), 0).shape == (0,)


def test_the_kernel_is_the_formula(places: np.ndarray) -> None:
    x, y, z = places.T
    stream = Noise(0).stream("kernel")
    words = stream.bits(x, y, z, 2).astype(np.int64)
    assert np.array_equal(stream.normal(x, y, z, 2), noise.box_muller(words[:, 0], words[:, 1])[0])


def test_formulas_are_the_same_in_numpy_and_torch_at_the_edges() -> None:
    word0, word1 = (part.ravel() for part in np.meshgrid(EDGE_WORDS, EDGE_WORDS))
    ours = noise.box_muller(word0, word1)
    theirs = noise_torch.box_muller(torch.from_numpy(word0), torch.from_numpy(word1))
    for a, b in zip(ours, theirs, strict=True):
        assert np.array_equal(a.view(np.int64), b.numpy().view(np.int64))


def test_numpy_and_torch_draw_the_same(places: np.ndarray) -> None:
    x, y, z = places.T
    tensor = torch.from_numpy(places)
    tx, ty, tz = tensor.unbind(1)
    stream = Noise(0).stream("torch")
    for name in ("bits", "uniform", "normal"):
        ours, theirs = (
            getattr(stream, name)(x, y, z, 5),
            getattr(noise_torch, name)(stream, tx, ty, tz, 5).numpy(),
        )
        assert ours.shape == theirs.shape
        assert name == "bits" or theirs.dtype == ours.dtype == np.float64
        assert np.array_equal(ours, theirs), name
    for name in ("normals", "uniforms"):
        ours, theirs = (
            getattr(stream, name)(places, 5),
            getattr(noise_torch, name)(stream, tensor, 5).numpy(),
        )
        assert theirs.dtype == ours.dtype == np.float32
        assert np.array_equal(ours, theirs), name
        assert np.array_equal(
            getattr(stream, name)(FRAME, 6), getattr(noise_torch, name)(stream, FRAME, 6).numpy()
        )


def test_torch_chunks_do_not_show(places: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, tensor = Noise(0).stream("chunks"), torch.from_numpy(places[:1000])
    whole = noise_torch.normals(stream, tensor, 3)
    monkeypatch.setattr(noise_torch, "CPU_CHUNK", 7)
    assert torch.equal(noise_torch.normals(stream, tensor, 3), whole)


def test_torch_broadcasts_and_ignores_the_default_dtype() -> None:
    stream = Noise(0).stream("shapes")
    x, y = torch.arange(-3, 4, dtype=torch.int32), torch.arange(5)[:, None]
    ours = stream.normal(x.numpy(), y.numpy(), -1)
    assert np.array_equal(ours, noise_torch.normal(stream, x, y, -1).numpy()) and ours.shape == (
        5,
        7,
    )
    torch.set_default_dtype(torch.float16)
    try:
        assert np.array_equal(ours, noise_torch.normal(stream, x, y, -1).numpy())
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_draws_the_same(places: np.ndarray) -> None:
    stream, tensor = Noise(0).stream("cuda"), torch.from_numpy(places)
    x, y, z = places.T
    there = (part.cuda() for part in tensor.unbind(1))
    assert np.array_equal(stream.normal(x, y, z), noise_torch.normal(stream, *there).cpu().numpy())
    assert np.array_equal(
        stream.normals(places, 5), noise_torch.normals(stream, tensor, 5, "cuda").cpu().numpy()
    )
    assert np.array_equal(
        stream.normals(FRAME, 5), noise_torch.normals(stream, FRAME, 5, "cuda").cpu().numpy()
    )


def test_noise_does_not_load_torch() -> None:
    code = "import sys, earthgen.noise.philox; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
