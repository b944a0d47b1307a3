"""The distance between sets of pictures."""

import pytest
import torch

from licht.core.errors import InvalidRequest
from licht.evaluation.distance import energy_distance
from licht.evaluation.judge import Judge
from licht.world.render import render
from licht.world.sample import sample_scene


def test_equal_distributions_are_near_and_others_far() -> None:
    generator = torch.Generator().manual_seed(0)
    theirs, ours = torch.randn(400, 16, generator=generator), torch.randn(400, 16, generator=generator)
    near, shifted = energy_distance(ours, theirs), energy_distance(ours + 0.5, theirs)
    assert abs(near) < 0.005
    assert shifted > 0.1
    assert energy_distance(2 * ours, theirs) > 0.1


def test_two_points_by_hand() -> None:
    ours, theirs = torch.tensor([[0.0], [4.0]]), torch.tensor([[0.0], [2.0]])
    # in units of the deviation of `theirs`, the root of 2: twice (0 + 2 + 4 + 2) / 4, less 4, less 2
    assert energy_distance(ours, theirs) == pytest.approx((4 - 4 - 2) / 2**0.5)


def test_it_needs_two_pictures() -> None:
    with pytest.raises(InvalidRequest, match="at least two"):
        energy_distance(torch.zeros(1, 4), torch.zeros(5, 4))


def test_the_judge_tells_blurred_pictures_from_sharp_ones() -> None:
    pictures = render([sample_scene("one", 3, index, split="test") for index in range(96)], 128, 128)
    small = torch.nn.functional.avg_pool2d(pictures[:48].permute(0, 3, 1, 2).float(), 8)
    blurred = torch.nn.functional.interpolate(small, scale_factor=8.0, mode="bilinear")
    judge = Judge.load()
    sharp = judge.features(pictures)
    assert sharp.shape == (96, 256)
    far = judge.features(blurred.round().to(torch.uint8).permute(0, 2, 3, 1))
    assert energy_distance(far, sharp[48:]) > 3 * abs(energy_distance(sharp[:48], sharp[48:]))
