"""A conformance kit for plugin authors: subclass a class below in your tests, and run pytest.

    from earthgen.testing import GeometryConformance

    class TestMine(GeometryConformance):
        def backend(self):
            return MyGeometry()

The checks are those of docs/architecture.md: a world is a function of the place. They run the backend's stages in
memory, as `Engine.reference` does. pytest is needed only to run them. Sparse backends and rasterisers
have a function instead, `check_sparse_backend` and `check_rasterizer`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earthgen.backends import GeometryBackend, Rasterizer, SparseBackend, TextureBackend
from earthgen.blocks import Block
from earthgen.engine import Engine
from earthgen.graph import TILE, Graph, Task
from earthgen.job import LEVELS
from earthgen.levels import Tile, crop_tile, join_tiles
from earthgen.noise import Noise, Stream
from earthgen.stages import Inputs, Read, Stage
from earthgen.voxels import FACES, GEOMETRY_FIELDS, Geometry, Splats, Voxels, texture_fields
from earthgen.workers import packed, unpacked
from geo_io.frame import Frame
from geo_io.layers import Buildings, Raster, Semantics, Trees
from geo_io.legend import codes

if TYPE_CHECKING:  # the rest of the kit needs no torch
    import torch

    from earthgen.sparse.backends import Case
    from earthgen.sparse.sites import Sites
    from earthgen.splats.cameras import Camera
    from earthgen.splats.tensors import SplatTensors

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
    i, j = np.meshgrid(
        np.arange(int(left // 24) - 1, int(right // 24) + 2), np.arange(int(bottom // 24) - 1, int(top // 24) + 2)
    )
    bx, by = i * 24.0 + 3, j * 24.0 + 3
    here = (bx + 12 > left) & (bx < right) & (by + 8 > bottom) & (by < top) & (by % 500 < 60)
    i, j, bx, by = i[here], j[here], bx[here], by[here]
    keys = ((i & 0xFFFFFFFF).astype(np.uint64) << np.uint64(32)) | (j & 0xFFFFFFFF).astype(np.uint64)
    east, north = np.mod(x - 3, 24.0), np.mod(y - 3, 24.0)  # of the cell in its plot
    house = (east > 0) & (east < 12) & (north > 0) & (north < 8) & (np.mod(y - north, 500) < 60)
    cover[house] = code["building"]
    order = np.argsort(keys)
    heights = np.where(i % 3 != 0, 5.0 + (i + j) % 4, np.nan)
    buildings = Buildings(shapely.box(bx, by, bx + 12, by + 8)[order], heights[order], keys[order])
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

SMALL = 72
"""Voxels: a tile size that does not lie on the window lattices of most backends."""


@dataclass(frozen=True)
class Recorder(Noise):
    """Noise that notes which stage draws from which stream, but for what is shared on purpose."""

    owner: str = ""  # the stage that the engine handed this to, whatever it asks for then
    drawn: dict[tuple[int, int], set[str]] = field(default_factory=dict, compare=False)

    def of_stage(self, stage: str) -> Noise:
        return replace(self, stage=stage, owner=self.owner or stage)

    def stream(self, name: str) -> Stream:
        stream = super().stream(name)
        if self.stage:
            self.drawn.setdefault(stream.key, set()).add(self.owner)
        return stream


def _once(kit: object, name: str, make: Callable[[], Any]) -> Any:
    """What `make` gives, kept on the kit's class; pytest makes an object for each check."""
    attribute = f"_{name}_made"
    if attribute not in type(kit).__dict__:  # not that of a parent: its backend is another
        setattr(type(kit), attribute, make())
    return getattr(type(kit), attribute)


