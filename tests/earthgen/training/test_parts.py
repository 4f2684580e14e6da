"""What each part learns: losses, figures, pictures; and all parts in order, from scenes to a set
of weights."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from earthgen.dataset.crop import Crop
from earthgen.models.build import make_model
from earthgen.models.conditions import CONDITIONS
from earthgen.models.image_features import missing_package
from earthgen.models.presets import PARTS, preset
from earthgen.models.weights.card import open_weights
from earthgen.training.batches import make_batch
from earthgen.training.data import TrainingData, open_data
from earthgen.training.log import read_log
from earthgen.training.parts import tex_vae
from earthgen.training.parts.common import keep_conditions
from earthgen.training.parts.latent_pool import LatentPool, latent_batch
from earthgen.training.parts.struct_flow import cells_with_data
from earthgen.training.parts.tex_flow import (
    colour_figures,
    colours_of_objects,
    told_in_training,
    visible_classes,
)
from earthgen.training.perceptual import perceptual
from earthgen.training.pictures import SIDE, class_colours, heat, map_view, sheet, voxel_view
from earthgen.training.run import TASK_MAKERS, WEIGHTS, parts_of, train
from earthgen_cli.main import main
from geo_io.legend import codes
from tests.helpers import training_places as places
from tests.helpers.dataset_places import village_scene

FIGURES = {
    "struct-vae": {
        "loss",
        "iou",
        "f1",
        "holes",
        "accuracy_1",
        "accuracy_2",
        "accuracy_4",
        "class_accuracy",
    },
    "struct-coarse": {"flow", "iou", "cells", "by_height_iou"},
    "struct-fine": {"flow", "iou", "tall_iou", "height_mae", "height_w1", "by_height_iou"},
    "tex-vae": {"colour", "colour_psnr", "view_psnr", "view_l1", "view_similarity"},
    "tex-flow": {"flow", "colour_psnr", "colour_spread", "by_image_colour_psnr"},
    "height-flow": {"flow", "tall_iou", "height_mae", "height_w1"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return places.dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def opened(data: Path) -> TrainingData:
    return open_data(data, preset(places.NAME), held_out=2)


@pytest.fixture(scope="module")
def crop(opened: TrainingData) -> Crop:
    return opened.held_out[0]


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All parts, three steps each, from the command line."""
    out = tmp_path_factory.mktemp("runs") / "all"
    config = out.parent / "training.toml"
    own = {"tex-vae": "render_size = 24\nrender_start = 0\n"}
    parts = "\n".join(
        f"[parts.{part}]\nsteps = 3\nbatch_size = 2\n{own.get(part, '')}" for part in PARTS
    )
    config.write_text(
        f'data = "{data}"\npreset = "{places.NAME}"\nprecision = "bf16"\n'
        "log_steps = 1\nheld_out = 1\n"
        f"tensorboard = false\n{parts}\n"
    )
    assert (
        main(
            [
                "train",
                "all",
                str(config),
                "--out",
                str(out),
                "--threads",
                "1",
                "--licence",
                "CC0-1.0",
                "-q",
            ]
        )
        == 0
    )
    return out


def test_all_parts_in_order_become_a_set_of_weights(trained: Path) -> None:
    found = open_weights(trained / WEIGHTS, preset_name=places.NAME)
    assert found.parts.keys() == set(PARTS)
    assert found.parts["struct-fine"].latents == found.parts["struct-vae"].digest
    assert found.parts["tex-flow"].latents == found.parts["tex-vae"].digest
    assert found.card["licence"] == "CC0-1.0"
    for part in PARTS:
        model = found.load(part)
        assert all(bool(value.isfinite().all()) for value in model.state_dict().values())


