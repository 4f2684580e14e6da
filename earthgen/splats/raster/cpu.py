"""The rasterizer for CPUs: tiles on threads, with gradients, or batch after batch on a canvas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earthgen import memory
from earthgen.errors import OutOfMemoryError, SplatError
from earthgen.splats.cameras.camera import Camera
from earthgen.splats.gaussians import Anchor
from earthgen.splats.raster.backward import GIVEN, back_tiles
from earthgen.splats.raster.binning import MOST_PAIRS, Bins, bin_by_tile, pairs
from earthgen.splats.raster.colour import colours
from earthgen.splats.raster.forward import (
    CHANNELS,
    COLOUR,
    DEPTH,
    DEPTH2,
    LIGHT,
    MEDIAN,
    NEAREST,
    NORMAL,
    draw_tiles,
)
from earthgen.splats.raster.model import LEAST_ALPHA, Rendering, check_frame
from earthgen.splats.raster.projection import COLUMNS, GRADIENTS, numbers, project, project_back
from earthgen.splats.tensors import SplatTensors, check_values
from earthgen.threads import share, side_by_side, stretches

RECORD_BYTES = 4 * COLUMNS + 16 + 4 + 12
"""Bytes of a Gaussian before it is drawn: record, box, depth, colour."""


@dataclass(frozen=True)
class Prepared:
    """Gaussians that are projected and sorted into tiles, for drawing and for gradients."""

    cam: NDArray
    orthographic: bool
    records: NDArray
    boxes: NDArray
    bins: Bins


def rasterize_on_cpu(splats: SplatTensors, camera: Camera, background: Tensor) -> Rendering:
    """Draw Gaussians whose values have been checked; see `earthgen.splats.rasterize`."""
    _check(splats)
    codes, classes = _numbered(splats)
    light, rgb, normal, depth, depth2, median, nearest, labels = _Rasterize.apply(
        splats.means,
        splats.scales,
        splats.rotations,
        splats.opacities,
        colours(splats, camera),
        classes,
        codes,
        camera,
        splats.anchor,
    )  # type: ignore[no-untyped-call]
    return _rendering(
        light, rgb, normal, depth, depth2, median, nearest, labels, background, camera
    )


class _Rasterize(torch.autograd.Function):
    """Remaining light, sums of colour (3, h, w), normal (3, h, w), depth and its square; median,
    nearest, labels."""

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        scales: Tensor,
        rotations: Tensor,
        opacities: Tensor,
        colour: Tensor,
        classes: NDArray,
        codes: NDArray,
        camera: Camera,
        anchor: Anchor,
    ) -> Any:
        arrays = tuple(_array(tensor) for tensor in (means, scales, rotations, opacities, colour))
        prepared = _prepare(arrays, classes, camera, anchor)
        canvas = _canvas(camera)
        labels = np.zeros((camera.height, camera.width), np.uint8)
        weights = np.empty((0, camera.height, camera.width), np.float32)
        _draw(prepared, canvas, weights, codes, labels)
        ctx.save_for_backward(means, scales, rotations)
        ctx.prepared, ctx.canvas = prepared, canvas
        sums = torch.from_numpy(canvas)
        nearest, classes_drawn = sums[NEAREST].clone(), torch.from_numpy(labels)
        ctx.mark_non_differentiable(nearest, classes_drawn)
        light = sums[LIGHT].abs()
        rgb, normal = sums[COLOUR : COLOUR + 3].clone(), sums[NORMAL : NORMAL + 3].clone()
        return (
            light,
            rgb,
            normal,
            sums[DEPTH].clone(),
            sums[DEPTH2].clone(),
            sums[MEDIAN].clone(),
            nearest,
            classes_drawn,
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        prepared: Prepared = ctx.prepared
        means, scales, rotations = [_array(tensor) for tensor in ctx.saved_tensors]
        given = _stack(gradients[:6], ctx.canvas.shape[1:])
        slots, places, parts = _back(prepared, ctx.canvas, given)
        to = [np.zeros_like(array) for array in (means, scales, rotations)]
        to += [np.zeros(len(means), np.float32), np.zeros((len(means), 3), np.float32)]
        to_means, to_scales, to_rotations, to_opacities, to_colours = to

        def work(first: int, last: int) -> None:
            project_back(
                means,
                scales,
                rotations,
                prepared.cam,
                prepared.orthographic,
                slots,
                places,
                parts,
                first,
                last,
                to_means,
                to_scales,
                to_rotations,
                to_opacities,
                to_colours,
            )

        side_by_side(work, stretches(len(means)))
        return (*(torch.from_numpy(array) for array in to), None, None, None, None)


def _rendering(
    light: Tensor,
    rgb: Tensor,
    normal: Tensor,
    depth: Tensor,
    depth2: Tensor,
    median: Tensor,
    nearest: Tensor,
    labels: Tensor,
    background: Tensor,
    camera: Camera,
) -> Rendering:
    alpha = 1 - light
    covered = alpha > 0
    mean = depth / torch.where(covered, alpha, 1)
    return Rendering(
        rgb=rgb.permute(1, 2, 0) + light[..., None] * background,
        alpha=alpha,
        depth=torch.where(covered, nearest + mean, 0),
        median_depth=median,
        normal=normal.permute(1, 2, 0),
        distortion=alpha * depth2 - depth * depth,
        semantics=labels,
        camera=camera,
    )


@dataclass(frozen=True)
class Canvas:
    """A picture on which Gaussians are drawn batch after batch, each behind the batches before it.

    Attributes
    ----------
    camera : Camera
        The camera.
    sums : NDArray (CHANNELS, h, w) float32
        See `earthgen.splats.raster.forward`.
    weights : NDArray (classes, h, w) float32
        Sum of weights of each class.
    codes : NDArray (classes,) uint8
        Class codes, ascending.
    """

    camera: Camera
    sums: NDArray
    weights: NDArray
    codes: NDArray

    @classmethod
    def blank(cls, camera: Camera, codes: NDArray) -> Canvas:
        """Create an empty canvas.

        Parameters
        ----------
        camera : Camera
            The camera.
        codes : NDArray (k,) uint8
            Class codes of the Gaussians; each needs memory.

        Raises
        ------
        OutOfMemoryError
            If there is too little free memory.
        """
        distinct = np.unique(np.asarray(codes, np.uint8))
        _require(
            (CHANNELS + len(distinct) + 20) * 4 * camera.height * camera.width,
            "a picture",
            (camera.height, camera.width),
        )
        return cls(
            camera,
            _canvas(camera),
            np.zeros((len(distinct), camera.height, camera.width), np.float32),
            distinct,
        )

    @property
    def closed(self) -> bool:
        """Whether Gaussians further back are invisible at all pixels."""
        return bool((self.sums[LIGHT] < 0).all())

    def add(self, splats: SplatTensors) -> None:
        """Draw a batch of Gaussians that are all deeper than those drawn before, without gradients.

        Batches of Gaussians sorted by depth give the result of one call of `rasterize`. A batch
        that is partly nearer than an earlier one is nevertheless composited behind it.

        Raises
        ------
        SplatError
            If the canvas does not have a class, or as in `earthgen.splats.rasterize`.
        OutOfMemoryError
            If there is too little free memory.
        """
        check_frame(splats, self.camera)
        check_values(splats)
        _check(splats)
        classes = np.zeros(len(splats), np.uint8)
        if splats.semantics is not None and len(splats):
            codes = splats.semantics.numpy()
            classes = np.searchsorted(self.codes, codes).astype(np.uint8)
            unknown = (
                self.codes.take(classes, mode="clip") != codes if len(self.codes) else codes >= 0
            )
            if unknown.any():
                raise SplatError(
                    f"class {codes[unknown][0]} is not among those of the canvas, "
                    f"{self.codes.tolist()}",
                    "give it to `Canvas.blank`",
                )
        with torch.no_grad():
            given = (
                splats.means,
                splats.scales,
                splats.rotations,
                splats.opacities,
                colours(splats, self.camera),
            )
            prepared = _prepare(
                tuple(_array(tensor) for tensor in given), classes, self.camera, splats.anchor
            )
        present = self.codes if splats.semantics is not None else self.codes[:0]
        weights = self.weights if splats.semantics is not None else self.weights[:0]
        _draw(prepared, self.sums, weights, present, np.empty(self.sums.shape[1:], np.uint8))

    def rendering(self, background: Tensor) -> Rendering:
        """The current picture over a background colour (3,)."""
        sums = torch.from_numpy(self.sums)
        if len(self.codes):
            best = self.weights.argmax(axis=0)
            most = np.take_along_axis(self.weights, best[None], 0)[0]
            labels = np.where(most > 0, self.codes[best], 0).astype(np.uint8)
        else:
            labels = np.zeros(self.sums.shape[1:], np.uint8)
        return _rendering(
            sums[LIGHT].abs(),
            sums[COLOUR : COLOUR + 3],
            sums[NORMAL : NORMAL + 3].clone(),
            sums[DEPTH],
            sums[DEPTH2],
            sums[MEDIAN].clone(),
            sums[NEAREST],
            torch.from_numpy(labels),
            background,
            self.camera,
        )


def _check(splats: SplatTensors) -> None:
    if splats.device.type != "cpu":
        raise SplatError(
            f"the CPU rasterizer got tensors on {splats.device}", "move them to the CPU"
        )
    if splats.dtype != torch.float32:
        raise SplatError(
            f"the CPU rasterizer draws float32, not {splats.dtype}",
            "convert, or use rasterize_reference",
        )


def _numbered(splats: SplatTensors) -> tuple[NDArray, NDArray]:
    """The class codes that occur (k,), and the index of each Gaussian's code (n,), both uint8."""
    if splats.semantics is None:
        return np.empty(0, np.uint8), np.zeros(len(splats), np.uint8)
    codes = splats.semantics.numpy()
    occurs = np.bincount(codes, minlength=256) > 0
    return np.nonzero(occurs)[0].astype(np.uint8), (np.cumsum(occurs) - 1).astype(np.uint8)[codes]


