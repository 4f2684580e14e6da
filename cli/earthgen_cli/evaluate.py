"""`earthgen evaluate`: weights, backends and baselines measured on the held-out crops of a
dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from earthgen_cli.job_options import read_options
from earthgen_cli.options import JsonOutput, ProgressMode, Quiet
from earthgen_cli.output import say, say_json, say_table
from earthgen_cli.progress import Mode, display

COLUMNS = {
    "class_iou": "class IoU",
    "building_iou": "building IoU",
    "height_w1": "height W1",
    "building_w1": "building W1",
    "voxel_iou": "voxel IoU",
    "holes": "holes",
    "geometry_kernel": "geometry",
    "clay_oblique_kernel": "pictures",
}
"""What the printed table has of the report's; the page has all."""

GIVEN_BACK = {
    "struct-vae": {"accuracy": "StructVAE accuracy, %", "iou": "StructVAE IoU at L, %"},
    "tex-vae": {"psnr": "TexVAE PSNR, dB", "l1": "TexVAE L1", "ssim": "TexVAE SSIM"},
    "struct-flow": {"iou_cells": "StructFM mIoU at L/8, %", "iou": "StructFM mIoU at L, %"},
}
"""What the second table has of what models give back."""

PAPER_NOTE = "The paper's figures are of other data, larger models and in part of training data: docs/guides/evaluation.md."


def evaluate(
    ctx: typer.Context,
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="The dataset, of `earthgen dataset build`.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="REPORT", help="The folder for report.json and report.html.")
    ],
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A set of weights; else the one that comes with earthgen."
        ),
    ] = None,
    learned: Annotated[
        bool,
        typer.Option(
            "--learned/--no-learned",
            help="Whether weights are measured, or rules and baselines alone.",
        ),
    ] = True,
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What the weights have to be of; else what they are."),
    ] = None,
    place: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A scene to measure on; else all held out. May repeat."),
    ] = None,
    backends: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="Geometries of plugins, as NAME or NAME+TEXTURE, and baselines (nearest-tile, mean-height); else all.",
        ),
    ] = None,
    crops: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many crops, spread over the places.")
    ] = 64,
    size: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=16, help="Columns along an edge of a crop; else the preset's, or 64."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Chooses the crops, and is the worlds' own.")
    ] = 0,
    seeds: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="Worlds of one map that are compared for diversity; 1 for none.",
        ),
    ] = 3,
    borders: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Places across borders of windows that are looked at; 0 for none.",
        ),
    ] = 32,
    steps: Annotated[
        int, typer.Option(metavar="N", min=1, help="Of sampling StructFM by itself.")
    ] = 25,
    guidance: Annotated[
        float, typer.Option(metavar="SCALE", help="Of sampling StructFM by itself.")
    ] = 1.0,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="An option of learned backends: geometry.KEY=VALUE or texture.KEY=VALUE.",
        ),
    ] = None,
    grade: Annotated[
        list[str] | None,
        typer.Option(metavar="A|B|C", help="Licence grades of scenes; else A and B. May repeat."),
    ] = None,
    images: Annotated[
        bool,
        typer.Option("--images/--no-images", help="Whether an image network compares pictures."),
    ] = True,
    card: Annotated[
        bool,
        typer.Option(
            "--card",
            help="Write the figures into the model card of the --weights that were measured.",
        ),
    ] = False,
    quiet: Quiet = False,
    json_output: JsonOutput = False,
    progress: ProgressMode = Mode.AUTO,
) -> None:
    """Measure weights, backends and baselines on the held-out crops of a dataset.

    All are given the same land cover and ground, on the same crops. docs/guides/evaluation.md says
    what each number means.
    """
    from earthgen.errors import JobError
    from earthgen.evaluation.evaluate import evaluate as measure
    from earthgen.evaluation.report import plain, write_report
    from earthgen.evaluation.settings import Settings
    from earthgen.progress import Progress

    if card and weights is None:
        raise JobError(
            "--card writes into a set of weights, and none is given", "give --weights DIR"
        )
    given: dict[str, Any] = {"grades": tuple(grade)} if grade else {}
    settings = Settings(
        data=data,
        weights=weights,
        learned=learned,
        preset=preset,
        places=tuple(place or ()),
        crops=crops,
        size=size,
        seed=seed,
        backends=tuple(name.strip() for name in (backends or "").split(",") if name.strip()),
        seeds=seeds,
        borders=borders,
        steps=steps,
        guidance=guidance,
        images=images,
        options=read_options(set_ or []),
        **given,
    )
    with display(progress, quiet=quiet, json_output=json_output) as show:
        found = measure(settings, ctx.obj.plugins, Progress(show))
    files = write_report(found, out)
    if card and weights is not None:
        from earthgen.evaluation.card import write_into_card

        files.append(write_into_card(found.report, weights).folder / "README.md")
    if json_output:
        say_json(plain({"files": [str(file) for file in files], "report": found.report}))
    elif not quiet:
        say_table(
            ("", *COLUMNS.values()),
            [row(name, world) for name, world in found.report["worlds"].items()],
        )
        if figures := found.report["reconstruction"]:
            say()
            say_table(("given back", "here", "paper"), given_back(figures, found.report["paper"]))
            say(PAPER_NOTE)
        for note in found.report["notes"]:
            say(note)
        for file in files[1:]:
            say(str(file))


def row(name: str, world: dict[str, Any]) -> tuple[str, ...]:
    """The cells of one line of the table; distances by kernel without their intervals."""
    cells = []
    for key in COLUMNS:
        value = world.get(key)
        value = value["value"] if isinstance(value, dict) else value
        cells.append("" if value is None else f"{value:.3f}")
    return (name, *cells)


def given_back(
    figures: Mapping[str, Mapping[str, float]], paper: Mapping[str, Mapping[str, float]]
) -> list[tuple[str, ...]]:
    """Lines of the table of what models give back: name, the figure, and the paper's where it
    has the same."""
    lines: list[tuple[str, ...]] = []
    for part, row in figures.items():
        kind, _, condition = part.partition(", ")
        for key, name in GIVEN_BACK[kind].items():
            scale = 100 if name.endswith("%") else 1
            cells = [found.get(key) for found in (row, paper.get(part, {}))]
            shown = (
                "" if value is None else f"{scale * value:.{1 if scale == 100 else 3}f}"
                for value in cells
            )
            lines.append((f"{name}, {condition}" if condition else name, *shown))
    return lines
