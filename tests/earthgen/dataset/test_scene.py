"""Scenes on disk and their crops: round trips, closed surfaces, and no incomplete scene after an
error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from earthgen.dataset import scene as scenes
from earthgen.dataset.builders.surface import (
    UNKNOWN_SOLID,
    Columns,
    height_field,
    levels,
    solid_volume,
)
from earthgen.dataset.crop import COLUMNS, ROWS, Crop, require_cells, transform_crop
from earthgen.dataset.crop_sampler import open_crops
from earthgen.dataset.scene import (
    Scene,
    SceneInfo,
    check_licence,
    open_scene,
    scenes_in,
    write_scene,
)
from earthgen.errors import CropError, JobError, StoreError, StoreExistsError, StoreFullError
from geo_io.errors import FrameError
from geo_io.frame import Frame
from geo_io.legend import codes
from tests.helpers.dataset_places import EAST, NORTH, SIZE, village, village_scene


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return village_scene(tmp_path_factory.mktemp("scenes"))


def window(scene: Scene, x: int, y: int, size: int = 32, z: tuple[int, int] = (-16, 112)) -> Frame:
    """A window whose south-west corner is x, y voxels from the scene's."""
    west, south = scene.frame.x[0] + x, scene.frame.y[0] + y
    return replace(scene.frame, x=(west, west + size), y=(south, south + size), z=z)


def exposed(solid: np.ndarray) -> np.ndarray:
    """Which cells of (ny, nx, nz) have an open side, the array going on at its sides as it ends;
    slowly but plainly."""
    wide = np.pad(solid, ((1, 1), (1, 1), (0, 0)), mode="edge")
    wide = np.pad(wide, ((0, 0), (0, 0), (1, 1)), constant_values=((0, 0), (0, 0), (1, 0)))
    inner = wide[1:-1, 1:-1, 1:-1]
    open_beside = np.zeros(inner.shape, bool)
    for axis in range(3):
        for step in (-1, 1):
            open_beside |= ~np.roll(wide, step, axis)[1:-1, 1:-1, 1:-1]
    return inner & open_beside


def set_of(crop: Crop) -> set[tuple[int, int, int]]:
    return set(map(tuple, crop.xyz.tolist()))


def test_the_surface_of_a_height_field_is_closed_and_no_more(made: Scene) -> None:
    crop = made.crop(replace(made.frame))
    made_of = village()
    tops = levels(np.maximum(made_of["built"], made_of["canopy"]), 1.0, 112)
    k = np.arange(-3, 20)
    solid = k[None, None, :] < tops[..., None]
    solid[..., k < 0] = True
    row, col, level = np.nonzero(exposed(solid))
    frame = made.frame
    expected = set(zip(col + frame.x[0], frame.y[1] - 1 - row, k[level], strict=True))
    assert set_of(crop) == {tuple(map(int, v)) for v in expected}
    order = np.lexsort((crop.xyz[:, 2], crop.xyz[:, 0], crop.xyz[:, 1]))
    assert np.array_equal(order, np.arange(len(crop)))


def test_walls_have_their_columns_class_and_no_known_colour(made: Scene) -> None:
    crop = made.crop(replace(made.frame))
    row, col = made.frame.y[1] - 1 - crop.xyz[:, 1], crop.xyz[:, 0] - made.frame.x[0]
    made_of = village()
    assert np.array_equal(crop.semantic, made_of["cover"][row, col])
    tops = levels(np.maximum(made_of["built"], made_of["canopy"]), 1.0, 112)[row, col] - 1
    assert np.array_equal(crop.rgb_known, crop.xyz[:, 2] == tops)
    assert np.array_equal(crop.rgb, made_of["image"][row, col])
    assert crop.rgb_known.sum() == SIZE * SIZE


def test_normals_point_out_of_the_solid(made: Scene) -> None:
    crop = made.crop(replace(made.frame))
    assert np.allclose(np.linalg.norm(crop.normal, axis=1), 1, atol=1e-6)
    row, col = made.frame.y[1] - 1 - crop.xyz[:, 1], crop.xyz[:, 0] - made.frame.x[0]
    lawn = (row > 2) & (row < 5) & (col > 2) & (col < 8)
    assert np.allclose(crop.normal[lawn], (0, 0, 1), atol=0.02)  # int8 steps are 1 / 127
    # the house at rows 8 to 22, columns 10 to 30: its west wall, half way up, away from corners
    wall = (row > 12) & (row < 18) & (col == 10) & (crop.xyz[:, 2] == 4)
    assert wall.sum() and np.allclose(crop.normal[wall], (-1, 0, 0), atol=0.05)


