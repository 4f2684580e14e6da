"""Whole evaluations on made-up villages, with backends of another plugin and untrained weights."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from cachetools import LRUCache

from earthgen.dataset.scene import scenes_in
from earthgen.errors import CropError, JobError, MissingWeightsError, ModelError, UnknownNameError
from earthgen.evaluation.card import write_into_card
from earthgen.evaluation.maps import scene_map
from earthgen.evaluation.metrics import ratios
from earthgen.evaluation.reconstruction import PAPER_FIGURES, sites_of, struct_vae
from earthgen.evaluation.report import json_values, number_text, page, write_report
from earthgen.evaluation.run import Evaluation, evaluate
from earthgen.evaluation.selection import choose_backends, choose_crops, held_out_crops
from earthgen.evaluation.settings import Settings
from earthgen.evaluation.weights import weights_of_run
from earthgen.evaluation.worlds import (
    choose,
    conditions_of,
    create,
    make_world,
    sampling_settings,
    scene_buildings,
)
from earthgen.models.build import make_model
from earthgen.models.weights import bundled as shipped
from earthgen.models.weights.card import open_weights
from earthgen.models.weights.format import part_path, save_weights
from earthgen.progress import Event, Progress
from earthgen_cli.commands.evaluate import reconstruction_rows
from earthgen_cli.main import main
from geo_io.errors import FrameError
from geo_io.legend import codes
from geo_io.semantics.rasterize import paint
from tests.helpers.evaluation_places import CONFIGS, dataset, weights, with_stripes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("evaluation") / "data")


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return weights(tmp_path_factory.mktemp("evaluation") / "weights")


@pytest.fixture(autouse=True)
def without_shipped_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured does not depend on what the package comes with."""
    monkeypatch.setattr(shipped, "BUNDLED", tmp_path / "no weights")


pytestmark = pytest.mark.usefixtures("one_thread")


def settings(data: Path, **given: object) -> Settings:
    usual = {"crops": 4, "size": 32, "seeds": 2, "steps": 2, "images": False, "maps": False}
    backends = ("terraces+stripes", "mean-height", "nearest-tile")
    return Settings(**{"data": data, **usual, "backends": backends, **given})


@pytest.fixture(scope="module")
def found(data: Path, untrained: Path) -> tuple[Evaluation, list[Event]]:
    """One evaluation of everything, and its progress."""
    events: list[Event] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = evaluate(
        settings(data, weights=untrained, maps=True), with_stripes(), Progress(events.append)
    )
    torch.set_num_threads(threads)
    return made, events


def test_worlds_and_baselines_stand_in_one_table(found: tuple[Evaluation, list[Event]]) -> None:
    worlds = found[0].report["worlds"]
    names = ["terraces+stripes", "mean-height", "nearest-tile"]
    assert list(worlds) == [
        *names,
        *(f"{name}, map" for name in names),
        "terraces+stripes, footprints",  # baselines know none, and only flows do without a map
    ]
    # The villages are alike: the nearest tile is the truth itself, and the mean height knows where
    # houses stand.
    near = worlds["nearest-tile"]
    assert near["voxel_iou"] == near["building_iou"] == near["class_iou"] == 1
    assert (
        near["height_error"] == 0
        and near["height_w1"] == 0
        and near["geometry_kernel"]["value"] <= 1e-9
        and "geometry_frechet" not in near
    )
    mean = worlds["mean-height"]
    assert mean["building_iou"] == 1 and 0 < mean["height_error"] < 3 and mean["voxel_iou"] < 1
    bare = worlds["terraces+stripes"]  # bare ground in steps, whatever the land cover
    assert bare["building_iou"] == 0 and bare["class_iou"] == 0
    kernels = [world["geometry_kernel"]["value"] for world in (bare, mean, near)]
    assert kernels == sorted(kernels, reverse=True)
    assert found[0].report["classes"]["nearest-tile"]["building"] == 1


