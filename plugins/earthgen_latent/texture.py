"""The texture backend `latent`: colours of voxels by TexFM, straight or through TexVAE's latent.

It takes any geometry: the inputs of the networks are its voxels, their classes and normals, the
class seen from above, the image of the job's conditions, and a colour for the roof, the walls or
the crown of each object, drawn from a palette.

The flow may also start from the colours of another texture backend, noised (SDEdit: Meng et al.,
ICLR 2022, arXiv 2108.01073): it then keeps their pattern and adds what it has learned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from earthgen import plugins
from earthgen.errors import ModelError, UnknownNameError
from earthgen.models.presets import BlockConfig
from earthgen.models.tex_flow import (
    TOLD,
    ColourScales,
    TexFlow,
    object_parts,
    told_features,
)
from earthgen.models.tex_vae import TexVAE, voxel_features
from earthgen.noise.philox import Noise
from earthgen.sparse.sites import Place, Sites, make_sites
from earthgen.sparse.tensor import SparseTensor
from earthgen.splats.spherical_harmonics import C0
from earthgen.stages.backends import Cost, TextureBackend
from earthgen.stages.blending import STATE
from earthgen.stages.block import Block, Field
from earthgen.stages.stage import Read, Stage
from earthgen.stages.voxel_blending import VOXEL_BLENDING_RULES, voxel_blending_stages
from earthgen.terrain.cover import on_surface, raster_on, semantics_on
from earthgen.voxels.object_colours import (
    PALETTES,
    draw_object_colours,
    mapped_colours,
    with_mapped_colours,
)
from earthgen.voxels.splat_math import base_colours
from earthgen.voxels.surface import ground_slopes, surface_splats, unshear_normals
from earthgen.voxels.voxels import Geometry, Splats, Voxels, texture_fields
from earthgen_latent.classes import painted_classes
from earthgen_latent.costs import count_cost
from earthgen_latent.height_map import STRIDE
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

TOLD_COLOURS = "latent.told-colours"

STRENGTH = 0.5
"""Default share of the way that the flow goes if it starts from given colours."""

CONTEXT, WIDEST = 8, 256
"""Voxels around the core of a window that are coloured as context, and the widest core. Colours at
the edge of a core differ by 0.02 of 255 from those of a much larger window: measured with the
shipped weights. It is within the margin of windows of geometry, so that a window of colours needs
no neighbour."""

MAX_HALO = 96
"""Largest margin of a decoder's windows, voxels; with a farther reach, seams may be visible."""


@dataclass(frozen=True)
class ColourSampler:
    """An `earthgen.stages.voxel_blending.VoxelSampler` of the states of TexFM.

    Attributes
    ----------
    style : str
        As of `LatentTexture`.
    start : str
        Stage whose colours the flow starts from, "" for noise alone.
    strength : float
        Share of the way that the flow goes from there.
    """

    networks: Networks
    sampling: Sampling
    window: int
    stride: int
    name: str = "latent.colours"
    voxels: str = "geometry"
    style: str = ""
    start: str = ""
    strength: float = 1.0

    @property
    def channels(self) -> int:
        """Channels of the state."""
        return int(self.networks.config(FLOW).channels)

    @property
    def reads(self) -> tuple[Read, ...]:
        """Inputs of the stage."""
        told = (Read(TOLD_COLOURS),) if self.networks.config(FLOW).told else ()
        return Read("geometry"), Read("image"), *told, *((Read(self.start),) if self.start else ())

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
            told, part = told_on(inputs, order, networks.device)
            condition = model.condition(conditions, sites, classes, normal, told)
            guided = sampling.guidance != 1
            free = model.condition(conditions.hidden(), sites, None, normal) if guided else None
            style = networks.style_number(FLOW, self.style)
            predict = model.predictor(sites, condition, free, sampling.guidance, style)
            features = torch.from_numpy(state[order]).to(networks.device)
            if self.start:
                first = 1 - self.strength
                if start == 0:
                    colours = base_colours(inputs[self.start].sparse["sh"][order])
                    scales = colour_scales(model, told, part, style)
                    given = self._state_of(model, scales, sites, colours, normal)
                    features = first * given + (1 - first) * features
                start, stop = (first + self.strength * time for time in (start, stop))
            result = sampling.integrate(model.flow, predict, features, start, stop)
        out = np.empty_like(state)
        out[order] = result.float().cpu().numpy()
        return out

    def _state_of(
        self,
        model: TexFlow,
        scales: ColourScales | None,
        sites: Sites,
        rgb: NDArray,
        normal: torch.Tensor,
    ) -> torch.Tensor:
        """The state of (n, 3) uint8 colours, (n, channels)."""
        colours = torch.from_numpy(rgb).to(sites.device).float() / 255
        if scales is not None:
            return scales.to_state(SparseTensor(sites, colours)).features
        vae: TexVAE = self.networks(VAE)
        latent = vae.encode(voxel_features(sites, colours, normal)).mean
        return vae.statistics.normalised(latent).features