def test_no_wall_stands_where_data_end(tmp_path: Path) -> None:
    scene = village_scene(tmp_path, holes=True)
    crop = scene.crop(replace(scene.frame))
    row, col = scene.frame.y[1] - 1 - crop.xyz[:, 1], crop.xyz[:, 0] - scene.frame.x[0]
    assert crop.valid[row, col].all()
    # the hole cuts the house at rows 20 to 44, columns 56 to 72; its cut edge above row 30 shows
    # roof alone
    cut = (row == 29) & (col > 58) & (col < 68)
    assert set(crop.xyz[cut, 2].tolist()) == {5}


def test_unknown_cover_is_class_0() -> None:
    frame = Frame("EPSG:32632", 1.0, (0, 8), (0, 8), (-8, 8))
    flat = np.zeros((8, 8), np.float32)
    none = np.zeros((8, 8), np.uint8)
    data = height_field(
        Columns(frame, flat, flat, none, np.zeros((8, 8, 3), np.uint8), none > 0, none == 0)
    )
    assert len(data.rows["xyz"]) == 64 and not data.rows["semantic"].any()


def test_a_solid_with_an_overhang_is_open_below_it() -> None:
    frame = Frame("EPSG:32632", 1.0, (0, 16), (0, 16), (-8, 16))
    solid = np.zeros((16, 16, 24), np.uint8)
    solid[..., :8] = codes()["paved"]
    solid[4:12, 4:12, 12] = codes()["road"]  # a slab at z = 4
    zero = np.zeros((16, 16), np.float32)
    cover = np.full((16, 16), codes()["paved"], np.uint8)
    columns = Columns(
        frame, zero, zero, cover, np.zeros((16, 16, 3), np.uint8), zero > 0, zero == 0
    )
    rgb, known = np.zeros((*solid.shape, 3), np.uint8), np.zeros(solid.shape, bool)
    rgb[8, 8, 12], known[8, 8, 12] = (1, 2, 3), True
    data = solid_volume(columns, solid, rgb, known)
    below = (data.rows["xyz"] == (8, 7, -1)).all(axis=1)
    slab = (data.rows["xyz"] == (8, 7, 4)).all(axis=1)
    assert below.sum() == 1 and slab.sum() == 1
    assert data.rows["semantic"][slab][0] == codes()["road"]
    assert data.rows["rgb"][slab].tolist() == [[1, 2, 3]] and data.rows["rgb_known"][slab].all()
    assert data.rows["rgb_known"].sum() == 1
    with pytest.raises(FrameError, match="does not fill"):
        solid_volume(columns, solid[..., :-1])
    assert UNKNOWN_SOLID not in codes().values()


def test_levels_are_rounded_and_cut() -> None:
    height = np.array([[0.0, 0.49, 0.5, 1.49, 300.0]])
    assert levels(height, 1.0, 112).tolist() == [[0, 0, 1, 1, 112]]
    assert levels(height, 0.5, 8).tolist() == [[0, 1, 1, 3, 8]]


def test_crops_of_any_window_are_cut_out_of_the_whole(made: Scene) -> None:
    whole = made.crop(replace(made.frame))
    for x, y, size in ((0, 0, 32), (40, 24, 40), (56, 56, 40), (8, 64, 32)):
        part = window(made, x, y, size)
        crop = made.crop(part)
        inside = (
            (whole.xyz[:, 0] >= part.x[0])
            & (whole.xyz[:, 0] < part.x[1])
            & (whole.xyz[:, 1] >= part.y[0])
            & (whole.xyz[:, 1] < part.y[1])
        )
        assert np.array_equal(crop.xyz, whole.xyz[inside])
        for name in ROWS:
            assert np.array_equal(getattr(crop, name), getattr(whole, name)[inside]), name
        for name in COLUMNS:
            assert np.array_equal(
                getattr(crop, name), getattr(whole, name)[made.frame.slices(part)]
            ), name
        assert crop.local.min() >= 0 and crop.local[:, 0].max() < size


def test_a_loaded_scene_gives_the_same_crops(made: Scene) -> None:
    part = window(made, 24, 40)
    one, other = made.crop(part), made.loaded().crop(part)
    for name in ("xyz", *ROWS, *COLUMNS):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


def test_what_lies_outside_a_scene_is_not_valid(made: Scene) -> None:
    crop = made.crop(window(made, 80, -16, 48))
    assert crop.valid.shape == (48, 48) and crop.valid.sum() == 16 * 32
    assert (crop.xyz[:, 0] < made.frame.x[1]).all()
    away = made.crop(window(made, 8000, 0))
    assert len(away) == 0 and not away.valid.any() and away.xyz.shape == (0, 3)