def _array(tensor: Tensor) -> NDArray:
    return np.ascontiguousarray(tensor.detach().numpy())


def _canvas(camera: Camera) -> NDArray:
    canvas = np.zeros((CHANNELS, camera.height, camera.width), np.float32)
    canvas[LIGHT] = 1
    return canvas


def _require(size: int, what: str, shape: tuple[int, ...]) -> None:
    if size < memory.ASK:
        return
    available = memory.free(torch.device("cpu"))
    if available is not None and size > available:
        raise OutOfMemoryError(
            f"{what} in {shape[-1]:,} x {shape[-2]:,} pixels needs {size / 1e9:,.1f} GB, "
            f"{available / 1e9:,.1f} GB are free",
            "draw windows of it (Camera.crop), or Gaussians in batches (earthgen.splats.Canvas)",
        )


def _prepare(
    arrays: tuple[NDArray, ...], classes: NDArray, camera: Camera, anchor: Anchor
) -> Prepared:
    """Project Gaussians and sort them into tiles; `arrays` are means, scales, rotations, opacities
    and colours."""
    means, scales, rotations, opacities, colour = arrays
    count = len(means)
    _require(
        count * RECORD_BYTES + CHANNELS * 12 * camera.height * camera.width,
        "a picture",
        (camera.height, camera.width),
    )
    cam, orthographic = numbers(camera, anchor), camera.kind == "orthographic"
    records = np.empty((count, COLUMNS), np.float32)
    boxes, depths = np.empty((count, 4), np.int32), np.empty(count, np.float32)

    def work(first: int, last: int) -> None:
        project(
            means,
            scales,
            rotations,
            opacities,
            colour,
            classes,
            cam,
            orthographic,
            LEAST_ALPHA,
            first,
            last,
            records,
            boxes,
            depths,
        )

    side_by_side(work, stretches(count))
    _require(
        int(pairs(boxes)[-1]) * 4,
        f"the picture of {count:,} Gaussians",
        (camera.height, camera.width),
    )
    bins = bin_by_tile(boxes, depths, camera.width, camera.height)
    most = int(np.diff(bins.starts).max(initial=0))
    if most >= MOST_PAIRS:
        raise SplatError(
            f"{most:,} Gaussians lie over one tile of the picture, the limit is {MOST_PAIRS:,}",
            "draw them in batches (earthgen.splats.Canvas), or a coarser level of detail",
        )
    return Prepared(cam, orthographic, records, boxes, bins)


