"""A conformance kit for plugin authors: subclass a class below in your tests, and run pytest.

    from earthgen.testing import GeometryConformance

    class TestMine(GeometryConformance):
        def backend(self):
            return MyGeometry()

The checks are those of docs/architecture.md: a world is a function of the place. pytest is needed only to run them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen.backends import GeometryBackend, TextureBackend
from earthgen.engine import Engine, padding
from earthgen.levels import Tile
from earthgen.noise import Noise
from earthgen.voxels import FACES, Geometry, Splats, Voxels, concatenate_voxels
from geo_io.frame import Frame
from geo_io.layers import Buildings, Raster, Semantics, Trees
from geo_io.legend import codes

CRS = "EPSG:32632"


# ---- a small world to test on ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Field:
    """A condition that is a formula of the place: the same on every window, as a real one must be."""

    layer: Callable[[Frame], Any]

    def survey(self, frame: Frame) -> Mapping[str, Any]:
        return {}

    def read(self, window: Frame) -> Any:
        return self.layer(window)


def cell_centres(frame: Frame) -> tuple[NDArray, NDArray]:
    """(ny, nx) float64 x and y of the cell centres, CRS metres."""
    s = frame.voxel_size
    x = (np.arange(frame.x[0], frame.x[1]) + 0.5) * s
    y = (np.arange(frame.y[1], frame.y[0], -1) - 0.5) * s
    return np.broadcast_to(x, frame.shape), np.broadcast_to(y[:, None], frame.shape)


def hills(frame: Frame) -> Raster:
    """Smooth relief of some 20 m."""
    x, y = cell_centres(frame)
    height = 300 + 12 * np.sin(x / 170) * np.cos(y / 230) + 8 * np.sin((x + y) / 410)
    return Raster(frame, height.astype(np.float32))


def village(frame: Frame) -> Semantics:
    """Fields, a wood, a river, a road and a grid of houses 12 m x 8 m, 24 m apart, endless in all directions."""
    import shapely

    code = codes()
    x, y = cell_centres(frame)
    cover = np.full(frame.shape, code["cropland"], np.uint8)
    parcel = ((x // 90).astype(np.int64) * 7919 + (y // 60).astype(np.int64)).astype(np.uint32) | np.uint32(1)
    cover[np.mod(x, 700) < 180] = code["mixed_forest"]
    settled = np.mod(y, 500) < 160
    cover[settled] = code["residential"]
    cover[np.abs(np.mod(x, 640) - 320 + 15 * np.sin(y / 60)) < 9] = code["river"]
    cover[np.abs(np.mod(y, 500) - 80) < 3.5] = code["road"]
    left, bottom, right, top = frame.bounds
    boxes, heights, keys = [], [], []
    for i in range(int(left // 24) - 1, int(right // 24) + 2):
        for j in range(int(bottom // 24) - 1, int(top // 24) + 2):
            bx, by = i * 24.0 + 3, j * 24.0 + 3
            if bx + 12 <= left or bx >= right or by + 8 <= bottom or by >= top or not (by % 500 < 60):
                continue
            boxes.append(shapely.box(bx, by, bx + 12, by + 8))
            heights.append(5.0 + (i + j) % 4 if i % 3 else np.nan)
            keys.append(np.uint64(((i & 0xFFFFFFFF) << 32) | (j & 0xFFFFFFFF)))
            cover[(x > bx) & (x < bx + 12) & (y > by) & (y < by + 8)] = code["building"]
    order = np.argsort(np.array(keys, np.uint64))
    buildings = Buildings(
        np.array(boxes, object)[order], np.array(heights, float)[order], np.array(keys, np.uint64)[order]
    )
    trees = Trees(np.empty((0, 2)), np.empty(0), np.empty(0), np.empty(0, np.uint64))
    return Semantics(frame, cover, parcel, buildings, trees)


def sample_conditions() -> dict[str, Field]:
    """The conditions of the small world, by name."""
    return {"semantics": Field(village), "dem": Field(hills)}


def same_tiles(left: Tile, right: Tile) -> bool:
    """Whether two tiles hold the same bits."""
    dense = all(
        np.array_equal(getattr(left, name), getattr(right, name), equal_nan=name in ("ground", "surface"))
        for name in ("ground", "surface", "semantics", "rgb")
    )
    return dense and same_voxels(left.voxels, right.voxels) and same_splats(left.splats, right.splats)


def same_voxels(left: Voxels, right: Voxels) -> bool:
    return all(
        np.array_equal(getattr(left, name), getattr(right, name)) for name in ("xyz", "semantic", "faces", "object")
    )


def same_splats(left: Splats, right: Splats) -> bool:
    return all(np.array_equal(getattr(left, f.name), getattr(right, f.name)) for f in fields(Splats))


# ---- the kit --------------------------------------------------------------------------------------------


class GeometryConformance:
    """Checks of a geometry backend. Override `backend`, and `conditions` where it needs others."""

    frame = Frame(CRS, 2.0, (341_700, 342_020), (2_769_400, 2_769_720))
    """Where the checks run: a little more than a window on each side at most, whatever the window's size."""

    def backend(self) -> GeometryBackend:
        """A fresh backend."""
        raise TypeError("override `backend` to return the backend under test")

    def conditions(self) -> Mapping[str, Any]:
        """Conditions by name, each with `read(frame)`."""
        return sample_conditions()

    def texture(self) -> TextureBackend:
        return PlainTexture()

    def engine(self, frame: Frame, seed: int = 0) -> Engine:
        return Engine(frame, self.backend(), self.texture(), self.conditions(), Noise(seed))

    def whole(self, frame: Frame, seed: int = 0, size: int = 256) -> Tile:
        """The world on `frame`, put together from tiles of one size."""
        engine = self.engine(frame, seed)
        return _assemble(frame, [engine.tile(tx, ty, size) for tx, ty in frame.tiles(size)])

    def window(self, seed: int = 0) -> Geometry:
        backend = self.backend()
        window = self.frame.tile(self.frame.x[0] // backend.window, self.frame.y[0] // backend.window, backend.window)
        padded = padding(window, backend.halo)
        layers = {name: condition.read(padded) for name, condition in self.conditions().items()}
        return backend.generate(window, layers, Noise(seed))

    def test_attributes(self) -> None:
        backend = self.backend()
        assert backend.name and backend.version, "name and version enter the identity of worlds"
        assert backend.window >= 8 and backend.halo >= 0

    def test_voxels_lie_in_their_window_once_and_sorted(self) -> None:
        geometry = self.window()
        voxels = geometry.voxels
        assert len(voxels) and voxels.inside(geometry.frame).all()
        assert np.array_equal(voxels.order(), np.arange(len(voxels))), "sort by (y, x, z)"
        assert (np.diff(voxels.xyz[:, [1, 0, 2]], axis=0) != 0).any(axis=1).all(), "a voxel stands twice"
        assert (voxels.faces > 0).all(), "a surface voxel has an open side"
        assert voxels.semantic.max() <= 25 and voxels.semantic.min() >= 1

    def test_every_column_has_a_top(self) -> None:
        geometry = self.window()
        x, y, _ = geometry.voxels.xyz[(geometry.voxels.faces & FACES["+z"]) > 0].T
        frame = geometry.frame
        seen = np.zeros(frame.shape, bool)
        seen[frame.y[1] - 1 - y, x - frame.x[0]] = True
        assert seen.all(), f"{(~seen).sum()} columns have no voxel that is open above"
        assert np.isfinite(geometry.ground).all()

    def test_surface_is_closed(self) -> None:
        """No holes: where a voxel is closed sideways, the neighbouring column has a voxel or is solid there."""
        geometry = self.window()
        assert open_sides(geometry.voxels) == 0

    def test_normals_are_unit_and_offsets_small(self) -> None:
        geometry = self.window()
        assert np.allclose(np.linalg.norm(geometry.normal, axis=1), 1, atol=1e-3)
        assert (np.abs(geometry.offset[:, :2]) <= 0.501 * geometry.frame.voxel_size).all()

    def test_same_seed_same_bits(self) -> None:
        left, right = self.window(seed=7), self.window(seed=7)
        assert same_voxels(left.voxels, right.voxels)
        for name in ("ground", "offset", "normal"):
            assert np.array_equal(getattr(left, name), getattr(right, name))

    def test_seed_zero_is_a_seed_and_the_next_is_another_world(self) -> None:
        assert same_voxels(self.window(seed=0).voxels, self.window(seed=0).voxels)
        assert not same_voxels(self.window(seed=0).voxels, self.window(seed=1).voxels)

    def test_any_tile_size_gives_the_same_world(self) -> None:
        reference = self.whole(self.frame, size=256)
        for size in (64, 104, 512):
            assert same_tiles(reference, self.whole(self.frame, size=size)), f"tiles of {size} differ"

    def test_crop_equals_whole(self) -> None:
        whole = self.whole(self.frame)
        inner = replace(
            self.frame, x=(self.frame.x[0] + 37, self.frame.x[0] + 90), y=(self.frame.y[0] + 11, self.frame.y[0] + 171)
        )
        assert same_tiles(_cut(whole, inner), self.whole(inner))

    def test_negative_lattice(self) -> None:
        frame = replace(self.frame, x=(-40, 24), y=(-30, 18))
        assert same_tiles(self.whole(frame, size=64), self.whole(frame, size=104))


class TextureConformance(GeometryConformance):
    """Checks of a texture backend. Override `texture`; `backend` is then the geometry it is tried on."""

    def splats(self, seed: int = 0) -> tuple[Geometry, Splats]:
        geometry = self.window(seed)
        texture = self.texture()
        padded = padding(geometry.frame, texture.halo)
        layers = {name: condition.read(padded) for name, condition in self.conditions().items()}
        return geometry, texture.generate(geometry, layers, Noise(seed))

    def test_one_sound_gaussian_a_voxel(self) -> None:
        geometry, splats = self.splats()
        n, k = len(geometry.voxels), (self.texture().sh_degree + 1) ** 2
        shapes = {"offset": (n, 3), "scale": (n, 2), "rotation": (n, 4), "opacity": (n,), "sh": (n, k, 3)}
        for name, shape in shapes.items():
            values = getattr(splats, name)
            assert values.shape == shape and values.dtype == np.float32, name
            assert np.isfinite(values).all(), name
        assert (splats.scale > 0).all() and (splats.opacity > 0).all() and (splats.opacity <= 1).all()
        assert np.allclose(np.linalg.norm(splats.rotation, axis=1), 1, atol=1e-3)

    def test_texture_same_seed_same_bits(self) -> None:
        assert same_splats(self.splats(seed=3)[1], self.splats(seed=3)[1])


class PlainTexture:
    """The least a texture can be: every voxel in one grey. For tests of geometry."""

    name = "plain"
    version = "1"
    halo = 0.0
    requires: tuple[str, ...] = ()
    sh_degree = 0

    def generate(self, geometry: Geometry, conditions: Mapping[str, Any], noise: Noise) -> Splats:
        n, s = len(geometry.voxels), geometry.frame.voxel_size
        rotation = np.tile(np.array([1, 0, 0, 0], np.float32), (n, 1))
        return Splats(
            geometry.offset, np.full((n, 2), 0.6 * s, np.float32), rotation, np.ones(n, np.float32),
            np.zeros((n, 1, 3), np.float32),
        )  # fmt: skip


def open_sides(voxels: Voxels) -> int:
    """How many holes the surface has, along x and y inside its frame.

    A column is known from its voxels: going down, a voxel opens a solid stretch, and a face that looks down ends
    it. A hole is a place where a solid cell meets an open one and no face says so.
    """
    frame = voxels.frame
    low, high = int(voxels.xyz[:, 2].min()) - 1, int(voxels.xyz[:, 2].max()) + 2
    surface = np.zeros((frame.ny, frame.nx, high - low), np.uint8)
    x, y, z = voxels.xyz.T
    surface[y - frame.y[0], x - frame.x[0], z - low] = voxels.faces
    listed = np.zeros(surface.shape, bool)
    listed[y - frame.y[0], x - frame.x[0], z - low] = True
    solid = np.zeros(surface.shape, bool)
    inside = np.zeros(surface.shape[:2], bool)
    for k in range(surface.shape[2] - 1, -1, -1):  # from the top: a +z face enters the solid, a -z face leaves it
        inside = np.where(listed[..., k], True, inside)
        solid[..., k] = inside
        inside &= ~((surface[..., k] & FACES["-z"]) > 0)
    holes = 0
    for axis, (minus, plus) in enumerate((("-y", "+y"), ("-x", "+x"))):
        first = solid.take(range(solid.shape[axis] - 1), axis)
        second = solid.take(range(1, solid.shape[axis]), axis)
        faces_first = (surface.take(range(solid.shape[axis] - 1), axis) & FACES[plus]) > 0
        faces_second = (surface.take(range(1, solid.shape[axis]), axis) & FACES[minus]) > 0
        holes += int((first & ~second & ~faces_first).sum() + (second & ~first & ~faces_second).sum())
    return holes


def _assemble(frame: Frame, tiles: list[Tile]) -> Tile:
    dense: dict[str, NDArray] = {
        "ground": np.full(frame.shape, np.nan, np.float32), "surface": np.full(frame.shape, np.nan, np.float32),
        "semantics": np.zeros(frame.shape, np.uint8), "rgb": np.zeros((*frame.shape, 3), np.uint8),
    }  # fmt: skip
    for tile in tiles:
        for name, whole in dense.items():
            whole[frame.slices(tile.frame)] = getattr(tile, name)
    voxels = concatenate_voxels(frame, [tile.voxels for tile in tiles])
    order = voxels.order()
    splats = Splats.concatenate([tile.splats for tile in tiles])
    return Tile(frame, **dense, voxels=voxels.take(order), splats=splats.take(order))


def _cut(tile: Tile, frame: Frame) -> Tile:
    rows, columns = tile.frame.slices(frame)
    keep = tile.voxels.inside(frame)
    return Tile(
        frame, tile.ground[rows, columns], tile.surface[rows, columns], tile.semantics[rows, columns],
        tile.rgb[rows, columns], tile.voxels.take(keep, frame), tile.splats.take(keep),
    )  # fmt: skip
