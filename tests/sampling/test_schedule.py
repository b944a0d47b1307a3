from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from licht.sampling.schedule import JUMP_TOKENS, empirical_mu, shift_time, sigmas


@pytest.mark.parametrize(
    ("tokens", "steps", "mu"),
    [
        (256, 4, 1.9656),
        (1024, 4, 2.0307),
        (4096, 4, 2.2912),
        (4096, 28, 2.1514),
        (4096, 50, 2.0234),
        (8192, 4, 1.8433),
        (8192, 50, 1.8433),
        (16384, 17, 3.2300),
    ],
)
def test_the_shift_of_the_official_code(tokens: int, steps: int, mu: float) -> None:
    assert empirical_mu(tokens, steps) == pytest.approx(mu, abs=1e-4)


@pytest.mark.parametrize(
    ("tokens", "levels"),
    [
        (256, (1, 0.9554, 0.8771, 0.7041, 0)),
        (1024, (1, 0.9581, 0.8840, 0.7175, 0)),
        (4096, (1, 0.9674, 0.9081, 0.7672, 0)),
        (8192, (1, 0.9499, 0.8633, 0.6780, 0)),
    ],
)
def test_the_levels_of_the_official_code_in_four_steps(tokens: int, levels: tuple[float, ...]) -> None:
    assert sigmas(tokens, 4) == pytest.approx(levels, abs=1e-4)


def test_the_shift_jumps_where_the_official_one_does() -> None:
    assert empirical_mu(JUMP_TOKENS, 4) == pytest.approx(2.31, abs=0.01)
    assert empirical_mu(JUMP_TOKENS + 1, 4) == pytest.approx(1.18, abs=0.01)


@given(st.integers(16, 16384), st.integers(1, 50))
def test_noise_only_decreases_from_one_to_zero(tokens: int, steps: int) -> None:
    levels = sigmas(tokens, steps)
    assert len(levels) == steps + 1
    assert (levels[0], levels[-1]) == (1.0, 0.0)
    assert all(later < earlier for earlier, later in pairwise(levels))


@given(st.floats(1e-6, 1.0), st.floats(-3, 4))
def test_a_shift_is_undone_by_its_opposite(t: float, mu: float) -> None:
    assert shift_time(shift_time(t, mu), -mu) == pytest.approx(t, rel=1e-9)
    assert shift_time(t, 0.0) == pytest.approx(t)
    assert shift_time(0.0, mu) == 0.0
