"""The flow on heights trains the same when torch compiles it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from earthgen.models.build import make_model
from earthgen.models.presets import preset
from earthgen.training.settings import LoopSettings
from earthgen.training.steps import acceleration
from earthgen.training.steps.acceleration import prepare_model
from tests.helpers import training_places as places


def test_what_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default on GPUs only, and the flow on heights only."""
    compiled: list[str] = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **_: compiled.append(type(self).__name__)
    )
    sizes = preset(places.NAME)
    cpu = torch.device("cpu")
    for part in ("height-flow", "struct-vae"):
        model = make_model(part, sizes.part(part))
        for choice in ("auto", "off", "on"):
            prepare_model(model, LoopSettings(compile=choice), cpu)
    assert compiled == ["HeightFlow"]
    monkeypatch.setattr(acceleration, "choose_backend", lambda *_: None)
    prepare_model(
        make_model("height-flow", sizes.height_flow), LoopSettings(), torch.device("cuda")
    )
    assert compiled == ["HeightFlow", "HeightFlow"]


@pytest.mark.slow
def test_a_traced_step_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch traces the network as for its compiler, which takes minutes on a CPU, and runs it."""
    from earthgen.training.log import read_log, series
    from earthgen.training.run import train

    whole = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **given: whole(self, backend="eager", **given)
    )
    data = places.dataset(tmp_path / "data")
    own = {"height-flow": {"batch_size": 2}}
    found = []
    for choice in ("off", "on"):
        out = tmp_path / choice
        train("height-flow", places.settings(data, out, steps=2, compile=choice, parts=own))
        found.append(series(read_log(out / "height-flow" / "metrics.csv"), "loss")[1])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
