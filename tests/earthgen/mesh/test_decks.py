"""Smooth meshes of bridges: decks that hang beside slabs that stand, on falling ground."""

from __future__ import annotations

import numpy as np

from earthgen.mesh.columns import Columns, Slabs
from earthgen.mesh.shells import HALO, UNDERSIDE, WALL, shells
from earthgen.terrain.cover import class_code
from geo_io.frame import Frame

TOP, THICK = 30.0, 1.0


def bridge() -> Columns:
    """A deck over a valley, on a bank in the west, on a pier, and open in the east."""
    ny, nx = 9, 20
    ground = np.tile(np.where(np.arange(nx) < 5, TOP - 0.05, 20.0), (ny, 1)).astype(np.float32)
    ground[:, 5:8] = np.array([27.0, 24.0, 22.0], np.float32)
    deck = np.zeros((ny, nx), bool)
    deck[3:6, 3:17] = True
    stands = deck & (np.arange(nx) < 5)
    stands[4, 11] = True
    n = int(deck.sum())
    slabs = Slabs(
        np.concatenate([[0], np.cumsum(deck.ravel())]),
        np.where(stands, 0, TOP - THICK - ground)[deck].astype(np.float32),
        (TOP - ground)[deck].astype(np.float32),
        np.ones(n, np.float32),
        np.full(n, 7, np.uint32),
        np.full(n, class_code("road"), np.uint8),
        np.zeros(n, bool),
        np.full((n, 3), 200, np.uint8),
        np.full((n, 3), 100, np.uint8),
        np.zeros(n, bool),
    )
    frame = Frame("EPSG:32632", 1.0, (0, nx), (0, ny))
    cover = np.full((ny, nx), class_code("grass"), np.uint8)
    return Columns(frame, ground, cover, np.zeros((ny, nx, 3), np.uint8), slabs).padded(HALO)


def test_the_underside_of_a_deck_is_level_beside_banks_and_piers() -> None:
    made = shells(bridge(), 1)
    under = np.unique(made.triangles[made.part == UNDERSIDE])
    assert len(under) and np.allclose(made.position[under, 2], TOP - THICK, atol=1e-5)
    # Nothing lies elsewhere than between the ground and the deck, in the columns of the bridge.
    assert made.position[:, :2].min() >= 2.5 and made.position[:, 0].max() <= 17.5
    assert made.position[:, 2].max() <= TOP + 1e-5 and made.position[:, 2].min() >= 20.0 - 0.5


def test_a_pier_has_four_sides_below_the_deck() -> None:
    made = shells(bridge(), 1)
    corners = made.position[made.triangles[made.part == WALL]]
    pier = corners[(np.abs(corners[..., :2] - (11.5, 4.5)) <= 0.5).all(axis=(1, 2))]
    low, high = pier[..., 2].min(axis=1), pier[..., 2].max(axis=1)
    assert len(pier) == 8
    assert np.allclose(low, 19.5) and np.allclose(high, TOP - THICK, atol=1e-5)
