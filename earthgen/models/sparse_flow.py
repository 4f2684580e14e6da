"""What the flows over sparse voxels share: network, time, conditions, losses, and how they are
sampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from earthgen.models.blocks import Embedding, check_stride, spread
from earthgen.models.cond_net import CondNet
from earthgen.models.flow import Flow, Predict, guided, times_of
from earthgen.models.flow_loss import flow_loss, shortcut_loss
from earthgen.models.presets import CondConfig, FlowConfig, UNetConfig
from earthgen.models.unet import SparseUNet
from earthgen.sparse import SparseTensor
from earthgen.sparse.sites import Sites

Objective = Literal["flow", "shortcut"]


class SparseFlow(nn.Module):
    """A flow over features of voxels.

    stride : of the voxels that carry the state
    first : stride of the U-Net's finest level
    channels : of the state
    inputs, outputs : of the U-Net, where they are others
    """

    def __init__(
        self,
        unet: UNetConfig,
        condition: CondConfig,
        flow: FlowConfig,
        *,
        stride: int,
        channels: int,
        first: int | None = None,
        inputs: int | None = None,
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        self.flow = Flow.of(flow)
        self.stride, self.channels = stride, channels
        strides = [(first or stride) * 2**level for level in range(len(unet.channels))]
        self.embed = Embedding(flow.embedding)
        self.unet = SparseUNet(unet, inputs or channels, outputs or channels, flow.embedding)
        self.cond_net = CondNet(condition, strides, unet.channels)

    def forward(
        self,
        state: SparseTensor,
        time: Tensor,
        condition: Sequence[SparseTensor],
        step: Tensor | None = None,
    ) -> SparseTensor:
        """What the flow predicts, (n, channels) at the sites of the state.

        time, step : (batch,) float32 in [0, 1]
        condition : of `condition()`, which depends on no state: make it once for all steps of a
            sample
        """
        return self.unet(state, self.embed(time, step), condition)

    def predictor(
        self,
        sites: Sites,
        condition: Sequence[SparseTensor],
        free: Sequence[SparseTensor] | None = None,
        guidance: float = 1.0,
    ) -> Predict:
        """For `earthgen.models.flow.sample`: predictions of (n, channels) states on sites.

        free : features of `conditions.hidden()`, which guidance goes away from
        """
        check_stride(sites, self.stride)

        def by(features: Sequence[SparseTensor]) -> Predict:
            def predict(state: Tensor, time: float, step: float) -> Tensor:
                batch, device = sites.batch_size, sites.device
                times = times_of(time, batch, device), times_of(step, batch, device)
                return self(
                    SparseTensor(sites, state), times[0], features, times[1]
                ).features.float()

            return predict

        return guided(
            by(condition),
            by(condition if free is None else free),
            guidance if free is not None else 1.0,
        )

    def loss(
        self,
        data: SparseTensor,
        condition: Sequence[SparseTensor],
        generator: torch.Generator,
        objective: Objective = "flow",
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of one batch, with a time a sample.

        objective : "flow", or "shortcut" for the steps that teach few-step sampling
        """

        def network(state: Tensor, time: Tensor, step: Tensor) -> Tensor:
            return self(data.with_features(state), time, condition, step).features.float()

        lost = flow_loss if objective == "flow" else shortcut_loss
        return lost(
            self.flow,
            network,
            data.features.float(),
            data.batch_size,
            lambda values: spread(values, data.sites),
            generator,
            weight,
        )
