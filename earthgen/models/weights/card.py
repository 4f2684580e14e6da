"""A set of weights: a folder with a file a part, `card.json` for programs, and a model card for
people, README.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from earthgen.errors import MissingWeightsError, ModelError
from earthgen.files import replace_file
from earthgen.models.presets import PARTS
from earthgen.models.weights.format import Header, load_weights, part_path, read_header

CARD, README = "card.json", "README.md"

AUTOENCODERS = {"struct-fine": "struct-vae", "tex-flow": "tex-vae"}
"""Flows whose latents are those of another part."""


@dataclass(frozen=True)
class WeightSet:
    """What a folder of weights holds, without its tensors.

    Attributes
    ----------
    folder : where it is
    parts : the header of each part's file
    card : the contents of card.json
    """

    folder: Path
    parts: dict[str, Header]
    card: dict[str, Any]

    @property
    def digest(self) -> str:
        """One text for all parts: what a world keeps of the weights that made it."""
        return ",".join(f"{part}={header.digest}" for part, header in sorted(self.parts.items()))

    def load(self, part: str, device: torch.device | str = "cpu") -> nn.Module:
        """A part's network. Raises MissingWeightsError where the set has none, else as
        `load_weights`."""
        if part not in self.parts:
            raise MissingWeightsError(
                f"{self.folder}: the set has no {part}, only {', '.join(self.parts)}",
                "take a set that has it",
            )
        return load_weights(part_path(self.folder, part), part, device=device)[0]


def write_card(
    folder: Path | str,
    *,
    title: str,
    summary: str = "",
    licence: str = "",
    experimental: bool = True,
    metrics: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    classes: Mapping[str, Sequence[str]] | None = None,
) -> WeightSet:
    """Write card.json and README.md beside the files of the parts, from their headers.

    metrics : of the whole set, by table: {table: {row: {column: value}}}
    notes : paragraphs of the model card
    classes : names of the land classes that "structure" and "texture" were trained on; others mean
        nothing to a network

    Raises MissingWeightsError where the folder has no part, ModelError where parts are of several
    presets or voxel sizes, or a flow of another autoencoder's latents.
    """
    where = Path(folder)
    parts = _headers(where)
    if not parts:
        raise MissingWeightsError(f"{where}: the folder holds no weights", "save a part first")
    _check_agree(where, parts)
    first = next(iter(parts.values()))
    card: dict[str, Any] = {
        "title": title,
        "summary": summary,
        "experimental": experimental,
        "licence": licence or first.licence,
        "preset": first.preset,
        "voxel_size": first.voxel_size,
        "parts": {
            part: {"file": part_path(where, part).name, "digest": head.digest}
            for part, head in parts.items()
        },
        "metrics": dict(metrics or {}),
        "notes": list(notes),
        "classes": {kind: list(names) for kind, names in (classes or {}).items()},
    }
    replace_file(where, CARD, json.dumps(card, indent=2, ensure_ascii=False).encode(), durable=True)
    replace_file(where, README, _readme(card, parts).encode(), durable=True)
    return WeightSet(where, parts, card)


def open_weights(folder: Path | str, *, preset_name: str | None = None) -> WeightSet:
    """A set of weights, checked against its card; tensors are read, and their digests checked, by
    `WeightSet.load`.

    preset_name : that it has to be of

    Raises
    ------
    MissingWeightsError
        where there is no folder, no card, or a part that the card names is missing
    ModelError, ModelError
        for damaged cards and files, and those of other versions
    ModelError
        where a file is not the one that the card names
    ModelError
        where parts do not belong together, or are of another preset than is asked for
    """
    where = Path(folder)
    card = read_card(where)
    named = {part: entry["digest"] for part, entry in card["parts"].items()}
    parts = {part: read_header(part_path(where, part)) for part in named}
    for part, header in parts.items():
        if header.digest != named[part]:
            raise ModelError(
                f"{part_path(where, part)}: the file is not the one that {CARD} names",
                "get the set again",
            )
    if preset_name is not None and card.get("preset") != preset_name:
        raise ModelError(
            f"{where}: the weights are of preset {card.get('preset')!r}, not {preset_name!r}",
            "give weights of that preset",
        )
    _check_agree(where, parts)
    return WeightSet(where, parts, card)


def read_card(folder: Path | str) -> dict[str, Any]:
    """The contents of a set's card.json, not compared with its files.

    Raises MissingWeightsError where there is none, ModelError for a damaged one.
    """
    where = Path(folder) / CARD
    if not where.is_file():
        raise MissingWeightsError(
            f"{where.parent}: there is no set of weights ({CARD})", "give a folder that has one"
        )
    try:
        card: dict[str, Any] = json.loads(where.read_text("utf-8"))
        for entry in card["parts"].values():
            entry["digest"]
        for names in card.get("classes", {}).values():
            ", ".join(names)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{where}: the card is damaged", "get the set again") from error
    return card


def _headers(where: Path) -> dict[str, Header]:
    return {
        part: read_header(part_path(where, part))
        for part in PARTS
        if part_path(where, part).is_file()
    }


def _check_agree(where: Path, parts: Mapping[str, Header]) -> None:
    kinds = {(head.preset, head.voxel_size) for head in parts.values()}
    if len(kinds) > 1:
        raise ModelError(
            f"{where}: parts are of several presets or voxel sizes: {sorted(kinds)}",
            "keep each in its own folder",
        )
    for flow, source in AUTOENCODERS.items():
        if (
            flow in parts
            and source in parts
            and parts[flow].latents not in ("", parts[source].digest)
        ):
            raise ModelError(
                f"{where}: {flow} was trained on the latents of another {source}",
                f"train it with this {source}",
            )


def _readme(card: Mapping[str, Any], parts: Mapping[str, Header]) -> str:
    lines = [f"# {card['title']}", ""]
    if card["experimental"]:
        lines += [
            "**Experimental.** What these weights do well and badly stands in the tables below.",
            "",
        ]
    lines += [card["summary"], ""] if card["summary"] else []
    lines += [
        f"Preset `{card['preset']}`, voxels of {card['voxel_size']} m. Licence: {card['licence'] or 'not given'}.",
        "",
    ]
    lines += ["| part | file | SHA-256 of the tensors |", "|---|---|---|"]
    lines += [
        f"| {part} | {entry['file']} | `{entry['digest']}` |"
        for part, entry in card["parts"].items()
    ]
    for table, rows in card["metrics"].items():
        lines += ["", f"## {table}", "", *_table(rows)]
    own = {
        part: {"of held-out crops": _listed(head.metrics)}
        for part, head in parts.items()
        if head.metrics
    }
    if own:
        lines += ["", "## Measured while training", "", *_table(own)]
    data = {tuple(sorted(entry.items())): entry for head in parts.values() for entry in head.data}
    if data:
        lines += ["", "## Data", ""]
        lines += [
            "- " + "; ".join(f"{key}: {value}" for key, value in entry.items())
            for entry in data.values()
        ]
    for kind, names in card["classes"].items():
        lines += ["", f"Classes that {kind} was trained on: {', '.join(names)}."]
    for note in card["notes"]:
        lines += ["", note]
    settings = {part: head.settings for part, head in parts.items() if head.settings}
    if settings:
        lines += [
            "",
            "## Settings",
            "",
            "```json",
            json.dumps(settings, indent=2, ensure_ascii=False),
            "```",
        ]
    return "\n".join(lines) + "\n"


def _table(rows: Mapping[str, Any]) -> list[str]:
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        lines.append(
            f"| {name} | " + " | ".join(_shown(row.get(column)) for column in columns) + " |"
        )
    return lines


def _listed(metrics: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_shown(value)}" for name, value in metrics.items())


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