def told_on(
    inputs: Mapping[str, Any], order: NDArray, device: str
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return told colours, (n, TOLD), and parts of objects, (n,), of sites; None if not told."""
    if TOLD_COLOURS not in inputs:
        return None, None
    fields = inputs[TOLD_COLOURS].sparse
    told = torch.from_numpy(fields["told"][order]).to(device)
    return told, torch.from_numpy(fields["part"][order].astype(np.int64)).to(device)


def colour_scales(
    model: TexFlow,
    told: torch.Tensor | None,
    part: torch.Tensor | None,
    style: torch.Tensor | None,
) -> ColourScales | None:
    """Return what states of colours are relative to; None for a flow of latents."""
    if model.config.target != "rgb":
        return None
    number = None if part is None or style is None else style.long().expand(len(part))
    return model.colour_scales(told, part, number)


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
    variant : int
        Another one gives other colours for the same geometry.
    device : str
        Device of torch.
    sparse_backend : str, optional
        As --sparse-backend.
    precision : str
        Of products, in `earthgen_latent.networks.PRECISIONS`.
    use, steps, method, guidance, shift, rule, phases
        As of `earthgen_latent.sampling.Sampling`; the rules are those for voxels.
    style : str
        What colours look like: "rules", "real", "any"; "" is "rules" if the weights know it.
    palette : str
        Where the colours of objects are drawn from, in `earthgen.voxels.PALETTES`; "" is that of
        the style. Weights that take no colours of objects ignore it.
    start : str
        Name of a texture backend whose colours the flow starts from; "" is noise alone.
    strength : float
        Share of the way from noise that the flow goes, above 0 and at most 1; for `start`.
    """

    name = "latent"

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        window: int | None = None,
        stride: int | None = None,
        variant: int = 0,
        device: str = "cpu",
        sparse_backend: str | None = None,
        precision: str = "auto",
        use: str | Sequence[str] = CONDITIONS,
        steps: int = Sampling.steps,
        method: str = Sampling.method,
        guidance: float = Sampling.guidance,
        shift: float = Sampling.shift,
        rule: str = "independent",
        phases: int = Sampling.phases,
        style: str = "",
        palette: str = "",
        start: str = "",
        strength: float = STRENGTH,
    ) -> None:
        self.sampling = Sampling(steps, method, guidance, shift, condition_names(use), rule, phases)
        if self.sampling.rule not in VOXEL_BLENDING_RULES:
            raise ModelError(
                f"unknown rule {self.sampling.rule!r} for voxels of neighbouring windows",
                f"choose from {', '.join(VOXEL_BLENDING_RULES)}",
            )
        if not 0 < strength <= 1:
            raise ModelError(
                f"the strength {strength} is out of range", "give one above 0 and at most 1"
            )
        parts: tuple[str, ...] = (FLOW,)
        opened = open_networks(weights, parts, device, sparse_backend, precision)
        if opened.config(FLOW).target == "latent":
            parts = (FLOW, VAE)
            opened = open_networks(weights, parts, device, sparse_backend, precision)
        super().__init__(opened)
        self.decoders = parts[1:]
        self.networks.style_number(FLOW, style)  # a clear error before anything is made
        self.style, self.palette = style, self._palette(palette, style)
        self.strength, self.first = strength, self._first(start)
        self.unit = 2 ** (len(self.networks.config(FLOW).unet.channels) - 1)
        self.given = window is not None or stride is not None or rule != "independent"
        self.window, self.stride = window_lattice(window, stride, self.networks.window, self.unit)
        self.variant = variant

    def _palette(self, palette: str, style: str) -> str:
        if palette and palette not in PALETTES:
            raise UnknownNameError(
                f"unknown palette {palette!r}", f"choose from {', '.join(PALETTES)}"
            )
        known = self.networks.trained_styles(FLOW)
        named = style or (known[0] if known else "rules")
        return palette or ("rules" if named == "any" else named)

    def _first(self, start: str) -> TextureBackend | None:
        """The backend whose colours the flow starts from."""
        if not start:
            return None
        if start == self.name:
            raise ModelError(
                f"texture {start!r} cannot start from its own colours",
                "name another texture backend, such as 'procedural'",
            )
        first = plugins.load().create("texture", start)
        if not isinstance(first, TextureBackend):
            raise ModelError(
                f"texture {start!r} is a {type(first).__name__}, not an earthgen.TextureBackend",
                "name another texture backend, such as 'procedural'",
            )
        # The identity of worlds has to change with the other backend.
        self.version = f"{self.version}, from {first.name} {first.version}"
        self.requires = first.requires
        if first.weights is not None:
            self.weights = f"{self.weights},{first.name}={first.weights}"
        return first

    def check(self, frame: Frame) -> None:
        """Raise an error if a world on `frame` cannot be made."""
        super().check(frame)
        if self.first is not None:
            self.first.check(frame)

    def cost(self) -> Cost:
        """Return the cost of a column of voxels."""
        window, stride = self.lattice(STRIDE)
        return count_cost(self.networks, self.sampling, window, stride, (FLOW,), self.decoders)

    def lattice(self, step: int) -> tuple[int, int]:
        """Return window and stride of the flow's windows for geometry with windows at `step`.

        Without options they are the windows of the geometry and its margin.
        """
        if self.given:
            return self.window, self.stride
        width = step if step <= WIDEST else math.gcd(step, WIDEST)
        return width + 2 * (-(-CONTEXT // self.unit) * self.unit), width

    def stages(self, geometry: Stage) -> Sequence[Stage]:
        """Return the stages: told colours, states of the voxels, Gaussians on the geometry's
        windows."""
        before = [] if self.first is None else list(self.first.stages(geometry))
        window, stride = self.lattice(geometry.step)
        colours = ColourSampler(
            self.networks,
            self.sampling,
            window,
            stride,
            f"latent.colours{variant_suffix(self.variant)}",
            style=self.style,
            start=before[-1].name if before else "",
            strength=self.strength,
        )
        told_too = self.networks.config(FLOW).told
        if told_too:
            told = partial(tell_colours, self.networks, self.palette)
            fields = {
                "told": Field("float32", (TOLD,), sparse=True),
                "part": Field("uint8", sparse=True),
            }
            # With the margin of the flow's windows, which then read no neighbour; else on cores,
            # with a cell around them for slopes.
            own = stride == geometry.step and window <= geometry.window
            width = window if own else geometry.step
            reads = (Read("geometry", cells=0 if own else 1), Read("semantics"))
            before.append(Stage(TOLD_COLOURS, width, fields, told, reads, geometry.step))
        halo = 0
        if self.decoders:
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
                "image" in self.sampling.use,
                self.style,
            ),
            (
                # A cell around the window, for slopes.
                Read("geometry", cells=max(halo, 1)),
                Read(colours.name, cells=max(halo, 1)),
                *((Read(TOLD_COLOURS, cells=max(halo, 1)),) if told_too else ()),
                Read("image"),
            ),
        )
        blended = voxel_blending_stages(colours, self.sampling.rule, self.sampling.phases)
        return [*before, *blended, last]


