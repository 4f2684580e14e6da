"""The geometry backend `latent`: cells, latents and voxels by StructFM and StructVAE, along a
height map or without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earthgen.errors import PluginError
from earthgen.noise.philox import Noise
from earthgen.stages.backends import Cost
from earthgen.stages.blending import raised_cosine
from earthgen.stages.block import Block
from earthgen.stages.stage import Read, Stage
from earthgen.stages.voxel_blending import blend_voxels
from earthgen.terrain.cover import code, is_class, known_cover, on_surface, semantics_on
from earthgen.voxels.voxels import GEOMETRY_FIELDS
from earthgen_latent.costs import cost_of
from earthgen_latent.height_map import MARGIN, STRIDE
from earthgen_latent.heights import PART as HEIGHT_FLOW
from earthgen_latent.heights import HeightSampler, height_of
from earthgen_latent.known import COLUMNS, columns_stage
from earthgen_latent.networks import Learned, open_networks
from earthgen_latent.sampling import USE, Sampling, lattice, names
from earthgen_latent.solid import (
    HOUSE,
    SOLID,
    Columns,
    building_objects,
    crown_objects,
    raised,
    standing_classes,
)
from earthgen_latent.structure import (
    ABSENT,
    COARSE,
    FINE,
    HEIGHTS,
    OCCUPANCY,
    VAE,
    CoarseSampler,
    FineSampler,
    Structure,
    decode,
)
from geo_io.frame import Frame

if TYPE_CHECKING:
    from earthgen.stages.block import Inputs

VOXELS = "latent.voxels"


class LatentGeometry(Learned):
    """Voxels decoded from latents.

    weights : folder of a set; None for the one that the package comes with
    height_map : whether heights are generated first, as a condition of what follows; a surface
        model goes before them
    steps, method, guidance, shift, use, rule, phases : as of `Sampling`; `use` is what structure is
        told
    window, stride : of the flows' windows, voxels; None for what suits the weights
    surface : stride of the windows of voxels
    variant : other structures for the same heights
    device : of torch; sparse_backend : as --sparse-backend; precision : of products, "fp32" or
        "bf16"
    """

    name = "latent"

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        height_map: bool = True,
        window: int | None = None,
        stride: int | None = None,
        surface: int = STRIDE,
        variant: int = 0,
        device: str = "cpu",
        sparse_backend: str | None = None,
        precision: str = "fp32",
        use: str | Sequence[str] = USE,
        **sampling: Any,
    ) -> None:
        settings = Sampling(use=names(use), **sampling)
        made = height_map and "height" in settings.use
        parts = (COARSE, FINE, VAE, *((HEIGHT_FLOW,) if made else ()))
        networks = open_networks(weights, parts, device, sparse_backend, precision)
        cell = networks.config(VAE).stride
        unit = cell * networks.config(COARSE).patch
        if any(edge % unit for edge in networks.band):
            raise PluginError(
                f"the band {networks.band} of the weights is no multiple of {unit} voxels",
                "report it to the plugin's author",
            )
        wide, step = lattice(window, stride, networks.window, unit)
        self.networks = networks
        self.structure = Structure(networks, settings, wide, step, made, variant)
        self.surface = surface

    def cost(self) -> Cost:
        """What a column of voxels takes."""
        structure = self.structure
        flows = (COARSE, FINE, *((HEIGHT_FLOW,) if structure.heights else ()))
        return cost_of(
            self.networks, structure.sampling, structure.window, structure.stride, flows, (VAE,)
        )

    def stages(self) -> Sequence[Stage]:
        """Columns, heights, cells, latents, voxels' logits, surface."""
        structure = self.structure
        agreed = structure.sampling.stages
        stages = [columns_stage()]
        if structure.heights:
            heights = HeightSampler(
                self.networks, structure.sampling, structure.window, structure.stride, HEIGHTS
            )
            stages += agreed(heights)
        coarse, fine = CoarseSampler(structure), FineSampler(structure)
        stages += agreed(coarse)
        stages += agreed(fine)
        around = tuple(Read(stage.name, cells=structure.cell) for stage in (coarse, fine))
        merge = partial(
            blend_voxels,
            structure.window,
            structure.stride,
            raised_cosine,
            {"logit": ABSENT},
            ("semantic",),
        )
        stages.append(
            Stage(
                VOXELS,
                structure.window,
                OCCUPANCY,
                partial(decode, structure),
                around,
                structure.stride,
                merge=merge,
            )
        )
        reads = (*structure.sources, VOXELS, "semantics")
        last = Stage(
            "latent.surface",
            self.surface + 2 * MARGIN,
            GEOMETRY_FIELDS,
            partial(make_surface, structure),
            tuple(Read(source, cells=SOLID) for source in reads),
            self.surface,
        )
        return [*stages, last]


