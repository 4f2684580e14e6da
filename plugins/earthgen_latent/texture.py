"""The texture backend `latent`: a latent per voxel by TexFM, decoded to a Gaussian by TexVAE.

It takes any geometry: the inputs of the networks are its voxels, their classes and normals, the
class seen from above, and the image of the job's conditions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from earthgen.errors import ModelError
from earthgen.models.presets import BlockConfig
from earthgen.models.tex_flow import TexFlow
from earthgen.models.tex_vae import TexVAE
from earthgen.noise.philox import Noise
from earthgen.sparse.sites import Place, Sites, make_sites
from earthgen.sparse.tensor import SparseTensor
from earthgen.splats.spherical_harmonics import C0
from earthgen.stages.backends import Cost, TextureBackend
from earthgen.stages.blending import STATE
from earthgen.stages.block import Block
from earthgen.stages.stage import Read, Stage
from earthgen.stages.voxel_blending import VOXEL_BLENDING_RULES, voxel_blending_stages
from earthgen.terrain.cover import on_surface, raster_on
from earthgen.voxels.surface import ground_slopes, surface_splats, unshear_normals
from earthgen.voxels.voxels import Geometry, Splats, Voxels, texture_fields
from earthgen_latent.classes import painted_classes
from earthgen_latent.costs import count_cost
from earthgen_latent.networks import LearnedBackend, Networks, inference, open_networks
from earthgen_latent.sampling import Sampling, condition_names, variant_suffix, window_lattice
from earthgen_latent.structure import conditions_of
from geo_io.frame import Frame

if TYPE_CHECKING:
    from earthgen.stages.block import Inputs

FLOW, VAE = "tex-flow", "tex-vae"

CONDITIONS = ("semantics", "image")
"""Conditions of TexFM."""

LEAF_ALPHA = 0.98
"""Opacity of plants; all else is opaque."""

MAX_HALO = 96
"""Largest margin of a decoder's windows, voxels; with a farther reach, seams may be visible."""


@dataclass(frozen=True)
class ColourSampler:
    """An `earthgen.stages.voxel_blending.VoxelSampler` of textural latents."""

    networks: Networks
    sampling: Sampling
    window: int
    stride: int
    name: str = "latent.colours"
    voxels: str = "geometry"

    @property
    def channels(self) -> int:
        """Channels of the state."""
        return int(self.networks.config(FLOW).latent)

    @property
    def reads(self) -> tuple[Read, ...]:
        """Inputs of the stage."""
        return Read("geometry"), Read("image")

    def advance(
        self,
        state: NDArray,
        xyz: NDArray,
        window: Frame,
        inputs: Mapping[str, Any],
        start: float,
        stop: float,
    ) -> NDArray:
        """Return the state at time `stop`, (n, channels) float32."""
        networks, sampling = self.networks, self.sampling
        if not len(xyz):
            return state
        geometry = Geometry.of(inputs["geometry"])
        frame = replace(window, z=networks.band)
        cover, _ = seen_from_above(geometry)
        with inference(networks):
            model: TexFlow = networks(FLOW)
            conditions = conditions_of(
                frame,
                sampling,
                networks.device,
                networks.class_codes(FLOW, cover),
                None,
                raster_on(inputs, "image", window),
            )
            sites, order = voxel_sites(xyz, frame, networks.device)
            normal = torch.from_numpy(lattice_normals(geometry)[order]).to(networks.device)
            semantic = torch.from_numpy(
                networks.class_codes(FLOW, geometry.voxels.semantic[order])
            ).to(networks.device)
            classes = semantic if conditions.semantics is not None else None
            condition = model.condition(conditions, sites, classes, normal)
            guided = sampling.guidance != 1
            free = model.condition(conditions.hidden(), sites, None, normal) if guided else None
            predict = model.predictor(sites, condition, free, sampling.guidance)
            features = torch.from_numpy(state[order]).to(networks.device)
            result = sampling.integrate(
                model.flow, predict, features, start, stop, FLOW in networks.few_steps
            )
        out = np.empty_like(state)
        out[order] = result.float().cpu().numpy()
        return out


