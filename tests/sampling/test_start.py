import pytest
import torch
from torch import Tensor

from licht.sampling.schedule import sigmas
from licht.sampling.solvers import euler, euler_steps
from licht.sampling.start import from_strength, keep_outside, noised


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("steps", "strength", "left"),
    [(4, 1.0, 4), (4, 0.75, 3), (4, 0.76, 4), (4, 0.5, 2), (4, 0.01, 1), (4, 1e-30, 1), (50, 0.8, 40), (50, 0.61, 31)],
)
def test_strength_leaves_the_last_steps(steps: int, strength: float, left: int) -> None:
    whole = sigmas(256, steps)
    assert from_strength(whole, strength) == whole[steps - left :]


def test_noise_comes_in_on_a_straight_line() -> None:
    clean, noise = random(1, 1, 6, 4), random(2, 2, 6, 4)
    assert torch.equal(noised(clean, noise, 1.0), noise)
    assert torch.equal(noised(clean, noise, 0.0), clean.expand(2, -1, -1))
    torch.testing.assert_close(noised(clean, noise, 0.25), 0.25 * noise + 0.75 * clean)


def test_what_is_outside_the_mask_is_the_known_picture_as_noisy_as_the_rest() -> None:
    clean, noise, drawn = random(1, 1, 6, 4), random(2, 2, 6, 4), random(3, 2, 6, 4)
    mask = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.5, 0.0]).reshape(1, 6, 1)
    adjust = keep_outside(mask, clean, noise)
    for t in (0.0, 0.3, 1.0):
        found, known = adjust(drawn, t), noised(clean, noise, t)
        assert torch.equal(found[:, [0, 2, 5]], known[:, [0, 2, 5]])
        assert torch.equal(found[:, [1, 3]], drawn[:, [1, 3]])
        torch.testing.assert_close(found[:, 4], (known[:, 4] + drawn[:, 4]) / 2)


def test_every_step_says_where_it_points_to() -> None:
    data, noise = random(1, 1, 6, 4), random(2, 1, 6, 4)
    schedule = (1.0, 0.8, 0.3, 0.0)
    found = list(euler_steps(lambda latents, t: noise - data, noise, schedule))
    for step, t in zip(found, schedule[1:], strict=True):
        torch.testing.assert_close(step.clean_BLC, data)
        torch.testing.assert_close(step.latents_BLC, noised(data, noise, t))
    plain = list(euler(lambda latents, t: noise - data, noise, schedule))
    assert all(torch.equal(one, step.latents_BLC) for one, step in zip(plain, found, strict=True))


def test_adjusted_latents_are_what_the_next_step_starts_from() -> None:
    given: list[float] = []

    def velocity(latents: Tensor, t: float) -> Tensor:
        given.append(latents.item())
        return torch.ones_like(latents)

    steps = list(euler_steps(velocity, torch.zeros(1, 1, 1), (1.0, 0.5, 0.0), lambda latents, t: latents + 10 * t + 1))
    assert given == [0.0, 5.5]
    assert [step.latents_BLC.item() for step in steps] == [5.5, 6.0]
    assert [step.clean_BLC.item() for step in steps] == [0.0, 6.0]
