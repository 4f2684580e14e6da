"""`earthgen info`: the properties and the origin of a world."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from earthgen_cli.bbox import lon_lat_bounds
from earthgen_cli.commands.generate import crs_text
from earthgen_cli.options import JsonOutput, WorldArgument
from earthgen_cli.output import bytes_text, plain, say, say_json, say_pairs, say_table, say_tree

if TYPE_CHECKING:
    from earthgen.world.world import World


def info(
    world: WorldArgument,
    json_output: JsonOutput = False,
) -> None:
    """Print the properties and the origin of a world."""
    from earthgen.world.world import open_world

    opened = open_world(world)
    if json_output:
        say_json(world_values(opened))
    else:
        say_world(opened)


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
        "unmapped": [row for row in source_values(world) if row["class"] is None],
        "settings": world.settings,
        "provenance": world.provenance,
        "identity": world.identity,
    }


def say_world(world: World) -> None:
    """Print the world as text: properties, land use, settings and provenance."""
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
    if values:
        say()
        rows = [
            (
                str(row["value"]) or "no value",
                row["class"] or "unmapped",
                f"{row['area']:,.0f}",
                f"{row['features']:,}",
            )
            for row in values
        ]
        say_table(("land use", "class", "m2", "features"), rows)
    given = {name: value for name, value in plain(world.settings).items() if is_given(value)}
    if isinstance(given.get("region"), dict):  # of a batch; its outline may be thousands of numbers
        given["region"] = {name: value for name, value in given["region"].items() if name != "wkt"}
    for title, tree in (
        ("settings", given),
        ("provenance", without_values(plain(world.provenance))),
    ):
        say()
        say(typer.style(title, bold=True))
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
