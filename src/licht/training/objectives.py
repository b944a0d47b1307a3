"""What is minimised, beside its formula.

Shapes: B batch, L latent tokens, C channels, H and W pixels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from licht.training.config import AutoencoderLoss, TimeShape

_NEWTON_STEPS = 20


def shift_times(t: Tensor, shift: float) -> Tensor:
    """`s t / (1 + (s - 1) t)`: with s above 1, times move towards noise (t = 1)."""
    return shift * t / (1 + (shift - 1) * t)


def draw_times(count: int, shape: TimeShape, shift: float, generator: torch.Generator) -> Tensor:
    """(count,) float32 times in (0, 1), drawn on the generator's device.

    Stratified: one in each of `count` equally likely parts of the distribution, in a random order, so that batches differ
    less from one another than with independent times.
    """
    device = generator.device
    order = torch.randperm(count, generator=generator, device=device)
    t = (order + torch.rand(count, generator=generator, device=device)) / count
    if shape is TimeShape.LOGIT_NORMAL:
        t = torch.sigmoid(torch.special.ndtri(t.clamp(1e-7, 1 - 1e-7)))
    elif shape is TimeShape.PLATEAU:
        t = plateau_times(t)
    return shift_times(t, shift).clamp(1e-4, 1 - 1e-4)


def plateau_mode(mean: float = 0.0) -> float:
    """The mode t* of a logit-normal distribution of deviation 1: `logit(t) - mean - (2 t - 1) = 0`, by Newton."""
    t = 1 / (1 + math.exp(-mean))
    for _ in range(_NEWTON_STEPS):
        value = math.log(t / (1 - t)) - mean - (2 * t - 1)
        slope = 1 / (t * (1 - t)) - 2
        t = min(max(t - value / slope if slope else t, 1e-6), 1 - 1e-6)
    return t


def plateau_times(uniform: Tensor, mean: float = 0.0) -> Tensor:
    """Times of the plateau logit-normal distribution by inversion of uniform numbers.

    Density: logit-normal up to its mode t*, constant at the mode's density above it; both shares are normalised by
    `CDF(t*) + (1 - t*) pdf(t*)`.
    """
    mode = plateau_mode(mean)
    z = math.log(mode / (1 - mode)) - mean
    below = 0.5 * (1 + math.erf(z / math.sqrt(2)))
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / (mode * (1 - mode))
    mass = uniform * (below + (1 - mode) * density)
    inside = torch.sigmoid(mean + torch.special.ndtri(mass.clamp(1e-7, below)))
    return torch.where(mass < below, inside, mode + (mass - below).clamp(min=0) / density)


def interpolate(x0: Tensor, noise: Tensor, t_B: Tensor) -> tuple[Tensor, Tensor]:
    """`x_t = (1 - t) x0 + t noise` and the velocity `noise - x0` that a network is to predict."""
    t = t_B.view(-1, *[1] * (x0.ndim - 1))
    return (1 - t) * x0 + t * noise, noise - x0


def velocity_loss(predicted_BLC: Tensor, target_BLC: Tensor, weight_BL: Tensor | None = None) -> Tensor:
    """Mean squared error of each sample, (B,); the mean over tokens is weighted by `weight_BL`, if given."""
    error_BLC = (predicted_BLC.float() - target_BLC.float()).square()
    if weight_BL is None:
        return error_BLC.flatten(1).mean(1)
    return (error_BLC.mean(2) * weight_BL).sum(1) / weight_BL.sum(1)


def reconstruction_losses(
    image_BCHW: Tensor, target_BCHW: Tensor, mean: Tensor, log_variance: Tensor, weights: AutoencoderLoss
) -> dict[str, Tensor]:
    """Weighted terms of the autoencoder's loss: squared and absolute error, error of gradients, KL to N(0, 1)."""
    error = image_BCHW - target_BCHW
    along_x, along_y = error.diff(dim=3), error.diff(dim=2)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return {
        "mse": weights.mse * error.square().mean(),
        "l1": weights.l1 * error.abs().mean(),
        "gradient_l1": weights.gradient_l1 * (along_x.abs().mean() + along_y.abs().mean()),
        "kl": weights.kl * kl,
    }


def psnr(image: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each picture in a batch; values in [-1, 1], clamped as when saved."""
    return -10 * torch.log10(F.mse_loss(image.clamp(-1, 1), target, reduction="none").flatten(1).mean(1) / 4)
