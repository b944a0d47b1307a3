"""Noise levels of a run: sigma 1 is pure noise, 0 is data."""

import math

JUMP_TOKENS = 4300
"""Above this many tokens the shift no longer depends on the number of steps; the function jumps there."""


def empirical_mu(tokens: int, steps: int) -> float:
    """Log of the time shift for an output of `tokens` latent tokens in `steps` steps.

    The official fit: two lines in the token count, for 10 and for 200 steps, interpolated in the steps. References do
    not count as tokens.
    """
    mu_200 = 1.6927e-4 * tokens + 0.45666666
    if tokens > JUMP_TOKENS:
        return mu_200
    mu_10 = 8.73809524e-5 * tokens + 1.89833333
    slope = (mu_200 - mu_10) / 190.0
    return slope * steps + (mu_200 - 200.0 * slope)


def shift_time(t: float, mu: float) -> float:
    """`e^mu / (e^mu + (1/t - 1))`: moves a time in (0, 1] towards noise; 0 stays 0."""
    return 0.0 if t == 0.0 else math.exp(mu) / (math.exp(mu) + (1.0 / t - 1.0))


def sigmas(tokens: int, steps: int) -> tuple[float, ...]:
    """The `steps` + 1 noise levels from 1 down to 0 for an output of `tokens` latent tokens."""
    mu = empirical_mu(tokens, steps)
    return tuple(shift_time(1.0 - i / steps, mu) for i in range(steps + 1))
