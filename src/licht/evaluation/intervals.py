"""Figures with what is known of their accuracy: 95 % intervals."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

_Z: Final = 1.959964
_RESAMPLES: Final = 2000


@dataclass(frozen=True, slots=True)
class Row:
    """A figure, its 95 % interval, and how many pictures (or objects, where those are counted) it is over."""

    value: float
    low: float
    high: float
    n: int


_NONE: Final = Row(math.nan, math.nan, math.nan, 0)


def share(hits: Sequence[bool]) -> Row:
    """Share of successes with Wilson's score interval (1927). Not a number for no trials."""
    n = len(hits)
    if not n:
        return _NONE
    p, spread = sum(hits) / n, _Z * _Z / n
    middle = (p + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(p * (1 - p) / n + spread / (4 * n)) / (1 + spread)
    return Row(p, max(0.0, middle - half) if p else 0.0, min(1.0, middle + half) if p < 1 else 1.0, n)


def shares(hits: Iterable[tuple[str, bool]]) -> dict[str, Row]:
    """The share of successes by name, in the order of the names."""
    found: dict[str, list[bool]] = {}
    for name, hit in hits:
        found.setdefault(name, []).append(hit)
    return {name: share(found[name]) for name in sorted(found)}


def mean(values: Sequence[float]) -> Row:
    """Mean with a bootstrap interval: percentiles of resampled means, from a fixed seed."""
    if not values:
        return _NONE
    data = np.asarray(values, np.float64)
    means = data[_resampled(len(data), 0)].mean(1)
    return Row(float(data.mean()), *_percentiles(means), len(data))


def share_of_ceiling(hits: Sequence[bool], ceiling: Sequence[bool]) -> Row:
    """Successes of a model over successes on true pictures of the same prompts, resampled together.

    Where all of the model's pictures fail or all succeed there is nothing to resample: Wilson's interval over the
    ceiling's share.
    """
    ours, true = np.asarray(hits, np.float64), np.asarray(ceiling, np.float64)
    if not true.sum():
        return replace(_NONE, n=len(true))
    value = float(ours.sum() / true.sum())
    if ours.min() == ours.max():
        alone = share(hits)
        return Row(value, alone.low / float(true.mean()), alone.high / float(true.mean()), len(ours))
    at = _resampled(len(ours), 0)
    ratios = ours[at].sum(1) / np.maximum(true[at].sum(1), 1.0)
    return Row(value, *_percentiles(ratios), len(ours))


def gap(hits: Sequence[bool], others: Sequence[bool]) -> Row:
    """Difference of two shares in percentage points, first less second; `n` counts both.

    Newcombe's interval (1998, method 10), out of Wilson's of each: it holds for shares of 0 and 1 too.
    """
    if not hits or not others:
        return replace(_NONE, n=len(hits) + len(others))
    a, b = share(hits), share(others)
    below, above = math.hypot(a.value - a.low, b.high - b.value), math.hypot(a.high - a.value, b.value - b.low)
    apart = a.value - b.value
    return Row(100 * apart, 100 * (apart - below), 100 * (apart + above), a.n + b.n)


def _resampled(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, (_RESAMPLES, count))


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)
