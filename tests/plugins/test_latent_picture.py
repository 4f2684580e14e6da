"""An aerial image alone: heights that a network takes from it, and what stands there by rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.transform import from_origin

import earthgen
from earthgen.models import make_model, part_path, save_weights, write_card
from earthgen.models.height_flow import height_loss
from earthgen.models.presets import HIDDEN, FlowConfig, HeightFlowConfig
from earthgen.terrain.cover import class_code
from earthgen.world.world import open_world
from earthgen_cli.main import main
from earthgen_latent.picture import PICTURE_REACH, classes_of_picture
from geo_io.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE, ROOF, LAWN, STREET = 64, (190, 90, 70), (90, 140, 60), (140, 140, 140)
HEIGHT = 8.0

CONFIG = HeightFlowConfig(
    channels=(16, 24),
    blocks=(1, 1),
    state="object",
    hidden_token=True,
    image=True,
    surface=True,
    flow=FlowConfig(predicts="preconditioned", embedding=16, logit_time=True, time_uniform=0.5),
)


def picture(seed: int, size: int = SIZE) -> tuple[NDArray, NDArray]:
    """Red roofs on lawns beside a street, (size, size, 3) uint8, and where the roofs are."""
    random = np.random.default_rng(seed)
    image = np.full((size, size, 3), LAWN, np.uint8)
    image[:, size // 2 - 3 : size // 2 + 3] = STREET
    roof = np.zeros((size, size), bool)
    for _ in range(size * size // 500):
        row, column = random.integers(2, size - 12, 2)
        roof[row : row + 10, column : column + 9] = True
    image[roof] = ROOF
    noise = random.normal(0, 3, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), roof


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flow that has learned from pictures alone that what is red is 8 m high."""
    torch.set_num_threads(1)
    model: Any = make_model("height-flow", CONFIG, seed=0)
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), 4e-3)
    for step in range(120):
        pairs = [picture(6 * step + n, 32) for n in range(6)]
        image = torch.from_numpy(np.stack([each for each, _ in pairs])).permute(0, 3, 1, 2) / 255
        height = torch.from_numpy(np.stack([roof for _, roof in pairs])).float() * HEIGHT
        condition = model.condition(
            torch.full(height.shape, HIDDEN), torch.zeros_like(height), 1.0, image=image
        )
        optimiser.zero_grad()
        loss: Any = height_loss(model, height, condition, generator)
        loss.backward()
        optimiser.step()
    folder = tmp_path_factory.mktemp("weights")
    save_weights(part_path(folder, "height-flow"), "height-flow", model)
    write_card(folder, title="Red is 8 m", licence="CC0-1.0")
    return folder


def write_image(path: Path, image: NDArray) -> Path:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=image.shape[1],
        height=image.shape[0],
        count=image.shape[2],
        dtype="uint8",
        crs="EPSG:32632",
        transform=from_origin(684032, 5539840, 1, 1),
    ) as dataset:
        dataset.write(image.transpose(2, 0, 1))
    return path


@pytest.mark.slow
def test_an_aerial_image_alone_makes_heights(weights: Path, tmp_path: Path) -> None:
    """The paper's one view, by the command line: no map, no surface model, no extent but that of
    the picture."""
    image, roof = picture(10**6)
    source, out = write_image(tmp_path / "view.tif", image), tmp_path / "world.zarr"
    arguments = ["--geometry", "height-flow", "--weights", str(weights), "--tile-size", "64"]
    for option in ("use=image", "window=64", "surface=64"):
        arguments += ["--set", f"geometry.{option}"]
    assert main(["generate", "--image", str(source), *arguments, "--out", str(out)]) == 0
    world = open_world(out)
    ((tx, ty),) = world.tiles()
    frame, layers = world.tile_frame(tx, ty), world.tile_layers(tx, ty)
    assert (frame.nx, frame.ny) == (SIZE, SIZE)
    above = layers["surface"] - layers["ground"]
    tall = above > 2.5
    assert (tall & roof).sum() / (tall | roof).sum() > 0.8
    assert float(np.median(above[tall & roof])) == pytest.approx(HEIGHT, abs=1.0)
    # What is red and level is a house; without a map a plant would stand there.
    houses = layers["semantics"] == class_code("building")
    assert (houses & roof).sum() / (houses | roof).sum() > 0.75


def test_a_grey_image_is_refused_where_networks_take_it(weights: Path, tmp_path: Path) -> None:
    grey = write_image(tmp_path / "grey.tif", picture(0)[0][..., :1])

    def generate(use: str, name: str) -> Any:
        return earthgen.generate(
            image=grey,
            out=tmp_path / name,
            geometry="height-flow",
            geometry_options={"use": use, "window": 64, "surface": 64, "steps": 1},
            weights=weights,
        )

    with pytest.raises(InputError, match=r"one band.*red, green and blue"):
        generate("image", "refused.zarr")
    assert generate("semantics,height", "plain.zarr").complete


def test_pictures_tell_houses_trees_and_ground() -> None:
    random = np.random.default_rng(0)
    colours, roof = picture(3)
    height = np.where(roof, np.float32(HEIGHT), np.float32(0))
    wood = np.zeros((SIZE, SIZE), bool)
    wood[48:, :20] = True
    colours[wood], height[wood] = (60, 110, 50), random.uniform(5, 12, (SIZE, SIZE))[wood]
    image = np.dstack([colours, np.full((SIZE, SIZE), 255, np.uint8)])
    cover = np.zeros((SIZE, SIZE), np.uint8)
    cover[:4] = class_code("road")
    image[-3:, -3:, 3] = 0
    found = classes_of_picture(cover, image, height)
    assert (found[:4] == class_code("road")).all(), "a map has precedence"
    assert (found[-3:, -3:] == 0).all(), "where nothing is seen nothing is known"
    rest = (cover == 0) & (image[..., 3] > 0)
    for name, where in (
        ("building", roof & ~wood),
        ("tree", wood),
        ("grass", ~roof & ~wood & (np.abs(np.arange(SIZE) - 32) > 6)),
        ("paved", ~roof & ~wood & (np.abs(np.arange(SIZE) - 31.5) < 2)),
    ):
        share = (found[where & rest] == class_code(name)).mean()
        assert share > 0.75, (name, share)
    # A window that sees only what it may sees the same.
    part, edge = np.s_[10:50, 12:60], slice(PICTURE_REACH, -PICTURE_REACH)
    own = classes_of_picture(cover[part], image[part], height[part])
    assert np.array_equal(own[edge, edge], found[part][edge, edge])
