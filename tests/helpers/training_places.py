"""For the tests of training: a preset that is trained in no time, two villages, and a run that
can be killed."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from earthgen.models import presets
from earthgen.models.presets import BlockConfig, CondConfig, FlowConfig
from earthgen.training.settings import TrainingSettings, make_settings
from tests.helpers.dataset_places import EAST, NORTH, SIZE, village_scene

NAME = "micro"


def _micro() -> dict[str, Any]:
    small = BlockConfig(head=8, mlp=1.0)
    flow = FlowConfig(predicts="preconditioned", logit_time=True, embedding=16)
    plane = CondConfig(
        channels=(8, 8, 8, 8), plane=("", "c", "", ""), heights=8, voxels=False, blocks=small
    )
    return {
        "voxel_size": 1.0,
        "columns": 32,
        "tile": 32,
        "band": (-16, 32),
        "struct_vae": presets.StructVaeConfig(
            channels=(8, 8, 8, 16),
            latent=4,
            encoder=("c", "", ""),
            middle="c",
            before=("", "", ""),
            after=("c", "", ""),
            early=True,
            blocks=small,
        ),
        "tex_vae": presets.TexVaeConfig(
            channels=16, latent=4, encoder="c", decoder="c", blocks=small
        ),
        "struct_coarse": presets.StructCoarseConfig(
            patch=1,
            channels=16,
            middle="ct",
            styles=2,
            blocks=small,
            flow=flow,
            condition=plane,
        ),
        "struct_fine": presets.StructFineConfig(
            latent=4,
            styles=2,
            flow=flow,
            unet=presets.UNetConfig(channels=(16,), middle="ct", blocks=small),
            condition=plane,
        ),
        "tex_flow": presets.TexFlowConfig(
            latent=4,
            styles=2,
            flow=flow,
            condition=plane,
            unet=presets.UNetConfig(
                channels=(8, 8), down=("c",), middle="c", up=("c",), blocks=small
            ),
        ),
        "height_flow": presets.HeightFlowConfig(channels=(8, 8), blocks=(1, 1), flow=flow),
    }


presets.PRESETS.setdefault(NAME, _micro)


def dataset(folder: Path) -> Path:
    """Two villages, the second of which is held out."""
    folder.mkdir(parents=True, exist_ok=True)
    village_scene(folder, "here")
    away = (EAST + 10 * SIZE, NORTH)
    bounds = (float(away[0]), float(NORTH), float(away[0] + SIZE), float(NORTH + SIZE))
    village_scene(folder, "there", at=away, held_out=(bounds,))
    return folder


def settings(data: Path, out: Path, **given: Any) -> TrainingSettings:
    """Of a run that is quick, and on one thread, where sums have one order."""
    usual: dict[str, Any] = {
        "data": data,
        "out": out,
        "preset": NAME,
        "steps": 8,
        "threads": 1,
        "precision": "fp32",
        "log_steps": 1,
        "checkpoint_steps": 3,
        "held_out": 1,
        "pictures": False,
        "tensorboard": False,
        "parts": {
            **{part: {"batch_size": 2} for part in presets.PARTS},
            "tex-vae": {"batch_size": 2, "render_size": 24},
        },
    }
    return make_settings({**usual, **given})


def run_until(data: Path, out: Path, last: int) -> None:
    """Train StructVAE, and hang when the row of step `last` is written: to be killed there."""
    from earthgen.training import log
    from earthgen.training.run import train

    add = log.Log.add

    def hang(self: log.Log, step: int, values: Any) -> None:
        add(self, step, values)
        if step >= last:
            time.sleep(600)

    log.Log.add = hang  # type: ignore[method-assign]
    train("struct-vae", settings(data, out))


if __name__ == "__main__":
    run_until(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
