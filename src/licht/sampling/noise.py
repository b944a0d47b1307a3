"""Noise from a seed, the same on every device."""

import torch
from torch import Tensor


def initial_noise(seed: int, grid: tuple[int, int], channels: int) -> Tensor:
    """(1, rows x columns, channels) float32 tokens of standard normal noise for one picture.

    Drawn on the CPU in the shape (1, channels, rows, columns), as other implementations do with a CPU generator, so
    that a seed gives the same picture alone, in a batch, on every device and elsewhere.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    return grid_to_tokens(torch.randn(1, channels, *grid, generator=generator, dtype=torch.float32))


def grid_to_tokens(latents_BCHW: Tensor) -> Tensor:
    """(B, C, rows, columns) -> (B, L, C) in raster order."""
    return latents_BCHW.flatten(2).transpose(1, 2)


def tokens_to_grid(latents_BLC: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, L, C) -> (B, C, rows, columns)."""
    latents_BCHW: Tensor = latents_BLC.transpose(1, 2).unflatten(2, grid)
    return latents_BCHW
