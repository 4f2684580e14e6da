"""Classes that networks were not trained on: relatives stand in, rules paint, and a world's
identity tells."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earthgen.errors import ModelError
from earthgen.models.weights.card import CARD, open_weights
from earthgen.splats.spherical_harmonics import C0
from earthgen.voxels.voxels import Splats, Voxels
from earthgen_latent.classes import PAINTED, SIMILAR, painted_classes, substitute_classes
from earthgen_latent.networks import open_networks
from earthgen_latent.texture import paint_unknown_classes
from geo_io.frame import Frame
from geo_io.legend import codes
from tests.helpers.latent_weights import make_set

CODE = codes()
SEEN = ("grass", "tree", "paved", "bare_ground", "building")


def told(name: str, known: tuple[str, ...] = SEEN) -> int:
    return int(substitute_classes(known)[CODE[name]])


def test_relatives_stand_in() -> None:
    assert all(told(name) == CODE[name] for name in SEEN)
    assert told("cropland") == told("grassland") == CODE["grass"]
    assert (
        told("road") == told("commercial") == CODE["paved"] and told("rail") == CODE["bare_ground"]
    )
    assert told("mixed_forest") == CODE["tree"] and told("extraction") == CODE["bare_ground"]
    assert told("lake") == told("snow_ice") == 0, "nothing like them was seen"
    assert told("lake", ("sea",)) == CODE["sea"]
    assert substitute_classes(SEEN)[0] == 0
    assert np.array_equal(substitute_classes(()), np.arange(256)), (
        "a set that does not say knows all"
    )
    assert set(SIMILAR) | {"snow_ice", "building"} == set(CODE)
    for name, relatives in SIMILAR.items():
        assert name not in relatives and set(relatives) <= set(CODE)


def test_water_and_what_has_no_relative_is_painted() -> None:
    table, colours = painted_classes(SEEN)
    assert {name for name, code in CODE.items() if table[code]} == set(PAINTED)
    assert tuple(colours[CODE["sea"]]) == PAINTED["sea"]
    for known in ((*SEEN, "river", "snow_ice"), ()):
        table, _ = painted_classes(known)
        assert {name for name, code in CODE.items() if table[code]} == {"river", "lake", "sea"}


def test_painted_voxels() -> None:
    frame = Frame("EPSG:32632", 1.0, (10, 12), (20, 21))
    xyz = np.array([[10, 20, -1], [11, 20, -1], [11, 20, 0]], np.int32)
    semantic = np.array([CODE["lake"], CODE["lake"], CODE["tree"]], np.uint8)
    voxels = Voxels(frame, xyz, semantic, np.zeros(3, np.uint8), np.zeros(3, np.uint32))
    sh = np.full((3, 4, 3), 0.25, np.float32)
    splats = Splats(np.zeros((3, 3)), np.ones((3, 2)), np.zeros((3, 4)), np.ones(3), sh)
    made = paint_unknown_classes(splats, voxels, np.array([[True, False]]), SEEN)
    assert (
        np.allclose((made.sh[0, 0] * C0 + 0.5) * 255, PAINTED["lake"]) and not made.sh[0, 1:].any()
    )
    assert np.array_equal(made.sh[1:], sh[1:]), "an image tells, or the network knows"
    assert made.sh.dtype == np.float32 and np.array_equal(sh, np.full_like(sh, 0.25))


def test_a_set_says_what_it_was_trained_on(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set")
    plain = open_networks(folder, ("height-flow",))
    assert plain.trained_classes("height-flow") == () and "classes" not in plain.digest
    card: dict[str, Any] = json.loads((folder / CARD).read_text())
    card["classes"] = {"structure": ["grass"], "texture": list(SEEN)}
    (folder / CARD).write_text(json.dumps(card))
    told = open_networks(folder, ("height-flow",))
    assert told.trained_classes("height-flow") == ("grass",) and dict(told.classes).keys() == {
        "structure"
    }
    assert told.class_codes("height-flow", np.array([[CODE["cropland"], 0]])).tolist() == [
        [CODE["grass"], 0]
    ]
    assert told.digest.startswith(plain.digest) and told.digest != plain.digest
    assert replace(told, classes=(("structure", ("tree",)),)).digest != told.digest
    card["classes"] = {"structure": 5}
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(ModelError, match="file is damaged"):
        open_weights(folder)
