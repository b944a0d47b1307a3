"""Beginning with a picture instead of noise, and keeping a part of it. Shapes: B batch, L tokens, C channels.

Both as in diffusers' pipelines (`Flux2KleinInpaintPipeline`), in float32.
"""

from collections.abc import Sequence

from torch import Tensor

from licht.sampling.solvers import Adjust


def noised(clean_BLC: Tensor, noise_BLC: Tensor, t: float) -> Tensor:
    """The point at time `t` of the straight line from data (0) to noise (1)."""
    return t * noise_BLC + (1.0 - t) * clean_BLC


def from_strength(sigmas: Sequence[float], strength: float) -> tuple[float, ...]:
    """The noise levels that remain of a whole run: the first `N (1 - strength)` of N steps fall away, rounded down.

    At least one step remains; strength 1 leaves all.
    """
    steps = len(sigmas) - 1
    skipped = min(int(steps - min(steps * strength, steps)), steps - 1)
    return tuple(sigmas[skipped:])


def keep_outside(mask_1L1: Tensor, clean_1LC: Tensor, noise_BLC: Tensor) -> Adjust:
    """What puts the known picture back after each step where `mask_1L1` is 0, as noisy as the rest is then.

    Between 0 and 1 the mask mixes both.
    """

    def adjust(latents_BLC: Tensor, t: float) -> Tensor:
        return (1.0 - mask_1L1) * noised(clean_1LC, noise_BLC, t) + mask_1L1 * latents_BLC

    return adjust
