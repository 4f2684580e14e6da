"""TexFM: a flow of the textural latent over given voxels (Liu et al., AAAI 2026)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from earthgen.models.conditions import Conditions
from earthgen.models.presets import TexFlowConfig
from earthgen.models.sparse_flow import Objective, SparseFlow
from earthgen.sparse.sites import Sites
from earthgen.sparse.tensor import SparseTensor


class TexFlow(SparseFlow):
    """The flow: a sparse U-Net from L to L/8.

    It has conditions at every scale, class and normal at the first.
    """

    def __init__(self, config: TexFlowConfig) -> None:
        super().__init__(
            config.unet, config.condition, config.flow, stride=1, channels=config.latent
        )
        self.config = config
        width = config.unet.channels[0]
        self.semantic = nn.Embedding(config.classes, width) if config.classes else None
        self.normal = nn.Linear(4, width)

    def condition(
        self,
        conditions: Conditions,
        sites: Sites,
        semantic: Tensor | None = None,
        normal: Tensor | None = None,
    ) -> list[SparseTensor]:
        """Return features of conditions for voxels, for `forward` and `predictor`.

        Parameters
        ----------
        conditions : Conditions
            Conditions of the batch.
        sites : Sites
            The n voxels.
        semantic : Tensor (n,) int, optional
            Class codes of the voxels; None is unknown.
        normal : Tensor (n, 3) float, optional
            Unit normals; None is unknown.
        """
        features = self.cond_net(conditions, self.unet.levels(sites))
        normals = torch.zeros(len(sites), 4, device=sites.device)
        if normal is not None:
            normals = torch.cat([normal.float(), torch.ones_like(normals[:, :1])], 1)
        side = self.normal(normals)
        if self.semantic is not None:
            codes = torch.zeros(len(sites), dtype=torch.int64, device=sites.device)
            side = side + self.semantic(codes if semantic is None else semantic.long())
        return [features[0].with_features(features[0].features + side), *features[1:]]

    def flops(self, sites: Sites) -> int:
        """Return the floating-point operations of one evaluation on voxels, without conditions."""
        return self.unet.flops(sites)


def tex_flow_loss(
    model: TexFlow,
    latent: SparseTensor,
    conditions: Conditions,
    generator: torch.Generator,
    objective: Objective = "flow",
    *,
    semantic: Tensor | None = None,
    normal: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Return the loss of one batch.

    Parameters
    ----------
    model : TexFlow
        The network.
    latent : SparseTensor
        Normalised (`TexVAE.statistics.normalised`), at the n voxels.
    conditions : Conditions
        Conditions of the batch.
    generator : torch.Generator
        Draws times and noise.
    objective : str
        "flow" or "shortcut".
    semantic, normal
        As of `TexFlow.condition`.
    weight : Tensor (n,), optional
        Weight of each voxel, such as 0 if its colour was not seen.
    """
    features = model.condition(conditions, latent.sites, semantic, normal)
    return model.loss(
        latent, features, generator, objective, None if weight is None else weight[:, None]
    )