class GeometryConformance:
    """Checks of a geometry backend. Override `backend`, and `conditions` where it needs others."""

    frame = Frame(CRS, 2.0, (341_700, 342_020), (2_769_400, 2_769_640))
    """Where the checks run: not square, and across a border of most lattices."""

    def backend(self) -> GeometryBackend:
        """A fresh backend."""
        raise TypeError("override `backend` to return the backend under test")

    def conditions(self) -> Mapping[str, Any]:
        """Conditions by name, each with `read(frame)`."""
        return sample_conditions()

    def texture(self) -> TextureBackend:
        return PlainTexture()

    # ---- what the checks look at --------------------------------------------------------------------------

    def engine(self, frame: Frame, seed: int = 0, noise: Noise | None = None) -> Engine:
        return Engine(frame, self.backend(), self.texture(), self.conditions(), noise or Noise(seed))

    def whole(self, frame: Frame, seed: int = 0, size: int = 256, backwards: bool = False) -> list[Tile]:
        """The world on `frame` at all levels, put together from tiles of one size."""
        make = self.engine(frame, seed).reference(size)
        tiles = [make(tx, ty) for tx, ty in (reversed(list(frame.tiles(size))) if backwards else frame.tiles(size))]
        return [
            join_tiles(frame.coarsen(level) if level > 1 else frame, [levels[n] for levels in tiles])
            for n, level in enumerate(LEVELS)
        ]

    def usual(self) -> list[Tile]:
        """The world on `frame` in the usual way, made once for all checks."""
        return _once(self, "usual", lambda: self.whole(self.frame))

    def windows(self, seed: int = 0, noise: Noise | None = None) -> Blocks:
        """The windows of every stage, near the corner of `frame`, made anew."""
        return Blocks(self.engine(self.frame, seed, noise), self.frame)

    def known(self) -> Blocks:
        """The windows of seed 0, made once for all checks."""
        return _once(self, "known", self.windows)

    def window(self, seed: int | None = None) -> Geometry:
        """A window of the geometry's last stage: the known one, or one made anew."""
        blocks = self.known() if seed is None else self.windows(seed)
        return Geometry.of(blocks.of(blocks.engine.chain.geometry))

    # ---- what it says of itself ---------------------------------------------------------------------------

    def test_attributes(self) -> None:
        backend = self.backend()
        assert backend.name and backend.version, "name and version enter the identity of worlds"
        stages = backend.stages()
        assert stages, "a backend is made of stages"
        assert dict(stages[-1].fields) == GEOMETRY_FIELDS, "the last stage gives GEOMETRY_FIELDS"

    def test_it_travels_to_workers(self) -> None:
        """A worker process gets the backend pickled."""
        backend = unpacked(packed(self.backend()))
        assert [stage.name for stage in backend.stages()] == [stage.name for stage in self.backend().stages()]

    # ---- what it makes ------------------------------------------------------------------------------------

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

    # ---- seeds --------------------------------------------------------------------------------------------

    def test_same_seed_same_bits(self) -> None:
        left, right = self.window(), self.window(seed=0)
        assert same_voxels(left.voxels, right.voxels)
        for name in ("ground", "offset", "normal"):
            assert np.array_equal(getattr(left, name), getattr(right, name))

    def test_seed_zero_is_a_seed_and_the_next_is_another_world(self) -> None:
        assert same_geometry(self.window(), self.window(seed=0))
        assert not same_geometry(self.window(), self.window(seed=1))

    def test_stages_share_no_noise(self) -> None:
        """What one stage draws no other does, but for what it takes from `noise.shared()`."""
        noise = Recorder(0)
        blocks = self.windows(noise=noise)
        for stage in blocks.engine.chain.stages:
            blocks.of(stage.name)
        twice = {key: sorted(stages) for key, stages in noise.drawn.items() if len(stages) > 1}
        assert not twice, f"stages draw from the same streams: {twice}"

    # ---- a function of the place --------------------------------------------------------------------------

    def test_any_tile_size_gives_the_same_world(self) -> None:
        for size in (SMALL, 512):
            assert same_levels(self.usual(), self.whole(self.frame, size=size)), f"tiles of {size} differ"

    def test_any_order_gives_the_same_world(self) -> None:
        assert same_levels(self.usual(), self.whole(self.frame, backwards=True))

    def test_crop_equals_whole(self) -> None:
        whole = self.usual()
        (x, nx), (y, ny) = (self.frame.x[0], self.frame.nx), (self.frame.y[0], self.frame.ny)
        inner = replace(
            self.frame, x=(x + min(37, nx // 3), x + min(90, nx - 5)), y=(y + min(11, ny // 3), y + min(171, ny - 3))
        )
        parts = self.whole(inner)
        for level, tile, part in zip(LEVELS, whole, parts, strict=True):
            assert same_tiles(crop_tile(tile, part.frame), part), f"level {level} of a crop differs"

    def test_negative_lattice(self) -> None:
        frame = replace(self.frame, x=(-40, 24), y=(-30, 18))
        assert same_levels(self.whole(frame, size=SMALL), self.whole(frame, size=256))

    def test_windows_agree_where_they_overlap(self) -> None:
        """Margins and cores are the same place: a voxel stands in both or in none."""
        blocks = self.known()
        stage = blocks.engine.chain[blocks.engine.chain.geometry]
        left, right = Geometry.of(blocks.of(stage.name)), Geometry.of(blocks.of(stage.name, 1))
        meet = left.frame.intersection(right.frame)
        if meet is None:
            assert stage.margin == 0
            return
        one, other = (g.voxels.take(g.voxels.inside(meet), meet) for g in (left, right))
        assert np.array_equal(one.xyz, other.xyz) and np.array_equal(one.semantic, other.semantic)


class TextureConformance(GeometryConformance):
    """Checks of a texture backend. Override `texture`; `backend` is then the geometry it is tried on."""

    def splats(self, seed: int | None = None) -> tuple[Geometry, Splats]:
        """A window of the texture's last stage, and the geometry in it: the known one, or one made anew."""
        blocks = self.known() if seed is None else self.windows(seed)
        chain = blocks.engine.chain
        block = blocks.of(chain.texture)
        return Geometry.of(blocks.of(chain.geometry).crop(block.frame)), Splats.of(block)

    def test_texture_fields(self) -> None:
        texture = self.texture()
        stages = texture.stages(self.backend().stages()[-1])
        assert texture.name and texture.version and dict(stages[-1].fields) == texture_fields(texture.sh_degree)

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
        assert same_splats(self.splats()[1], self.splats(seed=0)[1])


@dataclass
class Blocks:
    """Windows of the stages of an engine, made in memory where they are asked for."""

    engine: Engine
    corner: Frame
    known: dict[Task, Block] = field(default_factory=dict)

    def of(self, stage: str, east: int = 0) -> Block:
        """The window of a stage that holds the corner's south-west voxel, or one `east` of it."""
        found = self.engine.chain[stage]
        return self.fetch(Task(found.name, self.corner.x[0] // found.pitch + east, self.corner.y[0] // found.pitch))

    def fetch(self, task: Task) -> Block:
        if task not in self.known:
            self.known[task] = self.engine.block(task, self.graph(task), self.fetch)
        return self.known[task]

    def graph(self, task: Task) -> Graph:
        """A graph that has a task for every window: nothing is fused into a tile."""
        graph = self.engine.graph(SMALL)
        graph.groups = {TILE: (), **{stage.name: (stage.name,) for stage in self.engine.chain.stages}}
        return graph


def same_geometry(left: Geometry, right: Geometry) -> bool:
    dense = all(np.array_equal(getattr(left, name), getattr(right, name)) for name in ("ground", "offset", "normal"))
    return dense and same_voxels(left.voxels, right.voxels)


def same_levels(left: list[Tile], right: list[Tile]) -> bool:
    return all(same_tiles(one, other) for one, other in zip(left, right, strict=True))


class PlainTexture:
    """The least a texture can be: every voxel in one grey. For tests of geometry."""

    name = "plain"
    version = "2"
    requires: tuple[str, ...] = ()
    sh_degree = 0

    def stages(self, geometry: Stage) -> list[Stage]:
        return [Stage("plain", geometry.step, texture_fields(0), self.grey, (Read("geometry"),))]

    def grey(self, window: Frame, inputs: Inputs, noise: Noise) -> Block:
        geometry = Geometry.of(inputs["geometry"])
        n, s = len(geometry.voxels), window.voxel_size
        rotation = np.tile(np.array([1, 0, 0, 0], np.float32), (n, 1))
        return Splats(
            geometry.offset, np.full((n, 2), 0.6 * s, np.float32), rotation, np.ones(n, np.float32),
            np.zeros((n, 1, 3), np.float32),
        ).block(geometry.voxels)  # fmt: skip


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


# ---- sparse backends --------------------------------------------------------------------------------------


def check_sparse_backend(backend: SparseBackend, device: str = "cpu", dtype: torch.dtype | None = None) -> None:
    """Compare a sparse backend with torch's: results, gradients where it has them, and repetition where it promises it.

        def test_mine():
            check_sparse_backend(MySparse())

    device : torch device to compare on; dtype : of the features, float32 by default

    A backend that is not for this machine, device or dtype has to say so, and nothing else is asked of it. A case of
    `earthgen.sparse.backends.cases` it has to know; another it may refuse with a SparseBackendError.

    Raises AssertionError with what differs, and where.
    """
    import torch

    kind, where = dtype or torch.float32, torch.device(device)
    assert backend.name and all(isinstance(name, str) for name in backend.devices), "name and devices are texts"
    assert isinstance(backend.deterministic, bool), "`deterministic` is True or False"
    if backend.unavailable():
        assert isinstance(backend.unavailable(), str), "`unavailable` gives a text that says why"
        return
    reasons = [backend.refuses(where, kind, gradients) for gradients in (False, True)]
    assert all(isinstance(reason, str) for reason in reasons), "`refuses` gives a text that says why"
    assert where.type in backend.devices or reasons[0], f"{device} is none of its devices, and it does not refuse it"
    if reasons[0]:
        return
    for name, sites in _sparse_scenes(device).items():
        for case, needed in _sparse_cases(sites):
            _check_sparse_case(backend, name, case, kind, not reasons[1], needed)


def _check_sparse_case(
    backend: SparseBackend, scene: str, case: Case, dtype: torch.dtype, gradients: bool, needed: bool
) -> None:
    import torch

    from earthgen.sparse.backends import difference
    from earthgen.sparse.errors import SparseBackendError

    try:
        wrong = difference(backend, case, dtype, gradients)
    except SparseBackendError as error:
        assert not needed, f"{scene}: {case.name}: it refuses what every backend has to know: {error}"
        return
    assert not wrong, f"{scene}: {wrong}"
    if backend.deterministic and len(case.source):
        random = torch.Generator().manual_seed(3)
        features = torch.randn((len(case.source), 5), generator=random).to(case.source.device, dtype)
        weight = torch.randn((case.kernel.volume, 5, 7), generator=random).to(case.source.device, dtype)
        with torch.no_grad():
            one, other = (
                backend.convolve(features, weight, case.source, case.target, case.kernel, case.transposed)
                for _ in range(2)
            )
        assert torch.equal(one, other), f"{scene}: {case.name}: two runs differ, though it says it is deterministic"


def _sparse_scenes(device: str) -> dict[str, Sites]:
    """Voxels of several kinds: many and few, in one sample and in several, near the origin and far from it."""
    import torch

    from earthgen.sparse.backends import scattered
    from earthgen.sparse.sites import Place, make_sites

    x, y = torch.meshgrid(torch.arange(12), torch.arange(10), indexing="ij")
    top = (3 * torch.sin(x / 3) + 2 * torch.cos(y / 2)).floor().long()
    terrain = torch.stack([torch.zeros_like(x), x, y, top], -1).reshape(-1, 4)
    terrain = torch.cat([terrain, terrain - torch.tensor([0, 0, 0, 1])])
    few = scattered(20, 3, samples=1).coordinates.long()
    rows = {
        "terrain": terrain,
        "negative coordinates": few - torch.tensor([0, 101, 57, 33]),
        "far out": few + torch.tensor([0, 2**31 - 9, 0, 0]),
        "one voxel": torch.tensor([[0, 5, -3, 2]]),
        "no voxel": torch.zeros((0, 4), dtype=torch.int64),
    }
    skipped = torch.cat([few, few + torch.tensor([2, 1, 0, 0])])  # the sample between has no voxel
    place = Place(((0, 0, 0), (64, 0, -32), (0, 128, 0)))
    return {
        "random": scattered(60, 4, device),
        **{name: make_sites(found.to(device))[0] for name, found in rows.items()},
        "a batch": make_sites(skipped.to(device), place=place)[0],
    }


def _sparse_cases(sites: Sites) -> list[tuple[Case, bool]]:
    """Convolutions to compare, and whether a backend has to know them."""
    from earthgen.sparse.backends import Case, cases
    from earthgen.sparse.kernel_map import Kernel, reached

    even, long, wide = Kernel.of(2), Kernel.of((1, 5, 3), 1, (1, 2, 1)), Kernel.of(3, 2)
    others = [
        Case("submanifold, size 2", sites, sites, even),
        Case("submanifold, size (1, 5, 3), dilated", sites, sites, long),
        Case("transposed at the same sites, size 3", sites, sites, Kernel.of(3), transposed=True),
        Case("strided to all cells reached, size 3", sites, reached(sites, wide), wide),
    ]
    return [*((case, True) for case in cases(sites)), *((case, False) for case in others)]


# ---- rasterisers ------------------------------------------------------------------------------------------


def check_rasterizer(rasterizer: Rasterizer, device: str = "cpu") -> None:
    """Compare a rasteriser with the reference: pictures and gradients, but for what it says it does differently.

        def test_mine():
            check_rasterizer(MyRasterizer())

    device : torch device to draw on. A rasteriser that is not for this machine or device has to say so, and nothing
        else is asked of it.

    Raises AssertionError with what differs, and where.
    """
    import torch

    from earthgen.splats.reference import rasterize_reference

    assert rasterizer.name and all(isinstance(name, str) for name in rasterizer.devices), "name and devices are texts"
    assert isinstance(rasterizer.unavailable(), str), "`unavailable` gives a text that says why"
    if rasterizer.unavailable() or torch.device(device).type not in rasterizer.devices:
        return
    for name, splats, camera in _splat_scenes(device):
        background = torch.tensor((0.1, 0.2, 0.3), device=device)
        made = rasterizer.rasterize(splats, camera, background)
        expected = rasterize_reference(splats, camera, background=background)
        assert made.camera == camera, f"{name}: it names another camera"
        for output in ("rgb", "alpha", "depth", "median_depth", "normal", "distortion", "semantics"):
            found, wanted = getattr(made, output), getattr(expected, output)
            assert found.shape == wanted.shape, f"{name}: {output} has shape {tuple(found.shape)}"
            assert found.dtype == wanted.dtype, f"{name}: {output} is {found.dtype}"
            if output in rasterizer.differs:
                continue
            # Some roundings of float32; at a few pixels they decide whether a Gaussian is drawn.
            off = ((found.double() - wanted.double()).abs() > 1e-3).double().mean()
            assert off <= 0.01, f"{name}: {output} differs at {off:.1%} of the pixels"
            if not len(splats) or output == "semantics":
                continue
            assert found.requires_grad, f"{name}: {output} has no gradient"
            inputs = [splats.means, splats.scales, splats.rotations, splats.opacities, splats.sh]
            one, other = (
                torch.autograd.grad(given.square().sum(), inputs, retain_graph=True, allow_unused=True)
                for given in (found, wanted)
            )
            for what, ours, theirs in zip(("means", "scales", "rotations", "opacities", "sh"), one, other, strict=True):
                if theirs is None or not theirs.any():
                    continue
                assert ours is not None, f"{name}: {output} gives {what} no gradient"
                error = (ours - theirs).norm() / theirs.norm()
                # Depths do not depend on scales but for roundings.
                small = theirs.norm() < 1e-4
                assert error < 0.02 or small, f"{name}: the gradient of {output} to {what} is {error:.1%} off"


def _splat_scenes(device: str) -> list[tuple[str, SplatTensors, Camera]]:
    """Small Gaussians before a pinhole and an orthographic camera, and none."""
    import torch

    from earthgen.splats.cameras import look_at
    from earthgen.splats.tensors import SplatTensors

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=random).to(device)

    scenes = []
    for count in (150, 0):
        random = torch.Generator().manual_seed(count)
        turns = torch.nn.functional.normalize(torch.randn((count, 4), generator=random), dim=1).to(device)
        splats = SplatTensors(
            means=((draw(count, 3) - 0.5) * 4).requires_grad_(),
            scales=(draw(count, 2) * 0.1 + 0.05).requires_grad_(),
            rotations=turns.requires_grad_(),
            opacities=(draw(count) * 0.8 + 0.1).requires_grad_(),
            sh=(draw(count, 4, 3) - 0.5).requires_grad_(),
            semantics=(draw(count) * 5).to(torch.uint8) + 1,
            anchor=(500_000.0, 5_500_000.0, 100.0),
        )
        eye, target = (500_001.0, 5_499_993.0, 104.0), splats.anchor
        pinhole = look_at(eye, target, width=50, height=35, field_of_view=45)
        orthographic = look_at(eye, target, width=50, height=35, metres_per_pixel=0.1)
        scenes += [(f"{count} Gaussians, {camera.kind}", splats, camera) for camera in (pinhole, orthographic)]
    return scenes
