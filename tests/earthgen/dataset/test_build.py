"""Scenes from made-up sources with known results, and the errors for bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
import trimesh
from PIL import Image
from scipy import ndimage

from earthgen.dataset.build import build_all, build_scene, held_out_bounds
from earthgen.dataset.builders.land_cover import CoverInputs, combine, greenness, roughness
from earthgen.dataset.builders.quality import remarks
from earthgen.dataset.builders.registration import image_shift, mask_shift, shifts_by_part
from earthgen.dataset.builders.sources import find_sources
from earthgen.dataset.crop import Crop
from earthgen.dataset.recipe import Recipe, SceneRecipe, parse_recipe, read_recipe
from earthgen.dataset.report import (
    TABLE_COLUMNS,
    panels,
    save_panels,
    scene_figures,
    shade,
    table_row,
    write_report,
)
from earthgen.dataset.scene import Scene
from earthgen.errors import JobError, StoreExistsError
from geo_io.errors import FrameError, InputError, MissingCrsError, MissingFileError, RegionError
from geo_io.legend import codes
from tests.helpers import synthetic
from tests.helpers.dataset_places import (
    CRS,
    EAST,
    NORTH,
    SIZE,
    village,
    village_points,
    write_points,
    write_raster,
    write_village,
)

ABOUT = {"licence": "CC0-1.0", "grade": "A", "place": "Made up"}
RASTERS = {
    "dsm": "dsm.tif",
    "dtm": "dtm.tif",
    "canopy": "canopy.tif",
    "cover": "cover.tif",
    "legend": "earthgen",
}


def recipe(**keys: object) -> SceneRecipe:
    return parse_recipe({"scene": [{"name": "village", **ABOUT, **keys}]}).scene[0]


def build(folder: Path, **keys: object) -> Scene:
    size = keys.pop("voxel_size", 1.0)
    return build_scene(recipe(**keys), folder, folder / "out", voxel_size=size, overwrite=True)


def whole(scene: Scene) -> Crop:
    return scene.crop(replace(scene.frame))


@pytest.fixture(scope="module")
def rasters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_village(tmp_path_factory.mktemp("village"))


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clouds")
    points = village_points()
    write_points(
        folder / "classified.laz",
        points["xyz"],
        points["class"],
        points["rgb"].astype(np.uint16) * 257,
    )
    write_points(folder / "plain.laz", points["xyz"])
    write_points(folder / "no_crs.laz", points["xyz"], points["class"], crs=None)
    return folder


def test_surface_models_with_land_cover(rasters: Path) -> None:
    scene = build(rasters, **RASTERS, image="image.tif")
    made, crop = village(), whole(scene)
    assert scene.frame.crs == CRS and scene.frame.bounds == (EAST, NORTH, EAST + SIZE, NORTH + SIZE)
    assert np.allclose(crop.height, np.maximum(made["built"], made["canopy"]), atol=1e-4)
    assert np.allclose(crop.ground, made["ground"], atol=1e-3)
    assert np.array_equal(crop.cover, made["cover"]) and np.array_equal(crop.image, made["image"])
    assert crop.valid.all() and crop.image_known.all()
    q = scene.info.quality
    assert q["building_iou"] == 1.0 and q["coverage"] == 1.0 and q["remarks"] == []
    assert q["classes"]["building"] == pytest.approx(
        float((made["cover"] == codes()["building"]).mean()), abs=1e-3
    )
    roles = {item["role"]: item for item in scene.info.inputs}
    assert set(roles) == {"dsm", "dtm", "canopy", "cover", "image"}
    assert roles["dsm"]["name"] == "dsm.tif" and roles["dsm"]["digest"].startswith("sha256:")
    assert str(rasters) not in json.dumps(scene.info.to_dict())


def test_coarse_rasters_keep_their_walls(tmp_path: Path) -> None:
    made = village()
    for name, values in (("dsm", made["ground"] + made["built"]), ("dtm", made["ground"])):
        write_raster(tmp_path / f"{name}.tif", values[::2, ::2], cell=2.0)
    height = whole(build(tmp_path, dsm="dsm.tif", dtm="dtm.tif")).height
    assert set(np.round(np.unique(height), 2)) == {0.0, 6.0, 8.0, 9.0, 12.0}


def test_fine_rasters_take_the_median(tmp_path: Path) -> None:
    made = village()
    tall = np.kron(made["built"], np.ones((4, 4), np.float32))
    ground = np.full(tall.shape, 50, np.float32)
    tall[1::4, 1::4] += 30  # an antenna in each square metre
    write_raster(tmp_path / "dsm.tif", ground + tall, cell=0.25)
    write_raster(tmp_path / "dtm.tif", ground, cell=0.25)
    assert np.allclose(whole(build(tmp_path, dsm="dsm.tif", dtm="dtm.tif")).height, made["built"])


def test_heights_above_ground_and_voids(tmp_path: Path) -> None:
    made = village()
    ground = made["ground"].copy()
    ground[:, 80:] = -9999
    write_raster(tmp_path / "dtm.tif", ground, nodata=-9999)
    write_raster(tmp_path / "tall.tif", made["built"])
    write_raster(tmp_path / "canopy.tif", made["canopy"])
    scene = build(tmp_path, dtm="dtm.tif", building_height="tall.tif", canopy="canopy.tif")
    crop = whole(scene)
    assert not crop.valid[:, 80:].any() and crop.valid[:, :80].all()
    assert np.array_equal(crop.cover[:, :80] == codes()["building"], made["built"][:, :80] > 0)
    assert np.array_equal(crop.cover[:, :80] == codes()["tree"], made["canopy"][:, :80] > 0)
    assert (crop.cover[:, :30][crop.height[:, :30] == 0] == codes()["bare_ground"]).all()
    assert not crop.image_known.any() and not crop.rgb_known.any()


def test_low_ground_can_be_water(tmp_path: Path) -> None:
    made = village()
    write_raster(tmp_path / "dtm.tif", made["ground"])
    write_raster(tmp_path / "tall.tif", made["built"])
    crop = whole(build(tmp_path, dtm="dtm.tif", building_height="tall.tif", water_below=102.0))
    low = (crop.ground < 102) & (made["built"] == 0)
    assert low.any() and np.array_equal(crop.cover == codes()["river"], low)
    assert np.array_equal(crop.cover == codes()["building"], made["built"] > 0)


def test_footprints_with_heights(tmp_path: Path) -> None:
    write_raster(tmp_path / "dtm.tif", village()["ground"])
    boxes = [
        shapely.box(EAST + 10, NORTH + 10, EAST + 30, NORTH + 30),
        shapely.box(EAST + 50, NORTH + 10, EAST + 60, NORTH + 30),
    ]
    table = gpd.GeoDataFrame(
        {"building": ["yes", "yes"], "height": [11.0, None]}, geometry=boxes, crs=CRS
    )
    table.to_file(tmp_path / "houses.gpkg")
    scene = build(tmp_path, dtm="dtm.tif", footprints="houses.gpkg", footprint_height=5.0)
    height = whole(scene).height
    assert (
        height[70, 20] == pytest.approx(11)
        and height[70, 55] == pytest.approx(5)
        and height[5, 5] == 0
    )
    table.set_geometry(table.translate(5000, 0)).to_file(tmp_path / "away.gpkg")
    with pytest.raises(RegionError, match="no footprint"):
        build(tmp_path, dtm="dtm.tif", footprints="away.gpkg")


def test_a_band_cuts_towers_and_says_so(rasters: Path) -> None:
    scene = build(rasters, **RASTERS, band=(-8, 8))
    assert whole(scene).height.max() == 8 and scene.frame.z == (-8, 8)
    assert scene.info.quality["over_band"] > 0
    assert any("higher than the band" in remark for remark in scene.info.quality["remarks"])


def test_another_voxel_size_and_bounds(rasters: Path) -> None:
    box = (EAST + 8, NORTH + 8, EAST + 48, NORTH + 88)
    scene = build(rasters, **RASTERS, voxel_size=0.5, bounds=box)
    assert (
        scene.frame.voxel_size == 0.5
        and scene.frame.shape == (160, 80)
        and scene.frame.bounds == box
    )


def test_a_picture_beside_its_place_is_found_and_moved(tmp_path: Path) -> None:
    write_village(tmp_path, image=(3.0, -2.0))
    scene = build(tmp_path, **RASTERS, image="image.tif")
    q = scene.info.quality
    assert (q["image_shift"]["east"], q["image_shift"]["north"]) == (
        pytest.approx(3, abs=0.3),
        pytest.approx(-2, abs=0.3),
    )
    assert (
        q["image_shift"]["sure"]
        and q["image_moved_m"] == [0, 0]
        and q["image_shift_by"] == "edges of heights"
    )
    assert any("+3.0 m east" in remark or "picture lies" in remark for remark in q["remarks"])
    inner, truth = (slice(8, -8), slice(8, -8)), village()["image"].astype(int)
    before = np.abs(whole(scene).image - truth)[inner].mean()
    moved = build(tmp_path, **RASTERS, image="image.tif", image_shift="auto")
    assert np.abs(whole(moved).image - truth)[inner].mean() < 2 < before
    assert moved.info.quality["image_moved_m"] == [
        pytest.approx(-3, abs=0.3),
        pytest.approx(2, abs=0.3),
    ]
    by_hand = build(tmp_path, **RASTERS, image="image.tif", image_shift=(-3.0, 2.0))
    assert np.array_equal(whole(by_hand).image[inner], truth[inner])


def test_land_cover_a_row_off_is_found_and_moved(tmp_path: Path) -> None:
    write_village(tmp_path, cover=(0.0, -2.0))
    keys = {**RASTERS, "canopy": "canopy.tif"}
    scene = build(tmp_path, **keys)
    q = scene.info.quality
    assert (q["cover_shift"]["east"], q["cover_shift"]["north"]) == (0, -2) and q[
        "building_iou"
    ] < 0.85
    assert any("land cover lies +0 m east, -2 m north" in remark for remark in q["remarks"])
    moved = build(tmp_path, **keys, cover_shift="auto")
    assert moved.info.quality["building_iou"] == 1.0 and moved.info.quality["cover_moved_m"] == [
        0,
        2,
    ]
    inner = slice(4, -4), slice(None)
    assert np.array_equal(whole(moved).cover[inner], village()["cover"][inner])


def test_shifts_of_textures_without_common_edges_are_not_told() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (90, 90, 3)).astype(np.uint8)
    known = np.ones((90, 90), bool)
    found = image_shift(image, rng.random((90, 90)).astype(np.float32) * 10, known, 1.0)
    assert found is None or not found.sure
    assert image_shift(image, np.zeros((90, 90)), known, 1.0) is None
    assert image_shift(image, np.zeros((90, 90)), ~known, 1.0) is None
    assert mask_shift(~known, known, known, 1.0) is None
    assert mask_shift(rng.random((90, 90)) < 0.02, rng.random((90, 90)) < 0.02, known, 1.0) is None
    assert shifts_by_part(image, np.zeros((90, 90)), known, 1.0) == []


def test_shifts_below_a_column_are_told() -> None:
    made = village()
    wide = np.kron(made["built"], np.ones((1, 1)))
    moved = ndimage.shift(made["image"].astype(float), (0, 1.5, 0), order=1, mode="nearest").astype(
        np.uint8
    )
    found = image_shift(moved, wide, np.ones(wide.shape, bool), 2.0)
    assert (
        found is not None
        and found.east == pytest.approx(3.0, abs=0.6)
        and found.north == pytest.approx(0, abs=0.4)
    )
    assert (
        found.length == pytest.approx(np.hypot(found.east, found.north))
        and found.score > found.at_zero
    )


def test_a_classified_coloured_cloud(clouds: Path) -> None:
    scene = build(clouds, points="classified.laz")
    made, crop = village(), whole(scene)
    assert np.allclose(crop.height, np.maximum(made["built"], made["canopy"]), atol=0.06)
    for name in ("building", "tree"):
        assert np.array_equal(crop.cover == codes()[name], made["cover"] == codes()[name]), name
    assert np.array_equal(crop.image, made["image"])
    assert (
        scene.info.quality["building_iou"] == 1.0 and scene.info.quality["point_spacing_m"] == 0.5
    )


def test_a_cloud_without_classes(clouds: Path) -> None:
    with pytest.raises(InputError):
        build(clouds, points="plain.laz")
    scene = build(clouds, points="plain.laz", ground="filter")
    made, crop = village(), whole(scene)
    assert np.abs(crop.height - np.maximum(made["built"], made["canopy"])).max() < 0.4
    built = crop.cover == codes()["building"]
    assert (built & (made["built"] > 0)).sum() / (built | (made["built"] > 0)).sum() > 0.8
    assert (crop.cover[made["canopy"] > 7] == codes()["tree"]).mean() > 0.5


def test_classes_of_points_can_be_said(clouds: Path) -> None:
    scene = build(
        clouds, points=["classified.laz"], point_classes={"6": "unknown"}, dsm_holds="all"
    )
    assert "building_iou" not in scene.info.quality
    with pytest.raises(JobError, match="point_classes maps '6' to 'hut'"):
        build(clouds, points="classified.laz", point_classes={"6": "hut"})


def test_bad_points_have_a_name(clouds: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingCrsError, match="--crs"):
        build(clouds, points="no_crs.laz")
    assert build(clouds, points="no_crs.laz", crs=CRS).frame.crs == CRS
    with pytest.raises(InputError, match="8-bit"):
        build(clouds, points="classified.laz", colour_bits=8)
    with pytest.raises(MissingFileError, match="no file matches"):
        build(clouds, points="none*.laz")
    assert len(find_sources(recipe(points="*.laz"), clouds).all("points")) == 3


def test_sources_without_overlap_are_named(tmp_path: Path, clouds: Path) -> None:
    write_village(tmp_path, dsm=(5000.0, 0.0), image=(0.0, 5000.0), cover=(5000.0, 5000.0))
    with pytest.raises(RegionError, match=r"do not meet: dsm covers .*, dtm"):
        build(tmp_path, dsm="dsm.tif", dtm="dtm.tif")
    good = {"dsm": "dtm.tif", "dtm": "dtm.tif"}
    with pytest.raises(RegionError, match="image"):
        build(tmp_path, **good, image="image.tif")
    with pytest.raises(RegionError, match=r"land cover .* says nothing"):
        build(tmp_path, **good, cover="cover.tif", legend="earthgen")
    with pytest.raises(RegionError, match="the bounds of the recipe"):
        build(tmp_path, **good, bounds=(0, 0, 10, 10))
    with pytest.raises(RegionError, match="points covers"):
        build_scene(
            recipe(points=str(clouds / "classified.laz"), dtm="dsm.tif"), tmp_path, tmp_path / "out"
        )
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_legends_are_ambiguous_until_said(rasters: Path) -> None:
    keys = {key: value for key, value in RASTERS.items() if key != "legend"}
    with pytest.raises(InputError, match="there is no legend 'umpe'; did you mean 'umep'"):
        build(rasters, **keys, legend="umpe")
    values = {"5": "sand", "13": "tree", "18": "building", "21": "rail"}
    scene = build(rasters, **keys, legend_values=values)
    assert set(np.unique(whole(scene).cover)) == {codes()[name] for name in values.values()}
    with pytest.raises(InputError, match="unknown class"):
        build(rasters, **keys, legend_values={"5": "beach"})


def test_what_is_tall_or_flat_gets_a_class_that_fits() -> None:
    code = codes()
    zero = np.zeros((40, 40), np.float32)
    built, base = zero.copy(), np.full((40, 40), code["paved"], np.uint8)
    built[5:15, 5:15] = 9.0
    base[20:30, 20:30] = code["building"]
    valid = np.ones((40, 40), bool)
    found = combine(CoverInputs(built, None, base), 1.0, "buildings", zero, valid)
    assert (found.cover[5:15, 5:15] == code["building"]).all() and (
        found.cover[20:30, 20:30] == code["paved"]
    ).all()
    assert found.changed["tall_without_class"] == pytest.approx(100 / 1600)
    assert found.changed["standing_without_height"] == pytest.approx(100 / 1600)
    rough = zero.copy()
    rough[5:15, 5:15] = 6 + 6 * np.random.default_rng(0).random((10, 10))
    assert (
        combine(CoverInputs(rough, None, base), 1.0, "all", zero, valid).cover[6:14, 6:14]
        == code["tree"]
    ).mean() > 0.9
    assert (
        combine(CoverInputs(built, None, base), 1.0, "all", zero, valid).cover[5:15, 5:15]
        == code["building"]
    ).all()
    bridge = np.where(built > 0, np.uint8(code["road"]), np.uint8(0))
    assert (
        combine(CoverInputs(built, None, base, bridge), 1.0, "all", zero, valid).cover[5:15, 5:15]
        == code["road"]
    ).all()
    assert roughness(built, built > 0)[10, 10] == pytest.approx(0, abs=1e-5)


def test_colour_says_what_nobody_else_says() -> None:
    code = codes()
    zero, valid = np.zeros((80, 80), np.float32), np.ones((80, 80), bool)
    image = np.full((80, 80, 3), 150, np.uint8)
    image[:20] = (80, 130, 60)
    image[20:40, :40] = (190, 160, 120)
    image[40:, 40:] = (60, 70, 75)
    ground = zero.copy()
    ground[40:, 40:] = -3
    found = combine(
        CoverInputs(zero, None, None, None, image, valid), 1.0, "all", ground, valid
    ).cover
    assert (
        found[10, 10] == code["grass"]
        and found[30, 20] == code["grassland"]
        and found[60, 10] == code["paved"]
    )
    assert found[60, 60] == code["lake"]
    felled = np.zeros((80, 80), np.uint8)
    felled[0, 0] = code[
        "tree"
    ]  # land cover that the heights do not bear out changes nothing of the rule
    again = combine(
        CoverInputs(zero, None, felled, None, image, valid), 1.0, "all", ground, valid
    ).cover
    assert again[0, 0] == code["grass"] and np.array_equal(again[1:], found[1:])
    flat = combine(CoverInputs(zero, None, None, None, image, valid), 1.0, "all", zero, valid).cover
    assert flat[60, 60] == code["paved"]  # dark, but no lower than its banks: a shadow
    bright = np.where(image == 0, np.nan, 200.0)[..., 0].astype(np.float32)
    bright[40:, 40:] += 10
    lit = combine(
        CoverInputs(zero, None, None, None, image, valid, bright), 1.0, "all", ground, valid
    ).cover
    assert lit[60, 60] == code["paved"]  # a laser sees it well, so it is no water
    assert greenness(image)[10, 10] > 0.1 > greenness(image)[60, 10]


def gate() -> trimesh.Trimesh:
    """Two towers with a slab across, on a floor; 40 m wide, z up, in metres from the village's
    corner."""
    parts = [
        trimesh.creation.box(bounds=[[0, 0, -1], [40, 40, 0]]),
        trimesh.creation.box(bounds=[[8, 10, 0], [14, 30, 12]]),
        trimesh.creation.box(bounds=[[26, 10, 0], [32, 30, 12]]),
        trimesh.creation.box(bounds=[[14, 10, 8], [26, 30, 12]]),
    ]
    for part, colour in zip(
        parts, ([90, 90, 95], [200, 60, 50], [60, 60, 200], [230, 200, 170]), strict=True
    ):
        part.visual.vertex_colors = [*colour, 255]
    return trimesh.util.concatenate(parts)


@pytest.mark.parametrize("suffix", [".ply", ".glb"])
def test_meshes_keep_overhangs_and_wall_colours(tmp_path: Path, suffix: str) -> None:
    mesh = gate()
    if suffix == ".glb":  # y is up in glTF
        mesh.vertices = mesh.vertices[:, [0, 2, 1]] * (1, 1, -1)
    mesh.export(tmp_path / f"gate{suffix}")
    scene = build(tmp_path, mesh=f"gate{suffix}", crs=CRS, mesh_offset=(EAST, NORTH, 200.0))
    assert scene.frame.bounds == (EAST, NORTH, EAST + 40, NORTH + 40)
    crop = whole(scene)
    assert np.allclose(crop.ground, 200, atol=0.01)
    found = {tuple(voxel): n for n, voxel in enumerate(crop.local - np.array((0, 0, 16)))}
    assert (20, 20, 11) in found and (20, 20, 8) in found  # the slab's top and its underside
    assert (20, 20, 9) not in found and (20, 20, 4) not in found  # inside it, and the open gate
    assert (20, 20, -1) in found  # the floor below
    assert (10, 20, 6) not in found and (8, 20, 6) in found  # a tower is solid
    assert (
        crop.height[20, 20] == pytest.approx(12, abs=0.01)
        and crop.cover[20, 20] == codes()["building"]
    )
    west, slab = found[8, 20, 6], found[20, 20, 11]
    assert crop.rgb_known[west] and np.allclose(crop.rgb[west], (200, 60, 50), atol=2)
    assert np.allclose(crop.rgb[slab], (230, 200, 170), atol=2)
    assert np.allclose(crop.normal[west], (-1, 0, 0), atol=0.1)
    assert np.allclose(crop.normal[found[20, 20, 8]], (0, 0, -1), atol=0.1)


def test_a_texture_is_looked_up(tmp_path: Path) -> None:
    texture = Image.fromarray(
        np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], np.uint8)
    )
    vertices = np.array([[0, 0, 0], [32, 0, 0], [32, 32, 0], [0, 32, 0]], float)
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    visual = trimesh.visual.TextureVisuals(uv=uv, image=texture)
    mesh = trimesh.Trimesh(vertices, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)
    (tmp_path / "m").mkdir()
    mesh.export(tmp_path / "m" / "flat.obj")
    crop = whole(build(tmp_path, mesh="m/flat.obj", crs=CRS, mesh_offset=(EAST, NORTH, 0.0)))
    assert crop.image[4, 4].tolist() == [255, 0, 0] and crop.image[4, 28].tolist() == [0, 255, 0]
    assert crop.image[28, 4].tolist() == [0, 0, 255] and crop.image[28, 28].tolist() == [
        255,
        255,
        0,
    ]


def test_bad_meshes_have_a_name(tmp_path: Path) -> None:
    gate().export(tmp_path / "gate.ply")
    with pytest.raises(JobError, match="say no CRS"):
        build(tmp_path, mesh="gate.ply")
    with pytest.raises(RegionError, match="nothing on"):
        build(tmp_path, mesh="gate.ply", crs=CRS, bounds=(EAST, NORTH, EAST + 40, NORTH + 40))
    for name, said in (
        ("tileset.json", "3D Tiles"),
        ("a.b3dm", "3D Tiles"),
        ("a.gml", "CityGML"),
        ("a.dae", "format .dae"),
    ):
        (tmp_path / name).write_text("{}")
        with pytest.raises(InputError, match=said):
            build(tmp_path, mesh=name, crs=CRS)
    (tmp_path / "broken.glb").write_bytes(b"glTF nothing")
    with pytest.raises(InputError):
        build(tmp_path, mesh="broken.glb", crs=CRS)
    (tmp_path / "empty.obj").write_text("v 0 0 0\n")
    with pytest.raises(InputError):
        build(tmp_path, mesh="empty.obj", crs=CRS)


def test_a_world_becomes_a_scene(tmp_path: Path) -> None:
    world = synthetic.make(tmp_path / "w.zarr", (0, 64), (0, 64))
    scene = build(tmp_path, world="w.zarr")
    assert scene.info.kind == "simulated" and scene.frame.crs == "EPSG:32632"
    assert scene.frame.vertical_crs == world.frame.vertical_crs
    crop, voxels = whole(scene), world.voxels()
    assert np.array_equal(crop.xyz, voxels.xyz) and np.array_equal(crop.semantic, voxels.semantic)
    assert crop.rgb_known.all() and crop.valid.all()
    layers = world.layers()
    assert np.allclose(crop.ground, layers["ground"].values)
    assert np.array_equal(crop.cover, layers["semantics"].values)
    level = (crop.xyz[:, 2] == -1) & (voxels.faces == 32)
    assert level.sum() > 100 and np.allclose(crop.normal[level][:, 2], 1, atol=0.05)
    with pytest.raises(FrameError, match="not 2 m"):
        build(tmp_path, world="w.zarr", voxel_size=2.0)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"licence": ""}, JobError, "has no licence"),
        ({"grade": "Z"}, JobError, "licence grade"),
        ({"dtm": None}, JobError, "give a dtm"),
        ({"dsm": None, "dtm": None}, JobError, "needs heights"),
        ({"world": "w.zarr"}, JobError, "one of a world"),
        ({"dsmm": "x.tif"}, JobError, "no key 'dsmm'; did you mean 'dsm'"),
        ({"voxel_size": -1}, JobError, "voxel_size"),
        ({"name": "a/b"}, JobError, "name"),
        ({"ground": "guess"}, JobError, "ground"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_named(change: dict, error: type, said: str) -> None:
    scene = {"name": "v", **ABOUT, "dsm": "a.tif", "dtm": "b.tif"} | change
    with pytest.raises(error, match=said):
        parse_recipe({"scene": [{key: value for key, value in scene.items() if value is not None}]})


def test_recipes_as_files(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("[[scene")
    with pytest.raises(JobError, match="cannot be read"):
        read_recipe(tmp_path / "bad.toml")
    scene = {"name": "v", **ABOUT, "dsm": "a.tif", "dtm": "b.tif"}
    with pytest.raises(JobError, match="two scenes are called 'v'"):
        parse_recipe({"scene": [scene, scene]})
    with pytest.raises(JobError, match="scene"):
        parse_recipe({"scene": []})
    with pytest.raises(JobError, match="multiples of 8"):
        build(tmp_path, world="w", band=(-5, 100))


def test_the_recipe_of_the_real_scenes_parses() -> None:
    found = read_recipe(Path(__file__).parents[3] / "examples" / "datasets" / "real.toml")
    held = {scene.name for scene in found.scene if scene.held_out}
    assert held == {
        "goteborg-kr",
        "ign-0292",
        "delft",
        "ign-montpellier",
        "autzen",
        "bern",
        "redrocks",
    }
    assert [scene.name for scene in found.scene if scene.grade == "C"] == ["wellington"]


def test_parts_are_held_out_by_side(rasters: Path) -> None:
    scene = build(rasters, **RASTERS, held_out="south")
    assert scene.info.held_out == ((EAST, NORTH, EAST + SIZE, NORTH + 24),)
    frame = scene.frame
    assert held_out_bounds(recipe(**RASTERS), frame) == ()
    assert held_out_bounds(recipe(**RASTERS, held_out=True), frame) == (frame.bounds,)
    assert held_out_bounds(recipe(**RASTERS, held_out="west", held_out_share=0.5), frame) == (
        (EAST, NORTH, EAST + 48, NORTH + SIZE),
    )
    assert held_out_bounds(recipe(**RASTERS, held_out=(1, 2, 3, 4)), frame) == ((1, 2, 3, 4),)


def test_a_recipe_is_built_and_goes_on_where_it_was(rasters: Path, tmp_path: Path) -> None:
    scenes = [{"name": name, **ABOUT, **RASTERS} for name in ("one", "two")]
    scenes.append({"name": "bad", **ABOUT, "dsm": "none.tif", "dtm": "none.tif"})
    plan: Recipe = parse_recipe({"scene": scenes})
    events = []
    with pytest.raises(MissingFileError):
        build_all(plan, rasters, tmp_path, listener=events.append)
    assert [event.done for event in events if event.kind == "step"] == [0, 1, 2]
    built = build_all(plan, rasters, tmp_path, keep_going=True)
    assert [scene.info.name for scene in built.kept] == ["one", "two"] and not built.made
    assert list(built.failed) == ["bad"] and built.report == str(tmp_path / "report" / "index.html")
    again = build_all(
        plan, rasters, tmp_path, only=["one"], overwrite=True, voxel_size=2.0, report=False
    )
    assert again.made[0].frame.voxel_size == 2.0 and again.report is None
    with pytest.raises(StoreExistsError):
        build_scene(plan.scene[0], rasters, tmp_path)


def test_the_report_has_pictures_and_figures(rasters: Path, tmp_path: Path) -> None:
    scene = build(rasters, **RASTERS, image="image.tif")
    page = write_report(tmp_path, [scene])
    text = page.read_text()
    assert (
        "village.png" in text and "Made up" in text and "CC0-1.0" in text and "script" not in text
    )
    assert json.loads((page.parent / "report.json").read_text())[0]["building_iou"] == 1.0
    assert len(table_row(scene)) == len(TABLE_COLUMNS) and scene_figures(scene)["grade"] == "A"
    shown = panels(scene)
    assert list(shown) == ["land cover", "height above ground", "colour"]
    picture = np.asarray(Image.open(save_panels(scene, tmp_path / "p.png")))
    assert picture.shape[0] == shown["colour"].shape[0] == 6 * SIZE
    assert np.array_equal(shown["colour"][3::6, 3::6], village()["image"])
    hill = np.add.outer(np.zeros(8), np.arange(8.0))
    assert shade(hill, 1.0)[4, 4] > shade(-hill, 1.0)[4, 4]  # light comes from the north-west


def test_remarks_are_about_what_is_bad() -> None:
    good = {"coverage": 1.0, "holes": 0.0, "vegetation_noise": 0.0, "over_band": 0.0}
    assert remarks(good) == []
    bad = {
        "coverage": 0.2,
        "holes": 0.3,
        "vegetation_noise": 0.4,
        "over_band": 0.01,
        "building_iou": 0.5,
    }
    assert len(remarks(bad)) == 5


def test_posed_pictures_agree_with_the_scene(rasters: Path, tmp_path: Path) -> None:
    from earthgen.dataset.posed_pictures import scene_cameras, write_scene_frames
    from earthgen.splats.cameras.camera import map_view
    from earthgen.splats.cameras.transforms_json import read_transforms
    from earthgen.splats.raster.rendering import render

    scene = build(rasters, **RASTERS, image="image.tif")
    told = []
    path = write_scene_frames(scene, tmp_path, 3, size=(96, 64), report=told.append)
    views = read_transforms(path)
    assert len(views) == len(told) == 3 and all(view.camera.crs == CRS for view in views)
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "depth",
        "images",
        "masks",
        "normals",
        "semantics",
        "transforms.json",
    ]
    for view in views:
        classes = np.asarray(Image.open(path.parent / "semantics" / Path(view.file_path).name))
        depth = np.asarray(Image.open(path.parent / view.depth_file_path))
        # what is seen lies on the scene: its class is that of the column it is in
        row, col = np.nonzero(depth > 0)
        points = view.camera.unproject(np.stack([col + 0.5, row + 0.5], axis=1), depth[row, col])
        r, c = (
            np.floor(NORTH + SIZE - points[:, 1]).astype(int),
            np.floor(points[:, 0] - EAST).astype(int),
        )
        inside = (r >= 0) & (r < SIZE) & (c >= 0) & (c < SIZE)
        assert inside.mean() > 0.9  # discs at the edge reach a little beyond it
        assert (classes[row, col][inside] == village()["cover"][r[inside], c[inside]]).mean() > 0.8
    from earthgen.dataset.posed_pictures import crop_gaussians

    crop = whole(scene)
    drawn = render(crop_gaussians(crop), map_view(scene.frame.bounds, 1.0, 400.0, crs=CRS))
    # a wall is a stack of discs that reach two pixels over its edge: columns so near to another
    # class are left out
    uniform = ndimage.maximum_filter(crop.cover, 5) == ndimage.minimum_filter(crop.cover, 5)
    assert (drawn.semantics.numpy() == crop.cover)[uniform].mean() > 0.99
    assert np.abs(drawn.rgb.numpy() * 255 - crop.image)[crop.height == 0].mean() < 12
    assert len(scene_cameras(scene, 1000, (96, 64))) == 49


@pytest.mark.slow
def test_real_scenes(shared: Path, tmp_path: Path) -> None:
    plan = read_recipe(Path(__file__).parents[3] / "examples" / "datasets" / "real.toml")
    names = ["goteborg-kr", "delft", "ign-rgb-870200", "brighton"]
    built = build_all(plan, shared, tmp_path, only=names, report=False)
    q = {scene.info.name: scene.info.quality for scene in built.made}
    assert q["goteborg-kr"]["building_iou"] > 0.97
    assert q["delft"]["building_iou"] > 0.9 and q["delft"]["coverage"] > 0.9
    assert q["ign-rgb-870200"]["coloured"] > 0.9 and q["brighton"]["coloured"] > 0.8
