"""Ratings from votes between two: Elo's numbers, and win rates with intervals. Standard library only."""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

START: Final = 1500.0
"""The rating of a contestant without a vote."""
STEP: Final = 24.0
"""How far one vote can move a rating: Elo's K."""
_SCALE: Final = 400.0
"""Points that make the expected odds ten to one."""
_Z95: Final = 1.959964
"""The two-sided 95 % quantile of the normal distribution."""
_RESAMPLES: Final = 200


@dataclass(frozen=True, slots=True)
class Vote:
    """One comparison. `score` is what `first` got: 1 won, 0.5 a tie, 0 lost."""

    first: str
    second: str
    score: float

    def __post_init__(self) -> None:
        if self.score not in (0.0, 0.5, 1.0):
            raise ValueError(f"score {self.score} is none of 0, 0.5, 1")


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % confidence interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Standing:
    """One contestant's record. `win_rate` counts a tie as half a win."""

    name: str
    rating: float
    rating_interval: Interval
    votes: int
    wins: int
    ties: int
    losses: int
    win_rate: float
    win_rate_interval: Interval


def expected(first: float, second: float) -> float:
    """What the first of two ratings should score: 1 / (1 + 10^((second - first) / 400)) (Elo 1978)."""
    return 1.0 / (1.0 + math.pow(10.0, (second - first) / _SCALE))


def ratings(votes: Iterable[Vote], step: float = STEP) -> dict[str, float]:
    """Ratings after all votes, in their order. Their mean stays at `START`, since one gains what the other loses."""
    now: dict[str, float] = {}
    for vote in votes:
        first, second = now.setdefault(vote.first, START), now.setdefault(vote.second, START)
        moved = step * (vote.score - expected(first, second))
        now[vote.first] = first + moved
        now[vote.second] = second - moved
    return now


def wilson(successes: float, count: int) -> Interval:
    """The 95 % interval of a share (Wilson 1927): it stays within 0 and 1, and is honest for few votes.

    Without a vote nothing is known, and the interval is everything.
    """
    if count == 0:
        return Interval(0.0, 1.0)
    share, z2 = successes / count, _Z95**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def standings(votes: Sequence[Vote], seed: int = 0) -> list[Standing]:
    """Every contestant's record, the best first. Rating intervals come from drawing the votes again (bootstrap)."""
    settled = ratings(votes)
    intervals = _bootstrap(votes, sorted(settled), seed)
    found = [_standing(name, settled[name], intervals[name], votes) for name in settled]
    return sorted(found, key=lambda standing: (-standing.rating, standing.name))


def _standing(name: str, rating: float, interval: Interval, votes: Sequence[Vote]) -> Standing:
    scores = [vote.score for vote in votes if vote.first == name]
    scores += [1.0 - vote.score for vote in votes if vote.second == name]
    total = sum(scores)
    return Standing(
        name=name,
        rating=rating,
        rating_interval=interval,
        votes=len(scores),
        wins=scores.count(1.0),
        ties=scores.count(0.5),
        losses=scores.count(0.0),
        win_rate=total / len(scores),
        win_rate_interval=wilson(total, len(scores)),
    )


def _bootstrap(votes: Sequence[Vote], names: Sequence[str], seed: int) -> Mapping[str, Interval]:
    """The middle 95 % of ratings over resampled votes; a contestant that a sample misses has its starting rating."""
    drawn = random.Random(seed)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(_RESAMPLES):
        sample = ratings(drawn.choices(votes, k=len(votes)))
        for name in names:
            samples[name].append(sample.get(name, START))
    low, high = round(0.025 * (_RESAMPLES - 1)), round(0.975 * (_RESAMPLES - 1))
    ordered = {name: sorted(values) for name, values in samples.items()}
    return {name: Interval(values[low], values[high]) for name, values in ordered.items()}
