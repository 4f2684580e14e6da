"""Counts of the structures that voxels are too coarse to show."""

from __future__ import annotations

from collections import Counter

from numpy.typing import NDArray

from geo_io.semantics.structures.tags import Found


class StructureTally:
    """Counts what is left out because the voxels are too large.

    Parameters
    ----------
    source : str
        Name of the source.
    voxel_size : float
        Metres.
    """

    def __init__(self, source: str, voxel_size: float) -> None:
        self._source, self._size = source, voxel_size
        self._left_out: Counter[tuple[str, float]] = Counter()

    def add(self, found: Found, shown: NDArray) -> None:
        """Count features with these indices."""
        thin = shown[(found.form["finest"][shown] < self._size) & (found.name[shown] != "")]
        self._left_out.update(
            (found.name[row], round(float(found.form["finest"][row]), 2)) for row in thin
        )

    def warnings(self) -> tuple[str, ...]:
        """Return one line that names what is left out, and the voxels that would show it."""
        if not self._left_out:
            return ()
        listed = ", ".join(
            f"{count} x {name} (shown up to {finest:g} m)"
            for (name, finest), count in sorted(
                self._left_out.items(), key=lambda item: (-item[1], item[0])
            )
        )
        return (f"{self._source}: too fine for voxels of {self._size:g} m and left out: {listed}",)
