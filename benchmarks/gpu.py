"""A device against the CPU: the sparse core, the renderer, and a step of every part.

    python -m benchmarks.gpu                    on CUDA, in about 90 seconds
    python -m benchmarks.gpu --device cpu       the CPU stands in for the device

The sparse core and the renderer have to agree with the CPU. Losses of a part come from other noise
on another device, so they agree only roughly; they have to be finite. Speeds are examples (crops)
per second of whole steps: batch, copy, forward, backward, optimiser.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import describe
from earthgen import plugins
from earthgen.models.build import make_model
from earthgen.models.gaussian_head import rotation_from_normal
from earthgen.models.presets import PARTS, Preset, preset
from earthgen.models.weights.format import part_path, save_weights
from earthgen.progress import Progress
from earthgen.sparse.attention import WindowAttention
from earthgen.sparse.backends import cases, difference, scattered
from earthgen.sparse.kernel_map import Kernel
from earthgen.sparse.tensor import SparseTensor
from earthgen.splats.cameras.camera import look_at
from earthgen.splats.raster.rasterizers import draws_here
from earthgen.splats.raster.rendering import rasterize
from earthgen.splats.tensors import SplatTensors
from earthgen.training.data import TrainingData, open_data
from earthgen.training.devices import ProcessGroup
from earthgen.training.loop import StepMeter, initial_state, train_step
from earthgen.training.parts.common import TaskContext
from earthgen.training.run import TASK_MAKERS, resolve_precision
from earthgen.training.schedule import LearningSchedule
from earthgen.training.settings import LoopSettings, make_part_settings
from earthgen.training.steps.acceleration import prepare_model
from earthgen.training.steps.columns import device_columns

SECONDS = 90.0
SHARE = 0.7
"""Share of the time for the steps of the parts; the rest compiles and compares."""

VOXELS, CHANNELS = 20_000, 64


def run(
    device: str = "auto", seconds: float = SECONDS, preset_name: str = "tiny"
) -> dict[str, object]:
    """Compare a device with the CPU, and return lines of text by what was compared.

    Parameters
    ----------
    device : str
        "cuda", "cpu", or "auto" for CUDA where there is one.
    seconds : float
        Time for all.
    preset_name : str
        Sizes of the parts.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    there = torch.device(device)
    name = torch.cuda.get_device_name(there) if there.type == "cuda" else "the CPU stands in"
    result: dict[str, object] = {"device": f"{there} ({name})"}
    result |= compare_sparse(there)
    result |= compare_attention(there)
    result |= compare_renderer(there)
    with tempfile.TemporaryDirectory() as folder:
        result |= compare_steps(there, seconds * SHARE, preset_name, Path(folder))
    return result


def compare_sparse(device: torch.device) -> dict[str, object]:
    """Compare every sparse backend that runs here with torch's in float64, and time it."""
    result: dict[str, object] = {}
    sites = scattered(VOXELS, 30, device, samples=1)
    features = torch.randn(len(sites), CHANNELS, device=device)
    weight = torch.randn(27, CHANNELS, CHANNELS, device=device)
    for name in plugins.load().offers("sparse"):
        backend = plugins.load().create("sparse", name)
        reason = backend.unavailable()
        if reason:
            result[f"sparse {name}"] = f"not here: {reason}"
            continue
        for dtype in (torch.float32, torch.bfloat16):
            key = f"sparse {name} {str(dtype).removeprefix('torch.')}"
            refused = backend.refuses(device, dtype, True)
            if refused:
                result[key] = f"not with gradients: {refused}"
                continue
            wrong = [
                problem
                for case in cases(scattered(300, 6, device))
                if (problem := difference(backend, case, dtype, True))
            ]
            x, w = features.to(dtype), weight.to(dtype)
            spent = timed(
                lambda x=x, w=w, backend=backend: backend.convolve(  # type: ignore[misc]
                    x, w, sites, sites, Kernel.of(3)
                ),
                device,
            )
            result[key] = f"{wrong[0] if wrong else 'agrees'}; {1e3 * spent:.2f} ms"
    return result


def compare_attention(device: torch.device) -> dict[str, object]:
    """Compare attention in windows with that of the CPU."""
    torch.manual_seed(0)
    layer = WindowAttention(64, 2, 8, 0, rotary=True)
    sites = scattered(2000, 12, "cpu", samples=2)
    x = torch.randn(len(sites), 64)
    with torch.no_grad():
        here = layer(SparseTensor(sites, x)).features
        there = layer.to(device)(SparseTensor(sites.to(device), x.to(device))).features.cpu()
    error = float((here - there).abs().max() / here.abs().max())
    return {"attention": f"{'agrees' if error < 5e-3 else 'DIFFERS'}, relative error {error:.1e}"}


