"""The shapes of all sources in a window, ranked together and in painting order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geo_io.frame import Frame
from geo_io.legend import codes
from geo_io.semantics.nesting import feature_ranks
from geo_io.semantics.packed_features import WindowFeatures
from geo_io.semantics.rasterize import paint


@dataclass(frozen=True)
class Painted:
    """The shapes of a source that are land cover in a window, in painting order.

    Attributes
    ----------
    shapes : NDArray (n,) object
    code : NDArray (n,) uint8
    key : NDArray (n,) uint64
    is_area : NDArray (n,) bool
    rank : NDArray (n,) uint16
        Of `feature_ranks`.
    """

    shapes: NDArray
    code: NDArray
    key: NDArray
    is_area: NDArray
    rank: NDArray


def rank_shapes(wide: list[WindowFeatures | None], shown: list[NDArray]) -> list[Painted | None]:
    """Rank the shapes of all sources together, and return those shown, by source."""
    every = [each for each in wide if each is not None]
    if not every:
        return [None] * len(wide)
    code = np.concatenate([each.code for each in every])
    area = np.concatenate([each.is_area for each in every])
    ranks = feature_ranks(
        np.concatenate([each.shapes for each in every]),
        code,
        area,
        code == codes()["building"],
        np.repeat(np.arange(len(every)), [len(each.shapes) for each in every]),
    )
    out: list[Painted | None] = []
    first = 0
    for each, mask in zip(wide, shown, strict=True):
        if each is None:
            out.append(None)
            continue
        rank = ranks[first : first + len(each.shapes)][mask]
        first += len(each.shapes)
        order = np.argsort(rank, kind="stable")
        out.append(
            Painted(
                each.shapes[mask][order],
                each.code[mask][order],
                each.key[mask][order],
                each.is_area[mask][order],
                rank[order],
            )
        )
    return out


def collect(painted: list[Painted], *, areas: bool) -> tuple[NDArray, NDArray, NDArray]:
    """Return shapes, class codes and ranks of all sources; `areas` leaves lines out."""
    if not painted:
        return np.empty(0, object), np.empty(0, np.uint8), np.empty(0, np.uint16)
    shapes, code, rank, is_area = (
        np.concatenate([getattr(each, name) for each in painted])
        for name in ("shapes", "code", "rank", "is_area")
    )
    kept = is_area | (not areas)
    return shapes[kept], code[kept], rank[kept]


def parcels(window: Frame, painted: list[Painted]) -> NDArray:
    """Number the topmost land-use polygon at each voxel's centre, (ny, nx) uint32."""
    if not painted:
        return np.zeros(window.shape, np.uint32)
    shapes, code, rank, key, is_area = (
        np.concatenate([getattr(each, name) for each in painted])
        for name in ("shapes", "code", "rank", "key", "is_area")
    )
    number = np.maximum((key & np.uint64(0xFFFFFFFF)).astype(np.uint32), 1)
    order = np.argsort(rank, kind="stable")
    order = order[(is_area & (code != codes()["building"]))[order]]
    return paint(window, shapes[order], number[order], 1)
