"""The texture backend `latent`: a latent of each voxel by TexFM, and from it one Gaussian a voxel
by TexVAE.

It takes any geometry: what the networks are told are its voxels, their classes and normals, and the
class that is seen from above; of the conditions, the image.
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
from earthgen.sparse import SparseTensor
from earthgen.sparse.sites import Place, Sites, make_sites
from earthgen.splats.spherical_harmonics import C0
from earthgen.stages.backends import Cost
from earthgen.stages.blending import STATE
from earthgen.stages.block import Block
from earthgen.stages.stage import Read, Stage
from earthgen.stages.voxel_blending import VOXEL_RULES, agree_on_voxels
from earthgen.terrain.cover import raster_on
from earthgen.voxels.surface import ground_slopes, unsheared_normals
from earthgen.voxels.voxels import Geometry, Splats, Voxels, texture_fields
from earthgen_latent.classes import paints
from earthgen_latent.costs import cost_of
from earthgen_latent.networks import Learned, Networks, inference, open_networks
from earthgen_latent.sampling import Sampling, lattice, names, variant_name
from earthgen_latent.structure import conditions_of
from geo_io.frame import Frame

if TYPE_CHECKING:
    from earthgen.stages.block import Inputs

FLOW, VAE = "tex-flow", "tex-vae"

TOLD = ("semantics", "image")
"""Conditions that TexFM is trained with."""

FARTHEST = 96
"""Voxels: the most that a decoder's windows read around them; one that looks farther may show
where they meet."""


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
        return int(self.networks.config(FLOW).latent)

    @property
    def reads(self) -> tuple[Read, ...]:
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
        """(n, channels) float32 at time `stop`."""
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
                networks.told(FLOW, cover),
                None,
                raster_on(inputs, "image", window),
            )
            sites, order = sites_of(xyz, frame, networks.device)
            normal = torch.from_numpy(lattice_normals(geometry)[order]).to(networks.device)
            semantic = torch.from_numpy(networks.told(FLOW, geometry.voxels.semantic[order])).to(
                networks.device
            )
            known = semantic if conditions.semantics is not None else None
            told = model.condition(conditions, sites, known, normal)
            guided = sampling.guidance != 1
            free = model.condition(conditions.hidden(), sites, None, normal) if guided else None
            predict = model.predictor(sites, told, free, sampling.guidance)
            features = torch.from_numpy(state[order]).to(networks.device)
            found = sampling.follow(
                model.flow, predict, features, start, stop, FLOW in networks.few_steps
            )
        out = np.empty_like(state)
        out[order] = found.float().cpu().numpy()
        return out


def sites_of(xyz: NDArray, frame: Frame, device: str) -> tuple[Sites, NDArray]:
    """Sites of voxels in a frame, and (n,) int64: the row of xyz that each is."""
    local = xyz - np.array([frame.x[0], frame.y[0], frame.z[0]], np.int32)
    rows = torch.from_numpy(np.pad(local, ((0, 0), (1, 0))))
    sites, order = make_sites(rows, place=Place.of(frame))
    return sites.to(device), order.numpy()


def seen_from_above(geometry: Geometry) -> tuple[NDArray, NDArray]:
    """Of the highest voxel of each column: its class, (ny, nx) uint8, 0 for none; and its height
    z, (ny, nx) int32."""
    frame, voxels = geometry.frame, geometry.voxels
    cover, level = np.zeros(frame.shape, np.uint8), np.full(frame.shape, -1, np.int32)
    row, col = frame.y[1] - 1 - voxels.xyz[:, 1], voxels.xyz[:, 0] - frame.x[0]
    last = np.ones(len(voxels), bool)  # voxels are sorted by column, then upwards
    last[:-1] = (voxels.xyz[1:, :2] != voxels.xyz[:-1, :2]).any(axis=1)
    cover[row[last], col[last]] = voxels.semantic[last]
    level[row[last], col[last]] = voxels.xyz[last, 2]
    return cover, level


def lattice_normals(geometry: Geometry) -> NDArray:
    """(n, 3) float32 unit normals in ground-relative space, where the networks live."""
    return unsheared_normals(geometry.normal, *ground_slopes(geometry))


def decoder_reach(kinds: str, blocks: BlockConfig) -> int:
    """How many voxels away, at most, a chain of blocks looks."""
    far = {"c": 1, "s": blocks.window - 1, "t": blocks.window - 1}
    return sum(far.get(kind, FARTHEST) for kind in kinds)


class LatentTexture(Learned):
    """Gaussians over the voxels of any geometry.

    weights : folder of a set; None for the one that the package comes with
    steps, method, guidance, shift, use, rule, phases : as of `Sampling`; the rules are those for
        voxels
    window, stride : of the flow's windows, voxels; None for what suits the weights
    sh_degree : 1 keeps what changes with the view
    variant : other colours for the same geometry
    device : of torch; sparse_backend : as --sparse-backend; precision : of products, "fp32" or
        "bf16"
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
        use: str | Sequence[str] = TOLD,
        **sampling: Any,
    ) -> None:
        self.sampling = Sampling(use=names(use), **sampling)
        if self.sampling.rule not in VOXEL_RULES:
            raise ModelError(
                f"there is no rule {self.sampling.rule!r} for voxels of neighbouring windows",
                f"choose of {', '.join(VOXEL_RULES)}",
            )
        if sh_degree not in (0, 1):
            raise ModelError(
                f"there are no harmonics of degree {sh_degree}", "give sh_degree 0 or 1"
            )
        self.networks = open_networks(weights, (FLOW, VAE), device, sparse_backend, precision)
        unit = 2 ** (len(self.networks.config(FLOW).unet.channels) - 1)
        self.window, self.stride = lattice(window, stride, self.networks.window, unit)
        self.sh_degree, self.variant = sh_degree, variant

    def cost(self) -> Cost:
        """What a column of voxels takes."""
        return cost_of(self.networks, self.sampling, self.window, self.stride, (FLOW,), (VAE,))

    def stages(self, geometry: Stage) -> Sequence[Stage]:
        """Latents of the voxels under the rule, then Gaussians on the geometry's windows."""
        colours = ColourSampler(
            self.networks,
            self.sampling,
            self.window,
            self.stride,
            f"latent.colours{variant_name(self.variant)}",
        )
        config = self.networks.config(VAE)
        halo = min(decoder_reach(config.decoder, config.blocks), FARTHEST)
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
        return [*agree_on_voxels(colours, self.sampling.rule, self.sampling.phases), last]


