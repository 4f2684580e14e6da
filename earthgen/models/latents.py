"""What an autoencoder says of each voxel or cell, and its scale as a flow wants it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from earthgen.sparse import SparseTensor


@dataclass(frozen=True)
class Latent:
    """A normal distribution for each channel of each voxel.

    Attributes
    ----------
    mean : (n, channels) float32
    log_variance : (n, channels) float32, at the same sites
    """

    mean: SparseTensor
    log_variance: Tensor

    @classmethod
    def of(cls, moments: SparseTensor) -> Latent:
        """From (n, 2 channels), mean and logarithm of the variance, of any dtype."""
        mean, log_variance = moments.features.float().chunk(2, 1)
        return cls(moments.with_features(mean), log_variance.clamp(-20, 10))

    def sample(self, generator: torch.Generator | None) -> SparseTensor:
        """A draw with noise of a generator, which has to be on the latent's device; the mean for
        None."""
        if generator is None:
            return self.mean
        mean = self.mean.features
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return self.mean.with_features(mean + (0.5 * self.log_variance).exp() * noise)

    def divergence(self) -> Tensor:
        """Kullback-Leibler divergence from the standard normal distribution, mean over voxels
        and channels."""
        mean, log_variance = self.mean.features, self.log_variance
        each = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
        return each.sum() / max(each.numel(), 1)


class Statistics(nn.Module):
    """Mean and deviation of latents, by channel, kept with the weights: a flow learns what is
    normalised by them."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))

    def reset_buffers(self) -> None:
        self.mean.zero_()
        self.deviation.fill_(1)

    def fit(self, latents: Tensor) -> None:
        """Take them from (n, channels) latents, of many scenes."""
        found = latents.detach().double()
        self.mean.copy_(found.mean(0))
        self.deviation.copy_(found.std(0).clamp(min=1e-3))

    def normalised(self, latent: SparseTensor) -> SparseTensor:
        """Latents with about mean 0 and deviation 1: what a flow learns."""
        return latent.with_features((latent.features - self.mean) / self.deviation)

    def restored(self, latent: SparseTensor) -> SparseTensor:
        """The other way round: what a decoder takes."""
        return latent.with_features(latent.features * self.deviation + self.mean)