def make_surface(structure: Structure, window: Frame, inputs: Inputs, noise: Noise) -> Block:
    """The surface of `window`, from candidates whose logits are blended: they are thresholded
    here, once."""
    inner = window.pad(SOLID)
    known: Block = inputs[COLUMNS].crop(inner)
    voxels: Block = inputs[VOXELS].crop(inner)
    level, semantic, kept = tops_of(inner, voxels)
    top = exact_tops(inner, level, _heights(structure, inputs, inner, known))
    cover = known_cover(known["cover"])
    yard = is_class(cover, "building") & (top < HOUSE)
    top[on_surface(cover, "water") | yard] = 0
    standing = top > 0
    thing = np.where(standing, standing_classes(known["cover"], semantic), semantic)
    built = standing & is_class(thing, "building")
    layer = semantics_on(inputs, inner)
    number = np.where(built, building_objects(inner, layer, noise), crown_objects(inner, noise))
    land = np.where(known["cover"] != 0, known["cover"], np.where(standing, np.uint8(0), semantic))
    columns = Columns(
        top=top,
        ground_class=np.where(yard, np.uint8(code("paved")), known_cover(land)),
        semantic=known_cover(thing),
        object=np.where(standing, number, np.uint32(0)),
    )
    assert voxels.xyz is not None  # the stage has sparse fields
    # Below a top whose class the map corrects, voxels are corrected too.
    right = (thing == semantic)[inner.y[1] - 1 - voxels.xyz[:, 1], voxels.xyz[:, 0] - inner.x[0]]
    above = kept & right & (voxels.xyz[:, 2] >= 0) & (voxels.sparse["semantic"] != 0)
    ground = np.ascontiguousarray(known["ground"])
    return raised(
        window, inner, ground, columns, voxels.xyz[above], voxels.sparse["semantic"][above]
    ).block()


def _heights(
    structure: Structure, inputs: Mapping[str, Any], inner: Frame, known: Block
) -> NDArray:
    """(ny, nx) float32 metres above the ground as the condition has them, NaN where it has none."""
    height = known["above"]
    if HEIGHTS in inputs:
        height = np.where(
            np.isfinite(height), height, height_of(inputs[HEIGHTS].crop(inner), structure.networks)
        )
    return np.asarray(
        height if "height" in structure.sampling.use else np.full_like(height, np.nan)
    )


def tops_of(frame: Frame, voxels: Block) -> tuple[NDArray, NDArray, NDArray]:
    """The highest voxel of each column, (ny, nx) int32, its class, uint8, and (n,) bool, which
    candidates stay.

    voxels : candidates in the columns of `frame`, sorted by (y, x, z)

    Candidates stay where their logit is above 0. A column that has candidates and none above 0
    keeps the likeliest, of equals the lowest: a surface at even odds between two heights is no
    hole. A column without any is bare ground.
    """
    level, semantic = np.full(frame.shape, -1, np.int32), np.zeros(frame.shape, np.uint8)
    xyz, logit = voxels.xyz, voxels.sparse["logit"]
    if xyz is None or not len(xyz):
        return level, semantic, np.zeros(0, bool)
    keep = logit > 0
    column = (frame.y[1] - 1 - xyz[:, 1]).astype(np.int64) * frame.nx + (xyz[:, 0] - frame.x[0])
    order = np.lexsort((xyz[:, 2], -logit, column))
    best = order[np.concatenate([[True], column[order][1:] != column[order][:-1]])]
    filled = np.zeros(frame.nx * frame.ny, bool)
    filled[column[keep]] = True
    keep[best[~filled[column[best]]]] = True
    rows = np.flatnonzero(keep)  # of each column the last is the highest
    last = rows[np.concatenate([column[rows][1:] != column[rows][:-1], [True]])]
    level.reshape(-1)[column[last]] = xyz[last, 2]
    semantic.reshape(-1)[column[last]] = voxels.sparse["semantic"][last]
    return level, semantic, keep


def exact_tops(frame: Frame, level: NDArray, height: NDArray) -> NDArray:
    """(ny, nx) float32 metres: heights where the voxels are within one of them, else the voxels'
    upper faces.

    The voxels stay what they are: `earthgen.voxels.heightfield.top_level` of a top is its level.
    Ground level is 0.
    """
    size = np.float32(frame.voxel_size)
    face = (level + 1).astype(np.float32) * size
    near = np.isfinite(height) & (np.abs(height - face) < size)
    fitted = np.clip(height, face - np.float32(0.45) * size, face + np.float32(0.45) * size)
    top = np.where(near, fitted, face)
    return np.where(level < 0, np.float32(0), top).astype(np.float32)
