"""Parts of a dataset by place: what is trained on, and what is held out, with a strip between them
that is neither.

Two scenes of one place may overlap, also in different CRSs. So what is held out is held out of
every scene: its bounds are brought into the CRS of each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from earthgen.dataset.crop import CELL
from earthgen.dataset.scene import Scene
from earthgen.errors import JobError, StoreError
from earthgen.files import replace_file
from geo_io.crs import transform_bounds
from geo_io.errors import nearest_name
from geo_io.frame import Bounds, Frame

Part = Literal["train", "held_out"]

FILE = "split.json"
BUFFER = 32.0
"""Metres around what is held out that are not trained on, unless told otherwise."""


@dataclass(frozen=True)
class Area:
    """Bounds in metres of a CRS."""

    crs: str
    bounds: Bounds


@dataclass(frozen=True)
class Split:
    """Which areas are held out.

    rule : how they were chosen, for people
    areas : held out of all scenes that they meet
    buffer : metres around them that belong to no part
    """

    rule: str
    areas: tuple[Area, ...]
    buffer: float = BUFFER

    def cells(self, frame: Frame, part: Part) -> NDArray:
        """(ny / 8, nx / 8) bool: cells of 8 x 8 columns of a scene that belong to a part, rows from
        north to south.

        frame : its x and y ranges are multiples of 8
        """
        shape = frame.ny // CELL, frame.nx // CELL
        held, near = np.zeros(shape, bool), np.zeros(shape, bool)
        for area in self.areas:
            bounds = transform_bounds(area.bounds, area.crs, frame.crs)
            if bounds is None:
                continue
            # Held out are cells that lie inside; kept from training are all that touch the buffer.
            _mark(held, frame, bounds, 0.0, whole=True)
            _mark(near, frame, bounds, self.buffer, whole=False)
        return held if part == "held_out" else ~near

    def to_dict(self) -> dict[str, Any]:
        return {
            "rule": self.rule,
            "buffer": self.buffer,
            "held_out": [{"crs": area.crs, "bounds": list(area.bounds)} for area in self.areas],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Split:
        areas = tuple(Area(item["crs"], tuple(item["bounds"])) for item in values["held_out"])
        return cls(values["rule"], areas, float(values["buffer"]))


def _mark(mask: NDArray, frame: Frame, bounds: Bounds, buffer: float, whole: bool) -> None:
    """Mark the cells of a frame that lie inside bounds (`whole`), or that touch them."""
    edge = CELL * frame.voxel_size
    left, _, _, top = frame.bounds
    west, east = (bounds[0] - buffer - left) / edge, (bounds[2] + buffer - left) / edge
    north, south = (top - bounds[3] - buffer) / edge, (top - bounds[1] + buffer) / edge
    slack = 1e-6
    if whole:
        rows = np.ceil(north - slack), np.floor(south + slack)
        cols = np.ceil(west - slack), np.floor(east + slack)
    else:
        rows = np.floor(north + slack), np.ceil(south - slack)
        cols = np.floor(west + slack), np.ceil(east - slack)
    (r0, r1), (c0, c1) = (
        [int(np.clip(v, 0, n)) for v in pair]
        for pair, n in ((rows, mask.shape[0]), (cols, mask.shape[1]))
    )
    mask[r0:r1, c0:c1] = True


def by_name(scenes: Sequence[Scene], names: Sequence[str] = (), buffer: float = BUFFER) -> Split:
    """What the recipes hold out, and the scenes named besides.

    Raises
    ------
    JobError
        if there is no scene of a name
    """
    known = {scene.info.name: scene for scene in scenes}
    for name in names:
        if name not in known:
            raise JobError(
                f"there is no scene {name!r}{nearest_name(name, known)}",
                "`earthgen dataset inspect` lists them",
            )
    areas = []
    for scene in scenes:
        bounds = (scene.frame.bounds,) if scene.info.name in names else scene.info.held_out
        areas += [Area(scene.frame.crs, each) for each in bounds]
    return Split("named places", tuple(areas), buffer)


def by_blocks(
    scenes: Sequence[Scene],
    share: float,
    *,
    block: float = 512.0,
    seed: int = 0,
    buffer: float = BUFFER,
) -> Split:
    """A share of all blocks of a lattice from each CRS's origin, drawn by place; what recipes hold
    out stays so.

    share : of the blocks, in (0, 1); block : their edge, metres

    Raises
    ------
    JobError
        if the share or the block is none
    """
    if not (0 < share < 1 and block > 0):
        raise JobError(
            f"a share of {share} of blocks of {block} m is none", "give a share between 0 and 1"
        )
    areas = {(area.crs, area.bounds): area for area in by_name(scenes).areas}
    for scene in scenes:
        left, bottom, right, top = scene.frame.bounds
        for i in range(int(np.floor(left / block)), int(np.ceil(right / block))):
            for j in range(int(np.floor(bottom / block)), int(np.ceil(top / block))):
                if _draw(scene.frame.crs, i, j, seed) < share:
                    bounds = (i * block, j * block, (i + 1) * block, (j + 1) * block)
                    areas[scene.frame.crs, bounds] = Area(scene.frame.crs, bounds)
    return Split(f"{share:g} of blocks of {block:g} m, seed {seed}", tuple(areas.values()), buffer)


def _draw(crs: str, i: int, j: int, seed: int) -> float:
    """A number in [0, 1) by place."""
    digest = hashlib.blake2b(f"{seed} {crs} {i} {j}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


def write_split(folder: str | Path, split: Split) -> Path:
    """Write a dataset's split in one step."""
    replace_file(Path(folder), FILE, (json.dumps(split.to_dict(), indent=1) + "\n").encode())
    return Path(folder) / FILE


def read_split(folder: str | Path, scenes: Sequence[Scene]) -> Split:
    """The split of a dataset's folder; what the recipes hold out where none was written.

    Raises
    ------
    StoreError
        if it cannot be read
    """
    path = Path(folder) / FILE
    if not path.exists():
        return by_name(scenes)
    try:
        return Split.from_dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path} cannot be read: {error}", "make it again with `earthgen dataset split`"
        ) from error


def summary(scenes: Sequence[Scene], split: Split) -> list[dict[str, Any]]:
    """Square kilometres with data of each scene by part."""
    rows = []
    for scene in scenes:
        valid = scene.layer("valid")
        ny, nx = valid.shape
        count = valid.reshape(ny // CELL, CELL, nx // CELL, CELL).sum(axis=(1, 3))
        area = scene.frame.voxel_size**2 / 1e6
        train, held = split.cells(scene.frame, "train"), split.cells(scene.frame, "held_out")
        rows.append(
            {
                "scene": scene.info.name,
                "grade": scene.info.grade,
                "km2": float(count.sum() * area),
                "train_km2": float(count[train].sum() * area),
                "held_out_km2": float(count[held].sum() * area),
            }
        )
    return rows