def test_footprints_of_a_scene_are_its_buildings(data: Path) -> None:
    scene = scenes_in(data)[0]
    number, told = scene.layer("building"), scene.layer("building_height")
    buildings = scene_buildings(scene)
    assert len(buildings) > 3
    index = paint(
        scene.frame, buildings.footprint, np.arange(1, len(buildings) + 1, dtype=np.uint16), 1
    )
    assert np.array_equal(index > 0, scene.layer("valid") & (number > 0))
    here = index > 0
    np.testing.assert_allclose(buildings.height[index[here] - 1], told[here], atol=1e-4)
    layer = conditions_of(scene, footprints=True)["semantics"]
    part = replace(scene.frame, x=(scene.frame.x[0], scene.frame.x[0] + 32))
    assert 0 < len(layer.read(part).buildings) < len(buildings)


def test_reconstruction_of_all_parts(found: tuple[Evaluation, list[Event]]) -> None:
    figures = found[0].report["reconstruction"]
    assert set(figures) == {
        "struct-vae",
        "tex-vae",
        "struct-flow, semantics",
        "struct-flow, semantics and height",
        "struct-flow, image",
        "struct-flow, nothing",
    }
    vae = figures["struct-vae"]
    assert 0.3 < vae["accuracy"] < 0.9 and 0 < vae["iou"] <= vae["f1"] < 0.9, "untrained"
    assert vae["iou_cells"] > 0.5, "the latent's cells are the encoder's"
    assert figures["tex-vae"]["views"] == 4 * 5 and 3 < figures["tex-vae"]["psnr"] < 25
    assert 0 <= figures["struct-flow, image"]["iou_cells"] <= 1
    assert found[0].report["paper"]["struct-vae"]["accuracy"] == 0.971


def test_diversity_and_seams_are_of_backends_alone(found: tuple[Evaluation, list[Event]]) -> None:
    report = found[0].report
    assert list(report["diversity"]) == ["terraces+stripes"]
    assert report["diversity"]["terraces+stripes"]["colour"] > 0
    seams = report["seams"]["terraces+stripes"]
    assert list(seams) == ["96"] and seams["96"]["places"] > 1
    assert report["seams"]["truth"]["96"]["places"] == seams["96"]["places"]


def test_progress_counts_to_its_end(found: tuple[Evaluation, list[Event]]) -> None:
    events = found[1]
    assert events[-1].done == events[-1].total
    assert [event.done for event in events] == list(range(events[-1].total + 1))
    assert events[1].eta is not None


@pytest.mark.slow
def test_the_same_twice(data: Path, untrained: Path, found: tuple[Evaluation, list[Event]]) -> None:
    again = evaluate(settings(data, weights=untrained, maps=True), with_stripes()).report
    first = dict(found[0].report)
    times = first.pop("seconds_per_km2"), again.pop("seconds_per_km2")
    assert times[0].keys() == times[1].keys()
    assert json.dumps(json_values(first)) == json.dumps(json_values(again))
    other = evaluate(settings(data, seed=3, backends=("terraces",)), with_stripes()).report
    assert other["worlds"]["terraces"] != first["worlds"]["terraces+stripes"]


def test_a_structure_that_is_given_back_whole(data: Path) -> None:
    """A decoder that answers with the truth has an IoU of 1, and no holes."""
    from earthgen.models.build import make_model
    from earthgen.models.struct_vae import Decoded, StructVAE
    from tests.helpers.evaluation_places import CONFIGS

    model = make_model("struct-vae", CONFIGS["struct-vae"])
    assert isinstance(model, StructVAE)
    crops = held_out_crops(settings(data), 32, None)
    crop = crops[0]
    sites, order = sites_of(crop)
    decode = model.decode

    def whole(latent, teacher=None, repair="columns") -> Decoded:  # type: ignore[no-untyped-def]
        return decode(latent, teacher=sites)

    model.decode = whole  # type: ignore[method-assign]
    rows, patches = struct_vae(model, [crop], lambda note: None)
    figures = ratios(rows)
    assert figures["iou"] == figures["f1"] == figures["iou_cells"] == 1 and figures["holes"] == 0
    assert np.array_equal(patches[0].xyz, crop.xyz)
    assert sorted(order.tolist()) == list(range(len(crop)))


