"""The loss of quality in few steps: flows of a set of weights on held-out crops, in 1 to 25 steps.

python -m benchmarks.flow_steps --data scenes [--weights DIR] [--crops 24] [--parts tex-flow ...]
[--json]

All samples start from the same noise. Each flow is measured alone: StructFM's second stage gets the
true cells, TexFM the true voxels. Each figure has its loss against 25 steps of Euler's method, in
percent, with the standard error over the crops.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.machine import describe

if TYPE_CHECKING:
    from torch import Tensor

    from earthgen.dataset.crop import Crop
    from earthgen.models.flow import Flow, Predict
    from earthgen.noise.philox import Stream
    from earthgen.training.batches import Batch
    from earthgen_latent.networks import Networks

BEST = ("euler", 25)
"""The sampler that the others are compared with."""

SAMPLERS = (
    ("euler", 1),
    ("euler", 2),
    ("euler", 3),
    ("euler", 4),
    ("euler", 8),
    ("heun", 8),
    ("heun", 25),
    BEST,
)
"""Methods of `earthgen.models.flow.sample`, with their numbers of steps."""

WAYS: dict[str, tuple[tuple[str, ...], ...]] = {
    "struct-coarse": (("semantics",), ("semantics", "height")),
    "struct-fine": (("semantics", "height"),),
    "tex-flow": (("semantics",), ("semantics", "image")),
    "height-flow": (("semantics", "ground"),),
}
"""Conditions that each flow is sampled under."""

NEEDS = {"struct-fine": "struct-vae", "tex-flow": "tex-vae"}
"""Autoencoders of the flows' latents."""

FIGURES = {
    "iou": "up",
    "cells": "one",
    "tall_iou": "up",
    "height_mae": "down",
    "height_w1": "down",
    "colour_psnr": "up",
    "colour_spread": "one",
    "colour_w1": "down",
}
"""Which direction is better; "one" for shares that should be 1."""


@dataclass(frozen=True)
class Case:
    """One crop under some conditions, ready for sampling.

    Attributes
    ----------
    judge : a state at time 1 -> figures by name
    """

    flow: Flow
    predict: Predict
    noise: Tensor
    judge: Callable[[Tensor], dict[str, float]]


def coarse_case(networks: Networks, batch: Batch, names: Sequence[str], stream: Stream) -> Case:
    """iou : of active cells; cells : their number by the true one."""
    from earthgen.models.flow import place_noise
    from earthgen.models.occupancy import agreement
    from earthgen.training.parts.common import keep_conditions

    model = networks("struct-coarse")
    grid = model.grid(batch.sites.place, batch.shape)
    true = batch.sites.parents(model.config.stride)

    def judge(state: Tensor) -> dict[str, float]:
        results = grid.select(state[:, 0] > 0)
        return {"iou": agreement(results, true).iou, "cells": len(results) / max(len(true), 1)}

    predict = model.predictor(
        grid, model.condition(keep_conditions(batch.conditions, *names), grid)
    )
    return Case(model.flow, predict, place_noise(stream, grid, 1), judge)


def fine_case(networks: Networks, batch: Batch, names: Sequence[str], stream: Stream) -> Case:
    """Of voxels decoded from a latent on the true cells: their iou, and heights of columns."""
    from earthgen.models.flow import place_noise
    from earthgen.models.occupancy import agreement
    from earthgen.sparse import SparseTensor
    from earthgen.training.parts.common import column_figures, keep_conditions, voxel_tops

    model, vae = networks("struct-fine"), networks("struct-vae")
    cells, (crop,) = batch.sites.parents(vae.config.stride), batch.crops

    def judge(state: Tensor) -> dict[str, float]:
        voxels = vae.decode(vae.statistics.restored(SparseTensor(cells, state))).sites
        high = voxel_tops(voxels, batch.shape, crop.frame.z[0])[0].numpy()
        return {
            "iou": agreement(voxels, batch.sites).iou,
            **column_figures(high, crop.height, crop.valid),
        }

    predict = model.predictor(
        cells, model.condition(keep_conditions(batch.conditions, *names), cells)
    )
    return Case(model.flow, predict, place_noise(stream, cells, model.channels), judge)


