import torch
from torch import Tensor

from licht.sampling.guidance import classifier_free
from licht.sampling.noise import grid_to_tokens, initial_noise, tokens_to_grid
from licht.sampling.solvers import euler


def test_straight_paths_are_solved_in_one_step() -> None:
    noise, data = torch.randn(1, 4, 3), torch.randn(1, 4, 3)
    for levels in [(1.0, 0.0), (1.0, 0.9, 0.4, 0.0)]:
        *_, last = euler(lambda x, t: noise - data, noise, levels)
        torch.testing.assert_close(last, data)


def test_each_step_is_the_formula_at_the_level_before_it() -> None:
    seen: list[float] = []

    def velocity(x: Tensor, t: float) -> Tensor:
        seen.append(t)
        return t * x

    start = torch.ones(1, 1, 1)
    steps = [float(x) for x in euler(velocity, start, (1.0, 0.5, 0.25, 0.0))]
    assert seen == [1.0, 0.5, 0.25]
    first = 1 + (0.5 - 1) * 1 * 1
    second = first + (0.25 - 0.5) * 0.5 * first
    assert steps == [first, second, second + (0 - 0.25) * 0.25 * second]
    assert float(start) == 1.0


def test_more_steps_come_closer_to_a_curved_path() -> None:
    errors = []
    for steps in (4, 16, 64):
        *_, last = euler(lambda x, t: x, torch.ones(1), [1 - i / steps for i in range(steps + 1)])
        errors.append(abs(float(last) - torch.e**-1))
    assert errors[0] > 3 * errors[1] > 9 * errors[2]


def test_guidance_extrapolates_from_the_unconditional() -> None:
    u, c = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.0])
    assert classifier_free(u, c, 0.0).tolist() == [1.0, 2.0]
    assert classifier_free(u, c, 1.0).tolist() == [2.0, 0.0]
    assert classifier_free(u, c, 4.0).tolist() == [5.0, -6.0]


def test_noise_is_that_of_a_seeded_generator_in_the_shape_of_the_latents() -> None:
    drawn = torch.randn(1, 16, 3, 5, generator=torch.Generator("cpu").manual_seed(42))
    noise = initial_noise(42, (3, 5), 16)
    assert noise.shape == (1, 15, 16)
    assert torch.equal(tokens_to_grid(noise, (3, 5)), drawn)
    assert torch.equal(noise, initial_noise(42, (3, 5), 16))
    assert not torch.equal(noise, initial_noise(43, (3, 5), 16))


def test_the_largest_seed_has_noise_of_its_own() -> None:
    assert not torch.equal(initial_noise(2**63 - 1, (4, 4), 16), initial_noise(0, (4, 4), 16))


def test_noise_takes_nothing_from_the_global_generator() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    initial_noise(1, (4, 4), 16)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_tokens_are_in_raster_order() -> None:
    latents = torch.arange(12.0).reshape(1, 2, 2, 3)
    tokens = grid_to_tokens(latents)
    assert tokens[0].tolist() == [[0, 6], [1, 7], [2, 8], [3, 9], [4, 10], [5, 11]]
    assert torch.equal(tokens_to_grid(tokens, (2, 3)), latents)
