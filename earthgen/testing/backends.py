"""The conformance checks of geometry and texture backends: classes of tests to subclass.

    from earthgen.testing import GeometryConformance

    class TestMine(GeometryConformance):
        def backend(self):
            return MyGeometry()

They check that a world is a function of seed, inputs and position, as docs/plugins/testing.md
explains. The backend's stages run in memory, as in `Engine.reference`; pytest only collects them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from earthgen.engine.compute import Engine
from earthgen.engine.graph import TILE, Graph, Task
from earthgen.engine.worker import packed, unpacked
from earthgen.noise.philox import Noise, Stream
from earthgen.stages.backends import GeometryBackend, TextureBackend
from earthgen.stages.block import Block, Inputs
from earthgen.stages.stage import Read, Stage
from earthgen.testing.worlds import (
    CRS,
    SMALL,
    count_holes,
    same_splats,
    same_tiles,
    same_voxels,
    sample_conditions,
)
from earthgen.voxels.tile import LEVELS, Tile, crop_tile, join_tiles
from earthgen.voxels.voxels import (
    FACES,
    GEOMETRY_FIELDS,
    Geometry,
    Splats,
    texture_fields,
)
from geo_io.frame import Frame


@dataclass(frozen=True)
class RecordingNoise(Noise):
    """Noise that records which stage draws from which stream, without the shared streams."""

    owner: str = ""  # the stage to which the engine gave this noise
    drawn: dict[tuple[int, int], set[str]] = field(default_factory=dict, compare=False)

    def of_stage(self, stage: str) -> Noise:
        return replace(self, stage=stage, owner=self.owner or stage)

    def stream(self, name: str) -> Stream:
        stream = super().stream(name)
        if self.stage:
            self.drawn.setdefault(stream.key, set()).add(self.owner)
        return stream


def _once(kit: object, name: str, make: Callable[[], Any]) -> Any:
    """The result of `make`, stored on the kit's class, because pytest makes an object per check."""
    attribute = f"_stored_{name}"
    if attribute not in type(kit).__dict__:  # that of a parent class comes from another backend
        setattr(type(kit), attribute, make())
    return getattr(type(kit), attribute)