def test_a_lower_band_leaves_out_what_is_above(made: Scene) -> None:
    crop = made.crop(window(made, 0, 0, 96, z=(-16, 8)))
    assert crop.xyz[:, 2].max() == 7


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_crops_begin_at_multiples_of_8(made: Scene, axis: str) -> None:
    part = window(made, 0, 0)
    low, high = getattr(part, axis)
    with pytest.raises(CropError, match=f"the {axis} range"):
        made.crop(replace(part, **{axis: (low + 4, high + 4)}))
    require_cells(part)


def test_another_lattice_is_refused(made: Scene) -> None:
    with pytest.raises(FrameError, match="lattice"):
        made.crop(replace(window(made, 0, 0), voxel_size=2.0))


@given(
    turns=st.integers(0, 3),
    flip=st.booleans(),
    x=st.sampled_from([0, 24, 48]),
    y=st.sampled_from([0, 16, 48]),
)
def test_turned_crops_are_the_same_place_turned(
    made: Scene, turns: int, flip: bool, x: int, y: int
) -> None:
    crop = made.crop(window(made, x, y, 48))
    turned = transform_crop(crop, turns, flip)
    # voxels, columns and normals turn alike: each voxel's class is still that of its column
    row = crop.frame.y[1] - 1 - turned.xyz[:, 1]
    col = turned.xyz[:, 0] - crop.frame.x[0]
    assert np.array_equal(turned.semantic, turned.cover[row, col])
    top = turned.rgb_known
    assert np.array_equal(turned.rgb[top], turned.image[row, col][top])
    assert np.array_equal(np.sort(turned.xyz[:, 2]), np.sort(crop.xyz[:, 2]))
    assert np.array_equal(
        np.lexsort((turned.xyz[:, 2], turned.xyz[:, 0], turned.xyz[:, 1])), np.arange(len(crop))
    )
    # walls look away from their house: stepping along the normal leaves the solid
    tall = {(r, c): h for (r, c), h in np.ndenumerate(turned.height)}
    flat_normal = np.round(turned.normal[:, :2]).astype(int)
    sides = (np.abs(turned.normal[:, 2]) < 0.1) & (np.abs(flat_normal).sum(axis=1) == 1)
    for n in np.flatnonzero(sides)[:200]:
        r, c = row[n] - flat_normal[n, 1], col[n] + flat_normal[n, 0]
        if (r, c) in tall:
            assert tall[r, c] < turned.height[row[n], col[n]]
    assert turned.height.sum() == pytest.approx(crop.height.sum())


def test_four_quarter_turns_are_none(made: Scene) -> None:
    crop = made.crop(window(made, 8, 8, 40))
    back = crop
    for _ in range(4):
        back = transform_crop(back, 1, False)
    for name in ("xyz", *ROWS, *COLUMNS):
        assert np.array_equal(getattr(back, name), getattr(crop, name)), name
    twice = transform_crop(transform_crop(crop, 0, True), 0, True)
    assert np.array_equal(twice.xyz, crop.xyz) and np.array_equal(twice.normal, crop.normal)
    one, other = (
        transform_crop(crop, 2, False),
        transform_crop(transform_crop(crop, 1, False), 1, False),
    )
    assert np.array_equal(one.xyz, other.xyz) and np.array_equal(one.ground, other.ground)
    assert transform_crop(crop, 4, False) is crop


def test_oblong_crops_turn_by_half_only(made: Scene) -> None:
    part = window(made, 0, 0, 48)
    oblong = made.crop(replace(part, x=(part.x[0], part.x[0] + 24)))
    half = transform_crop(oblong, 2, False)
    assert half.cover.shape == (48, 24) and np.array_equal(half.cover, oblong.cover[::-1, ::-1])
    with pytest.raises(CropError, match="crop squares"):
        transform_crop(oblong, 1, False)


def test_a_scene_says_what_it_is(made: Scene) -> None:
    again = open_scene(made.path)
    assert again.info == made.info
    assert (again.info.place, again.info.licence, again.info.grade) == ("Made up", "CC0-1.0", "A")
    assert again.n_voxels == len(again.crop(replace(again.frame)))
    assert SceneInfo.from_dict(again.info.to_dict()) == again.info
    root = zarr.open_group(made.path, mode="r")
    assert root["ground"].metadata.dimension_names == ("y", "x")
    assert [scene.info.name for scene in scenes_in(made.path.parent)] == ["village"]


