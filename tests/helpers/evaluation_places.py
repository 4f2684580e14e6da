"""Helpers of the tests of evaluations: a dataset of two villages, one of them held out, untrained
weights, and fast backends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earthgen.evaluation.patch import Patch
from earthgen.models import presets
from earthgen.models.build import make_model
from earthgen.models.presets import BlockConfig, CondConfig, FlowConfig
from earthgen.models.weights.card import write_card
from earthgen.models.weights.format import part_path, save_weights
from earthgen.plugins import Plugins
from geo_io.frame import Frame
from geo_io.legend import codes
from tests.helpers.dataset_places import EAST, NORTH, SIZE, village_scene

GRASS, BUILDING = codes()["grass"], codes()["building"]

SMALL, FLOW = BlockConfig(head=8, mlp=1.0), FlowConfig(embedding=16)
PLANE = CondConfig(
    channels=(8, 8, 8, 8), plane=("", "", "", ""), heights=8, voxels=False, blocks=SMALL
)
CONFIGS: dict[str, presets.Config] = {
    "struct-vae": presets.StructVaeConfig(
        channels=(8, 8, 8, 16),
        latent=4,
        encoder=("c", "", ""),
        middle="c",
        before=("", "", ""),
        after=("c", "", ""),
        early=True,
        blocks=SMALL,
    ),
    "tex-vae": presets.TexVaeConfig(channels=16, latent=4, encoder="c", decoder="c", blocks=SMALL),
    "struct-coarse": presets.StructCoarseConfig(
        patch=1, channels=16, middle="c", blocks=SMALL, flow=FLOW, condition=PLANE
    ),
    "struct-fine": presets.StructFineConfig(
        latent=4,
        flow=FLOW,
        unet=presets.UNetConfig(channels=(16,), middle="c", blocks=SMALL),
        condition=PLANE,
    ),
    "height-flow": presets.HeightFlowConfig(channels=(8, 8), blocks=(1, 1), flow=FLOW),
}
"""Tiny networks; they belong to no preset."""


def dataset(folder: Path, *, held_out: bool = True) -> Path:
    """Write a dataset of two villages, the second held out."""
    folder.mkdir(parents=True, exist_ok=True)
    village_scene(folder, "here")
    away = (EAST + 10 * SIZE, NORTH)
    bounds = (float(away[0]), float(NORTH), float(away[0] + SIZE), float(NORTH + SIZE))
    village_scene(folder, "there", at=away, held_out=(bounds,) if held_out else ())
    return folder


def weights(
    folder: Path, *, voxel_size: float = 1.0, parts: tuple[str, ...] = tuple(CONFIGS)
) -> Path:
    """Write a set of untrained weights."""
    for part in parts:
        save_weights(
            part_path(folder, part),
            part,
            make_model(part, CONFIGS[part]),
            voxel_size=voxel_size,
            licence="none",
        )
    write_card(folder, title="Untrained", licence="none")
    return folder


def with_stripes() -> Plugins:
    """Load the built-in plugins and that of tests/plugin_package: geometry "terraces", texture
    "stripes"."""
    import earthgen_stripes

    plugins = Plugins()  # not `load()`, whose set is that of the whole process
    plugins.load_entry_points("")
    plugins.register(earthgen_stripes, "stripes", "of a test")
    return plugins


def frame(size: int = 16, x: int = 640_000, y: int = 5_560_000) -> Frame:
    return Frame("EPSG:32632", 1.0, (x, x + size), (y, y + size), (-16, 112))


def column_patch(
    height: NDArray, cover: NDArray | None = None, where: Frame | None = None
) -> Patch:
    """Make columns of one voxel each with its top at an integer height. A negative height leaves a
    column empty."""
    place = where or frame(len(height))
    row, col = np.nonzero(height >= 0)
    xyz = np.column_stack([place.x[0] + col, place.y[1] - 1 - row, height[row, col] - 1]).astype(
        np.int32
    )
    order = np.lexsort((xyz[:, 2], xyz[:, 0], xyz[:, 1]))
    classes = np.full(height.shape, GRASS, np.uint8) if cover is None else cover
    ground = np.full(height.shape, 100, np.float32)
    return Patch(
        place, ground, xyz[order], classes[row, col][order], None, np.ones(height.shape, bool)
    )