def texture_case(
    networks: Networks, batch: Batch, names: Sequence[str], stream: Stream
) -> Case | None:
    """Of colours of seen voxels: PSNR, how much they vary by the true ones, and the Wasserstein-1
    distance of channels.

    None where few colours are known.
    """
    from earthgen.evaluation.metrics import wasserstein
    from earthgen.evaluation.reconstruction import LEAST_COLOURED
    from earthgen.models.flow import place_noise
    from earthgen.sparse import SparseTensor
    from earthgen.training.parts.common import keep_conditions
    from earthgen.training.parts.tex_flow import (
        COLOURS,
        colour_figures,
        colours_of_objects,
        latent_codec,
        visible_classes,
    )

    (crop,) = batch.crops
    if crop.image_known[crop.valid].mean() < LEAST_COLOURED or not bool(batch.seen.any()):
        return None
    model = networks("tex-flow")
    codec = COLOURS if model.config.target == "rgb" else latent_codec(networks("tex-vae"))
    parts = colours_of_objects(batch)
    sites, conditions = batch.sites, keep_conditions(batch.conditions, *names)

    def judge(state: Tensor) -> dict[str, float]:
        scales = codec.scales(model, None, None, None)
        colours = codec.decode(model, SparseTensor(sites, state), scales)
        made = colours[batch.seen].numpy()
        true = batch.rgb[batch.seen].numpy()
        apart = sum(wasserstein(made[:, channel], true[:, channel]) for channel in range(3)) / 3
        return {**colour_figures(colours, batch, parts), "colour_w1": apart}

    known = model.condition(conditions, sites, visible_classes(batch, conditions), batch.normal)
    return Case(
        model.flow, model.predictor(sites, known), place_noise(stream, sites, model.channels), judge
    )


def height_case(networks: Networks, batch: Batch, names: Sequence[str], stream: Stream) -> Case:
    """Of heights of columns: the iou of those that stand out, mean error, and Wasserstein-1
    distance, metres."""
    from earthgen.models.flow import place_noise
    from earthgen.training.parts.common import column_figures
    from earthgen.training.parts.height_flow import batch_condition

    model, (crop,) = networks("height-flow"), batch.crops

    def judge(state: Tensor) -> dict[str, float]:
        height = model.to_height(state, condition)[0].numpy()
        return column_figures(height, crop.height, crop.valid)

    condition = batch_condition(model, batch, networks.voxel_size)
    predict = model.predictor(condition)
    return Case(model.flow, predict, place_noise(stream, crop.frame, 1), judge)


CASES: dict[str, Callable[[Networks, Batch, Sequence[str], Stream], Case | None]] = {
    "struct-coarse": coarse_case,
    "struct-fine": fine_case,
    "tex-flow": texture_case,
    "height-flow": height_case,
}