def make_splats(
    networks: Networks,
    colours: str,
    sh_degree: int,
    images: bool,
    window: Frame,
    inputs: Inputs,
    noise: Noise,
) -> Block:
    """The Gaussians of `window`, from the latents on it and as far around as the decoder looks.

    images : whether the network is told the image, and so knows colours of classes that it was not
        trained on
    """
    geometry = Geometry.of(inputs["geometry"])
    latents: Block = inputs[colours]
    voxels = geometry.voxels
    inside = voxels.inside(window)
    with inference(networks):
        vae: TexVAE = networks(VAE)
        sites, order = sites_of(
            voxels.xyz, replace(geometry.frame, z=networks.band), networks.device
        )
        features = torch.from_numpy(latents.sparse[STATE][order]).to(networks.device)
        normal = torch.from_numpy(geometry.normal[order].astype(np.float32)).to(networks.device)
        found = vae.decode(vae.statistics.restored(SparseTensor(sites, features)), normal)
        splats = found.arrays(sh_degree)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    mine, there = splats.take(back[inside]), voxels.take(inside, window)
    image = raster_on(inputs, "image", window)
    unseen = np.ones(window.shape, bool) if image is None or not images else image[..., 3] == 0
    return painted(mine, there, unseen, networks.known(FLOW)).block(there)


def painted(splats: Splats, voxels: Voxels, unseen: NDArray, known: tuple[str, ...]) -> Splats:
    """With rules' colours for classes that the network knows no relative of.

    unseen : (ny, nx) bool, columns of which no image tells the colour; known : classes that the
        network was trained on
    """
    which, colours = paints(known)
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