def voxel_sites(xyz: NDArray, frame: Frame, device: str) -> tuple[Sites, NDArray]:
    """Return the sites of voxels in a frame, and the row of `xyz` of each, (n,) int64."""
    local = xyz - np.array([frame.x[0], frame.y[0], frame.z[0]], np.int32)
    rows = torch.from_numpy(np.pad(local, ((0, 0), (1, 0))))
    sites, order = make_sites(rows, place=Place.of(frame))
    return sites.to(device), order.numpy()


def seen_from_above(geometry: Geometry) -> tuple[NDArray, NDArray]:
    """Return class, (ny, nx) uint8, and z, (ny, nx) int32, of the highest voxel of each column.

    Columns without voxels have class 0 and z = -1.
    """
    frame, voxels = geometry.frame, geometry.voxels
    cover, level = np.zeros(frame.shape, np.uint8), np.full(frame.shape, -1, np.int32)
    row, col = frame.y[1] - 1 - voxels.xyz[:, 1], voxels.xyz[:, 0] - frame.x[0]
    # Voxels are sorted by column, then upwards.
    last = np.ones(len(voxels), bool)
    last[:-1] = (voxels.xyz[1:, :2] != voxels.xyz[:-1, :2]).any(axis=1)
    cover[row[last], col[last]] = voxels.semantic[last]
    level[row[last], col[last]] = voxels.xyz[last, 2]
    return cover, level


def lattice_normals(geometry: Geometry) -> NDArray:
    """Return unit normals in ground-relative space, that of the networks, (n, 3) float32."""
    return unshear_normals(geometry.normal, *ground_slopes(geometry))


def decoder_reach(kinds: str, blocks: BlockConfig) -> int:
    """Return the largest distance, in voxels, of an input that a chain of blocks depends on."""
    far = {"c": 1, "s": blocks.window - 1, "t": blocks.window - 1}
    return sum(far.get(kind, MAX_HALO) for kind in kinds)


class LatentTexture(LearnedBackend, TextureBackend):
    """Gaussians for the voxels of any geometry.

    Parameters
    ----------
    weights : str or Path, optional
        Folder of a set; None is the set that the package comes with.
    window, stride : int, optional
        Of the flow's windows, voxels; None is the default of the weights.
    sh_degree : int
        0 or 1; 1 keeps what changes with the view.
    variant : int
        Another one gives other colours for the same geometry.
    device : str
        Device of torch.
    sparse_backend : str, optional
        As --sparse-backend.
    precision : str
        Of products, "fp32" or "bf16".
    use, steps, method, guidance, shift, rule, phases
        As of `earthgen_latent.sampling.Sampling`; the rules are those for voxels.
    """

    name = "latent"

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        window: int | None = None,
        stride: int | None = None,
        sh_degree: int = 0,
        variant: int = 0,
        device: str = "cpu",
        sparse_backend: str | None = None,
        precision: str = "fp32",
        use: str | Sequence[str] = CONDITIONS,
        steps: int = Sampling.steps,
        method: str = Sampling.method,
        guidance: float = Sampling.guidance,
        shift: float = Sampling.shift,
        rule: str = Sampling.rule,
        phases: int = Sampling.phases,
    ) -> None:
        self.sampling = Sampling(steps, method, guidance, shift, condition_names(use), rule, phases)
        if self.sampling.rule not in VOXEL_BLENDING_RULES:
            raise ModelError(
                f"unknown rule {self.sampling.rule!r} for voxels of neighbouring windows",
                f"choose from {', '.join(VOXEL_BLENDING_RULES)}",
            )
        if sh_degree not in (0, 1):
            raise ModelError(
                f"there are no harmonics of degree {sh_degree}", "give sh_degree 0 or 1"
            )
        super().__init__(open_networks(weights, (FLOW, VAE), device, sparse_backend, precision))
        unit = 2 ** (len(self.networks.config(FLOW).unet.channels) - 1)
        self.window, self.stride = window_lattice(window, stride, self.networks.window, unit)
        self.sh_degree, self.variant = sh_degree, variant

    def cost(self) -> Cost:
        """Return the cost of a column of voxels."""
        return count_cost(self.networks, self.sampling, self.window, self.stride, (FLOW,), (VAE,))

    def stages(self, geometry: Stage) -> Sequence[Stage]:
        """Return the stages: latents of the voxels, then Gaussians on the geometry's windows."""
        colours = ColourSampler(
            self.networks,
            self.sampling,
            self.window,
            self.stride,
            f"latent.colours{variant_suffix(self.variant)}",
        )
        config = self.networks.config(VAE)
        halo = min(decoder_reach(config.decoder, config.blocks), MAX_HALO)
        last = Stage(
            "latent.splats",
            geometry.step,
            texture_fields(self.sh_degree),
            partial(
                make_splats,
                self.networks,
                colours.name,
                self.sh_degree,
                "image" in self.sampling.use,
            ),
            (Read("geometry", cells=halo), Read(colours.name, cells=halo), Read("image")),
        )
        return [*voxel_blending_stages(colours, self.sampling.rule, self.sampling.phases), last]


