"""benchmarks/flow_steps.py: that figures are of what they say, on made-up villages and weights
that know nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import flow_steps
from benchmarks.flow_steps import (
    CASES,
    SAMPLERS,
    WAYS,
    held_out,
    loss,
    main,
    measure,
    sampled,
    table,
)
from earthgen.models.build import make_model
from earthgen.models.presets import PARTS, preset
from earthgen.models.struct_flow import grid_state
from earthgen.models.weights.card import AUTOENCODERS, write_card
from earthgen.models.weights.format import part_path, save_weights
from earthgen.noise.philox import Noise
from earthgen.training.batches import Batch, make_batch
from earthgen.training.parts.height_flow import batch_condition
from earthgen.training.parts.tex_vae import encoder_features
from earthgen_latent.networks import Networks, open_networks
from tests.helpers import training_places as places

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return places.dataset(tmp_path_factory.mktemp("steps") / "data")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All parts as they are drawn."""
    folder = tmp_path_factory.mktemp("steps") / "weights"
    digests = {"": ""}
    for part in PARTS:
        model = make_model(part, preset(places.NAME).part(part), seed=3)
        latents = digests.get(AUTOENCODERS.get(part, ""), "")
        header = save_weights(
            part_path(folder, part),
            part,
            model,
            preset_name=places.NAME,
            latents=latents,
        )
        digests[part] = header.digest
    write_card(folder, title="Untrained", licence="none")
    return folder


@pytest.fixture(scope="module")
def networks(weights: Path) -> Networks:
    return open_networks(weights, tuple(PARTS))


@pytest.fixture(scope="module")
def batch(data: Path, networks: Networks) -> Batch:
    return make_batch(list(held_out(data, networks, 1, 0)))


def test_the_truth_is_judged_to_be_right(networks: Networks, batch: Batch) -> None:
    """A state that is the data itself; of latents, what their autoencoder gives back is all that
    can be right."""
    stream = Noise(0).stream("test")
    with torch.no_grad():
        coarse = CASES["struct-coarse"](networks, batch, ("semantics",), stream)
        model = networks("struct-coarse")
        grid = model.grid(batch.sites.place, batch.shape)
        assert coarse is not None
        true = batch.sites.parents(2).parents(2).parents(2)
        assert coarse.judge(grid_state(grid, true).features) == {"iou": 1.0, "cells": 1.0}
        none = coarse.judge(torch.full((len(grid), 1), -1.0))
        assert none == {"iou": 0.0, "cells": 0.0}

        height = CASES["height-flow"](networks, batch, ("semantics", "ground"), stream)
        assert height is not None
        model = networks("height-flow")
        known = batch_condition(model, batch, networks.voxel_size)
        figures = height.judge(model.to_state(batch.height, known))
        # States are float32: metres come back to some millionths.
        assert (
            figures["height_mae"] < 1e-3
            and figures["height_w1"] < 1e-3
            and figures["tall_iou"] == 1
        )
        higher = height.judge(model.to_state(batch.height + 1.0, known))
        assert higher["height_w1"] == pytest.approx(1, abs=1e-3)

        vae, texture = (
            networks("tex-vae"),
            CASES["tex-flow"](networks, batch, ("semantics",), stream),
        )
        assert texture is not None
        given = vae.decode(vae.encode(encoder_features(batch)).mean)
        latent = vae.statistics.normalised(vae.encode(encoder_features(batch)).mean)
        error = (given.clamp(0, 1) - batch.rgb)[batch.seen].square().mean()
        found = texture.judge(latent.features)
        assert found["colour_psnr"] == pytest.approx(-10 * float(error.log10()), abs=1e-3)
        assert 0 < found["colour_w1"] < float(error.sqrt()) + 1e-6, (
            "a distribution is nearer than its pairs"
        )

        vae, fine = (
            networks("struct-vae"),
            CASES["struct-fine"](networks, batch, ("semantics", "height"), stream),
        )
        assert fine is not None
        latent = vae.statistics.normalised(vae.encode(batch.sites, batch.semantic).mean)
        assert len(latent) == len(fine.noise)
        voxels = vae.decode(vae.encode(batch.sites, batch.semantic).mean).sites
        hits = int((voxels.rows(batch.sites.coordinates) >= 0).sum())
        assert fine.judge(latent.features)["iou"] == hits / (len(voxels) + len(batch.sites) - hits)


