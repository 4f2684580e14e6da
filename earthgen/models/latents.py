"""Latents of autoencoders, and their normalisation for flows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from earthgen.sparse.tensor import SparseTensor


@dataclass(frozen=True)
class Latent:
    """A normal distribution for each channel of each voxel.

    Attributes
    ----------
    mean : SparseTensor (n, channels) float32
        Means.
    log_variance : Tensor (n, channels) float32
        Logarithms of the variances, at the same sites.
    """

    mean: SparseTensor
    log_variance: Tensor

    @classmethod
    def of(cls, moments: SparseTensor) -> Latent:
        """Return the latent of (n, 2 channels) features, mean and logarithm of the variance."""
        mean, log_variance = moments.features.float().chunk(2, 1)
        return cls(moments.with_features(mean), log_variance.clamp(-20, 10))

    def sample(self, generator: torch.Generator | None) -> SparseTensor:
        """Draw a sample; None as generator gives the mean. The generator is on the same device."""
        if generator is None:
            return self.mean
        mean = self.mean.features
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return self.mean.with_features(mean + (0.5 * self.log_variance).exp() * noise)

    def divergence(self) -> Tensor:
        """Return the mean Kullback-Leibler divergence from the standard normal distribution."""
        mean, log_variance = self.mean.features, self.log_variance
        each = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
        return each.sum() / max(each.numel(), 1)


class Statistics(nn.Module):
    """Mean and standard deviation of latents by channel, stored with the weights.

    Flows are trained on latents that are normalised by them.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))

    def reset_buffers(self) -> None:
        """Set mean 0 and deviation 1."""
        self.mean.zero_()
        self.deviation.fill_(1)

    def fit(self, latents: Tensor) -> None:
        """Set mean and deviation to those of (n, channels) latents, of many scenes."""
        values = latents.detach().double()
        self.mean.copy_(values.mean(0))
        self.deviation.copy_(values.std(0).clamp(min=1e-3))

    def normalised(self, latent: SparseTensor) -> SparseTensor:
        """Return latents with about mean 0 and deviation 1."""
        return latent.with_features((latent.features - self.mean) / self.deviation)

    def restored(self, latent: SparseTensor) -> SparseTensor:
        """Return the latents that a decoder takes, the inverse of `normalised`."""
        return latent.with_features(latent.features * self.deviation + self.mean)