@pytest.mark.parametrize("part", PARTS)
def test_every_part_leaves_figures_curves_and_a_picture(trained: Path, part: str) -> None:
    folder = trained / part
    rows = read_log(folder / "metrics.csv")
    assert [row["step"] for row in rows if row["loss"]] == ["1", "2", "3"]
    held = {
        name.removeprefix("held_out.")
        for name, value in rows[-1].items()
        if name.startswith("held_out.") and value
    }
    assert FIGURES[part] <= held
    speed = {
        name: float(rows[2][name])
        for name in ("crops_per_s", "voxels_per_s", "gflops", "flop_share")
    }
    assert all(value > 0 for value in speed.values()), speed
    assert Image.open(folder / "curves.png").size[0] > 300
    picture = Image.open(next((folder / "pictures").iterdir()))
    assert (
        len(
            set(
                picture.convert("L").get_flattened_data()
                if hasattr(picture, "get_flattened_data")
                else picture.convert("L").getdata()
            )
        )
        > 10
    )


def test_views_are_compared(trained: Path) -> None:
    rows = read_log(trained / "tex-vae" / "metrics.csv")
    assert any(row.get("view_l1") for row in rows) and any(row.get("view_ssim") for row in rows)
    assert (missing_package() != "") or any(row.get("view_perceptual") for row in rows)


def test_going_on_with_a_whole_run_does_nothing(
    trained: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = trained.parent / "training.toml"
    assert main(["train", "all", str(config), "--out", str(trained), "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parts"] == {}


def test_the_report(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "train",
        "height-flow",
        "--data",
        str(data),
        "--preset",
        places.NAME,
        "--out",
        str(tmp_path / "r"),
        "--steps",
        "2",
        "--batch",
        "1",
        "--threads",
        "1",
        "--precision",
        "fp32",
    ]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "crops/s" in said.out and "height-flow, held out: " in said.out and "weights" in said.out
    assert "train height-flow" in said.err


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["all", "--out", "r"], 2, "--data"),
        (["all", "--data", "d"], 2, "--out"),
        (["tex", "--data", "d", "--out", "r"], 2, "tex"),
        (["all", "--data", "none", "--out", "r"], 2, "how long"),
        (["all", "--data", "none", "--out", "r", "--steps", "3"], 5, "no scene in none"),
        (
            ["all", "--data", "d", "--out", "r", "--steps", "3", "--precision", "fp8"],
            2,
            "precision",
        ),
        (["all", "--data", "d", "--out", "r", "--steps", "3", "--preset", "huge"], 11, "huge"),
        (["all", "none.toml"], 2, "none.toml does not exist"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    words: list[str],
    code: int,
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *words]) == code
    said = capsys.readouterr().err
    assert complaint in said and said.startswith("error: ") and said.count("\n") == 1


def test_the_command_knows_all_tasks() -> None:
    from earthgen_cli.commands.train import merge_parts

    assert set(TASK_MAKERS) == set(PARTS)
    assert merge_parts({"tex-vae": {"steps": 1}}, ("tex-vae", "tex-flow"), {"batch": 2}) == {
        "tex-vae": {"steps": 1, "batch": 2},
        "tex-flow": {"batch": 2},
    }


def test_a_dataset_without_colours(tmp_path: Path) -> None:
    """Structure is learned from it; texture says that there is nothing to learn from."""
    from earthgen.errors import TrainingError

    scene = village_scene(tmp_path, "grey")
    import zarr

    zarr.open_group(scene.path, mode="r+")["image_known"][...] = False  # type: ignore[index]
    micro = preset(places.NAME)
    assert len(open_data(tmp_path, micro).train)
    with pytest.raises(TrainingError, match=r"no scene of .* has colours") as caught:
        open_data(tmp_path, micro, coloured=True)
    assert "simulate" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "problem"),
    [("cover", "no scene of .* has land cover"), ("building", "no building of .* has a number")],
)
def test_a_dataset_without_conditions(tmp_path: Path, layer: str, problem: str) -> None:
    import zarr

    from earthgen.errors import TrainingError

    scene = village_scene(tmp_path, "bare")
    zarr.open_group(scene.path, mode="r+")[layer][...] = 0  # type: ignore[index]
    with pytest.raises(TrainingError, match=problem) as caught:
        open_data(tmp_path, preset(places.NAME))
    assert "\n" not in str(caught.value)


