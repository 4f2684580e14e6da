"""`earthgen evaluate`: weights, backends and baselines measured on the held-out crops of a
dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from earthgen_cli.job_options import SetOption, read_backend_options
from earthgen_cli.options import JsonOutput, ProgressMode, Quiet
from earthgen_cli.output import say, say_json, say_table
from earthgen_cli.progress import Mode, display
from earthgen_cli.settings import OptionStyle, Settings

FIGURES = {
    "class_iou": "class IoU",
    "building_iou": "building IoU",
    "height_w1": "height W1",
    "building_w1": "building W1",
    "tree_w1": "tree W1",
    "voxel_iou": "voxel IoU",
    "holes": "holes",
    "roof_residual_ratio": "roof residual",
    "roof_spread_ratio": "roof spread",
    "roof_colour_ratio": "roof colour",
    "needles": "needles",
    "above_25": "above 25 m",
    "crown_gaps": "open crowns",
    "crown_w1": "crown W1",
    "geometry_kernel": "geometry",
    "clay_oblique_kernel": "pictures",
}
"""The figures of the report that are printed, with the names of their rows. Those of roofs are
relative to the truth."""

RECONSTRUCTION = {
    "struct-vae": {"accuracy": "StructVAE accuracy, %", "iou": "StructVAE IoU at L, %"},
    "tex-vae": {"psnr": "TexVAE PSNR, dB", "l1": "TexVAE L1", "ssim": "TexVAE SSIM"},
    "struct-flow": {"iou_cells": "StructFM mIoU at L/8, %", "iou": "StructFM mIoU at L, %"},
}
"""The measures of reconstruction that are printed, by model."""

PAPER_NOTE = (
    "The paper's figures are from other data, larger models and in part from training data: "
    "docs/guides/evaluation.md."
)


MEASURED = Settings(
    "earthgen.evaluation.settings:Settings",
    {
        "data": "DIR",
        "weights": "DIR",
        "learned": OptionStyle(),
        "preset": "NAME",
        "places": OptionStyle("NAME", "--place"),
        "backends": OptionStyle("A,B,C", kind=str),
        "crops": "N",
        "size": "N",
        "seed": "N",
        "seeds": "N",
        "borders": "N",
        "steps": "N",
        "guidance": "SCALE",
        "grades": OptionStyle("A|B|C", "--grade"),
        "images": OptionStyle(),
        "maps": OptionStyle(),
        "reconstruction": OptionStyle(),
        "quick": OptionStyle(),
        "device": "NAME",
    },
)


def evaluate(
    ctx: typer.Context,
    out: Annotated[
        Path, typer.Option(metavar="REPORT", help="The folder for report.json and report.html.")
    ],
    set_: Annotated[list[str] | None, SetOption] = None,
    card: Annotated[
        bool,
        typer.Option(
            "--card",
            help="Write the results into the model card of --weights.",
        ),
    ] = False,
    *,
    typed: Annotated[dict[str, Any], MEASURED],
    quiet: Quiet = False,
    json_output: JsonOutput = False,
    progress: ProgressMode = Mode.AUTO,
) -> None:
    """Measure weights, backends and baselines on the held-out crops of a dataset.

    All receive the same land cover and ground, on the same crops; then land cover as a map has it.
    docs/guides/evaluation.md explains each measure.
    """
    from earthgen.errors import JobError
    from earthgen.evaluation.report import json_values, write_report
    from earthgen.evaluation.run import evaluate as measure
    from earthgen.evaluation.settings import Settings as Measured
    from earthgen.progress import Progress

    weights = typed.get("weights")
    if card and weights is None:
        raise JobError("--card needs a set of weights to write to", "give --weights DIR")
    if "data" not in typed:
        raise typer.BadParameter("give --data, the folder of a dataset")
    names = str(typed.pop("backends", "")).split(",")
    backends = tuple(name.strip() for name in names if name.strip())
    options = read_backend_options(set_ or [])
    settings = Measured(**typed, backends=backends, options=options)
    with display(ctx, progress, quiet=quiet, json_output=json_output) as show:
        result = measure(settings, ctx.obj.plugins, Progress(show))
    files = write_report(result, out)
    if card and weights is not None:
        from earthgen.evaluation.card import write_into_card

        files.append(write_into_card(result.report, weights).folder / "README.md")
    if json_output:
        say_json(json_values({"files": [str(file) for file in files], "report": result.report}))
    elif not quiet:
        for condition in conditions(result.report):
            say_table(*world_table(result.report, condition))
            say()
        for line in sampling_lines(result.report):
            say(line)
        if figures := result.report["reconstruction"]:
            say()
            say_table(
                ("reconstruction", "here", "paper"),
                reconstruction_rows(figures, result.report["paper"]),
            )
            say(PAPER_NOTE)
        for note in result.report["notes"]:
            say(note)
        for file in files[1:]:
            say(str(file))


def conditions(report: Mapping[str, Any]) -> list[str]:
    """Return the conditions that worlds were made from: "" for land cover, else such as "map"."""
    return list(dict.fromkeys(name.partition(", ")[2] for name in report["worlds"]))


def world_table(
    report: Mapping[str, Any], condition: str
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return heads and rows of the table of candidates under a condition, the truth beside them.

    A row is a figure with its 95 % interval over places.
    """
    names = [name for name in report["worlds"] if name.partition(", ")[2] == condition]
    columns = [(name, report["worlds"][name], name) for name in names]
    columns.append(("two halves of the truth", report["truth_halves"], "truth_halves"))
    columns.append(("truth", report["truth"], "truth"))
    heads = (condition, *(title.partition(", ")[0] for title, _, _ in columns))
    rows = []
    for key, name in FIGURES.items():
        cells = [figure_text(row.get(key), ends_of(report, row, at, key)) for _, row, at in columns]
        if any(cells):
            rows.append((name, *cells))
    return heads, rows


def ends_of(report: Mapping[str, Any], row: Mapping[str, Any], name: str, key: str) -> Any:
    """Return the ends of the interval of a figure, None without one."""
    value = row.get(key)
    if isinstance(value, Mapping):
        return None if value["low"] is None else (value["low"], value["high"])
    return report["intervals"].get(name, {}).get(key)


def figure_text(value: Any, ends: Any) -> str:
    """Write a figure with its interval: "0.931 [0.902, 0.955]"; nothing for None and NaN."""
    number = value["value"] if isinstance(value, Mapping) else value
    if number is None or number != number:
        return ""
    return f"{number:.3f}" if ends is None else f"{number:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]"


def sampling_lines(report: Mapping[str, Any]) -> list[str]:
    """Return a line for each learned backend: its steps, method and guidance."""
    return [
        f"{name}, {kind}: {row['steps']} steps, {row['method']}, guidance {row['guidance']:g}"
        for name, kinds in report["sampling"].items()
        for kind, row in kinds.items()
    ]


def reconstruction_rows(
    figures: Mapping[str, Mapping[str, float]], paper: Mapping[str, Mapping[str, float]]
) -> list[tuple[str, ...]]:
    """Return the lines of the table of reconstruction: name, figure, and the paper's figure."""
    lines: list[tuple[str, ...]] = []
    for part, row in figures.items():
        kind, _, condition = part.partition(", ")
        for key, name in RECONSTRUCTION[kind].items():
            scale = 100 if name.endswith("%") else 1
            cells = [source.get(key) for source in (row, paper.get(part, {}))]
            shown = (
                "" if value is None else f"{scale * value:.{1 if scale == 100 else 3}f}"
                for value in cells
            )
            lines.append((f"{name}, {condition}" if condition else name, *shown))
    return lines
