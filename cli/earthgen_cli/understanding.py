"""How each input of a job was understood, as lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

MEANINGS = {"top": "to the top", "eaves": "to the eaves", "roof": "of the roof alone"}

UNIT_FROM = {
    "asked": "as asked",
    "name": "by its name",
    "publisher": "as {publisher} has it",
    "crs": "as the CRS",
    "column": "by a column of units",
    "default": "as nothing says otherwise",
}

LEAST_SHARE = 0.005
"""Share of a layer's area from which a class is listed."""


def understanding(surveys: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return "name  value" lines about the inputs of a job.

    Parameters
    ----------
    surveys : mapping
        What each condition says of its sources, as a world records it.
    """
    lines: list[tuple[str, str]] = []
    for condition, survey in surveys.items():
        if condition == "semantics":
            for source in survey["sources"]:
                lines += _layer(source, survey["values"])
        else:
            lines += _raster(condition, survey)
    return lines


def _layer(source: Mapping[str, Any], values: list[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Describe one layer of land cover."""
    name = source["source"]
    fields = ", ".join(source.get("fields") or [])
    legend = source.get("legend") or "none, as it is empty"
    if not fields and source.get("kind") == "vector":
        fields = "the layer's name"
    kind = "; its areas are footprints of buildings" if source.get("footprints") else ""
    lines = [
        ("semantics", Path(name).name),
        ("  legend", legend + (f", by {fields}" if fields else "") + kind),
    ]
    shares = _shares([value for value in values if value["source"] == name])
    lines.append(("  classes", shares or "none in the region"))
    lines += [("  heights", text) for text in _heights(source.get("heights") or {})]
    if source.get("buildings"):
        known = source["buildings"] - source["unknown_heights"]
        lines.append(("  buildings", f"{known:,} of {source['buildings']:,} have a height"))
    return lines


def _shares(values: list[Mapping[str, Any]]) -> str:
    areas: dict[str, float] = {}
    for value in values:
        name = value["class"] or "no class"
        areas[name] = areas.get(name, 0.0) + value["area"]
    total = sum(areas.values()) or 1.0
    ranked = sorted(areas.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(
        f"{name} {area / total:.0%}" for name, area in ranked if area >= LEAST_SHARE * total
    )


def _heights(heights: Mapping[str, Any]) -> list[str]:
    publisher = heights.get("publisher", "")
    texts = [
        f"{column['field']} in {column['unit']}, {MEANINGS[kind]} (unit "
        f"{UNIT_FROM[column['unit_from']].format(publisher=publisher)})"
        for kind in MEANINGS
        for column in heights.get(kind, [])
    ]
    if heights.get("levels"):
        texts.append(f"{', '.join(heights['levels'])} as numbers of levels")
    if heights.get("above_sea"):
        texts.append(f"{', '.join(heights['above_sea'])} as heights above sea")
    if heights.get("not_read"):
        texts.append(f"not read: {', '.join(heights['not_read'])}")
    return texts


def _raster(condition: str, survey: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Describe heights, an image, or the input of a plugin's condition."""
    lines = [(condition, Path(str(survey.get("name", ""))).name)]
    if "unit" in survey:
        lines.append(
            (
                "  heights",
                f"{survey['min']:.2f} to {survey['max']:.2f} m, stored in {survey['unit']}",
            )
        )
    if "vertical_crs" in survey:
        lines.append(("  datum", _short(str(survey["vertical_crs"]))))
    if "crs" in survey:
        lines.append(("  CRS", _short(str(survey["crs"]))))
    if "coverage" in survey:
        text = f"{survey['coverage']:.0%} of the region"
        if survey.get("voids"):
            text += f", {survey['voids']:.1%} of it without data"
        lines.append(("  covers", text))
    if "resolution" in survey:
        lines.append(("  cells", f"{survey['resolution']:.3g} m"))
    return lines


def _short(crs: str) -> str:
    if len(crs) < 40:
        return crs
    import pyproj

    return pyproj.CRS.from_user_input(crs).name
