"""`earthgen train`: the learned parts, on scenes of `earthgen dataset`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earthgen_cli.options import JsonOutput, ProgressMode, Quiet
from earthgen_cli.output import say, say_json, say_pairs, say_table, seconds_text
from earthgen_cli.progress import Mode, display
from earthgen_cli.settings import OptionStyle, Settings

if TYPE_CHECKING:
    from earthgen.training.run import TrainingResult


def comma_list(value: str | None) -> tuple[str, ...] | None:
    """Split "a,b" at commas."""
    return None if value is None else tuple(part for part in value.split(",") if part)


RUN = Settings(
    "earthgen.training.settings:TrainingSettings",
    {
        "data": OptionStyle("DATASET"),
        "preset": OptionStyle("NAME"),
        "out": OptionStyle("RUN", short="-o"),
        "init": OptionStyle("WEIGHTS"),
        "freeze": OptionStyle("PART,PART", kind=str, callback=comma_list),
        "minutes": OptionStyle("M"),
        "steps": "N",
        "seed": "N",
        "columns": "N",
        "grades": OptionStyle("A|B|C", "--grade"),
        "scenes": OptionStyle("NAME", "--scene"),
        "simulated": "SHARE",
        "precision": OptionStyle(),
        "device": "NAME",
        "devices": "N",
        "threads": "N",
        "data_device": OptionStyle(),
        "sparse_backend": "NAME",
        "compile": OptionStyle(),
        "recompute": OptionStyle(),
        "checkpoint_minutes": "M",
        "weights_dtype": OptionStyle(),
        "licence": "TEXT",
    },
)

PART = Settings(
    "earthgen.training.settings:PartSettings",
    {
        "batch_size": OptionStyle(
            "N", "--batch", help="Crops per step; the part's default if not given."
        ),
        "micro_batch": "N",
        "learning_rate": OptionStyle(
            "X", help="Highest learning rate; the part's default if not given.", show_default=False
        ),
    },
)


def train(
    ctx: typer.Context,
    part: Annotated[str, typer.Argument(help="A part, or `all` in order.", metavar="PART")],
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="TRAINING.toml", help="Settings; the options given beside it override them."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run at --out, or start it.")
    ] = False,
    *,
    typed: Annotated[dict[str, Any], RUN],
    typed_for_part: Annotated[dict[str, Any], PART],
    quiet: Quiet = False,
    json_output: JsonOutput = False,
    progress: ProgressMode = Mode.AUTO,
) -> None:
    """Train parts of the learned model on a dataset, and write their weights to RUN/weights.

    A run that was stopped continues with --resume along the same learning curve.
    docs/guides/training.md shows how to train on an area of your own, and lists the settings of a
    TRAINING.toml.
    """
    from earthgen.training.run import train as run
    from earthgen.training.settings import TASKS, load_settings, make_settings

    if part not in TASKS:
        raise typer.BadParameter(f"unknown part {part!r}; choose from {', '.join(TASKS)}")
    values = load_settings(config) if config is not None else {}
    values |= typed
    for name in ("data", "out"):
        if name not in values:
            raise typer.BadParameter(f"give --{name}, or {name} = in a TRAINING.toml")
    if typed_for_part:
        values["parts"] = merge_parts(values.get("parts"), TASKS[part], typed_for_part)
    with display(ctx, progress, quiet=quiet, json_output=json_output) as show:
        trained = run(part, make_settings(values), resume=resume, listener=show)
    if json_output:
        say_json(report_values(trained))
    elif not quiet:
        say_report(trained)


def compare(
    ctx: typer.Context,
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of runs.")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PAGE.html",
            help="Where to write tables and curves; compare.html beside the first run if not "
            "given.",
        ),
    ] = None,
    quiet: Quiet = False,
    json_output: JsonOutput = False,
) -> None:
    """Compare runs: settings that differ, lengths, figures of held-out crops, curves in one page.

    A run may be unfinished. Compare only figures of the same held-out crops: the table shows
    `dataset` where the data differ.
    """
    from earthgen.training.runs.compare import compare_runs, table_rows, write_page

    found = compare_runs(runs)
    page = out or runs[0].resolve().parent / "compare.html"
    write_page(runs, page)
    if json_output:
        say_json({**found, "page": page})
    elif not quiet:
        for part, values in found["parts"].items():
            say_table((part, *found["runs"]), [(name, *row) for name, row in table_rows(values)])
        say_pairs([("curves", str(page))])


def merge_parts(file_settings: Any, parts: tuple[str, ...], typed: dict[str, Any]) -> Any:
    """Override the settings of all parts of a task by what was typed."""
    if file_settings is not None and not isinstance(file_settings, dict):
        return file_settings  # `make_settings` refuses it
    settings = dict(file_settings or {})
    return {**settings, **{part: {**settings.get(part, {}), **typed} for part in parts}}


def report_values(trained: TrainingResult) -> dict[str, Any]:
    """Return what --json prints."""
    return {
        "weights": trained.weights.folder,
        "digest": trained.weights.digest,
        "parts": {
            part: {
                "steps": each.step,
                "seconds": round(each.seconds, 1),
                "metrics": each.metrics,
                "speed": each.speed,
            }
            for part, each in trained.fitted.items()
        },
    }


def say_report(trained: TrainingResult) -> None:
    rows = []
    for part, each in trained.fitted.items():
        speed = each.speed
        rows.append(
            (
                part,
                f"{each.step:,}",
                seconds_text(each.seconds),
                f"{speed['crops_per_s']:,.3g}",
                f"{speed['voxels_per_s']:,.4g}",
                f"{speed['gflops']:,.3g}",
                f"{100 * speed['flop_share']:.1f} %",
            )
        )
    if rows:
        say_table(
            ("part", "steps", "time", "crops/s", "voxels/s", "GFLOP/s", "of a product's"), rows
        )
    for part, each in trained.fitted.items():
        if each.metrics:
            say(
                f"{part}, held out: "
                + ", ".join(f"{name} {value:.4g}" for name, value in each.metrics.items())
            )
    folder = trained.weights.folder
    say_pairs(
        [
            ("weights", str(folder)),
            ("curves", str(folder.parent / "PART" / "curves.png")),
            (
                "next",
                f"earthgen generate {_backends(set(trained.weights.parts))} --weights {folder} ...",
            ),
        ]
    )


def _backends(parts: set[str]) -> str:
    """Return the options by which a world is made with the parts of a set of weights."""
    if {"struct-vae", "struct-coarse", "struct-fine"} <= parts:
        geometry = "--geometry latent"
    else:
        geometry = "--geometry height-flow" if "height-flow" in parts else ""
    texture = "--texture latent" if "tex-flow" in parts else ""
    return " ".join(filter(None, (geometry, texture)))
