"""Gaussians elsewhere: cropped, put together, re-anchored, turned, scaled and moved."""

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
    """The Gaussians whose means lie within bounds, in their order.

    bounds : left, bottom, right, top in metres of the CRS, half-open: left <= east < right, bottom
        <= north < top, so
        that neighbouring boxes share none. Or a frame, which must have the Gaussians' CRS; its
        heights, counted from the ground, do not cut.
    heights : low <= up < high, metres

    Raises
    ------
    SplatError
        if the frame has another CRS
    SplatError
        if low > high in a direction
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
            f"bounds {bounds} and heights {heights} hold nothing", "give left, bottom, right, top"
        )
    inside = np.ones(len(gaussians), bool)
    for axis, (least, most) in enumerate(((left, right), (bottom, top), (low, high))):
        place = gaussians.means[:, axis].astype(np.float64) + gaussians.anchor[axis]
        inside &= (place >= least) & (place < most)
    return gaussians.take(inside)


def reanchor(gaussians: Gaussians, anchor: Anchor) -> Gaussians:
    """The same Gaussians with means relative to another anchor; summed in float64, rounded once.

    float32 is good to 4 mm at 50 km from the anchor, and the rounding stays when the anchor comes
    back.
    """
    if tuple(anchor) == tuple(gaussians.anchor):
        return gaussians
    shift = np.asarray(gaussians.anchor, np.float64) - np.asarray(anchor, np.float64)
    if not np.isfinite(shift).all():
        raise SplatError(f"{anchor} is no anchor", "give three finite numbers: east, north, up")
    means = (gaussians.means.astype(np.float64) + shift).astype(np.float32)
    return replace(
        gaussians, anchor=(float(anchor[0]), float(anchor[1]), float(anchor[2])), means=means
    )


def merge(parts: Sequence[Gaussians], anchor: Anchor | None = None) -> Gaussians:
    """All parts in their order, on one anchor: the first part's unless given.

    Colours of a lower degree get zeros for the coefficients that they lack, which changes no
    colour.

    Raises
    ------
    SplatError
        if there is no part
    SplatError
        if two differ in CRS or vertical CRS
    """
    if not parts:
        raise SplatError("no Gaussians to put together", "give at least one part")
    first = parts[0]
    for part in parts[1:]:
        if (part.crs, part.vertical_crs) != (first.crs, first.vertical_crs):
            raise SplatError(
                f"Gaussians in {part.crs} with heights in {part.vertical_crs} cannot join those in {first.crs} with "
                f"heights in {first.vertical_crs}",
                "make them in one CRS",
            )
    degree = max(part.degree for part in parts)
    at = first.anchor if anchor is None else anchor
    return Gaussians.concatenate([with_degree(reanchor(part, at), degree) for part in parts])


def with_degree(gaussians: Gaussians, degree: int) -> Gaussians:
    """Colours of another degree: zeros for coefficients that are lacking, what is above the
    degree dropped."""
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
    """Gaussians turned and scaled about a point, and moved: p -> about + scale * rotation @ (p -
    about) + translation.

    rotation : (3, 3) matrix, or a unit quaternion (w, x, y, z)
    translation : metres east, north, up
    about : metres of the CRS, the anchor unless given

    Discs are turned and scaled with their means, and so are the colours of degree 1 to 3, which are
    seen in the turned directions. The translation moves the anchor and not the means: it costs no
    digits.

    Raises
    ------
    SplatError
        if the rotation is none (a mirror is none either), the scale not positive, or a number not
        finite
    """
    turn = np.eye(3) if rotation is None else _matrix(rotation)
    move = np.asarray(translation, np.float64)
    if move.shape != (3,) or not np.isfinite(move).all() or not (scale > 0 and np.isfinite(scale)):
        raise SplatError(
            f"a scale of {scale} and a translation of {move.tolist()} are no similarity",
            "give a positive scale, and three finite metres",
        )
    anchor = np.asarray(gaussians.anchor, np.float64)
    centre = anchor if about is None else np.asarray(about, np.float64)
    # The anchor itself goes where the transformation takes it, and the means turn about it.
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
        rotations=gaussians.rotations if rotation is None else _turned(gaussians.rotations, turn),
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
            f"{value.tolist()} is no rotation",
            "give a right-handed orthogonal 3 x 3 matrix or a unit quaternion",
        )
    return value


def _turned(rotations: NDArray, turn: NDArray) -> NDArray:
    """(n, 4) float32: the quaternion of `turn` times each, (w, x, y, z)."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(turn).as_quat()
    # Left multiplication by a quaternion is a matrix.
    left = np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])
    return (rotations.astype(np.float64) @ left.T).astype(np.float32)
