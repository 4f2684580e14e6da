"""Small networks with random weights, for tests of the learned backends: they always make the
same rubble."""

from __future__ import annotations

from pathlib import Path

from earthgen.models.build import make_model
from earthgen.models.presets import (
    BlockConfig,
    CondConfig,
    Config,
    FlowConfig,
    HeightFlowConfig,
    StructCoarseConfig,
    StructFineConfig,
    StructVaeConfig,
    TexFlowConfig,
    TexVaeConfig,
    UNetConfig,
)
from earthgen.models.weights.card import write_card
from earthgen.models.weights.format import part_path, save_weights

SMALL = BlockConfig(head=8, mlp=1.0)
FLOW = FlowConfig(embedding=8)
COND = CondConfig(
    channels=(4, 4, 4, 8), plane=("", "", "c", "c"), voxels=False, heights=8, blocks=SMALL
)

CONFIGS: dict[str, Config] = {
    "height-flow": HeightFlowConfig(channels=(4, 8, 8, 8), blocks=(1, 1, 1, 1), flow=FLOW),
    "struct-vae": StructVaeConfig(
        channels=(4, 4, 8, 8),
        latent=4,
        encoder=("c", "c", "c"),
        middle="ct",
        before=("", "", ""),
        after=("c", "c", "c"),
        early=True,
        blocks=SMALL,
    ),
    "struct-coarse": StructCoarseConfig(
        patch=1, channels=8, middle="ct", blocks=SMALL, flow=FLOW, condition=COND
    ),
    "struct-fine": StructFineConfig(
        latent=4,
        flow=FLOW,
        unet=UNetConfig(channels=(8,), middle="ct", blocks=SMALL),
        condition=COND,
    ),
    "tex-vae": TexVaeConfig(channels=8, latent=4, encoder="c", decoder="cs", blocks=SMALL),
    "tex-flow": TexFlowConfig(
        latent=4,
        flow=FLOW,
        condition=COND,
        unet=UNetConfig(
            channels=(4, 8, 8, 8),
            down=("c", "c", "c"),
            middle="t",
            up=("c", "c", "c"),
            blocks=SMALL,
        ),
    ),
}


def make_set(
    folder: Path, *, voxel_size: float = 2.0, parts: tuple[str, ...] = tuple(CONFIGS), seed: int = 5
) -> Path:
    """A set of weights of these networks in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        save_weights(
            part_path(folder, part),
            part,
            make_model(part, CONFIGS[part], seed=seed),
            voxel_size=voxel_size,
            licence="CC0-1.0",
        )
    write_card(folder, title="Random numbers", licence="CC0-1.0")
    return folder