def measure(
    data: Path,
    weights: Path | None = None,
    crops: int = 24,
    seed: int = 0,
    parts: Sequence[str] = (),
) -> dict[str, Any]:
    """Figures by flow and condition, as JSON values.

    {"flows": {"FLOW given CONDITION": {"predicts": str, "crops": int, "samplers": {"METHOD
    STEPS": {"seconds": float, FIGURE: {"value": float, "lost": float, "error": float}}}}}}, beside
    what it was measured on

    weights : a set; None for the one that the package comes with
    parts : flows; all that the set has unless given

    lost, error : percent; seconds : of the CPU for a crop, on one thread, without conditions and
        decoding
    """
    from earthgen.models.weights.bundled import bundled_weights
    from earthgen.models.weights.card import open_weights
    from earthgen.noise.philox import Noise
    from earthgen.training.batches import make_batch
    from earthgen_latent.networks import open_networks

    folder = weights or bundled_weights()
    if folder is None:
        raise SystemExit("earthgen comes without weights here: give --weights DIR")
    have = open_weights(folder).parts
    needs = {
        part: decoder
        for part, decoder in NEEDS.items()
        if part in have and have[part].config.get("target") != "rgb"
    }
    flows = [part for part in parts or WAYS if part in have and needs.get(part, part) in have]
    if not flows:
        raise SystemExit(f"{folder} has {', '.join(have)}: no flow with its autoencoder")
    networks = open_networks(
        folder, tuple({*flows, *(needs[part] for part in flows if part in needs)})
    )
    results: dict[str, Any] = {}
    for part in flows:
        chosen = list(held_out(data, networks, crops, seed, coloured=part == "tex-flow"))
        for names in WAYS[part]:
            rows: dict[str, list[dict[str, float]]] = {
                f"{method} {steps}": [] for method, steps in SAMPLERS
            }
            with alone():
                for crop in chosen:
                    stream = Noise(seed).of_stage("flow_steps").stream(part)
                    case = CASES[part](networks, make_batch([crop]), names, stream)
                    if case is not None:
                        for name, row in sampled(case).items():
                            rows[name].append(row)
            if count := len(rows[f"{BEST[0]} {BEST[1]}"]):
                results[f"{part} given {' and '.join(names)}"] = {
                    "predicts": networks.config(part).flow.predicts,
                    "crops": count,
                    "columns": chosen[0].frame.nx,
                    "samplers": table(rows),
                }
    if not results:
        raise SystemExit(f"no crop that is held out of {data} suits these weights")
    return {
        "weights": {
            "title": networks.title,
            "preset": networks.preset,
            "digests": dict(networks.digests),
        },
        "settings": {"data": data.name, "crops": crops, "seed": seed},
        "flows": results,
    }


