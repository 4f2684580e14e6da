"""TexVAE: Gaussians that have the colour and place of their voxels, and then look like them in
rendered views.

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
from earthgen.models.gaussian_head import Discs, upright
from earthgen.models.tex_vae import tex_loss, voxel_features
from earthgen.splats.cameras.camera import Camera, look_at
from earthgen.splats.metrics import psnr, ssim
from earthgen.splats.raster.rendering import rasterize
from earthgen.splats.spherical_harmonics import C0
from earthgen.splats.tensors import SplatTensors
from earthgen.training.batches import Batch, make_batch
from earthgen.training.parts.autoencoder import autoencoder_task
from earthgen.training.parts.common import SHOWN, Context, mean_figures
from earthgen.training.perceptual import missing, perceptual
from earthgen.training.pictures import SKY, sheet, view
from earthgen.training.task import Losses, Task
from geo_io.frame import Frame

PART = "tex-vae"

STATISTICS_CROPS = 24
"""Crops over which mean and deviation of the latents are taken."""

KNOWN = 0.999
"""Share of a pixel that has to show sky, or voxels of known colour. What is drawn least covers
1/255 of one."""

FIELD = 50.0
"""Field of view of rendered views, degrees."""


def tex_vae_task(context: Context) -> Task:
    settings = context.settings
    weight = 1e-4 if settings.divergence is None else settings.divergence
    looks = settings.perceptual > 0 and not missing()

    def loss(model: Any, batch: Batch, generator: torch.Generator, share: float) -> Losses:
        latent, found = model(features(batch), batch.normal, generator)
        lost = tex_loss(
            latent, found, batch.rgb, batch.normal, known=batch.trust, divergence_weight=weight
        )
        total = lost.total
        parts = {"colour": lost.colour, "shape": lost.shape, "divergence": lost.divergence}
        drawn = torch.rand(4, generator=generator, device=generator.device).tolist()
        if share >= settings.render_from and drawn[0] * settings.render_every < 1:
            which = min(int(drawn[1] * len(batch)), len(batch) - 1)
            crop = batch.crops[which]
            if len(crop):
                camera = random_view(crop.frame, crop, drawn[2], drawn[3], settings.render_size)
                views = compared(found, batch, which, camera)
                seen = view_losses(
                    *views,
                    l1=settings.l1,
                    ssim_weight=settings.ssim,
                    perceptual_weight=settings.perceptual if looks else 0.0,
                )
                parts |= {name: each for name, each in seen.items() if name != "views"}
                total = total + seen["views"]
        return total, parts

    def latents(model: Any, batch: Batch) -> Tensor:
        found: Tensor = model.encode(features(batch)).mean.features
        return found

    return autoencoder_task(context, PART, loss, latents, STATISTICS_CROPS, figures, picture)


def features(batch: Batch) -> Any:
    """What TexVAE encodes."""
    return voxel_features(batch.sites, batch.rgb, batch.normal)


def view_losses(
    picture: Tensor, truth: Tensor, *, l1: float, ssim_weight: float, perceptual_weight: float
) -> dict[str, Tensor]:
    """L1, 1 - SSIM and the perceptual distance of (h, w, 3) pictures, and `views`, their
    weighted sum."""
    # In float32: SSIM is a difference of nearly equal numbers.
    with torch.autocast(picture.device.type, enabled=False):
        clipped = picture.clamp(0, 1)
        parts = {"view_l1": (picture - truth).abs().mean(), "view_ssim": 1 - ssim(clipped, truth)}
        total = l1 * parts["view_l1"] + ssim_weight * parts["view_ssim"]
        if perceptual_weight:
            parts["view_perceptual"] = perceptual(clipped, truth)
            total = total + perceptual_weight * parts["view_perceptual"]
    return {**parts, "views": total}


def random_view(frame: Frame, crop: Crop, around: float, down: float, side: int) -> Camera:
    """A camera on a crop's middle; around and down in [0, 1): its azimuth, and 25 to 85 degrees
    of slope."""
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


def true_discs(batch: Batch) -> Discs:
    """Opaque discs in the surface, with the colours of their voxels."""
    size, count = batch.sites.place.voxel_size, len(batch.sites)
    sh = torch.zeros(count, 4, 3)
    sh[:, 0] = (batch.rgb.cpu() - 0.5) / C0
    device = batch.sites.device
    return Discs(
        torch.zeros(count, 3, device=device),
        torch.full((count, 2), 0.5 * size, device=device),
        upright(batch.normal),
        torch.full((count,), 0.99, device=device),
        sh.to(device),
        size,
    )


def splats_of(found: Discs, batch: Batch, which: int = 0) -> SplatTensors:
    """The Gaussians of one sample, in space."""
    first, last = batch.sites.bounds[which : which + 2]
    rows = slice(first, last)
    mine = Discs(
        found.offset[rows],
        found.scale[rows],
        found.rotation[rows],
        found.opacity[rows],
        found.sh[rows],
        found.voxel_size,
    )
    crop = batch.crops[which]
    return mine.splats(batch.sites.lattice()[rows], crop.frame, crop.ground)


def compared(found: Discs, batch: Batch, which: int, camera: Camera) -> tuple[Tensor, Tensor]:
    """The same view (h, w, 3) of found and of true Gaussians.

    Pixels on which voxels of no known colour are seen are taken from the true picture: they say
    nothing.
    """
    with torch.autocast(batch.sites.device.type, enabled=False):
        picture = rasterize(splats_of(found, batch, which), camera, background=SKY).rgb
        with torch.no_grad():
            told = true_discs(batch)
            truth = rasterize(splats_of(told, batch, which), camera, background=SKY).rgb.clamp(0, 1)
            sh = torch.zeros_like(told.sh)
            sh[:, 0] = ((batch.trust > 0).float()[:, None] - 0.5) / C0
            known = rasterize(
                splats_of(replace(told, sh=sh), batch, which), camera, background=(1.0, 1.0, 1.0)
            ).rgb
    return torch.where(known > KNOWN, picture, truth), truth


@torch.no_grad()
def figures(
    model: Any, crop: Crop, device: torch.device | str = "cpu", side: int = 128
) -> dict[str, float]:
    """Of one crop: PSNR of the colours of voxels, and PSNR, L1 and SSIM of two views."""
    batch = make_batch([crop]).to(device)
    latent = model.encode(features(batch))
    found = model.decode(latent.mean, batch.normal)
    row = {"divergence": float(latent.divergence())}
    if bool(batch.seen.any()):
        error = (found.sh[:, 0] * C0 + 0.5 - batch.rgb)[batch.seen]
        row |= {
            "colour": float(error.abs().mean()),
            "colour_psnr": -10 * math.log10(float(error.square().mean()) + 1e-9),
        }
    rows = []
    for around, down in ((0.1, 0.3), (0.6, 0.9)):
        picture, truth = compared(
            found, batch, 0, random_view(crop.frame, crop, around, down, side)
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
    """True and decoded Gaussians."""
    rows = []
    for crop in crops[:SHOWN]:
        batch = make_batch([crop]).to(device)
        found = model.decode(model.encode(features(batch)).mean, batch.normal)
        both = (splats_of(true_discs(batch), batch), splats_of(found, batch))
        rows.append([view(each, crop.frame, crop.ground) for each in both])
    return sheet(rows, ["true colours", "through the latent"])
