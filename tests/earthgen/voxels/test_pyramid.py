"""Levels of detail: independent of the piece, equal to a reference, and closed."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from earthgen.errors import PluginError
from earthgen.stages.block import Block, column_order, within
from earthgen.voxels.pyramid import LEVEL_HALO, build_pyramid, tile_levels
from earthgen.voxels.splat_math import base_colours, disc_normals, disc_rotations
from earthgen.voxels.tile import LEVELS, Tile, crop_tile, join_tiles, tile_from_voxels
from earthgen.voxels.voxels import FACES, GEOMETRY_FIELDS, Splats, Voxels, texture_fields
from geo_io.errors import FrameError
from geo_io.frame import Frame

FRAME = Frame("EPSG:32632", 0.3, (-24, 16), (8, 40), (-8, 16))
"""It crosses the origin; its voxel size is no power of two."""

DENSE = ("ground", "surface", "semantics", "rgb")


@dataclass(frozen=True)
class World:
    """Random voxels on and around FRAME. `solid` is (y, x, z) on the frame of `geometry`, rows
    from the south."""

    solid: NDArray
    geometry: Block
    texture: Block

    def pyramid(self, frame: Frame = FRAME) -> list[Tile]:
        return build_pyramid(
            frame, self.geometry.crop(frame.pad(LEVEL_HALO)), self.texture.crop(frame)
        )

    def tile(self, frame: Frame) -> Tile:
        ground, texture = (
            self.geometry["ground"][self.geometry.frame.slices(frame)],
            self.texture.crop(frame),
        )
        here = self.geometry.crop(frame)
        voxels = Voxels(frame, here.xyz, here["semantic"], here["faces"], here["object"])
        return tile_from_voxels(frame, ground, voxels, Splats.of(texture))


def make_world(seed: int = 0, share: float = 0.3, closed: bool = True) -> World:
    """Random voxels on solid ground, with caves and floating voxels.

    Unless `closed`, sides are open at random, as no solid has them, and many voxels are left out.
    """
    rng = np.random.default_rng(seed)
    frame = FRAME.pad(LEVEL_HALO + 8)
    solid = rng.random((*frame.shape, frame.z[1] - frame.z[0])) < share * np.linspace(
        2, 0, frame.z[1] - frame.z[0]
    )
    solid[..., :8] = True
    solid[:, rng.random(frame.nx) < 0.3, 8:] = False  # bare strips
    faces = open_faces(solid)
    if not closed:
        faces = np.where(
            rng.random(solid.shape) < 0.5 * share, 1 << rng.integers(0, 6, solid.shape), 0
        ).astype(np.uint8)
    place = np.argwhere(faces)
    xyz = (place[:, [1, 0, 2]] + [frame.x[0], frame.y[0], frame.z[0]]).astype(np.int32)
    n = len(xyz)
    ground = rng.random(frame.shape, np.float32) * 10 + 300
    normal = rng.normal(size=(n, 3)) + np.array([0, 0, 0.5])
    normal = (normal / np.linalg.norm(normal, axis=1, keepdims=True)).astype(np.float32)
    values = {
        "semantic": rng.integers(1, 6, n).astype(np.uint8),
        "faces": faces[tuple(place.T)],
        "object": rng.integers(0, 9, n).astype(np.uint32),
        "offset": rng.random((n, 3), np.float32) - 0.5,
        "normal": normal,
    }
    geometry = Block(frame, {"ground": ground}, xyz, values)
    geometry.require(GEOMETRY_FIELDS, "made-up")
    values = {
        "offset": values["offset"],
        "scale": rng.random((n, 2), np.float32),
        "rotation": disc_rotations(normal),
        "opacity": rng.random(n, np.float32),
        "sh": rng.random((n, 4, 3), np.float32) * 2 - 1,
    }
    texture = Block(frame, {}, xyz, values)
    texture.require(texture_fields(1), "made-up")
    return World(solid, geometry, texture)


def open_faces(solid: NDArray) -> NDArray:
    """Bits of FACES of a bool volume (y, x, z): solid below, empty above, borders repeated."""
    padded = np.pad(np.pad(solid, [(1, 1), (1, 1), (0, 0)], "edge"), [(0, 0), (0, 0), (1, 1)])
    padded[..., 0] = True
    faces = np.zeros(solid.shape, np.uint8)
    for axis, name in enumerate("yxz"):
        for sign, step in (("-", 1), ("+", -1)):
            neighbour = np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1]
            faces |= np.where(solid & ~neighbour, FACES[sign + name], 0).astype(np.uint8)
    return faces


def assert_same(left: Tile, right: Tile) -> None:
    """Assert that two tiles are equal to the bit."""
    assert left.frame == right.frame
    assert left.voxels.frame == left.frame and right.voxels.frame == right.frame
    for name in DENSE:
        assert getattr(left, name).dtype == getattr(right, name).dtype
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)
    for a, b in ((left.voxels, right.voxels), (left.splats, right.splats)):
        for field in fields(a):
            if field.name != "frame":
                assert getattr(a, field.name).dtype == getattr(b, field.name).dtype
                np.testing.assert_array_equal(
                    getattr(a, field.name), getattr(b, field.name), err_msg=field.name
                )


def reference(tile: Tile) -> Tile:
    """The tile at twice the voxel size by plain numpy, without neighbours."""
    frame = tile.frame.coarsen(2)
    ground = mean_of_four(blocks(tile.ground, tile.frame, frame, np.nan))
    surface = mean_of_four(blocks(tile.surface, tile.frame, frame, np.nan))
    classes = blocks(tile.semantics, tile.frame, frame, 0)
    votes = np.stack([(classes == classes[i]).sum(axis=0) * (classes[i] > 0) for i in range(4)])
    semantics = np.take_along_axis(classes, votes.argmax(axis=0)[None], axis=0)[0]
    rgb = np.stack(
        [blocks(tile.rgb[..., band], tile.frame, frame, 0) for band in range(3)], axis=-1
    )
    covered = classes > 0
    weight = np.maximum(covered.sum(axis=0), 1)[..., None]
    rgb = np.rint((rgb * covered[..., None]).sum(axis=0) / weight).astype(np.uint8)

    voxels, splats = tile.voxels, tile.splats
    xyz, parent = np.unique(voxels.xyz[:, [1, 0, 2]] >> 1, axis=0, return_inverse=True)
    xyz, parent = xyz[:, [1, 0, 2]].astype(np.int32), parent.ravel()
    count = np.bincount(parent).astype(np.float32)

    def mean(values: NDArray) -> NDArray:
        total = np.zeros((len(xyz), *values.shape[1:]), np.float32)
        np.add.at(total, parent, values)  # one row after the other
        return total / count.reshape(-1, *[1] * (values.ndim - 1))

    top = np.zeros(len(xyz), int)
    order = np.lexsort((np.arange(len(parent)), voxels.xyz[:, 2]))
    top[parent[order]] = order  # the last one written stays
    faces = np.zeros(len(xyz), np.uint8)
    np.bitwise_or.at(faces, parent, voxels.faces)
    low = xyz.min(axis=0) - 1
    stands = np.zeros(xyz.max(axis=0) - low + 2, bool)
    stands[tuple((xyz - low).T)] = True
    for axis, name in enumerate("xyz"):
        for sign, step in (("-", -1), ("+", 1)):
            beside = xyz - low + step * np.eye(3, dtype=int)[axis]
            faces[stands[tuple(beside.T)]] &= 255 - FACES[sign + name]
    centre = ((voxels.xyz & 1) - 0.5) * tile.frame.voxel_size
    normal = mean(disc_normals(splats.rotation))
    length = np.sqrt(normal[:, 0] ** 2 + normal[:, 1] ** 2 + normal[:, 2] ** 2)[:, None]
    normal = np.where(length > 1e-6, normal / np.maximum(length, 1e-6), np.float32([0, 0, 1]))
    merged = Splats(
        mean(splats.offset + centre.astype(np.float32)),
        mean(splats.scale) * 2,
        disc_rotations(normal),
        mean(splats.opacity),
        mean(splats.sh),
    )
    standing = Voxels(frame, xyz, voxels.semantic[top], faces, voxels.object[top])
    seen = faces > 0
    return Tile(frame, ground, surface, semantics, rgb, standing.take(seen), merged.take(seen))


def blocks(data: NDArray, fine: Frame, coarse: Frame, fill: float) -> NDArray:
    """(4, ny, nx): the four children of each coarse cell, `fill` outside the fine frame."""
    full = np.full((coarse.ny * 2, coarse.nx * 2), fill, data.dtype)
    row, column = coarse.y[1] * 2 - fine.y[1], fine.x[0] - coarse.x[0] * 2
    full[row : row + fine.ny, column : column + fine.nx] = data
    return np.stack([full[0::2, 0::2], full[0::2, 1::2], full[1::2, 0::2], full[1::2, 1::2]])


def mean_of_four(children: NDArray) -> NDArray:
    there = np.isfinite(children)
    total = np.where(there, children, 0).astype(np.float64).sum(axis=0)
    with np.errstate(invalid="ignore"):
        return (total / there.sum(axis=0)).astype(np.float32)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), share=st.sampled_from([0.02, 0.2, 0.45]), closed=st.booleans())
def test_kernels_equal_the_reference(seed: int, share: float, closed: bool) -> None:
    world = make_world(seed, share, closed)
    wide = world.tile(FRAME.pad(LEVEL_HALO))
    for level, tile in zip(LEVELS, world.pyramid(), strict=True):
        assert tile.frame == FRAME.coarsen(level)
        keep = wide.voxels.inside(tile.frame)
        rows = wide.frame.slices(tile.frame)
        voxels, splats = wide.voxels.take(keep, tile.frame), wide.splats.take(keep)
        assert_same(
            tile, Tile(tile.frame, *(getattr(wide, name)[rows] for name in DENSE), voxels, splats)
        )
        wide = reference(wide)


def test_levels_of_a_tile_alone_equal_the_reference() -> None:
    """Frames that are not aligned, and columns without data."""
    world = make_world(2)
    frame = replace(FRAME, x=(-21, 10), y=(11, 38))
    tile = crop_tile(world.tile(frame), frame, np.random.default_rng(0).random(frame.shape) < 0.6)
    for coarse in tile_levels(tile):
        assert_same(coarse, tile)
        tile = reference(tile)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    share=st.sampled_from([0.02, 0.2, 0.45]),
    closed=st.booleans(),
    data=st.data(),
)
def test_levels_do_not_depend_on_the_piece(
    seed: int, share: float, closed: bool, data: st.DataObject
) -> None:
    world = make_world(seed, share, closed)
    edges = [
        data.draw(st.sets(st.integers(a // 8, b // 8), min_size=2, max_size=2))
        for a, b in (FRAME.x, FRAME.y)
    ]
    x, y = ((min(e) * 8, max(e) * 8) for e in edges)
    piece = replace(FRAME, x=x, y=y)
    for whole, part in zip(world.pyramid(), world.pyramid(piece), strict=True):
        assert_same(crop_tile(whole, part.frame), part)


@pytest.mark.parametrize("seed", range(4))
def test_coarse_voxels_are_the_surface_of_the_coarse_solid(seed: int) -> None:
    """The surface has neither holes nor inner walls at any level, also at the border of a piece."""
    world = make_world(seed, (0.02, 0.2, 0.3, 0.45)[seed])
    outer = world.geometry.frame
    for level, tile in zip(LEVELS, world.pyramid(), strict=True):
        shape = [length // level for length in world.solid.shape]
        pooled = world.solid.reshape(shape[0], level, shape[1], level, shape[2], level).any(
            axis=(1, 3, 5)
        )
        faces = open_faces(pooled)
        place = np.argwhere(faces)
        frame = outer.coarsen(level)
        xyz = place[:, [1, 0, 2]] + [frame.x[0], frame.y[0], frame.z[0]]
        here = within(xyz, tile.frame)
        assert np.array_equal(tile.voxels.xyz, xyz[here])
        assert np.array_equal(tile.voxels.faces, faces[tuple(place[here].T)])


def test_a_smaller_halo_is_not_enough() -> None:
    """Levels differ if the voxels around the piece are missing: the halo is necessary."""
    world = make_world(1)
    known, unknown = world.pyramid(), tile_levels(world.tile(FRAME))
    assert_same(known[0], unknown[0])
    assert not any(
        np.array_equal(a.voxels.xyz, b.voxels.xyz)
        for a, b in zip(known[1:], unknown[1:], strict=True)
    )
    for a, b in zip(known, unknown, strict=True):
        for name in DENSE:
            assert np.array_equal(
                getattr(a, name), getattr(b, name), equal_nan=name in ("ground", "surface")
            )


@pytest.mark.parametrize(
    ("last", "sides"), [(True, FACES["+z"]), (False, FACES["+z"] | FACES["+x"])]
)
def test_what_stands_thirteen_voxels_away_matters(last: bool, sides: int) -> None:
    """A voxel in the outer halo changes level 8: it hides a voxel at level 2, which then does not
    hide one at level 4, which then does not close the piece's voxel at level 8."""
    frame = replace(FRAME, x=(0, 8), y=(0, 8))
    x = [7, 15, 19, 20] if last else [7, 15, 19]
    n = len(x)
    xyz = np.array([[value, 0, 0] for value in x], np.int32)
    faces = np.array([FACES["+x"] | FACES["+z"], *[FACES["+x"]] * (n - 1)], np.uint8)
    around = frame.pad(LEVEL_HALO)
    sparse = {"semantic": np.ones(n, np.uint8), "faces": faces, "object": np.zeros(n, np.uint32)}
    geometry = Block(around, {"ground": np.zeros(around.shape, np.float32)}, xyz, sparse)
    here = Voxels(frame, xyz, sparse["semantic"], faces, sparse["object"]).take(np.arange(1))
    tile = build_pyramid(frame, geometry, plain_splats(1).block(here))[-1]
    assert tile.voxels.faces.tolist() == [sides]


