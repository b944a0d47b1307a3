"""Solvers of dx/dt = v(x, t) from noise (t = 1) to data (t = 0)."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]
"""(latents (B, L, C), t) -> velocity `noise - data` of the same shape."""


def euler(velocity: Velocity, latents_BLC: Tensor, sigmas: Sequence[float]) -> Iterator[Tensor]:
    """Yield the latents after each step `x += (t_next - t) v(x, t)`; the last ones are the result."""
    for t, t_next in pairwise(sigmas):
        latents_BLC = latents_BLC + (t_next - t) * velocity(latents_BLC, t)
        yield latents_BLC
