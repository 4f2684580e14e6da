"""Pictures of worlds from their stores: windows that do not show, ortho images, frames of a
path, and the renderer."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from earthgen.errors import JobError, SplatError, StoreError
from earthgen.progress import Event, Progress
from earthgen.render import pictures as scene
from earthgen.render.frames import orbit, write_frames
from earthgen.render.interfaces import View
from earthgen.render.ortho import ortho_view, write_ortho
from earthgen.render.pictures import (
    Boxes,
    Part,
    Tiles,
    anchor_near,
    draw,
    read_cells,
    touches,
)
from earthgen.splats.cameras.camera import Camera, look_at, map_view
from earthgen.splats.cameras.transforms_json import read_transforms
from earthgen.splats.gaussians import Gaussians
from earthgen.splats.raster.rendering import render
from earthgen.voxels.splat_math import disc_rotations
from earthgen.voxels.tile import tile_from_voxels
from earthgen.voxels.voxels import Splats, Voxels
from earthgen.world.selection import select
from earthgen.world.world import World
from earthgen_preview.splats import SplatRenderer
from geo_io.errors import RegionError
from tests.helpers import synthetic

SH_C0 = 0.28209479177387814
LAYERS = ("rgb", "alpha", "depth", "median_depth", "normal", "distortion", "semantics")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Hills, houses and a stream; 12 tiles of 64, some of them cut."""
    return synthetic.make(
        tmp_path_factory.mktemp("scene") / "world.zarr", (-37, 123), (380, 490), tile_size=64
    )