def test_a_world_does_not_depend_on_the_crops_that_were_asked_for(data: Path) -> None:
    plugins = with_stripes()
    scene = scenes_in(data)[1]
    crops = held_out_crops(settings(data), 32, None)
    choice = choose("terraces+stripes", plugins, None)
    whole = make_world(scene, choice, plugins, 7, crops.band).patch(
        scene.frame, scene.layer("valid")
    )
    for index in (8, 0):
        crop = crops[index]
        part = make_world(scene, choice, plugins, 7, crops.band).patch(crop.frame, crop.valid)
        rows, cols = scene.frame.slices(crop.frame)
        assert np.array_equal(part.height, whole.height[rows, cols])
        assert part.colour is not None and whole.colour is not None
        assert np.array_equal(part.colour, whole.colour[rows, cols])


def test_a_world_does_not_depend_on_the_size_of_its_cache(data: Path) -> None:
    plugins = with_stripes()
    scene = scenes_in(data)[1]
    choice = choose("terraces+stripes", plugins, None)
    valid = scene.layer("valid")
    usual = make_world(scene, choice, plugins, 7, (-16, 112))
    small = make_world(scene, choice, plugins, 7, (-16, 112))
    small.outputs = LRUCache(1, getsizeof=lambda block: block.nbytes)
    one, other = (world.patch(scene.frame, valid) for world in (usual, small))
    assert np.array_equal(one.xyz, other.xyz) and np.array_equal(one.colour, other.colour)
    assert len(usual.outputs) > 1 and len(small.outputs) == 0
    before = list(usual.outputs)
    usual.patch(scene.frame, valid, textured=False)
    assert set(usual.outputs) == set(before), "windows are computed once"


def test_conditions_of_a_scene(data: Path) -> None:
    scene = scenes_in(data)[0]
    given = conditions_of(scene, ("semantics", "dem", "dsm", "image"))
    wide = scene.frame.pad(8)
    inside = wide.slices(scene.frame)
    cover = given["semantics"].read(wide).cover
    assert np.array_equal(cover[inside], scene.layer("cover")) and not cover[:8].any()
    ground = given["dem"].read(wide).data
    assert np.array_equal(ground[inside], scene.layer("ground")) and np.array_equal(
        ground[0], ground[8]
    )
    standing = (given["dsm"].read(wide).data - ground)[inside]
    assert np.allclose(standing, scene.layer("height"), atol=1e-4)  # float32 of some hundred metres
    image = given["image"].read(wide).data
    assert (
        image.shape == (*wide.shape, 4)
        and not image[:8, :, 3].any()
        and (image[inside][..., 3] == 255).all()
    )
    assert set(conditions_of(scene)) == {"semantics", "dem"}


def test_learned_backends_get_the_weights(data: Path, untrained: Path) -> None:
    plugins = with_stripes()
    choice = choose(
        "height-flow", plugins, untrained, {"geometry": {"steps": 2}, "texture": {"steps": 2}}
    )
    assert choice.options["geometry"] == {"steps": 2, "weights": str(untrained)}
    assert choice.texture == "procedural" and choice.options["texture"] == {}
    with pytest.raises(JobError, match="GEOMETRY"):
        choose("a+b+c", plugins, None)


def test_what_is_measured_unless_named(data: Path) -> None:
    plugins = with_stripes()
    rest = ["procedural", "nearest-tile", "mean-height"]
    given = settings(data, backends=())
    assert choose_backends(given, plugins, set()) == rest
    assert choose_backends(given, plugins, {"height-flow", "struct-vae"}) == ["height-flow", *rest]
    found = choose_backends(given, plugins, {"struct-vae", "struct-coarse", "struct-fine"})
    assert found == ["latent+procedural", *rest]
    assert choose_backends(settings(data, backends=("terraces", "terraces")), plugins, set()) == [
        "terraces"
    ]


