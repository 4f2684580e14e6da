"""Gaussians packed as SPZ, version 2 (https://github.com/nianticlabs/spz): a tenth of a PLY.

A file is a header and one column after the other, compressed by gzip: positions in fixed point of
24 bits, and a byte for each other number. Axes are x right (east), y up, z back (south). Only the
base colour is kept.
"""

from __future__ import annotations

import contextlib
import gzip
import shutil
import struct
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
from numpy.typing import NDArray

from earthgen.errors import SplatError
from earthgen.splats.gaussians import Anchor, Gaussians

MAGIC, VERSION = 0x5053474E, 2

FRACTION_BITS = 12
"""Positions are multiples of 2^-12 m where they lie within 2 km of the origin."""

FIXED_BITS = 23
"""Bits of a position without its sign."""

COLOUR = 0.15
"""Scale of the coefficient of the base colour."""

THICKNESS = 1e-3
"""Third standard deviation of a disc, of its larger one: viewers of 3D Gaussians expect one."""

HALF = np.float32(0.5**0.5)

LEVEL = 6
"""Of gzip."""


def y_up(
    gaussians: Gaussians, anchor: Anchor, thickness: float | None = None
) -> tuple[NDArray, NDArray, NDArray]:
    """Return Gaussians in the axes of glTF and SPZ: x east, y up, z south.

    Parameters
    ----------
    gaussians : Gaussians
    anchor : tuple of float
        Origin of the result.
    thickness : float, optional
        Third standard deviation, metres; by default `THICKNESS` of the larger one.

    Returns
    -------
    means : NDArray (n, 3) float32
    scales : NDArray (n, 3) float32
    rotations : NDArray (n, 4) float32
        Unit quaternions x, y, z, w with w >= 0.
    """
    shift = np.asarray(gaussians.anchor) - np.asarray(anchor)
    east, north, up = (gaussians.means.astype(np.float64) + shift).T
    means = np.stack([east, up, -north], axis=1).astype(np.float32)
    thin = gaussians.scales.max(axis=1) * THICKNESS if thickness is None else thickness
    scales = np.empty((len(means), 3), np.float32)
    scales[:, :2], scales[:, 2] = gaussians.scales, thin
    w, x, y, z = gaussians.rotations.T
    # A turn by -90 degrees about x takes up to y.
    turned = np.stack([x - w, y + z, z - y, w + x], axis=1) * HALF
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    turned[turned[:, 3] < 0] *= -1
    return means, scales, turned.astype(np.float32)


def _columns(gaussians: Gaussians, anchor: Anchor, bits: int) -> list[bytes]:
    """The six columns of the format: positions, opacities, colours, scales, rotations."""
    means, scales, rotations = y_up(gaussians, anchor)
    fixed = np.rint(means.astype(np.float64) * 2**bits)
    if len(fixed) and np.abs(fixed).max() >= 2**FIXED_BITS:
        raise SplatError(
            f"Gaussians {np.abs(means).max():.0f} m from the anchor do not fit SPZ positions with "
            f"{bits} bits after the point",
            "give smaller `bounds`",
        )
    columns = [
        gaussians.opacities * 255,
        (gaussians.sh[:, 0] * COLOUR + 0.5) * 255,
        (np.log(scales) + 10) * 16,
        rotations[:, :3] * 127.5 + 127.5,
    ]
    packed = np.ascontiguousarray(fixed.astype("<i4")).view(np.uint8).reshape(-1, 3, 4)[..., :3]
    return [
        packed.tobytes(),
        *(np.clip(np.rint(part), 0, 255).astype(np.uint8).tobytes() for part in columns),
    ]


def _header(count: int, bits: int) -> bytes:
    return struct.pack("<3I4B", MAGIC, VERSION, count, 0, bits, 0, 0)


def _bits_within(reach: float) -> int:
    """Bits after the point that leave room for positions up to `reach` metres."""
    whole = int(np.ceil(np.log2(max(reach, 1.0)))) + 1
    return max(min(FRACTION_BITS, FIXED_BITS - whole), 0)


def encode_spz(gaussians: Gaussians, anchor: Anchor) -> bytes:
    """Pack Gaussians, with positions relative to an anchor as precise as their distance from it
    allows: 2^-12 m within 2 km.

    Raises
    ------
    SplatError
        If one is 8,000 km away or more.
    """
    away = gaussians.means.astype(np.float64) + np.subtract(gaussians.anchor, anchor)
    bits = _bits_within(float(np.abs(away).max(initial=0.0)))
    body = b"".join(_columns(gaussians, anchor, bits))
    return gzip.compress(_header(len(gaussians), bits) + body, LEVEL, mtime=0)


class SpzWriter:
    """Write an SPZ file part by part, in memory of one part.

    Parameters
    ----------
    path : Path
        The file; it is complete when the `with` block ends without an error.
    anchor : tuple of float
        Origin of the positions: metres of the CRS.
    reach : float
        Largest distance of a Gaussian from the anchor along an axis, metres. Positions are as
        precise as it allows.

    Attributes
    ----------
    count : int
        Gaussians written so far.
    bits : int
        Bits of positions after the point.
    """

    def __init__(self, path: Path, anchor: Anchor, reach: float) -> None:
        self.path, self.anchor, self.count = path, anchor, 0
        self.bits = _bits_within(reach)
        self._stack = contextlib.ExitStack()
        self._columns: list[IO[bytes]] = [
            self._stack.enter_context(tempfile.TemporaryFile(dir=path.parent))  # noqa: SIM115
            for _ in range(5)
        ]

    def write(self, gaussians: Gaussians) -> None:
        """Append Gaussians.

        Raises
        ------
        SplatError
            If one is farther from the anchor than positions reach.
        """
        parts = _columns(gaussians, self.anchor, self.bits)
        for file, part in zip(self._columns, parts, strict=True):
            file.write(part)
        self.count += len(gaussians)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            if kind is not None:
                return
            with self.path.open("wb") as raw, gzip.GzipFile("", "wb", LEVEL, raw, 0) as out:
                out.write(_header(self.count, self.bits))
                for file in self._columns:
                    file.seek(0)
                    shutil.copyfileobj(file, out)
