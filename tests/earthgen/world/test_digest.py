"""Content digests: the same for any cut of a world, another for any change of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earthgen.noise.philox import philox4x32
from earthgen.voxels.pyramid import tile_levels
from earthgen.voxels.tile import Tile, crop_tile
from earthgen.voxels.voxels import Splats, Voxels
from earthgen.world import digest as content
from earthgen.world.digest import EMPTY_DIGEST, add_digests, digest_text, identity_key, tile_digest
from geo_io.frame import Frame
from tests.helpers import synthetic

FRAME = Frame(
    "EPSG:32632", 1.0, (640_000, 640_184), (5_560_392, 5_560_504)
)  # houses, a stream, trees


@pytest.fixture(scope="module")
def levels() -> list[Tile]:
    return tile_levels(synthetic.tile_from_voxels(FRAME, *synthetic.build(FRAME, degree=1)))


def part(levels: list[Tile], frame: Frame) -> list[Tile]:
    return [crop_tile(tile, frame.coarsen(2**n) if n else frame) for n, tile in enumerate(levels)]


def total(levels: list[Tile], frame: Frame, size: int) -> content.Digest:
    tiles = [frame.tile(*tile, size).intersection(frame) for tile in frame.tiles(size)]
    return add_digests(*(tile_digest(part(levels, tile)) for tile in tiles if tile is not None))


@pytest.mark.parametrize("size", [64, 72, 200])
def test_the_tile_size_does_not_matter(levels: list[Tile], size: int) -> None:
    assert total(levels, FRAME, size) == tile_digest(levels)


def test_disjoint_crops_add_up(levels: list[Tile]) -> None:
    xs, ys = (
        (FRAME.x[0], FRAME.x[0] + 48, FRAME.x[0] + 136, FRAME.x[1]),
        (FRAME.y[0], FRAME.y[0] + 8, FRAME.y[0] + 80),
    )
    edges = (*ys, FRAME.y[1])
    crops = [
        replace(FRAME, x=(xs[i], xs[i + 1]), y=(edges[j], edges[j + 1]))
        for i in range(3)
        for j in range(3)
    ]
    assert add_digests(*(total(levels, crop, 64) for crop in crops)) == tile_digest(levels)
    assert len({tile_digest(part(levels, crop)) for crop in crops}) == 9


def test_the_order_of_rows_does_not_matter(levels: list[Tile]) -> None:
    mixed = []
    for tile in levels:
        order = np.random.default_rng(1).permutation(len(tile.voxels))
        mixed.append(replace(tile, voxels=tile.voxels.take(order), splats=tile.splats.take(order)))
    assert tile_digest(mixed) == tile_digest(levels)


def test_values_count_as_they_are_stored(levels: list[Tile]) -> None:
    stored = [
        replace(
            tile,
            splats=Splats(
                *(np.asarray(values, np.float16) for values in vars(tile.splats).values())
            ),
        )
        for tile in levels
    ]
    assert tile_digest(stored) == tile_digest(levels)


def changed(tile: Tile, kind: str, i: int) -> Tile:
    """The tile with one value changed a little."""
    if kind in ("ground", "surface"):
        values = getattr(tile, kind).copy()
        values[i % values.shape[0], i % values.shape[1]] += np.float32(0.001)
        return replace(tile, **{kind: values})
    if kind in ("semantics", "rgb"):
        values = getattr(tile, kind).copy()
        values[i % values.shape[0], i % values.shape[1]] ^= np.uint8(1)
        return replace(tile, **{kind: values})
    n = i % len(tile.voxels)
    if kind in ("xyz", "semantic", "faces", "object"):
        values = getattr(tile.voxels, kind).copy()
        values[n] = values[n] ^ 1
        return replace(tile, voxels=replace(tile.voxels, **{kind: values}))
    values = getattr(tile.splats, kind).astype(np.float16)
    flat = values.reshape(len(values), -1)
    flat[n, i % flat.shape[1]] = np.nextafter(flat[n, i % flat.shape[1]], np.float16(9))
    return replace(tile, splats=replace(tile.splats, **{kind: values}))


KINDS = [
    "ground",
    "surface",
    "semantics",
    "rgb",
    "xyz",
    "semantic",
    "faces",
    "object",
    "offset",
    "scale",
    "rotation",
    "opacity",
    "sh",
]


@settings(max_examples=60)
@given(kind=st.sampled_from(KINDS), level=st.integers(0, 3), i=st.integers(0, 10**6))
def test_any_change_shows(levels: list[Tile], kind: str, level: int, i: int) -> None:
    other = list(levels)
    other[level] = changed(levels[level], kind, i)
    assert tile_digest(other) != tile_digest(levels)


def swapped(values: np.ndarray) -> np.ndarray:
    """The rows with two different ones exchanged."""
    flat = values.reshape(len(values), -1)
    other = int(np.flatnonzero((flat != flat[0]).any(axis=1))[0])
    values = values.copy()
    values[[0, other]] = values[[other, 0]]
    return values


def swap(name: str) -> Callable[[Tile], Tile]:
    def of(tile: Tile) -> Tile:
        if hasattr(tile.voxels, name):
            return replace(
                tile, voxels=replace(tile.voxels, **{name: swapped(getattr(tile.voxels, name))})
            )
        return replace(
            tile, splats=replace(tile.splats, **{name: swapped(getattr(tile.splats, name))})
        )

    return of


def lose(tile: Tile) -> Tile:
    keep = np.arange(1, len(tile.voxels))
    return replace(tile, voxels=tile.voxels.take(keep), splats=tile.splats.take(keep))


def double(tile: Tile) -> Tile:
    keep = np.append(np.arange(len(tile.voxels)), [5, 5])
    return replace(tile, voxels=tile.voxels.take(keep), splats=tile.splats.take(keep))


def turn(tile: Tile) -> Tile:
    return replace(tile, ground=tile.ground[::-1])


@pytest.mark.parametrize(
    "change", [swap("semantic"), swap("offset"), swap("sh"), swap("xyz"), lose, double, turn]
)
def test_swapped_lost_and_doubled_rows_show(
    levels: list[Tile], change: Callable[[Tile], Tile]
) -> None:
    assert tile_digest([change(levels[0]), *levels[1:]]) != tile_digest(levels)


def test_a_cell_counts_where_it_holds_something(levels: list[Tile]) -> None:
    nothing = Tile(
        FRAME,
        np.full(FRAME.shape, np.nan, np.float32),
        np.full(FRAME.shape, np.nan, np.float32),
        np.zeros(FRAME.shape, np.uint8),
        np.zeros((*FRAME.shape, 3), np.uint8),
        levels[0].voxels.take(np.arange(0)),
        levels[0].splats.take(np.arange(0)),
    )
    empty = tile_levels(nothing)
    assert tile_digest(empty) == EMPTY_DIGEST
    odd_nan = nothing.ground.copy()
    odd_nan.view(np.uint32)[:] = 0xFFC00001
    assert tile_digest([replace(nothing, ground=odd_nan), *empty[1:]]) == EMPTY_DIGEST
    zero = replace(nothing, ground=np.zeros(FRAME.shape, np.float32))
    minus = replace(nothing, ground=-zero.ground)
    assert tile_digest([zero, *empty[1:]]) == tile_digest([minus, *empty[1:]]) != EMPTY_DIGEST


def test_the_mixer_is_philox() -> None:
    counters = np.random.default_rng(3).integers(0, 2**32, (64, 4), dtype=np.uint32)
    state = np.ascontiguousarray(counters.T)
    content._philox(state, np.uint32(5), np.uint32(2**32 - 1))
    assert np.array_equal(state.T, philox4x32(counters, (5, 2**32 - 1)))


def small(filled: bool) -> Tile:
    """Two cells, one of them with a voxel; or nothing on the same frame."""
    frame = Frame("EPSG:32632", 1.0, (-3, -1), (-2, -1))
    tile = Tile(
        frame,
        np.array([[100.5, np.nan]], np.float32),
        np.array([[-0.0, np.nan]], np.float32),
        np.array([[4, 0]], np.uint8),
        np.array([[[1, 2, 3], [0, 0, 0]]], np.uint8),
        Voxels(
            frame,
            np.array([[-3, -2, 1]], np.int32),
            np.array([4], np.uint8),
            np.array([63], np.uint8),
            np.array([2**31], np.uint32),
        ),
        Splats(
            np.array([[0.25, -0.0, -0.5]], np.float32),
            np.array([[0.5, 1]], np.float32),
            np.array([[1, 0, 0, 0]], np.float32),
            np.array([1], np.float32),
            np.array([[[0.5, 0, -0.5]]], np.float32),
        ),
    )
    if filled:
        return tile
    nan, none = np.full((1, 2), np.nan, np.float32), np.arange(0)
    zero = np.zeros((1, 2, 3), np.uint8)
    return Tile(frame, nan, nan, zero[..., 0], zero, tile.voxels.take(none), tile.splats.take(none))


def reference(words: list[int]) -> list[int]:
    """The four lanes of a record, by the generator of the noise: what docs/reference/store.md
    says in words."""
    state = np.zeros((1, 4), np.uint32)
    for block in np.array(words, np.uint32).reshape(-1, 1, 4):
        fed = state ^ block
        state = philox4x32(fed, (0x65617274, 0x6867656E)) ^ fed
    last = philox4x32(state, (0x636F6E74, 0x656E7473))
    return [(int(high) << 32) + int(low) for high, low in zip(last[0], state[0], strict=True)]


def test_the_numbers_are_those_of_the_definition() -> None:
    single, half = (
        (lambda v: int(np.float32(v).view(np.uint32))),
        (lambda v: int(np.float16(v).view(np.uint16))),
    )
    x, y = (-3) % 2**32, (-2) % 2**32
    for level in range(4):
        levels = [small(False)] * 4
        levels[level] = small(True)
        cell = reference(
            [
                2**level + (4 << 8) + (1 << 24),
                x,
                y,
                single(100.5),
                0,
                1 + (2 << 8) + (3 << 16),
                0,
                0,
            ]
        )
        halves = [half(v) for v in (0.25, 0, -0.5, 0.5, 1, 1, 0, 0, 0, 1, 0.5, 0, -0.5, 0)]
        pairs = [low + (high << 16) for low, high in zip(halves[::2], halves[1::2], strict=True)]
        voxel = reference([2**level + (4 << 8) + (63 << 16) + (2 << 24), x, y, 1, 2**31, *pairs])
        assert tile_digest(levels) == tuple(
            (a + b) % 2**64 for a, b in zip(cell, voxel, strict=True)
        )
    assert tile_digest([small(False)] * 4) == EMPTY_DIGEST


def test_the_text_is_of_identity_and_content() -> None:
    texts = {
        digest_text({"seed": 1}, (1, 2, 3, 4)),
        digest_text({"seed": 2}, (1, 2, 3, 4)),
        digest_text({"seed": 1}, (1, 2, 3, 5)),
    }
    assert len(texts) == 3 and all(len(text) == 64 for text in texts)
    assert (
        identity_key({"b": 1, "a": 2.5})
        == identity_key({"a": 2.5, "b": 1})
        != identity_key({"a": 2.5, "b": 2})
    )
    assert add_digests() == EMPTY_DIGEST and add_digests((2**64 - 1, 0, 0, 1), (2, 0, 0, 1)) == (
        1,
        0,
        0,
        2,
    )
