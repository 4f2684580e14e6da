"""Figures of the quality of a scene. docs/guides/datasets.md explains them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from earthgen.dataset.builders.ground import fill_nearest
from earthgen.dataset.builders.land_cover import TALL, standing_classes
from earthgen.dataset.builders.registration import CAPPED, Shift, mask_shift, shifts_by_part
from earthgen.dataset.scene import SceneData
from geo_io.elevation import METRES
from geo_io.legend import classes, codes

SPIKE = 5.0
"""Deviation of a column of vegetation from the median of 3 x 3 from which it is noise, metres."""

GOOD = {
    "coverage": 0.5,
    "holes": 0.1,
    "vegetation_noise": 0.1,
    "building_iou": 0.7,
    "image_shift": 1.5,
}
"""Limits beyond which a figure causes a remark: lower ones for `coverage` and `building_iou`, upper
ones for the others."""


@dataclass(frozen=True)
class Evidence:
    """What the quality of a scene is computed from, besides the scene.

    Attributes
    ----------
    measured : NDArray (ny, nx) bool
        Columns with a measurement of their own; the others were filled.
    solid : NDArray (ny, nx)
        Measured height above the ground, without vegetation from other sources, metres.
    building : NDArray (ny, nx) bool | None
        Buildings by land cover or points, None without either.
    over_band : float
        Share of columns higher than the band.
    changed : Mapping[str, float]
        Share of the columns that each rule of `combine` changed.
    image_shift, cover_shift : Shift | None
        Shift of the picture, and of the land cover, as given.
    image_moved, cover_moved : tuple[float, float]
        Metres east and north that they were moved by.
    intensity : NDArray (ny, nx) | None
        Intensity of the laser, NaN where unknown.
    spacing : float | None
        Mean distance of points, metres.
    resolution : float | None
        Distance of independent heights in the sources, metres.
    colour_resolution : float | None
        The same of colours.
    unit_told : bool
        Whether the point clouds say in which unit their heights are.
    """

    measured: NDArray
    solid: NDArray
    building: NDArray | None = None
    over_band: float = 0.0
    changed: Mapping[str, float] = field(default_factory=dict)
    image_shift: Shift | None = None
    image_moved: tuple[float, float] = (0.0, 0.0)
    cover_shift: Shift | None = None
    cover_moved: tuple[float, float] = (0.0, 0.0)
    intensity: NDArray | None = None
    spacing: float | None = None
    resolution: float | None = None
    colour_resolution: float | None = None
    unit_told: bool = True


def judge(data: SceneData, evidence: Evidence) -> dict[str, Any]:
    """Return the figures of a scene. Shares are of the columns with data unless named otherwise."""
    size = data.frame.voxel_size
    columns = data.columns
    valid, height, cover = columns["valid"], columns["height"], columns["cover"]
    count = max(int(valid.sum()), 1)
    names = {land.code: land.name for land in classes()}
    share = np.bincount(cover[valid], minlength=26) / count
    woods = standing_classes().copy()
    woods[codes()["building"]] = False
    vegetation = valid & woods[cover]
    median = ndimage.median_filter(height, 3)
    spikes = vegetation & (np.abs(height - median) > SPIKE)
    inside = ndimage.binary_fill_holes(valid)
    xyz = data.rows["xyz"]
    out: dict[str, Any] = {
        "columns": int(valid.sum()),
        "voxels": len(xyz),
        "area_km2": round(int(valid.sum()) * size * size / 1e6, 4),
        "coverage": float(valid.mean()),
        "holes": float((inside & ~valid).sum() / max(int(inside.sum()), 1)),
        "filled": float((valid & ~evidence.measured).sum() / count),
        "largest_hole_m2": _largest(inside & ~valid) * size * size,
        "over_band": evidence.over_band,
        "height": {name: float(value) for name, value in _heights(height[valid]).items()},
        "relief_m": float(np.ptp(columns["ground"][valid])) if valid.any() else 0.0,
        "classes": {
            names.get(c, "unknown"): round(float(share[c]), 4)
            for c in np.flatnonzero(share).tolist()
        },
        "vegetation_noise": float(spikes.sum() / max(int(vegetation.sum()), 1)),
        "coloured": float((columns["image_known"] & valid).sum() / count),
        "voxels_coloured": float(data.rows["rgb_known"].mean()) if len(xyz) else 0.0,
        **{f"changed_{name}": value for name, value in evidence.changed.items()},
    }
    if evidence.spacing is not None:
        out["point_spacing_m"] = round(evidence.spacing, 3)
    tall = evidence.solid > TALL
    if evidence.building is not None and (evidence.building & valid).any():
        comparable = valid & ~_canopies(cover, evidence.building)
        out["building_iou"] = _iou(evidence.building, tall, comparable)
        shift = evidence.cover_shift or mask_shift(evidence.building, tall, comparable, size)
        if shift is not None:
            out["cover_shift"] = _shift(shift)
            out["cover_moved_m"] = list(evidence.cover_moved)
    if evidence.image_shift is not None:
        out["image_shift"] = _shift(evidence.image_shift)
        out["image_moved_m"] = list(evidence.image_moved)
        out["image_shift_by"] = (
            "laser intensity" if evidence.intensity is not None else "edges of heights"
        )
    known = columns["image_known"] & valid
    if known.any():
        reference = height
        if evidence.intensity is not None:
            reference = fill_nearest(evidence.intensity, np.isfinite(evidence.intensity))
        limit = CAPPED if evidence.intensity is None else None
        parts = shifts_by_part(columns["image"], reference, known, size, limit)
        if parts:
            out["image_shift_left_by_part"] = [_shift(part) for part in parts]
    out["warnings"] = [] if evidence.unit_told else [_unit_doubt(columns)]
    out["remarks"] = out["warnings"] + remarks(out)
    return out


def _unit_doubt(columns: Mapping[str, NDArray]) -> str:
    """Say how tall a scene is in metres and in feet, where its sources do not tell the unit."""
    valid = columns["valid"]
    built = valid & (columns["cover"] == codes()["building"])
    what, chosen = ("building", built) if built.any() else ("object", valid)
    tallest = float(columns["height"].max(initial=0, where=chosen))
    return (
        "the point clouds do not say in which unit their heights are, so metres are assumed: the "
        f"tallest {what} is {tallest:.1f} m, or {tallest * METRES['ft']:.1f} m if they are feet; "
        "`unit` says which"
    )


def remarks(figures: Mapping[str, Any]) -> list[str]:
    """Return remarks on the figures for people to check."""
    out = []
    if figures["coverage"] < GOOD["coverage"]:
        out.append(f"only {figures['coverage']:.0%} of the box has data")
    if figures["holes"] > GOOD["holes"]:
        out.append(f"{figures['holes']:.0%} of the area within the outline is holes")
    if figures["vegetation_noise"] > GOOD["vegetation_noise"]:
        out.append(f"{figures['vegetation_noise']:.0%} of the vegetation is spikes")
    if figures.get("building_iou", 1.0) < GOOD["building_iou"]:
        out.append(f"building class and heights agree by only {figures['building_iou']:.2f} (IoU)")
    shift = figures.get("image_shift")
    if shift is not None:
        length = np.hypot(shift["east"], shift["north"])
        if (
            shift["sure"]
            and figures["image_moved_m"] == [0.0, 0.0]
            and length > GOOD["image_shift"]
        ):
            out.append(
                f"the picture lies {shift['east']:+.1f} m east, {shift['north']:+.1f} m north "
                "of the geometry"
            )
    cover = figures.get("cover_shift")
    if cover is not None and cover["sure"] and figures["cover_moved_m"] == [0, 0]:
        out.append(
            f"the land cover lies {cover['east']:+.0f} m east, {cover['north']:+.0f} m north "
            "of the heights"
        )
    if figures["over_band"] > 0:
        out.append(f"{figures['over_band']:.2%} of the columns are higher than the band")
    return out


def _canopies(cover: NDArray, building: NDArray) -> NDArray:
    """Return the columns with vegetation on top, where a surface model with trees does not show the
    buildings."""
    woods = standing_classes().copy()
    woods[codes()["building"]] = False
    return np.asarray(woods[cover] & ~building)


def _iou(one: NDArray, other: NDArray, where: NDArray) -> float:
    return float((one & other & where).sum() / max(int(((one | other) & where).sum()), 1))


def _heights(values: NDArray) -> dict[str, float]:
    if not values.size:
        return {}
    low, middle, high = np.percentile(values, (50, 90, 99))
    return {
        "p50": round(float(low), 2),
        "p90": round(float(middle), 2),
        "p99": round(float(high), 2),
        "max": round(float(values.max()), 2),
    }


def _largest(mask: NDArray) -> int:
    number, count = ndimage.label(mask)
    return int(np.bincount(number.ravel())[1:].max()) if count else 0


def _shift(shift: Shift) -> dict[str, Any]:
    return {
        "east": round(shift.east, 2),
        "north": round(shift.north, 2),
        "score": round(shift.score, 4),
        "at_zero": round(shift.at_zero, 4),
        "sure": bool(shift.sure),
    }