def test_thin_towers_of_any_height() -> None:
    z = np.array([0, 1, 2, 400, 401, 100_000], np.int32)
    frame = replace(FRAME, x=(3, 4), y=(9, 10), z=(0, 2**20))
    voxels = Voxels(
        frame,
        np.stack([z * 0 + 3, z * 0 + 9, z], axis=1),
        np.arange(1, 7, dtype=np.uint8),
        np.full(6, 63, np.uint8),
        np.arange(6, dtype=np.uint32),
    )
    levels = tile_levels(
        tile_from_voxels(frame, np.zeros((1, 1), np.float32), voxels, plain_splats(6))
    )
    assert levels[1].voxels.xyz.tolist() == [[1, 4, 0], [1, 4, 1], [1, 4, 200], [1, 4, 50_000]]
    assert levels[1].voxels.semantic.tolist() == [2, 3, 5, 6]  # of the topmost child
    assert levels[1].voxels.faces.tolist() == [63 - 32, 63 - 16, 63, 63]
    assert levels[3].voxels.xyz[:, 2].tolist() == [0, 50, 12_500]
    assert levels[3].voxels.object.tolist() == [2, 4, 5]


def plain_splats(n: int) -> Splats:
    return Splats(
        np.zeros((n, 3), np.float32),
        np.ones((n, 2), np.float32),
        np.tile(np.float32([1, 0, 0, 0]), (n, 1)),
        np.ones(n, np.float32),
        np.zeros((n, 1, 3), np.float32),
    )


