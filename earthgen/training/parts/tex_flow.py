"""TexFM: colours of true voxels, or the latents of TexVAE on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from earthgen.dataset.crop import Crop
from earthgen.models.build import make_model
from earthgen.models.conditions import CONDITIONS, Conditions, mix_conditions
from earthgen.models.flow import sample
from earthgen.models.presets import TexFlowConfig
from earthgen.models.tex_flow import (
    LEAST_SPREAD,
    ColourScales,
    ObjectColours,
    colour_spread,
    deviations,
    object_colours,
    object_parts,
    tex_flow_loss,
    told_features,
)
from earthgen.sparse.tensor import SparseTensor
from earthgen.training.batches import Batch, make_batch
from earthgen.training.map_noise import noisy_ground
from earthgen.training.parts.common import (
    SAMPLING_STEPS,
    SHOWN,
    TaskContext,
    draw_batch,
    hide_styles,
    keep_conditions,
    load_trained,
    mean_figures,
)
from earthgen.training.parts.tex_vae import covering_splats, encoder_features
from earthgen.training.pictures import sheet, view
from earthgen.training.randomness import derive_seed, torch_generator
from earthgen.training.settings import TexFlowSettings
from earthgen.training.task import Losses, StepCost, Task
from earthgen.voxels.object_colours import OTHER, ROOF, WALL

PART = "tex-flow"

SAMPLED = {
    "": (("semantics",), False),
    "told_": (("semantics",), True),
    "by_image_": (("semantics", "image"), False),
}
"""Conditions that held-out crops are sampled under, and whether colours of objects are told, by the
prefix of their figures."""

STATISTICS_CROPS = 24
"""Crops over which mean and deviation of the colours are taken."""


@dataclass(frozen=True)
class Codec:
    """What a flow learns: how batches become its states, and states colours.

    Attributes
    ----------
    encode : (model, batch, scales, generator or None) -> SparseTensor
        The state of a batch; without a generator, that of the latent's mean.
    decode : (model, state, scales) -> Tensor (n, 3)
        Colours in [0, 1].
    scales : (model, told, part, style) -> ColourScales or None
        What the state of colours is relative to; None for latents.
    flops : (sites) -> int
        Operations of `encode`, counted as of a training step.
    latents : str
        Digest of the autoencoder, "" for none.
    """

    encode: Callable[[Any, Batch, Any, torch.Generator | None], SparseTensor]
    decode: Callable[[Any, SparseTensor, Any], Tensor]
    scales: Callable[..., ColourScales | None]
    flops: Callable[[Any], int]
    latents: str = ""


COLOURS = Codec(
    lambda model, batch, scales, generator: scales.to_state(SparseTensor(batch.sites, batch.rgb)),
    lambda model, state, scales: scales.to_colours(state),
    lambda model, told, part, style: model.colour_scales(told, part, style),
    lambda sites: 0,
)
"""Of a flow of colours."""


def latent_codec(vae: Any, digest: str = "") -> Codec:
    """Return the codec of a flow of the latents of a TexVAE."""

    def encode(
        model: Any, batch: Batch, scales: None, generator: torch.Generator | None
    ) -> SparseTensor:
        latent = vae.encode(encoder_features(batch, vae)).sample(generator)
        state: SparseTensor = vae.statistics.normalised(latent)
        return state

    def decode(model: Any, state: SparseTensor, scales: None) -> Tensor:
        colours: Tensor = vae.decode(vae.statistics.restored(state)).clamp(0, 1)
        return colours

    # The frozen encoder has no backward pass: it counts a third of a forward pass.
    return Codec(
        encode,
        decode,
        lambda model, told, part, style: None,
        lambda sites: vae.encoder.flops(sites) // 3,
        digest,
    )


def flow_config(context: TaskContext[TexFlowSettings]) -> TexFlowConfig:
    """Return the configuration of the flow: the preset's, with the target of the settings."""
    config = context.preset.tex_flow
    target = context.settings.target
    return config if target is None else config.model_copy(update={"target": target})


def make_codec(context: TaskContext[TexFlowSettings]) -> Codec:
    """Return the codec of the flow that a context trains.

    Raises
    ------
    TrainingError
        If it is one of latents, and TexVAE was not trained.
    """
    if flow_config(context).target == "rgb":
        return COLOURS
    vae, header = load_trained(context, "tex-vae")
    return latent_codec(vae, header.digest)


