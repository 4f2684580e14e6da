"""`earthgen info`: the properties and the origin of a world."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from earthgen_cli.bbox import lon_lat_bounds
from earthgen_cli.commands.generate import crs_text
from earthgen_cli.options import JsonOutput, WorldArgument
from earthgen_cli.output import (
    bytes_text,
    plain,
    say,
    say_json,
    say_pairs,
    say_table,
    say_tree,
    shell_quoted,
)
from earthgen_cli.visible import styled

if TYPE_CHECKING:
    from earthgen.world.world import World

MOST_VALUES = 20
"""Values of land use that are printed unless all are asked for, those without a class first."""

MEANINGS = {
    "mapped": "as the sources say",
    "inferred": "a mapped building without a height, or seen in a surface or canopy model only",
    "filled": "no source of land cover says what is there",
    "generated": "put there by the rules or the model, where the sources say something else",
}


def info(
    world: WorldArgument,
    decisions: Annotated[
        bool,
        typer.Option(
            "--decisions",
            help="Print what of the area the sources said and what was added, by class.",
        ),
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also print all settings and the provenance.")
    ] = False,
    json_output: JsonOutput = False,
) -> None:
    """Print the properties and the origin of a world."""
    from earthgen.world.world import open_world

    opened = open_world(world)
    if decisions:
        say_decisions(opened, json_output)
    elif json_output:
        say_json(world_values(opened))
    else:
        say_world(opened, everything)


def say_decisions(world: World, json_output: bool) -> None:
    """Print the areas of each decision, by class.

    Raises
    ------
    StoreError
        If the world was made before decisions were noted.
    """
    from earthgen.errors import StoreError
    from earthgen.world.decisions import DECISIONS
    from geo_io.legend import classes

    areas = decision_areas(world)
    if areas is None:
        raise StoreError(
            f"{world.path} was made before decisions were noted", "generate it again to see them"
        )
    titles = {land.code: land.title for land in classes()}
    by_class = {
        titles[code]: dict(zip(DECISIONS, row[1:], strict=True)) for code, row in areas.items()
    }
    unnoted = sum(row[0] for row in areas.values())
    total = {name: sum(row[name] for row in by_class.values()) for name in DECISIONS}
    if json_output:
        say_json(
            {
                "world": world.path,
                "unit": "m2",
                "total": total,
                "unnoted": unnoted,
                "classes": by_class,
            }
        )
        return
    whole = sum(total.values()) or 1.0
    rows = [
        (title, *(f"{row[name]:,.0f}" if row[name] else "" for name in DECISIONS))
        for title, row in sorted(by_class.items(), key=lambda item: -sum(item[1].values()))
    ]
    rows.append(("all", *(f"{total[name]:,.0f}" for name in DECISIONS)))
    rows.append(("", *(f"{100 * total[name] / whole:.1f} %" for name in DECISIONS)))
    say_table(("m2", *DECISIONS), rows)
    if unnoted:
        say(f"{unnoted:,.0f} m2 were made before decisions were noted")
    say()
    for name, meaning in MEANINGS.items():
        say(f"{name:<9}  {meaning}")


def decision_areas(world: World) -> dict[int, list[float]] | None:
    """Return the areas by class, m2: what has no decision, and that of each decision.

    None for a world that notes none.
    """
    import numpy as np

    from earthgen.world.decisions import DECISIONS

    cells = np.zeros((256, len(DECISIONS) + 1), np.int64)
    for tile in world.tiles():
        codes = world.tile_decisions(*tile)
        if codes is None:
            return None
        land = world.tile_layers(*tile)["semantics"]
        np.add.at(cells, (land.ravel(), np.minimum(codes.ravel(), len(DECISIONS))), 1)
    size = world.frame.voxel_size**2
    return {
        int(code): [float(n) * size for n in cells[code]]
        for code in np.flatnonzero(cells.sum(axis=1))
        if code
    }


def world_values(world: World) -> dict[str, Any]:
    """Return what --json prints."""
    frame = world.frame
    return {
        "world": world.path,
        "frame": frame.to_dict(),
        "bounds": frame.bounds,
        "bounds_lon_lat": lon_lat_bounds(frame),
        "shape": frame.shape,
        "area_km2": frame.area_km2,
        "seed": world.seed,
        "digest": world.digest(),
        "complete": world.complete,
        "tiles": len(list(world.tiles())),
        "tiles_missing": world.missing,
        "counts": world.counts,
        "levels": world.levels,
        "layers": layer_names(),
        "bytes": world.bytes_on_disk(),
        "damaged": world.damage(),
        "unmapped": [row for row in source_values(world) if row["class"] is None],
        "settings": world.settings,
        "provenance": world.provenance,
        "identity": world.identity,
    }


def say_world(world: World, everything: bool = False) -> None:
    """Print the world as text: properties and land use, and if asked settings and provenance."""
    frame = world.frame
    left, bottom, right, top = frame.bounds
    west, south, east, north = lon_lat_bounds(frame)
    low, high = (edge * frame.voxel_size for edge in frame.z)
    tiles = len(list(world.tiles()))
    complete = (
        "yes"
        if world.complete
        else f"no, {world.missing:,} tiles are missing: generate with --resume"
    )
    say_pairs(
        [
            ("world", str(world.path)),
            ("CRS", crs_text(frame.crs)),
            (
                "heights",
                f"vertical CRS {frame.vertical_crs}; voxels from {low:g} to {high:g} m above the "
                "ground",
            ),
            ("extent", f"{left:.2f},{bottom:.2f},{right:.2f},{top:.2f}"),
            ("lon/lat", f"{west:.6f},{south:.6f},{east:.6f},{north:.6f}"),
            (
                "size",
                f"{frame.nx:,} x {frame.ny:,} voxels of {frame.voxel_size:g} m, "
                f"{frame.area_km2:,.3f} km2",
            ),
            ("complete", complete),
            *(("damaged", f"{text}; `earthgen verify` says more") for text in world.damage()),
            ("tiles", f"{tiles:,}"),
            *((name, f"{count:,}") for name, count in world.counts.items()),
            ("layers", f"{', '.join(layer_names())}, voxels, splats"),
            ("levels", ", ".join(map(str, world.levels))),
            ("on disk", bytes_text(world.bytes_on_disk())),
            (
                "digest",
                world.digest() + ("" if world.complete else " (of the finished tiles)"),
            ),
            ("seed", str(world.seed)),
            *(
                (name, backend_text(world.identity[name]))
                for name in ("geometry", "texture")
                if name in world.identity
            ),
        ]
    )
    values = source_values(world)
    left = 0 if everything else max(0, len(values) - MOST_VALUES)
    if values:
        say()
        rows = [
            (
                str(row["value"]) or "no value",
                row["class"] or "unmapped",
                f"{row['area']:,.0f}",
                f"{row['features']:,}",
            )
            for row in sorted(values, key=lambda row: row["class"] is not None)[
                : len(values) - left
            ]
        ]
        say_table(("land use", "class", "m2", "features"), rows)
    if not everything:
        say()
        more = f"{left} more values of land use, " if left else ""
        path = shell_quoted(world.path)
        say(f"`earthgen info {path} --all` prints {more}the settings and the provenance")
        return
    given = {name: value for name, value in plain(world.settings).items() if is_given(value)}
    if isinstance(given.get("region"), dict):  # of a batch; its outline may be thousands of numbers
        given["region"] = {name: value for name, value in given["region"].items() if name != "wkt"}
    for title, tree in (
        ("settings", given),
        ("provenance", without_values(plain(world.provenance))),
    ):
        say()
        say(styled(title, bold=True))
        say_tree(tree, 1)


def layer_names() -> list[str]:
    """Return the dense layers that every world has."""
    from earthgen.world.layout import DENSE

    return list(DENSE)


def is_given(value: Any) -> bool:
    """Return whether a setting has a value to show."""
    return value is not None and value is not False and value != [] and value != {}


def backend_text(backend: dict[str, Any]) -> str:
    """Return a backend with its version and options as one line."""
    options = ", ".join(f"{name}={value}" for name, value in backend["options"].items())
    return f"{backend['name']} {backend['version']}" + (f" ({options})" if options else "")


def source_values(world: World) -> list[dict[str, Any]]:
    """Return the values of the semantics, each with class (None if unmapped), area and number of
    features."""
    survey = world.provenance.get("survey", {}).get("semantics", {})
    return list(survey.get("values", []))


def without_values(provenance: dict[str, Any]) -> dict[str, Any]:
    """Return the provenance without the values that are printed as a table."""
    survey = {
        name: {key: value for key, value in report.items() if key != "values"}
        for name, report in provenance.get("survey", {}).items()
    }
    return {**provenance, "survey": survey}
