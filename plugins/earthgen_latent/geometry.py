"""The geometry backend `latent`: cells, latents and voxels by StructFM and StructVAE."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from earthgen.errors import ModelError, PluginError
from earthgen.noise.philox import Noise
from earthgen.stages.backends import Cost, GeometryBackend
from earthgen.stages.blending import independent, raised_cosine
from earthgen.stages.block import Block
from earthgen.stages.stage import Read, Stage
from earthgen.stages.voxel_blending import blend_voxels
from earthgen.terrain.cover import (
    class_code,
    fill_unknown_cover,
    is_class,
    on_surface,
    semantics_on,
)
from earthgen.voxels.tile import LEVELS
from earthgen.voxels.voxels import GEOMETRY_FIELDS
from earthgen_latent.columns import COLUMNS, columns_stage
from earthgen_latent.costs import count_cost
from earthgen_latent.crowns import crown_bases
from earthgen_latent.hanging import hang_columns
from earthgen_latent.height_map import MARGIN
from earthgen_latent.heights import PART as HEIGHT_FLOW
from earthgen_latent.heights import HeightSampler
from earthgen_latent.networks import LearnedBackend, open_networks
from earthgen_latent.sampling import USE, WINDOW, Sampling, condition_names, window_lattice
from earthgen_latent.solid import (
    SOLID_MARGIN,
    Columns,
    building_objects,
    clear_water_and_yards,
    limit_tops,
    plant_objects,
    raise_columns,
    standing_classes,
)
from earthgen_latent.structure import (
    ABSENT,
    COARSE,
    FINE,
    HEIGHTS,
    OCCUPANCY,
    SURFACE,
    VAE,
    CoarseSampler,
    FineSampler,
    Structure,
    decode,
    lattice_unit,
    nested_lattice,
)
from geo_io.frame import Frame

if TYPE_CHECKING:
    from earthgen.stages.block import Inputs

VOXELS = "latent.voxels"


class LatentGeometry(LearnedBackend, GeometryBackend):
    """Voxels decoded from latents.

    Parameters
    ----------
    weights : str or Path, optional
        Folder of a set; None is the set that the package comes with.
    height_map : bool
        Whether heights are generated first, as a condition of the structure; a surface model
        replaces them where it has data.
    window, stride : int, optional
        Of the windows of heights and cells, voxels, and the distance between them. Under the rule
        "crossfaded" one task makes heights, cells, latents and voxels' logits of a core of
        `earthgen_latent.structure.STRIDE` voxels, on context that is dropped.
    surface : int
        Stride of the windows of voxels. Their margins read the cores of neighbours, so that
        windows agree on every voxel in which they overlap.
    variant : int
        Another one gives another structure for the same heights.
    device : str
        Device of torch.
    sparse_backend : str, optional
        As --sparse-backend.
    precision : str
        Of products, in `earthgen_latent.networks.PRECISIONS`.
    use, steps, method, guidance, shift, rule, phases
        As of `earthgen_latent.sampling.Sampling`.
    style : str
        What structure and heights look like: "rules", "real", "any"; "" is "rules" if the weights
        know it.
    map_kind : str
        Of the heights, as of `earthgen_latent.networks.Networks.map_number`.
    """

    name = "latent"

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        height_map: bool = True,
        window: int | None = None,
        stride: int | None = None,
        surface: int = SURFACE,
        variant: int = 0,
        device: str = "cpu",
        sparse_backend: str | None = None,
        precision: str = "auto",
        use: str | Sequence[str] = USE,
        steps: int = Sampling.steps,
        method: str = Sampling.method,
        guidance: float = Sampling.guidance,
        shift: float = Sampling.shift,
        rule: str = Sampling.rule,
        phases: int = Sampling.phases,
        style: str = "",
        map_kind: str = "",
    ) -> None:
        settings = Sampling(steps, method, guidance, shift, condition_names(use), rule, phases)
        with_heights = height_map and "height" in settings.use
        parts = (COARSE, FINE, VAE, *((HEIGHT_FLOW,) if with_heights else ()))
        networks = open_networks(weights, parts, device, sparse_backend, precision)
        for part in (each for each in parts if each != VAE):
            networks.style_number(part, style)  # a clear error before anything is made
        self.map_kind = map_kind
        if with_heights:
            networks.map_number(HEIGHT_FLOW, map_kind)
        cell = networks.config(VAE).stride * networks.config(COARSE).patch
        if any(edge % cell for edge in networks.band):
            raise PluginError(
                f"the band {networks.band} of the weights is not a multiple of {cell} voxels",
                "report it to the plugin's author",
            )
        alone = settings.rule == "crossfaded"
        width, step = (
            nested_lattice(window, stride, lattice_unit(networks, with_heights))
            if alone
            else window_lattice(window, stride, WINDOW, cell)
        )
        super().__init__(networks)
        self.sampling = settings
        self.structure = Structure(networks, settings, width, step, with_heights, variant, style)
        self.surface = surface
        if alone and surface == step and self.structure.margins[2] >= MARGIN + SOLID_MARGIN:
            raise ModelError(
                f"windows of voxels at the stride {step} of the flows' windows would not agree on "
                "the voxels in which they overlap",
                f"give another `surface`, such as {step // 2 // LEVELS[-1] * LEVELS[-1]}",
            )

    def cost(self) -> Cost:
        """Return the cost of a column of voxels."""
        structure = self.structure
        flows = (COARSE, FINE, *((HEIGHT_FLOW,) if structure.heights else ()))
        window = structure.stride + 2 * structure.margins[0]
        return count_cost(
            self.networks, structure.sampling, window, structure.stride, flows, (VAE,)
        )

    def stages(self) -> Sequence[Stage]:
        """Return the stages: columns, heights, cells, latents, voxels' logits, surface."""
        structure = self.structure
        # Windows that carry the context of all of their stages read no neighbour.
        alone = structure.sampling.rule == "crossfaded"
        blended = independent if alone else structure.sampling.stages
        margin = structure.margins[0]
        by_object = structure.heights and self.networks.config(HEIGHT_FLOW).state == "object"
        stages = [columns_stage(by_object)]
        if structure.heights:
            heights = HeightSampler(
                self.networks,
                structure.sampling,
                structure.stride + 2 * margin,
                structure.stride,
                HEIGHTS,
                structure.style,
                self.map_kind,
            )
            stages += blended(heights)
        coarse, fine = CoarseSampler(structure), FineSampler(structure)
        for sampler in (coarse, fine):
            stages += blended(sampler)
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
                structure.stride + 2 * structure.margins[2],
                OCCUPANCY,
                partial(decode, structure),
                around,
                structure.stride,
                merge=None if alone else merge,
            )
        )
        reads = (*structure.sources, VOXELS, "semantics")
        last = Stage(
            "latent.surface",
            self.surface + 2 * MARGIN,
            GEOMETRY_FIELDS,
            partial(make_surface, structure),
            tuple(Read(source, cells=SOLID_MARGIN) for source in reads),
            self.surface,
        )
        return [*stages, last]