def test_crops_are_spread_and_drawn_from_the_seed(data: Path) -> None:
    crops = held_out_crops(settings(data), 32, None)
    assert len(crops) == 9
    assert (
        choose_crops(crops, 4, 0) == choose_crops(crops, 4, 0)
        and len(set(choose_crops(crops, 4, 0))) == 4
    )
    assert choose_crops(crops, 4, 0) != choose_crops(crops, 4, 1)
    assert choose_crops(crops, 99, 0) == list(range(9))


class Page(HTMLParser):
    """Tags that are open, links, and the cells of tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.heads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("img", "meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        if self.open and self.open[-1] in ("h1", "h2"):
            self.heads.append(text)


def test_the_page_stands_alone(found: tuple[Evaluation, list[Event]], tmp_path: Path) -> None:
    files = write_report(found[0], tmp_path / "report")
    assert [file.name for file in files] == ["report.json", "report.html"]
    text = files[1].read_text("utf-8")
    read = Page(text)
    assert read.open == []
    assert read.heads == [
        "Evaluation",
        "Reconstruction by the models",
        "Worlds against their condition",
        "Objects",
        "Realism",
        "Classes seen from above, IoU",
        "Diversity",
        "Seams",
        "Time",
        "Pictures",
    ]
    assert read.links and all(link.startswith("data:image/") for link in read.links)
    assert (
        "http" not in text
        and "prefers-color-scheme: dark" in text
        and "color-scheme: light dark" in text
    )
    figures = text.partition("<h2>Time")[0]
    assert "paper" in figures and "0.971" in figures and "97.1" not in figures
    assert len(text) < 2_000_000
    report = json.loads(files[0].read_text("utf-8"))
    assert (
        report["dataset"]["crops"] == 4 and report["dataset"]["places"][0]["licence"] == "CC0-1.0"
    )
    assert set(report["weights"]["digests"]) == {
        "struct-vae",
        "tex-vae",
        "struct-coarse",
        "struct-fine",
        "height-flow",
    }


def test_names_on_the_page_are_no_markup(found: tuple[Evaluation, list[Event]]) -> None:
    report = json.loads(json.dumps(json_values(found[0].report)))
    report["dataset"]["places"][0]["place"] = "<script>alert(1)</script></small>"
    report["notes"] = ["<b>"]
    text = page(Evaluation(report))
    assert "<script>" not in text and "<b>" not in text and "&lt;script&gt;" in text


def test_numbers_as_people_read_them() -> None:
    assert [
        number_text(v) for v in (0.12345, 12.345, 123.45, 12345.6, 7, float("nan"), 0.0, 0.00012)
    ] == [
        "0.123",
        "12.3",
        "123",
        "12,346",
        "7",
        "–",
        "0.000",
        "1.2e-04",
    ]


def test_errors_before_anything_is_computed(data: Path, untrained: Path, tmp_path: Path) -> None:
    plugins = with_stripes()
    none = dataset(tmp_path / "none", held_out=False)
    coarse = weights(tmp_path / "coarse", voxel_size=2.0, parts=("tex-vae",))
    cases = [
        (settings(none), CropError, "held-out"),
        (settings(data, places=("here",)), CropError, "here"),
        (settings(data, places=("thre",)), JobError, "did you mean 'there'"),
        (settings(data, backends=("terracs",)), UnknownNameError, "terraces"),
        (settings(data, backends=("terraces+stripe",)), UnknownNameError, "stripes"),
        (settings(data, weights=untrained, preset="base"), ModelError, "base"),
        (settings(data, weights=tmp_path), MissingWeightsError, "no set of weights"),
        (settings(data, weights=coarse), FrameError, "2 m"),
        (
            settings(data, weights=coarse, backends=("height-flow",)),
            MissingWeightsError,
            "height-flow",
        ),
    ]
    for given, kind, text in cases:
        with pytest.raises(kind, match=text) as caught:
            evaluate(given, plugins)
        assert "\n" not in str(caught.value)
    with pytest.raises(JobError, match="crops"):
        settings(data, crops=0)
    with pytest.raises(JobError, match="multiple of 8"):
        settings(data, size=20)


def test_the_command(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "evaluate",
        "--data",
        str(data),
        "--out",
        str(tmp_path / "r"),
        "--crops",
        "2",
        "--size",
        "32",
        "--no-images",
    ]
    assert main([*words, "--quick", "--backends", "mean-height", "--json"]) == 0
    out = json.loads(capsys.readouterr().out)["report"]
    assert list(out["worlds"]) == ["mean-height"] and out["worlds"]["mean-height"]["holes"] == 0
    assert out["settings"]["crops"] == 2 and out["settings"]["seeds"] == 1, "what is given counts"
    assert main([*words, "--backends", "mean-height,nearest-tile", "--progress", "json"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert re.split(r" {2,}", lines[0].strip()) == [
        "mean-height",
        "nearest-tile",
        "two halves of the truth",
        "truth",
    ]
    right = next(line for line in lines if line.startswith("class IoU"))
    # All crops are of one place, so the interval is over crops.
    assert re.match(r"class IoU +1\.000 \[1\.000, 1\.000\] +1\.000 \[", right), right
    assert sum(line.startswith("class IoU") for line in lines) == 2, "of the cover and of the map"
    assert next(line for line in lines if line.startswith("map")).split()[1] == "mean-height"
    events = [json.loads(line) for line in captured.err.splitlines()]
    assert events[-1]["done"] == events[-1]["total"] and events[-1]["task"] == "evaluate"
    assert main([*words, "--backends", "nobody"]) == 6
    assert re.fullmatch(r"error: unknown geometry 'nobody'.*\n", capsys.readouterr().err)
    assert main([*words, "--place", "nowhere"]) == 2
    assert main([*words, "--place", "here"]) == 4
    assert capsys.readouterr().err.count("\n") == 2


def test_figures_in_the_card_of_the_weights(
    data: Path, untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(untrained, weights)
    before = open_weights(weights).card
    words = [
        "evaluate",
        "--data",
        str(data),
        "--out",
        str(tmp_path / "r"),
        "--crops",
        "2",
        "--no-images",
    ]
    words += [
        "--seeds",
        "1",
        "--borders",
        "0",
        "--backends",
        "mean-height",
        "--steps",
        "1",
        "--card",
    ]
    assert main(words) == 2
    assert "Give --weights DIR" in capsys.readouterr().err
    assert main([*words, "--weights", str(weights)]) == 0
    assert str(weights / "README.md") in capsys.readouterr().out.splitlines()
    after = open_weights(weights).card
    assert {**after, "metrics": {}} == {**before, "metrics": {}}
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    (worlds,) = (table for name, table in after["metrics"].items() if name.startswith("Worlds"))
    assert worlds["mean-height"]["height W1, m"] == report["worlds"]["mean-height"]["height_w1"]
    (back,) = (
        table
        for name, table in after["metrics"].items()
        if name.startswith("Reconstruction by struct-vae")
    )
    assert back["struct-vae"]["accuracy"] == report["reconstruction"]["struct-vae"]["accuracy"]
    assert back["paper: struct-vae"]["accuracy"] == 0.971
    assert "| mean-height |" in (weights / "README.md").read_text()
    report["weights"]["digests"]["struct-vae"] = "0" * 64
    with pytest.raises(ModelError, match="of other weights"):
        write_into_card(report, weights)


def test_seams_and_diversity_can_be_left_out(data: Path) -> None:
    report = evaluate(
        settings(data, seeds=1, borders=0, backends=("terraces",)), with_stripes()
    ).report
    assert report["diversity"] == {"terraces": {}} and report["seams"] == {
        "truth": {},
        "terraces": {},
    }
    text = page(Evaluation(report))
    assert "Seams" not in text and "Diversity" not in text


@pytest.mark.slow
def test_the_weights_that_the_package_comes_with(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = settings(data, backends=("mean-height",), seeds=1, borders=0)
    none = evaluate(given, with_stripes()).report
    assert none["weights"] is None and none["reconstruction"] == {}
    note = none["notes"][0]
    assert (
        "comes without weights" in note
        and "--weights DIR" in note
        and note in page(Evaluation(none))
    )

    monkeypatch.setattr(
        shipped, "BUNDLED", weights(tmp_path / "tiny", parts=("struct-vae", "tex-vae"))
    )
    assert shipped.bundled_weights() == tmp_path / "tiny"
    found = evaluate(given, with_stripes()).report
    assert found["weights"]["title"] == "Untrained" and found["settings"]["weights"] == "tiny"
    assert set(found["reconstruction"]) == {"struct-vae", "tex-vae"}
    assert not any("weights" in note for note in found["notes"])
    own = evaluate(
        given.model_copy(update={"weights": weights(tmp_path / "own", parts=("tex-vae",))}),
        with_stripes(),
    ).report
    assert set(own["reconstruction"]) == {"tex-vae"}, "what is given comes first"
    left_out = evaluate(given.model_copy(update={"learned": False}), with_stripes()).report
    assert left_out["weights"] is None
    assert not any("weights" in note for note in left_out["notes"])
    with pytest.raises(JobError, match="leave one of both out"):
        Settings(**{**dict(given), "weights": tmp_path, "learned": False})

    words = [
        "evaluate",
        "--data",
        str(data),
        "--out",
        str(tmp_path / "r"),
        "--crops",
        "1",
        "--size",
        "32",
    ]
    words += ["--no-images", "--backends", "mean-height", "--seeds", "1"]
    assert main([*words, "--progress", "none"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(re.fullmatch(r"StructVAE accuracy, % +[\d.]+ +97\.1", line) for line in lines), lines
    assert any(re.fullmatch(r"TexVAE PSNR, dB +[\d.]+ +19\.490", line) for line in lines)
    assert main([*words, "--progress", "none", "--no-learned"]) == 0
    assert "reconstruction" not in capsys.readouterr().out


def test_shipped_weights_of_other_voxels_are_left_out(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        shipped, "BUNDLED", weights(tmp_path / "coarse", voxel_size=2.0, parts=("tex-vae",))
    )
    report = evaluate(settings(data, backends=("mean-height",)), with_stripes()).report
    assert report["weights"] is None and "are for voxels of" in report["notes"][0]
    assert "2 m" in report["notes"][0] and "1 m" in report["notes"][0]


def test_the_papers_figures_stand_beside_those_of_the_same() -> None:
    figures = {
        "struct-flow, semantics": {"iou": 0.2, "iou_cells": 0.7},
        "struct-flow, image": {"iou": float("nan")},
    }
    lines = {line[0]: line[1:] for line in reconstruction_rows(figures, PAPER_FIGURES)}
    assert lines["StructFM mIoU at L/8, %, semantics"] == ("70.0", "")
    assert lines["StructFM mIoU at L/8, %, image"] == ("", "86.1")
    assert lines["StructFM mIoU at L, %, image"] == ("nan", "25.4")


def test_steps_are_those_of_the_backend(data: Path, untrained: Path) -> None:
    """Unless they are given: one place decides, and the report names them."""
    plugins = with_stripes()
    usual = choose("latent", plugins, untrained, None, {"height_map": False, "nonsense": 1})
    assert "nonsense" not in usual.options["geometry"], "what a backend does not take is left out"
    made, _ = create(choose("height-flow", plugins, untrained), plugins)
    own = sampling_settings(made)
    assert own is not None and own["method"] == "euler" and own["steps"] >= 1
    made, texture = create(choose("height-flow", plugins, untrained, None, {"steps": 3}), plugins)
    told = sampling_settings(made)
    assert told is not None and told["steps"] == 3
    assert sampling_settings(texture) is None, "rules have no flows"


def test_maps_as_users_have_them(data: Path) -> None:
    """A scene whose map is its land cover gets a corrupted one, always the same; one with a map of
    its own keeps it."""
    scene = scenes_in(data)[1]
    cover = scene.layer("cover")
    made = scene_map(scene, 0)
    assert made.shape == cover.shape and made.dtype == np.uint8
    assert 0.02 < (made != cover).mean() < 0.98
    assert np.array_equal(made, scene_map(scene, 0))
    assert not np.array_equal(made, scene_map(scene, 1))
    own = np.where(cover == codes()["building"], codes()["residential"], cover).astype(np.uint8)
    mapped = replace(scene, arrays={**scene.arrays, "map": own})
    assert np.array_equal(scene_map(mapped, 0), own)
    given = conditions_of(scene, ("semantics",), own)["semantics"].read(scene.frame)
    assert np.array_equal(given.cover, own)


def test_a_run_in_training_is_measured(tmp_path: Path, untrained: Path) -> None:
    """The averages of the newest checkpoint, or the finished weights if these are further."""
    from earthgen.training.checkpoint import State, save_checkpoint

    model = make_model("height-flow", CONFIGS["height-flow"])
    average = {name: value.detach() + 1 for name, value in model.named_parameters()}
    state = State(model, torch.optim.AdamW(model.parameters()), average, step=7)
    run = tmp_path / "run"
    path = save_checkpoint(run / "height-flow", state, {"preset": "tiny", "latents": ""})
    for given in (run, path):
        scratch = tmp_path / f"set of {given.name}"
        scratch.mkdir()
        folder, notes = weights_of_run(given, scratch)
        opened = open_weights(folder)
        assert list(opened.parts) == ["height-flow"] and "step 7" in notes[0]
        found = opened.load("height-flow")
        for name, value in found.named_parameters():
            assert torch.equal(value, average[name]), name
    # Weights that were trained further count, and what is no run is opened as a set.
    shutil.copytree(untrained, run / "weights")
    header = save_weights(
        part_path(run / "weights", "height-flow"), "height-flow", model, settings={"steps": 9}
    )
    scratch = tmp_path / "later"
    scratch.mkdir()
    folder, notes = weights_of_run(run, scratch)
    assert open_weights(folder).parts["height-flow"].digest == header.digest and notes == []
    assert weights_of_run(untrained, tmp_path) == (untrained.resolve(), [])
    with pytest.raises(MissingWeightsError):
        open_weights(weights_of_run(tmp_path / "nothing", tmp_path)[0])


def test_quick_leaves_out_what_takes_long(data: Path) -> None:
    quick = Settings(data=data, quick=True, seeds=2)
    assert (quick.crops, quick.seeds, quick.borders) == (8, 2, 0)
    assert not (quick.images or quick.maps or quick.reconstruction)
    assert Settings(data=data).maps


def test_a_device_that_is_not_there(data: Path) -> None:
    with pytest.raises(JobError, match="--device cpu"):
        evaluate(settings(data, device="cuda:99", learned=False), with_stripes())


def test_a_set_of_weights_without_structure(data: Path, tmp_path: Path) -> None:
    given = settings(
        data, weights=weights(tmp_path / "one", parts=("tex-vae",)), backends=("mean-height",)
    )
    report = evaluate(given, with_stripes()).report
    assert list(report["reconstruction"]) == ["tex-vae"] and report["seams"] == {"truth": {}}
    assert set(open_weights(given.weights or "").parts) == {"tex-vae"}