def tex_flow_task(context: TaskContext[TexFlowSettings]) -> Task:
    """Return the task of TexFM.

    Raises
    ------
    TrainingError
        As of `make_codec`.
    """
    settings = context.settings
    codec = make_codec(context)

    def loss(model: Any, batch: Batch, generator: torch.Generator, share: float) -> Losses:
        batch = noisy_ground(batch, settings.map_ratio, settings.map_noise, generator)
        conditions = mix_conditions(batch.conditions, settings.condition_mixture, generator)
        with torch.no_grad():
            parts = colours_of_objects(batch)
            told = told_in_training(parts, len(batch), settings.told_dropout, generator)
            style = hide_styles(batch.style, settings.style_dropout, generator)
            scales = codec.scales(model, told, parts.part[parts.group], style_of(batch, style))
            state = codec.encode(model, batch, scales, generator)
        value = tex_flow_loss(
            model,
            state,
            conditions,
            generator,
            semantic=visible_classes(batch, conditions),
            normal=batch.normal,
            told=told,
            style=style,
            weight=batch.trust,
        )
        return value, {"flow": value}

    def work(model: Any, batch: Batch) -> StepCost:
        maps = model.cond_net.flops(batch.shape[1::-1], model.unet.levels(batch.sites))
        flops = model.flops(batch.sites) + len(batch) * maps + codec.flops(batch.sites)
        return StepCost(len(batch), len(batch.sites), flops)

    @torch.no_grad()
    def measure(model: Any) -> dict[str, float]:
        rows = []
        for crop in context.data.held_out:
            batch = make_batch([crop]).to(context.device)
            parts = colours_of_objects(batch)
            row: dict[str, float] = {}
            for prefix, colours in sample_sets(model, codec, batch, parts, context.seed):
                row |= {
                    prefix + name: value
                    for name, value in colour_figures(colours, batch, parts).items()
                }
            conditions = keep_conditions(batch.conditions, "semantics")
            generator = torch_generator(context.seed, PART, "measure", device=context.device)
            row["flow"] = float(
                tex_flow_loss(
                    model,
                    codec.encode(
                        model,
                        batch,
                        codec.scales(model, None, parts.part[parts.group], None),
                        None,
                    ),
                    conditions,
                    generator,
                    semantic=visible_classes(batch, conditions),
                    normal=batch.normal,
                    style=batch.style,
                    weight=batch.trust,
                )
            )
            rows.append(row)
        return mean_figures(rows)

    return Task(
        part=PART,
        make=lambda: new_flow(context),
        batch=lambda step, rank: draw_batch(context, PART, step, rank, settings.max_voxels),
        loss=loss,
        work=work,
        measure=measure,
        picture=lambda model: picture(model, codec, context.examples, context),
        latents=codec.latents,
    )


def new_flow(context: TaskContext[TexFlowSettings]) -> nn.Module:
    """Return a flow with new weights; one of colours with the statistics of the training's."""
    seed = derive_seed(context.seed, PART, "weights")
    model: Any = make_model(PART, flow_config(context), seed=seed)
    if model.statistics is not None:
        seed = derive_seed(context.seed, PART, "statistics")
        batches = [
            make_batch([context.data.crop(seed, number)]) for number in range(STATISTICS_CROPS)
        ]
        model.statistics.fit(torch.cat([batch.rgb[batch.seen] for batch in batches]))
        if model.by_object:
            fit_spread(model, batches)
    return model


def fit_spread(model: Any, batches: Sequence[Batch]) -> None:
    """Set the scale of each part of objects to how far its colours are from the told one.

    Row 0, of any style, is over all batches. Where a style shows no such part, it has row 0's.
    """
    squares, counts = torch.zeros_like(model.spread), torch.zeros_like(model.spread)
    for batch in batches:
        parts = colours_of_objects(batch)
        of = torch.where(parts.known[parts.group], parts.part[parts.group], OTHER)[batch.seen]
        away = (batch.rgb - parts.colour[parts.group])[batch.seen].square().mean(1)
        for row in {0, min(int(batch.style[0]), len(squares) - 1)}:
            squares[row].index_add_(0, of, away)
            counts[row].index_add_(0, of, torch.ones(len(of)))
    spread = (squares / counts.clamp(min=1)).sqrt().clamp(min=LEAST_SPREAD)
    spread[0] = torch.where(counts[0] > 0, spread[0], model.statistics.deviation.mean())
    model.spread.copy_(torch.where(counts > 0, spread, spread[0]))


def style_of(batch: Batch, style: Tensor) -> Tensor:
    """Return the style of each voxel, (n,) int64, of those of the samples, (batch,)."""
    return style.long()[batch.sites.coordinates[:, 0].long()]


def colours_of_objects(batch: Batch) -> ObjectColours:
    """Return the true colours of the parts of the objects of a batch."""
    part = object_parts(batch.sites, batch.semantic, batch.normal, batch.object)
    return object_colours(batch.sites, batch.object, part, batch.rgb, batch.seen)


def told_in_training(
    parts: ObjectColours, samples: int, dropout: float, generator: torch.Generator
) -> Tensor:
    """Return the told colours of a batch, (n, TOLD): all, none, or those of some objects.

    Parameters
    ----------
    parts : ObjectColours
        Of the batch.
    samples : int
        Samples of the batch.
    dropout : float
        Probability that a sample is told nothing. Of the others, half are told all, and half those
        of every other object.
    generator : torch.Generator
        Draws what is told.
    """
    device = parts.known.device
    random = torch.rand(2, samples, generator=generator, device=generator.device).to(device)
    ratio = torch.where(random[0] < dropout, 0.0, torch.where(random[1] < 0.5, 1.0, 0.5))
    of_group = torch.rand(len(parts.known), generator=generator, device=generator.device)
    known = parts.known & (of_group.to(device) < ratio[parts.sample])
    return told_features(parts.colour[parts.group], known[parts.group])