def test_latents_of_the_pool_are_those_of_the_crops(opened: TrainingData) -> None:
    vae: Any = make_model("struct-vae", preset(places.NAME).struct_vae).eval()
    pool = LatentPool(vae, opened, 5, 3, torch.device("cpu"))
    found = latent_batch([pool.get(number) for number in (0, 1, 4)], vae.config.stride)
    assert pool.get(4) is pool.get(1) and set(pool.cache) == {0, 1}, "number 4 of a pool of 3 is 1"
    crops = [opened.crop(5, number) for number in (0, 1, 1)]
    batch = make_batch(crops)
    with torch.no_grad():
        latent = vae.encode(batch.sites, batch.semantic)
    assert torch.equal(found.latent.mean.coordinates, latent.mean.coordinates)
    # Alone and in a batch, sums have other lengths.
    assert torch.allclose(found.latent.mean.features, latent.mean.features, atol=1e-5)
    assert torch.allclose(found.latent.log_variance, latent.log_variance, atol=1e-5)
    assert torch.equal(found.columns.height, batch.height) and len(found.columns.sites) == 0


def test_cells_without_data_teach_nothing() -> None:
    model: Any = make_model("struct-coarse", preset(places.NAME).struct_coarse)
    valid = torch.ones(1, 32, 32, dtype=torch.bool)
    valid[0, 0, 31] = False  # the north-east corner
    from earthgen.sparse.sites import Place

    grid = model.grid(Place(), (32, 32, 48))
    weight = cells_with_data(valid, grid)[:, 0]
    missing_cells = grid.coordinates[weight == 0]
    assert len(missing_cells) == 6 and set(map(tuple, missing_cells[:, 1:3].tolist())) == {(3, 3)}


def test_the_true_picture_of_true_colours_is_perfect(crop: Crop) -> None:
    batch = make_batch([crop])
    camera = tex_vae.random_view(crop.frame, crop, 0.2, 0.5, 48)
    picture, truth = tex_vae.render_pair(batch.rgb, batch, 0, camera)
    assert torch.allclose(picture.clamp(0, 1), truth, atol=1e-6)
    assert float(truth.std()) > 0.05, "something is seen"
    lost = tex_vae.view_losses(
        picture, truth, l1_weight=1.0, ssim_weight=1.0, perceptual_weight=0.0
    )
    assert float(lost["views"]) < 1e-4


def test_views_have_gradients_where_colours_are_known(crop: Crop) -> None:
    batch = make_batch([crop])
    camera = tex_vae.random_view(crop.frame, crop, 0.2, 0.5, 24)
    found_gradients = []
    for trust in (batch.trust, torch.zeros_like(batch.trust)):
        numbers = torch.rand(
            len(batch.sites), 3, generator=torch.Generator().manual_seed(1)
        ).requires_grad_()
        views = tex_vae.render_pair(numbers, replace(batch, trust=trust), 0, camera)
        tex_vae.view_losses(*views, l1_weight=1.0, ssim_weight=0.2, perceptual_weight=0.0)[
            "views"
        ].backward()
        assert numbers.grad is not None and bool(numbers.grad.isfinite().all())
        found_gradients.append(float(numbers.grad.abs().sum()))
    assert found_gradients[0] > 0 and found_gradients[1] == 0


@pytest.mark.skipif(
    missing_package() != "", reason="the package of the feature network is not installed"
)
def test_the_perceptual_distance(crop: Crop) -> None:
    picture = torch.from_numpy(crop.image).float() / 255
    assert float(perceptual(picture, picture)) == 0
    near, far = (picture + 0.02).clamp(0, 1), picture.flip(0).roll(7, 1)
    assert 0 < float(perceptual(near, picture)) < float(perceptual(far, picture))
    wanted = picture.clone().requires_grad_()
    perceptual(wanted, far).backward()
    assert wanted.grad is not None and float(wanted.grad.abs().sum()) > 0