def plain(frame: Frame) -> Tile:
    """Flat ground of one class, a disc on the top of each voxel."""
    y, x = np.mgrid[frame.y[0] : frame.y[1], frame.x[0] : frame.x[1]].reshape(2, -1)
    n = len(x)
    xyz = np.stack([x, y, np.full(n, -1)], axis=1).astype(np.int32)
    voxels = Voxels(
        frame, xyz, np.ones(n, np.uint8), np.full(n, FACES["+z"], np.uint8), np.zeros(n, np.uint32)
    )
    up = np.tile(np.float32([0, 0, frame.voxel_size / 2]), (n, 1))
    colour = np.random.default_rng(0).random((n, 1, 3), np.float32)
    ground = np.full(frame.shape, 300, np.float32)
    return tile_from_voxels(frame, ground, voxels, replace(plain_splats(n), offset=up, sh=colour))


def test_dense_layers_are_what_the_voxels_show() -> None:
    frame = replace(FRAME, voxel_size=1.0, x=(-13, 50), y=(7, 60))
    tile = plain(frame)
    assert (tile.surface == tile.ground).all() and (tile.ground == 300).all()
    assert (tile.semantics == 1).all()
    assert np.array_equal(
        tile.rgb[::-1].reshape(-1, 3), base_colours(tile.splats.sh)
    )  # rows run from the north
    for level, coarse in zip(LEVELS, tile_levels(tile), strict=True):
        assert coarse.frame == frame.coarsen(level)
        assert (coarse.ground == 300).all() and (coarse.semantics == 1).all()
        assert len(coarse.voxels) == coarse.frame.nx * coarse.frame.ny
        assert np.allclose(np.linalg.norm(coarse.splats.rotation, axis=1), 1)
        assert np.allclose(
            coarse.splats.offset[:, 2], level / 2
        )  # the surface stays the top of the voxel
        assert np.allclose(coarse.splats.scale, level)


