"""CPU seconds and memory of a forward pass of each learned model on its tile.

Each part runs in a process of its own.

The tile is that of `earthgen models`, with fresh weights, on one thread. `run(("paper",))` measures
the paper's sizes at L = 256, which takes some minutes and gigabytes.
"""

from __future__ import annotations

import json
import subprocess
import sys

PARTS = ("struct-vae", "tex-vae", "struct-coarse", "struct-fine", "tex-flow", "height-flow")

SCRIPT = (
    "import json, sys; from benchmarks.models import measure; "
    "print(json.dumps(measure(*sys.argv[1:])))"
)


def run(presets: tuple[str, ...] = ("tiny",), dtype: str = "float32") -> dict[str, object]:
    table: dict[str, object] = {}
    for preset in presets:
        for part in PARTS:
            done = subprocess.run(
                [sys.executable, "-c", SCRIPT, preset, part, dtype],
                capture_output=True,
                text=True,
                check=True,
            )
            row = json.loads(done.stdout)
            table[f"{preset} {part}"] = (
                f"{row['seconds']:.2f} s, {row['gflops'] / row['seconds']:.0f} GFLOP/s, "
                f"{row['memory_mb']:.0f} MB with {row['weights_mb']:.0f} MB of weights; "
                f"counted {row['counted_mb']:.0f} MB"
            )
    return table


def measure(preset_name: str, part: str, dtype: str) -> dict[str, float]:
    """Measure one part in this process, which must be new: its peak of memory is read at the end.

    Returns
    -------
    dict of str to float
        `seconds` of the CPU for one pass, after one on a small tile; `memory_mb`, the growth of the
        process, weights included; and the counted values.
    """
    import resource
    import time

    import torch

    from earthgen.models.build import make_model
    from earthgen.models.cost import part_cost

    torch.set_num_threads(1)
    cost = part_cost(preset_name, part)
    prepare(make_model(part, "tiny"), part, 64, (-16, 112))()  # everything is loaded and compiled
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = make_model(part, preset_name).eval()
    from earthgen.models.presets import preset

    evaluate = prepare(model, part, cost.tile, preset(preset_name).band)
    short = torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16")
    began = time.process_time()
    with short:
        evaluate()
    seconds = time.process_time() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": seconds,
        "gflops": (cost.flops + cost.condition_flops) / 1e9,
        "memory_mb": (after - before) / 1e3,
        "weights_mb": 4e-6 * cost.parameters,
        "counted_mb": cost.memory / 1e6,
    }


def prepare(model, part: str, columns: int, band: tuple[int, int]):  # type: ignore[no-untyped-def]
    """Return a function that evaluates a model once on a tile, without gradients."""
    import torch

    from earthgen.models.conditions import Conditions
    from earthgen.models.cost import terrain_shell
    from earthgen.sparse import SparseTensor

    random = torch.Generator().manual_seed(0)
    sites, time = terrain_shell(columns, band), torch.tensor([0.5])
    cover = torch.randint(1, 26, (1, columns, columns), generator=random)
    height = torch.rand(1, columns, columns, generator=random) * 10

    def evaluate() -> None:
        if part == "struct-vae":
            model(sites, torch.ones(len(sites), dtype=torch.uint8))
        elif part == "tex-vae":
            features = torch.randn(len(sites), model.config.inputs, generator=random)
            model(SparseTensor(sites, features))
        elif part == "height-flow":
            model(height[:, None], time, model.condition(cover, height, 1.0))
        else:
            where = sites
            if part == "struct-coarse":
                where = model.grid(sites.place, (columns, columns, band[1] - band[0]))
            elif part == "struct-fine":
                where = sites.parents(2).parents(2).parents(2)
            conditions = Conditions(sites.place, (columns, columns), cover, height)
            state = SparseTensor(where, torch.randn(len(where), model.channels, generator=random))
            model(state, time, model.condition(conditions, where))

    def without_gradients() -> None:
        with torch.no_grad():
            evaluate()

    return without_gradients