@contextmanager
def alone() -> Iterator[None]:
    """Run torch on one thread, without gradients."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(threads)


def held_out(
    data: Path, networks: Networks, count: int, seed: int, coloured: bool = False
) -> Iterator[Crop]:
    """Crops that nobody trained on, spread over the places as those of `earthgen evaluate`.

    coloured : only such of which the colours are known
    """
    from earthgen.dataset.crop_sampler import open_crops
    from earthgen.errors import CropError
    from earthgen.evaluation.reconstruction import LEAST_COLOURED
    from earthgen.evaluation.selection import LEAST_VALID, SIZE, choose_crops
    from earthgen.models.presets import PRESETS, preset

    size = preset(networks.preset).columns if networks.preset in PRESETS else SIZE
    try:
        every = open_crops(
            data,
            size=size,
            part="held_out",
            band=networks.band,
            voxel_size=networks.voxel_size,
            least_valid=LEAST_VALID,
            least_coloured=LEAST_COLOURED if coloured else 0.0,
        )
    except CropError:
        return
    # Coarse stages that take patches of 2 cells begin at multiples of them.
    coarse = [config for part, config in networks.configs if part == "struct-coarse"]
    lattice = coarse[0].stride * coarse[0].patch if coarse else 1  # type: ignore[attr-defined]
    for number in choose_crops(every, count, seed):
        crop = every[number]
        if len(crop) and not any(
            start % lattice for start, _ in (crop.frame.x, crop.frame.y, crop.frame.z)
        ):
            yield crop


def sampled(case: Case) -> dict[str, dict[str, float]]:
    """Return figures and seconds by sampler."""
    from earthgen.models.flow import sample

    # Tables of neighbours are made once, for whichever comes first.
    case.predict(case.noise, 0.0)
    rows = {}
    for method, steps in SAMPLERS:
        began = time.process_time()
        state = sample(case.flow, case.predict, case.noise, steps=steps, method=method)  # type: ignore[arg-type]
        seconds = time.process_time() - began
        rows[f"{method} {steps}"] = {**case.judge(state), "seconds": seconds}
    return rows


def table(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """Return means over crops by sampler, and the loss against the best one."""
    best = rows[f"{BEST[0]} {BEST[1]}"]
    results: dict[str, Any] = {}
    for name, mine in rows.items():
        results[name] = {"seconds": sum(row["seconds"] for row in mine) / len(mine)}
        for figure in (figure for figure in FIGURES if any(figure in row for row in best)):
            pairs = [
                (a[figure], b[figure])
                for a, b in zip(mine, best, strict=True)
                if figure in a and figure in b
            ]
            lost, error = loss(figure, pairs)
            value = sum(a for a, _ in pairs) / len(pairs)
            results[name][figure] = {"value": value, "lost": lost, "error": error}
    return results


def loss(figure: str, pairs: Sequence[tuple[float, float]]) -> tuple[float | None, float | None]:
    """Return the loss in percent and its standard error over crops, None if undefined.

    pairs : of each crop, (what a sampler reaches, what the best does)

    Of a figure that should be 1, how much further from it, in percent of 1; else in percent of the
    best one's mean.
    """
    way = FIGURES[figure]
    signed = [
        abs(a - 1) - abs(b - 1) if way == "one" else b - a if way == "up" else a - b
        for a, b in pairs
    ]
    count, whole = len(pairs), 1.0 if way == "one" else abs(sum(b for _, b in pairs) / len(pairs))
    if whole < 1e-9:
        return None, None
    mean = sum(signed) / count
    spread = sum((each - mean) ** 2 for each in signed)
    error = 100 * (spread / (count * (count - 1))) ** 0.5 / whole if count > 1 else None
    return 100 * mean / whole, error


def run() -> dict[str, object]:
    """Run for `python -m benchmarks`, which has no data."""
    return {"not measured": "it needs a dataset: python -m benchmarks.flow_steps --data DIR"}


def show(results: Mapping[str, Any]) -> str:
    """The tables as text: each figure, and in brackets what is lost and the standard error,
    percent."""
    lines = [
        f"{results['weights']['title']}, preset {results['weights']['preset']}, held-out crops"
    ]
    for name, flow in results["flows"].items():
        names = [figure for figure in FIGURES if figure in flow["samplers"]["euler 25"]]
        rows = [["sampler", "CPU s", *names]]
        for sampler, row in flow["samplers"].items():
            rows.append(
                [sampler, f"{row['seconds']:.3f}", *(_cell(row[figure]) for figure in names)]
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        crops = f"{flow['crops']} crops of {flow['columns']} columns"
        lines += ["", f"{name}: {crops}, {flow['predicts']}"]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
    return "\n".join(lines)


def _cell(figure: Mapping[str, float | None]) -> str:
    if figure["lost"] is None:
        return f"{figure['value']:.3f}"
    error = "" if figure["error"] is None else f" ± {figure['error']:.1f}"
    return f"{figure['value']:.3f} ({figure['lost']:+.1f}{error})"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.flow_steps",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="a dataset, of `earthgen dataset build`"
    )
    parser.add_argument(
        "--weights", type=Path, help="a set of weights; else the one that earthgen comes with"
    )
    parser.add_argument("--crops", type=int, default=24)
    parser.add_argument(
        "--seed", type=int, default=0, help="of the choice of crops, and of the noise"
    )
    parser.add_argument(
        "--parts", nargs="+", choices=list(WAYS), default=[], help="flows; else all of the set"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    options = parser.parse_args(words)
    machine = describe()
    results = measure(options.data, options.weights, options.crops, options.seed, options.parts)
    if options.json:
        print(json.dumps({"machine": machine, **results}, indent=2))
        return
    print("machine:", ", ".join(f"{key} {value}" for key, value in machine.items()))
    print(show(results))


if __name__ == "__main__":
    main()
