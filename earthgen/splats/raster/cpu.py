"""The rasteriser for CPUs: tiles on threads, with gradients, or batch after batch on a canvas."""

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
from earthgen.splats.raster import backward as raster_backward
from earthgen.splats.raster import forward as raster_forward
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
)
from earthgen.splats.raster.model import LEAST_ALPHA, Rendering, check_frame
from earthgen.splats.raster.projection import COLUMNS, GRADIENTS, numbers, project, project_back
from earthgen.splats.raster.threads import share, side_by_side, stretches
from earthgen.splats.tensors import SplatTensors, check_values

RECORD_BYTES = 4 * COLUMNS + 16 + 4 + 12
"""Bytes a Gaussian takes before it is drawn: record, box, depth, colour."""


@dataclass(frozen=True)
class Drawn:
    """Gaussians as they were drawn: what the way back needs."""

    cam: NDArray
    orthographic: bool
    records: NDArray
    boxes: NDArray
    bins: Bins


def rasterize_on_cpu(splats: SplatTensors, camera: Camera, background: Tensor) -> Rendering:
    """See `earthgen.splats.raster.rendering.rasterize`, which has checked the values."""
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
    """Light left, sums of colour (3, h, w), normal (3, h, w), depth and its square; median,
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
        arrays = tuple(_array(given) for given in (means, scales, rotations, opacities, colour))
        drawn = _binned(arrays, classes, camera, anchor)
        canvas = _canvas(camera)
        labels = np.zeros((camera.height, camera.width), np.uint8)
        _draw(drawn, canvas, np.empty((0, camera.height, camera.width), np.float32), codes, labels)
        ctx.save_for_backward(means, scales, rotations)
        ctx.drawn, ctx.canvas = drawn, canvas
        there = torch.from_numpy(canvas)
        nearest, labelled = there[NEAREST].clone(), torch.from_numpy(labels)
        ctx.mark_non_differentiable(nearest, labelled)
        light = there[LIGHT].abs()
        rgb, normal = there[COLOUR : COLOUR + 3].clone(), there[NORMAL : NORMAL + 3].clone()
        return (
            light,
            rgb,
            normal,
            there[DEPTH].clone(),
            there[DEPTH2].clone(),
            there[MEDIAN].clone(),
            nearest,
            labelled,
        )

    @staticmethod
    def backward(ctx: Any, *given: Any) -> Any:
        drawn: Drawn = ctx.drawn
        means, scales, rotations = [_array(tensor) for tensor in ctx.saved_tensors]
        slots, places, parts = _back(drawn, ctx.canvas, _stacked(given[:6], ctx.canvas.shape[1:]))
        to = [np.zeros_like(array) for array in (means, scales, rotations)]
        to += [np.zeros(len(means), np.float32), np.zeros((len(means), 3), np.float32)]
        to_means, to_scales, to_rotations, to_opacities, to_colours = to

        def work(first: int, last: int) -> None:
            project_back(
                means,
                scales,
                rotations,
                drawn.cam,
                drawn.orthographic,
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
    """A picture that Gaussians are drawn on batch after batch, each batch behind those before it.

    Attributes
    ----------
    camera : of the picture
    sums : (CHANNELS, h, w) float32, see `earthgen.splats.raster.forward`
    weights : (classes, h, w) float32, what each class has of a pixel
    codes : (classes,) uint8, rising
    """

    camera: Camera
    sums: NDArray
    weights: NDArray
    codes: NDArray

    @classmethod
    def blank(cls, camera: Camera, codes: NDArray) -> Canvas:
        """Nothing yet, for Gaussians of the classes `codes` (k,) uint8; more classes take more
        memory.

        Raises
        ------
        OutOfMemoryError
            if the picture does not fit
        """
        known = np.unique(np.asarray(codes, np.uint8))
        _require(
            (CHANNELS + len(known) + 20) * 4 * camera.height * camera.width,
            "a picture",
            (camera.height, camera.width),
        )
        return cls(
            camera,
            _canvas(camera),
            np.zeros((len(known), camera.height, camera.width), np.float32),
            known,
        )

    @property
    def closed(self) -> bool:
        """Whether no Gaussian further back can be seen at any pixel."""
        return bool((self.sums[LIGHT] < 0).all())

    def add(self, splats: SplatTensors) -> None:
        """Draw a batch: Gaussians that all lie deeper than those drawn before, in any order; no
        gradients.

        Batches that split Gaussians sorted by depth give what one call of `rasterize` does. Where a
        later batch reaches before an earlier one it is composited behind it nevertheless.

        Raises
        ------
        SplatError
            if a class is not among the canvas's
        others
            as of `earthgen.splats.raster.rendering.rasterize`
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
                    f"class {codes[unknown][0]} is not among the canvas's {self.codes.tolist()}",
                    "name it to `blank`",
                )
        with torch.no_grad():
            given = (
                splats.means,
                splats.scales,
                splats.rotations,
                splats.opacities,
                colours(splats, self.camera),
            )
            drawn = _binned(
                tuple(_array(tensor) for tensor in given), classes, self.camera, splats.anchor
            )
        known = self.codes if splats.semantics is not None else self.codes[:0]
        weights = self.weights if splats.semantics is not None else self.weights[:0]
        _draw(drawn, self.sums, weights, known, np.empty(self.sums.shape[1:], np.uint8))

    def rendering(self, background: Tensor) -> Rendering:
        """The picture so far over a background (3,)."""
        there = torch.from_numpy(self.sums)
        if len(self.codes):
            best = self.weights.argmax(axis=0)
            most = np.take_along_axis(self.weights, best[None], 0)[0]
            labels = np.where(most > 0, self.codes[best], 0).astype(np.uint8)
        else:
            labels = np.zeros(self.sums.shape[1:], np.uint8)
        return _rendering(
            there[LIGHT].abs(),
            there[COLOUR : COLOUR + 3],
            there[NORMAL : NORMAL + 3].clone(),
            there[DEPTH],
            there[DEPTH2],
            there[MEDIAN].clone(),
            there[NEAREST],
            torch.from_numpy(labels),
            background,
            self.camera,
        )


