"""Pictures of worlds."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from earthgen.errors import JobError, StoreError
from earthgen.progress import Progress
from earthgen.render.interfaces import View
from earthgen.voxels.splat_math import disc_rotations
from earthgen.voxels.tile import tile_from_voxels
from earthgen.voxels.voxels import Splats, Voxels
from earthgen.world.selection import select
from earthgen.world.world import World
from earthgen_preview import light
from earthgen_preview.marks import bar_length
from earthgen_preview.views import PAPER, block_depth, level_for, project_view
from earthgen_preview.zbuffer import ZBufferRenderer, paint
from geo_io.errors import RegionError
from geo_io.frame import Frame
from tests.helpers import synthetic

SH_C0 = 0.28209479177387814


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return synthetic.make(tmp_path_factory.mktemp("preview") / "world.zarr", (-37, 123), (380, 490))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Flat ground: the south-west quarter red, the south-east green, the north blue; a tower in
    the north-west."""
    store = synthetic.start(
        tmp_path_factory.mktemp("plain") / "world.zarr", (0, 96), (0, 96), tile_size=64
    )
    for tile in store.frame.tiles(64):
        frame = store.tile_frame(*tile)
        synthetic.put(store, tile, tile_from_voxels(frame, *quarters(frame, store.frame)))
    return synthetic.open_world(store.path)


def quarters(frame: Frame, whole: Frame) -> tuple[np.ndarray, Voxels, Splats]:
    i, j = np.meshgrid(np.arange(*frame.x), np.arange(*frame.y))
    u, v = i - whole.x[0], j - whole.y[0]
    tower = (u >= 20) & (u < 30) & (v >= 66) & (v < 76)
    i, j, u, v, tower = (a.ravel() for a in (i, j, u, v, tower))
    columns = []
    for n in range(len(i)):
        if not tower[n]:
            columns.append((i[n], j[n], -1, 32))
            continue
        sides = (u[n] == 20) * 1 | (u[n] == 29) * 2 | (v[n] == 66) * 4 | (v[n] == 75) * 8
        columns += [
            (i[n], j[n], k, sides | (32 if k == 29 else 0)) for k in range(30) if sides or k == 29
        ]
    rows = np.array(columns)
    xyz, faces = rows[:, :3].astype(np.int32), rows[:, 3].astype(np.uint8)
    u, v = xyz[:, 0] - whole.x[0], xyz[:, 1] - whole.y[0]
    colour = np.where(
        (v >= 48)[:, None],
        [0.1, 0.1, 0.7],
        np.where((u < 48)[:, None], [0.7, 0.1, 0.1], [0.1, 0.7, 0.1]),
    )
    colour[xyz[:, 2] >= 0] = 0.6
    n = len(xyz)
    splats = Splats(
        np.tile(np.float32([0, 0, 0.5]), (n, 1)),
        np.full((n, 2), 0.5, np.float32),
        disc_rotations(np.tile(np.float32([0, 0, 1]), (n, 1))),
        np.ones(n, np.float32),
        ((colour - 0.5) / SH_C0)[:, None].astype(np.float32),
    )
    voxels = Voxels(
        frame, xyz, np.where(xyz[:, 2] < 0, 1, 18).astype(np.uint8), faces, np.zeros(n, np.uint32)
    )
    return np.full(frame.shape, 100, np.float32), voxels, splats


def render(world: World, view: View) -> np.ndarray:
    return ZBufferRenderer(marks=False).render(world, view, Progress())


def at(
    image: np.ndarray, world: World, view: View, east: float, north: float, up: float = 100.0
) -> np.ndarray:
    """The pixel that shows a place, metres from the world's south-west corner."""
    eye = project_view(world, view)
    left, bottom, _, _ = world.frame.bounds
    point = np.array([left + east, bottom + north, up]) - eye.anchor
    column = (point @ eye.right - eye.left) / eye.metres_per_pixel
    row = (eye.top - point @ eye.up) / eye.metres_per_pixel
    return image[int(row), int(column)].astype(int)


def strongest(pixel: np.ndarray) -> int:
    return int(np.argmax(pixel))


def test_north_is_up_and_east_is_right_on_the_map(plain: World) -> None:
    image = render(plain, View("top", 192))
    assert image.shape == (192, 192, 3) and image.dtype == np.uint8
    assert (
        strongest(image[150, 40]) == 0
        and strongest(image[150, 150]) == 1
        and strongest(image[20, 150]) == 2
    )


@pytest.mark.parametrize("azimuth", [0.0, 90.0, 180.0, 200.0, 305.0])
def test_places_stand_where_the_camera_puts_them(plain: World, azimuth: float) -> None:
    view = View("oblique", 300, azimuth=azimuth, elevation=50)
    image = render(plain, view)
    for east, north, band in ((20, 20, 0), (70, 20, 1), (70, 80, 2)):
        assert strongest(at(image, plain, view, east, north)) == band