def compare_renderer(device: torch.device) -> dict[str, object]:
    """Compare a picture and its gradients with those of the CPU's renderer."""
    random, found = torch.Generator().manual_seed(3), []
    count = 4000
    means = (torch.rand(count, 3, generator=random) - 0.5) * 40
    normals = torch.nn.functional.normalize(torch.randn(count, 3, generator=random), dim=1)
    colours = torch.randn(count, 1, 3, generator=random) * 0.5
    camera = look_at((0, -60, 40), (0, 0, 0), width=128, height=128, field_of_view=50)
    for where in (torch.device("cpu"), device):
        sh = colours.to(where).requires_grad_()
        splats = SplatTensors(
            means.to(where),
            torch.full((count, 2), 0.6, device=where),
            rotation_from_normal(normals.to(where)),
            torch.full((count,), 0.9, device=where),
            sh,
        )

        def draw(splats: SplatTensors = splats) -> torch.Tensor:
            return rasterize(splats, camera).rgb

        picture = draw()
        (gradient,) = torch.autograd.grad(picture.square().mean(), sh)
        found.append((picture.detach().cpu(), gradient.cpu(), timed(draw, where)))
    (one, slope, before), (other, steep, after) = found
    errors = [float((one - other).abs().max()), relative(slope, steep)]
    which = "gsplat" if device.type == "cuda" and draws_here(device) else "the CPU renderer"
    agrees = "agrees" if errors[0] < 0.02 and errors[1] < 0.05 else "DIFFERS"
    return {
        "renderer": f"{agrees}: {which}, error {errors[0]:.1e}, of gradients {errors[1]:.1e}; "
        f"{1e3 * after:.1f} ms, on the CPU {1e3 * before:.1f} ms"
    }


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / one.norm().clamp(min=1e-12))


def compare_steps(
    device: torch.device, seconds: float, preset_name: str, folder: Path
) -> dict[str, object]:
    """Time steps of every part on the CPU and on the device, and compare their losses."""
    from tests.helpers.training_places import dataset

    sizes = preset(preset_name)
    data = open_data(
        dataset(folder / "data"), sizes.model_copy(update={"band": (-16, 32)}), held_out=0
    )
    weights = folder / "weights"
    for part in ("struct-vae", "tex-vae"):
        model = make_model(part, sizes.part(part))
        save_weights(
            part_path(weights, part),
            part,
            model,
            preset_name=sizes.name,
            voxel_size=sizes.voxel_size,
        )
    result: dict[str, object] = {}
    each = seconds / (2 * len(PARTS))
    for part in PARTS:
        (loss, speed), (other, faster) = (
            step_speed(part, where, each, sizes, data, weights)
            for where in (torch.device("cpu"), device)
        )
        result[f"step {part}"] = (
            f"{faster:.3g} examples/s, on the CPU {speed:.3g}; loss {other:.3g} and {loss:.3g}"
        )
    return result


def step_speed(
    part: str,
    device: torch.device,
    seconds: float,
    sizes: Preset,
    data: TrainingData,
    weights: Path,
) -> tuple[float, float]:
    """Return the mean loss and the examples per second of steps on a device."""
    own = make_part_settings(part, {"steps": 10**6})
    columns = device_columns(data, device) if part == "height-flow" else None
    context: TaskContext[Any] = TaskContext(sizes, own, data, 0, weights, device, 1, columns)
    task = TASK_MAKERS[part](context)
    settings = LoopSettings.model_validate({"precision": resolve_precision("auto", device)})
    state = initial_state(task, own, device)
    prepare_model(state.model, settings, device)
    schedule = LearningSchedule.of(own)
    meter = StepMeter(schedule, state, Progress(None), part, 0.0)
    group, losses = ProcessGroup(device), []

    def step() -> None:
        batch = task.batch(state.step, 0)
        rate = schedule.rate(state.step, 0.0)
        values = train_step(task, settings, own, state, batch, 0.0, rate, group, meter)
        losses.append(values["loss"])

    step()  # compiles
    float(losses[-1])
    before, began = meter.crops, time.perf_counter()
    while time.perf_counter() - began < seconds:
        step()
        if len(losses) % 8 == 0:
            float(losses[-1])  # waits, so that the clock is the device's
    mean = float(torch.stack([torch.as_tensor(loss) for loss in losses]).mean())
    if not torch.isfinite(torch.tensor(mean)):
        raise SystemExit(f"{part} on {device}: the loss is {mean}")
    return mean, (meter.crops - before) / (time.perf_counter() - began)


def timed(work: Callable[[], torch.Tensor], device: torch.device, times: int = 5) -> float:
    """Return the shortest time of some calls, after a first one."""
    best = float("inf")
    for number in range(times + 1):
        began = time.perf_counter()
        result = work()
        float(result.detach().flatten()[0])  # waits for the device
        best = best if number == 0 else min(best, time.perf_counter() - began)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="auto", help="cuda, cpu, or auto")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--preset", default="tiny", choices=("tiny", "base", "paper"))
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    result = {"machine": describe(), **run(options.device, options.seconds, options.preset)}
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for key, value in result.items():
        print(f"{key:28} {value}")


if __name__ == "__main__":
    main()
