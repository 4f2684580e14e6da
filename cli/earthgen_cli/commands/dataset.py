"""`earthgen dataset build|simulate|inspect|split`: scenes for training, real and simulated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from earthgen_cli.options import JsonOutput, ProgressMode, Quiet
from earthgen_cli.output import count_text, say, say_json, say_pairs, say_table, seconds_text
from earthgen_cli.progress import Mode, display

Folder = Annotated[str, typer.Argument(metavar="DATASET", help="The folder of a dataset.")]

SINGLE = "For one scene without a recipe."


def dataset() -> None:
    """Build scenes for training, inspect them, and split them by place."""


def source(metavar: str, text: str, *, repeats: bool = False) -> Any:
    """Return an option that describes one scene without a recipe."""
    return typer.Option(
        metavar=metavar, help=f"{text}{' Can be repeated.' if repeats else ''} {SINGLE}"
    )


def build(
    ctx: typer.Context,
    recipe: Annotated[
        Path | None,
        typer.Argument(metavar="RECIPE", help="A .toml file that lists scenes with their sources."),
    ] = None,
    out: Annotated[
        str, typer.Option(metavar="DATASET", help="The folder to write the scenes to.")
    ] = "",
    data_root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder that the recipe's paths are relative to; that of the recipe if not given.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Build only this scene of the recipe. Can be repeated."),
    ] = None,
    voxel_size: Annotated[
        float | None,
        typer.Option(
            metavar="METRES",
            min=0.01,
            help="Edge of a voxel; if not given, that of the recipe or 1.",
        ),
    ] = None,
    points: Annotated[
        list[str] | None, source("FILE", "Point clouds (.las, .laz).", repeats=True)
    ] = None,
    dsm: Annotated[
        str | None, source("FILE", "Heights of the surface, with buildings and vegetation.")
    ] = None,
    dtm: Annotated[str | None, source("FILE", "Heights of the ground.")] = None,
    canopy: Annotated[
        str | None, source("FILE", "Heights of the vegetation above the ground.")
    ] = None,
    cover: Annotated[
        list[str] | None, source("FILE", "Land cover, raster or vector.", repeats=True)
    ] = None,
    legend: Annotated[str | None, source("NAME|FILE", "Legend of the land cover.")] = None,
    footprints: Annotated[
        str | None, source("FILE", "Buildings, with heights if they have any.")
    ] = None,
    image: Annotated[str | None, source("FILE", "Aerial image.")] = None,
    mesh: Annotated[
        list[str] | None, source("FILE", "Meshes: OBJ, glTF, CityJSON, 3D Tiles.", repeats=True)
    ] = None,
    world: Annotated[str | None, source("WORLD", "A world of `earthgen generate`.")] = None,
    name: Annotated[str, source("NAME", "Name of the scene.")] = "scene",
    place: Annotated[str, source("TEXT", "Name of the place.")] = "",
    licence: Annotated[str, source("TEXT", "Licence of the data.")] = "",
    grade: Annotated[str, source("A|B|C", "Licence grade of the data.")] = "",
    crs: Annotated[str | None, source("EPSG:...", "CRS of the sources that contain none.")] = None,
    unit: Annotated[
        str | None, source("m|ft|us-ft", "Unit of the heights, if a file does not contain it.")
    ] = None,
    ground: Annotated[
        str,
        source(
            "class|filter", "How the ground of point clouds is found: by class, or by a filter."
        ),
    ] = "class",
    frames: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            max=10_000,
            help="Draw N pictures with known cameras of each scene that is built.",
        ),
    ] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Build scenes again that exist.")
    ] = False,
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going",
            help="Build the other scenes after one fails; exit with the code of the first error.",
        ),
    ] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no report.")] = False,
    quiet: Quiet = False,
    json_output: JsonOutput = False,
    progress: ProgressMode = Mode.AUTO,
) -> None:
    """Build the scenes of a recipe, or one scene from options, and a report with pictures.

    A scene that exists is kept, except with --overwrite. Each scene is written completely or not at
    all, so a build that was interrupted continues when it is called again.
    """
    from earthgen.dataset.build import build_all
    from earthgen.dataset.recipe import parse_recipe, read_recipe
    from earthgen.errors import JobError

    if not out:
        raise typer.BadParameter("give --out, the folder of the dataset")
    given = {
        "points": points,
        "dsm": dsm,
        "dtm": dtm,
        "canopy": canopy,
        "cover": cover,
        "legend": legend,
        "footprints": footprints,
        "image": image,
        "mesh": mesh,
        "world": world,
    }
    single = {key: value for key, value in given.items() if value}
    if (recipe is None) == (not single):
        raise typer.BadParameter("give either a recipe, or the sources of one scene")
    if recipe is not None:
        plan, root = read_recipe(recipe), data_root or recipe.parent
    else:
        scene = {
            **single,
            "name": name,
            "place": place,
            "licence": licence,
            "grade": grade,
            "ground": ground,
        }
        scene |= {key: value for key, value in {"crs": crs, "unit": unit}.items() if value}
        plan, root = parse_recipe({"scene": [scene]}, "the options"), data_root or Path()
    names = [scene.name for scene in plan.scene]
    for scene_name in only or []:
        if scene_name not in names:
            from geo_io.errors import nearest_name

            raise JobError(
                f"the recipe has no scene {scene_name!r}{nearest_name(scene_name, names)}",
                "name one of its scenes",
            )
    with display(ctx, progress, quiet=quiet, json_output=json_output) as show:
        built = build_all(
            plan,
            root,
            out,
            only=only or None,
            voxel_size=voxel_size,
            overwrite=overwrite,
            keep_going=keep_going,
            listener=show,
            report=not no_report,
            frames=frames,
        )
    if json_output:
        say_json(
            {
                "dataset": out,
                "built": [scene.info.name for scene in built.made],
                "kept": [scene.info.name for scene in built.kept],
                "failed": {name: str(error) for name, error in built.failed.items()},
                "report": built.report,
            }
        )
    elif not quiet:
        say_scenes(built.made)
        kept = f", {len(built.kept)} kept" if built.kept else ""
        say(f"built {count_text(len(built.made), 'scene')} in {seconds_text(built.seconds)}{kept}")
        if built.report:
            say(f"report: {built.report}")
    for error in built.failed.values():
        raise error


def simulate(
    ctx: typer.Context,
    out: Annotated[str, typer.Argument(metavar="DATASET", help="The folder of the dataset.")],
    km2: Annotated[
        float, typer.Option(metavar="KM2", min=0, help="Area of made-up places in all.")
    ] = 10.0,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Seed of the first place; the others follow.")
    ] = 0,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help="Kind of made-up places: town, suburb, village, estate, industry, fields or "
            "woods. Can be repeated; a mix of all if not given.",
        ),
    ] = None,
    semantics: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE[:LAYER]",
            help="Land use of a real place, to simulate instead of made-up ones. Can be repeated.",
        ),
    ] = None,
    dem: Annotated[
        str | None, typer.Option(metavar="FILE", help="Heights of the ground of that place.")
    ] = None,
    bbox: Annotated[
        str | None, typer.Option(metavar="W,S,E,N", help="Extent of that place, lon/lat.")
    ] = None,
    seeds: Annotated[
        int, typer.Option(metavar="N", min=1, help="Worlds of that place, with seeds of their own.")
    ] = 1,
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of that place.")] = "place",
    licence: Annotated[
        str, typer.Option(metavar="TEXT", help="Licence of that place's layers.")
    ] = "",
    grade: Annotated[
        str, typer.Option(metavar="A|B|C", help="Licence grade of that place's layers.")
    ] = "",
    voxel_size: Annotated[
        float, typer.Option(metavar="METRES", min=0.01, help="Edge of a voxel.")
    ] = 1.0,
    workers: Annotated[
        int, typer.Option(metavar="N", min=1, help="Places that are made at the same time.")
    ] = 1,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make scenes again that exist.")
    ] = False,
    quiet: Quiet = False,
    json_output: JsonOutput = False,
    progress: ProgressMode = Mode.AUTO,
) -> None:
    """Make scenes from worlds of the rule-based backends, of made-up places or given layers.

    Their walls, crowns and colours are known exactly, and they have no licence but your layers'.
    Scenes that exist are kept, so an interrupted run continues when it is called again.
    """
    import time

    from earthgen.jobs.simulate import Request, made_up_requests
    from earthgen.jobs.simulate import simulate as run
    from earthgen_cli.bbox import parse_bbox

    if semantics:
        if bbox is None:
            raise typer.BadParameter("give --bbox with --semantics")
        settings = {"semantics": semantics, "dem": dem, "bbox": parse_bbox(bbox)}
        requests = [
            Request(
                f"{name}-{seed + n}",
                seed + n,
                settings={key: value for key, value in settings.items() if value is not None},
                source=", ".join(semantics),
                licence=licence,
                grade=grade,
            )
            for n in range(seeds)
        ]
    else:
        requests = made_up_requests(km2, seed, kind or ())
    began = time.monotonic()
    with display(ctx, progress, quiet=quiet, json_output=json_output) as show:
        scenes = list(
            run(
                requests,
                out,
                voxel_size=voxel_size,
                workers=workers,
                overwrite=overwrite,
                listener=show,
            )
        )
    area = sum(scene.frame.area_km2 for scene in scenes)
    seconds = time.monotonic() - began
    if json_output:
        say_json(
            {
                "dataset": out,
                "scenes": [scene.info.name for scene in scenes],
                "km2": area,
                "seconds": seconds,
            }
        )
    elif not quiet:
        say_scenes(scenes)
        say(f"{count_text(len(scenes), 'scene')}, {area:.1f} km2, in {seconds_text(seconds)}")


def inspect(
    dataset: Folder,
    name: Annotated[
        list[str] | None,
        typer.Option("--scene", metavar="NAME", help="Only this scene. Can be repeated."),
    ] = None,
    no_pictures: Annotated[
        bool, typer.Option("--no-pictures", help="Print the table only.")
    ] = False,
    quiet: Quiet = False,
    json_output: JsonOutput = False,
) -> None:
    """Print the scenes of a dataset with their quality, and write a report with pictures."""
    from earthgen.dataset.report import scene_figures, write_report
    from earthgen.dataset.scene import scenes_in
    from earthgen.errors import StoreError
    from geo_io.errors import nearest_name

    scenes = scenes_in(dataset)
    names = [scene.info.name for scene in scenes]
    for scene_name in name or []:
        if scene_name not in names:
            raise StoreError(
                f"{dataset} has no scene {scene_name!r}{nearest_name(scene_name, names)}",
                "name one of its scenes",
            )
    chosen = [scene for scene in scenes if not name or scene.info.name in name]
    page = None if no_pictures else str(write_report(dataset, chosen))
    if json_output:
        say_json(
            {
                "dataset": dataset,
                "scenes": [scene_figures(scene) for scene in chosen],
                "report": page,
            }
        )
        return
    if quiet:
        return
    say_scenes(chosen)
    for scene in chosen:
        for remark in scene.info.quality.get("remarks", []):
            say(f"{scene.info.name}: {remark}")
    if page:
        say(f"report: {page}")


def split(
    dataset: Folder,
    hold_out: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Hold out this scene in addition to those of the recipe. Can be repeated.",
        ),
    ] = None,
    blocks: Annotated[
        float | None,
        typer.Option(metavar="SHARE", min=0, max=1, help="Also hold out this share of all blocks."),
    ] = None,
    block_size: Annotated[
        float, typer.Option(metavar="METRES", min=1, help="Edge of a block.")
    ] = 512.0,
    buffer: Annotated[
        float,
        typer.Option(
            metavar="METRES", min=0, help="Width around held-out areas that is not trained on."
        ),
    ] = 32.0,
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Seed of the choice of blocks.")
    ] = 0,
    quiet: Quiet = False,
    json_output: JsonOutput = False,
) -> None:
    """Split a dataset into training and held-out areas: by place, never by crop.

    A held-out area is held out of all scenes that overlap it, in any CRS. The scenes that the
    recipe holds out are always held out.
    """
    from dataclasses import replace

    from earthgen.dataset.scene import scenes_in
    from earthgen.dataset.split import split_by_blocks, split_by_name, split_summary, write_split

    scenes = scenes_in(dataset)
    division = split_by_name(scenes, hold_out or [], buffer)
    if blocks:
        drawn = split_by_blocks(scenes, blocks, block=block_size, seed=seed, buffer=buffer)
        areas = {(area.crs, area.bounds): area for area in (*division.areas, *drawn.areas)}
        division = replace(drawn, areas=tuple(areas.values()))
    path = write_split(dataset, division)
    rows = split_summary(scenes, division)
    if json_output:
        say_json(
            {
                "dataset": dataset,
                "rule": division.rule,
                "buffer": buffer,
                "scenes": rows,
                "file": path,
            }
        )
        return
    if quiet:
        return
    say_table(
        ("scene", "grade", "km2", "train km2", "held out km2"),
        [
            (
                r["scene"],
                r["grade"],
                *(f"{r[key]:.3f}" for key in ("km2", "train_km2", "held_out_km2")),
            )
            for r in rows
        ],
    )
    total = {key: sum(r[key] for r in rows) for key in ("km2", "train_km2", "held_out_km2")}
    neither = total["km2"] - total["train_km2"] - total["held_out_km2"]
    parts = [
        ("train", total["train_km2"]),
        ("held out", total["held_out_km2"]),
        ("neither", neither),
    ]
    say_pairs([*((name, f"{area:.3f} km2") for name, area in parts), ("file", str(path))])


def say_scenes(scenes: Any) -> None:
    """Print the table of scenes."""
    from earthgen.dataset.report import TABLE_COLUMNS, table_row

    if scenes:
        say_table(TABLE_COLUMNS, [table_row(scene) for scene in scenes])


COMMANDS: dict[str, Callable[..., None]] = {
    "build": build,
    "simulate": simulate,
    "inspect": inspect,
    "split": split,
}