def test_columns_without_voxels_have_no_data() -> None:
    tile = plain(FRAME)
    keep = tile.voxels.xyz[:, 0] >= -8
    bare = tile_from_voxels(
        FRAME, np.full(FRAME.shape, 300, np.float32), tile.voxels.take(keep), tile.splats.take(keep)
    )
    for level, coarse in zip(LEVELS, tile_levels(bare), strict=True):
        empty = 16 // level
        assert (
            np.isnan(coarse.ground[:, :empty]).all() and np.isnan(coarse.surface[:, :empty]).all()
        )
        assert not coarse.semantics[:, :empty].any() and not coarse.rgb[:, :empty].any()
        assert (
            np.isfinite(coarse.surface[:, empty:]).all()
            and (coarse.semantics[:, empty:] == 1).all()
        )


def test_a_tile_without_voxels() -> None:
    tile = plain(FRAME)
    none = np.zeros(len(tile.voxels), bool)
    levels = tile_levels(
        tile_from_voxels(FRAME, tile.ground, tile.voxels.take(none), tile.splats.take(none))
    )
    for coarse in levels:
        assert len(coarse.voxels) == len(coarse.splats) == 0
        assert coarse.splats.sh.shape == (0, 1, 3)
        assert np.isnan(coarse.ground).all()