def test_hidden_land_cover_is_not_told_by_voxels(opened: TrainingData) -> None:
    batch = make_batch([opened.crop(0, 0), opened.crop(0, 1)])
    assert torch.equal(
        visible_classes(batch, keep_conditions(batch.conditions, "semantics")), batch.semantic
    )
    assert not bool(visible_classes(batch, keep_conditions(batch.conditions, "image")).any())
    conditions = replace(
        batch.conditions,
        present=torch.tensor([[True] * len(CONDITIONS), [False] * len(CONDITIONS)]),
    )
    codes = visible_classes(batch, conditions)
    first = batch.sites.coordinates[:, 0] == 0
    assert torch.equal(codes[first], batch.semantic[first]) and not bool(codes[~first].any())
    assert CONDITIONS[0] == "semantics"


def test_colour_figures(crop: Crop) -> None:
    batch = make_batch([crop])
    parts = colours_of_objects(batch)
    found = colour_figures(batch.rgb, batch, parts)
    assert found["colour_psnr"] > 80
    assert found["colour_spread"] == pytest.approx(1, abs=1e-3)
    grey = torch.full_like(batch.rgb, 0.5)
    found = colour_figures(grey, batch, parts)
    error = float((0.5 - batch.rgb[batch.seen]).square().mean())
    assert (
        found["colour_psnr"] == pytest.approx(-10 * math.log10(error), abs=1e-3)
        and found["colour_spread"] == 0
    )
    unseen = replace(batch, trust=torch.zeros_like(batch.trust))
    assert colour_figures(grey, unseen, colours_of_objects(unseen)) == {}