@pytest.fixture(scope="module")
def chequers(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Flat ground 100 m high, red where the sum of the coordinates in steps of 8 m is even, blue
    elsewhere."""
    store = synthetic.start(
        tmp_path_factory.mktemp("flat") / "world.zarr", (-40, 88), (8, 72), tile_size=64
    )
    for tile in store.frame.tiles(64):
        frame = store.tile_frame(*tile)
        j, i = np.mgrid[frame.y[0] : frame.y[1], frame.x[0] : frame.x[1]].reshape(2, -1)
        n = len(i)
        xyz = np.stack([i, j, np.full(n, -1)], 1).astype(np.int32)
        red = (i // 8 + j // 8) % 2 == 0
        colour = np.where(red[:, None], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8])
        splats = Splats(
            np.tile(np.float32([0, 0, 0.5]), (n, 1)),
            np.full((n, 2), 0.4, np.float32),
            disc_rotations(np.tile(np.float32([0, 0, 1]), (n, 1))),
            np.ones(n, np.float32),
            ((colour - 0.5) / SH_C0)[:, None].astype(np.float32),
        )
        voxels = Voxels(
            frame,
            xyz,
            np.where(red, 1, 2).astype(np.uint8),
            np.full(n, 32, np.uint8),
            np.zeros(n, "u4"),
        )
        synthetic.put(
            store,
            tile,
            tile_from_voxels(frame, np.full(frame.shape, 100, np.float32), voxels, splats),
        )
    return synthetic.open_world(store.path)


def cameras(world: World) -> dict[str, Camera]:
    left, bottom, right, top = world.frame.bounds
    ground = float(np.nanmean(world.layers()["ground"].values))
    middle = ((left + right) / 2, (bottom + top) / 2, ground)
    where: dict[str, Any] = {"crs": world.frame.crs, "vertical_crs": world.frame.vertical_crs}
    near = (left + 20, bottom + 10, ground + 30)
    return {
        "map": map_view(world.frame.bounds, 1.3, ground + 100, **where),
        "oblique": look_at(
            (left - 60, bottom - 90, ground + 120),
            middle,
            width=150,
            height=90,
            metres_per_pixel=1.5,
            **where,
        ),
        "pinhole": look_at(
            (left - 60, bottom - 90, ground + 120),
            middle,
            width=140,
            height=101,
            field_of_view=50,
            **where,
        ),
        "within": look_at(near, middle, width=90, height=70, field_of_view=90, **where),
    }


def whole(world: World, camera: Camera) -> Gaussians:
    """All Gaussians of a world in the order in which windows take them."""
    selection = select(world, None, 1)
    parts = [
        read_cells(world, selection, Part(tile, 1), anchor_near(camera)) for tile in selection.tiles
    ]
    return Gaussians.concatenate([part.gaussians for part in parts])


def assembled(windows: Any, camera: Camera) -> dict[str, np.ndarray]:
    """One array for each layer of a picture; each pixel must come once."""
    found: dict[str, np.ndarray] = {}
    times = np.zeros((camera.height, camera.width), int)
    for window in windows:
        times[window.place] += 1
        for name in LAYERS:
            values = getattr(window.rendering, name).numpy()
            target = found.setdefault(
                name, np.zeros((camera.height, camera.width, *values.shape[2:]), values.dtype)
            )
            target[window.place] = values
    assert (times == 1).all()
    return found


def same(made: dict[str, np.ndarray], expected: Any) -> None:
    """Equal but for rounding: a window's camera has another principal point, and float32 pixels
    round otherwise.

    A Gaussian that covers just about 1/255 of a pixel may be drawn in one and not in the other: 0.4
    % of its colour.
    """
    for name in LAYERS:
        a, b = made[name].astype(float), getattr(expected, name).numpy().astype(float)
        scale = max(float(np.abs(b).max()), 1.0)
        off = np.abs(a - b) > 2e-4 * scale
        assert off.mean() < 2e-3, (name, off.mean(), np.abs(a - b).max())
        if name in ("rgb", "alpha"):
            assert np.abs(a - b).max() < 6e-3


@pytest.mark.parametrize("window", [33, 64, 1000])
@pytest.mark.parametrize("which", ["map", "oblique", "pinhole", "within"])
def test_windows_make_the_picture_that_is_drawn_at_once(
    world: World, which: str, window: int
) -> None:
    camera = cameras(world)[which]
    expected = render(whole(world, camera), camera, background=(0.2, 0.3, 0.4))
    assert expected.alpha.max() > 0.9
    same(
        assembled(draw(world, camera, level=1, window=window, background=(0.2, 0.3, 0.4)), camera),
        expected,
    )


def test_a_window_with_too_many_gaussians_is_divided(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = cameras(world)["pinhole"]
    expected = render(whole(world, camera), camera)
    monkeypatch.setattr(scene, "MOST", 1000)
    monkeypatch.setattr(scene, "LEAST_WINDOW", 16)
    windows = list(draw(world, camera, level=1, window=128))
    assert len(windows) > 20 and all(window.row % 2 == window.column % 2 == 0 for window in windows)
    same(assembled(windows, camera), expected)


def test_tiles_are_kept_up_to_a_size(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, int]] = []
    from_store = scene.read_cells
    monkeypatch.setattr(
        scene,
        "read_cells",
        lambda w, s, part, a: read.append(part.tile) or from_store(w, s, part, a),
    )
    camera = cameras(world)["map"]
    tiles = Tiles(world)
    expected = assembled(draw(world, camera, level=1, window=32, tiles=tiles), camera)
    assert sorted(read) == sorted(world.tiles())
    list(draw(world, camera.crop(0, 40, 0, 40), level=1, tiles=tiles))
    assert len(read) == len(world.tiles())  # nothing is read twice
    few = Tiles(world, most=1)
    made = assembled(draw(world, camera, level=1, window=32, tiles=few), camera)
    assert len(few._cells) == 1 and len(read) > 3 * len(world.tiles())
    for name in LAYERS:
        np.testing.assert_array_equal(made[name], expected[name])


coordinate = st.floats(-200, 200, allow_nan=False)


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(coordinate, coordinate, coordinate),
    st.tuples(coordinate, coordinate, coordinate),
    st.tuples(*[st.floats(0.01, 50)] * 3),
    st.tuples(*[st.floats(0, 1)] * 3),
    st.booleans(),
)
def test_a_box_is_not_left_out_where_a_point_of_it_is_seen(
    eye: Any, low: Any, size: Any, at: Any, pinhole: bool
) -> None:
    target = (eye[0] + 30.0, eye[1] - 11.0, eye[2] - 20.0)
    kind = {"field_of_view": 70} if pinhole else {"metres_per_pixel": 0.7}
    camera = look_at(eye, target, width=120, height=80, near=0.5, far=300.0, **kind)
    anchor = (1.0, -2.0, 3.0)
    corner = np.array([low]) - anchor
    boxes = Boxes(corner, corner + np.array([size]))
    point = np.array(low) + np.array(size) * at
    pixel, depth = camera.project(point[None])
    seen = 0.5 < depth[0] < 300 and 0 <= pixel[0, 0] < 120 and 0 <= pixel[0, 1] < 80
    assert touches(camera, boxes, anchor)[0] or not seen


def test_what_is_behind_or_beside_is_left_out() -> None:
    camera = look_at((0, 0, 0), (0, 100, 0), width=100, height=100, field_of_view=60)
    boxes = [(0, 50, 0), (0, -50, 0), (200, 50, 0), (0, 50, 200)]
    low = np.array(boxes, float)
    assert touches(camera, Boxes(low, low + 1), (0, 0, 0)).tolist() == [True, False, False, False]


def test_far_tiles_are_drawn_coarser(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: set[Part] = set()
    read = scene.read_cells
    monkeypatch.setattr(
        scene, "read_cells", lambda w, s, part, a: taken.add(part) or read(w, s, part, a)
    )
    left, bottom, right, top = world.frame.bounds
    ground = float(np.nanmean(world.layers()["ground"].values))
    eye, target = (left - 5, bottom - 5, ground + 60), (right, top, ground)
    camera = look_at(eye, target, width=60, height=60, field_of_view=60, crs=world.frame.crs)
    list(draw(world, camera))
    levels = {part.tile: part.level for part in taken}
    assert len(set(levels.values())) > 1
    near = min(levels, key=lambda tile: tile[0] + tile[1])
    assert levels[near] == min(levels.values())
    taken.clear()
    list(draw(world, camera, level=2))
    assert {part.level for part in taken} == {2}


def test_only_what_is_within_the_bounds_is_drawn(chequers: World) -> None:
    left, bottom, _, _ = chequers.frame.bounds
    camera = map_view(chequers.frame.bounds, 1, 110, crs=chequers.frame.crs)
    made = assembled(
        draw(chequers, camera, bounds=(left + 20, bottom + 8, left + 60, bottom + 40)), camera
    )
    inside = np.zeros((camera.height, camera.width), bool)
    inside[camera.height - 40 : camera.height - 8, 20:60] = True
    assert (made["alpha"][inside] > 0.8).all()
    far = ~ndimage.binary_dilation(inside, np.ones((3, 3)), iterations=2)
    assert (made["alpha"][far] < 0.01).all()


def test_a_camera_that_sees_nothing_gives_the_background(world: World) -> None:
    left, bottom, _, _ = world.frame.bounds
    away = look_at((left, bottom, 500), (left, bottom, 900), width=40, height=30, field_of_view=40)
    made = assembled(draw(world, away, background=(0.1, 0.2, 0.3)), away)
    assert (made["alpha"] == 0).all() and np.allclose(made["rgb"], (0.1, 0.2, 0.3))


def test_a_camera_of_another_crs_is_refused(world: World) -> None:
    camera = replace(cameras(world)["map"], crs="EPSG:25833")
    with pytest.raises(SplatError, match="EPSG:25833"):
        next(draw(world, camera))
    with pytest.raises(StoreError, match="no level 3"):
        next(draw(world, cameras(world)["map"], level=3))


def test_progress_is_told(world: World) -> None:
    events: list[Event] = []
    camera = cameras(world)["map"]
    list(draw(world, camera, window=32, progress=Progress(events.append)))
    assert events[-1].task == "render" and events[-1].done == events[-1].total == math.ceil(
        camera.height / 32
    )


def test_an_ortho_image_lies_where_the_world_does(chequers: World, tmp_path: Path) -> None:
    path = write_ortho(chequers, tmp_path / "o.tif", 0.5, window=50)
    with rasterio.open(path) as image:
        assert image.crs.to_epsg() == 32632 and image.bounds[:] == chequers.frame.bounds
        assert image.colorinterp[3] == rasterio.enums.ColorInterp.alpha and image.res == (0.5, 0.5)
        red, green, blue, alpha = image.read()
        left, bottom, right, top = chequers.frame.bounds
        x, y = np.meshgrid(np.arange(left + 2.25, right, 4), np.arange(bottom + 2.25, top, 4))
        for east, north in zip(x.ravel(), y.ravel(), strict=True):
            row, col = image.index(east, north)
            even = (east // 8 + north // 8) % 2 == 0
            assert (red[row, col] > blue[row, col]) == even
    assert set(np.unique(alpha[2:-2, 2:-2])) == {255} and green.max() < 60


def test_parts_of_an_ortho_image_fit_the_whole(world: World, tmp_path: Path) -> None:
    left, bottom, right, top = world.frame.bounds
    bounds = (left + 30.2, bottom + 20.0, right - 40, top - 33)
    write_ortho(world, tmp_path / "whole.tif", 0.75)
    write_ortho(world, tmp_path / "part.tif", 0.75, bounds=bounds)
    with (
        rasterio.open(tmp_path / "whole.tif") as one,
        rasterio.open(tmp_path / "part.tif") as other,
    ):
        row, col = one.index(*other.transform * (0.5, 0.5))
        there = one.read()[:, row : row + other.height, col : col + other.width].astype(int)
        part = other.read().astype(int)
        # The border of a part lacks its neighbours' Gaussians.
        assert np.abs(there - part)[:, 5:-5, 5:-5].max() <= 2


def test_ortho_pixels_are_checked(world: World, tmp_path: Path) -> None:
    for size in (0, -1, math.nan, 1e-9):
        with pytest.raises(JobError):
            ortho_view(world, size)
    with pytest.raises(RegionError):
        write_ortho(world, tmp_path / "o.tif", 1, bounds=(0, 0, 1, 1))
    assert not list(tmp_path.iterdir())


def test_frames_come_with_cameras_and_layers(chequers: World, tmp_path: Path) -> None:
    left, bottom, right, top = chequers.frame.bounds
    middle = ((left + right) / 2, (bottom + top) / 2)
    path = [
        look_at(
            (*middle, 100 + height),
            (*middle, 0),
            width=60,
            height=40,
            field_of_view=40,
            crs=chequers.frame.crs,
        )
        for height in (30, 40)
    ]
    files = write_frames(
        chequers, path, tmp_path / "f", SplatRenderer(), layers=["depth", "normal", "semantics"]
    )
    assert sorted(file.relative_to(tmp_path / "f").as_posix() for file in files) == [
        "00000.png",
        "00001.png",
        "depth/00000.tif",
        "depth/00001.tif",
        "normal/00000.png",
        "normal/00001.png",
        "semantics/00000.png",
        "semantics/00001.png",
        "transforms.json",
    ]
    views = read_transforms(tmp_path / "f" / "transforms.json")
    assert [view.camera for view in views] == path
    assert views[1].file_path == "00001.png" and views[1].depth_file_path == "depth/00001.tif"
    for number, height in enumerate((30, 40)):
        with Image.open(tmp_path / "f" / f"depth/0000{number}.tif") as depth:
            assert np.abs(np.asarray(depth) - height).max() < 0.05
        with Image.open(tmp_path / "f" / f"normal/0000{number}.png") as normal:
            assert (np.abs(np.asarray(normal).astype(int) - (128, 128, 255)) <= 1).all()
        with Image.open(tmp_path / "f" / f"semantics/0000{number}.png") as classes:
            assert set(np.unique(np.asarray(classes))) == {1, 2}


def test_a_video_of_frames(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="needs imageio-ffmpeg")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    files = write_frames(
        world,
        orbit(world, 3, width=97, height=64),
        tmp_path / "f",
        SplatRenderer(),
        video=tmp_path / "turn.mp4",
    )
    assert files[-1] == tmp_path / "turn.mp4"
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(files[-1]))
    assert frames == 3 and seconds < 1
    assert not list(tmp_path.glob(".*part*"))
    (tmp_path / "bin" / "ffmpeg").unlink()
    (tmp_path / "bin" / "ffmpeg").write_text("#!/bin/sh\necho has no mp4 >&2\nexit 1\n")
    (tmp_path / "bin" / "ffmpeg").chmod(0o755)
    cameras = orbit(world, 1, width=32, height=32)
    with pytest.raises(StoreError, match="'has no mp4'"):
        write_frames(world, cameras, tmp_path / "g", SplatRenderer(), video=tmp_path / "b.mp4")
    assert not (tmp_path / "b.mp4").exists() and not (tmp_path / "g").exists()


def test_frames_that_cannot_be_written(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = orbit(world, 1, width=32, height=32)
    with pytest.raises(JobError, match="'heat'"):
        write_frames(world, path, tmp_path / "f", SplatRenderer(), layers=["heat"])
    with pytest.raises(SplatError, match="no camera"):
        write_frames(world, [], tmp_path / "f", SplatRenderer())
    with pytest.raises(SplatError, match="EPSG:3006"):
        write_frames(world, [replace(path[0], crs="EPSG:3006")], tmp_path / "f", SplatRenderer())
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write_frames(world, path, tmp_path / "file", SplatRenderer())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JobError, match="program ffmpeg"):
        write_frames(world, path, tmp_path / "f", SplatRenderer(), video=tmp_path / "v.mp4")


def test_an_orbit_looks_at_the_middle_from_outside(world: World) -> None:
    left, bottom, right, top = world.frame.bounds
    ground = float(np.nanmedian(world.layers()["ground"].values))
    for camera in orbit(world, 5):
        pixel, _ = camera.project(np.array([[(left + right) / 2, (bottom + top) / 2, ground]]))
        assert abs(pixel[0, 0] - camera.width / 2) < 1e-6 and 0 < pixel[0, 1] < camera.height
        assert (
            math.dist(camera.position[:2], ((left + right) / 2, (bottom + top) / 2))
            > (right - left) / 2
        )


@pytest.mark.parametrize("kind", ["top", "oblique"])
def test_the_renderer_shows_what_the_z_buffer_shows(world: World, kind: str) -> None:
    """Other means, the same picture: places, light and colours are alike in most of it."""
    from earthgen_preview.zbuffer import ZBufferRenderer

    view = View(kind, 320)
    splats = SplatRenderer(marks=False).render(world, view, Progress()).astype(float)
    quads = ZBufferRenderer(marks=False).render(world, view, Progress()).astype(float)
    assert splats.shape == quads.shape
    small = [
        np.asarray(
            Image.fromarray(a.astype(np.uint8)).resize((40, 28), Image.Resampling.BOX), float
        )
        for a in (splats, quads)
    ]
    off = np.abs(small[0] - small[1]).max(2)
    assert np.median(off) < 20 and np.corrcoef(small[0].ravel(), small[1].ravel())[0, 1] > 0.9


def test_colours_as_stored(chequers: World) -> None:
    image = SplatRenderer(marks=False, lit=False).render(chequers, View("top", 128), Progress())
    assert image.shape == (64, 128, 3)
    for row, col in ((60, 4), (60, 12), (4, 100)):
        even = ((col - 40) // 8 + (72 - row - 1) // 8) % 2 == 0
        expected = np.array([0.8, 0.1, 0.1] if even else [0.1, 0.1, 0.8]) * 255
        assert np.abs(image[row, col] - expected).max() < 6


def test_a_view_needs_a_camera(world: World) -> None:
    with pytest.raises(JobError, match="needs a camera"):
        SplatRenderer().render(world, View("camera"), Progress())
    with pytest.raises(JobError, match="'sideways'"):
        SplatRenderer().render(world, View("sideways"), Progress())


def test_the_light_of_a_path_is_made_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import earthgen_preview.splats as module

    calls: list[int] = []
    made = module.light_of
    monkeypatch.setattr(module, "light_of", lambda *args: calls.append(1) or made(*args))
    renderer = SplatRenderer()
    for camera in orbit(world, 2, width=32, height=32):
        image = renderer.render(world, View("camera", camera=camera), Progress())
        assert image.shape == (32, 32, 3)
    assert calls == [1]


def test_pictures_do_not_depend_on_threads(world: World) -> None:
    camera = cameras(world)["pinhole"]
    threads = torch.get_num_threads()
    made = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            made.append(assembled(draw(world, camera), camera))
    finally:
        torch.set_num_threads(threads)
    for name in LAYERS:
        np.testing.assert_array_equal(made[0][name], made[1][name])
