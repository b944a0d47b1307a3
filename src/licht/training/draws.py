"""The random numbers of a step: functions of the recipe, the step and what they are for, and of nothing else.

So all processes draw the same, and a run that was killed draws what it would have drawn.
"""

from enum import IntEnum
from typing import Final
from zlib import crc32

import torch

from licht.training.config import Recipe

_APART: Final = 1_000_003
_LEGS: Final = 2**30
_GOLDEN: Final = 0.6180339887498949


class Purpose(IntEnum):
    """What numbers are drawn for, so that those of one purpose do not repeat those of another."""

    BATCH = 0
    DISTILLING = 500_000_009
    BESIDE = 700_000_001
    """What a task needs besides its batch."""
    TURNS = 900_000_011
    """Where the turns of streams begin."""


def generator_of(recipe: Recipe, step: int, purpose: Purpose = Purpose.BATCH) -> torch.Generator:
    """Numbers of one step. A run that starts from another does not repeat what that one saw."""
    leg = 0 if recipe.start_from is None else crc32(recipe.start_from.encode())
    return torch.Generator().manual_seed(recipe.seed * _APART + step + purpose + leg * _LEGS)


def turn(recipe: Recipe, step: int) -> float:
    """A number in [0, 1) for each step; those of steps in a row are evenly spread (multiples of the golden ratio)."""
    offset = float(torch.rand((), generator=generator_of(recipe, 0, Purpose.TURNS)))
    return (offset + step * _GOLDEN) % 1.0
