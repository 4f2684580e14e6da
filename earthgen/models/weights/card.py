"""A set of weights: a folder with one file per part, card.json, and a model card, README.md."""

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
from geo_io.safety.damage import damaged_file
from geo_io.safety.names import require_name

CARD, README = "card.json", "README.md"

NO_DEFAULT = object()

AUTOENCODERS = {"struct-fine": "struct-vae", "tex-flow": "tex-vae"}
"""Flows whose latents are those of another part."""


@dataclass(frozen=True)
class WeightSet:
    """The contents of a folder of weights, without the tensors.

    Attributes
    ----------
    folder : Path
        The folder.
    parts : dict of str to Header
        The header of each part's file.
    card : dict
        The contents of card.json.
    """

    folder: Path
    parts: dict[str, Header]
    card: dict[str, Any]

    @property
    def digest(self) -> str:
        """The digests of all parts as one text."""
        return ",".join(f"{part}={header.digest}" for part, header in sorted(self.parts.items()))

    def load(self, part: str, device: torch.device | str = "cpu") -> nn.Module:
        """Return a part's network, in evaluation mode.

        Raises
        ------
        MissingWeightsError
            If the set has no such part.
        ModelError
            As of `earthgen.models.weights.format.load_weights`.
        """
        if part not in self.parts:
            raise MissingWeightsError(
                f"{self.folder}: the set has no {part}, only {', '.join(self.parts)}",
                "use a set that has it",
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
    defaults: Mapping[str, Mapping[str, Any]] | None = None,
) -> WeightSet:
    """Write card.json and README.md beside the files of the parts, from their headers.

    Parameters
    ----------
    folder : Path or str
        Folder with the files of the parts.
    title, summary, licence : str
        For the model card; the licence defaults to that of the first part.
    experimental : bool
        Whether the card says so.
    metrics : mapping, optional
        Of the whole set, by table: {table: {row: {column: value}}}.
    notes : sequence of str
        Paragraphs of the model card.
    classes : mapping of str to sequence of str, optional
        Names of the land classes that "structure" and "texture" were trained on.
    defaults : mapping of str to mapping, optional
        Usual settings by part, which the model card leaves out.

    Raises
    ------
    MissingWeightsError
        If the folder has no part.
    ModelError
        If parts have several presets or voxel sizes, or a flow was trained on the latents of
        another autoencoder.
    """
    where = Path(folder)
    parts = headers_in(where)
    if not parts:
        raise MissingWeightsError(f"{where}: the folder has no weights", "save a part first")
    _check_parts(where, parts)
    first = next(iter(parts.values()))
    card: dict[str, Any] = {
        "title": title,
        "summary": summary,
        "experimental": experimental,
        "licence": licence or first.licence,
        "preset": first.preset,
        "voxel_size": first.voxel_size,
        "parts": {
            part: {
                "file": part_path(where, part).name,
                "digest": head.digest,
                **({"parent": head.parent} if head.parent else {}),
            }
            for part, head in parts.items()
        },
        "metrics": dict(metrics or {}),
        "notes": list(notes),
        "classes": {kind: list(names) for kind, names in (classes or {}).items()},
    }
    replace_file(where, CARD, json.dumps(card, indent=2, ensure_ascii=False).encode(), durable=True)
    replace_file(where, README, _readme(card, parts, defaults or {}).encode(), durable=True)
    return WeightSet(where, parts, card)


def open_weights(folder: Path | str, *, preset_name: str | None = None) -> WeightSet:
    """Return a set of weights, checked against its card.

    Tensors are read, and their digests checked, by `WeightSet.load`.

    Parameters
    ----------
    folder : Path or str
        Folder of the set.
    preset_name : str, optional
        Preset that the set must have.

    Raises
    ------
    MissingWeightsError
        If the folder, its card, or a part that the card names is missing.
    ModelError
        If a file is damaged, of another version, or not the one that the card names; if parts do
        not belong together, or have another preset.
    """
    where = Path(folder)
    card = read_card(where)
    digests = {part: entry["digest"] for part, entry in card["parts"].items()}
    parts = {part: read_header(part_path(where, part)) for part in digests}
    for part, header in parts.items():
        if header.digest != digests[part]:
            raise ModelError(
                f"{part_path(where, part)}: the file is not the one that {CARD} names",
                "download or copy the set again",
            )
    if preset_name is not None and card.get("preset") != preset_name:
        raise ModelError(
            f"{where}: the weights are of preset {card.get('preset')!r}, not {preset_name!r}",
            "give weights of that preset",
        )
    _check_parts(where, parts)
    return WeightSet(where, parts, card)