def make_surface(structure: Structure, window: Frame, inputs: Inputs, noise: Noise) -> Block:
    """Return the surface of `window`, from candidate voxels with blended logits."""
    inner = window.pad(SOLID_MARGIN)
    conditions: Block = inputs[COLUMNS].crop(inner)
    voxels: Block = inputs[VOXELS].crop(inner)
    level, semantic, kept = highest_voxels(inner, voxels)
    near = {name: inputs[name].crop(inner) for name in structure.sources}
    top = fit_tops(inner, level, structure.heights_on(near))
    top, yard = clear_water_and_yards(fill_unknown_cover(conditions["cover"]), top)
    standing = top > 0
    classes = np.where(standing, standing_classes(conditions["cover"], semantic), semantic)
    built = standing & is_class(classes, "building")
    layer = semantics_on(inputs, inner)
    semantic_above = fill_unknown_cover(classes)
    top = limit_tops(top, semantic_above)
    plants, trunks = plant_objects(inner, semantic_above, noise)
    number = np.where(built, building_objects(inner, layer, noise), plants)
    land = np.where(
        conditions["cover"] != 0, conditions["cover"], np.where(standing, np.uint8(0), semantic)
    )
    columns = Columns(
        top=top,
        ground_class=np.where(yard, np.uint8(class_code("paved")), fill_unknown_cover(land)),
        semantic=semantic_above,
        object=np.where(standing, number, np.uint32(0)),
        base=crown_bases(top, semantic_above, trunks, lowest_plants(inner, voxels, kept)),
    )
    columns = hang_columns(inner, layer, columns)
    assert voxels.xyz is not None, "the stage has sparse fields"
    # Below a top whose class the map corrects, voxels are corrected too.
    right = (classes == semantic)[inner.y[1] - 1 - voxels.xyz[:, 1], voxels.xyz[:, 0] - inner.x[0]]
    above = kept & right & (voxels.xyz[:, 2] >= 0) & (voxels.sparse["semantic"] != 0)
    ground = np.ascontiguousarray(conditions["ground"])
    return raise_columns(
        window, inner, ground, columns, voxels.xyz[above], voxels.sparse["semantic"][above]
    ).block()


