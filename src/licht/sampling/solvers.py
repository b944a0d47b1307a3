"""Solvers of dx/dt = v(x, t) from noise (t = 1) to data (t = 0)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]
"""(latents (B, L, C), t) -> velocity `noise - data` of the same shape."""
Adjust = Callable[[Tensor, float], Tensor]
"""(latents (B, L, C), t) -> latents that are to stand at time t instead."""


@dataclass(frozen=True, slots=True)
class Step:
    """Latents (B, L, C) after a step, and the clean ones that its velocity points to."""

    latents_BLC: Tensor
    clean_BLC: Tensor


def euler_steps(
    velocity: Velocity, latents_BLC: Tensor, sigmas: Sequence[float], adjust: Adjust | None = None
) -> Iterator[Step]:
    """Yield after each step `x += (t_next - t) v(x, t)`, then `x = adjust(x, t_next)`; the last x is the result."""
    for t, t_next in pairwise(sigmas):
        found = velocity(latents_BLC, t)
        clean_BLC = latents_BLC - t * found
        latents_BLC = latents_BLC + (t_next - t) * found
        if adjust is not None:
            latents_BLC, clean_BLC = adjust(latents_BLC, t_next), adjust(clean_BLC, 0.0)
        yield Step(latents_BLC, clean_BLC)


def euler(velocity: Velocity, latents_BLC: Tensor, sigmas: Sequence[float]) -> Iterator[Tensor]:
    """Yield the latents after each step `x += (t_next - t) v(x, t)`; the last ones are the result."""
    for step in euler_steps(velocity, latents_BLC, sigmas):
        yield step.latents_BLC