def test_spread_within_roofs_and_windows_on_walls(crop: Crop) -> None:
    """One colour a building has no spread; the truth has its own, and matches its windows."""
    batch = make_batch([crop])
    built = batch.semantic == codes()["building"]
    # Objects of 8 x 8 columns, all seen, with stripes on the walls.
    where = batch.sites.coordinates.long()
    number = torch.where(built, 1 + (where[:, 1] // 8) * 100 + where[:, 2] // 8, 0)
    stripes = (where[:, 3] % 3 == 0).float()[:, None].expand(-1, 3) * 0.3
    noise = torch.randn(len(number), 3, generator=torch.Generator().manual_seed(0)) * 0.05
    batch = replace(
        batch, object=number, rgb=0.4 + stripes + noise, trust=torch.ones_like(batch.trust)
    )
    parts = colours_of_objects(batch)
    true = colour_figures(batch.rgb, batch, parts)
    for name in ("roof_spread", "wall_spread", "wall_match"):
        assert true[name] == pytest.approx(1, abs=1e-4), name
    flat = colour_figures(parts.colour[parts.group], batch, parts)
    assert flat["roof_spread"] < 1e-3 and flat["wall_spread"] < 1e-3
    double = colour_figures(batch.rgb + 0.05 * torch.sign(noise), batch, parts)
    assert double["roof_spread"] > 1.5 and 0.5 < double["wall_match"] < 1


def test_what_a_batch_is_told(opened: TrainingData) -> None:
    batch = make_batch([opened.crop(0, number) for number in range(6)])
    built = batch.semantic == codes()["building"]
    where = batch.sites.coordinates.long()
    number = torch.where(built, 1 + (where[:, 1] // 8) * 100 + where[:, 2] // 8, 0)
    batch = replace(batch, object=number, trust=torch.ones_like(batch.trust))
    parts = colours_of_objects(batch)
    known = parts.known[parts.group]
    assert bool(known.any()) and not bool(known[~built].any())
    generator = torch.Generator().manual_seed(0)
    assert not bool(told_in_training(parts, len(batch), 1.0, generator).any())
    shares = set()
    for _ in range(20):
        told = told_in_training(parts, len(batch), 0.35, generator)[:, 3] > 0
        assert not bool((told & ~known).any())
        for sample in range(len(batch)):
            own = known & (where[:, 0] == sample)
            if bool(own.any()):
                share = float(told[own].float().mean())
                shares.add("none" if share == 0 else "all" if share == 1 else "some")
        # A part of an object is told whole or not at all.
        for group in parts.group[known].unique():
            assert len(told[parts.group == group].unique()) == 1
    assert shares == {"none", "some", "all"}


def test_a_flow_of_colours_needs_no_autoencoder(data: Path, tmp_path: Path) -> None:
    """`all` leaves TexVAE out if TexFM makes colours, and the set says nothing of latents."""
    given = places.settings(
        data, tmp_path / "run", parts={"tex-flow": {"target": "rgb", "batch_size": 1}}, steps=2
    )
    assert "tex-vae" not in parts_of("all", given) and "tex-flow" in parts_of("all", given)
    assert "tex-vae" in parts_of("all", places.settings(data, tmp_path / "run"))
    result = train("tex-flow", given)
    header = result.weights.parts["tex-flow"]
    assert header.latents == "" and header.config["target"] == "rgb"
    assert set(result.weights.parts) == {"tex-flow"}
    figures = result.fitted["tex-flow"].metrics
    assert math.isfinite(figures["colour_psnr"]) and math.isfinite(figures["told_colour_psnr"])
    model: Any = result.weights.load("tex-flow")
    assert 0.05 < float(model.statistics.mean.min()) < 1
    assert 0.01 < float(model.statistics.deviation.max()) < 0.5
    again = train("tex-flow", given, resume=True)
    assert not again.fitted, "it is finished"


def test_views_come_from_all_sides_and_show_walls(crop: Crop) -> None:
    frame, edge = crop.frame, crop.frame.nx * crop.frame.voxel_size
    middle = (np.array([sum(frame.x), sum(frame.y)])) / 2 * frame.voxel_size

    def eye(around: float, down: float) -> np.ndarray:
        return np.array(tex_vae.random_view(frame, crop, around, down, 16).position)

    ground = float(crop.ground.mean())
    assert 0 < eye(0.0, 0.0)[2] - ground < 0.12 * edge < 0.8 * edge < eye(0.0, 0.99)[2] - ground
    quarters = {tuple(np.sign(eye(turn, 0.3)[:2] - middle)) for turn in (0.1, 0.35, 0.6, 0.85)}
    assert len(quarters) == 4


def test_voxels_are_drawn_in_their_colours(crop: Crop) -> None:
    red = np.tile(np.array([[1.0, 0, 0]], np.float32), (len(crop), 1))
    picture = np.asarray(voxel_view(crop.xyz, red, crop.frame, crop.ground))
    assert picture.shape == (SIDE, SIDE, 3)
    middle = picture[SIDE // 2 - 10 : SIDE // 2 + 10, SIDE // 2 - 10 : SIDE // 2 + 10].astype(int)
    assert (middle[..., 0] > 100).all() and (middle[..., 1] < 60).mean() > 0.9
    assert (picture[2, 2] > 230).all(), "sky"
    empty = np.asarray(voxel_view(crop.xyz[:0], red[:0], crop.frame, crop.ground))
    assert (empty == empty[0, 0]).all()


def test_maps_and_sheets() -> None:
    assert class_colours(np.array([0, 1])).shape == (2, 3)
    colours = heat(np.array([[0.0, 10.0, 100.0, np.nan]]))
    assert (
        colours.shape == (1, 4, 3)
        and colours[0, 0].sum() > colours[0, 1].sum() > colours[0, 2].sum()
    )
    rows = [[map_view(np.zeros((4, 4))), map_view(np.ones((4, 4)))]] * 2
    found = sheet(rows, ["a", "b"])
    assert found is not None and found.size[0] > 2 * SIDE and found.size[1] > 2 * SIDE
    assert sheet([], ["a"]) is None


def test_a_run_with_pictures_of_a_dataset_that_holds_nothing_out(tmp_path: Path) -> None:
    village_scene(tmp_path / "data", "alone")
    warned = []
    settings = places.settings(tmp_path / "data", tmp_path / "run", steps=1, pictures=True)
    report = train("height-flow", settings, listener=lambda event: warned.append(event.note))
    assert report.fitted["height-flow"].metrics == {}
    assert any("held out" in note for note in warned)
    assert list((tmp_path / "run" / "height-flow" / "pictures").iterdir())