def _draw(
    prepared: Prepared, canvas: NDArray, weights: NDArray, codes: NDArray, labels: NDArray
) -> None:
    bins, near = prepared.bins, np.float32(prepared.cam[16])

    def work(first: int, last: int) -> None:
        draw_tiles(
            first,
            last,
            bins.starts,
            bins.rows,
            bins.across,
            prepared.records,
            near,
            canvas,
            weights,
            codes,
            labels,
        )

    share(np.diff(bins.starts), work)


def _stack(gradients: tuple[Tensor | None, ...], shape: tuple[int, ...]) -> NDArray:
    """(GIVEN, h, w) float32 gradients; absent ones are 0."""
    stacked = np.zeros((GIVEN, *shape), np.float32)
    at = 0
    for gradient, channels in zip(gradients, (1, 3, 3, 1, 1, 1), strict=True):
        if gradient is not None:
            stacked[at : at + channels] = gradient.detach().numpy()
        at += channels
    return stacked


def _back(prepared: Prepared, canvas: NDArray, given: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Slots, places and parts for `earthgen.splats.raster.projection.project_back`."""
    bins, near = prepared.bins, np.float32(prepared.cam[16])
    slots = pairs(prepared.boxes)
    size = int(slots[-1])
    _require(
        size * (GRADIENTS + 1) * 4,
        f"the gradient of {len(prepared.boxes):,} Gaussians",
        canvas.shape,
    )
    places = np.full(size, -1, np.int32)
    parts = np.empty((size, GRADIENTS), np.float32)

    def work(first: int, last: int) -> None:
        back_tiles(
            first,
            last,
            bins.starts,
            bins.rows,
            bins.across,
            prepared.records,
            near,
            canvas,
            given,
            prepared.boxes,
            slots,
            places,
            parts,
        )

    share(np.diff(bins.starts), work)
    return slots, places, parts