def visible_classes(batch: Batch, conditions: Conditions) -> Tensor:
    """Return class codes of voxels, 0 in samples whose land cover is hidden, (n,)."""
    shown = conditions.shown(batch.sites.device)[:, CONDITIONS.index("semantics")]
    return batch.semantic * shown[batch.sites.coordinates[:, 0].long()]


@torch.no_grad()
def sample_colours(
    model: Any,
    codec: Codec,
    batch: Batch,
    conditions: Conditions,
    seed: int,
    parts: ObjectColours,
    told: bool,
) -> Tensor:
    """Sample the colours of a batch, (n, 3) in [0, 1].

    Parameters
    ----------
    model : TexFlow
        The network.
    codec : Codec
        Decodes its states.
    batch : Batch
        The voxels.
    conditions : Conditions
        What the network is given.
    seed : int
        Key of the noise.
    parts : ObjectColours
        Of the batch.
    told : bool
        Whether the network is told the colours of objects.
    """
    known = told_features(parts.colour[parts.group], parts.known[parts.group]) if told else None
    sites = batch.sites
    generator = torch_generator(seed, PART, "sample", device=sites.device)
    noise = torch.randn(len(sites), model.channels, generator=generator, device=sites.device)
    classes = visible_classes(batch, conditions)
    condition = model.condition(conditions, sites, classes, batch.normal, known)
    predict = model.predictor(sites, condition, style=batch.style)
    state = sample(model.flow, predict, noise, steps=SAMPLING_STEPS)
    scales = codec.scales(model, known, parts.part[parts.group], style_of(batch, batch.style))
    return codec.decode(model, SparseTensor(sites, state), scales)


def sample_sets(
    model: Any, codec: Codec, batch: Batch, parts: ObjectColours, seed: int
) -> Iterator[tuple[str, Tensor]]:
    """Yield the prefix of each set of `SAMPLED`, and the colours sampled under it, (n, 3)."""
    for prefix, (names, told) in SAMPLED.items():
        conditions = keep_conditions(batch.conditions, *names)
        yield prefix, sample_colours(model, codec, batch, conditions, seed, parts, told)


def colour_figures(colours: Tensor, batch: Batch, parts: ObjectColours) -> dict[str, float]:
    """Compare sampled colours of voxels with seen ones.

    Parameters
    ----------
    colours : Tensor (n, 3)
        Sampled, in [0, 1].
    batch : Batch
        With the true ones.
    parts : ObjectColours
        Of the true colours.

    Returns
    -------
    dict of str to float
        `colour_psnr` in dB, `colour_spread`, the ratio of the standard deviations; `roof_spread`
        and `wall_spread`, the ratio of the deviations from the mean of the roof or of the walls of
        a building; and `wall_match`, the correlation of the deviations on walls, where windows are
        seen. Empty, or without what no voxel shows.
    """
    if not bool(batch.seen.any()):
        return {}
    colour, true = colours[batch.seen], batch.rgb[batch.seen]
    error = float((colour - true).square().mean())
    row = {"colour_psnr": -10 * math.log10(error + 1e-9)}
    if len(true) > 1:
        row["colour_spread"] = float(colour.std(0).mean() / true.std(0).mean().clamp(min=1e-3))
    of_part = parts.part[parts.group]
    for name, which in (("roof", ROOF), ("wall", WALL)):
        counted = batch.seen & parts.known[parts.group] & (of_part == which)
        truth = float(colour_spread(batch.rgb, parts.group, counted))
        if truth < 1e-3:
            continue
        row[f"{name}_spread"] = float(colour_spread(colours, parts.group, counted)) / truth
        if which == WALL:
            a, b = (deviations(each, parts.group, counted).mean(1) for each in (colours, batch.rgb))
            scale = (a.square().sum() * b.square().sum()).sqrt().clamp(min=1e-9)
            row["wall_match"] = float((a * b).sum() / scale)
    return row


@torch.no_grad()
def picture(
    model: Any, codec: Codec, crops: Sequence[Crop], context: TaskContext[Any]
) -> Image.Image | None:
    """Draw true colours and sampled ones."""
    rows = []
    for crop in crops[:SHOWN]:
        batch = make_batch([crop]).to(context.device)
        parts = colours_of_objects(batch)
        row = [view(covering_splats(batch, 0, batch.rgb), crop.frame, crop.ground)]
        for _, colours in sample_sets(model, codec, batch, parts, context.seed):
            row.append(view(covering_splats(batch, 0, colours), crop.frame, crop.ground))
        rows.append(row)
    titles = ["true colours", "sampled: land cover", "cover + told colours", "cover + image"]
    return sheet(rows, titles)
