import math

import pytest
import torch

from licht.training.config import TimeShape
from licht.training.objectives import draw_times, interpolate, plateau_mode, plateau_times, psnr, shift_times


def test_interpolation_ends_in_data_and_noise() -> None:
    x0, noise = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    x, velocity = interpolate(x0, noise, torch.tensor([0.0, 1.0]))
    assert torch.equal(x[0], x0[0])
    assert torch.equal(x[1], noise[1])
    assert torch.equal(velocity, noise - x0)


def test_the_shift_of_a_logit_normal_moves_its_median() -> None:
    generator = torch.Generator().manual_seed(0)
    t = draw_times(20_000, TimeShape.LOGIT_NORMAL, 4.63, generator)
    assert float(t.median()) == pytest.approx(4.63 / (1 + 4.63), abs=0.01)
    assert shift_times(torch.tensor([0.0, 0.5, 1.0]), 3.0).tolist() == [0.0, 0.75, 1.0]


def test_the_mode_of_the_plateau_solves_its_equation() -> None:
    for mean in (-0.5, 0.0, 1.0):
        t = plateau_mode(mean)
        assert math.log(t / (1 - t)) - mean - (2 * t - 1) == pytest.approx(0, abs=1e-6)


def test_the_plateau_is_logit_normal_below_and_flat_above_its_mode() -> None:
    mean = 1.0
    mode = plateau_mode(mean)
    t = plateau_times((torch.arange(200_000) + 0.5) / 200_000, mean)
    above = t[t > mode]
    thirds = torch.histc(above, 3, mode, 1.0) / len(above)
    assert thirds.tolist() == pytest.approx([1 / 3] * 3, abs=0.01)
    below = t[t <= mode]
    z = torch.logit(below) - mean
    half = torch.logit(torch.tensor(mode)) - mean
    share = float((z < half - 1).float().mean())
    normal = torch.distributions.Normal(0.0, 1.0)
    assert share == pytest.approx(float(normal.cdf(half - 1) / normal.cdf(half)), abs=0.01)


def test_psnr_of_a_known_error() -> None:
    image = torch.zeros(1, 3, 4, 4)
    assert float(psnr(image + 0.02, image)) == pytest.approx(40.0, abs=1e-3)
