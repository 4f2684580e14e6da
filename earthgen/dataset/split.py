"""Parts of a dataset by place: training, held out, and a strip between them that belongs to
neither.

Two scenes of one place may overlap, also in different CRSs. So a held-out area is held out of every
scene: its bounds are transformed to the CRS of each.
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
from geo_io.safety.damage import damaged_file

Part = Literal["train", "held_out"]

FILE = "split.json"
BUFFER = 32.0
"""Default width of the strip around held-out areas that is not trained on, metres."""


@dataclass(frozen=True)
class Area:
    """Bounds in metres of a CRS."""

    crs: str
    bounds: Bounds


@dataclass(frozen=True)
class Split:
    """The held-out areas of a dataset.

    Attributes
    ----------
    rule : str
        How they were chosen, for people.
    areas : tuple[Area, ...]
        Held out of all scenes that they meet.
    buffer : float
        Width of the strip around them that belongs to no part, metres.
    """

    rule: str
    areas: tuple[Area, ...]
    buffer: float = BUFFER

    def cells(self, frame: Frame, part: Part) -> NDArray:
        """Find the cells of 8 x 8 columns of a scene that belong to a part.

        Parameters
        ----------
        frame : Frame
            Place of the scene; x and y ranges are multiples of 8.
        part : {"train", "held_out"}
            The part.

        Returns
        -------
        NDArray (ny / 8, nx / 8) bool
            Rows from north to south.
        """
        shape = frame.ny // CELL, frame.nx // CELL
        held, near = np.zeros(shape, bool), np.zeros(shape, bool)
        for area in self.areas:
            bounds = transform_bounds(area.bounds, area.crs, frame.crs)
            if bounds is None:
                continue
            # Cells inside the area are held out; all that touch the buffer are not trained on.
            _mark(held, frame, bounds, 0.0, whole=True)
            _mark(near, frame, bounds, self.buffer, whole=False)
        return held if part == "held_out" else ~near

    def to_dict(self) -> dict[str, Any]:
        """Return the split as JSON values."""
        return {
            "rule": self.rule,
            "buffer": self.buffer,
            "held_out": [{"crs": area.crs, "bounds": list(area.bounds)} for area in self.areas],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Split:
        """Make a split from what `to_dict` returned."""
        areas = tuple(Area(item["crs"], tuple(item["bounds"])) for item in values["held_out"])
        return cls(values["rule"], areas, float(values["buffer"]))


def _mark(mask: NDArray, frame: Frame, bounds: Bounds, buffer: float, whole: bool) -> None:
    """Mark the cells of a frame inside some bounds (`whole`), or those that touch them."""
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


def split_by_name(
    scenes: Sequence[Scene], names: Sequence[str] = (), buffer: float = BUFFER
) -> Split:
    """Make the split of the areas that recipes hold out, and of named scenes.

    Parameters
    ----------
    scenes : Sequence[Scene]
        The scenes of the dataset.
    names : Sequence[str]
        Scenes to hold out besides.
    buffer : float
        See `Split`.

    Raises
    ------
    JobError
        if there is no scene of a name
    """
    existing = {scene.info.name for scene in scenes}
    for name in names:
        if name not in existing:
            raise JobError(
                f"there is no scene {name!r}{nearest_name(name, existing)}",
                "`earthgen dataset inspect` lists them",
            )
    areas = []
    for scene in scenes:
        bounds = (scene.frame.bounds,) if scene.info.name in names else scene.info.held_out
        areas += [Area(scene.frame.crs, each) for each in bounds]
    return Split("named places", tuple(areas), buffer)


def split_by_blocks(
    scenes: Sequence[Scene],
    share: float,
    *,
    block: float = 512.0,
    seed: int = 0,
    buffer: float = BUFFER,
) -> Split:
    """Make a split that holds out a share of all blocks, drawn by place.

    Blocks form a lattice from the origin of each CRS. What recipes hold out is held out too.

    Parameters
    ----------
    scenes : Sequence[Scene]
        The scenes of the dataset.
    share : float
        Share of the blocks, in (0, 1).
    block : float
        Edge of a block, metres.
    seed : int
        Key of the draw.
    buffer : float
        See `Split`.

    Raises
    ------
    JobError
        if the share or the block size is out of range
    """
    if not (0 < share < 1 and block > 0):
        raise JobError(
            f"a share of {share} of blocks of {block} m is out of range",
            "give a share between 0 and 1, and a positive size",
        )
    areas = {(area.crs, area.bounds): area for area in split_by_name(scenes).areas}
    for scene in scenes:
        left, bottom, right, top = scene.frame.bounds
        for i in range(int(np.floor(left / block)), int(np.ceil(right / block))):
            for j in range(int(np.floor(bottom / block)), int(np.ceil(top / block))):
                if _draw(scene.frame.crs, i, j, seed) < share:
                    bounds = (i * block, j * block, (i + 1) * block, (j + 1) * block)
                    areas[scene.frame.crs, bounds] = Area(scene.frame.crs, bounds)
    return Split(f"{share:g} of blocks of {block:g} m, seed {seed}", tuple(areas.values()), buffer)


def _draw(crs: str, i: int, j: int, seed: int) -> float:
    """Return a number in [0, 1) that depends on the place and the seed."""
    digest = hashlib.blake2b(f"{seed} {crs} {i} {j}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


def write_split(folder: str | Path, split: Split) -> Path:
    """Write the split of a dataset in one step, and return the path of the file."""
    replace_file(Path(folder), FILE, (json.dumps(split.to_dict(), indent=1) + "\n").encode())
    return Path(folder) / FILE


def read_split(folder: str | Path, scenes: Sequence[Scene]) -> Split:
    """Read the split of a dataset; by default that of the areas that recipes hold out.

    Raises
    ------
    StoreError
        if the file cannot be read
    """
    path = Path(folder) / FILE
    if not path.exists():
        return split_by_name(scenes)
    remedy = "make it again with `earthgen dataset split`"
    with damaged_file(f"{path} cannot be read", remedy, StoreError):
        return Split.from_dict(json.loads(path.read_text("utf-8")))


def join_splits(splits: Sequence[Split]) -> Split:
    """Return the split of several datasets: an area that one holds out is held out of all."""
    if len(splits) == 1:
        return splits[0]
    areas = {(area.crs, area.bounds): area for split in splits for area in split.areas}
    return Split(
        "; ".join(dict.fromkeys(split.rule for split in splits)),
        tuple(areas.values()),
        max(split.buffer for split in splits),
    )


def split_summary(scenes: Sequence[Scene], split: Split) -> list[dict[str, Any]]:
    """Return the area with data of each scene and part, square kilometres, as JSON values."""
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
