"""The base of flows over sparse voxels: network, time, conditions, losses and sampling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from earthgen.models.blocks import Embedding, check_stride, expand_to_rows, lookup_table
from earthgen.models.cond_net import CondNet
from earthgen.models.flow import Flow, Predict, apply_guidance, batch_of_times, flow_loss
from earthgen.models.presets import CondConfig, FlowConfig, UNetConfig
from earthgen.models.unet import SparseUNet
from earthgen.sparse.sites import Sites
from earthgen.sparse.tensor import SparseTensor


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
    styles : int
        Names of styles that can be asked for; 0 for a network without.
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
        styles: int = 0,
    ) -> None:
        super().__init__()
        self.flow = Flow.of(flow)
        self.stride, self.channels = stride, channels
        strides = [(first or stride) * 2**level for level in range(len(unet.channels))]
        self.embed = Embedding(flow.embedding, flow.logit_time)
        self.style = lookup_table(styles + 1, flow.embedding) if styles else None
        self.unet = SparseUNet(unet, inputs or channels, outputs or channels, flow.embedding)
        self.cond_net = CondNet(condition, strides, unet.channels)

    def forward(
        self,
        state: SparseTensor,
        time: Tensor,
        condition: Sequence[SparseTensor],
        style: Tensor | None = None,
    ) -> SparseTensor:
        """Return the flow's prediction, (n, channels) at the sites of the state.

        Parameters
        ----------
        state : SparseTensor (n, channels)
            The network's input for a state (`Flow.network_input`).
        time : Tensor (batch,) float32
            Times in [0, 1].
        condition : sequence of SparseTensor
            Result of `condition()`. It does not depend on the state: make it once per sample.
        style : Tensor (batch,), optional
            Numbers of styles, 0 for any.
        """
        return self.unet(state, self.embedded(time, style), condition)

    def embedded(self, time: Tensor, style: Tensor | None = None) -> Tensor:
        """Return the embedding of times and styles, (batch, embedding) float32."""
        found: Tensor = self.embed(time)
        if self.style is None:
            return found
        number = torch.zeros_like(time) if style is None else style.to(time.device)
        return found + self.style(number.long())

    def predictor(
        self,
        sites: Sites,
        condition: Sequence[SparseTensor],
        free: Sequence[SparseTensor] | None = None,
        guidance: float = 1.0,
        style: Tensor | None = None,
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
        style : Tensor (batch,), optional
            Numbers of styles, 0 for any. Guidance does not lead away from a style.
        """
        check_stride(sites, self.stride)

        def by(features: Sequence[SparseTensor]) -> Predict:
            def predict(state: Tensor, time: float) -> Tensor:
                times = batch_of_times(time, sites.batch_size, sites.device)
                entry = SparseTensor(sites, self.flow.network_input(state, time))
                return self(entry, times, features, style).features.float()

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
        weight: Tensor | None = None,
        style: Tensor | None = None,
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
        weight : Tensor (n, 1), optional
            Weights of the voxels.
        style : Tensor (batch,), optional
            Numbers of styles, 0 for any.
        """

        def network(state: Tensor, time: Tensor) -> Tensor:
            return self(data.with_features(state), time, condition, style).features.float()

        return flow_loss(
            self.flow,
            network,
            data.features.float(),
            data.batch_size,
            lambda values: expand_to_rows(values, data.sites),
            generator,
            weight,
        )
