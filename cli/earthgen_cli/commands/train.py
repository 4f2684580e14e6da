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


RUN = Settings(
    "earthgen.training.settings:TrainingSettings",
    {
        "data": OptionStyle("DATASET", help="Folder of scenes, made by `earthgen dataset build`."),
        "preset": OptionStyle("NAME", help="Sizes of the models: tiny, base or paper."),
        "out": OptionStyle("RUN", help="Folder of the run."),
        "minutes": OptionStyle("M", help="Stop after this time, with the learning rate at 0."),
        "steps": OptionStyle("N", help="Stop after this number of steps, of all parts together."),
        "seed": OptionStyle("N", help="Each seed gives other weights."),
        "columns": OptionStyle("N", help="Edge of a crop in voxels; the preset's if not given."),
        "grades": OptionStyle("A|B|C", "--grade", help="Licence grade to train on."),
        "scenes": OptionStyle("NAME", "--scene", help="Train on this scene only."),
        "precision": OptionStyle(help="auto is bf16 on devices that multiply it fast."),
        "device": OptionStyle("NAME", help="cpu, cuda or auto."),
        "devices": OptionStyle("N", help="Number of devices; more than 1 need earthgen[train]."),
        "threads": OptionStyle("N", help="Threads of the CPU."),
        "checkpoint_minutes": OptionStyle(
            "M", help="Time between checkpoints, each with pictures."
        ),
        "weights_dtype": OptionStyle(help="Data type of the resulting weights."),
        "licence": OptionStyle("TEXT", help="Licence of the weights, for their model card."),
    },
)

PART = Settings(
    "earthgen.training.settings:PartSettings",
    {
        "batch_size": OptionStyle(
            "N", "--batch", help="Crops per step; the part's default if not given."
        ),
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
                f"earthgen generate --geometry latent --texture latent --weights {folder} ...",
            ),
        ]
    )
