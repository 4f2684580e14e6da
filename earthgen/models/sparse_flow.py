"""The base of flows over sparse voxels: network, time, conditions, losses and sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from earthgen.models.blocks import Embedding, check_stride, expand_to_rows
from earthgen.models.cond_net import CondNet
from earthgen.models.flow import Flow, Predict, apply_guidance, batch_of_times
from earthgen.models.flow_loss import flow_loss, shortcut_loss
from earthgen.models.presets import CondConfig, FlowConfig, UNetConfig
from earthgen.models.unet import SparseUNet
from earthgen.sparse.sites import Sites
from earthgen.sparse.tensor import SparseTensor

Objective = Literal["flow", "shortcut"]


class SparseFlow(nn.Module):
    """A flow over features of voxels.

    Parameters
    ----------
    unet, condition, flow
        Configurations of the network, its conditions and the flow.
    stride : int
        Stride of the voxels of the state.
    channels : int
        Channels of the state.
    first : int, optional
        Stride of the U-Net's finest level, if it differs from `stride`.
    inputs, outputs : int, optional
        Channels of the U-Net's input and output, if they differ from `channels`.
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
        self.embed = Embedding(flow.embedding, flow.logit_time)
        self.unet = SparseUNet(unet, inputs or channels, outputs or channels, flow.embedding)
        self.cond_net = CondNet(condition, strides, unet.channels)

    def forward(
        self,
        state: SparseTensor,
        time: Tensor,
        condition: Sequence[SparseTensor],
        step: Tensor | None = None,
    ) -> SparseTensor:
        """Return the flow's prediction, (n, channels) at the sites of the state.

        Parameters
        ----------
        state : SparseTensor (n, channels)
            State at the time.
        time, step : Tensor (batch,) float32
            Time and length of the step, in [0, 1].
        condition : sequence of SparseTensor
            Result of `condition()`. It does not depend on the state: make it once per sample.
        """
        return self.unet(state, self.embed(time, step), condition)

    def predictor(
        self,
        sites: Sites,
        condition: Sequence[SparseTensor],
        free: Sequence[SparseTensor] | None = None,
        guidance: float = 1.0,
    ) -> Predict:
        """Return a function for `earthgen.models.flow.sample`, of (n, channels) states.

        Parameters
        ----------
        sites : Sites
            The n voxels.
        condition : sequence of SparseTensor
            Result of `condition()`.
        free : sequence of SparseTensor, optional
            Features of `conditions.hidden()`, needed for guidance.
        guidance : float
            Scale of classifier-free guidance.
        """
        check_stride(sites, self.stride)

        def by(features: Sequence[SparseTensor]) -> Predict:
            def predict(state: Tensor, time: float, step: float) -> Tensor:
                batch, device = sites.batch_size, sites.device
                times = batch_of_times(time, batch, device), batch_of_times(step, batch, device)
                entry = SparseTensor(sites, self.flow.network_input(state, time))
                return self(entry, times[0], features, times[1]).features.float()

            return predict

        return apply_guidance(
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
        """Return the loss of one batch, with one time per sample.

        Parameters
        ----------
        data : SparseTensor (n, channels)
            Data of the flow.
        condition : sequence of SparseTensor
            Result of `condition()`.
        generator : torch.Generator
            Draws times and noise.
        objective : str
            "flow", or "shortcut" for the steps that train few-step sampling.
        weight : Tensor (n, 1), optional
            Weights of the voxels.
        """

        def network(state: Tensor, time: Tensor, step: Tensor) -> Tensor:
            return self(data.with_features(state), time, condition, step).features.float()

        loss = flow_loss if objective == "flow" else shortcut_loss
        return loss(
            self.flow,
            network,
            data.features.float(),
            data.batch_size,
            lambda values: expand_to_rows(values, data.sites),
            generator,
            weight,
        )
