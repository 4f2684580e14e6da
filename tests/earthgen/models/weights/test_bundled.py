"""The weights that the package comes with: whole, small, of stated origin, and enough to make a
world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import earthgen
from earthgen.models.presets import PARTS, preset
from earthgen.models.weights.bundled import BUNDLED, bundled_weights
from earthgen.models.weights.card import README, WeightSet, open_weights

MOST_BYTES = 20_000_000
BBOX = (686000, 5542700, 686024, 5542724)


NEEDED = tuple(part for part in PARTS if part != "tex-vae")
"""All but TexVAE: the flow of `tiny` makes colours itself."""


@pytest.fixture(scope="module")
def weights() -> WeightSet:
    assert bundled_weights() == BUNDLED
    return open_weights(BUNDLED)


def test_all_parts_are_there_and_small(weights: WeightSet) -> None:
    assert set(weights.parts) == set(NEEDED)
    assert sum(path.stat().st_size for path in BUNDLED.iterdir()) < MOST_BYTES
    assert {path.suffix for path in BUNDLED.iterdir()} == {".safetensors", ".json", ".md"}
    assert {head.preset for head in weights.parts.values()} == {"tiny"}
    assert {head.voxel_size for head in weights.parts.values()} == {preset("tiny").voxel_size}


@pytest.mark.parametrize("part", NEEDED)
def test_a_part_loads(weights: WeightSet, part: str) -> None:
    model = weights.load(part)  # and its digest is checked
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())


def test_the_card_says_what_they_are(weights: WeightSet) -> None:
    card, text = weights.card, (BUNDLED / README).read_text("utf-8")
    assert card["experimental"] and card["licence"] == "CC-BY-4.0"
    for part, head in weights.parts.items():
        assert head.metrics and head.settings["seconds"] > 0, part
        assert head.settings["grades"] == ["A", "B"], part
        for entry in head.data:
            assert entry["source"] and entry["licence"] and "inferred" not in entry["licence"]
            assert entry["name"] in text
    minutes = sum(head.settings["seconds"] for head in weights.parts.values()) / 60
    assert minutes < 2 * 180, "two threads for three hours at most"
    (worlds,) = (rows for name, rows in card["metrics"].items() if name.startswith("Worlds"))
    assert {"procedural", "nearest-tile", "mean-height"} < set(worlds) and len(worlds) >= 6
    assert "| mean-height |" in text and "paper: struct-vae" in text


def test_held_out_places_were_not_trained_on(weights: WeightSet) -> None:
    trained = {entry["name"] for head in weights.parts.values() for entry in head.data}
    assert trained and not trained & {
        "Gothenburg, cathedral, Sweden",
        "Delft, old town, Netherlands",
        "Montpellier, France",
        "Lamballe, Brittany, France",
    }


@pytest.mark.slow
def test_a_world_of_them(tmp_path: Path) -> None:
    """Without --weights; two seeds give two towns on one map."""
    layer = Path(__file__).parents[4] / "examples" / "data" / "landuse.shp"
    made = [
        earthgen.generate(
            bbox=BBOX,
            bbox_crs="EPSG:32632",
            semantics=layer,
            out=tmp_path / f"{seed}.zarr",
            geometry="height-flow",
            geometry_options={"steps": 1, "window": 64, "surface": 64},
            seed=seed,
        )
        for seed in (0, 1)
    ]
    assert all(world.complete for world in made)
    tops = [world.layers()["surface"].values for world in made]
    assert np.isfinite(tops[0]).all() and not np.array_equal(*tops)
    assert made[0].provenance["weights"], "licence and digests go with the world"