def test_the_camera_looks_from_its_azimuth(plain: World) -> None:
    south = project_view(plain, View("oblique", 300, azimuth=180.0, elevation=30.0))
    np.testing.assert_allclose(south.right, [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(south.up, [0, 0.5, np.sqrt(3) / 2], atol=1e-12)
    east = project_view(plain, View("oblique", 300, azimuth=90.0, elevation=30.0))
    np.testing.assert_allclose(
        east.right, [0, 1, 0], atol=1e-12
    )  # looking west, north is to the right
    np.testing.assert_allclose(np.cross(east.right, east.up), -east.toward, atol=1e-12)


@pytest.mark.parametrize("size", [40, 90, 500])
@pytest.mark.parametrize("azimuth", [200.0, 270.0])
def test_there_are_no_holes(plain: World, world: World, size: int, azimuth: float) -> None:
    """Whatever looks through the block's bottom meets the block, be a voxel many samples or few."""
    for made in (plain, world):
        eye = project_view(made, View("oblique", size, azimuth=azimuth))
        selection = select(made, None, level_for(made, eye.metres_per_pixel))
        canvas = paint(made, selection, eye, azimuth, Progress())
        left, bottom, right, top = selection.frame.bounds
        base = eye.low - block_depth(selection.frame.bounds)
        corners = np.array(
            [(x, y, base) for x, y in ((left, bottom), (right, bottom), (right, top), (left, top))]
        )
        pixel = eye.metres_per_pixel / canvas.samples
        column = ((corners - eye.anchor) @ eye.right - eye.left) / pixel
        row = (eye.top - (corners - eye.anchor) @ eye.up) / pixel
        inside = Image.new("1", canvas.depth.shape[::-1], 0)
        ImageDraw.Draw(inside).polygon(list(zip(column - 0.5, row - 0.5, strict=True)), fill=1)
        inner = ndimage.binary_erosion(
            np.asarray(inside), iterations=2
        )  # PIL rounds corners to pixels
        assert inner.mean() > 0.2
        assert np.isfinite(canvas.depth[inner]).all()


def test_near_things_hide_far_ones(plain: World) -> None:
    view = View("oblique", 400, azimuth=180.0, elevation=40.0)
    image = render(plain, view)
    # The tower (10 m wide, 30 m high) is grey; the ground behind it is hidden, that before it is
    # not.
    tower = at(image, plain, view, 25, 66, 115)
    assert np.ptp(tower) < 40
    assert np.ptp(at(image, plain, view, 25, 78)) < 40
    assert strongest(at(image, plain, view, 25, 60)) == 2
    # From the north it is the other way round.
    view = replace(view, azimuth=0.0)
    image = render(plain, view)
    assert (
        strongest(at(image, plain, view, 25, 78)) == 2
        and np.ptp(at(image, plain, view, 25, 64)) < 40
    )


def test_the_tower_throws_a_shadow_away_from_the_sun(plain: World) -> None:
    image = render(plain, View("top", 96))
    # The sun stands in the north-west at 45 degrees: 30 m of shadow to the south-east, over blue
    # and red ground.
    lit, shaded = image[5, 60].astype(int), image[36, 36].astype(int)
    assert shaded.sum() < 0.88 * lit.sum()
    heights = np.zeros((1, 9), np.float32)
    heights[0, 2] = 4
    np.testing.assert_allclose(
        light.shadow_heights(heights, 1.0, 270.0, 45.0)[0, 2:8], [-1, 3, 2, 1, 0, -1], atol=1e-4
    )
    np.testing.assert_allclose(
        light.shadow_heights(heights.T, 1.0, 0.0, 45.0)[2:7, 0], [-1, 3, 2, 1, 0], atol=1e-4
    )
    np.testing.assert_allclose(
        light.shadow_heights(heights, 1.0, 90.0, 45.0)[0, :3], [2, 3, -1], atol=1e-4
    )
    np.testing.assert_allclose(
        light.shadow_heights(heights.T, 1.0, 180.0, 45.0)[:3, 0], [2, 3, -1], atol=1e-4
    )


def test_a_part_is_drawn_alone(plain: World) -> None:
    left, bottom, _, _ = plain.frame.bounds
    view = View("top", 200, bounds=(left + 50, bottom + 2, left + 90, bottom + 22))
    image = render(plain, view)
    assert image.shape == (100, 200, 3)
    assert (np.argmax(image, axis=2) == 1).all()
    oblique = render(plain, replace(view, kind="oblique"))
    assert 200 in oblique.shape[:2]


def test_levels_follow_the_size(plain: World) -> None:
    assert [level_for(plain, pixel) for pixel in (0.2, 1.0, 1.9, 2.0, 7.9, 8.0, 100.0)] == [
        1,
        1,
        1,
        2,
        4,
        8,
        8,
    ]
    small = render(plain, View("top", 24))  # 4 m a pixel
    assert (
        strongest(small[18, 5]) == 0
        and strongest(small[18, 18]) == 1
        and strongest(small[3, 18]) == 2
    )
    tiny = render(plain, View("top", 16))
    assert tiny.shape == (16, 16, 3)


def test_a_coarse_map_is_not_shifted(world: World) -> None:
    """The world's corner lies off the coarse lattice; what is drawn from it still stands in its
    place."""
    left, bottom, right, top = world.frame.bounds
    for size in (80, 40, 20):
        eye = project_view(world, View("top", size))
        fine = render(world, View("top", 160)).reshape(110, 160, 3)
        coarse = render(world, View("top", size))
        assert eye.metres_per_pixel == pytest.approx((right - left) / size)
        assert coarse.shape[:2] == (round((top - bottom) / eye.metres_per_pixel), size)
        small = np.asarray(
            Image.fromarray(fine).resize(coarse.shape[1::-1], Image.Resampling.BOX)
        ).astype(float)

        def unlike(shift: int, coarse: np.ndarray = coarse, small: np.ndarray = small) -> float:
            return float(np.abs(np.roll(small, shift, axis=1) - coarse)[:, 2:-2].mean())

        assert unlike(0) < min(unlike(-1), unlike(1))


def test_the_same_picture_twice(world: World) -> None:
    view = View("oblique", 200)
    np.testing.assert_array_equal(render(world, view), render(world, view))


def test_no_data_is_paper(tmp_path: Path) -> None:
    store = synthetic.start(tmp_path / "w.zarr", (0, 128), (0, 64))
    tile = next(iter(store.frame.tiles(64)))
    frame = store.tile_frame(*tile)
    synthetic.put(store, tile, tile_from_voxels(frame, *synthetic.build(frame)))
    world = synthetic.open_world(tmp_path / "w.zarr")
    image = render(world, View("top", 256))
    np.testing.assert_allclose(
        image[:, -20:].astype(int), np.broadcast_to(PAPER, (128, 20, 3)), atol=1
    )
    assert np.abs(image[64, 10].astype(int) - PAPER).max() > 20
    assert render(world, View("oblique", 200)).shape[1] == 200


def test_colour_spaces_invert() -> None:
    grey = np.repeat(np.arange(180, dtype=np.uint8)[:, None], 3, axis=1)
    np.testing.assert_allclose(light.to_srgb(light.to_linear(grey)).astype(int), grey, atol=1)
    assert light.to_srgb(np.float32([[5.0, 0.0, -1.0]])).tolist() == [[255, 0, 0]]
    rolled = light.roll_off(np.linspace(0, 2, 50))
    assert (np.diff(rolled) > 0).all() and rolled.max() < 1 and light.roll_off(0.5) == 0.5


def test_scale_and_north_are_in_the_lower_left_corner(plain: World) -> None:
    view = View("oblique", 400)
    image = render(plain, view)
    marked = ZBufferRenderer().render(plain, view, Progress())
    changed = np.argwhere((marked != image).any(axis=2))
    assert (
        len(changed)
        and changed[:, 0].min() > 0.7 * image.shape[0]
        and changed[:, 1].max() < 0.5 * image.shape[1]
    )
    small = ZBufferRenderer().render(plain, View("oblique", 199), Progress())
    np.testing.assert_array_equal(small, render(plain, View("oblique", 199)))


@pytest.mark.parametrize(
    ("metres", "length"), [(1, 1), (1.9, 1), (2, 2), (49, 20), (50, 50), (999, 500), (0.07, 0.05)]
)
def test_scale_bars_are_round(metres: float, length: float) -> None:
    assert bar_length(metres) == pytest.approx(length)


def test_what_the_user_is_told(plain: World, tmp_path: Path) -> None:
    with pytest.raises(RegionError, match=r"0–1 east.*640000–640096 east"):
        render(plain, View(bounds=(0.0, 0.0, 1.0, 1.0)))
    with pytest.raises(JobError, match="top or oblique"):
        render(plain, View("side"))
    with pytest.raises(JobError, match="5 to 90"):
        render(plain, View("oblique", elevation=0))
    with pytest.raises(JobError, match="16"):
        render(plain, View(size=4))
    synthetic.start(tmp_path / "empty.zarr", (0, 64), (0, 64))
    with pytest.raises(StoreError, match="--resume"):
        render(synthetic.open_world(tmp_path / "empty.zarr"), View())


def test_the_z_buffer_renderer_needs_no_torch(tmp_path: Path) -> None:
    """In a process of its own: this one has torch for other tests."""
    synthetic.make(tmp_path / "w.zarr", (0, 64), (0, 64))
    script = (
        "import sys; from pathlib import Path; from earthgen import View, Progress, open_world\n"
        "from earthgen_preview.zbuffer import ZBufferRenderer\n"
        f"world = open_world(Path({str(tmp_path / 'w.zarr')!r}))\n"
        "for kind in ('top', 'oblique'):\n"
        "    ZBufferRenderer().render(world, View(kind, 64), Progress())\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
