"""`python -m benchmarks.held_out DATASET --out FOLDER`: held-out places and what is made of them.

A sheet a place: the condition (land cover and footprints with their heights), the truth, the rules,
and the learned backends in both styles; in clay from above and obliquely, and in colour. The sheets
of docs/gallery are made with it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from earthgen.dataset.crop import Crop
from earthgen.dataset.crop_sampler import Crops
from earthgen.evaluation.patch import Patch, patch_of_crop
from earthgen.evaluation.reconstruction import LEAST_COLOURED
from earthgen.evaluation.selection import choose_crops, held_out_crops
from earthgen.evaluation.settings import Settings
from earthgen.evaluation.views import clay, oblique_view, picture, view_from_above
from earthgen.evaluation.worlds import BackendChoice, make_world
from earthgen.plugins import Plugins, load
from geo_io.legend import palette

PIXELS, MARGIN, TITLE = 320, 4, 18
"""Edge of a picture, space between pictures, and height of a line of text, pixels."""

LEARNED = ("height-flow", "latent")
CANDIDATES: dict[str, tuple[tuple[str, str], dict[str, str]]] = {
    "rules": (("procedural", "procedural"), {}),
    "learned, style rules": (LEARNED, {"style": "rules"}),
    "learned, style real": (LEARNED, {"style": "real"}),
}


def world(every: Crops, number: int, name: str, plugins: Plugins) -> Patch:
    """Return what a candidate makes of the place of a crop."""
    (geometry, texture), options = CANDIDATES[name]
    choice = BackendChoice(name, geometry, texture, {"geometry": options, "texture": options})
    crop, scene = every[number], every.where(number)[0]
    made = make_world(scene, choice, plugins, 0, every.band, footprints=True)
    return made.patch(crop.frame, crop.valid)


def drawn(patch: Patch, colours: bool) -> list[NDArray | None]:
    """Return clay from above, clay obliquely, and colours obliquely, (PIXELS, PIXELS, 3) uint8."""
    middle = float(np.median(patch.ground))
    above = view_from_above(patch.frame, middle, PIXELS)
    oblique = oblique_view(patch.frame, middle, PIXELS)
    shape = clay(patch)
    pictures: list[NDArray | None] = [picture(patch, shape, view) for view in (above, oblique)]
    shown = colours and patch.splats is not None
    return [*pictures, picture(patch, patch.splats, oblique) if shown else None]  # type: ignore[arg-type]


def condition(crop: Crop) -> NDArray:
    """Return the land cover in the colours of the legend, buildings shaded by their height."""
    colour = palette()[crop.cover].astype(float)
    tall = np.nan_to_num(np.clip(crop.building_height / 30, 0, 1))[..., None]
    colour = np.where(crop.building[..., None] > 0, (1 - 0.7 * tall) * colour, colour)
    image = Image.fromarray(colour.astype(np.uint8))
    return np.asarray(image.resize((PIXELS, PIXELS), Image.Resampling.NEAREST))


def sheet(columns: dict[str, list[NDArray | None]], title: str) -> Image.Image:
    """Put pictures beside each other, a column a candidate."""
    step = PIXELS + MARGIN
    rows = max(len(column) for column in columns.values())
    size = (step * len(columns) + MARGIN, 2 * TITLE + step * rows + MARGIN)
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    pen.text((MARGIN, 3), title, fill="black")
    for number, (name, column) in enumerate(columns.items()):
        x = MARGIN + step * number
        pen.text((x, TITLE + 3), name, fill="black")
        for row, each in enumerate(column):
            if each is not None:
                image.paste(Image.fromarray(each), (x, 2 * TITLE + step * row))
    return image


def main() -> None:
    """Draw a sheet of each held-out place."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--places", type=int, default=7)
    parser.add_argument("--columns", type=int, default=128)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    settings = Settings(data=given.data, crops=given.places)
    every = held_out_crops(settings, given.columns, 1.0)
    plugins = load()
    for number in choose_crops(every, given.places, 0):
        crop, scene = every[number], every.where(number)[0]
        coloured = bool(crop.image_known[crop.valid].mean() >= LEAST_COLOURED)
        truth = patch_of_crop(crop)
        seen = replace(truth, valid=truth.valid & (crop.image_known if coloured else True))
        columns: dict[str, list[NDArray | None]] = {
            "condition": [condition(crop)],
            "truth": [*drawn(truth, False)[:2], drawn(seen, coloured)[2]],
        }
        for name in CANDIDATES:
            columns[name] = drawn(world(every, number, name, plugins).only(crop.valid), True)
        title = f"{scene.info.place}, {crop.frame.nx} m. {scene.info.source}, {scene.info.licence}"
        path = given.out / f"held-out-{scene.info.name}.jpg"
        sheet(columns, title).save(path, quality=85)
        print(path, flush=True)


if __name__ == "__main__":
    main()
