import math

import numpy as np
import pytest
import torch

from licht.core.request import Picture
from licht.core.sizes import Size
from licht.evaluation.measured import (
    Measured,
    largest_pixel_difference,
    relative_error,
    sample_picture,
    share_differing,
)


def test_relative_error_is_the_norm_of_the_difference_over_the_norm_of_the_reference() -> None:
    theirs = torch.tensor([3.0, 4.0])
    assert relative_error(theirs, theirs) == 0.0
    assert relative_error(torch.tensor([3.0, 4.5]), theirs) == pytest.approx(0.1)
    assert relative_error(torch.zeros(2), theirs) == 1.0


def test_relative_error_of_bfloat16_is_taken_in_full_precision() -> None:
    theirs = torch.full((1000,), 1.0, dtype=torch.bfloat16)
    ours = theirs.clone()
    ours[0] += 2**-7
    assert relative_error(ours, theirs) == pytest.approx(2**-7 / math.sqrt(1000))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_infinitely_wrong_on_either_side(value: float) -> None:
    broken, sound = torch.tensor([1.0, value]), torch.tensor([1.0, 2.0])
    assert relative_error(broken, sound) == math.inf
    assert relative_error(sound, broken) == math.inf
    assert relative_error(broken, broken) == math.inf


def test_another_shape_is_wrong_even_if_it_broadcasts() -> None:
    assert relative_error(torch.ones(1, 4), torch.ones(4)) == math.inf
    assert share_differing(torch.ones(1, 4), torch.ones(4)) == 1.0


def test_share_differing_counts_entries() -> None:
    assert share_differing(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 3, 5])) == 0.25


@pytest.mark.parametrize(
    ("error", "tolerance", "expected"),
    [(0.0, 0.0, True), (1e-5, 1e-5, True), (1.1e-5, 1e-5, False), (math.nan, 1.0, False), (math.inf, 1.0, False)],
)
def test_within_is_false_for_what_is_no_number(error: float, tolerance: float, expected: bool) -> None:
    assert Measured("klein", "odd", "velocity", error, tolerance).within is expected


def test_pixels_are_compared_without_wrapping_round() -> None:
    black, white = Picture(2, 1, bytes(6)), Picture(2, 1, bytes([0, 0, 0, 0, 255, 0]))
    assert largest_pixel_difference(black, white) == largest_pixel_difference(white, black) == 1.0
    assert largest_pixel_difference(white, white) == 0.0
    assert largest_pixel_difference(black, Picture(1, 2, bytes(6))) == 1.0


def test_sample_pictures_repeat_and_have_content() -> None:
    first, again, other = (sample_picture(Size(40, 24), seed) for seed in (1, 1, 2))
    assert first == again
    assert largest_pixel_difference(first, other) > 0.3
    pixels = np.frombuffer(first.rgb, dtype=np.uint8).reshape(24, 40, 3)
    assert pixels.std(axis=(0, 1)).min() > 20
