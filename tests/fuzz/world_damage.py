"""Damage to worlds that no checksum finds: values, written as the world itself would write them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen.world.layout import DENSE, INDEX_FIELDS, RAGGED

FLOATS = (np.nan, np.inf, -np.inf, 1e38, -1e38, 65504.0, -1.0, 0.0, 1e-45)
"""Values that stand in for a height, a colour or a rotation."""


def damage_values(path: Path, dice: random.Random) -> None:
    """Change values of one to three arrays of a world of one tile, with checksums that fit.

    Parameters
    ----------
    path : Path
        The world, which is changed in place.
    dice : random.Random
    """
    import zarr

    root = zarr.open_group(path, mode="r+", zarr_format=3, use_consolidated=False)
    for _ in range(dice.randint(1, 3)):
        level = dice.choice((1, 2, 4, 8))
        kind = dice.randrange(3)
        if kind == 0:
            place = (0, 0, slice(0, INDEX_FIELDS))
            _change(root["index"], place, dice, 1)
        elif kind == 1:
            name = dice.choice(sorted(DENSE))
            group = root if level == 1 and "level_1" not in root else root[f"level_{level}"]
            _change(group[name], ..., dice, dice.choice((1, 20, 10_000)))
        else:
            array = root[dice.choice(RAGGED).format(level=level)]
            rows = int(root["index"][0, 0, 1 + (1, 2, 4, 8).index(level)])
            if 0 < rows < 2**16:
                _change(array, (0, 0, slice(0, rows)), dice, dice.choice((1, 20, 10_000)))


def _change(array: Any, place: Any, dice: random.Random, count: int) -> None:
    values: NDArray = np.array(array[place])
    flat = values.reshape(-1)
    if not len(flat):
        return
    where = np.array([dice.randrange(len(flat)) for _ in range(count)])
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            flat[where] = np.array(dice.choice(FLOATS)).astype(values.dtype)
    else:
        info = np.iinfo(values.dtype)
        chosen = (0, 1, int(info.max), int(info.min), int(info.max) // 2, 2, 200)
        flat[where] = [min(max(dice.choice(chosen), int(info.min)), int(info.max)) for _ in where]
    array[place] = values
