"""TexFM: a flow of the textural latent over given voxels (Liu et al., AAAI 2026)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from earthgen.models.conditions import Conditions
from earthgen.models.presets import TexFlowConfig
from earthgen.models.sparse_flow import Objective, SparseFlow
from earthgen.sparse import SparseTensor
from earthgen.sparse.sites import Sites


class TexFlow(SparseFlow):
    """The flow: a sparse U-Net from L to L/8, conditions at every scale, class and normal at the
    first."""

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
        """Features of conditions for voxels, for `forward` and `predictor`.

        semantic : (n,) class codes of the voxels in their order; normal : (n, 3) unit. None is
            unknown
        """
        found = self.cond_net(conditions, self.unet.levels(sites))
        known = torch.zeros(len(sites), 4, device=sites.device)
        if normal is not None:
            known = torch.cat([normal.float(), torch.ones_like(known[:, :1])], 1)
        side = self.normal(known)
        if self.semantic is not None:
            codes = torch.zeros(len(sites), dtype=torch.int64, device=sites.device)
            side = side + self.semantic(codes if semantic is None else semantic.long())
        return [found[0].with_features(found[0].features + side), *found[1:]]

    def flops(self, sites: Sites) -> int:
        """Of products in one evaluation on voxels, without conditions."""
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
    """The loss of one batch.

    latent : normalised (`TexVAE.statistics.normalised`), at the voxels
    weight : (n,) of each voxel, such as 0 where its colour was never seen
    """
    features = model.condition(conditions, latent.sites, semantic, normal)
    return model.loss(
        latent, features, generator, objective, None if weight is None else weight[:, None]
    )