class GeometryConformance:
    """Checks of a geometry backend.

    Override `backend`, and `conditions` if it needs others than `sample_conditions`.
    """

    frame = Frame(CRS, 2.0, (341_700, 342_020), (2_769_400, 2_769_640))
    """Where the checks run. It is not square, and crosses window borders of most lattices."""

    def backend(self) -> GeometryBackend:
        """Return a new backend."""
        raise TypeError("override `backend` to return the backend under test")

    def conditions(self) -> Mapping[str, Any]:
        """Return the conditions by name, each with `read(frame)`."""
        return sample_conditions()

    def texture(self) -> TextureBackend:
        """Return the texture of the worlds."""
        return PlainTexture()

    def engine(self, frame: Frame, seed: int = 0, noise: Noise | None = None) -> Engine:
        """Return an engine with a new backend."""
        return Engine(
            frame, self.backend(), self.texture(), self.conditions(), noise or Noise(seed)
        )

    def whole(
        self, frame: Frame, seed: int = 0, size: int = 256, backwards: bool = False
    ) -> list[Tile]:
        """Generate a world in tiles of one size; return it at all levels."""
        make = self.engine(frame, seed).reference(size)
        tiles = [
            make(tx, ty)
            for tx, ty in (reversed(list(frame.tiles(size))) if backwards else frame.tiles(size))
        ]
        return [
            join_tiles(
                frame.coarsen(level) if level > 1 else frame, [levels[n] for levels in tiles]
            )
            for n, level in enumerate(LEVELS)
        ]

    def shared_world(self) -> list[Tile]:
        """Return the world on `frame`, generated once for all checks."""
        return _once(self, "world", lambda: self.whole(self.frame))

    def windows(self, seed: int = 0, noise: Noise | None = None) -> StageWindows:
        """Return new windows of every stage, near the south-west corner of `frame`."""
        return StageWindows(self.engine(self.frame, seed, noise), self.frame)

    def shared_windows(self) -> StageWindows:
        """Return the windows of seed 0, computed once for all checks."""
        return _once(self, "windows", self.windows)

    def window(self, seed: int | None = None) -> Geometry:
        """Return a window of the geometry's last stage: the shared one, or a new one of a seed."""
        blocks = self.shared_windows() if seed is None else self.windows(seed)
        return Geometry.of(blocks.of(blocks.engine.chain.geometry))

    def test_attributes(self) -> None:
        backend = self.backend()
        assert backend.name and backend.version, "name and version enter the identity of worlds"
        stages = backend.stages()
        assert stages, "a backend is made of stages"
        assert dict(stages[-1].fields) == GEOMETRY_FIELDS, "the last stage gives GEOMETRY_FIELDS"

    def test_it_travels_to_workers(self) -> None:
        """Worker processes get the backend pickled."""
        backend = unpacked(packed(self.backend()))
        assert [stage.name for stage in backend.stages()] == [
            stage.name for stage in self.backend().stages()
        ]

    def test_voxels_lie_in_their_window_once_and_sorted(self) -> None:
        geometry = self.window()
        voxels = geometry.voxels
        assert len(voxels) and voxels.inside(geometry.frame).all()
        assert np.array_equal(voxels.order(), np.arange(len(voxels))), "sort by (y, x, z)"
        assert (np.diff(voxels.xyz[:, [1, 0, 2]], axis=0) != 0).any(axis=1).all(), (
            "a voxel is listed twice"
        )
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
        """There is a face between every solid cell and an open one beside it."""
        geometry = self.window()
        assert count_holes(geometry.voxels) == 0

    def test_normals_are_unit_and_offsets_small(self) -> None:
        geometry = self.window()
        assert np.allclose(np.linalg.norm(geometry.normal, axis=1), 1, atol=1e-3)
        assert (np.abs(geometry.offset[:, :2]) <= 0.501 * geometry.frame.voxel_size).all()

    def test_same_seed_same_bits(self) -> None:
        left, right = self.window(), self.window(seed=0)
        assert same_voxels(left.voxels, right.voxels)
        for name in ("ground", "offset", "normal"):
            assert np.array_equal(getattr(left, name), getattr(right, name))

    def test_seed_zero_is_a_seed_and_the_next_is_another_world(self) -> None:
        assert same_geometry(self.window(), self.window(seed=0))
        assert not same_geometry(self.window(), self.window(seed=1))

    def test_stages_share_no_noise(self) -> None:
        """No two stages draw from the same stream, except from `noise.shared()`."""
        noise = RecordingNoise(0)
        blocks = self.windows(noise=noise)
        for stage in blocks.engine.chain.stages:
            blocks.of(stage.name)
        twice = {key: sorted(stages) for key, stages in noise.drawn.items() if len(stages) > 1}
        assert not twice, f"stages draw from the same streams: {twice}"

    def test_any_tile_size_gives_the_same_world(self) -> None:
        for size in (SMALL, 512):
            assert same_levels(self.shared_world(), self.whole(self.frame, size=size)), (
                f"tiles of {size} differ"
            )

    def test_any_order_gives_the_same_world(self) -> None:
        assert same_levels(self.shared_world(), self.whole(self.frame, backwards=True))

    def test_crop_equals_whole(self) -> None:
        whole = self.shared_world()
        (x, nx), (y, ny) = (self.frame.x[0], self.frame.nx), (self.frame.y[0], self.frame.ny)
        inner = replace(
            self.frame,
            x=(x + min(37, nx // 3), x + min(90, nx - 5)),
            y=(y + min(11, ny // 3), y + min(171, ny - 3)),
        )
        parts = self.whole(inner)
        for level, tile, part in zip(LEVELS, whole, parts, strict=True):
            assert same_tiles(crop_tile(tile, part.frame), part), f"level {level} of a crop differs"

    def test_negative_lattice(self) -> None:
        frame = replace(self.frame, x=(-40, 24), y=(-30, 18))
        assert same_levels(self.whole(frame, size=SMALL), self.whole(frame, size=256))

    def test_windows_agree_where_they_overlap(self) -> None:
        """A voxel where windows overlap is in both or in neither."""
        blocks = self.shared_windows()
        stage = blocks.engine.chain[blocks.engine.chain.geometry]
        left, right = Geometry.of(blocks.of(stage.name)), Geometry.of(blocks.of(stage.name, 1))
        meet = left.frame.intersection(right.frame)
        if meet is None:
            assert stage.margin == 0
            return
        one, other = (g.voxels.take(g.voxels.inside(meet), meet) for g in (left, right))
        assert np.array_equal(one.xyz, other.xyz) and np.array_equal(one.semantic, other.semantic)


class TextureConformance(GeometryConformance):
    """Checks of a texture backend.

    Override `texture`, and `backend` for the geometry on which it is checked.
    """

    def splats(self, seed: int | None = None) -> tuple[Geometry, Splats]:
        """Return a window of the texture's last stage and the geometry in it: the shared one, or a
        new one of a seed."""
        blocks = self.shared_windows() if seed is None else self.windows(seed)
        chain = blocks.engine.chain
        block = blocks.of(chain.texture)
        return Geometry.of(blocks.of(chain.geometry).crop(block.frame)), Splats.of(block)

    def test_texture_fields(self) -> None:
        texture = self.texture()
        stages = texture.stages(self.backend().stages()[-1])
        assert (
            texture.name
            and texture.version
            and dict(stages[-1].fields) == texture_fields(texture.sh_degree)
        )

    def test_one_sound_gaussian_a_voxel(self) -> None:
        geometry, splats = self.splats()
        n, k = len(geometry.voxels), (self.texture().sh_degree + 1) ** 2
        shapes = {
            "offset": (n, 3),
            "scale": (n, 2),
            "rotation": (n, 4),
            "opacity": (n,),
            "sh": (n, k, 3),
        }
        for name, shape in shapes.items():
            values = getattr(splats, name)
            assert values.shape == shape and values.dtype == np.float32, name
            assert np.isfinite(values).all(), name
        assert (
            (splats.scale > 0).all() and (splats.opacity > 0).all() and (splats.opacity <= 1).all()
        )
        assert np.allclose(np.linalg.norm(splats.rotation, axis=1), 1, atol=1e-3)

    def test_texture_same_seed_same_bits(self) -> None:
        assert same_splats(self.splats()[1], self.splats(seed=0)[1])


@dataclass
class StageWindows:
    """Windows of the stages of an engine, computed in memory on use.

    Attributes
    ----------
    engine : Engine
    corner : Frame
        Its south-west voxel tells where the windows are.
    computed : dict of Task to Block
        The windows computed so far.
    """

    engine: Engine
    corner: Frame
    computed: dict[Task, Block] = field(default_factory=dict)

    def of(self, stage: str, east: int = 0) -> Block:
        """Return the window of a stage that holds the south-west voxel, or one `east` of it."""
        source = self.engine.chain[stage]
        x, y = self.corner.x[0] // source.pitch, self.corner.y[0] // source.pitch
        return self.fetch(Task(source.name, x + east, y))

    def fetch(self, task: Task) -> Block:
        """Return a window, computed once."""
        if task not in self.computed:
            self.computed[task] = self.engine.block(task, self.graph(task), self.fetch)
        return self.computed[task]

    def graph(self, task: Task) -> Graph:
        """Return a graph with a task per window: no stage is fused with another."""
        graph = self.engine.graph(SMALL)
        graph.groups = {
            TILE: (),
            **{stage.name: (stage.name,) for stage in self.engine.chain.stages},
        }
        return graph


def same_geometry(left: Geometry, right: Geometry) -> bool:
    """Return whether two geometries are equal bit by bit."""
    dense = all(
        np.array_equal(getattr(left, name), getattr(right, name))
        for name in ("ground", "offset", "normal")
    )
    return dense and same_voxels(left.voxels, right.voxels)


def same_levels(left: list[Tile], right: list[Tile]) -> bool:
    """Return whether two tiles are equal bit by bit at all levels."""
    return all(same_tiles(one, other) for one, other in zip(left, right, strict=True))


class PlainTexture(TextureBackend):
    """The simplest texture: all voxels have the same grey. For tests of geometry."""

    name = "plain"
    version = "2"

    def stages(self, geometry: Stage) -> list[Stage]:
        """Return one stage."""
        return [Stage("plain", geometry.step, texture_fields(0), self.grey, (Read("geometry"),))]

    def grey(self, window: Frame, inputs: Inputs, noise: Noise) -> Block:
        """Make the Gaussians of a window."""
        geometry = Geometry.of(inputs["geometry"])
        n, s = len(geometry.voxels), window.voxel_size
        rotation = np.tile(np.array([1, 0, 0, 0], np.float32), (n, 1))
        return Splats(
            geometry.offset,
            np.full((n, 2), 0.6 * s, np.float32),
            rotation,
            np.ones(n, np.float32),
            np.zeros((n, 1, 3), np.float32),
        ).block(geometry.voxels)
