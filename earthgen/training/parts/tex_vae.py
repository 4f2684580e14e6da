"""TexVAE: colours of voxels, later compared in rendered views.

The paper compares views with photographs. A scene here has colours of voxels and no photographs, so
the true picture of a view shows the voxels' own colours. Both pictures show the same discs, those
that cover the surface of a world (`earthgen.voxels.surface_splats`), and evaluation compares the
same: a difference is one of colour. Views come from all sides, and half of them from so low that
they show walls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from earthgen.dataset.crop import Crop
from earthgen.models.gaussian_head import VoxelGaussians
from earthgen.models.image_features import missing_package
from earthgen.models.tex_vae import tex_loss, voxel_features
from earthgen.sparse.tensor import SparseTensor
from earthgen.splats.cameras.camera import Camera, look_at
from earthgen.splats.metrics import psnr, ssim
from earthgen.splats.raster.rendering import rasterize
from earthgen.splats.tensors import SplatTensors
from earthgen.training.batches import Batch, make_batch
from earthgen.training.parts.autoencoder import autoencoder_task
from earthgen.training.parts.common import SHOWN, TaskContext, mean_figures
from earthgen.training.parts.image_maps import image_maps
from earthgen.training.perceptual import perceptual
from earthgen.training.pictures import SKY, sheet, view
from earthgen.training.settings import TexVaeSettings
from earthgen.training.task import Losses, Task
from earthgen.voxels.shell import shell_geometry
from earthgen.voxels.surface import surface_splats
from geo_io.frame import Frame

PART = "tex-vae"

STATISTICS_CROPS = 24
"""Crops over which mean and deviation of the latents are taken."""

KNOWN = 0.999
"""Share of a pixel that has to show sky or voxels of known colour. A drawn Gaussian covers at
least 1/255 of a pixel."""

FIELD = 50.0
"""Field of view of rendered views, degrees."""


def tex_vae_task(context: TaskContext[TexVaeSettings]) -> Task:
    """Return the task of TexVAE."""
    settings = context.settings
    perceptual_weight = 0.0 if missing_package() else settings.perceptual_weight

    def loss(model: Any, batch: Batch, generator: torch.Generator, share: float) -> Losses:
        latent, colours = model(encoder_features(batch, model), generator)
        losses = tex_loss(
            latent, colours, batch.rgb, known=batch.trust, kl_weight=settings.kl_weight
        )
        total = losses.total
        parts = {"colour": losses.colour, "divergence": losses.divergence}
        random = torch.rand(4, generator=generator, device=generator.device).tolist()
        if share >= settings.render_start and random[0] * settings.render_every < 1:
            which = min(int(random[1] * len(batch)), len(batch) - 1)
            crop = batch.crops[which]
            if len(crop):
                camera = random_view(crop.frame, crop, random[2], random[3], settings.render_size)
                views = render_pair(colours, batch, which, camera)
                view_parts = view_losses(
                    *views,
                    l1_weight=settings.l1_weight,
                    ssim_weight=settings.ssim_weight,
                    perceptual_weight=perceptual_weight,
                )
                parts |= {name: each for name, each in view_parts.items() if name != "views"}
                total = total + view_parts["views"]
        return total, parts

    def latents(model: Any, batch: Batch) -> Tensor:
        means: Tensor = model.encode(encoder_features(batch, model)).mean.features
        return means

    return autoencoder_task(context, PART, loss, latents, STATISTICS_CROPS, figures, picture)


def encoder_features(batch: Batch, model: Any = None) -> SparseTensor:
    """Return the features that a TexVAE encodes, by default one without features of pictures."""
    own = voxel_features(batch.sites, batch.rgb, batch.normal)
    if model is None or model.config.inputs == own.features.shape[1]:
        return own
    return own.with_features(torch.cat([own.features, image_maps(batch)], 1))


def view_losses(
    picture: Tensor,
    truth: Tensor,
    *,
    l1_weight: float,
    ssim_weight: float,
    perceptual_weight: float,
) -> dict[str, Tensor]:
    """Return L1, 1 - SSIM and perceptual distance of two views, and `views`, their weighted sum.

    Parameters
    ----------
    picture, truth : Tensor (h, w, 3)
        sRGB in [0, 1].
    l1_weight, ssim_weight, perceptual_weight : float
        Weights of the terms.
    """
    # In float32: SSIM is a difference of nearly equal numbers.
    with torch.autocast(picture.device.type, enabled=False):
        clipped = picture.clamp(0, 1)
        parts = {"view_l1": (picture - truth).abs().mean(), "view_ssim": 1 - ssim(clipped, truth)}
        total = l1_weight * parts["view_l1"] + ssim_weight * parts["view_ssim"]
        if perceptual_weight:
            parts["view_perceptual"] = perceptual(clipped, truth)
            total = total + perceptual_weight * parts["view_perceptual"]
    return {**parts, "views": total}


def random_view(frame: Frame, crop: Crop, around: float, down: float, side: int) -> Camera:
    """Return a camera that looks at the middle of a crop.

    Parameters
    ----------
    frame : Frame
        The frame of the crop.
    crop : Crop
        The crop.
    around, down : float
        In [0, 1): the azimuth as a share of a turn, and how steeply the camera looks down, from 3
        degrees, which shows walls, to 85; half of the numbers give less than 24.
    side : int
        Pixels per edge.
    """
    edge = max(frame.nx, frame.ny) * frame.voxel_size
    azimuth, slope = 2 * math.pi * around, math.radians(3 + 82 * down**2)
    east, north = (frame.x[0] + frame.x[1]) / 2, (frame.y[0] + frame.y[1]) / 2
    target = (
        east * frame.voxel_size,
        north * frame.voxel_size,
        float(crop.ground.mean()) + 0.05 * edge,
    )
    away = 0.9 * edge
    flat = away * math.cos(slope)
    eye = (
        target[0] + flat * math.sin(azimuth),
        target[1] + flat * math.cos(azimuth),
        target[2] + away * math.sin(slope),
    )
    return look_at(
        eye,
        target,
        width=side,
        height=side,
        field_of_view=FIELD,
        crs=frame.crs,
        vertical_crs=frame.vertical_crs,
    )


def covering_splats(batch: Batch, which: int, colours: Tensor) -> SplatTensors:
    """Return the discs that cover one sample of a batch, in space.

    Parameters
    ----------
    batch : Batch
        The samples.
    which : int
        Number of the sample.
    colours : Tensor (n, 3) float32
        sRGB in [0, 1] of all voxels of the batch; gradients flow to them.
    """
    first, last = batch.sites.bounds[which : which + 2]
    crop = batch.crops[which]
    # The rows of a crop are sorted by (y, x, z), sites are not.
    x, y, z = batch.sites.lattice()[first:last].cpu().numpy().T
    rows = torch.from_numpy(np.lexsort((z, x, y))).to(colours.device)
    geometry = shell_geometry(crop.frame, crop.ground, crop.xyz, crop.semantic)
    shapes = surface_splats(geometry, np.zeros((len(crop), 3)))
    gaussians = VoxelGaussians.of(shapes, colours[first:last][rows])
    return gaussians.splats(crop.xyz, crop.frame, crop.ground)


def render_pair(colours: Tensor, batch: Batch, which: int, camera: Camera) -> tuple[Tensor, Tensor]:
    """Render the same view, (h, w, 3), of decoded and of true colours.

    Pixels that show voxels of unknown colour are taken from the true picture: they do not count.

    Parameters
    ----------
    colours : Tensor (n, 3) float32
        sRGB about [0, 1] of all voxels of the batch.
    batch : Batch
        The samples.
    which : int
        Number of the sample.
    camera : Camera
        The view.
    """
    with torch.autocast(batch.sites.device.type, enabled=False):
        picture = rasterize(covering_splats(batch, which, colours), camera, background=SKY).rgb
        with torch.no_grad():
            truth = rasterize(
                covering_splats(batch, which, batch.rgb), camera, background=SKY
            ).rgb.clamp(0, 1)
            trusted = (batch.trust > 0).float()[:, None].expand(-1, 3)
            known = rasterize(
                covering_splats(batch, which, trusted), camera, background=(1.0, 1.0, 1.0)
            ).rgb
    return torch.where(known > KNOWN, picture, truth), truth


def view_figures(picture: Tensor, truth: Tensor, shown: Tensor) -> dict[str, float]:
    """Compare two views of one sample, in training as in evaluation.

    Parameters
    ----------
    picture, truth : Tensor (h, w, 3)
        sRGB in [0, 1].
    shown : Tensor (h, w) bool
        Pixels that show the surface.

    Returns
    -------
    dict of str to float
        `view_psnr`, dB, and `view_l1` over the surface; `view_similarity`, SSIM of the whole view.
    """
    clipped = picture.clamp(0, 1)
    with torch.autocast(clipped.device.type, enabled=False):
        return {
            "view_psnr": float(psnr(clipped, truth, mask=shown)),
            "view_l1": float((clipped - truth).abs()[shown].mean()),
            "view_similarity": float(ssim(clipped, truth)),
        }


MEASURED_VIEWS = ((0.1, 0.1), (0.35, 0.4), (0.6, 0.7), (0.85, 0.95))
"""Azimuths and slopes, as of `random_view`, of the views of a held-out crop."""


@torch.no_grad()
def figures(
    model: Any, crop: Crop, device: torch.device | str = "cpu", side: int = 128
) -> dict[str, float]:
    """Measure one crop: PSNR of the colours of voxels, and PSNR, L1 and SSIM of views."""
    batch = make_batch([crop]).to(device)
    latent = model.encode(encoder_features(batch, model))
    colours = model.decode(latent.mean)
    row = {"divergence": float(latent.divergence())}
    if bool(batch.seen.any()):
        error = (colours - batch.rgb)[batch.seen]
        row |= {
            "colour": float(error.abs().mean()),
            "colour_psnr": -10 * math.log10(float(error.square().mean()) + 1e-9),
        }
    cameras = [random_view(crop.frame, crop, around, down, side) for around, down in MEASURED_VIEWS]
    return {**row, **mean_figures(compare_views(colours, batch, cameras))}


@torch.no_grad()
def compare_views(
    colours: Tensor, batch: Batch, cameras: Sequence[Camera]
) -> list[dict[str, float]]:
    """Return `view_figures` of views of a batch of one sample; none of views that show nothing."""
    rows = []
    for camera in cameras:
        picture, truth = render_pair(colours, batch, 0, camera)
        shown = rasterize(covering_splats(batch, 0, batch.rgb), camera).alpha > 0.5
        if bool(shown.any()):
            rows.append(view_figures(picture, truth, shown))
    return rows


@torch.no_grad()
def picture(model: Any, crops: Sequence[Crop], device: torch.device | str) -> Image.Image | None:
    """Draw true and decoded colours."""
    rows = []
    for crop in crops[:SHOWN]:
        batch = make_batch([crop]).to(device)
        decoded = model.decode(model.encode(encoder_features(batch, model)).mean)
        both = [covering_splats(batch, 0, each) for each in (batch.rgb, decoded)]
        rows.append([view(each, crop.frame, crop.ground) for each in both])
    return sheet(rows, ["true colours", "through the latent"])
