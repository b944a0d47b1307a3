"""Guidance as a function from velocities to velocities."""

from torch import Tensor


def classifier_free(unconditional: Tensor, conditional: Tensor, scale: float) -> Tensor:
    """`u + scale (c - u)`: scale 1 is the conditional velocity, above it the prompt counts for more."""
    return unconditional + scale * (conditional - unconditional)
