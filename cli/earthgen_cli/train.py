"""`earthgen train`: the learned parts, on scenes of `earthgen dataset`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earthgen_cli.options import JsonOutput, ProgressMode, Quiet
from earthgen_cli.output import say, say_json, say_pairs, say_table, seconds_text
from earthgen_cli.progress import Mode, display

if TYPE_CHECKING:
    from earthgen.training.run import Trained


class What(StrEnum):
    """What can be trained; `earthgen.training.settings.TASKS`."""

    STRUCT_VAE = "struct-vae"
    TEX_VAE = "tex-vae"
    STRUCT_FLOW = "struct-flow"
    STRUCT_COARSE = "struct-coarse"
    STRUCT_FINE = "struct-fine"
    TEX_FLOW = "tex-flow"
    HEIGHT_FLOW = "height-flow"
    ALL = "all"


def train(
    what: Annotated[What, typer.Argument(help="A part, or all parts in order.", metavar="PART")],
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="TRAINING.toml", help="Settings; the options beside it override it."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DATASET", help="A folder of scenes, of `earthgen dataset build`."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="tiny, base or paper; else tiny.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="RUN", help="The folder of the run.")] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="M", min=0.01, help="Stop after so much time, the learning rate at 0."
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Stop after so many steps, of all parts together."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run at --out, or begin it.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Other seeds give other weights; else 0.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Crops a step; else the part's own.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="X", help="The highest one; else the part's own.")
    ] = None,
    columns: Annotated[
        int | None,
        typer.Option(metavar="N", min=8, help="Edge of a crop, voxels; else the preset's."),
    ] = None,
    grade: Annotated[
        list[str] | None,
        typer.Option(metavar="A|B|C", help="Licence grades to train on; else A and B. Repeats."),
    ] = None,
    scene: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this scene. Repeats.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="auto|bf16|fp32", help="auto is bf16 where the device multiplies it quickly."
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="cpu, cuda or auto; else cpu.")
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="How many; more than 1 need earthgen[train]."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Threads of the CPU.")
    ] = None,
    checkpoint_minutes: Annotated[
        float | None,
        typer.Option(
            metavar="M", min=0.01, help="Between checkpoints, each with pictures; else 5."
        ),
    ] = None,
    weights_dtype: Annotated[
        str | None,
        typer.Option(
            metavar="float32|bfloat16", help="Of the weights that come out; else float32."
        ),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Of the weights, for their card.")
    ] = None,
    quiet: Quiet = False,
    json_output: JsonOutput = False,
    progress: ProgressMode = Mode.AUTO,
) -> None:
    """Train parts of the learned model on a dataset, and write their weights to RUN/weights.

    A run that was stopped in any way goes on with --resume along the same curve.
    docs/guides/training.md shows how to train on an area of your own, and lists the settings of a
    TRAINING.toml.
    """
    from earthgen.training.run import train as run
    from earthgen.training.settings import TASKS, load_settings, make_settings

    values = load_settings(config) if config is not None else {}
    given = {
        "data": data,
        "preset": preset,
        "out": out,
        "minutes": minutes,
        "steps": steps,
        "seed": seed,
        "columns": columns,
        "grades": grade,
        "scenes": scene,
        "precision": precision,
        "device": device,
        "devices": devices,
        "threads": threads,
        "checkpoint_minutes": checkpoint_minutes,
        "weights_dtype": weights_dtype,
        "licence": licence,
    }
    values |= {name: value for name, value in given.items() if value is not None}
    for name in ("data", "out"):
        if name not in values:
            raise typer.BadParameter(f"give --{name}, or {name} = in a TRAINING.toml")
    mine = {
        name: value
        for name, value in {"batch": batch, "learning_rate": learning_rate}.items()
        if value is not None
    }
    if mine:
        values["parts"] = merged(values.get("parts"), TASKS[what.value], mine)
    with display(progress, quiet=quiet, json_output=json_output) as show:
        trained = run(what.value, make_settings(values), resume=resume, listener=show)
    if json_output:
        say_json(report_values(trained))
    elif not quiet:
        say_report(trained)


def merged(before: Any, parts: tuple[str, ...], given: dict[str, Any]) -> Any:
    """Settings of parts with some that are given for all parts of the task."""
    if before is not None and not isinstance(before, dict):
        return before  # refused later, with its name
    settings = dict(before or {})
    return {**settings, **{part: {**settings.get(part, {}), **given} for part in parts}}


def report_values(trained: Trained) -> dict[str, Any]:
    """What --json prints."""
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


def say_report(trained: Trained) -> None:
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
