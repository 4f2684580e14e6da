"""The figures of an evaluation in the model card of the weights that were measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from earthgen.errors import ModelError
from earthgen.evaluation.report import AGREEMENT, PARTS, REALISM, plain
from earthgen.models.weights.card import WeightSet, open_weights, write_card


def write_into_card(report: Mapping[str, Any], folder: Path | str) -> WeightSet:
    """Write an evaluation's tables into card.json and README.md of a set of weights; older tables
    of the name go.

    report : of an evaluation of exactly these weights

    Raises ModelError where it is of other weights, else as `open_weights`.
    """
    found = open_weights(folder)
    measured = (report["weights"] or {}).get("digests", {})
    if measured != {part: header.digest for part, header in found.parts.items()}:
        raise ModelError(
            f"{found.folder}: the evaluation is of other weights",
            "evaluate these: `earthgen evaluate --weights DIR`",
        )
    card = found.card
    return write_card(
        found.folder,
        title=card["title"],
        summary=card["summary"],
        licence=card["licence"],
        experimental=card["experimental"],
        metrics={**card["metrics"], **card_tables(report)},
        notes=card["notes"],
        classes=card.get("classes"),
    )


def card_tables(report: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """{table: {row: {column: value}}}: what models give back, the paper beside; worlds,
    baselines beside."""
    data = report["dataset"]
    places = ", ".join(f"{each['scene']} {each['crops']}" for each in data["places"])
    crops = (
        f"{data['crops']} held-out crops of {data['columns'] * data['voxel_size']:g} m ({places})"
    )
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    for kind, columns in PARTS.items():
        rows = {
            name: _row(row, columns)
            for name, row in report["reconstruction"].items()
            if name.startswith(kind)
        }
        if rows:
            theirs = {
                f"paper: {name}": _row(row, columns)
                for name, row in report["paper"].items()
                if name.startswith(kind)
            }
            tables[f"Given back by {kind}, on {crops}"] = rows | theirs
    columns = {key: name for key, (name, _, _) in AGREEMENT.items()}
    distances = {f"{key}_kernel": f"{name}, kernel × 1000" for key, (name, _) in REALISM.items()}
    worlds = {
        name: {
            **_row(row, columns),
            **{head: _thousands(row.get(key)) for key, head in distances.items()},
        }
        for name, row in report["worlds"].items()
    }
    if worlds:
        halves = {head: _thousands(report["floor"].get(key)) for key, head in distances.items()}
        tables[f"Worlds of land cover and ground, on {crops}"] = {
            **worlds,
            "two halves of the truth": halves,
        }
    found: dict[str, dict[str, dict[str, Any]]] = plain(tables)
    return found


def _row(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    return {head: row[key] for key, head in columns.items() if row.get(key) is not None}


def _thousands(found: Mapping[str, float] | None) -> float | None:
    return None if found is None else 1000 * found["value"]