def test_colours_that_nobody_saw_are_no_case(networks: Networks, batch: Batch) -> None:
    from dataclasses import replace

    (crop,) = batch.crops
    unseen = make_batch(
        [replace(crop, image_known=crop.image_known & False, rgb_known=crop.rgb_known & False)]
    )
    assert CASES["tex-flow"](networks, unseen, ("semantics",), Noise(0).stream("test")) is None


def test_every_sampler_begins_at_the_same_noise(networks: Networks, batch: Batch) -> None:
    """Whoever knows the data gets there in any number of steps."""
    seen: list[float] = []
    case = CASES["struct-coarse"](networks, batch, ("semantics",), Noise(0).stream("test"))
    assert case is not None and case.flow.predicts == "preconditioned"
    flow = case.flow

    def predict(state: torch.Tensor, time: float) -> torch.Tensor:
        seen.append(time)
        return flow.as_prediction((1 - state) / (1 - time), state, time)

    again = CASES["struct-coarse"](
        networks, batch, ("semantics", "height"), Noise(0).stream("test")
    )
    assert again is not None and torch.equal(case.noise, again.noise)
    rows = sampled(
        flow_steps.Case(case.flow, predict, case.noise, lambda state: {"iou": float(state.mean())})
    )
    assert list(rows) == [f"{method} {steps}" for method, steps in SAMPLERS]
    assert all(row["iou"] == pytest.approx(1, abs=1e-5) for row in rows.values())
    # One to make tables; Euler one a step; Heun two, but for the last.
    assert len(seen) == 1 + 18 + 25 + 2 * (8 + 25) - 2


def test_what_is_lost() -> None:
    assert loss("iou", [(0.4, 0.5), (0.4, 0.5)]) == (pytest.approx(20), pytest.approx(0, abs=1e-9))
    assert loss("height_w1", [(3.0, 2.0), (1.0, 2.0)]) == (pytest.approx(0), pytest.approx(50))
    assert loss("cells", [(1.2, 0.9)]) == (pytest.approx(10), None), "0.2 from 1, and not 0.1"
    assert loss("height_mae", [(0.5, 0.0)]) == (None, None)
    rows = {
        name: [{"seconds": 2.0, "iou": 0.2}, {"seconds": 4.0}] for name in ("euler 1", "euler 25")
    }
    rows["euler 1"][0]["iou"] = 0.1
    found = table(rows)
    assert found["euler 1"]["seconds"] == 3 and found["euler 1"]["iou"] == {
        "value": 0.1,
        "lost": pytest.approx(50),
        "error": None,
    }
    assert found["euler 25"]["iou"]["lost"] == 0


@pytest.mark.slow
def test_the_command(data: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--data", str(data), "--weights", str(weights), "--crops", "2", "--json"])
    found = json.loads(capsys.readouterr().out)
    names = [f"{part} given {' and '.join(way)}" for part, ways in WAYS.items() for way in ways]
    assert (
        list(found["flows"]) == names
        and found["settings"]["crops"] == 2
        and found["machine"]["cores"]
    )
    for flow in found["flows"].values():
        assert flow["crops"] == 2 and flow["predicts"] == "preconditioned"
        assert all(
            value["lost"] in (0, None)
            for key, value in flow["samplers"]["euler 25"].items()
            if key != "seconds"
        )
        assert flow["samplers"]["euler 25"]["seconds"] > flow["samplers"]["euler 1"]["seconds"] > 0
    main(["--data", str(data), "--weights", str(weights), "--crops", "1", "--parts", "height-flow"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[-len(SAMPLERS) :]] == [
        f"{method} {steps}" for method, steps in SAMPLERS
    ]
    first = measure(data, weights, 1, parts=("height-flow",))["flows"]
    again = measure(data, weights, 1, parts=("height-flow",))["flows"]
    for values in (first, again):
        for row in values["height-flow given semantics and ground"]["samplers"].values():
            del row["seconds"]
    assert first == again


def test_sets_that_do_not_serve(
    data: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from earthgen.models.weights import bundled as shipped

    monkeypatch.setattr(shipped, "BUNDLED", tmp_path / "no weights")
    with pytest.raises(SystemExit, match="--weights"):
        measure(data)
    part = tmp_path / "vae"
    save_weights(
        part_path(part, "tex-vae"),
        "tex-vae",
        make_model("tex-vae", preset(places.NAME).part("tex-vae")),
    )
    write_card(part, title="no flow", licence="none")
    with pytest.raises(SystemExit, match="no flow with its autoencoder"):
        measure(data, part)
    assert "--data" in str(flow_steps.run()["not measured"])
