"""A convolutional β-VAE for small square images.

Papers: Kingma, Welling, "Auto-encoding variational Bayes", 2013, arXiv 1312.6114; Higgins et al., "beta-VAE", 2017.
Four convolutions of stride 2, each twice as wide as the previous, and their mirror image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_POOLED = 2
"""Side of the map that the latents are read from, whatever the size of the image."""


class Autoencoder(nn.Module):
    """Encodes images (B,3,h,w) of any size; decodes to (B,3,S,S).

    Args:
        latent: length of the latent vector.
        width: channels of the first convolution.
        image_size: S, a multiple of 16.
    """

    def __init__(self, latent: int, width: int, image_size: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        self._decoded_from = (widths[-1], image_size // 16, image_size // 16)
        self.encoder = nn.Sequential(
            *(_down(inside, outside) for inside, outside in zip([3, *widths[:-1]], widths, strict=True)),
            nn.AdaptiveAvgPool2d(_POOLED),
            nn.Flatten(),
        )
        self.mean = nn.Linear(widths[-1] * _POOLED**2, latent)
        self.log_variance = nn.Linear(widths[-1] * _POOLED**2, latent)
        self.grown = nn.Linear(latent, widths[-1] * (image_size // 16) ** 2)
        self.decoder = nn.Sequential(
            *(_up(inside, outside) for inside, outside in zip(widths[:0:-1], widths[-2::-1], strict=True)),
            nn.ConvTranspose2d(width, 3, kernel_size=4, stride=2, padding=1),
        )

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logarithm of the variance of the latents: (B,3,h,w) -> 2 x (B,latent)."""
        encoded = self.encoder(images - 0.5)
        return self.mean(encoded), self.log_variance(encoded)

    def decode(self, latents: Tensor) -> Tensor:
        """Return images, not confined to [0, 1]: (B,latent) -> (B,3,S,S)."""
        rebuilt: Tensor = self.decoder(self.grown(latents).unflatten(1, self._decoded_from))
        return rebuilt + 0.5


def latents_drawn(mean: Tensor, log_variance: Tensor, chance: torch.Generator) -> Tensor:
    """Draw from N(μ, σ²), such that the draw has derivatives by μ and log σ²: 2 x (B,latent) -> (B,latent).

    The noise is drawn on the CPU, so that it is the same on every device.

    >>> latents_drawn(torch.tensor([[3.0]]), torch.tensor([[-200.0]]), torch.Generator())  # σ = exp(-100)
    tensor([[3.]])
    """
    noise = torch.randn(mean.shape, generator=chance).to(mean.device)
    return mean + (log_variance / 2).exp() * noise


def negative_elbo(images: Tensor, rebuilt: Tensor, mean: Tensor, log_variance: Tensor, *, beta: float) -> Tensor:
    """Return -ELBO of each image: ½ Σ (x - x̂)² over its values + β KL(N(μ, σ²) || N(0, 1)) over its latents.

    Sums over an image, not means: only then have error and divergence the proportion that a Gaussian of unit
    variance around x̂ gives them. Nothing is summed over the batch.

    Args:
        images, rebuilt: (B,3,S,S).
        mean, log_variance: (B,latent).

    Returns:
        (B), ≥ 0.

    >>> black, white = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    >>> negative_elbo(black, white, torch.zeros(1, 4), torch.zeros(1, 4), beta=1.0)  # 12 values off by 1, KL 0
    tensor([6.])
    >>> negative_elbo(white, white, torch.full((1, 4), 3.0), torch.zeros(1, 4), beta=1.0)  # 4 latents of 3² / 2
    tensor([18.])
    """
    error = (images - rebuilt).square().flatten(1).sum(dim=1) / 2  # (B)
    divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1) / 2  # (B)
    return error + beta * divergence


def _down(inside: int, outside: int) -> nn.Sequential:
    convolution = nn.Conv2d(inside, outside, kernel_size=4, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outside), nn.ReLU(inplace=True))


def _up(inside: int, outside: int) -> nn.Sequential:
    convolution = nn.ConvTranspose2d(inside, outside, kernel_size=4, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outside), nn.ReLU(inplace=True))
