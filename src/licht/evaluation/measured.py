"""What a comparison is made of: cases, measured differences, and how large they may be."""

import gc
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import torch
from torch import Tensor

from licht.core.request import Picture
from licht.core.sizes import Size

EXACT: Final = 0.0
ONE_LEVEL: Final = 1.0 / 255.0
"""One step of an 8-bit channel: where the last digit of a rounded pixel may fall either way."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What is allowed in one number format.

    `component` and `drawing` are relative errors, ||ours - theirs|| / ||theirs||, of one network on equal inputs and of
    final latents; `pixels` is the largest difference of any channel of any pixel on a scale from 0 to 1.
    """

    component: float
    drawing: float
    pixels: float


TOLERANCES: Final[Mapping[torch.dtype, Tolerance]] = MappingProxyType(
    {
        torch.float32: Tolerance(component=1e-5, drawing=1e-4, pixels=ONE_LEVEL),
        # eight bits of mantissa: each side is about as far from float32 as the two are from one another
        torch.bfloat16: Tolerance(component=5e-2, drawing=0.25, pixels=0.25),
    }
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One measured difference beside the one that is allowed."""

    variant: str
    case: str
    component: str
    error: float
    tolerance: float

    @property
    def within(self) -> bool:
        """Whether the difference is allowed; one that is not a number never is."""
        return self.error <= self.tolerance


@dataclass(frozen=True, slots=True)
class Case:
    """One drawing to compare. `references` are the sizes of made-up pictures, the first is image 1."""

    name: str
    prompt: str
    size: Size
    references: tuple[Size, ...] = ()


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """`||ours - theirs|| / ||theirs||` in float64; infinite if shapes differ or anything is not finite."""
    ours64, theirs64 = ours.detach().cpu().double(), theirs.detach().cpu().double()
    if ours64.shape != theirs64.shape or not (torch.isfinite(ours64).all() and torch.isfinite(theirs64).all()):
        return math.inf
    return float((ours64 - theirs64).norm() / theirs64.norm())


def share_differing(ours: Tensor, theirs: Tensor) -> float:
    """The share of entries that differ, for things that must be equal; 1 if shapes differ."""
    if ours.shape != theirs.shape:
        return 1.0
    return float((ours.cpu() != theirs.cpu()).double().mean())


def largest_pixel_difference(ours: Picture, theirs: Picture) -> float:
    """The largest difference of a channel between two pictures, from 0 to 1; 1 if their sizes differ."""
    if ours.size != theirs.size:
        return 1.0
    a, b = (np.frombuffer(picture.rgb, dtype=np.uint8).astype(np.int16) for picture in (ours, theirs))
    return float(np.abs(a - b).max()) / 255.0


def sample_picture(size: Size, seed: int) -> Picture:
    """A made-up picture with smooth shades, hard edges and grain, the same for a seed everywhere."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0 : size.height, 0 : size.width].astype(np.float64)
    channels = []
    for _ in range(3):
        fx, fy, phase = generator.uniform(1.0, 5.0), generator.uniform(1.0, 5.0), generator.uniform(0.0, 6.0)
        channels.append(0.5 + 0.35 * np.sin(fx * 2 * np.pi * x / size.width + fy * 2 * np.pi * y / size.height + phase))
    shades = np.stack(channels, axis=-1)
    shades[size.height // 4 : size.height // 2, size.width // 3 : size.width // 2] = generator.uniform(0.0, 1.0, 3)
    shades += generator.normal(0.0, 0.04, shades.shape)
    return Picture(size.width, size.height, (shades.clip(0.0, 1.0) * 255.0).round().astype(np.uint8).tobytes())


def free_memory() -> None:
    """Give back what networks that nobody refers to any more still hold."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