def tell_colours(
    networks: Networks, palette: str, window: Frame, inputs: Inputs, noise: Noise
) -> Block:
    """Return the told colours of the voxels of `window`, one for each part of an object.

    They are those of the map where it has any, and else drawn.
    """
    geometry = Geometry.of(inputs["geometry"])
    voxels = geometry.voxels
    sites, order = voxel_sites(voxels.xyz, replace(geometry.frame, z=networks.band), "cpu")
    part = np.empty(len(voxels), np.int64)
    part[order] = object_parts(
        sites,
        torch.from_numpy(voxels.semantic[order]),
        torch.from_numpy(lattice_normals(geometry)[order]),
        torch.from_numpy(voxels.object[order].astype(np.int64)),
    ).numpy()
    inside = np.flatnonzero(voxels.inside(window))
    core = voxels.take(inside, window)
    rgb, known = draw_object_colours(core.object, part[inside], noise, palette)
    layer = semantics_on(inputs, window)
    mapped = mapped_colours(layer.buildings, core)
    rgb, known = with_mapped_colours(rgb, known, part[inside], mapped)
    told = told_features(torch.from_numpy(rgb / np.float32(255)), torch.from_numpy(known))
    fields = {"told": told.numpy(), "part": part[inside].astype(np.uint8)}
    return Block(window, {}, voxels.xyz[inside], fields)


def make_splats(
    networks: Networks,
    colours: str,
    images: bool,
    style: str,
    window: Frame,
    inputs: Inputs,
    noise: Noise,
) -> Block:
    """Return the Gaussians of `window`, from states on it and a margin of the decoder's reach.

    The networks give the colour. Shape and place of each Gaussian come from the geometry
    (`surface_splats`), so that the surface is covered without holes and roofs stay as smooth as the
    geometry made them.

    `images` says whether the network takes the image, which has the colours of all classes.
    """
    geometry = Geometry.of(inputs["geometry"])
    states: Block = inputs[colours]
    voxels = geometry.voxels
    inside = np.flatnonzero(voxels.inside(window))
    with inference(networks):
        sites, order = voxel_sites(
            voxels.xyz, replace(geometry.frame, z=networks.band), networks.device
        )
        features = torch.from_numpy(states.sparse[STATE][order]).to(networks.device)
        state = SparseTensor(sites, features)
        flow: TexFlow = networks(FLOW)
        number = networks.style_number(FLOW, style)
        scales = colour_scales(flow, *told_on(inputs, order, networks.device), number)
        if scales is not None:
            made = scales.to_colours(state)
        else:
            vae: TexVAE = networks(VAE)
            made = vae.decode(vae.statistics.restored(state)).clamp(0, 1)
    rgb = np.empty((len(voxels), 3), np.float32)
    rgb[order] = made.float().cpu().numpy() * np.float32(255)
    leaf = on_surface(voxels.semantic, "wood", "tree", "shrub")
    own = surface_splats(geometry, rgb, np.where(leaf, LEAF_ALPHA, 1.0)).take(inside)
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