def test_a_scene_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = village_scene(tmp_path)
    before = scene.crop(replace(scene.frame))
    data = height_field(
        Columns(
            scene.frame,
            *(
                getattr(before, name)
                for name in ("ground", "height", "cover", "image", "image_known", "valid")
            ),
        )
    )
    written = scenes._write

    def broken(path: Path, info: SceneInfo, data: object) -> None:
        written(path, info, data)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scenes, "_write", broken)
    with pytest.raises(StoreFullError, match="full"):
        write_scene(tmp_path, scene.info, data, overwrite=True)
    with pytest.raises(StoreFullError, match="full"):
        write_scene(tmp_path, replace(scene.info, name="other"), data)
    assert [path.name for path in tmp_path.iterdir()] == ["village.zarr"]
    assert np.array_equal(open_scene(scene.path).crop(replace(scene.frame)).xyz, before.xyz)
    monkeypatch.undo()
    with pytest.raises(StoreExistsError, match="--overwrite"):
        write_scene(tmp_path, scene.info, data)
    again = write_scene(tmp_path, replace(scene.info, place="Elsewhere"), data, overwrite=True)
    assert again.info.place == "Elsewhere" and [path.name for path in tmp_path.iterdir()] == [
        "village.zarr"
    ]


@pytest.mark.parametrize(
    ("licence", "grade"), [("", "A"), ("  ", "B"), ("CC0-1.0", ""), ("CC0-1.0", "D")]
)
def test_no_scene_without_a_licence(licence: str, grade: str) -> None:
    with pytest.raises(JobError):
        check_licence("x", licence, grade)


def test_damaged_and_foreign_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        open_scene(tmp_path / "none.zarr")
    with pytest.raises(StoreError, match="no scene in"):
        scenes_in(tmp_path)
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(StoreError, match="cannot be read as a scene"):
        open_scene(tmp_path / "empty.zarr")
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(StoreError, match="is not a scene"):
        open_scene(tmp_path / "other.zarr")
    scene = village_scene(tmp_path)
    root = zarr.open_group(scene.path, mode="r+")
    values = scene.info.to_dict()
    root.attrs[scenes.KEY] = values | {"format_version": 99}
    with pytest.raises(StoreError, match="version 99"):
        open_scene(scene.path)
    root.attrs[scenes.KEY] = {"format_version": scenes.FORMAT_VERSION}
    with pytest.raises(StoreError, match="is damaged"):
        open_scene(scene.path)
    root.attrs[scenes.KEY] = values
    chunk = next(
        path
        for path in (scene.path / "voxels" / "xyz").rglob("*")
        if path.is_file() and path.name != "zarr.json"
    )
    content = bytearray(chunk.read_bytes())
    content[len(content) // 3] ^= 0xFF
    chunk.write_bytes(content)
    with pytest.raises(StoreError, match="xyz cannot be read"):
        open_scene(scene.path).crop(replace(scene.frame))


def test_a_frame_off_the_cells_is_refused(tmp_path: Path) -> None:
    frame = Frame("EPSG:32632", 1.0, (EAST + 1, EAST + 9), (NORTH, NORTH + 8), (-8, 8))
    zero = np.zeros((8, 8), np.float32)
    data = height_field(
        Columns(
            frame,
            zero,
            zero,
            zero.astype(np.uint8),
            np.zeros((8, 8, 3), np.uint8),
            zero > 0,
            zero == 0,
        )
    )
    with pytest.raises(FrameError, match="multiple of 8"):
        write_scene(tmp_path, SceneInfo("s", frame, "p", "s", "CC0", "A"), data)


@pytest.mark.parametrize("kind", ["real", "simulated"])
def test_real_crops_are_not_turned_where_their_shadows_would(made: Scene, kind: str) -> None:
    """Texture is taught real crops as they lie, since all their shadows come from one sun."""
    scene = replace(made, info=replace(made.info, kind=kind))
    whole = {"part": None, "size": 16, "jitter": True, "augment": True}
    kept = open_crops([scene], turn_real=False, **whole)
    turned = open_crops([scene], **whole)
    some = range(min(len(kept), 12))
    lie = [(kept.place(index).turns, kept.place(index).flip) for index in some]
    assert (set(lie) == {(0, False)}) == (kind == "real")
    assert len({(turned.place(index).turns, turned.place(index).flip) for index in some}) > 3
    # They are moved all the same.
    assert [kept.place(n).x for n in some] == [turned.place(n).x for n in some]
