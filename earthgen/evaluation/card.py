"""Write the figures of an evaluation into the model card of the weights that were measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from earthgen.errors import ModelError
from earthgen.evaluation.report import AGREEMENT, HALVES, OBJECTS, PARTS, REALISM, json_values
from earthgen.models.weights.card import WeightSet, open_weights, write_card


def write_into_card(report: Mapping[str, Any], folder: Path | str) -> WeightSet:
    """Write the tables of an evaluation into card.json and README.md of a set of weights.

    Older tables of the same name are replaced.

    Parameters
    ----------
    report : mapping
        Report of an evaluation of exactly these weights.
    folder : Path | str
        Folder of the weights.

    Raises
    ------
    ModelError
        if the report is of other weights, or these cannot be opened
    """
    weights = open_weights(folder)
    measured = (report["weights"] or {}).get("digests", {})
    if measured != {part: header.digest for part, header in weights.parts.items()}:
        raise ModelError(
            f"{weights.folder}: the evaluation is of other weights",
            "evaluate these: `earthgen evaluate --weights DIR`",
        )
    card = weights.card
    return write_card(
        weights.folder,
        title=card["title"],
        summary=card["summary"],
        licence=card["licence"],
        experimental=card["experimental"],
        metrics={**card["metrics"], **card_tables(report)},
        notes=card["notes"],
        classes=card.get("classes"),
    )


def card_tables(report: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the tables for a model card, by title, row and column.

    Reconstructions stand beside the figures of the paper, and worlds beside baselines.
    """
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
            paper = {
                f"paper: {name}": _row(row, columns)
                for name, row in report["paper"].items()
                if name.startswith(kind)
            }
            tables[f"Reconstruction by {kind}, on {crops}"] = rows | paper
    columns = {key: name for key, (name, _, _) in AGREEMENT.items()}
    columns |= {
        key: OBJECTS[key.removesuffix("_ratio")][0].split(",")[0] + " / truth"
        if key.endswith("_ratio")
        else OBJECTS[key][0]
        for key in OBJECTS
    }
    distances = {f"{key}_kernel": f"{name}, kernel × 1000" for key, (name, _) in REALISM.items()}
    worlds = {
        name: {
            **_row(row, columns),
            **{head: _thousands(row.get(key)) for key, head in distances.items()},
        }
        for name, row in [*report["worlds"].items(), (HALVES, report["truth_halves"])]
    }
    if len(worlds) > 1:
        tables[f"Worlds of land cover and ground, on {crops}"] = worlds
    values: dict[str, dict[str, dict[str, Any]]] = json_values(tables)
    return values


def _row(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    return {head: row[key] for key, head in columns.items() if row.get(key) is not None}


def _thousands(estimate: Mapping[str, float] | None) -> float | None:
    return None if estimate is None else 1000 * estimate["value"]