def read_card(folder: Path | str) -> dict[str, Any]:
    """Return the contents of a set's card.json, without comparing it with the files.

    Raises
    ------
    MissingWeightsError
        If there is none.
    ModelError
        If it is damaged.
    """
    where = Path(folder) / CARD
    if not where.is_file():
        raise MissingWeightsError(
            f"{where.parent}: there is no set of weights ({CARD})",
            "give a folder that `earthgen train` wrote",
        )
    with damaged_file(f"{where}: the file is damaged", "download or copy it again", ModelError):
        card: dict[str, Any] = json.loads(where.read_text("utf-8"))
        for part, entry in card["parts"].items():
            require_name(part, "part", str(where))
            entry["digest"]
        for names in card.get("classes", {}).values():
            ", ".join(names)
    return card


def headers_in(where: Path) -> dict[str, Header]:
    """Return the headers of the parts that a folder of weights has."""
    return {
        part: read_header(part_path(where, part))
        for part in PARTS
        if part_path(where, part).is_file()
    }


def strangers(parts: Mapping[str, Header]) -> dict[str, str]:
    """Return the flows whose latents are not those of the autoencoder beside them, with its
    name."""
    return {
        flow: source
        for flow, source in AUTOENCODERS.items()
        if flow in parts
        and source in parts
        and parts[flow].latents not in ("", parts[source].digest)
    }


def _check_parts(where: Path, parts: Mapping[str, Header]) -> None:
    sizes = {(head.preset, head.voxel_size) for head in parts.values()}
    if len(sizes) > 1:
        raise ModelError(
            f"{where}: the parts have several presets or voxel sizes: {sorted(sizes)}",
            "keep each in its own folder",
        )
    for flow, source in strangers(parts).items():
        raise ModelError(
            f"{where}: {flow} was trained on the latents of another {source}",
            f"train it with this {source}",
        )


def _readme(
    card: Mapping[str, Any],
    parts: Mapping[str, Header],
    defaults: Mapping[str, Mapping[str, Any]],
) -> str:
    lines = [f"# {card['title']}", ""]
    if card["experimental"]:
        lines += [
            "**Experimental.** The tables below show what these weights do well and badly.",
            "",
        ]
    lines += [card["summary"], ""] if card["summary"] else []
    lines += [
        f"Preset `{card['preset']}`, voxels of {card['voxel_size']} m. "
        f"Licence: {card['licence'] or 'not given'}.",
        "",
    ]
    lines += ["| part | file | SHA-256 of the tensors |", "|---|---|---|"]
    lines += [
        f"| {part} | {entry['file']} | `{entry['digest']}` |"
        for part, entry in card["parts"].items()
    ]
    parents = {part: head.parent for part, head in parts.items() if head.parent}
    if parents:
        lines += ["", "Trained further from weights with these digests:", ""]
        lines += [f"- {part}: `{digest}`" for part, digest in parents.items()]
    for table, rows in card["metrics"].items():
        lines += ["", f"## {table}", "", *_table(rows)]
    own = {
        part: {"of held-out crops": _metrics_text(head.metrics)}
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
    styles = {part: ", ".join(head.styles) for part, head in parts.items() if head.styles}
    for names in dict.fromkeys(styles.values()):
        who = ", ".join(part for part, value in styles.items() if value == names)
        lines += ["", f"Styles that {who} can be asked for: {names}."]
    for note in card["notes"]:
        lines += ["", note]
    settings = {
        part: {
            name: value
            for name, value in head.settings.items()
            if defaults.get(part, {}).get(name, NO_DEFAULT) != value
        }
        for part, head in parts.items()
        if head.settings
    }
    if settings:
        note = "Those that differ from the defaults, and what is measured." if defaults else ""
        lines += ["", "## Settings", ""]
        lines += [note, ""] if note else []
        lines += ["```json", *_settings_lines(settings), "```"]
    return "\n".join(lines) + "\n"


def _settings_lines(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the settings of parts as JSON, one per line, those that all share only once."""
    first, *others = settings.values()
    common = {
        name: value
        for name, value in first.items()
        if others and all(name in other and other[name] == value for other in others)
    }
    groups = {"all parts": common} if common else {}
    for part, values in settings.items():
        groups[part] = {name: value for name, value in values.items() if name not in common}
    lines = []
    for group, values in groups.items():
        rows = [
            f"    {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}"
            for name, value in values.items()
        ]
        lines.append(f"  {json.dumps(group)}: {{\n" + ",\n".join(rows) + "\n  }")
    return ["{", *",\n".join(lines).split("\n"), "}"]


def _table(rows: Mapping[str, Any]) -> list[str]:
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        lines.append(
            f"| {name} | " + " | ".join(_value_text(row.get(column)) for column in columns) + " |"
        )
    return lines


def _metrics_text(metrics: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_value_text(value)}" for name, value in metrics.items())


def _value_text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
