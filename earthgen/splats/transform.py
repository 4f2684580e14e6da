"""Editing Gaussians: crop, merge, re-anchor, rotate, scale and move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earthgen.errors import SplatError
from earthgen.splats.gaussians import Anchor, Gaussians
from earthgen.splats.spherical_harmonics import rotate
from geo_io.frame import Bounds, Frame


def crop(
    gaussians: Gaussians, bounds: Bounds | Frame, heights: tuple[float, float] | None = None
) -> Gaussians:
    """Select the Gaussians whose means lie within bounds, in their order.

    Parameters
    ----------
    gaussians : Gaussians
        What to crop.
    bounds : tuple of float or Frame
        Left, bottom, right, top in metres of the CRS, with left <= east < right and bottom <= north
        < top, so that neighbouring boxes share no Gaussian. Or a frame with the same CRS; its
        heights, which are relative to the ground, are ignored.
    heights : tuple of float, optional
        low <= up < high, metres.

    Raises
    ------
    SplatError
        If the frame has another CRS, or a lower bound is above an upper one.
    """
    if isinstance(bounds, Frame):
        if bounds.crs != gaussians.crs:
            raise SplatError(
                f"Gaussians in {gaussians.crs or 'no CRS'} cannot be cropped to {bounds}",
                "give bounds in their CRS",
            )
        bounds = bounds.bounds
    left, bottom, right, top = bounds
    low, high = heights if heights is not None else (-np.inf, np.inf)
    if not (left <= right and bottom <= top and low <= high):
        raise SplatError(
            f"bounds {bounds} and heights {heights} are not ascending",
            "give left <= right, bottom <= top and low <= high",
        )
    inside = np.ones(len(gaussians), bool)
    for axis, (least, most) in enumerate(((left, right), (bottom, top), (low, high))):
        position = gaussians.means[:, axis].astype(np.float64) + gaussians.anchor[axis]
        inside &= (position >= least) & (position < most)
    return gaussians.take(inside)


def reanchor(gaussians: Gaussians, anchor: Anchor) -> Gaussians:
    """Make means relative to another anchor, computed in float64 and rounded once.

    At 50 km from the anchor float32 is precise to 4 mm. Returning to the old anchor does not undo
    the rounding.

    Parameters
    ----------
    gaussians : Gaussians
        What to convert.
    anchor : tuple of float
        New anchor: east, north, up in metres of the CRS.

    Raises
    ------
    SplatError
        If the anchor is not finite.
    """
    if tuple(anchor) == tuple(gaussians.anchor):
        return gaussians
    shift = np.asarray(gaussians.anchor, np.float64) - np.asarray(anchor, np.float64)
    if not np.isfinite(shift).all():
        raise SplatError(
            f"the anchor {anchor} is not finite", "give three finite numbers: east, north, up"
        )
    means = (gaussians.means.astype(np.float64) + shift).astype(np.float32)
    return replace(
        gaussians, anchor=(float(anchor[0]), float(anchor[1]), float(anchor[2])), means=means
    )


def merge(parts: Sequence[Gaussians], anchor: Anchor | None = None) -> Gaussians:
    """Join Gaussians in their order.

    Colours get the highest degree of the parts; absent coefficients are 0, which changes no colour.

    Parameters
    ----------
    parts : sequence of Gaussians
        What to join; all in one CRS.
    anchor : tuple of float, optional
        Anchor of the result; by default that of the first part.

    Raises
    ------
    SplatError
        If there is no part, or two differ in CRS or vertical CRS.
    """
    if not parts:
        raise SplatError("there are no Gaussians to join", "give at least one part")
    first = parts[0]
    for part in parts[1:]:
        if (part.crs, part.vertical_crs) != (first.crs, first.vertical_crs):
            raise SplatError(
                f"Gaussians in {part.crs} with heights in {part.vertical_crs} cannot be joined "
                f"with those in {first.crs} with heights in {first.vertical_crs}",
                "give them in one CRS",
            )
    degree = max(part.degree for part in parts)
    at = first.anchor if anchor is None else anchor
    return Gaussians.concatenate([with_degree(reanchor(part, at), degree) for part in parts])


def with_degree(gaussians: Gaussians, degree: int) -> Gaussians:
    """Change the degree of the colours: higher coefficients are dropped, absent ones become 0."""
    k, have = (degree + 1) ** 2, gaussians.sh.shape[1]
    if k == have:
        return gaussians
    sh = np.zeros((len(gaussians), k, 3), gaussians.sh.dtype)
    sh[:, : min(k, have)] = gaussians.sh[:, :k]
    return replace(gaussians, sh=sh)


def transform(
    gaussians: Gaussians,
    *,
    rotation: ArrayLike | None = None,
    scale: float = 1.0,
    translation: ArrayLike = (0.0, 0.0, 0.0),
    about: Anchor | None = None,
) -> Gaussians:
    """Apply a similarity: p -> about + scale * rotation @ (p - about) + translation.

    Discs are rotated and scaled with their means; colours of degree 1 to 3 are rotated too. The
    translation moves the anchor and not the means, so it loses no precision.

    Parameters
    ----------
    gaussians : Gaussians
        What to transform.
    rotation : array, optional
        (3, 3) matrix, or unit quaternion (w, x, y, z).
    scale : float
        Positive factor.
    translation : array (3,)
        Metres east, north, up.
    about : tuple of float, optional
        Fixed point of rotation and scale, metres of the CRS; by default the anchor.

    Raises
    ------
    SplatError
        If the rotation is not one (or is a reflection), the scale is not positive, or a number is
        not finite.
    """
    turn = np.eye(3) if rotation is None else _matrix(rotation)
    move = np.asarray(translation, np.float64)
    if move.shape != (3,) or not np.isfinite(move).all() or not (scale > 0 and np.isfinite(scale)):
        raise SplatError(
            f"a scale of {scale} and a translation of {move.tolist()} are not a similarity",
            "give a positive scale, and three finite metres",
        )
    anchor = np.asarray(gaussians.anchor, np.float64)
    centre = anchor if about is None else np.asarray(about, np.float64)
    # The anchor is transformed, and the means are rotated about it.
    at = centre + scale * (turn @ (anchor - centre)) + move
    place: Anchor = (float(at[0]), float(at[1]), float(at[2]))
    if rotation is None and scale == 1:
        return replace(gaussians, anchor=place)
    means = scale * (gaussians.means.astype(np.float64) @ turn.T)
    return replace(
        gaussians,
        anchor=place,
        means=means.astype(np.float32),
        scales=(gaussians.scales.astype(np.float64) * scale).astype(np.float32),
        rotations=gaussians.rotations if rotation is None else _rotate(gaussians.rotations, turn),
        sh=gaussians.sh if rotation is None else rotate(gaussians.sh, turn),
    )


def _matrix(rotation: ArrayLike) -> NDArray:
    value = np.asarray(rotation, np.float64)
    if value.shape == (4,) and abs(np.linalg.norm(value) - 1) < 1e-5:
        from scipy.spatial.transform import Rotation

        return Rotation.from_quat(value[[1, 2, 3, 0]]).as_matrix()
    if (
        value.shape != (3, 3)
        or not np.abs(value @ value.T - np.eye(3)).max() < 1e-5
        or np.linalg.det(value) < 0
    ):
        raise SplatError(
            f"{value.tolist()} is not a rotation",
            "give a right-handed orthogonal 3 x 3 matrix or a unit quaternion",
        )
    return value


def _rotate(rotations: NDArray, turn: NDArray) -> NDArray:
    """(n, 4) float32 products of the quaternion of `turn` and each quaternion, (w, x, y, z)."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(turn).as_quat()
    # The matrix of the left multiplication by the quaternion.
    left = np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])
    return (rotations.astype(np.float64) @ left.T).astype(np.float32)
