"""TexVAE: Gaussians with the colour and place of their voxels, later compared in rendered views.

The paper compares views with photographs. A scene here has colours of voxels and no photographs, so
the true picture of a view is that of opaque discs with the voxels' own colours, drawn by the same
rasteriser.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from earthgen.dataset.crop import Crop
from earthgen.models.gaussian_head import VoxelGaussians, rotation_from_normal
from earthgen.models.image_features import missing_package
from earthgen.models.tex_vae import tex_loss, voxel_features
from earthgen.sparse.tensor import SparseTensor
from earthgen.splats.cameras.camera import Camera, look_at
from earthgen.splats.metrics import psnr, ssim
from earthgen.splats.raster.rendering import rasterize
from earthgen.splats.spherical_harmonics import C0
from earthgen.splats.tensors import SplatTensors
from earthgen.training.batches import Batch, make_batch
from earthgen.training.parts.autoencoder import autoencoder_task
from earthgen.training.parts.common import SHOWN, TaskContext, mean_figures
from earthgen.training.perceptual import perceptual
from earthgen.training.pictures import SKY, sheet, view
from earthgen.training.settings import TexVaeSettings
from earthgen.training.task import Losses, Task
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
        latent, gaussians = model(encoder_features(batch), batch.normal, generator)
        losses = tex_loss(
            latent,
            gaussians,
            batch.rgb,
            batch.normal,
            known=batch.trust,
            kl_weight=settings.kl_weight,
        )
        total = losses.total
        parts = {"colour": losses.colour, "shape": losses.shape, "divergence": losses.divergence}
        random = torch.rand(4, generator=generator, device=generator.device).tolist()
        if share >= settings.render_start and random[0] * settings.render_every < 1:
            which = min(int(random[1] * len(batch)), len(batch) - 1)
            crop = batch.crops[which]
            if len(crop):
                camera = random_view(crop.frame, crop, random[2], random[3], settings.render_size)
                views = render_pair(gaussians, batch, which, camera)
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
        means: Tensor = model.encode(encoder_features(batch)).mean.features
        return means

    return autoencoder_task(context, PART, loss, latents, STATISTICS_CROPS, figures, picture)


def encoder_features(batch: Batch) -> SparseTensor:
    """Return the features that TexVAE encodes."""
    return voxel_features(batch.sites, batch.rgb, batch.normal)


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
        In [0, 1): the azimuth as a share of a turn, and the slope between 25 and 85 degrees.
    side : int
        Pixels per edge.
    """
    edge = max(frame.nx, frame.ny) * frame.voxel_size
    azimuth, slope = 2 * math.pi * around, math.radians(25 + 60 * down)
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


def reference_gaussians(batch: Batch) -> VoxelGaussians:
    """Return opaque Gaussians in the surface, with the colours of their voxels."""
    size, count = batch.sites.place.voxel_size, len(batch.sites)
    sh = torch.zeros(count, 4, 3)
    sh[:, 0] = (batch.rgb.cpu() - 0.5) / C0
    device = batch.sites.device
    return VoxelGaussians(
        torch.zeros(count, 3, device=device),
        torch.full((count, 2), 0.5 * size, device=device),
        rotation_from_normal(batch.normal),
        torch.full((count,), 0.99, device=device),
        sh.to(device),
        size,
    )


def sample_splats(gaussians: VoxelGaussians, batch: Batch, which: int = 0) -> SplatTensors:
    """Return the Gaussians of one sample, in space."""
    first, last = batch.sites.bounds[which : which + 2]
    rows = slice(first, last)
    own = VoxelGaussians(
        gaussians.offset[rows],
        gaussians.scale[rows],
        gaussians.rotation[rows],
        gaussians.opacity[rows],
        gaussians.sh[rows],
        gaussians.voxel_size,
    )
    crop = batch.crops[which]
    return own.splats(batch.sites.lattice()[rows], crop.frame, crop.ground)


def render_pair(
    gaussians: VoxelGaussians, batch: Batch, which: int, camera: Camera
) -> tuple[Tensor, Tensor]:
    """Render the same view, (h, w, 3), of decoded and of true Gaussians.

    Pixels that show voxels of unknown colour are taken from the true picture: they do not count.
    """
    with torch.autocast(batch.sites.device.type, enabled=False):
        picture = rasterize(sample_splats(gaussians, batch, which), camera, background=SKY).rgb
        with torch.no_grad():
            reference = reference_gaussians(batch)
            truth = rasterize(
                sample_splats(reference, batch, which), camera, background=SKY
            ).rgb.clamp(0, 1)
            sh = torch.zeros_like(reference.sh)
            sh[:, 0] = ((batch.trust > 0).float()[:, None] - 0.5) / C0
            known = rasterize(
                sample_splats(replace(reference, sh=sh), batch, which),
                camera,
                background=(1.0, 1.0, 1.0),
            ).rgb
    return torch.where(known > KNOWN, picture, truth), truth


@torch.no_grad()
def figures(
    model: Any, crop: Crop, device: torch.device | str = "cpu", side: int = 128
) -> dict[str, float]:
    """Measure one crop: PSNR of the colours of voxels, and PSNR, L1 and SSIM of two views."""
    batch = make_batch([crop]).to(device)
    latent = model.encode(encoder_features(batch))
    gaussians = model.decode(latent.mean, batch.normal)
    row = {"divergence": float(latent.divergence())}
    if bool(batch.seen.any()):
        error = (gaussians.sh[:, 0] * C0 + 0.5 - batch.rgb)[batch.seen]
        row |= {
            "colour": float(error.abs().mean()),
            "colour_psnr": -10 * math.log10(float(error.square().mean()) + 1e-9),
        }
    rows = []
    for around, down in ((0.1, 0.3), (0.6, 0.9)):
        picture, truth = render_pair(
            gaussians, batch, 0, random_view(crop.frame, crop, around, down, side)
        )
        clipped = picture.clamp(0, 1)
        with torch.autocast(clipped.device.type, enabled=False):
            similar = float(ssim(clipped, truth))
        rows.append(
            {
                "view_psnr": float(psnr(clipped, truth)),
                "view_l1": float((clipped - truth).abs().mean()),
                "view_similarity": similar,
            }
        )
    return {**row, **mean_figures(rows)}


@torch.no_grad()
def picture(model: Any, crops: Sequence[Crop], device: torch.device | str) -> Image.Image | None:
    """Draw true and decoded Gaussians."""
    rows = []
    for crop in crops[:SHOWN]:
        batch = make_batch([crop]).to(device)
        gaussians = model.decode(model.encode(encoder_features(batch)).mean, batch.normal)
        both = (sample_splats(reference_gaussians(batch), batch), sample_splats(gaussians, batch))
        rows.append([view(each, crop.frame, crop.ground) for each in both])
    return sheet(rows, ["true colours", "through the latent"])
