"""The image network of evaluations: its padding, its weights, and the errors without them."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from earthgen.dataset.crop_sampler import open_crops
from earthgen.dataset.scene import scenes_in
from earthgen.errors import ModelError
from earthgen.evaluation.patch import patch_of_crop
from earthgen.evaluation.realism import KINDS, features_of, realism, truth_halves
from earthgen.models import image_features as network
from tests.helpers.evaluation_places import column_patch, dataset

needs_weights = pytest.mark.skipif(
    bool(network.missing_package()), reason=f"{network.PACKAGE} is not installed"
)


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of this test alone, one thread."""
    monkeypatch.setenv(network.CACHE, str(tmp_path))
    network.feature_network.cache_clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    network.feature_network.cache_clear()


def test_convolutions_pad_as_tensorflow_does() -> None:
    """An even picture at stride 2: nothing is added above and to the left, a row below and a
    column to the right."""
    layer = network.TensorFlowConv2d(1, 1, 3, 2, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1)
        found = layer(torch.ones(1, 1, 4, 4))[0, 0]
        assert found.tolist() == [[9, 6], [6, 4]]
        assert layer(torch.ones(1, 1, 5, 7)).shape[-2:] == (3, 4)
        assert layer(torch.ones(1, 1, 5, 7))[0, 0].tolist() == [
            [4, 6, 6, 4],
            [6, 9, 9, 6],
            [4, 6, 6, 4],
        ]


def test_the_network_has_the_layers_of_lite0() -> None:
    found = network.FeatureNetwork()
    assert sum(value.numel() for value in found.parameters()) == 4_652_008  # the authors give 4.7 M
    maps = found.eval().maps(torch.zeros(1, 3, 224, 224))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (16, 112, 112),
        (24, 56, 56),
        (40, 28, 28),
        (80, 14, 14),
        (112, 14, 14),
        (192, 7, 7),
        (320, 7, 7),
    ]


@needs_weights
def test_weights_are_converted_once_and_the_licence_is_as_it_says(tmp_path: Path) -> None:
    one = network.feature_network()
    (kept,) = (tmp_path / "earthgen").iterdir()
    assert kept.suffix == ".safetensors"
    network.feature_network.cache_clear()
    again = network.feature_network()
    for name, value in one.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert not any(value.requires_grad for value in one.parameters())
    kept.write_bytes(b"damaged")
    network.feature_network.cache_clear()
    assert torch.equal(network.feature_network()._fc.weight, one._fc.weight)
    # What the package itself says of its licence.
    files = importlib.metadata.files(network.PACKAGE) or []
    text = next(file for file in files if file.name == "LICENSE").read_text()
    assert "Apache" in text and "2.0" in text


@needs_weights
def test_features_tell_pictures_apart_and_do_not_depend_on_each_other() -> None:
    row, col = np.mgrid[0:64, 0:64]
    stripes = np.where((col // 4) % 2 == 0, 230, 30)[..., None].repeat(3, 2).astype(np.uint8)
    disc = (
        np.where((row - 32) ** 2 + (col - 32) ** 2 < 300, 200, 60)[..., None]
        .repeat(3, 2)
        .astype(np.uint8)
    )
    found = network.image_features([stripes, disc])
    assert found.shape == (2, network.FEATURES) and found.dtype == np.float64
    assert np.array_equal(found[1], network.image_features([disc])[0])
    lighter = np.clip(disc.astype(int) + 4, 0, 255).astype(np.uint8)
    near = np.linalg.norm(network.image_features([lighter])[0] - found[1])
    assert near < 0.5 * np.linalg.norm(found[0] - found[1])
    assert network.image_features([]).shape == (0, network.FEATURES)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "PACKAGE", "no-such-package-anywhere")
    assert "no-such-package-anywhere" in network.missing_package()
    with pytest.raises(ModelError, match=r"not installed.*earthgen\[evaluate\]"):
        network.feature_network()


@needs_weights
def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "DIGEST", "0" * 64)
    with pytest.raises(ModelError, match="not the expected file of weights"):
        network.feature_network()


@needs_weights
def test_distances_over_pictures_of_patches(tmp_path: Path) -> None:
    """Pictures of worlds that are the truth are no way apart; those of bare ground are."""
    crops = open_crops(scenes_in(dataset(tmp_path / "data")), size=32, part="held_out")
    truths = [patch_of_crop(crop) for crop in crops]
    known = [crop.image_known for crop in crops]
    true = [features_of(patch, colour, True) for patch, colour in zip(truths, known, strict=True)]
    assert all(set(row) == set(KINDS) for row in true)
    assert "colour_above" not in features_of(truths[0], None, True)
    assert set(features_of(truths[0], known[0], False)) == {"geometry"}
    same = realism(true, true)
    bare = [column_patch(np.zeros((32, 32), int), where=crop.frame) for crop in crops]
    other = realism([features_of(patch, None, True) for patch in bare], true)
    for kind in ("geometry", "clay_above", "clay_oblique"):
        # Pairs are left out, so the same samples are nearer than two draws of one distribution
        # would be.
        assert same[f"{kind}_kernel"]["value"] <= 1e-9
        assert other[f"{kind}_kernel"]["low"] > 0
        assert f"{kind}_frechet" not in same, "nine crops are too few"
        assert same[f"{kind}_samples"] == 9
    assert "colour_above_kernel" in same and "colour_above_kernel" not in other
    halves = truth_halves(true, 0)
    assert halves["geometry_samples"] == 4 and halves == truth_halves(true, 0)
    assert realism(true[:3], true[:3]) == {}, "three patches tell nothing"
    one_place = realism(true, true, [0] * 9)["geometry_kernel"]
    assert one_place["low"] is None and one_place["value"] == same["geometry_kernel"]["value"]


def test_frechet_distances_need_five_samples_a_feature() -> None:
    random = np.random.default_rng(0)
    rows = [{"geometry": row} for row in random.normal(size=(20, 4))]
    assert realism(rows, rows)["geometry_frechet"] == pytest.approx(0, abs=1e-9)
    assert "geometry_frechet" not in realism(rows[:19], rows[:19])