def test_joined_pieces_are_the_whole() -> None:
    world = make_world(3)
    pieces = [replace(FRAME, x=x, y=y) for x in ((-24, -8), (-8, 16)) for y in ((8, 32), (32, 40))]
    parts = [world.pyramid(piece) for piece in pieces]
    for n, whole in enumerate(world.pyramid()):
        assert_same(join_tiles(whole.frame, [part[n] for part in parts]), whole)
        assert_same(join_tiles(whole.frame, [part[n] for part in reversed(parts)]), whole)
        assert join_tiles(whole.frame, [whole]) is whole


def test_no_data_between_joined_tiles() -> None:
    whole = make_world(4).pyramid()[0]
    parts = [
        crop_tile(whole, replace(FRAME, x=x, y=y))
        for x, y in (((-20, -10), (8, 11)), ((0, 3), (10, 40)))
    ]
    joined = join_tiles(FRAME, parts)
    inside = np.zeros(FRAME.shape, bool)
    for part in parts:
        inside[FRAME.slices(part.frame)] = True
    assert_same(joined, crop_tile(whole, FRAME, inside))
    assert np.isnan(joined.ground[~inside]).all() and not joined.semantics[~inside].any()


def test_crop_by_a_mask() -> None:
    whole = make_world(5).pyramid()[0]
    frame = replace(FRAME, x=(-21, 9), y=(9, 38))
    inside = np.random.default_rng(0).random(frame.shape) < 0.5
    part = crop_tile(whole, frame, inside)
    xyz = whole.voxels.xyz
    keep = within(xyz, frame)
    keep[keep] = inside[frame.y[1] - 1 - xyz[keep, 1], xyz[keep, 0] - frame.x[0]]
    ground = np.where(inside, whole.ground[whole.frame.slices(frame)], np.float32(np.nan))
    assert_same(
        part,
        tile_from_voxels(frame, ground, whole.voxels.take(keep, frame), whole.splats.take(keep)),
    )
    nothing = crop_tile(whole, frame, np.zeros(frame.shape, bool))
    assert len(nothing.voxels) == 0 and np.isnan(nothing.surface).all()
    assert crop_tile(whole, FRAME) is whole


def test_what_does_not_fit_is_refused() -> None:
    world = make_world(6)
    geometry, texture = world.geometry.crop(FRAME.pad(LEVEL_HALO)), world.texture.crop(FRAME)
    with pytest.raises(FrameError, match="whole voxels of level 8"):
        build_pyramid(replace(FRAME, x=(-20, 16)), geometry, texture)
    with pytest.raises(FrameError, match="need a block on"):
        build_pyramid(FRAME, world.geometry.crop(FRAME.pad(8)), texture)
    short = Block(FRAME, {}, texture.xyz[1:], {name: a[1:] for name, a in texture.sparse.items()})
    with pytest.raises(PluginError, match="Gaussians do not match"):
        build_pyramid(FRAME, geometry, short)
    order = column_order(geometry.xyz)[::-1]
    turned = replace(
        geometry, xyz=geometry.xyz[order], sparse={k: a[order] for k, a in geometry.sparse.items()}
    )
    with pytest.raises(PluginError, match="not sorted"):
        build_pyramid(FRAME, turned, texture)
    tile = world.tile(FRAME)
    with pytest.raises(PluginError, match="not sorted"):
        tile_levels(replace(tile, frame=FRAME.pad(-8)))
    with pytest.raises(FrameError, match="overlaps"):
        join_tiles(FRAME, [tile, crop_tile(tile, FRAME.pad(-8))])
    with pytest.raises(FrameError, match="no tiles"):
        join_tiles(FRAME, [])
    with pytest.raises(FrameError, match="mask of shape"):
        crop_tile(tile, FRAME, np.ones((2, 2), bool))


def test_rotations_turn_up_into_the_normal() -> None:
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(500, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    normal = np.concatenate([normal, [[0, 0, 1], [0, 0, -1], [1, 0, 0]]]).astype(np.float32)
    turned = disc_normals(disc_rotations(normal))
    assert np.allclose(turned, normal, atol=1e-3)