def lowest_plants(frame: Frame, voxels: Block, active: NDArray) -> NDArray:
    """Return the lower side of the lowest decoded plant voxel of each column.

    What a network decodes in the air stays in the air. Columns whose lowest plant voxel touches the
    ground have none.

    Parameters
    ----------
    frame : Frame
        The columns.
    voxels : Block
        The n candidates in these columns.
    active : NDArray (n,) bool
        Which of them are active.

    Returns
    -------
    NDArray (ny, nx) float32
        Metres above the ground, NaN for none.
    """
    lowest = np.full(frame.shape, np.inf, np.float32)
    if voxels.xyz is not None and len(voxels.xyz):
        plant = active & on_surface(voxels.sparse["semantic"], "wood", "tree")
        xyz = voxels.xyz[plant]
        xyz = xyz[xyz[:, 2] >= 0]
        row, col = frame.y[1] - 1 - xyz[:, 1], xyz[:, 0] - frame.x[0]
        np.minimum.at(lowest, (row, col), (xyz[:, 2] * frame.voxel_size).astype(np.float32))
    return np.where((lowest > 0) & np.isfinite(lowest), lowest, np.nan).astype(np.float32)


def highest_voxels(frame: Frame, voxels: Block) -> tuple[NDArray, NDArray, NDArray]:
    """Find the highest active voxel of each column.

    Candidates are active if their logit is above 0. In a column with candidates and none above 0
    the most likely one is active, of equals the lowest, so that a surface that is equally likely at
    two heights leaves no hole. A column without candidates is bare ground.

    Parameters
    ----------
    frame : Frame
        The columns.
    voxels : Block
        The n candidates in these columns, sorted by (y, x, z).

    Returns
    -------
    level : NDArray (ny, nx) int32
        z of the highest active voxel, -1 for none.
    semantic : NDArray (ny, nx) uint8
        Its class, 0 for none.
    active : NDArray (n,) bool
        Which candidates are active.
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
    rows = np.flatnonzero(keep)
    # Of each column the last candidate is the highest.
    last = rows[np.concatenate([column[rows][1:] != column[rows][:-1], [True]])]
    level.reshape(-1)[column[last]] = xyz[last, 2]
    semantic.reshape(-1)[column[last]] = voxels.sparse["semantic"][last]
    return level, semantic, keep


def fit_tops(frame: Frame, level: NDArray, height: NDArray) -> NDArray:
    """Return the tops of columns, (ny, nx) float32 metres, with the voxels unchanged.

    A top is the height if the voxels' upper face is within one voxel of it, else the upper face;
    `earthgen.voxels.heightfield.top_level` of a top is the given level. Bare ground is 0.

    Parameters
    ----------
    frame : Frame
        The columns.
    level : NDArray (ny, nx) int32
        z of the highest voxel, -1 for none.
    height : NDArray (ny, nx) float32
        Metres above the ground, NaN unknown.
    """
    size = np.float32(frame.voxel_size)
    face = (level + 1).astype(np.float32) * size
    near = np.isfinite(height) & (np.abs(height - face) < size)
    fitted = np.clip(height, face - np.float32(0.45) * size, face + np.float32(0.45) * size)
    top = np.where(near, fitted, face)
    return np.where(level < 0, np.float32(0), top).astype(np.float32)
