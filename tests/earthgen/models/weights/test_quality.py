"""What any weights that the package comes with have to keep, on a town that the rules make.

They are of the earlier objective until they are trained anew; then nothing here is skipped.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch
from torch import Tensor

from earthgen.jobs import simulate as simulation
from earthgen.jobs.simulate import Request, simulate
from earthgen.models.flow import Flow, sample
from earthgen.models.presets import preset
from earthgen.models.weights.bundled import BUNDLED
from earthgen.models.weights.card import WeightSet, open_weights
from earthgen.training.batches import make_batch
from earthgen.training.data import TrainingData, open_data
from earthgen.training.parts.common import TaskContext
from earthgen.training.parts.height_flow import batch_condition
from earthgen.training.run import TASK_MAKERS
from earthgen.training.settings import make_part_settings
from geo_io.legend import codes

pytestmark = pytest.mark.usefixtures("one_thread")

FLOWS = ("struct-coarse", "struct-fine", "tex-flow", "height-flow")
LONG = ("struct-coarse", "struct-fine", "tex-flow")

TIMES = (0.02, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98)

EARLIER = "weights of the earlier objective"

NEEDLE = 3.0
"""Metres that a column of a building may stand above its building's height."""


@dataclass(frozen=True)
class At(Flow):
    """A flow that is measured at one time."""

    time: float = 0.5

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.full((count,), self.time)


@pytest.fixture(scope="module")
def weights() -> WeightSet:
    return open_weights(BUNDLED)


@pytest.fixture(scope="module")
def town(weights: WeightSet, tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    """Crops of a made-up town of 192 x 192 m with a seed that training does not take."""
    if not any(is_of_today(weights, part) for part in FLOWS):
        pytest.skip(EARLIER)
    folder = tmp_path_factory.mktemp("town")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulation, "EDGE", 192.0)
        list(simulate([Request("town", 90_001, "town")], folder))
    return open_data(folder, preset("tiny"), held_out=0)


def is_of_today(weights: WeightSet, part: str) -> bool:
    return weights.parts[part].config["flow"].get("predicts", "data") == "preconditioned"


def of_today(weights: WeightSet, part: str) -> Any:
    """The network of a part."""
    if not is_of_today(weights, part):
        pytest.skip(EARLIER)
    return weights.load(part)


def context(weights: WeightSet, town: TrainingData, part: str) -> TaskContext[Any]:
    settings = make_part_settings(part, {"batch_size": 4, "steps": 1})
    sizes = preset(weights.card["preset"])
    return TaskContext(sizes, settings, town, 0, weights.folder, torch.device("cpu"))


@pytest.mark.parametrize(
    "part", [pytest.param(part, marks=pytest.mark.slow) if part in LONG else part for part in FLOWS]
)
def test_at_every_time_a_network_is_no_worse_than_its_input(
    weights: WeightSet, town: TrainingData, part: str
) -> None:
    """An output of 0 means the best linear estimate of the data from the state."""
    model = of_today(weights, part)
    task = TASK_MAKERS[part](context(weights, town, part))
    batch = task.batch(0, 0).parts[0]
    flow = {field.name: getattr(model.flow, field.name) for field in fields(Flow)}
    for time in TIMES:
        model.flow = At(**flow, time=time)
        losses = []
        for silent in (False, True):
            hook = model.register_forward_hook(_nothing) if silent else None
            generator = torch.Generator().manual_seed(1)  # the same conditions and noise
            with torch.no_grad():
                losses.append(float(task.loss(model, batch, generator, 0.0)[0]))
            if hook is not None:
                hook.remove()
        learned, linear = losses
        assert learned <= linear * 1.02, f"at {time}: {learned:.4f}, linear {linear:.4f}"


def _nothing(module: torch.nn.Module, given: object, found: Any) -> Any:
    """Return an output of 0."""
    if isinstance(found, Tensor):
        return torch.zeros_like(found)
    return found.with_features(torch.zeros_like(found.features))


def test_buildings_are_as_high_in_any_number_of_steps_and_have_no_needles(
    weights: WeightSet, town: TrainingData
) -> None:
    model = of_today(weights, "height-flow")
    batch = make_batch([town.crop(0, number) for number in range(4)])
    condition = batch_condition(model, batch, preset(weights.card["preset"]).voxel_size)
    built = (batch.map == codes()["building"]) & (batch.told > 0)
    assert float(built.float().mean()) > 0.1
    noise = torch.randn(
        len(batch), 1, *batch.height.shape[1:], generator=torch.Generator().manual_seed(0)
    )
    means = {}
    for steps in (4, 8, 25):
        with torch.no_grad():
            state = sample(model.flow, model.predictor(condition), noise, steps=steps)
            height = model.to_height(state, condition)
        means[steps] = float(height[built].mean())
        bound = torch.maximum(batch.told, batch.height) + NEEDLE
        assert not bool((height > bound)[built].any()), f"needles in {steps} steps"
    assert max(means.values()) <= 1.05 * min(means.values()), means
    true = float(batch.height[built].mean())
    assert means[8] == pytest.approx(true, rel=0.15), "metres, not only equal ones"