def _check(splats: SplatTensors) -> None:
    if splats.device.type != "cpu":
        raise SplatError(
            f"the CPU rasteriser got tensors on {splats.device}", "move them to the CPU"
        )
    if splats.dtype != torch.float32:
        raise SplatError(
            f"the CPU rasteriser draws float32, not {splats.dtype}",
            "convert, or use rasterize_reference",
        )


def _numbered(splats: SplatTensors) -> tuple[NDArray, NDArray]:
    """The classes there are (k,), and the number among them of each Gaussian (n,), uint8 both."""
    if splats.semantics is None:
        return np.empty(0, np.uint8), np.zeros(len(splats), np.uint8)
    codes = splats.semantics.numpy()
    there = np.bincount(codes, minlength=256) > 0
    return np.nonzero(there)[0].astype(np.uint8), (np.cumsum(there) - 1).astype(np.uint8)[codes]


def _array(tensor: Tensor) -> NDArray:
    return np.ascontiguousarray(tensor.detach().numpy())


def _canvas(camera: Camera) -> NDArray:
    canvas = np.zeros((CHANNELS, camera.height, camera.width), np.float32)
    canvas[LIGHT] = 1
    return canvas


def _require(size: int, what: str, shape: tuple[int, ...]) -> None:
    if size < memory.ASK:
        return
    there = memory.free(torch.device("cpu"))
    if there is not None and size > there:
        raise OutOfMemoryError(
            f"{what} in {shape[-1]:,} x {shape[-2]:,} pixels needs {size / 1e9:,.1f} GB, {there / 1e9:,.1f} GB are "
            "free",
            "draw windows of it (Camera.crop), or Gaussians in batches (earthgen.splats.raster.cpu.Canvas)",
        )


def _binned(arrays: tuple[NDArray, ...], classes: NDArray, camera: Camera, anchor: Anchor) -> Drawn:
    """Project Gaussians and sort them into tiles.

    arrays : means, scales, rotations, opacities and colours
    """
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
            f"{most:,} Gaussians lie over one tile of the picture, it can draw {MOST_PAIRS:,}",
            "draw them in batches (earthgen.splats.raster.cpu.Canvas), or a coarser level of detail",
        )
    return Drawn(cam, orthographic, records, boxes, bins)


def _draw(drawn: Drawn, canvas: NDArray, weights: NDArray, codes: NDArray, labels: NDArray) -> None:
    bins, near = drawn.bins, np.float32(drawn.cam[16])

    def work(first: int, last: int) -> None:
        raster_forward.draw_tiles(
            first,
            last,
            bins.starts,
            bins.rows,
            bins.across,
            drawn.records,
            near,
            canvas,
            weights,
            codes,
            labels,
        )

    share(np.diff(bins.starts), work)


def _stacked(given: tuple[Tensor | None, ...], shape: tuple[int, ...]) -> NDArray:
    """(GIVEN, h, w) float32 of the gradients that there are."""
    stacked = np.zeros((raster_backward.GIVEN, *shape), np.float32)
    at = 0
    for gradient, channels in zip(given, (1, 3, 3, 1, 1, 1), strict=True):
        if gradient is not None:
            stacked[at : at + channels] = gradient.detach().numpy()
        at += channels
    return stacked


def _back(drawn: Drawn, canvas: NDArray, given: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Slots, places and parts, as of `earthgen.splats.raster.projection.project_back`."""
    bins, near = drawn.bins, np.float32(drawn.cam[16])
    slots = pairs(drawn.boxes)
    size = int(slots[-1])
    _require(
        size * (GRADIENTS + 1) * 4, f"the gradient of {len(drawn.boxes):,} Gaussians", canvas.shape
    )
    places = np.full(size, -1, np.int32)
    parts = np.empty((size, GRADIENTS), np.float32)

    def work(first: int, last: int) -> None:
        raster_backward.back_tiles(
            first,
            last,
            bins.starts,
            bins.rows,
            bins.across,
            drawn.records,
            near,
            canvas,
            given,
            drawn.boxes,
            slots,
            places,
            parts,
        )

    share(np.diff(bins.starts), work)
    return slots, places, parts
