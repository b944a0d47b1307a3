"""Filters over planes of values: what the watermark's embedding and its search both need.

Legend: R rows and C columns of cells.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from licht.safety.watermark_pattern import PITCH_PX, Floats


def cells(image: Image.Image, height: int, width: int) -> Floats:
    """(R, C): the mean luminance of each cell; cells at the edge may be cut."""
    small = image.reduce(PITCH_PX).convert("L")
    return np.asarray(small, np.float32)[:height, :width]


def high_passed(values: Floats) -> Floats:
    """`values` minus their blur with (1 4 6 4 1)/16, twice in both directions, edges mirrored."""
    return values - _binomial(_binomial(_binomial(_binomial(values)).T).T)


def blurred(values: Floats, radius: int) -> Floats:
    """The mean over squares of 2 `radius` + 1, edges mirrored."""
    return _box(_box(values, radius).T, radius).T


def _binomial(values: Floats) -> Floats:
    padded = np.pad(values, ((0, 0), (2, 2)), mode="reflect")
    outer, inner = padded[:, :-4] + padded[:, 4:], padded[:, 1:-3] + padded[:, 3:-1]
    return np.asarray((outer + 4 * inner + 6 * values) / 16, np.float32)


def _box(values: Floats, radius: int) -> Floats:
    radius = min(radius, values.shape[1] - 1)
    padded = np.pad(values, ((0, 0), (radius + 1, radius)), mode="symmetric")
    total = np.cumsum(padded, axis=1, dtype=np.float64)
    span = 2 * radius + 1
    return ((total[:, span:] - total[:, :-span]) / span).astype(np.float32)


def smooth_size(size: float) -> int:
    """The next whole number with no prime factor above 5: fast to transform."""
    candidate = max(8, math.ceil(size))
    while True:
        rest = candidate
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return candidate
        candidate += 1


def sampled(values: Floats, y_RC: Floats, x_RC: Floats) -> Floats:
    """Linear interpolation; 0 outside."""
    height, width = values.shape
    inside = (y_RC >= 0) & (x_RC >= 0) & (y_RC <= height - 1) & (x_RC <= width - 1)
    y_RC, x_RC = np.clip(y_RC, 0, height - 1.001), np.clip(x_RC, 0, width - 1.001)
    row, column = y_RC.astype(np.int32), x_RC.astype(np.int32)
    down, right = y_RC - row, x_RC - column
    index, flat = row * width + column, values.reshape(-1)
    above = flat[index] * (1 - right) + flat[index + 1] * right
    below = flat[index + width] * (1 - right) + flat[index + width + 1] * right
    return np.asarray(np.where(inside, above * (1 - down) + below * down, 0.0), np.float32)


def pulse(frequencies: NDArray[np.float64]) -> NDArray[np.float64]:
    """The response of Pillow's bicubic enlargement (a = -1/2) by the pitch, by summing its kernel."""
    taps = np.arange(-2 * PITCH_PX, 2 * PITCH_PX + 1)
    x = np.abs(taps) / PITCH_PX
    kernel = np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2)
    response = kernel @ np.cos(2 * np.pi * taps[:, None] * frequencies.reshape(1, -1)) / PITCH_PX
    return np.where(np.abs(frequencies) <= 0.5, response.reshape(frequencies.shape), 0.0)
