"""How far quantised tensors are from exact ones."""

import math

from torch import Tensor


def snr(exact: Tensor, other: Tensor) -> float:
    """Signal to noise in decibels."""
    return 10 * math.log10(float(exact.square().sum() / (exact - other).square().sum()))