def make_splats(
    networks: Networks,
    colours: str,
    sh_degree: int,
    images: bool,
    window: Frame,
    inputs: Inputs,
    noise: Noise,
) -> Block:
    """Return the Gaussians of `window`, from latents on it and a margin of the decoder's reach.

    The network gives colour and opacity to the surface, and what changes with the view. Shape and
    place of each Gaussian come from the geometry (`surface_splats`), so that the surface is covered
    without holes and roofs stay as smooth as the geometry made them.

    `images` says whether the network takes the image, which has the colours of all classes.
    """
    geometry = Geometry.of(inputs["geometry"])
    latents: Block = inputs[colours]
    voxels = geometry.voxels
    inside = voxels.inside(window)
    with inference(networks):
        vae: TexVAE = networks(VAE)
        sites, order = voxel_sites(
            voxels.xyz, replace(geometry.frame, z=networks.band), networks.device
        )
        features = torch.from_numpy(latents.sparse[STATE][order]).to(networks.device)
        normal = torch.from_numpy(geometry.normal[order].astype(np.float32)).to(networks.device)
        gaussians = vae.decode(vae.statistics.restored(SparseTensor(sites, features)), normal)
        decoded = gaussians.arrays(sh_degree)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    leaf = on_surface(voxels.semantic, "wood", "tree", "shrub")
    shapes = surface_splats(geometry, np.zeros((len(voxels), 3)), np.where(leaf, LEAF_ALPHA, 1.0))
    own = replace(shapes, sh=decoded.sh[back]).take(inside)
    core = voxels.take(inside, window)
    image = raster_on(inputs, "image", window)
    unseen = np.ones(window.shape, bool) if image is None or not images else image[..., 3] == 0
    return paint_unknown_classes(own, core, unseen, networks.trained_classes(FLOW)).block(core)


def paint_unknown_classes(
    splats: Splats, voxels: Voxels, unseen: NDArray, trained: tuple[str, ...]
) -> Splats:
    """Return Gaussians with rule-based colours for classes without a trained similar class.

    Parameters
    ----------
    splats, voxels : Splats, Voxels
        The n Gaussians and their voxels.
    unseen : NDArray (ny, nx) bool
        Columns whose colour no image gives.
    trained : tuple of str
        Classes that the network was trained on.
    """
    which, colours = painted_classes(trained)
    frame = voxels.frame
    rows = (
        which[voxels.semantic]
        & unseen[frame.y[1] - 1 - voxels.xyz[:, 1], voxels.xyz[:, 0] - frame.x[0]]
    )
    sh = np.where(rows[:, None, None], np.float32(0), splats.sh)
    sh[rows, 0] = (colours[voxels.semantic[rows]] / np.float32(255) - np.float32(0.5)) / np.float32(
        C0
    )
    return replace(splats, sh=sh.astype(np.float32))
